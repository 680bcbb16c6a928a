package clock

import (
	"context"
	"sync/atomic"
	"time"
)

// A Follower is a clock that is set by another, which several machines share: their database's. From one setting to the
// next it goes on by the time that passes on this machine, so that it differs from no other machine that follows the same
// clock, and does not jump where this machine's clock is set. It is safe for concurrent use.
type Follower struct {
	ask  func(ctx context.Context) (time.Time, error)
	here func() time.Time // of which only differences matter
	last atomic.Pointer[setting]
}

// setting is what time it was there when it was what here.
type setting struct{ there, here time.Time }

// tolerance is by how much a Follower may be off before it is set anew: clocks of quartz drift so far in an hour, and a
// clock that is never set back by less than this seldom goes back at all.
const tolerance = 100 * time.Millisecond

// Follow returns a clock that goes by what ask tells. It is set before it is returned, and again by Set.
func Follow(ctx context.Context, ask func(ctx context.Context) (time.Time, error)) (*Follower, error) {
	f := &Follower{ask: ask, here: time.Now} //nolint:forbidigo // the machine's monotonic clock
	return f, f.Set(ctx)
}

// Now returns the time there. It is a Clock.
func (f *Follower) Now() time.Time { return f.last.Load().at(f.here()).Truncate(time.Microsecond) }

func (s *setting) at(here time.Time) time.Time { return s.there.Add(here.Sub(s.here)) }

// Set asks what time it is there. The clock is set if it is off by more than the answer, which may be as old as it took
// to come, leaves in doubt.
func (f *Follower) Set(ctx context.Context) error {
	asked := f.here()
	there, err := f.ask(ctx)
	if err != nil {
		return err
	}
	doubt := f.here().Sub(asked) / 2
	said := &setting{there.UTC(), asked.Add(doubt)}
	if was := f.last.Load(); was == nil || was.at(said.here).Sub(said.there).Abs() > doubt+tolerance {
		f.last.Store(said)
	}
	return nil
}

// setEvery is how often a Follower is set.
const setEvery = 10 * time.Second

// Run sets the clock again and again until ctx ends. While it cannot be set it goes on as it was.
func (f *Follower) Run(ctx context.Context) error {
	tick := time.NewTicker(setEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			_ = f.Set(ctx) // whoever needs the database says that it is away
		}
	}
}
