package billing_test

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/upgrade"
	"github.com/accrue-billing/accrue/pkg/money"
)

// counted counts the transactions that the operations run.
type counted struct {
	billing.Database
	begun atomic.Int64
}

func (c *counted) InTx(ctx context.Context, fn func(tx billing.Tx) error) error {
	c.begun.Add(1)
	return c.Database.InTx(ctx, fn)
}

func (c *counted) InTxOf(ctx context.Context, start billing.Start, fn func(tx billing.Tx) error) error {
	c.begun.Add(1)
	return c.Database.InTxOf(ctx, start, fn)
}

// What a customer waits for is the provider and two commits of ours: the intent, and what came of it with
// the stored answer. A repetition is one.
func TestMoneyOperations_CostTwoTransactions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	db := &counted{Database: w.DB}
	w.DB = db
	cost := func(what string, want int64, do func() error) {
		t.Helper()
		before := db.begun.Load()
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := db.begun.Load() - before; got > want {
			t.Errorf("%s costs %d transactions, want at most %d", what, got, want)
		}
	}
	a := w.open(t).ID
	up := func() error {
		_, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, "up"), billing.UpgradeInput{
			Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenVisa}, Profile: &profile,
		}, asJSON[upgrade.Upgrade](201))
		return err
	}
	top := func() error {
		_, err := billing.Funder{Core: w.Core}.TopUp(t.Context(), asked(a, "top"), billing.TopUpInput{Amount: usd(5000)}, asJSON[billing.TopUp](201))
		return err
	}
	cost("an upgrade", 2, up)
	cost("a repeated upgrade", 1, up)
	cost("a top-up", 2, top)
	cost("a repeated top-up", 1, top)
	cost("a card", 2, func() error {
		_, err := billing.Cards{Core: w.Core}.Add(t.Context(), asked(a, "card"), billing.NewCard{
			CardSource: billing.CardSource{Token: sandbox.TokenMastercard}, Profile: profile,
		}, asJSON[payment.Method](201))
		return err
	})
	cost("a refund", 2, func() error {
		paid, err := w.DB.Payments().RefundablePayments(t.Context(), a)
		if err == nil {
			_, err = billing.Refunder{Core: w.Core}.Refund(t.Context(), asked(a, "refund"),
				billing.RefundInput{Payment: paid[0].ID, Amount: usd(100), Reason: "test", Origin: payment.ByOperator}, asJSON[payment.Refund](201))
		}
		return err
	})
}

// Write skew: two sessions each read several rows, decide that there is room, and write different ones, so that
// neither overwrites the other and a rule over all the rows breaks. Each of these pairs is allowed alone; at the same
// moment, on two replicas, one of the two must be refused.
func TestWriteSkew_OneOfTwoIsRefused(t *testing.T) {
	t.Parallel()
	rounds := often(40, 200)

	// The rule is over usage of two meters, which are two rows.
	t.Run("SpendLimitOverTwoMeters", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		replicas := [2]*metering.Ingester{w.ingest, w.ingester(t, w.replica(t))}
		for range rounds {
			a := w.onPro(t)
			w.limitSpend(t, a, 1000, entitlement.Hard)
			w.use(t, a, "voice", "60000") // the allowances
			w.use(t, a, "text", "10000")
			six := [2]metering.Event{
				{Account: a, ID: "voice", Meter: "voice", Quantity: money.MustDecimal("13320"), OccurredAt: w.clock()}, // 222 minutes of 0.027
				{Account: a, ID: "text", Meter: "text", Quantity: money.MustDecimal("30000"), OccurredAt: w.clock()},   // words of 0.0002
			}
			oneOf(t, func(i int) (bool, error) {
				res, err := replicas[i].Add(t.Context(), six[i:i+1])
				if err != nil {
					return false, err
				}
				return res[0].Status == metering.Accepted, nil
			})
		}
	})

	// The rule is that one of the versions stays on sale.
	t.Run("LastVersionOfTheStartPlan", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		replicas := [2]*billing.Core{w.Core, w.replica(t)}
		latest := 1
		for round := range rounds {
			c := plan.Shipped()
			for i := range c.Offers {
				if v := &c.Offers[i].Version; v.Plan == plan.Developer {
					v.Limits[0].Quantity = money.DecimalFromInt(int64(1000 + round))
				}
			}
			if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			latest++
			onSale := [2]int{latest - 1, latest}
			if round > 0 { // of the two of the last round one is left
				versions, err := w.DB.Plans().Versions(t.Context(), plan.Developer)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for _, v := range versions {
					if v.ArchivedAt.IsZero() {
						onSale[n], n = v.Number, n+1
					}
				}
			}
			oneOf(t, func(i int) (bool, error) {
				_, err := billing.Publisher{Core: replicas[i]}.Archive(t.Context(), asked(account.ID{}, newKey()), plan.Developer, onSale[i], "old", nil)
				if errors.Is(err, billing.ErrStartPlan) {
					return false, nil
				}
				return true, err
			})
		}
	})

	// The rule is over the credit notes of an invoice.
	t.Run("CreditBeyondAnInvoice", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		replicas := [2]*billing.Core{w.Core, w.replica(t)}
		for range often(3, 20) {
			a := w.onPro(t)
			w.use(t, a, "voice", "120000") // 27.00
			w.until(t, w.clock().Add(35*24*time.Hour))
			all, err := w.DB.Invoices().List(t.Context(), a, invoice.Paid, page.Request{Limit: 10})
			if err != nil || len(all.Data) != 1 {
				t.Fatalf("%+v, %v; want one invoice", all.Data, err)
			}
			oneOf(t, func(i int) (bool, error) {
				_, err := billing.Adjuster{Core: replicas[i]}.Credit(t.Context(), asked(a, newKey()),
					billing.CreditInput{Invoice: all.Data[0].ID, Amount: usd(1600), Reason: "an outage"}, nil)
				if errors.Is(err, billing.ErrCreditTooLarge) {
					return false, nil
				}
				return true, err
			})
		}
	})
}

// again ends the first run of every transaction and runs it again, as PostgreSQL has one of two do that wait for each other.
// The first one ends before it is committed, or at a call of its stores, with nothing but the error for an answer.
type again struct {
	billing.Database
	at string
}

var errDeadlock = errors.New("deadlock")

func (d again) InTx(ctx context.Context, fn func(tx billing.Tx) error) error {
	return d.twice(fn, func(fn func(tx billing.Tx) error) error { return d.Database.InTx(ctx, fn) })
}

func (d again) InTxOf(ctx context.Context, start billing.Start, fn func(tx billing.Tx) error) error {
	return d.twice(fn, func(fn func(tx billing.Tx) error) error { return d.Database.InTxOf(ctx, start, fn) })
}

func (d again) twice(fn func(tx billing.Tx) error, run func(func(tx billing.Tx) error) error) error {
	err := run(func(tx billing.Tx) error { return cmp.Or(fn(stumblingTx{tx, d.at}), errDeadlock) })
	if !errors.Is(err, errDeadlock) {
		return err
	}
	return run(fn)
}

type stumblingTx struct {
	billing.Tx
	at string
}

func (tx stumblingTx) Payments() payment.Store { return stumblingPayments{tx.Tx.Payments(), tx.at} }
func (tx stumblingTx) Upgrades() upgrade.Store { return stumblingUpgrades{tx.Tx.Upgrades(), tx.at} }

type stumblingPayments struct {
	payment.Store
	at string
}

func (s stumblingPayments) Method(ctx context.Context, a account.ID, m payment.MethodID) (payment.Method, error) {
	if s.at == "Method" {
		return payment.Method{}, errDeadlock
	}
	return s.Store.Method(ctx, a, m)
}

func (s stumblingPayments) LockPayment(ctx context.Context, a account.ID, p payment.ID) (payment.Payment, error) {
	if s.at == "LockPayment" {
		return payment.Payment{}, errDeadlock
	}
	return s.Store.LockPayment(ctx, a, p)
}

func (s stumblingPayments) DefaultMethod(ctx context.Context, a account.ID) (payment.Method, error) {
	if s.at == "DefaultMethod" {
		return payment.Method{}, errDeadlock
	}
	return s.Store.DefaultMethod(ctx, a)
}

func (s stumblingPayments) Refund(ctx context.Context, a account.ID, r payment.RefundID) (payment.Refund, error) {
	if s.at == "Refund" {
		return payment.Refund{}, errDeadlock
	}
	return s.Store.Refund(ctx, a, r)
}

func (s stumblingPayments) Customer(ctx context.Context, a account.ID, provider string) (string, error) {
	if s.at == "Customer" {
		return "", errDeadlock
	}
	return s.Store.Customer(ctx, a, provider)
}

type stumblingUpgrades struct {
	upgrade.Store
	at string
}

func (s stumblingUpgrades) Pending(ctx context.Context, a account.ID) (upgrade.Upgrade, error) {
	if s.at == "Pending" {
		return upgrade.Upgrade{}, errDeadlock
	}
	return s.Store.Pending(ctx, a)
}

func (s stumblingUpgrades) Get(ctx context.Context, a account.ID, u upgrade.ID) (upgrade.Upgrade, error) {
	if s.at == "Get" {
		return upgrade.Upgrade{}, errDeadlock
	}
	return s.Store.Get(ctx, a, u)
}

// Wherever the first run of a transaction ends, the second one does what was asked for, to the same record.
func TestOperations_AreRunAgainFromTheBeginning(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"Pending", "Customer", "Method", "Get", "DefaultMethod", "LockPayment", "Refund"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			whole := w.DB
			w.DB, w.tick = again{whole, at}, time.Microsecond
			a := w.onPro(t)
			upgrades, err := whole.Upgrades().List(t.Context(), a, page.Request{Limit: 10})
			if err != nil || len(upgrades.Data) != 1 || upgrades.Data[0].ID.IsZero() {
				t.Errorf("the upgrades are %+v, %v", upgrades.Data, err)
			}
			if m := w.addCard(t, a, sandbox.TokenMastercard); m.ID.IsZero() {
				t.Error("the card has no name")
			}
			top := w.topUp(t, a, 10_000)
			if r := w.refund(t, a, top.Payment, 4000); r.ID.IsZero() || r.Status != payment.Succeeded {
				t.Errorf("the refund is %+v", r)
			}
			w.wantBalance(t, a, 6000, 0)
		})
	}
}

// What a transaction did that was run again counts as if it had been run once, at its second time.
func TestOperations_AreRunAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.DB, w.tick = again{w.DB, ""}, time.Microsecond
	a := w.onPro(t)
	w.topUp(t, a, 10_000)
	w.saveRule(t, a, 100_000)
	k := w.agree(t, a, perMinute("C-1"))
	if _, err := (billing.Contractor{Core: w.Core}).End(t.Context(), asked(a, newKey()), billing.EndInput{Contract: k.ID}, nil); err != nil {
		t.Errorf("the end of a contract, now: %v", err)
	}
	w.wantBalance(t, a, 10_000, 0)
}
