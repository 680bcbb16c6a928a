package v1_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

func TestEstimates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	anyone := caller{w: w, header: http.Header{}}.key("-")
	estimate := func(t *testing.T, body string) response {
		t.Helper()
		return anyone.post(t, "/v1/estimates", body)
	}

	t.Run("TheExampleOfThePricingPage", func(t *testing.T) {
		got := estimate(t, `{"plan":"pro","usage":{"voice":"1800000","text":"4000000"}}`).want(t, http.StatusOK).golden(t, "estimate")
		if total := got.at(t, "total", "amount"); total != 156100.0 {
			t.Errorf("total %v, want 1,561.00", total)
		}
	})
	t.Run("ABillIsTheSame", func(t *testing.T) {
		a, ada := w.upgraded(t, "pm_sandbox_visa")
		w.use(t, a.ID, "voice", "1800000")
		w.use(t, a.ID, "text", "4000000")
		if got := ada.get(t, "/v1/invoices/upcoming").at(t, "total", "amount"); got != 156100.0 {
			t.Errorf("the bill of the same month is %v", got)
		}
	})
	t.Run("LimitsOfTheFreePlan", func(t *testing.T) {
		estimate(t, `{"plan":"developer","usage":{"voice":"60001"}}`).want(t, http.StatusOK).golden(t, "estimate_blocked")
	})
	t.Run("NothingUsed", func(t *testing.T) {
		if got := estimate(t, `{"plan":"pro"}`).want(t, http.StatusOK).at(t, "total", "amount"); got != 0.0 {
			t.Errorf("nothing costs %v", got)
		}
	})
	t.Run("SeriesAddUp", func(t *testing.T) {
		got := estimate(t, `{"plan":"pro","usage":{"voice":"1000000"},"series":[{"meter":"voice","quantity":"800000","dimensions":{"project":"x"}}]}`).want(t, http.StatusOK)
		if total := got.at(t, "total", "amount"); total != 78300.0 {
			t.Errorf("total %v, want 783.00", total)
		}
	})
	t.Run("StrangersHaveAQuota", func(t *testing.T) {
		d := w.deps
		d.Limits = map[route.Class]middleware.Limit{route.Reads: {Quota: 1, Window: time.Minute}}
		e, err := api.New(d)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []int{http.StatusOK, http.StatusTooManyRequests} {
			req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/estimates", strings.NewReader(`{"plan":"pro"}`))
			req.Header.Set("Content-Type", "application/json")
			rec := httptest.NewRecorder()
			e.ServeHTTP(rec, req)
			if rec.Code != want || (want != http.StatusOK) != (rec.Header().Get("Retry-After") != "") {
				t.Errorf("%d, Retry-After %q: %s", rec.Code, rec.Header().Get("Retry-After"), rec.Body)
			}
		}
	})
	t.Run("BadInput", func(t *testing.T) {
		for _, c := range []struct {
			body    string
			status  int
			code    string
			pointer string
		}{
			{`{"plan":"none"}`, 404, "plan_not_found", ""},
			{`{"plan":"enterprise"}`, 409, "contact_sales", ""},
			{`{"plan":"pro","usage":{"smoke":"1"}}`, 422, "invalid_request", "#/usage/smoke"},
			{`{"plan":"pro","series":[{"meter":"smoke","quantity":"1"}]}`, 422, "invalid_request", "#/series/0/meter"},
			{`{"plan":"pro","usage":{"voice":"-1"}}`, 422, "invalid_request", "#/usage/voice"},
			{`{"plan":"pro","usage":{"voice":"1e9"}}`, 422, "invalid_request", "#/usage/voice"},
			{`{"plan":"pro","usage":{"voice":"0.0000000001"}}`, 422, "invalid_request", "#/usage/voice"},
			{`{"plan":"pro","usage":{"voice":1}}`, 422, "invalid_request", "#/usage/voice"},
			{`{"plan":"pro","usage":{"voice":"999999999999999","text":"999999999999999"}}`, 200, "", ""},
			{`{"plan":"pro","series":[{"meter":"voice","quantity":"999999999999999"},{"meter":"voice","quantity":"1"}]}`, 422, "quantity_out_of_range", ""},
			{`{"plan":"pro","currency":"XXY"}`, 422, "invalid_request", "#/currency"},
			{`{"plan":"pro","currency":"JPY","usage":{"voice":"1"}}`, 422, "currency_not_offered", ""},
			{`{"plan":"pro","account":"x"}`, 422, "invalid_request", "#/account"},
			{`{"plan":"pro","plan":"pro"}`, 422, "invalid_request", "#/plan"},
			{`[]`, 422, "invalid_request", "#"},
			{``, 400, "body_required", ""},
		} {
			got := estimate(t, c.body)
			if got.Status != c.status || (c.code != "" && got.str(t, "code") != c.code) {
				t.Errorf("%s: %d %s, want %d %s", c.body, got.Status, got.Body, c.status, c.code)
				continue
			}
			if c.pointer != "" && got.str(t, "errors", 0, "pointer") != c.pointer {
				t.Errorf("%s points at %s, want %s", c.body, got.str(t, "errors", 0, "pointer"), c.pointer)
			}
		}
	})
}

func TestPlanFit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, "pm_sandbox_visa")
	for _, quantity := range []string{"30000", "1800000", "120000"} {
		w.use(t, a.ID, "voice", quantity)
		w.advance(start.AddDate(0, 1, 0).Sub(start))
		w.sweep(t)
	}
	w.use(t, a.ID, "voice", "999999") // of the running month, which is not compared

	got := ada.get(t, "/v1/plan-fit").want(t, http.StatusOK).golden(t, "plan_fit")
	if n := len(got.at(t, "months").([]any)); n != 3 {
		t.Errorf("%d months", n)
	}
	if held := got.str(t, "held"); held != string(plan.Pro) {
		t.Errorf("held %s", held)
	}
	fresh := w.user(t, w.open(t).ID).get(t, "/v1/plan-fit").want(t, http.StatusOK)
	if n := len(fresh.at(t, "months").([]any)); n != 1 {
		t.Errorf("a new account is compared by %d months, want its running one", n)
	}
	ada.get(t, "/v1/plan-fit?months=6").problem(t, http.StatusUnprocessableEntity, "invalid_request")
}

// The preview of an upgrade shows what GET /v1/plan-fit shows: real months under each plan.
func TestUpgradePreviewComparesPlans(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	ada := w.user(t, a.ID)
	for range 4 { // three of them are compared
		w.use(t, a.ID, "voice", "59000")
		w.advance(start.AddDate(0, 1, 0).Sub(start))
		w.sweep(t)
	}
	preview := ada.post(t, "/v1/upgrades/preview", `{"plan":"pro"}`).want(t, http.StatusOK).golden(t, "upgrade_preview_with_history")
	fit := ada.get(t, "/v1/plan-fit").want(t, http.StatusOK)
	if !reflect.DeepEqual(preview.at(t, "plan_fit"), fit.at(t)) {
		t.Errorf("the preview compares %v, GET /v1/plan-fit %v", preview.at(t, "plan_fit"), fit.at(t))
	}
	if n := len(fit.at(t, "months").([]any)); n != 3 {
		t.Errorf("%d months", n)
	}
	if q := fit.str(t, "break_evens", 0, "quantity"); q != "60000" {
		t.Errorf("Developer ends at %s seconds, want its 60,000", q)
	}
}

// Where an account has a contract, its own plan is priced by it; who has none is not shown a plan that needs a salesperson.
func TestPlanFitIsByTheAccountsOwnTerms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, "pm_sandbox_visa")
	eve := w.user(t, w.open(t).ID)
	_, err := billing.Contractor{Core: w.Core}.Agree(t.Context(), billing.Asked{Account: a.ID, Actor: "operator:sales"}, plan.Contract{
		Reference: "C-1", Plan: plan.Enterprise, Unlimited: []plan.MeterCode{"voice"},
		Charges: []plan.Charge{{
			Code: "voice", Name: "Voice", Meter: "voice", Unit: "second", Aggregation: plan.Sum, Per: plan.Quote{Unit: "minute", Size: 60},
			Prices: []plan.Price{{Currency: money.USD, Model: plan.PerUnit, UnitPrice: money.MustDecimal("0.01")}},
		}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.use(t, a.ID, "voice", "600000") // 10,000 minutes

	fit := ada.get(t, "/v1/plan-fit").want(t, http.StatusOK)
	if held := fit.str(t, "held"); held != "enterprise" {
		t.Errorf("held %s", held)
	}
	totals := map[string]float64{}
	for _, p := range fit.at(t, "plans").([]any) {
		m := p.(map[string]any)
		totals[m["plan"].(string)] = m["total"].(map[string]any)["amount"].(float64)
	}
	if want := map[string]float64{"developer": 0, "pro": 27000 - 2700, "enterprise": 10000}; !maps.Equal(totals, want) {
		t.Errorf("totals %v, want %v", totals, want)
	}
	if n := len(eve.get(t, "/v1/plan-fit").at(t, "plans").([]any)); n != 2 {
		t.Errorf("%d plans are compared, want those that can be had without a salesperson", n)
	}
	eve.with("Accrue-Account", a.ID.String()).get(t, "/v1/plan-fit").problem(t, http.StatusForbidden, "account_not_allowed")
	w.user(t, a.ID, auth.UsageRead).get(t, "/v1/plan-fit").problem(t, http.StatusForbidden, "insufficient_scope")
}
