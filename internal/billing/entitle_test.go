package billing_test

import (
	"testing"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
)

func TestDeveloperStopsAtItsLimitAndUpgradeLiftsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)

	w.use(t, a.ID, "voice", "59999")
	if r := w.tryUse(t, a.ID, "voice", "2"); r.Status != metering.Rejected || r.Problem.Code != "limit_reached" {
		t.Fatalf("an event past the limit: %+v, want limit_reached", r)
	}
	w.use(t, a.ID, "voice", "1")

	w.upgrade(t, a.ID, sandbox.TokenVisa)
	w.use(t, a.ID, "voice", "60") // one minute beyond the allowance
	// 2.7 cents before rounding: 0.027 a minute.
	if b := w.balance(t, a.ID); b.Accrued != usd(3) {
		t.Errorf("accrued %s, want 0.03 USD", b.Accrued)
	}
	o, err := billing.Reader{Core: w.Core}.Overview(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if o.Facts.Plan.Code != plan.Pro || o.Facts.DefaultMethod() == nil || o.Facts.DefaultMethod().Card.Last4 != "4242" {
		t.Errorf("overview shows plan %s and card %+v", o.Facts.Plan.Code, o.Facts.DefaultMethod())
	}
	// The page and usage by meter agree on what has a cost, used or not.
	costs, err := billing.Reader{Core: w.Core}.Costs(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range o.Usage {
		cost, ok := costs[string(u.Meter.Code)]
		if ok != u.Charged || (ok && cost.Amount != usd(map[plan.MeterCode]int64{"voice": 3}[u.Meter.Code])) {
			t.Errorf("%s costs %+v, %t; on the page: %t", u.Meter.Code, cost.Amount, ok, u.Charged)
		}
	}
}
