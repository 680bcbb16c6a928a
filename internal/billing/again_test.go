package billing_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// A card whose holder's bank has taken a payment back is not charged again by itself, to fill the gap that this has left,
// until the customer says so.
func TestAutoTopUp_NotAfterADispute(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenVisa, 100_000)
	if got := w.checkedFunds(t, a); got != 5000 {
		t.Fatalf("funds of %d, want the target", got)
	}
	dispute, err := w.control.Dispute(t.Context(), w.charges(t)[a][0].Ref)
	if err != nil {
		t.Fatal(err)
	}
	w.tell(t, dispute)
	if got := w.checkedFunds(t, a); got != 0 {
		t.Errorf("funds of %d, want none: what was fetched back was taken again", got)
	}
	w.saveRule(t, a, 100_000)
	if got := w.checkedFunds(t, a); got != 5000 {
		t.Errorf("funds of %d after the rule was saved again", got)
	}
}

// dying is a provider that is asked for a refund by a process which dies before it hears the answer.
type dying struct{ payment.Gateway }

func (g dying) Refund(ctx context.Context, r payment.RefundRequest) (payment.RefundResult, error) {
	_, _ = g.Gateway.Refund(ctx, r)
	runtime.Goexit()
	return payment.RefundResult{}, nil
}

// Whoever carries on the refund of a request that died asks what became of it: the provider may have forgotten its key.
func TestRefund_ResumedWhenTheProviderHasForgottenItsKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	p := w.topUp(t, a, 5000).Charge
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "refund", Kind: sandbox.FaultProcessing}); err != nil {
		t.Fatal(err)
	}
	ask := func(core *billing.Core, key string) (billing.Result[payment.Refund], error) {
		return billing.Refunder{Core: core}.Refund(t.Context(), asked(a, key),
			billing.RefundInput{Payment: p.ID, Amount: usd(2000), Reason: "test", Origin: payment.ByOperator}, asJSON[payment.Refund](202))
	}
	key, died := newKey(), make(chan struct{})
	go func() {
		defer close(died)
		_, _ = ask(w.another(dying{w.Gateway}), key)
	}()
	<-died
	if err := w.control.ForgetKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.advance(25 * time.Hour)
	if _, err := w.db.Pool().Exec(t.Context(), "UPDATE idempotency_keys SET locked_until = now() - interval '1 second'"); err != nil {
		t.Fatal(err)
	}
	got, err := ask(w.Core, key)
	if err != nil || got.Record.Status != payment.Processing {
		t.Fatalf("%+v, %v", got.Record, err)
	}
	ch, err := w.Gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: p.ProviderRef})
	if err != nil || ch.Refunded != usd(2000) {
		t.Errorf("given back %s, %v; want 20.00 USD, once", ch.Refunded, err)
	}
	if err := w.control.SettleRefund(t.Context(), got.Record.ProviderRef, ""); err != nil {
		t.Fatal(err)
	}
	w.tell(t, got.Record.ProviderRef)
	w.wantBalance(t, a, 3000, 0)
}

// A card that is put in the place of one that is gone brings paid use back.
func TestUseCard_BringsPaidUseBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	first := w.defaultCard(t, asked(a, ""))
	second := w.addCard(t, a, sandbox.TokenMastercard)
	if err := (billing.Cards{Core: w.Core}).RemoveByOperator(t.Context(), asked(a, ""), second.ID, "test"); err != nil {
		t.Fatal(err)
	}
	if r := w.tryUse(t, a, "voice", "90000"); r.Status == metering.Accepted {
		t.Fatalf("%+v without a card that is charged", r)
	}
	if _, err := (billing.Cards{Core: w.Core}).Use(t.Context(), asked(a, newKey()), first.ID, nil); err != nil {
		t.Fatal(err)
	}
	w.use(t, a, "voice", "90000")
}

// A downgrade that was planned to what can no longer be bought when the period ends is not made, and nothing stands still.
func TestDowngrade_ToWhatIsNoLongerSold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withFees(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.moveTo(t, a, "scale")
	if _, err := (billing.Downgrader{Core: w.Core}).Plan(t.Context(), asked(a, newKey()), "growth", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := (billing.Publisher{Core: w.Core}).Archive(t.Context(), billing.Asked{Actor: "operator:test"}, "growth", 1, "test", nil); err != nil {
		t.Fatal(err)
	}
	w.until(t, w.clock().Add(35*24*time.Hour))
	sub, err := w.DB.Subscriptions().Active(t.Context(), a)
	if err != nil || sub.Plan != "scale" || sub.NextPlan != "" || sub.Index != 1 {
		t.Errorf("%+v, %v", sub, err)
	}
}

// What is not sold in the account's currency, it cannot go to.
func TestDowngrade_InAnotherCurrency(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.withFees(t)
	c := plan.Shipped()
	c.Offers = append(c.Offers, plan.Offer{
		Plan:    plan.Plan{Code: "euro", Name: "Euro", Position: 20},
		Version: plan.Version{Plan: "euro", Currencies: []money.Currency{money.Currency("EUR")}, Fee: &plan.Fee{Name: "Euro", Prices: plan.Sums{money.New(100, money.Currency("EUR"))}}},
	})
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	acct, err := billing.Opener{Core: w.Core}.Open(t.Context(), billing.NewAccount{Currency: money.Currency("EUR")})
	if err != nil {
		t.Fatal(err)
	}
	w.moveTo(t, acct.ID, "euro")
	_, err = billing.Downgrader{Core: w.Core}.Plan(t.Context(), asked(acct.ID, newKey()), "growth", nil)
	if !errors.Is(err, billing.ErrCurrency) {
		t.Errorf("%v, want ErrCurrency", err)
	}
}

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
