package postgres_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

func TestUsagePartitions(t *testing.T) {
	t.Parallel()

	db := postgrestest.New(t)
	months := postgres.UsagePartitions(db.Pool())
	for range 2 { // the second time there is nothing to do
		if err := months.OpenMonth(t.Context(), noon); err != nil {
			t.Fatal(err)
		}
	}
	b := &meterBench{db: db, account: mustAccount(t, db)}
	mustEntitle(t, db, b.account.ID, nil)
	b.in = mustRun(t, db, metering.Options{})
	e := b.event("1", "text", "5")
	wantStatuses(t, b.mustAdd(t, e), "accepted")
	if got := mustText(t, db, "SELECT string_agg(DISTINCT tableoid::regclass::text, ' ') FROM usage_events"); got != "usage_events_202603" {
		t.Errorf("stored in %s", got)
	}
	if n, err := months.DropBefore(t.Context(), noon); n != 0 || err != nil {
		t.Errorf("dropped %d of a month that goes on, %v", n, err)
	}
	if n, err := months.DropBefore(t.Context(), noon.AddDate(0, 1, 0)); n != 1 || err != nil {
		t.Errorf("dropped %d, %v", n, err)
	}
	wantStatuses(t, b.mustAdd(t, e), "duplicate")
	if got := b.total(t, "text"); got != "5/1" {
		t.Errorf("total %s", got)
	}
}

// Every replica tends the months when it starts, and they start together.
func TestUsagePartitions_ReplicasTakeTurns(t *testing.T) {
	t.Parallel()

	db := postgrestest.New(t)
	var replicas sync.WaitGroup
	for range 4 {
		replicas.Go(func() {
			months := postgres.UsagePartitions(db.Pool())
			for round := range 6 {
				if err := months.OpenMonth(t.Context(), noon.AddDate(0, round, 0)); err != nil {
					t.Error(err)
				}
				if _, err := months.DropBefore(t.Context(), noon.AddDate(0, round, 0)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	replicas.Wait()
	if left := mustText(t, db, "SELECT string_agg(inhrelid::regclass::text, ' ' ORDER BY inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'usage_events'::regclass"); left != "usage_events_202608 usage_events_default" {
		t.Errorf("there are %s", left)
	}
}

// A backup, an export or a check of the books reads for minutes. The month waits for it, and usage does not wait for the month.
func TestUsagePartitions_WaitForReadersWithoutKeepingUsage(t *testing.T) {
	t.Parallel()

	db := postgrestest.New(t)
	months := postgres.UsagePartitions(db.Pool())
	b := &meterBench{db: db, account: mustAccount(t, db)}
	mustEntitle(t, db, b.account.ID, nil)
	b.in = mustRun(t, db, metering.Options{})
	reader, err := db.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := reader.Exec(t.Context(), "SELECT FROM usage_events LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	if err := months.OpenMonth(ctx, noon); err == nil || ctx.Err() != nil {
		t.Fatalf("the month is made while somebody reads, or waited for: %v", err)
	}
	wantStatuses(t, b.mustAdd(t, b.event("1", "text", "5")), "accepted")
	if err := reader.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := months.OpenMonth(t.Context(), noon.AddDate(0, 1, 0)); err != nil {
		t.Error(err)
	}
}

// What comes before its month is opened lies in the default partition. Retention is for it too.
func TestUsagePartitions_EventsOfAMonthThatWasNotOpened(t *testing.T) {
	t.Parallel()

	db := postgrestest.New(t)
	months := postgres.UsagePartitions(db.Pool())
	b := &meterBench{db: db, account: mustAccount(t, db)}
	mustEntitle(t, db, b.account.ID, nil)
	b.in = mustRun(t, db, metering.Options{})
	e := b.event("1", "text", "5")
	wantStatuses(t, b.mustAdd(t, e), "accepted")
	if got := mustText(t, db, "SELECT string_agg(DISTINCT tableoid::regclass::text, ' ') FROM usage_events"); got != "usage_events_default" {
		t.Errorf("stored in %s", got)
	}
	for _, want := range []struct {
		before time.Time
		months int
		left   string
	}{{noon, 0, "1"}, {noon.AddDate(0, 1, 0), 1, "0"}, {noon.AddDate(0, 1, 0), 0, "0"}} {
		n, err := months.DropBefore(t.Context(), want.before)
		if left := mustText(t, db, "SELECT count(*)::text FROM usage_events"); n != want.months || err != nil || left != want.left {
			t.Errorf("before %s: dropped %d months, %v, and %s events are left", want.before, n, err, left)
		}
	}
	wantStatuses(t, b.mustAdd(t, e), "duplicate")
	if got := b.total(t, "text"); got != "5/1" {
		t.Errorf("total %s", got)
	}
}
