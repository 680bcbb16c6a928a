package telemetry_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/telemetry"
	"github.com/accrue-billing/accrue/internal/trace"
)

func TestLogger_KeepsSecretsAndCardsOut(t *testing.T) {
	t.Parallel()
	for _, format := range []telemetry.Format{telemetry.JSON, telemetry.Text} {
		var out bytes.Buffer
		log := telemetry.NewLogger(&out, slog.LevelInfo, format)
		log.Info("event", "client_secret", "canary-1", "Authorization", "canary-2", "reference", "4242 4242 4242 4242",
			"error", errors.New("row says 4242424242424242"), slog.Group("headers", "cookie", "canary-3"), "kept", "words")
		log.With("api_key", "canary-4").Info("event")
		for _, bad := range []string{"canary", "4242"} {
			if strings.Contains(out.String(), bad) {
				t.Errorf("%s: %q in %s", format, bad, out.String())
			}
		}
		if !strings.Contains(out.String(), "words") {
			t.Errorf("%s: an innocent attribute is missing: %s", format, out.String())
		}
	}
}

func TestLogger_NamesTheRequestOnce(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, slog.LevelInfo, telemetry.JSON)
	tc := trace.New()
	ctx := trace.With(t.Context(), tc)
	log.InfoContext(ctx, "one")
	log.InfoContext(ctx, "two", "request_id", tc.RequestID())
	log.Info("none")
	if n := strings.Count(out.String(), tc.RequestID()); n != 2 {
		t.Errorf("the id stands %d times in %s", n, out.String())
	}
}

func TestLogger_DurationsHaveAUnit(t *testing.T) {
	t.Parallel()
	for format, want := range map[telemetry.Format]string{telemetry.JSON: `"took_seconds":1.5}`, telemetry.Text: "took=1.5s\n"} {
		var out bytes.Buffer
		telemetry.NewLogger(&out, slog.LevelInfo, format).Info("event", "took", 1500*time.Millisecond)
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s: no %q in %s", format, want, out.String())
		}
	}
}

func TestLogger_HoldsBackLowerLevels(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	telemetry.NewLogger(&out, slog.LevelWarn, telemetry.Text).Info("quiet")
	if out.Len() > 0 {
		t.Error(out.String())
	}
}

func TestMetrics_AreServed(t *testing.T) {
	t.Parallel()
	m := telemetry.NewMetrics("v1.2.3")
	m.ObserveRequest("/v1/usage", "GET", 404, 3*time.Millisecond)
	m.ObserveProviderCall("charge", "declined", 3*time.Millisecond)
	for pool, n := range map[string]float64{"a": 7, "b": 8} {
		m.Gauge("accrue_test_depth", "Depth.", telemetry.Labels{"pool": pool}, func() float64 { return n })
		m.Total("accrue_test_waits_total", "Waits.", telemetry.Labels{"pool": pool}, func() float64 { return n })
	}
	m.Counter("accrue_test_total", "Total.", "kind", "a", "b")("a", 2)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		`accrue_build_info{version="v1.2.3"} 1`, `accrue_test_depth{pool="a"} 7`, `accrue_test_depth{pool="b"} 8`, `accrue_test_waits_total{pool="a"} 7`,
		`accrue_test_total{kind="a"} 2`, `accrue_test_total{kind="b"} 0`, `accrue_provider_call_duration_seconds_count{call="charge",outcome="declined"} 1`,
		`accrue_http_request_duration_seconds_count{method="GET",route="/v1/usage",status="4xx"} 1`, "go_goroutines",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}
