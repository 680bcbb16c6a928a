package v1_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/pkg/money"
)

// act is the customer's answer to the bank's question about a card that is being added.
func (w *world) act(t *testing.T, a account.ID, method string, approve bool) {
	t.Helper()
	m, err := w.DB.Payments().Method(t.Context(), a, id.MustParse[payment.Method](method))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.control.Act(t.Context(), m.SetupRef, approve); err != nil {
		t.Fatal(err)
	}
}

// giveCard is the customer filling in the provider's own card form.
func (w *world) giveCard(t *testing.T, a account.ID, setup, token string) {
	t.Helper()
	s, err := w.DB.Payments().Setup(t.Context(), a, setup)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.control.GiveCard(t.Context(), s.Ref, token); err != nil {
		t.Fatal(err)
	}
}

// tryUse reports usage now, whatever comes of it.
func (w *world) tryUse(t *testing.T, a account.ID, meter, quantity string) metering.Result {
	t.Helper()
	return w.tryUseAt(t, a, meter, quantity, w.clock())
}

func (w *world) tryUseAt(t *testing.T, a account.ID, meter, quantity string, at time.Time) metering.Result {
	t.Helper()
	res, err := w.ingest.Add(t.Context(), []metering.Event{{
		Account: a, Source: "test", ID: uuid.NewString(), Meter: meter, Quantity: money.MustDecimal(quantity), OccurredAt: at,
	}})
	if err != nil || len(res) != 1 {
		t.Fatalf("ingest: %v, %v", res, err)
	}
	return res[0]
}

// robot is an integration of the account, by an API key with ceilings.
func (w *world) robot(t *testing.T, a account.ID, ceilings auth.Ceilings) caller {
	t.Helper()
	maker := auth.Principal{Kind: auth.User, Account: a, Scopes: []auth.Scope{auth.BillingRead, auth.PaymentsWrite}}
	_, text, err := w.keys.Create(t.Context(), maker, auth.NewKey{Account: a, Name: "robot", Scopes: maker.Scopes, Ceilings: ceilings})
	if err != nil {
		t.Fatal(err)
	}
	return caller{w: w, header: http.Header{}, token: text.Reveal}
}

// A card has one budget of declines, whoever asks it for what: collecting by itself, paying now, adding funds, another
// account. Another card is asked all the same.
func TestCardBudget_IsSharedByEverythingThatAsksTheCard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Policy.Dunning.CardAttempts = 3
	_, ada := w.billed(t, sandbox.TokenChargeDeclined) // the first: the invoice was collected by itself
	pay := "/v1/invoices/" + ada.get(t, "/v1/invoices?status=open").str(t, "data", 0, "id") + "/pay"
	ada.post(t, "/v1/top-ups", funds(5000)).problem(t, http.StatusPaymentRequired, "card_declined")
	ada.post(t, pay, "").problem(t, http.StatusPaymentRequired, "card_declined")

	_, eve := w.upgraded(t, sandbox.TokenChargeDeclined)
	for name, res := range map[string]response{
		"adding funds": ada.post(t, "/v1/top-ups", funds(5000)), "paying now": ada.post(t, pay, ""),
		"looking first": ada.post(t, "/v1/top-ups/preview", funds(5000)), "another account": eve.post(t, "/v1/top-ups", funds(5000)),
	} {
		if res.problem(t, http.StatusConflict, "card_attempts_exhausted").str(t, "retry_after") == "" {
			t.Errorf("%s: %s does not say when the card may be asked again", name, res.Body)
		}
	}
	if n := len(ada.get(t, "/v1/payments").at(t, "data").([]any)); n != 3 {
		t.Errorf("%d payments were begun, want 3", n)
	}
	ada.post(t, "/v1/payment-methods", cardBody(sandbox.TokenMastercard)).want(t, http.StatusCreated)
	ada.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated)
	w.check(t)
}
