package plan_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

func first(m time.Month) time.Time { return time.Date(2026, m, 1, 0, 0, 0, 0, time.UTC) }

// A contract holds for the period that begins with it, and not for the one that begins when it ends.
func TestContract_InForce(t *testing.T) {
	t.Parallel()
	open, closed := plan.Contract{Start: first(3)}, plan.Contract{Start: first(3), End: first(6)}
	for name, c := range map[string]struct {
		contract plan.Contract
		at       time.Time
		want     bool
	}{
		"just before it begins": {open, first(3).Add(-1), false},
		"as it begins":          {open, first(3), true},
		"without an end":        {open, first(3).AddDate(10, 0, 0), true},
		"just before it ends":   {closed, first(6).Add(-1), true},
		"as it ends":            {closed, first(6), false},
	} {
		if got := c.contract.InForce(c.at); got != c.want {
			t.Errorf("%s: in force %t", name, got)
		}
	}
}

// A step is in force from the period that begins with it, and is billed ahead in that period and no later one.
func TestCommitment_Steps(t *testing.T) {
	t.Parallel()
	c := plan.Commitment{Prepaid: true, Steps: []plan.Step{{From: first(2)}, {From: first(4)}}}
	for name, row := range map[string]struct {
		start, before time.Time
		from          time.Time // of the step in force; zero: none
		begins        bool
	}{
		"before the first step":            {first(1), time.Time{}, time.Time{}, false},
		"just before the first step":       {first(2).Add(-1), first(1), time.Time{}, false},
		"with the first step":              {first(2), first(1), first(2), true},
		"within the first step":            {first(3), first(2), first(2), false},
		"with the second step":             {first(4), first(3), first(4), true},
		"within the last step":             {first(5), first(4), first(4), false},
		"under the contract for the first": {first(5), time.Time{}, first(4), true},
	} {
		step, ok := c.In(row.start)
		if ok == row.from.IsZero() || !step.From.Equal(row.from) {
			t.Errorf("%s: step of %s, %t", name, step.From, ok)
		}
		if got := c.Begins(row.start, row.before); got != row.begins {
			t.Errorf("%s: begins %t", name, got)
		}
	}
	c.Prepaid = false
	if c.Begins(first(2), first(1)) {
		t.Error("what is not paid ahead is billed ahead")
	}
}

// What a contract names it replaces, or adds; all else stays as the version has it, and so does the version.
func TestContract_Apply(t *testing.T) {
	t.Parallel()
	amount := func(minor int64) plan.Sums { return plan.Sums{money.New(minor, money.USD)} }
	charge := func(code, name string) plan.Charge { return plan.Charge{Code: code, Name: name} }
	limit := func(m plan.MeterCode, n int64) plan.Limit {
		return plan.Limit{Meter: m, Quantity: money.DecimalFromInt(n)}
	}
	v := plan.Version{
		Plan: "p", Number: 2, Fee: &plan.Fee{Name: "old"}, Credit: amount(1), Minimum: amount(2),
		Charges: []plan.Charge{charge("a", "old"), charge("b", "old")}, Limits: []plan.Limit{limit("m", 1), limit("n", 1)},
	}
	names := func(v plan.Version) (s string) {
		for _, c := range v.Charges {
			s += c.Code + " " + c.Name + ", "
		}
		for _, l := range v.Limits {
			s += string(l.Meter) + " " + l.Quantity.String() + ", "
		}
		return s + v.Fee.Name + " " + v.Credit[0].String() + " " + v.Minimum[0].String()
	}
	const asItIs = "a old, b old, m 1, n 1, old 0.01 USD 0.02 USD"
	for name, c := range map[string]struct {
		contract plan.Contract
		want     string
	}{
		"nothing": {plan.Contract{}, asItIs},
		"everything": {plan.Contract{
			Fee: &plan.Fee{Name: "new"}, Credit: amount(3), Minimum: amount(4),
			Charges: []plan.Charge{charge("b", "new"), charge("c", "new"), charge("d", "new")}, Limits: []plan.Limit{limit("m", 5), limit("o", 6)},
		}, "a old, b new, c new, d new, m 5, n 1, o 6, new 0.03 USD 0.04 USD"},
		"a limit that falls away": {plan.Contract{Unlimited: []plan.MeterCode{"m"}}, "a old, b old, n 1, old 0.01 USD 0.02 USD"},
	} {
		c.contract.Plan, c.contract.Version = "p", 2
		got, err := c.contract.Apply(v)
		if err != nil || names(got) != c.want {
			t.Errorf("%s: %s, %v; want %s", name, names(got), err, c.want)
		}
		if names(v) != asItIs {
			t.Fatalf("%s: the version itself is %s", name, names(v))
		}
	}
	onlyFee := plan.Contract{Plan: "p", Version: 2, Fee: &plan.Fee{Prices: plan.Sums{money.New(1, "EUR"), money.New(1, money.USD)}}}
	if got, err := onlyFee.Apply(v); err != nil || !slices.Equal(got.Currencies, []money.Currency{"EUR", money.USD}) {
		t.Errorf("priced in %v, %v; want the currencies of the fee", got.Currencies, err)
	}
	for _, c := range []plan.Contract{{Plan: "q", Version: 2}, {Plan: "p", Version: 1}} {
		if _, err := c.Apply(v); !errors.Is(err, plan.ErrContractMismatch) {
			t.Errorf("applied to another version: %v", err)
		}
	}
}

// A charge of a share of others, or of another meter, hides none behind it; the first of those without dimensions prices
// what no other does.
func TestChargeFor_LooksAtAllCharges(t *testing.T) {
	t.Parallel()
	v := plan.Version{Charges: []plan.Charge{
		{Code: "support", Percent: &plan.Percent{}},
		{Code: "other", Meter: "n"},
		{Code: "all", Meter: "m"},
		{Code: "again", Meter: "m"},
		{Code: "eu", Meter: "m", Match: map[string]string{"region": "eu"}},
	}}
	for region, want := range map[string]int{"eu": 4, "us": 2} {
		if got := v.ChargeFor("m", map[string]string{"region": region}); got != want {
			t.Errorf("%s is priced by charge %d, want %d", region, got, want)
		}
	}
	if got := v.ChargeFor("o", nil); got != -1 {
		t.Errorf("a meter without a charge is priced by %d", got)
	}
}
