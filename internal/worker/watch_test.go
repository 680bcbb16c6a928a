package worker_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/worker"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Whose usage has changed is known to the process that stored it. Alerts are told all the same, and once: by that
// process if it is ended, by every other that begins if it was killed.
func TestWatch_AlertsOutliveTheProcess(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	core := &billing.Core{DB: db, Clock: clock.System, Policy: billing.DefaultPolicy(), Log: slog.New(slog.DiscardHandler)}
	if _, err := (billing.Publisher{Core: core}).Publish(t.Context(), plan.Shipped()); err != nil {
		t.Fatal(err)
	}
	ingest := metering.NewIngester(postgres.Journal(db.ByKey()), billing.Meters(plan.Shipped().Meters), clock.System, core.Log, metering.Options{})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { _ = ingest.Run(ctx) })

	reached := func() account.ID { // an account that has used what it wants to be told of
		t.Helper()
		a, err := billing.Opener{Core: core}.Open(t.Context(), billing.NewAccount{})
		if err != nil {
			t.Fatal(err)
		}
		_, err = billing.Alerter{Core: core}.Add(t.Context(), billing.Asked{Account: a.ID, Actor: "test"},
			alert.Alert{Kind: alert.Usage, Meter: "voice", Threshold: money.MustDecimal("60")}, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := ingest.Add(t.Context(), []metering.Event{{
			Account: a.ID, Source: "test", ID: "1", Meter: "voice", Quantity: money.MustDecimal("60"), OccurredAt: clock.System(),
		}})
		if err != nil || res[0].Status != metering.Accepted {
			t.Fatalf("%+v, %v", res, err)
		}
		return a.ID
	}
	told := func(a account.ID) (n int) {
		t.Helper()
		events, err := db.Outbox().After(t.Context(), a, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Type == outbox.AlertFired {
				n++
			}
		}
		return n
	}

	t.Run("ThatIsEnded", func(t *testing.T) {
		a := reached()
		w := &worker.Watch{Core: core, Every: time.Hour}
		w.Changed([]account.ID{a})
		ended, end := context.WithCancel(t.Context())
		end()
		if err := w.Run(ended); err != nil {
			t.Fatal(err)
		}
		if n := told(a); n != 1 {
			t.Errorf("told %d times, want once", n)
		}
	})

	t.Run("WhoseDatabaseWasAway", func(t *testing.T) {
		a := reached()
		var log bytes.Buffer // Run's own until it has returned
		away := &billing.Core{DB: forgetful{db, new(atomic.Int64)}, Clock: core.Clock, Policy: core.Policy, Log: slog.New(slog.NewTextHandler(&log, nil))}
		w := &worker.Watch{Core: away, Every: time.Millisecond}
		w.Changed([]account.ID{a})
		running, end := context.WithTimeout(t.Context(), 30*time.Second)
		defer end()
		var watching sync.WaitGroup
		watching.Go(func() { _ = w.Run(running) })
		for told(a) == 0 && running.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		end()
		watching.Wait()
		if n := told(a); n != 1 {
			t.Errorf("told %d times, want once", n)
		}
		if said := log.String(); strings.Count(said, "funds not checked") != 1 {
			t.Errorf("of the outage the log says\n%s", said)
		}
	})

	t.Run("ThatPanicsForAnother", func(t *testing.T) {
		broken, a := reached(), reached()
		var log bytes.Buffer
		faulty := &billing.Core{DB: brokenFor{db, broken}, Clock: core.Clock, Policy: core.Policy, Log: slog.New(slog.NewTextHandler(&log, nil))}
		w := &worker.Watch{Core: faulty}
		w.Changed([]account.ID{broken, a})
		ended, end := context.WithCancel(t.Context())
		end()
		if err := w.Run(ended); err != nil || told(a) != 1 {
			t.Errorf("told %d times, want once; %v", told(a), err)
		}
		if said := log.String(); !strings.Contains(said, "a fault of ours") {
			t.Errorf("of the panic the log says\n%s", said)
		}
	})

	t.Run("ThatWasKilled", func(t *testing.T) {
		accounts := make([]account.ID, 120) // more than are looked at at a time
		for i := range accounts {
			accounts[i] = reached()
		}
		running, end := context.WithCancel(t.Context())
		var replicas sync.WaitGroup
		for range 2 {
			replicas.Go(func() { _ = (&worker.Watch{Core: core, Every: time.Millisecond}).Run(running) })
		}
		limit := time.After(30 * time.Second)
		for look := time.NewTicker(10 * time.Millisecond); told(accounts[len(accounts)-1]) == 0; {
			select {
			case <-look.C:
			case <-limit:
				t.Error("not told in time")
				end()
			}
			if running.Err() != nil {
				break
			}
		}
		end()
		replicas.Wait()
		for _, a := range accounts {
			if n := told(a); n != 1 {
				t.Errorf("told %d times of %s, want once", n, a)
			}
		}
	})
}

// forgetful is a database that once fails to say which accounts are watched, and of all of them says nothing.
type forgetful struct {
	billing.Database
	asked *atomic.Int64
}

func (d forgetful) Alerts() alert.Store { return forgetfulAlerts{d.Database.Alerts(), d.asked} }

type forgetfulAlerts struct {
	alert.Store
	asked *atomic.Int64
}

func (s forgetfulAlerts) Watched(ctx context.Context, accounts []account.ID) ([]account.ID, error) {
	if s.asked.Add(1) <= 3 {
		return nil, errs.New(errs.Unavailable, "database_unavailable", "The database is away.")
	}
	return s.Store.Watched(ctx, accounts)
}

func (forgetfulAlerts) AllWatched(context.Context, account.ID, int) ([]account.ID, error) {
	return nil, nil
}

// brokenFor is a database that panics where the alerts of one account are read.
type brokenFor struct {
	billing.Database
	account account.ID
}

func (d brokenFor) Alerts() alert.Store { return brokenAlerts{d.Database.Alerts(), d.account} }

type brokenAlerts struct {
	alert.Store
	account account.ID
}

func (s brokenAlerts) List(ctx context.Context, a account.ID) ([]alert.Alert, error) {
	if a == s.account {
		panic("a fault of ours")
	}
	return s.Store.List(ctx, a)
}
