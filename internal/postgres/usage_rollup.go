package postgres

import (
	"context"
	"fmt"

	"github.com/accrue-billing/accrue/internal/metering"
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

// queueRollups adds what a flush counts to one roll-up table.
func (f *flush) queueRollups(ctx context.Context, table int, r metering.Rollups) error {
	for merge, rows := range [3][]metering.Rollup{r.Add, r.Max, r.Last} {
		n := len(rows)
		if n == 0 {
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
		if merge > 0 {
			params = append(params, lasts.b, lastKeys.b)
		}
		if err := f.queue(ctx, rollupStatements[table][merge], nil, params...); err != nil {
			return err
		}
	}
	return nil
}
