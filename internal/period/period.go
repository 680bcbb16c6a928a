// Package period makes billing periods, and is the only place that does.
//
// It owns: the bounds of a period, the schedule that yields them from an anchor date in a time zone,
// and the hours, days and months of a zone for charts. It does not own: when a period is closed
// (billing) or which zone an account lives in (account).
//
// Always true: bounds are instants in UTC, half-open [Start, End); the periods of one schedule are
// contiguous; the n-th boundary is computed from the anchor, never from the boundary before it, so
// an anchor on the 31st returns to the 31st after every short month. A boundary is the first instant
// at which the zone's calendar shows the wanted date (or, where the zone skipped that date, a later
// one), so it exists in every zone, whatever the clocks do at midnight.
package period

import (
	"fmt"
	"time"
	_ "time/tzdata" // so that a machine without zone files computes the same periods
)

// Bounds is a stretch of time from Start, included, to End, excluded. The zero Bounds is no period.
type Bounds struct {
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
}

// Contains reports whether t lies in the bounds. The end does not.
func (b Bounds) Contains(t time.Time) bool { return !t.Before(b.Start) && t.Before(b.End) }

// IsZero reports whether there are no bounds at all.
func (b Bounds) IsZero() bool { return b.Start.IsZero() && b.End.IsZero() }

// Duration returns the time that passes between the bounds.
func (b Bounds) Duration() time.Duration { return b.End.Sub(b.Start) }

// Equal reports whether b and c are the same stretch of time.
func (b Bounds) Equal(c Bounds) bool { return b.Start.Equal(c.Start) && b.End.Equal(c.End) }

// String writes the bounds as an interval: "[2026-01-31T00:00:00Z, 2026-02-28T00:00:00Z)".
func (b Bounds) String() string {
	return fmt.Sprintf("[%s, %s)", b.Start.Format(time.RFC3339Nano), b.End.Format(time.RFC3339Nano))
}

// Interval is the length of a billing period in the calendar.
type Interval string

// The intervals that a plan can be billed by.
const (
	Month Interval = "month"
	Year  Interval = "year"
)

// Valid reports whether i is one of the intervals.
func (i Interval) Valid() bool { return i == Month || i == Year }

// months returns the length of the interval in months. Anything that is not a year counts as a month.
func (i Interval) months() int {
	if i == Year {
		return 12
	}
	return 1
}

// LoadZone returns the zone with the given IANA name. The empty name, "Local" and unknown names are
// refused, since a period must not depend on the machine that computes it.
func LoadZone(name string) (*time.Location, error) {
	if name == "" || name == "Local" {
		return nil, fmt.Errorf("%q is not the name of a time zone", name)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("%q is not the name of a time zone: %w", name, err)
	}
	return zone, nil
}
