package pricing_test

import (
	"errors"
	"testing"

	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

const eur = money.Currency("EUR")

// committed is a period of 30.00 of usage, of which 10.00 are credit, under a commitment in dollars that begins with the
// period after january.
func committed(tb testing.TB, c plan.Commitment) pricing.Input {
	tb.Helper()
	v := one(tb, `    fee: {prices: {USD: 50}}
    credit: {USD: 10}
    charges: [{meter: n, prices: {USD: {model: per_unit, unit_price: 1}}}]
`)
	v.Charges[0].Prices = append(v.Charges[0].Prices, plan.Price{Currency: eur, Model: plan.PerUnit, UnitPrice: dec("1")})
	v.Fee.Prices = append(v.Fee.Prices, money.New(5000, eur))
	v.Currencies = append(v.Currencies, eur)
	next := period.Bounds{Start: january.End, End: january.End.AddDate(0, 1, 0)}
	c.Steps = []plan.Step{{From: next.Start, Sums: plan.Sums{money.New(120_000, money.USD)}}}
	return pricing.Input{
		Version: v, Contract: &plan.Contract{Reference: "C-1", Plan: v.Plan, Start: january.Start, Commitment: &c},
		Currency: money.USD, Period: next, Usage: use("n", "30"),
	}
}

// What counts toward a commitment is usage, whatever is due besides; from a prepaid one nothing is drawn that credit covers.
func TestSpent(t *testing.T) {
	t.Parallel()
	none := committed(t, plan.Commitment{})
	none.Contract = nil
	limit := money.New(1000, money.USD)
	capped := committed(t, plan.Commitment{Term: true})
	capped.Cap, capped.Term = &limit, &pricing.Term{Spent: money.New(99_999, money.USD), Last: true}
	for name, c := range map[string]struct {
		in   pricing.Input
		want int64
	}{
		"WithoutAContract":  {none, 3000},
		"ForAPeriod":        {committed(t, plan.Commitment{}), 3000},
		"ForATermAndCapped": {capped, 3000},
		"Prepaid":           {committed(t, plan.Commitment{Prepaid: true}), 2000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, err := pricing.Spent(c.in); err != nil || got != money.New(c.want, money.USD) {
				t.Errorf("%s, %v; want %d", got, err, c.want)
			}
		})
	}
}

func TestPrepayment(t *testing.T) {
	t.Parallel()
	in := committed(t, plan.Commitment{Prepaid: true})
	line, err := pricing.Prepayment(in)
	if err != nil || line.Kind != pricing.KindPrepayment || line.Amount != money.New(120_000, money.USD) {
		t.Fatalf("%+v, %v; want the step's sum", line, err)
	}
	if a, err := pricing.Verify(line.Derivation); err != nil || a != line.Amount {
		t.Errorf("verified as %s, %v", a, err)
	}
	early := in
	early.Period = january
	if line, err := pricing.Prepayment(early); err == nil {
		t.Errorf("before the first step %s is prepaid", line.Amount)
	}
	if bill := rate(t, early); kinds(bill) != "fee 5000, usage 3000, credit -1000" {
		t.Errorf("before the first step: %s", kinds(bill))
	}
}

// A commitment in another currency than the bill's is nothing that the bill could be compared with.
func TestCommitment_InAnotherCurrency(t *testing.T) {
	t.Parallel()
	for _, c := range []plan.Commitment{{}, {Prepaid: true}, {Term: true}} {
		in := committed(t, c)
		in.Currency = eur
		if _, err := pricing.Rate(in); !errors.Is(err, pricing.ErrCurrency) {
			t.Errorf("%+v: %v, want that it has no price in euros", c, err)
		}
		if _, err := pricing.Prepayment(in); !errors.Is(err, pricing.ErrCurrency) {
			t.Errorf("%+v prepaid: %v, want that it has no price in euros", c, err)
		}
	}
}
