package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
)

// usagePartitions asks for partitions through functions of the schema's owner: the service itself may
// neither create nor drop a table.
type usagePartitions struct{ pool *pgxpool.Pool }

var _ metering.Partitions = usagePartitions{}

// UsagePartitions returns the partitions of raw usage events.
func UsagePartitions(pool *pgxpool.Pool) metering.Partitions { return usagePartitions{pool} }

func (p usagePartitions) OpenMonth(ctx context.Context, t time.Time) (err error) {
	defer errs.Wrap(&err, "open month %s", t.Format("2006-01"))
	var opened bool
	return p.ask(ctx, "SELECT usage_events_open_month($1::date)", t, &opened)
}

func (p usagePartitions) DropBefore(ctx context.Context, t time.Time) (dropped int, err error) {
	defer errs.Wrap(&err, "drop months before %s", t.Format("2006-01"))
	err = p.ask(ctx, "SELECT usage_events_drop_before($1::date)", t, &dropped)
	return dropped, err
}

// ask calls one of the functions. Replicas take turns: two that make or drop tables at once get in each other's way.
func (p usagePartitions) ask(ctx context.Context, call string, day time.Time, answer any) error {
	return translate(pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock(hashtext('usage_events'))"); err != nil {
			return err
		}
		// Making and dropping wait for everybody who reads events, a backup among them, and usage waits behind.
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '500ms'"); err != nil {
			return err
		}
		return tx.QueryRow(ctx, call, day.UTC()).Scan(answer)
	}))
}
