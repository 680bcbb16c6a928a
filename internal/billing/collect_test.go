package billing_test

import (
	"context"
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
	"github.com/accrue-billing/accrue/pkg/money"
)

// Funds that come while a card is being asked for an invoice pay it when the card has said no.
func TestCollect_FundsThatCameMeanwhilePayFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, open := w.owing(t, sandbox.TokenProcessing)
	asked, err := w.DB.Payments().PaymentsOf(t.Context(), a, open.ID)
	if err != nil || len(asked) != 1 || asked[0].Status != payment.Processing {
		t.Fatalf("%+v, %v", asked, err)
	}
	w.addCard(t, a, sandbox.TokenVisa)
	w.topUp(t, a, 10000)
	w.wantBalance(t, a, 10000, 2700) // the card may yet pay, and nobody pays twice
	if err := w.control.Settle(t.Context(), asked[0].ProviderRef, "generic_decline"); err != nil {
		t.Fatal(err)
	}
	w.tell(t, asked[0].ProviderRef)
	w.advance(48 * time.Hour)
	w.sweep(t)
	w.wantInvoice(t, a, open.ID, invoice.Paid, 0)
	w.wantBalance(t, a, 7300, 0)
	if n := len(w.charges(t)[a]); n != 1 {
		t.Errorf("%d charges, want that of the top-up alone", n)
	}
}

// Nor do they wait where the card will never pass, so that no attempt follows: the account is not suspended for what they pay.
func TestCollect_FundsThatCameMeanwhilePayWhenTheCardWillNeverPass(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenProcessing)
	w.use(t, a, "voice", "120000") // 27.00
	w.until(t, w.clock().Add(35*24*time.Hour))
	asked, err := w.DB.Payments().Payments(t.Context(), a, page.Request{Limit: 1})
	if err != nil || len(asked.Data) != 1 || asked.Data[0].Status != payment.Processing {
		t.Fatalf("%+v, %v", asked, err)
	}
	ref := asked.Data[0].ProviderRef
	w.addCard(t, a, sandbox.TokenVisa)
	w.topUp(t, a, 10000)
	if err := w.control.Settle(t.Context(), ref, "lost_card"); err != nil {
		t.Fatal(err)
	}
	w.tell(t, ref)
	w.wantBalance(t, a, 7300, 0)
	if n := w.told(t, a, outbox.AccountSuspended); n != 0 {
		t.Errorf("suspended %d times", n)
	}
}

// An attempt is made when it is due, and once: a job that comes early or again, and one whose invoice was paid or is
// disputed meanwhile, asks nobody.
func TestCollect_AsksWhenItIsDue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	collect := func(a account.ID, i invoice.ID, when string, want bool) {
		t.Helper()
		before, _ := w.DB.Payments().PaymentsOf(t.Context(), a, i)
		did, err := billing.Collector{Core: w.Core}.Collect(t.Context(), a, i)
		after, _ := w.DB.Payments().PaymentsOf(t.Context(), a, i)
		if n := len(after) - len(before); err != nil || did != want || (n == 1) != want {
			t.Errorf("%s: asked %v, %d payments, %v", when, did, n, err)
		}
	}
	paid, i, p := w.charged(t)
	collect(paid, i, "paid", false)
	w.disputed(t, p)
	w.wantInvoice(t, paid, i, invoice.Open, 2700)
	collect(paid, i, "disputed", false)

	a, open := w.owing(t, sandbox.TokenInsufficientFunds)
	if open.Dunning != invoice.Retrying {
		t.Fatalf("%+v", open)
	}
	w.behave(t, a, sandbox.TokenProcessing)
	w.advance(open.NextAttempt.Sub(w.clock()) - time.Microsecond)
	collect(a, open.ID, "early", false)
	w.advance(time.Microsecond)
	collect(a, open.ID, "in time", true)
	collect(a, open.ID, "while the provider has not answered", false)
}

// A card that was declined too often, by whomever it was asked, is not asked once more: another one has to come.
func TestCollect_AsksNoCardThatHasBeenDeclinedTooOften(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Policy.Dunning.CardAttempts = 2
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenInsufficientFunds)
	w.use(t, a, "voice", "120000") // 27.00
	w.until(t, day(time.April, 9))
	for range 2 {
		w.topUp(t, a, 1000)
	}
	w.until(t, day(time.April, 20))
	open, err := w.DB.Invoices().Unpaid(t.Context(), a)
	if err != nil || len(open) != 1 || open[0].Dunning != invoice.Suspended || open[0].Attempts != 1 {
		t.Fatalf("%+v, %v", open, err)
	}
	if n := w.told(t, a, outbox.PaymentFailed); n != 2 {
		t.Errorf("%d attempts failed, want those by hand only", n)
	}
	w.addCard(t, a, sandbox.TokenVisa)
	w.sweep(t)
	w.wantInvoice(t, a, open[0].ID, invoice.Paid, 0)
}

func TestPay_ByACardThatWasRemoved(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, open := w.owing(t, sandbox.TokenInsufficientFunds)
	gone := w.defaultCard(t, a).ID
	if err := (billing.Cards{Core: w.Core}).RemoveByOperator(t.Context(), asked(a, ""), gone, "test"); err != nil {
		t.Fatal(err)
	}
	if _, err := (billing.Collector{Core: w.Core}).Pay(t.Context(), asked(a, newKey()), open.ID, gone, nil); !errors.Is(err, payment.ErrMethodNotFound) {
		t.Errorf("%v, want ErrMethodNotFound", err)
	}
}

// What is too little for any card stays due without being looked at again and again, and the next funds pay it.
func TestCollect_TooLittleForACard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.use(t, a, "voice", "60600") // 0.27
	w.until(t, w.clock().Add(35*24*time.Hour))
	open, err := w.DB.Invoices().Unpaid(t.Context(), a)
	if err != nil || len(open) != 1 || open[0].Dunning != invoice.NotDunned || !open[0].NextAttempt.IsZero() {
		t.Fatalf("%+v, %v", open, err)
	}
	if n := len(w.charges(t)[a]); n != 0 {
		t.Errorf("%d charges", n)
	}
	w.topUp(t, a, 1000)
	w.wantInvoice(t, a, open[0].ID, invoice.Paid, 0)
	w.wantBalance(t, a, 973, 0)
}

// limited is a provider with limits of its own.
type limited struct {
	payment.Gateway
	change func(*payment.Limits, money.Currency)
}

func (g limited) Limits(c money.Currency) (payment.Limits, error) {
	l, err := g.Gateway.Limits(c)
	g.change(&l, c)
	return l, err
}

// Charge refuses what is beyond them, as the providers do.
func (g limited) Charge(ctx context.Context, r payment.ChargeRequest) (payment.ChargeResult, error) {
	l, err := g.Limits(r.Amount.Currency)
	if err == nil {
		err = l.Check(r.Amount)
	}
	if err != nil {
		return payment.ChargeResult{}, err
	}
	return g.Gateway.Charge(ctx, r)
}

// inSteps takes whole dollars only, as some providers take no thousandths.
func inSteps(l *payment.Limits, c money.Currency) { l.Minimum, l.Step = money.New(100, c), 100 }

// tenAtMost takes ten dollars at most.
func tenAtMost(l *payment.Limits, c money.Currency) { l.Maximum = money.New(1000, c) }

// What one charge leaves of an invoice the next can take.
func TestChargeable(t *testing.T) {
	t.Parallel()
	dollars := payment.Limits{Minimum: usd(50), Maximum: usd(1000), Step: 1}
	for _, c := range []struct {
		due     int64
		l       payment.Limits
		want    int64
		because string
	}{
		{999, dollars, 999, "it is less than the most"},
		{1000, dollars, 1000, "it is the most"},
		{1001, dollars, 951, "one cent would be too little for the next"},
		{1049, dollars, 999, "49 cents would be too little for the next"},
		{1050, dollars, 1000, "50 cents are enough for the next"},
		{5000, dollars, 1000, "the rest is enough for the next"},
		{727, payment.Limits{Minimum: usd(100), Maximum: usd(1000), Step: 100}, 800, "only whole steps are taken"},
		{700, payment.Limits{Minimum: usd(100), Maximum: usd(1000), Step: 100}, 700, "it is a whole number of steps"},
		{2000, payment.Limits{Minimum: usd(100), Maximum: usd(1050), Step: 100}, 1000, "the most is no whole number of steps"},
		{1001, payment.Limits{Minimum: usd(300), Maximum: usd(1000), Step: 100}, 800, "less than 300 would be too little for the next"},
	} {
		if got := billing.Chargeable(invoice.Invoice{Total: usd(c.due), Currency: money.USD}, c.l); got != usd(c.want) {
			t.Errorf("of %d due %s are charged, want %d: %s", c.due, got, c.want, c.because)
		}
	}
}

// An invoice that is no whole number of the provider's steps is charged to the next one; the rest goes to the funds.
func TestCollect_InTheProvidersSteps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Gateway = limited{w.Gateway, inSteps}
	a := w.onPro(t)
	w.use(t, a, "voice", "120600") // 27.27
	w.until(t, w.clock().Add(35*24*time.Hour))
	all, err := w.DB.Invoices().List(t.Context(), a, "", page.Request{Limit: 10})
	if err != nil || len(all.Data) != 1 || all.Data[0].Total != usd(2727) || all.Data[0].Status != invoice.Paid {
		t.Errorf("%+v, %v", all.Data, err)
	}
	w.wantBalance(t, a, 73, 0)
}

// An invoice of more than the provider takes at once is collected in parts, none of them too small for it.
func TestCollect_MoreThanTheProviderTakesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Gateway = limited{w.Gateway, tenAtMost}
	a := w.onPro(t)
	w.use(t, a, "voice", "104933") // 20.22
	end := day(time.April, 10)
	w.until(t, end.Add(time.Hour))
	w.until(t, end.Add(w.Policy.Grace+time.Hour))
	for range 3 {
		w.sweep(t)
	}
	all, err := w.DB.Invoices().List(t.Context(), a, "", page.Request{Limit: 10})
	if err != nil || len(all.Data) != 1 || all.Data[0].Status != invoice.Paid {
		t.Fatalf("%+v, %v", all.Data, err)
	}
	paid, err := w.DB.Payments().PaymentsOf(t.Context(), a, all.Data[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	amounts := map[int64]int{}
	for _, p := range paid {
		amounts[p.Amount.Minor]++
	}
	if want := map[int64]int{1000: 1, 972: 1, 50: 1}; !maps.Equal(amounts, want) {
		t.Errorf("charged %v of %s, want %v", amounts, all.Data[0].Total, want)
	}
	w.wantBalance(t, a, 0, 0)
}

func TestFundsPayBeforeTheCard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.topUp(t, a, 50000)
	w.use(t, a, "voice", "1800000") // 783.00
	w.advance(35 * 24 * time.Hour)
	w.sweep(t)
	ps, err := w.DB.Payments().Payments(t.Context(), a, page.Request{Limit: 10})
	if err != nil || len(ps.Data) != 2 {
		t.Fatalf("%d payments, %v; want the top-up and the rest of the invoice", len(ps.Data), err)
	}
	if p := ps.Data[0]; p.Purpose != payment.ForInvoice || p.Amount != usd(28300) || p.Status != payment.Succeeded {
		t.Errorf("%+v, want 283.00 USD for the invoice", p)
	}
	if b := w.balance(t, a); b.Funds != usd(0) || b.Due != usd(0) || b.Available != usd(0) {
		t.Errorf("%+v, want nothing left and nothing due", b)
	}
}

func TestUnpaidDebtIsWrittenOffAndMayStillBePaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.upgrade(t, a.ID, sandbox.TokenInsufficientFunds)
	w.use(t, a.ID, "voice", "1800000")
	for range 135 { // days
		w.advance(24 * time.Hour)
		w.sweep(t)
	}
	list, err := w.DB.Invoices().List(t.Context(), a.ID, invoice.Uncollectible, page.Request{Limit: 10})
	if err != nil || len(list.Data) != 1 {
		t.Fatalf("%d invoices written off, %v; want 1", len(list.Data), err)
	}
	if b := w.balance(t, a.ID); b.Due != usd(0) {
		t.Errorf("due %s after the write-off", b.Due)
	}
	add, err := billing.Cards{Core: w.Core}.Add(t.Context(), asked(a.ID, newKey()), billing.NewCard{
		CardSource: billing.CardSource{Token: sandbox.TokenVisa}, Profile: profile,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	paid, err := billing.Collector{Core: w.Core}.Pay(t.Context(), asked(a.ID, newKey()), list.Data[0].ID, add.Record.ID, nil)
	if err != nil || paid.Record.Status != payment.Succeeded {
		t.Fatalf("%+v, %v", paid.Record, err)
	}
	if inv, err := w.DB.Invoices().Get(t.Context(), a.ID, list.Data[0].ID); err != nil || inv.Status != invoice.Paid {
		t.Errorf("status %s, %v; want paid after all", inv.Status, err)
	}
}

// unread is a database that cannot say what a card was asked before.
type unread struct{ billing.Database }

func (d unread) InTx(ctx context.Context, fn func(tx billing.Tx) error) error {
	return d.Database.InTx(ctx, func(tx billing.Tx) error { return fn(unreadTx{tx}) })
}

type unreadTx struct{ billing.Tx }

func (t unreadTx) Payments() payment.Store { return unreadPayments{t.Tx.Payments()} }

type unreadPayments struct{ payment.Store }

func (unreadPayments) Attempts(context.Context, string, time.Time) ([]payment.Attempt, error) {
	return nil, errSpoilt
}

// What a card was asked before is not known to be too much where it cannot be read: nobody is suspended for that.
func TestCollect_WhatACardWasAskedCannotBeRead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.use(t, a, "voice", "120000") // 27.00
	core := w.another(w.Gateway)
	core.DB = unread{w.DB}
	w.advance(35 * 24 * time.Hour)
	if _, err := (billing.Sweeper{Core: core}).Sweep(t.Context()); !errors.Is(err, errSpoilt) {
		t.Errorf("%v, want what went wrong", err)
	}
	if acct, err := w.DB.Accounts().Get(t.Context(), a); err != nil || acct.Status != account.Active {
		t.Errorf("the account is %s, %v", acct.Status, err)
	}
	w.sweep(t)
	w.wantBalance(t, a, 0, 0)
}
