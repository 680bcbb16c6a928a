package billing_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
)

// A card that was removed at the provider, of which the webhook was lost, is found out by the first charge that it
// refuses: it is not shown as the active card any more.
func TestTopUp_OfACardThatIsGoneAtTheProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	m := w.defaultCard(t, a)
	err := w.Gateway.Detach(t.Context(), payment.DetachRequest{Key: newKey(), CustomerRef: m.CustomerRef, MethodRef: m.ProviderRef})
	if err != nil {
		t.Fatal(err)
	}
	if top := w.topUp(t, a, 5000); top.Status != payment.Failed {
		t.Errorf("the top-up is %s", top.Status)
	}
	if got := w.card(t, a, m.ID); got.Status != payment.MethodRemoved || got.Default {
		t.Errorf("the card is %s", got.Status)
	}
}

// Funds may pay for an invoice as often as parts of it are given back, also when what is paid of it comes to the same
// sum again.
func TestTopUp_PaysAgainForWhatWasGivenBackAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t)
	w.refund(t, a, p.ID, 1000)
	w.topUp(t, a, 500)
	w.wantInvoice(t, a, inv, invoice.Open, 500)
	w.refund(t, a, p.ID, 500)
	w.wantInvoice(t, a, inv, invoice.Open, 1000)
	if top := w.topUp(t, a, 500); top.Status != payment.Succeeded {
		t.Errorf("the second top-up is %s", top.Status)
	}
	w.wantInvoice(t, a, inv, invoice.Open, 500)
	w.wantBalance(t, a, 0, 500)
}

// Whatever a provider answers that is neither yes nor no leaves a payment open. The same key asks again until the outcome
// is known, and the card is charged once, whether the first call was carried out or not.
func TestTopUp_WhatTheProviderLeavesOpenIsAskedAgain(t *testing.T) {
	t.Parallel()
	yes, no := true, false
	faults := map[string]sandbox.Fault{
		"TooManyRequests":             {Kind: sandbox.FaultRateLimit},
		"TheKeyIsInUse":               {Kind: sandbox.FaultKeyInUse},
		"AFaultOfTheProvider":         {Kind: sandbox.FaultStatus, Status: 500},
		"AFaultAfterTheCharge":        {Kind: sandbox.FaultStatus, Status: 500, Effect: &yes},
		"BusyProvider":                {Kind: sandbox.FaultStatus, Status: 503},
		"HalfAnAnswer":                {Kind: sandbox.FaultGarbage},
		"NoAnswer":                    {Kind: sandbox.FaultHang},
		"NoAnswerAndNoCharge":         {Kind: sandbox.FaultHang, Effect: &no},
		"ABrokenConnection":           {Kind: sandbox.FaultReset},
		"ABrokenConnectionAndNothing": {Kind: sandbox.FaultReset, Effect: &no},
	}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onPro(t)
			fault.Op, fault.Times = "charge", 1
			w.fault(t, fault)
			key := asked(a, newKey())
			top, err := billing.Funder{Core: w.Core}.TopUp(t.Context(), key, billing.TopUpInput{Amount: usd(1000)}, asJSON[billing.TopUp](202))
			if err != nil || top.Record.Status != payment.Processing {
				t.Fatalf("%+v, %v; want it processing", top.Record, err)
			}
			if b := w.balance(t, a); b.Funds != usd(0) {
				t.Errorf("funds %s before the provider has said yes", b.Funds)
			}
			w.advance(2 * time.Minute)
			w.sweep(t)
			after, err := billing.Funder{Core: w.Core}.Get(t.Context(), a, top.Record.ID)
			if err != nil || after.Status != payment.Succeeded || after.Charge.ID != top.Record.Charge.ID {
				t.Errorf("after a sweep: %+v, %v", after, err)
			}
			if n := len(w.charges(t)[a]); n != 1 {
				t.Errorf("%d charges, want 1", n)
			}
			if b := w.balance(t, a); b.Funds != usd(1000) {
				t.Errorf("funds %s, want 10.00 USD", b.Funds)
			}
		})
	}
}

// A charge that nobody has asked for yet, of a card that is gone, is not waited for.
func TestTopUp_OfACardThatWasRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	never := false
	w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset, Effect: &never})
	top := w.topUp(t, a, 1000)
	m := w.defaultCard(t, a)
	if err := (billing.Cards{Core: w.Core}).RemoveByOperator(t.Context(), asked(a, ""), m.ID, "test"); err != nil {
		t.Fatal(err)
	}
	w.advance(2 * time.Minute)
	w.sweep(t)
	if got, err := (billing.Funder{Core: w.Core}).Get(t.Context(), a, top.ID); err != nil || got.Status != payment.Failed {
		t.Errorf("the top-up is %s, %v", got.Status, err)
	}
}

// A customer's impatience, a proxy's retry and a second tab all look like this.
func TestSameKey_FiftyCallersHaveOneEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fund := billing.Funder{Core: w.Core}
	want := map[account.ID]bool{}
	for round := range often(8, 200) {
		a := w.onPro(t)
		want[a] = true
		var bodies sync.Map
		together(callers, func(int) {
			for {
				got, err := fund.TopUp(t.Context(), asked(a, "the key"), billing.TopUpInput{Amount: usd(1234)}, asJSON[billing.TopUp](201))
				if errors.Is(err, idempotency.ErrInProgress) {
					time.Sleep(2 * time.Millisecond) // what Retry-After asks for, in small
					continue
				}
				if err != nil {
					t.Errorf("round %d: %v", round, err)
					return
				}
				if got.Replayed != nil {
					bodies.Store(string(got.Replayed.Body), true)
				}
				return
			}
		})
		different := 0
		bodies.Range(func(any, any) bool { different++; return true })
		if different != 1 {
			t.Errorf("round %d: %d different answers were replayed", round, different)
		}
	}
	charged := w.charges(t)
	for a := range want {
		if len(charged[a]) != 1 {
			t.Errorf("%d charges of %s, want 1", len(charged[a]), a)
		}
		if b := w.balance(t, a); b.Funds != usd(1234) {
			t.Errorf("funds %s, want 12.34 USD", b.Funds)
		}
	}
}

// A process that is paused between its intent and the provider's call, for longer than anybody waits, comes back to work
// that others have finished: it asks under the same key, finds the payment settled, and changes nothing.
func TestTopUp_ByAProcessThatWasPaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	provider := slowGateway{w.Gateway, make(chan struct{}, 1), make(chan struct{})}
	paused := billing.Funder{Core: w.another(provider)}
	key := asked(a, newKey())
	var late billing.Result[billing.TopUp]
	var running sync.WaitGroup
	running.Go(func() {
		var err error
		if late, err = paused.TopUp(t.Context(), key, billing.TopUpInput{Amount: usd(1000)}, asJSON[billing.TopUp](201)); err != nil {
			t.Error(err)
		}
	})
	<-provider.asked
	w.advance(10 * time.Minute)
	w.sweep(t) // by the others
	if b := w.balance(t, a); b.Funds != usd(1000) {
		t.Errorf("funds %s while one process is paused, want 10.00 USD", b.Funds)
	}
	close(provider.answer)
	running.Wait()
	if late.Record.Status != payment.Succeeded {
		t.Errorf("the paused process answers %+v", late.Record)
	}
	again, err := billing.Funder{Core: w.Core}.TopUp(t.Context(), key, billing.TopUpInput{Amount: usd(1000)}, asJSON[billing.TopUp](201))
	if err != nil || again.Replayed == nil {
		t.Errorf("the same key again: %+v, %v; want the answer that was given", again, err)
	}
	if n := len(w.charges(t)[a]); n != 1 {
		t.Errorf("%d charges, want 1", n)
	}
	if b := w.balance(t, a); b.Funds != usd(1000) {
		t.Errorf("funds %s in the end, want 10.00 USD", b.Funds)
	}
}

func TestTopUp(t *testing.T) {
	t.Parallel()

	t.Run("NeedsPro", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		_, err := billing.Funder{Core: w.Core}.TopUp(t.Context(), asked(a.ID, newKey()), billing.TopUpInput{Amount: usd(5000)}, nil)
		if !errors.Is(err, billing.ErrUpgradeRequired) {
			t.Errorf("%v, want ErrUpgradeRequired", err)
		}
	})

	t.Run("IsReplayedByteForByte", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.onPro(t)
		f := billing.Funder{Core: w.Core}
		first, err := f.TopUp(t.Context(), asked(a, "k"), billing.TopUpInput{Amount: usd(5000)}, asJSON[billing.TopUp](201))
		if err != nil || first.Record.Status != payment.Succeeded {
			t.Fatalf("%+v, %v", first.Record, err)
		}
		again, err := f.TopUp(t.Context(), asked(a, "k"), billing.TopUpInput{Amount: usd(5000)}, asJSON[billing.TopUp](201))
		if err != nil || again.Replayed == nil {
			t.Fatalf("%+v, %v; want a replay", again, err)
		}
		if b := w.balance(t, a); b.Funds != usd(5000) {
			t.Errorf("funds %s, want 50.00 USD once", b.Funds)
		}
	})

	t.Run("TimeoutThenDeclineTakesNothing", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.onPro(t)
		w.behave(t, a, sandbox.TokenTimeoutThenDecline)
		top := w.topUp(t, a, 5000)
		if top.Status != payment.Processing {
			t.Fatalf("status %s, want processing: a time-out is no failure", top.Status)
		}
		w.advance(2 * time.Minute)
		w.sweep(t)
		got, err := billing.Funder{Core: w.Core}.Get(t.Context(), a, top.ID)
		if err != nil || got.Status != payment.Failed {
			t.Errorf("after the sweep: %s, %v; want failed", got.Status, err)
		}
		if b := w.balance(t, a); b.Funds != usd(0) {
			t.Errorf("funds %s", b.Funds)
		}
	})

	t.Run("WrongAmountIsParkedAndNotBooked", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.onPro(t)
		w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultWrongAmount})
		top := w.topUp(t, a, 5000)
		if top.Charge.Status != payment.Parked || top.Status != payment.Parked {
			t.Errorf("the payment is %s, the top-up %s; want parked", top.Charge.Status, top.Status)
		}
		if b := w.balance(t, a); b.Funds != usd(0) {
			t.Errorf("funds %s", b.Funds)
		}
		if again := w.topUp(t, a, 2000); again.Status != payment.Succeeded { // nobody waits for the person who looks into it
			t.Errorf("the next one is %s", again.Status)
		}
		// But the account stays open for what that person finds.
		end := func() error {
			_, err := billing.Ender{Core: w.Core}.End(t.Context(), asked(a, newKey()), "test", nil)
			return err
		}
		if err := end(); !errors.Is(err, payment.ErrPaymentPending) {
			t.Errorf("closed meanwhile: %v", err)
		}
		if _, err := (billing.Resolver{Core: w.Core}).Unpark(t.Context(), asked(a, newKey()), top.Payment, billing.GiveBack, "test", nil); err != nil {
			t.Fatal(err)
		}
		if err := end(); err != nil {
			t.Errorf("not closed when it is resolved: %v", err)
		}
	})
}

// The provider gives back what it took, and its answer is lost: nobody is told that nothing was done, and a repetition tells what was.
func TestUnpark_WhoseAnswerIsLostOrNo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultWrongAmount})
	top := w.topUp(t, a, 5000)
	giveBack := func() (payment.Payment, error) {
		got, err := billing.Resolver{Core: w.Core}.Unpark(t.Context(), asked(a, newKey()), top.Payment, billing.GiveBack, "test", nil)
		return got.Record, err
	}
	w.fault(t, sandbox.Fault{Op: "refund", Kind: sandbox.FaultStatus, Status: 302})
	if _, err := giveBack(); !errors.Is(err, billing.ErrNotGivenBack) {
		t.Errorf("refused: %v, want that it was not given back", err)
	}
	w.fault(t, sandbox.Fault{Op: "refund", Kind: sandbox.FaultReset})
	_, err := giveBack()
	if e, ok := errors.AsType[*errs.Error](err); !ok || !errors.Is(e, billing.ErrProviderSilent) || strings.Contains(e.Detail, "Nothing was changed") {
		t.Errorf("%v, want that it is not known", err)
	}
	if p, err := giveBack(); err != nil || p.Status != payment.Failed || p.Failure.Code != "given_back" {
		t.Errorf("again: %+v, %v; want it given back", p, err)
	}
}

// A parked payment of which the provider has given back a part is not what was asked for: it stays parked.
func TestUnpark_OfAPaymentThatWasGivenBackInPart(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultWrongAmount})
	top := w.topUp(t, a, 5000)
	provider := reporting{w.Gateway, payment.ChargeResult{
		Outcome: payment.OutcomeSucceeded, PaymentRef: top.Payment.String(), Amount: usd(5000), Refunded: usd(1),
	}}
	unpark := func(core *billing.Core, d billing.ParkedDecision) error {
		_, err := billing.Resolver{Core: core}.Unpark(t.Context(), asked(a, newKey()), top.Payment, d, "test", nil)
		return err
	}
	if err := unpark(w.another(provider), billing.AskAgain); !errors.Is(err, billing.ErrStillParked) {
		t.Errorf("given back in part: %v, want that it is still parked", err)
	}
	if b := w.balance(t, a); b.Funds != usd(0) {
		t.Errorf("funds %s", b.Funds)
	}
	if err := unpark(w.Core, billing.GiveBack); err != nil {
		t.Fatal(err)
	}
}

// reporting is a provider that reports one thing of every charge.
type reporting struct {
	payment.Gateway
	res payment.ChargeResult
}

func (g reporting) LookupCharge(context.Context, payment.ChargeLookup) (payment.ChargeResult, error) {
	return g.res, nil
}

// A deployment that comes back with another public URL repeats the provider's call with other
// parameters. The provider refuses, but it has charged: that must be found out, not called a decline.
func TestTopUp_ResumedWithOtherParametersIsLookedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset})
	fund, in := billing.Funder{Core: w.Core}, billing.TopUpInput{Amount: usd(5000)}
	if _, err := fund.TopUp(t.Context(), asked(a, "the key"), in, nil); err != nil {
		t.Fatal(err)
	}
	w.Policy.ReturnURL = "https://another.example.com"
	if _, err := w.db.Pool().Exec(t.Context(), "UPDATE idempotency_keys SET locked_until = '2020-01-01' WHERE account_id = $1", a); err != nil {
		t.Fatal(err) // the lease of the request that died has run out
	}
	top, err := fund.TopUp(t.Context(), asked(a, "the key"), in, nil)
	if err != nil || top.Record.Status != payment.Processing {
		t.Fatalf("resumed: %+v, %v; want processing", top.Record, err)
	}
	w.advance(2 * time.Minute)
	w.sweep(t)
	got, err := fund.Get(t.Context(), a, top.Record.ID)
	if err != nil || got.Status != payment.Succeeded {
		t.Errorf("%+v, %v; want what the provider says: succeeded", got, err)
	}
	if n := len(w.charges(t)[a]); n != 1 {
		t.Errorf("%d charges, want 1", n)
	}
}

// An intent that is older than the provider's memory of keys is never sent again: it would be another
// charge. It is looked up, and what the provider does not have has failed.
func TestTopUp_OlderThanTheProvidersKeysIsLookedUp(t *testing.T) {
	t.Parallel()
	never := false
	for name, c := range map[string]struct {
		fault  sandbox.Fault
		want   payment.Status
		funds  int64
		charge int
	}{
		"ChargedAndTheAnswerLost": {sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset}, payment.Succeeded, 5000, 1},
		"NeverArrived":            {sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset, Effect: &never}, payment.Failed, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onPro(t)
			w.fault(t, c.fault)
			top := w.topUp(t, a, 5000)
			if top.Status != payment.Processing {
				t.Fatalf("status %s, want processing", top.Status)
			}
			if err := w.control.ForgetKeys(t.Context()); err != nil {
				t.Fatal(err)
			}
			w.advance(25 * time.Hour)
			w.sweep(t)
			got, err := billing.Funder{Core: w.Core}.Get(t.Context(), a, top.ID)
			if err != nil || got.Status != c.want {
				t.Errorf("%s, %v; want %s", got.Status, err, c.want)
			}
			if b := w.balance(t, a); b.Funds != usd(c.funds) {
				t.Errorf("funds %s, want %s", b.Funds, usd(c.funds))
			}
			if n := len(w.charges(t)[a]); n != c.charge {
				t.Errorf("%d charges, want %d", n, c.charge)
			}
		})
	}
}

// owingFunds is an account on Developer that owes 27.00 USD, which a dispute has taken from funds that were spent.
func (w *world) owingFunds(t *testing.T) account.ID {
	t.Helper()
	a := w.onPro(t)
	p := w.topUp(t, a, 2700).Charge
	w.use(t, a, "voice", "120000")
	if _, err := (billing.Downgrader{Core: w.Core}).Plan(t.Context(), asked(a, newKey()), plan.Developer, nil); err != nil {
		t.Fatal(err)
	}
	w.closed(t, day(time.April, 10))
	w.disputed(t, p)
	w.wantBalance(t, a, -2700, 0)
	return a
}

// What is owed can be paid on a plan that takes no funds, and no more is taken on it after that.
func TestTopUp_PaysWhatIsOwedOnAFreePlan(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.owingFunds(t)
	if act := w.action(t, a, billing.ActTopUp); !act.Allowed {
		t.Errorf("the page says %+v to who owes", act)
	}
	w.topUp(t, a, 2700)
	w.wantBalance(t, a, 0, 0)
	if _, err := (billing.Funder{Core: w.Core}).TopUp(t.Context(), asked(a, newKey()), billing.TopUpInput{Amount: usd(2700)}, nil); !errors.Is(err, billing.ErrUpgradeRequired) {
		t.Errorf("%v, want ErrUpgradeRequired once nothing is owed", err)
	}
	if act := w.action(t, a, billing.ActTopUp); act.Allowed {
		t.Errorf("the page says %+v to who owes nothing", act)
	}
}

// What a top-up would leave is what it leaves: it pays what is due first.
func TestTopUp_PreviewSaysWhatItLeaves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenChargeDeclined)
	w.use(t, a, "voice", "120000") // 27.00
	w.until(t, w.clock().Add(35*24*time.Hour))
	w.addCard(t, a, sandbox.TokenVisa)
	for _, cents := range []int64{1000, 5000} {
		would, err := billing.Funder{Core: w.Core}.Preview(t.Context(), asked(a, ""), billing.TopUpInput{Amount: usd(cents)})
		if err != nil {
			t.Fatal(err)
		}
		w.topUp(t, a, cents)
		if b := w.balance(t, a); b != would.After {
			t.Errorf("%s would have left %+v, and left %+v", usd(cents), would.After, b)
		}
	}
}
