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
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/upgrade"
)

func upgradeRoutes(d Deps) []route.Route {
	h := upgrades{d}
	write := func(path string, handler echo.HandlerFunc) route.Route {
		return route.Route{Method: http.MethodPost, Path: "/v1/upgrades" + path, Scope: auth.PaymentsWrite, Class: route.Money, Timeout: providerTimeout, Handler: handler}
	}
	create := write("", h.create)
	create.Idempotent = true
	return []route.Route{
		{Method: http.MethodPost, Path: "/v1/upgrades/preview", Scope: auth.BillingRead, Handler: h.preview},
		create,
		{Method: http.MethodGet, Path: "/v1/upgrades", Scope: auth.BillingRead, Query: paged(), Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/upgrades/{id}", Scope: auth.BillingRead, Handler: h.get},
		write("/{id}/confirm", h.confirm).WithoutBody(),
		write("/{id}/cancel", h.cancel).WithoutBody(),
	}
}

// Upgrade moves the account to a better plan. It can be resumed from anywhere until it is settled.
type Upgrade struct {
	ID            string      `json:"id" validate:"required" example:"upg_01jqxyzabcdefghjkmnpqrstvw"`
	Plan          string      `json:"plan" validate:"required" example:"pro"`
	PlanVersion   int         `json:"plan_version" validate:"required" example:"1"`
	Status        string      `json:"status" validate:"required" enums:"processing,requires_action,succeeded,failed,canceled"`
	PaymentMethod *string     `json:"payment_method" validate:"required" extensions:"x-nullable"` // the card on file, or the one that is being validated
	NextAction    *NextAction `json:"next_action" validate:"required" extensions:"x-nullable"`    // what the customer must do, while the status is requires_action
	Failure       *Failure    `json:"failure" validate:"required" extensions:"x-nullable"`
	CreatedAt     time.Time   `json:"created_at" validate:"required" format:"date-time"`
	UpdatedAt     time.Time   `json:"updated_at" validate:"required" format:"date-time"`
	ExpiresAt     time.Time   `json:"expires_at" validate:"required" format:"date-time"` // when a pending one is canceled by itself
} //@name Upgrade

func toUpgrade(u upgrade.Upgrade, s secrets) Upgrade {
	return Upgrade{
		ID: u.ID.String(), Plan: string(u.Plan), PlanVersion: u.Version, Status: string(u.Status), PaymentMethod: textIf(u.Method.String()),
		NextAction: toNextAction(u.NextAction, s), Failure: toFailure(u.Failure),
		CreatedAt: u.CreatedAt.UTC(), UpdatedAt: u.UpdatedAt.UTC(), ExpiresAt: u.ExpiresAt.UTC(),
	}
}

func showUpgrade(u upgrade.Upgrade, s secrets) shown {
	switch {
	case u.Status == payment.Failed:
		return shown{problem: declined(u.Failure, "upgrade", u.ID.String())}
	case u.Status.Pending():
		return shown{status: http.StatusAccepted, body: toUpgrade(u, s)}
	default:
		return shown{status: http.StatusCreated, body: toUpgrade(u, s)}
	}
}

// NewUpgrade is what "Upgrade Now" sends.
type NewUpgrade struct {
	Plan          string               `json:"plan" validate:"required" maxLength:"64" example:"pro"`
	PaymentMethod *PaymentSource       `json:"payment_method"`  // left out: the default card
	Profile       *BillingProfileInput `json:"billing_profile"` // required with a new card, unless the account has a billing profile already
} //@name NewUpgrade

// PaymentSource names a card: one on file, or what the provider's form made. Exactly one member is given.
type PaymentSource struct {
	ID    string `json:"id" maxLength:"64" example:"pm_01jqxyzabcdefghjkmnpqrstvw"`       // of a card on file
	Setup string `json:"setup" maxLength:"255" example:"seti_01jqxyzabcdefghjkmnpqrstvw"` // of POST /v1/payment-methods/setup, once the provider's form is done
	Token string `json:"token" maxLength:"255"`                                           // that the provider's form made
} //@name PaymentSource

// method reads the source: a card on file or a new one.
func (s *PaymentSource) method(checks *validate.Checks) (mid payment.MethodID, card billing.CardSource) {
	const pointer = "#/payment_method"
	switch {
	case s == nil:
	case s.ID != "" && (s.Setup != "" || s.Token != ""):
		checks.Fail(pointer+"/id", "not_allowed", "must not be given beside setup or token")
	case s.ID != "":
		var err error
		if mid, err = id.Parse[payment.Method](s.ID); err != nil {
			checks.Fail(pointer+"/id", "invalid_identifier", "is no identifier of a payment method")
		}
	default:
		checkSource(checks, pointer, s.Setup, s.Token)
		card = billing.CardSource{Setup: s.Setup, Token: s.Token}
	}
	return mid, card
}

type upgrades struct{ Deps }

// input reads and checks what an upgrade is asked for with.
func (h upgrades) input(c echo.Context) (in billing.UpgradeInput, err error) {
	var body NewUpgrade
	if err := strictjson.Decode(c, &body); err != nil {
		return in, err
	}
	var checks validate.Checks
	checks.RequiredLine("#/plan", body.Plan, 64)
	in.Plan = plan.Code(body.Plan)
	in.Method, in.Source = body.PaymentMethod.method(&checks)
	switch {
	case body.Profile != nil:
		body.Profile.check(&checks, "#/billing_profile")
		p := body.Profile.profile()
		in.Profile = &p
	case in.Source != billing.CardSource{}:
		held, err := h.Billing.DB.Accounts().Profile(c.Request().Context(), middleware.Account(c))
		if errors.Is(err, account.ErrNoProfile) {
			checks.Fail("#/billing_profile", "required", "is required with a new card")
		} else if err != nil {
			return in, err
		}
		in.Profile = &held
	}
	return in, checks.Err()
}

// UpgradePreview says what an upgrade would change, and what stands in its way.
type UpgradePreview struct {
	Plan           string          `json:"plan" validate:"required" example:"pro"`
	PlanVersion    int             `json:"plan_version" validate:"required"`
	Allowed        bool            `json:"allowed" validate:"required"`
	Blockers       []ActionBlocker `json:"blockers" validate:"required"`                               // why it would be refused; empty where it is allowed
	DueNow         Money           `json:"due_now" validate:"required"`                                // taken at once: nothing, unless the plan has a fee
	EffectiveAt    time.Time       `json:"effective_at" validate:"required" format:"date-time"`        // now: an upgrade takes effect at once
	CurrentPeriod  Period          `json:"current_period" validate:"required"`                         // goes on: what was used counts toward its one allowance
	AccruedBefore  Money           `json:"accrued_before" validate:"required"`                         // what the period's usage comes to now, tax not included
	AccruedAfter   Money           `json:"accrued_after" validate:"required"`                          // what the same usage would come to on the plan
	PaymentMethod  *Card           `json:"payment_method" validate:"required" extensions:"x-nullable"` // the default card, if there is one
	CardIsRequired bool            `json:"requires_card" validate:"required"`
	PlanFit        PlanFit         `json:"plan_fit" validate:"required"` // the account's last months under every plan, and where one becomes better than another
} //@name UpgradePreview

// UpgradeQuestion asks what an upgrade would do.
type UpgradeQuestion struct {
	Plan string `json:"plan" validate:"required" maxLength:"64" example:"pro"`
} //@name UpgradeQuestion

// preview says what an upgrade would do.
//
//	@ID				previewUpgrade
//	@Summary		What an upgrade would change
//	@Description	Changes nothing. What POST /v1/upgrades would refuse stands in blockers.
//	@Tags			upgrades
//	@Param			question	body		UpgradeQuestion	true	"The plan"
//	@Success		200			{object}	UpgradePreview
//	@Failure		404			{object}	problem.Problem	"plan_not_found"
//	@Failure		409			{object}	problem.Problem	"contact_sales, not_an_upgrade, interval_mismatch, plan_not_sold (with plans), under_contract, account_closed"
//	@Router			/v1/upgrades/preview [post]
func (h upgrades) preview(c echo.Context) error {
	var in UpgradeQuestion
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	var checks validate.Checks
	checks.RequiredLine("#/plan", in.Plan, 64)
	if err := checks.Err(); err != nil {
		return err
	}
	p, err := billing.Upgrader{Core: h.Billing}.Preview(c.Request().Context(), middleware.Account(c), plan.Code(in.Plan))
	if err != nil {
		return err
	}
	out := UpgradePreview{
		Plan: string(p.Version.Plan), PlanVersion: p.Version.Number, Allowed: len(p.Blockers) == 0, Blockers: convert(p.Blockers, toBlocker),
		DueNow: toMoney(p.DueNow), EffectiveAt: p.At.UTC(), CurrentPeriod: Period{From: p.Period.Start.UTC(), To: p.Period.End.UTC()},
		AccruedBefore: toMoney(p.Before), AccruedAfter: toMoney(p.After), CardIsRequired: p.RequiresCard,
		PlanFit: toPlanFit(p.Fit),
	}
	if p.Method != nil {
		out.PaymentMethod = h.toCard(p.Method.Card)
	}
	return c.JSON(http.StatusOK, out)
}

// create upgrades the account.
//
//	@ID				createUpgrade
//	@Summary		Upgrade now
//	@Description	Plan, card and billing profile in one operation. The plan changes when the provider has said that the card is good, and not before. 202 means that the customer must act (see next_action) or that the provider has not answered yet: POST /v1/upgrades/{id}/confirm carries on, from any device. One upgrade may be pending: another one gets 409, which names it.
//	@Tags			upgrades
//	@Param			upgrade	body		NewUpgrade	true	"The plan and the card"
//	@Success		201		{object}	Upgrade		"The account is on the plan"
//	@Success		202		{object}	Upgrade		"Not yet: processing or requires_action"
//	@Failure		402		{object}	problem.Problem	"card_declined, with upgrade, decline_code, decline_class and retry"
//	@Failure		404		{object}	problem.Problem	"plan_not_found, payment_method_not_found, setup_not_found"
//	@Failure		409		{object}	problem.Problem	"upgrade_pending (with upgrade), not_an_upgrade, interval_mismatch, plan_not_sold (with plans), under_contract, contact_sales, account_closed"
//	@Failure		422		{object}	problem.Problem	"invalid_request, payment_method_required, payment_token_not_usable"
//	@Router			/v1/upgrades [post]
func (h upgrades) create(c echo.Context) error {
	in, err := h.input(c)
	if err != nil {
		return err
	}
	return once(c, h.Deps, showUpgrade, func(asked billing.Asked, keep billing.Renderer[upgrade.Upgrade]) (billing.Result[upgrade.Upgrade], error) {
		return billing.Upgrader{Core: h.Billing}.Upgrade(c.Request().Context(), asked, in, keep)
	})
}

// list lists the upgrades.
//
//	@ID			listUpgrades
//	@Summary	List upgrades, the newest first
//	@Tags		upgrades
//	@Param		limit	query		int		false	"How many at most"	minimum(1)	maximum(100)	default(20)
//	@Param		cursor	query		string	false	"next_cursor of the page before"
//	@Success	200		{object}	Page[Upgrade]
//	@Router		/v1/upgrades [get]
func (h upgrades) list(c echo.Context) error {
	return listOf(c, h.Lists, showing(toUpgrade, withoutSecrets), h.Billing.DB.Upgrades().List)
}

// get shows an upgrade.
//
//	@ID			getUpgrade
//	@Summary	Get an upgrade
//	@Tags		upgrades
//	@Param		id	path		string	true	"The upgrade"
//	@Success	200	{object}	Upgrade
//	@Failure	404	{object}	problem.Problem	"upgrade_not_found"
//	@Router		/v1/upgrades/{id} [get]
func (h upgrades) get(c echo.Context) error {
	return recordOf(c, upgrade.ErrNotFound, h.Billing.DB.Upgrades().Get, showing(toUpgrade, withoutSecrets))
}

// confirm carries an upgrade on.
//
//	@ID				confirmUpgrade
//	@Summary		Carry on after the customer has acted
//	@Description	Asks the provider how the card stands, and settles the upgrade. Repeating it is harmless. One that the provider refused is told as such: its status is failed, with the failure.
//	@Tags			upgrades
//	@Param			id	path		string	true	"The upgrade"
//	@Success		200	{object}	Upgrade
//	@Failure		404	{object}	problem.Problem	"upgrade_not_found"
//	@Router			/v1/upgrades/{id}/confirm [post]
func (h upgrades) confirm(c echo.Context) error {
	return recordOf(c, upgrade.ErrNotFound, billing.Upgrader{Core: h.Billing}.Confirm, showing(toUpgrade, withSecrets))
}

// cancel gives an upgrade up.
//
//	@ID				cancelUpgrade
//	@Summary		Give a pending upgrade up
//	@Description	Its card, if it turns out to be good after all, stays on file.
//	@Tags			upgrades
//	@Param			id	path		string	true	"The upgrade"
//	@Success		200	{object}	Upgrade
//	@Failure		404	{object}	problem.Problem	"upgrade_not_found"
//	@Failure		409	{object}	problem.Problem	"upgrade_settled"
//	@Router			/v1/upgrades/{id}/cancel [post]
func (h upgrades) cancel(c echo.Context) error {
	return recordOf(c, upgrade.ErrNotFound, billing.Upgrader{Core: h.Billing}.Cancel, showing(toUpgrade, withoutSecrets))
}
