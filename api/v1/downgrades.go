package v1

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
)

func downgradeRoutes(d Deps) []route.Route {
	h := downgrades{d}
	return []route.Route{
		{Method: http.MethodPost, Path: "/v1/downgrades", Scope: auth.BillingWrite, Class: route.Money, Idempotent: true, Handler: h.create},
		{Method: http.MethodDelete, Path: "/v1/downgrades", Scope: auth.BillingWrite, Class: route.Money, Handler: h.cancel},
	}
}

// NewDowngrade plans a change to a lower plan.
type NewDowngrade struct {
	Plan string `json:"plan" validate:"required" maxLength:"64" example:"developer"`
} //@name NewDowngrade

// Downgrade is a change of plan that takes effect when the period ends.
type Downgrade struct {
	From        string    `json:"from" validate:"required" example:"pro"`
	To          string    `json:"to" validate:"required" example:"developer"`
	EffectiveAt time.Time `json:"effective_at" validate:"required" format:"date-time"` // until then nothing changes, and it can be taken back
} //@name Downgrade

type downgrades struct{ Deps }

// create plans a downgrade.
//
//	@ID				createDowngrade
//	@Summary		Go to a lower plan when the period ends
//	@Description	Until then nothing changes, and DELETE /v1/downgrades takes it back.
//	@Tags			upgrades
//	@Param			downgrade	body		NewDowngrade	true	"The plan"
//	@Success		201			{object}	Downgrade
//	@Failure		404			{object}	problem.Problem	"plan_not_found"
//	@Failure		409			{object}	problem.Problem	"not_a_downgrade, plan_not_sold (with plans), downgrade_planned, under_contract, account_closed"
//	@Failure		422			{object}	problem.Problem	"invalid_request"
//	@Router			/v1/downgrades [post]
func (h downgrades) create(c echo.Context) error {
	var in NewDowngrade
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	var checks validate.Checks
	checks.RequiredLine("#/plan", in.Plan, 64)
	if err := checks.Err(); err != nil {
		return err
	}
	show := func(s subscription.Subscription, _ secrets) shown {
		return shown{status: http.StatusCreated, body: Downgrade{From: string(s.Plan), To: string(s.NextPlan), EffectiveAt: s.Period.End.UTC()}}
	}
	return once(c, h.Deps, show, func(asked billing.Asked, keep billing.Renderer[subscription.Subscription]) (billing.Result[subscription.Subscription], error) {
		return billing.Downgrader{Core: h.Billing}.Plan(c.Request().Context(), asked, plan.Code(in.Plan), keep)
	})
}

// cancel takes a downgrade back.
//
//	@ID				cancelDowngrade
//	@Summary		Take a planned downgrade back
//	@Description	Without one it does nothing. The action is cancel_downgrade.
//	@Tags			upgrades
//	@Success		204
//	@Failure		409	{object}	problem.Problem	"account_closed"
//	@Router			/v1/downgrades [delete]
func (h downgrades) cancel(c echo.Context) error {
	if _, err := (billing.Downgrader{Core: h.Billing}).Cancel(c.Request().Context(), asked(c)); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
