package billing_test

import (
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// A limit may let use pass and tell: once per period and limit, however many look at once.
func TestSoftLimit_LetsPassAndTellsOncePerPeriod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	soften := func(quantity string) {
		t.Helper()
		c := plan.Shipped()
		for i := range c.Offers {
			if v := &c.Offers[i].Version; v.Plan == plan.Pro {
				v.Limits = append(v.Limits, plan.Limit{Meter: "voice", Quantity: money.MustDecimal(quantity), Mode: plan.Soft})
			}
		}
		if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	soften("600")
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	want := func(n int, when string) {
		t.Helper()
		if watched, err := w.DB.Alerts().Watched(t.Context(), []account.ID{a}); err != nil || len(watched) != 1 {
			t.Fatalf("nobody looks at the account: %v, %v", watched, err)
		}
		w.check(t, a)
		if got := w.told(t, a, outbox.UsageLimitReached); got != n {
			t.Errorf("told %d times %s, want %d", got, when, n)
		}
	}
	w.use(t, a, "voice", "599")
	want(0, "below the limit")
	w.use(t, a, "voice", "1")
	want(1, "at the limit")
	w.use(t, a, "voice", "6000")
	want(1, "beyond it")
	w.advance(32 * 24 * time.Hour)
	w.sweep(t)
	want(1, "in a new period")
	w.use(t, a, "voice", "601")
	want(2, "at the new period's")
}
