package alert_test

import (
	"testing"

	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Usage and spend reach a threshold from below, a balance from above. At it counts.
func TestReached(t *testing.T) {
	t.Parallel()
	for kind, want := range map[alert.Kind][3]bool{
		alert.Usage:      {false, true, true},
		alert.Spend:      {false, true, true},
		alert.LowBalance: {true, true, false},
	} {
		a := alert.Alert{Kind: kind, Threshold: money.MustDecimal("100")}
		for i, value := range []string{"99.999999999", "100", "100.000000001"} {
			if got := a.Reached(money.MustDecimal(value)); got != want[i] {
				t.Errorf("%s at %s: reached %t", kind, value, got)
			}
		}
	}
}
