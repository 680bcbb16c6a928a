package coalesce_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/accrue-billing/accrue/internal/coalesce"
)

// writer has each of its callers in a write with the others, as a crowd says.
type writer struct {
	mu      sync.Mutex
	crowd   *coalesce.Crowd
	waiting []chan struct{}
	takes   time.Duration
	sizes   []int
}

func newWriter(takes time.Duration) *writer {
	w := &writer{takes: takes}
	w.crowd = coalesce.NewCrowd(&w.mu, w.begin)
	return w
}

func (w *writer) begin() {
	w.crowd.Waits(len(w.waiting))
	if !w.crowd.Due() {
		return
	}
	those := w.waiting
	w.waiting = nil
	w.sizes = append(w.sizes, len(those))
	w.crowd.Begin(len(those))
	go func() {
		time.Sleep(w.takes)
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, c := range those {
			close(c)
		}
		w.crowd.End(len(those), false)
		w.begin()
	}()
}

func (w *writer) write() {
	done := make(chan struct{})
	w.mu.Lock()
	w.waiting = append(w.waiting, done)
	w.begin()
	w.mu.Unlock()
	<-done
}

func TestCrowd(t *testing.T) {
	t.Parallel()
	const takes = 10 * time.Millisecond
	for _, c := range []struct {
		name  string
		comes []int // so many ms after the beginning; each comes once
		sizes []int // of the writes
		last  int   // ms until the last is answered
	}{
		{"AloneNobodyWaits", []int{0, 10, 20}, []int{1, 1, 1}, 30},
		{"TwoAreUnderWayAtATime", []int{0, 1, 2, 3}, []int{1, 1, 2}, 20},
		{"InACrowdHalfOfItGoesTogether", append(crowd(16), 25, 25, 25, 25, 25, 25, 26), []int{1, 1, 14, 7}, 36},
		{"NobodyWaitsLongForACrowdThatHasGone", append(crowd(16), 25), []int{1, 1, 14, 1}, 37},
		{"FewWaitForNobody", []int{0, 1, 2, 2, 2, 2, 20, 21}, []int{1, 1, 4, 1, 1}, 31},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w, begun := newWriter(takes), time.Now()
				var all sync.WaitGroup
				for _, ms := range c.comes {
					all.Go(func() {
						time.Sleep(time.Duration(ms) * time.Millisecond)
						w.write()
					})
				}
				all.Wait()
				if took := int(time.Since(begun).Milliseconds()); !slices.Equal(w.sizes, c.sizes) || took != c.last {
					t.Errorf("writes of %v, %d ms; want %v, %d ms", w.sizes, took, c.sizes, c.last)
				}
			})
		})
	}
}

// crowd is n who come at once.
func crowd(n int) []int { return make([]int, n) }

// A write that takes long keeps nobody from beginning, and when it ends at last it is not counted twice.
func TestCrowd_DoesNotWaitForWhatIsOverdue(t *testing.T) {
	t.Parallel()
	c := coalesce.NewCrowd(&sync.Mutex{}, func() {})
	begins := func() bool {
		c.Waits(1)
		due := c.Due()
		if due {
			c.Begin(1)
		}
		return due
	}
	for i, step := range []struct {
		what string
		do   func()
		want bool
	}{
		{"nothing is under way", func() {}, true},
		{"one is", func() {}, true},
		{"two are", func() {}, false},
		{"one of them is overdue", c.Overdue, true},
		{"so two others are under way", func() {}, false},
		{"it has ended", func() { c.End(1, true) }, false},
		{"another has", func() { c.End(1, false) }, true},
	} {
		step.do()
		if got := begins(); got != step.want {
			t.Fatalf("step %d, %s: begins %t, want %t", i, step.what, got, step.want)
		}
	}
}
