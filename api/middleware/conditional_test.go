package middleware_test

import (
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/idempotency"
)

func TestIfMatch(t *testing.T) {
	t.Parallel()
	const present = 3
	b := setup(t, nil, route.Route{
		Method: http.MethodPut, Path: "/v1/billing-profile", Scope: auth.BillingWrite, IfMatch: true,
		Handler: func(c echo.Context) error {
			if v := middleware.ExpectedVersion(c); v != middleware.AnyVersion && v != present {
				return account.ErrStale
			}
			return c.NoContent(http.StatusNoContent)
		},
	})
	user := b.token("billing:write", nil)
	for tag, want := range map[string]int{
		`"v3"`: 204, `*`: 204, ` "v3" `: 204,
		``:     428,
		`"v2"`: 412, `"v4"`: 412, `W/"v3"`: 412, `"3"`: 412, `"v03"`: 412, `"v-1"`: 412, `"v99999999999999999999"`: 412, `""`: 412, `"v0"`: 412,
		`v3`: 400, `"v3", "v4"`: 400, `"v3`: 400, `W/v3`: 400,
	} {
		if a := b.do(http.MethodPut, "/v1/billing-profile", `{}`, append(bearer(user), "If-Match", tag)...); a.status != want {
			t.Errorf("If-Match %s: %d, want %d: %s", tag, a.status, want, a.body)
		}
	}
	if a := b.do(http.MethodPut, "/v1/billing-profile", `{}`, append(bearer(user), "If-Match", `"v3"`, "If-Match", `"v3"`)...); a.status != 400 {
		t.Errorf("two headers: %d", a.status)
	}
}

func TestNotModified(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{
		Method: http.MethodGet, Path: "/v1/account", Scope: auth.BillingRead,
		Handler: func(c echo.Context) error { return middleware.JSON(c, 7, map[string]int{"version": 7}) },
	})
	user := b.token("billing:read", nil)
	for tag, want := range map[string]int{``: 200, `"v7"`: 304, `W/"v7"`: 304, `"v6", "v7"`: 304, `*`: 304, `"v6"`: 200, `v7`: 200} {
		a := b.do(http.MethodGet, "/v1/account", "", append(bearer(user), "If-None-Match", tag)...)
		if a.status != want || a.header.Get("ETag") != `"v7"` || a.header.Get("Cache-Control") != "private, no-cache" || (a.body == "") != (want == 304) {
			t.Errorf("If-None-Match %s: %d, want %d; %v %q", tag, a.status, want, a.header, a.body)
		}
	}
}

// A browser keeps copies by address. The addresses of two accounts are the same, and so may be the tags of their records: a
// copy of one must not be confirmed to a caller who asks about the other.
func TestNotModified_CopiesAreKeptApartByCallerAndAccount(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{
		Method: http.MethodGet, Path: "/v1/account", Scope: auth.BillingRead,
		Handler: func(c echo.Context) error { return middleware.JSON(c, 7, map[string]int{"version": 7}) },
	})
	for tag, want := range map[string]int{`"v6"`: 200, `"v7"`: 304} {
		a := b.do(http.MethodGet, "/v1/account", "", append(bearer(b.token("billing:read", nil)), "If-None-Match", tag)...)
		vary := strings.Join(a.header.Values("Vary"), ", ")
		if a.status != want || vary != "Origin, Authorization, Accrue-Account" {
			t.Errorf("%d, want %d, with Vary: %s", a.status, want, vary)
		}
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	var got idempotency.Request
	keep := func(c echo.Context) error {
		got = middleware.Idempotency(c)
		return c.NoContent(http.StatusNoContent)
	}
	b := setup(t, nil,
		route.Route{Method: http.MethodPost, Path: "/v1/top-ups", Scope: auth.PaymentsWrite, Query: []string{"x"}, Class: route.Money, Idempotent: true, Handler: keep},
		route.Route{Method: http.MethodPost, Path: "/v1/invoices/{id}/pay", Scope: auth.PaymentsWrite, Class: route.Money, Idempotent: true, Handler: keep},
	)
	user := b.token("payments:write", nil)
	send := func(path, body, key string) (idempotency.Request, answer) {
		got = idempotency.Request{}
		a := b.do(http.MethodPost, path, body, append(bearer(user), "Idempotency-Key", key)...)
		return got, a
	}

	t.Run("Forms", func(t *testing.T) {
		for header, want := range map[string]string{
			`"8e03978e-40d5"`: "8e03978e-40d5", `8e03978e-40d5`: "8e03978e-40d5", `"a\"b\\c"`: `a"b\c`, `a:b/c=`: `a:b/c=`,
			strings.Repeat("x", 255): strings.Repeat("x", 255),
		} {
			if r, a := send("/v1/top-ups", `{}`, header); a.status != 204 || r.Key != want {
				t.Errorf("%s: %d, key %q", header, a.status, r.Key)
			}
		}
	})
	t.Run("Refused", func(t *testing.T) {
		for header, code := range map[string]string{
			``: "idempotency_key_required", `""`: "invalid_idempotency_key", `"open`: "invalid_idempotency_key", `a b`: "invalid_idempotency_key",
			`"a\x"`: "invalid_idempotency_key", `"a"b"`: "invalid_idempotency_key", `ä`: "invalid_idempotency_key", strings.Repeat("x", 256): "invalid_idempotency_key",
		} {
			if _, a := send("/v1/top-ups", `{}`, header); a.status != 400 || a.code() != code {
				t.Errorf("%q: %d %s", header, a.status, a.body)
			}
		}
		if a := b.do(http.MethodPost, "/v1/top-ups", `{}`, append(bearer(user), "Idempotency-Key", "a", "Idempotency-Key", "a")...); a.status != 400 {
			t.Errorf("two headers: %d", a.status)
		}
	})
	t.Run("Fingerprint", func(t *testing.T) {
		first, _ := send("/v1/top-ups", `{"a":1}`, "k")
		if again, _ := send("/v1/top-ups", `{"a":1}`, `"k"`); again != first {
			t.Error("the same request has another identity")
		}
		seen := map[[32]byte]string{first.Fingerprint: "the first request"}
		for i, tc := range [][2]string{
			{"/v1/top-ups", `{"a":2}`},
			{"/v1/top-ups", `{"a":1} `},
			{"/v1/top-ups?x=1", `{"a":1}`},
			{"/v1/top-ups?x=1{", `"a":1}`},
			{"/v1/invoices/1/pay", `{"a":1}`},
			{"/v1/invoices/2/pay", `{"a":1}`},
		} {
			r, a := send(tc[0], tc[1], "k")
			if other, twice := seen[r.Fingerprint]; twice || a.status != 204 {
				t.Errorf("%v has the fingerprint of %s (%d)", tc, other, a.status)
			}
			seen[r.Fingerprint] = strconv.Itoa(i)
		}
	})
	t.Run("FingerprintOfWhomStaffActFor", func(t *testing.T) {
		operator := append(bearer(b.token("operator", map[string]any{"account_id": nil})), "Idempotency-Key", "k")
		seen := map[[32]byte]bool{}
		for _, a := range []account.ID{b.accounts.mine, b.accounts.other} {
			if a := b.do(http.MethodPost, "/v1/top-ups", `{}`, append(operator, "Accrue-Account", a.String())...); a.status != 204 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			seen[got.Fingerprint] = true
		}
		if len(seen) != 2 {
			t.Error("the same words for another account are the same request")
		}
	})
	t.Run("Scope", func(t *testing.T) {
		first, _ := send("/v1/top-ups", `{}`, "k")
		pay, _ := send("/v1/invoices/1/pay", `{}`, "k")
		user = b.token("payments:write", map[string]any{"sub": "user-2"})
		other, _ := send("/v1/top-ups", `{}`, "k")
		if first.Scope == pay.Scope || first.Scope == other.Scope || !strings.Contains(first.Scope, "POST /v1/top-ups") {
			t.Errorf("scopes %q, %q, %q", first.Scope, pay.Scope, other.Scope)
		}
	})
}
