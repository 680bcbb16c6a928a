package middleware

import (
	"context"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/trace"
)

// call is what the chain finds out about a request, and the request's context. One is made for every
// request; what would be a context and an entry in a map for each of these costs more than most answers do.
type call struct {
	trace.Carrier

	at        time.Time // when the request came; zero: nobody has looked
	requestID [1]string // as its header has it
	rateLimit [1]string // likewise

	probe         bool // asked again and again by a machine that watches the service
	authenticated bool
	principal     auth.Principal
	account       account.ID // zero: none
	query         url.Values // nil: nothing is asked

	until time.Time // when the operation's time is over; zero: never
	timed atomic.Pointer[timed]
}

// timed is a context that ends at the call's time. It is made once somebody waits for that: an answer from
// memory is given without a timer.
type timed struct {
	context.Context //nolint:containedctx // it is one
	cancel          context.CancelFunc
}

type callKey struct{}

// begin makes the request's call.
func begin(c echo.Context, t trace.Context) *call {
	k := &call{}
	k.Context, k.Trace = c.Request().Context(), t
	c.SetRequest(c.Request().WithContext(k))
	return k
}

// callOf returns the request's call, and begins one where the chain runs by itself.
func callOf(c echo.Context) *call {
	if k, ok := known(c); ok {
		return k
	}
	return begin(c, trace.Context{})
}

// known returns the request's call for reading: an empty one, and false, where none has begun.
func known(c echo.Context) (*call, bool) {
	if k, ok := c.Request().Context().Value(callKey{}).(*call); ok {
		return k, true
	}
	return &call{}, false
}

// now returns when the request came: what is decided about it is decided by one reading of the clock.
func (ch *Chain) now(c echo.Context) time.Time {
	k := callOf(c)
	if k.at.IsZero() {
		k.at = ch.cfg.Clock()
	}
	return k.at
}

// end frees what waits for the call's time.
func (k *call) end() {
	if t := k.timed.Load(); t != nil {
		t.cancel()
	}
}

func (k *call) wait() context.Context {
	if k.until.IsZero() {
		return k.Context
	}
	if t := k.timed.Load(); t != nil {
		return t
	}
	t := new(timed)
	t.Context, t.cancel = context.WithDeadline(k.Context, k.until)
	if !k.timed.CompareAndSwap(nil, t) { // another goroutine of the request came first
		t.cancel()
	}
	return k.timed.Load()
}

// timers are used again: making one for every call that waits costs more than the wait's other parts.
var timers = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}}

// Wait waits until done is closed, and returns why not where the caller goes away or the call's time is over
// first. It is for who waits for nothing else: the context then needs no timer of its own.
func (k *call) Wait(done <-chan struct{}) error {
	if k.until.IsZero() || k.timed.Load() != nil {
		select {
		case <-done:
			return nil
		case <-k.Done():
			return context.Cause(k)
		}
	}
	t := timers.Get().(*time.Timer) //nolint:forcetypeassert // nothing else is put there
	t.Reset(time.Until(k.until))
	defer func() {
		t.Stop()
		timers.Put(t)
	}()
	select {
	case <-done:
		return nil
	case <-k.Context.Done():
		return context.Cause(k.Context)
	case <-t.C:
		return context.DeadlineExceeded
	}
}

// Deadline implements context.Context.
func (k *call) Deadline() (time.Time, bool) { return k.wait().Deadline() }

// Done implements context.Context.
func (k *call) Done() <-chan struct{} { return k.wait().Done() }

// Err implements context.Context.
func (k *call) Err() error { return k.wait().Err() }

// Value implements context.Context.
func (k *call) Value(key any) any {
	if key == (callKey{}) {
		return k
	}
	if t := k.timed.Load(); t != nil { // whose cause context.Cause asks for
		if v := t.Value(key); v != nil {
			return v
		}
	}
	return k.Carrier.Value(key)
}
