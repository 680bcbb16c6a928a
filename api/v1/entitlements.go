package v1

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
)

// entitlementChecker answers whether an account may use a meter: metering.Checker.
type entitlementChecker interface {
	Check(a account.ID, meter string) (entitlement.Decision, error)
	CheckAll(a account.ID) ([]entitlement.Decision, error)
}

func entitlementRoutes(d Deps) []route.Route {
	h := entitlements{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/entitlements", Scope: auth.UsageRead, OfState: true, MayAge: freshFor, Query: []string{"strict"}, Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/entitlements/{meter}", Scope: auth.UsageRead, OfState: true, MayAge: freshFor, Query: []string{"strict"}, Handler: h.get},
	}
}

// freshFor is how long an entitlement is answered from memory. With the time to read it, an answer is
// never older than a second on any replica.
const freshFor = 500 * time.Millisecond

// Entitlement answers "may this account use the meter now?".
type Entitlement struct {
	Meter     string     `json:"meter" validate:"required" example:"voice"`
	Allowed   bool       `json:"allowed" validate:"required"`
	Reason    *string    `json:"reason" validate:"required" extensions:"x-nullable" enums:"limit_reached,spend_limit_reached,account_suspended,account_closed"` // why not, or which soft limit is passed
	Limit     *string    `json:"limit" validate:"required" extensions:"x-nullable" format:"decimal" example:"60000"`                                            // per period; null: none
	Mode      *string    `json:"mode" validate:"required" extensions:"x-nullable" enums:"hard,soft"`                                                            // what happens at the limit
	Used      string     `json:"used" validate:"required" format:"decimal" example:"1234.5"`
	Reserved  string     `json:"reserved" validate:"required" format:"decimal" example:"600"` // held by open reservations
	Remaining *string    `json:"remaining" validate:"required" extensions:"x-nullable" format:"decimal"`
	ResetsAt  *time.Time `json:"resets_at" validate:"required" extensions:"x-nullable" format:"date-time"` // when the limit counts from zero again
} //@name Entitlement

// Entitlements are those of every meter.
type Entitlements struct {
	Data []Entitlement `json:"data" validate:"required"`
} //@name Entitlements

func toEntitlement(d entitlement.Decision) Entitlement {
	out := Entitlement{
		Meter: d.Meter, Allowed: d.Allowed, Used: d.Used.String(), Reserved: d.Reserved.String(), ResetsAt: timeIf(d.ResetsAt),
	}
	if d.Reason != entitlement.Within {
		reason := string(d.Reason)
		out.Reason = &reason
	}
	if d.Limit != nil {
		limit, mode := d.Limit.Quantity.String(), string(d.Limit.Mode)
		out.Limit, out.Mode = &limit, &mode
	}
	if d.Remaining != nil {
		remaining := d.Remaining.String()
		out.Remaining = &remaining
	}
	return out
}

type entitlements struct{ Deps }

// checkStrict checks the parameter. Its value changes nothing here: whatever is computed is as of this
// moment, and what the chain answers from memory instead was not asked for with strict=true.
func checkStrict(c echo.Context) error {
	q := middleware.Query(c)
	switch q.Get("strict") {
	case "", "false", "true":
		return nil
	default:
		return errs.InvalidField("#/strict", "unknown_value", "must be true or false")
	}
}

// list answers for every meter.
//
//	@ID			listEntitlements
//	@Summary	Check what may be used now
//	@Tags		entitlements
//	@Security	Token[usage:read]
//	@Param		strict	query		bool	false	"Answer as of this moment, not up to a second old"
//	@Success	200		{object}	Entitlements
//	@Router		/v1/entitlements [get]
func (h entitlements) list(c echo.Context) error {
	if err := checkStrict(c); err != nil {
		return err
	}
	all, err := h.Metering.Checker.CheckAll(middleware.Account(c))
	if err != nil {
		return err
	}
	out := Entitlements{Data: []Entitlement{}}
	for _, d := range all {
		out.Data = append(out.Data, toEntitlement(d))
	}
	return c.JSON(http.StatusOK, out)
}

// get answers for one meter: what a gateway asks before a call.
//
//	@ID				getEntitlement
//	@Summary		Check whether a meter may be used now
//	@Description	Answers from memory that is at most a second old, on every replica. To be sure of units before using them, make a reservation.
//	@Tags			entitlements
//	@Security		Token[usage:read]
//	@Param			meter	path		string	true	"The meter"	example(voice)
//	@Param			strict	query		bool	false	"Answer as of this moment"
//	@Success		200		{object}	Entitlement
//	@Failure		404		{object}	problem.Problem	"unknown_meter"
//	@Router			/v1/entitlements/{meter} [get]
func (h entitlements) get(c echo.Context) error {
	if err := checkStrict(c); err != nil {
		return err
	}
	d, err := h.Metering.Checker.Check(middleware.Account(c), c.Param("meter"))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, toEntitlement(d))
}
