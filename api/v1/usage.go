package v1

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Metering is what the usage resources stand on.
type Metering struct {
	Ingester     usageAdder
	Store        metering.Store
	Reader       metering.Reader
	Catalogue    metering.Catalogue
	Reserver     reserver
	Reservations entitlement.Reservations
	Checker      entitlementChecker
	Leases       *entitlement.LeaseSigner
	Accounts     accountNames
	Answered     func(metering.Summary) // is told what became of the events of each request; nil: nobody asks
	// Zone returns the account's time zone, in which charts are drawn.
	Zone func(ctx context.Context, a account.ID) (*time.Location, error)
	// Cost prices the current period by meter, as it stands. Nil leaves prices out.
	Cost func(ctx context.Context, a account.ID) (map[string]UsageCost, error)
}

// UsageCost is what the usage of one meter in the current period comes to, tax not included.
type UsageCost struct {
	Included money.Decimal
	Billable money.Decimal
	Amount   money.Amount
}

// accountNames finds the accounts that a platform service or an operator names; names of nobody are left out.
type accountNames interface {
	LookupAll(ctx context.Context, refs []string) (map[string]account.ID, error)
}

func usageRoutes(d Deps) []route.Route {
	h := usage{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/usage", Scope: auth.UsageRead, OfState: true, Query: []string{"from", "to", "meter", "group_by"}, Handler: h.get},
		{Method: http.MethodGet, Path: "/v1/usage/series", Scope: auth.UsageRead, Query: []string{"meter", "interval", "from", "to", "group_by"}, Handler: h.series},
	}
}

// Usage is an account's usage in a stretch of time.
type Usage struct {
	From   time.Time    `json:"from" validate:"required" format:"date-time"` // included; as asked, or the beginning of its quarter of an hour, where the events are not kept any more
	To     time.Time    `json:"to" validate:"required" format:"date-time"`   // excluded; as asked, or the end of its quarter of an hour
	Meters []MeterUsage `json:"meters" validate:"required"`
} //@name Usage

// MeterUsage is the usage of one meter. What it costs is known of the current period only, and of meters that the plan has a price or
// an allowance for: unused, they cost 0.
type MeterUsage struct {
	Meter    string       `json:"meter" validate:"required" example:"voice"`
	Unit     string       `json:"unit" validate:"required" example:"second"`
	Quantity string       `json:"quantity" validate:"required" format:"decimal" example:"63.5"`
	Events   int64        `json:"events" validate:"required" example:"1"`
	Included *string      `json:"included" validate:"required" extensions:"x-nullable" format:"decimal"` // of quantity: taken by the allowance
	Billable *string      `json:"billable" validate:"required" extensions:"x-nullable" format:"decimal"` // the rest
	Cost     *Money       `json:"cost" validate:"required" extensions:"x-nullable"`                      // tax not included
	Groups   []UsageGroup `json:"groups,omitzero"`                                                       // with group_by
} //@name MeterUsage

// UsageGroup is the usage with one value of a dimension. The value is empty for events without the
// dimension, and "other" for what is beyond the meter's cap on combinations.
type UsageGroup struct {
	Value    string `json:"value" validate:"required" example:"helpdesk"` // of the dimension that is grouped by; empty: events without it
	Quantity string `json:"quantity" validate:"required" format:"decimal" example:"63.5"`
	Events   int64  `json:"events" validate:"required" example:"1"`
} //@name UsageGroup

type usage struct{ Deps }

// get reports usage.
//
//	@ID				getUsage
//	@Summary		Get usage to date or in a range
//	@Description	Without from and to, the current period. An event is in the answer the moment it was acknowledged. Of a range whose events are not all kept any more, a meter of distinct values tells those of the events that are.
//	@Tags			usage
//	@Security		Token[usage:read]
//	@Param			from		query		string	false	"Start, included"	format(date-time)
//	@Param			to			query		string	false	"End, excluded"		format(date-time)
//	@Param			meter		query		string	false	"One or more meters, separated by commas"
//	@Param			group_by	query		string	false	"A dimension"	example(project)
//	@Success		200			{object}	Usage
//	@Failure		404			{object}	problem.Problem	"unknown_meter"
//	@Failure		422			{object}	problem.Problem	"invalid_request"
//	@Router			/v1/usage [get]
func (h usage) get(c echo.Context) error {
	q := middleware.Query(c)
	b, err := bounds(q.Get("from"), q.Get("to"))
	if err != nil {
		return err
	}
	if b.Start.IsZero() != b.End.IsZero() {
		return errs.InvalidField("#/to", "incomplete_range", "from and to come together")
	}
	ctx, a := c.Request().Context(), middleware.Account(c)
	out, err := h.answer(ctx, a, metering.Question{Bounds: b, Meters: words(q.Get("meter")), GroupBy: q.Get("group_by")})
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, out)
}

// answer reads usage, with what it costs if it is that of the current period. The zero question is
// about all of that.
func (h usage) answer(ctx context.Context, a account.ID, q metering.Question) (Usage, error) {
	report, err := h.Metering.Reader.Usage(ctx, a, q)
	if err != nil {
		return Usage{}, err
	}
	var costs map[string]UsageCost
	if report.Current && h.Metering.Cost != nil {
		if costs, err = h.Metering.Cost(ctx, a); err != nil {
			return Usage{}, err
		}
	}
	out := Usage{From: report.Start, To: report.End, Meters: []MeterUsage{}}
	for _, m := range report.Meters {
		out.Meters = append(out.Meters, toMeterUsage(m, costs))
	}
	return out, nil
}

func toMeterUsage(m metering.MeterUsage, costs map[string]UsageCost) MeterUsage {
	out := MeterUsage{Meter: m.Meter.Code, Unit: m.Meter.Unit, Quantity: m.Quantity.String(), Events: m.Events}
	if cost, ok := costs[m.Meter.Code]; ok {
		included, billable, amount := cost.Included.String(), cost.Billable.String(), toMoney(cost.Amount)
		out.Included, out.Billable, out.Cost = &included, &billable, &amount
	}
	if m.Groups != nil {
		out.Groups = make([]UsageGroup, 0, len(m.Groups))
	}
	for _, g := range m.Groups {
		out.Groups = append(out.Groups, UsageGroup{Value: g.Value, Quantity: g.Quantity.String(), Events: g.Events})
	}
	return out
}

func words(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

// UsageSeries is a meter's usage over time: the same intervals for each group.
type UsageSeries struct {
	Meter    string             `json:"meter" validate:"required" example:"voice"`
	Unit     string             `json:"unit" validate:"required" example:"second"`
	Interval string             `json:"interval" validate:"required" enums:"hour,day,month"`
	TimeZone string             `json:"time_zone" validate:"required" example:"Europe/Berlin"` // whose hours, days and months these are
	Series   []UsageSeriesGroup `json:"series" validate:"required"`
} //@name UsageSeries

// UsageSeriesGroup is the usage of one group over time. Its value is empty without group_by.
type UsageSeriesGroup struct {
	Value  string       `json:"value" validate:"required"` // of the dimension that is grouped by; empty: events without it, or no grouping
	Points []UsagePoint `json:"points" validate:"required"`
} //@name UsageSeriesGroup

// UsagePoint is the usage in one interval.
type UsagePoint struct {
	From     time.Time `json:"from" validate:"required" format:"date-time"`
	To       time.Time `json:"to" validate:"required" format:"date-time"`
	Quantity string    `json:"quantity" validate:"required" format:"decimal"`
	Events   int64     `json:"events" validate:"required"`
} //@name UsagePoint

// series draws a chart.
//
//	@ID				getUsageSeries
//	@Summary		Get usage over time
//	@Description	Whole hours, days or months of the account's time zone: a day has 23 or 25 hours where the clocks change. At most 1,000 points, and 50,000 over all groups. Where events are not all kept any more, a meter of distinct values tells those of the events that are.
//	@Tags			usage
//	@Security		Token[usage:read]
//	@Param			meter		query		string	true	"The meter"	example(voice)
//	@Param			interval	query		string	false	"Width of a point"	Enums(hour, day, month)	default(day)
//	@Param			from		query		string	true	"Start, included"	format(date-time)
//	@Param			to			query		string	true	"End, excluded"		format(date-time)
//	@Param			group_by	query		string	false	"A dimension"
//	@Success		200			{object}	UsageSeries
//	@Failure		404			{object}	problem.Problem	"unknown_meter"
//	@Failure		422			{object}	problem.Problem	"invalid_request"
//	@Router			/v1/usage/series [get]
func (h usage) series(c echo.Context) error {
	q := middleware.Query(c)
	b, err := bounds(q.Get("from"), q.Get("to"))
	if err != nil {
		return err
	}
	var missing validate.Checks
	if b.Start.IsZero() {
		missing.Fail("#/from", "required", "is required")
	}
	if b.End.IsZero() {
		missing.Fail("#/to", "required", "is required")
	}
	if err := missing.Err(); err != nil {
		return err
	}
	unit := period.Unit(q.Get("interval"))
	if unit == "" {
		unit = period.ByDay
	}
	if !unit.Valid() {
		return errs.InvalidField("#/interval", "unknown_value", "must be hour, day or month")
	}
	ctx, a := c.Request().Context(), middleware.Account(c)
	zone, err := h.Metering.Zone(ctx, a)
	if err != nil {
		return err
	}
	chart, err := h.Metering.Reader.Chart(ctx, a, q.Get("meter"), b, unit, zone, q.Get("group_by"))
	if err != nil {
		return err
	}
	out := UsageSeries{Meter: chart.Meter.Code, Unit: chart.Meter.Unit, Interval: string(unit), TimeZone: zone.String(), Series: []UsageSeriesGroup{}}
	for _, g := range chart.Groups {
		group := UsageSeriesGroup{Value: g.Value, Points: make([]UsagePoint, len(g.Points))}
		for i, p := range g.Points {
			group.Points[i] = UsagePoint{From: p.Start, To: p.End, Quantity: p.Quantity.String(), Events: p.Events}
		}
		out.Series = append(out.Series, group)
	}
	return c.JSON(http.StatusOK, out)
}
