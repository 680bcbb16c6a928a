package metering

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/pkg/money"
)

// ReservationSource is the source of the event that a commit counts; the event's id is the
// reservation's.
const ReservationSource = "reservation"

// NoPeriod stands for the period of meters that count open reservations: what is open now counts, and
// no period's end changes that.
var NoPeriod = time.UnixMicro(0).UTC()

// Action is what is done to a reservation.
type Action string

// The actions.
const (
	Reserve Action = "reserve"
	Extend  Action = "extend"
	Commit  Action = "commit"
	Release Action = "release"

	expire Action = "expire" // does nothing by itself
)

// Reserving asks for one action on a reservation.
type Reserving struct {
	Action  Action
	Account account.ID
	ID      entitlement.ReservationID // of Reserve: a fresh one
	Meter   string                    // of Reserve
	// Quantity is what to hold (Reserve), to hold in addition (Extend, may be 0), or what was used
	// (Commit).
	Quantity   money.Decimal
	TTL        time.Duration // of Reserve and Extend, from now on
	Lease      bool          // of Reserve
	Reference  string        // of Reserve
	OccurredAt time.Time     // of Commit; zero: now, or the end of the period in which it was reserved
	Dimensions Dimensions    // of Commit

	Key idempotency.Request // the zero Request: no answer is kept
	// Render makes the answer that is kept under Key, inside the transaction.
	Render func(entitlement.Reservation) (idempotency.Answer, error)
}

// Reserved is what came of it.
type Reserved struct {
	Reservation entitlement.Reservation
	Rendered    *idempotency.Answer // what Render has made of it, where that is kept
	Replayed    *idempotency.Answer // the stored answer of an earlier request with the same key
}

// operation is a Reserving on its way through a flush.
type operation struct {
	Reserving
	out    Reserved
	err    error
	within bool // a commit counts no more than what is held for it
}

func (o *operation) refuse(err error) { o.out, o.err = Reserved{}, err }

// Reserve does one action on a reservation, with the same sharing of commits as Add and in the order
// in which calls and events of the account came. When it returns, the result is durable. It never lets
// used plus reserved pass a hard limit.
//
// It returns the errors of package entitlement's reservations, idempotency.ErrReused, ErrUnknownMeter,
// and those of Add.
func (in *Ingester) Reserve(ctx context.Context, r Reserving) (Reserved, error) {
	op := &operation{Reserving: r}
	event := &Event{Account: r.Account}
	call := &call{done: make(chan struct{})}
	call.pending.Store(1)
	it := item{op: op, event: event, result: new(Result)}
	if r.Action == Reserve {
		if it.meter = in.catalogue.Meter(r.Meter); it.meter == nil {
			return Reserved{}, ErrUnknownMeter.With("meter", r.Meter)
		}
	}
	if r.Action == Commit {
		event.Source, event.ID, event.Quantity, event.Dimensions = ReservationSource, r.ID.String(), r.Quantity, r.Dimensions
		it.key = event.Key()
	}
	if err := in.queue.put(in.shard(r.Account), chunk{[]item{it}, call}); err != nil {
		return Reserved{}, err
	}
	if err := call.wait(ctx); err != nil {
		return Reserved{}, err
	}
	return op.out, errors.Join(call.err, op.err)
}

// Expire lets go the account's reservations whose time is over, as every action on a reservation of
// the account does first.
func (in *Ingester) Expire(ctx context.Context, a account.ID) error {
	_, err := in.Reserve(ctx, Reserving{Action: expire, Account: a})
	return err
}

// openReservations begins with what was read, less what is overdue.
func (v *verdict) openReservations() {
	n := 0
	for i := range v.items {
		if v.items[i].op != nil {
			n++
		}
	}
	v.holds = make(map[TotalKey]money.Decimal, n)
	v.settled = make(map[ReservationRef]*entitlement.Reservation, n)
	v.answered = make(map[AnswerRef]*StoredAnswer, n)
	for _, r := range v.known.Overdue {
		r.Status, r.SettledAt, r.Version = entitlement.Expired, v.known.Now, r.Version+1
		v.hold(r, r.Quantity.Neg())
		v.settled[ReservationRef{r.Account, r.ID}] = &r
	}
}

// hold changes what a reservation's meter and period have reserved.
func (v *verdict) hold(r entitlement.Reservation, delta money.Decimal) {
	key := TotalKey{r.Account, r.Meter, r.Period.UnixMicro()}
	v.holds[key] = v.holds[key].Add(delta)
	held := v.known.Totals[key]
	held.Reserved = held.Reserved.Add(delta)
	v.known.Totals[key] = held
}

// reservation returns a reservation as it stands in this flush.
func (v *verdict) reservation(ref ReservationRef) (entitlement.Reservation, bool) {
	if r := v.settled[ref]; r != nil {
		return *r, true
	}
	r, ok := v.known.Reservations[ref]
	return r, ok
}

// prepare finds the meter and the period of an operation before anything is decided, since series and
// prices are looked up by them.
func (v *verdict) prepare(it *item) {
	o := it.op
	o.out, o.err, o.within = Reserved{}, nil, false
	it.total = TotalKey{Account: o.Account}
	ad := v.known.Admissions[o.Account]
	if ad == nil {
		return
	}
	if o.Action == Reserve {
		it.period, _ = ad.PeriodOf(ad.now(v.now))
		if it.meter.Reserved {
			it.period = NoPeriod
		}
		it.total = TotalKey{o.Account, o.Meter, it.period.UnixMicro()}
		return
	}
	r, ok := v.known.Reservations[ReservationRef{o.Account, o.ID}]
	if !ok {
		return
	}
	it.meter = v.catalogue.Meter(r.Meter)
	it.period, it.total = r.Period, TotalKey{o.Account, r.Meter, r.Period.UnixMicro()}
	if o.Action != Commit || it.meter == nil || it.meter.Reserved {
		return
	}
	e := it.event
	e.Meter = r.Meter
	if e.OccurredAt = o.OccurredAt; e.OccurredAt.IsZero() {
		e.OccurredAt = ad.now(v.now)
		// Units are held of the period in which they were reserved: in the next one others may hold all there are.
		if end := ad.EndOf(r.Period); !end.IsZero() && !e.OccurredAt.Before(end) {
			e.OccurredAt = end.Add(-time.Microsecond)
		}
	}
	if it.meter.Aggregation == Unique {
		e.Value = e.ID
	}
	it.content = e.Content()
	if problem := e.validate(it.meter); problem != nil {
		o.err = asError(problem)
		return
	}
	if problem := v.timely(it, ad); problem != nil {
		if o.err = asError(problem); problem == problemClosed {
			o.err = entitlement.ErrClosed
		}
		return
	}
	if problem := it.place(ad); problem != nil {
		o.err = asError(problem)
	}
}

// asError makes an error of what would be a rejected event.
func asError(p *Problem) error {
	return errs.InvalidField("#"+p.Pointer, p.Code, "%s", p.Detail)
}

// operate does one action; the result is in the operation.
func (v *verdict) operate(it *item) {
	o := it.op
	answer := AnswerRef{o.Account, o.Key.Scope, o.Key.Key}
	if o.Key.Key != "" {
		given, ok := v.known.Answers[answer]
		if a := v.answered[answer]; a != nil {
			given, ok = *a, true
		}
		if ok {
			if given.Fingerprint != o.Key.Fingerprint {
				o.refuse(idempotency.ErrReused)
				return
			}
			replayed := given.Answer // of its own, so that an operation without one costs no memory
			o.out.Replayed = &replayed
			return
		}
	}
	if o.err != nil || o.Action == expire {
		return
	}
	r, changed, err := v.act(it)
	if err != nil {
		o.refuse(err)
		return
	}
	o.out.Reservation = r
	if changed {
		v.settled[ReservationRef{r.Account, r.ID}] = &r
	}
	if o.Key.Key == "" || o.Render == nil {
		return
	}
	rendered, err := o.Render(r)
	if err != nil {
		o.refuse(err)
		return
	}
	o.out.Rendered = &rendered
	v.answered[answer] = &StoredAnswer{AnswerRef: answer, Fingerprint: o.Key.Fingerprint, Answer: rendered}
}

// act returns the reservation after the action, and whether it is another than before. Repeating what
// is done changes nothing.
func (v *verdict) act(it *item) (r entitlement.Reservation, changed bool, err error) {
	o := it.op
	ad := v.known.Admissions[o.Account]
	if ad == nil {
		return r, false, entitlement.ErrNotFound
	}
	r, found := v.reservation(ReservationRef{o.Account, o.ID})
	if o.Action == Reserve {
		if found {
			return r, false, nil
		}
		return v.reserve(it, ad)
	}
	if !found {
		return r, false, entitlement.ErrReservationNotFound
	}
	r.Version++
	switch o.Action {
	case Extend:
		return v.extend(it, ad, r)
	case Commit:
		return v.commitUsed(it, ad, r)
	case Release:
		if r.Status == entitlement.Released || r.Status == entitlement.Expired {
			r.Version--
			return r, false, nil
		}
		if r.Status != entitlement.Open {
			return r, false, entitlement.ErrSettled
		}
		v.hold(r, r.Quantity.Neg())
		r.Status, r.SettledAt = entitlement.Released, v.known.Now
		return r, true, nil
	default:
		return r, false, errors.New("unknown action " + string(o.Action))
	}
}

func (v *verdict) reserve(it *item, ad *Admission) (r entitlement.Reservation, changed bool, err error) {
	o := it.op
	if err := standing(ad); err != nil {
		return r, false, err
	}
	quantity := it.meter.Counted(o.Quantity) // what it will count
	if err := v.room(ad, it.total, it.period, quantity); err != nil {
		return r, false, err
	}
	r = entitlement.Reservation{
		ID: o.ID, Account: o.Account, Meter: o.Meter, Period: it.period, Quantity: quantity, Status: entitlement.Open,
		Lease: o.Lease, Reference: o.Reference, CreatedAt: v.known.Now, ExpiresAt: v.known.Now.Add(o.TTL), Version: 1,
	}
	v.hold(r, r.Quantity)
	return r, true, nil
}

func standing(ad *Admission) error {
	switch ad.Standing() {
	case entitlement.AccountSuspended:
		return entitlement.ErrSuspended
	case entitlement.AccountClosed:
		return entitlement.ErrClosed
	default:
		return nil
	}
}

// room refuses what a hard limit has no room for, and what could not be billed.
func (v *verdict) room(ad *Admission, key TotalKey, period time.Time, wanted money.Decimal) error {
	if wanted.Sign() <= 0 {
		return nil
	}
	held := v.known.Totals[key]
	if most := ad.MaxQuantity(key.Meter); held.Used.Add(held.Reserved).Add(wanted).Cmp(most) > 0 {
		return tooMuch(most)
	}
	limit, ok := ad.HardLimit(key.Meter, period)
	if !ok {
		return nil
	}
	left := limit.Sub(held.Used).Sub(held.Reserved)
	if wanted.Cmp(left) <= 0 {
		return nil
	}
	if left.Sign() < 0 {
		left = money.Decimal{}
	}
	err := entitlement.ErrLimitReached.With("meter", key.Meter).With("limit", limit).With("remaining", left)
	if period.Equal(NoPeriod) {
		return err // there is room again when a reservation ends, and at no time that is known
	}
	return err.With("resets_at", ad.ResetsAt(period))
}

func (v *verdict) extend(it *item, ad *Admission, r entitlement.Reservation) (entitlement.Reservation, bool, error) {
	if r.Status != entitlement.Open {
		return r, false, entitlement.ErrSettled
	}
	if err := standing(ad); err != nil {
		return r, false, err
	}
	more := it.op.Quantity
	if more.Sign() > 0 && it.meter != nil {
		more = it.meter.Counted(r.Quantity.Add(more)).Sub(r.Quantity)
	}
	if err := v.room(ad, it.total, it.period, more); err != nil {
		return r, false, err
	}
	v.hold(r, more)
	r.Quantity = r.Quantity.Add(more)
	if until := v.known.Now.Add(it.op.TTL); until.After(r.ExpiresAt) {
		r.ExpiresAt = until
	}
	return r, true, nil
}

// commitUsed counts what was used as an event and lets the rest go. Use within what an open reservation
// holds is always counted; more than that, in another period than it holds units of, or after it expired, only where the
// limit has room.
func (v *verdict) commitUsed(it *item, ad *Admission, r entitlement.Reservation) (entitlement.Reservation, bool, error) {
	o := it.op
	if r.Status == entitlement.Committed && r.Used.Cmp(o.Quantity) == 0 {
		r.Version--
		return r, false, nil
	}
	if r.Status != entitlement.Open && r.Status != entitlement.Expired {
		return r, false, entitlement.ErrSettled
	}
	var granted money.Decimal
	if r.Status == entitlement.Open && it.period.Equal(r.Period) {
		granted = r.Quantity
	}
	counts := o.Quantity
	if it.fresh {
		used := v.known.Totals[it.total].Used
		counts = v.after(it, used).Sub(used)
	}
	over := counts.Sub(granted)
	if err := v.room(ad, it.total, it.period, over); err != nil {
		return r, false, err
	}
	if it.fresh && !it.meter.Aggregation.additive() { // one value stands for all: what is held is compared with this one
		over = it.counted.Sub(granted)
	}
	o.within = over.Sign() <= 0
	if r.Status == entitlement.Open {
		v.hold(r, r.Quantity.Neg())
	}
	if it.fresh {
		held := v.known.Totals[it.total]
		held.Used = v.after(it, held.Used)
		v.known.Totals[it.total] = held
		v.accept(it, Ref{o.Account, it.key})
	}
	r.Status, r.Used, r.SettledAt = entitlement.Committed, o.Quantity, v.known.Now
	return r, true, nil
}

// keepReservations writes what operations changed, in the order of the rows.
func (v *verdict) keepReservations() {
	v.writes.Reservations = slices.Grow(v.writes.Reservations, len(v.settled))
	v.writes.Holds = slices.Grow(v.writes.Holds, len(v.holds))
	v.writes.Answers = slices.Grow(v.writes.Answers, len(v.answered))
	for _, r := range v.settled {
		v.writes.Reservations = append(v.writes.Reservations, *r)
	}
	slices.SortFunc(v.writes.Reservations, func(a, b entitlement.Reservation) int {
		if c := compareUUID(a.Account.UUID(), b.Account.UUID()); c != 0 {
			return c
		}
		return compareUUID(a.ID.UUID(), b.ID.UUID())
	})
	for key, delta := range v.holds {
		if !delta.IsZero() {
			v.writes.Holds = append(v.writes.Holds, Hold{key, delta, v.known.Admissions[key.Account].MaxQuantity(key.Meter)})
		}
	}
	slices.SortFunc(v.writes.Holds, func(a, b Hold) int { return a.compare(b.TotalKey) })
	for _, a := range v.answered {
		v.writes.Answers = append(v.writes.Answers, *a)
	}
}

// reservationMark remembers what an operation may change.
type reservationMark struct {
	holds    map[TotalKey]money.Decimal
	settled  map[ReservationRef]*entitlement.Reservation
	answered map[AnswerRef]*StoredAnswer
	totals   map[TotalKey]Held
}

func (v *verdict) markReservations() reservationMark {
	return reservationMark{maps.Clone(v.holds), maps.Clone(v.settled), maps.Clone(v.answered), maps.Clone(v.known.Totals)}
}

func (v *verdict) rewindReservations(m reservationMark) {
	v.holds, v.settled, v.answered, v.known.Totals = m.holds, m.settled, m.answered, m.totals
}
