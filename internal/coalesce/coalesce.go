// Package coalesce lets many callers share one read of the database, or one write.
//
// It owns: who waits for which read, and when those who wait for a write begin it. It does not own: what is read or
// written, or for how long it is true. A read is too short to wait for company: whoever asks while one is under way goes
// with the next. Writes that go together wait for it a moment (Crowd): those of usage in metering's queue, those of
// operations in postgres's company.
//
// Always true: a read that a caller gets the result of began after the caller asked, so a caller reads
// its own writes and everything that was committed before; under load, the number of reads does not
// grow with the number of callers.
package coalesce

import (
	"context"
	"sync"
	"time"
)

// Reads shares reads of values of type V by keys of type K. Create it with New; it is safe for
// concurrent use.
type Reads[K comparable, V any] struct {
	read    func(context.Context, []K) (map[K]V, error)
	readers int
	most    int
	timeout time.Duration

	mu      sync.Mutex
	running int
	waiting []*batch[K, V]
}

type batch[K comparable, V any] struct {
	keys  []K
	asked map[K]struct{}
	until time.Time
	done  chan struct{}
	found map[K]V
	err   error
}

// New returns a Reads that has up to readers reads under way at once, each of up to most keys. A second
// one begins where more keys wait than one can carry: what waits together costs everybody less. read
// returns the values that it found; it may leave keys out. timeout bounds the wait of every caller.
func New[K comparable, V any](readers, most int, timeout time.Duration, read func(context.Context, []K) (map[K]V, error)) *Reads[K, V] {
	return &Reads[K, V]{read: read, readers: readers, most: most, timeout: timeout}
}

// Get returns the value of a key, and false if the read did not find one. It takes no context: a read
// goes on for those who share it, and a caller who could stop waiting would need a timer of its own.
func (r *Reads[K, V]) Get(key K) (v V, ok bool, err error) {
	b := r.join(key)
	<-b.done
	v, ok = b.found[key]
	return v, ok, b.err
}

func (r *Reads[K, V]) join(key K) *batch[K, V] {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b *batch[K, V]
	if n := len(r.waiting); n > 0 && len(r.waiting[n-1].keys) < r.most {
		b = r.waiting[n-1]
	} else {
		b = &batch[K, V]{
			asked: map[K]struct{}{}, done: make(chan struct{}),
			until: time.Now().Add(r.timeout), //nolint:forbidigo // of a time-out, which goes by real time
		}
		r.waiting = append(r.waiting, b)
	}
	if _, ok := b.asked[key]; !ok {
		b.asked[key] = struct{}{}
		b.keys = append(b.keys, key)
	}
	if r.running == 0 || (r.running < r.readers && len(r.waiting) > 1) {
		r.running++
		go r.work()
	}
	return b
}

// work reads what waits until nothing does.
func (r *Reads[K, V]) work() {
	for {
		r.mu.Lock()
		if len(r.waiting) == 0 {
			r.running--
			r.mu.Unlock()
			return
		}
		b := r.waiting[0]
		r.waiting = r.waiting[1:]
		r.mu.Unlock()
		ctx, cancel := context.WithDeadline(context.Background(), b.until)
		b.found, b.err = r.read(ctx, b.keys)
		cancel()
		close(b.done)
	}
}
