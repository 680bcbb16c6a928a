package middleware_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/problem"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/auth/authtest"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/secret"
)

var start = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// resolver knows two accounts.
type resolver struct{ mine, other account.ID }

func (r resolver) Resolve(ctx context.Context, ref string) (account.ID, error) {
	return r.Lookup(ctx, ref)
}

func (r resolver) Lookup(_ context.Context, ref string) (account.ID, error) {
	switch ref {
	case r.mine.String(), "customer-1":
		return r.mine, nil
	case r.other.String(), "customer-2":
		return r.other, nil
	}
	return account.ID{}, account.ErrNotFound
}

type bundle struct {
	t        *testing.T
	e        *echo.Echo
	signer   ed25519.PrivateKey
	keys     *auth.Keys
	accounts resolver
	revision *revision
	memory   *middleware.Memory
	log      *bytes.Buffer
	mu       sync.Mutex
	now      time.Time
}

func (b *bundle) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bundle) advance(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

// setup builds the whole chain around the given routes. A route without a handler answers with what
// the chain has settled.
func setup(t *testing.T, limits map[route.Class]middleware.Limit, routes ...route.Route) *bundle {
	t.Helper()
	b := &bundle{t: t, now: start, accounts: resolver{id.New[account.Account](), id.New[account.Account]()}, log: &bytes.Buffer{}, revision: &revision{}}
	b.memory = middleware.NewMemory(b.revision)
	seed := sha256.Sum256([]byte("a key for tests"))
	b.signer = ed25519.NewKeyFromSeed(seed[:])
	der, err := x509.MarshalPKIXPublicKey(b.signer.Public())
	if err != nil {
		t.Fatal(err)
	}
	issuer := auth.Issuer{Name: "https://id.example", Audience: "accrue", Keys: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}
	verifier, err := auth.NewVerifier([]auth.Issuer{issuer}, auth.Test, b.clock, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.keys, err = auth.NewKeys(authtest.NewKeyStore(), secret.Text(strings.Repeat("p", 32)), auth.Test, b.clock)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(&lockedWriter{w: b.log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	chain := middleware.NewChain(middleware.Config{
		Auth: &auth.Authenticator{Tokens: verifier, Keys: b.keys}, Accounts: b.accounts, Memory: b.memory, Clock: b.clock, Log: log,
		Fingerprint: "fingerprint-key", Limits: limits, FailedLogins: middleware.Limit{Quota: 20, Window: time.Minute},
	})
	b.e = echo.New()
	b.e.IPExtractor = echo.ExtractIPDirect()
	b.e.HTTPErrorHandler = problem.Writer{BaseURL: "https://billing.example", Log: log}.Handle
	b.e.Use(middleware.RequestID, middleware.AccessLog(log, clock.Clock(b.clock), nil), middleware.Recover, middleware.SecurityHeaders,
		middleware.CORS([]string{"https://app.example"}))
	for _, r := range routes {
		if r.Handler == nil {
			r.Handler = echoSettled
		}
		r = r.WithDefaults()
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		b.e.Add(r.Method, r.EchoPath(), chain.Wrap(r))
	}
	return b
}

type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}

func echoSettled(c echo.Context) error {
	return c.JSON(http.StatusOK, map[string]string{"account": middleware.AccountIfAny(c).String()})
}

// token signs claims; those given replace the usual ones, and nil removes one.
func (b *bundle) token(scope string, claims map[string]any) string {
	b.t.Helper()
	all := jwt.MapClaims{
		"iss": "https://id.example", "aud": "accrue", "sub": "user-1", "account_id": b.accounts.mine.String(),
		"scope": scope, "iat": start.Unix(), "exp": start.Add(time.Hour).Unix(),
	}
	for k, v := range claims {
		if v == nil {
			delete(all, k)
		} else {
			all[k] = v
		}
	}
	s, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, all).SignedString(b.signer)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

func (b *bundle) key(owner account.ID, scopes ...auth.Scope) string {
	b.t.Helper()
	by := auth.Principal{Kind: auth.OperatorUser, Scopes: []auth.Scope{auth.Operator}}
	_, text, err := b.keys.Create(b.t.Context(), by, auth.NewKey{Account: owner, Name: "k", Scopes: scopes})
	if err != nil {
		b.t.Fatal(err)
	}
	return text.Reveal()
}

type answer struct {
	status int
	header http.Header
	body   string
	doc    map[string]any
}

// do sends a request; headers come in pairs.
func (b *bundle) do(method, target, body string, headers ...string) answer {
	b.t.Helper()
	req := httptest.NewRequestWithContext(b.t.Context(), method, target, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	b.e.ServeHTTP(rec, req)
	a := answer{status: rec.Code, header: rec.Header(), body: rec.Body.String()}
	_ = json.Unmarshal(rec.Body.Bytes(), &a.doc)
	if a.status >= 400 {
		if ct := a.header.Get("Content-Type"); ct != problem.MediaType {
			b.t.Errorf("%s %s: status %d with content type %q", method, target, a.status, ct)
		}
		if s, _ := a.doc["status"].(float64); int(s) != a.status {
			b.t.Errorf("%s %s: document says %v, header says %d", method, target, a.doc["status"], a.status)
		}
	}
	return a
}

func (a answer) code() string { s, _ := a.doc["code"].(string); return s }

func bearer(credential string) []string { return []string{"Authorization", "Bearer " + credential} }

func newKeys(m auth.Mode) (*auth.Keys, error) {
	return auth.NewKeys(authtest.NewKeyStore(), secret.Text(strings.Repeat("p", 32)), m, clock.Fixed(start))
}
