package app_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	dir, dsn := t.TempDir(), postgrestest.NewEmpty(t)
	p := serve(t, "--data-dir", dir, "--database-url", dsn)
	_, after, _ := strings.Cut(p.log.String(), "msg=listening server=sandbox address=")
	sandbox, _, _ := strings.Cut(after, "\n")
	args := []string{"check", "--data-dir", dir, "--database-url", dsn, "--sandbox-addr", sandbox}

	out, err := execute(t, args...)
	if err != nil || !strings.Contains(out, "14 of 14") {
		t.Errorf("%v\n%s", err, out)
	}

	pool := postgrestest.Connect(t, dsn)
	if _, err := pool.Exec(t.Context(), "INSERT INTO provider_events (provider, event_id, type, payload, received_at) VALUES ('sandbox', 'e', 't', '4242424242424242', '2026-01-01')"); err != nil {
		t.Fatal(err)
	}
	out, err = execute(t, args...)
	if err == nil || !strings.Contains(out, "provider_events.payload") || !strings.Contains(out, "12 of 14") {
		t.Errorf("with a forgotten webhook that holds a card number: %v\n%s", err, out)
	}
	if strings.Contains(out, "4242") {
		t.Errorf("the card number was printed:\n%s", out)
	}
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	t.Cleanup(away.Close)
	out, err = execute(t, append(slices.Clone(args[:5]), "--sandbox-addr", away.Listener.Addr().String())...)
	if err == nil || !strings.Contains(err.Error(), "I7") || !strings.Contains(out, "I8 ") || !strings.Contains(out, "I14 ") || strings.Contains(out, "I7 ") {
		t.Errorf("with a provider that is away: %v\n%s", err, out)
	}
	if out, err = execute(t, append(slices.Clone(args[:5]), "--sandbox-url", "http://"+sandbox)...); err == nil || !strings.Contains(out, "12 of 14") {
		t.Errorf("by the address where another instance plays the provider: %v\n%s", err, out)
	}
	p.end(t)

	if out, err = execute(t, args...); err == nil || !strings.Contains(out, "12 of 14") {
		t.Errorf("without a running service: %v\n%s", err, out)
	}
}
