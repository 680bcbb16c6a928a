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

// The first of two grants is the one that pays, whichever way they are given.
func TestSpend_Order(t *testing.T) {
	t.Parallel()

	tomorrow, later := now.AddDate(0, 0, 1), now.AddDate(0, 0, 2)
	for name, pair := range map[string][2]wallet.Grant{
		"the lower priority":                  {{Priority: 1}, {Priority: 2, ExpiresAt: tomorrow}},
		"the sooner to expire":                {{ExpiresAt: tomorrow, GrantedAt: now}, {ExpiresAt: later, GrantedAt: now.Add(-1)}},
		"what expires before what never does": {{ExpiresAt: later, GrantedAt: now}, {GrantedAt: now.Add(-1)}},
		"the older, of two that never expire": {{GrantedAt: now.Add(-1)}, {GrantedAt: now}},
		"the older, of two of one day":        {{ExpiresAt: later, GrantedAt: now.Add(-1)}, {ExpiresAt: later, GrantedAt: now}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// Their ids, which would decide last, are the other way round.
			pair[1].ID, pair[0].ID = id.New[wallet.Grant](), id.New[wallet.Grant]()
			pair[0].Remaining, pair[1].Remaining = usd(10), usd(10)
			for _, grants := range [][]wallet.Grant{{pair[0], pair[1]}, {pair[1], pair[0]}} {
				if draws := wallet.Spend(grants, usd(5), now); len(draws) != 1 || draws[0].Grant != pair[0].ID || draws[0].Amount != usd(5) {
					t.Errorf("%+v, want 5 cents of the first", draws)
				}
			}
		})
	}
}

// Credit pays for what is due in its own currency only.
func TestSpend_OfAnotherCurrencyPaysForNothing(t *testing.T) {
	t.Parallel()

	grants := []wallet.Grant{{Remaining: money.New(500, "EUR")}, {Remaining: usd(30)}}
	draws := wallet.Spend(grants, usd(100), now)
	if len(draws) != 1 || draws[0].Amount != usd(30) || grants[0].Remaining != money.New(500, "EUR") {
		t.Errorf("drawn %+v, left %+v", draws, grants)
	}
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
		held                     bool
	}{
		"at the threshold":                {rule, 1000, 0, 0, false},
		"at the threshold, all charged":   {rule, 1000, 6000, 0, false},
		"below the threshold":             {rule, 999, 0, 4001, false},
		"in debt":                         {rule, -500, 0, 5500, false},
		"exactly to the month's ceiling":  {rule, 0, 1000, 5000, false},
		"up to the month's ceiling":       {rule, 0, 5000, 1000, true},
		"less than is charged is left":    {rule, 0, 5951, 0, true},
		"as much as is charged is left":   {rule, 0, 5950, 50, true},
		"the month's ceiling is passed":   {rule, 0, 7000, 0, true},
		"without a ceiling":               {free, 0, 1_000_000, 5000, false},
		"it is switched off":              {off, 0, 7000, 0, false},
		"a decline has opened it":         {tripped, 0, 7000, 0, false},
		"a cent is missing":               {wallet.AutoTopUp{Enabled: true, Threshold: usd(5000), Target: usd(5000)}, 4999, 0, 0, false},
		"the target is not above what is": {wallet.AutoTopUp{Enabled: true, Threshold: usd(1000), Target: usd(500)}, 700, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got, held := c.rule.Missing(usd(c.available), usd(c.charged), usd(50)); got != usd(c.want) || held != c.held {
				t.Errorf("%s and held back: %v, want %s and %v", got, held, usd(c.want), c.held)
			}
		})
	}
}
