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
		r := coalesce.New(1, 100, time.Minute, func(_ context.Context, keys []int) (map[int]int, error) {
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
				v, ok, err := r.Get(t.Context(), i)
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
		go func() { _, _, _ = r.Get(t.Context(), "a") }()
		time.Sleep(time.Millisecond)
		stored.Store(7)
		if v, _, _ := r.Get(t.Context(), "a"); v != 7 {
			t.Errorf("read %d, wrote 7 before", v)
		}
	})
}

func TestFailuresReachEveryCaller(t *testing.T) {
	t.Parallel()

	broken := errors.New("broken")
	r := coalesce.New(2, 1, time.Minute, func(context.Context, []int) (map[int]int, error) { return nil, broken })
	if _, _, err := r.Get(t.Context(), 1); !errors.Is(err, broken) {
		t.Errorf("err = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := r.Get(ctx, 1); err == nil {
		t.Error("no error")
	}
}
