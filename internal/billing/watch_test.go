package billing_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/job"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// A limit may let use pass and tell: once per period and limit, however many look at once.
func TestSoftLimit_LetsPassAndTellsOncePerPeriod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	soften := func(quantity string) {
		t.Helper()
		c := plan.Shipped()
		for i := range c.Offers {
			if v := &c.Offers[i].Version; v.Plan == plan.Pro {
				v.Limits = append(v.Limits, plan.Limit{Meter: "voice", Quantity: money.MustDecimal(quantity), Mode: plan.Soft})
			}
		}
		if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	soften("600")
	a := w.onPro(t)
	want := func(n int, when string) {
		t.Helper()
		if watched, err := w.DB.Alerts().Watched(t.Context(), []account.ID{a}); err != nil || len(watched) != 1 {
			t.Fatalf("nobody looks at the account: %v, %v", watched, err)
		}
		w.check(t, a)
		if got := w.told(t, a, outbox.UsageLimitReached); got != n {
			t.Errorf("told %d times %s, want %d", got, when, n)
		}
	}
	w.use(t, a, "voice", "599")
	want(0, "below the limit")
	w.use(t, a, "voice", "1")
	want(1, "at the limit")
	w.use(t, a, "voice", "6000")
	want(1, "beyond it")
	w.advance(32 * 24 * time.Hour)
	w.sweep(t)
	want(1, "in a new period")
	w.use(t, a, "voice", "601")
	want(2, "at the new period's")
}

// A payment that brings paid use back holds the account and its counters, and takes the entitlement then. Whoever tells of
// a limit must not hold the entitlement meanwhile, and wait for the counters.
func TestSpendLimit_IsToldInTheOrderOfLocks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
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
			a := w.onPro(t)
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
	a := w.onPro(t)
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

func TestAlerts_AreToldOncePerPeriodAndThreshold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.topUp(t, a, 10_000)
	for _, al := range []alert.Alert{
		{Kind: alert.Usage, Meter: "voice", Threshold: money.MustDecimal("60000")},
		{Kind: alert.Usage, Meter: "voice", Threshold: money.MustDecimal("120000")},
		{Kind: alert.LowBalance, Threshold: money.MustDecimal("7500")},
	} {
		if _, err := (billing.Alerter{Core: w.Core}).Add(t.Context(), asked(a, newKey()), al, nil); err != nil {
			t.Fatal(err)
		}
	}
	want := func(n int, when string) {
		t.Helper()
		for range 2 {
			w.check(t, a) // four replicas at once
		}
		if got := w.told(t, a, outbox.AlertFired); got != n {
			t.Errorf("told %d times %s, want %d", got, when, n)
		}
	}
	w.use(t, a, "voice", "59999")
	want(0, "below every threshold")
	w.use(t, a, "voice", "1")
	want(1, "at the first threshold")
	w.use(t, a, "voice", "60000") // 27 dollars
	want(3, "at the second, with a low balance")
	events, err := w.DB.Outbox().After(t.Context(), a, 0, 1000)
	if err != nil || !slices.ContainsFunc(events, func(e outbox.Event) bool {
		var told struct{ Threshold, Value money.Amount }
		return e.Type == outbox.AlertFired && json.Unmarshal(e.Payload, &told) == nil && told.Threshold == usd(7500) && told.Value == usd(7300)
	}) {
		t.Errorf("no event tells of 73.00 USD, which are fewer than 75.00, as money: %v", err)
	}
	w.advance(32 * 24 * time.Hour)
	w.sweep(t)
	want(4, "in a new period, with the balance still low")
	w.use(t, a, "voice", "60000")
	want(5, "at the first threshold again")
}

// What was reached so shortly before its period ended that nobody has looked since is told when the period is closed, and
// not again.
func TestAlerts_AreToldOfWhatWasReachedLast(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.limitSpend(t, a, 2000, entitlement.Soft)
	for _, al := range []alert.Alert{
		{Kind: alert.Usage, Meter: "voice", Threshold: money.MustDecimal("120000")},
		{Kind: alert.Spend, Threshold: money.MustDecimal("1500")},
		{Kind: alert.Usage, Meter: "voice", Threshold: money.MustDecimal("120001")},
	} {
		if _, err := (billing.Alerter{Core: w.Core}).Add(t.Context(), asked(a, newKey()), al, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.use(t, a, "voice", "120000") // 27 dollars
	w.closed(t, start.Truncate(24*time.Hour).AddDate(0, 1, 0))
	w.check(t, a)
	if alerts, limits := w.told(t, a, outbox.AlertFired), w.told(t, a, outbox.SpendLimitReached); alerts != 2 || limits != 1 {
		t.Errorf("told %d times of alerts and %d times of the limit, want 2 and 1", alerts, limits)
	}
	fired, err := w.DB.Alerts().Fired(t.Context(), a, start.Truncate(24*time.Hour))
	if err != nil || len(fired) != 2 {
		t.Errorf("%d alerts of the period that has ended, %v; want 2", len(fired), err)
	}
}

// While the period before is in its grace, what it comes to is not the new one's: nothing is told before that has reached
// its threshold itself, and then it is.
func TestSpend_OfThePeriodBeforeIsNotTheNewOnes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.limitSpend(t, a, 2000, entitlement.Soft)
	if _, err := (billing.Alerter{Core: w.Core}).Add(t.Context(), asked(a, newKey()), alert.Alert{Kind: alert.Spend, Threshold: money.MustDecimal("1500")}, nil); err != nil {
		t.Fatal(err)
	}
	want := func(n int, when string) {
		t.Helper()
		w.check(t, a)
		if alerts, limits := w.told(t, a, outbox.AlertFired), w.told(t, a, outbox.SpendLimitReached); alerts != n || limits != n {
			t.Errorf("told %d times of the alert and %d of the limit %s, want %d", alerts, limits, when, n)
		}
	}
	w.use(t, a, "voice", "120000") // 27 dollars
	want(1, "in the first period")
	w.until(t, day(time.April, 10).Add(time.Minute))
	if b := w.balance(t, a); b.Accrued != usd(2700) {
		t.Fatalf("%s accrued, want the first period's in its grace", b.Accrued)
	}
	want(1, "in the second, with nothing used")
	w.use(t, a, "voice", "120000")
	want(2, "in the second")
}

// wantLookedAt fails the test unless it was asked for so often since to look at the account's funds.
func (w *world) wantLookedAt(t *testing.T, a account.ID, when string, n int) {
	t.Helper()
	due, err := w.DB.Jobs().Due(t.Context(), w.clock(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	got := 0
	for _, in := range due {
		if in.Account == a && in.Kind == job.CheckFunds {
			got++
			if err := w.DB.Jobs().Relayed(t.Context(), in); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got != n {
		t.Errorf("%s: asked for %d times, want %d", when, got, n)
	}
}

// An alert and an automatic top-up do not wait for the next usage where something else lowers the balance or asks for them.
func TestFunds_AreLookedAtAfterWhateverChangesThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	a := w.onPro(t)
	p := w.topUp(t, a, 10_000).Charge
	g := w.grant(t, a, 300, 0, 0)
	w.grant(t, a, 400, 0, 10)
	want := func(when string, n int) {
		t.Helper()
		w.wantLookedAt(t, a, when, n)
	}
	w.refund(t, a, p.ID, 100)
	want("a refund of an account that wants to be told of nothing", 0)
	_, err := billing.Alerter{Core: w.Core}.Add(ctx, asked(a, newKey()), alert.Alert{Kind: alert.LowBalance, Threshold: money.MustDecimal("5000")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want("an alert", 1)
	w.refund(t, a, p.ID, 100)
	want("a refund", 1)
	if _, err := (billing.Granter{Core: w.Core}).Void(ctx, asked(a, newKey()), g, "test", nil); err != nil {
		t.Fatal(err)
	}
	want("credit that is taken back", 1)
	w.advance(11 * 24 * time.Hour)
	w.sweep(t)
	want("credit that expires", 1)
	w.saveRule(t, a, 100_000)
	want("a rule for top-ups", 1)
	w.limitSpend(t, a, 10_000, entitlement.Hard)
	want("a spend limit", 1)
	w.advance(21 * 24 * time.Hour)
	w.sweep(t)
	want("a new period", 1)
	w.disputed(t, p)
	want("a dispute", 1)
	w.addCard(t, a, sandbox.TokenMastercard)
	want("another card, after the dispute", 1)
	w.addCard(t, a, sandbox.TokenAmex)
	want("another card, which may pay where the last could not be asked", 1)
	w.publish(t, withFees(plan.Shipped()))
	w.moveTo(t, a, "growth")
	want("another plan, which may take funds where the last did not", 1)
	w.check(t, a)
	if got := w.told(t, a, outbox.AlertFired); got != 1 {
		t.Errorf("told %d times, want once", got)
	}
}

// What is refused is told of also where the account's clock is ahead, and a period of it has begun since.
func TestSpendLimit_IsToldOnATestClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct, err := billing.Opener{Core: w.Core}.Open(t.Context(), billing.NewAccount{ClockAt: start})
	if err != nil {
		t.Fatal(err)
	}
	a := acct.ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.limitSpend(t, a, 1000, entitlement.Hard)
	if _, _, err := (billing.TestClock{Core: w.Core}).Advance(t.Context(), asked(a, ""), day(time.April, 12)); err != nil {
		t.Fatal(err)
	}
	if r := w.useAt(t, a, "voice", "120000", day(time.April, 12)); r.Status != metering.Rejected { // 27 dollars
		t.Fatalf("%+v", r)
	}
	w.check(t, a)
	if got := w.told(t, a, outbox.SpendLimitReached); got != 1 {
		t.Errorf("told %d times, want once", got)
	}
}

// raising is a database in which something happens just before the next transaction begins.
type raising struct {
	billing.Database
	first func()
}

func (d *raising) InTx(ctx context.Context, fn func(tx billing.Tx) error) error {
	if d.first != nil {
		d.first()
		d.first = nil
	}
	return d.Database.InTx(ctx, fn)
}

// A limit that is raised in the moment in which it is reached is told of when it is reached as it is now.
func TestSpendLimit_IsToldAsItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.limitSpend(t, a, 1000, entitlement.Soft)
	w.use(t, a, "voice", "120000") // 27 dollars
	core := w.another(w.Gateway)
	core.DB = &raising{w.DB, func() { w.limitSpend(t, a, 5000, entitlement.Soft) }}
	if err := (billing.Watcher{Core: core}).Check(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if got := w.told(t, a, outbox.SpendLimitReached); got != 0 {
		t.Errorf("told %d times of a limit that was raised", got)
	}
	w.use(t, a, "voice", "60000") // 54 dollars
	w.check(t, a)
	if got := w.told(t, a, outbox.SpendLimitReached); got != 1 {
		t.Errorf("told %d times, want once", got)
	}
}
