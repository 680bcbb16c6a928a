package billing_test

import (
	"errors"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// withFees publishes two plans with a monthly fee above those that are shipped.
func (w *world) withFees(t *testing.T) {
	t.Helper()
	c := plan.Shipped()
	perMinute := func(minor int64) []plan.Charge {
		charge := perMinute("").Charges[0]
		charge.Prices = []plan.Price{{Currency: money.USD, Model: plan.PerUnit, UnitPrice: money.DecimalFromUnits(minor, 2)}}
		return []plan.Charge{charge}
	}
	for i, v := range []plan.Version{
		{
			Plan: "growth", Currencies: []money.Currency{money.USD}, Fee: &plan.Fee{Name: "Growth", Prices: plan.Sums{usd(2200)}},
			Credit: plan.Sums{usd(1000)}, Charges: perMinute(3),
		},
		{Plan: "scale", Currencies: []money.Currency{money.USD}, Fee: &plan.Fee{Name: "Scale", Prices: plan.Sums{usd(33000)}}, Charges: perMinute(1)},
	} {
		c.Offers = append(c.Offers, plan.Offer{
			Plan:    plan.Plan{Code: v.Plan, Name: string(v.Plan), Position: 10 + i, RequiresCard: true},
			Version: v,
		})
	}
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func (w *world) moveTo(t *testing.T, a account.ID, code plan.Code) {
	t.Helper()
	got, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{Plan: code}, nil)
	if err != nil || got.Record.Status != payment.Succeeded {
		t.Fatalf("upgrade to %s: %+v, %v", code, got.Record, err)
	}
}

// onProAmongFees opens an account on Pro beside the plans of withFees.
func (w *world) onProAmongFees(t *testing.T) account.ID {
	t.Helper()
	w.withFees(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	return a
}

// A plan's fee is due for the time for which the plan was held. The period is 10 March to 10 April, 31 days:
//
//	10 to 20 March  Pro, without a fee
//	20 to 30 March  Growth, 22.00: 22 × 20⁄31 = 14.19 less 22 × 10⁄31 = 7.10        7.09
//	30 March on     Scale, 330.00: 330.00 less 330 × 20⁄31 = 212.90               117.10
//	usage           1,000 minutes over all of it, at Scale's 0.01                   10.00
//	credit          Growth's 10.00 for its time: 10 × 20⁄31 less 10 × 10⁄31         −3.22
func TestProration_FeesAreDueForTheTimeHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onProAmongFees(t)
	w.use(t, a, "voice", "30000")
	w.until(t, day(time.March, 20))
	w.moveTo(t, a, "growth")

	w.until(t, day(time.March, 30))
	preview, err := billing.Upgrader{Core: w.Core}.Preview(t.Context(), a, "scale")
	if err != nil {
		t.Fatal(err)
	}
	w.use(t, a, "voice", "30000")
	w.moveTo(t, a, "scale")
	if want := usd(709 + 11710 + 500 - 322); preview.After != want { // with half of the usage
		t.Errorf("the preview says %s, want %s", preview.After, want)
	}
	balance, err := billing.Reader{Core: w.Core}.Balance(t.Context(), a)
	if err != nil || balance.Accrued != usd(709+11710+1000-322) {
		t.Errorf("accrued is %s (%v)", balance.Accrued, err)
	}

	w.until(t, day(time.April, 12))
	if got, want := w.lines(t, a, day(time.March, 10)), "fee 709, fee 11710, usage 1000, credit -322"; got != want {
		t.Errorf("billed %s, want %s", got, want)
	}
	// What comes late is priced as the rest of its period; the fees stay what they were.
	if r := w.useAt(t, a, "voice", "60000", day(time.March, 25)); r.Status != metering.Accepted {
		t.Fatalf("late usage: %+v", r)
	}
	w.until(t, day(time.May, 12))
	if got, want := w.lines(t, a, day(time.April, 10)), "fee 33000, adjustment 1000"; got != want {
		t.Errorf("the next period is billed %s, want %s", got, want)
	}
}

// A migration at once bills the running period as though its version had been held instead of the older one:
//
//	10 to 20 March  Pro, without a fee
//	20 March on     Growth, 44.00 from version 2 on: 44.00 less 44 × 10⁄31 = 14.19     29.81
func TestProration_AMigrationAtOnceCountsFromTheBeginning(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onProAmongFees(t)
	w.until(t, day(time.March, 20))
	w.moveTo(t, a, "growth")
	w.until(t, day(time.March, 25))
	c := plan.Shipped()
	v, err := w.DB.Plans().Current(t.Context(), "growth")
	if err != nil {
		t.Fatal(err)
	}
	v.Number, v.Fee = 0, &plan.Fee{Name: "Growth", Prices: plan.Sums{usd(4400)}}
	c.Offers = append(c.Offers, plan.Offer{Plan: plan.Plan{Code: "growth", Name: "growth", Position: 10, RequiresCard: true}, Version: v})
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	in := billing.MigrationInput{Plan: "growth", To: 2, When: subscription.AtOnce}
	if _, err := (billing.Migrator{Core: w.Core}).Begin(t.Context(), asked(account.ID{}, newKey()), in, asJSON[subscription.Migration](201)); err != nil {
		t.Fatal(err)
	}
	w.sweep(t)
	if b := w.balance(t, a); b.Accrued != usd(2981) {
		t.Errorf("accrued is %s", b.Accrued)
	}
	w.until(t, day(time.April, 12))
	if got, want := w.lines(t, a, day(time.March, 10)), "fee 2981"; got != want {
		t.Errorf("billed %s, want %s", got, want)
	}
}

// Plans without a fee are changed without a trace on the bill, and the allowance counts once.
func TestProration_NothingIsProratedWithoutAFee(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.until(t, day(time.March, 25))
	w.upgrade(t, a, sandbox.TokenVisa)
	w.use(t, a, "voice", "72000") // 1,200 minutes, of which 1,000 are included: 200 × 0.027
	w.until(t, day(time.April, 12))
	if got, want := w.lines(t, a, day(time.March, 10)), "usage 540"; got != want {
		t.Errorf("billed %s, want %s", got, want)
	}
}

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
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	upgrader := billing.Upgrader{Core: w.Core}
	if _, err := upgrader.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{Plan: "yearly"}, nil); !errors.Is(err, billing.ErrInterval) {
		t.Errorf("an upgrade to it: %v, want ErrInterval", err)
	}
	if _, err := upgrader.Preview(t.Context(), a, "yearly"); !errors.Is(err, billing.ErrInterval) {
		t.Errorf("the preview of it: %v, want ErrInterval", err)
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
