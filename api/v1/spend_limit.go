package v1

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
)

func spendLimitRoutes(d Deps) []route.Route {
	h := spendLimits{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/spend-limit", Scope: auth.BillingRead, Tagged: true, Handler: h.get},
		{Method: http.MethodPut, Path: "/v1/spend-limit", Scope: auth.BillingWrite, Class: route.Money, IfMatch: true, Handler: h.set},
	}
}

// SpendLimit is the most that a period may come to, tax included.
type SpendLimit struct {
	Amount *Money  `json:"amount" validate:"required" extensions:"x-nullable"`                 // null: no limit
	Mode   *string `json:"mode" validate:"required" extensions:"x-nullable" enums:"hard,soft"` // hard: use beyond it is refused, and what slips through is not billed; soft: it is told
} //@name SpendLimit

func toSpendLimit(l billing.SpendLimit) SpendLimit {
	out := SpendLimit{Amount: toMoneyIf(l.Amount)}
	if l.Amount != nil {
		out.Mode = textIf(l.Mode)
	}
	return out
}

type spendLimits struct{ Deps }

// get shows the spend limit.
//
//	@ID			getSpendLimit
//	@Summary	Get the spend limit
//	@Tags		balance
//	@Success	200	{object}	SpendLimit
//	@Router		/v1/spend-limit [get]
func (h spendLimits) get(c echo.Context) error {
	l, err := billing.Limiter{Core: h.Billing}.Get(c.Request().Context(), middleware.Account(c))
	if err != nil {
		return err
	}
	return middleware.JSON(c, l.Version, toSpendLimit(l))
}

// SpendLimitInput is the limit to be kept.
type SpendLimitInput struct {
	Amount *Money `json:"amount" validate:"required" extensions:"x-nullable"` // null takes the limit away
	Mode   string `json:"mode" enums:"hard,soft" default:"hard"`
} //@name SpendLimitInput

func (in SpendLimitInput) limit() (billing.SpendLimit, error) {
	l := billing.SpendLimit{Mode: entitlement.Mode(in.Mode)}
	var checks validate.Checks
	if in.Mode != "" {
		checks.OneOf("#/mode", in.Mode, string(entitlement.Hard), string(entitlement.Soft))
	}
	switch {
	case in.Amount == nil:
	case *in.Amount == Money{}:
		checks.Fail("#/amount", "required", "is required: null takes the limit away")
	default:
		a := in.Amount.amount()
		checks.Positive("#/amount", a)
		l.Amount = &a
	}
	return l, checks.Err()
}

// set sets the spend limit.
//
//	@ID				setSpendLimit
//	@Summary		Set or take away the spend limit
//	@Description	For the running period and those after it. What the period has come to already stays used.
//	@Tags			balance
//	@Param			limit	body		SpendLimitInput	true	"The limit"
//	@Success		200		{object}	SpendLimit
//	@Failure		409		{object}	problem.Problem	"account_closed"
//	@Failure		422		{object}	problem.Problem	"invalid_request, currency_mismatch"
//	@Router			/v1/spend-limit [put]
func (h spendLimits) set(c echo.Context) error {
	in := SpendLimitInput{Amount: new(Money)} // null takes the limit away, what is left out does not
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	want, err := in.limit()
	if err != nil {
		return err
	}
	ctx, limiter := c.Request().Context(), billing.Limiter{Core: h.Billing}
	want.Version, err = expected(c, func() (int64, error) {
		held, err := limiter.Get(ctx, middleware.Account(c))
		return held.Version, err
	})
	if err != nil {
		return err
	}
	l, err := limiter.Set(ctx, asked(c), want)
	if err != nil {
		return err
	}
	return middleware.JSON(c, l.Version, toSpendLimit(l))
}
