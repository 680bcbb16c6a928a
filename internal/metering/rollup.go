package metering

import (
	"bytes"
	"cmp"
	"slices"
	"sync"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/pkg/money"
)

// rollUp adds the accepted events up, once for each roll-up that they touch. Rows come out in the
// order of their keys, which is the order in which they are locked.
func (v *verdict) rollUp() {
	if len(v.judged) == 0 {
		return
	}
	adders := adderSets.Get().(*[3]adder) //nolint:forcetypeassert // nothing else is put there
	totals, series, buckets := &adders[0], &adders[1], &adders[2]
	for _, it := range v.judged {
		period := it.period.UnixMicro()
		totals.add(it, period, NoSeries, 0)
		if len(it.meter.Dimensions) > 0 { // otherwise the one series is the total
			series.add(it, period, it.series, 1)
		}
		buckets.add(it, it.event.OccurredAt.Truncate(BucketWidth).UnixMicro(), it.series, 2)
	}
	v.writes.Totals, v.writes.Series, v.writes.Buckets = totals.rows(), series.rows(), buckets.rows()
	for i := range v.writes.Totals.Add {
		r := &v.writes.Totals.Add[i]
		r.Max = v.known.Admissions[r.Account].MaxQuantity(r.Meter)
	}
	if len(buckets.sums) <= maxKeptSums {
		for i := range adders {
			adders[i].clear()
		}
		adderSets.Put(adders)
	}
}

// adderSets are kept from one flush to the next: most flushes have few events, for which an adder costs more to
// make than to use.
var adderSets = sync.Pool{New: func() any { return &[3]adder{newAdder(), newAdder(), newAdder()} }}

const maxKeptSums = 128

type rollupKey struct {
	account account.ID
	code    string // of the meter
	at      int64
	series  Series
}

// adder adds events up by roll-up. Events of one batch mostly go where the one before went.
type adder struct {
	sums []rollupSum
	at   map[rollupKey]int // in sums
	last int               // in sums: where the event before went
}

type rollupSum struct {
	rollupKey
	meter    *Meter
	quantity money.Decimal
	events   int64
	lastAt   int64
	lastID   uuid.UUID
}

func newAdder() adder { return adder{at: map[rollupKey]int{}} }

func (a *adder) clear() {
	clear(a.sums) // which hold on to texts
	clear(a.at)
	a.sums = a.sums[:0]
	a.last = 0
}

func (a *adder) add(it *item, at int64, series Series, scope int) {
	key := rollupKey{it.event.Account, it.meter.Code, at, series}
	if len(a.sums) == 0 || a.sums[a.last].rollupKey != key {
		n, ok := a.at[key]
		if !ok {
			n = len(a.sums)
			a.sums = append(a.sums, rollupSum{rollupKey: key, meter: it.meter})
			a.at[key] = n
		}
		a.last = n
	}
	sum := &a.sums[a.last]
	sum.events++
	t := it.event.OccurredAt.UnixMicro()
	switch it.meter.Aggregation {
	case Max:
		c := it.counted.Cmp(sum.quantity)
		if sum.events == 1 || c > 0 || (c == 0 && later(t, it.key, sum.lastAt, sum.lastID)) {
			sum.quantity, sum.lastAt, sum.lastID = it.counted, t, it.key
		}
	case Last:
		if sum.events == 1 || later(t, it.key, sum.lastAt, sum.lastID) {
			sum.quantity, sum.lastAt, sum.lastID = it.counted, t, it.key
		}
	case Unique:
		if it.first[scope] {
			sum.quantity = sum.quantity.Add(one)
		}
	default:
		sum.quantity = sum.quantity.Add(it.counted)
	}
}

// later orders events by time, then by identity.
func later(t int64, key uuid.UUID, than int64, thanKey uuid.UUID) bool {
	return t > than || (t == than && bytes.Compare(key[:], thanKey[:]) > 0)
}

func (a *adder) rows() (out Rollups) {
	slices.SortFunc(a.sums, func(x, y rollupSum) int {
		xa, ya := x.account.UUID(), y.account.UUID()
		return cmp.Or(bytes.Compare(xa[:], ya[:]), cmp.Compare(x.code, y.code), cmp.Compare(x.at, y.at),
			bytes.Compare(x.series[:], y.series[:]))
	})
	for i := range a.sums {
		s := &a.sums[i]
		r := Rollup{Account: s.account, Meter: s.code, At: s.at, Series: s.series, Quantity: s.quantity, Events: s.events}
		switch s.meter.Aggregation {
		case Max:
			r.LastAt, r.LastKey = s.lastAt, s.lastID
			out.Max = append(out.Max, r)
		case Last:
			r.LastAt, r.LastKey = s.lastAt, s.lastID
			out.Last = append(out.Last, r)
		default:
			if out.Add == nil {
				out.Add = make([]Rollup, 0, len(a.sums)-i)
			}
			out.Add = append(out.Add, r)
		}
	}
	return out
}

// seriesCache remembers series that are known to be counted in a period. A series that counts once
// counts until the period is over, so the memory is never wrong; it is bounded by being emptied.
type seriesCache struct {
	mu  sync.Mutex
	set map[SeriesKey]struct{}
}

const seriesCacheSize = 20_000

func (c *seriesCache) has(k SeriesKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.set[k]
	return ok
}

func (c *seriesCache) add(keys []SeriesKey) {
	if len(keys) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.set == nil || len(c.set)+len(keys) > seriesCacheSize {
		c.set = make(map[SeriesKey]struct{}, len(keys))
	}
	for _, k := range keys {
		c.set[k] = struct{}{}
	}
}
