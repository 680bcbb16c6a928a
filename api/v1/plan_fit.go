package v1

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/pricing"
)

func planFitRoutes(d Deps) []route.Route {
	h := planFit{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/plan-fit", Scope: auth.BillingRead, Handler: h.get},
	}
}

// PlanFit is the account's own usage priced under every plan.
type PlanFit struct {
	Held       string      `json:"held" validate:"required" example:"developer"` // the plan that the account is on
	Months     []Period    `json:"months" validate:"required"`                   // what is compared, the oldest first: up to three periods that are over, or else the running one
	Plans      []PlanCost  `json:"plans" validate:"required"`
	Cheapest   *string     `json:"cheapest" validate:"required" extensions:"x-nullable" example:"pro"` // of the plans that would have taken all usage; null: none would
	BreakEvens []BreakEven `json:"break_evens" validate:"required"`
} //@name PlanFit

// PlanCost is what the usage would have cost on one plan, tax not included.
type PlanCost struct {
	Plan    string         `json:"plan" validate:"required" example:"pro"`
	Name    string         `json:"name" validate:"required" example:"Pro"`
	Version int            `json:"plan_version" validate:"required" example:"1"`
	Months  []Money        `json:"months" validate:"required"` // as in the comparison's months
	Total   Money          `json:"total" validate:"required"`
	Blocked []BlockedMonth `json:"blocked" validate:"required"` // usage that the plan's limits would have refused
} //@name PlanCost

// BlockedMonth is a month in which a hard limit would have stopped usage.
type BlockedMonth struct {
	Month    int    `json:"month" validate:"required" example:"0"` // its place among the months, from 0
	Meter    string `json:"meter" validate:"required" example:"voice"`
	Quantity string `json:"quantity" validate:"required" format:"decimal"`
	Limit    string `json:"limit" validate:"required" format:"decimal"`
} //@name BlockedMonth

// BreakEven is a quantity of one meter in a period from which another plan is the better one, with the
// other meters as in the average month.
type BreakEven struct {
	Meter    string `json:"meter" validate:"required" example:"voice"`
	From     string `json:"from" validate:"required" example:"developer"`                   // the plan that is better below the quantity
	To       string `json:"to" validate:"required" example:"pro"`                           // the plan that is better above it
	Quantity string `json:"quantity" validate:"required" format:"decimal" example:"60001"`  // in whole units of the meter
	Reason   string `json:"reason" validate:"required" enums:"price,limit" example:"limit"` // price: it costs less; limit: the other one stops here
} //@name BreakEven

type planFit struct{ Deps }

// get compares the plans.
//
//	@ID				getPlanFit
//	@Summary		Compare plans by the account's own usage
//	@Description	The last three periods that are over, from real usage, as they would have been billed under each plan that needs no salesperson, with the quantities at which one becomes better than another.
//	@Tags			plans
//	@Security		Token[billing:read]
//	@Success		200	{object}	PlanFit
//	@Failure		404	{object}	problem.Problem	"subscription_not_found: the account is closed"
//	@Router			/v1/plan-fit [get]
func (h planFit) get(c echo.Context) error {
	f, err := billing.Reader{Core: h.Billing}.PlanFit(c.Request().Context(), middleware.Account(c))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, toPlanFit(f))
}

func toPlanFit(f billing.Fit) PlanFit {
	out := PlanFit{
		Held: string(f.Held), Cheapest: textIf(f.Cheapest), BreakEvens: convert(f.BreakEvens, toBreakEven),
		Months: convert(f.Periods, func(b period.Bounds) Period { return Period{b.Start, b.End} }),
		Plans:  make([]PlanCost, len(f.Comparison.Plans)),
	}
	for i, p := range f.Comparison.Plans {
		out.Plans[i] = PlanCost{
			Plan: string(p.Plan), Name: f.Plans[i].Name, Version: p.Version, Months: convert(p.Months, toMoney), Total: toMoney(p.Total),
			Blocked: convert(p.Blocked, toBlockedMonth),
		}
	}
	return out
}

func toBlockedMonth(b pricing.Blocked) BlockedMonth {
	return BlockedMonth{Month: b.Month, Meter: string(b.Meter), Quantity: b.Quantity.String(), Limit: b.Limit.String()}
}

func toBreakEven(b pricing.BreakEven) BreakEven {
	return BreakEven{Meter: string(b.Meter), From: string(b.From), To: string(b.To), Quantity: b.Quantity.String(), Reason: string(b.Reason)}
}
