package v1_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func TestAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	ada := w.user(t, a.ID)

	got := ada.get(t, "/v1/account").want(t, http.StatusOK).golden(t, "account")
	tag := got.Header.Get("ETag")
	ada.with("If-None-Match", tag).get(t, "/v1/account").want(t, http.StatusNotModified)

	ada.do(t, http.MethodPatch, "/v1/account", `{"name":"Ada Ltd"}`).problem(t, http.StatusPreconditionRequired, "if_match_required")
	ada.with("If-Match", tag).do(t, http.MethodPatch, "/v1/account", `{"time_zone":"Mars/Olympus"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	ada.with("If-Match", tag).do(t, http.MethodPatch, "/v1/account", `{"currency":"EUR"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request").
		golden(t, "problem_unknown_member")
	patched := ada.with("If-Match", tag).do(t, http.MethodPatch, "/v1/account", `{"name":"Ada Ltd","time_zone":"Europe/London"}`).want(t, http.StatusOK)
	if patched.str(t, "name") != "Ada Ltd" || patched.Header.Get("ETag") == tag {
		t.Errorf("%s, tag %s", patched.Body, patched.Header.Get("ETag"))
	}

	ada.with("If-Match", tag).do(t, http.MethodPatch, "/v1/account", `{"name":"Too late"}`).problem(t, http.StatusPreconditionFailed, "stale_version").
		golden(t, "problem_stale")
	if name := ada.get(t, "/v1/account").str(t, "name"); name != "Ada Ltd" {
		t.Errorf("a stale change left %q", name)
	}
	ada.with("If-Match", "*").do(t, http.MethodPatch, "/v1/account", `{"name":"Whatever it is"}`).want(t, http.StatusOK)

	// A change of plan changes what the account says, and so its tag.
	tag = ada.get(t, "/v1/account").Header.Get("ETag")
	ada.post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).want(t, http.StatusCreated)
	after := ada.with("If-None-Match", tag).get(t, "/v1/account").want(t, http.StatusOK)
	if level := after.str(t, "level"); level != "pro" {
		t.Errorf("level %q", level)
	}

	w.user(t, a.ID, auth.UsageRead).get(t, "/v1/account").problem(t, http.StatusForbidden, "insufficient_scope")
}

func TestBillingProfile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.user(t, w.open(t).ID)

	empty := ada.get(t, "/v1/billing-profile").want(t, http.StatusOK).golden(t, "billing_profile_empty")
	if tag := empty.Header.Get("ETag"); tag != `"v0"` {
		t.Errorf("tag %s, want \"v0\"", tag)
	}
	put := func(tag, body string) response {
		return ada.with("If-Match", tag).do(t, http.MethodPut, "/v1/billing-profile", body)
	}
	put(`"v0"`, `{"name":"","email":"nobody","address":{"line1":"x","city":"y","country":"XX"}}`).
		problem(t, http.StatusUnprocessableEntity, "invalid_request").golden(t, "problem_fields")
	put(`"v0"`, profileJSON).want(t, http.StatusOK).golden(t, "billing_profile")
	put(`"v0"`, `{"name":"Eve","email":"eve@example.com","address":{"line1":"x","city":"y","country":"GB"}}`).
		problem(t, http.StatusPreconditionFailed, "stale_version")
	if name := ada.get(t, "/v1/billing-profile").str(t, "name"); name != "Ada Lovelace" {
		t.Errorf("a stale change left %q", name)
	}
}

func TestCloseAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	w.use(t, a.ID, "voice", "1800000")
	ada.post(t, "/v1/account/close", `{}`).problem(t, http.StatusConflict, "outstanding_balance").golden(t, "problem_blocked")

	ada.post(t, "/v1/top-ups", `{"amount":{"amount":100000,"currency":"USD"}}`).want(t, http.StatusCreated)
	ada = ada.key("close")
	first := ada.post(t, "/v1/account/close", `{"reason":"moving on"}`).want(t, http.StatusOK).golden(t, "account_closed")
	again := ada.post(t, "/v1/account/close", `{"reason":"moving on"}`).want(t, http.StatusOK)
	if string(again.Body) != string(first.Body) || again.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("a repetition answered %s", again.Body)
	}
	if funds := ada.get(t, "/v1/balance").at(t, "funds", "amount"); funds != 0.0 {
		t.Errorf("funds %v after closing, want them refunded", funds)
	}
	ada.get(t, "/v1/account").want(t, http.StatusOK)
	ada.get(t, "/v1/overview").want(t, http.StatusOK).golden(t, "overview_closed")
	ada.post(t, "/v1/top-ups/preview", `{"amount":{"amount":100000,"currency":"USD"}}`).problem(t, http.StatusConflict, "account_closed")
	ada.with("If-Match", "*").do(t, http.MethodPatch, "/v1/account", `{"name":"x"}`).problem(t, http.StatusConflict, "account_closed")
	w.advance(time.Hour)
}
