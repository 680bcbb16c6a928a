package changes

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/telemetry"
)

// Options of a Hub. The zero value of a field means its default.
type Options struct {
	PerAccount    int           // subscriptions of one account; default 20
	Most          int           // subscriptions of all; default 10,000
	AnnounceEvery time.Duration // at least between two announcements; default 100 ms
	// Changed, if set, is told of usage and limits that another process changed. It must not block.
	Changed func(accounts ...account.ID)
}

// Hub brings changes to subscribers. Its methods may be called from any number of goroutines.
type Hub struct {
	source    Source
	announcer Announcer
	log       *slog.Logger
	opt       Options

	mu       sync.Mutex
	subs     map[account.ID]map[*Subscription]struct{}
	open     int
	draining bool
	changed  map[account.ID]struct{} // whose usage is to be announced
	waiting  chan struct{}           // holds a token while something is to be announced
}

// NewHub returns a hub that hears and announces once Run runs.
func NewHub(source Source, announcer Announcer, log *slog.Logger, opt Options) *Hub {
	if opt.PerAccount <= 0 {
		opt.PerAccount = 20
	}
	if opt.Most <= 0 {
		opt.Most = 10_000
	}
	if opt.AnnounceEvery <= 0 {
		opt.AnnounceEvery = 100 * time.Millisecond
	}
	return &Hub{
		source: source, announcer: announcer, log: log, opt: opt, subs: map[account.ID]map[*Subscription]struct{}{},
		changed: map[account.ID]struct{}{}, waiting: make(chan struct{}, 1),
	}
}

// Run hears and announces until ctx ends; then it announces what is left.
func (h *Hub) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { h.listen(ctx) })
	wg.Go(func() { h.announce(ctx) })
	wg.Wait()
	return nil
}

// How long the hub waits before it listens again after the connection was lost.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = 2 * time.Second
)

// listen connects again and again. What was missed in between cannot be known, so everyone looks then.
func (h *Hub) listen(ctx context.Context) {
	pause := firstPause
	outage := telemetry.Outage{Log: h.log, Began: "changes are not heard; connecting until they are", Ended: "changes are heard again"}
	connected := func() {
		outage.Tried(ctx, nil)
		pause = firstPause
		h.nudgeAll()
	}
	for {
		err := errs.Contain(func() error { return h.source.Listen(ctx, connected, h.heard) })
		if ctx.Err() != nil {
			return
		}
		outage.Tried(ctx, err)
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, longestPause)
	}
}

// sleep returns false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (h *Hub) heard(c Change) {
	if h.opt.Changed != nil && c.What&(Usage|Limits) != 0 {
		h.opt.Changed(c.Account)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nudge(c)
}

// nudge wakes the account's subscribers. The caller holds the lock.
func (h *Hub) nudge(c Change) {
	for s := range h.subs[c.Account] {
		s.what |= c.What
		select {
		case s.ready <- struct{}{}:
		default:
		}
	}
}

func (h *Hub) nudgeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for a := range h.subs {
		h.nudge(Change{a, everything})
	}
}

// maxAnnounced bounds what waits to be announced. What is beyond it is found by the subscribers' own
// looks now and then.
const maxAnnounced = 100_000

// UsageChanged wakes this process's subscribers of the accounts, and soon those of the others. It never
// waits: it stands behind the commit of usage.
func (h *Hub) UsageChanged(accounts []account.ID) {
	h.mu.Lock()
	for _, a := range accounts {
		h.nudge(Change{a, Usage})
		if len(h.changed) < maxAnnounced {
			h.changed[a] = struct{}{}
		}
	}
	h.mu.Unlock()
	h.signal()
}

func (h *Hub) signal() {
	select {
	case h.waiting <- struct{}{}:
	default:
	}
}

// announce tells the other processes, at once and then not more often than is of use.
func (h *Hub) announce(ctx context.Context) {
	outage := telemetry.Outage{Log: h.log, Began: "changed usage not announced; tried again until it is", Ended: "changed usage is announced again"}
	for {
		select {
		case <-h.waiting:
		case <-ctx.Done():
			_ = h.announceWaiting(ctx) // nobody is left to try again
			return
		}
		if err := h.announceWaiting(ctx); ctx.Err() == nil {
			outage.Tried(ctx, err)
		}
		sleep(ctx, h.opt.AnnounceEvery)
	}
}

// announceWaiting announces what waits; what it cannot announce goes on waiting.
func (h *Hub) announceWaiting(ctx context.Context) error {
	h.mu.Lock()
	accounts := make([]account.ID, 0, len(h.changed))
	for a := range h.changed {
		accounts = append(accounts, a)
	}
	clear(h.changed)
	h.mu.Unlock()
	if len(accounts) == 0 {
		return nil
	}
	try, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := h.announcer.Announce(try, accounts)
	if err == nil || ctx.Err() != nil {
		return err
	}
	h.mu.Lock()
	for _, a := range accounts {
		if len(h.changed) < maxAnnounced {
			h.changed[a] = struct{}{}
		}
	}
	h.mu.Unlock()
	h.signal()
	return err
}

// Subscribe returns a subscription to the account's changes, which the caller closes. It returns
// ErrTooMany, ErrFull or, once Drain was called, ErrStopping.
func (h *Hub) Subscribe(a account.ID) (*Subscription, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.draining:
		return nil, ErrStopping
	case len(h.subs[a]) >= h.opt.PerAccount:
		return nil, ErrTooMany.With("limit", h.opt.PerAccount)
	case h.open >= h.opt.Most:
		return nil, ErrFull
	}
	s := &Subscription{hub: h, account: a, ready: make(chan struct{}, 1), ended: make(chan struct{})}
	if h.subs[a] == nil {
		h.subs[a] = map[*Subscription]struct{}{}
	}
	h.subs[a][s] = struct{}{}
	h.open++
	return s, nil
}

// Open returns how many subscriptions there are.
func (h *Hub) Open() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open
}

// Drain ends every subscription and refuses new ones, so that a server can be shut down.
func (h *Hub) Drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining {
		return
	}
	h.draining = true
	for _, subs := range h.subs {
		for s := range subs {
			close(s.ended)
		}
	}
}

// Subscription is one reader's. It is for one goroutine.
type Subscription struct {
	hub     *Hub
	account account.ID
	what    What // under the hub's lock
	ready   chan struct{}
	ended   chan struct{}
}

// Ready has a value when something has changed since Take.
func (s *Subscription) Ready() <-chan struct{} { return s.ready }

// Take returns what has changed since it was last called.
func (s *Subscription) Take() What {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	what := s.what
	s.what = 0
	return what
}

// Ended is closed when the hub drains.
func (s *Subscription) Ended() <-chan struct{} { return s.ended }

// Close ends the subscription. A second call does nothing.
func (s *Subscription) Close() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	subs := s.hub.subs[s.account]
	if _, ok := subs[s]; !ok {
		return
	}
	delete(subs, s)
	s.hub.open--
	if len(subs) == 0 {
		delete(s.hub.subs, s.account)
	}
}
