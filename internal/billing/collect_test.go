package billing_test

import (
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// Funds that come while a card is being asked for an invoice pay it when the card has said no.
func TestCollect_FundsThatCameMeanwhilePayFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenProcessing)
	w.use(t, a, "voice", "120000") // 27.00
	w.until(t, w.clock().Add(35*24*time.Hour))
	open, err := w.DB.Invoices().Unpaid(t.Context(), a)
	if err != nil || len(open) != 1 {
		t.Fatalf("%+v, %v", open, err)
	}
	asked, err := w.DB.Payments().PaymentsOf(t.Context(), a, open[0].ID)
	if err != nil || len(asked) != 1 || asked[0].Status != payment.Processing {
		t.Fatalf("%+v, %v", asked, err)
	}
	w.addCard(t, a, sandbox.TokenVisa)
	w.topUp(t, a, 10000)
	if err := w.control.Settle(t.Context(), asked[0].ProviderRef, "generic_decline"); err != nil {
		t.Fatal(err)
	}
	w.tell(t, asked[0].ProviderRef)
	w.advance(48 * time.Hour)
	w.sweep(t)
	w.wantInvoice(t, a, open[0].ID, invoice.Paid, 0)
	w.wantBalance(t, a, 7300, 0)
	if n := len(w.charges(t)[a]); n != 1 {
		t.Errorf("%d charges, want that of the top-up alone", n)
	}
}
