package v1

import (
	"context"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/payment"
)

func adminWorkRoutes(d Deps) []route.Route {
	h := adminWork{d}
	run := func(path string, handler echo.HandlerFunc) route.Route {
		return route.Route{
			Method: http.MethodPost, Path: path, Scope: auth.Operator, Account: route.AccountOptional, Class: route.Money, Idempotent: true, NoBody: true,
			Timeout: providerTimeout, Handler: handler,
		}
	}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/admin/parked-payments", Scope: auth.Operator, Account: route.AccountOptional, Query: paged(), Handler: h.parked},
		{
			Method: http.MethodPost, Path: "/v1/admin/parked-payments/{id}/resolve", Scope: auth.Operator, Class: route.Money, Idempotent: true,
			Timeout: providerTimeout, Handler: h.resolve,
		},
		run("/v1/admin/invoice-runs", h.invoiceRun),
		run("/v1/admin/sweeps", h.sweep),
	}
}

// ParkedPayment is a payment that a person must look at: the provider reports something else than was
// asked for, so nothing was booked.
type ParkedPayment struct {
	Payment
	Account     string    `json:"account" validate:"required" example:"acct_01jqxyzabcdefghjkmnpqrstvw"`
	Provider    string    `json:"provider" validate:"required" example:"stripe"`
	ProviderRef *string   `json:"provider_ref" validate:"required" extensions:"x-nullable"` // the charge's name at the provider
	ParkedAt    time.Time `json:"parked_at" validate:"required" format:"date-time"`
} //@name ParkedPayment

func toParked(p payment.Payment) ParkedPayment {
	return ParkedPayment{
		Payment: toPayment(p), Account: p.Account.String(), Provider: p.Provider, ProviderRef: textIf(p.ProviderRef), ParkedAt: p.UpdatedAt.UTC(),
	}
}

type adminWork struct{ Deps }

// parked pages through what is parked.
//
//	@ID				listParkedPayments
//	@Summary		List payments that a person must look at, the newest first
//	@Description	Of all accounts, or of the one that Accrue-Account names.
//	@Tags			admin
//	@Param			limit	query		int		false	"At most so many"	default(20)	minimum(1)	maximum(100)
//	@Param			cursor	query		string	false	"next_cursor of the page before"
//	@Success		200		{object}	Page[ParkedPayment]
//	@Router			/v1/admin/parked-payments [get]
func (h adminWork) parked(c echo.Context) error {
	return listOf(c, h.Lists, toParked, h.Billing.DB.Payments().Parked)
}

// ParkedResolution is what was decided about a parked payment.
type ParkedResolution struct {
	Decision string `json:"decision" validate:"required" enums:"ask,give_back"` // ask: take the provider's word if it now reports what was asked for; give_back: have it give back whatever it took
	Reason   string `json:"reason" validate:"required" maxLength:"4000" example:"the provider has corrected the amount"`
} //@name ParkedResolution

// resolve ends the wait of a parked payment.
//
//	@ID				resolveParkedPayment
//	@Summary		Resolve a parked payment
//	@Description	The provider is asked first. The payment succeeds if it now reports what was asked for, and fails if nothing was taken or all of it was given back; otherwise it stays parked. No other amount than the one that was asked for is ever booked.
//	@Tags			admin
//	@Param			id			path		string				true	"The payment"
//	@Param			resolution	body		ParkedResolution	true	"What was decided, and why"
//	@Success		200			{object}	Payment
//	@Failure		404			{object}	problem.Problem	"payment_not_found, account_not_found"
//	@Failure		409			{object}	problem.Problem	"payment_not_parked (with payment_status), payment_still_parked (with asked and reported), not_given_back"
//	@Failure		422			{object}	problem.Problem	"invalid_request"
//	@Failure		503			{object}	problem.Problem	"provider_unreachable"
//	@Router			/v1/admin/parked-payments/{id}/resolve [post]
func (h adminWork) resolve(c echo.Context) error {
	pid, err := param[payment.Payment](c, "id", payment.ErrNotFound)
	if err != nil {
		return err
	}
	var body ParkedResolution
	if err := strictjson.Decode(c, &body); err != nil {
		return err
	}
	var checks validate.Checks
	checks.OneOf("#/decision", body.Decision, string(billing.AskAgain), string(billing.GiveBack))
	checkReason(&checks, body.Reason)
	if err := checks.Err(); err != nil {
		return err
	}
	show := func(p payment.Payment, s secrets) shown {
		return shown{status: http.StatusOK, body: toPaymentWith(p, s)}
	}
	return once(c, h.Deps, show, func(asked billing.Asked, keep billing.Renderer[payment.Payment]) (billing.Result[payment.Payment], error) {
		return billing.Resolver{Core: h.Billing}.Unpark(c.Request().Context(), asked, pid, billing.ParkedDecision(body.Decision), body.Reason, keep)
	})
}

// Run is what a run has done.
type Run struct {
	Done     Swept `json:"done" validate:"required"`
	Complete bool  `json:"complete" validate:"required"` // whether all that was due is done; false: time was over or a record failed, which the log tells of, and the next run goes on
} //@name Run

// invoiceRun bills what is due.
//
//	@ID				runInvoices
//	@Summary		Close and bill what is due, now
//	@Description	Closes the periods that have ended, makes invoices final whose grace is over and charges what is to be collected: of all accounts, or of the one that Accrue-Account names. The service does this by itself; a run only makes it happen sooner, and may be repeated.
//	@Tags			admin
//	@Success		200	{object}	Run
//	@Failure		404	{object}	problem.Problem	"account_not_found"
//	@Router			/v1/admin/invoice-runs [post]
func (h adminWork) invoiceRun(c echo.Context) error {
	return h.run(c, "invoices.run", billing.Sweeper{Core: h.Billing}.Bill)
}

// sweep finds what is due and was not done.
//
//	@ID				runSweep
//	@Summary		Do all that is due, now
//	@Description	As an invoice run, and more: the provider is asked for what it has not answered, however short ago it was asked, its waiting events are processed, credit and upgrades expire. With Accrue-Account only what is due on that account's clock is done.
//	@Tags			admin
//	@Success		200	{object}	Run
//	@Failure		404	{object}	problem.Problem	"account_not_found"
//	@Router			/v1/admin/sweeps [post]
func (h adminWork) sweep(c echo.Context) error {
	return h.run(c, "sweep.run", billing.Sweeper{Core: h.Billing}.SweepNow)
}

// runTime is how long a run may take. What it has not come to, the next one does.
const runTime = 20 * time.Second

func (h adminWork) run(c echo.Context, action string, all func(context.Context) (billing.Swept, error)) error {
	return h.keyed(c, func(asked billing.Asked) (any, error) {
		ctx, cancel := context.WithTimeout(c.Request().Context(), runTime)
		defer cancel()
		s := billing.Sweeper{Core: h.Billing}
		do := all
		if !asked.Account.IsZero() {
			do = func(ctx context.Context) (billing.Swept, error) { return s.Account(ctx, asked.Account) }
		}
		done, err := s.ByHand(ctx, asked, action, do)
		if err != nil {
			h.Billing.Log.WarnContext(ctx, "a run that was asked for is not complete", "error", err)
		}
		return Run{Done: toSwept(done), Complete: err == nil}, nil
	})
}
