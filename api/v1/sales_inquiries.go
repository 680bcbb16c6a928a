package v1

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/inquiry"
)

func salesInquiryRoutes(d Deps) []route.Route {
	h := salesInquiries{d}
	return []route.Route{
		{Method: http.MethodPost, Path: "/v1/sales-inquiries", Scope: auth.BillingWrite, Class: route.Money, Repeatable: true, Handler: h.create},
		{Method: http.MethodGet, Path: "/v1/sales-inquiries", Scope: auth.BillingRead, Query: paged(), Handler: h.list},
		{Method: http.MethodGet, Path: "/v1/sales-inquiries/{id}", Scope: auth.BillingRead, Handler: h.get},
	}
}

// SalesInquiry is "contact sales": a wish to talk about the Enterprise plan.
type SalesInquiry struct {
	ID        string          `json:"id" validate:"required" example:"inq_01jqxyzabcdefghjkmnpqrstvw"`
	Status    string          `json:"status" validate:"required" enums:"received,in_progress,won,lost"`
	Name      string          `json:"name" validate:"required"`
	Email     string          `json:"email" validate:"required"`
	Company   string          `json:"company" validate:"required"`
	Message   string          `json:"message" validate:"required"`
	Snapshot  json.RawMessage `json:"snapshot" validate:"required" swaggertype:"object"` // taken_at, available, and for each of the last six periods its period, plan, usage by meter and total, as they were when the inquiry was sent: what the salesperson sees
	CreatedAt time.Time       `json:"created_at" validate:"required" format:"date-time"`
	UpdatedAt time.Time       `json:"updated_at" validate:"required" format:"date-time"`
} //@name SalesInquiry

func toInquiry(i inquiry.Inquiry) SalesInquiry {
	return SalesInquiry{
		ID: i.ID.String(), Status: string(i.Status), Name: i.Name, Email: i.Email, Company: i.Company, Message: i.Message,
		Snapshot: i.Snapshot, CreatedAt: i.CreatedAt.UTC(), UpdatedAt: i.UpdatedAt.UTC(),
	}
}

// NewSalesInquiry is what the form sends.
type NewSalesInquiry struct {
	Name    string `json:"name" validate:"required" maxLength:"200"`
	Email   string `json:"email" validate:"required" format:"email" maxLength:"254"`
	Company string `json:"company" maxLength:"200"`
	Message string `json:"message" maxLength:"4000"`
} //@name NewSalesInquiry

type salesInquiries struct{ Deps }

// create sends an inquiry.
//
//	@ID				createSalesInquiry
//	@Summary		Contact sales
//	@Description	The usage of the last periods is frozen with it, so that the salesperson knows what the talk is about.
//	@Tags			sales
//	@Param			inquiry	body		NewSalesInquiry	true	"Who asks, and what"
//	@Success		201		{object}	SalesInquiry
//	@Failure		409		{object}	problem.Problem	"account_closed"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/sales-inquiries [post]
func (h salesInquiries) create(c echo.Context) error {
	var in NewSalesInquiry
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	var checks validate.Checks
	checks.RequiredLine("#/name", in.Name, validate.MaxName)
	checks.Email("#/email", in.Email)
	checks.Line("#/company", in.Company, validate.MaxName)
	checks.Text("#/message", in.Message, validate.MaxText)
	if err := checks.Err(); err != nil {
		return err
	}
	return once(c, h.Deps, created(toInquiry), func(asked billing.Asked, keep billing.Renderer[inquiry.Inquiry]) (billing.Result[inquiry.Inquiry], error) {
		return billing.Inquirer{Core: h.Billing}.Inquire(c.Request().Context(), asked, billing.InquiryInput(in), keep)
	})
}

// list lists the inquiries.
//
//	@ID			listSalesInquiries
//	@Summary	List inquiries with their status, the newest first
//	@Tags		sales
//	@Param		limit	query		int		false	"How many at most"	minimum(1)	maximum(100)	default(20)
//	@Param		cursor	query		string	false	"next_cursor of the page before"
//	@Success	200		{object}	Page[SalesInquiry]
//	@Router		/v1/sales-inquiries [get]
func (h salesInquiries) list(c echo.Context) error {
	return listOf(c, h.Lists, toInquiry, h.Billing.DB.Inquiries().List)
}

// get shows an inquiry.
//
//	@ID			getSalesInquiry
//	@Summary	Get an inquiry with its status
//	@Tags		sales
//	@Param		id	path		string	true	"The inquiry"
//	@Success	200	{object}	SalesInquiry
//	@Failure	404	{object}	problem.Problem	"sales_inquiry_not_found"
//	@Router		/v1/sales-inquiries/{id} [get]
func (h salesInquiries) get(c echo.Context) error {
	return recordOf(c, inquiry.ErrNotFound, h.Billing.DB.Inquiries().Get, toInquiry)
}
