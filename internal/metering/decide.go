package metering

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Bounds on an event's time, by the account's clock. They are inclusive.
const (
	MaxAge    = 35 * 24 * time.Hour
	MaxFuture = 5 * time.Minute
)

// BucketWidth is the width of the roll-ups that charts and ranges are read from. Every time zone's
// offset is a multiple of it.
const BucketWidth = 15 * time.Minute

// item is one event, or one operation on a reservation, on its way through a flush.
type item struct {
	op      *operation // nil: an event
	event   *Event     // of an operation: its account, and what a commit counts
	meter   *Meter
	key     uuid.UUID
	content uuid.UUID
	result  *Result

	// Set by sort, for events that are new to us:
	fresh   bool
	period  time.Time
	total   TotalKey
	counted money.Decimal
	series  Series
	first   [3]bool // a distinct value that the total, the series or the bucket has not seen
}

// verdict decides the events of one flush, in the order in which they came. It is pure but for its
// lookups, so that a transaction may be tried again.
type verdict struct {
	now       time.Time // real time
	items     []item
	known     Known
	lookup    Lookup
	pricer    entitlement.Pricer
	catalogue Catalogue
	cache     *seriesCache
	exact     bool // the totals of all accounts are known

	writes   Writes
	accepted map[Ref]*item
	judged   []*item // the accepted ones, as in writes.Events
	seen     map[UniqueKey]bool
	counted  []SeriesKey                                 // those of counting that count once this transaction is committed
	holds    map[TotalKey]money.Decimal                  // what operations changed
	settled  map[ReservationRef]*entitlement.Reservation // as operations left them
	answered map[AnswerRef]*StoredAnswer
	counting map[SeriesKey]bool // series that the cache does not know yet; true: nor does the store
}

// contained decides, and returns a panic as an error: the transaction ends as with any other, and the process goes on.
func (v *verdict) contained(ctx context.Context) (w Writes, err error) {
	err = errs.Contain(func() error {
		w, err = v.decide(ctx)
		return err
	})
	return w, err
}

func (v *verdict) decide(ctx context.Context) (Writes, error) {
	v.writes = Writes{At: v.now, Events: make([]Row, 0, len(v.items))}
	v.accepted = make(map[Ref]*item, len(v.items))
	v.counting = map[SeriesKey]bool{}
	v.judged, v.counted = nil, nil
	v.openReservations()
	v.sort()
	if err := v.assignSeries(ctx); err != nil {
		return Writes{}, fmt.Errorf("assign series: %w", err)
	}
	if err := v.lookUpUnique(ctx); err != nil {
		return Writes{}, fmt.Errorf("look up distinct values: %w", err)
	}
	if err := v.admit(ctx); err != nil {
		return Writes{}, fmt.Errorf("admit: %w", err)
	}
	v.tellTaken()
	if err := v.showConflicts(ctx); err != nil {
		return Writes{}, fmt.Errorf("show conflicts: %w", err)
	}
	v.keepSeries()
	v.rollUp()
	v.keepReservations()
	return v.writes, nil
}

// sort answers repetitions and what the account's state or the event's time forbids, and finds the
// period of the rest.
func (v *verdict) sort() {
	for i := range v.items {
		it := &v.items[i]
		sent := it.result.sent // and not known here means that it was not stored
		it.fresh = false
		*it.result = Result{}
		if it.op != nil {
			v.prepare(it)
			continue
		}
		ref := Ref{it.event.Account, it.key}
		if stored, ok := v.known.Events[ref]; ok {
			switch {
			case stored.Content != it.content:
				it.result.Status = Conflict
			case sent:
				*it.result = Result{Status: Accepted, sent: true}
			default:
				it.result.Status = Duplicate
			}
			continue
		}
		ad := v.known.Admissions[it.event.Account]
		if ad == nil {
			it.result.Problem = problemUnknownAccount
			continue
		}
		if it.event.Source == ReservationSource { // a new one: what a commit counted is known, and may come back in an export
			it.result.Problem = problemSourceTaken
			continue
		}
		if it.result.Problem = v.timely(it, ad); it.result.Problem != nil {
			continue
		}
		it.result.Problem = it.place(ad)
	}
}

// place says where a new event counts, and how much; its period is known. It refuses a quantity that could not be billed.
func (it *item) place(ad *Admission) *Problem {
	it.total = TotalKey{it.event.Account, it.meter.Code, it.period.UnixMicro()}
	it.counted = it.meter.Counted(it.event.Quantity)
	if it.meter.Aggregation == Count {
		it.counted = one
	}
	if most := ad.MaxQuantity(it.meter.Code); it.counted.Cmp(most) > 0 {
		return problemQuantity(most)
	}
	it.fresh = true
	it.series = NoSeries
	if len(it.event.Dimensions) > 0 {
		it.series = it.event.Dimensions.Series()
	}
	return nil
}

var one = money.DecimalFromInt(1)

func (v *verdict) timely(it *item, ad *Admission) *Problem {
	if ad.Status == account.Closed {
		return problemClosed
	}
	now := ad.now(v.now)
	at := it.event.OccurredAt
	if at.Before(now.Add(-MaxAge)) {
		return problemTooOld
	}
	if at.After(now.Add(MaxFuture)) {
		return problemInFuture
	}
	var ok bool
	if it.period, ok = ad.PeriodOf(at); !ok {
		return problemPeriodNotOpen
	}
	return nil
}

// assignSeries sends what is beyond a meter's cap on series to OtherSeries.
func (v *verdict) assignSeries(ctx context.Context) error {
	var unknown []SeriesKey
	asked := map[SeriesKey]bool{}
	for i := range v.items {
		it := &v.items[i]
		if !it.fresh || it.series == NoSeries {
			continue
		}
		key := SeriesKey{it.total, it.series}
		if !asked[key] && !v.cache.has(key) {
			asked[key] = true
			unknown = append(unknown, key)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	known, counts, err := v.lookup.Series(ctx, unknown)
	if err != nil {
		return err
	}
	other := map[SeriesKey]bool{}
	for i := range v.items {
		it := &v.items[i]
		if !it.fresh || it.series == NoSeries {
			continue
		}
		key := SeriesKey{it.total, it.series}
		switch {
		case !asked[key]:
		case other[key]:
			it.series = OtherSeries
		case known[key]:
			v.counting[key] = false
			asked[key] = false
		case counts[it.total] >= it.meter.seriesCap():
			other[key] = true
			it.series = OtherSeries
		default:
			counts[it.total]++
			v.counting[key] = true
			asked[key] = false
		}
	}
	return nil
}

// keepSeries remembers the series of accepted events that were not known before.
func (v *verdict) keepSeries() {
	for _, it := range v.judged {
		key := SeriesKey{it.total, it.series}
		fresh, ok := v.counting[key]
		if !ok {
			continue
		}
		delete(v.counting, key)
		v.counted = append(v.counted, key)
		if fresh {
			v.writes.Known = append(v.writes.Known, SeriesRow{it.event.Account, it.meter.Code, it.series, it.event.Dimensions})
		}
	}
}

// UniqueDigests names a distinct value in each of the three roll-ups that count it: the period's
// total, the series in the period, and the bucket.
func UniqueDigests(value string, series Series, at time.Time) [3]uuid.UUID {
	scope := func(kind byte, at int64, s Series) uuid.UUID {
		d := newDigest()
		d.b = append(append(d.b, kind), s[:]...)
		d.int64(at)
		d.text(value)
		return d.sum()
	}
	return [3]uuid.UUID{scope('t', 0, NoSeries), scope('s', 0, series), scope('b', at.Truncate(BucketWidth).UnixMicro(), series)}
}

func uniqueKeys(it *item) (keys [3]UniqueKey) {
	for i, d := range UniqueDigests(it.event.Value, it.series, it.event.OccurredAt) {
		keys[i] = UniqueKey{it.total, d}
	}
	return keys
}

func (v *verdict) lookUpUnique(ctx context.Context) error {
	var keys []UniqueKey
	for i := range v.items {
		if it := &v.items[i]; it.fresh && it.meter.Aggregation == Unique {
			k := uniqueKeys(it)
			keys = append(keys, k[:]...)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	seen, err := v.lookup.Unique(ctx, keys)
	v.seen = seen
	return err
}

// admit accepts or refuses each fresh event by the account's limits, in order.
func (v *verdict) admit(ctx context.Context) error {
	capped := map[account.ID][]*item{}
	var order []account.ID
	for i := range v.items {
		it := &v.items[i]
		if !it.fresh && it.op == nil {
			continue
		}
		a := it.event.Account
		if ad := v.known.Admissions[a]; v.pricer != nil && ad != nil && ad.HasHardSpendLimit() {
			if capped[a] == nil {
				order = append(order, a)
			}
			capped[a] = append(capped[a], it)
			continue
		}
		if it.op != nil {
			v.operate(it)
		} else {
			v.judge(it)
		}
	}
	for _, a := range order {
		s := spending{verdict: v, admission: v.known.Admissions[a], prices: map[int64]int64{}}
		if err := s.admit(ctx, capped[a]); err != nil {
			return err
		}
	}
	return nil
}

// judge answers one fresh event by everything but the spend limit.
func (v *verdict) judge(it *item) {
	*it.result = Result{}
	ref := Ref{it.event.Account, it.key}
	if first := v.accepted[ref]; first != nil {
		v.repeats(it, first)
		return
	}
	ad := v.known.Admissions[it.event.Account]
	if ad.Status == account.Suspended {
		v.reject(it, problemSuspended)
		return
	}
	limit, limited := ad.HardLimit(it.meter.Code, it.period)
	if limited || v.exact {
		held := v.known.Totals[it.total]
		after := v.after(it, held.Used)
		grows, sum := after.Cmp(held.Used) > 0, after.Add(held.Reserved)
		if limited && grows && sum.Cmp(limit) > 0 {
			v.reject(it, &Problem{
				Code: string(entitlement.LimitReached), Kept: true, ResetsAt: ad.ResetsAt(it.period),
				Detail: "The event would pass the limit of " + limit.String() + " on this meter.",
			})
			return
		}
		if most := ad.MaxQuantity(it.meter.Code); grows && sum.Cmp(most) > 0 {
			v.reject(it, problemTotal(most))
			return
		}
		held.Used = after
		v.known.Totals[it.total] = held
	}
	v.accept(it, ref)
}

// repeats answers an event whose identity one before it in the flush has.
func (v *verdict) repeats(it, first *item) {
	if first.content == it.content {
		*it.result = Result{Status: Duplicate}
		return
	}
	*it.result = Result{
		Status: Conflict,
		Stored: &Record{Event: *first.event, ReceivedAt: v.now, Counted: first.counted, Period: first.period},
	}
}

// tellTaken answers events that sort has refused, for their time or what they hold, as the next flush would: first of all
// that their identity is taken, where it is so by one before them.
func (v *verdict) tellTaken() {
	for i := range v.items {
		it := &v.items[i]
		if it.op != nil || it.result.Problem == nil {
			continue
		}
		first := v.accepted[Ref{it.event.Account, it.key}]
		if first == nil {
			continue
		}
		for j := range i {
			if &v.items[j] == first {
				v.repeats(it, first)
				break
			}
		}
	}
}

// after returns what a limit is compared with: the period's quantity with the event in it.
func (v *verdict) after(it *item, used money.Decimal) money.Decimal {
	switch it.meter.Aggregation {
	case Max, Last: // a value within the limit is no reason to refuse, nor one that changes nothing
		if it.counted.Cmp(used) > 0 {
			return it.counted
		}
		return used
	case Unique:
		if v.seen[uniqueKeys(it)[0]] {
			return used
		}
		return used.Add(one)
	default:
		return used.Add(it.counted)
	}
}

func (v *verdict) accept(it *item, ref Ref) {
	it.result.Status = Accepted
	v.accepted[ref] = it
	v.writes.Events = append(v.writes.Events, Row{
		Event: it.event, Key: it.key, Content: it.content, Counted: it.counted, Period: it.period, Series: it.series,
	})
	v.judged = append(v.judged, it)
	if it.meter.Aggregation == Unique {
		for i, k := range uniqueKeys(it) {
			it.first[i] = !v.seen[k]
			if it.first[i] {
				v.seen[k] = true
				v.writes.Unique = append(v.writes.Unique, k)
			}
		}
	}
}

func (v *verdict) reject(it *item, p *Problem) {
	it.result.Status, it.result.Problem = Rejected, p
	if p.Kept {
		v.writes.Rejects = append(v.writes.Rejects, Reject{it.event, p.Code})
	}
}

// showConflicts fetches what is stored under an identity that came with other content.
func (v *verdict) showConflicts(ctx context.Context) error {
	var refs map[Ref]Stored
	for i := range v.items {
		it := &v.items[i]
		if it.result.Status != Conflict || it.result.Stored != nil {
			continue
		}
		if refs == nil {
			refs = map[Ref]Stored{}
		}
		ref := Ref{it.event.Account, it.key}
		refs[ref] = v.known.Events[ref]
	}
	if len(refs) == 0 {
		return nil
	}
	raw, err := v.lookup.Raw(ctx, refs)
	if err != nil {
		return err
	}
	for i := range v.items {
		it := &v.items[i]
		if it.result.Status == Conflict && it.result.Stored == nil {
			it.result.Stored = raw[Ref{it.event.Account, it.key}]
		}
	}
	return nil
}
