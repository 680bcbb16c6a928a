package v1

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/pkg/money"
)

func overviewRoutes(d Deps) []route.Route {
	h := overview{d}
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/overview", Scope: auth.BillingRead, Tagged: true, Handler: h.get},
	}
}

// Overview is the whole Billing page in one read.
type Overview struct {
	Account        Account        `json:"account" validate:"required"`
	Plan           *OverviewPlan  `json:"plan" validate:"required" extensions:"x-nullable"` // null once the account is closed
	Usage          []OverviewUse  `json:"usage" validate:"required"`                        // to date, in the current period
	Balance        Balance        `json:"balance" validate:"required"`
	SpendLimit     SpendLimit     `json:"spend_limit" validate:"required"`
	Absorbed       Money          `json:"absorbed" validate:"required"`                                // used beyond the spend limit in the current period, and not billed
	PaymentMethod  *PaymentMethod `json:"payment_method" validate:"required" extensions:"x-nullable"`  // the active card
	PendingUpgrade *Upgrade       `json:"pending_upgrade" validate:"required" extensions:"x-nullable"` // to be resumed or canceled
	PendingTopUp   *TopUp         `json:"pending_top_up" validate:"required" extensions:"x-nullable"`
	PaymentHistory PaymentHistory `json:"payment_history" validate:"required"`
	Actions        []Action       `json:"actions" validate:"required"` // what can be done now, and what stands in the way of the rest
} //@name Overview

// OverviewPlan is the plan that the account is on.
type OverviewPlan struct {
	Code         string `json:"code" validate:"required" example:"developer"`
	Name         string `json:"name" validate:"required" example:"Developer"`
	Description  string `json:"description" validate:"required"`
	Version      int    `json:"version" validate:"required"`
	RequiresCard bool   `json:"requires_card" validate:"required"`
} //@name OverviewPlan

// OverviewUse is what was used of a meter in the current period.
type OverviewUse struct {
	Meter     string  `json:"meter" validate:"required" example:"voice"`
	Name      string  `json:"name" validate:"required" example:"Voice"`
	Unit      string  `json:"unit" validate:"required" example:"second"`
	Quantity  string  `json:"quantity" validate:"required" format:"decimal" example:"1800000"`
	Reserved  string  `json:"reserved" validate:"required" format:"decimal" example:"0"`                              // held by calls that are going on
	Allowance *string `json:"allowance" validate:"required" extensions:"x-nullable" format:"decimal" example:"60000"` // what is free of it in a period; null where the plan has neither allowance nor price for it
	Included  *string `json:"included" validate:"required" extensions:"x-nullable" format:"decimal" example:"60000"`  // of quantity: taken by the allowance
	Billable  *string `json:"billable" validate:"required" extensions:"x-nullable" format:"decimal"`                  // the rest
	Cost      *Money  `json:"cost" validate:"required" extensions:"x-nullable"`                                       // tax not included; null where nothing has a price
	Limit     *Limit  `json:"limit" validate:"required" extensions:"x-nullable"`
	Remaining *string `json:"remaining" validate:"required" extensions:"x-nullable" format:"decimal"`
	Allowed   bool    `json:"allowed" validate:"required"` // whether more can be used now
	Reason    *string `json:"reason" validate:"required" extensions:"x-nullable" enums:"limit_reached,spend_limit_reached,account_suspended,account_closed"`
} //@name OverviewUse

// PaymentHistory is the latest payments.
type PaymentHistory struct {
	Data    []Payment `json:"data" validate:"required"`
	Message *string   `json:"message" validate:"required" extensions:"x-nullable" example:"No payment history so far."` // what to show in place of an empty list
} //@name PaymentHistory

// Action is something that can be done on the Billing page, or why it cannot be done now. The same
// function guards the request itself.
type Action struct {
	Name     string          `json:"name" validate:"required" enums:"upgrade,downgrade,cancel_downgrade,contact_sales,add_payment_method,remove_payment_method,top_up,pay_invoice,close_account"`
	Allowed  bool            `json:"allowed" validate:"required"`
	Blockers []ActionBlocker `json:"blockers" validate:"required"`
	Method   string          `json:"method" validate:"required" example:"POST"` // of the request that does it
	Href     string          `json:"href" validate:"required" example:"/v1/upgrades"`
} //@name Action

// ActionBlocker is one reason why something cannot be done now.
type ActionBlocker struct {
	Code   string         `json:"code" validate:"required" example:"outstanding_balance"`
	Detail string         `json:"detail" validate:"required"`
	Params map[string]any `json:"params" validate:"required"` // what the reason is about, by its code: outstanding, upgrade, top_up, plan
} //@name ActionBlocker

func toBlocker(b billing.Blocker) ActionBlocker { return ActionBlocker(b) }

func toAction(a billing.Action) Action {
	return Action{Name: string(a.Name), Allowed: a.Allowed, Blockers: convert(a.Blockers, toBlocker), Method: a.Method, Href: a.Href}
}

type overview struct{ Deps }

// noPayments is what the page of an account without payments says.
const noPayments = "No payment history so far."

// get shows the Billing page.
//
//	@ID				getOverview
//	@Summary		Get the whole Billing page
//	@Description	Level, usage to date, balance, active card, latest payments, and what can be done now with what stands in the way of the rest. True of every event that was acknowledged.
//	@Tags			overview
//	@Success		200	{object}	Overview
//	@Router			/v1/overview [get]
func (h overview) get(c echo.Context) error {
	o, err := billing.Reader{Core: h.Billing}.Overview(c.Request().Context(), middleware.Account(c))
	if err != nil {
		return err
	}
	return tagged(c, h.wire(o))
}

func (h overview) wire(o billing.Overview) Overview {
	f := o.Facts
	out := Overview{
		Account: toAccount(f.Account, f.Subscription), Usage: convert(o.Usage, toOverviewUse), Balance: toBalance(o.Balance),
		SpendLimit: toSpendLimit(o.SpendLimit), Absorbed: toMoney(o.Absorbed), Actions: convert(o.Actions, toAction),
		PaymentHistory: PaymentHistory{Data: convert(o.Payments, toPayment)},
	}
	if !f.Subscription.ID.IsZero() {
		out.Plan = &OverviewPlan{
			Code: string(f.Plan.Code), Name: f.Plan.Name, Description: f.Plan.Description, Version: f.Subscription.Terms.Version,
			RequiresCard: f.Plan.RequiresCard,
		}
	}
	if m := f.DefaultMethod(); m != nil {
		wire := h.toMethod(*m, withoutSecrets)
		out.PaymentMethod = &wire
	}
	if f.PendingUpgrade != nil {
		wire := toUpgrade(*f.PendingUpgrade, withoutSecrets)
		out.PendingUpgrade = &wire
	}
	if f.PendingTopUp != nil {
		wire := toTopUp(billing.TopUp{TopUp: *f.PendingTopUp}, withoutSecrets)
		out.PendingTopUp = &wire
	}
	if len(o.Payments) == 0 {
		message := noPayments
		out.PaymentHistory.Message = &message
	}
	return out
}

func toOverviewUse(u billing.MeterUse) OverviewUse {
	out := OverviewUse{
		Meter: string(u.Meter.Code), Name: u.Meter.Name, Unit: u.Meter.Unit, Quantity: u.Total.Quantity.String(), Reserved: u.Total.Reserved.String(),
		Allowed: u.Decision.Allowed, Reason: textIf(u.Decision.Reason),
	}
	if l := u.Decision.Limit; l != nil {
		out.Limit = &Limit{Meter: out.Meter, Quantity: l.Quantity.String(), Mode: string(l.Mode)}
	}
	if u.Decision.Remaining != nil {
		s := u.Decision.Remaining.String()
		out.Remaining = &s
	}
	if u.Charged {
		var included, billable money.Decimal
		cost := money.Zero(u.Currency)
		for _, l := range u.Lines {
			included, billable = included.Add(l.Included), billable.Add(l.Billable)
			cost.Minor += l.Amount.Minor // of one bill, whose total pricing has checked
		}
		al, in, bi, co := u.Allowance.String(), included.String(), billable.String(), toMoney(cost)
		out.Allowance, out.Included, out.Billable, out.Cost = &al, &in, &bi, &co
	}
	return out
}
