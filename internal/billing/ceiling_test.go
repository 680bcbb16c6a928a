package billing_test

import (
	"errors"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

func TestCeilingsCountWhatAKeyMoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	perPayment, perDay := usd(5000), usd(8000)
	topUp := func(actor string, minor int64) error {
		in := asked(a, newKey())
		in.Actor, in.Ceiling = actor, auth.Ceilings{PerPayment: &perPayment, PerDay: &perDay}
		_, err := billing.Funder{Core: w.Core}.TopUp(t.Context(), in, billing.TopUpInput{Amount: usd(minor)}, nil)
		return err
	}
	for i, c := range []struct {
		actor string
		minor int64
		want  error
	}{
		{"key:1", 5001, billing.ErrCeiling}, // too much at once
		{"key:1", 5000, nil},
		{"key:1", 3001, billing.ErrCeiling}, // too much in a day
		{"key:2", 3001, nil},                // another key has a day of its own
		{"key:1", 3000, nil},
		{"key:1", 100, billing.ErrCeiling},
	} {
		if err := topUp(c.actor, c.minor); !errors.Is(err, c.want) {
			t.Errorf("top-up %d of %d by %s: %v, want %v", i, c.minor, c.actor, err, c.want)
		}
	}
	euros := money.New(1_000_000, "EUR")
	for name, ceiling := range map[string]auth.Ceilings{"per payment": {PerPayment: &euros}, "per day": {PerDay: &euros}} {
		in := asked(a, newKey())
		in.Ceiling = ceiling
		if _, err := (billing.Funder{Core: w.Core}).TopUp(t.Context(), in, billing.TopUpInput{Amount: usd(1000)}, nil); !errors.Is(err, billing.ErrCeiling) {
			t.Errorf("a ceiling %s in another currency than the account's: %v, want ErrCeiling", name, err)
		}
	}
	w.advance(24 * time.Hour)
	if err := topUp("key:1", 5000); err != nil {
		t.Errorf("the next day: %v", err)
	}
	if b := w.balance(t, a); b.Funds != usd(5000+3001+3000+5000) {
		t.Errorf("funds %s: a refused top-up took money", b.Funds)
	}
}

// What the rule of automatic top-ups charges is nobody's who has a ceiling, and would be counted by none.
func TestCeilings_KeepAKeyFromAutomaticTopUps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	most := usd(5000)
	for name, c := range map[string]auth.Ceilings{"per payment": {PerPayment: &most}, "per day": {PerDay: &most}} {
		in := asked(a, "")
		in.Ceiling = c
		rule := wallet.AutoTopUp{Enabled: true, Threshold: usd(1000), Target: usd(2000)}
		if _, err := (billing.Funder{Core: w.Core}).SetAutoTopUp(t.Context(), in, rule); !errors.Is(err, billing.ErrCeiling) {
			t.Errorf("a rule by a key with a ceiling %s: %v, want ErrCeiling", name, err)
		}
	}
	w.saveRule(t, a, 100_000)
	held, err := w.DB.Wallet().AutoTopUp(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	in := asked(a, "")
	in.Ceiling.PerDay, held.Enabled = &most, false
	if _, err := (billing.Funder{Core: w.Core}).SetAutoTopUp(t.Context(), in, held); err != nil {
		t.Errorf("a key with a ceiling ends the rule: %v", err)
	}
}
