package period_test

import (
	_ "embed"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/period"
)

// Every zone of the IANA database that differs from those before it.
//
//go:embed testdata/zones.txt
var allZones string

// fuzzedZone returns the zone with a number, as a fuzzer names one, and the instant.
func fuzzedZone(tb testing.TB, n uint16, seconds int64) (*time.Location, time.Time) {
	tb.Helper()
	names := strings.Fields(allZones)
	const first, span = -2208988800, 6311433600 // 1900 to 2100
	return zone(tb, names[int(n)%len(names)]), time.Unix(first+((seconds-first)%span+span)%span, 0).UTC()
}

// addChanges gives a fuzzer the changes of the clocks of every zone, thinned out.
func addChanges(f *testing.F, add func(zone uint16, seconds int64)) {
	f.Helper()
	for i, name := range strings.Fields(allZones) {
		z, changes := zone(f, name), 0
		for at := time.Date(1900, 1, 2, 0, 0, 0, 0, time.UTC); at.Year() < 2040; {
			_, end := at.In(z).ZoneBounds()
			if end.IsZero() {
				break
			}
			if changes++; changes%7 == i%7 {
				add(uint16(i), end.Unix())
			}
			if at = end; !end.After(at) {
				at = at.Add(time.Hour) // on 31 December of a leap year ZoneBounds ends a day early
			}
		}
	}
}

// Every instant lies in one period of a schedule, and the next begins where that ends, whatever the clocks of the zone do.
func FuzzPeriodsTileTime(f *testing.F) {
	addChanges(f, func(zone uint16, seconds int64) { f.Add(zone, seconds, int16(seconds%97), seconds%5 == 0) })
	f.Fuzz(func(t *testing.T, n uint16, seconds int64, days int16, yearly bool) {
		z, at := fuzzedZone(t, n, seconds)
		s := period.Anchored(at.AddDate(0, 0, int(days)), z, period.Month)
		if yearly {
			s.Interval = period.Year
		}
		if anchor := at.AddDate(0, 0, int(days)); !s.Nth(0).Contains(anchor) {
			t.Fatalf("%s: period 0 of what is anchored at %s is %s", z, anchor, s.Nth(0))
		}
		i := s.Index(at)
		b := s.Nth(i)
		if !b.Contains(at) || !s.Containing(at).Equal(b) {
			t.Fatalf("%s: %s is said to lie in %s", z, at, b)
		}
		if before, after := s.Nth(i-1), s.Nth(i+1); !before.End.Equal(b.Start) || !after.Start.Equal(b.End) || before.Contains(at) || after.Contains(at) {
			t.Fatalf("%s: %s, %s and %s do not tile time", z, before, b, after)
		}
		for edge, want := range map[time.Time]int{b.Start: i, b.Start.Add(-time.Microsecond): i - 1, b.End.Add(-time.Microsecond): i, b.End: i + 1} {
			if got := s.Index(edge); got != want {
				t.Fatalf("%s: %s is in period %d, want %d", z, edge, got, want)
			}
		}
		if next := s.Next(b.Start); !next.Equal(b) {
			t.Fatalf("%s: after the period before %s comes %s", z, b, next)
		}
	})
}

// The hours, days and months of a range follow each other without a gap, and every instant of it is in the one that is said to hold it.
func FuzzBucketsTileTheirRange(f *testing.F) {
	addChanges(f, func(zone uint16, seconds int64) { f.Add(zone, seconds, uint32(seconds%300_000), uint8(seconds%3)) })
	f.Fuzz(func(t *testing.T, n uint16, seconds int64, length uint32, unit uint8) {
		z, at := fuzzedZone(t, n, seconds)
		units := []period.Unit{period.ByHour, period.ByDay, period.ByMonth}
		u := units[int(unit)%len(units)]
		const lead = 2 * time.Hour // so that changes lie within
		asked := period.Bounds{Start: at.Add(-lead), End: at.Add(time.Duration(length%1_000_000)*time.Second + 1)}
		var last period.Bounds
		for b := range period.Buckets(asked, u, z) {
			switch {
			case !b.Start.Before(b.End):
				t.Fatalf("%s: the %s %s is empty", z, u, b)
			case last.IsZero() && !b.Contains(asked.Start):
				t.Fatalf("%s: the first %s of %s is %s", z, u, asked, b)
			case !last.IsZero() && !b.Start.Equal(last.End):
				t.Fatalf("%s: %s does not follow %s", z, b, last)
			}
			for _, edge := range []time.Time{b.Start, b.Start.Add(b.Duration() / 2), b.End.Add(-time.Microsecond)} {
				if got := period.Bucket(edge, u, z); !got.Equal(b) {
					t.Fatalf("%s: the %s of %s is %s, and was %s in its row", z, u, edge, got, b)
				}
			}
			last = b
		}
		if last.End.Before(asked.End) {
			t.Fatalf("%s: the last %s of %s is %s", z, u, asked, last)
		}
	})
}
