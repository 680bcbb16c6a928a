package coalesce

import (
	"sync"
	"time"
)

// Under load the processor is what is short, and a write costs, besides what is in it, as much as several of those who
// go in it: they wait less if they go together. If all went together, the processor would stand still whenever the
// disk is waited for; so one half writes while the other is on its way.
const (
	linger    = 2 * time.Millisecond // at most
	worthIt   = 8                    // callers at once; with fewer nobody waits for anybody
	crowdFade = 8                    // each write forgets one in so many of the callers that once were
	atOnce    = 2                    // writes under way that keep others from beginning
)

// Crowd says when callers who wait begin a write together: when they are half as many as there lately were at once, or
// have waited for a moment, and fewer than two are under way. All of it is called with the lock of whoever has the callers.
type Crowd struct {
	lock sync.Locker
	wake func()

	waiting int
	inside  int // writes
	writes  int // under way
	lately  int // waited or were inside at once
	timer   *time.Timer
	late    bool // those who wait have waited long enough
}

// NewCrowd returns a crowd of nobody. It calls wake, locked, when those who were told to wait have waited long enough.
func NewCrowd(lock sync.Locker, wake func()) *Crowd { return &Crowd{lock: lock, wake: wake} }

// Waits says that n wait who could begin.
func (c *Crowd) Waits(n int) { c.waiting = n }

// Due returns whether those who wait are to begin.
func (c *Crowd) Due() bool {
	if c.waiting == 0 || c.writes >= atOnce {
		return false
	}
	if c.lately < worthIt || 2*c.waiting >= c.lately || c.late {
		return true
	}
	if c.timer == nil {
		var timer *time.Timer
		timer = time.AfterFunc(linger, func() {
			c.lock.Lock()
			defer c.lock.Unlock()
			if c.timer == timer { // they have not begun just now
				c.late = true
				c.wake()
			}
		})
		c.timer = timer
	}
	return false
}

// Begin says that n of those who waited begin a write.
func (c *Crowd) Begin(n int) {
	c.waiting -= n
	c.inside += n
	c.writes++
	c.late = false
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}

// Overdue says that a write takes so long that it keeps nobody from beginning any more.
func (c *Crowd) Overdue() { c.writes-- }

// End says that a write of n has ended, and whether it was overdue.
func (c *Crowd) End(n int, overdue bool) {
	if !overdue {
		c.writes--
	}
	c.lately = max(c.inside+c.waiting, c.lately-c.lately/crowdFade-1)
	c.inside -= n
}
