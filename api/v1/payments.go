package v1

import (
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/payment"
)

func paymentRoutes(d Deps) []route.Route {
	h := payments{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/payments", Scope: auth.BillingRead, Query: paged(), Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/payments/{id}", Scope: auth.BillingRead, Tagged: true, Handler: h.get},
		{Method: http.MethodGet, Path: "/v1/payments/{id}/receipt", Scope: auth.BillingRead, Handler: h.receipt},
		{Method: http.MethodGet, Path: "/v1/refunds", Scope: auth.BillingRead, Query: paged(), Handler: h.refunds},
		{Method: http.MethodGet, Path: "/v1/refunds/{id}", Scope: auth.BillingRead, Handler: h.refund},
	}
}

// Payment is a charge of a card, and what came of it.
type Payment struct {
	ID            string      `json:"id" validate:"required" example:"pay_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Purpose       string      `json:"purpose" validate:"required" enums:"invoice,top_up"`
	Invoice       *string     `json:"invoice" validate:"required" extensions:"x-nullable"` // what it pays for: this
	TopUp         *string     `json:"top_up" validate:"required" extensions:"x-nullable"`  // or this
	PaymentMethod string      `json:"payment_method" validate:"required" example:"pm_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Amount        Money       `json:"amount" validate:"required"`
	Refunded      Money       `json:"refunded" validate:"required"` // given back, or on its way back
	Disputed      Money       `json:"disputed" validate:"required"` // fetched back by the customer's bank
	Status        string      `json:"status" validate:"required" enums:"processing,requires_action,succeeded,failed,canceled,parked"`
	NextAction    *NextAction `json:"next_action" validate:"required" extensions:"x-nullable"` // with requires_action
	Failure       *Failure    `json:"failure" validate:"required" extensions:"x-nullable"`
	CreatedAt     time.Time   `json:"created_at" validate:"required" format:"date-time"`
	SucceededAt   *time.Time  `json:"succeeded_at" validate:"required" extensions:"x-nullable" format:"date-time"`
} //@name Payment

func toPayment(p payment.Payment) Payment { return toPaymentWith(p, withoutSecrets) }

func toPaymentWith(p payment.Payment, s secrets) Payment {
	return Payment{
		ID: p.ID.String(), Purpose: string(p.Purpose), Invoice: textIf(p.Invoice.String()), TopUp: textIf(p.TopUp.String()),
		PaymentMethod: p.Method.String(), Amount: toMoney(p.Amount), Refunded: toMoney(p.Refunded), Disputed: toMoney(p.Disputed),
		Status: string(p.Status), NextAction: toNextAction(p.NextAction, s), Failure: toFailure(p.Failure), CreatedAt: p.CreatedAt, SucceededAt: timeIf(p.SucceededAt),
	}
}

// showPayment is the answer of an operation that charges.
func showPayment(p payment.Payment, s secrets) shown {
	switch p.Status {
	case payment.Succeeded:
		return shown{status: http.StatusOK, body: toPaymentWith(p, s)}
	case payment.Failed, payment.Canceled:
		return shown{problem: declined(p.Failure, "payment", p.ID.String())}
	case payment.Processing, payment.RequiresAction, payment.Parked:
	}
	return shown{status: http.StatusAccepted, body: toPaymentWith(p, s)}
}

type payments struct{ Deps }

// list pages through the account's payments.
//
//	@ID			listPayments
//	@Summary	List payments, the newest first
//	@Tags		payments
//	@Security	Token[billing:read]
//	@Param		limit	query		int		false	"At most so many"	default(20)	minimum(1)	maximum(100)
//	@Param		cursor	query		string	false	"next_cursor of the page before"
//	@Success	200		{object}	Page[Payment]
//	@Router		/v1/payments [get]
func (h payments) list(c echo.Context) error {
	return listOf(c, h.Lists, toPayment, h.Billing.DB.Payments().Payments)
}

func (h payments) read(c echo.Context) (payment.Payment, error) {
	id, err := param[payment.Payment](c, "id", payment.ErrNotFound)
	if err != nil {
		return payment.Payment{}, err
	}
	return h.Billing.DB.Payments().Payment(c.Request().Context(), middleware.Account(c), id)
}

// get returns a payment.
//
//	@ID			getPayment
//	@Summary	Get a payment
//	@Tags		payments
//	@Security	Token[billing:read]
//	@Param		id	path		string	true	"The payment"	example(pay_01k4w3c9t2e8rv5m0a7b6d1x9q)
//	@Success	200	{object}	Payment
//	@Failure	404	{object}	problem.Problem	"payment_not_found"
//	@Router		/v1/payments/{id} [get]
func (h payments) get(c echo.Context) error {
	p, err := h.read(c)
	if err != nil {
		return err
	}
	return middleware.JSON(c, p.Version, toPayment(p))
}

// Receipt confirms a payment that has succeeded.
type Receipt struct {
	Payment  string      `json:"payment" validate:"required" example:"pay_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Purpose  string      `json:"purpose" validate:"required" enums:"invoice,top_up"`
	Invoice  *InvoiceRef `json:"invoice" validate:"required" extensions:"x-nullable"` // what was paid; null for funds that were added
	PaidBy   BillTo      `json:"paid_by" validate:"required"`
	Card     ReceiptCard `json:"card" validate:"required"`
	Amount   Money       `json:"amount" validate:"required"`
	Refunded Money       `json:"refunded" validate:"required"`
	Refunds  []Refund    `json:"refunds" validate:"required"`
	PaidAt   time.Time   `json:"paid_at" validate:"required" format:"date-time"`
} //@name Receipt

// InvoiceRef names an invoice.
type InvoiceRef struct {
	ID     string `json:"id" validate:"required"`
	Number string `json:"number" validate:"required"`
} //@name InvoiceRef

// ReceiptCard is the card that was charged, as a receipt may show it.
type ReceiptCard struct {
	Brand string `json:"brand" validate:"required" example:"visa"`
	Last4 string `json:"last_four" validate:"required" example:"4242"`
} //@name ReceiptCard

// Refund gave back a part or all of a payment.
type Refund struct {
	ID        string    `json:"id" validate:"required" example:"ref_01k4w3c9t2e8rv5m0a7b6d1x9q"`
	Payment   string    `json:"payment" validate:"required"`
	Amount    Money     `json:"amount" validate:"required"`
	Status    string    `json:"status" validate:"required" enums:"processing,succeeded,failed"`
	CreatedAt time.Time `json:"created_at" validate:"required" format:"date-time"`
} //@name Refund

func toRefund(r payment.Refund) Refund {
	return Refund{ID: r.ID.String(), Payment: r.Payment.String(), Amount: toMoney(r.Amount), Status: string(r.Status), CreatedAt: r.CreatedAt}
}

// ErrNoReceipt says that nothing was paid.
var ErrNoReceipt = errs.New(errs.Conflict, "payment_not_succeeded", "There is a receipt only for a payment that has succeeded.")

// receipt confirms a payment.
//
//	@ID			getReceipt
//	@Summary	Get the receipt of a payment
//	@Tags		payments
//	@Security	Token[billing:read]
//	@Param		id	path		string	true	"The payment"
//	@Success	200	{object}	Receipt
//	@Failure	404	{object}	problem.Problem	"payment_not_found"
//	@Failure	409	{object}	problem.Problem	"payment_not_succeeded"
//	@Router		/v1/payments/{id}/receipt [get]
func (h payments) receipt(c echo.Context) error {
	ctx, db := c.Request().Context(), h.Billing.DB
	p, err := h.read(c)
	if err != nil {
		return err
	}
	if p.Status != payment.Succeeded {
		return ErrNoReceipt
	}
	m, err := db.Payments().Method(ctx, p.Account, p.Method)
	if err != nil {
		return err
	}
	refunds, err := db.Payments().RefundsOf(ctx, p.Account, p.ID)
	if err != nil {
		return err
	}
	out := Receipt{
		Payment: p.ID.String(), Purpose: string(p.Purpose), Card: ReceiptCard{Brand: m.Card.Brand, Last4: m.Card.Last4}, Amount: toMoney(p.Amount),
		Refunded: toMoney(p.Refunded), Refunds: convert(refunds, toRefund), PaidAt: p.SucceededAt,
	}
	profile, err := db.Accounts().Profile(ctx, p.Account)
	if err != nil && !errors.Is(err, account.ErrNoProfile) {
		return err
	}
	if p.Purpose == payment.ForInvoice {
		content, err := db.Invoices().Content(ctx, p.Account, p.Invoice)
		if err != nil {
			return err
		}
		out.Invoice, profile = &InvoiceRef{p.Invoice.String(), content.Number}, content.BillTo
	}
	out.PaidBy = toBillTo(profile)
	return c.JSON(http.StatusOK, out)
}

// refunds pages through what was given back.
//
//	@ID			listRefunds
//	@Summary	List refunds, the newest first
//	@Tags		payments
//	@Security	Token[billing:read]
//	@Param		limit	query		int		false	"At most so many"	default(20)	minimum(1)	maximum(100)
//	@Param		cursor	query		string	false	"next_cursor of the page before"
//	@Success	200		{object}	Page[Refund]
//	@Router		/v1/refunds [get]
func (h payments) refunds(c echo.Context) error {
	return listOf(c, h.Lists, toRefund, h.Billing.DB.Payments().Refunds)
}

// refund returns a refund.
//
//	@ID			getRefund
//	@Summary	Get a refund
//	@Tags		payments
//	@Security	Token[billing:read]
//	@Param		id	path		string	true	"The refund"	example(ref_01k4w3c9t2e8rv5m0a7b6d1x9q)
//	@Success	200	{object}	Refund
//	@Failure	404	{object}	problem.Problem	"refund_not_found"
//	@Router		/v1/refunds/{id} [get]
func (h payments) refund(c echo.Context) error {
	r, err := h.readRefund(c)
	if err != nil {
		return err
	}
	return c.JSON(http.StatusOK, toRefund(r))
}

func (d Deps) readRefund(c echo.Context) (payment.Refund, error) {
	id, err := param[payment.Refund](c, "id", payment.ErrRefundNotFound)
	if err != nil {
		return payment.Refund{}, err
	}
	return d.Billing.DB.Payments().Refund(c.Request().Context(), middleware.Account(c), id)
}

func toBillTo(p account.Profile) BillTo {
	return BillTo{Name: p.Name, Email: p.Email, Address: toAddress(p.Address), TaxID: textIf(p.TaxID)}
}
