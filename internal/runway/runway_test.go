package runway_test

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/runway"
)

var now = time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)

func TestOf(t *testing.T) {
	t.Parallel()
	week := []int64{100, 100, 100, 100, 100, 100, 1000}
	for name, c := range map[string]struct {
		available int64
		daily     []int64
		ordinary  int64
		until     time.Time
		dear      int64
		untilDear time.Time
		tooFew    bool
	}{
		"SixDaysSayNothing":      {available: 1000, daily: week[:6], tooFew: true},
		"TenOrdinaryDays":        {available: 1000, daily: week, ordinary: 100, until: now.Add(10 * runway.Day), dear: 1000, untilDear: now.Add(runway.Day)},
		"PartOfADay":             {available: 50, daily: week, ordinary: 100, until: now.Add(12 * time.Hour), dear: 1000, untilDear: now.Add(72 * time.Minute)},
		"NothingAvailable":       {available: 0, daily: week, ordinary: 100, until: now, dear: 1000, untilDear: now},
		"NothingToSpendNorSpent": {available: 0, daily: make([]int64, 7), until: now, untilDear: now},
		"LastDayOfTheHorizon":    {available: 3650*100 - 1, daily: []int64{100, 100, 100, 100, 100, 100, 100}, ordinary: 100, until: now.Add(3650*runway.Day - 864*time.Second), dear: 100, untilDear: now.Add(3650*runway.Day - 864*time.Second)},
		"AtTheHorizon":           {available: 3650 * 100, daily: []int64{100, 100, 100, 100, 100, 100, 100}, ordinary: 100, dear: 100},
		"ACentADay":              {available: 10, daily: []int64{1, 1, 1, 1, 1, 1, 1}, ordinary: 1, until: now.Add(10 * runway.Day), dear: 1, untilDear: now.Add(10 * runway.Day)},
		"InDebt":                 {available: -5, daily: week, ordinary: 100, until: now, dear: 1000, untilDear: now},
		"NothingSpent":           {available: 5, daily: make([]int64, 7)},
		"OneDayOfTenIsNoRule":    {available: 100, daily: []int64{0, 0, 0, 0, 0, 0, 0, 0, 0, 50}, untilDear: time.Time{}},
		"TwoDaysOfTenAreDear":    {available: 100, daily: []int64{0, 0, 0, 0, 0, 0, 0, 0, 50, 50}, dear: 50, untilDear: now.Add(2 * runway.Day)},
		"BeyondTheHorizon":       {available: math.MaxInt64, daily: week, ordinary: 100, dear: 1000},
		"LargeSums":              {available: 1e15, daily: []int64{1e15, 1e15, 1e15, 1e15, 1e15, 1e15, 1e15}, ordinary: 1e15, until: now.Add(runway.Day), dear: 1e15, untilDear: now.Add(runway.Day)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, ok := runway.Of(now, c.available, c.daily)
			if ok == c.tooFew {
				t.Fatalf("known: %v", ok)
			}
			if c.tooFew {
				return
			}
			if got[0].Daily != c.ordinary || !got[0].Until.Equal(c.until) || got[1].Daily != c.dear || !got[1].Until.Equal(c.untilDear) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// The cautious estimate never lasts longer than the ordinary one.
func TestOf_DearIsNeverLater(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		daily := rapid.SliceOfN(rapid.Int64Range(0, 1e12), runway.MinDays, runway.MaxDays).Draw(t, "daily")
		got, ok := runway.Of(now, rapid.Int64Range(-1e12, 1e15).Draw(t, "available"), daily)
		if !ok {
			t.Fatal("enough days")
		}
		end := func(e runway.Estimate) time.Time {
			if e.Until.IsZero() {
				return now.AddDate(100, 0, 0)
			}
			return e.Until
		}
		if got[1].Daily < got[0].Daily || end(got[1]).After(end(got[0])) || end(got[0]).Before(now) {
			t.Fatalf("%+v", got)
		}
	})
}
