package metering

import (
	"context"
	"maps"
	"time"

	"github.com/accrue-billing/accrue/internal/entitlement"
)

// spending admits one account's events under its hard spend limit.
type spending struct {
	*verdict
	admission *Admission
	prices    map[int64]int64 // by period: what its use costs with what was admitted and let go so far
	uses      map[int64][]entitlement.Use
}

// admit takes as many of the events, in order, as the spend limit allows. It prices the whole run
// first and halves it where that is too much, so that a flush far from the limit is priced once.
func (s *spending) admit(ctx context.Context, items []*item) error {
	s.uses = map[int64][]entitlement.Use{}
	for _, it := range items {
		if err := s.load(ctx, it.total.Period); err != nil {
			return err
		}
	}
	// Runs of events are priced together; an operation on a reservation stands between two of them.
	for len(items) > 0 {
		n := 0
		for n < len(items) && items[n].op == nil {
			n++
		}
		if n == 0 {
			if err := s.operate(ctx, items[0]); err != nil {
				return err
			}
			items = items[1:]
			continue
		}
		if err := s.take(ctx, items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}

// load reads and prices what the account has used in a period, once.
func (s *spending) load(ctx context.Context, p int64) error {
	if _, ok := s.uses[p]; ok || p == 0 {
		return nil
	}
	start := time.UnixMicro(p).UTC()
	uses, err := s.lookup.Uses(ctx, s.admission.Account, start)
	if err != nil {
		return err
	}
	s.uses[p] = uses
	s.prices[p], err = s.price(ctx, start, s.with(p, uses)) // less what is overdue
	return err
}

// operate runs an operation on a reservation and takes it back if the spend limit forbids what it
// holds or counts more, beyond what is held already.
func (s *spending) operate(ctx context.Context, it *item) error {
	mark := s.mark([]*item{it})
	before := s.markReservations()
	s.verdict.operate(it)
	if it.op.err != nil || it.total.Period == 0 {
		return nil //nolint:nilerr // the item carries its own error
	}
	cost, err := s.price(ctx, time.UnixMicro(it.total.Period).UTC(), s.with(it.total.Period, s.uses[it.total.Period]))
	if err != nil {
		return err
	}
	// What is used within what is held has taken place, though its dimensions be dearer than what was held, which had none.
	if cost <= *s.admission.SpendLimit || cost <= s.prices[it.total.Period] || it.op.within {
		s.prices[it.total.Period] = cost
		return nil
	}
	s.rewind(mark, []*item{it})
	s.rewindReservations(before)
	it.op.refuse(entitlement.ErrSpendLimitReached.With("resets_at", s.admission.ResetsAt(it.period)))
	s.writes.Rejects = append(s.writes.Rejects, Reject{s.refused(it), string(entitlement.SpendLimitReached)})
	return nil
}

// refused is the event that a reservation would have become. It is kept with the events that are refused, so
// that whoever watches the limit learns of it.
func (s *spending) refused(it *item) *Event {
	e := Event{
		Account: it.op.Account, Source: ReservationSource, ID: it.op.ID.String(), Meter: it.total.Meter, Quantity: it.op.Quantity,
		OccurredAt: it.event.OccurredAt,
	}
	if e.OccurredAt.IsZero() {
		e.OccurredAt = s.admission.now(s.now)
	}
	return &e
}

func (s *spending) price(ctx context.Context, period time.Time, uses []entitlement.Use) (int64, error) {
	amount, err := s.pricer.Accrued(ctx, s.admission.Entitlement, period, uses)
	return amount.Minor, err
}

func (s *spending) take(ctx context.Context, items []*item) error {
	mark := s.mark(items)
	for _, it := range items {
		s.judge(it)
	}
	within, err := s.within(ctx, mark)
	if err != nil || within {
		return err
	}
	s.rewind(mark, items)
	if len(items) == 1 {
		s.reject(items[0], &Problem{
			Code: string(entitlement.SpendLimitReached), Kept: true, ResetsAt: s.admission.ResetsAt(items[0].period),
			Detail: "The event would pass the account's spend limit.",
		})
		return nil
	}
	half := len(items) / 2
	if err := s.take(ctx, items[:half]); err != nil {
		return err
	}
	return s.take(ctx, items[half:])
}

// within prices every period with the account's accepted events in it. Use that costs nothing more
// is not refused, even past the limit.
func (s *spending) within(ctx context.Context, m mark) (bool, error) {
	costs := map[int64]int64{}
	for p, before := range s.uses {
		if !s.touched(p, m) {
			continue
		}
		after := s.with(p, before)
		cost, err := s.price(ctx, time.UnixMicro(p).UTC(), after)
		if err != nil {
			return false, err
		}
		if cost > *s.admission.SpendLimit && cost > s.prices[p] {
			return false, nil
		}
		costs[p] = cost
	}
	maps.Copy(s.prices, costs)
	return true, nil
}

func (s *spending) touched(period int64, m mark) bool {
	for _, it := range s.judged[m.judged:] {
		if it.total.Period == period {
			return true
		}
	}
	return false
}

// with returns the use of a period with all of the account's accepted events added.
func (s *spending) with(period int64, uses []entitlement.Use) []entitlement.Use {
	type place struct {
		meter  string
		series Series
	}
	out := append([]entitlement.Use(nil), uses...)
	at := make(map[place]int, len(out))
	held := make(map[string]int)
	for i, u := range out {
		if u.Reserved.IsZero() {
			at[place{u.Meter, DimensionsOf(u.Dimensions).Series()}] = i
		} else {
			held[u.Meter] = i
		}
	}
	for key, delta := range s.holds {
		if key.Account != s.admission.Account || key.Period != period {
			continue
		}
		if i, ok := held[key.Meter]; ok {
			out[i].Reserved = out[i].Reserved.Add(delta)
		} else {
			out = append(out, entitlement.Use{Meter: key.Meter, Reserved: delta})
		}
	}
	for _, it := range s.judged {
		if it.total.Account != s.admission.Account || it.total.Period != period {
			continue
		}
		dims := it.event.Dimensions
		if it.series == OtherSeries {
			dims = nil
		}
		key := place{it.meter.Code, dims.Series()}
		i, ok := at[key]
		if !ok {
			i = len(out)
			at[key] = i
			out = append(out, entitlement.Use{Meter: it.meter.Code, Dimensions: dims.Map()})
		}
		u := &out[i]
		u.Events++
		switch it.meter.Aggregation {
		case Max, Last:
			if it.counted.Cmp(u.Used) > 0 {
				u.Used = it.counted
			}
		case Unique:
			if it.first[1] {
				u.Used = u.Used.Add(one)
			}
		default:
			u.Used = u.Used.Add(it.counted)
		}
	}
	return out
}

// mark remembers what judging a run of events changes.
type mark struct {
	events, judged, rejects, unique int
	totals                          map[TotalKey]Held
}

func (s *spending) mark(items []*item) mark {
	m := mark{
		events: len(s.writes.Events), judged: len(s.judged),
		rejects: len(s.writes.Rejects), unique: len(s.writes.Unique),
		totals: map[TotalKey]Held{},
	}
	for _, it := range items {
		m.totals[it.total] = s.known.Totals[it.total]
	}
	return m
}

func (s *spending) rewind(m mark, items []*item) {
	for _, it := range s.judged[m.judged:] {
		delete(s.accepted, Ref{it.event.Account, it.key})
	}
	for _, k := range s.writes.Unique[m.unique:] {
		delete(s.seen, k)
	}
	for _, it := range items {
		*it.result = Result{}
	}
	maps.Copy(s.known.Totals, m.totals)
	s.writes.Events = s.writes.Events[:m.events]
	s.judged = s.judged[:m.judged]
	s.writes.Rejects = s.writes.Rejects[:m.rejects]
	s.writes.Unique = s.writes.Unique[:m.unique]
}
