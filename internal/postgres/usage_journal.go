package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/pkg/money"
)

// usageJournal is the write side of metering. It goes without GORM: a flush is two round trips, each
// a pipeline of prepared statements with arrays for parameters, on one connection of the shared pool.
type usageJournal struct {
	pool       *pgxpool.Pool
	limited    limitedAccounts
	quantities quantityMaps
}

var _ metering.Journal = (*usageJournal)(nil)

// Journal returns the store of the usage ingester.
func Journal(pool *pgxpool.Pool) metering.Journal { return &usageJournal{pool: pool} }

// The statements of a flush. All arrays of one statement have the same length. Rows come sorted by
// key wherever rows are locked.
var (
	sqlBegin  = named("BEGIN")
	sqlCommit = named("COMMIT")

	sqlEntitled = named(`SELECT e.account_id FROM entitlements e WHERE e.account_id = ANY ($1::uuid[])`)

	sqlKnownEvents = named(`
SELECT u.i, k.content, k.occurred_at
FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS u (account_id, key, i)
JOIN usage_event_keys k ON k.account_id = u.account_id AND k.key = u.key`)

	sqlHeldTotals = named(`
SELECT t.account_id, t.meter, t.period_start, t.quantity::text, t.reserved::text
FROM entitlements e
JOIN usage_totals t ON t.account_id = e.account_id AND (t.period_start >= e.period_starts[1] OR t.period_start = 'epoch')
WHERE e.account_id = ANY ($1::uuid[]) AND t.meter = ANY ($2::text[])`)

	sqlKnownSeries = named(`
SELECT u.i
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::uuid[]) WITH ORDINALITY AS u (account_id, meter, period_start, series, i)
JOIN usage_series_totals s ON s.account_id = u.account_id AND s.meter = u.meter
 AND s.period_start = u.period_start AND s.series = u.series`)

	sqlCountSeries = named(`
SELECT u.i, (SELECT count(*) FROM usage_series_totals s
             WHERE s.account_id = u.account_id AND s.meter = u.meter AND s.period_start = u.period_start)
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) WITH ORDINALITY AS u (account_id, meter, period_start, i)`)

	sqlKnownValues = named(`
SELECT u.i
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::uuid[]) WITH ORDINALITY AS u (account_id, meter, period_start, value, i)
JOIN usage_unique_values v ON v.account_id = u.account_id AND v.meter = u.meter
 AND v.period_start = u.period_start AND v.value = u.value`)

	sqlRawEvents = named(`
SELECT u.i, e.source, e.event_id, e.meter, e.quantity::text, coalesce(e.value, ''), e.occurred_at, e.dimensions::text,
       e.received_at, coalesce(c.quantity_after, e.counted, e.quantity)::text, e.period_start, coalesce(c.kind = 'void', false)
FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[]) WITH ORDINALITY AS u (account_id, occurred_at, key, i)
JOIN usage_events e ON e.account_id = u.account_id AND e.occurred_at = u.occurred_at AND e.key = u.key
LEFT JOIN LATERAL (
  SELECT c.kind, c.quantity_after FROM usage_corrections c
  WHERE c.account_id = e.account_id AND c.key = e.key
  ORDER BY c.sequence DESC LIMIT 1) c ON true`)

	sqlUses = named(`
SELECT t.meter, t.quantity::text, t.reserved::text, t.events,
       s.series, s.quantity::text, s.events, d.dimensions::text
FROM usage_totals t
LEFT JOIN usage_series_totals s ON s.account_id = t.account_id AND s.meter = t.meter AND s.period_start = t.period_start
LEFT JOIN usage_series d ON d.account_id = s.account_id AND d.meter = s.meter AND d.series = s.series
WHERE t.account_id = $1 AND t.period_start = $2
ORDER BY t.meter, s.series`)

	sqlInsertKeys = named(`
INSERT INTO usage_event_keys (account_id, key, content, occurred_at)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::timestamptz[])`)

	sqlInsertEvents = named(`
INSERT INTO usage_events (account_id, key, source, event_id, meter, quantity, counted, value, occurred_at,
                          period_start, series, dimensions, received_at)
SELECT u.a, u.k, u.s, u.e, u.m, u.q, u.c, u.v, u.o, u.p, u.r, u.d::jsonb, $13::timestamptz
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::numeric[], $7::numeric[], $8::text[],
            $9::timestamptz[], $10::timestamptz[], $11::uuid[], $12::text[]) AS u (a, k, s, e, m, q, c, v, o, p, r, d)`)

	sqlInsertSeries = named(`
INSERT INTO usage_series (account_id, meter, series, dimensions)
SELECT u.a, u.m, u.s, u.d::jsonb
FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[]) AS u (a, m, s, d)
ON CONFLICT DO NOTHING`)

	sqlInsertValues = named(`
INSERT INTO usage_unique_values (account_id, meter, period_start, value)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::uuid[])`)

	sqlInsertRejects = named(`
INSERT INTO usage_rejects (account_id, id, source, event_id, meter, quantity, occurred_at, reason, received_at)
SELECT u.*, $9::timestamptz
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::numeric[], $7::timestamptz[], $8::text[]) AS u`)
)

// Append implements metering.Journal.
func (j *usageJournal) Append(ctx context.Context, ask metering.Ask, decide func(context.Context, metering.Known, metering.Lookup) (metering.Writes, error)) (err error) {
	pooled, err := j.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("append usage: %w", err)
	}
	defer pooled.Release()
	f := &flush{pipeline{conn: pooled.Conn()}}
	defer func() { //nolint:contextcheck // the caller's context may be what failed
		if err != nil {
			f.rollback()
			err = fmt.Errorf("append usage: %w", err)
		}
	}()
	known, err := f.read(ctx, ask, j)
	if err != nil {
		return err
	}
	writes, err := decide(ctx, known, f)
	if err != nil {
		return err
	}
	return f.write(ctx, writes)
}

// flush is one ingest transaction on one connection.
type flush struct{ pipeline }

// rollback ends what is left of the transaction. A connection on which even that fails is closed, so
// that the pool does not hand it on.
func (f *flush) rollback() {
	if f.conn.IsClosed() || f.conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := f.conn.PgConn().Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
		_ = f.conn.Close(ctx)
	}
}

func (f *flush) read(ctx context.Context, ask metering.Ask, j *usageJournal) (known metering.Known, err error) {
	known = metering.Known{
		Admissions: make(map[account.ID]*metering.Admission, len(ask.Accounts)),
		Events:     map[metering.Ref]metering.Stored{},
		Totals:     make(map[metering.TotalKey]metering.Held, len(ask.Reservations)),
	}
	owners, keys := newUUIDs(len(ask.Events)), newUUIDs(len(ask.Events))
	for i := range ask.Events {
		owners.uuid(ask.Events[i].Account.UUID())
		keys.uuid(ask.Events[i].Key)
	}
	expected := j.limited.of(ask.Accounts)
	if ask.Exact {
		expected = ask.Accounts
	}
	lock := sqlLockAdmissions
	if ask.PassOver {
		lock = sqlLockFree
	}
	err = errors.Join(
		f.queue(ctx, sqlBegin, nil),
		// Everything behind the lock sees what the holder before committed: each statement has its own
		// snapshot.
		f.queue(ctx, lock, func(v *value) error {
			ad, err := j.quantities.admission(v)
			known.Admissions[ad.Account] = ad
			return err
		}, accountArray(ask.Accounts)),
		f.queueHeld(ctx, ask, &known),
		f.queueHeldTotals(ctx, expected, ask.Meters, known.Totals),
		f.queueReservationReads(ctx, ask, &known),
	)
	if len(ask.Events) > 0 {
		err = errors.Join(err, f.queue(ctx, sqlKnownEvents, func(v *value) error {
			known.Events[ask.Events[v.int8(0)-1]] = metering.Stored{Content: v.uuid(1), OccurredAt: v.time(2)}
			return nil
		}, owners.b, keys.b))
	}
	if err != nil {
		return known, err
	}
	if err := f.send(ctx); err != nil {
		if sqlState(err) == lockNotAvailable { // see lockPatience
			err = errors.Join(metering.ErrHeld, err)
		}
		return known, err
	}
	missed := j.limited.learn(known.Admissions, expected)
	return known, errors.Join(f.queueHeldTotals(ctx, missed, ask.Meters, known.Totals), f.send(ctx))
}

// queueHeld finds the accounts that were passed over.
func (f *flush) queueHeld(ctx context.Context, ask metering.Ask, known *metering.Known) error {
	if !ask.PassOver {
		return nil
	}
	known.Held = map[account.ID]bool{}
	return f.queue(ctx, sqlEntitled, func(v *value) error {
		if a := id.FromUUID[account.Account](v.uuid(0)); known.Admissions[a] == nil {
			known.Held[a] = true
		}
		return nil
	}, accountArray(ask.Accounts))
}

func accountArray(accounts []account.ID) []byte {
	out := newUUIDs(len(accounts))
	for _, a := range accounts {
		out.uuid(a.UUID())
	}
	return out.b
}

// queueHeldTotals reads what counts against the accounts' limits.
func (f *flush) queueHeldTotals(ctx context.Context, accounts []account.ID, meters []string, totals map[metering.TotalKey]metering.Held) error {
	if len(accounts) == 0 {
		return nil
	}
	codes := newTexts(len(meters))
	for _, m := range meters {
		codes.text(m)
	}
	return f.queue(ctx, sqlHeldTotals, func(v *value) error {
		key, held, err := heldTotal(v)
		totals[key] = held
		return err
	}, accountArray(accounts), codes.b)
}

// stored reads a numeric of the database's own. Its zeros behind the point are no part of the number.
func stored(s string) (d money.Decimal, err error) { return d, d.Scan(s) }

// totalArrays returns the columns of total keys.
func totalArrays(n int, at func(int) metering.TotalKey) (accounts, meters, periods *array) {
	accounts, meters, periods = newUUIDs(n), newTexts(n), newTimes(n)
	for i := range n {
		k := at(i)
		accounts.uuid(k.Account.UUID())
		meters.text(k.Meter)
		periods.micros(k.Period)
	}
	return accounts, meters, periods
}

// Series implements metering.Lookup.
func (f *flush) Series(ctx context.Context, keys []metering.SeriesKey) (map[metering.SeriesKey]bool, map[metering.TotalKey]int, error) {
	known, counts := map[metering.SeriesKey]bool{}, map[metering.TotalKey]int{}
	var totals []metering.TotalKey
	series := newUUIDs(len(keys))
	for _, k := range keys {
		if _, ok := counts[k.TotalKey]; !ok {
			counts[k.TotalKey] = 0
			totals = append(totals, k.TotalKey)
		}
		series.uuid(k.Series)
	}
	a, m, p := totalArrays(len(keys), func(i int) metering.TotalKey { return keys[i].TotalKey })
	ta, tm, tp := totalArrays(len(totals), func(i int) metering.TotalKey { return totals[i] })
	err := errors.Join(
		f.queue(ctx, sqlKnownSeries, func(v *value) error { known[keys[v.int8(0)-1]] = true; return nil }, a.b, m.b, p.b, series.b),
		f.queue(ctx, sqlCountSeries, func(v *value) error { counts[totals[v.int8(0)-1]] = int(v.int8(1)); return nil }, ta.b, tm.b, tp.b),
	)
	if err != nil {
		return nil, nil, err
	}
	return known, counts, f.send(ctx)
}

// Unique implements metering.Lookup.
func (f *flush) Unique(ctx context.Context, keys []metering.UniqueKey) (map[metering.UniqueKey]bool, error) {
	known := map[metering.UniqueKey]bool{}
	values := newUUIDs(len(keys))
	for _, k := range keys {
		values.uuid(k.Value)
	}
	a, m, p := totalArrays(len(keys), func(i int) metering.TotalKey { return keys[i].TotalKey })
	if err := f.queue(ctx, sqlKnownValues, func(v *value) error { known[keys[v.int8(0)-1]] = true; return nil }, a.b, m.b, p.b, values.b); err != nil {
		return nil, err
	}
	return known, f.send(ctx)
}

// Raw implements metering.Lookup.
func (f *flush) Raw(ctx context.Context, refs map[metering.Ref]metering.Stored) (map[metering.Ref]*metering.Record, error) {
	found := make(map[metering.Ref]*metering.Record, len(refs))
	order := make([]metering.Ref, 0, len(refs))
	a, o, k := newUUIDs(len(refs)), newTimes(len(refs)), newUUIDs(len(refs))
	for ref, s := range refs {
		order = append(order, ref)
		a.uuid(ref.Account.UUID())
		o.micros(s.OccurredAt.UnixMicro())
		k.uuid(ref.Key)
	}
	err := f.queue(ctx, sqlRawEvents, func(v *value) error {
		ref := order[v.int8(0)-1]
		q, err1 := stored(v.text(4))
		dims, err2 := dimensionsOf(v.text(7))
		counted, err3 := stored(v.text(9))
		found[ref] = &metering.Record{
			Event: metering.Event{
				Account: ref.Account, Source: v.text(1), ID: v.text(2), Meter: v.text(3), Quantity: q, Value: v.text(5),
				OccurredAt: v.time(6), Dimensions: dims,
			},
			ReceivedAt: v.time(8), Counted: counted, Period: v.time(10), Voided: v.row[11][0] == 1,
		}
		return errors.Join(err1, err2, err3)
	}, a.b, o.b, k.b)
	if err != nil {
		return nil, err
	}
	return found, f.send(ctx)
}

// Uses implements metering.Lookup.
func (p *pipeline) Uses(ctx context.Context, a account.ID, period time.Time) (uses []entitlement.Use, err error) {
	owner, at := newUUIDs(1), newTimes(1)
	owner.uuid(a.UUID())
	at.micros(period.UnixMicro())
	// One value is an array's element without the header and the length.
	err = p.queue(ctx, sqlUses, func(v *value) error {
		reserved, err := stored(v.text(2))
		if err != nil {
			return err
		}
		if reserved.Sign() > 0 && (len(uses) == 0 || uses[len(uses)-1].Meter != v.text(0)) {
			uses = append(uses, entitlement.Use{Meter: v.text(0), Reserved: reserved})
		}
		u := entitlement.Use{Meter: v.text(0)}
		quantity := v.text(1)
		if v.isNull(4) { // the meter has no dimensions: its total is its one series
			u.Events = v.int8(3)
		} else {
			quantity, u.Events = v.text(5), v.int8(6)
			dims, err := dimensionsOf(v.text(7))
			if err != nil {
				return err
			}
			u.Dimensions = dims.Map()
		}
		u.Used, err = stored(quantity)
		uses = append(uses, u)
		return err
	}, owner.b[arrayHeader+4:], at.b[arrayHeader+4:])
	if err != nil {
		return nil, err
	}
	return uses, p.send(ctx)
}

// dimensionsOf reads a JSON object of strings; nothing is no dimensions.
func dimensionsOf(s string) (metering.Dimensions, error) {
	if s == "" {
		return nil, nil
	}
	var m map[string]string
	if err := json.Unmarshal([]byte(s), &m); err != nil {
		return nil, fmt.Errorf("dimensions: %w", err)
	}
	return metering.DimensionsOf(m), nil
}

// appendDimensions writes dimensions as a JSON object.
func appendDimensions(a *array, d metering.Dimensions) (err error) {
	if len(d) == 0 {
		a.null()
		return nil
	}
	begin := len(a.b)
	a.b = appendSize(a.more(), 0)
	next := byte('{')
	for i := range d {
		name, err1 := jsontext.AppendQuote(append(a.b, next), d[i].Name)
		value, err2 := jsontext.AppendQuote(append(name, ':'), d[i].Value)
		a.b, next, err = value, ',', errors.Join(err, err1, err2)
	}
	a.b = append(a.b, '}')
	a.setSize(begin)
	return err
}

// write sends everything that is to be stored, and the commit, as one pipeline.
func (f *flush) write(ctx context.Context, w metering.Writes) error {
	at := newTimes(1)
	at.micros(w.At.UnixMicro())
	now := at.b[arrayHeader+4:]
	f.joinUnique(w.Unique)
	f.joinRejects(w.Rejects, now)
	f.joinReservations(w.Reservations)
	f.joinAnswers(w)
	err := errors.Join(
		f.joinEvents(w.Events, now),
		f.joinSeries(w.Known),
		f.queueRollups(ctx, 2, w.Buckets),
		f.queueRollups(ctx, 1, w.Series),
		f.queueRollups(ctx, 0, w.Totals),
	)
	f.joinTotals(w.Totals.Add, w.Holds)
	err = errors.Join(err, f.queueJoined(ctx), f.queue(ctx, sqlCommit, nil))
	if err != nil {
		return err
	}
	err = f.send(ctx)
	if err == nil {
		return nil
	}
	switch state := sqlState(err); {
	case state == "":
		return errors.Join(metering.ErrOutcomeUnknown, err) // the commit may have arrived
	case strings.HasPrefix(state, "22"), strings.HasPrefix(state, "23"):
		return errors.Join(metering.ErrRefused, err)
	default:
		return err
	}
}

func (f *flush) joinEvents(rows []metering.Row, now []byte) error {
	n := len(rows)
	if n == 0 {
		return nil
	}
	accounts, keys, contents := newUUIDs(n), newUUIDs(n), newUUIDs(n)
	sources, ids, meters, values := newTexts(n), newTexts(n), newTexts(n), newTexts(n)
	quantities, counted := newNumerics(n), newNumerics(n)
	occurred, periods := newTimes(n), newTimes(n)
	series, dimensions := newUUIDs(n), newTexts(n)
	for i := range rows {
		r := &rows[i]
		e := r.Event
		accounts.uuid(e.Account.UUID())
		keys.uuid(r.Key)
		contents.uuid(r.Content)
		sources.text(e.Source)
		ids.text(e.ID)
		meters.text(e.Meter)
		quantities.numeric(e.Quantity.String())
		if r.Counted == e.Quantity {
			counted.null()
		} else {
			counted.numeric(r.Counted.String())
		}
		if e.Value == "" {
			values.null()
		} else {
			values.text(e.Value)
		}
		occurred.micros(e.OccurredAt.UnixMicro())
		periods.micros(r.Period.UnixMicro())
		series.uuid(r.Series)
		if err := appendDimensions(dimensions, e.Dimensions); err != nil {
			return err
		}
	}
	f.join(sqlInsertKeys, accounts.b, keys.b, contents.b, occurred.b)
	f.join(sqlInsertEvents, accounts.b, keys.b, sources.b, ids.b, meters.b, quantities.b, counted.b,
		values.b, occurred.b, periods.b, series.b, dimensions.b, now)
	return nil
}

func (f *flush) joinSeries(rows []metering.SeriesRow) error {
	n := len(rows)
	if n == 0 {
		return nil
	}
	accounts, meters, series, dimensions := newUUIDs(n), newTexts(n), newUUIDs(n), newTexts(n)
	for i := range rows {
		accounts.uuid(rows[i].Account.UUID())
		meters.text(rows[i].Meter)
		series.uuid(rows[i].Series)
		if err := appendDimensions(dimensions, rows[i].Dimensions); err != nil {
			return err
		}
	}
	f.join(sqlInsertSeries, accounts.b, meters.b, series.b, dimensions.b)
	return nil
}

func (f *flush) joinUnique(keys []metering.UniqueKey) {
	if len(keys) == 0 {
		return
	}
	values := newUUIDs(len(keys))
	for i := range keys {
		values.uuid(keys[i].Value)
	}
	a, m, p := totalArrays(len(keys), func(i int) metering.TotalKey { return keys[i].TotalKey })
	f.join(sqlInsertValues, a.b, m.b, p.b, values.b)
}

func (f *flush) joinRejects(rejects []metering.Reject, now []byte) {
	n := len(rejects)
	if n == 0 {
		return
	}
	accounts, ids := newUUIDs(n), newUUIDs(n)
	sources, events, meters, reasons := newTexts(n), newTexts(n), newTexts(n), newTexts(n)
	quantities, occurred := newNumerics(n), newTimes(n)
	for i := range rejects {
		e := rejects[i].Event
		accounts.uuid(e.Account.UUID())
		ids.uuid(uuid.Must(uuid.NewV7()))
		sources.text(e.Source)
		events.text(e.ID)
		meters.text(e.Meter)
		quantities.numeric(e.Quantity.String())
		occurred.micros(e.OccurredAt.UnixMicro())
		reasons.text(rejects[i].Reason)
	}
	f.join(sqlInsertRejects, accounts.b, ids.b, sources.b, events.b, meters.b, quantities.b, occurred.b, reasons.b, now)
}
