package pricing_test

import (
	"fmt"

	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

// A month on Pro: 30,000 minutes of voice and 4,000,000 words.
func ExampleRate() {
	catalogue := plan.Shipped()
	pro, _ := catalogue.Offer(plan.Pro)
	bill, err := pricing.Rate(pricing.Input{
		Version: pro.Version, Currency: money.USD,
		Usage: []pricing.Usage{
			{Meter: "voice", Quantity: money.MustDecimal("1800000")}, // seconds
			{Meter: "text", Quantity: money.MustDecimal("4000000")},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, l := range bill.Lines {
		fmt.Printf("%s: %s %ss, %s included: %s\n", l.Description, l.Quantity, l.Derivation.Unit, l.Included, l.Amount)
		for _, p := range l.Derivation.Parts {
			fmt.Printf("  %s at %s: %s\n", p.Units, p.UnitPrice, p.Amount)
		}
	}
	fmt.Println(bill.Total)
	// Output:
	// Audio and video: 1800000 seconds, 60000 included: 783.00 USD
	//   1740000 at 0.027: 783.00 USD
	// Text: 4000000 words, 10000 included: 778.00 USD
	//   3740000 at 0.0002: 748.00 USD
	//   250000 at 0.00012: 30.00 USD
	// 1561.00 USD
}

// Whoever doubts a line can have it recomputed from its explanation alone.
func ExampleVerify() {
	catalogue := plan.Shipped()
	pro, _ := catalogue.Offer(plan.Pro)
	bill, _ := pricing.Rate(pricing.Input{
		Version: pro.Version, Currency: money.USD,
		Usage: []pricing.Usage{{Meter: "voice", Quantity: money.MustDecimal("60063.5")}},
	})
	d := bill.Lines[0].Derivation
	amount, err := pricing.Verify(d)
	fmt.Println(d.Exact, d.Remainder, amount, err)
	d.Quantity = money.MustDecimal("60000")
	_, err = pricing.Verify(d)
	fmt.Println(err)
	// Output:
	// 1143/40000 -57/40000 0.03 USD <nil>
	// derivation_unverified: The derivation does not add up at "rounded": 120127/2 is recorded, 60000 is right.
}
