package billing

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
)

// TestClock moves an account through time, in a deployment in test mode.
type TestClock struct{ *Core }

// MaxAdvance bounds one move of a test clock: what a year brings is done within one request.
const MaxAdvance = 366 * 24 * time.Hour

// ErrClockBackwards says that a test clock was to be moved into its own past.
var ErrClockBackwards = errs.New(errs.Conflict, "clock_moves_forward", "A test clock only moves forward. Take an account of its own for another time.")

// Advance sets the account's clock to a time that is not before its own, and does on the way what falls
// due: periods close, invoices become final, cards are charged and dunned, credit expires, each at its
// own moment. An account in real time is on a test clock from then on, for ever. Moving to where the
// clock stands already does what is due there and is harmless to repeat, so an interrupted move is
// carried on by asking for it again.
func (t TestClock) Advance(ctx context.Context, asked Asked, to time.Time) (acct account.Account, done Swept, err error) {
	defer errs.Wrap(&err, "advance clock of %s to %s", asked.Account, to)
	to = to.UTC().Truncate(time.Microsecond)
	if acct, err = t.DB.Accounts().Get(ctx, asked.Account); err != nil {
		return acct, done, err
	}
	from := acct.Now(t.Clock())
	switch {
	case to.Before(from):
		return acct, done, ErrClockBackwards.With("now", from)
	case to.After(from.Add(MaxAdvance)):
		return acct, done, errs.InvalidField("#/now", "out_of_range", "must be at most 366 days after %s", from.Format(time.RFC3339))
	}
	for {
		if err := Sweeper(t).account(ctx, acct.ID, &done); err != nil {
			return acct, done, err
		}
		next, err := t.nextDue(ctx, acct, to)
		if err != nil {
			return acct, done, err
		}
		if acct, err = t.set(ctx, asked, next, next.Equal(to)); err != nil || next.Equal(to) {
			if err == nil {
				err = Sweeper(t).account(ctx, acct.ID, &done)
			}
			return acct, done, err
		}
	}
}

// nextDue returns the next moment, up to a last one, at which something falls due that is not due yet.
func (t TestClock) nextDue(ctx context.Context, acct account.Account, last time.Time) (time.Time, error) {
	now, next := acct.Now(t.Clock()), last
	due := func(at time.Time) {
		if at.After(now) && at.Before(next) {
			next = at
		}
	}
	v, err := view(ctx, t.DB, acct)
	if err != nil {
		return next, err
	}
	if !v.Subscription.ID.IsZero() {
		due(v.Subscription.Period.End)
	}
	drafts, err := t.DB.Invoices().List(ctx, acct.ID, invoice.Draft, firstPage)
	if err != nil {
		return next, err
	}
	for _, inv := range drafts.Data {
		due(inv.FinalizeAt)
	}
	open, err := t.DB.Invoices().Unpaid(ctx, acct.ID)
	if err != nil {
		return next, err
	}
	for _, inv := range open {
		due(inv.NextAttempt)
	}
	grants, err := t.DB.Wallet().Unspent(ctx, acct.ID)
	if err != nil {
		return next, err
	}
	for _, g := range grants {
		due(g.ExpiresAt)
	}
	return next, nil
}

// set moves the clock. The last move of a request is the one that the audit log tells of.
func (t TestClock) set(ctx context.Context, asked Asked, to time.Time, last bool) (acct account.Account, err error) {
	err = t.DB.InTx(ctx, func(tx Tx) error {
		if acct, err = tx.Accounts().Lock(ctx, asked.Account); err != nil {
			return err
		}
		if to.Before(acct.Now(t.Clock())) {
			return ErrClockBackwards.With("now", acct.Now(t.Clock())) // another request was ahead
		}
		acct.ClockAt, acct.UpdatedAt = to, to
		if err := tx.Accounts().Save(ctx, &acct); err != nil || !last {
			return err
		}
		return tx.Accounts().Audit(ctx, acct.ID, account.Entry{Actor: asked.Actor, Action: "test_clock.advance", At: to})
	})
	return acct, err
}
