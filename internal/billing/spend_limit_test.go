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
		w.useAs(t, a, event, "voice", seconds, w.clock())
	}
	w.limitSpend(t, a, 1000, entitlement.Hard)
	for _, period := range []struct {
		start      time.Time
		want, void string
	}{
		{day(time.March, 10), "usage 2700, absorbed -1700", "wrong"},
		{day(time.April, 10), "adjustment -810, absorbed 810", "wrong too"},
		{day(time.May, 10), "adjustment -1350, absorbed 890, credit_to_balance 460", ""},
	} {
		w.closed(t, period.start.AddDate(0, 1, 0))
		if got := w.lines(t, a, period.start); got != period.want {
			t.Errorf("%s is billed %q, want %q", period.start.Format(time.DateOnly), got, period.want)
		}
		if period.void != "" {
			w.correct(t, a, period.void, "")
		}
	}
	w.wantEarned(t, a, 1000, 0) // of which 4.60 was credited
}

// More of a closed period is billed so far as all of the period stays within the limit as it is now. What was absorbed
// stays absorbed, also when the limit has been raised: the customer was told that it is not billed. One call on Pro:
//
//	2,000 minutes are 27.00    17.00 is absorbed at a limit of 10.00
//	2,300 are 35.10            8.10 more, of which nothing is within the limit
//	2,600 are 43.20            8.10 more, of which 4.90 is within a limit of 40.00
//	2,700 are 45.90            2.70 more, all within a limit of 100.00
//	none                       45.90 less, of which 28.30 was absorbed and 17.60 billed
func TestSpendLimit_MoreOfAClosedPeriodIsHeldToTheLimitAsItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	start := day(time.March, 10)
	w.useAs(t, a, "call", "voice", "120000", w.clock())
	w.limitSpend(t, a, 1000, entitlement.Hard)
	w.closed(t, start.AddDate(0, 1, 0))
	for i, change := range []struct {
		seconds           string
		limit             int64
		want              string
		revenue, absorbed int64
	}{
		{"138000", 1000, "adjustment 810, absorbed -810", 3510, 2510},
		{"156000", 4000, "adjustment 810, absorbed -320", 4320, 2830},
		{"162000", 10000, "adjustment 270", 4590, 2830},
		{"", 10000, "adjustment -4590, absorbed 2830, credit_to_balance 1760", 1760, 0},
	} {
		w.limitSpend(t, a, change.limit, entitlement.Hard)
		w.correct(t, a, "call", change.seconds)
		next := start.AddDate(0, i+1, 0)
		w.closed(t, next.AddDate(0, 1, 0))
		if got := w.lines(t, a, next); got != change.want {
			t.Errorf("%q s is billed %q, want %q", change.seconds, got, change.want)
		}
		w.wantEarned(t, a, change.revenue, change.absorbed)
	}
}

// What is credited of earlier periods leaves a period no more than its limit.
func TestSpendLimit_ACreditDoesNotRaiseIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	start := day(time.March, 10)
	w.useAs(t, a, "wrong", "voice", "78000", w.clock()) // 300 minutes beyond the allowance
	w.closed(t, start.AddDate(0, 1, 0))
	w.correct(t, a, "wrong", "")
	w.use(t, a, "voice", "120000")
	w.limitSpend(t, a, 1000, entitlement.Hard)
	w.closed(t, start.AddDate(0, 2, 0))
	if got, want := w.lines(t, a, start.AddDate(0, 1, 0)), "usage 2700, absorbed -1700, adjustment -810"; got != want {
		t.Errorf("billed %q, want %q", got, want)
	}
}
