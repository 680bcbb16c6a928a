package postgres_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

var (
	developer = subscription.Terms{Plan: "developer", Version: 1}
	pro       = subscription.Terms{Plan: "pro", Version: 1}
)

// mustPlans writes the two plan versions that subscriptions of these tests refer to.
func mustPlans(tb testing.TB, db *postgres.DB) {
	tb.Helper()
	for i, t := range []subscription.Terms{developer, pro} {
		_, err := db.Pool().Exec(tb.Context(), `INSERT INTO plans (code, position, definition) VALUES ($1, $2, '{}') ON CONFLICT DO NOTHING`, string(t.Plan), i)
		if err != nil {
			tb.Fatal(err)
		}
		_, err = db.Pool().Exec(tb.Context(), `INSERT INTO plan_versions (plan_code, number, definition, content_hash, created_at)
			VALUES ($1, 1, '{}', decode(repeat('00', 32), 'hex'), $2) ON CONFLICT DO NOTHING`, string(t.Plan), noon)
		if err != nil {
			tb.Fatal(err)
		}
	}
}

// mustSubscription puts the account on the developer plan since noon.
func mustSubscription(tb testing.TB, db *postgres.DB, a account.ID) subscription.Subscription {
	tb.Helper()
	mustPlans(tb, db)
	s := subscription.New(a, developer, period.Anchored(noon, time.UTC, period.Month), noon)
	mustInTx(tb, db, func(tx billing.Tx) error { return tx.Subscriptions().Create(tb.Context(), s) })
	return s
}

func mustInTx(tb testing.TB, db *postgres.DB, fn func(tx billing.Tx) error) {
	tb.Helper()
	if err := db.InTx(tb.Context(), fn); err != nil {
		tb.Fatal(err)
	}
}

// mustMoveClock puts the account on a test clock.
func mustMoveClock(tb testing.TB, db *postgres.DB, a account.ID, at time.Time) {
	tb.Helper()
	mustInTx(tb, db, func(tx billing.Tx) error {
		acct, err := tx.Accounts().Lock(tb.Context(), a)
		if err != nil {
			return err
		}
		acct.ClockAt = at
		return tx.Accounts().Save(tb.Context(), &acct)
	})
}

func TestSubscriptions(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)

	t.Run("ReadsBackWhatWasWritten", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		mustPlans(t, db)
		zone, err := period.LoadZone("Pacific/Apia")
		if err != nil {
			t.Fatal(err)
		}
		want := subscription.New(a, developer, period.Anchored(noon, zone, period.Year), noon)
		want.Waived["voice"] = money.MustDecimal("12.5")
		want.NextPlan = "pro"
		mustInTx(t, db, func(tx billing.Tx) error { return tx.Subscriptions().Create(t.Context(), want) })
		got, err := db.Subscriptions().Active(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID != want.ID || got.Account != a || got.Terms != developer || got.Status != subscription.Active ||
			got.Schedule.Anchor != want.Schedule.Anchor || got.Schedule.Zone.String() != "Pacific/Apia" || got.Schedule.Interval != period.Year ||
			!got.Period.Equal(want.Period) || got.NextPlan != "pro" || got.Waived["voice"].String() != "12.5" || got.Revision != 1 ||
			!got.CreatedAt.Equal(noon) || !got.UpdatedAt.Equal(noon) {
			t.Errorf("read %+v, want %+v", got, want)
		}
	})

	t.Run("SavesAChangeOfPlanWithItsOpenPeriod", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		s := mustSubscription(t, db, a)
		stale := s
		if err := s.ChangePlan(pro, noon.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		s.Waived["voice"] = money.MustDecimal("3")
		mustInTx(t, db, func(tx billing.Tx) error { return tx.Subscriptions().Save(t.Context(), &s) })
		if s.Revision != 2 {
			t.Errorf("revision %d after a save, want 2", s.Revision)
		}
		p, err := db.Subscriptions().Period(t.Context(), a, s.Period.Start)
		if err != nil || p.Terms != pro || p.Waived["voice"].String() != "3" {
			t.Errorf("open period %+v, %v; want the new plan", p, err)
		}
		err = db.InTx(t.Context(), func(tx billing.Tx) error { return tx.Subscriptions().Save(t.Context(), &stale) })
		if !errors.Is(err, account.ErrStale) {
			t.Errorf("save of an old revision: %v, want ErrStale", err)
		}
	})

	t.Run("ClosesAPeriodOnce", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		s := mustSubscription(t, db, a)
		s.NextPlan = "pro"
		closed := s.Opened()
		closed.ClosedAt = s.Period.End
		s.Advance(time.UTC, pro, s.Schedule.Interval, s.Period.End)
		closing := func() error {
			again := s
			return db.InTx(t.Context(), func(tx billing.Tx) error {
				return errors.Join(tx.Subscriptions().ClosePeriod(t.Context(), closed, again.Opened()), tx.Subscriptions().Save(t.Context(), &again))
			})
		}
		if err := closing(); err != nil {
			t.Fatal(err)
		}
		if err := closing(); !errors.Is(err, subscription.ErrPeriodClosed) {
			t.Errorf("second closing: %v, want ErrPeriodClosed", err)
		}
		ps, err := db.Subscriptions().Periods(t.Context(), a, 10)
		if err != nil || len(ps) != 2 {
			t.Fatalf("periods %+v, %v; want two", ps, err)
		}
		if ps[0].Index != 1 || ps[0].Terms != pro || !ps[0].ClosedAt.IsZero() || ps[1].Terms != developer || !ps[1].ClosedAt.Equal(closed.ClosedAt) {
			t.Errorf("periods %+v; want the open one on pro, then the closed one on developer", ps)
		}
		if one, err := db.Subscriptions().Periods(t.Context(), a, 1); err != nil || len(one) != 1 || one[0].Index != 1 {
			t.Errorf("with limit 1: %+v, %v; want the latest", one, err)
		}
	})

	t.Run("RefusesAPeriodThatDoesNotFollow", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		p := mustSubscription(t, db, a).Opened()
		next := p
		next.Index++
		next.Bounds = period.Bounds{Start: p.Bounds.End.Add(time.Second), End: p.Bounds.End.AddDate(0, 1, 0)}
		if err := db.Subscriptions().ClosePeriod(t.Context(), p, next); err == nil {
			t.Error("closed a period without a time")
		}
		p.ClosedAt = p.Bounds.End
		if err := db.Subscriptions().ClosePeriod(t.Context(), p, next); err == nil {
			t.Error("opened a period after a gap")
		}
	})

	t.Run("HoldsOneActiveAgreement", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		s := mustSubscription(t, db, a)
		second := subscription.New(a, pro, s.Schedule, noon)
		if err := db.InTx(t.Context(), func(tx billing.Tx) error { return tx.Subscriptions().Create(t.Context(), second) }); err == nil {
			t.Error("a second active subscription was written")
		}
		s.Status = subscription.Ended
		mustInTx(t, db, func(tx billing.Tx) error { return tx.Subscriptions().Save(t.Context(), &s) })
		if _, err := db.Subscriptions().Active(t.Context(), a); !errors.Is(err, subscription.ErrNotFound) {
			t.Errorf("active after the end: %v, want ErrNotFound", err)
		}
	})

	t.Run("KeepsContracts", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		mustPlans(t, db)
		c := subscription.Contract{
			ID: id.New[subscription.Contract](), Account: a, CreatedAt: noon,
			Definition: plan.Contract{Reference: "C-1", Plan: "pro", Version: 1, Start: noon, End: noon.AddDate(1, 0, 0), Unlimited: []plan.MeterCode{"voice"}},
		}
		mustInTx(t, db, func(tx billing.Tx) error { return tx.Subscriptions().CreateContract(t.Context(), c) })
		got, err := db.Subscriptions().Contract(t.Context(), a, c.ID)
		if err != nil || got.Definition.Reference != "C-1" || !got.Definition.End.Equal(c.Definition.End) || len(got.Definition.Unlimited) != 1 {
			t.Errorf("contract %+v, %v", got, err)
		}
		for _, at := range []time.Time{noon.Add(time.Hour), noon.Add(2 * time.Hour)} {
			if err := db.Subscriptions().EndContract(t.Context(), a, c.ID, at); err != nil {
				t.Fatal(err)
			}
		}
		list, err := db.Subscriptions().Contracts(t.Context(), a)
		if err != nil || len(list) != 1 || !list[0].EndedAt.Equal(noon.Add(time.Hour)) {
			t.Errorf("contracts %+v, %v; want one, with its first end", list, err)
		}
	})
}

func TestSubscriptionsDue(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	ends := func(a account.ID) time.Time {
		s, err := db.Subscriptions().Active(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		return s.Period.End
	}
	running, early, late := mustAccount(t, db).ID, mustAccount(t, db).ID, mustAccount(t, db).ID
	for _, a := range []account.ID{running, early, late} {
		mustSubscription(t, db, a)
	}
	end := ends(running)
	mustMoveClock(t, db, early, end.Add(-time.Second)) // lives before the end, whatever the real time is
	mustMoveClock(t, db, late, end)                    // lives at the end

	for _, c := range []struct {
		name string
		now  time.Time
		want []account.ID
	}{
		{"BeforeTheEndOnlyTheClockThatReachedIt", end.Add(-time.Second), []account.ID{late}},
		{"AtTheEndTheRealOnesToo", end, []account.ID{running, late}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			due, err := db.Subscriptions().Due(t.Context(), c.now, subscription.Due{}, 10)
			if err != nil {
				t.Fatal(err)
			}
			var got []account.ID
			for _, d := range due {
				got = append(got, d.Account)
			}
			if !sameIDs(got, c.want) {
				t.Errorf("due %v, want %v", got, c.want)
			}
			wantPages(t, len(c.want), func(after subscription.Due, limit int) ([]subscription.Due, error) {
				return db.Subscriptions().Due(t.Context(), c.now, after, limit)
			})
		})
	}
}

// wantPages reads a list of n in one piece, and again one by one, each from behind the last.
func wantPages[T any](t *testing.T, n int, list func(after T, limit int) ([]T, error)) {
	t.Helper()
	var last T
	all, err := list(last, n+1)
	if err != nil || len(all) != n {
		t.Errorf("%d in one piece, %v; want %d", len(all), err, n)
	}
	for _, want := range all {
		one, err := list(last, 1)
		if err != nil || len(one) != 1 || !reflect.DeepEqual(one[0], want) {
			t.Fatalf("behind %+v: %+v, %v; want %+v", last, one, err, want)
		}
		last = want
	}
	if rest, err := list(last, 1); err != nil || len(rest) != 0 {
		t.Errorf("behind the last one: %+v, %v", rest, err)
	}
}

// sameIDs compares regardless of order.
func sameIDs(a, b []account.ID) bool {
	if len(a) != len(b) {
		return false
	}
	seen := map[account.ID]bool{}
	for _, x := range a {
		seen[x] = true
	}
	for _, x := range b {
		if !seen[x] {
			return false
		}
	}
	return true
}
