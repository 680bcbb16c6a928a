package billing_test

import (
	"errors"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// yearly publishes a plan above and one below Pro that are billed by the year.
func (w *world) yearly(t *testing.T) {
	t.Helper()
	c := plan.Shipped()
	for code, position := range map[plan.Code]int{"yearly": 20, "basic_yearly": -1} {
		c.Offers = append(c.Offers, plan.Offer{
			Plan: plan.Plan{Code: code, Name: string(code), Position: position},
			Version: plan.Version{
				Plan: code, Interval: period.Year, Currencies: []money.Currency{money.USD},
				Fee: &plan.Fee{Name: "A year", Prices: plan.Sums{usd(12000)}},
			},
		})
	}
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// A fee for a year is billed for a year. The running period is a month, so a plan by the year can only begin with the next
// one, which is a year then.
func TestPlanOfAnotherInterval(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.yearly(t)
	a := w.onPro(t)
	upgrader := billing.Upgrader{Core: w.Core}
	if _, err := upgrader.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{Plan: "yearly"}, nil); !errors.Is(err, billing.ErrInterval) {
		t.Errorf("an upgrade to it: %v, want ErrInterval", err)
	}
	if _, err := upgrader.Preview(t.Context(), a, "yearly"); !errors.Is(err, billing.ErrInterval) {
		t.Errorf("the preview of it: %v, want ErrInterval", err)
	}
	if act := w.action(t, a, billing.ActUpgrade); act.Allowed || act.Blockers[0].Code != billing.ErrInterval.Code {
		t.Errorf("the page says %+v, and no other plan is above the account's", act)
	}
	now := plan.Contract{Reference: "a year", Plan: "yearly"}
	if _, err := (billing.Contractor{Core: w.Core}).Agree(t.Context(), asked(a, newKey()), now, nil); !errors.Is(err, billing.ErrInterval) {
		t.Errorf("a contract on it for the running period: %v, want ErrInterval", err)
	}
	if _, err := (billing.Downgrader{Core: w.Core}).Plan(t.Context(), asked(a, newKey()), "basic_yearly", nil); err != nil {
		t.Fatal(err)
	}
	turn := day(time.April, 10)
	w.closed(t, turn)
	sub, err := w.DB.Subscriptions().Active(t.Context(), a)
	if want := (period.Bounds{Start: turn, End: turn.AddDate(1, 0, 0)}); err != nil || !sub.Period.Equal(want) {
		t.Errorf("the period is %s (%v), want %s", sub.Period, err, want)
	}
	w.closed(t, turn.AddDate(1, 0, 0))
	if got, want := w.lines(t, a, turn), "fee 12000"; got != want {
		t.Errorf("billed %q, want %q", got, want)
	}
	if sub, err = w.DB.Subscriptions().Active(t.Context(), a); err != nil || !sub.Period.End.Equal(turn.AddDate(2, 0, 0)) {
		t.Errorf("the period after it is %s (%v)", sub.Period, err)
	}
}
