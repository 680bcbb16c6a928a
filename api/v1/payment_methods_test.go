package v1_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func cardBody(token string) string {
	return fmt.Sprintf(`{"token":%q,"billing_profile":%s}`, token, profileJSON)
}

func TestPaymentMethods(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	ada := w.user(t, a.ID)
	ada.get(t, "/v1/payment-methods").want(t, http.StatusOK).golden(t, "payment_methods_empty")

	created := ada.key("k").post(t, "/v1/payment-methods", cardBody(sandbox.TokenVisa)).want(t, http.StatusCreated).golden(t, "payment_method")
	again := ada.key("k").post(t, "/v1/payment-methods", cardBody(sandbox.TokenVisa)).want(t, http.StatusCreated)
	if string(again.Body) != string(created.Body) || again.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("a repetition answered %s", again.Body)
	}
	ada.key("k").post(t, "/v1/payment-methods", cardBody(sandbox.TokenMastercard)).problem(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	ada.key("-").post(t, "/v1/payment-methods", cardBody(sandbox.TokenVisa)).problem(t, http.StatusBadRequest, "idempotency_key_required").
		golden(t, "problem_key_required")
	if name := ada.get(t, "/v1/billing-profile").str(t, "name"); name != "Ada Lovelace" {
		t.Errorf("billing profile of %q", name)
	}
	visa := "/v1/payment-methods/" + created.str(t, "id")

	// A second card takes over; the first can be made the default again.
	second := "/v1/payment-methods/" + ada.post(t, "/v1/payment-methods", cardBody(sandbox.TokenMastercard)).want(t, http.StatusCreated).str(t, "id")
	ada.post(t, visa+"/default", "").want(t, http.StatusOK)
	all := ada.get(t, "/v1/payment-methods").want(t, http.StatusOK)
	if all.at(t, "data", 0, "default") != true || all.str(t, "data", 0, "card", "brand") != "visa" || all.at(t, "data", 1, "default") != false {
		t.Errorf("%s", all.Body)
	}

	// Changing needs the version that was read; a stale one leaves no trace.
	got := ada.get(t, visa).want(t, http.StatusOK)
	tag := got.Header.Get("ETag")
	change := `{"exp_month":11,"exp_year":2031,"billing_profile":{"name":"A. Lovelace","email":"ada@example.com","address":{"line1":"1 New St","city":"Leeds","country":"GB"}}}`
	ada.do(t, http.MethodPatch, visa, change).problem(t, http.StatusPreconditionRequired, "if_match_required")
	ada.with("If-Match", `"v99"`).do(t, http.MethodPatch, visa, change).problem(t, http.StatusPreconditionFailed, "stale_version")
	if now := ada.get(t, visa); now.Header.Get("ETag") != tag || string(now.Body) != string(got.Body) {
		t.Errorf("a stale change left a trace: %s", now.Body)
	}
	ada.with("If-Match", tag).do(t, http.MethodPatch, visa, `{"exp_month":11}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	ada.with("If-Match", tag).do(t, http.MethodPatch, visa, `{"exp_month":2,"exp_year":2026}`).problem(t, http.StatusUnprocessableEntity, "invalid_request") // it is March
	changed := ada.with("If-Match", tag).do(t, http.MethodPatch, visa, change).want(t, http.StatusOK)
	if changed.str(t, "billing_profile", "name") != "A. Lovelace" || changed.at(t, "card", "exp_year") != 2031.0 {
		t.Errorf("%s", changed.Body)
	}

	// The active card stays; the other one goes.
	tag = changed.Header.Get("ETag")
	ada.with("If-Match", tag).do(t, http.MethodDelete, visa, "").problem(t, http.StatusConflict, "active_payment_method").golden(t, "problem_active_card")
	tag = ada.get(t, second).Header.Get("ETag")
	ada.with("If-Match", tag).do(t, http.MethodDelete, second, "").want(t, http.StatusNoContent)
	if status := ada.get(t, second).str(t, "status"); status != "removed" {
		t.Errorf("status %s", status)
	}
	ada.post(t, second+"/default", "").problem(t, http.StatusNotFound, "payment_method_not_found")

	// Support is asked; asking twice is one request.
	ada.post(t, visa+"/removal-requests", `{"kind":"support","note":"lost my wallet"}`).want(t, http.StatusCreated).golden(t, "removal_request")
	ada.post(t, visa+"/removal-requests", `{"kind":"support"}`).problem(t, http.StatusConflict, "removal_request_open")
	ada.post(t, visa+"/removal-requests", `{"kind":"magic"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")

	// Another account finds none of it.
	eve := w.user(t, w.open(t).ID)
	eve.get(t, visa).problem(t, http.StatusNotFound, "payment_method_not_found")
	eve.with("If-Match", "*").do(t, http.MethodDelete, visa, "").problem(t, http.StatusNotFound, "payment_method_not_found")
	eve.with("If-Match", "*").do(t, http.MethodPatch, visa, change).problem(t, http.StatusNotFound, "payment_method_not_found")
	eve.post(t, visa+"/default", "").problem(t, http.StatusNotFound, "payment_method_not_found")
	eve.post(t, visa+"/confirm", "").problem(t, http.StatusNotFound, "payment_method_not_found")
	eve.post(t, visa+"/removal-requests", `{"kind":"support"}`).problem(t, http.StatusNotFound, "payment_method_not_found")
	eve.get(t, "/v1/payment-methods/"+id.New[payment.Payment]().String()).problem(t, http.StatusNotFound, "payment_method_not_found")
}

func TestPaymentMethodIsRemovedAtOnceWhereNothingIsOwed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.user(t, w.open(t).ID)
	card := "/v1/payment-methods/" + ada.post(t, "/v1/payment-methods", cardBody(sandbox.TokenVisa)).want(t, http.StatusCreated).str(t, "id")
	if s := ada.post(t, card+"/removal-requests", `{"kind":"when_paid"}`).want(t, http.StatusCreated).str(t, "status"); s != "done" {
		t.Errorf("status %s, want done", s)
	}
	if s := ada.get(t, card).str(t, "status"); s != "removed" {
		t.Errorf("card is %s", s)
	}
}

func TestNewPaymentMethodThatIsNotActiveAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	ada := w.user(t, a.ID)

	declined := ada.key("d").post(t, "/v1/payment-methods", cardBody(sandbox.TokenDeclined)).problem(t, http.StatusPaymentRequired, "card_declined").
		golden(t, "problem_card_declined")
	if again := ada.key("d").post(t, "/v1/payment-methods", cardBody(sandbox.TokenDeclined)); string(again.Body) != string(declined.Body) ||
		again.Header.Get("Content-Type") != "application/problem+json" || again.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("a repetition answered %s", again.Body)
	}
	if status := ada.get(t, "/v1/payment-methods/"+declined.str(t, "payment_method")).str(t, "status"); status != "failed" {
		t.Errorf("the declined card is %s", status)
	}

	pending := ada.post(t, "/v1/payment-methods", cardBody(sandbox.Token3DSSetup)).want(t, http.StatusAccepted).golden(t, "payment_method_3ds")
	path := "/v1/payment-methods/" + pending.str(t, "id")
	if s := ada.post(t, path+"/confirm", "").want(t, http.StatusOK).str(t, "status"); s != "requires_action" {
		t.Errorf("%s before the customer has acted", s)
	}
	w.act(t, a.ID, pending.str(t, "id"), true)
	if s := ada.post(t, path+"/confirm", "").want(t, http.StatusOK).str(t, "status"); s != "active" {
		t.Errorf("%s after the customer has acted", s)
	}

	ada.post(t, "/v1/payment-methods", cardBody("pm_sandbox_nonsense")).problem(t, http.StatusUnprocessableEntity, "payment_token_not_usable")
	ada.post(t, "/v1/payment-methods", `{"token":"pm_sandbox_visa"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	ada.post(t, "/v1/payment-methods", `{"token":"a","setup":"b","billing_profile":`+profileJSON+`}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	ada.post(t, "/v1/payment-methods", `{"card_number":"4242424242424242"}`).want(t, http.StatusUnprocessableEntity)
}

func TestPaymentMethodSetup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	ada, eve := w.user(t, a.ID), w.user(t, w.open(t).ID)

	setup := ada.post(t, "/v1/payment-methods/setup", "").want(t, http.StatusCreated)
	if setup.str(t, "client_secret") == "" || setup.str(t, "provider") != "sandbox" {
		t.Errorf("%s", setup.Body)
	}
	if cc := setup.Header.Get("Cache-Control"); cc != "no-store" {
		t.Errorf("Cache-Control %q of an answer with a secret", cc)
	}
	body := fmt.Sprintf(`{"setup":%q,"billing_profile":%s}`, setup.str(t, "id"), profileJSON)
	ada.post(t, "/v1/payment-methods", body).problem(t, http.StatusConflict, "setup_incomplete")

	// The customer gives a card to the provider's own page.
	w.giveCard(t, a.ID, setup.str(t, "id"), sandbox.TokenVisa)
	eve.post(t, "/v1/payment-methods", body).problem(t, http.StatusNotFound, "setup_not_found")
	done := ada.post(t, "/v1/payment-methods", body).want(t, http.StatusCreated)
	if last := done.str(t, "card", "last_four"); last != "4242" {
		t.Errorf("%s", done.Body)
	}
	if strings.Contains(string(done.Body), "secret_") {
		t.Errorf("a secret in %s", done.Body)
	}
	ada.post(t, "/v1/payment-methods", body).problem(t, http.StatusConflict, "setup_used")
}

// The token that stands for one account's card is worth nothing to another account.
func TestAnotherAccountsCardTokenIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	ada, eve := w.user(t, a.ID), w.user(t, w.open(t).ID)
	card := ada.post(t, "/v1/payment-methods", cardBody(sandbox.TokenVisa)).want(t, http.StatusCreated)
	m, err := w.DB.Payments().Method(t.Context(), a.ID, id.MustParse[payment.Method](card.str(t, "id")))
	if err != nil {
		t.Fatal(err)
	}
	eve.post(t, "/v1/payment-methods", cardBody(m.ProviderRef)).problem(t, http.StatusUnprocessableEntity, "payment_token_not_usable")
	eve.post(t, "/v1/upgrades", upgradeBody(m.ProviderRef)).problem(t, http.StatusUnprocessableEntity, "payment_token_not_usable")
	if level := eve.get(t, "/v1/account").str(t, "level"); level != "developer" {
		t.Errorf("level %s", level)
	}
	eve.post(t, "/v1/upgrades", fmt.Sprintf(`{"plan":"pro","payment_method":{"id":%q}}`, card.str(t, "id"))).
		problem(t, http.StatusNotFound, "payment_method_not_found")
}

// What is used and on no invoice yet keeps a card, too; funds cover it.
func TestPaymentMethods_TheWayOutOfWhatIsAccrued(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct, ada := w.upgraded(t, sandbox.TokenVisa)
	w.use(t, acct.ID, "voice", "120000")
	card := "/v1/payment-methods/" + ada.get(t, "/v1/overview").str(t, "payment_method", "id")
	refused := ada.with("If-Match", ada.get(t, card).Header.Get("ETag")).do(t, http.MethodDelete, card, "").problem(t, http.StatusConflict, "active_payment_method")
	if way := refused.str(t, "ways_out", 1, "name"); way != "add_funds" {
		t.Errorf("the second way out is %s: %s", way, refused.Body)
	}
}
