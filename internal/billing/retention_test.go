package billing_test

import (
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// An intent that is older than the provider's memory of keys is never sent again: it would be another
// charge. It is looked up, and what the provider does not have has failed.
func TestTopUp_OlderThanTheProvidersKeysIsLookedUp(t *testing.T) {
	t.Parallel()
	never := false
	for name, c := range map[string]struct {
		fault  sandbox.Fault
		want   payment.Status
		funds  int64
		charge int
	}{
		"ChargedAndTheAnswerLost": {sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset}, payment.Succeeded, 5000, 1},
		"NeverArrived":            {sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset, Effect: &never}, payment.Failed, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.open(t).ID
			w.upgrade(t, a, sandbox.TokenVisa)
			if err := w.control.Plan(t.Context(), c.fault); err != nil {
				t.Fatal(err)
			}
			top := w.topUp(t, a, 5000)
			if top.Status != payment.Processing {
				t.Fatalf("status %s, want processing", top.Status)
			}
			if err := w.control.ForgetKeys(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.advance(25 * time.Hour)
			w.sweep(t)
			got, err := billing.Funder{Core: w.Core}.Get(t.Context(), a, top.ID)
			if err != nil || got.Status != c.want {
				t.Errorf("%s, %v; want %s", got.Status, err, c.want)
			}
			if b := w.balance(t, a); b.Funds != usd(c.funds) {
				t.Errorf("funds %s, want %s", b.Funds, usd(c.funds))
			}
			if n := len(w.charges(t)[a]); n != c.charge {
				t.Errorf("%d charges, want %d", n, c.charge)
			}
		})
	}
}
