package entitlement_test

import (
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/pkg/money"
)

func day(m time.Month, d int) time.Time { return time.Date(2026, m, d, 0, 0, 0, 0, time.UTC) }

func sample() entitlement.Entitlement {
	return entitlement.Entitlement{
		Status:       account.Active,
		PeriodStarts: []time.Time{day(time.September, 15), day(time.October, 15)},
		PeriodEnd:    day(time.November, 15),
		Limits: map[string]entitlement.Limit{
			"voice": {Quantity: money.MustDecimal("60"), Mode: entitlement.Hard},
			"text":  {Quantity: money.MustDecimal("60"), Mode: entitlement.Soft},
		},
	}
}

func TestPeriodOfIsHalfOpen(t *testing.T) {
	t.Parallel()

	const us = time.Microsecond
	for name, c := range map[string]struct {
		at, start time.Time
		ok        bool
	}{
		"before every open period":         {day(time.September, 15).Add(-us), time.Time{}, false},
		"on the first start":               {day(time.September, 15), day(time.September, 15), true},
		"last instant of the first":        {day(time.October, 15).Add(-us), day(time.September, 15), true},
		"on the second start":              {day(time.October, 15), day(time.October, 15), true},
		"last instant of the current":      {day(time.November, 15).Add(-us), day(time.October, 15), true},
		"on the end, closing is late":      {day(time.November, 15), day(time.November, 15), true},
		"last instant surely of the next":  {day(time.November, 15).Add(27*24*time.Hour - us), day(time.November, 15), true},
		"beyond what is surely the next's": {day(time.November, 15).Add(27 * 24 * time.Hour), day(time.November, 15), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			start, ok := sample().PeriodOf(c.at)
			if ok != c.ok || (ok && !start.Equal(c.start)) {
				t.Errorf("PeriodOf(%s) = %s, %v; want %s, %v", c.at, start, ok, c.start, c.ok)
			}
		})
	}
}

func TestEndOfAnOpenPeriodIsTheNextStart(t *testing.T) {
	t.Parallel()

	e := sample()
	if got := e.EndOf(day(time.September, 15)); !got.Equal(day(time.October, 15)) {
		t.Errorf("first period ends %s", got)
	}
	if got := e.EndOf(day(time.October, 15)); !got.Equal(day(time.November, 15)) {
		t.Errorf("current period ends %s", got)
	}
	if got := e.EndOf(day(time.November, 15)); !got.IsZero() {
		t.Errorf("the next period's end is not known, got %s", got)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		meter, used, reserved string
		status                account.Status
		allowed               bool
		reason                entitlement.Reason
		remaining             string
	}{
		"below a hard limit":               {"voice", "59.999999999", "0", account.Active, true, "", "0.000000001"},
		"at a hard limit":                  {"voice", "60", "0", account.Active, false, "limit_reached", "0"},
		"reserved units count":             {"voice", "40", "20", account.Active, false, "limit_reached", "0"},
		"past a limit that was lowered":    {"voice", "90", "0", account.Active, false, "limit_reached", "0"},
		"at a soft limit, told":            {"text", "60", "0", account.Active, true, "limit_reached", "0"},
		"no limit":                         {"other", "1000", "0", account.Active, true, "", ""},
		"suspended":                        {"other", "0", "0", account.Suspended, false, "account_suspended", ""},
		"closed goes before the limit":     {"voice", "60", "0", account.Closed, false, "account_closed", "0"},
		"suspended goes before soft limit": {"text", "60", "0", account.Suspended, false, "account_suspended", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			e := sample()
			e.Status = c.status
			d := e.Check(c.meter, money.MustDecimal(c.used), money.MustDecimal(c.reserved))
			if d.Allowed != c.allowed || d.Reason != c.reason {
				t.Errorf("allowed %v, reason %q; want %v, %q", d.Allowed, d.Reason, c.allowed, c.reason)
			}
			remaining := ""
			if d.Remaining != nil {
				remaining = d.Remaining.String()
			}
			if remaining != c.remaining {
				t.Errorf("remaining %q, want %q", remaining, c.remaining)
			}
			if !d.ResetsAt.Equal(e.PeriodEnd) {
				t.Errorf("resets at %s", d.ResetsAt)
			}
		})
	}
}

func TestSpendLimit(t *testing.T) {
	t.Parallel()

	limit := int64(5000)
	e := sample()
	e.SpendLimit, e.SpendMode = &limit, entitlement.Hard
	open := entitlement.Decision{Allowed: true}
	if d := e.CheckSpend(open, 4999); !d.Allowed {
		t.Error("refused below the limit")
	}
	if d := e.CheckSpend(open, 5000); d.Allowed || d.Reason != entitlement.SpendLimitReached {
		t.Errorf("at the limit: %+v", d)
	}
	e.SpendMode = entitlement.Soft
	if d := e.CheckSpend(open, 5000); !d.Allowed || d.Reason != entitlement.SpendLimitReached {
		t.Errorf("a soft limit lets pass and tells: %+v", d)
	}
	refused := entitlement.Decision{Reason: entitlement.LimitReached}
	if d := e.CheckSpend(refused, 9000); d.Allowed || d.Reason != entitlement.LimitReached {
		t.Errorf("a refusal was changed: %+v", d)
	}
}
