package billing_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// A downgrade that was planned to what can no longer be bought when the period ends is not made, and nothing stands still:
// what is held goes on, and who planned it is told.
func TestDowngrade_ToWhatIsNoLongerSold(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(context.Context, *world) error{
		"AtAll": func(ctx context.Context, w *world) error {
			_, err := (billing.Publisher{Core: w.Core}).Archive(ctx, billing.Asked{Actor: "operator:test"}, "growth", 1, "test", nil)
			return err
		},
		"InTheAccountsCurrency": func(ctx context.Context, w *world) error {
			const eur = money.Currency("EUR")
			c := plan.Shipped()
			c.Offers = append(c.Offers, plan.Offer{
				Plan:    plan.Plan{Code: "growth", Name: "growth", Position: 10, RequiresCard: true},
				Version: plan.Version{Plan: "growth", Currencies: []money.Currency{eur}, Fee: &plan.Fee{Name: "Growth", Prices: plan.Sums{money.New(100, eur)}}},
			})
			_, err := (billing.Publisher{Core: w.Core}).Publish(ctx, c)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onProAmongFees(t)
			w.moveTo(t, a, "scale")
			if _, err := (billing.Downgrader{Core: w.Core}).Plan(t.Context(), asked(a, newKey()), "growth", nil); err != nil {
				t.Fatal(err)
			}
			if err := end(t.Context(), w); err != nil {
				t.Fatal(err)
			}
			w.until(t, w.clock().Add(35*24*time.Hour))
			sub, err := w.DB.Subscriptions().Active(t.Context(), a)
			if err != nil || sub.Plan != "scale" || sub.NextPlan != "" || sub.Index != 1 {
				t.Errorf("%+v, %v", sub, err)
			}
			w.use(t, a, "voice", "60")
			if n := w.told(t, a, outbox.SubscriptionUnchanged); n != 1 {
				t.Errorf("told %d times, want once", n)
			}
		})
	}
}

// What is not sold in the account's currency, it cannot go to.
func TestDowngrade_ToWhatIsNotBelow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	told := w.told(t, a, outbox.SubscriptionChanged)
	d := billing.Downgrader{Core: w.Core}
	for code, want := range map[plan.Code]error{plan.Enterprise: billing.ErrNotADowngrade, plan.Pro: billing.ErrNotADowngrade, "none": plan.ErrNotFound} {
		if _, err := d.Plan(t.Context(), asked(a, newKey()), code, nil); !errors.Is(err, want) {
			t.Errorf("to %s: %v, want %v", code, err, want)
		}
	}
	if sub, err := d.Cancel(t.Context(), asked(a, newKey())); err != nil || sub.NextPlan != "" {
		t.Errorf("taken back, though none is planned: %+v, %v", sub, err)
	}
	if n := w.told(t, a, outbox.SubscriptionChanged) - told; n != 0 {
		t.Errorf("%d changes are told of, and there was none", n)
	}
}

func TestDowngrade_InAnotherCurrency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(t, withFees(plan.Shipped()))
	c := plan.Shipped()
	c.Offers = append(c.Offers, plan.Offer{
		Plan:    plan.Plan{Code: "euro", Name: "Euro", Position: 20},
		Version: plan.Version{Plan: "euro", Currencies: []money.Currency{money.Currency("EUR")}, Fee: &plan.Fee{Name: "Euro", Prices: plan.Sums{money.New(100, money.Currency("EUR"))}}},
	})
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	acct, err := billing.Opener{Core: w.Core}.Open(t.Context(), billing.NewAccount{Currency: money.Currency("EUR")})
	if err != nil {
		t.Fatal(err)
	}
	w.moveTo(t, acct.ID, "euro")
	_, err = billing.Downgrader{Core: w.Core}.Plan(t.Context(), asked(acct.ID, newKey()), "growth", nil)
	if !errors.Is(err, billing.ErrCurrency) {
		t.Errorf("%v, want ErrCurrency", err)
	}
}

func TestDowngradeAtPeriodEndAndClose(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.topUp(t, a, 10000)
	if _, err := (billing.Downgrader{Core: w.Core}).Plan(t.Context(), asked(a, newKey()), plan.Developer, nil); err != nil {
		t.Fatal(err)
	}
	w.advance(32 * 24 * time.Hour)
	w.sweep(t)
	if sub, err := w.DB.Subscriptions().Active(t.Context(), a); err != nil || sub.Plan != plan.Developer {
		t.Fatalf("plan %s, %v", sub.Plan, err)
	}
	got, err := billing.Ender{Core: w.Core}.End(t.Context(), asked(a, newKey()), "moving on", nil)
	if err != nil || got.Record.Status != account.Closed {
		t.Fatalf("%+v, %v", got.Record, err)
	}
	if b := w.balance(t, a); b.Funds != usd(0) {
		t.Errorf("funds %s after closing, want them refunded", b.Funds)
	}
	if r := w.tryUse(t, a, "text", "1"); r.Status != metering.Rejected {
		t.Errorf("usage of a closed account: %+v", r)
	}
}
