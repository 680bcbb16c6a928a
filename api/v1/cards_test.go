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
