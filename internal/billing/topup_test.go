package billing_test

import (
	"testing"

	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// A card that was removed at the provider, of which the webhook was lost, is found out by the first charge that it
// refuses: it is not shown as the active card any more.
func TestTopUp_OfACardThatIsGoneAtTheProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	m := w.defaultCard(t, asked(a, ""))
	err := w.Gateway.Detach(t.Context(), payment.DetachRequest{Key: newKey(), CustomerRef: m.CustomerRef, MethodRef: m.ProviderRef})
	if err != nil {
		t.Fatal(err)
	}
	if top := w.topUp(t, a, 5000); top.Status != payment.Failed {
		t.Errorf("the top-up is %s", top.Status)
	}
	if got := w.card(t, a, m.ID); got.Status != payment.MethodRemoved || got.Default {
		t.Errorf("the card is %s", got.Status)
	}
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
