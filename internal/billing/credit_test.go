package billing_test

import (
	"errors"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

func (w *world) grant(t *testing.T, a account.ID, cents int64, priority int, days int) wallet.GrantID {
	t.Helper()
	in := billing.GrantInput{Amount: usd(cents), Priority: priority, Reason: "test"}
	if days > 0 {
		in.ExpiresAt = w.clock().Add(time.Duration(days) * 24 * time.Hour)
	}
	got, err := billing.Granter{Core: w.Core}.Grant(t.Context(), asked(a, newKey()), in, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got.Record.ID
}

func (w *world) left(t *testing.T, a account.ID, g wallet.GrantID) int64 {
	t.Helper()
	got, err := w.DB.Wallet().Grant(t.Context(), a, g)
	if err != nil {
		t.Fatal(err)
	}
	return got.Remaining.Minor
}

func TestCredit_TheSoonestToExpireIsSpentFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	never, late, soon, last := w.grant(t, a, 300, 0, 0), w.grant(t, a, 300, 0, 90), w.grant(t, a, 300, 0, 60), w.grant(t, a, 300, 1, 45)
	w.use(t, a, "voice", "60000") // the allowance
	w.use(t, a, "voice", "12000") // 5.40
	w.advance(35 * 24 * time.Hour)
	w.sweep(t)
	for _, c := range []struct {
		name  string
		grant wallet.GrantID
		left  int64
	}{{"in 60 days", soon, 0}, {"in 90 days", late, 60}, {"never", never, 300}, {"in 45 days, of a later priority", last, 300}} {
		if got := w.left(t, a, c.grant); got != c.left {
			t.Errorf("of what expires %s %d are left, want %d", c.name, got, c.left)
		}
	}
	if n := len(w.charges(t)[a]); n != 0 {
		t.Errorf("%d charges of the card for what credit has paid", n)
	}
}

func TestCredit_WhatIsLeftExpiresOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	g := w.grant(t, a, 300, 0, 10)
	for _, c := range []struct {
		after time.Duration
		left  int64
		told  int
	}{{9 * 24 * time.Hour, 300, 0}, {24 * time.Hour, 0, 1}, {24 * time.Hour, 0, 1}} {
		w.advance(c.after)
		w.sweep(t)
		if got, told := w.left(t, a, g), w.told(t, a, outbox.CreditExpired); got != c.left || told != c.told {
			t.Errorf("%d are left, told %d times; want %d and %d", got, told, c.left, c.told)
		}
		if b := w.balance(t, a); b.Promo != usd(c.left) {
			t.Errorf("the balance has %s of promotional credit", b.Promo)
		}
	}
}

func TestAlerts_AreToldOncePerPeriodAndThreshold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
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
	w.advance(32 * 24 * time.Hour)
	w.sweep(t)
	want(4, "in a new period, with the balance still low")
	w.use(t, a, "voice", "60000")
	want(5, "at the first threshold again")
}

// Usage that is worth more than the limit leaves is refused; what a change of the limit leaves beyond it is
// not billed, and shown.
func TestSpendLimit_TheBillNeverPassesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.use(t, a, "voice", "120000") // 27 dollars
	w.limitSpend(t, a, 1000, entitlement.Hard)
	w.tryUse(t, a, "voice", "60000")
	w.advance(35 * 24 * time.Hour)
	w.sweep(t)
	list, err := w.DB.Invoices().List(t.Context(), a, "", page.Request{Limit: 10})
	if err != nil || len(list.Data) != 1 {
		t.Fatalf("%d invoices, %v; want 1", len(list.Data), err)
	}
	content, err := w.DB.Invoices().Content(t.Context(), a, list.Data[0].ID)
	if err != nil || content.Total != usd(1000) || content.Absorbed != usd(1700) {
		t.Errorf("billed %s and absorbed %s, %v; want 10.00 and 17.00", content.Total, content.Absorbed, err)
	}
}

// What an account cannot hold is refused, and is no fault of the service.
func TestGrant_BeyondWhatABalanceHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.grant(t, a, 1_000_000_000_000_000, 0, 0)
	_, err := billing.Granter{Core: w.Core}.Grant(t.Context(), asked(a, newKey()), billing.GrantInput{Amount: usd(1), Reason: "test"}, nil)
	if !errors.Is(err, ledger.ErrBalance) {
		t.Errorf("%v, want ErrBalance", err)
	}
}
