package worker

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/telemetry"
)

// Watch checks the funds and alerts of accounts whose usage changed, soon after and not more often than once per
// Every. What changed is known to the process alone, so it checks the last of it before it ends, and all accounts
// that there is anything to look at once after it has begun: for the process before it that was killed.
type Watch struct {
	Core  *billing.Core
	Every time.Duration // default 500 ms

	mu      sync.Mutex
	changed map[account.ID]bool

	outage telemetry.Outage // of those that have changed; Run's own
}

// watchedAtOnce is how many accounts one question asks for.
const watchedAtOnce = 1000

// maxWatched bounds what waits to be checked; beyond it accounts wait for their next change.
const maxWatched = 100_000

// Changed notes accounts to be checked. It never blocks.
func (w *Watch) Changed(accounts []account.ID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = map[account.ID]bool{}
	}
	for _, a := range accounts {
		if len(w.changed) < maxWatched {
			w.changed[a] = true
		}
	}
}

func (w *Watch) take() []account.ID {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := slices.Collect(maps.Keys(w.changed))
	w.changed = nil
	return out
}

// Run checks until ctx ends.
func (w *Watch) Run(ctx context.Context) error {
	every := w.Every
	if every <= 0 {
		every = 500 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	w.outage = telemetry.Outage{Log: w.Core.Log, Began: "funds not checked; tried again until they are", Ended: "funds are checked again"}
	outage := telemetry.Outage{Log: w.Core.Log, Began: "watched accounts not read; tried again until they are", Ended: "watched accounts are read again"}
	after, more := account.ID{}, true
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastChecks)
			defer cancel()
			w.checkChanged(last)
			return nil
		case <-tick.C:
		}
		w.checkChanged(ctx)
		if more {
			var err error
			if after, more, err = w.checkNext(ctx, after); ctx.Err() == nil {
				outage.Tried(ctx, err)
			}
		}
	}
}

// lastChecks is how long the checks may take when the process ends.
const lastChecks = 5 * time.Second

// atATime is how many accounts are looked at between two rounds of those that have changed.
const atATime = 100

// checkNext looks at the watched accounts after the given one. It returns the last of them, and whether there may be more.
func (w *Watch) checkNext(ctx context.Context, after account.ID) (account.ID, bool, error) {
	accounts, err := w.Core.DB.Alerts().AllWatched(ctx, after, atATime)
	if err != nil {
		return after, true, err
	}
	for _, a := range accounts {
		w.checkOne(ctx, a)
		after = a
	}
	return after, len(accounts) == atATime, nil
}

func (w *Watch) checkChanged(ctx context.Context) {
	for some := range slices.Chunk(w.take(), watchedAtOnce) {
		if err := w.check(ctx, some); ctx.Err() == nil {
			w.outage.Tried(ctx, err)
		}
	}
}

// check looks at those of the accounts that have anything to look at, which most have not.
// Where the database cannot say which, all of them wait for the next round.
func (w *Watch) check(ctx context.Context, accounts []account.ID) error {
	watched, err := w.Core.DB.Alerts().Watched(ctx, accounts)
	if err != nil {
		w.Changed(accounts)
		return err
	}
	for _, a := range watched {
		w.checkOne(ctx, a)
	}
	return nil
}

func (w *Watch) checkOne(ctx context.Context, a account.ID) {
	err := errs.Contain(func() error { return billing.Watcher{Core: w.Core}.Check(ctx, a) })
	if err == nil || ctx.Err() != nil {
		return
	}
	w.Core.Log.WarnContext(ctx, "funds not checked", "account", a, "error", err)
	if errs.KindOf(err) == errs.Unavailable { // the last of its usage may have been what there is to tell of
		w.Changed([]account.ID{a})
	}
}
