package metering

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/telemetry"
)

// expireEvery is how often overdue reservations are looked for. Every action on a reservation of the
// account lets them go too, so this only bounds how long they stand in the way of events.
const expireEvery = time.Second

// Expirer lets reservations go whose time is over. Any number of replicas may run one.
type Expirer struct {
	Reservations entitlement.Reservations
	Ingester     *Ingester
	Log          *slog.Logger
}

// Run sweeps until ctx ends, and returns nil.
func (x Expirer) Run(ctx context.Context) error {
	outage := telemetry.Outage{Log: x.Log, Began: "overdue reservations not let go; tried again until they are", Ended: "overdue reservations are let go again"}
	return every(ctx, expireEvery, func() {
		if err := x.Sweep(ctx); ctx.Err() == nil {
			outage.Tried(ctx, err)
		}
	})
}

// Sweep lets go what is overdue now. An account that somebody else holds keeps no other's reservations.
func (x Expirer) Sweep(ctx context.Context) error {
	const most = 100
	for {
		holders, err := x.Reservations.Holders(ctx, most)
		if err != nil || len(holders) == 0 {
			return err
		}
		for _, a := range holders {
			err = errors.Join(err, x.Ingester.Expire(ctx, a))
		}
		if err != nil { // who failed would be found again at once
			return err
		}
	}
}

// Partitions keeps the months of arrival that raw events are stored in.
type Partitions interface {
	// OpenMonth makes the partition of the month that t lies in, unless it is there.
	OpenMonth(ctx context.Context, t time.Time) error
	// DropBefore drops whole months that ended before t.
	DropBefore(ctx context.Context, t time.Time) (int, error)
}

// Traces are what usage leaves beside events and totals: what was refused, reservations that are settled, and the values that
// meters of distinct values have counted. They are of an account, and looked for account by account.
type Traces interface {
	// DropBefore removes the traces of up to limit accounts behind the given one that are from before t, a start of a month. It
	// returns the last of these accounts, the zero one when there are no more.
	DropBefore(ctx context.Context, t time.Time, after account.ID, limit int) (account.ID, error)
}

// MinRetention is how long raw events are kept at the least: late ones still come, and an invoice may
// be disputed.
const MinRetention = 100 * 24 * time.Hour

// Retention opens the months to come and drops those that are kept no longer. What was dropped stays
// counted, and its identities stay taken for ever.
type Retention struct {
	Partitions Partitions
	Traces     Traces
	Clock      clock.Clock
	Keep       time.Duration // of raw events and traces; zero: for ever. At least 100 days.
	Log        *slog.Logger

	without time.Time // before it there are no traces any more
}

// Run keeps the months until ctx ends, and returns nil.
func (r *Retention) Run(ctx context.Context) error {
	return every(ctx, time.Hour, func() {
		if err := r.Tend(ctx); err != nil && ctx.Err() == nil {
			r.Log.WarnContext(ctx, "old usage not tended; tried again in an hour", "error", err)
		}
	})
}

// Tend opens this month and the next, and drops what is too old.
func (r *Retention) Tend(ctx context.Context) error {
	now := r.Clock()
	for _, t := range []time.Time{now, now.AddDate(0, 0, 28)} {
		if err := r.Partitions.OpenMonth(ctx, t); err != nil {
			return err
		}
	}
	if r.Keep == 0 {
		return nil
	}
	before := now.Add(-max(r.Keep, MinRetention))
	dropped, err := r.Partitions.DropBefore(ctx, before)
	if dropped > 0 {
		r.Log.InfoContext(ctx, "raw usage events dropped", "months", dropped)
	}
	if err != nil {
		return err
	}
	return r.dropTraces(ctx, before.UTC())
}

// accountsAtOnce is how many accounts are looked at by one question.
const accountsAtOnce = 500

// dropTraces drops those of the months whose raw events are dropped: once, and again only when another month is over.
func (r *Retention) dropTraces(ctx context.Context, before time.Time) (err error) {
	month := time.Date(before.Year(), before.Month(), 1, 0, 0, 0, 0, time.UTC)
	if !month.After(r.without) {
		return nil
	}
	for a, more := (account.ID{}), true; more; more = !a.IsZero() {
		if a, err = r.Traces.DropBefore(ctx, month, a, accountsAtOnce); err != nil {
			return err
		}
	}
	r.without = month
	return nil
}

// every calls fn at once and then at intervals, until ctx ends.
func every(ctx context.Context, interval time.Duration, fn func()) error {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		fn()
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}
