package period

import "time"

// Schedule yields the periods of an agreement. Anchor is the date on which period 0 begins; Zone is
// where midnight is. It is a value: copy it, compare it, use it from several goroutines.
type Schedule struct {
	Anchor   Date
	Zone     *time.Location
	Interval Interval
}

// Anchored returns the schedule whose period 0 contains t and begins on t's date in the zone.
func Anchored(t time.Time, zone *time.Location, every Interval) Schedule {
	return Schedule{Anchor: DateOf(t, zone), Zone: zone, Interval: every}
}

// Boundary returns the instant at which period n begins. n may be negative.
func (s Schedule) Boundary(n int) time.Time {
	return s.Anchor.AddMonths(n * s.Interval.months()).Start(s.Zone)
}

// Nth returns period n, counted from the anchor; n may be negative.
func (s Schedule) Nth(n int) Bounds { return Bounds{s.Boundary(n), s.Boundary(n + 1)} }

// Index returns the number of the period that contains t.
func (s Schedule) Index(t time.Time) int {
	d := DateOf(t, s.Zone)
	months := (d.Year-s.Anchor.Year)*12 + int(d.Month) - int(s.Anchor.Month)
	n := months / s.Interval.months()
	// The estimate goes by months alone, so it is off by one at most; the loops see to that.
	for t.Before(s.Boundary(n)) {
		n--
	}
	for !t.Before(s.Boundary(n + 1)) {
		n++
	}
	return n
}

// Containing returns the period that t lies in.
func (s Schedule) Containing(t time.Time) Bounds { return s.Nth(s.Index(t)) }

// Next returns the period that follows one which ended at end. Where end is a boundary of this
// schedule that is the schedule's own period. Where the account has changed its zone since, the
// stored end stands, and the new period runs from it to the new zone's boundary: up to a day longer
// or shorter than usual, and never a sliver between two midnights.
func (s Schedule) Next(end time.Time) Bounds {
	// Two days on, the nearest boundary of whatever zone has passed, and the one after has not.
	n := s.Index(end.Add(48 * time.Hour))
	return Bounds{end.UTC(), s.Boundary(n + 1)}
}
