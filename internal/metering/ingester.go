package metering

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
)

// Errors of the ingester. In each case nothing of the call is acknowledged, and the same events may
// be sent again without being counted twice.
var (
	ErrBusy = errs.New(errs.Unavailable, "ingest_busy",
		"More usage is waiting to be stored than is taken in. Send the events again.").After(time.Second)
	ErrStopping = errs.New(errs.Unavailable, "ingest_stopping",
		"This instance is shutting down. Send the events again.").After(time.Second)
	ErrStore = errs.New(errs.Unavailable, "ingest_unavailable",
		"The events could not be stored now. Send them again.").After(2 * time.Second)
)

// Options tune an Ingester. The zero value of a field means its default.
type Options struct {
	Committers int // goroutines, and shares of the accounts; default 2
	FlushSize  int // events of a transaction at most; default 2,000
	QueueSize  int // events of a share that wait at most, as calls of callWeight or more; default 20,000
	// OneAccount puts each account into a transaction of its own, for a database that shards by
	// account.
	OneAccount bool
	// Pricer enforces hard spend limits; without one they are not looked at.
	Pricer entitlement.Pricer
	// Changed, if set, is told which accounts' usage changed or was refused for a limit, after the commit.
	// It must not block.
	Changed func([]account.ID)
	// Patience bounds how long a flush is tried again before its callers are sent away; default 10 s.
	Patience time.Duration
}

// Ingester stores usage by group commit: a committer takes what waits, stores it in one transaction
// and answers all of it after the commit. Alone, a caller waits for one transaction; among many, a
// moment for the others; a transaction carries up to FlushSize events. Those with events of one account
// take turns, by the lock of its entitlement.
//
// Add may be called from any number of goroutines while Run runs.
type Ingester struct {
	journal   Journal
	catalogue Catalogue
	clock     clock.Clock
	log       *slog.Logger
	opt       Options
	cache     seriesCache
	queue     *queue
	aside     aside
}

// NewIngester returns an ingester that stores with journal once Run runs.
func NewIngester(journal Journal, catalogue Catalogue, clk clock.Clock, log *slog.Logger, opt Options) *Ingester {
	opt.Committers = orDefault(opt.Committers, 2)
	opt.FlushSize = orDefault(opt.FlushSize, 2000)
	opt.QueueSize = orDefault(opt.QueueSize, 20_000)
	if opt.Patience <= 0 {
		opt.Patience = 10 * time.Second
	}
	return &Ingester{
		journal: journal, catalogue: catalogue, clock: clk, log: log, opt: opt,
		queue: newQueue(opt.Committers, opt.QueueSize, max(opt.FlushSize/16, 1)),
	}
}

func orDefault(n, def int) int {
	if n <= 0 {
		return def
	}
	return n
}

// Run stores what Add queues until ctx ends; then it stores what is still waiting and returns nil.
func (in *Ingester) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, in.queue.close)
	defer stop()
	var wg sync.WaitGroup
	for range in.opt.Committers {
		wg.Go(func() {
			for {
				t := in.queue.take(in.opt.FlushSize)
				if t == nil {
					return
				}
				in.flush(context.WithoutCancel(ctx), t.chunks)
				in.queue.done(t)
			}
		})
	}
	wg.Wait()
	in.aside.storing.Wait()
	return nil
}

// Waiting returns how many events wait for a committer.
func (in *Ingester) Waiting() int { return in.queue.waiting() }

// Add stores events and returns a result for each, in their order, once those that were accepted
// are durable, counted and visible to every reader. The results of good events do not depend on bad
// ones beside them.
//
// Where ctx ends first, Add returns its error; what was queued is stored nevertheless. ErrBusy,
// ErrStopping and ErrStore say that none or only some of the events were stored.
func (in *Ingester) Add(ctx context.Context, events []Event) ([]Result, error) {
	results := make([]Result, len(events))
	call := &call{done: make(chan struct{})}
	shares := make([][]item, in.opt.Committers)
	var meter *Meter // mostly that of the event before
	n := 0
	for i := range events {
		e := &events[i]
		if e.Source == "" {
			e.Source = DefaultSource
		}
		if meter == nil || meter.Code != e.Meter {
			meter = in.catalogue.Meter(e.Meter)
		}
		if results[i].Problem = e.validate(meter); results[i].Problem != nil {
			continue
		}
		s := in.shard(e.Account)
		if shares[s] == nil {
			shares[s] = make([]item, 0, len(events)-i)
		}
		shares[s] = append(shares[s], item{event: e, meter: meter, key: e.Key(), content: e.Content(), result: &results[i]})
		n++
	}
	if n == 0 {
		return results, nil
	}
	call.pending.Store(1) // kept until everything is queued
	var err error
	for s, items := range shares {
		for part := range slices.Chunk(items, in.opt.FlushSize) {
			call.pending.Add(1)
			if err = in.queue.put(s, chunk{part, call}); err != nil {
				call.pending.Add(-1)
				break
			}
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		call.fail(err)
	}
	call.finish()
	if err := call.wait(ctx); err != nil {
		return nil, err
	}
	if call.err != nil {
		return nil, call.err
	}
	return results, nil
}

func (in *Ingester) shard(a account.ID) int {
	u := a.UUID()
	return int(u[15]) % in.opt.Committers // the last byte of a UUIDv7 is random
}

// flush stores chunks in one transaction, or in one for each account.
func (in *Ingester) flush(ctx context.Context, chunks []chunk) {
	if !in.opt.OneAccount {
		in.store(ctx, chunks, false)
		return
	}
	byAccount := map[account.ID][]chunk{}
	var order []account.ID
	for _, c := range chunks {
		parts := map[account.ID][]item{}
		for i := range c.items {
			a := c.items[i].event.Account
			if parts[a] == nil && byAccount[a] == nil {
				order = append(order, a)
				byAccount[a] = []chunk{}
			}
			parts[a] = append(parts[a], c.items[i])
		}
		c.call.pending.Add(int64(len(parts)))
		for a, items := range parts {
			byAccount[a] = append(byAccount[a], chunk{items, c.call})
		}
		c.call.finish()
	}
	passOver := false // once one is held, for which the others have waited, they wait for no further one
	for _, a := range order {
		passOver = in.store(ctx, byAccount[a], passOver) || passOver
	}
}

// store answers chunks after one transaction, or after several where some value is refused. What belongs to accounts that
// somebody else holds is set aside, at once or after a wait for it; store returns whether that was so of any.
func (in *Ingester) store(ctx context.Context, chunks []chunk, passOver bool) bool {
	chunks = in.setAside(ctx, chunks, nil)
	var held map[account.ID]bool
	var err error
	if items := itemsOf(chunks); len(items) > 0 {
		held, err = in.commit(ctx, items, passOver)
	}
	if len(held) > 0 {
		in.setAside(ctx, chunks, held)
	}
	answer(chunks, err)
	return len(held) > 0
}

// itemsOf are the items of all chunks.
func itemsOf(chunks []chunk) []item {
	if len(chunks) == 1 {
		return chunks[0].items
	}
	n := 0
	for _, c := range chunks {
		n += len(c.items)
	}
	items := make([]item, 0, n)
	for _, c := range chunks {
		items = append(items, c.items...)
	}
	return items
}

// answer says that chunks are stored, or that they are not.
func answer(chunks []chunk, err error) {
	for _, c := range chunks {
		if err != nil {
			c.call.fail(ErrStore.Because(err))
		}
		c.call.finish()
	}
}

// commit stores items, again and again while that may help. Where the database refuses the values,
// halves are tried, until the one item that it refuses is found and rejected alone. It passes over the items of accounts
// that somebody else holds, at once or after it has waited for them, and returns these accounts.
func (in *Ingester) commit(ctx context.Context, items []item, passOver bool) (held map[account.ID]bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, in.opt.Patience)
	defer cancel()
	ask := in.askFor(items)
	ask.PassOver = passOver
	pause, suspicious := 20*time.Millisecond, false
	for {
		var v *verdict
		decided := false
		err := in.journal.Append(ctx, ask, func(ctx context.Context, known Known, lookup Lookup) (w Writes, err error) {
			held = known.Held
			if suspicious {
				held = both(in.undecidable(ctx, items, known, lookup, ask.Exact), held)
			}
			v = in.verdict(items, known, lookup, held, ask.Exact)
			w, err = v.contained(ctx)
			decided = err == nil
			return w, err
		})
		switch {
		case err == nil:
			in.cache.add(v.counted)
			in.tell(v)
			return held, nil
		case v != nil && !decided && !suspicious && several(items):
			suspicious = true
			continue
		case errors.Is(err, ErrHeld) && !ask.PassOver:
			ask.PassOver = true
			continue
		case errors.Is(err, ErrRefused) && !ask.Exact: // mostly for a total beyond its bound: with all totals known, the events that pass it are told apart
			ask.Exact = true
			continue
		case errors.Is(err, ErrRefused):
			if len(items) == 1 {
				in.log.WarnContext(ctx, "usage event refused by the database", "account", items[0].event.Account, "error", err)
				*items[0].result = Result{Problem: problemNotStorable}
				if o := items[0].op; o != nil {
					o.refuse(ErrTotalRange)
				}
				return nil, nil
			}
			half := len(items) / 2
			first, err := in.commit(ctx, items[:half], passOver)
			if err != nil {
				return nil, err
			}
			second, err := in.commit(ctx, items[half:], passOver)
			return both(first, second), err
		case errors.Is(err, ErrOutcomeUnknown) && v != nil:
			for _, it := range v.judged {
				it.result.sent = true
			}
			in.tell(v) // who looks in vain has lost nothing, and where it is stored no further try has anything to tell
		}
		in.log.WarnContext(ctx, "usage not stored, trying again", "events", len(items), "error", err)
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
			pause = min(2*pause, time.Second)
		}
	}
}

// verdict is what decides on the items of accounts that are not held.
func (in *Ingester) verdict(items []item, known Known, lookup Lookup, held map[account.ID]bool, exact bool) *verdict {
	known.Overdue = slices.DeleteFunc(known.Overdue, func(r entitlement.Reservation) bool { return held[r.Account] })
	return &verdict{
		now: in.clock(), items: free(items, held), known: known, lookup: lookup, pricer: in.opt.Pricer, catalogue: in.catalogue,
		cache: &in.cache, exact: exact,
	}
}

// undecidable returns the accounts on whose items alone nothing can be decided, because what is on record of them is broken
// or what they send brings out a fault: they are set aside, so that nobody waits but those who ask for them. Where it is so
// of all, the fault is not theirs.
func (in *Ingester) undecidable(ctx context.Context, items []item, known Known, lookup Lookup, exact bool) map[account.ID]bool {
	byAccount := map[account.ID][]item{}
	for _, it := range free(items, known.Held) {
		byAccount[it.event.Account] = append(byAccount[it.event.Account], it)
	}
	faults := map[account.ID]error{}
	for a, items := range byAccount {
		alone := known
		alone.Totals = maps.Clone(known.Totals) // which deciding changes
		alone.Overdue = slices.DeleteFunc(slices.Clone(known.Overdue), func(r entitlement.Reservation) bool { return r.Account != a })
		if _, err := in.verdict(items, alone, lookup, nil, exact).contained(ctx); err != nil {
			faults[a] = err
		}
	}
	if len(faults) == len(byAccount) {
		return nil
	}
	out := map[account.ID]bool{}
	for a, err := range faults {
		in.log.ErrorContext(ctx, "usage of an account cannot be decided on, set aside", "account", a, "error", err)
		out[a] = true
	}
	return out
}

// several reports whether items belong to more than one account.
func several(items []item) bool {
	return slices.ContainsFunc(items, func(it item) bool { return it.event.Account != items[0].event.Account })
}

func (in *Ingester) tell(v *verdict) {
	if in.opt.Changed == nil || len(v.judged)+len(v.settled)+len(v.writes.Rejects) == 0 {
		return
	}
	var changed []account.ID
	seen := map[account.ID]bool{}
	for _, it := range v.judged {
		if a := it.event.Account; !seen[a] {
			seen[a] = true
			changed = append(changed, a)
		}
	}
	for i := range v.writes.Rejects { // a limit was reached
		if a := v.writes.Rejects[i].Event.Account; !seen[a] {
			seen[a] = true
			changed = append(changed, a)
		}
	}
	for ref := range v.settled {
		if !seen[ref.Account] {
			seen[ref.Account] = true
			changed = append(changed, ref.Account)
		}
	}
	in.opt.Changed(changed)
}

func (in *Ingester) askFor(items []item) Ask {
	ask := Ask{Events: make([]Ref, 0, len(items))}
	seen := map[account.ID]bool{}
	meters := map[*Meter]bool{}
	var last account.ID
	operations, holders := false, map[account.ID]bool{}
	for i := range items {
		if m := items[i].meter; m != nil && !meters[m] {
			meters[m] = true
			ask.Meters = append(ask.Meters, m.Code)
		}
		a := items[i].event.Account
		if o := items[i].op; o == nil {
			ask.Events = append(ask.Events, Ref{a, items[i].key})
		} else {
			operations = true
			ask.Reservations = append(ask.Reservations, ReservationRef{a, o.ID})
			if o.Key.Key != "" {
				ask.Answers = append(ask.Answers, AnswerRef{a, o.Key.Scope, o.Key.Key})
			}
			if !holders[a] {
				holders[a] = true
				ask.Holders = append(ask.Holders, a)
			}
		}
		if a != last && !seen[a] {
			seen[a] = true
			ask.Accounts = append(ask.Accounts, a)
		}
		last = a
	}
	if operations { // which meters they are about is not known yet
		ask.Meters = codes(in.catalogue.Meters())
	}
	slices.SortFunc(ask.Accounts, func(a, b account.ID) int { return compareUUID(a.UUID(), b.UUID()) })
	return ask
}

func compareUUID(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }

// call is one call of Add: it is done when all of its chunks are.
type call struct {
	pending atomic.Int64
	once    sync.Once
	err     error // the first failure; read after done is closed
	done    chan struct{}
}

func (c *call) fail(err error) { c.once.Do(func() { c.err = err }) }

func (c *call) finish() {
	if c.pending.Add(-1) == 0 {
		close(c.done)
	}
}

// patient is a context that waits for less than a timer of its own costs; the contexts of requests are.
type patient interface {
	Wait(done <-chan struct{}) error
}

// wait waits until the call is done, or ctx ends.
func (c *call) wait(ctx context.Context) error {
	if p, ok := ctx.(patient); ok {
		return p.Wait(c.done)
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// chunk is a run of events of one call that are stored together.
type chunk struct {
	items []item
	call  *call
}
