package middleware_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/trace"
)

// A handler is given a context that behaves like any other: it ends with the route's time and with the
// caller's connection, says why, and ends the contexts that are made of it.
func TestTheTimeOfAnOperation(t *testing.T) {
	t.Parallel()
	ask := func(ctx context.Context, timeout time.Duration, handler func(context.Context)) {
		chain := middleware.NewChain(middleware.Config{Clock: clock.System})
		h := chain.Wrap(route.Route{
			Method: http.MethodGet, Path: "/", Public: true, Timeout: timeout,
			Handler: func(c echo.Context) error {
				handler(c.Request().Context())
				return nil
			},
		}.WithDefaults())
		c := echo.New().NewContext(httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil), httptest.NewRecorder())
		if err := middleware.RequestID(h)(c); err != nil {
			t.Error(err)
		}
	}

	t.Run("IsOver", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ask(t.Context(), time.Second, func(ctx context.Context) {
				if at, ok := ctx.Deadline(); !ok || time.Until(at) != time.Second {
					t.Errorf("deadline %v, %v", at, ok)
				}
				if err := ctx.Err(); err != nil {
					t.Errorf("at once: %v", err)
				}
				child, cancel := context.WithCancel(ctx)
				defer cancel()
				<-child.Done()
				for _, err := range []error{ctx.Err(), context.Cause(ctx), child.Err(), context.Cause(child)} {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("after its time: %v", err)
					}
				}
				if trace.From(child).IsZero() {
					t.Error("the trace is lost")
				}
			})
		})
	})
	t.Run("EndsWithTheConnection", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			gone := errors.New("gone")
			conn, cut := context.WithCancelCause(t.Context())
			ask(conn, time.Minute, func(ctx context.Context) {
				cut(gone)
				<-ctx.Done()
				if !errors.Is(context.Cause(ctx), gone) {
					t.Errorf("cause %v", context.Cause(ctx))
				}
			})
		})
	})
	t.Run("NobodyAskedUntilItWasOver", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ask(t.Context(), time.Second, func(ctx context.Context) {
				time.Sleep(time.Minute)
				if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
					t.Errorf("err %v", ctx.Err())
				}
			})
		})
	})
	t.Run("AStreamHasNone", func(t *testing.T) {
		t.Parallel()
		ask(t.Context(), -1, func(ctx context.Context) {
			if at, ok := ctx.Deadline(); ok {
				t.Errorf("deadline %v", at)
			}
		})
	})
}
