package billing_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// A card that waits for its holder when the account is closed never becomes one.
func TestClosedAccount_ItsLastCardComesTooLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	got, err := billing.Cards{Core: w.Core}.Add(t.Context(), asked(a, newKey()), billing.NewCard{
		CardSource: billing.CardSource{Token: sandbox.Token3DSSetup}, Profile: profile,
	}, nil)
	if err != nil || got.Record.Status != payment.MethodRequiresAction {
		t.Fatalf("%+v, %v", got.Record, err)
	}
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	if err := w.control.Act(t.Context(), got.Record.SetupRef, true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.advance(time.Hour)
		w.sweep(t)
	}
	m, err := w.DB.Payments().Method(t.Context(), a, got.Record.ID)
	if err != nil || m.Status != payment.MethodRemoved || !m.CheckAt.IsZero() {
		t.Errorf("the card is %s and to be checked at %s, %v; want it removed and detached", m.Status, m.CheckAt, err)
	}
}

// An account is not closed with a debt: credit that has run out, and was not taken back yet, pays for nothing.
func TestEnd_CreditThatHasRunOutPaysForNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.grant(t, a, 10000, 0, 1)
	w.use(t, a, "voice", "120000") // 27.00
	w.advance(25 * time.Hour)
	_, err := billing.Ender{Core: w.Core}.End(t.Context(), asked(a, newKey()), "test", nil)
	if !errors.Is(err, billing.ErrOwing) {
		t.Errorf("%v, want ErrOwing", err)
	}
	if acct, err := w.DB.Accounts().Get(t.Context(), a); err != nil || acct.Status != account.Active {
		t.Errorf("the account is %s, %v", acct.Status, err)
	}
}

// Credit is never paid out, and does not stay in the books of an account that is closed.
func TestEnd_CreditEndsWithTheAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	g := w.grant(t, a, 10000, 0, 0)
	w.use(t, a, "voice", "120000") // 27.00
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	if left, b := w.left(t, a, g), w.balance(t, a); left != 0 || b.Promo != usd(0) || b.Due != usd(0) {
		t.Errorf("%d of the gift are left, with %s of credit and %s due in the balance", left, b.Promo, b.Due)
	}
	if n := w.told(t, a, outbox.CreditExpired); n != 1 {
		t.Errorf("told %d times", n)
	}
}

// What a credit note has given back of an invoice goes to the card that paid it, and the invoice stays paid.
func TestEnd_WhatWasCreditedOfAnInvoiceGoesToTheCardThatPaidIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t) // 27.00
	w.credit(t, a, inv, 1000)
	w.topUp(t, a, 500)
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.wantBalance(t, a, 0, 0)
	for _, c := range w.charges(t)[a] {
		want := usd(500) // of the top-up, all
		if c.PaymentRef == p.ID.String() {
			want = usd(1000)
		}
		if c.Refunded != want {
			t.Errorf("%s refunded of a charge of %s, want %s", c.Refunded, c.Amount, want)
		}
	}
	// The bank takes back the rest of what the card paid: that is all that is due of the invoice.
	w.disputed(t, p)
	w.wantInvoice(t, a, inv, invoice.Open, 1700)
}

// So does what a correction of usage has given back.
func TestEnd_WhatACorrectionHasGivenBackGoesToTheCardThatPaidIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.useAs(t, a, "call", "voice", "120000", w.clock()) // 27.00
	w.closed(t, day(time.April, 10))
	w.paidInvoice(t, a, 2700)
	w.correct(t, a, "call", "")
	w.closed(t, day(time.May, 10))
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	w.wantBalance(t, a, 0, 0)
	w.wantRefunded(t, a, 2700)
}

// Of an invoice that credit has paid in part, no more than the card's part of it is paid out: the rest is credit again, and ends.
func TestEnd_WhatCreditHasPaidIsNotPaidOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.grant(t, a, 700, 0, 0)
	w.use(t, a, "voice", "120000") // 27.00
	w.closed(t, day(time.April, 10))
	all, err := w.DB.Invoices().List(t.Context(), a, invoice.Paid, page.Request{Limit: 10})
	if err != nil || len(all.Data) != 1 {
		t.Fatalf("%+v, %v", all.Data, err)
	}
	w.credit(t, a, all.Data[0].ID, 2700)
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	w.wantBalance(t, a, 0, 0)
	w.wantRefunded(t, a, 2000)
}

func (w *world) credit(t *testing.T, a account.ID, inv invoice.ID, minor int64) {
	t.Helper()
	_, err := billing.Adjuster{Core: w.Core}.Credit(t.Context(), asked(a, newKey()), billing.CreditInput{Invoice: inv, Amount: usd(minor), Reason: "test"}, nil)
	if err != nil {
		t.Fatal(err)
	}
}

// Funds go back to where they were paid in as funds, the latest first, before a card is given back what it paid of an invoice.
func TestEnd_WhereFundsGoBackToFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	for _, minor := range []int64{300, 400, 500} {
		w.topUp(t, a, minor)
		w.advance(time.Hour)
	}
	w.use(t, a, "voice", "120000") // 27.00, of which the card pays 15.00
	w.closed(t, day(time.April, 10))
	w.credit(t, a, w.paidInvoice(t, a, 2700), 1500)
	w.use(t, a, "voice", "68000") // 3.60
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	w.wantBalance(t, a, 0, 0)
	got := map[int64]int64{}
	for _, c := range w.charges(t)[a] {
		got[c.Amount.Minor] = c.Refunded.Minor
	}
	if want := map[int64]int64{500: 500, 400: 400, 300: 240, 1500: 0}; !maps.Equal(got, want) {
		t.Errorf("refunded of each charge %v, want %v", got, want)
	}
}

// What is less than the provider's step, which a card's payment of an invoice leaves, no card can be given back: it keeps no
// account from being closed, and the rest goes back.
func TestEnd_LessThanTheProvidersStepStays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Gateway = limited{w.Gateway, inSteps}
	a := w.onPro(t)
	w.use(t, a, "voice", "120600") // 27.27, charged as 28.00
	w.closed(t, day(time.April, 10))
	w.topUp(t, a, 500)
	w.wantBalance(t, a, 573, 0)
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	w.wantBalance(t, a, 73, 0)
	refunds, err := w.DB.Payments().Refunds(t.Context(), a, page.Request{Limit: 10})
	if err != nil || len(refunds.Data) != 1 || refunds.Data[0].Amount != usd(500) || refunds.Data[0].Status != payment.Succeeded {
		t.Errorf("refunds %+v, %v", refunds.Data, err)
	}
}

// Nor does it pay what a dispute has taken from funds that were spent.
func TestEnd_CreditPaysNoDebtOfTheFunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.owingFunds(t)
	w.grant(t, a, 10000, 0, 0)
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); !errors.Is(err, billing.ErrOwing) {
		t.Errorf("%v, want ErrOwing", err)
	}
}

// A fee is due for the time for which its plan was held, so up to the moment in which the account is closed: of 22.00 for
// the 31 days from 10 March, 22 × 20⁄31 less 22 × 10⁄31 for those from the 20th to the 30th. That has to be paid, not the whole.
func TestEnd_TheFeeIsDueUpToNow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onProAmongFees(t)
	w.until(t, day(time.March, 20))
	w.moveTo(t, a, "growth")
	w.until(t, day(time.March, 30))
	end := func() error {
		_, err := billing.Ender{Core: w.Core}.End(t.Context(), asked(a, newKey()), "test", nil)
		return err
	}
	w.topUp(t, a, 700)
	if err := end(); !errors.Is(err, billing.ErrOwing) {
		t.Fatalf("%v with 9 cents too little, want ErrOwing", err)
	}
	w.topUp(t, a, 500)
	if err := end(); err != nil {
		t.Fatal(err)
	}
	if got, want := w.lines(t, a, day(time.March, 10)), "fee 709"; got != want {
		t.Errorf("billed %q, want %q", got, want)
	}
	w.wantBalance(t, a, 0, 0)
}
