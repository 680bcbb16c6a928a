package postgres

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/pkg/money"
)

// usageStore is the read side of metering, and what billing and corrections write. It uses SQL as it
// is: arrays and streams of rows gain nothing from the ORM.
type usageStore stores

var _ metering.Store = usageStore{}

// each runs a query and calls scan for every row, as it arrives.
func (s usageStore) each(ctx context.Context, scan func(*sql.Rows) error, query string, args ...any) error {
	return eachRow(ctx, s.db, scan, query, args...)
}

func (s usageStore) exec(ctx context.Context, query string, args ...any) error {
	_, err := s.db.Statement.ConnPool.ExecContext(ctx, query, args...)
	return translate(err)
}

func mustOwner(a account.ID) uuid.UUID {
	if a.IsZero() {
		panic("postgres: query without an account")
	}
	return a.UUID()
}

const totalColumns = `meter, period_start, quantity, events, reserved, billed, coalesce(billed_events, 0), version`

func scanTotal(rows *sql.Rows, t *metering.Total) error {
	var billed sql.Null[money.Decimal]
	if err := rows.Scan(&t.Meter, &t.Period, &t.Quantity, &t.Events, &t.Reserved, &billed, &t.BilledEvents, &t.Version); err != nil {
		return err
	}
	t.Period = t.Period.UTC()
	if billed.Valid {
		t.Billed = &billed.V
	}
	return nil
}

func (s usageStore) Totals(ctx context.Context, a account.ID, start time.Time, series bool) (totals []metering.Total, err error) {
	defer errs.Wrap(&err, "usage totals of %s", a)
	err = s.each(ctx, func(rows *sql.Rows) error {
		var t metering.Total
		err := scanTotal(rows, &t)
		totals = append(totals, t)
		return err
	}, `SELECT `+totalColumns+` FROM usage_totals WHERE account_id = $1 AND period_start = $2 ORDER BY meter`, mustOwner(a), start)
	if err != nil || !series {
		return totals, err
	}
	byMeter := make(map[string]*metering.Total, len(totals))
	for i := range totals {
		byMeter[totals[i].Meter] = &totals[i]
	}
	err = s.each(ctx, func(rows *sql.Rows) error {
		var meter string
		var st metering.SeriesTotal
		var key uuid.UUID
		var dims []byte
		if err := rows.Scan(&meter, &key, &st.Quantity, &st.Events, &st.Billed, &st.BilledEvents, &dims); err != nil {
			return err
		}
		st.Other = key == metering.OtherSeries
		if len(dims) > 0 {
			if err := json.Unmarshal(dims, &st.Dimensions); err != nil {
				return err
			}
		}
		if t := byMeter[meter]; t != nil {
			t.Series = append(t.Series, st)
		}
		return nil
	}, `
SELECT s.meter, s.series, s.quantity, s.events, s.billed, s.billed_events, d.dimensions
FROM usage_series_totals s
LEFT JOIN usage_series d ON d.account_id = s.account_id AND d.meter = s.meter AND d.series = s.series
WHERE s.account_id = $1 AND s.period_start = $2 AND (s.events > 0 OR s.billed_events > 0)
ORDER BY s.meter, s.series`, mustOwner(a), start)
	for i := range totals {
		if t := &totals[i]; len(t.Series) == 0 {
			whole := metering.SeriesTotal{Quantity: t.Quantity, Events: t.Events, BilledEvents: t.BilledEvents}
			if t.Billed != nil {
				whole.Billed = *t.Billed
			}
			t.Series = []metering.SeriesTotal{whole}
		}
	}
	return totals, err
}

func (s usageStore) LatePeriods(ctx context.Context, a account.ID, before time.Time) (starts []time.Time, err error) {
	defer errs.Wrap(&err, "late usage of %s", a)
	err = s.each(ctx, func(rows *sql.Rows) error {
		var t time.Time
		err := rows.Scan(&t)
		starts = append(starts, t.UTC())
		return err
	}, `
SELECT DISTINCT t.period_start FROM usage_totals t
JOIN invoices i ON i.account_id = t.account_id AND i.period_start = t.period_start AND i.kind = 'cycle' AND i.status <> 'draft'
WHERE t.account_id = $1 AND t.period_start < $2
  AND (t.quantity <> coalesce(t.billed, 0)
    -- What comes late comes within 35 days. Beyond that only a correction can have changed a series and not the total, and one that
    -- was made long before the period that bills it has been billed.
    OR (i.period_end > $2::timestamptz - interval '100 days' OR EXISTS (
      SELECT FROM usage_corrections c WHERE c.account_id = $1 AND c.meter = t.meter AND c.period_start = t.period_start
        AND c.at > $2::timestamptz - interval '100 days'))
    AND EXISTS (
      SELECT FROM usage_series_totals s WHERE s.account_id = $1 AND s.meter = t.meter AND s.period_start = t.period_start
        AND s.quantity <> s.billed))
ORDER BY t.period_start`, mustOwner(a), before)
	return starts, err
}

func (s usageStore) MarkBilled(ctx context.Context, a account.ID, start time.Time, billed []metering.Billed) (err error) {
	defer errs.Wrap(&err, "mark usage of %s billed", a)
	if len(billed) == 0 {
		return nil
	}
	meters, quantities, events := make([]string, len(billed)), make([]string, len(billed)), make([]int64, len(billed))
	for i, b := range billed {
		meters[i], quantities[i], events[i] = b.Meter, b.Quantity.String(), b.Events
	}
	if err := s.exec(ctx, `
UPDATE usage_series_totals SET billed = quantity, billed_events = events
WHERE account_id = $1 AND period_start = $2 AND meter = ANY($3::text[])`, mustOwner(a), start, meters); err != nil {
		return err
	}
	return s.exec(ctx, `
UPDATE usage_totals t SET billed = u.quantity::numeric, billed_events = u.events
FROM unnest($3::text[], $4::text[], $5::bigint[]) AS u (meter, quantity, events)
WHERE t.account_id = $1 AND t.period_start = $2 AND t.meter = u.meter`, mustOwner(a), start, meters, quantities, events)
}

func (s usageStore) Digest(ctx context.Context, a account.ID, meter string, b period.Bounds, by time.Time) (d metering.Digest, err error) {
	defer errs.Wrap(&err, "digest of %s %s", a, meter)
	h := sha256.New()
	var key uuid.UUID
	err = s.each(ctx, func(rows *sql.Rows) error {
		var at time.Time
		if err := rows.Scan(&key, &at); err != nil {
			return err
		}
		if d.Events++; d.Events == 1 {
			d.First = at.UTC()
		}
		d.Last = at.UTC()
		h.Write(key[:])
		return nil
	}, `
SELECT key, occurred_at FROM usage_events
WHERE account_id = $1 AND meter = $2 AND occurred_at >= $3 AND occurred_at < $4
  AND ($5::timestamptz IS NULL OR received_at <= $5)
ORDER BY occurred_at, key`, mustOwner(a), meter, b.Start, b.End, timeOrNil(by))
	if err != nil {
		return d, err
	}
	err = s.each(ctx, func(rows *sql.Rows) error {
		d.Corrections++
		err := rows.Scan(&key)
		h.Write(key[:])
		return err
	}, `
SELECT c.id FROM usage_corrections c
WHERE c.account_id = $1 AND c.meter = $2 AND c.period_start = $3 AND ($4::timestamptz IS NULL OR c.at <= $4)
ORDER BY c.id`, mustOwner(a), meter, b.Start, timeOrNil(by))
	d.Hash = [32]byte(h.Sum(nil))
	return d, err
}

// effective is what each stored event counts: its quantity as rounded by its meter and changed by its
// latest correction. It needs a WHERE that binds e.account_id.
const effective = `
SELECT e.meter, e.series, e.key, e.source, e.event_id, e.quantity, e.value, e.occurred_at, e.period_start,
       e.dimensions, e.received_at, coalesce(c.quantity_after, e.counted, e.quantity) AS counts,
       coalesce(c.kind = 'void', false) AS void
FROM usage_events e
LEFT JOIN LATERAL (
  SELECT c.kind, c.quantity_after FROM usage_corrections c
  WHERE c.account_id = e.account_id AND c.key = e.key
  ORDER BY c.sequence DESC LIMIT 1) c ON true
WHERE e.account_id = $1`

func (s usageStore) Whole(ctx context.Context, a account.ID, meters []string, b period.Bounds) (_ period.Bounds, err error) {
	defer errs.Wrap(&err, "quarters of an hour of %s that are kept", a)
	for _, end := range []*time.Time{&b.Start, &b.End} {
		quarter := end.Truncate(metering.BucketWidth)
		if quarter.Equal(*end) {
			continue
		}
		next, gone := quarter.Add(metering.BucketWidth), false
		err := s.each(ctx, func(rows *sql.Rows) error { return rows.Scan(&gone) }, `
SELECT coalesce(sum(b.events), 0) > (SELECT count(*) FROM (`+effective+`
  AND e.meter = ANY ($4) AND e.occurred_at >= $2 AND e.occurred_at < $3) x WHERE NOT x.void)
FROM usage_buckets b WHERE b.account_id = $1 AND b.meter = ANY ($4) AND b.bucket = $2`, mustOwner(a), quarter, next, meters)
		switch {
		case err != nil:
			return b, err
		case gone && end == &b.Start:
			b.Start = quarter
		case gone:
			b.End = next
		}
	}
	return b, nil
}

// wholeBuckets returns from when to when whole buckets lie within a range: from its end on, if both ends lie in one.
func wholeBuckets(b period.Bounds) (first, last time.Time) {
	first, last = b.Start.Truncate(metering.BucketWidth), b.End.Truncate(metering.BucketWidth)
	if first.Before(b.Start) {
		first = first.Add(metering.BucketWidth)
	}
	if last.Before(first) {
		return b.End, b.End
	}
	return first, last
}

func (s usageStore) Slices(ctx context.Context, a account.ID, q metering.Query, unique []string) (slices []metering.Slice, err error) {
	defer errs.Wrap(&err, "usage of %s", a)
	// Whole buckets come from the roll-up, the ends from the events themselves.
	first, last := wholeBuckets(q.Bounds)
	steps := q.Steps
	if steps == nil {
		steps = []time.Time{}
	}
	const groups = `CASE WHEN $4 = '' THEN '' WHEN p.series = 'ffffffff-ffff-ffff-ffff-ffffffffffff' THEN 'other'
     ELSE coalesce(d.dimensions ->> $4, '') END`
	const step = `CASE WHEN cardinality($5::timestamptz[]) = 0 THEN 0 ELSE greatest(width_bucket(p.at, $5::timestamptz[]) - 1, 0) END`
	const series = `LEFT JOIN usage_series d ON $4 <> '' AND d.account_id = $1 AND d.meter = p.meter AND d.series = p.series`
	at := map[string]int{}
	err = s.each(ctx, func(rows *sql.Rows) error {
		var sl metering.Slice
		if err := rows.Scan(&sl.Meter, &sl.Group, &sl.Step, &sl.Events, &sl.Sum, &sl.Max, &sl.Last); err != nil {
			return err
		}
		at[fmt.Sprint(sl.Meter, "\x00", sl.Group, "\x00", sl.Step)] = len(slices)
		slices = append(slices, sl)
		return nil
	}, `
WITH ends AS (`+effective+`
  AND e.meter = ANY ($8) AND ((e.occurred_at >= $2 AND e.occurred_at < $6) OR (e.occurred_at >= $7 AND e.occurred_at < $3))
), parts AS (
  SELECT meter, bucket AS at, series, quantity, events, last_at, last_key FROM usage_buckets
  WHERE account_id = $1 AND meter = ANY ($8) AND bucket >= $6 AND bucket < $7 AND events > 0
  UNION ALL
  SELECT meter, occurred_at, series, counts, 1, occurred_at, key FROM ends WHERE NOT void
)
SELECT p.meter, `+groups+` AS g, `+step+` AS s, sum(p.events)::bigint, sum(p.quantity), max(p.quantity),
       coalesce((array_agg(p.quantity ORDER BY p.last_at DESC, p.last_key DESC) FILTER (WHERE p.last_at IS NOT NULL))[1], 0)
FROM parts p `+series+`
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3`, mustOwner(a), q.Start, q.End, q.GroupBy, steps, first, last, q.Meters)
	if err != nil || len(unique) == 0 {
		return slices, err
	}
	return slices, s.each(ctx, func(rows *sql.Rows) error {
		var sl metering.Slice
		if err := rows.Scan(&sl.Meter, &sl.Group, &sl.Step, &sl.Unique); err != nil {
			return err
		}
		if i, ok := at[fmt.Sprint(sl.Meter, "\x00", sl.Group, "\x00", sl.Step)]; ok {
			slices[i].Unique = sl.Unique
		}
		return nil
	}, `
WITH p AS (SELECT x.*, x.occurred_at AS at FROM (`+effective+`
  AND e.meter = ANY ($6) AND e.occurred_at >= $2 AND e.occurred_at < $3) x WHERE NOT x.void)
SELECT p.meter, `+groups+` AS g, `+step+` AS s, count(DISTINCT p.value) FROM p `+series+` GROUP BY 1, 2, 3`,
		mustOwner(a), q.Start, q.End, q.GroupBy, steps, unique)
}
