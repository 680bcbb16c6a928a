package billing_test

import (
	"testing"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// defaultCard returns the account's active card.
func (w *world) defaultCard(t *testing.T, a billing.Asked) payment.Method {
	t.Helper()
	m, err := w.DB.Payments().DefaultMethod(t.Context(), a.Account)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The provider's event about a change may be quicker than its answer to us: the caller's own change is
// then no change of somebody else's.
func TestChangeCard_TheEventAboutItIsQuickerThanTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := asked(w.open(t).ID, "")
	w.upgrade(t, a.Account, sandbox.TokenVisa)
	m := w.defaultCard(t, a)
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "update", Kind: sandbox.FaultWebhookFirst}); err != nil {
		t.Fatal(err)
	}
	moved := m.Billing
	moved.Address.City = "Ockham"
	got, err := billing.Cards{Core: w.Core}.Change(t.Context(), a, m.ID, billing.CardChange{Version: m.Version, Billing: &moved})
	if err != nil || got.Billing != moved {
		t.Fatalf("%+v, %v", got.Billing, err)
	}
	if held := w.defaultCard(t, a); held.Billing != moved || held.Version != got.Version {
		t.Errorf("%+v of version %d, answered %d", held.Billing, held.Version, got.Version)
	}
}
