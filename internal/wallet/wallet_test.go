package wallet_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

var now = time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)

func usd(minor int64) money.Amount { return money.New(minor, money.USD) }

// Whatever grants there are, they pay for as much of what is due as they can, each at most what it has left, and what has
// expired pays for nothing.
func TestSpend_Property(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		grants := make([]wallet.Grant, rapid.IntRange(0, 6).Draw(t, "grants"))
		can, before := int64(0), map[wallet.GrantID]int64{}
		for i := range grants {
			g := wallet.Grant{ID: id.New[wallet.Grant](), Remaining: usd(rapid.Int64Range(0, 500).Draw(t, "left")), Priority: rapid.IntRange(0, 1).Draw(t, "priority")}
			if days := rapid.IntRange(-2, 3).Draw(t, "days"); days != 3 { // 3: it never expires
				g.ExpiresAt = now.AddDate(0, 0, days)
			}
			if g.ExpiresAt.IsZero() || g.ExpiresAt.After(now) {
				can += g.Remaining.Minor
			}
			grants[i], before[g.ID] = g, g.Remaining.Minor
		}
		due := rapid.Int64Range(0, 2000).Draw(t, "due")
		paid := int64(0)
		for _, d := range wallet.Spend(grants, usd(due), now) {
			if d.Amount.Minor <= 0 {
				t.Fatalf("%+v pays nothing", d)
			}
			paid += d.Amount.Minor
			before[d.Grant] -= d.Amount.Minor
		}
		if paid != min(due, can) {
			t.Fatalf("%d paid of %d with %d", paid, due, can)
		}
		for _, g := range grants {
			if g.Remaining.Minor != before[g.ID] || g.Remaining.Minor < 0 {
				t.Fatalf("%+v has %d left, want %d", g, g.Remaining.Minor, before[g.ID])
			}
		}
	})
}

// An automatic top-up brings what is available to the target once it is below the threshold, within the month's ceiling and
// not below what a card is charged at least.
func TestAutoTopUp_Missing(t *testing.T) {
	t.Parallel()

	ceiling := usd(6000)
	rule := wallet.AutoTopUp{Enabled: true, Threshold: usd(1000), Target: usd(5000), MonthlyCeiling: &ceiling}
	off, tripped, free := rule, rule, rule
	off.Enabled, tripped.Tripped, free.MonthlyCeiling = false, true, nil
	for name, c := range map[string]struct {
		rule                     wallet.AutoTopUp
		available, charged, want int64
	}{
		"at the threshold":                {rule, 1000, 0, 0},
		"below the threshold":             {rule, 999, 0, 4001},
		"in debt":                         {rule, -500, 0, 5500},
		"up to the month's ceiling":       {rule, 0, 5000, 1000},
		"less than is charged is left":    {rule, 0, 5951, 0},
		"as much as is charged is left":   {rule, 0, 5950, 50},
		"the month's ceiling is passed":   {rule, 0, 7000, 0},
		"without a ceiling":               {free, 0, 1_000_000, 5000},
		"it is switched off":              {off, 0, 0, 0},
		"a decline has opened it":         {tripped, 0, 0, 0},
		"the target is not above what is": {wallet.AutoTopUp{Enabled: true, Threshold: usd(1000), Target: usd(500)}, 700, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := c.rule.Missing(usd(c.available), usd(c.charged), usd(50)); got != usd(c.want) {
				t.Errorf("%s, want %s", got, usd(c.want))
			}
		})
	}
}
