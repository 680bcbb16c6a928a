package billing_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// What is given back of an invoice that was written off is written off with the rest: nobody owes it, and
// the books say so. Every invariant must hold at the end.
func TestRefund_OfAnInvoiceThatWasWrittenOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.use(t, a, "voice", "90000") // 13.50
	w.advance(33 * 24 * time.Hour)
	w.sweep(t)
	all, err := w.DB.Invoices().List(t.Context(), a, invoice.Paid, page.Request{Limit: 10})
	if err != nil || len(all.Data) != 1 {
		t.Fatalf("%d paid invoices, %v", len(all.Data), err)
	}
	inv := all.Data[0]
	paid, err := w.DB.Payments().PaymentsOf(t.Context(), a, inv.ID)
	if err != nil || len(paid) != 1 {
		t.Fatalf("%d payments, %v", len(paid), err)
	}
	refund := func(minor int64) payment.Refund {
		t.Helper()
		got, err := billing.Refunder{Core: w.Core}.Refund(t.Context(), asked(a, newKey()),
			billing.RefundInput{Payment: paid[0].ID, Amount: usd(minor), Reason: "test", Origin: payment.ByOperator}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return got.Record
	}
	want := func(due, paid int64, s invoice.Status) {
		t.Helper()
		got, err := w.DB.Invoices().Get(t.Context(), a, inv.ID)
		if err != nil || got.AmountPaid != usd(paid) || got.Status != s {
			t.Errorf("%s with %s paid, %v; want %s with %s", got.Status, got.AmountPaid, err, s, usd(paid))
		}
		if b := w.balance(t, a); b.Due != usd(due) {
			t.Errorf("due %s, want %s", b.Due, usd(due))
		}
	}
	refund(500)
	want(500, 850, invoice.Open)
	w.writeOff(t, a, inv.ID)
	want(0, 850, invoice.Uncollectible)
	refund(300)
	want(0, 550, invoice.Uncollectible)

	// A refund that fails later is a payment after all.
	w.fault(t, sandbox.Fault{Op: "refund", Kind: sandbox.FaultDecline, Code: "expired_or_canceled_card"})
	if r := refund(100); r.Status != payment.Failed {
		t.Fatalf("refund %s, want failed", r.Status)
	}
	want(0, 550, invoice.Uncollectible)
	again, err := billing.Collector{Core: w.Core}.Pay(t.Context(), asked(a, newKey()), inv.ID, payment.MethodID{}, nil)
	if err != nil || again.Record.Status != payment.Succeeded {
		t.Fatalf("%+v, %v", again.Record, err)
	}
	want(0, 1350, invoice.Paid)
}

// An invoice that is too small for any card stays due, quietly: nothing is tried, nobody is dunned, paid
// use goes on, and the next funds pay it.
func TestSmallInvoice_WaitsForFunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.use(t, a, "voice", "60600") // 27 cents; the provider takes no less than 50
	for range 60 {
		w.advance(24 * time.Hour)
		w.sweep(t)
	}
	open, err := w.DB.Invoices().Unpaid(t.Context(), a)
	if err != nil || len(open) != 1 || open[0].AmountDue() != usd(27) || open[0].Dunning != invoice.NotDunned {
		t.Fatalf("%+v, %v", open, err)
	}
	if acct, err := w.DB.Accounts().Get(t.Context(), a); err != nil || acct.Status != "active" {
		t.Errorf("the account is %s, %v", acct.Status, err)
	}
	if c := w.charges(t)[a]; len(c) != 0 {
		t.Errorf("charged %+v", c)
	}
	if act := w.action(t, a, billing.ActPayInvoice); act.Allowed || act.Blockers[0].Code != payment.ErrAmount.Code {
		t.Errorf("the page says %+v, and no card can pay it", act)
	}
	m := w.defaultCard(t, a)
	var e *errs.Error
	if err := (billing.Cards{Core: w.Core}).Remove(t.Context(), asked(a, ""), m.ID, m.Version); !errors.As(err, &e) {
		t.Fatal(err)
	}
	if ways, ok := e.Params["ways_out"].([]billing.WayOut); !ok || !slices.Contains(ways, billing.WayOut{Name: "add_funds", Method: "POST", Href: "/v1/top-ups"}) {
		t.Errorf("the ways out are %+v", e.Params["ways_out"])
	}
	w.topUp(t, a, 1000)
	if b := w.balance(t, a); b.Due != usd(0) || b.Funds != usd(973) {
		t.Errorf("due %s and funds %s", b.Due, b.Funds)
	}
}

// A refund of another amount than was asked for is not what was decided, and is not told as that for a single answer.
func TestRefund_OfAnotherAmountIsNotToldAsMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	p := w.topUp(t, a, 5000).Charge
	w.fault(t, sandbox.Fault{Op: "refund", Kind: sandbox.FaultWrongAmount})
	if ref := w.refund(t, a, p.ID, 2000); ref.Status != payment.Processing {
		t.Errorf("the refund is %s", ref.Status)
	}
}

// giving is a provider that gives back another amount than it is asked for.
type giving struct {
	payment.Gateway
	minor int64
}

func (g giving) Refund(ctx context.Context, r payment.RefundRequest) (payment.RefundResult, error) {
	r.Amount.Minor = g.minor
	return g.Gateway.Refund(ctx, r)
}

// What the provider says twice that it has given back is gone, whatever was asked for. Of 20.00 USD that were asked for,
// what it did not give back is again where it came from, and what it gave back beyond them comes from there too.
func TestRefund_OfAnotherAmountIsBookedAsTheProviderHasIt(t *testing.T) {
	t.Parallel()
	for _, gave := range []int64{1500, 2500} {
		w := newWorld(t)
		top := w.topUp(t, w.onPro(t), 5000).Charge
		a, inv, paid := w.charged(t) // 27.00
		w.Gateway = giving{w.Gateway, gave}
		var of []payment.Refund
		for _, p := range []payment.Payment{top, paid} {
			of = append(of, w.refund(t, p.Account, p.ID, 2000))
			w.wantRefunds(t, p, "operator 2000 processing")
		}
		w.advance(time.Hour)
		w.sweep(t)
		for _, p := range []payment.Payment{top, paid} {
			w.wantRefunds(t, p, fmt.Sprintf("operator %d succeeded", gave))
		}
		w.wantBalance(t, top.Account, 5000-gave, 0)
		w.wantBalance(t, a, 0, gave)
		w.wantInvoice(t, a, inv, invoice.Open, gave)

		for _, ref := range of { // and all of it comes back if it does not arrive
			ref, err := w.DB.Payments().Refund(t.Context(), ref.Account, ref.ID)
			if err == nil {
				err = w.control.SettleRefund(t.Context(), ref.ProviderRef, "expired_or_canceled_card")
			}
			if err != nil {
				t.Fatal(err)
			}
			w.tell(t, ref.ProviderRef)
		}
		w.wantBalance(t, top.Account, 5000, 0)
		w.wantInvoice(t, a, inv, invoice.Paid, 0)
	}
}

// refusing is a provider that answers what it is asked about refunds with an error.
type refusing struct {
	payment.Gateway
	lookUp, make error
}

func (g refusing) LookupRefund(ctx context.Context, l payment.RefundLookup) (payment.RefundResult, error) {
	if g.lookUp != nil {
		return payment.RefundResult{}, g.lookUp
	}
	return g.Gateway.LookupRefund(ctx, l)
}

func (g refusing) Refund(ctx context.Context, r payment.RefundRequest) (payment.RefundResult, error) {
	if g.make != nil {
		return payment.RefundResult{}, g.make
	}
	return g.Gateway.Refund(ctx, r)
}

// refundUnheard gives 20.00 USD of a top-up of 50.00 back, and the answer is lost.
func (w *world) refundUnheard(t *testing.T) (payment.Payment, payment.Refund) {
	t.Helper()
	a := w.onPro(t)
	p := w.topUp(t, a, 5000).Charge
	w.fault(t, sandbox.Fault{Op: "refund", Kind: sandbox.FaultReset})
	ref := w.refund(t, a, p.ID, 2000)
	if ref.Status != payment.Processing {
		t.Fatalf("%+v", ref)
	}
	return p, ref
}

// A provider that refuses to say what became of a refund (our key was withdrawn) has not refused the refund.
func TestRefund_ARefusedQuestionIsNoAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, _ := w.refundUnheard(t)
	w.advance(time.Hour)
	if _, err := (billing.Sweeper{Core: w.another(refusing{Gateway: w.Gateway, lookUp: payment.ErrRejected})}).Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	w.wantRefunds(t, p, "operator 2000 processing")
	w.advance(time.Hour)
	w.sweep(t)
	w.wantRefunds(t, p, "operator 2000 succeeded")
	w.wantBalance(t, p.Account, 3000, 0)
}

// A refund that was given up, because the provider knew nothing of it, and that was made after all is booked.
func TestRefund_MadeAfterItWasGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p, _ := w.refundUnheard(t)
	w.advance(payment.KeyRetention + time.Hour)
	if _, err := (billing.Sweeper{Core: w.another(refusing{Gateway: w.Gateway, lookUp: payment.ErrMissing})}).Sweep(t.Context()); err != nil {
		t.Error(err)
	}
	w.wantRefunds(t, p, "operator 2000 failed")
	for range 2 {
		w.tell(t, w.refundsOf(t, p.ProviderRef)[0])
	}
	w.wantRefunds(t, p, "operator 2000 failed, provider 2000 succeeded")
	w.wantBalance(t, p.Account, 3000, 0)
}

// What the provider cannot give back in the currency's steps comes back to the funds, and is not set aside for ever.
func TestRefund_OfAnAmountThatTheProviderCannotWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	p := w.topUp(t, a, 5000).Charge
	w.Gateway = refusing{Gateway: w.Gateway, make: payment.ErrAmount}
	got, err := billing.Refunder{Core: w.Core}.Refund(t.Context(), asked(a, newKey()),
		billing.RefundInput{Payment: p.ID, Amount: usd(2001), Reason: "test", Origin: payment.ByOperator}, nil)
	if err != nil || got.Record.Status != payment.Failed {
		t.Errorf("the refund is %q, %v", got.Record.Status, err)
	}
	w.wantRefunds(t, p, "operator 2001 failed")
	w.wantBalance(t, a, 5000, 0)
}

// What no card can be given back is refused before anything is set aside, and a top-up of it before a card is asked.
func TestRefund_InTheProvidersSteps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	p := w.topUp(t, a, 5000).Charge
	w.Gateway = limited{w.Gateway, inSteps}
	_, err := billing.Refunder{Core: w.Core}.Refund(t.Context(), asked(a, newKey()),
		billing.RefundInput{Payment: p.ID, Amount: usd(2001), Reason: "test", Origin: payment.ByOperator}, nil)
	if e, ok := errors.AsType[*errs.Error](err); !ok || !errors.Is(e, payment.ErrAmount) || e.Params["step"] != int64(100) {
		t.Errorf("%v, want ErrAmount with the step", err)
	}
	w.wantRefunds(t, p, "")
	_, err = billing.Funder{Core: w.Core}.TopUp(t.Context(), asked(a, newKey()), billing.TopUpInput{Amount: usd(2001)}, nil)
	if e, ok := errors.AsType[*errs.Error](err); !ok || len(e.Fields) != 1 || e.Fields[0].Detail != "A multiple of 1.00 USD." {
		t.Errorf("%v, want the step named", err)
	}
}

// dying is a provider that is asked for a refund by a process which dies before it hears the answer.
type dying struct{ payment.Gateway }

func (g dying) Refund(ctx context.Context, r payment.RefundRequest) (payment.RefundResult, error) {
	_, _ = g.Gateway.Refund(ctx, r)
	runtime.Goexit()
	return payment.RefundResult{}, nil
}

// Whoever carries on the refund of a request that died asks what became of it: the provider may have forgotten its key.
func TestRefund_ResumedWhenTheProviderHasForgottenItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	p := w.topUp(t, a, 5000).Charge
	w.fault(t, sandbox.Fault{Op: "refund", Kind: sandbox.FaultProcessing})
	ask := func(core *billing.Core, key string) (billing.Result[payment.Refund], error) {
		return billing.Refunder{Core: core}.Refund(t.Context(), asked(a, key),
			billing.RefundInput{Payment: p.ID, Amount: usd(2000), Reason: "test", Origin: payment.ByOperator}, asJSON[payment.Refund](202))
	}
	key, died := newKey(), make(chan struct{})
	go func() {
		defer close(died)
		_, _ = ask(w.another(dying{w.Gateway}), key)
	}()
	<-died
	if err := w.control.ForgetKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.advance(25 * time.Hour)
	if _, err := w.db.Pool().Exec(t.Context(), "UPDATE idempotency_keys SET locked_until = now() - interval '1 second'"); err != nil {
		t.Fatal(err)
	}
	got, err := ask(w.Core, key)
	if err != nil || got.Record.Status != payment.Processing {
		t.Fatalf("%+v, %v", got.Record, err)
	}
	ch, err := w.Gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: p.ProviderRef})
	if err != nil || ch.Refunded != usd(2000) {
		t.Errorf("given back %s, %v; want 20.00 USD, once", ch.Refunded, err)
	}
	if err := w.control.SettleRefund(t.Context(), got.Record.ProviderRef, ""); err != nil {
		t.Fatal(err)
	}
	w.tell(t, got.Record.ProviderRef)
	w.wantBalance(t, a, 3000, 0)
}

// A provider may find out days later that money which it has given back did not arrive.
func TestRefund_FailsAfterItHasSucceeded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	p := w.topUp(t, a, 5000).Charge
	ref := w.refund(t, a, p.ID, 2000)
	if ref.Status != payment.Succeeded {
		t.Fatalf("%+v", ref)
	}
	w.wantBalance(t, a, 3000, 0)
	if err := w.control.SettleRefund(t.Context(), ref.ProviderRef, "expired_or_canceled_card"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.tell(t, ref.ProviderRef)
	}
	if ref, err := w.DB.Payments().Refund(t.Context(), a, ref.ID); err != nil || ref.Status != payment.Failed {
		t.Errorf("the refund is %s, %v", ref.Status, err)
	}
	w.wantBalance(t, a, 5000, 0)
}

// A refund that fails gives the money back to us. Where its invoice is void by then, it becomes funds.
func TestRefund_FailsWhenItsInvoiceIsVoid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t)
	w.fault(t, sandbox.Fault{Op: "refund", Kind: sandbox.FaultProcessing})
	ref := w.refund(t, a, p.ID, 2700)
	if ref.Status != payment.Processing {
		t.Fatalf("%+v", ref)
	}
	if _, err := (billing.Adjuster{Core: w.Core}).Void(t.Context(), asked(a, newKey()), inv, "by mistake", nil); err != nil {
		t.Fatal(err)
	}
	if err := w.control.SettleRefund(t.Context(), ref.ProviderRef, "expired_or_canceled_card"); err != nil {
		t.Fatal(err)
	}
	w.tell(t, ref.ProviderRef)
	w.wantInvoice(t, a, inv, invoice.Void, 0)
	w.wantBalance(t, a, 2700, 0)
}

// What is due again is paid from funds where there are any: they are not beside a debt, which a card would be asked for, or
// which would stay when they go back to a card because the account is closed.
func TestRefund_WhatIsDueAgainIsPaidFromFunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t) // 27.00
	top := w.topUp(t, a, 5000).Charge
	w.refund(t, a, p.ID, 1000)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.wantBalance(t, a, 4000, 0)
	w.disputed(t, p)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.wantBalance(t, a, 2300, 0)
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	if top, err := w.DB.Payments().Payment(t.Context(), a, top.ID); err != nil || top.Refunded != usd(2300) {
		t.Errorf("%s given back, %v; want 23.00 USD", top.Refunded, err)
	}
}

// What was given back is not taken again by itself, whatever card comes.
func TestRefund_IsNotUndoneByANewCard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t)
	w.refund(t, a, p.ID, 2700)
	w.addCard(t, a, sandbox.TokenMastercard)
	w.advance(time.Hour)
	w.sweep(t)
	if n := len(w.charges(t)[a]); n != 1 {
		t.Errorf("%d charges: what was given back was taken again", n)
	}
	w.wantInvoice(t, a, inv, invoice.Open, 2700)
}

func TestPartialRefunds_TogetherNeverPassWhatWasTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		minor int64
		want  int
	}{{6000, 1}, {1000, 10}, {3333, 3}} {
		a := w.onPro(t)
		p := w.topUp(t, a, 10000).Charge
		var mu sync.Mutex
		done := 0
		together(20, func(int) {
			got, err := billing.Refunder{Core: w.Core}.Refund(t.Context(), asked(a, newKey()),
				billing.RefundInput{Payment: p.ID, Amount: usd(c.minor), Reason: "test", Origin: payment.ByOperator}, asJSON[payment.Refund](201))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && got.Record.Status == payment.Succeeded:
				done++
			case !errors.Is(err, payment.ErrRefundTooLarge) && !errors.Is(err, billing.ErrFundsSpent):
				t.Errorf("refund of %d: %+v, %v", c.minor, got.Record, err)
			}
		})
		left := 10000 - int64(c.want)*c.minor
		if b := w.balance(t, a); done != c.want || b.Funds != usd(left) {
			t.Errorf("%d refunds of %d and funds of %s, want %d and %s", done, c.minor, b.Funds, c.want, usd(left))
		}
		if ch := w.charges(t)[a]; len(ch) != 1 || ch[0].Refunded != usd(10000-left) {
			t.Errorf("the provider has %+v", ch)
		}
	}
}

func TestRefundNeverPassesWhatWasTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	top := w.topUp(t, a, 10000)
	refunder := billing.Refunder{Core: w.Core}
	got, err := refunder.Refund(t.Context(), asked(a, newKey()), billing.RefundInput{Payment: top.Charge.ID, Amount: usd(6000), Origin: payment.ByOperator}, nil)
	if err != nil || got.Record.Status != payment.Succeeded {
		t.Fatalf("%+v, %v", got.Record, err)
	}
	if _, err := refunder.Refund(t.Context(), asked(a, newKey()), billing.RefundInput{Payment: top.Charge.ID, Amount: usd(6000), Origin: payment.ByOperator}, nil); !errors.Is(err, payment.ErrRefundTooLarge) {
		t.Errorf("%v, want ErrRefundTooLarge", err)
	}
	if b := w.balance(t, a); b.Funds != usd(4000) {
		t.Errorf("funds %s, want 40.00 USD", b.Funds)
	}
}
