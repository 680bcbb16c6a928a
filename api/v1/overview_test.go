package v1_test

import (
	"net/http"
	"testing"

	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func TestOverview(t *testing.T) {
	t.Parallel()

	t.Run("DeveloperSeesNoPaymentHistoryAndAnOpenUpgrade", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		w.use(t, a.ID, "voice", "600")
		ada := w.user(t, a.ID)
		got := ada.get(t, "/v1/overview").want(t, http.StatusOK).golden(t, "overview_developer")
		if m := got.str(t, "payment_history", "message"); m != "No payment history so far." {
			t.Errorf("message %q", m)
		}
		tag := got.Header.Get("ETag")
		ada.with("If-None-Match", tag).get(t, "/v1/overview").want(t, http.StatusNotModified)
		w.use(t, a.ID, "voice", "1") // acknowledged, so it is in the next read
		fresh := ada.with("If-None-Match", tag).get(t, "/v1/overview").want(t, http.StatusOK)
		for i, u := range fresh.at(t, "usage").([]any) {
			if q := fresh.str(t, "usage", i, "quantity"); u.(map[string]any)["meter"] == "voice" && q != "601" {
				t.Errorf("quantity %s, want 601", q)
			}
		}
	})

	t.Run("ProSeesCardCostAndPayments", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.upgraded(t, sandbox.TokenVisa)
		w.use(t, a.ID, "voice", "1800000")
		ada.post(t, "/v1/top-ups", `{"amount":{"amount":5000,"currency":"USD"}}`).want(t, http.StatusCreated)
		ada.get(t, "/v1/overview").want(t, http.StatusOK).golden(t, "overview_pro")
	})
}

// What the page shows as blocked is refused by the request itself, with the same code.
func TestActionsGuardTheRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	ada := w.user(t, a.ID)
	got := ada.get(t, "/v1/overview").want(t, http.StatusOK)
	bodies := map[string]string{
		"upgrade": upgradeBody(sandbox.TokenVisa), "downgrade": `{"plan":"developer"}`, "contact_sales": `{"name":"Ada","email":"ada@example.com"}`,
		"add_payment_method": `{"token":"pm_sandbox_visa","billing_profile":` + profileJSON + `}`, "top_up": `{"amount":{"amount":5000,"currency":"USD"}}`,
	}
	actions, _ := got.at(t, "actions").([]any)
	blocked := 0
	for i := range actions {
		name := got.str(t, "actions", i, "name")
		body, ok := bodies[name]
		if !ok || got.at(t, "actions", i, "allowed") == true {
			continue
		}
		blocked++
		res := ada.do(t, got.str(t, "actions", i, "method"), got.str(t, "actions", i, "href"), body)
		res.problem(t, http.StatusConflict, got.str(t, "actions", i, "blockers", 0, "code"))
	}
	if blocked != 2 {
		t.Errorf("%d blocked actions were tried, want the downgrade and the top-up", blocked)
	}
}
