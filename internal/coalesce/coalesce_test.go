package coalesce_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/accrue-billing/accrue/internal/coalesce"
)

func TestCallersShareReads(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		r := coalesce.New(2, 100, time.Minute, func(_ context.Context, keys []int) (map[int]int, error) {
			reads.Add(1)
			time.Sleep(time.Second)
			found := map[int]int{}
			for _, k := range keys {
				found[k] = k * k
			}
			delete(found, 13)
			return found, nil
		})
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				v, ok, err := r.Get(i)
				if err != nil || ok == (i == 13) || (ok && v != i*i) {
					t.Errorf("%d: %d, %v, %v", i, v, ok, err)
				}
			})
		}
		wg.Wait()
		if n := reads.Load(); n > 2 {
			t.Errorf("%d reads for 50 callers", n)
		}
	})
}

// A caller that asks while a read is under way gets the next one: it may have written since.
func TestAReadBeginsAfterItsCallersAsked(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var stored atomic.Int64
		r := coalesce.New(1, 100, time.Minute, func(context.Context, []string) (map[string]int64, error) {
			v := stored.Load()
			time.Sleep(time.Second)
			return map[string]int64{"a": v}, nil
		})
		go func() { _, _, _ = r.Get("a") }()
		time.Sleep(time.Millisecond)
		stored.Store(7)
		if v, _, _ := r.Get("a"); v != 7 {
			t.Errorf("read %d, wrote 7 before", v)
		}
	})
}

// Reading ends when nobody waits, and begins again with whoever asks next.
func TestReadingBeginsAgain(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		r := coalesce.New(1, 100, time.Minute, func(_ context.Context, keys []int) (map[int]int, error) { return map[int]int{keys[0]: 1}, nil })
		for i := range 3 {
			if _, ok, err := r.Get(i); !ok || err != nil {
				t.Errorf("%d: %t, %v", i, ok, err)
			}
			synctest.Wait()
		}
	})
}

func TestFailuresReachEveryCaller(t *testing.T) {
	t.Parallel()

	broken := errors.New("broken")
	r := coalesce.New(2, 1, time.Minute, func(context.Context, []int) (map[int]int, error) { return nil, broken })
	if _, _, err := r.Get(1); !errors.Is(err, broken) {
		t.Errorf("err = %v", err)
	}
}

// One read at a time, and another only where one cannot carry all that waits.
func TestASecondReadBeginsWhenOneIsFull(t *testing.T) {
	t.Parallel()

	for callers, want := range map[int]int64{1: 1, 11: 1, 12: 2, 50: 2} { // one is being read, ten wait
		synctest.Test(t, func(t *testing.T) {
			var running, most atomic.Int64
			r := coalesce.New(2, 10, time.Minute, func(context.Context, []int) (map[int]int, error) {
				n := running.Add(1)
				defer running.Add(-1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				time.Sleep(time.Second)
				return nil, nil
			})
			var wg sync.WaitGroup
			for i := range callers {
				wg.Go(func() { _, _, _ = r.Get(i) })
				synctest.Wait()
			}
			wg.Wait()
			if most.Load() != want {
				t.Errorf("%d callers: %d reads at once, want %d", callers, most.Load(), want)
			}
		})
	}
}

// A database that does not answer keeps nobody for longer than the time-out, however many wait.
func TestNobodyWaitsForLongerThanTheTimeout(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		r := coalesce.New(1, 1, time.Minute, func(ctx context.Context, _ []int) (map[int]int, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		begun := time.Now()
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				if _, _, err := r.Get(i); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("err = %v", err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begun); took > time.Minute {
			t.Errorf("waited for %s", took)
		}
	})
}
