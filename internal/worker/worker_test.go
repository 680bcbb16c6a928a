package worker_test

import (
	"bytes"
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/job"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/worker"
)

// logged is written by the worker and read by the test.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) says(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), text)
}

// Jobs that can only fail are told to the log with their reason and give way: those behind them are done by the only
// worker there is. What cannot be meant is not tried again.
func TestJobs_ThatAlwaysFailHoldUpNobody(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	var mu sync.Mutex
	now := time.Date(2026, 3, 10, 9, 0, 0, 0, time.UTC)
	clock := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return now
	}
	var log logged
	// Without a gateway, whatever needs one panics.
	core := &billing.Core{DB: db, Clock: clock, Policy: billing.DefaultPolicy(), Log: slog.New(slog.NewTextHandler(&log, nil))}
	if _, err := (billing.Publisher{Core: core}).Publish(t.Context(), plan.Shipped()); err != nil {
		t.Fatal(err)
	}
	a, err := billing.Opener{Core: core}.Open(t.Context(), billing.NewAccount{})
	if err != nil {
		t.Fatal(err)
	}
	enqueue := func(kind job.Kind, args map[string]any) {
		t.Helper()
		err := db.InTx(t.Context(), func(tx billing.Tx) error { return tx.Jobs().Enqueue(t.Context(), a.ID, kind, args, clock()) })
		if err != nil {
			t.Fatal(err)
		}
	}
	states := func() string {
		t.Helper()
		var s string
		err := db.Pool().QueryRow(t.Context(), `SELECT coalesce(string_agg(state::text, ' ' ORDER BY id), '') FROM river_job`).Scan(&s)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	until := func(what string, done func() bool) {
		t.Helper()
		limit := time.After(30 * time.Second)
		for look := time.NewTicker(10 * time.Millisecond); !done(); {
			select {
			case <-look.C:
			case <-limit:
				t.Fatalf("not in time: %s; the jobs are %s", what, states())
			}
		}
	}
	enqueue(job.ProcessEvent, map[string]any{"event": "evt_1"}) // panics
	enqueue("no such job", map[string]any{})                    // is not known
	enqueue(job.CollectInvoice, map[string]any{"invoice": 17})  // is about nothing

	w, err := worker.New(worker.Config{Core: core, Pool: db.Pool(), Workers: 1, RelayEvery: 10 * time.Millisecond, SweepEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	until("the failing jobs are tried", func() bool { return strings.HasPrefix(states(), "retryable cancelled cancelled") })

	first, err := db.Subscriptions().Active(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	now = first.Period.End
	mu.Unlock()
	enqueue(job.CloseCycle, map[string]any{})
	until("the period is closed", func() bool {
		sub, err := db.Subscriptions().Active(t.Context(), a.ID)
		return err == nil && sub.Index == first.Index+1
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, reason := range []string{"job panicked", "nil pointer dereference", "worker.(*Worker).do", `unknown job \"no such job\"`, "arguments of collect_invoice"} {
		if !log.says(reason) {
			t.Errorf("the log does not say %q", reason)
		}
	}
}

// A sweep that takes long does not keep what is to be done at once from being done, nor the worker from its end.
func TestJobs_AreDoneWhileASweepGoesOn(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	core := &billing.Core{DB: db, Clock: time.Now, Policy: billing.DefaultPolicy(), Log: slog.New(slog.DiscardHandler)}
	if _, err := (billing.Publisher{Core: core}).Publish(t.Context(), plan.Shipped()); err != nil {
		t.Fatal(err)
	}
	a, err := billing.Opener{Core: core}.Open(t.Context(), billing.NewAccount{})
	if err != nil {
		t.Fatal(err)
	}
	sweeping := make(chan struct{})
	w, err := worker.New(worker.Config{
		Core: core, Pool: db.Pool(), RelayEvery: 10 * time.Millisecond, SweepEvery: time.Hour,
		Sweepers: []worker.Sweeper{{Name: "slow", Sweep: func(ctx context.Context) error {
			close(sweeping)
			<-ctx.Done()
			return ctx.Err()
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	<-sweeping
	if err := db.InTx(t.Context(), func(tx billing.Tx) error {
		return tx.Jobs().Enqueue(t.Context(), a.ID, job.CheckFunds, map[string]any{}, core.Clock())
	}); err != nil {
		t.Fatal(err)
	}
	limit := time.After(30 * time.Second)
	for look := time.NewTicker(10 * time.Millisecond); ; {
		var done bool
		if err := db.Pool().QueryRow(t.Context(), "SELECT count(*) FILTER (WHERE state = 'completed') = 1 FROM river_job").Scan(&done); err != nil {
			t.Fatal(err)
		}
		if done {
			break
		}
		select {
		case <-look.C:
		case <-limit:
			t.Fatal("the job waits for the sweep")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A job that does not end is cut off when the worker ends and its time is over: the process has one that stops it, too.
func TestJobs_AreCutOffWhenTheTimeForThemIsOver(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	working := make(chan struct{})
	var log logged
	core := &billing.Core{
		DB: waiting{db, sync.OnceFunc(func() { close(working) })}, Clock: clock.System, Policy: billing.DefaultPolicy(),
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}
	if _, err := (billing.Publisher{Core: core}).Publish(t.Context(), plan.Shipped()); err != nil {
		t.Fatal(err)
	}
	a, err := billing.Opener{Core: core}.Open(t.Context(), billing.NewAccount{})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.InTx(t.Context(), func(tx billing.Tx) error {
		return tx.Jobs().Enqueue(t.Context(), a.ID, job.CheckFunds, map[string]any{}, core.Clock())
	}); err != nil {
		t.Fatal(err)
	}
	w, err := worker.New(worker.Config{Core: core, Pool: db.Pool(), RelayEvery: 10 * time.Millisecond, SweepEvery: time.Hour, Drain: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	<-working
	stop()
	select {
	case err := <-ended:
		if err != nil || !log.says("jobs were cut off") {
			t.Errorf("%v, and it does not say that jobs were cut off", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the worker waits for the job")
	}
}

// waiting is a database that reads no alerts until it is cut off.
type waiting struct {
	billing.Database
	asked func()
}

func (d waiting) Alerts() alert.Store { return waitingAlerts{d.Database.Alerts(), d.asked} }

type waitingAlerts struct {
	alert.Store
	asked func()
}

func (s waitingAlerts) List(ctx context.Context, _ account.ID) ([]alert.Alert, error) {
	s.asked()
	<-ctx.Done()
	return nil, ctx.Err()
}

// A database that is away is told once, and once more when it is back: the relay asks several times a second.
func TestRelay_TellsOfAnOutageOnce(t *testing.T) {
	t.Parallel()
	db, dsn := postgrestest.NewWithDSN(t)
	owner := postgrestest.Connect(t, dsn)
	var log logged
	var tries atomic.Int64 // each looks at the clock
	core := &billing.Core{DB: db, Policy: billing.DefaultPolicy(), Log: slog.New(slog.NewTextHandler(&log, nil))}
	core.Clock = func() time.Time { tries.Add(1); return time.Now() }
	w, err := worker.New(worker.Config{Core: core, Pool: db.Pool(), RelayEvery: time.Millisecond, SweepEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	rename := func(from, to string) {
		t.Helper()
		if _, err := owner.Exec(t.Context(), "ALTER TABLE "+from+" RENAME TO "+to); err != nil {
			t.Fatal(err)
		}
	}
	until := func(what string, done func() bool) {
		t.Helper()
		limit := time.After(30 * time.Second)
		for look := time.NewTicker(time.Millisecond); !done(); {
			select {
			case <-look.C:
			case <-limit:
				t.Fatal(what)
			}
		}
	}
	rename("job_intents", "gone")
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	until("the relay does not try again", func() bool { return log.says("not handed on") })
	from := tries.Load()
	until("the relay does not go on trying", func() bool { return tries.Load() > from+10 })
	rename("gone", "job_intents")
	until("the end of the outage is not told", func() bool { return log.says("handed on again") })
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.b.String(), "not handed on"); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// What panics while intents are handed on ends neither the process nor the handing on.
func TestRelay_ThatPanicsIsTriedAgain(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	var log logged
	handedOn := make(chan struct{})
	core := &billing.Core{DB: &brokenOnce{Database: db, healed: func() { close(handedOn) }}, Clock: clock.System, Policy: billing.DefaultPolicy(), Log: slog.New(slog.NewTextHandler(&log, nil))}
	w, err := worker.New(worker.Config{Core: core, Pool: db.Pool(), RelayEvery: time.Millisecond, SweepEvery: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	select {
	case <-handedOn:
	case <-time.After(30 * time.Second):
		t.Error("the relay does not try again")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !log.says("a fault of ours") || !log.says("worker_test.go") {
		t.Errorf("what panicked, and where, is not told:\n%s", log.b.String())
	}
}

// brokenOnce is a database that panics where intents are first read.
type brokenOnce struct {
	billing.Database
	asked  atomic.Int64
	healed func()
}

func (d *brokenOnce) Jobs() job.Queue { return brokenJobs{d.Database.Jobs(), d} }

type brokenJobs struct {
	job.Queue
	in *brokenOnce
}

func (s brokenJobs) Due(ctx context.Context, at time.Time, limit int) ([]job.Intent, error) {
	switch s.in.asked.Add(1) {
	case 1:
		panic("a fault of ours")
	case 2:
		s.in.healed()
	}
	return s.Queue.Due(ctx, at, limit)
}

// What is stuck, as a question to a database that has died without a word is, ends some time, and is asked again.
func TestSweep_ThatIsStuckEndsAndComesAgain(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	core := &billing.Core{DB: db, Clock: clock.System, Policy: billing.DefaultPolicy(), Log: slog.New(slog.DiscardHandler)}
	again := make(chan struct{}, 100)
	stuck := worker.Sweeper{Name: "stuck", Sweep: func(ctx context.Context) error {
		select {
		case again <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	var swept []bool
	w, err := worker.New(worker.Config{
		Core: core, Pool: db.Pool(), SweepEvery: 10 * time.Millisecond, Within: 100 * time.Millisecond, Sweepers: []worker.Sweeper{stuck},
		Swept: func(all bool) { swept = append(swept, all) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	for range 3 {
		select {
		case <-again:
		case <-time.After(20 * time.Second):
			t.Fatal("the sweep is stuck")
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if len(swept) < 2 || slices.Contains(swept, true) {
		t.Errorf("told %v; want that the sweeps that were cut off did not do all", swept)
	}
}
