package postgres_test

import (
	"testing"

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
