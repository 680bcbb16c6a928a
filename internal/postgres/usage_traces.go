package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
)

// usageTraces looks for traces by the keys that the tables have anyway: an index by time alone would cost every insert.
type usageTraces struct{ pool *pgxpool.Pool }

var _ metering.Traces = usageTraces{}

// UsageTraces returns what usage leaves beside events and totals.
func UsageTraces(pool *pgxpool.Pool) metering.Traces { return usageTraces{pool} }

// A trace is what a table keeps of an account for a time only.
type trace struct {
	holders string // of the accounts $1, those that have any from before $2
	drop    string // removes up to $3 of the account $1
	before  func(t time.Time) any
}

func sameTime(t time.Time) any { return t }

// valuesOutlast is how much longer than raw events the distinct values of a period are kept, by its start: the period may be
// a year, its last event comes MaxAge late, and that is kept as every event.
const valuesOutlast = 366*24*time.Hour + metering.MaxAge

var traces = []trace{
	{
		holders: `SELECT u.a FROM unnest($1::uuid[]) AS u (a), LATERAL (
  SELECT FROM usage_rejects r WHERE r.account_id = u.a AND r.received_at < $2 LIMIT 1) found`,
		drop: `WITH old AS MATERIALIZED (SELECT id FROM usage_rejects WHERE account_id = $1 AND received_at < $2 ORDER BY received_at LIMIT $3)
DELETE FROM usage_rejects r USING old WHERE r.account_id = $1 AND r.id = old.id`,
		before: sameTime,
	},
	{ // by identifier, which begins with the time at which a reservation was made
		holders: `SELECT u.a FROM unnest($1::uuid[]) AS u (a), LATERAL (
  SELECT FROM reservations r WHERE r.account_id = u.a AND r.id < $2 AND r.status <> 'open' LIMIT 1) found`,
		drop: `WITH old AS MATERIALIZED (SELECT id FROM reservations WHERE account_id = $1 AND id < $2 AND status <> 'open' ORDER BY id LIMIT $3)
DELETE FROM reservations r USING old WHERE r.account_id = $1 AND r.id = old.id`,
		before: func(t time.Time) any { return firstAt(t) },
	},
	{
		holders: `SELECT DISTINCT u.a FROM unnest($1::uuid[]) AS u (a), meters m, LATERAL (
  SELECT FROM usage_unique_values v WHERE v.account_id = u.a AND v.meter = m.code AND v.period_start < $2 LIMIT 1) found
WHERE m.definition ->> 'aggregation' = 'unique'`,
		drop: `WITH old AS MATERIALIZED (
  SELECT v.meter, v.period_start, v.value FROM meters m, LATERAL (
    SELECT * FROM usage_unique_values v WHERE v.account_id = $1 AND v.meter = m.code AND v.period_start < $2 LIMIT $3) v
  WHERE m.definition ->> 'aggregation' = 'unique')
DELETE FROM usage_unique_values v USING old
WHERE v.account_id = $1 AND v.meter = old.meter AND v.period_start = old.period_start AND v.value = old.value`,
		before: func(t time.Time) any { return t.Add(-valuesOutlast) },
	},
}

// tracesAtOnce is how many of an account's are removed by one transaction.
const tracesAtOnce = 5000

func (u usageTraces) DropBefore(ctx context.Context, t time.Time, after account.ID, limit int) (last account.ID, err error) {
	defer errs.Wrap(&err, "drop traces of usage before %s", t.Format("2006-01"))
	accounts, err := u.accounts(ctx, `SELECT id FROM accounts WHERE id > $1 ORDER BY id LIMIT $2`, after.UUID(), limit)
	if err != nil || len(accounts) == 0 {
		return last, err
	}
	for _, of := range traces {
		holders, err := u.accounts(ctx, of.holders, accounts, of.before(t))
		if err != nil {
			return last, err
		}
		for _, a := range holders {
			for {
				gone, err := u.pool.Exec(ctx, of.drop, a, of.before(t), tracesAtOnce)
				if err != nil {
					return last, translate(err)
				}
				if gone.RowsAffected() == 0 { // or another replica is at it
					break
				}
			}
		}
	}
	return id.FromUUID[account.Account](accounts[len(accounts)-1]), nil
}

func (u usageTraces) accounts(ctx context.Context, query string, args ...any) ([]uuid.UUID, error) {
	rows, err := u.pool.Query(ctx, query, args...)
	if err != nil {
		return nil, translate(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[uuid.UUID])
	return list, translate(err)
}
