package v1_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
)

// agreement is a contract in every respect: prices, fee, minimum, limits, a ramp.
const agreement = `
plan: enterprise
reference: MER-2026-001
end: 2027-03-10T00:00:00Z
then: pro
fee: {name: Support, prices: {USD: 500}}
minimum: {USD: 100}
charges:
  - {meter: voice, per: minute, prices: {USD: {model: per_unit, unit_price: "0.011"}}}
  - {meter: text, prices: {USD: {model: per_unit, unit_price: "0.00008"}}}
limits:
  - {meter: call_score, quantity: 500, mode: soft}
unlimited: [voice, text]
start: 2026-03-10T00:00:00Z
commitment:
  overage_rate: 90
  steps:
    - {from: 2026-03-10T00:00:00Z, sums: {USD: 750}}
    - {from: 2026-09-10T00:00:00Z, sums: {USD: 1000}}
`

func TestAdminContracts(t *testing.T) {
	t.Parallel()

	t.Run("AgreedAtOnce", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.upgraded(t, "pm_sandbox_visa")
		op := w.operator(t, a.ID)
		w.use(t, a.ID, "voice", "600000")
		op.document(t, "/v1/admin/contracts/preview", agreement).want(t, http.StatusOK).golden(t, "admin_contract_preview")
		if n := len(op.get(t, "/v1/admin/contracts").at(t, "data").([]any)); n != 0 {
			t.Errorf("a preview has left %d contracts", n)
		}
		first := op.key("c").document(t, "/v1/admin/contracts", agreement).want(t, http.StatusCreated).golden(t, "admin_contract")
		if again := op.key("c").document(t, "/v1/admin/contracts", agreement).want(t, http.StatusCreated); string(again.Body) != string(first.Body) {
			t.Errorf("a repetition answered %s", again.Body)
		}
		path := "/v1/admin/contracts/" + first.str(t, "id")
		if first.Header.Get("Location") != path {
			t.Errorf("made at %q", first.Header.Get("Location"))
		}
		op.get(t, path).want(t, http.StatusOK)
		op.get(t, "/v1/admin/contracts").want(t, http.StatusOK).golden(t, "admin_contracts")
		// 500.00 fee, 10,000 minutes at 0.011 = 110.00, and 640.00 to the 750.00 that were agreed.
		if got := ada.get(t, "/v1/invoices/upcoming").at(t, "total", "amount"); got != 125000.0 {
			t.Errorf("the running period comes to %v", got)
		}
		ada.post(t, "/v1/downgrades", `{"plan":"developer"}`).problem(t, http.StatusConflict, "under_contract")
		op.post(t, path+"/end", `{"reason":"terminated"}`).want(t, http.StatusOK).golden(t, "admin_contract_ended")
		op.post(t, path+"/end", `{"reason":"terminated"}`).problem(t, http.StatusConflict, "contract_over")
		w.advance(start.AddDate(0, 1, 0).Sub(start))
		w.sweep(t)
		if level := ada.get(t, "/v1/account").str(t, "level"); level != "pro" {
			t.Errorf("level %s after the contract", level)
		}
		if s := op.get(t, path).str(t, "status"); s != "ended" {
			t.Errorf("status %s", s)
		}
	})

	t.Run("BeginsLater", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.upgraded(t, "pm_sandbox_visa")
		op := w.operator(t, a.ID)
		const later = "{plan: enterprise, reference: C-2, start: \"2026-04-01T00:00:00Z\", charges: [{meter: voice, prices: {USD: {model: per_unit, unit_price: \"0.001\"}}}]}"
		op.document(t, "/v1/admin/contracts/preview", later).want(t, http.StatusOK)
		first := op.document(t, "/v1/admin/contracts", later).want(t, http.StatusCreated).golden(t, "admin_contract_scheduled")
		refused := op.document(t, "/v1/admin/contracts", later).problem(t, http.StatusConflict, "contract_scheduled")
		if refused.str(t, "contract") != first.str(t, "id") {
			t.Errorf("the refusal names %q", refused.str(t, "contract"))
		}
		op.document(t, "/v1/admin/contracts/preview", later).problem(t, http.StatusConflict, "contract_scheduled")
		if level := ada.get(t, "/v1/account").str(t, "level"); level != "pro" {
			t.Errorf("level %s before its start", level)
		}
		w.advance(time.Date(2026, 4, 10, 0, 0, 0, 0, time.UTC).Sub(w.clock()))
		w.sweep(t)
		if level := ada.get(t, "/v1/account").str(t, "level"); level != "enterprise" {
			t.Errorf("level %s after its start", level)
		}
	})

	// Pro stops real-time assist at 300 seconds and has 50 connections; voice has no limit.
	t.Run("ItsLimitsHold", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.upgraded(t, "pm_sandbox_visa")
		op := w.operator(t, a.ID)
		report := func(meter, quantity string) string {
			t.Helper()
			id := uuid.NewString()
			got := ada.post(t, "/v1/usage/events", fmt.Sprintf(`{"events":[{"id":%q,"meter":%q,"quantity":%q,"timestamp":"2026-03-10T08:15:00Z"}]}`, id, meter, quantity)).want(t, http.StatusOK)
			return strings.TrimSpace(got.str(t, "results", 0, "status") + " " + got.str(t, "results", 0, "code"))
		}
		connect := func(want int) {
			t.Helper()
			ada.post(t, "/v1/usage/reservations", `{"meter":"concurrent_connections","quantity":"1"}`).want(t, want)
		}
		entitled := func(meter, limit, remaining string, allowed bool) {
			t.Helper()
			got := ada.get(t, "/v1/entitlements/"+meter+"?strict=true").want(t, http.StatusOK)
			if got.str(t, "limit") != limit || got.str(t, "remaining") != remaining || got.at(t, "allowed") != allowed {
				t.Errorf("%s: want %s, %s left, %v: %s", meter, limit, remaining, allowed, got.Body)
			}
		}
		if got := report("realtime_assist", "301"); got != "rejected limit_reached" {
			t.Fatalf("beyond the limit of Pro: %s", got)
		}
		connect(http.StatusCreated)

		k := op.document(t, "/v1/admin/contracts", `
plan: pro
reference: LIM-1
limits:
  - {meter: realtime_assist, quantity: 10, unit: minute}
  - {meter: concurrent_connections, quantity: 2}
  - {meter: voice, quantity: 100, mode: hard}
  - {meter: text, quantity: 50, mode: soft}
`).want(t, http.StatusCreated)
		for _, c := range []struct{ meter, quantity, want string }{
			{"realtime_assist", "301", "accepted"}, // raised: 300 is 600 now
			{"realtime_assist", "300", "rejected limit_reached"},
			{"realtime_assist", "299", "accepted"},
			{"voice", "100", "accepted"}, // added
			{"voice", "0.1", "rejected limit_reached"},
			{"text", "60", "accepted"}, // counted, and flagged
			{"call_score", "1000", "accepted"},
		} {
			if got := report(c.meter, c.quantity); got != c.want {
				t.Errorf("%s of %s under the contract: %s, want %s", c.quantity, c.meter, got, c.want)
			}
		}
		connect(http.StatusCreated)
		connect(http.StatusConflict) // lowered: the third of 2
		entitled("realtime_assist", "600", "0", false)
		entitled("voice", "100", "0", false)
		entitled("text", "50", "0", true)

		op.post(t, "/v1/admin/contracts/"+k.str(t, "id")+"/end", `{"reason":"terminated"}`).want(t, http.StatusOK)
		w.advance(time.Date(2026, 4, 10, 8, 0, 0, 0, time.UTC).Sub(w.clock()))
		w.sweep(t)
		entitled("realtime_assist", "300", "300", true) // those of Pro again
		ada.post(t, "/v1/usage/events", `{"events":[{"id":"a","meter":"voice","quantity":"5000","timestamp":"2026-04-10T07:00:00Z"}]}`).want(t, http.StatusOK)
		w.check(t)
	})

	// 100.00 are paid ahead; 90.00 are used of them in the first month and 30.00 in the second.
	t.Run("PaidAhead", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.upgraded(t, "pm_sandbox_visa")
		op := w.operator(t, a.ID)
		op.document(t, "/v1/admin/contracts", `
plan: enterprise
reference: PRE-1
start: 2026-03-10T00:00:00Z
charges:
  - {meter: voice, per: minute, prices: {USD: {model: per_unit, unit_price: "0.01"}}}
commitment: {prepaid: true, steps: [{from: 2026-03-10T00:00:00Z, sums: {USD: 100}}]}
`).want(t, http.StatusCreated)
		w.sweep(t)
		ahead := ada.get(t, "/v1/invoices")
		if ahead.str(t, "data", 0, "kind") != "prepayment" || ahead.str(t, "data", 0, "status") != "paid" || ahead.at(t, "data", 0, "total", "amount") != 10000.0 {
			t.Fatalf("paid ahead: %s", ahead.Body)
		}
		w.use(t, a.ID, "voice", "540000")
		if up := ada.get(t, "/v1/invoices/upcoming"); up.at(t, "total", "amount") != 0.0 {
			t.Errorf("the running month: %s", up.Body)
		}
		w.advance(start.AddDate(0, 1, 1).Sub(w.clock()))
		w.sweep(t)
		w.sweep(t)
		w.use(t, a.ID, "voice", "180000")
		w.advance(start.AddDate(0, 2, 1).Sub(w.clock()))
		w.sweep(t)
		w.sweep(t)
		second := ada.get(t, "/v1/invoices").str(t, "data", 0, "id")
		inv := ada.get(t, "/v1/invoices/"+second).want(t, http.StatusOK).golden(t, "invoice_drawdown")
		if inv.at(t, "total", "amount") != 2000.0 || inv.str(t, "status") != "paid" {
			t.Errorf("20.00 are beyond, and the card has paid them: %s", inv.Body)
		}
		line := "/v1/invoices/" + second + "/lines/2/explanation"
		ada.get(t, line).want(t, http.StatusOK).golden(t, "explanation_drawdown")
		if got := ada.with("Idempotency-Key", "-").post(t, line+"/verify", ""); got.at(t, "verified") != true {
			t.Errorf("%s", got.Body)
		}
		w.check(t)
	})

	t.Run("NamesEveryFault", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.upgraded(t, "pm_sandbox_visa")
		op := w.operator(t, a.ID)
		for _, c := range []struct{ text, code, pointer string }{
			{"{reference: C}", "catalogue_invalid", "#/plan"},
			{"{plan: enterprise}", "catalogue_invalid", "#/reference"},
			{"{plan: none, reference: C}", "invalid_request", "#/plan"},
			{"{plan: enterprise, version: 9, reference: C}", "invalid_request", "#/plan"},
			{"{plan: enterprise, reference: C, then: none}", "invalid_request", "#/then"},
			{"{plan: enterprise, reference: C, colour: red}", "catalogue_invalid", "#/colour"},
			{"{plan: enterprise, reference: C, unlimited: [smoke]}", "catalogue_invalid", "#/unlimited/0"},
			{"{plan: enterprise, reference: C, charges: [{meter: voice, prices: {EUR: {model: per_unit, unit_price: 1}}}]}", "catalogue_invalid", "#/charges/0/prices/EUR"},
			{"{plan: enterprise, reference: C, charges: [{meter: voice, prices: {USD: {model: per_unit, unit_price: -1}}}]}", "catalogue_invalid", "#/charges/0/prices/USD/unit_price"},
			{"{plan: enterprise, reference: C, start: \"2026-03-10T00:00:00Z\", end: \"2026-03-09T00:00:00Z\"}", "catalogue_invalid", "#/end"},
			{"{plan: enterprise, reference: C, commitment: {steps: []}}", "catalogue_invalid", "#/start"},
			{"{plan: enterprise, reference: C, start: \"2026-03-10T00:00:00Z\", commitment: {term: true, steps: [{from: \"2026-03-10T00:00:00Z\", sums: {USD: 1}}]}}", "catalogue_invalid", "#/commitment/term"},
			{"{plan: enterprise, reference: C, currencies: [EUR], charges: [{meter: voice, prices: {EUR: {model: per_unit, unit_price: 1}}}]}", "currency_mismatch", ""},
		} {
			got := op.document(t, "/v1/admin/contracts", c.text).problem(t, http.StatusUnprocessableEntity, c.code)
			if c.pointer != "" && got.str(t, "errors", 0, "pointer") != c.pointer {
				t.Errorf("%s points at %s, want %s", c.text, got.str(t, "errors", 0, "pointer"), c.pointer)
			}
		}
		op.document(t, "/v1/admin/contracts", "{plan: enterprise, reference: C, end: \"2026-03-10T00:00:00Z\"}").problem(t, http.StatusConflict, "contract_over")
		op.document(t, "/v1/admin/contracts", ": [").problem(t, http.StatusBadRequest, "catalogue_unreadable")
		if n := len(op.get(t, "/v1/admin/contracts").at(t, "data").([]any)); n != 0 {
			t.Errorf("%d contracts are left of what was refused", n)
		}
		op.get(t, "/v1/admin/contracts/ctr_x").problem(t, http.StatusNotFound, "contract_not_found")
		op.post(t, "/v1/admin/contracts/ctr_x/end", `{"reason":"x"}`).problem(t, http.StatusNotFound, "contract_not_found")
		ada.get(t, "/v1/admin/contracts").problem(t, http.StatusForbidden, "insufficient_scope")
		w.operator(t, account.ID{}).get(t, "/v1/admin/contracts").problem(t, http.StatusBadRequest, "account_required")
	})
}
