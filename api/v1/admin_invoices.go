package v1

import (
	"context"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
)

func adminInvoiceRoutes(d Deps) []route.Route {
	h := adminInvoices{d}
	write := func(path string, handler echo.HandlerFunc) route.Route {
		return route.Route{Method: http.MethodPost, Path: "/v1/admin" + path, Scope: auth.Operator, Class: route.Money, Idempotent: true, Handler: handler}
	}
	note := write("/credit-notes", h.credit)
	note.Creates = "/v1/credit-notes/{id}"
	return []route.Route{
		note,
		write("/invoices/{id}/void", h.void),
		write("/invoices/{id}/write-off", h.writeOff),
	}
}

// NewCreditNote corrects a final invoice.
type NewCreditNote struct {
	Invoice string `json:"invoice" validate:"required" maxLength:"64" example:"inv_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Amount  *Money `json:"amount,omitempty"` // left out: all that can still be credited and that no correction of usage has given back on another invoice
	Reason  string `json:"reason" validate:"required" maxLength:"4000" example:"billed twice for one call"`
} //@name NewCreditNote

// Reason says why something is done. The audit log keeps it.
type Reason struct {
	Reason string `json:"reason" validate:"required" maxLength:"4000" example:"agreed with the customer"`
} //@name Reason

// reason reads the body of an operation that wants to know why, and nothing else.
func reason(c echo.Context) (string, error) {
	var body Reason
	if err := strictjson.Decode(c, &body); err != nil {
		return "", err
	}
	var checks validate.Checks
	checkReason(&checks, body.Reason)
	return body.Reason, checks.Err()
}

func checkReason(checks *validate.Checks, s string) {
	if checks.Require("#/reason", s) {
		checks.Text("#/reason", s, validate.MaxText)
	}
}

type adminInvoices struct{ Deps }

// credit issues a credit note.
//
//	@ID				createCreditNote
//	@Summary		Correct an invoice with a credit note
//	@Description	What is final is never edited. The note takes off what is still due, and what was paid already goes to the account's funds, which pay other open invoices at once. The notes of an invoice never come to more than the invoice.
//	@Tags			admin
//	@Param			note	body		NewCreditNote	true	"The invoice, how much, and why"
//	@Success		201		{object}	CreditNote
//	@Failure		404		{object}	problem.Problem	"invoice_not_found, account_not_found"
//	@Failure		409		{object}	problem.Problem	"credit_too_large or, without an amount, invoice_corrected (with creditable), invoice_state, payment_pending"
//	@Failure		422		{object}	problem.Problem	"invalid_request, currency_mismatch"
//	@Router			/v1/admin/credit-notes [post]
func (h adminInvoices) credit(c echo.Context) error {
	var body NewCreditNote
	if err := strictjson.Decode(c, &body); err != nil {
		return err
	}
	var checks validate.Checks
	in := billing.CreditInput{Reason: body.Reason}
	var err error
	if in.Invoice, err = id.Parse[invoice.Invoice](body.Invoice); checks.Require("#/invoice", body.Invoice) && err != nil {
		checks.Fail("#/invoice", "invalid_identifier", "is no identifier of an invoice")
	}
	if body.Amount != nil {
		in.Amount = body.Amount.amount()
		checks.Positive("#/amount", in.Amount)
	}
	checkReason(&checks, body.Reason)
	if err := checks.Err(); err != nil {
		return err
	}
	show := func(n invoice.CreditNote, _ secrets) shown {
		return shown{status: http.StatusCreated, body: toCreditNote(n)}
	}
	return once(c, h.Deps, show, func(asked billing.Asked, keep billing.Renderer[invoice.CreditNote]) (billing.Result[invoice.CreditNote], error) {
		return billing.Adjuster{Core: h.Billing}.Credit(c.Request().Context(), asked, in, keep)
	})
}

// void takes an invoice back.
//
//	@ID				voidInvoice
//	@Summary		Void an invoice that should not have been
//	@Description	A credit note over all of it is issued, and nobody owes it any more. One that was paid in part cannot be void; give a credit note instead.
//	@Tags			admin
//	@Param			id		path		string	true	"The invoice"
//	@Param			reason	body		Reason	true	"Why"
//	@Success		200		{object}	Invoice
//	@Failure		404		{object}	problem.Problem	"invoice_not_found, account_not_found"
//	@Failure		409		{object}	problem.Problem	"invoice_state, invoice_partly_paid, invoice_paid_ahead, invoice_corrected, payment_pending"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/invoices/{id}/void [post]
func (h adminInvoices) void(c echo.Context) error {
	return h.end(c, billing.Adjuster{Core: h.Billing}.Void)
}

// writeOff gives an invoice up.
//
//	@ID				writeOffInvoice
//	@Summary		Write an invoice off
//	@Description	Nobody expects it to be paid any more; it is uncollectible, and bad debt in the books. It can still be paid.
//	@Tags			admin
//	@Param			id		path		string	true	"The invoice"
//	@Param			reason	body		Reason	true	"Why"
//	@Success		200		{object}	Invoice
//	@Failure		404		{object}	problem.Problem	"invoice_not_found, account_not_found"
//	@Failure		409		{object}	problem.Problem	"invoice_state, payment_pending"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/invoices/{id}/write-off [post]
func (h adminInvoices) writeOff(c echo.Context) error {
	return h.end(c, billing.Adjuster{Core: h.Billing}.WriteOff)
}

// end runs what ends an invoice's collection.
func (h adminInvoices) end(c echo.Context, run func(context.Context, billing.Asked, invoice.ID, string, billing.Renderer[invoice.Invoice]) (billing.Result[invoice.Invoice], error)) error {
	iid, err := param[invoice.Invoice](c, "id", invoice.ErrNotFound)
	if err != nil {
		return err
	}
	why, err := reason(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	content, err := h.Billing.DB.Invoices().Content(ctx, middleware.Account(c), iid)
	if err != nil {
		return err // a draft has none, and its customer does not owe it yet
	}
	show := func(i invoice.Invoice, _ secrets) shown {
		return shown{status: http.StatusOK, body: toInvoice(i, content)}
	}
	return once(c, h.Deps, show, func(asked billing.Asked, keep billing.Renderer[invoice.Invoice]) (billing.Result[invoice.Invoice], error) {
		return run(ctx, asked, iid, why, keep)
	})
}
