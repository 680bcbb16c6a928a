package v1_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func refundOf(payment string, minor int64) string {
	return fmt.Sprintf(`{"payment":%q,"amount":{"amount":%d,"currency":"USD"},"reason":"an outage of ours"}`, payment, minor)
}

// lists fails the test unless the list, a page for each record, is these.
func (c caller) lists(t *testing.T, path string, ids ...string) {
	t.Helper()
	next := path + "?limit=1"
	for i, id := range ids {
		got := c.get(t, next).want(t, http.StatusOK)
		if got.str(t, "data", 0, "id") != id || got.at(t, "has_more") != (i+1 < len(ids)) {
			t.Fatalf("page %d of %s is %s, want %s", i, path, got.Body, id)
		}
		if i+1 < len(ids) {
			next = path + "?limit=1&cursor=" + got.str(t, "next_cursor")
		}
	}
}

func TestAdminRefund(t *testing.T) {
	t.Parallel()

	t.Run("GivesBackOnce", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.upgraded(t, sandbox.TokenVisa)
		grace := w.operator(t, a.ID)
		paid := ada.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated).str(t, "payment")

		first := grace.key("k").post(t, "/v1/admin/refunds", refundOf(paid, 2000)).want(t, http.StatusCreated).golden(t, "admin_refund")
		again := grace.key("k").post(t, "/v1/admin/refunds", refundOf(paid, 2000)).want(t, http.StatusCreated)
		if string(again.Body) != string(first.Body) || again.Header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("a repetition answered %s", again.Body)
		}
		grace.key("k").post(t, "/v1/admin/refunds", refundOf(paid, 2001)).problem(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
		grace.get(t, "/v1/admin/refunds/"+first.str(t, "id")).want(t, http.StatusOK).golden(t, "admin_refund")
		if got := ada.get(t, "/v1/balance").at(t, "funds", "amount"); got != 3000.0 {
			t.Errorf("funds %v, want 30.00", got)
		}
		if got := ada.get(t, "/v1/payments/"+paid).at(t, "refunded", "amount"); got != 2000.0 {
			t.Errorf("refunded %v, want 20.00", got)
		}
		// Without an amount it is all that is left.
		rest := grace.post(t, "/v1/admin/refunds", fmt.Sprintf(`{"payment":%q,"reason":"the rest"}`, paid)).want(t, http.StatusCreated)
		if got := rest.at(t, "amount", "amount"); got != 3000.0 {
			t.Errorf("the rest is %v, want 30.00", got)
		}
		newest := []string{rest.str(t, "id"), first.str(t, "id")}
		ada.lists(t, "/v1/refunds", newest...)
		grace.lists(t, "/v1/admin/refunds", newest...)
		ada.get(t, "/v1/refunds/"+newest[1]).want(t, http.StatusOK).golden(t, "refund")
		w.user(t, w.open(t).ID).get(t, "/v1/refunds/"+newest[1]).problem(t, http.StatusNotFound, "refund_not_found")
		log, err := w.DB.Accounts().AuditLog(t.Context(), a.ID, firstPage)
		if err != nil || len(log.Data) < 2 || log.Data[0].Action != "payment.refund" || log.Data[0].Actor != "operator:accrue-development|grace" || log.Data[0].Reason != "the rest" {
			t.Errorf("audit log %+v, %v", log.Data, err)
		}
	})

	t.Run("WhatCannotBe", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.upgraded(t, sandbox.TokenVisa)
		grace := w.operator(t, a.ID)
		paid := ada.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated).str(t, "payment")
		const path = "/v1/admin/refunds"

		ada.post(t, path, refundOf(paid, 1)).problem(t, http.StatusForbidden, "insufficient_scope")
		w.operator(t, account.ID{}).post(t, path, refundOf(paid, 1)).problem(t, http.StatusBadRequest, "account_required")
		w.operator(t, w.open(t).ID).post(t, path, refundOf(paid, 1)).problem(t, http.StatusNotFound, "payment_not_found")
		grace.key("-").post(t, path, refundOf(paid, 1)).problem(t, http.StatusBadRequest, "idempotency_key_required")
		grace.post(t, path, refundOf("pay_x", 1)).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		grace.post(t, path, refundOf(paid, 0)).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		grace.post(t, path, fmt.Sprintf(`{"payment":%q,"reason":" "}`, paid)).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		grace.post(t, path, fmt.Sprintf(`{"payment":%q,"amount":{"amount":1,"currency":"EUR"},"reason":"x"}`, paid)).problem(t, http.StatusUnprocessableEntity, "currency_mismatch")
		grace.post(t, path, refundOf(paid, 5001)).problem(t, http.StatusConflict, "refund_too_large")
		grace.get(t, path+"/ref_x").problem(t, http.StatusNotFound, "refund_not_found")
		if got := ada.get(t, "/v1/balance").at(t, "funds", "amount"); got != 5000.0 {
			t.Errorf("funds %v, want 50.00 untouched", got)
		}
	})

	t.Run("TheProviderHasTheLastWord", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.upgraded(t, sandbox.TokenVisa)
		grace := w.operator(t, a.ID)
		paid := ada.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated).str(t, "payment")

		if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "refund", Kind: sandbox.FaultProcessing}); err != nil {
			t.Fatal(err)
		}
		open := grace.post(t, "/v1/admin/refunds", refundOf(paid, 1000)).want(t, http.StatusAccepted)
		if s := open.str(t, "status"); s != "processing" {
			t.Errorf("status %s", s)
		}
		if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "refund", Kind: sandbox.FaultDecline, Code: "charge_disputed"}); err != nil {
			t.Fatal(err)
		}
		refused := grace.key("r").post(t, "/v1/admin/refunds", refundOf(paid, 1000)).problem(t, http.StatusConflict, "refund_refused")
		grace.key("r").post(t, "/v1/admin/refunds", refundOf(paid, 1000)).problem(t, http.StatusConflict, "refund_refused")
		if s := grace.get(t, "/v1/admin/refunds/"+refused.str(t, "refund")).want(t, http.StatusOK).str(t, "status"); s != "failed" {
			t.Errorf("status %s", s)
		}
		if got := ada.get(t, "/v1/balance").at(t, "funds", "amount"); got != 4000.0 {
			t.Errorf("funds %v, want 40.00: what was set aside for the refused one is back", got)
		}
	})
}
