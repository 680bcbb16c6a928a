package v1_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func TestSpendLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	none := ada.get(t, "/v1/spend-limit").want(t, http.StatusOK).golden(t, "spend_limit_none")
	put := func(tag, body string) response {
		return ada.with("If-Match", tag).do(t, http.MethodPut, "/v1/spend-limit", body)
	}
	put(none.Header.Get("ETag"), `{"amount":{"amount":0,"currency":"USD"}}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	put(none.Header.Get("ETag"), `{}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	put(none.Header.Get("ETag"), `{"mode":"soft"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	put(none.Header.Get("ETag"), `{"amount":{"amount":100,"currency":"EUR"}}`).problem(t, http.StatusUnprocessableEntity, "currency_mismatch")
	set := put(none.Header.Get("ETag"), `{"amount":{"amount":10000,"currency":"USD"}}`).want(t, http.StatusOK).golden(t, "spend_limit")
	put(none.Header.Get("ETag"), `{"amount":null}`).problem(t, http.StatusPreconditionFailed, "stale_version")
	if got := ada.get(t, "/v1/spend-limit"); got.at(t, "amount", "amount") != 10000.0 {
		t.Errorf("a stale change left a trace: %s", got.Body)
	}

	// The bill never passes it.
	res := w.tryUse(t, a.ID, "voice", "1800000")
	if res.Status != metering.Rejected || res.Problem.Code != "spend_limit_reached" {
		t.Errorf("use beyond the limit: %+v", res)
	}
	ada.post(t, "/v1/usage/reservations", `{"meter":"voice","quantity":"1800000"}`).problem(t, http.StatusConflict, "spend_limit_reached")
	put(set.Header.Get("ETag"), `{"amount":null}`).want(t, http.StatusOK)
	w.use(t, a.ID, "voice", "1800000")
}

func TestUsageAlerts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada, eve := w.user(t, w.open(t).ID), w.user(t, w.open(t).ID)
	made := ada.post(t, "/v1/usage-alerts", `{"kind":"usage","meter":"voice","quantity":"1800000.5"}`).want(t, http.StatusCreated).golden(t, "usage_alert")
	ada.post(t, "/v1/usage-alerts", `{"kind":"low_balance","amount":{"amount":1000,"currency":"USD"}}`).want(t, http.StatusCreated)
	ada.get(t, "/v1/usage-alerts").want(t, http.StatusOK).golden(t, "usage_alerts")
	for name, body := range map[string]string{
		"UnknownMeter":    `{"kind":"usage","meter":"fax","quantity":"1"}`,
		"NoQuantity":      `{"kind":"usage","meter":"voice"}`,
		"MoneyOfUsage":    `{"kind":"usage","meter":"voice","quantity":"1","amount":{"amount":1,"currency":"USD"}}`,
		"QuantityOfSpend": `{"kind":"spend","quantity":"1","amount":{"amount":1,"currency":"USD"}}`,
		"NoAmount":        `{"kind":"spend"}`,
		"OtherCurrency":   `{"kind":"spend","amount":{"amount":1,"currency":"EUR"}}`,
		"UnknownKind":     `{"kind":"weather"}`,
	} {
		t.Run(name, func(t *testing.T) {
			ada.post(t, "/v1/usage-alerts", body).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		})
	}
	same := ada.post(t, "/v1/usage-alerts", `{"kind":"usage","meter":"voice","quantity":"1800000.50"}`).problem(t, http.StatusConflict, "usage_alert_exists")
	if same.str(t, "usage_alert") != made.str(t, "id") {
		t.Errorf("%s", same.Body)
	}
	path := "/v1/usage-alerts/" + made.str(t, "id")
	eve.do(t, http.MethodDelete, path, "").problem(t, http.StatusNotFound, "usage_alert_not_found")
	ada.do(t, http.MethodDelete, path, "").want(t, http.StatusNoContent)
	ada.do(t, http.MethodDelete, path, "").problem(t, http.StatusNotFound, "usage_alert_not_found")
	if left, _ := ada.get(t, "/v1/usage-alerts").at(t, "data").([]any); len(left) != 1 {
		t.Errorf("%d alerts are left, want 1", len(left))
	}
}

func TestSalesInquiries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	ada, eve := w.user(t, a.ID), w.user(t, w.open(t).ID)
	w.use(t, a.ID, "voice", "600")
	ada.post(t, "/v1/sales-inquiries", `{"name":"","email":"x"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	made := ada.post(t, "/v1/sales-inquiries", `{"name":"Ada","email":"ada@example.com","company":"Ada Ltd","message":"We make ten million calls a month."}`).
		want(t, http.StatusCreated).golden(t, "sales_inquiry")
	path := "/v1/sales-inquiries/" + made.str(t, "id")
	w.use(t, a.ID, "voice", "600") // the snapshot is frozen
	if got := ada.get(t, path).want(t, http.StatusOK); got.str(t, "snapshot", "periods", 0, "usage", "voice") != "600" {
		t.Errorf("%s", got.Body)
	}
	if all, _ := ada.get(t, "/v1/sales-inquiries").want(t, http.StatusOK).at(t, "data").([]any); len(all) != 1 {
		t.Errorf("%d inquiries", len(all))
	}
	eve.get(t, path).problem(t, http.StatusNotFound, "sales_inquiry_not_found")
}

// What costs more than any amount is past the limit, and keeps nobody else's use from being stored. Most of it is refused before,
// except on accounts whose entitlement is from before that.
func TestSpendLimit_UseBeyondTheRangeOfAmounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	w.use(t, a.ID, "voice", "60")
	if _, err := w.db.Pool().Exec(t.Context(), `UPDATE entitlements SET max_quantities = '{}'`); err != nil {
		t.Fatal(err)
	}
	const most = "900000000000000"
	held := ada.post(t, "/v1/usage/reservations", `{"meter":"voice","quantity":"`+most+`"}`).want(t, http.StatusCreated)
	for _, page := range []string{"/v1/overview", "/v1/balance"} { // what is held comes to more than can be shown
		ada.get(t, page).want(t, http.StatusOK)
	}
	ada.post(t, "/v1/usage/reservations/"+held.str(t, "id")+"/release", "").want(t, http.StatusOK)

	tag := ada.get(t, "/v1/spend-limit").Header.Get("ETag")
	ada.with("If-Match", tag).do(t, http.MethodPut, "/v1/spend-limit", `{"amount":{"amount":10000,"currency":"USD"}}`).want(t, http.StatusOK)
	sent := ada.post(t, "/v1/usage/events", batch(event("1", "60", ""), event("2", most, ""), strings.Replace(event("3", most, ""), "voice", "call_score", 1), event("4", "60", "")))
	for i, want := range []string{"accepted", "rejected", "rejected", "accepted"} {
		if got := sent.want(t, http.StatusOK).str(t, "results", i, "status"); got != want {
			t.Errorf("event %d is %s, want %s: %s", i, got, want, sent.Body)
		}
	}
	for _, meter := range []string{"voice", "call_score"} {
		ada.post(t, "/v1/usage/reservations", `{"meter":"`+meter+`","quantity":"`+most+`"}`).problem(t, http.StatusConflict, "spend_limit_reached")
	}
}

// What slips through a spend limit is absorbed: everybody sees that it was used, and that it is not billed. Here the
// limit of 10.00 comes when 27.00 are used already.
func TestSpendLimit_WhatSlipsThroughIsAbsorbed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	w.use(t, a.ID, "voice", "120000")
	tag := ada.get(t, "/v1/spend-limit").Header.Get("ETag")
	ada.with("If-Match", tag).do(t, http.MethodPut, "/v1/spend-limit", `{"amount":{"amount":1000,"currency":"USD"}}`).want(t, http.StatusOK)

	cents := func(want float64, r response, path ...any) {
		t.Helper()
		if got := r.at(t, append(path, "amount")...); got != want {
			t.Errorf("%v is %v, want %v: %s", path, got, want, r.Body)
		}
	}
	page := ada.get(t, "/v1/overview").want(t, http.StatusOK)
	cents(1700.0, page, "absorbed")
	cents(1000.0, page, "balance", "accrued")
	for i, u := range page.at(t, "usage").([]any) {
		if page.at(t, "usage", i, "allowed") != false || page.at(t, "usage", i, "reason") != "spend_limit_reached" {
			t.Errorf("the page says of more use: %v", u)
		}
	}
	if got := ada.get(t, "/v1/entitlements/voice"); got.at(t, "allowed") != false || got.str(t, "reason") != "spend_limit_reached" {
		t.Errorf("%s", got.Body)
	}
	upcoming := ada.get(t, "/v1/invoices/upcoming").want(t, http.StatusOK)
	cents(1700.0, upcoming, "absorbed")
	cents(1000.0, upcoming, "total")

	late := w.clock()
	w.advance(31 * 24 * time.Hour)
	w.sweep(t)
	cents(0.0, ada.get(t, "/v1/overview"), "absorbed") // the new period
	if res := w.tryUseAt(t, a.ID, "voice", "60", late); res.Status != metering.Rejected || res.Problem.Code != "spend_limit_reached" {
		t.Errorf("late use beyond the limit of its period: %+v", res)
	}
	w.advance(2 * 24 * time.Hour)
	w.sweep(t)
	w.sweep(t)
	id := ada.get(t, "/v1/invoices").want(t, http.StatusOK).str(t, "data", 0, "id")
	inv := ada.get(t, "/v1/invoices/"+id).want(t, http.StatusOK)
	cents(1700.0, inv, "content", "absorbed")
	cents(2700.0, inv, "content", "lines", 0, "amount")
	cents(-1700.0, inv, "content", "lines", 1, "amount")
	cents(1000.0, inv, "total")
	cents(1000.0, inv, "amount_paid")
	if kind := inv.str(t, "content", "lines", 1, "kind"); kind != "absorbed" {
		t.Errorf("the second line is of kind %q", kind)
	}
	w.check(t)
}
