package billing_test

import (
	"errors"
	"testing"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
)

// A contract that is agreed on while an upgrade waits for its card stays.
func TestUpgrade_OvertakenByAContract(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	up, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{
		Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.Token3DSSetup}, Profile: &profile,
	}, nil)
	if err != nil || up.Record.Status != payment.RequiresAction {
		t.Fatalf("%+v, %v", up.Record, err)
	}
	k := w.agree(t, a, perMinute("C-1"))
	m, err := w.DB.Payments().Method(t.Context(), a, up.Record.Method)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.control.Act(t.Context(), m.SetupRef, true); err != nil {
		t.Fatal(err)
	}
	got, err := billing.Upgrader{Core: w.Core}.Confirm(t.Context(), a, up.Record.ID)
	if err != nil || got.Status != payment.Canceled {
		t.Errorf("the upgrade is %s, %v; want it canceled", got.Status, err)
	}
	if l := w.level(t, a); l != plan.Enterprise {
		t.Errorf("the account is on %s", l)
	}
	if s := w.contract(t, a, k.ID); s != billing.ContractActive {
		t.Errorf("the contract is %s", s)
	}
	if card := w.defaultCard(t, asked(a, "")); card.ID != m.ID {
		t.Errorf("the card is not on file")
	}
}

// An account under a contract is not taken out of it by its own upgrade.
func TestUpgrade_NotUnderAContract(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.addCard(t, a, sandbox.TokenVisa)
	special := perMinute("C-2")
	special.Plan = plan.Developer
	w.agree(t, a, special)
	_, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{Plan: plan.Pro}, nil)
	if !errors.Is(err, billing.ErrUnderContract) {
		t.Errorf("%v, want ErrUnderContract", err)
	}
}
