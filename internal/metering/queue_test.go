package metering

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// callOf is one call with n events.
func callOf(n int) chunk { return chunk{items: make([]item, n)} }

func mustPut(t *testing.T, q *queue, share int, chunks ...chunk) {
	t.Helper()
	for _, c := range chunks {
		if err := q.put(share, c); err != nil {
			t.Fatal(err)
		}
	}
}

// crowded is a queue of two shares in which 16 calls were just stored together.
func crowded(t *testing.T) *queue {
	t.Helper()
	q := newQueue(2, 1000, 100)
	for i := range 16 {
		mustPut(t, q, i%2, callOf(1))
	}
	all := q.take(2000)
	if len(all.chunks) != 16 {
		t.Fatalf("%d calls went together", len(all.chunks))
	}
	q.done(all)
	return q
}

// taking takes in the background and returns where the flush comes.
func taking(q *queue) chan *taken {
	c := make(chan *taken, 1)
	go func() { c <- q.take(2000) }()
	synctest.Wait()
	return c
}

func TestQueue(t *testing.T) {
	t.Parallel()

	t.Run("AloneNobodyWaits", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			q, begin := newQueue(2, 1000, 100), time.Now()
			for range 20 {
				mustPut(t, q, 1, callOf(1))
				q.done(q.take(2000))
			}
			if waited := time.Since(begin); waited > 0 {
				t.Errorf("waited %s", waited)
			}
		})
	})
	t.Run("InACrowdHalfOfItGoesTogether", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			q, begin := crowded(t), time.Now()
			flush := taking(q)
			for i := range 7 {
				mustPut(t, q, i%2, callOf(1))
			}
			synctest.Wait()
			if len(flush) > 0 {
				t.Fatal("7 of 16 did not wait for more")
			}
			mustPut(t, q, 1, callOf(1))
			if got := <-flush; len(got.chunks) != 8 || time.Since(begin) > 0 {
				t.Errorf("%d calls went together after %s", len(got.chunks), time.Since(begin))
			}
		})
	})
	t.Run("NobodyWaitsLongForACrowdThatHasGone", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			q, begin := crowded(t), time.Now()
			for range 20 {
				mustPut(t, q, 0, callOf(1))
				q.done(q.take(2000))
			}
			if waited := time.Since(begin); waited == 0 || waited > 20*time.Millisecond {
				t.Errorf("20 calls waited %s", waited)
			}
		})
	})
	t.Run("ManyEventsGoByThemselvesAndWaitForNobody", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			q, begin := crowded(t), time.Now()
			mustPut(t, q, 0, callOf(1))
			flush := taking(q)
			mustPut(t, q, 1, callOf(100))
			if got := <-flush; len(got.chunks) != 1 || len(got.chunks[0].items) != 100 || time.Since(begin) > 0 {
				t.Errorf("%d calls after %s", len(got.chunks), time.Since(begin))
			}
			if got := q.take(2000); len(got.chunks) != 1 || len(got.chunks[0].items) != 1 {
				t.Error("the few of the other share had to wait for them")
			}
		})
	})
	t.Run("AShareIsInOneFlushAtATime", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			q := newQueue(2, 1000, 100)
			mustPut(t, q, 0, callOf(150), callOf(1))
			first := q.take(120)
			mustPut(t, q, 0, callOf(200))
			second := taking(q)
			if len(first.chunks) != 1 || len(second) > 0 {
				t.Fatal("two flushes at a time")
			}
			q.done(first)
			if got := <-second; len(got.chunks) != 2 || len(got.chunks[0].items) != 1 {
				t.Error("not in the order in which they came")
			}
		})
	})
	t.Run("TakesNoMoreThanAFlushMayHold", func(t *testing.T) {
		t.Parallel()
		q := newQueue(2, 1000, 100)
		mustPut(t, q, 0, callOf(40), callOf(40))
		mustPut(t, q, 1, callOf(40))
		if got := q.take(90); len(got.chunks) != 2 || q.waiting() != 40 {
			t.Errorf("%d calls, %d events wait", len(got.chunks), q.waiting())
		}
	})
	t.Run("IsBounded", func(t *testing.T) {
		t.Parallel()
		q := newQueue(2, 40, 100)
		mustPut(t, q, 0, callOf(40))
		if err := q.put(0, callOf(1)); !errors.Is(err, ErrBusy) {
			t.Error(err)
		}
		mustPut(t, q, 1, callOf(50)) // one call may be larger than the queue

		q = newQueue(2, 40, 100)
		mustPut(t, q, 0, callOf(39), callOf(1)) // which fills it
		mustPut(t, q, 1, callOf(1))
		if err := q.put(1, callOf(40)); !errors.Is(err, ErrBusy) {
			t.Errorf("41 events wait: %v", err)
		}
		mustPut(t, q, 1, callOf(1))
		if err := q.put(1, callOf(1)); !errors.Is(err, ErrBusy) {
			t.Errorf("calls of few events weigh more than those: %v", err)
		}
	})
	// What one flush has left waits for company as it did, not for that flush to end.
	t.Run("WhatAFlushHasLeftGoesSoon", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			q := crowded(t)
			begun := time.Now()
			took := make(chan *taken, 2)
			for range 2 {
				go func() { took <- q.take(90) }()
			}
			synctest.Wait()
			for i := range 4 { // too few to go at once
				mustPut(t, q, i%2, callOf(45))
			}
			for range 2 {
				if got := <-took; len(got.chunks) != 2 {
					t.Errorf("%d calls in a flush, want 2", len(got.chunks))
				}
			}
			if waited := time.Since(begun); waited == 0 || waited > 10*time.Millisecond {
				t.Errorf("the last waited %s", waited)
			}
		})
	})
	// Whatever comes when, and however long it takes to store: all of it is stored, soon, also what waits when the queue is closed.
	t.Run("ForgetsNobody", func(t *testing.T) {
		t.Parallel()
		for seed := range uint64(50) {
			synctest.Test(t, func(t *testing.T) {
				q := newQueue(2, 100_000, 100)
				r := rand.New(rand.NewPCG(seed, 0))
				var committers, callers sync.WaitGroup
				for range 2 {
					r := rand.New(rand.NewPCG(seed, r.Uint64()))
					committers.Go(func() {
						for t := q.take(300); t != nil; t = q.take(300) {
							time.Sleep(time.Duration(r.IntN(4000)) * time.Microsecond)
							for _, c := range t.chunks {
								c.call.finish()
							}
							q.done(t)
						}
					})
				}
				for range 40 {
					r := rand.New(rand.NewPCG(seed, r.Uint64()))
					callers.Go(func() {
						for range 10 {
							time.Sleep(time.Duration(r.IntN(3000)) * time.Microsecond)
							c := callOf(1 + r.IntN(3)*r.IntN(60))
							c.call = &call{done: make(chan struct{})}
							c.call.pending.Store(1)
							begun := time.Now()
							if q.put(r.IntN(2), c) != nil {
								return // it was closed
							}
							<-c.call.done
							if waited := time.Since(begun); waited > 200*time.Millisecond {
								t.Errorf("seed %d: a call waited %s", seed, waited)
							}
						}
					})
				}
				if seed%2 == 0 {
					callers.Wait()
				} else {
					time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
				}
				q.close()
				callers.Wait()
				committers.Wait()
				if q.calls != 0 || q.waiting() != 0 {
					t.Errorf("seed %d: %d calls of %d events still wait", seed, q.calls, q.waiting())
				}
			})
		}
	})
	t.Run("WhoeverWaitsEndsWhenItIsEmptied", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			q := newQueue(1, 1000, 100)
			mustPut(t, q, 0, callOf(150), callOf(150))
			first := q.take(150)
			ended := make(chan struct{})
			for range 3 {
				go func() {
					for f := q.take(150); f != nil; f = q.take(150) {
						q.done(f)
					}
					ended <- struct{}{}
				}()
			}
			synctest.Wait()
			q.close() // what is left waits for the flush that its share is in
			synctest.Wait()
			q.done(first)
			for range 3 {
				<-ended
			}
		})
	})
	t.Run("IsEmptiedWhenClosed", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			q := crowded(t)
			mustPut(t, q, 0, callOf(1))
			flush := taking(q)
			q.close()
			if err := q.put(0, callOf(1)); !errors.Is(err, ErrStopping) {
				t.Error(err)
			}
			other := taking(q)
			var stored int
			for _, got := range []*taken{<-flush, <-other} {
				if got != nil {
					stored += len(got.chunks)
					q.done(got)
				}
			}
			if stored != 1 {
				t.Errorf("%d calls were stored", stored)
			}
		})
	})
}
