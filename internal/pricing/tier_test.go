package pricing_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

// A price may have any number of tiers, and each has its share of the line.
func TestTiers_AreAnyNumber(t *testing.T) {
	t.Parallel()
	const n = 40
	tiers := make([]string, n)
	for i := range tiers {
		tiers[i] = fmt.Sprintf("{up_to: %d, unit_price: %d}", i+1, i+1)
	}
	tiers[n-1] = fmt.Sprintf("{unit_price: %d}", n)
	v := charge(t, "meter: n, prices: {USD: {model: graduated, tiers: ["+strings.Join(tiers, ", ")+"]}}")
	for _, units := range []int64{1, 16, 17, n, n + 1} {
		bill := rate(t, pricing.Input{Version: v, Usage: use("n", fmt.Sprint(units))})
		within := min(units, n)
		if want := 100 * (within*(within+1)/2 + (units-within)*n); bill.Total != money.New(want, money.USD) {
			t.Errorf("%d units are %s, want %d", units, bill.Total, want)
		}
		if parts := bill.Lines[0].Derivation.Parts; int64(len(parts)) != within || parts[within-1].Amount.Minor == 0 {
			t.Errorf("%d units have %d parts, the last of %s", units, len(parts), parts[len(parts)-1].Amount)
		}
	}
}

// Of a price by the total, the derivation says which tier it was and where that begins.
func TestTiers_TheOneByTheTotal(t *testing.T) {
	t.Parallel()
	v := charge(t, "meter: n, prices: {USD: {model: volume, tiers: [{up_to: 10, unit_price: 3}, {up_to: 20, unit_price: 2}, {unit_price: 1}]}}")
	for units, over := range map[string]string{"10": "0", "11": "10", "20": "10", "21": "20"} {
		parts := rate(t, pricing.Input{Version: v, Usage: use("n", units)}).Lines[0].Derivation.Parts
		if len(parts) != 1 || parts[0].Over.Cmp(dec(over)) != 0 {
			t.Errorf("%s units: %+v, want the tier over %s", units, parts, over)
		}
	}
}
