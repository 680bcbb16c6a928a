package postgres_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/pkg/money"
)

func limitOf(meter, quantity string) func(*entitlement.Entitlement) {
	return func(e *entitlement.Entitlement) {
		e.Limits = map[string]entitlement.Limit{meter: {Quantity: money.MustDecimal(quantity), Mode: entitlement.Hard}}
	}
}

func (b *meterBench) reserve(t *testing.T, meter, quantity string) (entitlement.Reservation, error) {
	t.Helper()
	out, err := b.in.Reserve(t.Context(), metering.Reserving{
		Action: metering.Reserve, Account: b.account.ID, ID: id.New[entitlement.Reservation](), Meter: meter,
		Quantity: money.MustDecimal(quantity), TTL: time.Minute,
	})
	return out.Reservation, err
}

func (b *meterBench) act(t *testing.T, action metering.Action, r entitlement.Reservation, quantity string) (entitlement.Reservation, error) {
	t.Helper()
	out, err := b.in.Reserve(t.Context(), metering.Reserving{
		Action: action, Account: b.account.ID, ID: r.ID, Quantity: money.MustDecimal(quantity), TTL: time.Minute,
	})
	return out.Reservation, err
}

// held reads what is used and reserved of a meter.
func (b *meterBench) held(t *testing.T, meter string) string {
	t.Helper()
	return mustText(t, b.db, `SELECT coalesce(sum(trim_scale(quantity)), 0) || '+' || coalesce(sum(trim_scale(reserved)), 0) FROM usage_totals
		WHERE account_id = $1 AND meter = $2`, b.account.ID.UUID(), meter)
}

func TestReservations(t *testing.T) {
	t.Parallel()

	setup := func(t *testing.T, limit func(*entitlement.Entitlement)) *meterBench {
		t.Helper()
		b := newMeterBench(t, metering.Options{Pricer: unitPricer{}})
		mustEntitle(t, b.db, b.account.ID, limit)
		return b
	}

	// The total of such a meter is changed in three ways at once: by its largest value, by what is let go and by
	// what is held anew.
	t.Run("AreHeldAndSettledAtOnceOnAMeterThatKeepsTheLargestValue", func(t *testing.T) {
		t.Parallel()
		b := setup(t, limitOf("peak", "100"))
		b.in = mustRun(t, b.db, metering.Options{Committers: 1}) // what waits goes into one flush
		settled, err := b.reserve(t, "peak", "30")
		if err != nil {
			t.Fatal(err)
		}
		lock, err := b.db.Pool().Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = lock.Rollback(t.Context()) }()
		var holder string
		err = lock.QueryRow(t.Context(), "SELECT pg_current_xact_id()::text FROM entitlements WHERE account_id = $1 FOR UPDATE", b.account.ID.UUID()).Scan(&holder)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := b.in.Expire(t.Context(), b.account.ID); err != nil { // a flush that stands before the lock
				t.Error(err)
			}
		})
		for mustText(t, b.db, "SELECT count(*)::text FROM pg_locks WHERE transactionid = $1::xid AND NOT granted", holder) == "0" {
			runtime.Gosched()
		}
		wg.Go(func() {
			if _, err := b.act(t, metering.Commit, settled, "25"); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := b.reserve(t, "peak", "20"); err != nil {
				t.Error(err)
			}
		})
		for b.in.Waiting() < 2 {
			runtime.Gosched()
		}
		if err := lock.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if got := b.held(t, "peak"); got != "25+20" {
			t.Errorf("used+reserved %s", got)
		}
	})
	// The meter counts a minute at least, and then steps of six seconds.
	t.Run("HoldWhatTheMeterWillCount", func(t *testing.T) {
		t.Parallel()
		b := setup(t, limitOf("minutes", "131"))
		if _, err := b.reserve(t, "minutes", "127"); !errors.Is(err, entitlement.ErrLimitReached) {
			t.Errorf("what counts 132 was reserved: %v", err)
		}
		r, err := b.reserve(t, "minutes", "61")
		if err != nil || r.Quantity.String() != "66" {
			t.Fatalf("%+v, %v", r, err)
		}
		if r, err = b.act(t, metering.Extend, r, "0"); err != nil || r.Quantity.String() != "66" {
			t.Fatalf("%+v, %v", r, err)
		}
		if r, err = b.act(t, metering.Extend, r, "1"); err != nil || r.Quantity.String() != "72" {
			t.Fatalf("%+v, %v", r, err)
		}
		if _, err := b.reserve(t, "minutes", "1"); !errors.Is(err, entitlement.ErrLimitReached) {
			t.Errorf("a minute was reserved where 59 s are left: %v", err)
		}
		if r, err = b.act(t, metering.Commit, r, "131"); !errors.Is(err, entitlement.ErrLimitReached) {
			t.Errorf("what counts 132 was committed: %+v, %v", r, err)
		}
	})
	t.Run("CountWithinWhatTheyHoldThoughTheMeterRoundsUp", func(t *testing.T) {
		t.Parallel()
		b := setup(t, limitOf("minutes", "66"))
		r, err := b.reserve(t, "minutes", "61")
		if err != nil {
			t.Fatal(err)
		}
		if r, err = b.act(t, metering.Commit, r, "61.5"); err != nil || r.Used.String() != "61.5" {
			t.Errorf("%+v, %v", r, err)
		}
		if got := b.held(t, "minutes"); got != "66+0" {
			t.Errorf("used+reserved %s", got)
		}
		wantRecount(t, b.db)
	})
	t.Run("LetNothingPassALoweredSpendLimitByWhatTheyLetGo", func(t *testing.T) {
		t.Parallel()
		b := setup(t, nil)
		b.mustAdd(t, b.event("used", "text", "90"))
		overdue, err := b.reserve(t, "text", "60")
		if err != nil {
			t.Fatal(err)
		}
		limit := int64(100)
		mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) { e.SpendLimit = &limit })
		if _, err := b.db.Pool().Exec(t.Context(), "UPDATE reservations SET expires_at = created_at WHERE id = $1", overdue.ID.UUID()); err != nil {
			t.Fatal(err)
		}
		if _, err := b.reserve(t, "text", "40"); !errors.Is(err, entitlement.ErrSpendLimitReached) {
			t.Errorf("130 of 100 were granted in place of 150: %v", err)
		}
		if _, err := b.reserve(t, "text", "10"); err != nil {
			t.Error(err)
		}
		if got := b.held(t, "text"); got != "90+10" {
			t.Errorf("used+reserved %s", got)
		}
	})
	t.Run("HoldUnitsUntilTheyAreSettled", func(t *testing.T) {
		t.Parallel()
		b := setup(t, limitOf("text", "10"))
		r, err := b.reserve(t, "text", "6")
		if err != nil || r.Status != entitlement.Open || !r.ExpiresAt.After(r.CreatedAt) {
			t.Fatalf("%+v, %v", r, err)
		}
		if _, err := b.reserve(t, "text", "5"); !errors.Is(err, entitlement.ErrLimitReached) {
			t.Errorf("a second hold passed the limit: %v", err)
		}
		wantStatuses(t, b.mustAdd(t, b.event("1", "text", "5"), b.event("2", "text", "4")), "rejected:limit_reached accepted")
		r, err = b.act(t, metering.Commit, r, "4.5")
		if err != nil || r.Status != entitlement.Committed || r.Used.String() != "4.5" {
			t.Fatalf("%+v, %v", r, err)
		}
		if got := b.held(t, "text"); got != "8.5+0" {
			t.Errorf("used+reserved %s", got)
		}
		if again, err := b.act(t, metering.Commit, r, "4.5"); err != nil || again.Version != r.Version {
			t.Errorf("a repeated commit: %+v, %v", again, err)
		}
		if _, err := b.act(t, metering.Commit, r, "5"); !errors.Is(err, entitlement.ErrSettled) {
			t.Errorf("another commit: %v", err)
		}
		if _, err := b.act(t, metering.Release, r, "0"); !errors.Is(err, entitlement.ErrSettled) {
			t.Errorf("a release after the commit: %v", err)
		}
		wantRecount(t, b.db)
		got, err := b.db.Reservations().Get(t.Context(), b.account.ID, r.ID)
		if err != nil || got.Status != entitlement.Committed || got.Used.String() != "4.5" {
			t.Errorf("stored %+v, %v", got, err)
		}
	})

	t.Run("LetGoWhatIsReleasedOrExpired", func(t *testing.T) {
		t.Parallel()
		b := setup(t, limitOf("text", "10"))
		first, _ := b.reserve(t, "text", "6")
		second, _ := b.reserve(t, "text", "4")
		if _, err := b.act(t, metering.Release, first, "0"); err != nil {
			t.Fatal(err)
		}
		if got := b.held(t, "text"); got != "0+4" {
			t.Errorf("after the release %s", got)
		}
		if _, err := b.db.Pool().Exec(t.Context(), "UPDATE reservations SET expires_at = clock_timestamp() - interval '1 second' WHERE id = $1", second.ID.UUID()); err != nil {
			t.Fatal(err)
		}
		holders, err := b.db.Reservations().Holders(t.Context(), 10)
		if err != nil || len(holders) != 1 || holders[0] != b.account.ID {
			t.Fatalf("holders %v, %v", holders, err)
		}
		if err := b.in.Expire(t.Context(), b.account.ID); err != nil {
			t.Fatal(err)
		}
		if got := b.held(t, "text"); got != "0+0" {
			t.Errorf("after the sweep %s", got)
		}
		// Late, but the limit has room: what was used is counted.
		b.mustAdd(t, b.event("1", "text", "7"))
		if _, err := b.act(t, metering.Commit, second, "4"); !errors.Is(err, entitlement.ErrLimitReached) {
			t.Errorf("a late commit past the limit: %v", err)
		}
		if r, err := b.act(t, metering.Commit, second, "3"); err != nil || r.Status != entitlement.Committed {
			t.Errorf("a late commit: %+v, %v", r, err)
		}
		if got := b.held(t, "text"); got != "10+0" {
			t.Errorf("at the end %s", got)
		}
	})

	t.Run("GrowForLongCalls", func(t *testing.T) {
		t.Parallel()
		b := setup(t, limitOf("text", "10"))
		r, _ := b.reserve(t, "text", "6")
		if r, err := b.act(t, metering.Extend, r, "4"); err != nil || r.Quantity.String() != "10" {
			t.Errorf("%+v, %v", r, err)
		}
		if _, err := b.act(t, metering.Extend, r, "1"); !errors.Is(err, entitlement.ErrLimitReached) {
			t.Errorf("grew past the limit: %v", err)
		}
		if got := b.held(t, "text"); got != "0+10" {
			t.Errorf("used+reserved %s", got)
		}
	})

	t.Run("AreCommittedThoughTheLimitWasLowered", func(t *testing.T) {
		t.Parallel()
		b := setup(t, limitOf("text", "10"))
		r, _ := b.reserve(t, "text", "8")
		mustEntitle(t, b.db, b.account.ID, limitOf("text", "1"))
		if _, err := b.act(t, metering.Commit, r, "8"); err != nil {
			t.Errorf("what was granted was not honoured: %v", err)
		}
		if got := b.held(t, "text"); got != "8+0" {
			t.Errorf("used+reserved %s", got)
		}
	})

	t.Run("AreNotCommittedOnAClosedAccount", func(t *testing.T) {
		t.Parallel()
		b := setup(t, nil)
		r, _ := b.reserve(t, "text", "8")
		mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) { e.Status = account.Closed })
		if _, err := b.act(t, metering.Commit, r, "8"); !errors.Is(err, entitlement.ErrClosed) {
			t.Errorf("%v, want closed", err)
		}
	})

	t.Run("CountInThePeriodOfWhichTheyHoldUnits", func(t *testing.T) {
		t.Parallel()
		b := setup(t, limitOf("text", "10"))
		first, err1 := b.reserve(t, "text", "8")
		second, err2 := b.reserve(t, "text", "2")
		mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) { // the period has ended meanwhile
			limitOf("text", "10")(e)
			e.PeriodStarts = append(e.PeriodStarts, noon.AddDate(0, 0, -1))
		})
		third, err3 := b.reserve(t, "text", "9")
		if err1 != nil || err2 != nil || err3 != nil {
			t.Fatal(err1, err2, err3)
		}
		commit := func(r entitlement.Reservation, quantity string, at time.Time) error {
			_, err := b.in.Reserve(t.Context(), metering.Reserving{
				Action: metering.Commit, Account: b.account.ID, ID: r.ID, Quantity: money.MustDecimal(quantity), OccurredAt: at,
			})
			return err
		}
		if err := commit(first, "8", time.Time{}); err != nil {
			t.Errorf("what was granted was not honoured: %v", err)
		}
		if err := commit(second, "2", noon); !errors.Is(err, entitlement.ErrLimitReached) {
			t.Errorf("passes the limit of a period in which it holds nothing: %v", err)
		}
		if err := commit(second, "1", noon); err != nil {
			t.Errorf("with room for it: %v", err)
		}
		if err := commit(third, "9", time.Time{}); err != nil {
			t.Error(err)
		}
		got := mustText(t, b.db, `SELECT string_agg(trim_scale(quantity) || '+' || trim_scale(reserved), ' ' ORDER BY period_start) FROM usage_totals
			WHERE account_id = $1 AND meter = 'text'`, b.account.ID.UUID())
		if got != "8+0 10+0" {
			t.Errorf("used+reserved %s", got)
		}
	})

	t.Run("BoundConcurrentConnections", func(t *testing.T) {
		t.Parallel()
		b := setup(t, limitOf("concurrent", "2"))
		first, err1 := b.reserve(t, "concurrent", "1")
		_, err2 := b.reserve(t, "concurrent", "1")
		_, err3 := b.reserve(t, "concurrent", "1")
		if err1 != nil || err2 != nil || !errors.Is(err3, entitlement.ErrLimitReached) {
			t.Fatal(err1, err2, err3)
		}
		if _, err := b.act(t, metering.Commit, first, "1"); err != nil {
			t.Fatal(err)
		}
		if got := b.held(t, "concurrent"); got != "0+1" {
			t.Errorf("used+reserved %s", got)
		}
		if _, err := b.reserve(t, "concurrent", "1"); err != nil {
			t.Error(err)
		}
	})

	t.Run("KeepWithinTheSpendLimit", func(t *testing.T) {
		t.Parallel()
		limit := int64(100)
		b := setup(t, func(e *entitlement.Entitlement) { e.SpendLimit = &limit })
		r, err := b.reserve(t, "text", "60")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.reserve(t, "voice", "41"); !errors.Is(err, entitlement.ErrSpendLimitReached) {
			t.Errorf("err = %v", err)
		}
		wantStatuses(t, b.mustAdd(t, b.event("1", "voice", "41"), b.event("2", "voice", "40")), "rejected:spend_limit_reached accepted")
		if _, err := b.act(t, metering.Commit, r, "60"); err != nil {
			t.Errorf("commit: %v", err)
		}
		if got := b.held(t, "voice") + " " + b.held(t, "text"); got != "40+0 60+0" {
			t.Errorf("used+reserved %s", got)
		}
	})

	// What is held has no dimensions yet: the call that it was held for may turn out dearer, and has taken place.
	t.Run("AreCountedWithinWhatTheyHoldWhateverItsDimensionsCost", func(t *testing.T) {
		t.Parallel()
		limit := int64(100)
		b := newMeterBench(t, metering.Options{Pricer: dearPricer{}})
		mustEntitle(t, b.db, b.account.ID, func(e *entitlement.Entitlement) { e.SpendLimit = &limit })
		r, err := b.reserve(t, "voice", "60")
		if err != nil {
			t.Fatal(err)
		}
		commit := func(quantity string) error {
			_, err := b.in.Reserve(t.Context(), metering.Reserving{
				Action: metering.Commit, Account: b.account.ID, ID: r.ID, Quantity: money.MustDecimal(quantity),
				Dimensions: metering.DimensionsOf(map[string]string{"project": "dear"}),
			})
			return err
		}
		if err := commit("61"); !errors.Is(err, entitlement.ErrSpendLimitReached) {
			t.Errorf("more than was held passed the spend limit: %v", err)
		}
		if err := commit("60"); err != nil {
			t.Errorf("what was held was refused: %v", err)
		}
		if got := b.held(t, "voice"); got != "60+0" {
			t.Errorf("used+reserved %s", got)
		}
		wantStatuses(t, b.mustAdd(t, b.event("1", "voice", "1")), "rejected:spend_limit_reached")
	})

	t.Run("AreAnsweredOncePerKey", func(t *testing.T) {
		t.Parallel()
		b := setup(t, limitOf("text", "10"))
		ask := func(fingerprint byte) (metering.Reserved, error) {
			return b.in.Reserve(t.Context(), metering.Reserving{
				Action: metering.Reserve, Account: b.account.ID, ID: id.New[entitlement.Reservation](), Meter: "text",
				Quantity: money.MustDecimal("4"), TTL: time.Minute,
				Key: idempotency.Request{Key: "k", Scope: "s", Fingerprint: [32]byte{fingerprint}},
				Render: func(r entitlement.Reservation) (idempotency.Answer, error) {
					return idempotency.Answer{Status: 201, Body: []byte(r.ID.String())}, nil
				},
			})
		}
		first, err := ask(1)
		if err != nil || first.Replayed != nil {
			t.Fatal(first, err)
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				again, err := ask(1)
				if err != nil || again.Replayed == nil || string(again.Replayed.Body) != first.Reservation.ID.String() {
					t.Errorf("%+v, %v", again, err)
				}
			})
		}
		wg.Wait()
		if _, err := ask(2); !errors.Is(err, idempotency.ErrReused) {
			t.Errorf("err = %v", err)
		}
		if got := b.held(t, "text"); got != "0+4" {
			t.Errorf("used+reserved %s", got)
		}
	})

	t.Run("AreNotFoundForStrangers", func(t *testing.T) {
		t.Parallel()
		b := setup(t, nil)
		r, _ := b.reserve(t, "text", "1")
		other := mustAccount(t, b.db)
		mustEntitle(t, b.db, other.ID, nil)
		_, err := b.in.Reserve(t.Context(), metering.Reserving{Action: metering.Release, Account: other.ID, ID: r.ID})
		if !errors.Is(err, entitlement.ErrReservationNotFound) {
			t.Errorf("err = %v", err)
		}
		if p, err := b.db.Reservations().List(t.Context(), b.account.ID, entitlement.Open, page.Request{Limit: 5}); err != nil || len(p.Data) != 1 {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// Under any concurrency of events, holds, commits and releases, over two replicas, used plus reserved
// never passes the limit, and what is left at the end is what was granted.
func TestReservationsNeverPassTheLimit(t *testing.T) {
	t.Parallel()

	rounds := 40
	switch {
	case os.Getenv("ACCRUE_TEST_FULL") != "":
		rounds = 200
	case testing.Short():
		rounds = 5
	}
	db := postgrestest.New(t)
	replicas := []*metering.Ingester{mustRun(t, db, metering.Options{}), mustRun(t, db, metering.Options{})}
	for round := range rounds {
		a := mustAccount(t, db)
		mustEntitle(t, db, a.ID, limitOf("text", "40"))
		var wg sync.WaitGroup
		var mu sync.Mutex
		var counted, holding money.Decimal
		note := func(to *money.Decimal, q money.Decimal) {
			mu.Lock()
			defer mu.Unlock()
			*to = to.Add(q)
		}
		for worker := range 50 {
			r := rand.New(rand.NewPCG(uint64(round), uint64(worker)))
			in := replicas[worker%2]
			wg.Go(func() {
				q := money.DecimalFromInt(1 + r.Int64N(3))
				if worker%3 == 0 {
					e := metering.Event{Account: a.ID, ID: fmt.Sprint(worker), Meter: "text", Quantity: q, OccurredAt: noon}
					results, err := in.Add(t.Context(), []metering.Event{e})
					if err != nil {
						t.Error(err)
					} else if results[0].Status == metering.Accepted {
						note(&counted, q)
					}
					return
				}
				rid := id.New[entitlement.Reservation]()
				do := func(action metering.Action, q money.Decimal) error {
					_, err := in.Reserve(t.Context(), metering.Reserving{Action: action, Account: a.ID, ID: rid, Meter: "text", Quantity: q, TTL: time.Minute})
					return err
				}
				switch err := do(metering.Reserve, q); {
				case errors.Is(err, entitlement.ErrLimitReached):
					return
				case err != nil:
					t.Error(err)
					return
				}
				switch r.IntN(3) {
				case 0:
					note(&holding, q)
				case 1:
					if err := do(metering.Commit, money.DecimalFromInt(1)); err != nil {
						t.Error(err)
					}
					note(&counted, money.DecimalFromInt(1))
				case 2:
					if err := do(metering.Release, money.Decimal{}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		b := &meterBench{db: db, account: account.Account{ID: a.ID}}
		if got, want := b.held(t, "text"), counted.String()+"+"+holding.String(); got != want {
			t.Fatalf("used+reserved %s, granted %s", got, want)
		}
		if counted.Add(holding).Cmp(money.DecimalFromInt(40)) > 0 {
			t.Fatalf("granted %s of 40", counted.Add(holding))
		}
	}
	wantRecount(t, db)
}
