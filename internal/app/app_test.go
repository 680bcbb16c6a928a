package app_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/accrue-billing/accrue/internal/app"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// buffer is written by the service and read by the test.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func noEnvironment(string) (string, bool) { return "", false }

// program is the program running `serve`.
type program struct {
	addr string
	log  *buffer
	stop context.CancelFunc
	done chan error
}

// serve runs `accrue serve` and returns when it is ready.
func serve(t *testing.T, args ...string) *program {
	t.Helper()
	return serveOn(t, func(*program) {}, args...)
}

// serveOn is serve with something that is looked after until it is ready.
func serveOn(t *testing.T, look func(p *program), args ...string) *program {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	p := &program{log: &buffer{}, stop: stop, done: make(chan error, 1)}
	go func() {
		p.done <- app.Execute(ctx, append([]string{"serve", "--addr=127.0.0.1:0", "--sandbox-addr=127.0.0.1:0"}, args...), noEnvironment, io.Discard, p.log)
	}()
	t.Cleanup(stop)
	deadline := time.Now().Add(time.Minute)
	for {
		look(p)
		if _, after, ok := strings.Cut(p.log.String(), "msg=listening server=api address="); ok && strings.Contains(after, "\n") {
			p.addr, _, _ = strings.Cut(after, "\n")
			if status, _ := p.get(t, "/readyz"); status == http.StatusOK {
				return p
			}
		}
		select {
		case err := <-p.done:
			t.Fatalf("serve ended: %v\n%s", err, p.log)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("serve is not ready:\n%s", p.log)
		}
	}
}

func (p *program) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + p.addr + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func (p *program) end(t *testing.T) {
	t.Helper()
	p.stop()
	select {
	case err := <-p.done:
		if err != nil {
			t.Fatalf("serve: %v\n%s", err, p.log)
		}
	case <-time.After(time.Minute):
		t.Fatalf("serve does not end:\n%s", p.log)
	}
}

func execute(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := app.Execute(t.Context(), args, noEnvironment, &out, io.Discard)
	return out.String(), err
}

func TestServe_OnAPrivateDatabase(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/operator.md")
	if err != nil {
		t.Fatal(err)
	}
	guide := string(text)
	dir, profile := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "cpu")
	for range 2 { // and again on the same folder
		p := serve(t, "--data-dir", dir, "--cpu-profile", profile)
		for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
			status, body := p.get(t, path)
			if status != http.StatusOK {
				t.Errorf("%s: %d %s", path, status, body)
			}
			for _, m := range regexp.MustCompile(`# TYPE (accrue_\w+)`).FindAllStringSubmatch(body, -1) {
				if !strings.Contains(guide, "`"+m[1]+"`") {
					t.Errorf("the operator's guide does not name %s", m[1])
				}
			}
		}
		// Commands work beside it, another service does not.
		if out, err := execute(t, "migrate", "status", "--data-dir", dir); err != nil || strings.Contains(out, "missing") || !strings.Contains(out, "applied  river") {
			t.Errorf("migrate status: %v\n%s", err, out)
		}
		if _, err := execute(t, "serve", "--addr=127.0.0.1:0", "--data-dir", dir); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Errorf("a second service on the folder: %v", err)
		}
		p.end(t)
		if b, err := os.ReadFile(profile); err != nil || !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) { // compressed, as profiles are
			t.Errorf("profile: %d bytes, %v", len(b), err)
		}
	}
}

func TestServe_OnAGivenDatabase(t *testing.T) {
	t.Parallel()
	p := serve(t, "--data-dir", t.TempDir(), "--database-url", postgrestest.NewEmpty(t))
	if status, body := p.get(t, "/readyz"); status != http.StatusOK {
		t.Errorf("%d %s", status, body)
	}
	_, measures := p.get(t, "/metrics")
	for _, want := range []string{"accrue_overdue_payments 0", "accrue_overdue_oldest_seconds 0", "accrue_parked_payments 0"} {
		if !strings.Contains(measures, "\n"+want+"\n") {
			t.Errorf("no %q among the metrics", want)
		}
	}
	p.end(t)
	if strings.Contains(p.log.String(), "level=ERROR") {
		t.Error(p.log)
	}
	lines := slices.Collect(strings.Lines(p.log.String()))
	if first := lines[0]; !strings.Contains(first, "msg=starting version="+app.Version()+" mode=test provider=sandbox") {
		t.Errorf("it begins with %s", first)
	}
	if last := lines[len(lines)-1]; !strings.Contains(last, "msg=stopped") {
		t.Errorf("it ends with %s", last)
	}
}

// The machines of replicas differ in what time it is; the database that they share has one time.
func TestServe_GoesByTheDatabasesClock(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.NewEmpty(t)
	db, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	_, err = db.Exec(t.Context(), fmt.Sprintf(`
CREATE SCHEMA ahead;
GRANT USAGE ON SCHEMA ahead TO PUBLIC;
CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ SELECT pg_catalog.clock_timestamp() + interval '90 days' $$;
ALTER DATABASE %s SET search_path = public, ahead, pg_catalog`, pgx.Identifier{db.Config().Database}.Sanitize()))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, "--data-dir", t.TempDir(), "--database-url", dsn).end(t)
	var ahead time.Duration
	if err := db.QueryRow(t.Context(), "SELECT max(published_at) - now() FROM plan_versions").Scan(&ahead); err != nil {
		t.Fatal(err)
	}
	if ahead.Round(24*time.Hour) != 90*24*time.Hour {
		t.Errorf("the first price list was put on sale %s from now, and not by the database's clock", ahead)
	}
}

// A database that comes up after the service is waited for.
func TestServe_WaitsForItsDatabase(t *testing.T) {
	t.Parallel()
	direct, err := url.Parse(postgrestest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "db") //nolint:usetesting // short, as the names of sockets must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	later := *direct
	later.RawQuery = url.Values{"host": {filepath.Join(folder, "s")}}.Encode()
	p := serveOn(t, func(p *program) {
		if strings.Contains(p.log.String(), "the database is not there yet") {
			_ = os.Symlink(direct.Query().Get("host"), filepath.Join(folder, "s"))
		}
	}, "--data-dir", t.TempDir(), "--database-url", later.String())
	p.end(t)
	if !strings.Contains(p.log.String(), "the database is not there yet") {
		t.Error("it was there at once")
	}
}

// Who stops a service that is still starting gets what was asked for: no failure, and no word of a database that is away.
func TestServe_StoppedBeforeItHasStarted(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	log := &buffer{}
	done := make(chan error, 1)
	go func() {
		done <- app.Execute(ctx, []string{
			"serve", "--addr=127.0.0.1:0", "--sandbox-addr=127.0.0.1:0", "--data-dir", t.TempDir(), "--database-url=postgres:///x?host=/nowhere",
		}, noEnvironment, io.Discard, log)
	}()
	for deadline := time.Now().Add(time.Minute); !strings.Contains(log.String(), "the database is not there yet"); {
		select {
		case err := <-done:
			t.Fatalf("serve ended: %v\n%s", err, log)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not say what it waits for:\n%s", log)
		}
	}
	stop()
	if err := <-done; err != nil || !strings.Contains(log.String(), "stopped before it had started") {
		t.Errorf("%v\n%s", err, log)
	}
}

// Who stops the story is told that it was not told to its end.
func TestDemo_Stopped(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	said := &buffer{}
	if err := app.Execute(ctx, []string{"demo", "--database-url", postgrestest.DSN(t)}, noEnvironment, onWrite(stop), said); err != nil {
		t.Error(err)
	}
	if !strings.HasSuffix(said.String(), "accrue: stopped before the story was told\n") {
		t.Errorf("it says %q", said)
	}
}

// onWrite is called with whatever is written to it.
type onWrite func()

func (w onWrite) Write(b []byte) (int, error) {
	w()
	return len(b), nil
}

// Keys that an identity provider has withdrawn must go, and those that it has come to use must come, without
// anybody who calls.
func TestServe_KeepsTheKeysOfIdentityProvidersFresh(t *testing.T) {
	t.Parallel()
	fetched := make(chan struct{}, 1)
	provider := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		select {
		case fetched <- struct{}{}:
		default:
		}
	}))
	defer provider.Close()
	p := serve(t, "--data-dir", t.TempDir(), "--database-url", postgrestest.DSN(t), "--jwt-issuer", "issuer=https://id.example,audience=accrue,jwks="+provider.URL)
	select {
	case <-fetched:
	case <-time.After(time.Minute):
		t.Error("nobody has fetched the keys")
	}
	p.end(t)
}

func TestServe_TakenPortNamesTheListener(t *testing.T) {
	t.Parallel()
	p := serve(t, "--data-dir", t.TempDir(), "--database-url", postgrestest.DSN(t))
	_, err := execute(t, "serve", "--addr", p.addr, "--data-dir", t.TempDir(), "--database-url", postgrestest.DSN(t))
	if err == nil || !strings.Contains(err.Error(), "api: listen") {
		t.Errorf("got %v", err)
	}
	p.end(t)
}

// A container has no shell and no curl: the program asks itself.
func TestReady_Command(t *testing.T) {
	t.Parallel()
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			w.WriteHeader(status)
		}
	}))
	ask := func() error {
		_, err := execute(t, "ready", "--data-dir", t.TempDir(), "--addr", s.Listener.Addr().String())
		return err
	}
	if err := ask(); err != nil {
		t.Error(err)
	}
	status = http.StatusServiceUnavailable
	if err := ask(); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("not ready: %v", err)
	}
	s.Close()
	if err := ask(); err == nil {
		t.Error("nobody is there, and it is ready")
	}
}

func TestMigrate_Commands(t *testing.T) {
	t.Parallel()
	database := []string{"--data-dir", t.TempDir(), "--database-url", postgrestest.NewEmpty(t)}
	for _, step := range []struct{ verb, want string }{
		{"status", "missing  accrue 00001"},
		{"up", "applied accrue 00001"},
		{"up", "nothing to do"},
		{"down", "taken back accrue"},
		{"status", "missing  accrue"},
		{"refused", ""},
		{"up", "applied accrue"},
	} {
		if step.verb == "refused" { // by a service that is not to migrate by itself
			_, err := execute(t, append([]string{"serve", "--no-migrate-on-start", "--addr=127.0.0.1:0", "--sandbox-addr=127.0.0.1:0"}, database...)...)
			if err == nil || !strings.Contains(err.Error(), "migrations are missing") {
				t.Errorf("a service without its schema: %v", err)
			}
			continue
		}
		if out, err := execute(t, append([]string{"migrate", step.verb}, database...)...); err != nil || !strings.Contains(out, step.want) {
			t.Fatalf("%s: %v\n%s", step.verb, err, out)
		}
	}
}

func TestConfig_CommandShowsEverythingButSecrets(t *testing.T) {
	t.Parallel()
	out, err := execute(t, "config", "--database-url", "postgres://user:canary@host/db", "--api-key-pepper", "canarycanarycanarycanarycanary1234",
		"--cursor-key", "canarycanarycanarycanarycanary5678", "--addr", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "canary") {
		t.Errorf("a secret is shown:\n%s", out)
	}
	for _, want := range []string{"127.0.0.1:1", "http://127.0.0.1:1 ", "[redacted]", "ACCRUE_PROVIDER_TIMEOUT", "ACCRUE_CARD_REMOVAL"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in:\n%s", want, out)
		}
	}
}

func TestExecute_MistakesAreUsageErrors(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{}, {"sevre"}, {"serve", "--mode=live"}, {"serve", "--cpu-profile=/there/is/no/folder"}, {"migrate", "down", "--mode=live"}, {"config", "--cors-origin=*"}, {"plans", "migrate", "pro", "--to=1", "--show=-1"}} {
		_, err := execute(t, args...)
		if _, ok := errors.AsType[*app.UsageError](err); !ok {
			t.Errorf("%q: %v", args, err)
		}
	}
	if _, err := execute(t, "serve", "--prot=1"); err == nil || !strings.HasPrefix(err.Error(), "unknown flag --prot") {
		t.Errorf("what stands on the command line is said to be at fault elsewhere: %v", err)
	}
}

func TestExecute_HelpAndVersion(t *testing.T) {
	t.Parallel()
	if out, err := execute(t, "--help"); err != nil || !strings.Contains(out, "ACCRUE_DATABASE_URL") {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := execute(t, "version"); err != nil || !strings.HasPrefix(out, "accrue ") {
		t.Errorf("%v\n%s", err, out)
	}
}

// The key of leases that follows from the pepper can be given as one of several, as the documentation of their change says.
func TestServe_ShowsTheKeysOfLeases(t *testing.T) {
	t.Parallel()
	const pepper = "0123456789abcdef0123456789abcdef"
	mac := hmac.New(sha256.New, []byte(pepper))
	mac.Write([]byte("leases"))
	old := hex.EncodeToString(mac.Sum(nil))
	dsn := postgrestest.NewEmpty(t)
	shown := func(args ...string) (kids []string) {
		t.Helper()
		p := serve(t, append([]string{"--data-dir", t.TempDir(), "--database-url", dsn, "--api-key-pepper", pepper}, args...)...)
		defer p.end(t)
		var set struct{ Keys []struct{ Kid string } }
		if _, body := p.get(t, "/v1/usage/leases/keys"); json.Unmarshal([]byte(body), &set) != nil {
			t.Fatal(body)
		}
		for _, k := range set.Keys {
			kids = append(kids, k.Kid)
		}
		return kids
	}
	before := shown()
	both := shown("--lease-key", strings.Repeat("n", 32), "--lease-key", old)
	if len(before) != 1 || len(both) != 2 || both[1] != before[0] || both[0] == both[1] {
		t.Errorf("without lease-key %v, with another and the old one %v", before, both)
	}
}
