package billing_test

import (
	"errors"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/wallet"
)

// keepFunds saves a rule: below 10.00, charge up to 50.00. It returns the account, on Pro with the card.
func (w *world) keepFunds(t *testing.T, token string, ceiling int64) account.ID {
	t.Helper()
	a := w.open(t).ID
	w.upgrade(t, a, token)
	w.saveRule(t, a, ceiling)
	return a
}

func (w *world) saveRule(t *testing.T, a account.ID, ceiling int64) {
	t.Helper()
	rule, err := w.DB.Wallet().AutoTopUp(t.Context(), a)
	if err != nil && !errors.Is(err, wallet.ErrNoAutoTopUp) {
		t.Fatal(err)
	}
	most := usd(ceiling)
	rule.Enabled, rule.Threshold, rule.Target, rule.MonthlyCeiling = true, usd(1000), usd(5000), &most
	if _, err := (billing.Funder{Core: w.Core}).SetAutoTopUp(t.Context(), asked(a, ""), rule); err != nil {
		t.Fatal(err)
	}
}

// checkedFunds checks the account as after a change of its balance, and returns the paid-in funds.
func (w *world) checkedFunds(t *testing.T, a account.ID) int64 {
	t.Helper()
	w.check(t, a)
	return w.balance(t, a).Funds.Minor
}

func TestAutoTopUp_KeepsFundsAtTheTargetOnceTheyFallBelowTheThreshold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenVisa, 100_000)
	if got := w.checkedFunds(t, a); got != 5000 {
		t.Fatalf("funds of %d, want the target", got)
	}
	w.use(t, a, "voice", "60000") // the allowance
	w.use(t, a, "voice", "60000") // 27 dollars
	if got := w.checkedFunds(t, a); got != 5000 {
		t.Errorf("charged at 23 dollars available: funds of %d", got)
	}
	w.use(t, a, "voice", "60000") // 54 dollars
	if got := w.checkedFunds(t, a); got != 5000+5400 {
		t.Errorf("funds of %d, want what is missing to 50 dollars available", got)
	}
	if b := w.balance(t, a); b.Available != usd(5000) {
		t.Errorf("%s available, want the target", b.Available)
	}
}

func TestAutoTopUp_NeverPassesTheMonthsCeiling(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenVisa, 7000)
	w.checkedFunds(t, a)
	w.use(t, a, "voice", "60000")
	w.use(t, a, "voice", "120000") // 54 dollars
	if got := w.checkedFunds(t, a); got != 7000 {
		t.Errorf("funds of %d, want the ceiling", got)
	}
	w.use(t, a, "voice", "60000") // nothing of the ceiling is left
	if got := w.checkedFunds(t, a); got != 7000 {
		t.Errorf("funds of %d, want the ceiling", got)
	}
	w.advance(22 * 24 * time.Hour) // the first of April
	if got := w.checkedFunds(t, a); got <= 7000 || got > 14_000 {
		t.Errorf("funds of %d in a new month, want a new ceiling's", got)
	}
}

// What the month's ceiling holds back is charged when the month turns, though nothing is used or paid then.
func TestAutoTopUp_GoesOnWhenTheMonthTurns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenVisa, 7000)
	w.until(t, day(time.March, 31)) // the last day of the month counts for it, and not for the next
	w.use(t, a, "voice", "60000")
	w.use(t, a, "voice", "200000") // 90 dollars, of which 70 may be charged this month
	if got := w.checkedFunds(t, a); got != 7000 {
		t.Fatalf("funds of %d, want the ceiling", got)
	}
	w.until(t, day(time.April, 1).Add(-time.Second))
	w.wantBalance(t, a, 7000, 0)
	w.until(t, day(time.April, 1))
	w.wantBalance(t, a, 14_000, 0) // to the target
	charges := len(w.charges(t)[a])
	w.until(t, day(time.April, 9))
	if n := len(w.charges(t)[a]); n != charges {
		t.Errorf("%d charges more, and the target was reached", n-charges)
	}
}

// A rule that is saved anew is not held back by what the old one allowed.
func TestAutoTopUp_AnotherCeilingGoesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenVisa, 900)
	w.checkedFunds(t, a)
	w.saveRule(t, a, 9000)
	if got := w.checkedFunds(t, a); got != 5000 {
		t.Errorf("funds of %d, want the target", got)
	}
	if rule, err := w.DB.Wallet().AutoTopUp(t.Context(), a); err != nil || !rule.HeldUntil.IsZero() {
		t.Errorf("held until %s, %v", rule.HeldUntil, err)
	}
}

// A card that was declined too often is asked again when it may be.
func TestAutoTopUp_GoesOnWhenTheCardMayBeAskedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Policy.Dunning.CardAttempts, w.Policy.Dunning.CardWindow = 1, 5*24*time.Hour
	a := w.keepFunds(t, sandbox.TokenInsufficientFunds, 100_000)
	w.topUp(t, a, 1000) // declined
	w.checkedFunds(t, a)
	w.behave(t, a, sandbox.TokenVisa)
	w.until(t, w.clock().Add(5*24*time.Hour-time.Second))
	w.wantBalance(t, a, 0, 0)
	w.until(t, w.clock().Add(time.Second))
	w.wantBalance(t, a, 5000, 0)
}

// A charge without an answer is pending, and everything that asks for another meanwhile gets none.
func TestAutoTopUp_HasOnePending(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenVisa, 100_000)
	m, err := w.DB.Payments().DefaultMethod(t.Context(), a)
	if err == nil {
		err = w.control.Behave(t.Context(), m.ProviderRef, sandbox.TokenTimeoutThenSuccess)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := w.checkedFunds(t, a); got != 0 {
			t.Fatalf("funds of %d before the provider has answered", got)
		}
	}
	w.advance(2 * time.Minute)
	w.sweep(t)
	if got := w.checkedFunds(t, a); got != 5000 {
		t.Errorf("funds of %d, want one top-up", got)
	}
	if got := len(w.charges(t)[a]); got != 1 {
		t.Errorf("%d charges, want 1", got)
	}
}

func TestAutoTopUp_ADeclineOpensTheBreaker(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenInsufficientFunds, 100_000)
	attempts := func() (n int) {
		t.Helper()
		w.check(t, a)
		return w.told(t, a, outbox.PaymentFailed)
	}
	tripped := func() bool {
		t.Helper()
		rule, err := w.DB.Wallet().AutoTopUp(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		return rule.Tripped
	}
	for range 3 {
		if got := attempts(); got != 1 || !tripped() || w.told(t, a, outbox.AutoTopUpTripped) != 1 {
			t.Fatalf("%d attempts, tripped %v; want one, and to be told once", got, tripped())
		}
	}
	w.saveRule(t, a, 100_000)
	if got := attempts(); got != 2 || !tripped() {
		t.Errorf("%d attempts after the rule was saved, want another", got)
	}
	// The card that was declined, brought again: another method, the same fingerprint.
	w.addCard(t, a, sandbox.TokenInsufficientFunds)
	if got := attempts(); got != 2 || !tripped() {
		t.Errorf("%d attempts with the same card as another method, want no more", got)
	}
	w.addCard(t, a, sandbox.TokenMastercard)
	if got := w.checkedFunds(t, a); got != 5000 || tripped() {
		t.Errorf("funds of %d with another card, tripped %v", got, tripped())
	}
}

// All operations share a card's budget of declines, so what a customer tries by hand counts too.
func TestAutoTopUp_AsksNoCardThatHasBeenDeclinedTooOften(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Policy.Dunning.CardAttempts = 2
	a := w.keepFunds(t, sandbox.TokenInsufficientFunds, 100_000)
	for range 2 {
		w.topUp(t, a, 1000)
	}
	if got := w.checkedFunds(t, a); got != 0 || w.told(t, a, outbox.PaymentFailed) != 2 {
		t.Errorf("funds of %d, %d attempts; want those by hand only", got, w.told(t, a, outbox.PaymentFailed))
	}
	if w.told(t, a, outbox.AutoTopUpTripped) != 0 {
		t.Error("what was not asked was not declined")
	}
}

// A card whose holder's bank has taken a payment back is not charged again by itself, to fill the gap that this has left,
// until the customer says so.
func TestAutoTopUp_NotAfterADispute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenVisa, 100_000)
	if got := w.checkedFunds(t, a); got != 5000 {
		t.Fatalf("funds of %d, want the target", got)
	}
	w.topUp(t, a, 1000)
	for i, charge := range w.charges(t)[a] {
		dispute, err := w.control.Dispute(t.Context(), charge.Ref)
		if err != nil {
			t.Fatal(err)
		}
		w.tell(t, dispute)
		if n := w.told(t, a, outbox.AutoTopUpTripped); n != 1 {
			t.Errorf("after dispute %d it was told %d times that automatic top-ups pause, want once", i+1, n)
		}
	}
	if got := w.checkedFunds(t, a); got != 0 {
		t.Errorf("funds of %d, want none: what was fetched back was taken again", got)
	}
	w.addCard(t, a, sandbox.TokenVisa) // the same card, as another method
	if got := w.checkedFunds(t, a); got != 0 {
		t.Errorf("funds of %d, want none: the disputed card was charged, as it was brought again", got)
	}
	w.saveRule(t, a, 100_000)
	if got := w.checkedFunds(t, a); got != 5000 {
		t.Errorf("funds of %d after the rule was saved again", got)
	}
}

// A card that was replaced while it was being asked pauses nothing: the one that has come in its place is asked.
func TestAutoTopUp_OfACardThatWasReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenProcessing, 100_000)
	if got := w.checkedFunds(t, a); got != 0 {
		t.Fatalf("funds of %d before the provider has said yes", got)
	}
	w.addCard(t, a, sandbox.TokenMastercard)
	w.settledAs(t, a, "lost_card")
	if got := w.checkedFunds(t, a); got != 5000 || w.told(t, a, outbox.AutoTopUpTripped) != 0 {
		t.Errorf("funds of %d, and paused %d times; want the new card to have been asked", got, w.told(t, a, outbox.AutoTopUpTripped))
	}
}

// What is missing is more than a top-up may be: it is as much as that.
func TestAutoTopUp_IsNoMoreThanATopUpMayBe(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Policy.TopUpMaximum = 3000
	if got := w.checkedFunds(t, w.keepFunds(t, sandbox.TokenVisa, 100_000)); got != 3000 {
		t.Errorf("funds of %d, want 3000", got)
	}
}

// What the provider reports as something else than was asked for is no reason to ask again by itself.
func TestAutoTopUp_PausesWhereItsPaymentIsParked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Gateway = misreporting{w.Gateway}
	a := w.keepFunds(t, sandbox.TokenVisa, 100_000)
	for range 2 {
		if got := w.checkedFunds(t, a); got != 0 {
			t.Errorf("funds of %d, want none: nothing is booked", got)
		}
	}
	rule, err := w.DB.Wallet().AutoTopUp(t.Context(), a)
	if n := len(w.charges(t)[a]); n != 1 || err != nil || !rule.Tripped || rule.TrippedReason != "provider_mismatch" {
		t.Errorf("%d charges, and the rule is %+v, %v", n, rule, err)
	}
}

// The rule outlives the card, too: without one there is nothing to do, and another is asked as soon as it comes.
func TestAutoTopUp_WaitsForACard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenVisa, 100_000)
	if err := (billing.Cards{Core: w.Core}).RemoveByOperator(t.Context(), asked(a, ""), w.defaultCard(t, a).ID, "test"); err != nil {
		t.Fatal(err)
	}
	if got := w.checkedFunds(t, a); got != 0 {
		t.Errorf("funds of %d without a card", got)
	}
	w.addCard(t, a, sandbox.TokenMastercard)
	if got := w.checkedFunds(t, a); got != 5000 {
		t.Errorf("funds of %d with another card, want the target", got)
	}
}

// A rule can be switched off where it could not be switched on.
func TestAutoTopUp_IsSwitchedOffOnAPlanThatTakesNoFunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rule := wallet.AutoTopUp{Enabled: true, Threshold: usd(1000), Target: usd(5000)}
	save := func() error {
		_, err := billing.Funder{Core: w.Core}.SetAutoTopUp(t.Context(), asked(w.open(t).ID, ""), rule)
		return err
	}
	if err := save(); !errors.Is(err, billing.ErrUpgradeRequired) {
		t.Errorf("on: %v, want ErrUpgradeRequired", err)
	}
	rule.Enabled = false
	if err := save(); err != nil {
		t.Errorf("off: %v", err)
	}
	rule.Target.Currency = "EUR"
	if err := save(); !errors.Is(err, billing.ErrCurrency) {
		t.Errorf("in another currency: %v, want ErrCurrency", err)
	}
}

// The rule of automatic top-ups outlives its plan: on one that takes no funds, and of an account that is closed, there is
// nothing to do, and nothing goes wrong.
func TestAutoTopUp_OnAPlanThatTakesNoFunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenVisa, 100_000)
	if _, err := (billing.Downgrader{Core: w.Core}).Plan(t.Context(), asked(a, newKey()), plan.Developer, nil); err != nil {
		t.Fatal(err)
	}
	w.until(t, w.clock().Add(35*24*time.Hour))
	if l := w.level(t, a); l != plan.Developer {
		t.Fatalf("the account is on %s", l)
	}
	w.check(t, a)
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	w.check(t, a)
}

func TestAutoTopUp_ChargesWhatTheProviderTakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Gateway = limited{w.Gateway, inSteps}
	a := w.keepFunds(t, sandbox.TokenVisa, 100_000)
	w.use(t, a, "voice", "60600") // 27 cents, so that 50.27 is missing
	if got := w.checkedFunds(t, a); got != 5000 {
		t.Errorf("funds of %d, want 5000", got)
	}
}

// What a card is being asked for an invoice is not missing: it would be taken twice.
func TestAutoTopUp_LeavesOutWhatACardIsAskedForAnInvoice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.use(t, a, "voice", "120000") // 27 dollars
	w.behave(t, a, sandbox.TokenProcessing)
	w.closed(t, day(time.April, 10))
	w.saveRule(t, a, 100_000)
	w.check(t, a)
	if b := w.balance(t, a); b.Due != usd(2700) {
		t.Fatalf("%+v, want the invoice to be asked for", b)
	}
	top, err := w.DB.Payments().PendingTopUp(t.Context(), a)
	if err != nil || top.Amount != usd(5000) {
		t.Errorf("a top-up of %s, %v; want 50 dollars: 27 are being paid", top.Amount, err)
	}
}

// The decline of an invoice's payment is looked at too: what it would have paid is missing now.
func TestAutoTopUp_AfterAnInvoicesPaymentThatCameToNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.use(t, a, "voice", "120000") // 27 dollars
	w.behave(t, a, sandbox.TokenProcessing)
	w.closed(t, day(time.April, 10))
	w.grant(t, a, 8000, 0, 0) // enough, as the invoice is being paid
	w.saveRule(t, a, 100_000)
	w.check(t, a)
	w.wantLookedAt(t, a, "a rule", 1)
	w.settledAs(t, a, "do_not_honor")
	w.wantLookedAt(t, a, "a payment that came to nothing", 1)
}

// While a card is asked for funds, it is not asked for the invoice that they will pay.
func TestCollect_WaitsForFundsThatACardIsAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.use(t, a, "voice", "120000") // 27 dollars
	w.behave(t, a, sandbox.TokenInsufficientFunds)
	w.closed(t, day(time.April, 10))
	open := w.unpaid(t, a)
	w.saveRule(t, a, 100_000)
	w.behave(t, a, sandbox.TokenVisa)
	w.advance(open.NextAttempt.Sub(w.clock())) // the next attempt is due
	gate := slowGateway{w.Gateway, make(chan struct{}), make(chan struct{})}
	done := make(chan error)
	go func() { done <- billing.Watcher{Core: w.another(gate)}.Check(t.Context(), a) }()
	<-gate.asked
	if asked, err := (billing.Collector{Core: w.Core}).Collect(t.Context(), a, open.ID); err != nil || asked {
		t.Errorf("the card was asked for the invoice: %v, %v", asked, err)
	}
	close(gate.answer)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	w.sweep(t)
	w.wantInvoice(t, a, open.ID, invoice.Paid, 0)
	w.wantBalance(t, a, 5000, 0)
}

// What was given back is not taken again at once. The rule goes on when its customer says so, and where a refund leaves
// enough it never stopped.
func TestAutoTopUp_TakesNothingAgainThatWasGivenBack(t *testing.T) {
	t.Parallel()
	for name, give := range map[string]func(t *testing.T, w *world, a account.ID, p payment.Payment, minor int64){
		"ByTheOperator": func(t *testing.T, w *world, a account.ID, p payment.Payment, minor int64) {
			t.Helper()
			w.refund(t, a, p.ID, minor)
		},
		"AtTheProvider": func(t *testing.T, w *world, _ account.ID, p payment.Payment, minor int64) {
			t.Helper()
			w.refundOutside(t, p.ProviderRef, minor)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.keepFunds(t, sandbox.TokenVisa, 100_000)
			w.check(t, a)
			all, err := w.DB.Payments().Payments(t.Context(), a, page.Request{Limit: 10})
			if err != nil || len(all.Data) != 1 {
				t.Fatalf("%+v, %v", all.Data, err)
			}
			p := all.Data[0]
			give(t, w, a, p, 100)
			if got := w.checkedFunds(t, a); got != 4900 || w.told(t, a, outbox.AutoTopUpTripped) != 0 {
				t.Errorf("funds of %d, paused %d times, want a dollar less and the rule in force", got, w.told(t, a, outbox.AutoTopUpTripped))
			}
			give(t, w, a, p, 4900)
			if got := w.checkedFunds(t, a); got != 0 {
				t.Errorf("funds of %d: what was given back was taken again", got)
			}
			rule, err := w.DB.Wallet().AutoTopUp(t.Context(), a)
			if err != nil || !rule.Tripped || rule.TrippedReason != "refunded" {
				t.Errorf("%+v, %v; want it paused, and why", rule, err)
			}
			w.saveRule(t, a, 100_000)
			if got := w.checkedFunds(t, a); got != 5000 {
				t.Errorf("funds of %d after the rule was saved again", got)
			}
		})
	}
}

// What is less than the threshold after a top-up, since one may not be more, is charged for again until it is not.
func TestAutoTopUp_GoesOnWhereOneIsNotEnough(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Policy.TopUpMaximum = 3000
	a := w.onPro(t)
	w.use(t, a, "voice", "120000") // 27 dollars, so that 77 are missing
	w.saveRule(t, a, 100_000)
	// By one that looks: of several at once, the next may go on right away.
	if err := (billing.Watcher{Core: w.Core}).Check(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if got := w.balance(t, a).Funds.Minor; got != 3000 {
		t.Fatalf("funds of %d, want as much as a top-up may be", got)
	}
	w.until(t, w.clock().Add(time.Minute))
	w.until(t, w.clock().Add(time.Minute))
	if got := w.balance(t, a).Funds.Minor; got != 6000 {
		t.Errorf("funds of %d, want two top-ups: 33 dollars are no longer below the threshold", got)
	}
}

// A top-up by hand that is under way keeps the rule waiting, and it is looked at again however that one ends.
func TestAutoTopUp_AfterOneByHandThatCameToNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenProcessing, 100_000)
	w.topUp(t, a, 100)
	if got := w.checkedFunds(t, a); got != 0 {
		t.Fatalf("funds of %d while a top-up is under way", got)
	}
	w.settledAs(t, a, "do_not_honor")
	w.behave(t, a, sandbox.TokenVisa)
	w.until(t, w.clock().Add(2*time.Minute))
	if got := w.balance(t, a).Funds.Minor; got != 5000 {
		t.Errorf("funds of %d, want the target", got)
	}
}
