package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/accrue-billing/accrue/api/openapi"
)

// Answers are those of the tests (api/v1/testdata), by the name of their schema or, where an operation has another
// one, by the operation and its status. Several are separated by spaces.
var answers = map[string]string{
	"Account": "account", "AccountEvents": "events", "AdminAccountDetail": "admin_account", "AdminRefund": "admin_refund",
	"AdminRemovalRequest": "admin_removal_declined", "AutoTopUp": "auto_top_up", "Balance": "balance", "BillingProfile": "billing_profile",
	"CatalogueEffects": "admin_catalogue", "CheckReport": "admin_checks", "Contract": "admin_contract", "ContractPreview": "admin_contract_preview",
	"Credit": "admin_credit", "CreditNote": "credit_note", "Downgrade": "downgrade", "Entitlement": "entitlement", "Estimate": "estimate",
	"Invoice": "invoice", "LineExplanation": "explanation", "LineVerification": "verification", "Overview": "overview_developer overview_pro",
	"Page-APIKey": "platform_keys", "Page-AdminPlan": "admin_plans", "Page-AdminRemovalRequest": "admin_removal_requests",
	"Page-AdminSalesInquiry": "admin_sales_inquiries", "Page-AuditEntry": "admin_audit_log", "Page-BalanceTransaction": "balance_transactions",
	"Page-Contract": "admin_contracts", "Page-Credit": "admin_credits", "Page-CreditNote": "credit_notes", "Page-Invoice": "invoices",
	"Page-ParkedPayment": "admin_parked_payments", "Page-Payment": "payments", "Page-Plan": "plans", "Page-PlanMigration": "admin_migrations",
	"Page-PlanVersion": "admin_plan_versions", "Page-TopUp": "top_ups", "Page-Upgrade": "upgrades", "Page-UsageAlert": "usage_alerts",
	"Page-UsageRecord": "usage_event", "Payment": "payment", "PaymentMethod": "payment_method", "Plan": "plan_pro", "PlanFit": "plan_fit",
	"PlanMigration": "admin_migration", "PlanVersion": "admin_plan_version", "Proof": "admin_proof", "Receipt": "receipt",
	"Reconciliation": "reconciliation", "Refund": "refund", "RemovalRequest": "removal_request", "Repricing": "admin_migration_preview",
	"Run": "admin_invoice_run", "Runway": "runway", "SalesInquiry": "sales_inquiry", "SpendLimit": "spend_limit", "TestClockAdvanced": "admin_test_clock",
	"TopUp": "top_up", "TopUpPreview": "top_up_preview", "UpcomingInvoice": "invoice_upcoming", "Upgrade": "upgrade", "UpgradePreview": "upgrade_preview",
	"Usage": "usage", "UsageAlert": "usage_alert", "UsageResults": "usage_events_accepted usage_events_mixed", "UsageSeries": "usage_series",

	"adminArchivePlanVersion 200": "admin_plan_archived", "adminCancelMigration 200": "admin_migration_canceled", "adminEndContract 200": "admin_contract_ended",
	"closeAccount 200": "account_closed", "createAccount 201": "admin_account_created", "voidInvoice 200": "invoice_void",
	"createPaymentMethod 202": "payment_method_3ds", "createTopUp 202": "top_up_3ds", "createUpgrade 202": "upgrade_3ds",
	"createPaymentMethod 402": "problem_card_declined", "createTopUp 402": "problem_top_up_declined", "createTopUp 422": "problem_top_up_amount",
	"createUpgrade 402": "problem_upgrade_declined", "deletePaymentMethod 409": "problem_active_card", "payInvoice 402": "problem_card_declined",

	"BadRequest": "problem_key_required", "NotFound": "problem_not_found", "PreconditionFailed": "problem_stale", "UnprocessableEntity": "problem_fields",
}

const (
	dollars = `{"amount": 5000, "currency": "USD"}`
	profile = `{"name": "Ada Lovelace", "email": "ada@example.com", "address": {"line1": "12 St James's Square", "city": "London", "postal_code": "SW1Y 4JH", "country": "GB"}}`
	held    = `{"id": "rsv_…", "meter": "voice", "status": "open", "quantity": "600", "used": null, "reference": "call-8f2c", "expires_at": "2026-03-10T09:10:00Z", "created_at": "2026-03-10T09:00:00Z", "settled_at": null, "lease": `
)

// written are answers that differ from run to run, and what is sent, by the name of their schema.
var written = map[string]string{ //nolint:gosec // examples, no credential
	"APIKey": `{"id": "key_…", "name": "billing server", "prefix": "acr_test_", "last_four": "XDRI", "scopes": ["usage:write"], "ceilings": {"per_payment": null, "per_day": null},
		"status": "active", "created_at": "2026-03-10T09:00:00Z", "expires_at": null, "revoked_at": null, "last_used_at": null}`,
	"AdminAccount": `{"id": "acct_…", "external_id": "lumen", "name": "Lumen Labs", "level": "pro", "status": "active", "currency": "USD", "time_zone": "Europe/Berlin",
		"current_period": {"from": "2026-03-09T23:00:00Z", "to": "2026-04-09T22:00:00Z"}, "next_level": null, "test_clock": null, "funds": ` + dollars + `, "due": {"amount": 0, "currency": "USD"},
		"created_at": "2026-03-10T09:00:00Z", "updated_at": "2026-03-10T09:00:00Z"}`,
	"AdminSalesInquiry": `{"id": "inq_…", "account": "acct_…", "status": "in_progress", "name": "Ada", "email": "ada@example.com", "company": "Lumen", "message": "hello", "note": "called her",
		"snapshot": {}, "created_at": "2026-03-10T09:00:00Z", "updated_at": "2026-03-10T10:00:00Z"}`,
	"Entitlements": `{"data": [{"meter": "text", "allowed": true, "reason": null, "limit": "10000", "mode": "hard", "used": "0", "reserved": "0", "remaining": "10000", "resets_at": "2026-04-10T00:00:00Z"}]}`,
	"Reservation":  held + `false}`, "ExtendedReservation": held + `false}`,
	"Lease":               held + `true, "token": "eyJhbGciOiJFZERTQSIsInR5cCI6ImxlYXNlK2p3dCIsImtpZCI6IkNtbjBPZWpSV2Y2N0s3TVYifQ.e30.c2lnbmF0dXJl"}`,
	"LeaseKeys":           `{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "MGI-iicB7aeDOG2oiL2jGeGGmCvaNCttUU7QBLHApTk", "kid": "Cmn0OejRWf67K7MV", "alg": "EdDSA", "use": "sig"}]}`,
	"GatewayEventReceipt": `{"received": true, "duplicate": false}`,
	"PaymentMethodSetup":  `{"id": "seti_…", "provider": "sandbox", "client_secret": "seti_sbx_1_secret_2", "publishable_key": "pk_sandbox", "url": "https://provider.example/card/1", "expires_at": "2026-03-10T09:30:00Z"}`,
	"TestClock":           `{"account": "acct_…", "now": "2026-03-10T09:00:00Z", "frozen": false}`,
	"UsageCorrection": `{"id": "cor_…", "event_id": "call-8f2c", "source": "default", "meter": "voice", "action": "amend", "before": "63.5", "after": "60", "timestamp": "2026-03-10T08:15:00Z",
		"reason": "The call was dropped by us.", "created_by": "user_8841", "created_at": "2026-03-10T09:00:00Z"}`,

	"APIKeyRotation": `{"overlap_seconds": 86400}`, "AccountChange": `{"name": "Lumen Labs", "time_zone": "Europe/Berlin"}`, "AccountClosing": `{"reason": "asked by letter"}`,
	"AutoTopUpInput":      `{"enabled": true, "threshold": {"amount": 1000, "currency": "USD"}, "target": ` + dollars + `, "monthly_ceiling": {"amount": 20000, "currency": "USD"}}`,
	"BillingProfileInput": profile, "CommitReservation": `{"quantity": "421.5", "dimensions": {"project": "helpdesk"}}`, "ContractEnd": `{"reason": "terminated by the customer"}`,
	"EstimateRequest": `{"plan": "pro", "currency": "USD", "usage": {"voice": "600000", "text": "25000"}}`, "ExtendReservation": `{"ttl_seconds": 1200}`,
	"InvoicePaymentRequest": `{"payment_method": "pm_…"}`, "MigrationQuestion": `{"to": 2}`,
	"NewAPIKey":        `{"name": "billing server", "scopes": ["usage:write", "usage:read"]}`,
	"NewAccount":       `{"external_id": "lumen", "name": "Lumen Labs", "currency": "USD", "time_zone": "Europe/Berlin"}`,
	"NewCredit":        `{"amount": ` + dollars + `, "reason": "welcome", "expires_at": "2027-01-01T00:00:00Z"}`,
	"NewCreditNote":    `{"invoice": "inv_…", "amount": ` + dollars + `, "reason": "billed twice for one call"}`,
	"NewDowngrade":     `{"plan": "developer"}`,
	"NewPaymentMethod": `{"token": "pm_sandbox_visa", "billing_profile": ` + profile + `}`, "NewPlanMigration": `{"to": 2, "when": "period_end", "reason": "prices of spring"}`,
	"NewReconciliation": `{"meter": "voice", "hours": [{"hour": "2026-03-10T08:00:00Z", "events": 120}]}`,
	"NewRefund":         `{"payment": "pay_…", "amount": ` + dollars + `, "reason": "charged for an outage of ours"}`,
	"NewRemovalRequest": `{"kind": "support", "note": "We move to another bank."}`, "NewReservation": `{"meter": "voice", "quantity": "600", "ttl_seconds": 600, "reference": "call-8f2c"}`,
	"NewSalesInquiry":     `{"name": "Ada Lovelace", "email": "ada@example.com", "company": "Lumen Labs", "message": "We make a million calls a month."}`,
	"NewTopUp":            `{"amount": ` + dollars + `}`,
	"NewUpgrade":          `{"plan": "pro", "payment_method": {"token": "pm_sandbox_visa"}, "billing_profile": ` + profile + `}`,
	"NewUsageAlert":       `{"kind": "low_balance", "amount": ` + dollars + `}`,
	"NewUsageCorrection":  `{"id": "call-8f2c", "action": "amend", "quantity": "60", "reason": "The call was dropped by us."}`,
	"ParkedResolution":    `{"decision": "ask", "reason": "the provider has corrected the amount"}`,
	"PaymentMethodChange": `{"exp_month": 12, "exp_year": 2031}`, "Reason": `{"reason": "given twice"}`, "RemovalDecision": `{"decision": "approve", "reason": "as you asked"}`,
	"SalesInquiryChange": `{"status": "in_progress", "note": "called on Monday"}`, "SpendLimitInput": `{"amount": ` + dollars + `, "mode": "hard"}`,
	"TestClockAdvance": `{"now": "2027-01-15T00:00:00Z"}`, "UpgradeQuestion": `{"plan": "pro"}`,
	"createUsageEvents": `{"events": [{"id": "call-8f2c", "meter": "voice", "quantity": "63.5", "timestamp": "2026-11-24T12:07:00Z", "dimensions": {"project": "helpdesk"}}]}`,
}

// whole gives what the tests leave out of their files, since it differs from run to run.
var whole = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`urn:uuid:…`), "urn:uuid:01a0b9f2-7c50-7d05-8d1c-5a2b6f5f3c11"},
	{regexp.MustCompile(`"last_four": "…"`), `"last_four": "4242"`},
	{regexp.MustCompile(`…-(\d{6})`), "sqjqw823-${1}"},
	{regexp.MustCompile(`_sbx_…`), "_sbx_ohjngceepjdfnjmjmjmhijop"},
	{regexp.MustCompile(`\b([a-z]{2,5})_…`), "${1}_01jqxyzabcdefghjkmnpqrstvw"},
	{regexp.MustCompile(`example/…`), "example/3ds/auth_1"},
	{regexp.MustCompile(`"…"`), `"` + strings.Repeat("9f86d081884c7d65", 4) + `"`},
}

// examples returns all of them by schema, or by operation and status, and then by their own name.
func examples(folder string) (openapi.Examples, error) {
	out := openapi.Examples{}
	add := func(of, name, text string) error {
		for _, w := range whole {
			text = w.pattern.ReplaceAllString(text, w.with)
		}
		var v any
		if err := json.Unmarshal([]byte(text), &v); err != nil {
			return fmt.Errorf("example of %s: %w", of, err)
		}
		if out[of] == nil {
			out[of] = map[string]any{}
		}
		out[of][name] = v
		return nil
	}
	for of, names := range answers {
		for name := range strings.FieldsSeq(names) {
			text, err := os.ReadFile(filepath.Join(folder, name+".golden.json")) //nolint:gosec // names of ours
			if err != nil {
				return nil, err
			}
			if err := add(of, name, string(text)); err != nil {
				return nil, err
			}
		}
	}
	for of, text := range written {
		if err := add(of, "example", text); err != nil {
			return nil, err
		}
	}
	return out, nil
}
