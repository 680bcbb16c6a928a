package billing_test

import (
	"errors"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// paidInvoice is the account's only invoice.
func (w *world) paidInvoice(t *testing.T, a account.ID, total int64) invoice.ID {
	t.Helper()
	all, err := w.DB.Invoices().List(t.Context(), a, invoice.Paid, page.Request{Limit: 10})
	if err != nil || len(all.Data) != 1 || all.Data[0].Total != usd(total) {
		t.Fatalf("%+v, %v; want one of %s", all.Data, err, usd(total))
	}
	return all.Data[0].ID
}

// wantRefunded checks how much of the account's money has gone back to its cards.
func (w *world) wantRefunded(t *testing.T, a account.ID, minor int64) {
	t.Helper()
	var sum int64
	for _, c := range w.charges(t)[a] {
		sum += c.Refunded.Minor
	}
	if sum != minor {
		t.Errorf("%d refunded, want %d", sum, minor)
	}
}

// Of an invoice that credit has paid nothing becomes money, though there is a top-up through which it could be refunded. It
// is credit again, of the same gift, and with the gift's time.
func TestCreditNote_GivesCreditBackAsCredit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	g := w.grant(t, a, 5000, 0, 60)
	w.topUp(t, a, 1000)
	w.use(t, a, "voice", "120000") // 27.00
	w.closed(t, day(time.April, 10))
	inv := w.paidInvoice(t, a, 2700)
	w.credit(t, a, inv, 700)
	w.wantBalance(t, a, 1000, 0)
	if left := w.left(t, a, g); left != 3000 {
		t.Errorf("%d of the gift are left, want 3000", left)
	}
	w.until(t, day(time.May, 20)) // the gift's time is over
	w.credit(t, a, inv, 2000)
	if left, b := w.left(t, a, g), w.balance(t, a); left != 0 || b.Promo != usd(0) || b.Funds != usd(1000) {
		t.Errorf("%d of the gift are left, funds are %s and credit is %s", left, b.Funds, b.Promo)
	}
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	w.wantRefunded(t, a, 1000)
}

// It is as if the invoice had been right from the start: credit pays first, so what a card has paid comes back first. A card
// that is given its payment back takes it from the funds that it became.
func TestCreditNote_GivesMoneyBackBeforeCredit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	g := w.grant(t, a, 700, 0, 0)
	w.use(t, a, "voice", "120000") // 27.00: 7.00 by credit, 20.00 by card
	w.closed(t, day(time.April, 10))
	inv := w.paidInvoice(t, a, 2700)
	got, err := billing.Adjuster{Core: w.Core}.Credit(t.Context(), asked(a, newKey()), billing.CreditInput{Invoice: inv, Amount: usd(2300), Reason: "test"}, nil)
	if err != nil || got.Record.ToDue != usd(0) || got.Record.ToFunds != usd(2000) || got.Record.ToCredit != usd(300) {
		t.Fatalf("%+v, %v", got.Record, err)
	}
	w.wantBalance(t, a, 2000, 0)
	if left := w.left(t, a, g); left != 300 {
		t.Errorf("%d of the gift are left, want 300", left)
	}
	paid, err := w.DB.Payments().PaymentsOf(t.Context(), a, inv)
	if err != nil || len(paid) != 1 {
		t.Fatal(paid, err)
	}
	w.refund(t, a, paid[0].ID, 2000)
	w.wantBalance(t, a, 0, 0)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	if left := w.left(t, a, g); left != 300 {
		t.Errorf("%d of the gift are left after the refund, want 300", left)
	}
}

// A customer may take its own usage back; what credit had paid of it is credit again too.
func TestLateUsage_WhatItCreditsOfWhatCreditPaidIsCredit(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		given, credited      int64
		funds, promo, refund int64
	}{
		"PaidByCredit":          {given: 5000, funds: 1000, promo: 5000, refund: 1000},
		"PaidByCreditAndMoney":  {given: 700, funds: 1000, promo: 700, refund: 1000},
		"PaidByMoney":           {funds: 1000, refund: 1000},
		"CreditedAlready":       {given: 5000, credited: 2700, funds: 1000, promo: 7700, refund: 1000},
		"CreditedAlreadyInPart": {given: 700, credited: 2300, funds: 1000, promo: 700 + 2300, refund: 1000},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onPro(t)
			if c.given > 0 {
				w.grant(t, a, c.given, 0, 0)
			}
			w.useAs(t, a, "call", "voice", "120000", w.clock()) // 27.00
			w.closed(t, day(time.April, 10))
			inv := w.paidInvoice(t, a, 2700)
			if c.credited > 0 {
				w.credit(t, a, inv, c.credited)
			}
			w.topUp(t, a, 1000)
			w.correct(t, a, "call", "")
			w.closed(t, day(time.May, 10))
			funds := c.funds + 2700 - min(c.given, 2700) // what the card had paid
			if b := w.balance(t, a); b.Funds != usd(funds) || b.Promo != usd(c.promo) {
				t.Errorf("funds are %s and credit is %s, want %s and %s", b.Funds, b.Promo, usd(funds), usd(c.promo))
			}
		})
	}
}

// Two corrections of one invoice give back together what money has paid of it, and the rest is credit.
func TestLateUsage_WhatWasCreditedBeforeIsNotMoneyTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	g := w.grant(t, a, 700, 0, 0)
	w.useAs(t, a, "call", "voice", "120000", w.clock()) // 27.00: 7.00 by credit, 20.00 by card
	w.closed(t, day(time.April, 10))
	inv := w.paidInvoice(t, a, 2700)
	w.correct(t, a, "call", "80000") // 9.00
	w.closed(t, day(time.May, 10))
	w.wantBalance(t, a, 1800, 0)
	w.credit(t, a, inv, 100) // a part of what money has paid and is not given back
	w.wantBalance(t, a, 1900, 0)
	w.correct(t, a, "call", "")
	w.closed(t, day(time.June, 10))
	w.wantBalance(t, a, 2000, 0)
	if left := w.left(t, a, g); left != 700 {
		t.Errorf("%d of the gift are left, want 700", left)
	}
}

// Credit that is taken back by its operator, or has run out, is not given again.
func TestCreditNote_OfCreditThatHasEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	g := w.grant(t, a, 5000, 0, 0)
	w.use(t, a, "voice", "120000") // 27.00
	w.closed(t, day(time.April, 10))
	inv := w.paidInvoice(t, a, 2700)
	if _, err := (billing.Granter{Core: w.Core}).Void(t.Context(), asked(a, newKey()), g, "given twice", nil); err != nil {
		t.Fatal(err)
	}
	w.credit(t, a, inv, 700)
	w.credit(t, a, inv, 2000)
	if b := w.balance(t, a); b.Promo != usd(0) || b.Funds != usd(0) {
		t.Errorf("funds are %s and credit is %s", b.Funds, b.Promo)
	}
}

// A credit note of all that is left of an invoice does not give back again what a correction has given back on a later one,
// which billed 54.00 less those 27.00.
func TestCreditNote_OfTheRestIsNotOfWhatACorrectionHasGivenBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		left     string // of 2,000 minutes
		credited int64
	}{
		"Nothing": {credited: 0},
		"APart":   {left: "80000", credited: 900},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onPro(t)
			w.behave(t, a, sandbox.TokenChargeDeclined)
			w.useAs(t, a, "call", "voice", "120000", w.clock()) // 27.00
			w.closed(t, day(time.April, 10))
			inv := w.invoiceOf(t, a, day(time.March, 10))
			w.correct(t, a, "call", c.left)
			w.use(t, a, "voice", "180000") // 54.00
			w.closed(t, day(time.May, 10))
			got, err := billing.Adjuster{Core: w.Core}.Credit(t.Context(), asked(a, newKey()), billing.CreditInput{Invoice: inv, Reason: "test"}, nil)
			if c.credited == 0 && !errors.Is(err, billing.ErrCorrected) {
				t.Errorf("%v, want ErrCorrected", err)
			} else if c.credited > 0 && (err != nil || got.Record.Amount != usd(c.credited)) {
				t.Errorf("credited %s, %v; want %s", got.Record.Amount, err, usd(c.credited))
			}
			w.wantBalance(t, a, 0, 5400)
			w.credit(t, a, inv, 100) // what is said is given
			w.wantBalance(t, a, 0, 5300)
		})
	}
}

// What is given back twice is credit, whichever comes first: the correction of the usage, or the credit note.
func TestCreditNote_OfWhatACorrectionHasGivenBackIsCredit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.useAs(t, a, "call", "voice", "120000", w.clock()) // 27.00
	w.closed(t, day(time.April, 10))
	inv := w.paidInvoice(t, a, 2700)
	w.correct(t, a, "call", "")
	w.closed(t, day(time.May, 10))
	w.wantBalance(t, a, 2700, 0)
	w.credit(t, a, inv, 2000)
	if b := w.balance(t, a); b.Funds != usd(2700) || b.Promo != usd(2000) {
		t.Errorf("funds are %s and credit is %s, want what the card has paid, and credit", b.Funds, b.Promo)
	}
}

// An invoice that takes back what money has paid of another, and bills as much itself, is paid with that money: what is given
// back of it in turn is money. What credit has paid stays credit.
func TestGiveBack_OfWhatWasPaidByWhatAnInvoiceTakesBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ given, funds, promo int64 }{
		"Money":          {given: 0, funds: 2700, promo: 0},
		"MoneyAndCredit": {given: 700, funds: 2000, promo: 700},
		"Credit":         {given: 2700, funds: 0, promo: 2700},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onPro(t)
			if c.given > 0 {
				w.grant(t, a, c.given, 0, 0)
			}
			w.useAs(t, a, "first", "voice", "120000", w.clock()) // 27.00
			w.closed(t, day(time.April, 10))
			w.correct(t, a, "first", "")
			w.useAs(t, a, "second", "voice", "120000", w.clock())
			w.closed(t, day(time.May, 10))
			if got, want := w.lines(t, a, day(time.April, 10)), "usage 2700, adjustment -2700"; got != want {
				t.Fatalf("billed %q, want %q", got, want)
			}
			w.correct(t, a, "second", "")
			w.closed(t, day(time.June, 10))
			if b := w.balance(t, a); b.Funds != usd(c.funds) || b.Promo != usd(c.promo) {
				t.Errorf("funds are %s and credit is %s, want %s and %s", b.Funds, b.Promo, usd(c.funds), usd(c.promo))
			}
		})
	}
}

// What was given back of an invoice that nobody had paid has paid another; then the first is written off. So that debt has
// paid the other, and of the other no money is given back: what its usage comes to goes to the debt.
func TestGiveBack_OfWhatWasPaidByADebtThatWasWrittenOff(t *testing.T) {
	t.Parallel()
	march, april, may := day(time.March, 10), day(time.April, 10), day(time.May, 10)
	owing := func(t *testing.T) (*world, account.ID) {
		t.Helper()
		w := newWorld(t)
		w.Policy.Dunning.Retries = []time.Duration{1000 * 24 * time.Hour} // nobody is suspended
		a := w.onPro(t)
		w.behave(t, a, sandbox.TokenChargeDeclined)
		w.useAs(t, a, "first", "voice", "120000", w.clock()) // 27.00
		w.closed(t, april)
		return w, a
	}
	lent := func(t *testing.T) (*world, account.ID) {
		t.Helper()
		w, a := owing(t)
		w.useAs(t, a, "second", "voice", "180000", w.clock()) // 54.00
		w.closed(t, may)
		w.correct(t, a, "second", "120000")
		w.closed(t, may.AddDate(0, 1, 0)) // 27.00 of the second pay the first
		w.wantInvoice(t, a, w.invoiceOf(t, a, march), invoice.Paid, 0)
		w.writeOff(t, a, w.invoiceOf(t, a, april))
		return w, a
	}
	settled := func(t *testing.T, w *world, a account.ID, funds, promo, owed int64) {
		t.Helper()
		b, err := w.DB.Ledger().Balances(t.Context(), a)
		if err != nil || b[books.Funds] != -funds || b[books.Promo] != -promo || b[books.BadDebt] != owed {
			t.Errorf("the books have %v, %v; want funds of %d, credit of %d, and %d written off", b, err, funds, promo, owed)
		}
	}
	t.Run("ByACorrection", func(t *testing.T) {
		t.Parallel()
		w, a := lent(t)
		w.correct(t, a, "first", "80000") // 9.00
		w.closed(t, may.AddDate(0, 2, 0))
		settled(t, w, a, 0, 0, 5400-1800)
		w.correct(t, a, "first", "")
		w.closed(t, may.AddDate(0, 3, 0))
		settled(t, w, a, 0, 0, 2700)
		w.wantInvoice(t, a, w.invoiceOf(t, a, april), invoice.Uncollectible, 2700)
		w.correct(t, a, "second", "")
		w.closed(t, may.AddDate(0, 4, 0))
		settled(t, w, a, 0, 0, 0)
		w.wantInvoice(t, a, w.invoiceOf(t, a, april), invoice.Paid, 0)
	})
	t.Run("ByACorrectionBesideMoney", func(t *testing.T) {
		t.Parallel()
		w, a := lent(t)
		w.behave(t, a, sandbox.TokenVisa)
		w.topUp(t, a, 1000)
		w.correct(t, a, "first", "")
		w.closed(t, may.AddDate(0, 2, 0))
		settled(t, w, a, 1000, 0, 2700)
	})
	t.Run("OfSeveralDebtsTheLatestFirst", func(t *testing.T) {
		t.Parallel()
		w, a := lent(t)
		w.useAs(t, a, "third", "voice", "80000", w.clock()) // 9.00
		w.closed(t, may.AddDate(0, 2, 0))
		third := w.unpaid(t, a).ID
		w.writeOff(t, a, third)
		w.correct(t, a, "first", "")
		w.closed(t, may.AddDate(0, 3, 0))
		settled(t, w, a, 0, 0, 5400+900-2700)
		w.wantInvoice(t, a, third, invoice.Paid, 0)
		w.wantInvoice(t, a, w.invoiceOf(t, a, april), invoice.Uncollectible, 5400-1800)
	})
	t.Run("ByACreditNote", func(t *testing.T) { // which is a gift
		t.Parallel()
		w, a := lent(t)
		w.credit(t, a, w.invoiceOf(t, a, march), 1000)
		settled(t, w, a, 0, 1000, 5400)
	})
	t.Run("NettedByTheInvoiceThatCorrects", func(t *testing.T) {
		t.Parallel()
		w, a := owing(t)
		w.correct(t, a, "first", "")
		w.useAs(t, a, "second", "voice", "180000", w.clock()) // 54.00, of which 27.00 are billed
		w.closed(t, may)
		w.writeOff(t, a, w.invoiceOf(t, a, march))
		w.correct(t, a, "second", "")
		w.closed(t, may.AddDate(0, 1, 0))
		settled(t, w, a, 0, 0, 0)
		w.wantInvoice(t, a, w.invoiceOf(t, a, march), invoice.Paid, 0)
	})
	t.Run("CreditThatWasDrawnIsCreditAgain", func(t *testing.T) {
		t.Parallel()
		w, a := lent(t)
		g := w.grant(t, a, 5000, 0, 0)
		w.useAs(t, a, "third", "voice", "120000", w.clock()) // 27.00
		w.closed(t, may.AddDate(0, 2, 0))
		w.correct(t, a, "third", "")
		w.closed(t, may.AddDate(0, 3, 0))
		settled(t, w, a, 0, 5000, 5400)
		if left := w.left(t, a, g); left != 5000 {
			t.Errorf("%d of the gift are left, want all of it", left)
		}
	})
}

// What a credit note has made funds and its customer has spent is there no more: a dispute of the payment makes the invoice due
// again, and leaves no funds of less than nothing, which nobody could be asked for.
func TestDispute_OfWhatACreditNoteHasGivenBackAndIsSpent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.use(t, a, "voice", "120000") // 27.00
	w.closed(t, day(time.April, 10))
	inv := w.paidInvoice(t, a, 2700)
	paid, err := w.DB.Payments().PaymentsOf(t.Context(), a, inv)
	if err != nil || len(paid) != 1 {
		t.Fatal(paid, err)
	}
	w.credit(t, a, inv, 1000)
	w.use(t, a, "voice", "120000") // 10.00 of it from the funds
	w.closed(t, day(time.May, 10))
	w.wantBalance(t, a, 0, 0)
	w.disputed(t, paid[0])
	w.wantInvoice(t, a, inv, invoice.Open, 2700)
	w.wantBalance(t, a, 0, 2700)
}

// A payment is disputed whose invoice a correction has given back already: the money that it became goes, and no gift pays in
// its place.
func TestDispute_OfWhatACorrectionHasGivenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.useAs(t, a, "call", "voice", "120000", w.clock()) // 27.00
	w.closed(t, day(time.April, 10))
	inv := w.paidInvoice(t, a, 2700)
	paid, err := w.DB.Payments().PaymentsOf(t.Context(), a, inv)
	if err != nil || len(paid) != 1 {
		t.Fatal(paid, err)
	}
	w.correct(t, a, "call", "")
	w.closed(t, day(time.May, 10))
	g := w.grant(t, a, 700, 0, 0)
	w.disputed(t, paid[0])
	w.wantBalance(t, a, 0, 0)
	if left := w.left(t, a, g); left != 700 {
		t.Errorf("%d of the gift are left, want all of it", left)
	}
}
