package metering_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
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

// heldJournal is one in which somebody else holds an account for a while, as long as a transaction then takes.
type heldJournal struct {
	account account.ID
	until   time.Time
	takes   time.Duration
}

func (j heldJournal) Append(ctx context.Context, ask metering.Ask, decide func(context.Context, metering.Known, metering.Lookup) (metering.Writes, error)) error {
	known := metering.Known{}
	if slices.Contains(ask.Accounts, j.account) && time.Now().Before(j.until) {
		if !ask.PassOver {
			return metering.ErrHeld
		}
		known.Held = map[account.ID]bool{j.account: true}
	}
	select {
	case <-time.After(j.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := decide(ctx, known, nil)
	return err
}

// Under load more of an account waits as often as some of it is stored, so that it stays aside after whoever held it has let go.
func TestIngester_StoresWhatWasSetAsideForAsLongAsMoreComes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		owner, began := id.New[account.Account](), time.Now()
		journal := heldJournal{owner, began.Add(time.Second), 50 * time.Millisecond}
		meters := metering.Meters{{Code: "voice", Aggregation: metering.Sum}}
		in := metering.NewIngester(journal, meters, time.Now, slog.New(slog.DiscardHandler), metering.Options{Patience: 5 * time.Second})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = in.Run(ctx) }()
		var callers sync.WaitGroup
		for i := range 100 { // one after the other, so that some come whenever others' are being stored
			callers.Go(func() {
				time.Sleep(time.Duration(i) * 20 * time.Millisecond)
				for time.Since(began) < 20*time.Second {
					if _, err := in.Add(ctx, []metering.Event{{Account: owner, ID: "call", Meter: "voice", OccurredAt: time.Now()}}); err != nil {
						t.Errorf("sent away after %s: %v", time.Since(began), err)
						return
					}
					time.Sleep(time.Millisecond)
				}
			})
		}
		callers.Wait()
	})
}

// forgetfulJournal stores what it is given and does not say so. Its account is held by somebody else before, and after.
type forgetfulJournal struct {
	account account.ID
	stored  map[metering.Ref]metering.Stored
	held    [2]int // so many times before it has stored, and after
}

func (j *forgetfulJournal) Append(ctx context.Context, ask metering.Ask, decide func(context.Context, metering.Known, metering.Lookup) (metering.Writes, error)) error {
	known := metering.Known{
		Admissions: map[account.ID]*metering.Admission{j.account: {Entitlement: entitlement.Entitlement{
			Account: j.account, PeriodStarts: []time.Time{time.Now().Add(-time.Hour)}, PeriodEnd: time.Now().Add(time.Hour),
		}}},
		Events: j.stored,
	}
	held := &j.held[0]
	if j.stored != nil {
		held = &j.held[1]
	}
	if *held > 0 {
		*held--
		if !ask.PassOver {
			return metering.ErrHeld
		}
		known = metering.Known{Held: map[account.ID]bool{j.account: true}}
	}
	writes, err := decide(ctx, known, nil)
	if err != nil || j.stored != nil || len(writes.Events) == 0 {
		return err
	}
	j.stored = map[metering.Ref]metering.Stored{}
	for _, r := range writes.Events {
		j.stored[metering.Ref{Account: j.account, Key: r.Key}] = metering.Stored{Content: r.Content}
	}
	return metering.ErrOutcomeUnknown
}

// The caller has sent the event once, and learns that it was counted now: also where the commit's answer was lost, and the account
// then held for so long that it was set aside.
func TestIngester_TellsWhatASetAsideCommitHasStoredFromWhatWasStoredBefore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		owner := id.New[account.Account]()
		var told []account.ID
		journal := &forgetfulJournal{account: owner, held: [2]int{3, 3}}
		meters := metering.Meters{{Code: "voice", Aggregation: metering.Sum}}
		in := metering.NewIngester(journal, meters, time.Now, slog.New(slog.DiscardHandler), metering.Options{
			Changed: func(accounts []account.ID) { told = append(told, accounts...) },
		})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = in.Run(ctx) }()
		call := metering.Event{Account: owner, ID: "call", Meter: "voice", OccurredAt: time.Now()}
		for _, want := range []string{"accepted duplicate", "duplicate duplicate"} {
			results, err := in.Add(ctx, []metering.Event{call, call})
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(results[0].Status, " ", results[1].Status); got != want {
				t.Errorf("told %s, want %s", got, want)
			}
		}
		if journal.held != [2]int{} {
			t.Errorf("was to be held %d times more", journal.held)
		}
		if len(told) != 1 || told[0] != owner { // what looks at the account's usage
			t.Errorf("told that there is more of %v", told)
		}
	})
}

// overdue are reservations that are found until their accounts are asked for.
type overdue struct {
	entitlement.Reservations
	of []account.ID
}

func (o overdue) Holders(context.Context, int) ([]account.ID, error) { return o.of, nil }

// recordingJournal remembers whose usage it was asked for.
type recordingJournal struct {
	heldJournal
	asked *atomic.Int64
}

func (j recordingJournal) Append(ctx context.Context, ask metering.Ask, decide func(context.Context, metering.Known, metering.Lookup) (metering.Writes, error)) error {
	if !slices.Contains(ask.Accounts, j.account) {
		j.asked.Add(1)
	}
	return j.heldJournal.Append(ctx, ask, decide)
}

func TestExpirer_LetsGoOfOthersWhatIsOverdueWhileAnAccountIsHeld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		held, free := id.New[account.Account](), id.New[account.Account]()
		journal := recordingJournal{heldJournal{held, time.Now().Add(time.Hour), time.Millisecond}, new(atomic.Int64)}
		in := metering.NewIngester(journal, metering.Meters{}, time.Now, slog.New(slog.DiscardHandler), metering.Options{})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = in.Run(ctx) }()
		err := metering.Expirer{Reservations: overdue{of: []account.ID{held, free}}, Ingester: in}.Sweep(ctx)
		if !errors.Is(err, metering.ErrHeld) {
			t.Errorf("got %v of the account that is held", err)
		}
		if got := journal.asked.Load(); got != 1 {
			t.Errorf("the account beside it was asked for %d times, want once", got)
		}
	})
}

// standings are those of accounts that all have a spend limit.
type standings struct{}

func (standings) Standings(_ context.Context, accounts []account.ID) (map[account.ID]*metering.Standing, error) {
	time.Sleep(time.Second) // so that others wait for the next read together
	out := map[account.ID]*metering.Standing{}
	for _, a := range accounts {
		limit := int64(100)
		out[a] = &metering.Standing{Admission: metering.Admission{Entitlement: entitlement.Entitlement{
			Account: a, Status: account.Active, SpendLimit: &limit, SpendMode: entitlement.Hard,
		}}}
	}
	return out, nil
}

// pricerOf cannot price one account.
type pricerOf struct{ not account.ID }

var errNoPrice = errors.New("no price")

func (p pricerOf) Accrued(_ context.Context, e entitlement.Entitlement, _ time.Time, _ []entitlement.Use) (money.Amount, error) {
	if e.Account == p.not {
		return money.Amount{}, errNoPrice
	}
	return money.New(99, money.USD), nil
}

func TestChecker_AnswersOthersOfAReadInWhichOneCannotBePriced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := id.New[account.Account]()
		none := func(context.Context, account.ID, time.Time) ([]entitlement.Use, error) { return nil, nil }
		c := metering.NewChecker(standings{}, metering.Meters{{Code: "voice"}}, time.Now, pricerOf{broken}, none)
		var all sync.WaitGroup
		for _, a := range []account.ID{id.New[account.Account](), broken, id.New[account.Account]()} {
			all.Go(func() {
				d, err := c.Check(a, "voice")
				if a == broken && !errors.Is(err, errNoPrice) {
					t.Errorf("of the one that cannot be priced: %+v, %v", d, err)
				}
				if a != broken && (err != nil || !d.Allowed) {
					t.Errorf("of another: %+v, %v", d, err)
				}
			})
			synctest.Wait()
		}
		all.Wait()
	})
}
