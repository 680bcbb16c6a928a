// Package worker turns due jobs into operations.
//
// It owns: the hand-over of committed intents to the queue (River), the workers that run them, and the
// sweep that finds what a lost nudge left undone.
// It does not own: what a job does (billing). A job's arguments name a record; the record's state says
// what is due, and every job may run twice.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivertype"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/job"
	"github.com/accrue-billing/accrue/internal/telemetry"
)

// Config says how a Worker runs. The zero value of a field means its default.
type Config struct {
	Core *billing.Core
	Pool *pgxpool.Pool // River's tables are reached through it
	// Workers is how many jobs run at the same time; default 8.
	Workers int
	// RelayEvery is how often committed intents are looked for; default 250 ms.
	RelayEvery time.Duration
	// SweepEvery is how often everything due is looked for; default 15 s.
	SweepEvery time.Duration
	// Within bounds one sweep and one relay; default 10 minutes. A question to a database that has died without a word is
	// otherwise not answered for as long as the network believes in it, and nothing is billed meanwhile. What a sweep has
	// not come to is the next one's.
	Within time.Duration
	// Drain is how long the jobs that are running may take to finish when the worker ends; default 20 s. Then they are cut
	// off, wherever they are: what they leave is found as that of a process that was killed.
	Drain time.Duration
	// Sweepers are run with each sweep, after billing's own: upkeep of other rooms.
	Sweepers []Sweeper
	// Swept, if set, is told after every sweep whether it did all that was due.
	Swept func(all bool)
}

// Sweeper does what is due of one kind, once. It may run on several replicas at once.
type Sweeper struct {
	Name  string
	Sweep func(ctx context.Context) error
}

// Worker runs jobs until its context ends.
type Worker struct {
	cfg    Config
	log    *slog.Logger
	client *river.Client[pgxTx]
}

// New returns a worker. It makes no connection.
func New(cfg Config) (_ *Worker, err error) {
	defer errs.Wrap(&err, "make worker")
	if cfg.Workers <= 0 {
		cfg.Workers = 8
	}
	if cfg.RelayEvery <= 0 {
		cfg.RelayEvery = 250 * time.Millisecond
	}
	if cfg.SweepEvery <= 0 {
		cfg.SweepEvery = 15 * time.Second
	}
	if cfg.Within <= 0 {
		cfg.Within = 10 * time.Minute
	}
	if cfg.Drain <= 0 {
		cfg.Drain = 20 * time.Second
	}
	w := &Worker{cfg: cfg, log: cfg.Core.Log}
	workers := river.NewWorkers()
	if err := river.AddWorkerSafely(workers, &nudgeWorker{w: w}); err != nil {
		return nil, err
	}
	w.client, err = river.NewClient(riverpgxv5.New(cfg.Pool), &river.Config{
		Logger:            slog.New(slog.NewTextHandler(discard{}, nil)),
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: cfg.Workers}},
		Workers:           workers,
		FetchPollInterval: 500 * time.Millisecond,
		JobTimeout:        time.Minute,
		RetryPolicy:       retry{},
		ErrorHandler:      failures{w.log},
	})
	return w, err
}

// startPause is how long the worker waits before it tries again to reach its database at the start.
const startPause = 500 * time.Millisecond

// cutOff is how long jobs may take to notice that they are cut off.
const cutOff = 5 * time.Second

// Run relays, works and sweeps until ctx ends; then it lets the jobs that are running finish, within the time for that.
func (w *Worker) Run(ctx context.Context) (err error) {
	defer errs.Wrap(&err, "run worker")
	// The client gets a context of its own: ctx's end must not cut a job between its two transactions.
	// A database that is away while the service starts is no reason for the service to end.
	for {
		err := w.client.Start(context.WithoutCancel(ctx))
		if err == nil {
			break
		}
		w.log.WarnContext(ctx, "jobs cannot be worked yet; trying again", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(startPause):
		}
	}
	var loops sync.WaitGroup
	loops.Go(func() {
		outage := telemetry.Outage{Log: w.log, Began: "intents not handed on; tried again until they are", Ended: "intents are handed on again"}
		every(ctx, w.cfg.RelayEvery, func() {
			if err := errs.Contain(func() error { return w.relay(ctx) }); ctx.Err() == nil {
				outage.Tried(ctx, err)
			}
		})
	})
	// A sweep may take long; nudges do not wait for it.
	loops.Go(func() {
		w.sweep(ctx) // what the last process left
		every(ctx, w.cfg.SweepEvery, func() { w.sweep(ctx) })
	})
	<-ctx.Done()
	loops.Wait()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.Drain)
	defer cancel()
	if err := w.client.Stop(drain); !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	w.log.WarnContext(ctx, "jobs were cut off")
	cut, cancel := context.WithTimeout(context.WithoutCancel(ctx), cutOff)
	defer cancel()
	return w.client.StopAndCancel(cut)
}

// every runs do again and again until ctx ends.
func every(ctx context.Context, d time.Duration, do func()) {
	tick := time.NewTicker(d)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			do()
		}
	}
}

// relayBatch is how many intents are handed on at a time.
const relayBatch = 500

// relay hands due intents to the queue. The insert comes before the removal, so a crash between the two
// hands an intent on twice, which its unique key and the job's nature make harmless.
func (w *Worker) relay(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Within)
	defer cancel()
	db, now := w.cfg.Core.DB, w.cfg.Core.Clock()
	for {
		due, err := db.Jobs().Due(ctx, now, relayBatch)
		if err != nil || len(due) == 0 {
			return err
		}
		params := make([]river.InsertManyParams, 0, len(due))
		for _, in := range due {
			params = append(params, river.InsertManyParams{Args: nudge{Intent: in.ID.String(), Account: in.Account.String(), Job: in.Kind, Args: in.Args}})
		}
		if _, err := w.client.InsertMany(ctx, params); err != nil {
			return fmt.Errorf("insert jobs: %w", err)
		}
		for _, in := range due {
			if err := db.Jobs().Relayed(ctx, in); err != nil {
				return err
			}
		}
		if len(due) < relayBatch {
			return nil
		}
	}
}

// sweep does what is due whether anybody asked for it or not.
func (w *Worker) sweep(running context.Context) {
	ctx, cancel := context.WithTimeout(running, w.cfg.Within)
	defer cancel()
	done, err := billing.Sweeper{Core: w.cfg.Core}.Sweep(ctx)
	if done.Any() {
		w.log.InfoContext(ctx, "swept", "closed", done.Closed, "finalized", done.Finalized, "collected", done.Collected,
			"resolved", done.Resolved, "events", done.Events)
	}
	for _, s := range w.cfg.Sweepers {
		if serr := errs.Contain(func() error { return s.Sweep(ctx) }); serr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", s.Name, serr))
		}
	}
	if running.Err() != nil {
		return // it was cut short
	}
	if err != nil {
		w.log.ErrorContext(ctx, "some of what is due could not be done; tried again with the next sweep", "error", err)
	}
	if w.cfg.Swept != nil {
		w.cfg.Swept(err == nil)
	}
}

// nudge is the one kind of job that the queue knows: what is to be done stands in Job.
type nudge struct {
	Intent  string          `json:"intent" river:"unique"`
	Account string          `json:"account"`
	Job     job.Kind        `json:"job"`
	Args    json.RawMessage `json:"args"`
}

// Kind names the job in River's tables.
func (nudge) Kind() string { return "nudge" }

// InsertOpts makes an intent one job, however often it is handed on.
func (nudge) InsertOpts() river.InsertOpts {
	return river.InsertOpts{MaxAttempts: maxAttempts, UniqueOpts: river.UniqueOpts{ByArgs: true}}
}

// maxAttempts is how often a job is tried before it is given up; the sweep finds the record's work all the same.
const maxAttempts = 8

// retry waits 1, 2, 4, … seconds, two minutes at most.
type retry struct{}

// NextRetry implements river.ClientRetryPolicy.
func (retry) NextRetry(j *rivertype.JobRow) time.Time {
	wait := min(time.Second<<min(j.Attempt-1, 7), 2*time.Minute)
	return j.ScheduledAt.Add(wait)
}

// failures logs what went wrong with a job.
type failures struct{ log *slog.Logger }

// HandleError implements river.ErrorHandler.
func (f failures) HandleError(ctx context.Context, j *rivertype.JobRow, err error) *river.ErrorHandlerResult {
	level := slog.LevelWarn
	if j.Attempt >= maxAttempts {
		level = slog.LevelError
	}
	f.log.Log(ctx, level, "job failed", "job", j.ID, "attempt", j.Attempt, "error", err)
	return nil
}

// HandlePanic implements river.ErrorHandler.
func (f failures) HandlePanic(ctx context.Context, j *rivertype.JobRow, v any, stack string) *river.ErrorHandlerResult {
	f.log.ErrorContext(ctx, "job panicked", "job", j.ID, "attempt", j.Attempt, "panic", fmt.Sprint(v), "stack", stack)
	return nil
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
