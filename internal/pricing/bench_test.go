package pricing_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

// month is one account's month: five meters of six tiers each, with usage in every tier.
func month(tb testing.TB) pricing.Input {
	tb.Helper()
	var y strings.Builder
	y.WriteString("currencies: [USD]\nmeters:\n")
	for m := range 5 {
		fmt.Fprintf(&y, "  - {code: m%d, unit: second, units: {minute: 60}, dimensions: [model]}\n", m)
	}
	y.WriteString("plans:\n  - code: p\n    charges:\n")
	for m := range 5 {
		fmt.Fprintf(&y, "      - meter: m%d\n        per: minute\n        included: 100\n        prices:\n          USD:\n            model: graduated\n            tiers:\n", m)
		for i := range 5 {
			fmt.Fprintf(&y, "              - {up_to: %d, unit_price: \"0.0%d7\"}\n", (i+1)*1000, 9-i)
		}
		y.WriteString("              - {unit_price: \"0.0123\"}\n")
	}
	c, err := plan.ParseCatalogue([]byte(y.String()))
	if err != nil {
		tb.Fatal(err)
	}
	in := pricing.Input{Version: version(tb, c, "p"), Currency: money.USD}
	for m := range 5 {
		in.Usage = append(in.Usage, pricing.Usage{
			Meter: plan.MeterCode(fmt.Sprintf("m%d", m)), Dimensions: map[string]string{"model": "a"},
			Quantity: dec("432123.456789"), Events: 1234,
		})
	}
	return in
}

// The budget: 10 µs and 20 allocations for one account's month.
func BenchmarkRate(b *testing.B) {
	in := month(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := pricing.Rate(in); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(10_000, "must-ns/op")
	b.ReportMetric(20, "must-allocs/op")
}

func BenchmarkAccrued(b *testing.B) {
	in := month(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := pricing.Accrued(in); err != nil {
			b.Fatal(err)
		}
	}
}

//nolint:paralleltest // AllocsPerRun counts the allocations of the whole process
func TestRatingAMonthAllocatesLittle(t *testing.T) {
	in := month(t)
	if n := testing.AllocsPerRun(100, func() { _, _ = pricing.Rate(in) }); n > 20 {
		t.Errorf("Rate allocates %v times, the budget is 20", n)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = pricing.Accrued(in) }); n > 4 {
		t.Errorf("Accrued allocates %v times, the budget is 4", n)
	}
}
