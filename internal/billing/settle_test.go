package billing_test

import (
	"context"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// forgetful is a provider that says for a while that it knows of no charge.
type forgetful struct {
	payment.Gateway
	forgets bool
}

func (g *forgetful) LookupCharge(ctx context.Context, l payment.ChargeLookup) (payment.ChargeResult, error) {
	if g.forgets {
		return payment.ChargeResult{}, payment.ErrMissing
	}
	return g.Gateway.LookupCharge(ctx, l)
}

// A payment that was given up because the provider knew nothing of it, and of which the provider says later that it has
// succeeded after all, is booked: the money was taken.
func TestPayment_SucceedsAfterItWasGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	provider := &forgetful{Gateway: w.Gateway, forgets: true}
	w.Gateway = provider
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset}); err != nil {
		t.Fatal(err)
	}
	top := w.topUp(t, a, 5000)
	w.advance(payment.KeyRetention + time.Hour)
	w.sweep(t)
	given, err := billing.Funder{Core: w.Core}.Get(t.Context(), a, top.ID)
	if err != nil || given.Status != payment.Failed || given.Charge.Status != payment.Failed {
		t.Fatalf("%+v, %v; want it given up", given, err)
	}
	provider.forgets = false
	for range 2 {
		w.tell(t, w.charges(t)[a][0].Ref)
	}
	after, err := billing.Funder{Core: w.Core}.Get(t.Context(), a, top.ID)
	if err != nil || after.Status != payment.Succeeded || after.Failure != nil || after.Charge.Status != payment.Succeeded {
		t.Errorf("%+v, %v; want it succeeded", after, err)
	}
	w.wantBalance(t, a, 5000, 0)
}

// asking counts the charges that the provider is told to confirm.
type asking struct {
	payment.Gateway
	confirmed int
}

func (g *asking) ConfirmCharge(ctx context.Context, r payment.ConfirmRequest) (payment.ChargeResult, error) {
	g.confirmed++
	return g.Gateway.ConfirmCharge(ctx, r)
}

// A customer who did not pass the bank's question could go on at the provider with another card. Whoever hears of it, a
// webhook too, has the provider end that: see payment.Gateway's ConfirmCharge.
func TestPayment_ARefusedAuthenticationIsMadeFinal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultRequiresAction}); err != nil {
		t.Fatal(err)
	}
	top := w.topUp(t, a, 5000)
	if err := w.control.Act(t.Context(), top.Charge.ProviderRef, false); err != nil {
		t.Fatal(err)
	}
	provider := &asking{Gateway: w.Gateway}
	w.Gateway = provider
	w.tell(t, top.Charge.ProviderRef)
	if got, err := (billing.Funder{Core: w.Core}).Get(t.Context(), a, top.ID); err != nil || got.Status != payment.Failed {
		t.Errorf("the top-up is %s, %v", got.Status, err)
	}
	if provider.confirmed != 1 {
		t.Errorf("confirmed %d times, want once", provider.confirmed)
	}
}
