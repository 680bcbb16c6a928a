package period

import (
	"iter"
	"time"
)

// Unit is the width of a chart's columns.
type Unit string

// The units that usage can be charted by.
const (
	ByHour  Unit = "hour"
	ByDay   Unit = "day"
	ByMonth Unit = "month"
)

// Valid reports whether u is one of the units.
func (u Unit) Valid() bool { return u == ByHour || u == ByDay || u == ByMonth }

// Bucket returns the hour, day or month of the zone's calendar that t lies in. A day has 23 or 25
// hours where the clocks change. An hour in which they change by less than an hour (Lord Howe Island)
// is cut in two at the change.
func Bucket(t time.Time, unit Unit, zone *time.Location) Bounds {
	switch unit {
	case ByHour:
		return hourOf(t, zone)
	case ByMonth:
		d := DateOf(t, zone)
		d.Day = 1
		return around(t, zone, d, func(d Date) Date { return d.AddMonths(1) }, func(d Date) Date { return d.AddMonths(-1) })
	default:
		return around(t, zone, DateOf(t, zone),
			func(d Date) Date { return d.addDays(1) }, func(d Date) Date { return d.addDays(-1) })
	}
}

// around returns the stretch from one date to the following that holds t. The date that the calendar
// shows is right but where the clocks go back over midnight and show the old date once more.
func around(t time.Time, zone *time.Location, d Date, next, prev func(Date) Date) Bounds {
	for t.Before(d.Start(zone)) {
		d = prev(d)
	}
	b := Bounds{Start: d.Start(zone)}
	for {
		d = next(d)
		if b.End = d.Start(zone); t.Before(b.End) {
			return b
		}
		b.Start = b.End
	}
}

func hourOf(t time.Time, zone *time.Location) Bounds {
	offset := offsetAt(t, zone)
	start := t.UTC().Add(offset).Truncate(time.Hour).Add(-offset)
	b := Bounds{start, start.Add(time.Hour)}
	// ZoneBounds also ends a stretch at the turn of a year, where nothing changes; hence the offsets.
	from, to := t.In(zone).ZoneBounds()
	if from.After(b.Start) && offsetAt(from.Add(-1), zone) != offset {
		b.Start = from.UTC()
	}
	if to.After(t) && to.Before(b.End) && offsetAt(to, zone) != offset {
		b.End = to.UTC()
	}
	return b
}

// Buckets yields the hours, days or months that cover the bounds, in order; the first and the last
// are whole even where the bounds cut them.
func Buckets(b Bounds, unit Unit, zone *time.Location) iter.Seq[Bounds] {
	return func(yield func(Bounds) bool) {
		for t := b.Start; t.Before(b.End); {
			c := Bucket(t, unit, zone)
			if !yield(c) {
				return
			}
			t = c.End
		}
	}
}
