package billing_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// spoilt is a database in which some accounts can never be locked, so that nothing can be done about them.
type spoilt struct {
	billing.Database
	accounts map[account.ID]bool
	wait     func() // what passes until it is known that they cannot be
}

func (d spoilt) InTx(ctx context.Context, fn func(tx billing.Tx) error) error {
	return d.Database.InTx(ctx, func(tx billing.Tx) error { return fn(spoiltTx{tx, d}) })
}

func (d spoilt) InTxOf(ctx context.Context, start billing.Start, fn func(tx billing.Tx) error) error {
	return d.Database.InTxOf(ctx, start, func(tx billing.Tx) error { return fn(spoiltTx{tx, d}) })
}

type spoiltTx struct {
	billing.Tx
	in spoilt
}

func (t spoiltTx) Accounts() account.Store { return spoiltAccounts{t.Tx.Accounts(), t.in} }

type spoiltAccounts struct {
	account.Store
	in spoilt
}

func (s spoiltAccounts) Lock(ctx context.Context, a account.ID) (account.Account, error) {
	if s.in.accounts[a] {
		if s.in.wait != nil {
			s.in.wait()
		}
		return account.Account{}, errSpoilt
	}
	return s.Store.Lock(ctx, a)
}

var errSpoilt = errors.New("spoilt")

// As many records as the sweep looks up at a time cannot be done, sweep after sweep, and have been due the longest. What is
// due behind them is done all the same, whatever kind of work it is.
func TestSweep_WhatCannotBeDoneHoldsUpNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const most = 30 // so many cannot be done, and what can is behind them
	all := make([]account.ID, most+2)
	for i := range all {
		if i >= most {
			w.advance(time.Second)
		}
		all[i] = w.open(t).ID
		w.upgrade(t, all[i], sandbox.TokenVisa)
		w.use(t, all[i], "voice", "120000") // 27.00
		w.grant(t, all[i], 100, 0, 1)
	}
	sound, next := all[most], all[most+1]
	sweep := func(broken []account.ID) {
		t.Helper()
		db := spoilt{w.DB, map[account.ID]bool{}, nil}
		for _, a := range broken {
			db.accounts[a] = true
		}
		core := w.another(w.Gateway)
		core.DB = db
		core.LookUpAtOnce(most)
		if _, err := (billing.Sweeper{Core: core}).Sweep(t.Context()); !errors.Is(err, errSpoilt) {
			t.Errorf("%v, want what went wrong", err)
		}
	}
	want := func(what, query string) {
		t.Helper()
		var ok bool
		if err := w.db.Pool().QueryRow(t.Context(), query, sound.UUID()).Scan(&ok); err != nil || !ok {
			t.Errorf("%s: %v, %v", what, ok, err)
		}
	}
	// Of each account a card that is to be detached, and one that is soon out of date; and an upgrade that has waited for too long.
	for _, q := range []string{
		`INSERT INTO payment_methods (account_id, id, status, provider, provider_ref, customer_ref, check_at, created_at, updated_at)
			SELECT account_id, gen_random_uuid(), 'removed', provider, 'pm_' || id, customer_ref, created_at, created_at, updated_at FROM payment_methods`,
		`UPDATE payment_methods SET exp_year = 2026, exp_month = 4 WHERE status = 'active'`,
		`INSERT INTO upgrades (account_id, id, plan_code, plan_version, status, payment_method_id, created_at, updated_at, expires_at)
			SELECT u.account_id, gen_random_uuid(), u.plan_code, u.plan_version, 'processing', u.payment_method_id, u.created_at, u.updated_at, u.expires_at FROM upgrades u`,
	} {
		if _, err := w.db.Pool().Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	sub, err := w.DB.Subscriptions().Active(t.Context(), next)
	if err != nil {
		t.Fatal(err)
	}
	w.advance(sub.Period.End.Sub(w.clock()))
	sweep(all[:most])
	want("a removed card is detached", "SELECT bool_and(check_at IS NULL) FROM payment_methods WHERE account_id = $1 AND status = 'removed'")
	want("an upgrade that has waited for too long is canceled", "SELECT bool_or(status = 'canceled') FROM upgrades WHERE account_id = $1")
	want("the period is closed", "SELECT period_index = 1 FROM subscriptions WHERE account_id = $1")
	want("credit has run out", "SELECT remaining = 0 FROM credit_grants WHERE account_id = $1")
	want("a card that is soon out of date is told of", "SELECT bool_or(expiry_noticed_at IS NOT NULL) FROM payment_methods WHERE account_id = $1")

	w.sweep(t)
	w.advance(w.Policy.Grace)
	sweep(append(all[:most:most], next))
	want("the invoice is final", "SELECT status <> 'draft' FROM invoices WHERE account_id = $1")

	for _, a := range append(all[:most:most], next) {
		drafts, err := w.DB.Invoices().List(t.Context(), a, invoice.Draft, page.Request{Limit: 2})
		if err != nil || len(drafts.Data) != 1 {
			t.Fatalf("%+v, %v", drafts, err)
		}
		if err := (billing.Closer{Core: w.Core}).Finalize(t.Context(), a, drafts.Data[0].ID); err != nil {
			t.Fatal(err)
		}
	}
	sound = next
	sweep(all[:most])
	want("the invoice is collected", "SELECT status = 'paid' FROM invoices WHERE account_id = $1")
	w.sweep(t)
}

// hanging is a provider that lets whoever asks what became of a charge wait for long, and then says nothing.
type hanging struct {
	payment.Gateway
	w     *world
	asked map[string]int
}

func (g hanging) LookupCharge(_ context.Context, l payment.ChargeLookup) (payment.ChargeResult, error) {
	g.w.advance(40 * time.Second)
	g.asked[l.PaymentRef]++
	return payment.ChargeResult{}, payment.ErrUnknown
}

// A provider that hangs takes a minute or so of a sweep, and not as long as it can: the rest of what is due is done, and
// what it was not asked for is asked for first in the next one.
func TestSweep_AProviderThatHangsHoldsUpNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 5 {
		a := w.onPro(t)
		w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset, Account: a.String()})
		w.topUp(t, a, 5000)
	}
	w.advance(time.Hour)
	provider := hanging{w.Gateway, w, map[string]int{}}
	for i, want := range []int{2, 4, 5} {
		if _, err := (billing.Sweeper{Core: w.another(provider)}).Sweep(t.Context()); err != nil {
			t.Error(err)
		}
		if len(provider.asked) != want {
			t.Errorf("%d payments asked for by sweep %d, want %d", len(provider.asked), i, want)
		}
	}
	w.advance(24 * time.Hour)
	w.sweep(t)
}

// What takes long and fails does so in each sweep, and has been due the longest. What is due behind it is done in the second.
func TestSweep_WhatTakesLongAndFailsHoldsUpNothingForEver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	db := spoilt{w.DB, map[account.ID]bool{}, func() { w.advance(40 * time.Second) }}
	for range 3 {
		db.accounts[w.open(t).ID] = true
	}
	w.advance(time.Second)
	sound := w.open(t).ID
	w.advance(35 * 24 * time.Hour)
	core := w.another(w.Gateway)
	core.DB = db
	for i, closed := range []int{0, 1} {
		if _, err := (billing.Sweeper{Core: core}).Sweep(t.Context()); !errors.Is(err, errSpoilt) {
			t.Errorf("%v, want what went wrong", err)
		}
		if sub, err := w.DB.Subscriptions().Active(t.Context(), sound); err != nil || sub.Index != closed {
			t.Errorf("after sweep %d the account behind them is in period %d, %v; want %d", i, sub.Index, err, closed)
		}
	}
	w.sweep(t)
}

// What panics for one account does so whenever it is tried: it must not end the process, again and again, for all.
func TestSweep_WhatPanicsHoldsUpNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	broken := w.open(t).ID
	w.advance(time.Second)
	sound := w.open(t).ID
	w.advance(35 * 24 * time.Hour)
	core := w.another(w.Gateway)
	core.DB = spoilt{w.DB, map[account.ID]bool{broken: true}, func() { panic("a fault of ours") }}
	_, err := billing.Sweeper{Core: core}.Sweep(t.Context())
	if err == nil || !strings.Contains(err.Error(), "a fault of ours") || !strings.Contains(err.Error(), "sweep_test.go") {
		t.Errorf("%v, want what panicked, and where", err)
	}
	if sub, err := w.DB.Subscriptions().Active(t.Context(), sound); err != nil || sub.Index != 1 {
		t.Errorf("the account behind it is in period %d, %v", sub.Index, err)
	}
	w.sweep(t)
}

// One kind of work that panics before it comes to any record holds up no other kind.
func TestSweep_AKindOfWorkThatPanicsHoldsUpNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.advance(35 * 24 * time.Hour)
	core := w.another(w.Gateway)
	core.DB = withoutPayments{w.DB}
	_, err := billing.Sweeper{Core: core}.Sweep(t.Context())
	if err == nil || !strings.Contains(err.Error(), "a fault of ours") {
		t.Errorf("%v, want what panicked", err)
	}
	if sub, err := w.DB.Subscriptions().Active(t.Context(), a); err != nil || sub.Index != 1 {
		t.Errorf("the account is in period %d, %v", sub.Index, err)
	}
	w.sweep(t)
}

// withoutPayments is a database that panics where payments are read.
type withoutPayments struct{ billing.Database }

func (withoutPayments) Payments() payment.Store { panic("a fault of ours") }

// A period that cannot be closed does not keep the others from being closed, nor the sweep from its end.
func TestSweep_APeriodThatCannotBeClosed(t *testing.T) {
	t.Parallel()
	w := buildWorld(t) // an account of it is spoilt
	broken, sound := w.open(t).ID, w.open(t).ID
	if _, err := w.db.Pool().Exec(t.Context(), "UPDATE accounts SET time_zone = 'Nowhere' WHERE id = $1", broken.UUID()); err != nil {
		t.Fatal(err)
	}
	w.advance(35 * 24 * time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := (billing.Sweeper{Core: w.Core}).Sweep(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("%v, %v; want the fault of the one, soon", err, ctx.Err())
	}
	if sub, err := w.DB.Subscriptions().Active(t.Context(), sound); err != nil || sub.Index != 1 {
		t.Errorf("the other is in period %d, %v", sub.Index, err)
	}
}

// One account's fault does not keep the credit of others from running out.
func TestSweep_OneAccountDoesNotHoldUpTheCreditOfOthers(t *testing.T) {
	t.Parallel()
	w := buildWorld(t) // its books are spoilt
	broken, sound := w.open(t).ID, w.open(t).ID
	first, second := w.grant(t, broken, 500, 0, 1), w.grant(t, sound, 500, 0, 2)
	err := w.DB.InTx(t.Context(), func(tx billing.Tx) error {
		return tx.Ledger().Append(t.Context(), books.PromoExpired(books.Fact{
			Account: broken, Reference: first.String(), At: w.clock(), RecordedAt: w.clock(),
		}, usd(1)))
	})
	if err != nil {
		t.Fatal(err)
	}
	w.advance(72 * time.Hour)
	if _, err := (billing.Sweeper{Core: w.Core}).Sweep(t.Context()); !errors.Is(err, ledger.ErrAlreadyBooked) {
		t.Errorf("%v, want the fault of the one", err)
	}
	if left := w.left(t, sound, second); left != 0 {
		t.Errorf("%d are left of the other's credit", left)
	}
}

// Two replicas sweep at the same time: every period gets one invoice, every invoice one charge.
func TestSweep_OnSeveralReplicasAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	accounts := make([]account.ID, often(10, 100))
	for i := range accounts {
		accounts[i] = w.open(t).ID
		w.upgrade(t, accounts[i], sandbox.TokenVisa)
		w.use(t, accounts[i], "voice", "600000")
	}
	w.advance(33 * 24 * time.Hour)
	together(3, func(int) {
		if _, err := (billing.Sweeper{Core: w.Core}).Sweep(t.Context()); err != nil {
			t.Errorf("sweep: %v", err)
		}
	})
	w.sweep(t)
	charged := w.charges(t)
	for _, a := range accounts {
		invoices, err := w.DB.Invoices().List(t.Context(), a, "", page.Request{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		if len(invoices.Data) != 1 || len(charged[a]) != 1 {
			t.Errorf("%s has %d invoices and %d charges, want 1 and 1", a, len(invoices.Data), len(charged[a]))
		}
	}
}

func TestExpiringCardIsToldOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.upgrade(t, a.ID, sandbox.TokenExpiringThisMonth)
	w.sweep(t)
	w.sweep(t)
	events, err := w.DB.Outbox().After(t.Context(), a.ID, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, e := range events {
		if e.Type == outbox.PaymentMethodExpires {
			told++
		}
	}
	if told != 1 {
		t.Errorf("told %d times, want once", told)
	}
}
