package billing_test

import (
	"errors"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func TestCredit_WhatIsLeftExpiresOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	g, later := w.grant(t, a, 300, 0, 10), w.grant(t, a, 500, 0, 30)
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
		if b := w.balance(t, a); w.left(t, a, later) != 500 || b.Promo != usd(c.left+500) {
			t.Errorf("%d are left of what expires later, and the balance has %s of promotional credit", w.left(t, a, later), b.Promo)
		}
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

// Credit pays what is open when it is given, oldest first: a suspension does not outlast it, nor does the credit run out
// beside a debt.
func TestGrant_PaysWhatIsOpen(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		card    string
		dunning invoice.Dunning
	}{"Suspended": {sandbox.TokenLost, invoice.Suspended}, "BetweenAttempts": {sandbox.TokenInsufficientFunds, invoice.Retrying}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a, open := w.owing(t, c.card)
			if open.Dunning != c.dunning {
				t.Fatalf("%+v", open)
			}
			g := w.grant(t, a, 2000, 0, 10)
			w.wantInvoice(t, a, open.ID, invoice.Open, 700)
			got, err := billing.Granter{Core: w.Core}.Grant(t.Context(), asked(a, newKey()), billing.GrantInput{Amount: usd(1000), Reason: "test"}, nil)
			if err != nil || got.Record.Remaining != usd(300) {
				t.Errorf("%s of the second gift are left, %v; want 3.00 USD", got.Record.Remaining, err)
			}
			w.wantInvoice(t, a, open.ID, invoice.Paid, 0)
			if left := w.left(t, a, g); left != 0 {
				t.Errorf("%d of the first gift are left", left)
			}
			if acct, err := w.DB.Accounts().Get(t.Context(), a); err != nil || acct.Status != account.Active {
				t.Errorf("the account is %s, %v", acct.Status, err)
			}
		})
	}
}
