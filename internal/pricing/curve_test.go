package pricing_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

func TestCurve(t *testing.T) {
	t.Parallel()
	num := money.MustDecimal
	usd := func(minor int64) *money.Amount { a := money.New(minor, "USD"); return &a }
	minute := plan.Quote{Unit: "minute", Size: 60}
	for name, tt := range map[string]struct {
		charge plan.Charge
		want   string
	}{
		"PlainPriceIsOnePoint": {
			plan.Charge{Prices: []plan.Price{{Currency: "USD", Model: plan.PerUnit, UnitPrice: num("0.10")}}},
			"1000=100.00",
		},
		"FromTheAllowanceToTenTimesTheLastTier": {
			plan.Charge{Per: minute, Included: num("6000"), Prices: []plan.Price{{Currency: "USD", Model: plan.Graduated, Tiers: []plan.Tier{
				{UpTo: num("18000"), UnitPrice: num("0.03")}, {UnitPrice: num("0.01")},
			}}}},
			"100=0.00 200=3.00 300=6.00 500=8.00 1000=13.00 2000=23.00 3000=33.00",
		},
		"VolumeIsLookedAtOneBeyond": {
			plan.Charge{Prices: []plan.Price{{Currency: "USD", Model: plan.Volume, Tiers: []plan.Tier{
				{UpTo: num("10"), UnitPrice: num("2")}, {UnitPrice: num("1")},
			}}}},
			"1=2.00 2=4.00 5=10.00 10=20.00 11=11.00 20=20.00 50=50.00 100=100.00",
		},
		"SoIsWhatBeginsWithASum": {
			plan.Charge{Prices: []plan.Price{{Currency: "USD", Model: plan.Graduated, Tiers: []plan.Tier{
				{UpTo: num("10"), UnitPrice: num("0")}, {UnitPrice: num("0"), Flat: usd(500)},
			}}}},
			"1=0.00 2=0.00 5=0.00 10=0.00 11=5.00 20=5.00 50=5.00 100=5.00",
		},
		"AMinimumHasAShape": {
			plan.Charge{Prices: []plan.Price{{Currency: "USD", Model: plan.PerUnit, UnitPrice: num("0.01"), Minimum: usd(200)}}},
			"1=2.00 2=2.00 5=2.00 10=2.00 20=2.00 50=2.00 100=2.00 200=2.00 500=5.00 1000=10.00 2000=20.00 5000=50.00 10000=100.00",
		},
		"WhatMatchesSomeUsageIsPricedForIt": {
			plan.Charge{Match: map[string]string{"model": "nova-*"}, Prices: []plan.Price{{Currency: "USD", Model: plan.PerUnit, UnitPrice: num("1")}}},
			"1000=1000.00",
		},
		"EndsWhereTheSumsWouldBeTooLarge": {
			plan.Charge{Prices: []plan.Price{{Currency: "USD", Model: plan.Graduated, Tiers: []plan.Tier{
				{UpTo: num("1000000000000"), UnitPrice: num("10")}, {UnitPrice: num("10")},
			}}}},
			"100000000000=1000000000000.00 200000000000=2000000000000.00 500000000000=5000000000000.00 1000000000000=10000000000000.00",
		},
		"NothingWithoutAPrice": {plan.Charge{Included: num("10")}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tt.charge.Code, tt.charge.Meter = "calls", "calls"
			curve, err := pricing.Curve(tt.charge, "USD")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range curve {
				got = append(got, fmt.Sprintf("%d=%s", p.Units, strings.TrimSuffix(p.Cost.String(), " USD")))
			}
			if line := strings.Join(got, " "); line != tt.want {
				t.Errorf("curve\n%s, want\n%s", line, tt.want)
			}
		})
	}
}
