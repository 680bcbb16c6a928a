package subscription_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
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
		for _, h := range opened.Held {
			if h.Time.Duration() <= 0 {
				t.Fatalf("%s is kept as held for no time", h.Plan)
			}
		}
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

func day(d int) time.Time { return time.Date(2026, 3, d, 0, 0, 0, 0, time.UTC) }

// A contract holds from its start up to its end or, where it was ended before, up to then. Only periods that begin
// within are under it.
func TestContract_IsInForceUntilItEndsOrIsEnded(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		end, endedAt    time.Time
		at              time.Time
		inForce, isOver bool
	}{
		{"BeforeItBegins", time.Time{}, time.Time{}, day(9), false, false},
		{"WhenItBegins", day(20), time.Time{}, day(10), true, false},
		{"WithoutAnEnd", time.Time{}, time.Time{}, day(31), true, false},
		{"JustBeforeItsEnd", day(20), time.Time{}, day(20).Add(-1), true, false},
		{"AtItsEnd", day(20), time.Time{}, day(20), false, true},
		{"JustBeforeItIsEnded", day(25), day(20), day(20).Add(-1), true, false},
		{"WhenItIsEnded", day(25), day(20), day(20), false, true},
		{"WhenOneWithoutAnEndIsEnded", time.Time{}, day(20), day(20), false, true},
		{"AtItsEndThoughItIsToBeEndedLater", day(20), day(25), day(20), false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			k := subscription.Contract{Definition: plan.Contract{Start: day(10), End: c.end}, EndedAt: c.endedAt}
			if k.InForce(c.at) != c.inForce || k.Over(c.at) != c.isOver {
				t.Errorf("in force %t, over %t; want %t, %t", k.InForce(c.at), k.Over(c.at), c.inForce, c.isOver)
			}
		})
	}
}

func agreement(t *testing.T) subscription.Subscription {
	t.Helper()
	s := subscription.New(id.New[account.Account](), subscription.Terms{Plan: "a", Version: 1},
		period.Schedule{Anchor: period.Date{Year: 2026, Month: 1, Day: 31}, Zone: time.UTC, Interval: period.Month}, day(10))
	if s.Revision != 1 || s.Status != subscription.Active || s.Period.Start != time.Date(2026, 2, 28, 0, 0, 0, 0, time.UTC) || s.Period.End != day(31) {
		t.Fatalf("%+v", s)
	}
	s.NextPlan, s.NextVersion = "z", 9
	s.Waived["voice"] = money.DecimalFromInt(5)
	return s
}

func wantPlanned(t *testing.T, s subscription.Subscription, next plan.Code, version int) {
	t.Helper()
	if s.NextPlan != next || s.NextVersion != version {
		t.Errorf("planned are plan %q and version %d, want %q and %d", s.NextPlan, s.NextVersion, next, version)
	}
}

// A change to the terms that are held is refused, and changes nothing; any other drops what was planned.
func TestChangePlan_DropsWhatWasPlanned(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*subscription.Subscription, subscription.Terms, time.Time) error{
		"ChangePlan": (*subscription.Subscription).ChangePlan, "Replace": (*subscription.Subscription).Replace,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := agreement(t)
			if err := change(&s, s.Terms, day(12)); !errors.Is(err, subscription.ErrSamePlan) {
				t.Errorf("to the same terms: %v", err)
			}
			wantPlanned(t, s, "z", 9)
			to := subscription.Terms{Plan: "a", Version: 2}
			if err := change(&s, to, day(12)); err != nil || s.Terms != to || s.UpdatedAt != day(12) {
				t.Errorf("%v: %+v", err, s)
			}
			wantPlanned(t, s, "", 0)
		})
	}
}

// Terms that take the place of others have been held for all the time for which those were, and for no other.
func TestReplace_AsThoughTheyHadBeenHeld(t *testing.T) {
	t.Parallel()
	s := agreement(t)
	a, b, other := s.Terms, subscription.Terms{Plan: "b", Version: 1}, subscription.Terms{Plan: "a", Version: 2}
	for i, to := range []subscription.Terms{b, a} {
		if err := s.ChangePlan(to, day(12+i)); err != nil {
			t.Fatal(err)
		}
	}
	before := slices.Clone(s.Held)
	was := s
	if err := s.Replace(other, day(20)); err != nil {
		t.Fatal(err)
	}
	if len(s.Held) != 2 || s.Held[0] != (subscription.Holding{Terms: other, Time: before[0].Time}) || s.Held[1] != before[1] {
		t.Errorf("held %+v, before %+v", s.Held, before)
	}
	if !slices.Equal(was.Held, before) {
		t.Error("a copy of the agreement has changed with it")
	}
}

// The next period follows without a gap, counts on, and begins with nothing waived, held or planned. Billed by another
// interval, periods count from its start.
func TestAdvance(t *testing.T) {
	t.Parallel()
	s := agreement(t)
	if err := s.ChangePlan(subscription.Terms{Plan: "b", Version: 1}, day(12)); err != nil {
		t.Fatal(err)
	}
	s.NextPlan, s.NextVersion = "z", 9
	next := subscription.Terms{Plan: "z", Version: 3}
	s.Advance(time.UTC, next, period.Month, day(31).Add(time.Hour))
	want := period.Bounds{Start: day(31), End: time.Date(2026, 4, 30, 0, 0, 0, 0, time.UTC)}
	if s.Index != 1 || s.Period != want || s.Terms != next || len(s.Waived) != 0 || len(s.Held) != 0 || s.UpdatedAt != day(31).Add(time.Hour) {
		t.Errorf("%+v", s)
	}
	wantPlanned(t, s, "", 0)
	s.Advance(time.UTC, next, period.Year, day(31))
	if want := (period.Bounds{Start: want.End, End: want.End.AddDate(1, 0, 0)}); s.Index != 2 || s.Period != want {
		t.Errorf("by the year: period %d, %s; want %s", s.Index, s.Period, want)
	}
}

// Another zone of the account counts from the next period on.
func TestAdvance_InTheZoneOfTheAccountNow(t *testing.T) {
	t.Parallel()
	s, tokyo := agreement(t), time.FixedZone("UTC+9", 9*60*60)
	s.Advance(tokyo, s.Terms, s.Schedule.Interval, day(31))
	if s.Schedule.Zone != tokyo {
		t.Errorf("periods are counted in %s", s.Schedule.Zone)
	}
}

// What is held of a period ends with it, or with the account: one that is closed late has not been held for longer.
func TestPeriod_IsHeldUntilItIsClosed(t *testing.T) {
	t.Parallel()
	p := subscription.Period{Bounds: period.Bounds{Start: day(1), End: day(20)}}
	for closed, end := range map[time.Time]time.Time{{}: day(20), day(10): day(10), day(25): day(20)} {
		p.ClosedAt = closed
		if got := p.Present(); !got.Equal(period.Bounds{Start: day(1), End: end}) {
			t.Errorf("closed at %s it was held for %s, want until %s", closed, got, end)
		}
	}
}
