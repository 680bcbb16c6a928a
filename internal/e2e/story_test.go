package e2e_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// The product in its own words: "Customers log in and see their usage of voice and text to date, their
// balance and their account level. Upgrade Now asks for a card, a name, an e-mail and a billing address;
// a card that is declined charges nothing, one that asks for 3-D Secure is carried on, and the customer is
// told of success only when it is true. They add funds, edit the card, and may not remove the active one
// without support. No payment history so far is what a new customer reads."
func TestStory_DeveloperUpgradesAddsFundsAndKeepsTheCard(t *testing.T) {
	t.Parallel()
	h := newHarness(t, binary(t, "faults"))
	s := &story{h: h, customer: newCustomer(t, h.proc.api, h.deployment.token(t, "lumen-labs"))}

	s.logsInAndLooks()
	s.isDeclined()
	s.passesThreeDSecure()
	s.addsFunds()
	s.changesTheCard()
	s.mayNotRemoveTheActiveCard()
	s.contactsSales()
	s.looksBack()
	s.isWatched()

	h.checkBooks()
	h.report()
}

type story struct {
	*customer
	h       *harness
	account string // as the API shows it
	card    string // the one that is charged
}

// taken returns what the provider has taken from the customer, in cents, the oldest first.
func (s *story) taken() []int64 {
	s.t.Helper()
	got := []int64{}
	for c, err := range s.h.gateway.ListCharges(s.t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour)) {
		s.h.must(err)
		if c.Outcome == "succeeded" {
			got = append(got, c.Amount.Minor)
		}
	}
	return got
}

func (s *story) wantTaken(cents int64) {
	s.t.Helper()
	var sum int64
	for _, c := range s.taken() {
		sum += c
	}
	if sum != cents {
		s.t.Errorf("the provider has taken %d cents in all, want %d", sum, cents)
	}
}

// Nobody has opened the account: the first login does, on the Developer level.
func (s *story) logsInAndLooks() {
	s.t.Helper()
	s.post("/v1/usage/events", object{"events": []object{
		{"id": "call-1", "meter": "voice", "quantity": "1260.5", "timestamp": time.Now().UTC().Format(time.RFC3339Nano)},
		{"id": "chat-1", "meter": "text", "quantity": "480", "timestamp": time.Now().UTC().Format(time.RFC3339Nano)},
	}}).want(http.StatusOK).says(2, "accepted")

	page := s.get("/v1/overview").want(http.StatusOK)
	s.account = page.str("account", "id")
	page.says("developer", "account", "level").says("Developer", "plan", "name").
		says("1260.5", "usage", named{"meter", "voice"}, "quantity").
		says("480", "usage", named{"meter", "text"}, "quantity").
		says(0, "balance", "available", "amount").says("USD", "balance", "available", "currency").
		says(nil, "payment_method").
		says("[]", "payment_history", "data").says("No payment history so far.", "payment_history", "message").
		says(true, "actions", named{"name", "upgrade"}, "allowed").
		says(false, "actions", named{"name", "top_up"}, "allowed")
	s.post("/v1/top-ups", object{"amount": object{"amount": 5000, "currency": "USD"}}).problem(http.StatusConflict, "upgrade_required")
	s.post("/v1/upgrades/preview", object{"plan": "pro"}).want(http.StatusOK).says(true, "allowed").says(true, "requires_card").says(0, "due_now", "amount")
}

// Upgrade Now, with a card that the bank refuses.
func (s *story) isDeclined() {
	s.t.Helper()
	upgrade := object{"plan": "pro", "payment_method": object{"token": sandbox.TokenDeclined}, "billing_profile": profileBody()}
	key := s.with("Idempotency-Key", `"upgrade-declined"`)
	first := key.post("/v1/upgrades", upgrade).problem(http.StatusPaymentRequired, "card_declined").
		says("generic_decline", "decline_code")
	if again := key.post("/v1/upgrades", upgrade); string(again.body) != string(first.body) {
		s.t.Errorf("the same request was answered differently: %s", again.body)
	}
	s.get("/v1/upgrades/"+first.str("upgrade")).want(http.StatusOK).says("failed", "status")
	s.get("/v1/overview").want(http.StatusOK).says("developer", "account", "level").says(nil, "payment_method").says(nil, "pending_upgrade").
		says("No payment history so far.", "payment_history", "message")
	s.get("/v1/billing-profile").want(http.StatusOK).says(nil, "name") // what came with a bad card is not kept
	s.wantTaken(0)
}

// Upgrade Now again, with a card whose bank asks its holder.
func (s *story) passesThreeDSecure() {
	s.t.Helper()
	upgrade := object{"plan": "pro", "payment_method": object{"token": sandbox.Token3DSSetup}, "billing_profile": profileBody()}
	pending := s.post("/v1/upgrades", upgrade).want(http.StatusAccepted).says("requires_action", "status").says("redirect_to_url", "next_action", "type")
	path := "/v1/upgrades/" + pending.str("id")

	// Nothing is a success yet, whoever asks however often.
	s.post(path+"/confirm", nil).want(http.StatusOK).says("requires_action", "status")
	s.get("/v1/overview").want(http.StatusOK).says("developer", "account", "level").says(nil, "payment_method").says(pending.str("id"), "pending_upgrade", "id")
	s.post("/v1/upgrades", upgrade).problem(http.StatusConflict, "upgrade_pending").says(pending.str("id"), "upgrade")

	back := s.decide(pending.str("next_action", "url"), "approve")
	if !strings.HasPrefix(back, publicURL) {
		s.t.Errorf("the browser was sent to %s", back)
	}
	s.post(path+"/confirm", nil).want(http.StatusOK).says("succeeded", "status")
	page := s.get("/v1/overview").want(http.StatusOK).says("pro", "account", "level").says(nil, "pending_upgrade").
		says("active", "payment_method", "status").says("3155", "payment_method", "card", "last_four").says("visa", "payment_method", "card", "brand").
		says(profile.Name, "payment_method", "billing_profile", "name").
		says("1260.5", "usage", named{"meter", "voice"}, "quantity") // the period goes on
	s.card = page.str("payment_method", "id")
	s.get("/v1/billing-profile").want(http.StatusOK).says(profile.Name, "name").says(profile.Email, "email").says(profile.Address.City, "address", "city")
	s.wantTaken(0) // Pro is pay as you go: nothing is due for the upgrade itself
}

func (s *story) addsFunds() {
	s.t.Helper()
	ask := object{"amount": object{"amount": 5000, "currency": "USD"}}
	s.post("/v1/top-ups/preview", ask).want(http.StatusOK)
	key := s.with("Idempotency-Key", `"fifty-dollars"`)
	first := key.post("/v1/top-ups", ask).want(http.StatusCreated).says("succeeded", "status")
	again := key.post("/v1/top-ups", ask).want(http.StatusCreated)
	if string(again.body) != string(first.body) || again.header.Get("Idempotent-Replayed") != "true" {
		s.t.Errorf("the same request was answered differently: %s", again.body)
	}
	s.get("/v1/balance").want(http.StatusOK).says(5000, "funds", "amount").says(5000, "available", "amount")
	s.wantTaken(5000)

	for _, bad := range []struct {
		cents    int64
		currency string
		code     string
	}{
		{0, "USD", "invalid_request"},
		{-500, "USD", "invalid_request"},
		{1, "USD", "top_up_amount"},
		{100_000_000, "USD", "top_up_amount"},
		{5000, "EUR", "currency_mismatch"},
	} {
		s.post("/v1/top-ups", object{"amount": object{"amount": bad.cents, "currency": bad.currency}}).problem(http.StatusUnprocessableEntity, bad.code)
	}
	s.wantTaken(5000)
}

// Another card, given to the provider's own page, and then another address for it.
func (s *story) changesTheCard() {
	s.t.Helper()
	setup := s.post("/v1/payment-methods/setup", nil).want(http.StatusCreated)
	use := object{"setup": setup.str("id"), "billing_profile": profileBody()}
	s.post("/v1/payment-methods", use).problem(http.StatusConflict, "setup_incomplete")
	s.enterCard(setup.str("url"), sandbox.TokenMastercard).says("succeeded", "status")
	added := s.post("/v1/payment-methods", use).want(http.StatusCreated).says("active", "status").says("4444", "card", "last_four").says(true, "default")
	old, path := s.card, "/v1/payment-methods/"+added.str("id")
	s.card = added.str("id")

	tag := s.get(path).want(http.StatusOK).header.Get("ETag")
	moved := object{"billing_profile": object{"name": "Ada King", "email": profile.Email, "address": object{"line1": "1 Ockham Park", "city": "Ockham", "postal_code": "GU23 6NQ", "country": "GB"}}}
	s.do(http.MethodPatch, path, moved).want(http.StatusPreconditionRequired)
	s.with("If-Match", tag).do(http.MethodPatch, path, moved).want(http.StatusOK).says("Ockham", "billing_profile", "address", "city").says("Ada King", "billing_profile", "name")
	s.with("If-Match", tag).do(http.MethodPatch, path, moved).want(http.StatusPreconditionFailed)

	// The old card is not the active one any more, so it may go.
	tag = s.get("/v1/payment-methods/" + old).want(http.StatusOK).header.Get("ETag")
	s.with("If-Match", tag).do(http.MethodDelete, "/v1/payment-methods/"+old, nil).want(http.StatusNoContent)
	s.get("/v1/overview").want(http.StatusOK).says("4444", "payment_method", "card", "last_four").says("Ada King", "payment_method", "billing_profile", "name")
}

func (s *story) mayNotRemoveTheActiveCard() {
	s.t.Helper()
	path := "/v1/payment-methods/" + s.card
	tag := s.get(path).want(http.StatusOK).header.Get("ETag")
	refused := s.with("If-Match", tag).do(http.MethodDelete, path, nil).problem(http.StatusConflict, "active_payment_method").
		says("active_payment_method", "blockers", 0, "code").says(0, "outstanding", "amount").
		says(path+"/removal-requests", "ways_out", named{"name", "ask_support"}, "href")
	s.post(refused.str("ways_out", named{"name", "ask_support"}, "href"), object{"kind": "support", "note": "We move to another bank."}).
		want(http.StatusCreated).says("open", "status").says("support", "kind")
	s.get(path).want(http.StatusOK).says("active", "status").says(true, "default")
	s.get("/v1/overview").want(http.StatusOK).says(false, "actions", named{"name", "remove_payment_method"}, "allowed")
}

// Enterprise is agreed with a person.
func (s *story) contactsSales() {
	s.t.Helper()
	s.post("/v1/upgrades", object{"plan": "enterprise"}).problem(http.StatusConflict, "contact_sales")
	sent := s.post("/v1/sales-inquiries", object{"name": profile.Name, "email": profile.Email, "company": "Lumen Labs", "message": "Ten million calls a month."}).
		want(http.StatusCreated).says("received", "status").says("1260.5", "snapshot", "periods", 0, "usage", "voice")
	s.get("/v1/sales-inquiries").want(http.StatusOK).says(sent.str("id"), "data", 0, "id").says("received", "data", 0, "status")
}

// A second payment comes to nothing, and the history tells of both.
func (s *story) looksBack() {
	s.t.Helper()
	ctx := s.t.Context()
	m, err := s.h.db.Payments().Methods(ctx, id.MustParse[account.Account](s.account))
	s.h.must(err)
	s.h.must(sandbox.Control{BaseURL: s.h.proc.sandbox, SecretKey: derived("sandbox key")}.Behave(ctx, m[0].ProviderRef, sandbox.TokenInsufficientFunds))
	failed := s.post("/v1/top-ups", object{"amount": object{"amount": 2000, "currency": "USD"}}).
		problem(http.StatusPaymentRequired, "card_declined").says("insufficient_funds", "decline_code")
	s.get("/v1/top-ups/"+failed.str("top_up")).want(http.StatusOK).says("failed", "status")
	s.wantTaken(5000)

	history := s.get("/v1/payments").want(http.StatusOK).
		says("failed", "data", 0, "status").says(2000, "data", 0, "amount", "amount").says("insufficient_funds", "data", 0, "failure", "code").
		says("succeeded", "data", 1, "status").says(5000, "data", 1, "amount", "amount").says("top_up", "data", 1, "purpose")
	s.get("/v1/payments/"+history.str("data", 1, "id")+"/receipt").want(http.StatusOK).says("3155", "card", "last_four").says(5000, "amount", "amount")
	s.get("/v1/balance/transactions").want(http.StatusOK).says("top_up", "data", 0, "kind").says(5000, "data", 0, "balance", "amount")
	s.get("/v1/overview").want(http.StatusOK).says("pro", "account", "level").says(nil, "payment_history", "message").
		says(2000, "payment_history", "data", 0, "amount", "amount").says(5000, "payment_history", "data", 1, "amount", "amount").
		says(5000, "balance", "funds", "amount")
}

// Whoever runs the service sees what happened in its metrics.
func (s *story) isWatched() {
	s.t.Helper()
	measures := string(s.get("/metrics").want(http.StatusOK).body)
	for _, want := range []string{
		`accrue_usage_events_total{result="accepted"} 2`,
		`accrue_provider_call_duration_seconds_count{call="attach",outcome="declined"} 1`,
		`accrue_provider_call_duration_seconds_count{call="charge",outcome="succeeded"} 1`,
		`accrue_provider_call_duration_seconds_count{call="charge",outcome="declined"} 1`,
		`accrue_sweeps_total{result="incomplete"} 0`,
		`accrue_broken_invariants 0`,
	} {
		if !strings.Contains(measures, "\n"+want+"\n") {
			s.t.Errorf("no %s among the metrics", want)
		}
	}
}
