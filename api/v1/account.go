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
	"github.com/accrue-billing/accrue/internal/subscription"
)

func accountRoutes(d Deps) []route.Route {
	h := accounts{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/account", Scope: auth.BillingRead, Tagged: true, Handler: h.get},
		{Method: http.MethodPatch, Path: "/v1/account", Scope: auth.BillingWrite, Class: route.Money, IfMatch: true, Handler: h.patch},
		{Method: http.MethodPost, Path: "/v1/account/close", Scope: auth.BillingWrite, Class: route.Money, Idempotent: true, Handler: h.close},
		{Method: http.MethodGet, Path: "/v1/billing-profile", Scope: auth.BillingRead, Tagged: true, Handler: h.profile},
		{Method: http.MethodPut, Path: "/v1/billing-profile", Scope: auth.BillingWrite, Class: route.Money, IfMatch: true, Handler: h.setProfile},
	}
}

// Account is whom the API is about: the customer of the operator.
type Account struct {
	ID            string    `json:"id" validate:"required" example:"acct_01jqxyzabcdefghjkmnpqrstvw"`
	ExternalID    string    `json:"external_id" validate:"required" example:"customer-17"` // the operator's own name for it
	Name          string    `json:"name" validate:"required"`
	Level         *string   `json:"level" validate:"required" extensions:"x-nullable" example:"developer"` // the plan's code; null once closed
	Status        string    `json:"status" validate:"required" enums:"active,suspended,closed"`
	Currency      string    `json:"currency" validate:"required" example:"USD"`
	TimeZone      string    `json:"time_zone" validate:"required" example:"Europe/Berlin"` // a change takes effect with the next period
	CurrentPeriod *Period   `json:"current_period" validate:"required" extensions:"x-nullable"`
	NextLevel     *string   `json:"next_level" validate:"required" extensions:"x-nullable"` // what the level becomes when the period ends, where a change is planned
	CreatedAt     time.Time `json:"created_at" validate:"required" format:"date-time"`
	UpdatedAt     time.Time `json:"updated_at" validate:"required" format:"date-time"`
} //@name Account

func toAccount(a account.Account, sub subscription.Subscription) Account {
	out := Account{
		ID: a.ID.String(), ExternalID: a.ExternalID, Name: a.Name, Status: string(a.Status), Currency: string(a.Currency),
		TimeZone: a.TimeZone, CreatedAt: a.CreatedAt.UTC(), UpdatedAt: a.UpdatedAt.UTC(),
	}
	if !sub.ID.IsZero() {
		out.Level, out.NextLevel = textIf(sub.Plan), textIf(sub.NextPlan)
		out.CurrentPeriod = &Period{From: sub.Period.Start.UTC(), To: sub.Period.End.UTC()}
	}
	return out
}

type accounts struct{ Deps }

// get shows the account.
//
//	@ID				getAccount
//	@Summary		Get the account
//	@Description	Its level, status, currency, time zone and current period.
//	@Tags			account
//	@Success		200	{object}	Account
//	@Router			/v1/account [get]
func (h accounts) get(c echo.Context) error {
	v, err := billing.Keeper{Core: h.Billing}.View(c.Request().Context(), middleware.Account(c))
	if err != nil {
		return err
	}
	return middleware.JSON(c, v.Version(), toAccount(v.Account, v.Subscription))
}

// AccountChange changes an account. What is left out stays as it is.
type AccountChange struct {
	Name     *string `json:"name" maxLength:"200"`
	TimeZone *string `json:"time_zone" example:"Europe/Berlin"` // an IANA name
} //@name AccountChange

// patch changes the account.
//
//	@ID			updateAccount
//	@Summary	Change the account's name or time zone
//	@Tags		account
//	@Param		change	body		AccountChange	true	"What to change"
//	@Success	200		{object}	Account
//	@Failure	409		{object}	problem.Problem	"account_closed"
//	@Failure	422		{object}	problem.Problem	"invalid_request"
//	@Router		/v1/account [patch]
func (h accounts) patch(c echo.Context) error { return h.change(c, middleware.Account(c)) }

func (h accounts) change(c echo.Context, a account.ID) error {
	var in AccountChange
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	var checks validate.Checks
	if in.Name != nil {
		checks.Line("#/name", *in.Name, validate.MaxName)
	}
	if err := checks.Err(); err != nil {
		return err
	}
	ctx := c.Request().Context()
	keeper := billing.Keeper{Core: h.Billing}
	version, err := expected(c, func() (int64, error) {
		v, err := keeper.View(ctx, a)
		return v.Version(), err
	})
	if err != nil {
		return err
	}
	by := asked(c)
	by.Account = a
	v, err := keeper.Change(ctx, by, billing.AccountChange{Version: version, Name: in.Name, TimeZone: in.TimeZone})
	if err != nil {
		return err
	}
	return middleware.JSON(c, v.Version(), toAccount(v.Account, v.Subscription))
}

// AccountClosing closes an account.
type AccountClosing struct {
	Reason string `json:"reason" maxLength:"4000"`
} //@name AccountClosing

// close closes the account.
//
//	@ID				closeAccount
//	@Summary		Close the account for ever
//	@Description	Nothing may be owed. The running period is billed at once, remaining funds go back to the cards that paid them in, and usage is refused from then on.
//	@Tags			account
//	@Param			closing	body		AccountClosing	true	"Why, if you like"
//	@Success		200		{object}	Account
//	@Failure		409		{object}	problem.Problem	"outstanding_balance, payment_pending, under_contract, account_closed, funds_not_refundable"
//	@Router			/v1/account/close [post]
func (h accounts) close(c echo.Context) error {
	var in AccountClosing
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	var checks validate.Checks
	checks.Text("#/reason", in.Reason, validate.MaxText)
	if err := checks.Err(); err != nil {
		return err
	}
	show := func(a account.Account, _ secrets) shown {
		return shown{status: http.StatusOK, body: toAccount(a, subscription.Subscription{})}
	}
	return once(c, h.Deps, show, func(asked billing.Asked, keep billing.Renderer[account.Account]) (billing.Result[account.Account], error) {
		return billing.Ender{Core: h.Billing}.End(c.Request().Context(), asked, in.Reason, keep)
	})
}

// BillingProfile is whom invoices are made out to.
type BillingProfile struct {
	Name      *string    `json:"name" validate:"required" extensions:"x-nullable" example:"Ada Lovelace"`
	Email     *string    `json:"email" validate:"required" extensions:"x-nullable" example:"ada@example.com"`
	Address   *Address   `json:"address" validate:"required" extensions:"x-nullable"`
	TaxID     *string    `json:"tax_id" validate:"required" extensions:"x-nullable" example:"DE123456789"`
	UpdatedAt *time.Time `json:"updated_at" validate:"required" extensions:"x-nullable" format:"date-time"`
} //@name BillingProfile

// BillingProfileInput is what a card form or the profile page sends.
type BillingProfileInput struct {
	Name    string  `json:"name" validate:"required" maxLength:"200" example:"Ada Lovelace"`
	Email   string  `json:"email" validate:"required" format:"email" maxLength:"254" example:"ada@example.com"`
	Address Address `json:"address" validate:"required"`
	TaxID   string  `json:"tax_id" maxLength:"200" example:"DE123456789"`
} //@name BillingProfileInput

func (p BillingProfileInput) check(checks *validate.Checks, pointer string) {
	checks.RequiredLine(pointer+"/name", p.Name, validate.MaxName)
	checks.Email(pointer+"/email", p.Email)
	p.Address.check(checks, pointer+"/address")
	checks.Line(pointer+"/tax_id", p.TaxID, validate.MaxLine)
}

func (a Address) check(checks *validate.Checks, pointer string) {
	checks.RequiredLine(pointer+"/line1", a.Line1, validate.MaxLine)
	checks.Line(pointer+"/line2", a.Line2, validate.MaxLine)
	checks.RequiredLine(pointer+"/city", a.City, validate.MaxLine)
	checks.Line(pointer+"/state", a.State, validate.MaxLine)
	checks.Line(pointer+"/postal_code", a.PostalCode, validate.MaxLine)
	checks.Country(pointer+"/country", a.Country)
}

func (p BillingProfileInput) profile() account.Profile {
	return account.Profile{Name: p.Name, Email: p.Email, Address: account.Address(p.Address), TaxID: p.TaxID}
}

func toProfile(p account.Profile) BillingProfile {
	out := BillingProfile{Name: textIf(p.Name), Email: textIf(p.Email), TaxID: textIf(p.TaxID), UpdatedAt: timeIf(p.UpdatedAt)}
	if p.Address != (account.Address{}) {
		a := Address(p.Address)
		out.Address = &a
	}
	return out
}

// storedProfile returns the profile, the empty one of version 0 where there is none yet.
func (h accounts) storedProfile(c echo.Context) (account.Profile, error) {
	p, err := h.Billing.DB.Accounts().Profile(c.Request().Context(), middleware.Account(c))
	if errors.Is(err, account.ErrNoProfile) {
		return account.Profile{}, nil
	}
	return p, err
}

// profile shows the billing profile.
//
//	@ID				getBillingProfile
//	@Summary		Get the billing profile
//	@Description	Whom invoices are made out to. An account that has given none yet has an empty one, whose tag is "v0".
//	@Tags			account
//	@Success		200	{object}	BillingProfile
//	@Router			/v1/billing-profile [get]
func (h accounts) profile(c echo.Context) error {
	p, err := h.storedProfile(c)
	if err != nil {
		return err
	}
	return middleware.JSON(c, p.Version, toProfile(p))
}

// setProfile replaces the billing profile.
//
//	@ID				setBillingProfile
//	@Summary		Replace the billing profile
//	@Description	Invoices that are final keep the profile that they were made with.
//	@Tags			account
//	@Param			profile	body		BillingProfileInput	true	"The whole profile"
//	@Success		200		{object}	BillingProfile
//	@Failure		409		{object}	problem.Problem	"account_closed"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/billing-profile [put]
func (h accounts) setProfile(c echo.Context) error {
	var in BillingProfileInput
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	var checks validate.Checks
	in.check(&checks, "#")
	if err := checks.Err(); err != nil {
		return err
	}
	p := in.profile()
	var err error
	p.Version, err = expected(c, func() (int64, error) {
		held, err := h.storedProfile(c)
		return held.Version, err
	})
	if err != nil {
		return err
	}
	if p, err = (billing.Keeper{Core: h.Billing}).SetProfile(c.Request().Context(), asked(c), p); err != nil {
		return err
	}
	return middleware.JSON(c, p.Version, toProfile(p))
}
