package metering_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/pkg/money"
)

// stalledJournal stores nothing until it is let go.
type stalledJournal struct{ goOn chan struct{} }

func (j stalledJournal) Append(ctx context.Context, ask metering.Ask, decide func(context.Context, metering.Known, metering.Lookup) (metering.Writes, error)) error {
	<-j.goOn
	known := metering.Known{Admissions: map[account.ID]*metering.Admission{}}
	_, err := decide(ctx, known, nil) // of accounts that are not known: every event is rejected
	return err
}

// What waits for a stalled database is bounded, in events and in calls; the rest is sent away at once, and told when to
// come again.
func TestIngester_RefusesWhatIsMoreThanMayWait(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name                   string
		calls, events, waiting int // waiting: calls
	}{
		{"LargeBatches", 10, 300, 3},
		{"SingleEvents", 200, 1, 50},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				journal := stalledJournal{make(chan struct{})}
				meters := metering.Meters{{Code: "voice", Aggregation: metering.Sum}}
				in := metering.NewIngester(journal, meters, time.Now, slog.New(slog.DiscardHandler), metering.Options{Committers: 1, QueueSize: 1000})
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				go func() { _ = in.Run(ctx) }()
				owner := id.New[account.Account]()
				var answered, refused atomic.Int64
				call := func(n int) {
					events := make([]metering.Event, n)
					for i := range events {
						events[i] = metering.Event{Account: owner, ID: "call", Meter: "voice", Quantity: money.DecimalFromInt(1), OccurredAt: time.Now()}
					}
					_, err := in.Add(ctx, events)
					busy := errors.Is(err, metering.ErrBusy)
					switch {
					case busy && metering.ErrBusy.RetryAfter > 0:
						refused.Add(1)
					case err == nil:
						answered.Add(1)
					default:
						t.Error(err)
					}
				}
				go call(1) // which the committer is about
				synctest.Wait()
				for range c.calls {
					go call(c.events)
				}
				synctest.Wait()
				if got := refused.Load(); got != int64(c.calls-c.waiting) {
					t.Errorf("%d calls were refused, want all but %d of %d", got, c.waiting, c.calls)
				}
				if got := answered.Load(); got != 0 {
					t.Errorf("%d calls were answered by a journal that stands still", got)
				}
				close(journal.goOn)
				synctest.Wait()
				if got := answered.Load(); got != int64(c.waiting)+1 {
					t.Errorf("%d calls were answered in the end, want those %d that waited", got, c.waiting+1)
				}
			})
		})
	}
}
