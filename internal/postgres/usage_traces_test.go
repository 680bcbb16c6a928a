package postgres_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// noMonths are partitions of no interest.
type noMonths struct{}

func (noMonths) OpenMonth(context.Context, time.Time) error         { return nil }
func (noMonths) DropBefore(context.Context, time.Time) (int, error) { return 0, nil }

// What is from the months whose raw events are dropped goes with them, of every account and on two replicas at once; of later
// months nothing goes, nor does a reservation that is open.
func TestUsageTraces_GoWithTheEvents(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	day := 24 * time.Hour
	// Identifiers begin with real time, so all of this is about now; kept for 400 days.
	month := time.Date(time.Now().Year(), time.Now().Month(), 1, 0, 0, 0, 0, time.UTC)
	b := &meterBench{db: db, account: mustAccount(t, db)}
	mustEntitle(t, db, b.account.ID, nil)
	mustEntitle(t, db, mustAccount(t, db).ID, nil)
	b.in = mustRun(t, db, metering.Options{})
	open, err := b.reserve(t, "text", "1")
	if err != nil {
		t.Fatal(err)
	}
	settled, err := b.reserve(t, "text", "2")
	if err == nil {
		_, err = b.act(t, metering.Commit, settled, "2")
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Pool().Exec(t.Context(), `INSERT INTO meters VALUES ('seats', '{"aggregation": "unique"}'), ('text', '{"aggregation": "sum"}')`); err != nil {
		t.Fatal(err)
	}
	_, err = db.Pool().Exec(t.Context(), `
		INSERT INTO usage_rejects (account_id, id, source, event_id, meter, quantity, occurred_at, received_at, reason)
		SELECT a.id, gen_random_uuid(), 'default', n::text, 'text', 1, $1, $1::timestamptz - n % 2 * interval '1 second', 'limit_reached'
		FROM accounts a, generate_series(1, 12000) n`, month) // more than go at a time; half of them of the month before
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Pool().Exec(t.Context(), `
		INSERT INTO usage_unique_values (account_id, meter, period_start, value)
		SELECT a.id, 'seats', p, gen_random_uuid() FROM accounts a, unnest(ARRAY[$1::timestamptz, $2]) p`, month, month.Add(-402*day))
	if err != nil {
		t.Fatal(err)
	}
	left := func() string {
		return mustText(t, db, `SELECT (SELECT count(*) FROM usage_rejects) || ' ' || (SELECT count(*) FROM reservations) || ' ' ||
			(SELECT count(*) FROM usage_unique_values)`)
	}
	retain := func(now time.Time) {
		t.Helper()
		var wg sync.WaitGroup
		for range 2 {
			r := metering.Retention{
				Partitions: noMonths{}, Traces: postgres.UsageTraces(db.Pool()), Clock: clock.Fixed(now), Keep: 400 * day,
				Log: slog.New(slog.DiscardHandler),
			}
			wg.Go(func() {
				for range 2 { // the second time there is nothing to do
					if err := r.Tend(t.Context()); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	for _, step := range []struct {
		now  time.Time
		want string
	}{
		{month.Add(400*day - time.Second), "24000 2 4"}, // the month before this one is not over
		{month.Add(400 * day), "12000 2 2"},
		{month.AddDate(0, 1, 0).Add(400 * day), "0 1 2"},
		{month.AddDate(0, 1, 402).Add(400 * day), "0 1 0"},
	} {
		if retain(step.now); left() != step.want {
			t.Errorf("at %s there are %s refusals, reservations and values; want %s", step.now, left(), step.want)
		}
	}
	if r, err := db.Reservations().Get(t.Context(), b.account.ID, open.ID); err != nil || r.Status != entitlement.Open {
		t.Errorf("the open reservation: %+v, %v", r, err)
	}
	if _, err := b.act(t, metering.Commit, settled, "2"); errs.KindOf(err) != errs.NotFound {
		t.Errorf("a commit of the one that is gone: %v, want that it is not found", err)
	}
	if got := b.held(t, "text"); got != "2+1" {
		t.Errorf("used+reserved %s", got)
	}
}
