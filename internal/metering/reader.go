package metering

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Bounds of a chart: its intervals, and its points over all groups.
const (
	maxPoints        = 1000
	maxGroupedPoints = 50_000
)

// Errors of a question about usage.
var (
	ErrUnknownMeter     = errs.New(errs.NotFound, "unknown_meter", "There is no such meter.")
	ErrUnknownDimension = errs.InvalidField("#/group_by", "unknown_dimension", "no meter in question has this dimension")
	ErrRange            = errs.InvalidField("#/to", "invalid_range", "must be after from")
	ErrTooManyPoints    = errs.InvalidField("#/interval", "too_many_points", "makes more than %d points of this range", maxPoints)
	ErrTooManyGroups    = errs.InvalidField("#/group_by", "too_many_points", "makes more than %d points of this range and interval, over all groups", maxGroupedPoints)
)

// Reader answers questions about usage from the roll-ups, whatever the number of events behind them.
type Reader struct {
	Store        Store
	Entitlements entitlement.Store
	Catalogue    Catalogue
}

// Question says which usage is wanted. Zero bounds mean the current period.
type Question struct {
	period.Bounds
	Meters  []string // none: all
	GroupBy string   // a dimension; empty: none
}

// Report is the usage of a stretch of time.
type Report struct {
	period.Bounds
	Current bool // the bounds are those of the current period
	Meters  []MeterUsage
}

// MeterUsage is the usage of one meter, with what each group has of it.
type MeterUsage struct {
	Meter    *Meter
	Quantity money.Decimal
	Events   int64
	Groups   []GroupUsage // nil unless the question groups
}

// GroupUsage is the usage with one value of a dimension; empty for events without it.
type GroupUsage struct {
	Value    string
	Quantity money.Decimal
	Events   int64
}

// Usage reports usage by meter, and by a dimension if asked. Every meter in question is in the
// report, used or not.
func (r Reader) Usage(ctx context.Context, a account.ID, q Question) (Report, error) {
	meters, err := r.meters(q.Meters, q.GroupBy)
	if err != nil {
		return Report{}, err
	}
	e, err := r.Entitlements.Get(ctx, a)
	if err != nil {
		return Report{}, err
	}
	current := period.Bounds{Start: e.PeriodStart(), End: e.PeriodEnd}
	if q.Bounds.IsZero() {
		q.Bounds = current
	}
	if !q.Start.Before(q.End) {
		return Report{}, ErrRange
	}
	report := Report{Bounds: q.Bounds, Current: q.Bounds.Equal(current)}
	var found []Slice
	if report.Current && (q.GroupBy == "" || allAddUp(meters)) {
		found, err = r.fromTotals(ctx, a, q)
	} else {
		if report.Bounds, err = r.Store.Whole(ctx, a, codes(meters), q.Bounds); err != nil {
			return Report{}, err
		}
		found, err = r.Store.Slices(ctx, a, Query{Bounds: report.Bounds, Meters: codes(meters), GroupBy: q.GroupBy}, unique(meters))
	}
	if err != nil {
		return Report{}, err
	}
	for _, m := range meters {
		report.Meters = append(report.Meters, meterUsage(m, found, q.GroupBy != ""))
	}
	if q.GroupBy == "" || allAddUp(meters) {
		return report, nil
	}
	whole, err := r.Usage(ctx, a, Question{Bounds: q.Bounds, Meters: codes(meters)})
	if err != nil {
		return Report{}, err
	}
	for i := range report.Meters { // groups of distinct values or of latest values do not add up
		report.Meters[i].Quantity = whole.Meters[i].Quantity
	}
	return report, nil
}

// allAddUp reports whether the groups of every meter add up to its total.
func allAddUp(meters []*Meter) bool {
	return !slices.ContainsFunc(meters, func(m *Meter) bool { return m.Aggregation != Sum && m.Aggregation != Count })
}

// fromTotals answers for the current period from its totals.
func (r Reader) fromTotals(ctx context.Context, a account.ID, q Question) ([]Slice, error) {
	totals, err := r.Store.Totals(ctx, a, q.Start, q.GroupBy != "")
	if err != nil {
		return nil, err
	}
	var out []Slice
	for _, t := range totals {
		if q.GroupBy == "" {
			out = append(out, Slice{Meter: t.Meter, Events: t.Events, Sum: t.Quantity, Max: t.Quantity, Last: t.Quantity, Unique: t.Quantity})
			continue
		}
		for _, s := range t.Series {
			group := s.Dimensions[q.GroupBy]
			if s.Other {
				group = OtherValue
			}
			out = append(out, Slice{Meter: t.Meter, Group: group, Events: s.Events, Sum: s.Quantity, Max: s.Quantity, Last: s.Quantity, Unique: s.Quantity})
		}
	}
	return out, nil
}

// meterUsage adds up the slices of one meter.
func meterUsage(m *Meter, all []Slice, grouped bool) MeterUsage {
	u := MeterUsage{Meter: m}
	if grouped {
		u.Groups = []GroupUsage{}
	}
	at := map[string]int{} // in Groups, of which there may be a hundred thousand
	for _, s := range all {
		if s.Meter != m.Code {
			continue
		}
		u.Events += s.Events
		u.Quantity = combine(m, u.Quantity, s.Quantity(m.Aggregation))
		if !grouped {
			continue
		}
		i, ok := at[s.Group]
		if !ok {
			i = len(u.Groups)
			at[s.Group] = i
			u.Groups = append(u.Groups, GroupUsage{Value: s.Group})
		}
		g := &u.Groups[i]
		g.Events += s.Events
		g.Quantity = combine(m, g.Quantity, s.Quantity(m.Aggregation))
	}
	slices.SortFunc(u.Groups, func(a, b GroupUsage) int { return strings.Compare(a.Value, b.Value) })
	return u
}

func combine(m *Meter, a, b money.Decimal) money.Decimal {
	if m.Aggregation.additive() {
		return a.Add(b)
	}
	if b.Cmp(a) > 0 {
		return b
	}
	return a
}

// Chart is usage over time: the same intervals for each group.
type Chart struct {
	Meter  *Meter
	Unit   period.Unit
	Groups []ChartGroup // one, without a value, unless the question groups
}

// ChartGroup is the usage of one group over time, with a point for every interval.
type ChartGroup struct {
	Value  string
	Points []Point
}

// Point is the usage in one interval.
type Point struct {
	period.Bounds
	Quantity money.Decimal
	Events   int64
}

// Chart reports one meter's usage by hour, day or month of a time zone. Intervals are whole: the
// bounds are widened to them.
func (r Reader) Chart(ctx context.Context, a account.ID, meter string, b period.Bounds, unit period.Unit, zone *time.Location, groupBy string) (Chart, error) {
	meters, err := r.meters([]string{meter}, groupBy)
	if err != nil {
		return Chart{}, err
	}
	m := meters[0]
	if !b.Start.Before(b.End) {
		return Chart{}, ErrRange
	}
	var points []Point
	for bucket := range period.Buckets(b, unit, zone) {
		if len(points) == maxPoints {
			return Chart{}, ErrTooManyPoints
		}
		points = append(points, Point{Bounds: bucket})
	}
	steps := make([]time.Time, len(points))
	for i := range points {
		steps[i] = points[i].Start
	}
	b = period.Bounds{Start: points[0].Start, End: points[len(points)-1].End}
	if groupBy != "" {
		groups, err := r.Store.Slices(ctx, a, Query{Bounds: b, Meters: []string{meter}, GroupBy: groupBy}, nil)
		if err != nil {
			return Chart{}, err
		}
		if len(groups)*len(points) > maxGroupedPoints {
			return Chart{}, ErrTooManyGroups
		}
	}
	found, err := r.Store.Slices(ctx, a, Query{Bounds: b, Meters: []string{meter}, GroupBy: groupBy, Steps: steps}, unique(meters))
	if err != nil {
		return Chart{}, err
	}
	chart, at := Chart{Meter: m, Unit: unit}, map[string]int{}
	for _, s := range found {
		i, ok := at[s.Group]
		if !ok {
			i = len(chart.Groups)
			at[s.Group] = i
			chart.Groups = append(chart.Groups, ChartGroup{Value: s.Group, Points: slices.Clone(points)})
		}
		p := &chart.Groups[i].Points[s.Step]
		p.Quantity, p.Events = s.Quantity(m.Aggregation), s.Events
	}
	if len(chart.Groups) == 0 && groupBy == "" {
		chart.Groups = []ChartGroup{{Points: points}}
	}
	return chart, nil
}

func (r Reader) meters(wanted []string, groupBy string) ([]*Meter, error) {
	meters := slices.DeleteFunc(slices.Clone(r.Catalogue.Meters()), func(m *Meter) bool { return m.Reserved })
	if len(wanted) > 0 {
		meters = meters[:0:0]
		for _, code := range wanted {
			m := r.Catalogue.Meter(code)
			if m == nil {
				return nil, ErrUnknownMeter.With("meter", code)
			}
			if !slices.Contains(meters, m) {
				meters = append(meters, m)
			}
		}
	}
	if groupBy == "" {
		return meters, nil
	}
	meters = slices.DeleteFunc(slices.Clone(meters), func(m *Meter) bool { return !slices.Contains(m.Dimensions, groupBy) })
	if len(meters) == 0 {
		return nil, ErrUnknownDimension
	}
	return meters, nil
}

func codes(meters []*Meter) []string {
	out := make([]string, len(meters))
	for i, m := range meters {
		out[i] = m.Code
	}
	return out
}

func unique(meters []*Meter) (out []string) {
	for _, m := range meters {
		if m.Aggregation == Unique {
			out = append(out, m.Code)
		}
	}
	return out
}
