package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/openapi"
	"github.com/accrue-billing/accrue/api/problem"
	"github.com/accrue-billing/accrue/api/route"
	v1 "github.com/accrue-billing/accrue/api/v1"
	"github.com/accrue-billing/accrue/internal/errs"
)

// Deps is what the API stands on.
type Deps struct {
	middleware.Config
	V1 v1.Deps

	// PublicURL is where the API is reached from outside, without a slash at its end. Problem types and
	// links are absolute under it; empty makes them relative.
	PublicURL string
	// Origins are the pages that may call the API from a browser, compared exactly.
	Origins []string
	// TrustedProxies are the networks whose X-Forwarded-For is believed. None: the peer is the caller.
	TrustedProxies []*net.IPNet
	// Ready says whether requests can be served now. Nil means always.
	Ready func(context.Context) error
	// Metrics serves /metrics. Nil leaves it out.
	Metrics http.Handler
	// Observe is told of every request when it has been answered. Nil is told nothing.
	Observe func(route, method string, status int, took time.Duration)
	// Only chooses the routes that this server serves, so that the operator's can have a listener of
	// their own. Nil means all.
	Only func(route.Route) bool
}

// Routes returns every operation of the API, whatever a server chooses to serve.
func Routes(d Deps) []route.Route {
	return v1.Routes(d.V1)
}

// New returns the API. It returns an error if a route is declared in a way that cannot be meant.
func New(d Deps) (*echo.Echo, error) {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = problem.Writer{BaseURL: d.PublicURL, Log: d.Log}.Handle
	e.JSONSerializer = serializer{}
	e.IPExtractor = extractor(d.TrustedProxies)

	// Echo would wrap its handler anew for each request. Wrapped once, it asks for the handler that was found.
	every := func(c echo.Context) error { return c.Handler()(c) }
	for _, around := range []echo.MiddlewareFunc{
		middleware.CORS(d.Origins),
		middleware.SecurityHeaders,
		middleware.Recover,
		middleware.AccessLog(d.Log, d.Clock, d.Observe),
		middleware.RequestID,
	} {
		every = around(every)
	}
	e.Use(func(echo.HandlerFunc) echo.HandlerFunc { return every })
	mountOperation(e, d)

	chain := middleware.NewChain(d.Config)
	var problems []error
	for _, r := range Routes(d) {
		r = r.WithDefaults()
		if err := r.Check(); err != nil {
			problems = append(problems, err)
			continue
		}
		if d.Only != nil && !d.Only(r) {
			continue
		}
		h := chain.Wrap(r)
		e.Add(r.Method, r.EchoPath(), h)
		if r.Method == http.MethodGet && r.Timeout > 0 { // whoever may GET may ask for the headers alone
			e.Add(http.MethodHead, r.EchoPath(), h)
		}
	}
	return e, errors.Join(problems...)
}

// mountOperation adds what is for machines that watch the service, and belongs to no caller. Some of them ask for the
// headers alone.
func mountOperation(e *echo.Echo, d Deps) {
	watched := []string{http.MethodGet, http.MethodHead}
	e.Match(watched, "/healthz", func(c echo.Context) error {
		return c.JSON(http.StatusOK, map[string]string{"status": "ok"})
	}, middleware.Probe)
	e.Match(watched, "/readyz", func(c echo.Context) error {
		if d.Ready != nil {
			if err := d.Ready(c.Request().Context()); err != nil {
				return ErrNotReady.Because(err)
			}
		}
		return c.JSON(http.StatusOK, map[string]string{"status": "ready"})
	}, middleware.Probe)
	if d.Metrics != nil {
		e.GET("/metrics", echo.WrapHandler(d.Metrics), middleware.Probe)
	}
	e.GET("/problems/:slug", problem.Page)
	openapi.Mount(e)
}

// ErrNotReady says that the service is starting, stopping or without its database.
var ErrNotReady = errs.New(errs.Unavailable, "not_ready", "The service cannot take requests now.")

// extractor finds the caller's address. A header that anyone can send is believed only from the
// proxies that are named.
func extractor(trusted []*net.IPNet) echo.IPExtractor {
	if len(trusted) == 0 {
		return echo.ExtractIPDirect()
	}
	options := []echo.TrustOption{echo.TrustLoopback(false), echo.TrustLinkLocal(false), echo.TrustPrivateNet(false)}
	for _, n := range trusted {
		options = append(options, echo.TrustIPRange(n))
	}
	return echo.ExtractIPFromXFFHeader(options...)
}

// NewServer returns a server with limits of time and size that a slow or greedy peer runs into.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       75 * time.Second, // longer than the 60 of load balancers: of the two the one that sends requests closes first
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// AdminOnly and PublicOnly are the two halves of the API for Deps.Only.
func AdminOnly(r route.Route) bool { return strings.HasPrefix(r.Path, "/v1/admin") }

// PublicOnly chooses what AdminOnly does not.
func PublicOnly(r route.Route) bool { return !AdminOnly(r) }
