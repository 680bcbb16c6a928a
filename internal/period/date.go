package period

import (
	"fmt"
	"time"
)

// Date is a day of the calendar, in no zone in particular.
type Date struct {
	Year  int
	Month time.Month
	Day   int
}

// DateOf returns the date that the zone's calendar shows at t.
func DateOf(t time.Time, zone *time.Location) Date {
	y, m, d := t.In(zone).Date()
	return Date{y, m, d}
}

// String writes the date as ISO 8601 does.
func (d Date) String() string { return fmt.Sprintf("%04d-%02d-%02d", d.Year, d.Month, d.Day) }

// AddMonths returns the date n months later; a day that the month does not have becomes its last.
func (d Date) AddMonths(n int) Date {
	m := d.Year*12 + int(d.Month) - 1 + n
	year, month := m/12, time.Month(m%12+1)
	return Date{year, month, min(d.Day, daysIn(year, month))}
}

// addDays returns the date n days later.
func (d Date) addDays(n int) Date {
	y, m, day := time.Date(d.Year, d.Month, d.Day+n, 0, 0, 0, 0, time.UTC).Date()
	return Date{y, m, day}
}

// Start returns the first instant, in UTC, at which the zone's calendar shows the date, or a later
// one where the zone left the date out (Apia had no 30 December 2011).
//
// time.Date is no use here: of a midnight that the clocks skip or repeat it gives one of two
// instants without saying which.
func (d Date) Start(zone *time.Location) time.Time {
	midnight := time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC)
	// No offset is more than a day, so the answer lies within a day of midnight in UTC. Walk the
	// stretches of constant offset from there on.
	at := midnight.Add(-24 * time.Hour)
	for {
		first := midnight.Add(-offsetAt(at, zone))
		if first.Before(at) { // a gap swallowed midnight: the stretch begins after it
			first = at
		}
		_, end := at.In(zone).ZoneBounds()
		if !end.IsZero() && !end.After(at) { // on 31 December of a leap year ZoneBounds ends a day early
			end = at.Add(time.Hour)
		}
		if end.IsZero() || first.Before(end) {
			return first.UTC()
		}
		at = end.UTC()
	}
}

// offsetAt returns how far the zone's clocks are ahead of UTC at t.
func offsetAt(t time.Time, zone *time.Location) time.Duration {
	_, seconds := t.In(zone).Zone()
	return time.Duration(seconds) * time.Second
}

func daysIn(year int, month time.Month) int {
	return time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
