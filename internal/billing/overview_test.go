package billing_test

import (
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Open reservations of a meter that counts nothing else belong to no period; the page shows them, and says as every check
// does whether there is room for more.
func TestOverview_ShowsTheConnectionsThatAreOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	want := func(held string, allowed bool, remaining string) {
		t.Helper()
		o, err := billing.Reader{Core: w.Core}.Overview(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range o.Usage {
			if d := u.Decision; u.Meter.Reserved {
				if d.Reserved.String() != held || d.Allowed != allowed || d.Remaining == nil || d.Remaining.String() != remaining {
					t.Errorf("%s: %s held, allowed %t, %s left; want %s, %t, %s", u.Meter.Code, d.Reserved, d.Allowed, d.Remaining, held, allowed, remaining)
				}
				return
			}
		}
		t.Error("the page lacks the meter")
	}
	reserve := func(quantity string) {
		t.Helper()
		if _, err := w.ingest.Reserve(t.Context(), metering.Reserving{
			Action: metering.Reserve, Account: a, ID: id.New[entitlement.Reservation](), Meter: "concurrent_connections",
			Quantity: money.MustDecimal(quantity), TTL: time.Minute,
		}); err != nil {
			t.Fatal(err)
		}
	}
	reserve("3")
	want("3", true, "2")
	reserve("2")
	want("5", false, "0")
}
