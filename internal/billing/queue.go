package billing

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
)

// A queue lets those who could only refuse each other go one after the other, in the order in which they came.
// It holds nothing of the database's, and nothing depends on it: what may be at once is decided in the transaction,
// which other processes write to as well.
type queue struct {
	mu    sync.Mutex
	lines map[account.ID][]chan struct{} // the first of a line has the turn; its channel is closed
}

// join returns when it is the caller's turn, or ctx has ended. The caller leaves the line when it has done.
func (q *queue) join(ctx context.Context, a account.ID) (leave func()) {
	mine := make(chan struct{})
	q.mu.Lock()
	if q.lines == nil {
		q.lines = map[account.ID][]chan struct{}{}
	}
	if q.lines[a] = append(q.lines[a], mine); q.lines[a][0] == mine {
		close(mine)
	}
	q.mu.Unlock()
	select {
	case <-mine:
	case <-ctx.Done():
	}
	return func() { q.leave(a, mine) }
}

func (q *queue) leave(a account.ID, mine chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	at := slices.Index(q.lines[a], mine)
	rest := slices.Delete(q.lines[a], at, at+1)
	if len(rest) == 0 {
		delete(q.lines, a)
		return
	}
	q.lines[a] = rest
	if at == 0 {
		close(rest[0])
	}
}

// patient bounds a wait before the provider's call: half of the caller's time is left for the call.
func patient(ctx context.Context) (context.Context, context.CancelFunc) {
	d := CallTimeout
	if end, ok := ctx.Deadline(); ok {
		d = time.Until(end) / 2
	}
	return context.WithTimeout(ctx, d)
}
