package api_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	v1 "github.com/accrue-billing/accrue/api/v1"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/pkg/money"
)

// BenchmarkRequest compares what every request passes through with a handler of Echo alone. Neither
// has a socket or a database: what is left is this package and those below it.
func BenchmarkRequest(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		e := echo.New()
		e.GET("/", func(c echo.Context) error { return c.String(http.StatusOK, "hello") })
		repeat(b, e, httptest.NewRequest(http.MethodGet, "/", nil))
	})
	b.Run("entitlement", func(b *testing.B) {
		signer, err := auth.NewDevelopmentSigner(b.TempDir(), "accrue", auth.Test, clock.System)
		if err != nil {
			b.Fatal(err)
		}
		tokens, err := auth.NewVerifier([]auth.Issuer{signer.Issuer()}, auth.Test, clock.System, nil)
		if err != nil {
			b.Fatal(err)
		}
		token, err := signer.Sign(auth.Grant{Subject: "user-1", Account: "customer-1", Scopes: []auth.Scope{auth.UsageRead}}, time.Hour)
		if err != nil {
			b.Fatal(err)
		}
		e, err := api.New(api.Deps{
			Config: middleware.Config{
				Auth: &auth.Authenticator{Tokens: tokens}, Accounts: benchAccount{id.New[account.Account]()}, Clock: clock.System,
				Log:    slog.New(slog.DiscardHandler),
				Limits: map[route.Class]middleware.Limit{route.Reads: {Quota: 1_000_000_000, Window: time.Minute}}, Fingerprint: "key",
			},
			V1: v1.Deps{Metering: v1.Metering{Checker: allowed{}}},
		})
		if err != nil {
			b.Fatal(err)
		}
		req := httptest.NewRequest(http.MethodGet, "/v1/entitlements/voice", nil)
		req.Header.Set("Authorization", "Bearer "+token.Reveal())
		req.Header.Set("Accept", "application/json")
		req.Header.Set("User-Agent", "curl/8.5.0")
		repeat(b, e, req)
	})
}

func repeat(b *testing.B, h http.Handler, req *http.Request) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		w := answerless{header: http.Header{}}
		h.ServeHTTP(&w, req)
		if w.status != http.StatusOK {
			b.Fatal(w.status)
		}
	}
}

// answerless counts nothing but the status.
type answerless struct {
	header http.Header
	status int
}

func (a *answerless) Header() http.Header         { return a.header }
func (a *answerless) Write(p []byte) (int, error) { return len(p), nil }
func (a *answerless) WriteHeader(status int)      { a.status = status }

type benchAccount struct{ id account.ID }

func (o benchAccount) Resolve(context.Context, string) (account.ID, error) { return o.id, nil }
func (o benchAccount) Lookup(context.Context, string) (account.ID, error)  { return o.id, nil }

// allowed answers every check from memory.
type allowed struct{}

func (allowed) Check(_ account.ID, meter string) (entitlement.Decision, error) {
	e := entitlement.Entitlement{Limits: map[string]entitlement.Limit{meter: {Quantity: money.DecimalFromInt(1000), Mode: entitlement.Hard}}}
	return e.Check(meter, money.DecimalFromInt(10), money.Decimal{}), nil
}

func (allowed) CheckAll(account.ID) ([]entitlement.Decision, error) {
	return nil, nil
}
