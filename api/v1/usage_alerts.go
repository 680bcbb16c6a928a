package v1

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/pkg/money"
)

func usageAlertRoutes(d Deps) []route.Route {
	h := usageAlerts{d}
	return []route.Route{
		{Method: http.MethodPost, Path: "/v1/usage-alerts", Scope: auth.BillingWrite, Repeatable: true, Handler: h.create},
		{Method: http.MethodGet, Path: "/v1/usage-alerts", Scope: auth.BillingRead, Handler: h.list},
		{Method: http.MethodDelete, Path: "/v1/usage-alerts/{id}", Scope: auth.BillingWrite, Handler: h.remove},
	}
}

// UsageAlert tells once per period that a threshold was reached, by the event alert.fired.
type UsageAlert struct {
	ID        string    `json:"id" validate:"required" example:"alr_01jqxyzabcdefghjkmnpqrstvw"`
	Kind      string    `json:"kind" validate:"required" enums:"usage,spend,low_balance"`
	Meter     *string   `json:"meter" validate:"required" extensions:"x-nullable" example:"voice"`                       // with usage
	Quantity  *string   `json:"quantity" validate:"required" extensions:"x-nullable" format:"decimal" example:"1800000"` // with usage, in the meter's unit
	Amount    *Money    `json:"amount" validate:"required" extensions:"x-nullable"`                                      // with spend and low_balance
	CreatedAt time.Time `json:"created_at" validate:"required" format:"date-time"`
} //@name UsageAlert

func toUsageAlert(a alert.Alert, currency money.Currency) UsageAlert {
	out := UsageAlert{ID: a.ID.String(), Kind: string(a.Kind), CreatedAt: a.CreatedAt.UTC()}
	if a.Kind == alert.Usage {
		q := a.Threshold.String()
		out.Meter, out.Quantity = textIf(a.Meter), &q
		return out
	}
	m := toMoney(alert.Money(a.Threshold, currency))
	out.Amount = &m
	return out
}

// NewUsageAlert sets an alert.
type NewUsageAlert struct {
	Kind     string `json:"kind" validate:"required" enums:"usage,spend,low_balance"`
	Meter    string `json:"meter" maxLength:"64" example:"voice"`                       // with usage
	Quantity string `json:"quantity" maxLength:"32" format:"decimal" example:"1800000"` // with usage
	Amount   *Money `json:"amount"`                                                     // with spend: what the period's usage has come to; with low_balance: what is still available
} //@name NewUsageAlert

type usageAlerts struct{ Deps }

func (h usageAlerts) check(in NewUsageAlert, currency money.Currency) (alert.Alert, error) {
	a := alert.Alert{Kind: alert.Kind(in.Kind), Meter: in.Meter}
	var checks validate.Checks
	checks.OneOf("#/kind", in.Kind, string(alert.Usage), string(alert.Spend), string(alert.LowBalance))
	if a.Kind == alert.Usage {
		q, err := money.ParseDecimal(in.Quantity)
		if err != nil || q.Sign() <= 0 {
			checks.Fail("#/quantity", "invalid_quantity", "must be a decimal number greater than zero")
		}
		a.Threshold = q
		if h.Metering.Catalogue.Meter(in.Meter) == nil {
			checks.Fail("#/meter", "unknown_meter", "is no meter")
		}
		if in.Amount != nil {
			checks.Fail("#/amount", "not_allowed", "goes with spend and low_balance")
		}
		return a, checks.Err()
	}
	if in.Meter != "" {
		checks.Fail("#/meter", "not_allowed", "goes with usage")
	}
	if in.Quantity != "" {
		checks.Fail("#/quantity", "not_allowed", "goes with usage")
	}
	switch {
	case in.Amount == nil:
		checks.Fail("#/amount", "required", "is required")
	case in.Amount.Currency != string(currency):
		checks.Fail("#/amount/currency", "currency_mismatch", "must be the account's currency")
	default:
		checks.Positive("#/amount", in.Amount.amount())
		a.Threshold = money.DecimalFromInt(in.Amount.Amount)
	}
	return a, checks.Err()
}

// create sets an alert.
//
//	@ID				createUsageAlert
//	@Summary		Be told when a threshold is reached
//	@Description	Once per period. At the threshold counts.
//	@Tags			balance
//	@Param			alert	body		NewUsageAlert	true	"The threshold"
//	@Success		201		{object}	UsageAlert
//	@Failure		409		{object}	problem.Problem	"usage_alert_exists, too_many_usage_alerts, account_closed"
//	@Failure		422		{object}	problem.Problem	"invalid_request"
//	@Router			/v1/usage-alerts [post]
func (h usageAlerts) create(c echo.Context) error {
	var in NewUsageAlert
	if err := strictjson.Decode(c, &in); err != nil {
		return err
	}
	ctx := c.Request().Context()
	acct, err := h.Billing.DB.Accounts().Get(ctx, middleware.Account(c))
	if err != nil {
		return err
	}
	a, err := h.check(in, acct.Currency)
	if err != nil {
		return err
	}
	show := created(func(a alert.Alert) UsageAlert { return toUsageAlert(a, acct.Currency) })
	return once(c, h.Deps, show, func(asked billing.Asked, keep billing.Renderer[alert.Alert]) (billing.Result[alert.Alert], error) {
		return billing.Alerter{Core: h.Billing}.Add(ctx, asked, a, keep)
	})
}

// list lists the alerts.
//
//	@ID			listUsageAlerts
//	@Summary	List the alerts
//	@Tags		balance
//	@Success	200	{object}	Page[UsageAlert]
//	@Router		/v1/usage-alerts [get]
func (h usageAlerts) list(c echo.Context) error {
	ctx := c.Request().Context()
	acct, err := h.Billing.DB.Accounts().Get(ctx, middleware.Account(c))
	if err != nil {
		return err
	}
	all, err := h.Billing.DB.Alerts().List(ctx, acct.ID)
	if err != nil {
		return err
	}
	return list(c, h.Lists, page.Page[alert.Alert]{Data: all}, func(a alert.Alert) UsageAlert { return toUsageAlert(a, acct.Currency) })
}

// remove removes an alert.
//
//	@ID			deleteUsageAlert
//	@Summary	Remove an alert
//	@Tags		balance
//	@Param		id	path	string	true	"The alert"
//	@Success	204
//	@Failure	404	{object}	problem.Problem	"usage_alert_not_found"
//	@Router		/v1/usage-alerts/{id} [delete]
func (h usageAlerts) remove(c echo.Context) error {
	aid, err := param[alert.Alert](c, "id", alert.ErrNotFound)
	if err != nil {
		return err
	}
	if err := h.Billing.DB.Alerts().Remove(c.Request().Context(), middleware.Account(c), aid, h.Billing.Clock()); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}
