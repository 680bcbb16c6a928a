package v1

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

func estimateRoutes(d Deps) []route.Route {
	h := estimates{estimator: billing.NewEstimator(d.Billing)}
	return []route.Route{
		{Method: http.MethodPost, Path: "/v1/estimates", Public: true, Handler: h.create},
	}
}

// maxEstimate bounds the entries of one estimate.
const maxEstimate = 200

// EstimateRequest is a hypothetical month.
type EstimateRequest struct {
	Plan     string            `json:"plan" validate:"required" example:"pro"`
	Currency string            `json:"currency,omitempty" default:"USD" minLength:"3" maxLength:"3" pattern:"^[A-Z]{3}$"`
	Usage    map[string]string `json:"usage,omitempty" example:"voice:1800000"` // quantity by meter, in the meter's unit
	Series   []EstimateSeries  `json:"series,omitempty" maxItems:"200"`         // more usage, where the price depends on dimensions
} //@name EstimateRequest

// EstimateSeries is the usage of a meter with certain dimensions.
type EstimateSeries struct {
	Meter      string            `json:"meter" validate:"required" example:"voice"`
	Quantity   string            `json:"quantity" validate:"required" format:"decimal" example:"600"`
	Dimensions map[string]string `json:"dimensions,omitempty"`
} //@name EstimateSeries

// Estimate is what a hypothetical month costs, line by line and tier by tier, tax not included.
type Estimate struct {
	Plan     string         `json:"plan" validate:"required" example:"pro"`
	Version  int            `json:"plan_version" validate:"required" example:"1"`
	Currency string         `json:"currency" validate:"required" example:"USD"`
	Lines    []EstimateLine `json:"lines" validate:"required"`
	Blocked  []BlockedUsage `json:"blocked" validate:"required"` // usage that the plan's limits would refuse
	Total    Money          `json:"total" validate:"required"`
} //@name Estimate

// EstimateLine is one line of an estimate.
type EstimateLine struct {
	Kind        string          `json:"kind" validate:"required" enums:"fee,usage,minimum,maximum,percent,credit,commitment,prepayment,drawdown,overage,adjustment,absorbed" example:"usage"`
	Meter       *string         `json:"meter" validate:"required" extensions:"x-nullable" example:"voice"`
	Description string          `json:"description" validate:"required"`
	Quantity    string          `json:"quantity" validate:"required" format:"decimal" example:"1800000"`
	Included    string          `json:"included" validate:"required" format:"decimal" example:"60000"`
	Billable    string          `json:"billable" validate:"required" format:"decimal" example:"1740000"`
	Unit        *string         `json:"unit" validate:"required" extensions:"x-nullable" example:"second"`
	Tiers       []InvoicedUnits `json:"tiers" validate:"required"`
	Amount      Money           `json:"amount" validate:"required"`
} //@name EstimateLine

// BlockedUsage is usage that a hard limit would refuse.
type BlockedUsage struct {
	Meter    string `json:"meter" validate:"required" example:"voice"`
	Quantity string `json:"quantity" validate:"required" format:"decimal" example:"1800000"`
	Limit    string `json:"limit" validate:"required" format:"decimal" example:"60000"`
} //@name BlockedUsage

type estimates struct{ estimator *billing.Estimator }

// create prices a hypothetical month.
//
//	@ID				createEstimate
//	@Summary		Price a hypothetical month
//	@Description	The cost calculator of a pricing page: any plan on sale, line by line and tier by tier, exactly as an invoice would be computed. Needs no credential and keeps nothing.
//	@Tags			plans
//	@Param			body	body		EstimateRequest	true	"The month"
//	@Success		200		{object}	Estimate
//	@Failure		404		{object}	problem.Problem	"plan_not_found"
//	@Failure		409		{object}	problem.Problem	"contact_sales: the plan's prices are agreed with a person"
//	@Failure		422		{object}	problem.Problem	"invalid_request, currency_not_offered or amount_out_of_range"
//	@Router			/v1/estimates [post]
func (h estimates) create(c echo.Context) error {
	var in EstimateRequest
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	if in.Currency == "" {
		in.Currency = string(money.USD)
	}
	usage, err := in.usage()
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	e, err := h.estimator.Estimate(ctx, plan.Code(in.Plan), money.Currency(in.Currency), usage)
	if err != nil {
		return err
	}
	if err := h.knowMeters(c, e, in, usage); err != nil {
		return err
	}
	answer := toEstimate(e)
	return answer.write(c)
}

// usage reads the quantities. Entries of one meter add up.
func (in EstimateRequest) usage() ([]pricing.Usage, error) {
	var checks validate.Checks
	checks.RequiredLine("#/plan", in.Plan, validate.MaxName)
	checks.Currency("#/currency", in.Currency)
	checks.Count("#/usage", len(in.Usage), 0, maxEstimate)
	checks.Count("#/series", len(in.Series), 0, maxEstimate)
	if err := checks.Err(); err != nil {
		return nil, err
	}
	out := make([]pricing.Usage, 0, len(in.Usage)+len(in.Series))
	add := func(meter, quantity string, dimensions map[string]string) bool {
		q, err := money.ParseDecimal(quantity)
		out = append(out, pricing.Usage{Meter: plan.MeterCode(meter), Quantity: q, Dimensions: dimensions})
		return err == nil && q.Sign() >= 0
	}
	const fault = "must be a decimal number from 0, with at most 15 digits before the point and 9 after it"
	var wrong []string
	for meter, quantity := range in.Usage {
		if !add(meter, quantity, nil) {
			wrong = append(wrong, meter)
		}
	}
	slices.SortFunc(out, func(a, b pricing.Usage) int { return cmp.Compare(a.Meter, b.Meter) }) // an answer is the same each time
	slices.Sort(wrong)
	for _, meter := range wrong {
		checks.Fail(strictjson.Fragment("/usage/"+escapePointer(meter)), "invalid_quantity", fault)
	}
	for i, s := range in.Series {
		if !add(s.Meter, s.Quantity, s.Dimensions) {
			checks.Fail("#/series/"+strconv.Itoa(i)+"/quantity", "invalid_quantity", fault)
		}
	}
	return out, checks.Err()
}

// knowMeters refuses usage of a meter that there is not: an estimate that leaves it out would be wrong.
// Most requests name meters that the plan has a price or a limit for, and are not looked into further.
func (h estimates) knowMeters(c echo.Context, e billing.Estimate, in EstimateRequest, usage []pricing.Usage) error {
	known := func(m plan.MeterCode) bool {
		for i := range e.Version.Charges {
			if e.Version.Charges[i].Meter == m {
				return true
			}
		}
		_, limited := e.Version.Limit(m)
		return limited
	}
	var strange []plan.MeterCode
	for _, u := range usage {
		if !known(u.Meter) {
			strange = append(strange, u.Meter)
		}
	}
	if len(strange) == 0 {
		return nil
	}
	meters, err := h.estimator.Meters(c.Request().Context())
	if err != nil {
		return err
	}
	var checks validate.Checks
	for _, code := range strange {
		if slices.ContainsFunc(meters, func(m plan.Meter) bool { return m.Code == code }) {
			continue // this plan has neither price nor limit for it
		}
		pointer := strictjson.Fragment("/usage/" + escapePointer(string(code)))
		if i := slices.IndexFunc(in.Series, func(s EstimateSeries) bool { return s.Meter == string(code) }); i >= 0 {
			pointer = "#/series/" + strconv.Itoa(i) + "/meter"
		}
		checks.Fail(pointer, "unknown_meter", "There is no such meter.")
	}
	return checks.Err()
}

func toEstimate(e billing.Estimate) Estimate {
	out := Estimate{
		Plan: string(e.Plan.Code), Version: e.Version.Number, Currency: string(e.Bill.Total.Currency),
		Lines: make([]EstimateLine, len(e.Bill.Lines)), Blocked: convert(e.Blocked, toBlocked), Total: toMoney(e.Bill.Total),
	}
	for i := range e.Bill.Lines {
		out.Lines[i] = toEstimateLine(&e.Bill.Lines[i])
	}
	return out
}

func toEstimateLine(l *pricing.Line) EstimateLine {
	d := &l.Derivation
	out := EstimateLine{
		Kind: string(l.Kind), Meter: textAt((*string)(&l.Meter)), Description: l.Description, Quantity: l.Quantity.String(), Included: l.Included.String(),
		Billable: l.Billable.String(), Unit: textAt(&d.Unit), Tiers: make([]InvoicedUnits, len(d.Parts)), Amount: toMoney(l.Amount),
	}
	for i := range d.Parts {
		out.Tiers[i] = toInvoicedUnits(d, &d.Parts[i])
	}
	return out
}

func toBlocked(b pricing.Blocked) BlockedUsage {
	return BlockedUsage{Meter: string(b.Meter), Quantity: b.Quantity.String(), Limit: b.Limit.String()}
}
