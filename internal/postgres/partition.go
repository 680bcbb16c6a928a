package postgres

import (
	"context"
	"time"

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
	_, err = p.pool.Exec(ctx, "SELECT usage_events_open_month($1::date)", t.UTC())
	if state := sqlState(err); state == "42P07" || state == "42710" || state == uniqueViolation {
		return nil // another replica was quicker
	}
	return translate(err)
}

func (p usagePartitions) DropBefore(ctx context.Context, t time.Time) (dropped int, err error) {
	defer errs.Wrap(&err, "drop months before %s", t.Format("2006-01"))
	err = p.pool.QueryRow(ctx, "SELECT usage_events_drop_before($1::date)", t.UTC()).Scan(&dropped)
	return dropped, translate(err)
}
