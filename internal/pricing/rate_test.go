package pricing_test

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

const (
	jpy = money.Currency("JPY")
	kwd = money.Currency("KWD")
)

// one returns the version of the single plan of a catalogue with the meters m (second; minute is
// 60), n (call), users and peak, and the given body of the plan.
func one(tb testing.TB, body string) plan.Version {
	tb.Helper()
	doc := `
currencies: [USD]
meters:
  - {code: m, unit: second, units: {minute: 60}, dimensions: [model, region]}
  - {code: n, unit: call, units: {thousand calls: 1000}}
  - {code: users, unit: user, aggregation: unique}
  - {code: peak, unit: connection, aggregation: max, dimensions: [region]}
plans:
  - code: p
` + body
	c, err := plan.ParseCatalogue([]byte(doc))
	if err != nil {
		tb.Fatalf("%v\n%s", err, doc)
	}
	return c.Offers[0].Version
}

func charge(tb testing.TB, fields string) plan.Version {
	tb.Helper()
	return one(tb, "    charges:\n      - {"+fields+"}\n")
}

func use(meter plan.MeterCode, quantity string) []pricing.Usage {
	return []pricing.Usage{{Meter: meter, Quantity: dec(quantity), Events: 1}}
}

// Each model by hand.
func TestModels(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ name, charge, quantity, exact string }{
		{"PerUnit", `meter: n, prices: {USD: {model: per_unit, unit_price: "0.005"}}`, "7", "7/200"},
		{"PerUnitQuoted", `meter: m, per: minute, prices: {USD: {model: per_unit, unit_price: "0.1"}}`, "50", "1/12"}, // 50/60 × 0.1
		{"PerUnitAllowance", `meter: n, included: 5, prices: {USD: {model: per_unit, unit_price: 2}}`, "7", "4"},
		{"AllowanceNotReached", `meter: n, included: 5, prices: {USD: {model: per_unit, unit_price: 2}}`, "5", "0"},
		{"Package", `meter: n, prices: {USD: {model: package, package: 1000, unit_price: "1.50"}}`, "2001", "9/2"}, // three started
		{"PackageExact", `meter: n, prices: {USD: {model: package, package: 1000, unit_price: "1.50"}}`, "2000", "3"},
		{"PackageAfterAllowance", `meter: n, included: 500, prices: {USD: {model: package, package: 1000, unit_price: "1.50"}}`, "1500", "3/2"},
		{"PackageQuoted", `meter: n, per: thousand calls, prices: {USD: {model: package, package: 1, unit_price: 3}}`, "1001", "6"},
		// 100 × 0.05 + 50 × 0.03
		{"Graduated", `meter: n, prices: {USD: {model: graduated, tiers: [{up_to: 100, unit_price: "0.05"}, {unit_price: "0.03"}]}}`, "150", "13/2"},
		{"GraduatedAtTheEdge", `meter: n, prices: {USD: {model: graduated, tiers: [{up_to: 100, unit_price: "0.05"}, {unit_price: "0.03"}]}}`, "100", "5"},
		// The allowance takes the first 120: nothing is left of tier 1, and 30 are billed in tier 2.
		{"GraduatedAllowanceOverATier", `meter: n, included: 120, prices: {USD: {model: graduated, tiers: [{up_to: 100, unit_price: "0.05"}, {unit_price: "0.03"}]}}`, "150", "9/10"},
		// 10 + 100 × 0 and 5 + 50 × 0.03
		{"GraduatedFlat", `meter: n, prices: {USD: {model: graduated, tiers: [{up_to: 100, flat: 10}, {flat: 5, unit_price: "0.03"}]}}`, "150", "33/2"},
		{"FlatOnlyWhenEntered", `meter: n, prices: {USD: {model: graduated, tiers: [{up_to: 100, flat: 10}, {flat: 5, unit_price: "0.03"}]}}`, "100", "10"},
		{"FlatNotForTheAllowance", `meter: n, included: 100, prices: {USD: {model: graduated, tiers: [{up_to: 100, flat: 10}, {flat: 5, unit_price: "0.03"}]}}`, "100", "0"},
		{"Volume", `meter: n, prices: {USD: {model: volume, tiers: [{up_to: 100, unit_price: "0.05"}, {unit_price: "0.03"}]}}`, "150", "9/2"}, // all at 0.03
		{"VolumeAtTheEdge", `meter: n, prices: {USD: {model: volume, tiers: [{up_to: 100, unit_price: "0.05"}, {unit_price: "0.03"}]}}`, "100", "5"},
		{"VolumeAllowance", `meter: n, included: 60, prices: {USD: {model: volume, tiers: [{up_to: 100, unit_price: "0.05"}, {unit_price: "0.03"}]}}`, "150", "27/10"},
		{"VolumeFlat", `meter: n, prices: {USD: {model: volume, tiers: [{up_to: 100, flat: 20}, {flat: 30}]}}`, "101", "30"},
		// 61 s are two started minutes, or eleven started steps of 6 s.
		{"StepOfAMinute", `meter: m, per: minute, step: 1, prices: {USD: {model: per_unit, unit_price: "0.1"}}`, "61", "1/5"},
		{"StepOfSixSeconds", `meter: m, step: 6, prices: {USD: {model: per_unit, unit_price: "0.01"}}`, "61", "33/50"},
		{"StepBeforeAllowance", `meter: m, per: minute, step: 1, included: 1, prices: {USD: {model: per_unit, unit_price: "0.1"}}`, "61", "1/10"},
		{"Nothing", `meter: n, prices: {USD: {model: graduated, tiers: [{up_to: 100, flat: 10}, {unit_price: "0.03"}]}}`, "0", "0"},
		{"AllowanceOnly", `meter: n, included: 100`, "500", "0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			v := charge(t, c.charge)
			bill := rate(t, pricing.Input{Version: v, Usage: use(v.Charges[0].Meter, c.quantity)})
			if len(bill.Lines) != 1 || bill.Lines[0].Derivation.Exact.String() != c.exact {
				t.Errorf("exactly %s, want %s", bill.Lines[0].Derivation.Exact, c.exact)
			}
		})
	}
}

func kinds(b pricing.Bill) string {
	var s []string
	for _, l := range b.Lines {
		s = append(s, fmt.Sprintf("%s %d", l.Kind, l.Amount.Minor))
	}
	return strings.Join(s, ", ")
}

var january = period.Bounds{
	Start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), End: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC),
}

func day(n int) time.Time { return january.Start.AddDate(0, 0, n-1) }

// What comes on a bill besides usage, in cents.
func TestLines(t *testing.T) {
	t.Parallel()

	const perCall = "{meter: n, prices: {USD: {model: per_unit, unit_price: 1}}}"
	usd := func(minor int64) *money.Amount { a := money.New(minor, money.USD); return &a }
	for _, c := range []struct {
		name, plan string
		in         pricing.Input
		want       string
	}{
		{"Fee", "    fee: {name: Platform, prices: {USD: \"9.99\"}}\n", pricing.Input{}, "fee 999"},
		{
			"FeeForTenOfThirtyOneDays", "    fee: {prices: {USD: 31}}\n",
			pricing.Input{Period: january, Held: period.Bounds{Start: day(1), End: day(11)}},
			"fee 1000",
		},
		{"Minimum", "    charges: [{meter: n, prices: {USD: {model: per_unit, unit_price: 1, minimum: 5}}}]\n", pricing.Input{Usage: use("n", "3")}, "usage 300, minimum 200"},
		{"MinimumWithoutUsage", "    charges: [{meter: n, prices: {USD: {model: per_unit, unit_price: 1, minimum: 5}}}]\n", pricing.Input{}, "minimum 500"},
		{"MinimumReached", "    charges: [{meter: n, prices: {USD: {model: per_unit, unit_price: 1, minimum: 5}}}]\n", pricing.Input{Usage: use("n", "5")}, "usage 500"},
		{"Maximum", "    charges: [{meter: n, prices: {USD: {model: per_unit, unit_price: 1, maximum: 5}}}]\n", pricing.Input{Usage: use("n", "8")}, "usage 800, maximum -300"},
		{
			"MinimumOfHalfAMonth", "    charges: [{meter: n, prices: {USD: {model: per_unit, unit_price: 1, minimum: 62}}}]\n",
			pricing.Input{Usage: use("n", "3"), Period: january, Held: period.Bounds{Start: day(17), End: day(32)}},
			"usage 300, minimum 2700", // 15 of 31 days: 62 × 15 ⁄ 31 = 30
		},
		{"PlanMinimum", "    minimum: {USD: 20}\n    charges: [" + perCall + "]\n", pricing.Input{Usage: use("n", "3")}, "usage 300, minimum 1700"},
		{"Credit", "    fee: {prices: {USD: 10}}\n    credit: {USD: 15}\n    charges: [" + perCall + "]\n", pricing.Input{Usage: use("n", "20")}, "fee 1000, usage 2000, credit -1500"},
		{"CreditCoversTheMinimumToo", "    minimum: {USD: 20}\n    credit: {USD: 15}\n    charges: [" + perCall + "]\n", pricing.Input{Usage: use("n", "3")}, "usage 300, minimum 1700, credit -1500"},
		{"CreditNotUsedUp", "    credit: {USD: 15}\n    charges: [" + perCall + "]\n", pricing.Input{Usage: use("n", "4")}, "usage 400, credit -400"},
		{
			"Percent", "    charges: [" + perCall + ", {code: support, percent: {rate: \"12.5\", of: [n]}}]\n",
			pricing.Input{Usage: use("n", "3")},
			"usage 300, percent 38", // 37.5
		},
		{
			"PercentOfAll", "    charges: [" + perCall + ", {meter: users, prices: {USD: {model: per_unit, unit_price: 2}}}, {code: support, percent: {rate: 10}}]\n",
			pricing.Input{Usage: append(use("n", "3"), use("users", "4")...)},
			"usage 300, usage 800, percent 110",
		},
		{"CapReached", "    charges: [" + perCall + "]\n", pricing.Input{Usage: use("n", "12"), Cap: usd(1000)}, "usage 1200, absorbed -200"},
		{"CapNotReached", "    charges: [" + perCall + "]\n", pricing.Input{Usage: use("n", "9"), Cap: usd(1000)}, "usage 900"},
		{"UnknownMeterIsShownAndFree", "    charges: [" + perCall + "]\n", pricing.Input{Usage: use("images", "9")}, "usage 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.in.Version = one(t, c.plan)
			bill := rate(t, c.in)
			if got := kinds(bill); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// A percentage is exact, of however much.
func TestPercent_OfALargeSum(t *testing.T) {
	t.Parallel()
	v := one(t, `    charges:
      - {meter: n, prices: {USD: {model: per_unit, unit_price: 1}}}
      - {code: support, percent: {rate: "10.000000001"}}
`)
	bill := rate(t, pricing.Input{Version: v, Usage: use("n", "10000000000")})
	if got := kinds(bill); got != "usage 1000000000000, percent 100000000010" {
		t.Error(got)
	}
}

// Time is kept in microseconds: of a period that has none nothing can be a share.
func TestFee_OfAPeriodWithoutAMicrosecond(t *testing.T) {
	t.Parallel()
	v := one(t, "    fee: {prices: {USD: 50}}\n")
	at := func(d time.Duration) time.Time { return january.Start.Add(d) }
	in := pricing.Input{Version: v, Currency: money.USD, Period: period.Bounds{Start: at(0), End: at(500)}, Held: period.Bounds{Start: at(0), End: at(100)}}
	if _, err := pricing.Rate(in); !errors.Is(err, pricing.ErrHeld) {
		t.Errorf("of 500 ns: %v", err)
	}
	in.Period.End = at(time.Microsecond)
	if bill, err := pricing.Rate(in); err != nil || bill.Total != money.New(0, money.USD) {
		t.Errorf("of a microsecond: %+v, %v; want a fee of nothing", bill, err)
	}
}

func TestCapReportsWhatIsAbsorbed(t *testing.T) {
	t.Parallel()

	v := charge(t, `meter: n, prices: {USD: {model: per_unit, unit_price: 1}}`)
	limit := money.New(1000, money.USD)
	bill := rate(t, pricing.Input{Version: v, Usage: use("n", "12"), Cap: &limit})
	if bill.Total != limit || bill.Absorbed.Minor != 200 {
		t.Errorf("billed %s, absorbed %s", bill.Total, bill.Absorbed)
	}
}

func TestPriceByDimension(t *testing.T) {
	t.Parallel()

	v := one(t, `    charges:
      - {meter: m, per: minute, prices: {USD: {model: per_unit, unit_price: "0.10"}}}
      - {code: large, meter: m, match: {model: large}, per: minute, prices: {USD: {model: per_unit, unit_price: "0.30"}}}
      - {code: large_eu, meter: m, match: {model: large, region: "eu*"}, per: minute, prices: {USD: {model: per_unit, unit_price: "0.40"}}}
`)
	series := func(quantity string, kv ...string) pricing.Usage {
		d := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			d[kv[i]] = kv[i+1]
		}
		return pricing.Usage{Meter: "m", Quantity: dec(quantity), Dimensions: d}
	}
	bill := rate(t, pricing.Input{Version: v, Usage: []pricing.Usage{
		series("600", "model", "small"),                  // 10 min × 0.10
		series("300"),                                    // 5 min × 0.10
		series("120", "model", "large", "region", "us"),  // 2 min × 0.30
		series("60", "model", "large", "region", "eu-1"), // 1 min × 0.40
		series("60", "model", "large", "region", "eu-2"),
	}})
	if got := kinds(bill); got != "usage 150, usage 60, usage 80" {
		t.Errorf("%s", got)
	}
}

// What the version has no charge for costs nothing, stands on the bill once for each meter, and hides nothing behind it.
func TestUsageWithoutAChargeIsShown(t *testing.T) {
	t.Parallel()
	in := func(region, quantity string) pricing.Usage {
		return pricing.Usage{Meter: "m", Dimensions: map[string]string{"region": region}, Quantity: dec(quantity), Events: 2}
	}
	bill := rate(t, pricing.Input{
		Version: charge(t, `meter: n, prices: {USD: {model: per_unit, unit_price: 2}}`),
		Usage:   []pricing.Usage{in("eu", "3"), in("us", "4"), use("n", "5")[0], use("users", "6")[0]},
	})
	got := map[plan.MeterCode]string{}
	for _, l := range bill.Lines {
		got[l.Meter] += fmt.Sprintf("%s in %d events for %s", l.Quantity, l.Derivation.Evidence.Events, l.Amount)
	}
	want := map[plan.MeterCode]string{"n": "5 in 1 events for 10.00 USD", "m": "7 in 4 events for 0.00 USD", "users": "6 in 1 events for 0.00 USD"}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestAggregationsOverSeries(t *testing.T) {
	t.Parallel()

	v := one(t, `    charges:
      - {meter: peak, prices: {USD: {model: per_unit, unit_price: 1}}}
      - {meter: n, prices: {USD: {model: per_unit, unit_price: 1}}}
`)
	bill := rate(t, pricing.Input{Version: v, Usage: append(append(use("peak", "7"), use("peak", "12")...), append(use("n", "7"), use("n", "12")...)...)})
	if got := kinds(bill); got != "usage 1200, usage 1900" {
		t.Errorf("%s: want the larger peak, and the sum of the calls", got)
	}
}

func TestCurrenciesWithOtherDecimals(t *testing.T) {
	t.Parallel()

	c, err := plan.ParseCatalogue([]byte(`
currencies: [USD, JPY, KWD]
meters: [{code: n, unit: call}]
plans:
  - code: p
    charges:
      - meter: n
        prices:
          USD: {model: per_unit, unit_price: "0.005"}
          JPY: {model: per_unit, unit_price: "0.5"}
          KWD: {model: per_unit, unit_price: "0.0015"}
`))
	if err != nil {
		t.Fatal(err)
	}
	v := c.Offers[0].Version
	for cur, want := range map[money.Currency]string{money.USD: "0.02 USD", jpy: "2 JPY", kwd: "0.005 KWD"} {
		if got := rate(t, pricing.Input{Version: v, Currency: cur, Usage: use("n", "3")}).Total.String(); got != want {
			t.Errorf("3 calls cost %s, want %s", got, want)
		}
	}
	if _, err := pricing.Rate(pricing.Input{Version: v, Currency: "EUR", Usage: use("n", "3")}); !errors.Is(err, pricing.ErrCurrency) {
		t.Errorf("priced in euros: %v", err)
	}
}

func TestContract(t *testing.T) {
	t.Parallel()

	base := one(t, `    fee: {prices: {USD: 50}}
    charges: [{meter: n, prices: {USD: {model: per_unit, unit_price: 1}}}]
    limits: [{meter: n, quantity: 1000}, {meter: users, quantity: 5}]
`)
	base.Number = 3
	meters := []plan.Meter{{Code: "n", Unit: "call"}, {Code: "users", Unit: "user"}}
	parse := func(doc string) *plan.Contract {
		t.Helper()
		c, err := plan.ParseContract([]byte(doc), meters, base)
		if err != nil {
			t.Fatal(err)
		}
		return &c
	}
	const head = "reference: C-1\nstart: 2026-01-01T00:00:00Z\nfee: {prices: {USD: 0}}\n"
	ramp := head + `
commitment:
  overage_rate: 150
  steps:
    - {from: 2026-01-01T00:00:00Z, sums: {USD: 100}}
    - {from: 2026-03-01T00:00:00Z, sums: {USD: 200}}
`
	term := head + `
end: 2027-01-01T00:00:00Z
commitment:
  term: true
  steps: [{from: 2026-01-01T00:00:00Z, sums: {USD: 1200}}]
`
	prepaid := head + `
credit: {USD: 10}
commitment:
  prepaid: true
  steps: [{from: 2026-01-01T00:00:00Z, sums: {USD: 1200}}]
`
	february := period.Bounds{Start: january.End, End: january.End.AddDate(0, 1, 0)}
	march := period.Bounds{Start: february.End, End: february.End.AddDate(0, 1, 0)}
	before := period.Bounds{Start: january.Start.AddDate(0, -1, 0), End: january.Start}
	spent := func(minor int64, last bool) *pricing.Term {
		return &pricing.Term{Spent: money.New(minor, money.USD), Last: last}
	}
	for _, c := range []struct {
		name, contract, quantity string
		period                   period.Bounds
		term                     *pricing.Term
		want                     string
	}{
		{"NotYetInForce", ramp, "30", before, nil, "fee 5000, usage 3000"},
		{"TrueUp", ramp, "30", january, nil, "fee 0, usage 3000, commitment 7000"},
		{"CommitmentMet", ramp, "100", january, nil, "fee 0, usage 10000"},
		{"Overage", ramp, "120", january, nil, "fee 0, usage 12000, overage 1000"}, // 20 beyond, at half as much again
		{"BeyondAtTheSamePrice", strings.Replace(ramp, "overage_rate: 150", "", 1), "120", january, nil, "fee 0, usage 12000"},
		{"OverageAtTheSamePrice", strings.Replace(ramp, "150", "100", 1), "120", january, nil, "fee 0, usage 12000"},
		{"SecondMonth", ramp, "30", february, nil, "fee 0, usage 3000, commitment 7000"},
		{"RampedUp", ramp, "120", march, nil, "fee 0, usage 12000, commitment 8000"},
		{"TermRuns", term, "30", january, spent(0, false), "fee 0, usage 3000"},
		{"TermEnds", term, "30", january, spent(100_000, true), "fee 0, usage 3000, commitment 17000"},
		{"TermMet", term, "30", january, spent(200_000, true), "fee 0, usage 3000"},
		{"Drawdown", prepaid, "30", january, spent(0, false), "fee 0, usage 3000, credit -1000, drawdown -2000"},
		{"DrawdownOfWhatIsLeft", prepaid, "30", february, spent(118_500, false), "fee 0, usage 3000, credit -1000, drawdown -1500"},
		{"DrawnToTheLast", prepaid, "30", february, spent(120_000, false), "fee 0, usage 3000, credit -1000"},
		{"WhatWasDrawnIsNotKnown", prepaid, "30", february, nil, "fee 0, usage 3000, credit -1000"},
		{"DrawnDown", prepaid, "30", february, spent(130_000, true), "fee 0, usage 3000, credit -1000"},
		{"NothingToDraw", prepaid, "10", february, spent(0, true), "fee 0, usage 1000, credit -1000"},
		{"OwnPrice", head + "charges: [{meter: n, prices: {USD: {model: per_unit, unit_price: \"0.5\"}}}]\n", "30", january, nil, "fee 0, usage 1500"},
		{"AddedCharge", head + "charges: [{code: support, percent: {rate: 10, of: [n]}}]\n", "30", january, nil, "fee 0, usage 3000, percent 300"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bill := rate(t, pricing.Input{Version: base, Contract: parse(c.contract), Period: c.period, Term: c.term, Usage: use("n", c.quantity)})
			if got := kinds(bill); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if inForce := !c.period.Equal(before); inForce != (bill.Lines[0].Derivation.Contract == "C-1") {
				t.Errorf("the derivation names the contract %q", bill.Lines[0].Derivation.Contract)
			}
		})
	}

	limited := parse(head + "limits: [{meter: n, quantity: 9}]\nunlimited: [users]\n")
	v, err := limited.Apply(base)
	if err != nil {
		t.Fatal(err)
	}
	if l, _ := v.Limit("n"); l.Quantity.Cmp(dec("9")) != 0 {
		t.Errorf("the limit is %s", l.Quantity)
	}
	if _, ok := v.Limit("users"); ok {
		t.Error("users are still limited")
	}
	if l, _ := base.Limit("n"); l.Quantity.Cmp(dec("1000")) != 0 {
		t.Error("the contract changed the version itself")
	}
	other := base
	other.Number = 4
	if _, err := limited.Apply(other); !errors.Is(err, plan.ErrContractMismatch) {
		t.Errorf("applied to another version: %v", err)
	}
	for name, doc := range map[string]string{
		"StepOrder":      head + "commitment: {steps: [{from: 2026-01-01T00:00:00Z, sums: {USD: 1}}, {from: 2026-01-01T00:00:00Z, sums: {USD: 1}}]}",
		"StepGap":        head + "commitment: {steps: [{from: 2026-02-01T00:00:00Z, sums: {USD: 1}}]}",
		"NoStart":        "reference: C-1\ncommitment: {steps: [{from: 2026-01-01T00:00:00Z, sums: {USD: 1}}]}\n",
		"TermNoEnd":      head + "commitment: {term: true, steps: [{from: 2026-01-01T00:00:00Z, sums: {USD: 1}}]}",
		"PrepaidTerm":    head + "end: 2027-01-01T00:00:00Z\ncommitment: {term: true, prepaid: true, steps: [{from: 2026-01-01T00:00:00Z, sums: {USD: 1}}]}",
		"PrepaidOverage": head + "commitment: {prepaid: true, overage_rate: 120, steps: [{from: 2026-01-01T00:00:00Z, sums: {USD: 1}}]}",
		"EndsBefore":     head + "end: 2025-01-01T00:00:00Z\n",
		"Currency":       head + "minimum: {EUR: 5}\n",
		"Unlimited":      head + "unlimited: [images]\n",
		"NoTime":         "reference: C-1\nstart: tomorrow\n",
		"NoReference":    "reference: \"\"\n",
		"UnlimitedTwice": head + "unlimited: [users, users]\n",
		"LimitAndNone":   head + "limits: [{meter: users, quantity: 5}]\nunlimited: [users]\n",
		"StepTooLate":    head + "end: 2027-01-01T00:00:00Z\ncommitment: {steps: [{from: 2026-01-01T00:00:00Z, sums: {USD: 1}}, {from: 2027-01-01T00:00:00Z, sums: {USD: 1}}]}",
	} {
		if _, err := plan.ParseContract([]byte(doc), meters, base); errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// prorated is what a plan with a fee costs that was held for a part of a period.
func prorated(fee money.Amount, whole, held period.Bounds) (money.Amount, error) {
	v := plan.Version{Currencies: []money.Currency{fee.Currency}, Fee: &plan.Fee{Prices: plan.Sums{fee}}}
	return pricing.Accrued(pricing.Input{Version: v, Currency: fee.Currency, Period: whole, Held: held})
}

func TestProrationTelescopes(t *testing.T) {
	t.Parallel()

	fee := money.New(9999, money.USD)
	var sum int64
	cuts := []time.Time{january.Start, day(3).Add(7 * time.Minute), day(3).Add(8 * time.Minute), day(20), day(20).Add(time.Microsecond), january.End}
	for i := 1; i < len(cuts); i++ {
		a, err := prorated(fee, january, period.Bounds{Start: cuts[i-1], End: cuts[i]})
		if err != nil {
			t.Fatal(err)
		}
		sum += a.Minor
	}
	if sum != fee.Minor {
		t.Errorf("the parts of a period cost %d, the whole %d", sum, fee.Minor)
	}
	if a, err := prorated(fee, january, period.Bounds{Start: day(5), End: day(5)}); err != nil || !a.IsZero() {
		t.Errorf("no time at all costs %s, %v", a, err)
	}
	for _, held := range []period.Bounds{{Start: day(0), End: day(5)}, {Start: day(5), End: day(33)}, {Start: day(5), End: day(4)}} {
		if _, err := prorated(fee, january, held); !errors.Is(err, pricing.ErrHeld) {
			t.Errorf("held %s: %v", held, err)
		}
	}
}

// A month in Berlin in which the clocks go forward has 743 hours, and a fee of 74.30 is 0.10 an hour. The plan
// changes at noon of 29 March, when summer time is 9 hours old: after 14 days of 24 hours and 11 more (not 12).
func TestProrationCountsTheHoursThatThereWere(t *testing.T) {
	t.Parallel()

	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := func(m time.Month, d, hour int) time.Time { return time.Date(2026, m, d, hour, 0, 0, 0, berlin).UTC() }
	whole := period.Bounds{Start: at(time.March, 15, 0), End: at(time.April, 15, 0)}
	change := at(time.March, 29, 12)
	fee := money.New(7430, money.USD)
	for _, c := range []struct {
		held period.Bounds
		want int64
	}{
		{period.Bounds{Start: whole.Start, End: change}, 3470},
		{period.Bounds{Start: change, End: whole.End}, 3960},
		{period.Bounds{Start: at(time.March, 29, 0), End: at(time.March, 30, 0)}, 230}, // a day of 23 hours
	} {
		if a, err := prorated(fee, whole, c.held); err != nil || a.Minor != c.want {
			t.Errorf("held %s: %s, %v, want %d", c.held, a, err, c.want)
		}
	}
}

func TestOverflowIsRefused(t *testing.T) {
	t.Parallel()

	v := charge(t, `meter: n, prices: {USD: {model: per_unit, unit_price: 999999999}}`)
	step := charge(t, `meter: n, step: 7, prices: {USD: {model: per_unit, unit_price: "0.0001"}}`)
	small := charge(t, `meter: n, prices: {USD: {model: package, package: "0.000000001", unit_price: 1}}`)
	for name, c := range map[string]struct {
		v    plan.Version
		u    []pricing.Usage
		want error
	}{
		"Amount":     {v, use("n", "999999999999999"), pricing.ErrRange},
		"JustBeyond": {v, use("n", "10001"), pricing.ErrRange},
		"Sum":        {v, append(use("n", "999999999999999"), use("n", "1")...), pricing.ErrQuantity},
		"Step":       {step, use("n", "999999999999999"), pricing.ErrRange},
		"Packages":   {small, use("n", "999999999999999"), pricing.ErrRange},
		"Negative":   {v, use("n", "-1"), pricing.ErrQuantity},
		"Decimals":   {v, []pricing.Usage{{Meter: "n", Quantity: dec("0.00001").Mul(dec("0.00001"))}}, pricing.ErrQuantity},
	} {
		in := pricing.Input{Version: c.v, Currency: money.USD, Usage: c.u}
		if b, err := pricing.Rate(in); !errors.Is(err, c.want) || errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: billed %s, %v; want %v", name, b.Total, err, c.want)
		}
		if a, err := pricing.Accrued(in); !errors.Is(err, c.want) {
			t.Errorf("%s: accrued %s, %v; want %v", name, a, err, c.want)
		}
	}
}
