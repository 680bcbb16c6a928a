package billing_test

import (
	"context"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
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
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
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
	if _, err := (billing.Adjuster{Core: w.Core}).WriteOff(t.Context(), asked(a, newKey()), inv.ID, "goodwill", nil); err != nil {
		t.Fatal(err)
	}
	want(0, 850, invoice.Uncollectible)
	refund(300)
	want(0, 550, invoice.Uncollectible)

	// A refund that fails later is a payment after all.
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "refund", Kind: sandbox.FaultDecline, Code: "expired_or_canceled_card"}); err != nil {
		t.Fatal(err)
	}
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
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
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
	w.topUp(t, a, 1000)
	if b := w.balance(t, a); b.Due != usd(0) || b.Funds != usd(973) {
		t.Errorf("due %s and funds %s", b.Due, b.Funds)
	}
}

// A refund of another amount than was asked for is not what was decided, and is not told as that.
func TestRefund_OfAnotherAmountIsNotToldAsMade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	p := w.topUp(t, a, 5000).Charge
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "refund", Kind: sandbox.FaultWrongAmount}); err != nil {
		t.Fatal(err)
	}
	if ref := w.refund(t, a, p.ID, 2000); ref.Status != payment.Processing {
		t.Errorf("the refund is %s", ref.Status)
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
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	p := w.topUp(t, a, 5000).Charge
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "refund", Kind: sandbox.FaultReset}); err != nil {
		t.Fatal(err)
	}
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
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
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
