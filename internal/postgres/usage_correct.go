package postgres

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/period"
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
	counts     money.Decimal // from now on
	delta      money.Decimal
}

// events is by how many the correction changes what counts.
func (x corrected) events() int {
	if x.void {
		return -1
	}
	return 0
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
	x.counts, x.delta = c.After, c.After.Sub(c.Before)
	if limit, ok := e.HardLimit(m.Code, c.Period); ok && x.delta.Sign() > 0 {
		if err := s.checkLimit(ctx, x, c.After, limit); err != nil {
			return c, err
		}
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

// A scope is one of the roll-ups that an event counts in: its row, and of what the value that stands there is taken, where it
// is one of several.
type scope struct {
	table string
	row   string // condition; $1 account, $2 meter, $3 period, $4 series, $5 bucket
	parts string // of which one stands; $6 to $8 as quarters returns them
	also  string // what else is set with each change
}

// scopes are the roll-ups, the wider behind those that they are made of.
var scopes = [3]scope{
	{table: "usage_buckets", row: `t.account_id = $1 AND t.meter = $2 AND t.bucket = $5 AND t.series = $4`, parts: bucketParts},
	{table: "usage_series_totals", row: `t.account_id = $1 AND t.meter = $2 AND t.period_start = $3 AND t.series = $4`, parts: periodParts + ` WHERE p.series = $4`},
	{table: "usage_totals", row: `t.account_id = $1 AND t.meter = $2 AND t.period_start = $3`, parts: periodParts, also: `, version = t.version + 1`},
}

const (
	// periodEnd is when the next period begins in which the meter was used.
	periodEnd = `(SELECT coalesce(min(n.period_start), '9999-01-01Z') FROM usage_totals n
  WHERE n.account_id = $1 AND n.meter = $2 AND n.period_start > $3)`

	// params uses every parameter once with its type, so that each scope may leave some out.
	params = ` AND ($1::uuid, $2::text, $3::timestamptz, $4::uuid, $5::timestamptz) IS NOT NULL`

	bucketParts = `SELECT x.counts AS quantity, x.occurred_at AS last_at, x.key AS last_key FROM (` + effective + `
  AND e.meter = $2 AND e.series = $4 AND e.occurred_at >= $5 AND e.occurred_at < $5 + interval '15 minutes') x WHERE NOT x.void`

	// What stands in whole quarters of an hour, and the events at the period's ends.
	periodParts = `SELECT p.quantity, p.last_at, p.last_key FROM (
  SELECT b.series, b.quantity, b.last_at, b.last_key FROM usage_buckets b
  WHERE b.account_id = $1 AND b.meter = $2 AND b.bucket >= $6 AND b.bucket < $7 AND b.last_at IS NOT NULL
  UNION ALL
  SELECT x.series, x.counts, x.occurred_at, x.key FROM (` + effective + `
    AND e.meter = $2 AND ((e.occurred_at >= $3 AND e.occurred_at < $6) OR (e.occurred_at >= $7 AND e.occurred_at < $8))) x
  WHERE NOT x.void) p`
)

// applyCorrection brings the event's three roll-ups up to date, after the correction is on record.
func (s usageStore) applyCorrection(ctx context.Context, x corrected) error {
	args := []any{x.account, x.meter.Code, x.period, x.series, x.occurredAt.Truncate(metering.BucketWidth)}
	switch x.meter.Aggregation {
	case metering.Max, metering.Last:
		return s.replace(ctx, x, args)
	case metering.Unique:
		return s.forget(ctx, x, args)
	case metering.Sum, metering.Count:
	}
	for _, sc := range scopes {
		err := s.exec(ctx, `UPDATE `+sc.table+` t SET quantity = t.quantity + $6::numeric, events = t.events + $7::bigint`+sc.also+`
WHERE `+sc.row+params, append(args, x.delta.String(), x.events())...)
		if err != nil {
			return err
		}
	}
	return nil
}

// replace lets the right value stand. Of most corrections that is the one that stands already, or the event's own. Where it
// falls, the quarter of an hour knows the next from its events, and the wider roll-ups know it from the quarters: an account
// may have millions of events, and is held meanwhile.
func (s usageStore) replace(ctx context.Context, x corrected, args []any) error {
	wins, order := `t.last_key = $8`, `last_at DESC, last_key DESC`
	if x.meter.Aggregation == metering.Max {
		wins, order = `($9::numeric, $7::timestamptz, $8::uuid) >= (t.quantity, t.last_at, t.last_key)`, `quantity DESC, `+order
	}
	var ofPeriod []any // as quarters returns it
	for i, sc := range scopes {
		falls := false
		err := s.each(ctx, func(rows *sql.Rows) error { return rows.Scan(&falls) }, `
UPDATE `+sc.table+` t SET events = t.events + $6::bigint,
  quantity = CASE WHEN n.wins THEN $9::numeric ELSE t.quantity END,
  last_at  = CASE WHEN n.wins THEN $7::timestamptz ELSE t.last_at END,
  last_key = CASE WHEN n.wins THEN $8::uuid ELSE t.last_key END`+sc.also+`
FROM (SELECT `+wins+` AND NOT $10::boolean AS wins FROM `+sc.table+` t WHERE `+sc.row+`) n
WHERE `+sc.row+params+`
RETURNING t.last_key = $8 AND NOT n.wins`, append(args, x.events(), x.occurredAt, x.key, x.counts.String(), x.void)...)
		if err != nil {
			return err
		}
		if !falls {
			continue
		}
		with := args
		if i == 0 {
			err = s.requireBucket(ctx, args)
		} else {
			if ofPeriod == nil {
				ofPeriod, err = s.quarters(ctx, x, args)
			}
			with = ofPeriod
		}
		if err != nil {
			return err
		}
		err = s.exec(ctx, `
WITH best AS (`+sc.parts+` ORDER BY `+order+` LIMIT 1)
UPDATE `+sc.table+` t SET quantity = coalesce((SELECT quantity FROM best), 0),
  last_at = (SELECT last_at FROM best), last_key = (SELECT last_key FROM best)
WHERE `+sc.row+params, with...)
		if err != nil {
			return err
		}
	}
	return nil
}

// requireBucket refuses to go by what is left of a quarter of an hour whose events are not all kept.
func (s usageStore) requireBucket(ctx context.Context, args []any) error {
	complete := false
	err := s.each(ctx, func(rows *sql.Rows) error { return rows.Scan(&complete) },
		`SELECT t.events = (SELECT count(*) FROM (`+bucketParts+`) x) FROM usage_buckets t WHERE `+scopes[0].row+params, args...)
	if err == nil && !complete {
		return metering.ErrEventGone
	}
	return err
}

// quarters adds to args from when to when whole quarters of an hour make up the event's period, and until when it goes: to the
// next in which the meter was used. It refuses to go by ends of which not all events are kept.
func (s usageStore) quarters(ctx context.Context, x corrected, args []any) ([]any, error) {
	b := period.Bounds{Start: x.period}
	err := s.each(ctx, func(rows *sql.Rows) error { return rows.Scan(&b.End) }, `
SELECT `+periodEnd, args[:3]...)
	if err != nil {
		return nil, err
	}
	whole, err := s.Whole(ctx, id.FromUUID[account.Account](x.account), []string{x.meter.Code}, b)
	if err != nil {
		return nil, err
	}
	if whole != b {
		return nil, metering.ErrEventGone
	}
	first, last := wholeBuckets(b)
	return append(slices.Clone(args), first, last, b.End), nil
}

// forget takes a distinct value off the roll-ups where no event has it any more. A quarter of an hour knows that from its
// events, a series from its other quarters, the total from the other series: each that has the value has its digest on
// record, for longer than its events are kept.
func (s usageStore) forget(ctx context.Context, x corrected, args []any) error {
	for _, sc := range scopes {
		err := s.exec(ctx, `UPDATE `+sc.table+` t SET events = t.events + $6::bigint`+sc.also+` WHERE `+sc.row+params, append(args, x.events())...)
		if err != nil {
			return err
		}
	}
	if err := s.requireBucket(ctx, args); err != nil {
		return err
	}
	left := [len(scopes)]func() (bool, error){
		func() (bool, error) {
			return s.exists(ctx, bucketParts+` AND x.value = $6 AND x.period_start = $3`+params, append(args, x.value)...)
		},
		func() (bool, error) {
			return s.counted(ctx, x, quartersOfSeries, args, func(_ metering.Series, quarter time.Time) uuid.UUID {
				return metering.UniqueDigests(x.value, x.series, quarter)[2]
			})
		},
		func() (bool, error) {
			return s.counted(ctx, x, seriesOfPeriod, args, func(series metering.Series, _ time.Time) uuid.UUID {
				return metering.UniqueDigests(x.value, series, x.occurredAt)[1]
			})
		},
	}
	digests := metering.UniqueDigests(x.value, x.series, x.occurredAt)
	slices.Reverse(digests[:]) // the narrowest first, as the scopes
	for i, sc := range scopes {
		if has, err := left[i](); err != nil || has {
			return err // what has it still counts it in the wider ones, too
		}
		err := s.exec(ctx, `DELETE FROM usage_unique_values WHERE account_id = $1 AND meter = $2 AND period_start = $3 AND value = $4`,
			x.account, x.meter.Code, x.period, digests[i])
		if err != nil {
			return err
		}
		if err := s.exec(ctx, `UPDATE `+sc.table+` t SET quantity = t.quantity - 1 WHERE `+sc.row+params, args...); err != nil {
			return err
		}
	}
	return nil
}

const (
	quartersOfSeries = `SELECT t.series, t.bucket FROM usage_buckets t
WHERE t.account_id = $1 AND t.meter = $2 AND t.series = $4 AND t.bucket > $3::timestamptz - interval '15 minutes' AND t.bucket < ` + periodEnd + params

	seriesOfPeriod = `SELECT t.series, t.period_start FROM usage_series_totals t WHERE t.account_id = $1 AND t.meter = $2 AND t.period_start = $3` + params + `
UNION SELECT '00000000-0000-0000-0000-000000000000', $3::timestamptz` // which has no total of its own where the meter had no dimensions
)

// counted reports whether the event's value has a digest on record in any of the roll-ups that a query returns.
func (s usageStore) counted(ctx context.Context, x corrected, rollUps string, args []any, digest func(series metering.Series, quarter time.Time) uuid.UUID) (bool, error) {
	var digests []uuid.UUID
	err := s.each(ctx, func(rows *sql.Rows) error {
		var series metering.Series
		var quarter time.Time
		err := rows.Scan(&series, &quarter)
		digests = append(digests, digest(series, quarter))
		return err
	}, rollUps, args...)
	if err != nil {
		return false, err
	}
	return s.exists(ctx, `SELECT FROM usage_unique_values WHERE account_id = $1 AND meter = $2 AND period_start = $3 AND value = ANY ($4::uuid[])`,
		x.account, x.meter.Code, x.period, digests)
}

// exists reports whether a query returns anything.
func (s usageStore) exists(ctx context.Context, query string, args ...any) (is bool, err error) {
	err = s.each(ctx, func(rows *sql.Rows) error { return rows.Scan(&is) }, `SELECT EXISTS (`+query+`)`, args...)
	return is, err
}
