package v1_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/api/apitest"
	"github.com/accrue-billing/accrue/api/cursor"
	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/problem"
	v1 "github.com/accrue-billing/accrue/api/v1"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/auth/authtest"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/changes"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/invariant"
	"github.com/accrue-billing/accrue/internal/invariant/invarianttest"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/secret"
	"github.com/accrue-billing/accrue/pkg/money"
)

// world is the whole API on a database and a provider of its own. Time stands still until it is advanced.
type world struct {
	*billing.Core
	db      *postgres.DB
	dsn     string
	control sandbox.Control
	ingest  *metering.Ingester
	keys    *auth.Keys
	deps    api.Deps // change it before the first call
	serve   func() http.Handler

	signer *auth.Signer
	mu     sync.Mutex
	now    time.Time
}

// start is a Tuesday: usage of whole months is easy to reckon from it.
var start = time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)

const publicURL = "https://billing.example.com"

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{now: start}
	w.db, w.dsn = postgrestest.NewWithDSN(tb)
	client := w.provider(tb)
	log := slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	w.Core = &billing.Core{DB: w.db, Gateway: client, Clock: w.clock, Policy: billing.DefaultPolicy(), Log: log}
	if _, err := (billing.Publisher{Core: w.Core}).Publish(tb.Context(), plan.Shipped()); err != nil {
		tb.Fatal(err)
	}
	meters := billing.Meters(plan.Shipped().Meters)
	w.ingest = metering.NewIngester(postgres.Journal(w.db.ByKey()), meters, w.clock, w.Log,
		metering.Options{Pricer: billing.Pricer{Core: w.Core}})
	ctx, stop := context.WithCancel(context.WithoutCancel(tb.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = w.ingest.Run(ctx) }()
	tb.Cleanup(func() { stop(); <-done })

	wire := postgres.Changes(w.db.Pool())
	names := &billing.Directory{Core: w.Core}
	revisions := postgres.Revisions(w.db.ByKey(), w.clock)
	credentials := w.authenticator(tb)
	w.deps = api.Deps{
		Config: middleware.Config{
			Auth: credentials, Accounts: names, Memory: middleware.NewMemory(revisions), Clock: w.clock, Log: log, Fingerprint: "a key for tests",
		},
		V1: v1.Deps{
			Lists:   v1.Lists{Cursors: cursor.NewCodec("a key for tests"), PublicURL: publicURL},
			Billing: w.Core, Keys: w.keys, Auth: credentials, Mode: auth.Test, Proofs: v1.Proofs{Source: w.db, Store: w.db.Proofs()},
			Streams: v1.Streams{Hub: changes.NewHub(wire, wire, log, changes.Options{})}, // it does not run: a stream hears of nothing; see replica
			Metering: v1.Metering{
				Ingester: w.ingest, Store: w.db.Usage(), Catalogue: meters, Accounts: names,
				Reader:   metering.Reader{Store: w.db.Usage(), Entitlements: w.db.Entitlements(), Catalogue: meters},
				Reserver: w.ingest, Reservations: w.db.Reservations(), Leases: entitlement.NewLeaseSigner(publicURL, ed25519.NewKeyFromSeed(make([]byte, 32))),
				Checker: metering.NewChecker(postgres.Standings(w.db.ByKey()), meters, w.clock, billing.Pricer{Core: w.Core}, postgres.Uses(w.db.ByKey())),
				Zone:    func(context.Context, account.ID) (*time.Location, error) { return time.UTC, nil },
			},
		},
		PublicURL: publicURL,
	}
	w.serve = sync.OnceValue(func() http.Handler {
		e, err := api.New(w.deps)
		if err != nil {
			tb.Error(err)
		}
		return apitest.Handler(tb, e) // every exchange is held to the OpenAPI document
	})
	return w
}

// provider starts a sandbox and returns its client.
func (w *world) provider(tb testing.TB) *sandbox.Client {
	tb.Helper()
	const key = "sandbox-test-key"
	server, err := sandbox.New(sandbox.Config{
		Mode: payment.ModeTest, SecretKey: key, WebhookSecret: "whsec", Clock: w.clock, HangFor: 100 * time.Millisecond,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = server.Close() })
	ts := httptest.NewServer(server)
	tb.Cleanup(ts.Close)
	client, err := sandbox.NewClient(sandbox.ClientConfig{
		Mode: payment.ModeTest, BaseURL: ts.URL, SecretKey: key, WebhookSecrets: []payment.Secret{"whsec"}, Timeout: 5 * time.Second,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(client.Close)
	w.control = sandbox.Control{BaseURL: ts.URL, SecretKey: key}
	return client
}

func (w *world) authenticator(tb testing.TB) *auth.Authenticator {
	tb.Helper()
	var err error
	if w.signer, err = auth.NewDevelopmentSigner(tb.TempDir(), "accrue", auth.Test, w.clock); err != nil {
		tb.Fatal(err)
	}
	verifier, err := auth.NewVerifier([]auth.Issuer{w.signer.Issuer()}, auth.Test, w.clock, nil)
	if err != nil {
		tb.Fatal(err)
	}
	if w.keys, err = auth.NewKeys(authtest.NewKeyStore(), secret.Text(strings.Repeat("p", 32)), auth.Test, w.clock); err != nil {
		tb.Fatal(err)
	}
	return &auth.Authenticator{Tokens: verifier, Keys: w.keys}
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) sweep(tb testing.TB) {
	tb.Helper()
	if _, err := (billing.Sweeper{Core: w.Core}).Sweep(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}

func (w *world) open(tb testing.TB) account.Account {
	tb.Helper()
	a, err := billing.Opener{Core: w.Core}.Open(tb.Context(), billing.NewAccount{})
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// use reports usage now and fails the test unless it was accepted.
func (w *world) use(tb testing.TB, a account.ID, meter, quantity string) {
	tb.Helper()
	w.useAt(tb, a, meter, quantity, w.clock())
}

// useAt is use of a time that is past.
func (w *world) useAt(tb testing.TB, a account.ID, meter, quantity string, at time.Time) {
	tb.Helper()
	res, err := w.ingest.Add(tb.Context(), []metering.Event{{
		Account: a, Source: "test", ID: uuid.NewString(), Meter: meter, Quantity: money.MustDecimal(quantity), OccurredAt: at,
	}})
	if err != nil || len(res) != 1 || res[0].Status != metering.Accepted {
		tb.Fatalf("usage of %s %s: %+v, %v", quantity, meter, res, err)
	}
}

// A caller talks to the API with one credential.
type caller struct {
	w      *world
	token  func() string
	header http.Header // sent with each call
}

// user is a person on the account's Billing page. Without scopes it has all that a user may have.
func (w *world) user(tb testing.TB, a account.ID, scopes ...auth.Scope) caller {
	tb.Helper()
	if len(scopes) == 0 {
		scopes = []auth.Scope{
			auth.BillingRead, auth.BillingWrite, auth.PaymentsWrite, auth.UsageRead, auth.UsageWrite, auth.KeysManage, auth.WebhooksManage,
		}
	}
	return w.bearer(tb, auth.Grant{Subject: "ada", Account: a.String(), Scopes: scopes})
}

// operator is a member of the operator's staff. onBehalf names the account that is acted for, if any.
func (w *world) operator(tb testing.TB, onBehalf account.ID) caller {
	tb.Helper()
	c := w.bearer(tb, auth.Grant{Subject: "grace", Scopes: []auth.Scope{auth.Operator}})
	if !onBehalf.IsZero() {
		c.header.Set("Accrue-Account", onBehalf.String())
	}
	return c
}

// platform is one of the operator's own services, with an API key that no account owns.
func (w *world) platform(tb testing.TB, scopes ...auth.Scope) caller {
	tb.Helper()
	_, key, err := w.keys.Create(tb.Context(), auth.Principal{Kind: auth.OperatorUser, Scopes: []auth.Scope{auth.Operator}}, auth.NewKey{Name: "media", Scopes: scopes})
	if err != nil {
		tb.Fatal(err)
	}
	return caller{w: w, header: http.Header{}, token: key.Reveal}
}

func (w *world) bearer(tb testing.TB, g auth.Grant) caller {
	tb.Helper()
	return caller{w: w, header: http.Header{}, token: func() string {
		tok, err := w.signer.Sign(g, time.Hour)
		if err != nil {
			tb.Fatal(err)
		}
		return tok.Reveal()
	}}
}

// upgraded opens an account on Pro with the card that the token stands for, and returns its user.
func (w *world) upgraded(tb testing.TB, token string) (account.Account, caller) {
	tb.Helper()
	a := w.open(tb)
	got, err := billing.Upgrader{Core: w.Core}.Upgrade(tb.Context(), billing.Asked{Account: a.ID, Actor: "user:test"}, billing.UpgradeInput{
		Plan: plan.Pro, Source: billing.CardSource{Token: token}, Profile: &profile,
	}, nil)
	if err != nil || got.Record.Status != payment.Succeeded {
		tb.Fatalf("upgrade: %+v, %v", got.Record, err)
	}
	return a, w.user(tb, a.ID)
}

var profile = account.Profile{
	Name: "Ada Lovelace", Email: "ada@example.com",
	Address: account.Address{Line1: "12 St James's Square", City: "London", PostalCode: "SW1Y 4JH", Country: "GB"},
}

const profileJSON = `{"name":"Ada Lovelace","email":"ada@example.com","address":{"line1":"12 St James's Square","city":"London","postal_code":"SW1Y 4JH","country":"GB"}}`

func upgradeBody(token string) string {
	return fmt.Sprintf(`{"plan":"pro","payment_method":{"token":%q},"billing_profile":%s}`, token, profileJSON)
}

// with is the caller sending one more header: with("If-Match", `"v1"`).
func (c caller) with(name, value string) caller {
	c.header = c.header.Clone()
	c.header.Set(name, value)
	return c
}

// key is the caller sending an Idempotency-Key of the test's choice. do makes one up for POST.
func (c caller) key(k string) caller { return c.with("Idempotency-Key", k) }

func (c caller) get(t *testing.T, path string) response {
	t.Helper()
	return c.do(t, http.MethodGet, path, "")
}

func (c caller) post(t *testing.T, path, body string) response {
	t.Helper()
	return c.do(t, http.MethodPost, path, body)
}

// do sends a request. POST gets a fresh Idempotency-Key unless the caller has one or sets it to "-".
func (c caller) do(t *testing.T, method, path, body string) response {
	t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req := httptest.NewRequestWithContext(t.Context(), method, path, r)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if method == http.MethodPost {
		req.Header.Set("Idempotency-Key", uuid.NewString())
	}
	maps.Copy(req.Header, c.header)
	if req.Header.Get("Idempotency-Key") == "-" {
		req.Header.Del("Idempotency-Key")
	}
	if c.token != nil {
		req.Header.Set("Authorization", "Bearer "+c.token())
	}
	byStaff := strings.HasPrefix(path, "/v1/admin/") && method != http.MethodGet && !strings.HasSuffix(path, "/preview")
	before := 0
	if byStaff {
		before = c.w.audited(t)
	}
	rec := httptest.NewRecorder()
	c.w.serve().ServeHTTP(rec, req)
	if byStaff && rec.Code < 300 && rec.Header().Get("Idempotent-Replayed") == "" && c.w.audited(t) == before {
		t.Errorf("%s %s changed something, and the audit log does not say who did", method, path)
	}
	return response{rec.Code, rec.Header(), rec.Body.Bytes()}
}

// audited counts the entries of the audit log.
func (w *world) audited(t *testing.T) (n int) {
	t.Helper()
	const q = "SELECT (SELECT count(*) FROM audit_entries) + (SELECT count(*) FROM operator_audit_entries)"
	if err := w.db.Pool().QueryRow(t.Context(), q).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// check holds the books to the invariants.
func (w *world) check(t *testing.T) {
	t.Helper()
	invarianttest.Require(t, w.db, invariant.Options{Clock: w.clock, Gateway: w.Gateway})
}

type response struct {
	Status int
	Header http.Header
	Body   []byte
}

// want fails the test unless the answer has the status.
func (r response) want(t *testing.T, status int) response {
	t.Helper()
	if r.Status != status {
		t.Fatalf("status %d, want %d: %s", r.Status, status, r.Body)
	}
	return r
}

// problem fails the test unless the answer is the problem.
func (r response) problem(t *testing.T, status int, code string) response {
	t.Helper()
	if got := r.str(t, "code"); r.Status != status || got != code || r.Header.Get("Content-Type") != "application/problem+json" {
		t.Fatalf("%d %s (%s), want %d %s: %s", r.Status, got, r.Header.Get("Content-Type"), status, code, r.Body)
	}
	if _, told := problem.Codes()[problem.Slug(code)]; !told {
		t.Errorf("the type of %s leads to no page", code)
	}
	return r
}

// at returns the value at a path of member names and list indexes: at("data", 0, "id").
func (r response) at(t *testing.T, path ...any) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(r.Body, &v); err != nil {
		t.Fatalf("not JSON: %v: %s", err, r.Body)
	}
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[s]
		case int:
			l, _ := v.([]any)
			if s >= len(l) {
				t.Fatalf("no %v in %s", path, r.Body)
			}
			v = l[s]
		}
	}
	return v
}

// str is at for strings: "" where there is none.
func (r response) str(t *testing.T, path ...any) string {
	t.Helper()
	s, _ := r.at(t, path...).(string)
	return s
}

// golden compares the answer with its golden file.
func (r response) golden(t *testing.T, name string) response {
	t.Helper()
	golden(t, name, scrub(r.Body))
	return r
}

var unstable = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile(`\b([a-z]{2,5})_[0-9a-hjkmnp-tv-z]{26}\b`), "${1}_…"},
	{regexp.MustCompile(`urn:uuid:[0-9a-f-]{36}`), "urn:uuid:…"},
	{regexp.MustCompile(`\b[0-9a-hjkmnp-tv-z]{8}-(\d{6})\b`), "…-${1}"}, // invoice numbers
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "…"},                       // digests
	{regexp.MustCompile(`\b(ch|pm|re)_sbx_[a-z0-9]+`), "${1}_sbx_…"},
	{regexp.MustCompile(`"last_four":"[0-9A-Za-z]{4}"`), `"last_four":"…"`},
	{regexp.MustCompile(`http://127\.0\.0\.1:\d+/[^"]*`), "http://provider.example/…"},
}

// scrub takes out what differs from run to run: identifiers and the provider's addresses.
func scrub(body []byte) []byte {
	for _, u := range unstable {
		body = u.pattern.ReplaceAll(body, []byte(u.with))
	}
	return body
}
