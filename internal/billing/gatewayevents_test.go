package billing_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// telling is a provider that, asked what it told of, answers with this.
type telling struct {
	payment.Gateway
	object payment.Object
	err    error
}

func (g telling) Fetch(context.Context, payment.ObjectKind, string) (payment.Object, error) {
	return g.object, g.err
}

// stored keeps a webhook about an object, on which nobody has acted yet.
func (w *world) stored(t *testing.T, kind payment.ObjectKind, ref string) payment.ProviderEvent {
	t.Helper()
	e := payment.ProviderEvent{
		Provider: w.Gateway.Name(), EventID: newKey(), Type: string(kind), Object: kind, ObjectRef: ref, Payload: []byte("{}"),
		ReceivedAt: w.clock(), NextTryAt: w.clock(),
	}
	if _, err := w.DB.Payments().SaveEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	return e
}

func (w *world) disputedOf(t *testing.T, a account.ID, p payment.ID) int64 {
	t.Helper()
	got, err := w.DB.Payments().Payment(t.Context(), a, p)
	if err != nil {
		t.Fatal(err)
	}
	return got.Disputed.Minor
}

// A dispute is told of once, and nobody asks for it unasked: it is booked however long the provider was away.
func TestWebhooks_ADisputeOutlastsAnyOutage(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]error{"silent": payment.ErrUnknown, "refuses our key": payment.ErrRejected} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.open(t).ID
			w.upgrade(t, a, sandbox.TokenVisa)
			p := w.topUp(t, a, 10000).Charge
			d, err := w.control.Dispute(t.Context(), p.ProviderRef)
			if err != nil {
				t.Fatal(err)
			}
			w.stored(t, payment.ObjectDispute, d)
			away := billing.Sweeper{Core: w.another(telling{Gateway: w.Gateway, err: fault})}
			for range 48 { // hours
				_, _ = away.Sweep(t.Context())
				w.advance(time.Hour)
			}
			w.sweep(t)
			if got := w.disputedOf(t, a, p.ID); got != 10000 {
				t.Errorf("disputed are %d cents, want 10000", got)
			}
		})
	}
}

// The provider's account may serve others as well, with charges that are no charges of ours.
func TestWebhooks_WhatBelongsToNoChargeIsNotOurs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for kind, object := range map[payment.ObjectKind]payment.Object{
		payment.ObjectDispute: {Dispute: &payment.DisputeResult{Ref: "dp_other", Status: payment.DisputeOpen, Withdrawn: true, Amount: usd(500)}},
		payment.ObjectRefund:  {Refund: &payment.RefundResult{Ref: "re_other", Outcome: payment.OutcomeSucceeded, Amount: usd(500)}},
	} {
		e := w.stored(t, kind, "other")
		listen := billing.Listener{Core: w.another(telling{Gateway: w.Gateway, object: object})}
		if err := listen.Process(t.Context(), e.Provider, e.EventID); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		var outcome string
		err := w.db.Pool().QueryRow(t.Context(), "SELECT outcome FROM provider_events WHERE event_id = $1 AND processed_at IS NOT NULL", e.EventID).Scan(&outcome)
		if err != nil || outcome != "not_ours" {
			t.Errorf("the %s is %q, %v; want not_ours", kind, outcome, err)
		}
	}
}

// A bank may reverse itself: what it gives back of a dispute that was lost is the account's again.
func TestWebhooks_ADisputeThatWasLostIsWonAfterAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	p := w.topUp(t, a, 10000).Charge
	for _, status := range []payment.DisputeStatus{payment.DisputeLost, payment.DisputeWon, payment.DisputeLost} {
		object := payment.Object{Dispute: &payment.DisputeResult{
			Ref: "dp_1", ChargeRef: p.ProviderRef, Status: status, Withdrawn: status == payment.DisputeLost, Amount: usd(10000),
		}}
		e := w.stored(t, payment.ObjectDispute, "dp_1")
		if err := (billing.Listener{Core: w.another(telling{Gateway: w.Gateway, object: object})}).Process(t.Context(), e.Provider, e.EventID); err != nil {
			t.Fatal(err)
		}
	}
	if got, b := w.disputedOf(t, a, p.ID), w.balance(t, a); got != 0 || b.Funds != usd(10000) {
		t.Errorf("disputed are %d cents, funds are %s; want 0 and 100.00 USD", got, b.Funds)
	}
}

// refundOutside has somebody give money back at the provider itself, and tells us of it.
func (w *world) refundOutside(t *testing.T, charge string, minor int64) (refund string) {
	t.Helper()
	before := w.refundsOf(t, charge)
	if err := w.control.Refund(t.Context(), charge, minor); err != nil {
		t.Fatal(err)
	}
	refund = w.refundsOf(t, charge)[len(before)]
	w.tell(t, refund)
	return refund
}

// wantRefunds compares a payment's refunds, oldest first.
func (w *world) wantRefunds(t *testing.T, p payment.Payment, want string) {
	t.Helper()
	all, err := w.DB.Payments().RefundsOf(t.Context(), p.Account, p.ID)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]string, 0, len(all))
	for _, r := range all {
		got = append(got, fmt.Sprintf("%s %d %s", r.Origin, r.Amount.Minor, r.Status))
	}
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("refunds are %s; want %s", s, want)
	}
}

// What somebody gives back at the provider while a refund of ours is on its way is booked, whatever becomes of ours.
func TestWebhooks_ARefundAtTheProviderWhileOneOfOursIsOnItsWay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		theirs int64
		funds  int64
		want   string
	}{
		"OursSucceeds":      {2000, 0, "operator 3000 succeeded, provider 2000 succeeded"},
		"OursIsTooMuchThen": {4000, 1000, "operator 3000 failed, provider 4000 succeeded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.open(t).ID
			w.upgrade(t, a, sandbox.TokenVisa)
			p := w.topUp(t, a, 5000).Charge
			lost := false
			if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "refund", Kind: sandbox.FaultReset, Effect: &lost}); err != nil {
				t.Fatal(err)
			}
			if ours := w.refund(t, a, p.ID, 3000); ours.Status != payment.Processing {
				t.Fatalf("%+v", ours)
			}
			theirs := w.refundOutside(t, p.ProviderRef, c.theirs)
			w.advance(time.Hour)
			w.sweep(t)
			w.advance(time.Hour)
			w.sweep(t)
			w.tell(t, theirs)
			w.wantRefunds(t, p, c.want)
			w.wantBalance(t, a, c.funds, 0)
		})
	}
}

// A refund that somebody made at the provider, and that did not arrive, is taken back in the books.
func TestWebhooks_ARefundAtTheProviderThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	p := w.topUp(t, a, 5000).Charge
	first := w.refundOutside(t, p.ProviderRef, 2000)
	w.refundOutside(t, p.ProviderRef, 500)
	w.wantBalance(t, a, 2500, 0)
	if err := w.control.SettleRefund(t.Context(), first, "expired_or_canceled_card"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.tell(t, first)
	}
	w.wantRefunds(t, p, "provider 2000 failed, provider 500 succeeded")
	w.wantBalance(t, a, 4500, 0)
}

// One that has failed by the time that we are told of it takes nothing, also not when an older word of it comes later.
func TestWebhooks_ARefundAtTheProviderThatHasFailedBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	p := w.topUp(t, a, 5000).Charge
	if err := w.control.Refund(t.Context(), p.ProviderRef, 2000); err != nil {
		t.Fatal(err)
	}
	refund := w.refundsOf(t, p.ProviderRef)[0]
	charge, err := w.Gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: p.ProviderRef})
	if err != nil {
		t.Fatal(err)
	}
	refunds, err := w.Gateway.Refunds(t.Context(), p.ProviderRef)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.control.SettleRefund(t.Context(), refund, "expired_or_canceled_card"); err != nil {
		t.Fatal(err)
	}
	w.tell(t, refund)
	e := w.stored(t, payment.ObjectRefund, refund)
	if err := (billing.Listener{Core: w.another(remembering{w.Gateway, charge, refunds})}).Process(t.Context(), e.Provider, e.EventID); err != nil {
		t.Fatal(err)
	}
	w.wantRefunds(t, p, "provider 2000 failed")
	w.wantBalance(t, a, 5000, 0)
}

// remembering is a provider whose answers about a charge and its refunds were long on their way.
type remembering struct {
	payment.Gateway
	charge  payment.ChargeResult
	refunds []payment.RefundResult
}

func (g remembering) LookupCharge(context.Context, payment.ChargeLookup) (payment.ChargeResult, error) {
	return g.charge, nil
}

func (g remembering) Refunds(context.Context, string) ([]payment.RefundResult, error) {
	return g.refunds, nil
}

// A dispute takes what a refund of ours has set aside, if the refund is not made any more.
func TestWebhooks_ADisputeWhileARefundOfOursIsOnItsWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	p := w.topUp(t, a, 5000).Charge
	lost := false
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "refund", Kind: sandbox.FaultReset, Effect: &lost}); err != nil {
		t.Fatal(err)
	}
	w.refund(t, a, p.ID, 3000)
	w.disputed(t, p)
	for range 2 {
		w.advance(time.Hour)
		w.sweep(t)
	}
	w.wantRefunds(t, p, "operator 3000 failed")
	w.wantBalance(t, a, 0, 0)
	if got := w.disputedOf(t, a, p.ID); got != 5000 {
		t.Errorf("disputed are %d cents, want 5000", got)
	}
}

// misreporting is a provider that takes what it is asked for, and says that it took a cent more.
type misreporting struct{ payment.Gateway }

func (g misreporting) Charge(ctx context.Context, r payment.ChargeRequest) (payment.ChargeResult, error) {
	res, err := g.Gateway.Charge(ctx, r)
	res.Amount.Minor++
	return res, err
}

// A dispute of a payment that waits for a person is booked when the person has decided that it was made.
func TestWebhooks_ADisputeOfAParkedPayment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	top, err := billing.Funder{Core: w.another(misreporting{w.Gateway})}.TopUp(t.Context(), asked(a, newKey()), billing.TopUpInput{Amount: usd(5000)}, nil)
	if err != nil || top.Record.Charge.Status != payment.Parked {
		t.Fatalf("%+v, %v", top.Record, err)
	}
	p := top.Record.Charge
	w.disputed(t, p)
	w.wantBalance(t, a, 0, 0)
	if _, err := (billing.Resolver{Core: w.Core}).Unpark(t.Context(), asked(a, newKey()), p.ID, billing.AskAgain, "test", nil); err != nil {
		t.Fatal(err)
	}
	w.advance(time.Hour)
	w.sweep(t)
	w.wantBalance(t, a, 0, 0)
	if got := w.disputedOf(t, a, p.ID); got != 5000 {
		t.Errorf("disputed are %d cents, want 5000", got)
	}
}

// inquiring is a provider whose disputes are mere questions of the bank: no money has moved.
type inquiring struct{ payment.Gateway }

func (g inquiring) Fetch(ctx context.Context, k payment.ObjectKind, ref string) (payment.Object, error) {
	o, err := g.Gateway.Fetch(ctx, k, ref)
	if o.Dispute != nil {
		o.Dispute.Withdrawn = false
	}
	return o, err
}

func TestDispute_AnInquiryTakesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t)
	provider := w.Gateway
	w.Gateway = inquiring{provider}
	dispute := w.disputed(t, p)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.Gateway = provider // the bank has made up its mind
	if err := w.control.CloseDispute(t.Context(), dispute, false); err != nil {
		t.Fatal(err)
	}
	w.tell(t, dispute)
	w.wantInvoice(t, a, inv, invoice.Open, 2700)
	w.wantBalance(t, a, 0, 2700)
}

// A dispute that is won gives the money back. Where funds have paid for the invoice meanwhile, it becomes funds.
func TestDispute_WonAfterTheInvoiceWasPaidOtherwise(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t)
	dispute := w.disputed(t, p)
	w.wantInvoice(t, a, inv, invoice.Open, 2700)
	w.topUp(t, a, 3000)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.won(t, dispute)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.wantBalance(t, a, 3000, 0)
}

// A dispute that is won while the customer pays the invoice once more pays it; the second payment becomes funds.
func TestDispute_WonWhileTheInvoiceIsPaidOnceMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t)
	dispute := w.disputed(t, p)
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultRequiresAction}); err != nil {
		t.Fatal(err)
	}
	again, err := billing.Collector{Core: w.Core}.Pay(t.Context(), asked(a, newKey()), inv, payment.MethodID{}, nil)
	if err != nil || again.Record.Status != payment.RequiresAction {
		t.Fatalf("%+v, %v", again.Record, err)
	}
	w.won(t, dispute)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	if err := w.control.Act(t.Context(), again.Record.ProviderRef, true); err != nil {
		t.Fatal(err)
	}
	w.tell(t, again.Record.ProviderRef)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.wantBalance(t, a, 2700, 0)
	// One of the two was not needed: what is given back of them comes from the funds first.
	w.refund(t, a, again.Record.ID, 2700)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.wantBalance(t, a, 0, 0)
}

// What a card network takes back of an invoice is due again, and is not charged again by itself, however long it takes;
// if the dispute is won, it is paid.
func TestDispute_StopsDunning(t *testing.T) {
	t.Parallel()
	for name, won := range map[string]bool{"Lost": false, "Won": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.open(t)
			w.upgrade(t, a.ID, sandbox.TokenVisa)
			w.use(t, a.ID, "voice", "120000") // 27.00
			w.until(t, w.clock().Add(35*24*time.Hour))
			taken := w.charges(t)[a.ID]
			if len(taken) != 1 {
				t.Fatalf("%d charges, want that of the invoice", len(taken))
			}
			dispute, err := w.control.Dispute(t.Context(), taken[0].Ref)
			if err != nil {
				t.Fatal(err)
			}
			told := func() {
				for _, e := range w.eventsOf(t, dispute) {
					w.deliver(t, e)
				}
			}
			told()
			due, err := w.DB.Invoices().Unpaid(t.Context(), a.ID)
			if err != nil || len(due) != 1 || due[0].AmountDue() != usd(2700) {
				t.Fatalf("due is %+v, %v; want the invoice again", due, err)
			}
			for range 70 { // days
				w.advance(24 * time.Hour)
				w.sweep(t)
			}
			if acct, err := w.DB.Accounts().Get(t.Context(), a.ID); err != nil || acct.Status != account.Active {
				t.Errorf("the account is %s, %v: a dispute suspends nobody", acct.Status, err)
			}
			if err := w.control.CloseDispute(t.Context(), dispute, won); err != nil {
				t.Fatal(err)
			}
			told()
			if n := len(w.charges(t)[a.ID]); n != 1 {
				t.Errorf("%d charges: what is disputed was charged again", n)
			}
			want := invoice.Open
			if won {
				want = invoice.Paid
			}
			if inv, err := w.DB.Invoices().Get(t.Context(), a.ID, due[0].ID); err != nil || inv.Status != want {
				t.Errorf("the invoice is %s, %v; want %s", inv.Status, err, want)
			}
		})
	}
}
