// Package changes tells whoever looks on that something of an account has changed, within a moment of the
// commit and whichever process made it.
//
// It owns: who looks on at which account, the nudges that they get, and the announcement of changed
// usage to the other processes. It does not own: what has changed. A nudge has no content; whoever gets
// one reads the outbox, usage or balance, so that a nudge may come twice or together with others.
//
// Always true: whoever subscribes and then reads misses nothing that is announced from then on; what
// waits for a slow reader is one set of bits, however much happens; whoever announces never waits.
package changes

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
)

// What says what of an account has changed, as a set of bits.
type What uint8

// What can change.
const (
	Events What = 1 << iota // the account's sequence of events has gone on
	Usage                   // usage, and with it what is accrued and reserved
	Limits                  // what the account may do
)

// everything is what may have changed while nobody listened.
const everything = Events | Usage | Limits

// Change is something of an account that has changed.
type Change struct {
	Account account.ID
	What    What
}

// A Source hears what is committed, by this process and by others.
type Source interface {
	// Listen calls listening once it hears everything that is committed from then on, and heard for each
	// change, until ctx ends or the connection is lost. It leaves out what this process announced itself.
	Listen(ctx context.Context, listening func(), heard func(Change)) error
}

// An Announcer tells the other processes whose usage has changed.
type Announcer interface {
	Announce(ctx context.Context, accounts []account.ID) error
}

// Errors of Subscribe.
var (
	ErrTooMany = errs.New(errs.RateLimited, "too_many_streams",
		"The account has as many event streams open as it may. Close one, or share one between tabs.").After(5 * time.Second)
	ErrFull = errs.New(errs.Unavailable, "streams_exhausted",
		"This instance has as many event streams open as it can. Try again in a moment.").After(5 * time.Second)
	ErrStopping = errs.New(errs.Unavailable, "stream_stopping", "This instance is shutting down. Connect again.").After(time.Second)
)
