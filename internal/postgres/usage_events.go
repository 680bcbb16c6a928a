package postgres

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/period"
)

const recordColumns = `x.key, x.source, x.event_id, x.meter, x.quantity, coalesce(x.value, ''), x.occurred_at, x.dimensions,
  x.received_at, x.counts, x.period_start, x.void`

func scanRecord(rows *sql.Rows, r *metering.Record) (err error) {
	var key uuid.UUID // orders the rows; the record does not carry it
	var dims sql.RawBytes
	err = rows.Scan(&key, &r.Source, &r.ID, &r.Meter, &r.Quantity, &r.Value, &r.OccurredAt, &dims, &r.ReceivedAt, &r.Counted,
		&r.Period, &r.Voided)
	if err != nil {
		return err
	}
	r.OccurredAt, r.ReceivedAt, r.Period = r.OccurredAt.UTC(), r.ReceivedAt.UTC(), r.Period.UTC()
	r.Dimensions, err = dimensionsOf(string(dims))
	return err
}

// selection is a WHERE in the making, after the condition on the account.
type selection struct {
	where strings.Builder
	args  []any
}

// and adds a condition that ends with a value.
func (q *selection) and(condition string, v any) {
	q.args = append(q.args, v)
	q.where.WriteString(" AND " + condition + q.last())
}

// last is the placeholder of the value that was added last.
func (q *selection) last() string { return "$" + itoa(len(q.args)) }

func (q *selection) between(column string, b period.Bounds) {
	if !b.Start.IsZero() {
		q.and(column+" >= ", b.Start)
	}
	if !b.End.IsZero() {
		q.and(column+" < ", b.End)
	}
}

// selectEvents is the WHERE of a filter, after effective's own.
func selectEvents(a account.ID, f metering.Filter) *selection {
	q := &selection{args: []any{mustOwner(a)}}
	if f.ID != "" {
		q.and("e.key = ", metering.KeyOf(f.SourceOrDefault(), f.ID))
		// The permanent key knows the time, and with it the one index of the events.
		q.where.WriteString(" AND e.occurred_at = (SELECT k.occurred_at FROM usage_event_keys k WHERE k.account_id = $1 AND k.key = " + q.last() + ")")
	} else if f.Source != "" {
		q.and("e.source = ", f.Source)
	}
	q.between("e.occurred_at", f.Bounds)
	if f.Meter != "" {
		q.and("e.meter = ", f.Meter)
	}
	return q
}

func (s usageStore) Events(ctx context.Context, a account.ID, f metering.Filter, r page.Request) (_ page.Page[metering.Record], err error) {
	defer errs.Wrap(&err, "usage events of %s", a)
	q := selectEvents(a, f)
	if at, key, ok := eventPosition(r.After); ok {
		q.args = append(q.args, at)
		q.and("(e.occurred_at, e.key) > ("+q.last()+", ", key)
		q.where.WriteString(")")
	}
	var records []metering.Record
	err = s.each(ctx, func(rows *sql.Rows) error {
		rec := metering.Record{Event: metering.Event{Account: a}}
		err := scanRecord(rows, &rec)
		records = append(records, rec)
		return err
	}, `SELECT `+recordColumns+` FROM (`+effective+q.where.String()+`
ORDER BY e.occurred_at, e.key LIMIT `+itoa(r.Limit+1)+`) x ORDER BY x.occurred_at, x.key`, q.args...)
	return page.Cut(records, r.Limit, func(rec metering.Record) string {
		return strconv.FormatInt(rec.OccurredAt.UnixMicro(), 36) + "." + rec.Key().String()
	}), err
}

func eventPosition(s string) (at time.Time, key uuid.UUID, ok bool) {
	micros, text, ok := strings.Cut(s, ".")
	if !ok {
		return at, key, false
	}
	n, err := strconv.ParseInt(micros, 36, 64)
	if err != nil {
		return at, key, false
	}
	key, err = uuid.Parse(text)
	return time.UnixMicro(n).UTC(), key, err == nil
}

func (s usageStore) Export(ctx context.Context, a account.ID, f metering.Filter, each func(*metering.Record) error) (err error) {
	defer errs.Wrap(&err, "export usage of %s", a)
	q := selectEvents(a, f)
	var rec metering.Record
	return s.each(ctx, func(rows *sql.Rows) error {
		rec = metering.Record{Event: metering.Event{Account: a}}
		if err := scanRecord(rows, &rec); err != nil {
			return err
		}
		return each(&rec)
	}, `SELECT `+recordColumns+` FROM (`+effective+q.where.String()+` ORDER BY e.occurred_at, e.key) x`, q.args...)
}

// lateAfter is how long after the end of its hour an event may come without being called late.
const lateAfter = time.Hour

func (s usageStore) Hours(ctx context.Context, a account.ID, meter, source string, b period.Bounds) (hours []metering.Hour, err error) {
	defer errs.Wrap(&err, "hours of %s", a)
	at := map[int64]int{}
	hour := func(start time.Time) *metering.Hour {
		i, ok := at[start.Unix()]
		if !ok {
			i = len(hours)
			at[start.Unix()] = i
			hours = append(hours, metering.Hour{Start: start.UTC(), Hash: sha256.Sum256(nil)})
		}
		return &hours[i]
	}
	h := sha256.New()
	var current *metering.Hour
	closeHour := func() {
		if current != nil {
			current.Hash = [32]byte(h.Sum(nil))
		}
		h.Reset()
	}
	// Hours are those of UTC. The ids come sorted within the hour, so the hash needs no memory.
	err = s.each(ctx, func(rows *sql.Rows) error {
		var e metering.Record
		var start time.Time
		if err := rows.Scan(&start, &e.ID, &e.Counted, &e.Voided, &e.ReceivedAt); err != nil {
			return err
		}
		if current == nil || !current.Start.Equal(start) {
			closeHour()
			current = hour(start)
		}
		if e.Voided {
			current.Voided++
			return nil
		}
		current.Events++
		current.Quantity = current.Quantity.Add(e.Counted)
		if e.ReceivedAt.After(start.Add(time.Hour + lateAfter)) {
			current.Late++
		}
		h.Write([]byte(e.ID + "\n"))
		return nil
	}, `SELECT date_trunc('hour', x.occurred_at, 'UTC') AS hour, x.event_id, x.counts, x.void, x.received_at
FROM (`+effective+` AND e.meter = $2 AND ($3 = '' OR e.source = $3) AND e.occurred_at >= $4 AND e.occurred_at < $5) x
ORDER BY hour, x.event_id COLLATE "C"`, mustOwner(a), meter, source, b.Start, b.End)
	closeHour()
	if err != nil {
		return nil, err
	}
	// each reads hours and a number of each.
	each := func(keep func(h *metering.Hour, n int64), query string, args ...any) error {
		return s.each(ctx, func(rows *sql.Rows) error {
			var start time.Time
			var n int64
			err := rows.Scan(&start, &n)
			keep(hour(start), n)
			return err
		}, query, args...)
	}
	// Nothing comes long before it happens, but by an account's own clock: what came before the hours is not looked at. What
	// was refused may have been stored since at another time, or of another meter.
	err = each(func(h *metering.Hour, n int64) { h.Rejected = n }, `
SELECT r.hour, count(*) FROM (
  SELECT DISTINCT date_trunc('hour', r.occurred_at, 'UTC') AS hour, r.source, r.event_id FROM usage_rejects r
  WHERE r.account_id = $1 AND r.meter = $2 AND ($3 = '' OR r.source = $3) AND r.occurred_at >= $4 AND r.occurred_at < $5
    AND r.received_at >= (SELECT CASE WHEN clock_at IS NULL THEN $4 - interval '1 hour' ELSE '-infinity' END FROM accounts WHERE id = $1)
) r
WHERE (SELECT k.key FROM usage_event_keys k WHERE k.account_id = $1 AND k.key = `+keyOf("r.source", "r.event_id")+`) IS NULL
GROUP BY 1 ORDER BY 1`, mustOwner(a), meter, source, b.Start, b.End)
	if err != nil {
		return nil, err
	}
	// The roll-up knows how many there were, whatever has become of the events. It knows no sources.
	err = each(func(h *metering.Hour, n int64) { h.Dropped = n }, `
WITH kept AS (
  SELECT date_trunc('hour', x.occurred_at, 'UTC') AS hour, count(*) AS n
  FROM (`+effective+` AND e.meter = $2 AND e.occurred_at >= $3 AND e.occurred_at < $4) x WHERE NOT x.void GROUP BY 1
), counted AS (
  SELECT date_trunc('hour', bucket, 'UTC') AS hour, sum(events)::bigint AS n FROM usage_buckets
  WHERE account_id = $1 AND meter = $2 AND bucket >= $3 AND bucket < $4 GROUP BY 1
)
SELECT hour, c.n - coalesce(k.n, 0) FROM counted c LEFT JOIN kept k USING (hour) WHERE c.n > coalesce(k.n, 0) ORDER BY hour`,
		mustOwner(a), meter, b.Start, b.End)
	return hours, err
}

// keyOf is metering.KeyOf in SQL: of texts with no more than 255 bytes, whose length is two bytes from 128 on.
func keyOf(source, id string) string {
	part := func(column string) string {
		n := `octet_length(` + column + `)`
		return `set_byte(CASE WHEN ` + n + ` < 128 THEN '\x00' ELSE '\x0001' END::bytea, 0, ` + n + `) || convert_to(` + column + `, 'UTF8')`
	}
	return `encode(substring(sha256(` + part(source) + ` || ` + part(id) + `) FOR 16), 'hex')::uuid`
}

func (s usageStore) Fates(ctx context.Context, a account.ID, source string, ids []string) (_ map[string]metering.Fate, err error) {
	defer errs.Wrap(&err, "fates of events of %s", a)
	fates := map[string]metering.Fate{}
	if len(ids) == 0 {
		return fates, nil
	}
	byKey := make(map[uuid.UUID]string, len(ids))
	keys := make([]string, 0, len(ids))
	for _, id := range ids {
		k := metering.KeyOf(source, id)
		byKey[k] = id
		keys = append(keys, k.String())
	}
	err = s.each(ctx, func(rows *sql.Rows) error {
		var key uuid.UUID
		var f metering.Fate
		err := rows.Scan(&key, &f.Meter, &f.Late, &f.Voided)
		f.Stored = true
		fates[byKey[key]] = f
		return err
	}, `
SELECT k.key, coalesce(e.meter, ''), coalesce(e.received_at > date_trunc('hour', e.occurred_at, 'UTC') + interval '2 hours', false),
  coalesce((SELECT c.kind = 'void' FROM usage_corrections c WHERE c.account_id = k.account_id AND c.key = k.key
            ORDER BY c.sequence DESC LIMIT 1), false)
FROM usage_event_keys k
LEFT JOIN usage_events e ON e.account_id = k.account_id AND e.occurred_at = k.occurred_at AND e.key = k.key
WHERE k.account_id = $1 AND k.key = ANY ($2::uuid[])`, mustOwner(a), keys)
	if err != nil {
		return nil, err
	}
	return fates, s.each(ctx, func(rows *sql.Rows) error {
		var id, reason string
		err := rows.Scan(&id, &reason)
		if _, stored := fates[id]; !stored {
			fates[id] = metering.Fate{Rejected: reason}
		}
		return err
	}, `
SELECT DISTINCT ON (r.event_id) r.event_id, r.reason FROM usage_rejects r
WHERE r.account_id = $1 AND r.source = $2 AND r.event_id = ANY ($3)
ORDER BY r.event_id, r.received_at DESC`, mustOwner(a), source, ids)
}

func (s usageStore) Refused(ctx context.Context, a account.ID, reason string, periodStart, t time.Time) (found bool, err error) {
	defer errs.Wrap(&err, "refused usage of %s", a)
	err = s.db.Statement.ConnPool.QueryRowContext(ctx, `
SELECT EXISTS (SELECT FROM usage_rejects r WHERE r.account_id = $1 AND r.received_at >= $2 AND r.occurred_at >= $3 AND r.reason = $4)`,
		mustOwner(a), t, periodStart, reason).Scan(&found)
	return found, translate(err)
}
