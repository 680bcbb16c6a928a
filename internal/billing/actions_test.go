package billing_test

import (
	"errors"
	"testing"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// What the page says cannot be done, and why, is what its request would say.
func TestActions_OfACardThatMayNotBeAskedSayWhatItsRequestsSay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.behave(t, a, sandbox.TokenLost) // asked once, and then never again
	w.use(t, a, "voice", "120000")    // 27.00
	w.closed(t, day(4, 10))
	open := w.unpaid(t, a)
	_, pay := billing.Collector{Core: w.Core}.Pay(t.Context(), asked(a, newKey()), open.ID, payment.MethodID{}, asJSON[payment.Payment](200))
	_, fund := billing.Funder{Core: w.Core}.TopUp(t.Context(), asked(a, newKey()), billing.TopUpInput{Amount: usd(5000)}, nil)
	for name, refused := range map[billing.ActionName]error{billing.ActPayInvoice: pay, billing.ActTopUp: fund} {
		e, ok := errors.AsType[*errs.Error](refused)
		if act := w.action(t, a, name); !ok || act.Allowed || act.Blockers[0].Code != e.Code || !errors.Is(e, billing.ErrCardBudget) {
			t.Errorf("%s is %+v, and its request says %v", name, act, refused)
		}
	}
	m := w.defaultCard(t, a)
	e, _ := errors.AsType[*errs.Error]((billing.Cards{Core: w.Core}).Remove(t.Context(), asked(a, ""), m.ID, m.Version))
	for _, way := range e.Params["ways_out"].([]billing.WayOut) {
		if way.Name == "pay_now" || way.Name == "add_funds" {
			t.Errorf("%s is no way out with this card", way.Name)
		}
	}
}

// While a card is being asked for one invoice, another can be paid.
func TestActions_OfferTheInvoiceThatCanBePaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenProcessing)
	w.use(t, a, "voice", "120000") // 27.00
	w.closed(t, day(4, 10))
	if act := w.action(t, a, billing.ActPayInvoice); act.Allowed || act.Blockers[0].Code != payment.ErrPaymentPending.Code {
		t.Errorf("%+v while the only invoice is being paid", act)
	}
	w.behave(t, a, sandbox.TokenInsufficientFunds)
	w.use(t, a, "voice", "120000")
	w.closed(t, day(5, 10))
	open, err := w.DB.Invoices().Unpaid(t.Context(), a)
	if err != nil || len(open) != 2 {
		t.Fatalf("%+v, %v", open, err)
	}
	act := w.action(t, a, billing.ActPayInvoice)
	if want := "/v1/invoices/" + open[1].ID.String() + "/pay"; !act.Allowed || act.Href != want {
		t.Errorf("%+v, want %s", act, want)
	}
	w.behave(t, a, sandbox.TokenVisa)
	if _, err := (billing.Collector{Core: w.Core}).Pay(t.Context(), asked(a, newKey()), open[1].ID, payment.MethodID{}, asJSON[payment.Payment](200)); err != nil {
		t.Error(err)
	}
}
