package billing_test

import (
	"context"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// telling is a provider that, asked what it told of, answers with this.
type telling struct {
	payment.Gateway
	object payment.Object
	err    error
}

func (g telling) Fetch(context.Context, payment.ObjectKind, string) (payment.Object, error) {
	return g.object, g.err
}

// stored keeps a webhook about an object, on which nobody has acted yet.
func (w *world) stored(t *testing.T, kind payment.ObjectKind, ref string) payment.ProviderEvent {
	t.Helper()
	e := payment.ProviderEvent{
		Provider: w.Gateway.Name(), EventID: newKey(), Type: string(kind), Object: kind, ObjectRef: ref, Payload: []byte("{}"),
		ReceivedAt: w.clock(), NextTryAt: w.clock(),
	}
	if _, err := w.DB.Payments().SaveEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	return e
}

func (w *world) disputedOf(t *testing.T, a account.ID, p payment.ID) int64 {
	t.Helper()
	got, err := w.DB.Payments().Payment(t.Context(), a, p)
	if err != nil {
		t.Fatal(err)
	}
	return got.Disputed.Minor
}

// A dispute is told of once, and nobody asks for it unasked: it is booked however long the provider was away.
func TestWebhooks_ADisputeOutlastsAnyOutage(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]error{"silent": payment.ErrUnknown, "refuses our key": payment.ErrRejected} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.open(t).ID
			w.upgrade(t, a, sandbox.TokenVisa)
			p := w.topUp(t, a, 10000).Charge
			d, err := w.control.Dispute(t.Context(), p.ProviderRef)
			if err != nil {
				t.Fatal(err)
			}
			w.stored(t, payment.ObjectDispute, d)
			away := billing.Sweeper{Core: w.another(telling{Gateway: w.Gateway, err: fault})}
			for range 48 { // hours
				_, _ = away.Sweep(t.Context())
				w.advance(time.Hour)
			}
			w.sweep(t)
			if got := w.disputedOf(t, a, p.ID); got != 10000 {
				t.Errorf("disputed are %d cents, want 10000", got)
			}
		})
	}
}

// The provider's account may serve others as well, with charges that are no charges of ours.
func TestWebhooks_WhatBelongsToNoChargeIsNotOurs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for kind, object := range map[payment.ObjectKind]payment.Object{
		payment.ObjectDispute: {Dispute: &payment.DisputeResult{Ref: "dp_other", Status: payment.DisputeOpen, Withdrawn: true, Amount: usd(500)}},
		payment.ObjectRefund:  {Refund: &payment.RefundResult{Ref: "re_other", Outcome: payment.OutcomeSucceeded, Amount: usd(500)}},
	} {
		e := w.stored(t, kind, "other")
		listen := billing.Listener{Core: w.another(telling{Gateway: w.Gateway, object: object})}
		if err := listen.Process(t.Context(), e.Provider, e.EventID); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		var outcome string
		err := w.db.Pool().QueryRow(t.Context(), "SELECT outcome FROM provider_events WHERE event_id = $1 AND processed_at IS NOT NULL", e.EventID).Scan(&outcome)
		if err != nil || outcome != "not_ours" {
			t.Errorf("the %s is %q, %v; want not_ours", kind, outcome, err)
		}
	}
}

// A bank may reverse itself: what it gives back of a dispute that was lost is the account's again.
func TestWebhooks_ADisputeThatWasLostIsWonAfterAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	p := w.topUp(t, a, 10000).Charge
	for _, status := range []payment.DisputeStatus{payment.DisputeLost, payment.DisputeWon, payment.DisputeLost} {
		object := payment.Object{Dispute: &payment.DisputeResult{
			Ref: "dp_1", ChargeRef: p.ProviderRef, Status: status, Withdrawn: status == payment.DisputeLost, Amount: usd(10000),
		}}
		e := w.stored(t, payment.ObjectDispute, "dp_1")
		if err := (billing.Listener{Core: w.another(telling{Gateway: w.Gateway, object: object})}).Process(t.Context(), e.Provider, e.EventID); err != nil {
			t.Fatal(err)
		}
	}
	if got, b := w.disputedOf(t, a, p.ID), w.balance(t, a); got != 0 || b.Funds != usd(10000) {
		t.Errorf("disputed are %d cents, funds are %s; want 0 and 100.00 USD", got, b.Funds)
	}
}
