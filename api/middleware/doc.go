// Package middleware stands between the router and the handlers: it identifies, logs, bounds,
// authenticates and limits requests, and says no in the words of package problem.
//
// Its order is part of its meaning, and Chain is the one place that says it:
//
//	request id → access log → recover → security headers → CORS         (every request)
//	→ deprecation → deadline → accept → body limit → card tripwire → authentication and scope
//	→ account → rate limit → query → no body → If-Match → idempotency → memory → handler    (every route)
//
// What it finds out about a request is kept in the request's context (call), which is one allocation.
// The tripwire stands before everything that could keep what it reads, and the account is settled
// before any handler runs, so that a handler cannot forget either. Where large bodies are taken the
// credential alone is looked at first: the room that there is for them is not for strangers.
package middleware

import (
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/secret"
)

// Config is what the chain needs. All fields are required unless they say otherwise.
type Config struct {
	Auth     *auth.Authenticator
	Accounts auth.AccountResolver
	// Memory remembers answers where a route says so. Nil remembers none.
	Memory *Memory
	Clock  clock.Clock // real time: limits and tokens never follow a test clock
	Log    *slog.Logger
	// Fingerprint keys the digests of requests.
	Fingerprint secret.Text
	// Limits holds the quota of each class per caller; a class without one is not limited.
	Limits map[route.Class]Limit
	// FailedLogins bounds wrong credentials per address. The zero Limit is none.
	FailedLogins Limit
}

// Limit is a quota of requests in a window of time.
type Limit struct {
	Quota  int
	Window time.Duration
}

// Chain is the middleware of every route, in order.
type Chain struct {
	cfg      Config
	limiter  *limiter
	failures *limiter
	bodies   *body.Gate
}

// roomForBodies is how many bytes of large bodies are worked on at one time: what is made of them is
// several times as much, and the service has 96 MiB in all.
const roomForBodies = 8 << 20

// NewChain returns a chain. All routes of a server share one, since they share its limits.
func NewChain(cfg Config) *Chain {
	failures := map[route.Class]Limit{loginClass: cfg.FailedLogins}
	return &Chain{cfg: cfg, limiter: newLimiter(cfg.Limits), failures: newLimiter(failures), bodies: body.NewGate(roomForBodies)}
}

// Wrap puts the middleware of a route around its handler, once and for all requests.
func (ch *Chain) Wrap(r route.Route) echo.HandlerFunc {
	large := !r.Public && r.MaxBody > body.Small
	m := []echo.MiddlewareFunc{deprecation(r), deadline(r), accept(r)}
	if large {
		m = append(m, ch.authenticate(r))
	}
	m = append(m, ch.takeBody(r))
	if !r.Signed {
		m = append(m, tripwire)
	}
	if !r.Public && !large {
		m = append(m, ch.authenticate(r))
	}
	if !r.Public {
		m = append(m, ch.settleAccount(r))
	}
	m = append(m, ch.limit(r))
	if !r.Signed { // the provider calls the address that it was given
		m = append(m, query(r))
	}
	if r.NoBody {
		m = append(m, noBody)
	}
	if r.IfMatch {
		m = append(m, ifMatch)
	}
	if r.TakesKey() {
		m = append(m, ch.idempotency(r))
	}
	if strings.Contains(r.Path, "{") {
		m = append(m, addressable)
	}
	if r.AtMost > 0 {
		m = append(m, atMost(r.AtMost))
	}
	m = append(m, ch.remember(r))
	h := r.Handler
	for _, around := range slices.Backward(m) {
		h = around(h)
	}
	return h
}
