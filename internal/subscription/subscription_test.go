package subscription_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
)

// Whatever is changed whenever, also twice in the same instant or when the period is over and not closed,
// the times for which terms were held follow each other without a gap and fill the period.
func TestChangePlan_PropertyHeldTimesFillThePeriod(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)
		s := subscription.New(id.New[account.Account](), subscription.Terms{Plan: "a", Version: 1},
			period.Schedule{Anchor: period.DateOf(begin, time.UTC), Zone: time.UTC, Interval: period.Month}, begin)
		now, want := begin, map[plan.Code]time.Duration{}
		since := s.Period.Start
		for _, wait := range rapid.SliceOfN(rapid.IntRange(0, 20), 0, 6).Draw(t, "days") { // the period may be over by then
			now = now.Add(time.Duration(wait) * 24 * time.Hour)
			to := subscription.Terms{Plan: plan.Code(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "to")), Version: 1}
			held := s.Plan
			if s.ChangePlan(to, now) != nil {
				continue // on it already
			}
			until := now
			if until.After(s.Period.End) {
				until = s.Period.End
			}
			want[held] += until.Sub(since)
			since = until
		}
		want[s.Plan] += s.Period.End.Sub(since)

		opened, got, at := s.Opened(), map[plan.Code]time.Duration{}, s.Period.Start
		for _, h := range append(opened.Held, subscription.Holding{Terms: opened.Terms, Time: opened.Present()}) {
			if !h.Time.Start.Equal(at) {
				t.Fatalf("%s is held from %s, and the one before until %s", h.Plan, h.Time.Start, at)
			}
			got[h.Plan] += h.Time.Duration()
			at = h.Time.End
		}
		if !at.Equal(s.Period.End) {
			t.Fatalf("the last is held until %s, the period ends at %s", at, s.Period.End)
		}
		for p, d := range want {
			if got[p] != d {
				t.Fatalf("%s was held for %s, want %s", p, got[p], d)
			}
		}
		s.Advance(time.UTC, s.Terms, s.Schedule.Interval, now)
		if len(s.Held) > 0 {
			t.Fatalf("a new period begins with %v", s.Held)
		}
	})
}

// What is held of a period ends with it, or with the account: one that is closed late has not been held for longer.
func TestPeriod_IsHeldUntilItIsClosed(t *testing.T) {
	t.Parallel()
	day := func(d int) time.Time { return time.Date(2026, 3, d, 0, 0, 0, 0, time.UTC) }
	p := subscription.Period{Bounds: period.Bounds{Start: day(1), End: day(20)}}
	for closed, end := range map[time.Time]time.Time{{}: day(20), day(10): day(10), day(25): day(20)} {
		p.ClosedAt = closed
		if got := p.Present(); !got.Equal(period.Bounds{Start: day(1), End: end}) {
			t.Errorf("closed at %s it was held for %s, want until %s", closed, got, end)
		}
	}
}
