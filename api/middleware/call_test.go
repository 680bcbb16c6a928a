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
	t.Run("WaitsForOneThing", func(t *testing.T) { // by real time: the timers are shared
		t.Parallel()
		gone := errors.New("gone")
		for name, c := range map[string]struct {
			timeout time.Duration
			before  func(done, cut func())
			want    error
		}{
			"ItIsDone":           {time.Minute, func(done, _ func()) { done() }, nil},
			"ItIsDoneInAStream":  {-1, func(done, _ func()) { done() }, nil},
			"TheTimeIsOver":      {time.Millisecond, func(_, _ func()) {}, context.DeadlineExceeded},
			"TheCallerGoes":      {time.Minute, func(_, cut func()) { cut() }, gone},
			"TheReaderOfAStream": {-1, func(_, cut func()) { cut() }, gone},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				for range 3 { // with a timer that was used before
					conn, cut := context.WithCancelCause(t.Context())
					ask(conn, c.timeout, func(ctx context.Context) {
						done := make(chan struct{})
						c.before(func() { close(done) }, func() { cut(gone) })
						if err := ctx.(interface {
							Wait(done <-chan struct{}) error
						}).Wait(done); !errors.Is(err, c.want) { //nolint:forcetypeassert // it would show
							t.Errorf("waited until %v, want %v", err, c.want)
						}
					})
				}
			})
		}
	})
}
