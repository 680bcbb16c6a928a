package v1

import (
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

func invoiceRoutes(d Deps) []route.Route {
	h := invoices{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/invoices", Scope: auth.BillingRead, Query: paged("status"), Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/invoices/upcoming", Scope: auth.BillingRead, Handler: h.upcoming},
		{Method: http.MethodGet, Path: "/v1/invoices/{id}", Scope: auth.BillingRead, Tagged: true, Handler: h.get},
		{Method: http.MethodPost, Path: "/v1/invoices/{id}/pay", Scope: auth.PaymentsWrite, Class: route.Money, Idempotent: true, Timeout: paymentTimeout, Handler: h.pay},
		{Method: http.MethodGet, Path: "/v1/credit-notes", Scope: auth.BillingRead, Query: paged(), Handler: h.creditNotes},
		{Method: http.MethodGet, Path: "/v1/credit-notes/{id}", Scope: auth.BillingRead, Handler: h.creditNote},
	}
}

// paymentTimeout leaves a provider the time that one call to it may take.
const paymentTimeout = 28 * time.Second

// Invoice states what an account owes for a period and why. A draft has no number and no lines yet: it
// is computed when its grace is over. What a final invoice says never changes; its status does.
type Invoice struct {
	ID          string        `json:"id" validate:"required" example:"inv_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Number      *string       `json:"number" validate:"required" extensions:"x-nullable" example:"6d1x9q2c-000001"` // of the account's own series, without gaps
	Kind        string        `json:"kind" validate:"required" enums:"cycle,threshold,prepayment"`
	Status      string        `json:"status" validate:"required" enums:"draft,open,paid,void,uncollectible"`
	Period      Period        `json:"period" validate:"required"`
	Total       Money         `json:"total" validate:"required"` // of a draft: zero until it is final
	AmountPaid  Money         `json:"amount_paid" validate:"required"`
	Credited    Money         `json:"amount_credited" validate:"required"`                                         // by credit notes, of what was due
	AmountDue   Money         `json:"amount_due" validate:"required"`                                              // what is asked for: of one that is uncollectible, nothing
	Remaining   Money         `json:"amount_remaining" validate:"required"`                                        // what can be paid: amount_due, and of one that is uncollectible what was written off, which stays owed
	FinalizesAt *time.Time    `json:"finalizes_at" validate:"required" extensions:"x-nullable" format:"date-time"` // of a draft: until then late usage enters it
	IssuedAt    *time.Time    `json:"issued_at" validate:"required" extensions:"x-nullable" format:"date-time"`
	DueAt       *time.Time    `json:"due_at" validate:"required" extensions:"x-nullable" format:"date-time"`
	PaidAt      *time.Time    `json:"paid_at" validate:"required" extensions:"x-nullable" format:"date-time"`
	NextAttempt *time.Time    `json:"next_attempt_at" validate:"required" extensions:"x-nullable" format:"date-time"` // when the card is charged next
	Attempts    int           `json:"attempts" validate:"required"`                                                   // made to charge a card
	Dunning     string        `json:"dunning" validate:"required" enums:"none,retrying,suspended,stopped"`            // whether the card is tried again: by schedule; no longer, and paid use is suspended; or no longer, by a person or a dispute
	Contents    *InvoiceTexts `json:"content,omitempty"`                                                              // of one invoice only, not in lists; absent while a draft
} //@name Invoice

// InvoiceTexts is what a final invoice says.
type InvoiceTexts struct {
	BillTo   BillTo        `json:"bill_to" validate:"required"`
	Lines    []InvoiceLine `json:"lines" validate:"required"`
	Subtotal Money         `json:"subtotal" validate:"required"`
	Tax      Money         `json:"tax" validate:"required"`
	Total    Money         `json:"total" validate:"required"`
	Absorbed Money         `json:"absorbed" validate:"required"` // used beyond the spend limit and not billed; less than nothing: taken back of what was absorbed on earlier invoices
	Hash     string        `json:"hash" validate:"required" format:"hex" example:"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"`
} //@name InvoiceContent

// BillTo is whom an invoice is made out to, as it was when it was issued.
type BillTo struct {
	Name    string  `json:"name" validate:"required"`
	Email   string  `json:"email" validate:"required"`
	Address Address `json:"address" validate:"required"`
	TaxID   *string `json:"tax_id" validate:"required" extensions:"x-nullable"`
} //@name BillTo

// InvoiceLine is one line of an invoice. Its explanation says how the amount came about.
type InvoiceLine struct {
	Number      int             `json:"number" validate:"required" example:"1"`
	Kind        string          `json:"kind" validate:"required" enums:"fee,usage,minimum,maximum,percent,credit,commitment,prepayment,drawdown,overage,adjustment,absorbed" example:"usage"`
	Meter       *string         `json:"meter" validate:"required" extensions:"x-nullable" example:"voice"`
	Description string          `json:"description" validate:"required" example:"Voice"`
	Period      Period          `json:"period" validate:"required"` // an adjustment's is that of the usage
	Quantity    string          `json:"quantity" validate:"required" format:"decimal" example:"1800000"`
	Included    string          `json:"included" validate:"required" format:"decimal" example:"60000"` // of quantity: taken by the allowance
	Billable    string          `json:"billable" validate:"required" format:"decimal" example:"1740000"`
	Unit        *string         `json:"unit" validate:"required" extensions:"x-nullable" example:"second"` // of the three quantities
	Tiers       []InvoicedUnits `json:"tiers" validate:"required"`
	Amount      Money           `json:"amount" validate:"required"`
} //@name InvoiceLine

// InvoicedUnits is what one tier contributes to a line: units × unit_price, and flat.
type InvoicedUnits struct {
	Over      string  `json:"over" validate:"required" format:"decimal" example:"0"`                                // the tier begins after this total quantity
	UpTo      *string `json:"up_to" validate:"required" extensions:"x-nullable" format:"decimal" example:"1800000"` // and ends with this; null: without end
	Quantity  string  `json:"quantity" validate:"required" format:"decimal" example:"1740000"`                      // billable in the tier, in the meter's unit
	Units     string  `json:"units" validate:"required" format:"decimal" example:"29000"`                           // the same in the unit of the price, to 9 decimals; the amount is computed from the exact value
	Unit      string  `json:"unit" validate:"required" example:"minute"`                                            // that unit: minute, second, package
	UnitPrice string  `json:"unit_price" validate:"required" format:"decimal" example:"0.027"`                      // in major units of the currency
	Flat      *Money  `json:"flat" validate:"required" extensions:"x-nullable"`                                     // once for the tier
	Amount    Money   `json:"amount" validate:"required"`                                                           // its share of the line
} //@name InvoicedUnits

// Period is a stretch of time: from included, to excluded.
type Period struct {
	From time.Time `json:"from" validate:"required" format:"date-time"`
	To   time.Time `json:"to" validate:"required" format:"date-time"`
} //@name Period

type invoices struct{ Deps }

// list pages through the account's invoices.
//
//	@ID				listInvoices
//	@Summary		List invoices, the newest first
//	@Description	Without their lines; GET one to have them.
//	@Tags			invoices
//	@Security		Token[billing:read]
//	@Param			status	query		string	false	"Only these"	Enums(draft, open, paid, void, uncollectible)
//	@Param			limit	query		int		false	"At most so many"	default(20)	minimum(1)	maximum(100)
//	@Param			cursor	query		string	false	"next_cursor of the page before"
//	@Success		200		{object}	Page[Invoice]
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/invoices [get]
func (h invoices) list(c echo.Context) error {
	r, q, err := h.Lists.request(c)
	if err != nil {
		return err
	}
	st := invoice.Status(q.Get("status"))
	switch st {
	case "", invoice.Draft, invoice.Open, invoice.Paid, invoice.Void, invoice.Uncollectible:
	default:
		return errs.InvalidField("#/status", "unknown_value", "must be draft, open, paid, void or uncollectible")
	}
	ctx, a := c.Request().Context(), middleware.Account(c)
	p, err := h.Billing.DB.Invoices().List(ctx, a, st, r)
	if err != nil {
		return err
	}
	ids := make([]invoice.ID, len(p.Data))
	for i, inv := range p.Data {
		ids[i] = inv.ID
	}
	contents, err := h.Billing.DB.Invoices().Contents(ctx, a, ids)
	if err != nil {
		return err
	}
	return list(c, h.Lists, p, func(inv invoice.Invoice) Invoice { return toInvoice(inv, contents[inv.ID]) })
}

// get returns an invoice with its lines.
//
//	@ID			getInvoice
//	@Summary	Get an invoice with its lines
//	@Tags		invoices
//	@Security	Token[billing:read]
//	@Param		id	path		string	true	"The invoice"	example(inv_01k4w3c9t2e8rv5m0a7b6d1x9q)
//	@Success	200	{object}	Invoice
//	@Failure	404	{object}	problem.Problem	"invoice_not_found"
//	@Router		/v1/invoices/{id} [get]
func (h invoices) get(c echo.Context) error {
	id, err := param[invoice.Invoice](c, "id", invoice.ErrNotFound)
	if err != nil {
		return err
	}
	ctx, a := c.Request().Context(), middleware.Account(c)
	inv, err := h.Billing.DB.Invoices().Get(ctx, a, id)
	if err != nil {
		return err
	}
	if inv.Status == invoice.Draft {
		return middleware.JSON(c, inv.Version, toInvoice(inv, invoice.Content{}))
	}
	content, err := h.Billing.DB.Invoices().Content(ctx, a, id)
	if err != nil {
		return err
	}
	out := toInvoice(inv, content)
	if out.Contents, err = toInvoiceTexts(content); err != nil {
		return err
	}
	return middleware.JSON(c, inv.Version, out)
}

// UpcomingInvoice is the running period's invoice as it would be if the period ended now.
type UpcomingInvoice struct {
	Period   Period        `json:"period" validate:"required"`
	Lines    []InvoiceLine `json:"lines" validate:"required"` // late usage of earlier periods comes last
	Absorbed Money         `json:"absorbed" validate:"required"`
	Total    Money         `json:"total" validate:"required"` // tax not included
} //@name UpcomingInvoice

// upcoming previews the next invoice.
//
//	@ID			getUpcomingInvoice
//	@Summary	Preview the running period's invoice
//	@Tags		invoices
//	@Security	Token[billing:read]
//	@Success	200	{object}	UpcomingInvoice
//	@Failure	404	{object}	problem.Problem	"subscription_not_found: the account is closed"
//	@Router		/v1/invoices/upcoming [get]
func (h invoices) upcoming(c echo.Context) error {
	u, err := billing.Reader{Core: h.Billing}.Upcoming(c.Request().Context(), middleware.Account(c))
	if err != nil {
		return err
	}
	out := UpcomingInvoice{Period: Period{u.Period.Start, u.Period.End}, Lines: []InvoiceLine{}, Absorbed: toMoney(u.Absorbed), Total: toMoney(u.Total)}
	for _, part := range append([]billing.Late{{Period: u.Period, Lines: u.Bill.Lines}}, u.Late...) {
		for _, l := range part.Lines {
			line := toLine(l.Derivation, invoice.Line{
				Number: len(out.Lines) + 1, Kind: string(l.Kind), Meter: string(l.Meter), Description: l.Description, Period: part.Period,
				Quantity: l.Quantity, Amount: l.Amount,
			})
			out.Lines = append(out.Lines, line)
		}
	}
	return c.JSON(http.StatusOK, out)
}

// InvoicePaymentRequest says by which card an invoice is to be paid.
type InvoicePaymentRequest struct {
	PaymentMethod string `json:"payment_method,omitempty" example:"pm_01k4w3c9t2e8rv5m0a7b6d1x9q"` // the default card if left out
} //@name InvoicePaymentRequest

// pay charges a card for what is due.
//
//	@ID				payInvoice
//	@Summary		Pay an invoice now
//	@Description	For the customer who is there: the provider may ask for 3-D Secure, which next_action leads to. A time-out at the provider is processing, never failed: ask for the payment later.
//	@Tags			invoices
//	@Security		Token[payments:write]
//	@Param			id		path		string					true	"The invoice"
//	@Param			body	body		InvoicePaymentRequest	false	"By which card"
//	@Success		200		{object}	Payment	"The payment has succeeded"
//	@Success		202		{object}	Payment	"It is processing, or requires_action"
//	@Failure		402		{object}	problem.Problem	"card_declined; payment names the attempt, decline_code says why"
//	@Failure		404		{object}	problem.Problem	"invoice_not_found or payment_method_not_found"
//	@Failure		409		{object}	problem.Problem	"invoice_not_open, payment_pending, no_payment_method or card_attempts_exhausted"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/invoices/{id}/pay [post]
func (h invoices) pay(c echo.Context) error {
	id, err := param[invoice.Invoice](c, "id", invoice.ErrNotFound)
	if err != nil {
		return err
	}
	var in InvoicePaymentRequest
	if len(body.Bytes(c)) > 0 {
		if err := strictjson.Decode(c, &in); err != nil {
			return err
		}
	}
	var card payment.MethodID
	if in.PaymentMethod != "" {
		if err := card.UnmarshalText([]byte(in.PaymentMethod)); err != nil {
			return payment.ErrMethodNotFound
		}
	}
	return once(c, h.Deps, showPayment, func(asked billing.Asked, render billing.Renderer[payment.Payment]) (billing.Result[payment.Payment], error) {
		return billing.Collector{Core: h.Billing}.Pay(c.Request().Context(), asked, id, card, render)
	})
}

// CreditNote corrects a final invoice.
type CreditNote struct {
	ID          string    `json:"id" validate:"required" example:"cn_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Number      string    `json:"number" validate:"required" example:"6d1x9q2c-000002"`
	Invoice     string    `json:"invoice" validate:"required"`
	CorrectedBy string    `json:"corrected_by,omitempty" example:"inv_01k4w3c9t2e8rv5m0a7b6d1x9q"` // the invoice on which usage that this one billed was corrected
	Amount      Money     `json:"amount" validate:"required"`
	ToDue       Money     `json:"to_due" validate:"required"`    // taken off what was still due
	ToFunds     Money     `json:"to_funds" validate:"required"`  // cards and funds had paid it: funds again
	ToCredit    Money     `json:"to_credit" validate:"required"` // promotional credit had paid it: credit again, with the time that it had
	Reason      string    `json:"reason" validate:"required"`
	IssuedAt    time.Time `json:"issued_at" validate:"required" format:"date-time"`
} //@name CreditNote

func toCreditNote(n invoice.CreditNote) CreditNote {
	out := CreditNote{
		ID: n.ID.String(), Number: n.Number, Invoice: n.Invoice.String(), Amount: toMoney(n.Amount), ToDue: toMoney(n.ToDue),
		ToFunds: toMoney(n.ToFunds), ToCredit: toMoney(n.ToCredit), Reason: n.Reason, IssuedAt: n.IssuedAt,
	}
	if !n.By.IsZero() {
		out.CorrectedBy = n.By.String()
	}
	return out
}

// creditNotes pages through the account's credit notes.
//
//	@ID			listCreditNotes
//	@Summary	List credit notes, the newest first
//	@Tags		invoices
//	@Security	Token[billing:read]
//	@Param		limit	query		int		false	"At most so many"	default(20)	minimum(1)	maximum(100)
//	@Param		cursor	query		string	false	"next_cursor of the page before"
//	@Success	200		{object}	Page[CreditNote]
//	@Router		/v1/credit-notes [get]
func (h invoices) creditNotes(c echo.Context) error {
	return listOf(c, h.Lists, toCreditNote, h.Billing.DB.Invoices().CreditNotes)
}

// creditNote returns a credit note.
//
//	@ID			getCreditNote
//	@Summary	Get a credit note
//	@Tags		invoices
//	@Security	Token[billing:read]
//	@Param		id	path		string	true	"The credit note"
//	@Success	200	{object}	CreditNote
//	@Failure	404	{object}	problem.Problem	"credit_note_not_found"
//	@Router		/v1/credit-notes/{id} [get]
func (h invoices) creditNote(c echo.Context) error {
	return recordOf(c, invoice.ErrCreditNoteNotFound, h.Billing.DB.Invoices().CreditNote, toCreditNote)
}

func toInvoice(i invoice.Invoice, content invoice.Content) Invoice {
	out := Invoice{
		ID: i.ID.String(), Number: textIf(content.Number), Kind: string(i.Kind), Status: string(i.Status), Period: Period{i.Period.Start, i.Period.End},
		Total: toMoney(i.Total), AmountPaid: toMoney(i.AmountPaid), Credited: toMoney(i.Credited), AmountDue: toMoney(i.AmountDue()),
		Remaining: toMoney(i.AmountDue()),
		IssuedAt:  timeIf(i.FinalizedAt), DueAt: timeIf(i.DueAt), PaidAt: timeIf(i.PaidAt), NextAttempt: timeIf(i.NextAttempt),
		Attempts: i.Attempts, Dunning: string(i.Dunning),
	}
	switch i.Status {
	case invoice.Draft:
		out.FinalizesAt = timeIf(i.FinalizeAt)
	case invoice.Void:
		out.AmountDue = toMoney(money.Zero(i.Currency)) // nobody is to pay it any more
		out.Remaining = out.AmountDue
	case invoice.Uncollectible:
		out.AmountDue = toMoney(money.Zero(i.Currency)) // nobody is asked for it any more
	case invoice.Open, invoice.Paid:
	}
	if i.Dunning == invoice.Suspended {
		out.NextAttempt = nil // no card is charged by then: it is written off
	}
	return out
}

func toInvoiceTexts(content invoice.Content) (*InvoiceTexts, error) {
	out := &InvoiceTexts{
		BillTo: toBillTo(content.BillTo), Lines: []InvoiceLine{},
		Subtotal: toMoney(content.Subtotal), Tax: toMoney(content.Tax), Total: toMoney(content.Total), Absorbed: toMoney(content.Absorbed),
		Hash: hex.EncodeToString(content.Hash[:]),
	}
	for _, l := range content.Lines {
		d, err := derivation(l)
		if err != nil {
			return nil, err
		}
		out.Lines = append(out.Lines, toLine(d, l))
	}
	return out, nil
}

// toLine shows a line with what its derivation says of the quantities.
func toLine(d pricing.Derivation, l invoice.Line) InvoiceLine {
	out := InvoiceLine{
		Number: l.Number, Kind: l.Kind, Meter: textIf(l.Meter), Description: l.Description, Period: Period{l.Period.Start, l.Period.End},
		Quantity: l.Quantity.String(), Included: d.Included.String(), Billable: d.Billable.String(), Unit: textIf(d.Unit),
		Tiers: make([]InvoicedUnits, len(d.Parts)), Amount: toMoney(l.Amount),
	}
	for i, p := range d.Parts {
		out.Tiers[i] = toInvoicedUnits(&d, &p)
	}
	return out
}

func toInvoicedUnits(d *pricing.Derivation, p *pricing.Part) InvoicedUnits {
	out := InvoicedUnits{
		Over: p.Over.String(), UpTo: decimalIf(p.UpTo), Quantity: p.Units.String(), UnitPrice: p.UnitPrice.String(), Flat: toMoneyIf(p.Flat), Amount: toMoney(p.Amount),
	}
	switch {
	case d.Model == plan.Package:
		out.Unit, out.Units = "package", strconv.FormatInt(p.Packages, 10)
	case d.Per.IsZero():
		out.Unit, out.Units = d.Unit, p.Units.String()
	default:
		out.Unit, out.Units = d.Per.Unit, p.Units.Quo(d.Per.Divisor()).String()
	}
	return out
}
