package billing_test

import (
	"errors"
	"testing"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
)

// A migration that is killed goes on with those who are left, and nobody is moved twice.
func TestMigrationGoesOnWhereItStopped(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var accounts []account.ID
	for range 5 {
		a := w.onPro(t)
		accounts = append(accounts, a)
	}
	held := perMinute("C-1")
	held.Plan = plan.Pro
	w.agree(t, accounts[4], held)
	c := plan.Shipped()
	c.Offers[1].Version.Minimum = plan.Sums{usd(500)}
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	m := billing.Migrator{Core: w.Core}
	begun, err := m.Begin(t.Context(), asked(account.ID{}, newKey()), billing.MigrationInput{Plan: plan.Pro, To: 2, When: subscription.AtOnce}, asJSON[subscription.Migration](201))
	if err != nil {
		t.Fatal(err)
	}
	// What a process that died after two accounts has left behind.
	for _, a := range accounts[:2] {
		if err := billing.Move(m, t.Context(), begun.Record, a); err != nil {
			t.Fatal(err)
		}
	}
	events := func(a account.ID) int {
		list, err := w.DB.Outbox().After(t.Context(), a, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := events(accounts[0])
	w.sweep(t)
	w.sweep(t)
	got, err := w.DB.PlanMigrations().Get(t.Context(), begun.Record.ID)
	if err != nil || got.Status != subscription.MigrationCompleted || got.Outcomes[subscription.Migrated] != 4 || got.Outcomes[subscription.KeptContract] != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	if n := events(accounts[0]); n != before {
		t.Errorf("an account was moved twice: %d events instead of %d", n, before)
	}
	for _, a := range accounts[:4] {
		if b := w.balance(t, a); b.Accrued != usd(494) { // as though held since 9:00 of 31 days: 5.00 − 5.00 × 9⁄744
			t.Errorf("accrued %s on the new version", b.Accrued)
		}
	}
}

// A migration that is canceled moves nobody any more, and those whom it has moved stay.
func TestMigrationCanceledMovesNobodyElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	accounts := []account.ID{w.open(t).ID, w.open(t).ID}
	for _, a := range accounts {
		w.upgrade(t, a, sandbox.TokenVisa)
	}
	c := plan.Shipped()
	c.Offers[1].Version.Minimum = plan.Sums{usd(500)}
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	m, render := billing.Migrator{Core: w.Core}, asJSON[subscription.Migration](201)
	begun, err := m.Begin(t.Context(), asked(account.ID{}, newKey()), billing.MigrationInput{Plan: plan.Pro, To: 2, When: subscription.AtOnce}, render)
	if err != nil {
		t.Fatal(err)
	}
	if err := billing.Move(m, t.Context(), begun.Record, accounts[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Cancel(t.Context(), asked(account.ID{}, newKey()), plan.Pro, begun.Record.ID, "prices were wrong", render); err != nil {
		t.Fatal(err)
	}
	// One that was about to move the other when the migration was canceled.
	if err := billing.Move(m, t.Context(), begun.Record, accounts[1]); !errors.Is(err, subscription.ErrMigrationOver) {
		t.Errorf("moved by a migration that is canceled: %v", err)
	}
	w.sweep(t)
	for i, want := range []int{2, 1} {
		if sub, err := w.DB.Subscriptions().Active(t.Context(), accounts[i]); err != nil || sub.Terms.Version != want {
			t.Errorf("account %d is on version %d, want %d (%v)", i, sub.Terms.Version, want, err)
		}
	}
}
