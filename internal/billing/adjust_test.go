package billing_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// An invoice that is taken back while its next attempt is due is either void and not charged, or charged and not void.
func TestVoid_RacingACollection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for round := range often(6, 30) {
		a := w.open(t)
		w.upgrade(t, a.ID, sandbox.TokenChargeDeclined)
		w.use(t, a.ID, "voice", "120000") // 27.00
		w.until(t, w.clock().Add(35*24*time.Hour))
		open, err := w.DB.Invoices().Unpaid(t.Context(), a.ID)
		if err != nil || len(open) != 1 || open[0].NextAttempt.IsZero() {
			t.Fatalf("%+v, %v; want one that is tried again", open, err)
		}
		w.behave(t, a.ID, sandbox.TokenVisa)
		w.advance(open[0].NextAttempt.Sub(w.clock()))
		var voided error
		together(2, func(i int) {
			if i == 0 {
				_, voided = billing.Adjuster{Core: w.Core}.Void(t.Context(), asked(a.ID, newKey()), open[0].ID, "not theirs", nil)
				return
			}
			if _, err := (billing.Collector{Core: w.Core}).Collect(t.Context(), a.ID, open[0].ID); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		})
		inv, err := w.DB.Invoices().Get(t.Context(), a.ID, open[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%s, charged %d times, voiding refused: %v", inv.Status, len(w.charges(t)[a.ID]), voided != nil)
		if got != "void, charged 0 times, voiding refused: false" && got != "paid, charged 1 times, voiding refused: true" {
			t.Errorf("round %d: %s (%v)", round, got, voided)
		}
		w.sweep(t) // what is due of the others by now
	}
}
