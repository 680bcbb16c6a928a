package billing_test

import (
	"errors"
	"testing"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/plan"
)

// A closed account gets no further invoice, so what it has used is not changed any more: a credit note corrects its bills.
func TestCorrect_OfAClosedAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.useAs(t, a, "call", "voice", "60", w.clock())
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	fix := billing.Corrections{Core: w.Core, Catalogue: billing.Meters(plan.Shipped().Meters)}
	_, err := fix.Correct(t.Context(), asked(a, newKey()), metering.Correction{
		Source: "test", EventID: "call", Kind: metering.Void, Reason: "never happened",
	}, nil)
	if !errors.Is(err, account.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}
