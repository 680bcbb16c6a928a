package period_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/period"
)

// The zones have half-hour changes (Lord Howe), a day that never was (Apia), a change back to winter
// time for Ramadan (Casablanca), midnights that the clocks skip (Beirut, Santiago) or repeat
// (Havana), and quarter hours (Kathmandu).
var zoneNames = []string{
	"UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca",
	"Asia/Beirut", "America/Santiago", "America/Havana", "America/St_Johns", "Asia/Kathmandu", "Pacific/Kiritimati",
}

func zone(tb testing.TB, name string) *time.Location {
	tb.Helper()
	z, err := period.LoadZone(name)
	if err != nil {
		tb.Fatal(err)
	}
	return z
}

// 48 months × 31 anchors, against a table that was computed once by another program (Python's
// calendar) and read through.
func TestBoundariesComeFromTheAnchor(t *testing.T) {
	t.Parallel()

	golden, err := os.ReadFile("testdata/anchors.golden")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(golden)), "\n")
	if len(lines) != 31 {
		t.Fatalf("%d anchors in the table", len(lines))
	}
	for i, line := range lines {
		anchor := period.Date{Year: 2026, Month: time.January, Day: i + 1}
		s := period.Schedule{Anchor: anchor, Zone: time.UTC, Interval: period.Month}
		want := strings.Fields(line)[1:]
		if len(want) != 48 {
			t.Fatalf("%d months for anchor %d", len(want), i+1)
		}
		for n, date := range want {
			if got := s.Boundary(n).Format(time.DateOnly); got != date {
				t.Errorf("anchor %s, period %d begins %s, want %s", anchor, n, got, date)
			}
		}
	}
}

func TestLeapDayComesBackInLeapYears(t *testing.T) {
	t.Parallel()

	s := period.Schedule{Anchor: period.Date{Year: 2024, Month: time.February, Day: 29}, Zone: time.UTC, Interval: period.Year}
	var got []string
	for n := range 9 {
		got = append(got, s.Boundary(n).Format(time.DateOnly))
	}
	want := "2024-02-29 2025-02-28 2026-02-28 2027-02-28 2028-02-29 2029-02-28 2030-02-28 2031-02-28 2032-02-29"
	if strings.Join(got, " ") != want {
		t.Errorf("%s\nwant %s", strings.Join(got, " "), want)
	}
}

func TestMidnightExistsEverywhere(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ zone, date, want string }{
		{"Europe/Berlin", "2026-03-29", "2026-03-28T23:00:00Z"}, // a day of 23 hours
		{"Europe/Berlin", "2026-03-30", "2026-03-29T22:00:00Z"},
		{"Asia/Beirut", "2026-03-29", "2026-03-28T22:00:00Z"},      // 00:00 is skipped: the day begins at 01:00
		{"America/Santiago", "2026-09-06", "2026-09-06T04:00:00Z"}, // 00:00 is skipped
		{"America/Havana", "2026-11-01", "2026-11-01T04:00:00Z"},   // 00:00 comes twice: the first
		{"Pacific/Apia", "2011-12-30", "2011-12-30T10:00:00Z"},     // never was: the first instant of the 31st
		{"Pacific/Apia", "2011-12-31", "2011-12-30T10:00:00Z"},
		{"America/St_Johns", "2006-10-29", "2006-10-29T02:30:00Z"}, // at 00:01 back to 23:01: the first time
		{"Australia/Lord_Howe", "2026-04-05", "2026-04-04T13:00:00Z"},
		{"Australia/Lord_Howe", "2026-04-06", "2026-04-05T13:30:00Z"}, // the clocks went back half an hour
		{"Africa/Casablanca", "2026-03-01", "2026-03-01T00:00:00Z"},   // Ramadan: winter time
		{"Africa/Casablanca", "2026-04-01", "2026-03-31T23:00:00Z"},
	} {
		d, err := time.Parse(time.DateOnly, c.date)
		if err != nil {
			t.Fatal(err)
		}
		got := period.DateOf(d, time.UTC).Start(zone(t, c.zone)).Format(time.RFC3339)
		if got != c.want {
			t.Errorf("%s in %s begins %s, want %s", c.date, c.zone, got, c.want)
		}
	}
}

func schedules() *rapid.Generator[period.Schedule] {
	return rapid.Custom(func(t *rapid.T) period.Schedule {
		z, err := period.LoadZone(rapid.SampledFrom(zoneNames).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		at := time.Unix(rapid.Int64Range(946684800, 4102444800).Draw(t, "anchor"), 0) // 2000 to 2100
		return period.Anchored(at, z, rapid.SampledFrom([]period.Interval{period.Month, period.Year}).Draw(t, "interval"))
	})
}

func TestPeriodsAreContiguousAndHoldEveryInstantOnce(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		s := schedules().Draw(t, "schedule")
		n := rapid.IntRange(-60, 60).Draw(t, "n")
		b := s.Nth(n)
		if !b.Start.Before(b.End) {
			t.Fatalf("period %d is %s", n, b)
		}
		if next := s.Nth(n + 1); !next.Start.Equal(b.End) {
			t.Fatalf("between %s and %s there is a gap or an overlap", b, next)
		}
		// Half-open, to the microsecond.
		for at, want := range map[time.Time]int{
			b.Start: n, b.Start.Add(-time.Microsecond): n - 1, b.End.Add(-time.Microsecond): n, b.End: n + 1,
		} {
			if got := s.Index(at); got != want {
				t.Fatalf("%s is in period %d, want %d", at, got, want)
			}
			if c := s.Containing(at); !c.Contains(at) || !c.Equal(s.Nth(want)) {
				t.Fatalf("%s is said to lie in %s", at, c)
			}
		}
		at := b.Start.Add(time.Duration(rapid.Int64Range(0, int64(b.Duration())-1).Draw(t, "inside")))
		if s.Index(at) != n {
			t.Fatalf("%s is in period %d, want %d", at, s.Index(at), n)
		}
		if got := s.Next(b.End); !got.Equal(s.Nth(n + 1)) {
			t.Fatalf("after %s comes %s, want %s", b, got, s.Nth(n+1))
		}
		if b.Start.Location() != time.UTC || b.End.Location() != time.UTC {
			t.Fatalf("%s is not in UTC", b)
		}
	})
}

// In Newfoundland the clocks went back from one minute past midnight: the first of November 2009 began, and then the evening
// before it came again. A period that has begun does not end for that.
func TestAnEveningThatComesAgainIsOfThePeriodThatHasBegun(t *testing.T) {
	t.Parallel()
	zone, err := period.LoadZone("America/St_Johns")
	if err != nil {
		t.Fatal(err)
	}
	s := period.Schedule{Anchor: period.Date{Year: 2009, Month: time.January, Day: 1}, Zone: zone, Interval: period.Month}
	november := time.Date(2009, time.November, 1, 2, 30, 0, 0, time.UTC)
	if got := s.Boundary(10); !got.Equal(november) {
		t.Fatalf("November begins at %s, want %s", got, november)
	}
	for after, want := range map[time.Duration]int{-1: 9, 0: 10, 15 * time.Minute: 10, time.Hour + 15*time.Minute: 10} {
		if got := s.Index(november.Add(after)); got != want {
			t.Errorf("%s, %s after it has begun: period %d, want %d", november.Add(after).In(zone), after, got, want)
		}
	}
}

func TestAnchoredPeriodZeroHoldsTheAnchor(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		z, err := period.LoadZone(rapid.SampledFrom(zoneNames).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		at := time.Unix(rapid.Int64Range(946684800, 4102444800).Draw(t, "at"), 0)
		s := period.Anchored(at, z, period.Month)
		if b := s.Nth(0); !b.Contains(at) || at.Sub(b.Start) > 25*time.Hour {
			t.Fatalf("period 0 of %s in %s is %s", at, z, b)
		}
	})
}

// An account may move to another zone: from the next period on, and the sum of the lengths is the
// time that passed.
func TestAChangeOfZoneLeavesNoGap(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		s := schedules().Draw(t, "schedule")
		s.Interval = period.Month
		b := s.Nth(0)
		start := b.Start
		var sum time.Duration
		for range rapid.IntRange(1, 30).Draw(t, "months") {
			sum += b.Duration()
			z, err := period.LoadZone(rapid.SampledFrom(zoneNames).Draw(t, "zone"))
			if err != nil {
				t.Fatal(err)
			}
			s.Zone = z
			next := s.Next(b.End)
			if !next.Start.Equal(b.End) {
				t.Fatalf("after %s comes %s", b, next)
			}
			if d := next.Duration(); d < 26*24*time.Hour || d > 33*24*time.Hour {
				t.Fatalf("a month of %s: %s in %s", d, next, z)
			}
			b = next
		}
		if got := b.Start.Sub(start); got != sum {
			t.Fatalf("the periods sum to %s in a span of %s", sum, got)
		}
	})
}

func TestAddMonths(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		date string
		n    int
		want string
	}{
		{"2026-01-31", 0, "2026-01-31"},
		{"2026-01-31", 1, "2026-02-28"},
		{"2024-01-31", 1, "2024-02-29"},
		{"2024-02-29", 12, "2025-02-28"},
		{"2026-12-15", 1, "2027-01-15"},
		{"2026-01-15", -1, "2025-12-15"},
		{"2026-03-31", -13, "2025-02-28"},
	} {
		d, err := time.Parse(time.DateOnly, c.date)
		if err != nil {
			t.Fatal(err)
		}
		if got := period.DateOf(d, time.UTC).AddMonths(c.n).String(); got != c.want {
			t.Errorf("%d months after %s is %s, want %s", c.n, c.date, got, c.want)
		}
	}
}

func TestBoundsAreInstants(t *testing.T) {
	t.Parallel()

	kathmandu := zone(t, "Asia/Kathmandu")
	start := time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC)
	b := period.Bounds{Start: start, End: start.Add(time.Hour)}
	for name, c := range map[string]struct {
		other period.Bounds
		equal bool
	}{
		"in another zone":  {period.Bounds{Start: b.Start.In(kathmandu), End: b.End.In(kathmandu)}, true},
		"of another start": {period.Bounds{Start: b.Start.Add(1), End: b.End}, false},
		"of another end":   {period.Bounds{Start: b.Start, End: b.End.Add(1)}, false},
	} {
		if b.Equal(c.other) != c.equal {
			t.Errorf("the bounds %s: equal %v", name, !c.equal)
		}
	}
	for _, some := range []period.Bounds{b, {Start: b.Start}, {End: b.End}} {
		if some.IsZero() {
			t.Errorf("%s are no bounds", some)
		}
	}
	if !(period.Bounds{}).IsZero() {
		t.Error("there are bounds in none")
	}
}

func TestZonesThatDependOnTheMachineAreRefused(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"", "Local", "Mars/Olympus_Mons", "../etc/passwd"} {
		if _, err := period.LoadZone(name); err == nil {
			t.Errorf("%q is taken for a zone", name)
		}
	}
}

func TestBucketsCoverARangeInTheZonesCalendar(t *testing.T) {
	t.Parallel()

	berlin := zone(t, "Europe/Berlin")
	spring := period.Date{Year: 2026, Month: time.March, Day: 29}
	day := period.Bucket(spring.Start(berlin).Add(time.Hour), period.ByDay, berlin)
	if day.Duration() != 23*time.Hour {
		t.Errorf("the day of the change is %s", day)
	}
	hours := 0
	for range period.Buckets(day, period.ByHour, berlin) {
		hours++
	}
	if hours != 23 {
		t.Errorf("%d hours in a day of 23", hours)
	}

	// Lord Howe: 02:00 becomes 01:30, so the hour from one to two lasts an hour, and half of it again.
	howe := zone(t, "Australia/Lord_Howe")
	day = period.Bucket(time.Date(2026, 4, 5, 0, 0, 0, 0, time.UTC), period.ByDay, howe)
	var widths []string
	for b := range period.Buckets(day, period.ByHour, howe) {
		widths = append(widths, fmt.Sprint(b.Duration().Minutes()))
	}
	if len(widths) != 25 || widths[2] != "30" {
		t.Errorf("widths of the hours: %v", widths)
	}

	// Apia went from 29 to 31 December: no empty day between.
	apia := zone(t, "Pacific/Apia")
	from := time.Date(2011, 12, 29, 12, 0, 0, 0, time.UTC)
	var dates []string
	for b := range period.Buckets(period.Bounds{Start: from, End: from.Add(48 * time.Hour)}, period.ByDay, apia) {
		dates = append(dates, period.DateOf(b.Start, apia).String())
	}
	if got := strings.Join(dates, " "); got != "2011-12-29 2011-12-31 2012-01-01" {
		t.Errorf("days of Apia: %s", got)
	}
}

func TestBucketsAreContiguous(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		z, err := period.LoadZone(rapid.SampledFrom(zoneNames).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		unit := rapid.SampledFrom([]period.Unit{period.ByHour, period.ByDay, period.ByMonth}).Draw(t, "unit")
		at := time.Unix(rapid.Int64Range(946684800, 4102444800).Draw(t, "at"), 0)
		b := period.Bucket(at, unit, z)
		if !b.Contains(at) {
			t.Fatalf("the %s of %s is %s", unit, at, b)
		}
		next := period.Bucket(b.End, unit, z)
		if !next.Start.Equal(b.End) {
			t.Fatalf("after the %s %s comes %s", unit, b, next)
		}
		for _, edge := range []time.Time{b.Start, b.End.Add(-1)} {
			if got := period.Bucket(edge, unit, z); !got.Equal(b) {
				t.Fatalf("the %s of %s is %s, want %s", unit, edge, got, b)
			}
		}
		most := map[period.Unit]time.Duration{period.ByHour: time.Hour, period.ByDay: 25 * time.Hour, period.ByMonth: 31*24*time.Hour + time.Hour}[unit]
		if b.Duration() > most || b.Duration() <= 0 {
			t.Fatalf("a %s of %s: %s", unit, b.Duration(), b)
		}
	})
}
