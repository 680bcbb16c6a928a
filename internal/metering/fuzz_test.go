package metering

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/pkg/money"
)

// FuzzIdentity holds identities apart: two events are one only where source and id are the same, and say the same only where
// everything else is.
func FuzzIdentity(f *testing.F) {
	f.Add("media", "call-1", "medi", "acall-1", "project", "a", int64(0), int64(1))
	f.Add("", "\x01a", "\x01", "a", "", "\x00", int64(-1), int64(-1))
	f.Fuzz(func(t *testing.T, source, eventID, otherSource, otherID, name, value string, at, otherAt int64) {
		if same := source == otherSource && eventID == otherID; same != (KeyOf(source, eventID) == KeyOf(otherSource, otherID)) {
			t.Errorf("%q %q and %q %q: the same is %t", source, eventID, otherSource, otherID, same)
		}
		e := Event{Meter: source, Value: eventID, OccurredAt: time.UnixMicro(at), Dimensions: Dimensions{{name, value}}}
		o := Event{Meter: otherSource, Value: otherID, OccurredAt: time.UnixMicro(otherAt), Dimensions: Dimensions{{name, value}}}
		if same := source == otherSource && eventID == otherID && at == otherAt; same != (e.Content() == o.Content()) {
			t.Errorf("%+v and %+v: the same is %t", e, o, same)
		}
		a, b := DimensionsOf(map[string]string{source: value, otherSource: name}), DimensionsOf(map[string]string{otherSource: name, source: value})
		if source != otherSource && a.Series() != b.Series() {
			t.Errorf("%v and %v are two series", a, b)
		}
		e.validate(&Meter{Code: source, Aggregation: Unique, Dimensions: []string{name}}) // and does not panic
	})
}

// FuzzCounted rounds quantities: never down, never by a step or more, and never less for more.
func FuzzCounted(f *testing.F) {
	f.Add(uint64(61_000_000_000), uint64(1), uint32(60), uint32(6))
	f.Add(uint64(0), uint64(1), uint32(60), uint32(0))
	f.Add(uint64(999_999_999_999_999_999), uint64(1), uint32(0), uint32(7))
	f.Fuzz(func(t *testing.T, nano, more uint64, first, step uint32) {
		decimal := func(n uint64) money.Decimal {
			return money.MustDecimal(fmt.Sprintf("%d.%09d", n/1_000_000_000, n%1_000_000_000))
		}
		m := &Meter{First: money.DecimalFromInt(int64(first)), Step: money.DecimalFromInt(int64(step))}
		q := decimal(nano % 1_000_000_000_000_000_000)
		got := m.Counted(q)
		switch {
		case got.Cmp(q) < 0, q.IsZero() != got.IsZero():
			t.Errorf("%s counts %s", q, got)
		case step > 0 && got.Cmp(m.First) > 0 && got.Sub(q).Cmp(m.Step) >= 0:
			t.Errorf("%s counts %s, by steps of %d", q, got, step)
		case step > 0 && got.Sign() > 0 && !m.Counted(got).Sub(got).IsZero():
			t.Errorf("%s counts %s, and that %s", q, got, m.Counted(got))
		}
		if larger := q.Add(decimal(more % 1_000_000_000_000)); m.Counted(larger).Cmp(got) < 0 {
			t.Errorf("%s counts %s, and %s %s", q, got, larger, m.Counted(larger))
		}
	})
}

// book is what a journal holds of one account, in memory.
type book struct {
	admission    Admission
	events       map[Ref]Stored
	totals       map[TotalKey]Held
	uses         map[SeriesKey]entitlement.Use
	unique       map[UniqueKey]bool
	reservations map[ReservationRef]entitlement.Reservation
}

var _ Lookup = (*book)(nil)

func (b *book) Series(_ context.Context, keys []SeriesKey) (map[SeriesKey]bool, map[TotalKey]int, error) {
	known, counts := map[SeriesKey]bool{}, map[TotalKey]int{}
	for k := range b.uses {
		known[k] = true
		if k.Series != NoSeries && k.Series != OtherSeries {
			counts[k.TotalKey]++
		}
	}
	maps.DeleteFunc(known, func(k SeriesKey, _ bool) bool { return !slices.Contains(keys, k) })
	return known, counts, nil
}

func (b *book) Unique(context.Context, []UniqueKey) (map[UniqueKey]bool, error) {
	return maps.Clone(b.unique), nil
}

func (b *book) Raw(context.Context, map[Ref]Stored) (map[Ref]*Record, error) {
	return map[Ref]*Record{}, nil
}

func (b *book) Uses(_ context.Context, a account.ID, period time.Time) (uses []entitlement.Use, err error) {
	for k, u := range b.uses {
		if k.Period == period.UnixMicro() {
			uses = append(uses, u)
		}
	}
	for k, h := range b.totals {
		if k.Period == period.UnixMicro() && !h.Reserved.IsZero() {
			uses = append(uses, entitlement.Use{Meter: k.Meter, Reserved: h.Reserved})
		}
	}
	return uses, nil
}

// Accrued prices use by the unit, and use with a dimension ten times as dear.
func (b *book) Accrued(_ context.Context, e entitlement.Entitlement, _ time.Time, uses []entitlement.Use) (money.Amount, error) {
	var sum money.Decimal
	for _, u := range uses {
		sum = sum.Add(u.Used).Add(u.Reserved)
		if len(u.Dimensions) > 0 {
			sum = sum.Add(u.Used.Mul(money.DecimalFromInt(9)))
		}
	}
	return money.Round(sum, 1, 100, e.Currency)
}

// flush decides about items and keeps what comes of it.
func (b *book) flush(t *testing.T, now time.Time, meters Meters, items []item) {
	t.Helper()
	known := Known{
		Now: now, Admissions: map[account.ID]*Admission{b.admission.Account: &b.admission}, Events: b.events, Totals: maps.Clone(b.totals), Reservations: b.reservations,
	}
	v := &verdict{now: now, items: items, known: known, lookup: b, pricer: b, catalogue: meters, cache: new(seriesCache)}
	w, err := v.decide(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range w.Events {
		b.events[Ref{r.Event.Account, r.Key}] = Stored{Content: r.Content, OccurredAt: r.Event.OccurredAt}
		key := SeriesKey{TotalKey{r.Event.Account, r.Event.Meter, r.Period.UnixMicro()}, r.Series}
		u := b.uses[key]
		u.Meter = r.Event.Meter
		if r.Series != OtherSeries {
			u.Dimensions = r.Event.Dimensions.Map()
		}
		b.uses[key] = u
	}
	for _, r := range slices.Concat(w.Series.Add, w.Series.Max) {
		key := SeriesKey{TotalKey{r.Account, r.Meter, r.At}, r.Series}
		u := b.uses[key]
		u.Used = combine(meters.Meter(r.Meter), u.Used, r.Quantity)
		b.uses[key] = u
	}
	for _, r := range slices.Concat(w.Totals.Add, w.Totals.Max) {
		key := TotalKey{r.Account, r.Meter, r.At}
		h := b.totals[key]
		h.Used = combine(meters.Meter(r.Meter), h.Used, r.Quantity)
		b.totals[key] = h
		if key := (SeriesKey{key, NoSeries}); len(meters.Meter(r.Meter).Dimensions) == 0 { // its one series is the total
			b.uses[key] = entitlement.Use{Meter: r.Meter, Used: h.Used}
		}
	}
	for _, h := range w.Holds {
		held := b.totals[h.TotalKey]
		held.Reserved = held.Reserved.Add(h.Delta)
		b.totals[h.TotalKey] = held
	}
	for _, k := range w.Unique {
		b.unique[k] = true
	}
	for _, r := range w.Reservations {
		b.reservations[ReservationRef{r.Account, r.ID}] = r
	}
}

// state is all that the book says of what is used and held.
func (b *book) state() string {
	used, held := map[string]string{}, map[string]string{}
	for k, u := range b.uses {
		used[fmt.Sprint(k.Meter, k.Period, k.Series)] = u.Used.String()
	}
	for k, h := range b.totals {
		if !h.Used.IsZero() || !h.Reserved.IsZero() {
			held[fmt.Sprint(k.Meter, k.Period)] = h.Used.String() + "+" + h.Reserved.String()
		}
	}
	return fmt.Sprint(used, held, len(b.events), len(b.unique))
}

// FuzzFlushes does the same events and actions on reservations one by one and in flushes of some: each is told the same, as much is
// used and held in the end, and no limit is passed.
func FuzzFlushes(f *testing.F) {
	f.Add([]byte{0, 5, 1, 0, 0, 5, 1, 0, 4, 3, 2, 1, 5, 0, 3, 0, 1, 9, 1, 1, 8, 4, 9, 0}, uint8(20), uint8(60))
	f.Add([]byte{4, 15, 0, 1, 5, 15, 0, 1, 0, 15, 9, 1, 2, 3, 9, 7, 3, 3, 8, 7}, uint8(0), uint8(20))
	now := time.Date(2026, 3, 10, 12, 0, 0, 0, time.UTC)
	owner, reserved := id.New[account.Account](), make([]entitlement.ReservationID, 64)
	for i := range reserved {
		reserved[i] = id.New[entitlement.Reservation]()
	}
	meters := Meters{
		{Code: "voice", Aggregation: Sum, Dimensions: []string{"project"}},
		{Code: "calls", Aggregation: Count},
		{Code: "callers", Aggregation: Unique, Dimensions: []string{"project"}},
		{Code: "peak", Aggregation: Max, Dimensions: []string{"project"}},
		{Code: "minutes", Aggregation: Sum, Dimensions: []string{"project"}, First: money.DecimalFromInt(6), Step: money.DecimalFromInt(4)},
	}
	f.Fuzz(func(t *testing.T, script []byte, limit, spend uint8) {
		open := func() *book {
			e := entitlement.Entitlement{
				Account: owner, Currency: money.USD, SpendMode: entitlement.Hard, Limits: map[string]entitlement.Limit{},
				PeriodStarts: []time.Time{now.AddDate(0, 0, -20), now.AddDate(0, 0, -5)}, PeriodEnd: now.AddDate(0, 0, 20),
			}
			if spend > 0 {
				most := int64(spend)
				e.SpendLimit = &most
			}
			if limit > 0 {
				e.Limits["voice"] = entitlement.Limit{Quantity: money.DecimalFromInt(int64(limit)), Mode: entitlement.Hard}
				e.Limits["callers"] = entitlement.Limit{Quantity: money.DecimalFromInt(int64(limit%4) + 1), Mode: entitlement.Hard}
			}
			return &book{
				Admission{Entitlement: e}, map[Ref]Stored{}, map[TotalKey]Held{}, map[SeriesKey]entitlement.Use{}, map[UniqueKey]bool{}, map[ReservationRef]entitlement.Reservation{},
			}
		}
		items := func() (out []item) {
			made := 0
			for c := range slices.Chunk(script[:min(len(script), 256)], 4) {
				if len(c) < 4 {
					break
				}
				m, quantity := meters[int(c[0]>>3)%len(meters)], money.DecimalFromInt(int64(c[1]%16))
				dims := DimensionsOf(map[string]string{"project": string('a' + rune(c[2]%4))})
				if c[2]%4 == 0 || len(m.Dimensions) == 0 {
					dims = nil
				}
				e := &Event{Account: owner, Source: "s", ID: fmt.Sprint(c[3] % 32), Meter: m.Code, Quantity: quantity, OccurredAt: now.AddDate(0, 0, -int(c[2]>>2)%20), Dimensions: dims}
				if m.Aggregation == Unique {
					e.Value = fmt.Sprint(c[1] % 4)
				}
				it := item{event: e, meter: m, key: e.Key(), content: e.Content(), result: new(Result)}
				if kind := c[0] % 8; kind >= 4 {
					r := Reserving{Account: owner, Quantity: quantity, TTL: time.Minute, Dimensions: dims}
					r.Action, r.Meter, r.ID = Reserve, m.Code, reserved[made]
					if kind > 4 && made > 0 {
						r.Action, r.ID = []Action{Extend, Commit, Release}[kind-5], reserved[int(c[3])%made]
					} else {
						made++
					}
					it = item{op: &operation{Reserving: r}, event: &Event{Account: owner}, result: new(Result)}
					switch r.Action {
					case Reserve:
						it.meter = m
					case Commit:
						*it.event = Event{Account: owner, Source: ReservationSource, ID: r.ID.String(), Quantity: quantity, Dimensions: dims}
						it.key = it.event.Key()
					}
				}
				out = append(out, it)
			}
			return out
		}
		single, crowd := open(), open()
		ones, many := items(), items()
		for i := range ones {
			before := single.spent(t)
			single.flush(t, now, meters, ones[i:i+1])
			single.wantWithin(t, before, ones[i])
		}
		for from := 0; from < len(many); {
			n := 1
			here := map[entitlement.ReservationID]bool{}
			for ; from+n-1 < len(many); n++ {
				o := many[from+n-1].op
				if n > 1 && (script[(from+n)%len(script)]%5 == 0 || o != nil && o.Action != Reserve && here[o.ID]) { // its id is known when it is committed
					break
				}
				if o != nil && o.Action == Reserve {
					here[o.ID] = true
				}
			}
			n--
			crowd.flush(t, now, meters, many[from:from+max(n, 1)])
			from += max(n, 1)
		}
		for i := range ones {
			if one, other := told(ones[i]), told(many[i]); one != other {
				t.Fatalf("%d %+v: by itself %s, among others %s", i, ones[i].event, one, other)
			}
		}
		if single.state() != crowd.state() {
			t.Fatalf("one by one\n%s\ntogether\n%s", single.state(), crowd.state())
		}
	})
}

func told(it item) string {
	if it.op != nil {
		return fmt.Sprint(it.op.err, it.op.out.Reservation.Status, it.op.out.Reservation.Quantity, it.op.out.Reservation.Used)
	}
	code := ""
	if it.result.Problem != nil {
		code = it.result.Problem.Code
	}
	return fmt.Sprint(it.result.Status, code)
}

// spent is what the use of each period costs.
func (b *book) spent(t *testing.T) map[time.Time]int64 {
	t.Helper()
	out := map[time.Time]int64{}
	for _, p := range b.admission.PeriodStarts {
		uses, _ := b.Uses(t.Context(), b.admission.Account, p)
		cost, err := b.Accrued(t.Context(), b.admission.Entitlement, p, uses)
		if err != nil {
			t.Fatal(err)
		}
		out[p] = cost.Minor
	}
	return out
}

// wantWithin fails where what is used and held passes a limit, but for the dimensions of what was committed.
func (b *book) wantWithin(t *testing.T, before map[time.Time]int64, last item) {
	t.Helper()
	for k, h := range b.totals {
		if most, ok := b.admission.HardLimit(k.Meter, time.UnixMicro(k.Period).UTC()); ok && h.Used.Add(h.Reserved).Cmp(most) > 0 {
			t.Fatalf("%s: %s used and %s held of %s, after %+v", k.Meter, h.Used, h.Reserved, most, last.event)
		}
		if h.Reserved.Sign() < 0 {
			t.Fatalf("%s: %s held", k.Meter, h.Reserved)
		}
	}
	for p, cost := range b.spent(t) {
		if b.admission.HasHardSpendLimit() && cost > *b.admission.SpendLimit && cost > before[p] && (last.op == nil || last.op.Action != Commit) {
			t.Fatalf("%d spent of %d, after %+v", cost, *b.admission.SpendLimit, last.event)
		}
	}
}
