package metering

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/entitlement"
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
	return every(ctx, expireEvery, func() {
		if err := x.Sweep(ctx); err != nil && ctx.Err() == nil {
			x.Log.WarnContext(ctx, "overdue reservations not let go", "error", err)
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

// MinRetention is how long raw events are kept at the least: late ones still come, and an invoice may
// be disputed.
const MinRetention = 100 * 24 * time.Hour

// Retention opens the months to come and drops those that are kept no longer. What was dropped stays
// counted, and its identities stay taken for ever.
type Retention struct {
	Partitions Partitions
	Clock      clock.Clock
	Keep       time.Duration // of raw events; zero: for ever. At least 100 days.
	Log        *slog.Logger
}

// Run keeps the months until ctx ends, and returns nil.
func (r Retention) Run(ctx context.Context) error {
	return every(ctx, time.Hour, func() {
		if err := r.Tend(ctx); err != nil && ctx.Err() == nil {
			r.Log.WarnContext(ctx, "partitions of usage events not tended", "error", err)
		}
	})
}

// Tend opens this month and the next, and drops what is too old.
func (r Retention) Tend(ctx context.Context) error {
	now := r.Clock()
	for _, t := range []time.Time{now, now.AddDate(0, 0, 28)} {
		if err := r.Partitions.OpenMonth(ctx, t); err != nil {
			return err
		}
	}
	if r.Keep == 0 {
		return nil
	}
	dropped, err := r.Partitions.DropBefore(ctx, now.Add(-max(r.Keep, MinRetention)))
	if dropped > 0 {
		r.Log.InfoContext(ctx, "raw usage events dropped", "months", dropped)
	}
	return err
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
