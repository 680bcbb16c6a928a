package v1

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

func topUpRoutes(d Deps) []route.Route {
	h := topUps{d}
	return []route.Route{
		{Method: http.MethodPost, Path: "/v1/top-ups/preview", Scope: auth.PaymentsWrite, Handler: h.preview},
		{
			Method: http.MethodPost, Path: "/v1/top-ups", Scope: auth.PaymentsWrite, Class: route.Money, Idempotent: true,
			Timeout: providerTimeout, Handler: h.create,
		},
		{Method: http.MethodGet, Path: "/v1/top-ups", Scope: auth.BillingRead, Query: paged(), Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/top-ups/{id}", Scope: auth.BillingRead, Handler: h.get},
		{
			Method: http.MethodPost, Path: "/v1/top-ups/{id}/confirm", NoBody: true, Scope: auth.PaymentsWrite, Class: route.Money,
			Timeout: providerTimeout, Handler: h.confirm,
		},
		{Method: http.MethodGet, Path: "/v1/auto-top-up", Scope: auth.BillingRead, Tagged: true, Handler: h.rule},
		{Method: http.MethodPut, Path: "/v1/auto-top-up", Scope: auth.PaymentsWrite, Class: route.Money, IfMatch: true, Handler: h.setRule},
	}
}

// TopUp adds funds by card.
type TopUp struct {
	ID         string      `json:"id" validate:"required" example:"top_01jqxyzabcdefghjkmnpqrstvw"`
	Amount     Money       `json:"amount" validate:"required"`
	Status     string      `json:"status" validate:"required" enums:"processing,requires_action,succeeded,failed,canceled,parked"` // parked: the provider reports something else than was asked; a person looks
	Origin     string      `json:"origin" validate:"required" enums:"manual,auto"`                                                 // manual: somebody asked for it; auto: the rule did
	Payment    string      `json:"payment" validate:"required" example:"pay_01jqxyzabcdefghjkmnpqrstvw"`
	NextAction *NextAction `json:"next_action" validate:"required" extensions:"x-nullable"`
	Failure    *Failure    `json:"failure" validate:"required" extensions:"x-nullable"`
	CreatedAt  time.Time   `json:"created_at" validate:"required" format:"date-time"`
	UpdatedAt  time.Time   `json:"updated_at" validate:"required" format:"date-time"`
} //@name TopUp

func toTopUp(t billing.TopUp, s secrets) TopUp {
	return TopUp{
		ID: t.ID.String(), Amount: toMoney(t.Amount), Status: string(t.Status), Origin: string(t.Origin), Payment: t.Payment.String(),
		NextAction: toNextAction(t.Charge.NextAction, s), Failure: toFailure(t.Failure), CreatedAt: t.CreatedAt.UTC(), UpdatedAt: t.UpdatedAt.UTC(),
	}
}

func showTopUp(t billing.TopUp, s secrets) shown {
	switch {
	case t.Status == payment.Failed:
		return shown{problem: declined(t.Failure, "top_up", t.ID.String())}
	case t.Status.Pending() || t.Status == payment.Parked:
		return shown{status: http.StatusAccepted, body: toTopUp(t, s)}
	default:
		return shown{status: http.StatusCreated, body: toTopUp(t, s)}
	}
}

// NewTopUp is what "Add funds" sends.
type NewTopUp struct {
	Amount        Money  `json:"amount" validate:"required"`
	PaymentMethod string `json:"payment_method" maxLength:"64" example:"pm_01jqxyzabcdefghjkmnpqrstvw"` // left out: the default card
} //@name NewTopUp

func topUpInput(c echo.Context) (in billing.TopUpInput, err error) {
	var body NewTopUp
	if err := strictjson.Decode(c, &body); err != nil {
		return in, err
	}
	in.Amount = body.Amount.amount()
	var checks validate.Checks
	checks.Positive("#/amount", in.Amount)
	if body.PaymentMethod != "" {
		if in.Method, err = id.Parse[payment.Method](body.PaymentMethod); err != nil {
			checks.Fail("#/payment_method", "invalid_identifier", "is no identifier of a payment method")
		}
	}
	return in, checks.Err()
}

type topUps struct{ Deps }

// TopUpPreview says what a top-up would take and leave.
type TopUpPreview struct {
	Amount        Money   `json:"amount" validate:"required"` // what the card would be charged: a top-up has no tax and no fee
	PaymentMethod string  `json:"payment_method" validate:"required"`
	Card          *Card   `json:"card" validate:"required" extensions:"x-nullable"`
	Before        Balance `json:"before" validate:"required"`
	After         Balance `json:"after" validate:"required"`
} //@name TopUpPreview

// preview says what a top-up would do.
//
//	@ID				previewTopUp
//	@Summary		What a top-up would take and leave
//	@Description	Takes nothing. What POST /v1/top-ups would refuse, this refuses in the same words.
//	@Tags			balance
//	@Param			top_up	body		NewTopUp	true	"The amount"
//	@Success		200		{object}	TopUpPreview
//	@Failure		404		{object}	problem.Problem	"payment_method_not_found"
//	@Failure		409		{object}	problem.Problem	"upgrade_required, no_payment_method, top_up_pending, card_attempts_exhausted, account_closed"
//	@Failure		422		{object}	problem.Problem	"invalid_request, top_up_amount, currency_mismatch"
//	@Router			/v1/top-ups/preview [post]
func (h topUps) preview(c echo.Context) error {
	in, err := topUpInput(c)
	if err != nil {
		return err
	}
	would, err := billing.Funder{Core: h.Billing}.Preview(c.Request().Context(), asked(c), in)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, TopUpPreview{
		Amount: toMoney(in.Amount), PaymentMethod: would.Method.ID.String(), Card: h.toCard(would.Method.Card),
		Before: toBalance(would.Before), After: toBalance(would.After),
	})
}

// create adds funds.
//
//	@ID				createTopUp
//	@Summary		Add funds by card
//	@Description	The funds are there when the provider has said yes, and not before. 202 means that the customer must act (see next_action) or that the provider has not answered yet. Top-ups of one account go one after the other: what comes together waits its turn for a while. One that stays pending is named by 409; with Retry-After where only its turn did not come in time.
//	@Tags			balance
//	@Param			top_up	body		NewTopUp	true	"The amount"
//	@Success		201		{object}	TopUp		"The funds are there"
//	@Success		202		{object}	TopUp		"Not yet: processing or requires_action"
//	@Failure		402		{object}	problem.Problem	"card_declined, with top_up, decline_code, decline_class and retry"
//	@Failure		403		{object}	problem.Problem	"ceiling_exceeded, insufficient_scope"
//	@Failure		404		{object}	problem.Problem	"payment_method_not_found"
//	@Failure		409		{object}	problem.Problem	"upgrade_required, no_payment_method, top_up_pending (with top_up), card_attempts_exhausted, account_closed"
//	@Failure		422		{object}	problem.Problem	"invalid_request, top_up_amount, currency_mismatch"
//	@Router			/v1/top-ups [post]
func (h topUps) create(c echo.Context) error {
	in, err := topUpInput(c)
	if err != nil {
		return err
	}
	return once(c, h.Deps, showTopUp, func(asked billing.Asked, keep billing.Renderer[billing.TopUp]) (billing.Result[billing.TopUp], error) {
		return billing.Funder{Core: h.Billing}.TopUp(c.Request().Context(), asked, in, keep)
	})
}

// list lists the top-ups.
//
//	@ID			listTopUps
//	@Summary	List top-ups, the newest first
//	@Tags		balance
//	@Param		limit	query		int		false	"How many at most"	minimum(1)	maximum(100)	default(20)
//	@Param		cursor	query		string	false	"next_cursor of the page before"
//	@Success	200		{object}	Page[TopUp]
//	@Router		/v1/top-ups [get]
func (h topUps) list(c echo.Context) error {
	return listOf(c, h.Lists, func(t payment.TopUp) TopUp { return toTopUp(billing.TopUp{TopUp: t}, withoutSecrets) }, h.Billing.DB.Payments().TopUps)
}

// get shows a top-up.
//
//	@ID			getTopUp
//	@Summary	Get a top-up
//	@Tags		balance
//	@Param		id	path		string	true	"The top-up"
//	@Success	200	{object}	TopUp
//	@Failure	404	{object}	problem.Problem	"top_up_not_found"
//	@Router		/v1/top-ups/{id} [get]
func (h topUps) get(c echo.Context) error {
	return recordOf(c, payment.ErrTopUpNotFound, billing.Funder{Core: h.Billing}.Get, showing(toTopUp, withoutSecrets))
}

// confirm carries a top-up on.
//
//	@ID				confirmTopUp
//	@Summary		Carry on after the customer has acted
//	@Description	Asks the provider how the payment stands, and settles it. Repeating it is harmless. One that was refused is told as such: its status is failed, with the failure.
//	@Tags			balance
//	@Param			id	path		string	true	"The top-up"
//	@Success		200	{object}	TopUp
//	@Failure		404	{object}	problem.Problem	"top_up_not_found"
//	@Router			/v1/top-ups/{id}/confirm [post]
func (h topUps) confirm(c echo.Context) error {
	return recordOf(c, payment.ErrTopUpNotFound, billing.Funder{Core: h.Billing}.Confirm, showing(toTopUp, withSecrets))
}

// AutoTopUp is the rule: when what is available falls below the threshold, the default card is charged
// what is missing to the target.
type AutoTopUp struct {
	Enabled        bool       `json:"enabled" validate:"required"`
	Threshold      *Money     `json:"threshold" validate:"required" extensions:"x-nullable"`
	Target         *Money     `json:"target" validate:"required" extensions:"x-nullable"`
	MonthlyCeiling *Money     `json:"monthly_ceiling" validate:"required" extensions:"x-nullable"`                            // of all automatic top-ups in a calendar month, UTC; null: none. What it holds back is charged when the month turns
	Paused         bool       `json:"paused" validate:"required"`                                                             // a decline, a dispute or a refund stopped it; saving the rule or adding a card starts it again
	PausedReason   *string    `json:"paused_reason" validate:"required" extensions:"x-nullable" example:"insufficient_funds"` // the decline, as in failure, or disputed, or refunded
	PausedAt       *time.Time `json:"paused_at" validate:"required" extensions:"x-nullable" format:"date-time"`
	UpdatedAt      *time.Time `json:"updated_at" validate:"required" extensions:"x-nullable" format:"date-time"`
} //@name AutoTopUp

func toAutoTopUp(r wallet.AutoTopUp) AutoTopUp {
	out := AutoTopUp{
		Enabled: r.Enabled, MonthlyCeiling: toMoneyIf(r.MonthlyCeiling), Paused: r.Tripped, PausedReason: textIf(r.TrippedReason),
		PausedAt: timeIf(r.TrippedAt), UpdatedAt: timeIf(r.UpdatedAt),
	}
	if r.Version > 0 {
		out.Threshold, out.Target = toMoneyIf(&r.Threshold), toMoneyIf(&r.Target)
	}
	return out
}

func (h topUps) storedRule(c echo.Context) (wallet.AutoTopUp, error) {
	r, err := h.Billing.DB.Wallet().AutoTopUp(c.Request().Context(), middleware.Account(c))
	if errors.Is(err, wallet.ErrNoAutoTopUp) {
		return wallet.AutoTopUp{}, nil
	}
	return r, err
}

// rule shows the automatic top-up.
//
//	@ID				getAutoTopUp
//	@Summary		Get the automatic top-up
//	@Description	An account that has set none yet has one that is not enabled, whose tag is "v0".
//	@Tags			balance
//	@Success		200	{object}	AutoTopUp
//	@Router			/v1/auto-top-up [get]
func (h topUps) rule(c echo.Context) error {
	r, err := h.storedRule(c)
	if err != nil {
		return err
	}
	return middleware.JSON(c, r.Version, toAutoTopUp(r))
}

// AutoTopUpInput is the rule to be kept.
type AutoTopUpInput struct {
	Enabled        bool   `json:"enabled" validate:"required"`
	Threshold      Money  `json:"threshold" validate:"required"`
	Target         Money  `json:"target" validate:"required"` // more than the threshold
	MonthlyCeiling *Money `json:"monthly_ceiling" extensions:"x-nullable"`
} //@name AutoTopUpInput

func (in AutoTopUpInput) rule() (wallet.AutoTopUp, error) {
	var checks validate.Checks
	amount := func(pointer string, m Money) money.Amount {
		a := m.amount()
		checks.Positive(pointer, a)
		if a.Currency != money.Currency(in.Target.Currency) {
			checks.Fail(pointer+"/currency", "currency_mismatch", "must be the target's currency")
		}
		return a
	}
	r := wallet.AutoTopUp{Enabled: in.Enabled, Target: amount("#/target", in.Target), Threshold: in.Threshold.amount()}
	switch {
	case !checks.Amount("#/threshold", r.Threshold) || in.Target == Money{}:
	case in.Threshold.Currency != in.Target.Currency:
		checks.Fail("#/threshold/currency", "currency_mismatch", "must be the target's currency")
	case in.Threshold.Amount < 0:
		checks.Fail("#/threshold/amount", "negative", "must not be negative")
	case in.Threshold.Amount >= in.Target.Amount:
		checks.Fail("#/target/amount", "out_of_range", "must be more than the threshold")
	}
	if in.MonthlyCeiling != nil {
		ceiling := amount("#/monthly_ceiling", *in.MonthlyCeiling)
		r.MonthlyCeiling = &ceiling
	}
	return r, checks.Err()
}

// setRule sets the automatic top-up.
//
//	@ID				setAutoTopUp
//	@Summary		Set the automatic top-up
//	@Description	Saving it starts it again where a decline has paused it.
//	@Tags			balance
//	@Param			rule	body		AutoTopUpInput	true	"The rule"
//	@Success		200		{object}	AutoTopUp
//	@Failure		403		{object}	problem.Problem	"ceiling_exceeded, insufficient_scope"
//	@Failure		409		{object}	problem.Problem	"upgrade_required, account_closed"
//	@Failure		422		{object}	problem.Problem	"invalid_request, currency_mismatch"
//	@Router			/v1/auto-top-up [put]
func (h topUps) setRule(c echo.Context) error {
	var in AutoTopUpInput
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	r, err := in.rule()
	if err != nil {
		return err
	}
	r.Version, err = expected(c, func() (int64, error) {
		held, err := h.storedRule(c)
		return held.Version, err
	})
	if err != nil {
		return err
	}
	if r, err = (billing.Funder{Core: h.Billing}).SetAutoTopUp(c.Request().Context(), asked(c), r); err != nil {
		return err
	}
	return middleware.JSON(c, r.Version, toAutoTopUp(r))
}
