package middleware_test

import (
	"net/http"
	"net/url"
	"reflect"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/auth"
)

// The parameters that a route names reach its handler, once each and in normal form; all others are refused
// before it, by those routes too whose handlers ask for none.
func TestQuery_OnlyWhatTheRouteNames(t *testing.T) {
	t.Parallel()
	var got url.Values
	keep := func(c echo.Context) error {
		got = middleware.Query(c)
		return c.NoContent(http.StatusNoContent)
	}
	b := setup(t, nil,
		route.Route{Method: http.MethodGet, Path: "/v1/invoices", Scope: auth.BillingRead, Query: []string{"status", "limit"}, Handler: keep},
		route.Route{Method: http.MethodPost, Path: "/v1/top-ups", Scope: auth.BillingRead, Handler: keep},
		route.Route{Method: http.MethodGet, Path: "/v1/plans", Public: true, Handler: keep},
		route.Route{Method: http.MethodPost, Path: "/v1/told", Public: true, Signed: true, Handler: keep},
	)
	user := b.token("billing:read", nil)
	for name, tc := range map[string]struct {
		method, target string
		status         int
		code, pointer  string
		query          url.Values
	}{
		"None":               {http.MethodGet, "/v1/invoices", 204, "", "", nil},
		"Those":              {http.MethodGet, "/v1/invoices?status=open&limit=2", 204, "", "", url.Values{"status": {"open"}, "limit": {"2"}}},
		"NormalForm":         {http.MethodGet, "/v1/invoices?status=e%CC%81", 204, "", "", url.Values{"status": {"é"}}},
		"Another":            {http.MethodGet, "/v1/invoices?stauts=open", 422, "unknown_parameter", "#/stauts", nil},
		"Twice":              {http.MethodGet, "/v1/invoices?status=open&status=paid", 422, "duplicate_member", "#/status", nil},
		"NotText":            {http.MethodGet, "/v1/invoices?status=%00", 422, "invalid_text", "#/status", nil},
		"NotAQuery":          {http.MethodGet, "/v1/invoices?status=%zz", 400, "", "", nil},
		"Semicolons":         {http.MethodGet, "/v1/invoices?status=open;limit=2", 400, "", "", nil},
		"OfAWrite":           {http.MethodPost, "/v1/top-ups?amount=5", 422, "unknown_parameter", "#/amount", nil},
		"OfAPublicRoute":     {http.MethodGet, "/v1/plans?code=pro", 422, "unknown_parameter", "#/code", nil},
		"OfTheProvidersCall": {http.MethodPost, "/v1/told?bypass=1", 204, "", "", nil},
	} {
		got = nil
		a := b.do(tc.method, tc.target, "", bearer(user)...)
		if a.status != tc.status || !reflect.DeepEqual(got, tc.query) {
			t.Errorf("%s: %d %v, want %d %v: %s", name, a.status, got, tc.status, tc.query, a.body)
		}
		if tc.code == "" {
			continue
		}
		fields, _ := a.doc["errors"].([]any)
		if len(fields) != 1 {
			t.Errorf("%s: %s", name, a.body)
			continue
		}
		if field, _ := fields[0].(map[string]any); field["code"] != tc.code || field["pointer"] != tc.pointer {
			t.Errorf("%s: %v, want %s at %s", name, field, tc.code, tc.pointer)
		}
	}
}
