package billing_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/wallet"
)

func TestCredit_TheSoonestToExpireIsSpentFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
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
	a := w.onPro(t)
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

// The worked examples of the published price list, as invoices.
// Nothing has run for three months: what was missed is made up for in order, each period once, by what was used in it.
func TestSweep_ClosesWhatWasMissedInOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t) // from the tenth of March
	w.use(t, a, "voice", "60600")
	w.advance(32 * 24 * time.Hour)
	w.use(t, a, "voice", "61200")
	w.advance(65 * 24 * time.Hour)
	w.sweep(t)
	w.sweep(t)
	list, err := w.DB.Invoices().List(t.Context(), a, "", page.Request{Limit: 10})
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(list.Data) // the latest comes first
	var got []string
	for _, inv := range list.Data {
		content, err := w.DB.Invoices().Content(t.Context(), a, inv.ID)
		if err != nil {
			t.Fatal(err)
		}
		_, number, _ := strings.Cut(content.Number, "-")
		got = append(got, fmt.Sprintf("%s %s to %s: %s", number, inv.Period.Start.Format("2 January"), inv.Period.End.Format("2 January"), inv.Total))
	}
	want := []string{
		"000001 10 March to 10 April: 0.27 USD", "000002 10 April to 10 May: 0.54 USD", "000003 10 May to 10 June: 0.00 USD",
	}
	if !slices.Equal(got, want) {
		t.Errorf("invoices\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if sub, err := w.DB.Subscriptions().Active(t.Context(), a); err != nil || sub.Index != 3 {
		t.Errorf("period %d is running, %v; want 3", sub.Index, err)
	}
}

func TestCycleInvoices(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		voice, text string // seconds, words
		total       int64
	}{
		"WithinTheAllowance":  {"60000", "10000", 0},
		"OneMinuteBeyond":     {"60060", "10000", 3}, // 0.027 before rounding
		"WholeFirstTier":      {"1800000", "", 78300},
		"IntoTheSecondTier":   {"2700000", "", 103800},
		"TextIntoItsLastTier": {"", "4000000", 77800},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onPro(t)
			if c.voice != "" {
				w.use(t, a, "voice", c.voice)
			}
			if c.text != "" {
				w.use(t, a, "text", c.text)
			}
			w.advance(35 * 24 * time.Hour)
			w.sweep(t) // closes, finalises and collects
			list, err := w.DB.Invoices().List(t.Context(), a, "", page.Request{Limit: 10})
			if err != nil || len(list.Data) != 1 {
				t.Fatalf("%d invoices, %v; want 1", len(list.Data), err)
			}
			inv := list.Data[0]
			if inv.Total != usd(c.total) {
				t.Errorf("total %s, want %s", inv.Total, usd(c.total))
			}
			wantStatus := invoice.Paid
			if c.total == 3 {
				wantStatus = invoice.Open // below what any card is charged: it stays due
			}
			if inv.Status != wantStatus {
				t.Errorf("status %s, want %s", inv.Status, wantStatus)
			}
			content, err := w.DB.Invoices().Content(t.Context(), a, inv.ID)
			if err != nil {
				t.Fatal(err)
			}
			if h, err := content.Fingerprint(); err != nil || h != content.Hash {
				t.Errorf("the stored hash does not hold: %v", err)
			}
		})
	}
}
