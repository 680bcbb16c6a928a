package metering

import (
	"sync"

	"github.com/accrue-billing/accrue/internal/coalesce"
)

// callWeight is how many events take as much memory as the connection and the request of the call that waits
// with them: calls of fewer events count for as many.
const callWeight = 20

// queue holds what waits to be stored, by share of the accounts. Shares with few events go together, when the crowd of
// their callers is to begin; one with many goes by itself, beside others, in one flush at a time.
type queue struct {
	mu      sync.Mutex
	changed sync.Cond // a flush is due, or one has ended after the queue was closed
	shares  []share
	most    int             // events that wait in a share
	many    int             // events that make a flush of their own
	calls   int             // that wait
	crowd   *coalesce.Crowd // of these, and of those in flushes of few events
	closed  bool
}

type share struct {
	chunks []chunk
	events int
	busy   bool // its many are in a flush
}

// taken is what goes into one flush.
type taken struct {
	chunks []chunk
	big    *share // they are the many of this share; nil: of shares with few events
}

func newQueue(shares, most, many int) *queue {
	q := &queue{shares: make([]share, shares), most: most, many: many}
	q.changed.L = &q.mu
	q.crowd = coalesce.NewCrowd(&q.mu, q.changed.Signal)
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
	q.crowd.Waits(q.calls)
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
	big, few := q.due()
	for big == nil && !few {
		if q.closed && q.calls == 0 {
			return nil
		}
		q.changed.Wait()
		big, few = q.due()
	}
	t := &taken{big: big}
	for i := range q.shares {
		s := &q.shares[i]
		if s != big && (!few || s.busy) {
			continue
		}
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
	if few {
		q.crowd.Begin(len(t.chunks))
	} else {
		big.busy = true
	}
	q.crowd.Waits(q.calls)
	q.wake()
	return t
}

// done says that what was taken is stored and answered.
func (q *queue) done(t *taken) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if t.big != nil {
		t.big.busy = false
	} else {
		q.crowd.End(len(t.chunks), false)
	}
	q.wake()
	if q.closed {
		q.changed.Broadcast()
	}
}

// wake has a committer look, if there is something for it.
func (q *queue) wake() {
	if big, few := q.due(); big != nil || few {
		q.changed.Signal()
	}
}

// due returns the share whose many events are due, or whether the few of the others are.
func (q *queue) due() (big *share, few bool) {
	for i := range q.shares {
		s := &q.shares[i]
		switch {
		case s.busy || len(s.chunks) == 0:
		case s.events >= q.many:
			return s, false
		default:
			few = true
		}
	}
	return nil, few && (q.closed || q.crowd.Due())
}
