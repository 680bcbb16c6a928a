package v1

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/inquiry"
	"github.com/accrue-billing/accrue/internal/payment"
)

func adminSupportRoutes(d Deps) []route.Route {
	h := adminSupport{d}
	const inquiries = "/v1/admin/sales-inquiries"
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/admin/removal-requests", Scope: auth.Operator, Account: route.AccountOptional, Query: paged("status"), Handler: h.removals},
		{
			Method: http.MethodPost, Path: "/v1/admin/removal-requests/{id}/resolve", Scope: auth.Operator, Class: route.Money, Idempotent: true,
			Timeout: providerTimeout, Handler: h.resolveRemoval,
		},
		{
			Method: http.MethodPost, Path: "/v1/admin/payment-methods/{id}/remove", Scope: auth.Operator, Class: route.Money, Idempotent: true,
			Timeout: providerTimeout, Handler: h.removeCard,
		},
		{Method: http.MethodGet, Path: inquiries, Scope: auth.Operator, Account: route.AccountOptional, Query: paged("status"), Handler: h.inquiries},
		{Method: http.MethodGet, Path: inquiries + "/{id}", Scope: auth.Operator, Tagged: true, Handler: h.inquiry},
		{Method: http.MethodPatch, Path: inquiries + "/{id}", Scope: auth.Operator, Class: route.Money, IfMatch: true, Handler: h.changeInquiry},
	}
}

// AdminRemovalRequest is a customer's request to remove a card, as support sees it.
type AdminRemovalRequest struct {
	RemovalRequest
	Account    string  `json:"account" validate:"required" example:"acct_01jqxyzabcdefghjkmnpqrstvw"`
	ResolvedBy *string `json:"resolved_by" validate:"required" extensions:"x-nullable" example:"operator:grace"`
} //@name AdminRemovalRequest

func toAdminRemoval(r payment.Removal) AdminRemovalRequest {
	return AdminRemovalRequest{RemovalRequest: toRemoval(r), Account: r.Account.String(), ResolvedBy: textIf(r.ResolvedBy)}
}

type adminSupport struct{ Deps }

// removals pages through the requests.
//
//	@ID				listRemovalRequests
//	@Summary		List requests to remove a card, the newest first
//	@Description	Of all accounts, or of the one that Accrue-Account names.
//	@Tags			admin
//	@Param			status	query		string	false	"Only those of this status"	Enums(open, done, declined, withdrawn)
//	@Param			limit	query		int		false	"At most so many"			default(20)	minimum(1)	maximum(100)
//	@Param			cursor	query		string	false	"next_cursor of the page before"
//	@Success		200		{object}	Page[AdminRemovalRequest]
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/removal-requests [get]
func (h adminSupport) removals(c echo.Context) error {
	r, q, err := h.Lists.request(c)
	if err != nil {
		return err
	}
	var checks validate.Checks
	if s := q.Get("status"); s != "" {
		checks.OneOf("#/status", s, string(payment.RemovalOpen), string(payment.RemovalDone), string(payment.RemovalDeclined), string(payment.RemovalWithdrawn))
	}
	if err := checks.Err(); err != nil {
		return err
	}
	p, err := h.Billing.DB.Payments().Removals(c.Request().Context(), middleware.AccountIfAny(c), payment.RemovalStatus(q.Get("status")), r)
	if err != nil {
		return err
	}
	return list(c, h.Lists, p, toAdminRemoval)
}

// RemovalDecision is support's answer to a request.
type RemovalDecision struct {
	Decision string `json:"decision" validate:"required" enums:"approve,decline"`                               // approve removes the card
	Reason   string `json:"reason" validate:"required" maxLength:"4000" example:"the card was reported stolen"` // the customer reads it
} //@name RemovalDecision

// resolveRemoval answers a request.
//
//	@ID				resolveRemovalRequest
//	@Summary		Approve or decline a request to remove a card
//	@Description	Approving removes the card: what is owed stays owed and so does the plan, and paid use stops until there is a card again.
//	@Tags			admin
//	@Param			id			path		string			true	"The request"
//	@Param			decision	body		RemovalDecision	true	"The answer"
//	@Success		200			{object}	AdminRemovalRequest
//	@Failure		404			{object}	problem.Problem	"removal_request_not_found, account_not_found"
//	@Failure		409			{object}	problem.Problem	"removal_request_resolved (with removal_request_status)"
//	@Failure		422			{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/removal-requests/{id}/resolve [post]
func (h adminSupport) resolveRemoval(c echo.Context) error {
	rid, err := param[payment.Removal](c, "id", payment.ErrRemovalNotFound)
	if err != nil {
		return err
	}
	var body RemovalDecision
	if err := strictjson.Decode(c, &body); err != nil {
		return err
	}
	var checks validate.Checks
	checks.OneOf("#/decision", body.Decision, "approve", "decline")
	checkReason(&checks, body.Reason)
	if err := checks.Err(); err != nil {
		return err
	}
	return h.keyed(c, func(asked billing.Asked) (any, error) {
		r, err := billing.Cards{Core: h.Billing}.ResolveRemoval(c.Request().Context(), asked, rid, body.Decision == "approve", body.Reason)
		return toAdminRemoval(r), err
	})
}

// removeCard removes any card.
//
//	@ID				removePaymentMethodByOperator
//	@Summary		Remove a card of the account, whatever is owed
//	@Description	What is owed stays owed and so does the plan; paid use stops until there is a card again.
//	@Tags			admin
//	@Param			id		path		string	true	"The card"
//	@Param			reason	body		Reason	true	"Why"
//	@Success		200		{object}	PaymentMethod
//	@Failure		404		{object}	problem.Problem	"payment_method_not_found, account_not_found"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/payment-methods/{id}/remove [post]
func (h adminSupport) removeCard(c echo.Context) error {
	mid, err := param[payment.Method](c, "id", payment.ErrMethodNotFound)
	if err != nil {
		return err
	}
	why, err := reason(c)
	if err != nil {
		return err
	}
	ctx := c.Request().Context()
	return h.keyed(c, func(asked billing.Asked) (any, error) {
		if err := (billing.Cards{Core: h.Billing}).RemoveByOperator(ctx, asked, mid, why); err != nil {
			return nil, err
		}
		m, err := h.Billing.DB.Payments().Method(ctx, asked.Account, mid)
		return h.toMethod(m, withoutSecrets), err
	})
}

// AdminSalesInquiry is a customer's wish to talk, as the salesperson sees it.
type AdminSalesInquiry struct {
	SalesInquiry
	Account string `json:"account" validate:"required" example:"acct_01jqxyzabcdefghjkmnpqrstvw"`
	Note    string `json:"note" validate:"required"` // of the salesperson; the customer does not see it
} //@name AdminSalesInquiry

func toAdminInquiry(i inquiry.Inquiry) AdminSalesInquiry {
	return AdminSalesInquiry{SalesInquiry: toInquiry(i), Account: i.Account.String(), Note: i.Note}
}

func checkInquiryStatus(checks *validate.Checks, s string) {
	checks.OneOf("#/status", s, string(inquiry.Received), string(inquiry.InProgress), string(inquiry.Won), string(inquiry.Lost))
}

// inquiries pages through the inquiries.
//
//	@ID				listAllSalesInquiries
//	@Summary		List sales inquiries, the newest first
//	@Description	Of all accounts, or of the one that Accrue-Account names.
//	@Tags			admin
//	@Param			status	query		string	false	"Only those of this status"	Enums(received, in_progress, won, lost)
//	@Param			limit	query		int		false	"At most so many"			default(20)	minimum(1)	maximum(100)
//	@Param			cursor	query		string	false	"next_cursor of the page before"
//	@Success		200		{object}	Page[AdminSalesInquiry]
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/admin/sales-inquiries [get]
func (h adminSupport) inquiries(c echo.Context) error {
	r, q, err := h.Lists.request(c)
	if err != nil {
		return err
	}
	var checks validate.Checks
	if s := q.Get("status"); s != "" {
		checkInquiryStatus(&checks, s)
	}
	if err := checks.Err(); err != nil {
		return err
	}
	p, err := h.Billing.DB.Inquiries().All(c.Request().Context(), middleware.AccountIfAny(c), inquiry.Status(q.Get("status")), r)
	if err != nil {
		return err
	}
	return list(c, h.Lists, p, toAdminInquiry)
}

func (h adminSupport) stored(c echo.Context) (inquiry.Inquiry, error) {
	iid, err := param[inquiry.Inquiry](c, "id", inquiry.ErrNotFound)
	if err != nil {
		return inquiry.Inquiry{}, err
	}
	return h.Billing.DB.Inquiries().Get(c.Request().Context(), middleware.Account(c), iid)
}

// inquiry shows an inquiry.
//
//	@ID			getSalesInquiryByOperator
//	@Summary	Get a sales inquiry of the account, with the usage that it stands on
//	@Tags		admin
//	@Param		id	path		string	true	"The inquiry"
//	@Success	200	{object}	AdminSalesInquiry
//	@Failure	404	{object}	problem.Problem	"sales_inquiry_not_found, account_not_found"
//	@Router		/v1/admin/sales-inquiries/{id} [get]
func (h adminSupport) inquiry(c echo.Context) error {
	i, err := h.stored(c)
	if err != nil {
		return err
	}
	return middleware.JSON(c, i.Version, toAdminInquiry(i))
}

// SalesInquiryChange moves an inquiry on. What is left out stays as it is.
type SalesInquiryChange struct {
	Status *string `json:"status" enums:"received,in_progress,won,lost"` // the customer sees it
	Note   *string `json:"note" maxLength:"4000"`                        // the customer does not
} //@name SalesInquiryChange

// changeInquiry moves an inquiry on.
//
//	@ID			changeSalesInquiry
//	@Summary	Set a sales inquiry's status or note
//	@Tags		admin
//	@Param		id		path		string				true	"The inquiry"
//	@Param		change	body		SalesInquiryChange	true	"What to change"
//	@Success	200		{object}	AdminSalesInquiry
//	@Failure	404		{object}	problem.Problem	"sales_inquiry_not_found, account_not_found"
//	@Failure	422		{object}	problem.Problem	"invalid_request"
//	@Router		/v1/admin/sales-inquiries/{id} [patch]
func (h adminSupport) changeInquiry(c echo.Context) error {
	var body SalesInquiryChange
	if err := strictjson.Decode(c, &body); err != nil {
		return err
	}
	iid, err := param[inquiry.Inquiry](c, "id", inquiry.ErrNotFound)
	if err != nil {
		return err
	}
	in := billing.InquiryChange{Note: body.Note}
	var checks validate.Checks
	if body.Status != nil {
		checkInquiryStatus(&checks, *body.Status)
		s := inquiry.Status(*body.Status)
		in.Status = &s
	}
	if body.Note != nil {
		checks.Text("#/note", *body.Note, validate.MaxText)
	}
	if err := checks.Err(); err != nil {
		return err
	}
	in.Version, err = expected(c, func() (int64, error) {
		i, err := h.stored(c)
		return i.Version, err
	})
	if err != nil {
		return err
	}
	i, err := billing.Inquirer{Core: h.Billing}.Handle(c.Request().Context(), asked(c), iid, in)
	if err != nil {
		return err
	}
	return middleware.JSON(c, i.Version, toAdminInquiry(i))
}
