package billing

import "github.com/accrue-billing/accrue/internal/errs"

// Errors that belong to no one concept.
var (
	ErrContactSales    = errs.New(errs.Conflict, "contact_sales", "This plan is agreed with a person. Send POST /v1/sales-inquiries and we will be in touch.")
	ErrNotAnUpgrade    = errs.New(errs.Conflict, "not_an_upgrade", "The account's plan is this one or a higher one already.")
	ErrUpgradeRequired = errs.New(errs.Conflict, "upgrade_required", "A Developer account is free and takes no funds. Upgrade to Pro first: POST /v1/upgrades.")
	ErrNotSold         = errs.New(errs.Conflict, "plan_not_sold", "The plan is no longer sold; plans names those that are.")
	ErrInterval        = errs.New(errs.Conflict, "interval_mismatch", "The plan is billed by another interval than the running period, which goes on. It can be agreed with sales from the next period on.")
	ErrCardRequired    = errs.New(errs.Invalid, "payment_method_required", "This plan needs a card. Give payment_method, or add a card first.")
	ErrCardBudget      = errs.New(errs.Conflict, "card_attempts_exhausted", "This card was declined too often. Use another card.")
	ErrBlocked         = errs.New(errs.Conflict, "action_blocked", "This is not possible now; blockers say why and what to do.")
	ErrTopUpAmount     = errs.New(errs.Invalid, "top_up_amount", "The amount is outside what one top-up may be.")
	ErrCurrency        = errs.New(errs.Invalid, "currency_mismatch", "The amount is in another currency than the account.")
	ErrCeiling         = errs.New(errs.Forbidden, "ceiling_exceeded", "The API key may not move so much money.")
)
