package billing_test

import (
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// charged is an account whose card has paid an invoice of 27.00 USD.
func (w *world) charged(t *testing.T) (account.ID, invoice.ID, payment.Payment) {
	t.Helper()
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.use(t, a, "voice", "120000")
	w.until(t, w.clock().Add(35*24*time.Hour))
	all, err := w.DB.Invoices().List(t.Context(), a, invoice.Paid, page.Request{Limit: 10})
	if err != nil || len(all.Data) != 1 || all.Data[0].Total != usd(2700) {
		t.Fatalf("%+v, %v", all.Data, err)
	}
	paid, err := w.DB.Payments().PaymentsOf(t.Context(), a, all.Data[0].ID)
	if err != nil || len(paid) != 1 {
		t.Fatalf("%d payments, %v", len(paid), err)
	}
	return a, all.Data[0].ID, paid[0]
}

// disputed has the bank take a payment back, and tells us.
func (w *world) disputed(t *testing.T, p payment.Payment) (dispute string) {
	t.Helper()
	dispute, err := w.control.Dispute(t.Context(), p.ProviderRef)
	if err != nil {
		t.Fatal(err)
	}
	w.tell(t, dispute)
	return dispute
}

// won has the bank give a disputed payment to us again, and tells us.
func (w *world) won(t *testing.T, dispute string) {
	t.Helper()
	if err := w.control.CloseDispute(t.Context(), dispute, true); err != nil {
		t.Fatal(err)
	}
	w.tell(t, dispute)
}

// tell delivers all webhooks about an object.
func (w *world) tell(t *testing.T, ref string) {
	t.Helper()
	for _, e := range w.eventsOf(t, ref) {
		w.deliver(t, e)
	}
}

func (w *world) wantInvoice(t *testing.T, a account.ID, i invoice.ID, s invoice.Status, due int64) {
	t.Helper()
	inv, err := w.DB.Invoices().Get(t.Context(), a, i)
	if err != nil || inv.Status != s || inv.AmountDue() != usd(due) {
		t.Errorf("the invoice is %s with %s due, %v; want %s with %s", inv.Status, inv.AmountDue(), err, s, usd(due))
	}
}

func (w *world) wantBalance(t *testing.T, a account.ID, funds, due int64) {
	t.Helper()
	if b := w.balance(t, a); b.Funds != usd(funds) || b.Due != usd(due) {
		t.Errorf("funds %s and %s due, want %s and %s", b.Funds, b.Due, usd(funds), usd(due))
	}
}

func (w *world) refund(t *testing.T, a account.ID, p payment.ID, minor int64) payment.Refund {
	t.Helper()
	got, err := billing.Refunder{Core: w.Core}.Refund(t.Context(), asked(a, newKey()),
		billing.RefundInput{Payment: p, Amount: usd(minor), Reason: "test", Origin: payment.ByOperator}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got.Record
}

// Funds may pay for an invoice as often as parts of it are given back, also when what is paid of it comes to the same
// sum again.
func TestTopUp_PaysAgainForWhatWasGivenBackAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t)
	w.refund(t, a, p.ID, 1000)
	w.topUp(t, a, 500)
	w.wantInvoice(t, a, inv, invoice.Open, 500)
	w.refund(t, a, p.ID, 500)
	w.wantInvoice(t, a, inv, invoice.Open, 1000)
	if top := w.topUp(t, a, 500); top.Status != payment.Succeeded {
		t.Errorf("the second top-up is %s", top.Status)
	}
	w.wantInvoice(t, a, inv, invoice.Open, 500)
	w.wantBalance(t, a, 0, 500)
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

// A refund that fails gives the money back to us. Where its invoice is void by then, it becomes funds.
func TestRefund_FailsWhenItsInvoiceIsVoid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t)
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "refund", Kind: sandbox.FaultProcessing}); err != nil {
		t.Fatal(err)
	}
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
