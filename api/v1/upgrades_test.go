package v1_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func TestUpgrade(t *testing.T) {
	t.Parallel()

	t.Run("SucceedsAndIsReplayedByteForByte", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		ada := w.user(t, a.ID)
		w.use(t, a.ID, "voice", "600")
		ada.post(t, "/v1/upgrades/preview", `{"plan":"pro"}`).want(t, http.StatusOK).golden(t, "upgrade_preview")
		ada.key("-").post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).problem(t, http.StatusBadRequest, "idempotency_key_required")

		first := ada.key("up").post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).want(t, http.StatusCreated).golden(t, "upgrade")
		w.advance(time.Minute)
		again := ada.key("up").post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).want(t, http.StatusCreated)
		if string(again.Body) != string(first.Body) || again.Header.Get("Idempotent-Replayed") != "true" || first.Header.Get("Idempotent-Replayed") != "" {
			t.Errorf("a repetition answered %s", again.Body)
		}
		path := "/v1/upgrades/" + first.str(t, "id")
		ada.get(t, path).want(t, http.StatusOK)
		ada.post(t, path+"/confirm", "").want(t, http.StatusOK) // harmless
		ada.post(t, path+"/cancel", "").problem(t, http.StatusConflict, "upgrade_settled")
		ada.post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).problem(t, http.StatusConflict, "not_an_upgrade")
		ada.get(t, "/v1/upgrades").want(t, http.StatusOK).golden(t, "upgrades")

		eve := w.user(t, w.open(t).ID)
		eve.get(t, path).problem(t, http.StatusNotFound, "upgrade_not_found").golden(t, "problem_not_found")
		eve.post(t, path+"/confirm", "").problem(t, http.StatusNotFound, "upgrade_not_found")
		eve.post(t, path+"/cancel", "").problem(t, http.StatusNotFound, "upgrade_not_found")
	})

	t.Run("DeclineSaysWhyAndStays", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		ada := w.user(t, w.open(t).ID)
		first := ada.key("d").post(t, "/v1/upgrades", upgradeBody(sandbox.TokenDeclined)).problem(t, http.StatusPaymentRequired, "card_declined").
			golden(t, "problem_upgrade_declined")
		again := ada.key("d").post(t, "/v1/upgrades", upgradeBody(sandbox.TokenDeclined)).problem(t, http.StatusPaymentRequired, "card_declined")
		if string(again.Body) != string(first.Body) || again.Header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("a repetition answered %s", again.Body)
		}
		ada.get(t, "/v1/upgrades/"+first.str(t, "upgrade")).want(t, http.StatusOK).golden(t, "upgrade_failed")
		if level := ada.get(t, "/v1/account").str(t, "level"); level != "developer" {
			t.Errorf("level %s after a decline", level)
		}
		ada.post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).want(t, http.StatusCreated) // another key, another card
	})

	t.Run("ThreeDSecureIsResumedFromAnotherDevice", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		ada := w.user(t, a.ID)
		pending := ada.key("3ds").post(t, "/v1/upgrades", upgradeBody(sandbox.Token3DSSetup)).want(t, http.StatusAccepted).golden(t, "upgrade_3ds")
		path := "/v1/upgrades/" + pending.str(t, "id")

		// One may be pending, and the refusal names it.
		refused := ada.post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).problem(t, http.StatusConflict, "upgrade_pending")
		if refused.str(t, "upgrade") != pending.str(t, "id") {
			t.Errorf("the refusal names %q", refused.str(t, "upgrade"))
		}
		o := ada.get(t, "/v1/overview").want(t, http.StatusOK)
		if o.str(t, "pending_upgrade", "id") != pending.str(t, "id") || o.str(t, "pending_upgrade", "next_action", "url") == "" {
			t.Errorf("the page does not offer to resume: %s", o.Body)
		}
		if p := ada.post(t, "/v1/upgrades/preview", `{"plan":"pro"}`).want(t, http.StatusOK); p.at(t, "allowed") != false {
			t.Errorf("%s", p.Body)
		}
		if s := ada.post(t, path+"/confirm", "").want(t, http.StatusOK).str(t, "status"); s != "requires_action" {
			t.Errorf("%s before the customer has acted", s)
		}
		w.act(t, a.ID, pending.str(t, "payment_method"), true)
		phone := w.user(t, a.ID)
		if s := phone.post(t, path+"/confirm", "").want(t, http.StatusOK).str(t, "status"); s != "succeeded" {
			t.Errorf("%s after the customer has acted", s)
		}
		if level := ada.get(t, "/v1/account").str(t, "level"); level != "pro" {
			t.Errorf("level %s", level)
		}
	})

	t.Run("CanceledWhilePending", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		ada := w.user(t, w.open(t).ID)
		path := "/v1/upgrades/" + ada.post(t, "/v1/upgrades", upgradeBody(sandbox.Token3DSSetup)).want(t, http.StatusAccepted).str(t, "id")
		if s := ada.post(t, path+"/cancel", "").want(t, http.StatusOK).str(t, "status"); s != "canceled" {
			t.Errorf("status %s", s)
		}
		ada.post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).want(t, http.StatusCreated)
	})

	t.Run("TimeoutIsProcessingNotFailed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		ada := w.user(t, w.open(t).ID)
		if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "attach", Kind: sandbox.FaultReset}); err != nil {
			t.Fatal(err)
		}
		up := ada.post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).want(t, http.StatusAccepted)
		if s := up.str(t, "status"); s != "processing" {
			t.Errorf("status %s", s)
		}
		if s := ada.post(t, "/v1/upgrades/"+up.str(t, "id")+"/confirm", "").want(t, http.StatusOK).str(t, "status"); s != "succeeded" {
			t.Errorf("status %s once the provider answers", s)
		}
	})

	t.Run("WhatCannotBe", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		ada := w.user(t, w.open(t).ID)
		for name, c := range map[string]struct {
			body   string
			status int
			code   string
		}{
			"Enterprise":       {`{"plan":"enterprise"}`, http.StatusConflict, "contact_sales"},
			"UnknownPlan":      {`{"plan":"platinum"}`, http.StatusNotFound, "plan_not_found"},
			"SamePlan":         {`{"plan":"developer"}`, http.StatusConflict, "not_an_upgrade"},
			"NoCard":           {`{"plan":"pro"}`, http.StatusUnprocessableEntity, "payment_method_required"},
			"NoProfile":        {`{"plan":"pro","payment_method":{"token":"pm_sandbox_visa"}}`, http.StatusUnprocessableEntity, "invalid_request"},
			"TwoCards":         {`{"plan":"pro","payment_method":{"token":"a","id":"b"}}`, http.StatusUnprocessableEntity, "invalid_request"},
			"EmptyCard":        {`{"plan":"pro","payment_method":{}}`, http.StatusUnprocessableEntity, "invalid_request"},
			"UnknownMember":    {`{"plan":"pro","account_id":"acct_1"}`, http.StatusUnprocessableEntity, "invalid_request"},
			"NoBody":           {``, http.StatusBadRequest, "body_required"},
			"NotJSON":          {`plan=pro`, http.StatusBadRequest, "malformed_json"},
			"DuplicateMembers": {`{"plan":"pro","plan":"developer"}`, http.StatusUnprocessableEntity, "invalid_request"},
		} {
			t.Run(name, func(t *testing.T) {
				ada.post(t, "/v1/upgrades", c.body).problem(t, c.status, c.code)
			})
		}
	})
}

func TestDowngrade(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	first := ada.key("down").post(t, "/v1/downgrades", `{"plan":"developer"}`).want(t, http.StatusCreated).golden(t, "downgrade")
	if again := ada.key("down").post(t, "/v1/downgrades", `{"plan":"developer"}`); string(again.Body) != string(first.Body) {
		t.Errorf("a repetition answered %s", again.Body)
	}
	ada.post(t, "/v1/downgrades", `{"plan":"developer"}`).problem(t, http.StatusConflict, "downgrade_planned")
	if next := ada.get(t, "/v1/account").str(t, "next_level"); next != "developer" {
		t.Errorf("next level %q", next)
	}
	const cancel = 2 // in the order of the page
	overview := ada.get(t, "/v1/overview")
	if name := overview.str(t, "actions", cancel, "name"); name != "cancel_downgrade" || overview.at(t, "actions", cancel, "allowed") != true {
		t.Errorf("the page lets nobody take it back: %s", overview.Body)
	}
	ada.do(t, overview.str(t, "actions", cancel, "method"), overview.str(t, "actions", cancel, "href"), "").want(t, http.StatusNoContent)
	ada.do(t, http.MethodDelete, "/v1/downgrades", "").want(t, http.StatusNoContent)
	if next := ada.get(t, "/v1/account").str(t, "next_level"); next != "" {
		t.Errorf("next level %q after it was taken back", next)
	}
	ada.post(t, "/v1/downgrades", `{"plan":"enterprise"}`).problem(t, http.StatusConflict, "not_a_downgrade")
}
