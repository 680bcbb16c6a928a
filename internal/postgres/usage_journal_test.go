package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/pkg/money"
)

// The meters of these tests, one for each aggregation.
var testMeters = metering.Meters{
	{Code: "voice", Unit: "second", Aggregation: metering.Sum, Dimensions: []string{"project", "tag"}, SeriesCap: 3},
	{Code: "text", Unit: "word", Aggregation: metering.Sum},
	{Code: "calls", Unit: "call", Aggregation: metering.Count, Dimensions: []string{"project"}},
	{Code: "peak", Unit: "channel", Aggregation: metering.Max, Dimensions: []string{"project"}},
	{Code: "seats", Unit: "seat", Aggregation: metering.Last},
	{Code: "callers", Unit: "caller", Aggregation: metering.Unique, Dimensions: []string{"project"}},
	{Code: "minutes", Unit: "second", Aggregation: metering.Sum, First: money.MustDecimal("60"), Step: money.MustDecimal("6")},
	{Code: "concurrent", Unit: "connection", Aggregation: metering.Sum, Reserved: true},
}

// meterBench is a database with an account and a running ingester.
type meterBench struct {
	db      *postgres.DB
	account account.Account
	in      *metering.Ingester
}

func newMeterBench(t *testing.T, opt metering.Options) *meterBench {
	t.Helper()
	db := postgrestest.New(t)
	b := &meterBench{db: db, account: mustAccount(t, db)}
	mustEntitle(t, db, b.account.ID, nil)
	b.in = mustRun(t, db, opt)
	return b
}

// mustRun runs an ingester, at noon for ever, until the test ends.
func mustRun(t *testing.T, db *postgres.DB, opt metering.Options) *metering.Ingester {
	t.Helper()
	return mustRunWith(t, db, testMeters, opt)
}

func mustRunWith(t *testing.T, db *postgres.DB, meters metering.Meters, opt metering.Options) *metering.Ingester {
	t.Helper()
	in := metering.NewIngester(postgres.Journal(db.ByKey()), meters, clock.Fixed(noon), slog.New(slog.DiscardHandler), opt)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- in.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("ingester: %v", err)
		}
	})
	return in
}

// mustEntitle opens the period of March 2026, and February behind it.
func mustEntitle(t *testing.T, db *postgres.DB, a account.ID, change func(*entitlement.Entitlement)) {
	t.Helper()
	e := entitlement.Entitlement{
		Account: a, Status: account.Active, Level: "pro", Currency: money.USD,
		PeriodStarts: []time.Time{noon.AddDate(0, -1, 0), noon.AddDate(0, 0, -10)}, PeriodEnd: noon.AddDate(0, 0, 20), UpdatedAt: noon,
	}
	if change != nil {
		change(&e)
	}
	if err := db.Entitlements().Put(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

func (b *meterBench) event(id, meter, quantity string) metering.Event {
	return metering.Event{
		Account: b.account.ID, Source: "test", ID: id, Meter: meter, Quantity: money.MustDecimal(quantity),
		OccurredAt: noon.Add(-time.Hour),
	}
}

func (b *meterBench) mustAdd(t *testing.T, events ...metering.Event) []metering.Result {
	t.Helper()
	results, err := b.in.Add(t.Context(), events)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// total reads a period total behind the service's back: quantity and number of events.
func (b *meterBench) total(t *testing.T, meter string) string {
	t.Helper()
	return mustText(t, b.db, `SELECT coalesce(string_agg(trim_scale(quantity) || '/' || events, ' ' ORDER BY period_start), '')
		FROM usage_totals WHERE account_id = $1 AND meter = $2`, b.account.ID.UUID(), meter)
}

func mustText(t *testing.T, db *postgres.DB, query string, args ...any) (s string) {
	t.Helper()
	if err := db.Pool().QueryRow(t.Context(), query, args...).Scan(&s); err != nil {
		t.Fatal(err)
	}
	return s
}

func statuses(results []metering.Result) (s string) {
	for i, r := range results {
		if i > 0 {
			s += " "
		}
		s += r.Status.String()
		if r.Problem != nil {
			s += ":" + r.Problem.Code
		}
	}
	return s
}

func wantStatuses(t *testing.T, results []metering.Result, want string) {
	t.Helper()
	if got := statuses(results); got != want {
		t.Errorf("results\n got %s\nwant %s", got, want)
	}
}

func TestIngest(t *testing.T) {
	t.Parallel()

	t.Run("CountsAnEventOnceForEver", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		e := b.event("call-1", "text", "63.5")
		wantStatuses(t, b.mustAdd(t, e), "accepted")
		wantStatuses(t, b.mustAdd(t, e, e), "duplicate duplicate")
		other := b.event("call-1", "text", "64")
		results := b.mustAdd(t, other)
		wantStatuses(t, results, "conflict")
		if s := results[0].Stored; s == nil || s.Quantity.String() != "63.5" || s.Source != "test" || !s.OccurredAt.Equal(e.OccurredAt) {
			t.Errorf("the conflict shows %+v", s)
		}
		if got := b.total(t, "text"); got != "63.5/1" {
			t.Errorf("total %s", got)
		}
	})

	t.Run("ToldApartWithinOneBatch", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		first := b.event("a", "text", "1")
		wantStatuses(t, b.mustAdd(t, first, first, b.event("a", "text", "2"), b.event("b", "text", "3")),
			"accepted duplicate conflict accepted")
		if got := b.total(t, "text"); got != "4/2" {
			t.Errorf("total %s", got)
		}
	})

	// As they are in the next batch, where the first of them is stored.
	t.Run("ConflictsWithinABatchAreToldBeforeWhatElseForbidsAnEvent", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		early, good, late := b.event("1", "text", "5"), b.event("1", "text", "5"), b.event("1", "text", "5")
		early.OccurredAt = noon.Add(metering.MaxFuture + time.Second)
		late.OccurredAt = noon.Add(-metering.MaxAge - time.Second)
		results := b.mustAdd(t, early, good, late)
		wantStatuses(t, results, "rejected:in_future accepted conflict")
		if s := results[2].Stored; s == nil || !s.OccurredAt.Equal(good.OccurredAt) || results[2].Problem != nil {
			t.Errorf("the conflict shows %+v, and %+v", s, results[2].Problem)
		}
		wantStatuses(t, b.mustAdd(t, early, good, late), "conflict duplicate conflict")
	})

	t.Run("RetentionNeverCountsTwice", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		owner := postgrestest.Connect(t, b.db.Pool().Config().ConnString())
		e := b.event("old", "text", "5")
		b.mustAdd(t, e)
		if _, err := owner.Exec(t.Context(), "DELETE FROM usage_events"); err != nil {
			t.Fatal(err)
		}
		wantStatuses(t, b.mustAdd(t, e), "duplicate")
		results := b.mustAdd(t, b.event("old", "text", "6"))
		wantStatuses(t, results, "conflict")
		if results[0].Stored != nil {
			t.Error("shows an event that is not kept any more")
		}
	})

	// A replica whose machine dies in the middle of a flush, or an account that is being billed: whatever holds an
	// account's row for long is that account's trouble alone.
	t.Run("AnAccountThatIsHeldKeepsNobodyElseWaiting", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{Committers: 1})
		other := *b
		other.account = mustAccount(t, b.db)
		mustEntitle(t, b.db, other.account.ID, nil)
		holder, err := b.db.Pool().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = holder.Rollback(context.WithoutCancel(t.Context())) }()
		if _, err := holder.Exec(t.Context(), "SELECT FROM entitlements WHERE account_id = $1 FOR NO KEY UPDATE", b.account.ID); err != nil {
			t.Fatal(err)
		}
		var held sync.WaitGroup
		for i := range 3 {
			held.Go(func() {
				results, err := b.in.Add(t.Context(), []metering.Event{b.event(fmt.Sprint("held-", i), "text", "1"), other.event(fmt.Sprint("beside-", i), "text", "1")})
				if err != nil || statuses(results) != "accepted accepted" {
					t.Errorf("after the row was let go: %s, %v", statuses(results), err)
				}
			})
		}
		short, cancel := context.WithTimeout(t.Context(), 8*time.Second) // of which a second passes before the row counts as held
		defer cancel()
		for i := range 20 {
			if results, err := other.in.Add(short, []metering.Event{other.event(fmt.Sprint("free-", i), "text", "1")}); err != nil || statuses(results) != "accepted" {
				t.Fatalf("beside an account that is held: %s, %v", statuses(results), err)
			}
		}
		if err := holder.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		held.Wait()
		if mine, theirs := b.total(t, "text"), other.total(t, "text"); mine != "3/3" || theirs != "23/23" {
			t.Errorf("totals %s and %s", mine, theirs)
		}
		wantRecount(t, b.db)
	})

	// Where each account has a transaction of its own too: eight that are held are waited for once, not one after the other.
	t.Run("AccountsThatAreHeldKeepNobodyElseWaitingWhereTheyAreSharded", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{Committers: 1, OneAccount: true})
		holder, err := b.db.Pool().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = holder.Rollback(context.WithoutCancel(t.Context())) }()
		var events []metering.Event
		for i := range 8 {
			other := *b
			other.account = mustAccount(t, b.db)
			mustEntitle(t, b.db, other.account.ID, nil)
			events = append(events, other.event(fmt.Sprint(i), "text", "1"), b.event(fmt.Sprint("beside-", i), "text", "1"))
			if _, err := holder.Exec(t.Context(), "SELECT FROM entitlements WHERE account_id = $1 FOR NO KEY UPDATE", other.account.ID); err != nil {
				t.Fatal(err)
			}
		}
		var held sync.WaitGroup
		held.Go(func() {
			results, err := b.in.Add(t.Context(), events)
			if err != nil || statuses(results) != strings.TrimSpace(strings.Repeat("accepted ", len(events))) {
				t.Errorf("after the rows were let go: %s, %v", statuses(results), err)
			}
		})
		for lockWaits(t, b.db) == 0 && t.Context().Err() == nil {
			time.Sleep(time.Millisecond)
		}
		short, cancel := context.WithTimeout(t.Context(), 4*time.Second) // of which a second passes before a row counts as held
		defer cancel()
		if results, err := b.in.Add(short, []metering.Event{b.event("free", "text", "1")}); err != nil || statuses(results) != "accepted" {
			t.Errorf("beside accounts that are held: %s, %v", statuses(results), err)
		}
		if err := holder.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		held.Wait()
		wantRecount(t, b.db)
	})

	t.Run("AnAccountThatStaysHeldIsToBeSentAgain", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{Committers: 1, Patience: 1500 * time.Millisecond})
		holder, err := b.db.Pool().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = holder.Rollback(context.WithoutCancel(t.Context())) }()
		if _, err := holder.Exec(t.Context(), "SELECT FROM entitlements WHERE account_id = $1 FOR NO KEY UPDATE", b.account.ID); err != nil {
			t.Fatal(err)
		}
		e := b.event("1", "text", "1")
		if _, err := b.in.Add(t.Context(), []metering.Event{e}); !errors.Is(err, metering.ErrStore) {
			t.Errorf("got %v", err)
		}
		if err := holder.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantStatuses(t, b.mustAdd(t, e), "accepted")
	})

	t.Run("AnswersEachItem", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		at := func(id string, when time.Time) metering.Event {
			e := b.event(id, "text", "1")
			e.OccurredAt = when
			return e
		}
		with := func(id, meter string, change func(*metering.Event)) metering.Event {
			e := b.event(id, meter, "1")
			change(&e)
			return e
		}
		const us = time.Microsecond
		start := noon.AddDate(0, -1, 0)
		events := []metering.Event{
			at("future", noon.Add(5*time.Minute)),
			at("beyond", noon.Add(5*time.Minute+us)),
			at("old", noon.Add(-35*24*time.Hour-us)),
			at("before", start.Add(-us)),
			at("first", start),
			with("unknown", "fax", func(*metering.Event) {}),
			with("negative", "text", func(e *metering.Event) { e.Quantity = money.MustDecimal("-1") }),
			with("dim", "text", func(e *metering.Event) { e.Dimensions = metering.DimensionsOf(map[string]string{"project": "x"}) }),
			with("dim2", "voice", func(e *metering.Event) { e.Dimensions = metering.DimensionsOf(map[string]string{"project": "x"}) }),
			with("nul", "text", func(e *metering.Event) { e.ID = "a\x00b" }),
			with("stranger", "text", func(e *metering.Event) { e.Account = account.ID{} }),
			with("reserved", "concurrent", func(*metering.Event) {}),
			with("novalue", "callers", func(*metering.Event) {}),
		}
		wantStatuses(t, b.mustAdd(t, events...), "accepted rejected:in_future rejected:too_old rejected:period_not_open accepted "+
			"rejected:unknown_meter rejected:negative_quantity rejected:unknown_dimension accepted rejected:invalid_id "+
			"rejected:unknown_account rejected:meter_takes_no_events rejected:invalid_value")
	})

	t.Run("TakesWhatIsThirtyFiveDaysOldAndNoOlder", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) { e.PeriodStarts[0] = noon.AddDate(0, 0, -60) })
		bound, older := b.event("bound", "text", "1"), b.event("older", "text", "1")
		bound.OccurredAt = noon.Add(-metering.MaxAge)
		older.OccurredAt = bound.OccurredAt.Add(-time.Microsecond)
		wantStatuses(t, b.mustAdd(t, bound, older), "accepted rejected:too_old")
	})

	t.Run("PeriodsAreHalfOpen", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		boundary := noon.AddDate(0, 0, -10)
		before, on := b.event("before", "text", "1"), b.event("on", "text", "2")
		before.OccurredAt, on.OccurredAt = boundary.Add(-time.Microsecond), boundary
		b.mustAdd(t, before, on)
		if got := b.total(t, "text"); got != "1/1 2/1" {
			t.Errorf("totals by period %s", got)
		}
	})

	t.Run("ClosedAndSuspendedAccountsTakeNone", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		kept := b.event("kept", "text", "1")
		b.mustAdd(t, kept)
		mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) { e.Status = account.Suspended })
		wantStatuses(t, b.mustAdd(t, b.event("s", "text", "1"), kept), "rejected:account_suspended duplicate")
		mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) { e.Status = account.Closed })
		wantStatuses(t, b.mustAdd(t, b.event("c", "text", "1"), kept), "rejected:account_closed duplicate")
		if got := mustText(t, b.db, `SELECT string_agg(event_id || ':' || reason, ' ') FROM usage_rejects`); got != "s:account_suspended" {
			t.Errorf("on record: %s", got)
		}
	})

	t.Run("GoesByTheTestClockOfTheAccount", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		if _, err := b.db.Pool().Exec(t.Context(), "UPDATE accounts SET clock_at = $1", noon.AddDate(0, 0, 15)); err != nil {
			t.Fatal(err)
		}
		e := b.event("later", "text", "1")
		e.OccurredAt = noon.AddDate(0, 0, 15)
		wantStatuses(t, b.mustAdd(t, e), "accepted")
	})

	t.Run("RoundsEachEventWhereTheMeterSaysSo", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		b.mustAdd(t, b.event("0", "minutes", "0"), b.event("1", "minutes", "1"), b.event("2", "minutes", "61"), b.event("3", "minutes", "66"))
		if got := b.total(t, "minutes"); got != "192/4" { // 0 + 60 + 66 + 66
			t.Errorf("total %s", got)
		}
	})

	t.Run("AnOverflowingTotalHurtsNobodyElse", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		b.mustAdd(t, b.event("big", "text", "999999999999999"))
		wantStatuses(t, b.mustAdd(t, b.event("x", "minutes", "60"), b.event("more", "text", "999999999999999"), b.event("y", "minutes", "60")),
			"accepted rejected:not_storable accepted")
		many := []metering.Event{b.event("z", "minutes", "60")}
		for i := range 500 {
			many = append(many, b.event("more-"+fmt.Sprint(i), "text", "999999999999999"))
		}
		for i, got := range b.mustAdd(t, many...) { // told apart at once, not by trying each for itself
			if i > 0 && (got.Problem == nil || !strings.Contains(got.Problem.Detail, "999999999999999")) {
				t.Fatalf("event %d: %+v names the greatest total", i, got.Problem)
			}
		}
		if got := b.total(t, "text"); got != "999999999999999/1" {
			t.Errorf("total %s", got)
		}
	})

	t.Run("SeriesBeyondTheCapCountAsOther", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		var events []metering.Event
		for i := range 10 {
			e := b.event(fmt.Sprint(i), "voice", "1")
			e.Dimensions = metering.DimensionsOf(map[string]string{"project": fmt.Sprint(i % 5)})
			events = append(events, e)
		}
		b.mustAdd(t, events[:4]...)
		b.mustAdd(t, events[4:]...)
		got := mustText(t, b.db, `SELECT string_agg(coalesce(d.dimensions ->> 'project', 'other') || ':' || trim_scale(quantity), ' ' ORDER BY d.dimensions ->> 'project')
			FROM usage_series_totals LEFT JOIN usage_series d USING (account_id, meter, series)`)
		if got != "0:2 1:2 2:2 other:4" {
			t.Errorf("series %s", got)
		}
		if got := b.total(t, "voice"); got != "10/10" {
			t.Errorf("total %s", got)
		}
	})

	t.Run("MaxLastAndUniqueGoByEventTime", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		var events []metering.Event
		for i, q := range []string{"5", "9", "3"} {
			for _, m := range []string{"peak", "seats", "callers"} {
				e := b.event(fmt.Sprint(m, i), m, q)
				e.OccurredAt = noon.Add(-time.Duration(i) * time.Minute) // the first is the latest
				if m == "callers" {
					e.Value = []string{"anna", "ben", "anna"}[i]
				}
				events = append(events, e)
			}
		}
		rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		for _, e := range events {
			b.mustAdd(t, e)
		}
		for meter, want := range map[string]string{"peak": "9/3", "seats": "5/3", "callers": "2/3"} {
			if got := b.total(t, meter); got != want {
				t.Errorf("%s = %s, want %s", meter, got, want)
			}
		}
	})

	t.Run("StoresWhatIsQueuedWhenItsCallerLeaves", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{Committers: 1}) // of two the second could be quicker
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, _ = b.in.Add(ctx, []metering.Event{b.event("left", "text", "1")})
		wantStatuses(t, b.mustAdd(t, b.event("left", "text", "1")), "duplicate")
	})
}

func TestHardLimits(t *testing.T) {
	t.Parallel()

	limited := func(e *entitlement.Entitlement) {
		e.Limits = map[string]entitlement.Limit{
			"text":    {Quantity: money.MustDecimal("10"), Mode: entitlement.Hard},
			"minutes": {Quantity: money.MustDecimal("10"), Mode: entitlement.Soft},
			"callers": {Quantity: money.MustDecimal("1"), Mode: entitlement.Hard},
			"peak":    {Quantity: money.MustDecimal("4"), Mode: entitlement.Hard},
		}
	}

	t.Run("RefuseWholeEventsInOrderOfArrival", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		mustEntitle(t, b.db, b.account.ID, limited)
		results := b.mustAdd(t, b.event("1", "text", "8"), b.event("2", "text", "3"), b.event("3", "text", "2"), b.event("4", "text", "0.000000001"), b.event("5", "text", "0"))
		wantStatuses(t, results, "accepted rejected:limit_reached accepted rejected:limit_reached accepted")
		if got := results[1].Problem.ResetsAt; !got.Equal(noon.AddDate(0, 0, 20)) {
			t.Errorf("resets at %s", got)
		}
		if got := b.total(t, "text"); got != "10/3" {
			t.Errorf("total %s", got)
		}
		if got := mustText(t, b.db, `SELECT string_agg(event_id || ':' || reason, ' ' ORDER BY event_id) FROM usage_rejects`); got != "2:limit_reached 4:limit_reached" {
			t.Errorf("on record: %s", got)
		}
		// After an upgrade the same id is welcome.
		mustEntitle(t, b.db, b.account.ID, nil)
		wantStatuses(t, b.mustAdd(t, b.event("2", "text", "3")), "accepted")
	})

	t.Run("SoftOnesLetPass", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		mustEntitle(t, b.db, b.account.ID, limited)
		wantStatuses(t, b.mustAdd(t, b.event("1", "minutes", "60")), "accepted")
	})

	t.Run("CountDistinctValuesAndPeaks", func(t *testing.T) {
		t.Parallel()
		b := newMeterBench(t, metering.Options{})
		mustEntitle(t, b.db, b.account.ID, limited)
		anna, again, ben := b.event("1", "callers", "1"), b.event("2", "callers", "1"), b.event("3", "callers", "1")
		anna.Value, again.Value, ben.Value = "anna", "anna", "ben"
		wantStatuses(t, b.mustAdd(t, anna, again, ben), "accepted accepted rejected:limit_reached")
		wantStatuses(t, b.mustAdd(t, b.event("p", "peak", "4"), b.event("q", "peak", "5")), "accepted rejected:limit_reached")
	})

	t.Run("GrantExactlyTheLimitToManyCallers", func(t *testing.T) {
		t.Parallel()
		rounds := 200
		if testing.Short() {
			rounds = 10
		}
		db := postgrestest.New(t)
		// Two replicas: what one holds in memory must not matter.
		replicas := []*metering.Ingester{mustRun(t, db, metering.Options{}), mustRun(t, db, metering.Options{})}
		for range rounds {
			a := mustAccount(t, db)
			mustEntitle(t, db, a.ID, func(e *entitlement.Entitlement) {
				e.Limits = map[string]entitlement.Limit{"text": {Quantity: money.MustDecimal("30"), Mode: entitlement.Hard}}
			})
			var wg sync.WaitGroup
			granted := make([]int, 50)
			for i := range granted {
				wg.Go(func() {
					e := metering.Event{Account: a.ID, ID: fmt.Sprint(i), Meter: "text", Quantity: money.MustDecimal("1"), OccurredAt: noon}
					results, err := replicas[i%2].Add(t.Context(), []metering.Event{e})
					if err != nil {
						t.Error(err)
						return
					}
					granted[i] = metering.Summarize(results)[metering.Accepted]
				})
			}
			wg.Wait()
			sum := 0
			for _, n := range granted {
				sum += n
			}
			if sum != 30 {
				t.Fatalf("granted %d of 30", sum)
			}
		}
	})
}

// unitPricer charges one minor unit for each unit of use, whatever it is.
type unitPricer struct{}

func (unitPricer) Accrued(_ context.Context, e entitlement.Entitlement, _ time.Time, use []entitlement.Use) (money.Amount, error) {
	var sum money.Decimal
	for _, u := range use {
		sum = sum.Add(u.Used).Add(u.Reserved)
	}
	return money.Round(sum, 1, 100, e.Currency)
}

// dearPricer is a unitPricer to which use with a dimension is ten times as dear.
type dearPricer struct{ unitPricer }

func (p dearPricer) Accrued(ctx context.Context, e entitlement.Entitlement, start time.Time, use []entitlement.Use) (money.Amount, error) {
	for i := range use {
		if len(use[i].Dimensions) > 0 {
			use[i].Used = use[i].Used.Mul(money.DecimalFromInt(10))
		}
	}
	return p.unitPricer.Accrued(ctx, e, start, use)
}

func TestSpendLimit(t *testing.T) {
	t.Parallel()

	b := newMeterBench(t, metering.Options{Pricer: unitPricer{}})
	limit := int64(100)
	mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) { e.SpendLimit = &limit })
	dim := b.event("1", "voice", "40")
	dim.Dimensions = metering.DimensionsOf(map[string]string{"project": "x"})
	wantStatuses(t, b.mustAdd(t, dim, b.event("2", "text", "30")), "accepted accepted")
	wantStatuses(t, b.mustAdd(t, b.event("3", "text", "20"), b.event("4", "text", "20"), b.event("5", "text", "5"), b.event("5", "text", "5"), b.event("6", "voice", "5"), b.event("7", "voice", "0"), b.event("8", "voice", "1")),
		"accepted rejected:spend_limit_reached accepted duplicate accepted accepted rejected:spend_limit_reached")
	if got := b.total(t, "text") + " " + b.total(t, "voice"); got != "55/3 45/3" {
		t.Errorf("totals %s", got)
	}
	past := b.event("9", "text", "100")
	past.OccurredAt = noon.AddDate(0, 0, -15)
	wantStatuses(t, b.mustAdd(t, past), "accepted") // the limit is one of each period
}

// brokenPricer is a unitPricer that has a fault with one account, until it is mended.
type brokenPricer struct {
	unitPricer
	with   account.ID
	fault  func() error
	mended atomic.Bool
}

func (p *brokenPricer) Accrued(ctx context.Context, e entitlement.Entitlement, start time.Time, use []entitlement.Use) (money.Amount, error) {
	if e.Account == p.with && !p.mended.Load() {
		return money.Amount{}, p.fault()
	}
	return p.unitPricer.Accrued(ctx, e, start, use)
}

// Where nothing can be decided on the usage of one account, that of the others is stored, also where it comes in the same flush.
func TestAFaultWithOneAccountKeepsNobodyElse(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func() error{
		"Error": func() error { return errors.New("its plan has no prices") },
		"Panic": func() error { panic("its plan has no prices") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &brokenPricer{fault: fault}
			b := newMeterBench(t, metering.Options{Pricer: p, Patience: 3 * time.Second})
			other := &meterBench{db: b.db, account: mustAccount(t, b.db), in: b.in}
			p.with = b.account.ID
			limit := int64(100)
			for _, a := range []account.ID{b.account.ID, other.account.ID} {
				mustEntitle(t, b.db, a, func(e *entitlement.Entitlement) { e.SpendLimit = &limit })
			}
			together := []metering.Event{b.event("1", "text", "1"), other.event("1", "text", "1")}
			if _, err := b.in.Add(t.Context(), together); !errors.Is(err, metering.ErrStore) {
				t.Errorf("of both: %v, want %v", err, metering.ErrStore)
			}
			if got := other.total(t, "text"); got != "1/1" {
				t.Errorf("the other's was not stored: %q", got)
			}
			waits := make(chan error, 1)
			go func() {
				_, err := b.in.Add(t.Context(), together[:1])
				waits <- err
			}()
			wantStatuses(t, other.mustAdd(t, other.event("2", "text", "1")), "accepted")
			if err := <-waits; !errors.Is(err, metering.ErrStore) {
				t.Errorf("of the one: %v, want %v", err, metering.ErrStore)
			}
			p.mended.Store(true)
			wantStatuses(t, b.mustAdd(t, together...), "accepted duplicate")
		})
	}
}

// Whatever the tables hold when a statement is first planned, and however they grow after: usage is stored
// and looked up by index, with plans that are made once.
func TestStatementsOfUsageGoByKey(t *testing.T) {
	t.Parallel()
	db, err := postgres.Open(t.Context(), postgres.Config{URL: postgrestest.DSN(t), MaxConns: 2, ByKey: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	b := &meterBench{db: db, account: mustAccount(t, db)}
	a := b.account.ID
	mustEntitle(t, db, a, nil)
	if _, err := db.Pool().Exec(t.Context(), "ANALYZE"); err != nil { // small, and known to be
		t.Fatal(err)
	}
	b.in = mustRun(t, db, metering.Options{Committers: 1})
	voice := b.event("1", "voice", "1")
	voice.Dimensions = metering.DimensionsOf(map[string]string{"project": "p"})
	b.mustAdd(t, voice, b.event("2", "peak", "2"), b.event("3", "seats", "3"))
	b.mustAdd(t, b.event("2", "peak", "4")) // a conflict
	r, err := b.reserve(t, "text", "10")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.act(t, metering.Commit, r, "7"); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Revisions(db.ByKey(), clock.Fixed(noon)).Revision(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if _, err := postgres.Standings(db.ByKey()).Standings(t.Context(), []account.ID{a}); err != nil {
		t.Fatal(err)
	}

	conn, err := db.ByKey().Acquire(t.Context()) // the one that all of this went over
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if used := mustGoByKey(t, conn); used < 18 {
		t.Errorf("only %d statements were used", used)
	}
}

// mustGoByKey requires that what the connection has used is planned once and for rows by their keys, and counts it.
func mustGoByKey(t *testing.T, conn *pgxpool.Conn) int {
	t.Helper()
	type prepared struct {
		Name, Statement string
		Parameters      int
		Replanned       int64
	}
	rows, _ := conn.Query(t.Context(), `SELECT name, statement, cardinality(parameter_types), custom_plans FROM pg_prepared_statements
WHERE name LIKE 'accrue_%' AND statement ~ '(SELECT|INSERT|UPDATE)'`)
	statements, err := pgx.CollectRows(rows, pgx.RowToStructByPos[prepared])
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range statements {
		execute := "EXPLAIN EXECUTE " + p.Name
		if p.Parameters > 0 {
			execute += "(NULL" + strings.Repeat(", NULL", p.Parameters-1) + ")"
		}
		rows, _ := conn.Query(t.Context(), execute, pgx.QueryExecModeSimpleProtocol)
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			t.Fatal(err)
		}
		if whole := strings.Join(plan, "\n"); p.Replanned > 0 || strings.Contains(whole, "Seq Scan") || strings.Contains(whole, "Hash Join") {
			t.Errorf("planned %d times for its parameters:\n%s\n%s", p.Replanned, p.Statement, whole)
		}
	}
	return len(statements)
}
