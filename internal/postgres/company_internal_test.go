package postgres

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Those who were answered together get time to come again together.
func TestCompany_ComesAgain(t *testing.T) {
	t.Parallel()
	const takes = 10 * time.Millisecond // a transaction
	for _, c := range []struct {
		name   string
		guests int
		again  []int         // so many ms after they were answered
		want   []int         // how many share each transaction
		begins time.Duration // the second, after the first has ended
	}{
		{"WhoIsAloneWaitsForNobody", 1, []int{0}, []int{1, 1}, 0},
		{"TheFirstWaitsForMoreThanHalf", 8, []int{0, 1, 1, 2, 2, 3, 3, 3}, []int{8, 5, 3}, 2 * time.Millisecond},
		{"ButNotForLongerThanHalfOfWhatOneTakes", 8, []int{0, 2, 7}, []int{8, 2, 1}, takes / 2},
		{"WhoComesLaterFindsNobodyWaiting", 2, []int{20}, []int{2, 1}, 20 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var got []int
				var began []time.Time
				together := company{patience: time.Hour}
				together.host = func(guests []*guest) {
					mu.Lock()
					got, began = append(got, len(guests)), append(began, time.Now())
					mu.Unlock()
					time.Sleep(takes)
					for _, g := range guests {
						close(g.turn)
					}
				}
				ask := func() *guest {
					g := &guest{turn: make(chan struct{})}
					together.invite(g)
					return g
				}
				// They come together in the one after the first, which is alone.
				alone := ask()
				synctest.Wait()
				var all sync.WaitGroup
				for i := range c.guests {
					all.Go(func() {
						<-ask().turn
						if i < len(c.again) {
							time.Sleep(time.Duration(c.again[i]) * time.Millisecond)
							<-ask().turn
						}
					})
				}
				<-alone.turn
				all.Wait()
				time.Sleep(takes) // nobody comes any more
				if got = got[1:]; !slices.Equal(got, c.want) {
					t.Errorf("%v shared the transactions, want %v", got, c.want)
				}
				if waited := began[2].Sub(began[1]) - takes; waited != c.begins {
					t.Errorf("the second began %s after the first had ended, want %s", waited, c.begins)
				}
			})
		})
	}
}
