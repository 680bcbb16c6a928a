package postgres

import (
	"context"
	"fmt"

	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/pkg/money"
)

// The three ways in which a roll-up merges with what is stored.
const (
	mergeAdd = `quantity = t.quantity + excluded.quantity, events = t.events + excluded.events`
	// mergeValue keeps one event's value; %[1]s says when the new one replaces the stored.
	mergeValue = `events = t.events + excluded.events,
  quantity = CASE WHEN %[1]s THEN excluded.quantity ELSE t.quantity END,
  last_at  = CASE WHEN %[1]s THEN excluded.last_at  ELSE t.last_at  END,
  last_key = CASE WHEN %[1]s THEN excluded.last_key ELSE t.last_key END`
	maxWins  = `t.last_at IS NULL OR (excluded.quantity, excluded.last_at, excluded.last_key) > (t.quantity, t.last_at, t.last_key)`
	lastWins = `t.last_at IS NULL OR (excluded.last_at, excluded.last_key) > (t.last_at, t.last_key)`
)

// rollupTable writes the upserts of one roll-up table. A total has no series.
type rollupTable struct {
	name   string
	at     string
	series bool
}

var rollupTables = [3]rollupTable{
	{"usage_totals", "period_start", false},
	{"usage_series_totals", "period_start", true},
	{"usage_buckets", "bucket", true},
}

func (r rollupTable) upsert(merge string) string {
	key := "account_id, meter, " + r.at
	if r.series {
		key += ", series"
	}
	columns, params := key+", quantity, events", "$1::uuid[], $2::text[], $3::timestamptz[]"
	n := 4
	next := func(kind string) {
		params += ", $" + itoa(n) + "::" + kind + "[]"
		n++
	}
	if r.series {
		next("uuid")
	}
	next("numeric")
	next("bigint")
	set := mergeAdd
	if merge != mergeAdd {
		columns += ", last_at, last_key"
		next("timestamptz")
		next("uuid")
		set = fmt.Sprintf(mergeValue, merge)
	}
	if !r.series {
		set += ", version = t.version + 1"
	}
	return "INSERT INTO " + r.name + " AS t (" + columns + ")\nSELECT * FROM unnest(" + params + ")\nON CONFLICT (" + key + ") DO UPDATE SET " + set
}

// rollupStatements holds the statements by table and by merge.
var rollupStatements = func() (s [3][3]statement) {
	for i, t := range rollupTables {
		s[i] = [3]statement{named(t.upsert(mergeAdd)), named(t.upsert(maxWins)), named(t.upsert(lastWins))}
	}
	return s
}()

// queueRollups adds what a flush counts to one roll-up table, but for what adds to totals.
func (f *flush) queueRollups(ctx context.Context, table int, r metering.Rollups) error {
	for merge, rows := range [3][]metering.Rollup{r.Add, r.Max, r.Last} {
		n := len(rows)
		if n == 0 || (table == 0 && merge == 0) {
			continue
		}
		accounts, meters, ats, series := newUUIDs(n), newTexts(n), newTimes(n), newUUIDs(n)
		quantities, events, lasts, lastKeys := newNumerics(n), newInt8s(n), newTimes(n), newUUIDs(n)
		for i := range rows {
			r := &rows[i]
			accounts.uuid(r.Account.UUID())
			meters.text(r.Meter)
			ats.micros(r.At)
			series.uuid(r.Series)
			quantities.numeric(r.Quantity.String())
			events.int8(r.Events)
			lasts.micros(r.LastAt)
			lastKeys.uuid(r.LastKey)
		}
		params := [][]byte{accounts.b, meters.b, ats.b}
		if rollupTables[table].series {
			params = append(params, series.b)
		}
		params = append(params, quantities.b, events.b)
		if merge == 0 {
			f.join(rollupStatements[table][merge], params...)
			continue
		}
		// By itself: the same row may be one that a reservation holds on.
		if err := f.queue(ctx, rollupStatements[table][merge], nil, append(params, lasts.b, lastKeys.b)...); err != nil {
			return err
		}
	}
	return nil
}

// What adds to a total is what events count and what reservations hold. A row that lets something go is there
// already; as a row to be inserted it would be refused, before the one that is there is looked for.
var (
	sqlAddTotals = named(`
INSERT INTO usage_totals AS t (account_id, meter, period_start, quantity, events, reserved, max_quantity)
SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::numeric[], $5::bigint[], $6::numeric[], $7::numeric[])
ON CONFLICT (account_id, meter, period_start) DO UPDATE SET ` + mergeAdd + `, reserved = t.reserved + excluded.reserved,
  max_quantity = excluded.max_quantity, version = t.version + 1`)

	sqlLetGo = named(`
UPDATE usage_totals t SET quantity = t.quantity + u.q, events = t.events + u.e, reserved = t.reserved + u.r, version = t.version + 1
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::numeric[], $5::bigint[], $6::numeric[]) AS u (a, m, p, q, e, r)
WHERE t.account_id = u.a AND t.meter = u.m AND t.period_start = u.p`)
)

// joinTotals adds to totals what events count and what reservations hold, each row once.
func (f *flush) joinTotals(added []metering.Rollup, holds []metering.Hold) {
	type total struct {
		metering.TotalKey
		quantity, reserved, most money.Decimal
		events                   int64
	}
	var grown, shrunk []total
	held := make(map[metering.TotalKey]money.Decimal, len(holds))
	for _, h := range holds {
		held[h.TotalKey] = h.Delta
	}
	put := func(t total) {
		if t.reserved.Sign() < 0 {
			shrunk = append(shrunk, t)
		} else {
			grown = append(grown, t)
		}
	}
	for i := range added {
		r := &added[i]
		key := metering.TotalKey{Account: r.Account, Meter: r.Meter, Period: r.At}
		put(total{key, r.Quantity, held[key], r.Max, r.Events})
		delete(held, key)
	}
	for _, h := range holds {
		if _, ok := held[h.TotalKey]; ok {
			put(total{TotalKey: h.TotalKey, reserved: h.Delta, most: h.Max})
		}
	}
	for _, w := range []struct {
		statement
		grows bool
		rows  []total
	}{{sqlAddTotals, true, grown}, {sqlLetGo, false, shrunk}} {
		n := len(w.rows)
		if n == 0 {
			continue
		}
		a, m, p := totalArrays(n, func(i int) metering.TotalKey { return w.rows[i].TotalKey })
		quantities, events, reserved, most := newNumerics(n), newInt8s(n), newNumerics(n), newNumerics(n)
		for i := range w.rows {
			quantities.numeric(w.rows[i].quantity.String())
			events.int8(w.rows[i].events)
			reserved.numeric(w.rows[i].reserved.String())
			most.numeric(w.rows[i].most.String())
		}
		params := [][]byte{a.b, m.b, p.b, quantities.b, events.b, reserved.b}
		if w.grows {
			params = append(params, most.b)
		}
		f.join(w.statement, params...)
	}
}
