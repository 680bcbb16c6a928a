package billing_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/job"
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

// An alert and an automatic top-up do not wait for the next usage where something else lowers the balance or asks for them.
func TestFunds_AreLookedAtAfterWhateverChangesThem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	p := w.topUp(t, a, 10_000).Charge
	g := w.grant(t, a, 300, 0, 0)
	w.grant(t, a, 400, 0, 10)
	want := func(when string, n int) {
		t.Helper()
		due, err := w.DB.Jobs().Due(ctx, w.clock(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for _, in := range due {
			if in.Account == a && in.Kind == job.CheckFunds {
				got++
				if err := w.DB.Jobs().Relayed(ctx, in, w.clock()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if got != n {
			t.Errorf("%s: asked for %d times, want %d", when, got, n)
		}
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
	w.check(t, a)
	if got := w.told(t, a, outbox.AlertFired); got != 1 {
		t.Errorf("told %d times, want once", got)
	}
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
