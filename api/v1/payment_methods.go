package v1

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
)

func paymentMethodRoutes(d Deps) []route.Route {
	h := paymentMethods{d}
	write := func(method, path string, handler echo.HandlerFunc) route.Route {
		return route.Route{Method: method, Path: "/v1/payment-methods" + path, Scope: auth.PaymentsWrite, Class: route.Money, Timeout: providerTimeout, Handler: handler}
	}
	create := write(http.MethodPost, "", h.create)
	create.Idempotent = true
	patch, remove := write(http.MethodPatch, "/{id}", h.patch), write(http.MethodDelete, "/{id}", h.remove)
	patch.IfMatch, remove.IfMatch = true, true
	askRemoval := write(http.MethodPost, "/{id}/removal-requests", h.requestRemoval)
	askRemoval.Repeatable = true
	return []route.Route{
		write(http.MethodPost, "/setup", h.setup).WithoutBody(),
		create,
		{Method: http.MethodGet, Path: "/v1/payment-methods", Scope: auth.BillingRead, Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/payment-methods/{id}", Scope: auth.BillingRead, Tagged: true, Handler: h.get},
		patch,
		remove,
		write(http.MethodPost, "/{id}/default", h.use).WithoutBody(),
		write(http.MethodPost, "/{id}/confirm", h.confirm).WithoutBody(),
		askRemoval,
		{Method: http.MethodGet, Path: "/v1/removal-requests", Scope: auth.BillingRead, Query: paged(), Handler: h.removals},
	}
}

// providerTimeout is for operations that wait for the payment provider, which has its own, shorter one.
const providerTimeout = 25 * time.Second

// PaymentMethod is a card on file, or one that is being added.
type PaymentMethod struct {
	ID         string         `json:"id" validate:"required" example:"pm_01jqxyzabcdefghjkmnpqrstvw"`
	Status     string         `json:"status" validate:"required" enums:"processing,requires_action,active,failed,removed"`
	Default    bool           `json:"default" validate:"required"`                      // the one that is charged
	Card       *Card          `json:"card" validate:"required" extensions:"x-nullable"` // null until the provider has validated it
	Billing    BillingDetails `json:"billing_profile" validate:"required"`              // whom the card belongs to
	NextAction *NextAction    `json:"next_action" validate:"required" extensions:"x-nullable"`
	Failure    *Failure       `json:"failure" validate:"required" extensions:"x-nullable"`
	CreatedAt  time.Time      `json:"created_at" validate:"required" format:"date-time"`
	UpdatedAt  time.Time      `json:"updated_at" validate:"required" format:"date-time"`
} //@name PaymentMethod

// Card is what may be shown of a card. Its number never reaches this service.
type Card struct {
	Brand    string  `json:"brand" validate:"required" example:"visa"`
	LastFour string  `json:"last_four" validate:"required" example:"4242"`
	ExpMonth int     `json:"exp_month" validate:"required" example:"12"`
	ExpYear  int     `json:"exp_year" validate:"required" example:"2030"`
	Expired  bool    `json:"expired" validate:"required"`
	Country  *string `json:"country" validate:"required" extensions:"x-nullable" example:"GB"` // of the issuer
	Funding  string  `json:"funding" validate:"required" enums:"credit,debit,prepaid,unknown"`
} //@name Card

// BillingDetails are the cardholder's name, e-mail and address.
type BillingDetails struct {
	Name    *string  `json:"name" validate:"required" extensions:"x-nullable"`
	Email   *string  `json:"email" validate:"required" extensions:"x-nullable"`
	Address *Address `json:"address" validate:"required" extensions:"x-nullable"`
} //@name BillingDetails

func (d Deps) toMethod(m payment.Method, s secrets) PaymentMethod {
	out := PaymentMethod{
		ID: m.ID.String(), Status: string(m.Status), Default: m.Default, NextAction: toNextAction(m.NextAction, s), Failure: toFailure(m.Failure),
		Billing:   BillingDetails{Name: textIf(m.Billing.Name), Email: textIf(m.Billing.Email)},
		CreatedAt: m.CreatedAt.UTC(), UpdatedAt: m.UpdatedAt.UTC(),
	}
	if m.Billing.Address != (payment.Address{}) {
		a := Address(m.Billing.Address)
		out.Billing.Address = &a
	}
	if m.Card.Last4 != "" {
		out.Card = d.toCard(m.Card)
	}
	return out
}

func (d Deps) toCard(c payment.Card) *Card {
	out := Card{
		Brand: c.Brand, LastFour: c.Last4, ExpMonth: c.ExpMonth, ExpYear: c.ExpYear, Expired: c.Expired(d.Billing.Clock()),
		Country: textIf(c.Country), Funding: c.Funding,
	}
	if out.Funding == "" {
		out.Funding = "unknown"
	}
	return &out
}

type paymentMethods struct{ Deps }

// PaymentMethodSetup is what the provider's own card form needs.
type PaymentMethodSetup struct {
	ID             string     `json:"id" validate:"required" example:"seti_01jqxyzabcdefghjkmnpqrstvw"` // send it as setup to use the card
	Provider       string     `json:"provider" validate:"required" example:"stripe"`
	ClientSecret   *string    `json:"client_secret" validate:"required" extensions:"x-nullable"`    // for the provider's script in the browser; sent once, kept nowhere
	PublishableKey *string    `json:"publishable_key" validate:"required" extensions:"x-nullable"`  // for the provider's script; no secret
	URL            *string    `json:"url" validate:"required" extensions:"x-nullable" format:"uri"` // the provider's own card page, where it has one
	ExpiresAt      *time.Time `json:"expires_at" validate:"required" extensions:"x-nullable" format:"date-time"`
} //@name PaymentMethodSetup

// setup begins to add a card.
//
//	@ID				createPaymentMethodSetup
//	@Summary		Begin to add a card
//	@Description	The card itself is given to the provider's own form, never to this API: hand client_secret to the provider's script, or send the browser to url. Then send the setup's id to POST /v1/payment-methods or POST /v1/upgrades.
//	@Tags			payment methods
//	@Success		201	{object}	PaymentMethodSetup
//	@Failure		409	{object}	problem.Problem	"account_closed"
//	@Router			/v1/payment-methods/setup [post]
func (h paymentMethods) setup(c echo.Context) error {
	saved, s, err := billing.Cards{Core: h.Billing}.Setup(c.Request().Context(), middleware.Account(c))
	if err != nil {
		return err
	}
	return c.JSON(http.StatusCreated, PaymentMethodSetup{
		ID: saved.ID.String(), Provider: saved.Provider, ClientSecret: textIf(s.ClientSecret.Reveal()),
		PublishableKey: textIf(s.PublishableKey), URL: textIf(s.URL), ExpiresAt: timeIf(s.ExpiresAt),
	})
}

// NewPaymentMethod is what "Use this card" sends: the setup or the token that the provider's form
// made, and whom the card belongs to.
type NewPaymentMethod struct {
	Setup   string               `json:"setup" maxLength:"255" example:"seti_01jqxyzabcdefghjkmnpqrstvw"` // either this
	Token   string               `json:"token" maxLength:"255"`                                           // or this
	Profile *BillingProfileInput `json:"billing_profile" validate:"required"`                             // becomes the account's billing profile once the card is good
} //@name NewPaymentMethod

func (in NewPaymentMethod) check() error {
	var checks validate.Checks
	checkSource(&checks, "#", in.Setup, in.Token)
	if in.Profile == nil {
		checks.Fail("#/billing_profile", "required", "is required")
	} else {
		in.Profile.check(&checks, "#/billing_profile")
	}
	return checks.Err()
}

// checkSource checks that a card comes from exactly one source.
func checkSource(checks *validate.Checks, pointer, setup, token string) {
	switch {
	case setup == "" && token == "":
		checks.Fail(pointer+"/setup", "required", "give the setup or the token that the provider's form made")
	case setup != "" && token != "":
		checks.Fail(pointer+"/token", "not_allowed", "must not be given beside setup")
	case setup != "":
		checks.Identifier(pointer+"/setup", setup)
	default:
		checks.Identifier(pointer+"/token", token)
	}
}

func (d Deps) showMethod(m payment.Method, s secrets) shown {
	switch m.Status {
	case payment.MethodFailed:
		return shown{problem: declined(m.Failure, "payment_method", m.ID.String())}
	case payment.MethodProcessing, payment.MethodRequiresAction:
		return shown{status: http.StatusAccepted, body: d.toMethod(m, s)}
	default:
		return shown{status: http.StatusCreated, body: d.toMethod(m, s)}
	}
}

// create adds a card.
//
//	@ID				createPaymentMethod
//	@Summary		Use this card
//	@Description	The card becomes the one that is charged once, and only if, the provider has validated it. 202 means that the customer must act (see next_action) or that the provider has not answered yet; then POST /v1/payment-methods/{id}/confirm.
//	@Tags			payment methods
//	@Param			card	body		NewPaymentMethod	true	"What the provider's form made"
//	@Success		201		{object}	PaymentMethod		"The card is active"
//	@Success		202		{object}	PaymentMethod		"Not yet: processing or requires_action"
//	@Failure		402		{object}	problem.Problem		"card_declined, with payment_method, decline_code, decline_class and retry"
//	@Failure		404		{object}	problem.Problem		"setup_not_found"
//	@Failure		409		{object}	problem.Problem		"setup_used, setup_incomplete, setup_expired, account_closed"
//	@Failure		422		{object}	problem.Problem		"invalid_request, payment_token_not_usable"
//	@Router			/v1/payment-methods [post]
func (h paymentMethods) create(c echo.Context) error {
	var in NewPaymentMethod
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	return once(c, h.Deps, h.showMethod, func(asked billing.Asked, keep billing.Renderer[payment.Method]) (billing.Result[payment.Method], error) {
		return billing.Cards{Core: h.Billing}.Add(c.Request().Context(), asked, billing.NewCard{
			CardSource: billing.CardSource{Setup: in.Setup, Token: in.Token}, Profile: in.Profile.profile(),
		}, keep)
	})
}

// list lists the cards.
//
//	@ID				listPaymentMethods
//	@Summary		List the cards on file
//	@Description	The default first. Cards that were removed or refused are left out.
//	@Tags			payment methods
//	@Success		200	{object}	Page[PaymentMethod]
//	@Router			/v1/payment-methods [get]
func (h paymentMethods) list(c echo.Context) error {
	all, err := h.Billing.DB.Payments().Methods(c.Request().Context(), middleware.Account(c))
	if err != nil {
		return err
	}
	return list(c, h.Lists, page.Page[payment.Method]{Data: all}, func(m payment.Method) PaymentMethod { return h.toMethod(m, withoutSecrets) })
}

// get shows a card.
//
//	@ID			getPaymentMethod
//	@Summary	Get a card
//	@Tags		payment methods
//	@Param		id	path		string	true	"The card"
//	@Success	200	{object}	PaymentMethod
//	@Failure	404	{object}	problem.Problem	"payment_method_not_found"
//	@Router		/v1/payment-methods/{id} [get]
func (h paymentMethods) get(c echo.Context) error {
	m, err := h.find(c)
	if err != nil {
		return err
	}
	return middleware.JSON(c, m.Version, h.toMethod(m, withoutSecrets))
}

func (h paymentMethods) find(c echo.Context) (payment.Method, error) {
	id, err := param[payment.Method](c, "id", payment.ErrMethodNotFound)
	if err != nil {
		return payment.Method{}, err
	}
	return h.Billing.DB.Payments().Method(c.Request().Context(), middleware.Account(c), id)
}

// PaymentMethodChange changes a card's holder or expiry. What is left out stays as it is.
type PaymentMethodChange struct {
	Profile  *CardholderInput `json:"billing_profile"`
	ExpMonth *int             `json:"exp_month" minimum:"1" maximum:"12"` // with exp_year
	ExpYear  *int             `json:"exp_year" minimum:"2000" maximum:"2100"`
} //@name PaymentMethodChange

// CardholderInput is whom a card belongs to.
type CardholderInput struct {
	Name    string  `json:"name" validate:"required" maxLength:"200"`
	Email   string  `json:"email" validate:"required" format:"email" maxLength:"254"`
	Address Address `json:"address" validate:"required"`
} //@name CardholderInput

func (in PaymentMethodChange) check() error {
	var checks validate.Checks
	if in.Profile != nil {
		BillingProfileInput{Name: in.Profile.Name, Email: in.Profile.Email, Address: in.Profile.Address}.check(&checks, "#/billing_profile")
	}
	switch {
	case in.ExpMonth == nil && in.ExpYear == nil:
	case in.ExpMonth == nil:
		checks.Fail("#/exp_month", "required", "comes with exp_year")
	case in.ExpYear == nil:
		checks.Fail("#/exp_year", "required", "comes with exp_month")
	default:
		if *in.ExpMonth < 1 || *in.ExpMonth > 12 {
			checks.Fail("#/exp_month", "out_of_range", "must be from 1 to 12")
		}
		if *in.ExpYear < 2000 || *in.ExpYear > 2100 {
			checks.Fail("#/exp_year", "out_of_range", "must be a year of four digits")
		}
	}
	return checks.Err()
}

func (in PaymentMethodChange) change(version int64) billing.CardChange {
	out := billing.CardChange{Version: version}
	if in.ExpMonth != nil {
		out.ExpMonth, out.ExpYear = *in.ExpMonth, *in.ExpYear
	}
	if in.Profile != nil {
		out.Billing = &payment.Billing{Name: in.Profile.Name, Email: in.Profile.Email, Address: payment.Address(in.Profile.Address)}
	}
	return out
}

// patch changes a card.
//
//	@ID				updatePaymentMethod
//	@Summary		Change a card's holder, address or expiry
//	@Description	Here and at the provider. Another number is another card: add it.
//	@Tags			payment methods
//	@Param			id		path		string				true	"The card"
//	@Param			change	body		PaymentMethodChange	true	"What to change"
//	@Success		200		{object}	PaymentMethod
//	@Failure		404		{object}	problem.Problem	"payment_method_not_found"
//	@Failure		409		{object}	problem.Problem	"account_closed"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/payment-methods/{id} [patch]
func (h paymentMethods) patch(c echo.Context) error {
	var in PaymentMethodChange
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	m, err := h.find(c)
	if err != nil {
		return err
	}
	version, err := expected(c, func() (int64, error) { return m.Version, nil })
	if err != nil {
		return err
	}
	m, err = billing.Cards{Core: h.Billing}.Change(c.Request().Context(), asked(c), m.ID, in.change(version))
	if err != nil {
		return err
	}
	return middleware.JSON(c, m.Version, h.toMethod(m, withoutSecrets))
}

// remove removes a card.
//
//	@ID				deletePaymentMethod
//	@Summary		Remove a card
//	@Description	The active card cannot be removed by its customer: the problem names what stands in the way (blockers), what is owed (outstanding) and the ways out (ways_out): replace it, pay now, ask support, or have it removed once all is paid.
//	@Tags			payment methods
//	@Param			id	path	string	true	"The card"
//	@Success		204
//	@Failure		404	{object}	problem.Problem	"payment_method_not_found"
//	@Failure		409	{object}	problem.Problem	"active_payment_method, with blockers, outstanding and ways_out"
//	@Router			/v1/payment-methods/{id} [delete]
func (h paymentMethods) remove(c echo.Context) error {
	m, err := h.find(c)
	if err != nil {
		return err
	}
	version, err := expected(c, func() (int64, error) { return m.Version, nil })
	if err != nil {
		return err
	}
	if err := (billing.Cards{Core: h.Billing}).Remove(c.Request().Context(), asked(c), m.ID, version); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

// use makes a card the default.
//
//	@ID				useDefaultPaymentMethod
//	@Summary		Make a card the one that is charged
//	@Description	What an old card could not pay is tried with this one.
//	@Tags			payment methods
//	@Param			id	path		string	true	"The card"
//	@Success		200	{object}	PaymentMethod
//	@Failure		404	{object}	problem.Problem	"payment_method_not_found"
//	@Failure		409	{object}	problem.Problem	"account_closed"
//	@Router			/v1/payment-methods/{id}/default [post]
func (h paymentMethods) use(c echo.Context) error {
	id, err := param[payment.Method](c, "id", payment.ErrMethodNotFound)
	if err != nil {
		return err
	}
	res, err := billing.Cards{Core: h.Billing}.Use(c.Request().Context(), asked(c), id, nil)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, h.toMethod(res.Record, withoutSecrets))
}

// confirm asks how a card stands.
//
//	@ID				confirmPaymentMethod
//	@Summary		Carry on after the customer has acted
//	@Description	Asks the provider how the card stands, and settles it. Repeating it is harmless. A card that was refused is told as such: its status is failed, with the failure.
//	@Tags			payment methods
//	@Param			id	path		string	true	"The card"
//	@Success		200	{object}	PaymentMethod
//	@Failure		404	{object}	problem.Problem	"payment_method_not_found"
//	@Router			/v1/payment-methods/{id}/confirm [post]
func (h paymentMethods) confirm(c echo.Context) error {
	return recordOf(c, payment.ErrMethodNotFound, billing.Cards{Core: h.Billing}.Confirm, showing(h.toMethod, withSecrets))
}

// NewRemovalRequest asks for a card to be removed that its customer may not remove.
type NewRemovalRequest struct {
	Kind string `json:"kind" validate:"required" enums:"support,when_paid"` // who removes it: a person, or the service once nothing is owed
	Note string `json:"note" maxLength:"4000"`
} //@name NewRemovalRequest

// RemovalRequest is a request to remove a card.
type RemovalRequest struct {
	ID            string     `json:"id" validate:"required"`
	PaymentMethod string     `json:"payment_method" validate:"required"`
	Kind          string     `json:"kind" validate:"required" enums:"support,when_paid"` // support: decided by a person; when_paid: by itself, once nothing is owed
	Status        string     `json:"status" validate:"required" enums:"open,done,declined,withdrawn"`
	Note          string     `json:"note" validate:"required"`
	Answer        *string    `json:"answer" validate:"required" extensions:"x-nullable"` // of support, once it is resolved
	CreatedAt     time.Time  `json:"created_at" validate:"required" format:"date-time"`
	ResolvedAt    *time.Time `json:"resolved_at" validate:"required" extensions:"x-nullable" format:"date-time"`
} //@name RemovalRequest

func toRemoval(r payment.Removal) RemovalRequest {
	return RemovalRequest{
		ID: r.ID.String(), PaymentMethod: r.Method.String(), Kind: string(r.Kind), Status: string(r.Status), Note: r.Note,
		Answer: textIf(r.Answer), CreatedAt: r.CreatedAt.UTC(), ResolvedAt: timeIf(r.ResolvedAt),
	}
}

// removals lists the requests to remove a card.
//
//	@ID				listOwnRemovalRequests
//	@Summary		List the requests to remove a card, the newest first
//	@Description	With their status, and with what support has answered.
//	@Tags			payment methods
//	@Param			limit	query		int		false	"How many at most"	minimum(1)	maximum(100)	default(20)
//	@Param			cursor	query		string	false	"next_cursor of the page before"
//	@Success		200		{object}	Page[RemovalRequest]
//	@Router			/v1/removal-requests [get]
func (h paymentMethods) removals(c echo.Context) error {
	r, _, err := h.Lists.request(c)
	if err != nil {
		return err
	}
	p, err := h.Billing.DB.Payments().Removals(c.Request().Context(), middleware.Account(c), "", r)
	if err != nil {
		return err
	}
	return list(c, h.Lists, p, toRemoval)
}

// requestRemoval asks for a card to be removed.
//
//	@ID				requestPaymentMethodRemoval
//	@Summary		Ask for the active card to be removed
//	@Description	By support, or by itself once nothing is owed: where nothing is, that is at once, and the answer is done.
//	@Tags			payment methods
//	@Param			id		path		string				true	"The card"
//	@Param			request	body		NewRemovalRequest	true	"Who is to remove it"
//	@Success		201		{object}	RemovalRequest
//	@Failure		404		{object}	problem.Problem	"payment_method_not_found"
//	@Failure		409		{object}	problem.Problem	"removal_request_open"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/payment-methods/{id}/removal-requests [post]
func (h paymentMethods) requestRemoval(c echo.Context) error {
	var in NewRemovalRequest
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	var checks validate.Checks
	checks.OneOf("#/kind", in.Kind, string(payment.BySupport), string(payment.WhenPaid))
	checks.Text("#/note", in.Note, validate.MaxText)
	if err := checks.Err(); err != nil {
		return err
	}
	id, err := param[payment.Method](c, "id", payment.ErrMethodNotFound)
	if err != nil {
		return err
	}
	return once(c, h.Deps, created(toRemoval), func(asked billing.Asked, keep billing.Renderer[payment.Removal]) (billing.Result[payment.Removal], error) {
		return billing.Cards{Core: h.Billing}.RequestRemoval(c.Request().Context(), asked, id, payment.RemovalKind(in.Kind), in.Note, keep)
	})
}
