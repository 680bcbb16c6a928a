package clock

import (
	"context"
	"errors"
	"testing"
	"time"
)

// followed is a clock that is followed, on a machine whose own says something else.
type followed struct {
	*Follower
	there, here time.Time
	takes       time.Duration // to answer, half of it on the way
	away        error
}

func follow(t *testing.T) *followed {
	t.Helper()
	c := &followed{there: time.Date(2026, time.March, 10, 9, 0, 0, 0, time.UTC), here: time.Date(2026, time.March, 10, 10, 0, 0, 0, time.UTC)}
	c.Follower = &Follower{here: func() time.Time { return c.here }, ask: func(context.Context) (time.Time, error) {
		c.pass(c.takes / 2)
		said := c.there
		c.pass(c.takes / 2)
		return said, c.away
	}}
	c.set(t)
	return c
}

func (c *followed) set(t *testing.T) {
	t.Helper()
	if err := c.Set(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (c *followed) pass(d time.Duration) { c.there, c.here = c.there.Add(d), c.here.Add(d) }

// wantOff holds by how much the clock differs from the one that it follows.
func (c *followed) wantOff(t *testing.T, when string, want time.Duration) {
	t.Helper()
	if got := c.Now().Sub(c.there); got != want {
		t.Errorf("%s it is off by %s, want %s", when, got, want)
	}
}

func TestFollower_GoesByTheOtherClock(t *testing.T) {
	t.Parallel()
	c := follow(t)
	c.wantOff(t, "an hour behind this machine's clock", 0)
	c.pass(3 * time.Minute)
	c.wantOff(t, "between two settings", 0)
	c.takes = 4 * time.Second
	c.set(t)
	c.wantOff(t, "set by an answer that took long", 0)

	c.takes, c.there = 0, c.there.Add(-2*time.Minute)
	c.wantOff(t, "before it is set anew", 2*time.Minute)
	c.set(t)
	c.wantOff(t, "set back", 0)
}

// A clock that is set for every difference would go back as often as forward.
func TestFollower_IsNotSetForWhatAnAnswerLeavesInDoubt(t *testing.T) {
	t.Parallel()
	c := follow(t)
	c.there = c.there.Add(-tolerance)
	c.set(t)
	c.wantOff(t, "off by what is tolerated", tolerance)
	c.there = c.there.Add(-time.Microsecond)
	c.set(t)
	c.wantOff(t, "off by more", 0)

	c.there, c.takes = c.there.Add(-time.Second), 2*time.Second
	c.set(t)
	c.wantOff(t, "off by no more than half of what the answer took", time.Second)
}

func TestFollower_GoesOnWhileTheOtherClockIsAway(t *testing.T) {
	t.Parallel()
	c := follow(t)
	c.away = errors.New("no answer")
	c.pass(time.Hour)
	if err := c.Set(t.Context()); !errors.Is(err, c.away) {
		t.Errorf("%v, want %v", err, c.away)
	}
	c.wantOff(t, "an hour later", 0)
	if f, err := Follow(t.Context(), c.ask); !errors.Is(err, c.away) {
		t.Errorf("a clock that was never set: %v, %v", f, err)
	}
}
