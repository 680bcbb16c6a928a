package middleware

import (
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/trace"
)

// Headers of ours or too new for the standard names.
const (
	headerTraceparent = "Traceparent"
	headerRequestID   = "X-Request-Id"
)

// RequestID gives every request an identity: the caller's trace if traceparent is well formed, else a
// new one. The answer carries it, as the instance of every problem does.
func RequestID(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		req := c.Request()
		t, ok := trace.Parse(req.Header.Get(headerTraceparent))
		if !ok {
			t = trace.New()
			req.Header.Del("Tracestate") // means nothing without its trace
		}
		k := begin(c, t)
		defer k.end()
		k.requestID[0] = t.RequestID()
		c.Response().Header()[headerRequestID] = k.requestID[:]
		return next(c)
	}
}

// AccessLog writes one line for every request: who, what, how it ended. It writes no body, no header
// and no address as it was sent, since any of them may hold what must not be written down; the route
// stands for the address. observe, where it is not nil, is told the same.
func AccessLog(log *slog.Logger, clk clock.Clock, observe func(route, method string, status int, took time.Duration)) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			k := callOf(c)
			k.at = clk()
			if err := next(c); err != nil {
				c.Error(err) // the answer is written here, so that its status is known below
			}
			req, resp, took := c.Request(), c.Response(), clk().Sub(k.at)
			if observe != nil {
				observe(pattern(c), method(req.Method), resp.Status, took)
			}
			level := slog.LevelInfo
			if k.probe && resp.Status < http.StatusBadRequest {
				level = slog.LevelDebug
			}
			if !log.Enabled(req.Context(), level) {
				return nil
			}
			attrs := []slog.Attr{
				slog.String("method", method(req.Method)),
				slog.String("route", pattern(c)),
				slog.Int("status", resp.Status),
				slog.Int64("bytes_in", max(req.ContentLength, 0)),
				slog.Int64("bytes_out", resp.Size),
				slog.Duration("duration", took),
				slog.String("request_id", trace.From(req.Context()).RequestID()),
				slog.String("remote", c.RealIP()),
			}
			if p, ok := principal(c); ok {
				attrs = append(attrs, slog.String("principal", string(p.Kind)), slog.String("subject", p.Subject))
			}
			if a := AccountIfAny(c); !a.IsZero() {
				attrs = append(attrs, slog.String("account", a.String()))
			}
			log.LogAttrs(req.Context(), level, "request", attrs...)
			return nil
		}
	}
}

// Probe marks requests that machines repeat every few seconds: one that is answered well is worth a line for debugging only.
func Probe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		callOf(c).probe = true
		return next(c)
	}
}

// method returns a method that may be written down: the caller can send any word.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// pattern returns the route: an address that a stranger made up must not become a label.
func pattern(c echo.Context) string {
	if p := c.Path(); p != "" {
		return p
	}
	return "unmatched"
}

// Recover turns a panic into an error with its stack. The request is not printed: a panic must not
// be a way to get a body into the log.
func Recover(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		defer func() {
			r := recover()
			if r == nil {
				return
			}
			if r == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				panic(r)
			}
			stack := make([]byte, 8<<10)
			stack = stack[:runtime.Stack(stack, false)]
			err = fmt.Errorf("panic: %v\n%s", r, stack)
		}()
		return next(c)
	}
}

// SecurityHeaders sets what every answer carries. A handler that serves something other than data (the
// documentation, the hosted page) replaces Content-Security-Policy with its own.
func SecurityHeaders(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		h := c.Response().Header()
		for _, s := range securityHeaders {
			h[s.name] = s.value
		}
		return next(c)
	}
}

// securityHeaders are set as they stand, by their canonical names. Their values are shared by all answers:
// whoever wants another value sets it anew, as http.Header's methods do.
var securityHeaders = []struct {
	name  string
	value []string
}{
	{"Cache-Control", []string{"no-store"}},
	{"Content-Security-Policy", []string{"default-src 'none'; frame-ancestors 'none'"}},
	{"Referrer-Policy", []string{"no-referrer"}},
	{"Strict-Transport-Security", []string{"max-age=63072000; includeSubDomains"}},
	{"X-Content-Type-Options", []string{"nosniff"}},
	{"X-Frame-Options", []string{"DENY"}},
}

// exposed are the answer's headers that a page may read.
const exposed = "Content-Disposition, Content-Language, Deprecation, ETag, Idempotent-Replayed, Link, Location, RateLimit, RateLimit-Policy, Retry-After, Sunset, WWW-Authenticate, X-Request-Id"

// CORS lets pages of the given origins call the API. Origins are compared exactly; there is no
// wildcard, and no credentials: a page sends a bearer token, never a cookie.
func CORS(origins []string) echo.MiddlewareFunc {
	vary := []string{echo.HeaderOrigin}
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			req, h := c.Request(), c.Response().Header()
			h[echo.HeaderVary] = vary
			origin := req.Header.Get(echo.HeaderOrigin)
			allowed := origin != "" && slices.Contains(origins, origin)
			if allowed {
				h.Set(echo.HeaderAccessControlAllowOrigin, origin)
				h.Set(echo.HeaderAccessControlExposeHeaders, exposed)
			}
			if req.Method != http.MethodOptions || req.Header.Get(echo.HeaderAccessControlRequestMethod) == "" {
				return next(c)
			}
			h.Add(echo.HeaderVary, echo.HeaderAccessControlRequestMethod)
			h.Add(echo.HeaderVary, echo.HeaderAccessControlRequestHeaders)
			if allowed {
				h.Set(echo.HeaderAccessControlAllowMethods, "GET, POST, PUT, PATCH, DELETE")
				h.Set(echo.HeaderAccessControlAllowHeaders, strings.Join([]string{
					echo.HeaderAuthorization, echo.HeaderContentType, echo.HeaderContentEncoding, headerAccount, headerIdempotencyKey,
					"If-Match", "If-None-Match", "Last-Event-ID", headerTraceparent,
				}, ", "))
				h.Set(echo.HeaderAccessControlMaxAge, "600")
			}
			return c.NoContent(http.StatusNoContent)
		}
	}
}
