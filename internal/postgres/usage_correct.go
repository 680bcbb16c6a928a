package postgres

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/pkg/money"
)

// corrected is an event that is being corrected, and where it counts.
type corrected struct {
	account    uuid.UUID
	key        uuid.UUID
	meter      *metering.Meter
	series     uuid.UUID
	value      string
	period     time.Time
	occurredAt time.Time
	void       bool
	delta      money.Decimal
}

func (s usageStore) Correct(ctx context.Context, c metering.Correction, m *metering.Meter) (_ metering.Correction, err error) {
	defer errs.Wrap(&err, "correct usage of %s", c.Account)
	e, err := entitlementStore(s).Lock(ctx, c.Account)
	if err != nil {
		return c, err
	}
	if e.Status == account.Closed {
		return c, account.ErrClosed // no invoice comes that it could enter
	}
	x := corrected{account: mustOwner(c.Account), key: metering.KeyOf(c.Source, c.EventID), meter: m, void: c.Kind == metering.Void}
	if err := s.findCorrected(ctx, &c, &x); err != nil {
		return c, err
	}
	if m == nil || c.Meter != m.Code {
		return c, errors.New("the meter is not the event's")
	}
	if !x.void {
		if m.Aggregation == metering.Count || m.Aggregation == metering.Unique {
			return c, metering.ErrNotAmendable
		}
		c.After = m.Counted(c.Quantity)
	}
	if c.After.Cmp(e.MaxQuantity(m.Code)) > 0 {
		return c, metering.ErrTotalRange
	}
	x.delta = c.After.Sub(c.Before)
	if limit, ok := e.HardLimit(m.Code, c.Period); ok && x.delta.Sign() > 0 {
		if err := s.checkLimit(ctx, x, c.After, limit); err != nil {
			return c, err
		}
	}
	if err := s.requireRaw(ctx, x); err != nil {
		return c, err
	}
	err = s.exec(ctx, `
INSERT INTO usage_corrections (account_id, id, key, sequence, kind, meter, quantity_before, quantity_after, period_start, reason, actor, at, source, event_id)
SELECT $1, $2, $3, coalesce(max(p.sequence), 0) + 1, $4, $5, $6::numeric, $7::numeric, $8, $9, $10, $11, $12, $13
FROM usage_corrections p WHERE p.account_id = $1 AND p.key = $3`,
		x.account, c.ID.UUID(), x.key, string(c.Kind), c.Meter, c.Before.String(), c.After.String(), c.Period, c.Reason, c.Actor, c.At,
		c.Source, c.EventID)
	if err != nil {
		return c, err
	}
	if err := s.exec(ctx, `UPDATE entitlements SET corrections = corrections + 1 WHERE account_id = $1`, x.account); err != nil {
		return c, err
	}
	err = s.applyCorrection(ctx, x)
	switch sqlState(err) {
	case "23514", "22003": // a total below zero, or beyond its digits
		return c, metering.ErrTotalRange.Because(err)
	}
	if err != nil {
		return c, err
	}
	return c, s.exec(ctx, "SELECT pg_notify($1, $2)", usageChannel, ":"+x.account.String())
}

func (s usageStore) Corrections(ctx context.Context, a account.ID, f metering.Filter, r page.Request) (_ page.Page[metering.Correction], err error) {
	defer errs.Wrap(&err, "corrections of %s", a)
	q := selection{args: []any{mustOwner(a)}}
	if f.ID != "" {
		q.and("c.key = ", metering.KeyOf(f.SourceOrDefault(), f.ID))
	} else if f.Source != "" {
		q.and("c.source = ", f.Source)
	}
	q.between("c.at", f.Bounds)
	if f.Meter != "" {
		q.and("c.meter = ", f.Meter)
	}
	if after, err := id.Parse[metering.Correction](r.After); err == nil {
		q.and("c.id < ", after.UUID())
	}
	var found []metering.Correction
	err = s.each(ctx, func(rows *sql.Rows) error {
		c := metering.Correction{Account: a}
		var u uuid.UUID
		err := rows.Scan(&u, &c.Source, &c.EventID, &c.Kind, &c.Reason, &c.Actor, &c.At, &c.Meter, &c.Before, &c.After, &c.Period, &c.OccurredAt)
		c.ID, c.At, c.Period, c.OccurredAt = id.FromUUID[metering.Correction](u), c.At.UTC(), c.Period.UTC(), c.OccurredAt.UTC()
		found = append(found, c)
		return err
	}, `
SELECT c.id, c.source, c.event_id, c.kind, c.reason, c.actor, c.at, c.meter, c.quantity_before, c.quantity_after, c.period_start, k.occurred_at
FROM usage_corrections c JOIN usage_event_keys k ON k.account_id = c.account_id AND k.key = c.key
WHERE c.account_id = $1`+q.where.String()+` ORDER BY c.id DESC LIMIT `+itoa(r.Limit+1), q.args...)
	return page.Cut(found, r.Limit, func(c metering.Correction) string { return c.ID.String() }), err
}

// findCorrected reads the event, and what it counts now.
func (s usageStore) findCorrected(ctx context.Context, c *metering.Correction, x *corrected) error {
	var kept, found bool
	err := s.each(ctx, func(rows *sql.Rows) error { found = true; return rows.Scan(&x.occurredAt) },
		`SELECT occurred_at FROM usage_event_keys WHERE account_id = $1 AND key = $2`, x.account, x.key)
	if err != nil {
		return err
	}
	if !found {
		return metering.ErrEventNotFound
	}
	var void bool
	err = s.each(ctx, func(rows *sql.Rows) error {
		kept = true
		return rows.Scan(&c.Meter, &x.series, &x.value, &c.Period, &c.Before, &void)
	}, `SELECT x.meter, x.series, coalesce(x.value, ''), x.period_start, x.counts, x.void FROM (`+effective+`
 AND e.occurred_at = $2 AND e.key = $3) x`, x.account, x.occurredAt, x.key)
	switch {
	case err != nil:
		return err
	case !kept:
		return metering.ErrEventGone
	case void:
		return metering.ErrVoided
	}
	c.Period, c.OccurredAt, x.period = c.Period.UTC(), x.occurredAt.UTC(), c.Period
	return nil
}

// checkLimit refuses to count more than the limit, as it is refused of an event.
func (s usageStore) checkLimit(ctx context.Context, x corrected, counts, limit money.Decimal) error {
	var used, reserved money.Decimal
	err := s.each(ctx, func(rows *sql.Rows) error { return rows.Scan(&used, &reserved) },
		`SELECT quantity, reserved FROM usage_totals WHERE account_id = $1 AND meter = $2 AND period_start = $3`,
		x.account, x.meter.Code, x.period)
	after := used.Add(x.delta)
	if x.meter.Aggregation == metering.Max || x.meter.Aggregation == metering.Last { // one value stands, not their sum
		after = counts
	}
	if err == nil && after.Cmp(used) > 0 && after.Add(reserved).Cmp(limit) > 0 {
		return metering.ErrOverLimit.With("limit", limit)
	}
	return err
}

// requireRaw refuses to recompute a total whose events are not all kept.
func (s usageStore) requireRaw(ctx context.Context, x corrected) error {
	switch x.meter.Aggregation {
	case metering.Max, metering.Last, metering.Unique:
	default:
		return nil
	}
	complete := false
	err := s.each(ctx, func(rows *sql.Rows) error { return rows.Scan(&complete) }, `
SELECT t.events = (SELECT count(*) FROM (`+effective+`
  AND e.meter = $2 AND e.occurred_at >= $3 AND e.period_start = $3) x WHERE NOT x.void)
FROM usage_totals t WHERE t.account_id = $1 AND t.meter = $2 AND t.period_start = $3`, x.account, x.meter.Code, x.period)
	if err == nil && !complete {
		return metering.ErrEventGone
	}
	return err
}

// A scope is one of the roll-ups that an event counts in: which row, and which events.
type scope struct {
	row    string // condition on the roll-up's row; $1 account, $2 meter, $3 period, $4 series, $5 bucket
	table  string
	events string // condition on events, of effective
	also   string // what else is set with each change
}

// params uses every parameter once with its type, so that each scope may leave some out.
const params = ` AND ($1::uuid, $2::text, $3::timestamptz, $4::uuid, $5::timestamptz) IS NOT NULL`

var scopes = [3]scope{
	{
		table: "usage_totals", row: `t.account_id = $1 AND t.meter = $2 AND t.period_start = $3`,
		events: ` AND e.meter = $2 AND e.occurred_at >= $3 AND e.period_start = $3`,
		also:   `, version = t.version + 1`,
	},
	{
		table: "usage_series_totals", row: `t.account_id = $1 AND t.meter = $2 AND t.period_start = $3 AND t.series = $4`,
		events: ` AND e.meter = $2 AND e.occurred_at >= $3 AND e.period_start = $3 AND e.series = $4`,
	},
	{
		table: "usage_buckets", row: `t.account_id = $1 AND t.meter = $2 AND t.bucket = $5 AND t.series = $4`,
		events: ` AND e.meter = $2 AND e.series = $4 AND e.occurred_at >= $5 AND e.occurred_at < $5 + interval '15 minutes'`,
	},
}

// applyCorrection brings the event's three roll-ups up to date, after the correction is on record.
func (s usageStore) applyCorrection(ctx context.Context, x corrected) error {
	events := 0
	if x.void {
		events = -1
	}
	values := metering.UniqueDigests(x.value, x.series, x.occurredAt)
	args := []any{x.account, x.meter.Code, x.period, x.series, x.occurredAt.Truncate(metering.BucketWidth)}
	for i, sc := range scopes {
		var err error
		switch x.meter.Aggregation {
		case metering.Max:
			err = s.recompute(ctx, sc, `x.counts DESC, x.occurred_at DESC, x.key DESC`, events, args)
		case metering.Last:
			err = s.recompute(ctx, sc, `x.occurred_at DESC, x.key DESC`, events, args)
		case metering.Unique:
			err = s.forget(ctx, sc, values[i], x.value, events, args)
		default:
			err = s.exec(ctx, `UPDATE `+sc.table+` t SET quantity = t.quantity + $6::numeric, events = t.events + $7::bigint`+sc.also+`
WHERE `+sc.row+params, append(args, x.delta.String(), events)...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// recompute takes the value that stands from the events that are left.
func (s usageStore) recompute(ctx context.Context, sc scope, order string, events int, args []any) error {
	return s.exec(ctx, `
WITH best AS (
  SELECT x.counts, x.occurred_at, x.key FROM (`+effective+sc.events+params+`) x WHERE NOT x.void ORDER BY `+order+` LIMIT 1)
UPDATE `+sc.table+` t SET events = t.events + $6::bigint,
  quantity = coalesce((SELECT counts FROM best), 0),
  last_at = (SELECT occurred_at FROM best), last_key = (SELECT key FROM best)`+sc.also+`
WHERE `+sc.row+params, append(args, events)...)
}

// forget takes a distinct value off a roll-up if no event there has it any more.
func (s usageStore) forget(ctx context.Context, sc scope, digest uuid.UUID, value string, events int, args []any) error {
	var left bool
	err := s.each(ctx, func(rows *sql.Rows) error { return rows.Scan(&left) },
		`SELECT EXISTS (SELECT FROM (`+effective+sc.events+params+` AND e.value = $6) x WHERE NOT x.void)`, append(args, value)...)
	if err != nil {
		return err
	}
	gone := 0
	if !left {
		gone = 1
		err = s.exec(ctx, `DELETE FROM usage_unique_values WHERE account_id = $1 AND meter = $2 AND period_start = $3 AND value = $4`,
			args[0], args[1], args[2], digest)
		if err != nil {
			return err
		}
	}
	return s.exec(ctx, `UPDATE `+sc.table+` t SET events = t.events + $6::bigint, quantity = t.quantity - $7::bigint`+sc.also+`
WHERE `+sc.row+params, append(args, events, gone)...)
}
