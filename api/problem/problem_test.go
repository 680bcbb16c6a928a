package problem_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/problem"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/trace"
)

type bundle struct {
	writer problem.Writer
	log    *bytes.Buffer
}

func setup() bundle {
	log := &bytes.Buffer{}
	return bundle{problem.Writer{
		BaseURL: "https://billing.example",
		Log:     slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, log}
}

func (b bundle) handle(t *testing.T, err error) (*httptest.ResponseRecorder, map[string]any) {
	t.Helper()
	ctx := trace.With(t.Context(), trace.Context{TraceID: [16]byte{1}})
	rec := httptest.NewRecorder()
	b.writer.Handle(err, echo.New().NewContext(httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), rec))
	var doc map[string]any
	if jerr := json.Unmarshal(rec.Body.Bytes(), &doc); jerr != nil {
		t.Fatalf("not JSON: %v: %s", jerr, rec.Body)
	}
	return rec, doc
}

func TestEveryFailureHasItsStatus(t *testing.T) {
	t.Parallel()
	e := func(k errs.Kind) error { return errs.New(k, "some_code", "Some detail.") }
	for name, tc := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"Malformed":            {e(errs.Malformed), 400, "some_code"},
		"Unauthenticated":      {e(errs.Unauthenticated), 401, "some_code"},
		"PaymentDeclined":      {e(errs.PaymentDeclined), 402, "some_code"},
		"Forbidden":            {e(errs.Forbidden), 403, "some_code"},
		"NotFound":             {e(errs.NotFound), 404, "some_code"},
		"Conflict":             {e(errs.Conflict), 409, "some_code"},
		"PreconditionFailed":   {e(errs.PreconditionFailed), 412, "some_code"},
		"TooLarge":             {e(errs.TooLarge), 413, "some_code"},
		"UnsupportedMedia":     {e(errs.UnsupportedMedia), 415, "some_code"},
		"Invalid":              {e(errs.Invalid), 422, "some_code"},
		"PreconditionRequired": {e(errs.PreconditionRequired), 428, "some_code"},
		"RateLimited":          {e(errs.RateLimited), 429, "some_code"},
		"Unavailable":          {e(errs.Unavailable), 503, "some_code"},
		"Internal":             {e(errs.Internal), 500, "internal"},
		"UnknownKind":          {e(errs.Kind(200)), 500, "some_code"},
		"Unclassified":         {errors.New("pq: secret"), 500, "internal"},
		"Wrapped":              {fmt.Errorf("close of sub_1: %w", e(errs.Conflict)), 409, "some_code"},
		"Joined":               {errors.Join(errors.New("x"), e(errs.Conflict)), 409, "some_code"},
		"Deadline":             {fmt.Errorf("query: %w", context.DeadlineExceeded), 503, "timeout"},
		"Canceled":             {context.Canceled, 503, "timeout"},
		"Router404":            {echo.ErrNotFound, 404, "route_not_found"},
		"Router405":            {echo.ErrMethodNotAllowed, 405, "method_not_allowed"},
		"Echo406":              {echo.NewHTTPError(406), 406, "not_acceptable"},
		"Echo413":              {echo.ErrStatusRequestEntityTooLarge, 413, "malformed_request"},
		"Echo415":              {echo.ErrUnsupportedMediaType, 415, "malformed_request"},
		"Echo400":              {echo.NewHTTPError(400, "parsing secret"), 400, "malformed_request"},
		"Echo500":              {echo.NewHTTPError(500, "secret"), 500, "internal"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup()
			rec, doc := b.handle(t, tc.err)
			if rec.Code != tc.status || doc["status"] != float64(tc.status) || doc["code"] != tc.code {
				t.Fatalf("%d, document %s; want %d %s", rec.Code, rec.Body, tc.status, tc.code)
			}
			if strings.Contains(rec.Body.String(), "secret") || strings.Contains(rec.Body.String(), "sub_1") {
				t.Errorf("says what is for the log: %s", rec.Body)
			}
			if rec.Header().Get("Content-Type") != problem.MediaType || rec.Header().Get("Content-Language") != "en" {
				t.Errorf("headers %v", rec.Header())
			}
			if doc["instance"] != "urn:uuid:01000000-0000-0000-0000-000000000000" {
				t.Errorf("instance %v", doc["instance"])
			}
			if (tc.status == 429 || tc.status == 503) != (rec.Header().Get("Retry-After") != "") {
				t.Errorf("Retry-After %q", rec.Header().Get("Retry-After"))
			}
			if n := strings.Count(b.log.String(), "request failed"); n != 1 {
				t.Errorf("logged %d times: %s", n, b.log)
			}
		})
	}
}

func TestDocument(t *testing.T) {
	t.Parallel()
	err := errs.InvalidField("#/amount", "not_positive", "must be greater than zero").
		With("limit", 5).With("status", "nonsense").With("a_list", []string{"x"}).Because(errors.New("secret"))
	rec, _ := setup().handle(t, err)
	const want = `{"type":"https://billing.example/problems/invalid-request","title":"Invalid request","status":422,` +
		`"detail":"A value in the request is not valid.","instance":"urn:uuid:01000000-0000-0000-0000-000000000000","code":"invalid_request",` +
		`"errors":[{"pointer":"#/amount","detail":"must be greater than zero","code":"not_positive"}],"a_list":["x"],"limit":5}`
	if got := strings.TrimSpace(rec.Body.String()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestRetryAfterIsWholeSecondsRoundedUp(t *testing.T) {
	t.Parallel()
	rec, _ := setup().handle(t, errs.New(errs.Conflict, "busy", "Busy.").After(1500*time.Millisecond))
	if got := rec.Header().Get("Retry-After"); got != "2" {
		t.Errorf("Retry-After %q", got)
	}
}

func TestFaultsOfOursAreLoggedWithTheirCause(t *testing.T) {
	t.Parallel()
	b := setup()
	b.handle(t, fmt.Errorf("close of sub_1: %w", errors.New("disk on fire")))
	if n := strings.Count(b.log.String(), "disk on fire"); n != 1 || !strings.Contains(b.log.String(), `"level":"ERROR"`) {
		t.Errorf("log: %s", b.log)
	}
}
