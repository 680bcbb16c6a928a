package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/api/apitest"
	"github.com/accrue-billing/accrue/api/cursor"
	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/problem"
	"github.com/accrue-billing/accrue/api/route"
	v1 "github.com/accrue-billing/accrue/api/v1"
	"github.com/accrue-billing/accrue/docs"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/auth/authtest"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/plan"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// catalogue serves the shipped catalogue.
type catalogue struct{ list plan.Catalogue }

func (c catalogue) Plans(context.Context) ([]plan.Plan, error) {
	var out []plan.Plan
	for _, o := range c.list.Offers {
		out = append(out, o.Plan)
	}
	return out, nil
}

func (c catalogue) Plan(_ context.Context, code plan.Code) (plan.Plan, error) {
	o, ok := c.list.Offer(code)
	if !ok {
		return plan.Plan{}, plan.ErrNotFound
	}
	return o.Plan, nil
}

func (c catalogue) Current(_ context.Context, code plan.Code) (plan.Version, error) {
	o, ok := c.list.Offer(code)
	if !ok {
		return plan.Version{}, plan.ErrNotFound
	}
	o.Version.Number = 1
	return o.Version, nil
}

func (c catalogue) Meters(context.Context) ([]plan.Meter, error) { return c.list.Meters, nil }

func newDeps(t *testing.T) api.Deps {
	t.Helper()
	keys, err := auth.NewKeys(authtest.NewKeyStore(), "0123456789abcdef0123456789abcdef", auth.Test, clock.Fixed(now))
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.NewVerifier(nil, auth.Test, clock.Fixed(now), nil)
	if err != nil {
		t.Fatal(err)
	}
	return api.Deps{
		Config: middleware.Config{
			Auth: &auth.Authenticator{Tokens: tokens, Keys: keys}, Clock: clock.Fixed(now), Log: slog.New(slog.DiscardHandler),
			Fingerprint: "key", Limits: map[route.Class]middleware.Limit{route.Reads: {Quota: 1000, Window: time.Minute}},
		},
		PublicURL: "https://billing.example", Origins: []string{"https://app.example"},
		V1: v1.Deps{
			Lists: v1.Lists{Cursors: cursor.NewCodec("key"), PublicURL: "https://billing.example"},
			Plans: catalogue{plan.Shipped()},
		},
	}
}

func serve(t *testing.T, d api.Deps) string {
	t.Helper()
	e, err := api.New(d)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(e)
	t.Cleanup(s.Close)
	return s.URL
}

func TestRoutesAreThePathsOfTheDocument(t *testing.T) {
	t.Parallel()
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string                `json:"operationId"`
			Security    []map[string][]string `json:"security"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(docs.OpenAPI, &doc); err != nil {
		t.Fatal(err)
	}
	documented, operations := map[string]string{}, map[string]bool{}
	for path, item := range doc.Paths {
		for method, op := range item {
			scope := "public"
			if len(op.Security) == 1 {
				scope = strings.Join(op.Security[0]["bearer"], " ")
			}
			documented[strings.ToUpper(method)+" "+path] = scope
			if operations[op.OperationID] {
				t.Errorf("operationId %q is used twice", op.OperationID)
			}
			operations[op.OperationID] = true
		}
	}
	for _, r := range api.Routes(api.Deps{}) {
		scope := string(r.Scope)
		if r.Public {
			scope = "public"
		}
		switch got, ok := documented[r.Name()]; {
		case !ok:
			t.Errorf("%s is served and not documented; run make generate", r.Name())
		case got != scope:
			t.Errorf("%s requires %s and is documented with %s; run make generate", r.Name(), scope, got)
		}
		delete(documented, r.Name())
	}
	for name := range documented {
		t.Errorf("%s is documented and not served", name)
	}
}

func TestEveryRouteIsDeclaredSoundly(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range api.Routes(api.Deps{}) {
		if err := r.WithDefaults().Check(); err != nil {
			t.Error(err)
		}
		if seen[r.Name()] {
			t.Errorf("%s is declared twice", r.Name())
		}
		seen[r.Name()] = true
	}
}

func TestEveryAnswerCarriesTheSecurityHeaders(t *testing.T) {
	t.Parallel()
	base := serve(t, newDeps(t))
	for _, target := range []string{"GET /v1/plans", "GET /v1/plans/none", "GET /v1/nowhere", "POST /v1/plans", "GET /healthz", "GET /readyz", "GET /openapi.json", "GET /swagger/index.html"} {
		t.Run(target, func(t *testing.T) {
			t.Parallel()
			method, path, _ := strings.Cut(target, " ")
			h := apitest.NewClient(t, base, "").Do(method, path, nil, "Origin", "https://app.example").Header
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
				"Strict-Transport-Security": "max-age=63072000; includeSubDomains",
			} {
				if got := h.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			csp := h.Get("Content-Security-Policy")
			if !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
				t.Errorf("Content-Security-Policy: %q", csp)
			}
			if strings.Contains(csp, "script-src 'self' 'unsafe") {
				t.Errorf("Content-Security-Policy lets any script run: %q", csp)
			}
			if h.Get("Cache-Control") == "" || h.Get("X-Request-Id") == "" {
				t.Errorf("no Cache-Control or no X-Request-Id: %v", h)
			}
			for name := range h {
				if strings.HasPrefix(name, "X-Ratelimit") || name == "Server" || name == "X-Powered-By" {
					t.Errorf("header %s must not be there", name)
				}
			}
		})
	}
}

func TestTheRouterRefusesInProblems(t *testing.T) {
	t.Parallel()
	base := serve(t, newDeps(t))
	c := apitest.NewClient(t, base, "")
	c.Get("/v1/nowhere").WantProblem(http.StatusNotFound, "route_not_found")
	c.Get("/").WantProblem(http.StatusNotFound, "route_not_found")
	c.Get("/swagger/none.js").WantProblem(http.StatusNotFound, "route_not_found")
	r := c.Do(http.MethodDelete, "/v1/plans", nil).WantProblem(http.StatusMethodNotAllowed, "method_not_allowed")
	if allow := r.Header.Get("Allow"); !strings.Contains(allow, "GET") {
		t.Errorf("Allow: %q", allow)
	}
	c.Get("/v1/plans", "Accept", "application/xml").WantProblem(http.StatusNotAcceptable, "not_acceptable")
	c.Get("/v1/plans/pro", "Accept", "text/html, application/*;q=0.1").Want(http.StatusOK)
	c.Get("/v1/plans/4242424242424242").WantProblem(http.StatusUnprocessableEntity, "card_data_not_accepted")
}

func TestReadiness(t *testing.T) {
	t.Parallel()
	d := newDeps(t)
	fault := errors.New("the database is away")
	d.Ready = func(context.Context) error { return fault }
	c := apitest.NewClient(t, serve(t, d), "")
	c.Get("/healthz").Want(http.StatusOK)
	c.Do(http.MethodHead, "/healthz", nil).Want(http.StatusOK) // as load balancers and wget --spider ask
	c.Do(http.MethodHead, "/readyz", nil).Want(http.StatusServiceUnavailable)
	r := c.Get("/readyz").WantProblem(http.StatusServiceUnavailable, "not_ready")
	if strings.Contains(string(r.Body), "database") || r.Header.Get("Retry-After") == "" {
		t.Errorf("says too much or gives no time: %s", r.Body)
	}
}

// Probes come every second: lines about them would bury the others. One that fails is told.
func TestProbesThatAreAnsweredAreNotLogged(t *testing.T) {
	t.Parallel()
	var fault error
	var log bytes.Buffer
	d := newDeps(t)
	d.Log = slog.New(slog.NewJSONHandler(&log, nil))
	d.Ready = func(context.Context) error { return fault }
	d.Metrics = http.NotFoundHandler()
	e, err := api.New(d)
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) string {
		log.Reset()
		e.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil))
		return log.String()
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if said := get(path); said != "" {
			t.Errorf("%s: %s", path, said)
		}
	}
	fault = errors.New("the database is away")
	for _, path := range []string{"/readyz", "/metrics", "/v1/plans"} { // metrics: not found
		if said := get(path); !strings.Contains(said, `"msg":"request"`) {
			t.Errorf("%s: %s", path, said)
		}
	}
}

// A load balancer keeps idle connections for a minute. One that we closed at that moment would fail a request that it may not repeat.
func TestServer_KeepsIdleConnectionsLongerThanALoadBalancer(t *testing.T) {
	t.Parallel()
	if idle := api.NewServer(http.NotFoundHandler(), slog.New(slog.DiscardHandler)).IdleTimeout; idle < 70*time.Second {
		t.Errorf("closed after %s", idle)
	}
}

// Five hundred peers that never end their headers, a byte now and then, keep nobody else from being served, and are let go of.
func TestServer_LetsGoOfPeersThatTrickle(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := api.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }), slog.New(slog.DiscardHandler))
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })

	var slow sync.WaitGroup
	for range 500 {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		slow.Go(func() {
			tick := time.NewTicker(200 * time.Millisecond)
			defer tick.Stop()
			for begun := time.Now(); time.Since(begun) < time.Minute; <-tick.C {
				if _, err := conn.Write([]byte("G")); err != nil {
					return
				}
			}
			t.Error("a peer that trickles was kept for a minute")
		})
	}
	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil || resp.StatusCode != http.StatusNoContent {
		t.Errorf("beside them: %d, %v", resp.StatusCode, err)
	}
	slow.Wait()
}

func TestProblemPages(t *testing.T) {
	t.Parallel()
	c := apitest.NewClient(t, serve(t, newDeps(t)), "")
	for slug, code := range problem.Codes() {
		got := apitest.JSON[problem.Code](c.Get("/problems/" + slug).Want(http.StatusOK))
		if got != code || got.Title == "" || got.Detail == "" || got.Status < 400 {
			t.Errorf("/problems/%s: %+v", slug, got)
		}
	}
	page := c.Get("/problems/invalid-token", "Accept", "text/html").Want(http.StatusOK)
	if !strings.Contains(string(page.Body), "<h1>Invalid token</h1>") {
		t.Errorf("page: %s", page.Body)
	}
	c.Get("/problems/made-up").WantProblem(http.StatusNotFound, "route_not_found")
}

func TestTheDocumentIsServed(t *testing.T) {
	t.Parallel()
	c := apitest.NewClient(t, serve(t, newDeps(t)), "")
	if got := c.Get("/openapi.json").Want(http.StatusOK); string(got.Body) != string(docs.OpenAPI) {
		t.Error("/openapi.json is not the document")
	}
	if got := c.Get("/openapi.yaml").Want(http.StatusOK); !strings.HasPrefix(string(got.Body), "openapi: 3.1.0") {
		t.Errorf("/openapi.yaml begins with %.40q", got.Body)
	}
	page := c.Get("/swagger/").Want(http.StatusOK) // follows the redirect
	if !strings.Contains(string(page.Body), "/openapi.json") {
		t.Error("the documentation page does not load /openapi.json")
	}
	c.Get("/swagger/index.html?x=1").Want(http.StatusOK)
	if js := c.Get("/swagger/swagger-ui-bundle.js").Want(http.StatusOK); len(js.Body) < 100_000 {
		t.Errorf("swagger-ui-bundle.js has %d bytes", len(js.Body))
	}
}

func TestHeadIsGetWithoutBody(t *testing.T) {
	t.Parallel()
	c := apitest.NewClient(t, serve(t, newDeps(t)), "")
	get := c.Get("/v1/plans").Want(http.StatusOK)
	head := c.Do(http.MethodHead, "/v1/plans", nil).Want(http.StatusOK)
	if len(head.Body) != 0 || head.ETag() != get.ETag() || head.ETag() == "" {
		t.Errorf("HEAD: %d bytes, ETag %q; GET: %q", len(head.Body), head.ETag(), get.ETag())
	}
	c.Get("/v1/plans", "If-None-Match", fmt.Sprintf(`"x", W/%s`, get.ETag())).Want(http.StatusNotModified)
}

func TestOnlyChoosesRoutes(t *testing.T) {
	t.Parallel()
	d := newDeps(t)
	d.Only = api.AdminOnly
	c := apitest.NewClient(t, serve(t, d), "")
	c.Get("/v1/plans").WantProblem(http.StatusNotFound, "route_not_found")
	if !slices.ContainsFunc(api.Routes(api.Deps{}), api.PublicOnly) {
		t.Error("no public routes")
	}
}
