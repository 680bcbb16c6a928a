package middleware_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/auth"
)

func TestRequestIDIsTheTrace(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{Method: http.MethodGet, Path: "/v1/plans", Public: true})
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	a := b.do(http.MethodGet, "/v1/nowhere", "", "Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")
	if a.doc["instance"] != "urn:uuid:4bf92f35-77b3-4da6-a3ce-929d0e0e4736" || a.header.Get("X-Request-Id") != "4bf92f35-77b3-4da6-a3ce-929d0e0e4736" {
		t.Errorf("instance %v, X-Request-Id %q", a.doc["instance"], a.header.Get("X-Request-Id"))
	}
	first := b.do(http.MethodGet, "/v1/plans", "", "Traceparent", "00-"+strings.ToUpper(trace)+"-00f067aa0ba902b7-01").header.Get("X-Request-Id")
	second := b.do(http.MethodGet, "/v1/plans", "", "X-Request-Id", first).header.Get("X-Request-Id")
	if first == "" || first == second || strings.Contains(first, "4bf92f35") {
		t.Errorf("ids %q and %q", first, second)
	}
}

// TestNothingPrivateIsLogged is failure case 88 at the edge: canaries in every place of a request, on
// every way out.
func TestNothingPrivateIsLogged(t *testing.T) {
	t.Parallel()
	const canary = "tell-no-one"
	b := setup(t, nil,
		route.Route{Method: http.MethodPost, Path: "/v1/ok/{name}", Public: true, Query: []string{"q"}},
		route.Route{Method: http.MethodPost, Path: "/v1/panic/{name}", Public: true, Query: []string{"q"}, Handler: func(echo.Context) error { panic("at the disco") }},
		route.Route{Method: http.MethodPost, Path: "/v1/fail/{name}", Public: true, Query: []string{"q"}, Handler: func(echo.Context) error { return errors.New("pq: secret internals") }},
		route.Route{Method: http.MethodGet, Path: "/v1/private", Scope: auth.BillingRead},
	)
	doc := `{"x":"` + canary + `"}`
	headers := []string{"Authorization", "Bearer " + canary, "X-Custom", canary, "Cookie", "c=" + canary, "User-Agent", canary}
	for _, path := range []string{"/v1/ok/", "/v1/panic/", "/v1/fail/", "/v1/nowhere/"} {
		a := b.do(http.MethodPost, path+canary+"?q="+canary, doc, headers...)
		if strings.Contains(a.body, canary) || strings.Contains(a.body, "disco") || strings.Contains(a.body, "internals") || strings.Contains(a.body, ".go:") {
			t.Errorf("%s: the answer says too much: %s", path, a.body)
		}
		if path == "/v1/panic/" || path == "/v1/fail/" {
			if a.status != http.StatusInternalServerError || a.code() != "internal" {
				t.Errorf("%s: %d %s", path, a.status, a.body)
			}
		}
	}
	b.do(http.MethodGet, "/v1/private", "", headers...)
	log := b.log.String()
	if strings.Contains(log, canary) {
		t.Errorf("the log holds what was sent:\n%s", log)
	}
	for _, want := range []string{"at the disco", "secret internals", `"route":"/v1/ok/:name"`, `"route":"unmatched"`} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
	if n := strings.Count(log, "secret internals"); n != 1 {
		t.Errorf("a fault is logged %d times", n)
	}
}

// What an operation does not know in a body it refuses, and of an operation without one that is everything.
func TestNoBody(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{
		Method: http.MethodPost, Path: "/v1/upgrades/{id}/cancel", Scope: auth.PaymentsWrite, NoBody: true,
		Handler: func(c echo.Context) error { return c.NoContent(http.StatusNoContent) },
	})
	user := b.token("payments:write", nil)
	for body, want := range map[string]int{"": 204, "{}": 204, " \n": 204, " {} ": 204, `{"reason":"too dear"}`: 422, `{"a":1,"a":1}`: 422, "[]": 422, "null": 422, "{": 400, "{}{}": 400} {
		if a := b.do(http.MethodPost, "/v1/upgrades/upg_1/cancel", body, bearer(user)...); a.status != want {
			t.Errorf("%q: %d, want %d: %s", body, a.status, want, a.body)
		}
	}
	if a := b.do(http.MethodPost, "/v1/upgrades/upg_1/cancel", `{"reason":"too dear"}`, bearer(user)...); !strings.Contains(a.body, `"#/reason"`) {
		t.Errorf("what is not known is not pointed at: %s", a.body)
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{Method: http.MethodGet, Path: "/v1/plans", Public: true})
	for origin, allowed := range map[string]bool{
		"https://app.example": true, "https://app.example.evil": false, "https://evil.app.example": false, "http://app.example": false,
		"https://app.example:8443": false, "null": false, "https://APP.example": false, "*": false,
	} {
		for _, preflight := range []bool{false, true} {
			method, headers := http.MethodGet, []string{"Origin", origin}
			if preflight {
				method, headers = http.MethodOptions, append(headers, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization")
			}
			h := b.do(method, "/v1/plans", "", headers...).header
			if got := h.Get("Access-Control-Allow-Origin"); (got == origin) != allowed || got == "*" {
				t.Errorf("%s (preflight %v): allowed %q", origin, preflight, got)
			}
			if h.Get("Access-Control-Allow-Credentials") != "" {
				t.Errorf("%s: credentials are allowed", origin)
			}
			if !strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
				t.Errorf("%s: Vary %v", origin, h.Values("Vary"))
			}
			if allowed && preflight && (h.Get("Access-Control-Max-Age") != "600" || !strings.Contains(h.Get("Access-Control-Allow-Headers"), "Idempotency-Key")) {
				t.Errorf("preflight: %v", h)
			}
			if allowed && !preflight {
				for _, want := range []string{"Content-Disposition", "ETag", "Link", "Location", "Retry-After", "RateLimit", "RateLimit-Policy", "Idempotent-Replayed", "Deprecation", "Sunset"} {
					if !strings.Contains(h.Get("Access-Control-Expose-Headers"), want) {
						t.Errorf("a page cannot read %s", want)
					}
				}
			}
		}
	}
}

func gzipped(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(s))
	_ = w.Close()
	return b.String()
}

func zstded(s string) string {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return string(w.EncodeAll([]byte(s), nil))
}

func TestBodies(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{
		Method: http.MethodPost, Path: "/v1/things", Public: true, MaxBody: 1000,
		Handler: func(c echo.Context) error { return c.String(http.StatusOK, string(body.Bytes(c))) },
	})
	doc := `{"a":"` + strings.Repeat("x", 100) + `"}`
	large := `{"a":"` + strings.Repeat("x", 2000) + `"}`
	bomb := gzipped(strings.Repeat("0", 5<<20))
	const ct, ce = "Content-Type", "Content-Encoding"
	for name, tc := range map[string]struct {
		body    string
		headers []string
		status  int
		code    string
	}{
		"Plain":             {doc, nil, 200, ""},
		"Empty":             {"", nil, 200, ""},
		"Charset":           {doc, []string{ct, "", ct, "application/json; charset=UTF-8"}, 200, ""},
		"Gzip":              {gzipped(doc), []string{ce, "gzip"}, 200, ""},
		"GzipUpperCase":     {gzipped(doc), []string{ce, "GZIP"}, 200, ""},
		"Zstd":              {zstded(doc), []string{ce, "zstd"}, 200, ""},
		"Identity":          {doc, []string{ce, "identity"}, 200, ""},
		"TooLarge":          {large, nil, 413, "body_too_large"},
		"GzipTooLarge":      {gzipped(large), []string{ce, "gzip"}, 413, "body_too_large"},
		"ZstdTooLarge":      {zstded(large), []string{ce, "zstd"}, 413, "body_too_large"},
		"GzipBomb":          {bomb, []string{ce, "gzip"}, 413, "body_too_large"},
		"GzipBroken":        {gzipped(doc)[:25], []string{ce, "gzip"}, 400, "corrupt_encoding"},
		"GzipIsNot":         {doc, []string{ce, "gzip"}, 400, "corrupt_encoding"},
		"ZstdIsNot":         {doc, []string{ce, "zstd"}, 400, "corrupt_encoding"},
		"Deflate":           {doc, []string{ce, "deflate"}, 415, "unsupported_encoding"},
		"Twice":             {gzipped(gzipped(doc)), []string{ce, "gzip, gzip"}, 415, "unsupported_encoding"},
		"TwiceInTwoHeaders": {gzipped(gzipped(doc)), []string{ce, "gzip", ce, "gzip"}, 415, "unsupported_encoding"},
		"NoContentType":     {doc, []string{ct, ""}, 415, "unsupported_media_type"},
		"Form":              {"a=b", []string{ct, "", ct, "application/x-www-form-urlencoded"}, 415, "unsupported_media_type"},
		"XML":               {"<a/>", []string{ct, "", ct, "application/xml"}, 415, "unsupported_media_type"},
		"OtherCharset":      {doc, []string{ct, "", ct, "application/json; charset=iso-8859-1"}, 415, "unsupported_media_type"},
		"BrokenContentType": {doc, []string{ct, "", ct, "application/json; charset"}, 415, "unsupported_media_type"},
		"TwoContentTypes":   {doc, []string{ct, "text/csv"}, 400, "invalid_content_type"},
	} {
		t.Run(name, func(t *testing.T) {
			a := b.do(http.MethodPost, "/v1/things", tc.body, tc.headers...)
			if a.status != tc.status || a.code() != tc.code {
				t.Fatalf("%d %q, want %d %q: %.200s", a.status, a.code(), tc.status, tc.code, a.body)
			}
			if a.status == 200 && tc.body != "" && a.body != doc {
				t.Errorf("the handler got %q", a.body)
			}
			if tc.code == "unsupported_encoding" && a.header.Get("Accept-Encoding") != "gzip, zstd" {
				t.Errorf("Accept-Encoding %q", a.header.Get("Accept-Encoding"))
			}
		})
	}
}

// The room for large bodies is not for strangers: two that trickle would keep out everybody else's.
func TestLargeBodies_OfStrangersAreNotRead(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{Method: http.MethodPost, Path: "/v1/usage/events", Scope: auth.UsageWrite, MaxBody: body.Small + 1})
	unread := iotest.ErrReader(errors.New("read"))
	for name, c := range map[string]struct {
		headers []string
		status  int
	}{
		"WithoutACredential": {nil, http.StatusUnauthorized},
		"WithoutTheScope":    {bearer(b.token("usage:read", nil)), http.StatusForbidden},
		"Known":              {bearer(b.token("usage:write", nil)), http.StatusBadRequest},
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/usage/events", unread)
		req.ContentLength = body.Small + 1
		for i := 0; i < len(c.headers); i += 2 {
			req.Header.Set(c.headers[i], c.headers[i+1])
		}
		w := httptest.NewRecorder()
		if b.e.ServeHTTP(w, req); w.Code != c.status {
			t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, c.status)
		}
	}
}

func TestRateLimit(t *testing.T) {
	t.Parallel()
	limits := map[route.Class]middleware.Limit{route.Reads: {Quota: 3, Window: time.Minute}}
	b := setup(t, limits,
		route.Route{Method: http.MethodGet, Path: "/v1/balance", Scope: auth.BillingRead},
		route.Route{Method: http.MethodGet, Path: "/v1/plans", Public: true},
		route.Route{Method: http.MethodPost, Path: "/v1/usage/events", Scope: auth.UsageWrite, Class: route.Ingest},
	)
	user := bearer(b.token("billing:read usage:write", nil))
	for i := range 3 {
		a := b.do(http.MethodGet, "/v1/balance", "", user...)
		if a.status != 200 || a.header.Get("RateLimit-Policy") != `"reads";q=3;w=60` {
			t.Fatalf("request %d: %d, %q", i, a.status, a.header.Get("RateLimit-Policy"))
		}
		if want := []string{`"reads";r=2;t=20`, `"reads";r=1;t=40`, `"reads";r=0;t=60`}[i]; a.header.Get("RateLimit") != want {
			t.Errorf("request %d: RateLimit %q, want %q", i, a.header.Get("RateLimit"), want)
		}
	}
	a := b.do(http.MethodGet, "/v1/balance", "", user...)
	if a.status != 429 || a.doc["type"] != "https://iana.org/assignments/http-problem-types#quota-exceeded" || a.code() != "rate_limited" {
		t.Fatalf("beyond the quota: %d %s", a.status, a.body)
	}
	if v, _ := a.doc["violated-policies"].([]any); len(v) != 1 || v[0] != "reads" {
		t.Errorf("violated-policies %v", a.doc["violated-policies"])
	}
	wait, err := time.ParseDuration(a.header.Get("Retry-After") + "s")
	if err != nil || wait < 20*time.Second || wait > 25*time.Second {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	if a := b.do(http.MethodGet, "/v1/balance", "", bearer(b.token("billing:read", map[string]any{"account_id": "customer-2"}))...); a.status != 200 {
		t.Errorf("another account is refused: %d", a.status)
	}
	if a := b.do(http.MethodGet, "/v1/balance", "", bearer(b.key(b.accounts.mine, auth.BillingRead))...); a.status != 429 {
		t.Errorf("the account's key has a quota of its own: %d", a.status)
	}
	if a := b.do(http.MethodPost, "/v1/usage/events", "", user...); a.status != 200 || a.header.Get("RateLimit") != "" {
		t.Errorf("an unlimited class: %d, %q", a.status, a.header.Get("RateLimit"))
	}
	b.advance(wait)
	if a := b.do(http.MethodGet, "/v1/balance", "", user...); a.status != 200 {
		t.Errorf("after Retry-After: %d", a.status)
	}
	for i := range 4 {
		if a := b.do(http.MethodGet, "/v1/plans", ""); (a.status == 200) != (i < 3) {
			t.Errorf("stranger's request %d: %d", i, a.status)
		}
	}
	if h := b.do(http.MethodGet, "/v1/plans", "").header; h.Get("X-RateLimit-Limit") != "" || h.Get("RateLimit-Limit") != "" {
		t.Errorf("headers of older drafts: %v", h)
	}
}

// Of IPv6 a caller has more addresses than could ever be counted.
func TestRateLimit_OneNetworkIsOneStranger(t *testing.T) {
	t.Parallel()
	limits := map[route.Class]middleware.Limit{route.Reads: {Quota: 1, Window: time.Minute}}
	b := setup(t, limits, route.Route{Method: http.MethodGet, Path: "/v1/plans", Public: true})
	for _, c := range []struct {
		from   string
		status int
	}{
		{"[2001:db8:1:2::1]:443", 200},
		{"[2001:db8:1:2:ffff::9]:443", 429},
		{"[2001:db8:1:3::1]:443", 200},
		{"[fe80::1%eth0]:443", 200},
		{"192.0.2.1:443", 200},
		{"192.0.2.2:443", 200},
		{"192.0.2.1:444", 429},
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/plans", nil)
		req.RemoteAddr = c.from
		w := httptest.NewRecorder()
		if b.e.ServeHTTP(w, req); w.Code != c.status {
			t.Errorf("from %s: %d, want %d", c.from, w.Code, c.status)
		}
	}
}

func TestDeprecation(t *testing.T) {
	t.Parallel()
	since := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	b := setup(t, nil, route.Route{
		Method: http.MethodGet, Path: "/v1/old", Public: true, Deprecated: since, Sunset: since.AddDate(1, 0, 0), Successor: "https://billing.example/docs/new",
	})
	h := b.do(http.MethodGet, "/v1/old", "").header
	for name, want := range map[string]string{
		"Deprecation": "@1767225600", "Sunset": "Fri, 01 Jan 2027 00:00:00 GMT",
		"Link": `<https://billing.example/docs/new>; rel="deprecation"; type="text/html"`,
	} {
		if got := h.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{
		Method: http.MethodGet, Path: "/v1/slow", Public: true, Timeout: time.Millisecond,
		Handler: func(c echo.Context) error {
			<-c.Request().Context().Done()
			return c.Request().Context().Err()
		},
	})
	if a := b.do(http.MethodGet, "/v1/slow", ""); a.status != 503 || a.code() != "timeout" || a.header.Get("Retry-After") != "1" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestAtMost(t *testing.T) {
	t.Parallel()
	inside, leave := make(chan struct{}, 2), make(chan struct{})
	b := setup(t, nil, route.Route{
		Method: http.MethodGet, Path: "/v1/everything", Public: true, AtMost: 1,
		Handler: func(c echo.Context) error {
			inside <- struct{}{}
			<-leave
			return c.NoContent(http.StatusNoContent)
		},
	})
	first := make(chan int)
	go func() { first <- b.do(http.MethodGet, "/v1/everything", "").status }()
	<-inside
	if a := b.do(http.MethodGet, "/v1/everything", ""); a.status != 503 || a.code() != "operation_busy" || a.header.Get("Retry-After") != "5" {
		t.Errorf("beside another: %d %s", a.status, a.body)
	}
	close(leave)
	if status := <-first; status != 204 {
		t.Errorf("the first: %d", status)
	}
	if a := b.do(http.MethodGet, "/v1/everything", ""); a.status != 204 {
		t.Errorf("after it: %d %s", a.status, a.body)
	}
}
