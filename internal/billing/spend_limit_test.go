package billing_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// told counts the account's events of a type.
func (w *world) told(t *testing.T, a account.ID, what outbox.Type) (n int) {
	t.Helper()
	events, err := w.DB.Outbox().After(t.Context(), a, 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Type == what {
			n++
		}
	}
	return n
}

func (w *world) limitSpend(t *testing.T, a account.ID, cents int64, mode entitlement.Mode) {
	t.Helper()
	limiter, amount := billing.Limiter{Core: w.Core}, usd(cents)
	held, err := limiter.Get(t.Context(), a)
	if err == nil {
		_, err = limiter.Set(t.Context(), asked(a, ""), billing.SpendLimit{Amount: &amount, Mode: mode, Version: held.Version})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// check is what follows every change of usage, here on many replicas at once.
func (w *world) check(t *testing.T, a account.ID) {
	t.Helper()
	together(4, func(int) {
		if err := (billing.Watcher{Core: w.Core}).Check(t.Context(), a); err != nil {
			t.Error(err)
		}
	})
}

// A payment that brings paid use back holds the account and its counters, and takes the entitlement then. Whoever tells of
// a limit must not hold the entitlement meanwhile, and wait for the counters.
func TestSpendLimit_IsToldInTheOrderOfLocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.limitSpend(t, a, 100, entitlement.Soft)
	w.use(t, a, "voice", "90000")
	settling, err := w.db.Pool().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = settling.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := settling.Exec(t.Context(), "SELECT FROM accounts a JOIN account_counters c ON c.account_id = a.id WHERE a.id = $1 FOR NO KEY UPDATE", a); err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	go func() { told <- billing.Watcher{Core: w.Core}.Check(t.Context(), a) }()
	for waits := false; !waits; {
		if err := w.db.Pool().QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_locks l JOIN pg_stat_activity s USING (pid) WHERE NOT l.granted AND s.datname = current_database())").Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := settling.Exec(t.Context(), "SELECT FROM entitlements WHERE account_id = $1 FOR NO KEY UPDATE NOWAIT", a); err != nil {
		t.Errorf("whoever tells of the limit holds the entitlement while it waits: %v", err)
	}
	if err := errors.Join(settling.Rollback(t.Context()), <-told); err != nil {
		t.Error(err)
	}
}

func TestSpendLimit_IsToldOnceWhenFirstReached(t *testing.T) {
	t.Parallel()
	for name, mode := range map[string]entitlement.Mode{"RefusesUsage": entitlement.Hard, "OnlyTells": entitlement.Soft} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.open(t).ID
			w.upgrade(t, a, sandbox.TokenVisa)
			w.limitSpend(t, a, 1000, mode)
			want := func(n int, when string) {
				t.Helper()
				w.check(t, a)
				if got := w.told(t, a, outbox.SpendLimitReached); got != n {
					t.Errorf("told %d times %s, want %d", got, when, n)
				}
			}
			w.use(t, a, "voice", "60600") // 27 cents
			want(0, "below the limit")
			for range 3 {
				r := w.tryUse(t, a, "voice", "60000") // 27 dollars more
				if refused := r.Status == metering.Rejected; refused != (mode == entitlement.Hard) {
					t.Fatalf("%+v", r)
				}
				want(1, "at the limit")
			}
			w.limitSpend(t, a, 2000, mode)
			w.tryUse(t, a, "voice", "60000")
			want(2, "at a higher limit")
			w.advance(32 * 24 * time.Hour)
			w.sweep(t)
			want(2, "in a new period")
			w.use(t, a, "voice", "60600")
			w.tryUse(t, a, "voice", "60000")
			want(3, "at the new period's")
		})
	}
}

func TestSpendLimit_IsToldOnceWhenItRefusesReservations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.limitSpend(t, a, 1000, entitlement.Hard)
	w.use(t, a, "voice", "60600") // 27 cents
	for range 3 {
		_, err := w.ingest.Reserve(t.Context(), metering.Reserving{
			Action: metering.Reserve, Account: a, ID: id.New[entitlement.Reservation](), Meter: "voice",
			Quantity: money.MustDecimal("60000"), TTL: time.Minute,
		})
		if !errors.Is(err, entitlement.ErrSpendLimitReached) {
			t.Fatalf("27 dollars more: %v, want ErrSpendLimitReached", err)
		}
		w.check(t, a)
		if got := w.told(t, a, outbox.SpendLimitReached); got != 1 {
			t.Errorf("told %d times, want 1", got)
		}
	}
}

// What a closed period used beyond its limit was never billed, so what is taken back of it comes off that part first.
// 2,000 minutes on Pro are 27.00, of which 17.00 is absorbed at a limit of 10.00:
//
//	300 minutes taken back    18.90 is left, and 10.00 was billed: nothing comes back
//	500 more                   5.40 is left: 4.60 comes back
func TestSpendLimit_WhatWasAbsorbedIsNotCredited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	for event, seconds := range map[string]string{"right": "72000", "wrong": "18000", "wrong too": "30000"} {
		res, err := w.ingest.Add(t.Context(), []metering.Event{{
			Account: a, Source: "test", ID: event, Meter: "voice", Quantity: money.MustDecimal(seconds), OccurredAt: w.clock(),
		}})
		if err != nil || res[0].Status != metering.Accepted {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	w.limitSpend(t, a, 1000, entitlement.Hard)
	void := func(event string) {
		t.Helper()
		fix := billing.Corrections{Core: w.Core, Catalogue: billing.Meters(plan.Shipped().Meters)}
		if _, err := fix.Correct(t.Context(), asked(a, newKey()), metering.Correction{
			Source: "test", EventID: event, Kind: metering.Void, Reason: "never happened",
		}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, period := range []struct {
		start      time.Time
		want, void string
	}{
		{day(time.March, 10), "usage 2700, absorbed -1700", "wrong"},
		{day(time.April, 10), "adjustment -810, adjustment 810", "wrong too"},
		{day(time.May, 10), "adjustment -1350, adjustment 890, credit_to_balance 460", ""},
	} {
		end := period.start.AddDate(0, 1, 0)
		w.until(t, end.Add(time.Hour))
		w.until(t, end.Add(w.Policy.Grace+time.Hour))
		if got := w.lines(t, a, period.start); got != period.want {
			t.Errorf("%s is billed %q, want %q", period.start.Format(time.DateOnly), got, period.want)
		}
		if period.void != "" {
			void(period.void)
		}
	}
}
