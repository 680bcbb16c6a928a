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
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/payment"
)

func adminRefundRoutes(d Deps) []route.Route {
	h := adminRefunds{d}
	return []route.Route{
		{
			Method: http.MethodPost, Path: "/v1/admin/refunds", Scope: auth.Operator, Class: route.Money, Idempotent: true,
			Timeout: providerTimeout, Handler: h.create,
		},
		{Method: http.MethodGet, Path: "/v1/admin/refunds", Scope: auth.Operator, Query: paged(), Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/admin/refunds/{id}", Scope: auth.Operator, Handler: h.get},
	}
}

// AdminRefund is a refund as the operator sees it: with who decided on it, and why.
type AdminRefund struct {
	ID        string    `json:"id" validate:"required" example:"ref_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Account   string    `json:"account" validate:"required" example:"acct_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Payment   string    `json:"payment" validate:"required" example:"pay_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Amount    Money     `json:"amount" validate:"required"`
	Status    string    `json:"status" validate:"required" enums:"processing,succeeded,failed"`
	Origin    string    `json:"origin" validate:"required" enums:"operator,provider,account_close"` // who gave the money back
	Reason    *string   `json:"reason" validate:"required" extensions:"x-nullable" example:"charged for an outage of ours"`
	Actor     string    `json:"actor" validate:"required" example:"operator:grace"`
	CreatedAt time.Time `json:"created_at" validate:"required" format:"date-time"`
	UpdatedAt time.Time `json:"updated_at" validate:"required" format:"date-time"`
} //@name AdminRefund

func toAdminRefund(r payment.Refund) AdminRefund {
	return AdminRefund{
		ID: r.ID.String(), Account: r.Account.String(), Payment: r.Payment.String(), Amount: toMoney(r.Amount), Status: string(r.Status),
		Origin: string(r.Origin), Reason: textIf(r.Reason), Actor: r.Actor, CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
}

// ErrRefundRefused says that the provider did not give the money back.
var ErrRefundRefused = errs.New(errs.Conflict, "refund_refused", "The payment provider refused the refund. Nothing has moved; what was set aside is undone.")

func showAdminRefund(r payment.Refund, _ secrets) shown {
	switch r.Status {
	case payment.Succeeded:
		return shown{status: http.StatusCreated, body: toAdminRefund(r)}
	case payment.Failed:
		return shown{problem: ErrRefundRefused.With("refund", r.ID.String())}
	default:
		return shown{status: http.StatusAccepted, body: toAdminRefund(r)}
	}
}

// NewRefund says what is to be given back.
type NewRefund struct {
	Payment string `json:"payment" validate:"required" maxLength:"64" example:"pay_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Amount  *Money `json:"amount,omitempty"` // left out: all that is left of the payment
	Reason  string `json:"reason" validate:"required" maxLength:"4000" example:"charged for an outage of ours"`
} //@name NewRefund

type adminRefunds struct{ Deps }

// create gives money back.
//
//	@ID				createRefund
//	@Summary		Give a payment back, in part or as a whole
//	@Description	To the card that paid. What is set aside for a refund can be neither refunded nor spent again, so concurrent refunds never pass what was taken. A refund of an invoice's payment makes that much of the invoice due again; give a credit note as well where the customer shall not owe it. 202 means that the provider has not answered yet: read the refund until its status is succeeded or failed.
//	@Tags			admin
//	@Param			refund	body		NewRefund	true	"The payment, how much, and why"
//	@Success		201		{object}	AdminRefund	"The provider has taken it on"
//	@Success		202		{object}	AdminRefund	"Not known yet: processing"
//	@Failure		404		{object}	problem.Problem	"payment_not_found, account_not_found"
//	@Failure		409		{object}	problem.Problem	"refund_too_large (with refundable), funds_spent (with funds), refund_refused (with refund)"
//	@Failure		422		{object}	problem.Problem	"invalid_request, currency_mismatch, amount_not_chargeable (with step)"
//	@Router			/v1/admin/refunds [post]
func (h adminRefunds) create(c echo.Context) error {
	var body NewRefund
	if err := strictjson.Decode(c, &body); err != nil {
		return err
	}
	var checks validate.Checks
	in := billing.RefundInput{Reason: body.Reason, Origin: payment.ByOperator}
	var err error
	if in.Payment, err = id.Parse[payment.Payment](body.Payment); checks.Require("#/payment", body.Payment) && err != nil {
		checks.Fail("#/payment", "invalid_identifier", "is no identifier of a payment")
	}
	if body.Amount != nil {
		in.Amount = body.Amount.amount()
		checks.Positive("#/amount", in.Amount)
	}
	checkReason(&checks, body.Reason)
	if err := checks.Err(); err != nil {
		return err
	}
	return once(c, h.Deps, showAdminRefund, func(asked billing.Asked, keep billing.Renderer[payment.Refund]) (billing.Result[payment.Refund], error) {
		return billing.Refunder{Core: h.Billing}.Refund(c.Request().Context(), asked, in, keep)
	})
}

// list pages through the account's refunds.
//
//	@ID			adminListRefunds
//	@Summary	List refunds of the account, the newest first, with who decided on them and why
//	@Tags		admin
//	@Param		limit	query		int		false	"At most so many"	default(20)	minimum(1)	maximum(100)
//	@Param		cursor	query		string	false	"next_cursor of the page before"
//	@Success	200		{object}	Page[AdminRefund]
//	@Failure	404		{object}	problem.Problem	"account_not_found"
//	@Router		/v1/admin/refunds [get]
func (h adminRefunds) list(c echo.Context) error {
	return listOf(c, h.Lists, toAdminRefund, h.Billing.DB.Payments().Refunds)
}

// get shows a refund.
//
//	@ID			adminGetRefund
//	@Summary	Get a refund of the account
//	@Tags		admin
//	@Param		id	path		string	true	"The refund"
//	@Success	200	{object}	AdminRefund
//	@Failure	404	{object}	problem.Problem	"refund_not_found, account_not_found"
//	@Router		/v1/admin/refunds/{id} [get]
func (h adminRefunds) get(c echo.Context) error {
	r, err := h.readRefund(c)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, toAdminRefund(r))
}
