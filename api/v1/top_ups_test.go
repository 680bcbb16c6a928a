package v1_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/pkg/money"
)

func funds(minor int64) string {
	return fmt.Sprintf(`{"amount":{"amount":%d,"currency":"USD"}}`, minor)
}

func TestTopUp(t *testing.T) {
	t.Parallel()

	t.Run("SucceedsOnceAndIsReplayed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		_, ada := w.upgraded(t, sandbox.TokenVisa)
		ada.post(t, "/v1/top-ups/preview", funds(5000)).want(t, http.StatusOK).golden(t, "top_up_preview")
		ada.key("-").post(t, "/v1/top-ups", funds(5000)).problem(t, http.StatusBadRequest, "idempotency_key_required")
		first := ada.key("k").post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated).golden(t, "top_up")
		again := ada.key("k").post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated)
		if string(again.Body) != string(first.Body) || again.Header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("a repetition answered %s", again.Body)
		}
		ada.key("k").post(t, "/v1/top-ups", funds(6000)).problem(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
		if got := ada.get(t, "/v1/balance").at(t, "funds", "amount"); got != 5000.0 {
			t.Errorf("funds %v, want 50.00 once", got)
		}
		ada.get(t, "/v1/top-ups").want(t, http.StatusOK).golden(t, "top_ups")
		path := "/v1/top-ups/" + first.str(t, "id")
		ada.get(t, path).want(t, http.StatusOK)
		eve := w.user(t, w.open(t).ID)
		eve.get(t, path).problem(t, http.StatusNotFound, "top_up_not_found")
		eve.post(t, path+"/confirm", "").problem(t, http.StatusNotFound, "top_up_not_found")
	})

	t.Run("ManyAtOnceQueue", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		_, ada := w.upgraded(t, sandbox.TokenVisa)
		const callers = 50
		var all sync.WaitGroup
		for range callers {
			all.Go(func() {
				if res := ada.post(t, "/v1/top-ups", funds(1000)); res.Status != http.StatusCreated {
					t.Errorf("%d: %s", res.Status, res.Body)
				}
			})
		}
		all.Wait()
		if got := ada.get(t, "/v1/balance").at(t, "funds", "amount"); got != callers*1000.0 {
			t.Errorf("funds %v, want 500.00", got)
		}
		w.check(t)
	})

	t.Run("DeclineNamesTheTopUp", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		_, ada := w.upgraded(t, sandbox.TokenInsufficientFunds)
		res := ada.post(t, "/v1/top-ups", funds(5000)).problem(t, http.StatusPaymentRequired, "card_declined").golden(t, "problem_top_up_declined")
		if s := ada.get(t, "/v1/top-ups/"+res.str(t, "top_up")).want(t, http.StatusOK).str(t, "status"); s != "failed" {
			t.Errorf("status %s", s)
		}
	})

	t.Run("SuspectedFraudIsToldToNobody", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		_, ada := w.upgraded(t, sandbox.TokenLost)
		res := ada.post(t, "/v1/top-ups", funds(5000)).problem(t, http.StatusPaymentRequired, "card_declined")
		if code := res.str(t, "decline_code"); code != "generic_decline" {
			t.Errorf("decline code %s", code)
		}
	})

	t.Run("SuspectedFraudIsToldToNobodyAfterwards", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, eve := w.upgraded(t, sandbox.TokenLost)
		eve.with("If-Match", `"v0"`).do(t, http.MethodPut, "/v1/auto-top-up", `{"enabled":true,"threshold":{"amount":1000,"currency":"USD"},"target":{"amount":5000,"currency":"USD"}}`).
			want(t, http.StatusOK)
		if _, err := (billing.Funder{Core: w.Core}).AutoTopUp(t.Context(), a.ID); err != nil {
			t.Fatal(err)
		}
		if reason := eve.get(t, "/v1/auto-top-up").str(t, "paused_reason"); reason != "generic_decline" {
			t.Errorf("paused for %s", reason)
		}
		for _, told := range []response{eve.get(t, "/v1/events?limit=100"), eve.get(t, "/v1/payments"), eve.get(t, "/v1/top-ups"), eve.get(t, "/v1/overview")} {
			if body := string(told.want(t, http.StatusOK).Body); strings.Contains(body, "lost") || strings.Contains(body, "fraud") {
				t.Errorf("the customer is told that the card was lost: %s", body)
			}
		}
	})

	t.Run("ThreeDSecure", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		ada := w.user(t, a.ID)
		up := ada.post(t, "/v1/upgrades", upgradeBody(sandbox.Token3DSRequired)).want(t, http.StatusAccepted)
		w.act(t, a.ID, up.str(t, "payment_method"), true)
		ada.post(t, "/v1/upgrades/"+up.str(t, "id")+"/confirm", "").want(t, http.StatusOK)

		top := ada.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusAccepted).golden(t, "top_up_3ds")
		refused := ada.post(t, "/v1/top-ups", funds(5000)).problem(t, http.StatusConflict, "top_up_pending")
		if refused.str(t, "top_up") != top.str(t, "id") || refused.Header.Get("Retry-After") != "" {
			t.Errorf("the refusal names %q, Retry-After %q: the customer must act first", refused.str(t, "top_up"), refused.Header.Get("Retry-After"))
		}
		p, err := w.DB.Payments().Payment(t.Context(), a.ID, id.MustParse[payment.Payment](top.str(t, "payment")))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.control.Act(t.Context(), p.ProviderRef, true); err != nil {
			t.Fatal(err)
		}
		if s := ada.post(t, "/v1/top-ups/"+top.str(t, "id")+"/confirm", "").want(t, http.StatusOK).str(t, "status"); s != "succeeded" {
			t.Errorf("status %s", s)
		}
	})

	t.Run("WhatCannotBe", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		_, ada := w.upgraded(t, sandbox.TokenVisa)
		w.user(t, w.open(t).ID).post(t, "/v1/top-ups", funds(5000)).problem(t, http.StatusConflict, "upgrade_required")
		ada.post(t, "/v1/top-ups", funds(0)).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		ada.post(t, "/v1/top-ups", funds(-5)).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		ada.post(t, "/v1/top-ups", funds(1)).problem(t, http.StatusUnprocessableEntity, "top_up_amount").golden(t, "problem_top_up_amount")
		ada.post(t, "/v1/top-ups", funds(100_000_000)).problem(t, http.StatusUnprocessableEntity, "top_up_amount")
		ada.post(t, "/v1/top-ups", `{"amount":{"amount":5000,"currency":"EUR"}}`).problem(t, http.StatusUnprocessableEntity, "currency_mismatch")
		ada.post(t, "/v1/top-ups", `{"amount":{"amount":50.5,"currency":"USD"}}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		ada.post(t, "/v1/top-ups", `{"amount":{"amount":5000,"currency":"USD"},"payment_method":"pm_x"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		ada.post(t, "/v1/top-ups/preview", funds(1)).problem(t, http.StatusUnprocessableEntity, "top_up_amount")
		// Nothing was charged, and nothing is stored of it.
		for _, path := range []string{"/v1/top-ups", "/v1/payments"} {
			if left := ada.get(t, path).want(t, http.StatusOK).at(t, "data").([]any); len(left) != 0 {
				t.Errorf("%s has %v", path, left)
			}
		}
		w.check(t)
	})
}

// An API key moves no more than it may, in one payment and in a day.
func TestTopUpStaysUnderTheKeysCeilings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	perPayment, perDay := money.New(5000, money.USD), money.New(8000, money.USD)
	robot := w.robot(t, a.ID, auth.Ceilings{PerPayment: &perPayment, PerDay: &perDay})
	robot.post(t, "/v1/top-ups/preview", funds(5001)).problem(t, http.StatusForbidden, "ceiling_exceeded")
	robot.post(t, "/v1/top-ups", funds(5001)).problem(t, http.StatusForbidden, "ceiling_exceeded").golden(t, "problem_ceiling_exceeded")
	robot.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated)
	robot.post(t, "/v1/top-ups", funds(3001)).problem(t, http.StatusForbidden, "ceiling_exceeded")
	robot.post(t, "/v1/top-ups", funds(3000)).want(t, http.StatusCreated)
	ada.post(t, "/v1/top-ups", funds(50000)).want(t, http.StatusCreated) // a person has no ceiling
	w.advance(24 * time.Hour)
	robot.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated)
}

func TestAutoTopUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	const rule = `{"enabled":true,"threshold":{"amount":1000,"currency":"USD"},"target":{"amount":5000,"currency":"USD"},"monthly_ceiling":{"amount":20000,"currency":"USD"}}`
	put := func(c caller, tag, body string) response {
		return c.with("If-Match", tag).do(t, http.MethodPut, "/v1/auto-top-up", body)
	}
	none := ada.get(t, "/v1/auto-top-up").want(t, http.StatusOK).golden(t, "auto_top_up_none")
	put(w.user(t, w.open(t).ID), `"v0"`, rule).problem(t, http.StatusConflict, "upgrade_required")
	put(ada, none.Header.Get("ETag"), `{"enabled":true,"threshold":{"amount":5000,"currency":"USD"},"target":{"amount":1000,"currency":"USD"}}`).
		problem(t, http.StatusUnprocessableEntity, "invalid_request")
	put(ada, none.Header.Get("ETag"), rule).want(t, http.StatusOK).golden(t, "auto_top_up")
	put(ada, none.Header.Get("ETag"), `{"enabled":false,"threshold":{"amount":0,"currency":"USD"},"target":{"amount":1,"currency":"USD"}}`).
		problem(t, http.StatusPreconditionFailed, "stale_version")
	if got := ada.get(t, "/v1/auto-top-up"); got.at(t, "enabled") != true {
		t.Errorf("a stale change left a trace: %s", got.Body)
	}
	put(ada, "*", `{"enabled":true,"threshold":{"amount":1000,"currency":"EUR"},"target":{"amount":5000,"currency":"EUR"}}`).
		problem(t, http.StatusUnprocessableEntity, "currency_mismatch")
}
