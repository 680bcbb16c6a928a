package billing_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/upgrade"
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
