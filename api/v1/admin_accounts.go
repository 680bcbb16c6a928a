package v1

import (
	"errors"
	"net/http"
	"net/url"
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
	"github.com/accrue-billing/accrue/pkg/money"
)

func adminAccountRoutes(d Deps) []route.Route {
	h := adminAccounts{d}
	return []route.Route{
		{
			Method: http.MethodPost, Path: "/v1/admin/accounts", Scope: auth.Operator, Account: route.AccountNone, Class: route.Money,
			Idempotent: true, Handler: h.create,
		},
		{Method: http.MethodGet, Path: "/v1/admin/accounts", Scope: auth.Operator, Account: route.AccountNone, Query: paged("status", "level", "external_id", "q"), Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/admin/accounts/{id}", Scope: auth.Operator, Account: route.AccountNone, Tagged: true, Handler: h.get},
		{Method: http.MethodPatch, Path: "/v1/admin/accounts/{id}", Scope: auth.Operator, Account: route.AccountNone, Class: route.Money, IfMatch: true, Handler: h.patch},
	}
}

// AdminAccount is an account as the operator sees it in a list.
type AdminAccount struct {
	Account
	TestClock *time.Time `json:"test_clock" validate:"required" extensions:"x-nullable" format:"date-time"` // where it stands; null in real time
	Funds     Money      `json:"funds" validate:"required"`                                                 // paid in ahead and not yet spent
	Due       Money      `json:"due" validate:"required"`                                                   // on final invoices and not yet paid
} //@name AdminAccount

func toAdminAccount(s billing.AccountStanding) AdminAccount {
	return AdminAccount{
		Account: toAccount(s.Account, s.Subscription), TestClock: timeIf(s.ClockAt), Funds: toMoney(s.Funds), Due: toMoney(s.Due),
	}
}

// AdminAccountDetail is an account with its money and its card at a glance. Everything else of it is
// read with its own operations, by an operator who names it in Accrue-Account.
type AdminAccountDetail struct {
	Account
	TestClock      *time.Time     `json:"test_clock" validate:"required" extensions:"x-nullable" format:"date-time"` // where it stands; null in real time
	BillingProfile BillingProfile `json:"billing_profile" validate:"required"`
	Balance        Balance        `json:"balance" validate:"required"`
	PaymentMethod  *PaymentMethod `json:"payment_method" validate:"required" extensions:"x-nullable"` // the card that is charged
	OpenInvoices   int            `json:"open_invoices" validate:"required"`                          // final and not yet paid
} //@name AdminAccountDetail

type adminAccounts struct{ Deps }

// named is the account that the address names: by our id, or by the operator's own name for it.
func (h adminAccounts) named(c echo.Context) (account.ID, error) {
	ref := c.Param("id")
	if a, err := id.Parse[account.Account](ref); err == nil {
		return a, nil
	}
	if c.Request().URL.RawPath != "" { // the router then leaves its escapes to us
		ref, _ = url.PathUnescape(ref)
	}
	var checks validate.Checks
	if checks.Identifier("#", ref); checks.Err() != nil { // it is nobody's, and need not be storable
		return account.ID{}, account.ErrNotFound
	}
	a, err := h.Billing.DB.Accounts().ByExternalID(c.Request().Context(), ref)
	return a.ID, err
}

// NewAccount is an account to be opened.
type NewAccount struct {
	ExternalID     string               `json:"external_id" maxLength:"255" example:"customer-17"` // your own name for it, which its users' tokens carry; left out: its id
	Name           string               `json:"name" maxLength:"200" example:"Lumen Labs"`
	Currency       string               `json:"currency" minLength:"3" maxLength:"3" default:"USD" example:"EUR"` // never changes after the first booking
	TimeZone       string               `json:"time_zone" default:"UTC" example:"Europe/Berlin"`                  // an IANA name; its periods begin at midnight there
	BillingProfile *BillingProfileInput `json:"billing_profile,omitempty"`
	TestClock      *time.Time           `json:"test_clock,omitempty" format:"date-time"` // in test mode: the account lives from this moment on, and time goes on when it is told to
} //@name NewAccount

// create opens an account.
//
//	@ID				createAccount
//	@Summary		Open an account
//	@Description	On the Developer plan. An account also opens by itself with the first valid token of a new external id, where the service is configured so.
//	@Tags			admin
//	@Param			account	body		NewAccount	true	"The account"
//	@Success		201		{object}	Account
//	@Failure		409		{object}	problem.Problem	"external_id_taken, test_mode_only"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/accounts [post]
func (h adminAccounts) create(c echo.Context) error {
	var body NewAccount
	if err := strictjson.Decode(c, &body); err != nil {
		return err
	}
	in, err := h.newAccount(body)
	if err != nil {
		return err
	}
	show := func(v billing.AccountView, _ secrets) shown {
		return shown{status: http.StatusCreated, body: toAccount(v.Account, v.Subscription)}
	}
	return once(c, h.Deps, show, func(asked billing.Asked, keep billing.Renderer[billing.AccountView]) (billing.Result[billing.AccountView], error) {
		return billing.Opener{Core: h.Billing}.OpenOnce(c.Request().Context(), asked, in, keep)
	})
}

func (h adminAccounts) newAccount(body NewAccount) (in billing.NewAccount, err error) {
	var checks validate.Checks
	if body.ExternalID != "" {
		checks.Identifier("#/external_id", body.ExternalID)
	}
	checks.Line("#/name", body.Name, validate.MaxName)
	if body.Currency != "" {
		checks.Currency("#/currency", body.Currency)
	}
	in = billing.NewAccount{
		ExternalID: body.ExternalID, Name: body.Name, Currency: money.Currency(body.Currency), TimeZone: body.TimeZone,
	}
	if body.BillingProfile != nil {
		body.BillingProfile.check(&checks, "#/billing_profile")
		p := body.BillingProfile.profile()
		in.Profile = &p
	}
	if body.TestClock != nil {
		if h.Mode != auth.Test {
			return in, ErrTestModeOnly
		}
		in.ClockAt = checkMoment(&checks, "#/test_clock", *body.TestClock)
	}
	return in, checks.Err()
}

// list pages through the accounts.
//
//	@ID			listAccounts
//	@Summary	List accounts, the newest first
//	@Tags		admin
//	@Param		status		query		string	false	"Only those of this status"	Enums(active, suspended, closed)
//	@Param		level		query		string	false	"Only those on the plan of this code"
//	@Param		external_id	query		string	false	"Only the one that you call so"
//	@Param		q			query		string	false	"Only those whose name or external id contains this, in any case"
//	@Param		limit		query		int		false	"At most so many"	default(20)	minimum(1)	maximum(100)
//	@Param		cursor		query		string	false	"next_cursor of the page before"
//	@Success	200			{object}	Page[AdminAccount]
//	@Failure	422			{object}	problem.Problem	"invalid_request"
//	@Router		/v1/admin/accounts [get]
func (h adminAccounts) list(c echo.Context) error {
	r, q, err := h.Lists.request(c)
	if err != nil {
		return err
	}
	var checks validate.Checks
	if s := q.Get("status"); s != "" {
		checks.OneOf("#/status", s, string(account.Active), string(account.Suspended), string(account.Closed))
	}
	checks.Line("#/level", q.Get("level"), validate.MaxName)
	checks.Line("#/external_id", q.Get("external_id"), validate.MaxLine)
	checks.Line("#/q", q.Get("q"), validate.MaxLine)
	if err := checks.Err(); err != nil {
		return err
	}
	p, err := billing.Keeper{Core: h.Billing}.List(c.Request().Context(), account.Filter{
		Status: account.Status(q.Get("status")), Level: q.Get("level"), ExternalID: q.Get("external_id"), Text: q.Get("q"),
	}, r)
	if err != nil {
		return err
	}
	return list(c, h.Lists, p, toAdminAccount)
}

// get shows an account.
//
//	@ID			getAccountDetail
//	@Summary	Get an account with its money and its card at a glance
//	@Tags		admin
//	@Param		id	path		string	true	"The account: our id, or the external_id"
//	@Success	200	{object}	AdminAccountDetail
//	@Failure	404	{object}	problem.Problem	"account_not_found"
//	@Router		/v1/admin/accounts/{id} [get]
func (h adminAccounts) get(c echo.Context) error {
	a, err := h.named(c)
	if err != nil {
		return err
	}
	ctx, db := c.Request().Context(), h.Billing.DB
	v, err := billing.Keeper{Core: h.Billing}.View(ctx, a)
	if err != nil {
		return err
	}
	profile, err := db.Accounts().Profile(ctx, a)
	if err != nil && !errors.Is(err, account.ErrNoProfile) {
		return err
	}
	b, err := billing.Reader{Core: h.Billing}.Balance(ctx, a)
	if err != nil {
		return err
	}
	open, err := db.Invoices().Unpaid(ctx, a)
	if err != nil {
		return err
	}
	out := AdminAccountDetail{
		Account: toAccount(v.Account, v.Subscription), TestClock: timeIf(v.ClockAt), BillingProfile: toProfile(profile), Balance: toBalance(b),
		OpenInvoices: len(open),
	}
	m, err := db.Payments().DefaultMethod(ctx, a)
	switch {
	case err == nil:
		wire := h.toMethod(m, withoutSecrets)
		out.PaymentMethod = &wire
	case !errors.Is(err, payment.ErrNoMethod):
		return err
	}
	// The tag is that of what PATCH changes, so what else is shown must not answer "not modified".
	middleware.SetETag(c, v.Version())
	return c.JSON(http.StatusOK, out)
}

// patch changes an account.
//
//	@ID			changeAccount
//	@Summary	Change an account's name or time zone
//	@Tags		admin
//	@Param		id		path		string			true	"The account: our id, or the external_id"
//	@Param		change	body		AccountChange	true	"What to change"
//	@Success	200		{object}	Account
//	@Failure	404		{object}	problem.Problem	"account_not_found"
//	@Failure	409		{object}	problem.Problem	"account_closed"
//	@Failure	422		{object}	problem.Problem	"invalid_request"
//	@Router		/v1/admin/accounts/{id} [patch]
func (h adminAccounts) patch(c echo.Context) error {
	a, err := h.named(c)
	if err != nil {
		return err
	}
	return accounts(h).change(c, a)
}
