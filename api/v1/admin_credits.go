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
	"github.com/accrue-billing/accrue/internal/wallet"
)

func adminCreditRoutes(d Deps) []route.Route {
	h := adminCredits{d}
	return []route.Route{
		{
			Method: http.MethodPost, Path: "/v1/admin/credits", Scope: auth.Operator, Class: route.Money, Idempotent: true,
			Handler: h.grant,
		},
		{Method: http.MethodGet, Path: "/v1/admin/credits", Scope: auth.Operator, Query: paged(), Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/admin/credits/{id}", Scope: auth.Operator, Handler: h.get},
		{Method: http.MethodPost, Path: "/v1/admin/credits/{id}/void", Scope: auth.Operator, Class: route.Money, Idempotent: true, Handler: h.void},
	}
}

// Credit is promotional credit that was given to an account. It pays invoices before funds do.
type Credit struct {
	ID        string     `json:"id" validate:"required" example:"grt_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Account   string     `json:"account" validate:"required"`
	Amount    Money      `json:"amount" validate:"required"`
	Remaining Money      `json:"remaining" validate:"required"` // not yet spent
	Priority  int        `json:"priority" validate:"required"`  // lower is spent first; among equals the soonest to expire
	Status    string     `json:"status" validate:"required" enums:"active,spent,ended"`
	Reason    string     `json:"reason" validate:"required"`
	Actor     string     `json:"actor" validate:"required" example:"operator:grace"`
	GrantedAt time.Time  `json:"granted_at" validate:"required" format:"date-time"`
	ExpiresAt *time.Time `json:"expires_at" validate:"required" extensions:"x-nullable" format:"date-time"` // null: never
	EndedAt   *time.Time `json:"ended_at" validate:"required" extensions:"x-nullable" format:"date-time"`   // when what remained was taken back
} //@name Credit

func toCredit(g wallet.Grant) Credit {
	out := Credit{
		ID: g.ID.String(), Account: g.Account.String(), Amount: toMoney(g.Amount), Remaining: toMoney(g.Remaining), Priority: g.Priority, Status: "active",
		Reason: g.Reason, Actor: g.Actor, GrantedAt: g.GrantedAt.UTC(), ExpiresAt: timeIf(g.ExpiresAt), EndedAt: timeIf(g.ExpiredAt),
	}
	switch {
	case !g.ExpiredAt.IsZero():
		out.Status = "ended"
	case g.Remaining.IsZero():
		out.Status = "spent"
	}
	return out
}

func showCredit(status int) func(wallet.Grant, secrets) shown {
	return func(g wallet.Grant, _ secrets) shown { return shown{status: status, body: toCredit(g)} }
}

// NewCredit is credit to be given.
type NewCredit struct {
	Amount    Money      `json:"amount" validate:"required"`
	Reason    string     `json:"reason" validate:"required" maxLength:"4000" example:"welcome"`
	Priority  int        `json:"priority" minimum:"0" maximum:"1000" default:"0"` // lower is spent first
	ExpiresAt *time.Time `json:"expires_at,omitempty" format:"date-time"`         // left out: never
} //@name NewCredit

type adminCredits struct{ Deps }

// maxPriority bounds the order in which credit is spent.
const maxPriority = 1000

// grant gives credit.
//
//	@ID				grantCredit
//	@Summary		Give promotional credit
//	@Description	It pays invoices before the account's funds do and can never be paid out.
//	@Tags			admin
//	@Param			credit	body		NewCredit	true	"How much, and why"
//	@Success		201		{object}	Credit
//	@Failure		404		{object}	problem.Problem	"account_not_found"
//	@Failure		409		{object}	problem.Problem	"account_closed"
//	@Failure		422		{object}	problem.Problem	"invalid_request, currency_mismatch"
//	@Router			/v1/admin/credits [post]
func (h adminCredits) grant(c echo.Context) error {
	var body NewCredit
	if err := strictjson.Decode(c, &body); err != nil {
		return err
	}
	in := billing.GrantInput{Amount: body.Amount.amount(), Priority: body.Priority, Reason: body.Reason}
	var checks validate.Checks
	checks.Positive("#/amount", in.Amount)
	checkReason(&checks, body.Reason)
	if body.Priority < 0 || body.Priority > maxPriority {
		checks.Fail("#/priority", "out_of_range", "must be from 0 to 1000")
	}
	if body.ExpiresAt != nil {
		in.ExpiresAt = checkMoment(&checks, "#/expires_at", *body.ExpiresAt)
	}
	if err := checks.Err(); err != nil {
		return err
	}
	return once(c, h.Deps, showCredit(http.StatusCreated), func(asked billing.Asked, keep billing.Renderer[wallet.Grant]) (billing.Result[wallet.Grant], error) {
		return billing.Granter{Core: h.Billing}.Grant(c.Request().Context(), asked, in, keep)
	})
}

// list shows an account's credit.
//
//	@ID			listCredits
//	@Summary	List the promotional credit of an account, the newest first
//	@Tags		admin
//	@Param		limit	query		int		false	"At most so many"	default(20)	minimum(1)	maximum(100)
//	@Param		cursor	query		string	false	"next_cursor of the page before"
//	@Success	200		{object}	Page[Credit]
//	@Failure	404		{object}	problem.Problem	"account_not_found"
//	@Router		/v1/admin/credits [get]
func (h adminCredits) list(c echo.Context) error {
	return listOf(c, h.Lists, toCredit, h.Billing.DB.Wallet().Grants)
}

// get shows a credit.
//
//	@ID			getCredit
//	@Summary	Get a promotional credit of the account
//	@Tags		admin
//	@Param		id	path		string	true	"The credit"
//	@Success	200	{object}	Credit
//	@Failure	404	{object}	problem.Problem	"credit_grant_not_found, account_not_found"
//	@Router		/v1/admin/credits/{id} [get]
func (h adminCredits) get(c echo.Context) error {
	return recordOf(c, wallet.ErrGrantNotFound, h.Billing.DB.Wallet().Grant, toCredit)
}

// void takes back what is left of a credit.
//
//	@ID				voidCredit
//	@Summary		Take back what is left of a promotional credit
//	@Description	What it has paid stays paid. One of which nothing is left is answered as it is.
//	@Tags			admin
//	@Param			id		path		string	true	"The credit"
//	@Param			reason	body		Reason	true	"Why"
//	@Success		200		{object}	Credit
//	@Failure		404		{object}	problem.Problem	"credit_grant_not_found, account_not_found"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/credits/{id}/void [post]
func (h adminCredits) void(c echo.Context) error {
	gid, err := param[wallet.Grant](c, "id", wallet.ErrGrantNotFound)
	if err != nil {
		return err
	}
	why, err := reason(c)
	if err != nil {
		return err
	}
	return once(c, h.Deps, showCredit(http.StatusOK), func(asked billing.Asked, keep billing.Renderer[wallet.Grant]) (billing.Result[wallet.Grant], error) {
		return billing.Granter{Core: h.Billing}.Void(c.Request().Context(), asked, gid, why, keep)
	})
}
