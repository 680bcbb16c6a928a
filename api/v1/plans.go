package v1

import (
	"context"
	"errors"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/plan"
)

// planReader is what the catalogue's handlers need of plan.Store.
type planReader interface {
	Plans(ctx context.Context) ([]plan.Plan, error)
	Plan(ctx context.Context, code plan.Code) (plan.Plan, error)
	Current(ctx context.Context, code plan.Code) (plan.Version, error)
	Meters(ctx context.Context) ([]plan.Meter, error)
}

func planRoutes(d Deps) []route.Route {
	h := plans{d.Plans}
	if h.store == nil && d.Billing != nil {
		h.store = d.Billing.DB.Plans()
	}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/plans", Public: true, Tagged: true, Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/plans/{code}", Public: true, Tagged: true, Handler: h.get},
	}
}

// Plan is something that an account can be on, with the terms that it is sold on now.
type Plan struct {
	Code         string    `json:"code" validate:"required" example:"pro"`
	Name         string    `json:"name" validate:"required" example:"Pro"`
	Description  string    `json:"description" validate:"required"`
	RequiresCard bool      `json:"requires_card" validate:"required"`
	ContactSales bool      `json:"contact_sales" validate:"required"`                 // not for self-service: terms come with a contract
	Features     []Feature `json:"features" validate:"required"`                      // the terms in words, in the order of a pricing page
	Terms        *Terms    `json:"terms" validate:"required" extensions:"x-nullable"` // null where sales agree them
} //@name Plan

// Feature is one thing to say of a plan on a pricing page. A page in one currency leaves out those that
// name another.
type Feature struct {
	Kind     string  `json:"kind" validate:"required" enums:"fee,credit,minimum,included,price,limit,card,contact_sales"`
	Name     *string `json:"name" validate:"required" extensions:"x-nullable" example:"Audio and video"`                 // of the charge or the meter; null for the plan as a whole
	Meter    *string `json:"meter" validate:"required" extensions:"x-nullable" example:"voice"`                          // null where it is about no single one
	Quantity *string `json:"quantity" validate:"required" extensions:"x-nullable" format:"decimal" example:"1000"`       // of what is included or limited, in unit
	Unit     *string `json:"unit" validate:"required" extensions:"x-nullable" example:"minute"`                          // the one that prices are quoted in
	Currency *string `json:"currency" validate:"required" extensions:"x-nullable" example:"USD"`                         // of the sum in the text; null: it holds in every currency
	Text     string  `json:"text" validate:"required" example:"Audio and video: $0.027 per minute up to 30,000 minutes"` // in English, formatted
} //@name Feature

// Terms is one immutable version of a plan's prices and limits.
type Terms struct {
	Version    int      `json:"version" validate:"required" example:"1"`
	Interval   string   `json:"interval" validate:"required" enums:"month,year" example:"month"`
	Currencies []string `json:"currencies" validate:"required"` // each price exists in all of these
	Fee        *Fee     `json:"fee" validate:"required" extensions:"x-nullable"`
	Credit     []Money  `json:"credit" validate:"required"`  // usage that the fee covers, per period
	Minimum    []Money  `json:"minimum" validate:"required"` // the least that usage is billed at, per period
	Charges    []Charge `json:"charges" validate:"required"`
	Limits     []Limit  `json:"limits" validate:"required"`
} //@name Terms

// Fee is a flat sum per period, in each currency.
type Fee struct {
	Name   string  `json:"name" validate:"required"`
	Prices []Money `json:"prices" validate:"required"`
} //@name Fee

// Charge is one priced component: a line of the invoice.
type Charge struct {
	Code       string            `json:"code" validate:"required" example:"voice"`
	Name       string            `json:"name" validate:"required" example:"Voice"`
	Meter      *string           `json:"meter" validate:"required" extensions:"x-nullable" example:"voice"`        // null for a percentage
	Unit       *string           `json:"unit" validate:"required" extensions:"x-nullable" example:"second"`        // the meter's
	Match      map[string]string `json:"match" validate:"required"`                                                // dimensions that narrow the charge
	QuotedUnit *string           `json:"quoted_unit" validate:"required" extensions:"x-nullable" example:"minute"` // what prices are quoted in; null for the meter's unit
	QuotedSize int64             `json:"quoted_size" validate:"required" example:"60"`                             // units of the meter in one quoted unit
	Included   string            `json:"included" validate:"required" format:"decimal" example:"60000"`            // the allowance per period, in units of the meter
	Prices     []Price           `json:"prices" validate:"required"`                                               // none: what exceeds the allowance is never billed
	Percent    *Percent          `json:"percent" validate:"required" extensions:"x-nullable"`
} //@name Charge

// Price is what a charge costs in one currency. Unit prices are exact decimals in major units.
type Price struct {
	Currency  string  `json:"currency" validate:"required" example:"USD"`
	Model     string  `json:"model" validate:"required" enums:"per_unit,package,graduated,volume" example:"graduated"`
	UnitPrice *string `json:"unit_price" validate:"required" extensions:"x-nullable" format:"decimal" example:"0.027"` // for one quoted unit or package; null where tiers say it
	Package   *string `json:"package" validate:"required" extensions:"x-nullable" format:"decimal"`                    // units of the meter in a package
	Tiers     []Tier  `json:"tiers" validate:"required"`
	Minimum   *Money  `json:"minimum" validate:"required" extensions:"x-nullable"` // the least that the charge costs in a period
	Maximum   *Money  `json:"maximum" validate:"required" extensions:"x-nullable"` // the most
} //@name Price

// Tier is a range of the period's total quantity, allowance included: from the tier before, exclusive,
// to up_to, inclusive.
type Tier struct {
	UpTo      *string `json:"up_to" validate:"required" extensions:"x-nullable" format:"decimal" example:"1800000"` // in units of the meter; null: without end
	UnitPrice string  `json:"unit_price" validate:"required" format:"decimal" example:"0.027"`                      // for one quoted unit
	Flat      *Money  `json:"flat" validate:"required" extensions:"x-nullable"`                                     // once, when a billable unit lies in the tier
} //@name Tier

// Percent is a charge in proportion to other lines.
type Percent struct {
	Rate string   `json:"rate" validate:"required" format:"decimal" example:"12.5"` // in percent
	Of   []string `json:"of" validate:"required"`                                   // codes of charges; none: every usage charge
} //@name Percent

// Limit bounds the quantity of a meter in one period.
type Limit struct {
	Meter    string `json:"meter" validate:"required" example:"voice"`
	Quantity string `json:"quantity" validate:"required" format:"decimal" example:"60000"` // in units of the meter
	Mode     string `json:"mode" validate:"required" enums:"hard,soft" example:"hard"`     // hard: an event that passes it is refused whole
} //@name Limit

type plans struct{ store planReader }

// list shows the catalogue.
//
//	@ID				listPlans
//	@Summary		List the plans on sale
//	@Description	The catalogue as a pricing page shows it: what each plan offers in words, with formatted prices, and the same in figures: prices with tiers, included amounts and limits. Needs no credential.
//	@Tags			plans
//	@Success		200	{object}	Page[Plan]
//	@Router			/v1/plans [get]
func (h plans) list(c echo.Context) error {
	ctx := c.Request().Context()
	all, err := h.store.Plans(ctx)
	if err != nil {
		return err
	}
	meters, err := h.store.Meters(ctx)
	if err != nil {
		return err
	}
	out := Page[Plan]{Data: []Plan{}}
	for _, p := range all {
		if p.Archived {
			continue
		}
		wire, err := h.wire(ctx, p, meters)
		if err != nil {
			return err
		}
		out.Data = append(out.Data, wire)
	}
	return tagged(c, out)
}

// get shows one plan.
//
//	@ID			getPlan
//	@Summary	Get a plan with its prices
//	@Tags		plans
//	@Param		code	path		string	true	"The plan's code"	example(pro)
//	@Success	200		{object}	Plan
//	@Failure	404		{object}	problem.Problem	"plan_not_found"
//	@Router		/v1/plans/{code} [get]
func (h plans) get(c echo.Context) error {
	ctx := c.Request().Context()
	p, err := h.store.Plan(ctx, plan.Code(c.Param("code")))
	if err != nil {
		return err
	}
	meters, err := h.store.Meters(ctx)
	if err != nil {
		return err
	}
	wire, err := h.wire(ctx, p, meters)
	if err != nil {
		return err
	}
	return tagged(c, wire)
}

func (h plans) wire(ctx context.Context, p plan.Plan, meters []plan.Meter) (Plan, error) {
	out := Plan{
		Code: string(p.Code), Name: p.Name, Description: p.Description,
		RequiresCard: p.RequiresCard, ContactSales: p.ContactSales,
	}
	v, err := h.store.Current(ctx, p.Code)
	switch {
	case errors.Is(err, plan.ErrVersionNotFound):
		out.Features = convert(plan.Features(p, nil, meters), toFeature)
	case err != nil:
		return Plan{}, err
	default:
		out.Features, out.Terms = convert(plan.Features(p, &v, meters), toFeature), toTerms(v)
	}
	return out, nil
}

func toFeature(f plan.Feature) Feature {
	return Feature{
		Kind: string(f.Kind), Name: textIf(f.Name), Meter: textIf(f.Meter), Quantity: decimalIf(f.Quantity), Unit: textIf(f.Unit),
		Currency: textIf(f.Currency), Text: f.Text,
	}
}

func toTerms(v plan.Version) *Terms {
	t := &Terms{
		Version: v.Number, Interval: string(v.Interval), Currencies: convert(v.Currencies, text),
		Credit: convert(v.Credit, toMoney), Minimum: convert(v.Minimum, toMoney),
		Charges: convert(v.Charges, toCharge), Limits: convert(v.Limits, toLimit),
	}
	if v.Fee != nil {
		t.Fee = &Fee{Name: v.Fee.Name, Prices: convert(v.Fee.Prices, toMoney)}
	}
	return t
}

func toCharge(c plan.Charge) Charge {
	out := Charge{
		Code: c.Code, Name: c.Name, Meter: textIf(c.Meter), Unit: textIf(c.Unit), Match: c.Match,
		QuotedUnit: textIf(c.Per.Unit), QuotedSize: c.Per.Divisor(), Included: c.Included.String(), Prices: convert(c.Prices, toPrice),
	}
	if out.Match == nil {
		out.Match = map[string]string{}
	}
	if c.Percent != nil {
		out.Percent = &Percent{Rate: c.Percent.Rate.String(), Of: convert(c.Percent.Of, text)}
	}
	return out
}

func toPrice(p plan.Price) Price {
	out := Price{
		Currency: string(p.Currency), Model: string(p.Model), Package: decimalIf(p.Package),
		Tiers: convert(p.Tiers, toTier), Minimum: toMoneyIf(p.Minimum), Maximum: toMoneyIf(p.Maximum),
	}
	if len(p.Tiers) == 0 { // a price of zero is a price
		s := p.UnitPrice.String()
		out.UnitPrice = &s
	}
	return out
}

func toTier(t plan.Tier) Tier {
	return Tier{UpTo: decimalIf(t.UpTo), UnitPrice: t.UnitPrice.String(), Flat: toMoneyIf(t.Flat)}
}

func toLimit(l plan.Limit) Limit {
	return Limit{Meter: string(l.Meter), Quantity: l.Quantity.String(), Mode: string(l.Mode)}
}
