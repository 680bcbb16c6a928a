package billing_test

import (
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/wallet"
)

func TestCredit_TheSoonestToExpireIsSpentFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	never, late, soon, last := w.grant(t, a, 300, 0, 0), w.grant(t, a, 300, 0, 90), w.grant(t, a, 300, 0, 60), w.grant(t, a, 300, 1, 45)
	w.use(t, a, "voice", "60000") // the allowance
	w.use(t, a, "voice", "12000") // 5.40
	w.advance(35 * 24 * time.Hour)
	w.sweep(t)
	for _, c := range []struct {
		name  string
		grant wallet.GrantID
		left  int64
	}{{"in 60 days", soon, 0}, {"in 90 days", late, 60}, {"never", never, 300}, {"in 45 days, of a later priority", last, 300}} {
		if got := w.left(t, a, c.grant); got != c.left {
			t.Errorf("of what expires %s %d are left, want %d", c.name, got, c.left)
		}
	}
	if n := len(w.charges(t)[a]); n != 0 {
		t.Errorf("%d charges of the card for what credit has paid", n)
	}
}

// Usage that is worth more than the limit leaves is refused; what a change of the limit leaves beyond it is
// not billed, and shown.
func TestSpendLimit_TheBillNeverPassesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.use(t, a, "voice", "120000") // 27 dollars
	w.limitSpend(t, a, 1000, entitlement.Hard)
	w.tryUse(t, a, "voice", "60000")
	w.advance(35 * 24 * time.Hour)
	w.sweep(t)
	list, err := w.DB.Invoices().List(t.Context(), a, "", page.Request{Limit: 10})
	if err != nil || len(list.Data) != 1 {
		t.Fatalf("%d invoices, %v; want 1", len(list.Data), err)
	}
	content, err := w.DB.Invoices().Content(t.Context(), a, list.Data[0].ID)
	if err != nil || content.Total != usd(1000) || content.Absorbed != usd(1700) {
		t.Errorf("billed %s and absorbed %s, %v; want 10.00 and 17.00", content.Total, content.Absorbed, err)
	}
}
