package metering

import (
	"sync"
	"time"
)

// Under load the processor is what is short, and a transaction costs as much as several events: callers
// wait less if they go together. So a flush waits for half of as many calls as there lately were at once. (Operations on
// money wait for company another way, see regather in package postgres.)
const (
	linger    = 2 * time.Millisecond // at most
	worthIt   = 8                    // calls at once; with fewer nobody waits for anybody
	crowdFade = 8                    // each flush forgets one in so many of the calls that once were
)

// callWeight is how many events take as much memory as the connection and the request of the call that waits
// with them: calls of fewer events count for as many.
const callWeight = 20

// queue holds what waits to be stored, by share of the accounts. A share is in one flush at a time, so
// that its events are stored in the order in which they came. Shares with few events go together, in
// one flush at a time; one with many goes by itself, beside others.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond // a flush is due, or one has ended after the queue was closed
	shares  []share
	most    int  // events that wait in a share
	many    int  // events that make a flush of their own
	calls   int  // that wait
	crowd   int  // calls that lately waited or were being stored at once
	small   bool // a flush of shares with few events is under way
	timer   *time.Timer
	late    bool // what waits has waited for company long enough
	closed  bool
}

type share struct {
	chunks []chunk
	events int
	busy   bool // in a flush
}

// taken is what goes into one flush.
type taken struct {
	chunks []chunk
	shares []*share
	small  bool
}

func newQueue(shares, most, many int) *queue {
	q := &queue{shares: make([]share, shares), most: most, many: many}
	q.changed.L = &q.mu
	return q
}

func (q *queue) put(n int, c chunk) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	s := &q.shares[n]
	if q.closed {
		return ErrStopping
	}
	if s.events > 0 && (s.events+len(c.items) > q.most || len(s.chunks) >= q.most/callWeight) {
		return ErrBusy
	}
	s.chunks = append(s.chunks, c)
	s.events += len(c.items)
	q.calls++
	q.wake()
	return nil
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

func (q *queue) waiting() (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i := range q.shares {
		n += q.shares[i].events
	}
	return n
}

// take waits until a flush is due and returns up to n events for it, at least one call's; nil once the
// queue is closed and empty.
func (q *queue) take(n int) *taken {
	q.mu.Lock()
	defer q.mu.Unlock()
	big, small := q.due()
	for big == nil && !small {
		if q.closed && q.calls == 0 {
			return nil
		}
		q.changed.Wait()
		big, small = q.due()
	}
	t := &taken{small: small}
	for i := range q.shares {
		s := &q.shares[i]
		if s != big && (!small || s.busy || len(s.chunks) == 0) {
			continue
		}
		s.busy = true
		t.shares = append(t.shares, s)
		k := 0
		for k < len(s.chunks) && (len(t.chunks) == 0 || len(s.chunks[k].items) <= n) {
			t.chunks = append(t.chunks, s.chunks[k])
			n -= len(s.chunks[k].items)
			s.events -= len(s.chunks[k].items)
			k++
		}
		rest := copy(s.chunks, s.chunks[k:])
		clear(s.chunks[rest:])
		s.chunks = s.chunks[:rest]
	}
	q.calls -= len(t.chunks)
	if t.small {
		q.small, q.late = true, false
		if q.timer != nil {
			q.timer.Stop()
			q.timer = nil
		}
	}
	q.wake()
	return t
}

// done says that what was taken is stored and answered.
func (q *queue) done(t *taken) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range t.shares {
		s.busy = false
	}
	if t.small {
		q.small = false
		q.crowd = max(len(t.chunks)+q.calls, q.crowd-q.crowd/crowdFade-1)
	}
	q.wake()
	if q.closed {
		q.changed.Broadcast()
	}
}

// wake has a committer look, if there is something for it.
func (q *queue) wake() {
	if big, small := q.due(); big != nil || small {
		q.changed.Signal()
	}
}

// due returns the share that is due by itself, or whether those with few events are. It sees to it that
// somebody asks again when these have waited for company long enough.
func (q *queue) due() (big *share, small bool) {
	for i := range q.shares {
		s := &q.shares[i]
		switch {
		case s.busy || len(s.chunks) == 0:
		case s.events >= q.many:
			return s, false
		default:
			small = true
		}
	}
	if !small || q.small {
		return nil, false
	}
	if q.crowd < worthIt || 2*q.calls >= q.crowd || q.late || q.closed {
		return nil, true
	}
	if q.timer == nil {
		q.timer = time.AfterFunc(linger, func() {
			q.mu.Lock()
			defer q.mu.Unlock()
			q.late = true
			q.wake()
		})
	}
	return nil, false
}
