package billing_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
)

// The provider's event about a change may be quicker than its answer to us: the caller's own change is
// then no change of somebody else's.
func TestChangeCard_TheEventAboutItIsQuickerThanTheAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := asked(w.onPro(t), "")
	m := w.defaultCard(t, a.Account)
	w.fault(t, sandbox.Fault{Op: "update", Kind: sandbox.FaultWebhookFirst})
	moved := m.Billing
	moved.Address.City = "Ockham"
	got, err := billing.Cards{Core: w.Core}.Change(t.Context(), a, m.ID, billing.CardChange{Version: m.Version, Billing: &moved})
	if err != nil || got.Billing != moved {
		t.Fatalf("%+v, %v", got.Billing, err)
	}
	if held := w.defaultCard(t, a.Account); held.Billing != moved || held.Version != got.Version {
		t.Errorf("%+v of version %d, answered %d", held.Billing, held.Version, got.Version)
	}
}

// meanwhile is a provider to which something happens right before it changes a card, or right after.
type meanwhile struct {
	payment.Gateway
	before, after func()
}

func (g meanwhile) UpdateBilling(ctx context.Context, r payment.UpdateRequest) (payment.MethodResult, error) {
	g.before()
	res, err := g.Gateway.UpdateBilling(ctx, r)
	g.after()
	return res, err
}

// The network renews a card while its holder changes the address: both are done at the provider, and so here. An edit of
// the card as it was before is refused, and is not done anywhere.
func TestChangeCard_WhileTheProviderTellsOfAnotherChange(t *testing.T) {
	t.Parallel()
	for _, first := range []bool{true, false} {
		w := newWorld(t)
		a := asked(w.onPro(t), "")
		m := w.defaultCard(t, a.Account)
		change := func(city string) (payment.Method, error) {
			moved := m.Billing
			moved.Address.City = city
			return billing.Cards{Core: w.Core}.Change(t.Context(), a, m.ID, billing.CardChange{Version: m.Version, Billing: &moved})
		}
		renewed := func() {
			if err := w.control.Renew(t.Context(), m.ProviderRef, 11, m.Card.ExpYear+3); err != nil {
				t.Error(err)
			}
			w.tell(t, m.ProviderRef)
		}
		sandboxed, provider := w.Gateway, meanwhile{w.Gateway, func() {}, renewed}
		if first {
			provider.before, provider.after = renewed, func() {}
		}
		w.Gateway = provider
		got, err := change("Ockham")
		if err != nil || got.Billing.Address.City != "Ockham" || got.Card.ExpYear != m.Card.ExpYear+3 {
			t.Errorf("renewed first %t: %+v, %v; want both changes", first, got, err)
		}
		w.Gateway = sandboxed
		if _, err := change("Oakham"); !errors.Is(err, account.ErrStale) {
			t.Errorf("an edit of the card as it was: %v, want it refused", err)
		}
		w.tell(t, m.ProviderRef)
		held := w.defaultCard(t, a.Account)
		theirs, err := w.Gateway.Fetch(t.Context(), payment.ObjectMethod, m.ProviderRef)
		if err != nil || held.Version != got.Version || theirs.Method.Card != held.Card || theirs.Method.Billing != held.Billing || held.Billing != got.Billing {
			t.Errorf("renewed first %t: here is %+v, at the provider %+v, %v; answered %+v", first, held, theirs.Method, err, got)
		}
	}
}

// The provider takes its own payment methods for tokens, as often as they come. A second record of one card would wait
// for ever, and an upgrade with it: what has made a card is used.
func TestAddCard_WhatHasMadeACardIsUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := asked(w.open(t).ID, "")
	first := w.addCard(t, a.Account, sandbox.TokenVisa)

	again := billing.CardSource{Token: first.ProviderRef}
	if got, err := (billing.Cards{Core: w.Core}).Add(t.Context(), a, billing.NewCard{CardSource: again, Profile: profile}, nil); !errors.Is(err, payment.ErrForeignToken) {
		t.Errorf("added as %s, %v", got.Record.Status, err)
	}
	in := billing.UpgradeInput{Plan: plan.Pro, Source: again, Profile: &profile}
	if got, err := (billing.Upgrader{Core: w.Core}).Upgrade(t.Context(), a, in, nil); !errors.Is(err, payment.ErrForeignToken) {
		t.Errorf("upgraded: %s, %v", got.Record.Status, err)
	}

	if held := w.defaultCard(t, a.Account); held.ID != first.ID {
		t.Errorf("the card that is charged is %s, want %s", held.ID, first.ID)
	}
	in.Source = billing.CardSource{Token: sandbox.TokenMastercard}
	if got, err := (billing.Upgrader{Core: w.Core}).Upgrade(t.Context(), a, in, nil); err != nil || got.Record.Status != payment.Succeeded {
		t.Errorf("the next upgrade is %s, %v", got.Record.Status, err)
	}
}

// The card that is charged already stays as it is: no new version, which would make an edit of it stale, and no event.
func TestUseCard_ThatIsUsedAlreadyChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	m := w.defaultCard(t, a)
	told := w.told(t, a, outbox.PaymentMethodChanged)
	got, err := billing.Cards{Core: w.Core}.Use(t.Context(), asked(a, newKey()), m.ID, nil)
	if err != nil || got.Record.Version != m.Version || w.defaultCard(t, a).Version != m.Version {
		t.Errorf("version %d, %v; want %d", got.Record.Version, err, m.Version)
	}
	if n := w.told(t, a, outbox.PaymentMethodChanged); n != told {
		t.Errorf("told %d times of no change", n-told)
	}
}

// A card that is put in the place of one that is gone brings paid use back.
func TestUseCard_BringsPaidUseBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	first := w.defaultCard(t, a)
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

// The provider takes a key for one request only: what is repeated under it says what was said, whatever the options say now.
func TestAddCard_IsRepeatedAsItWasAsked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := asked(w.open(t).ID, newKey())
	w.Core.Policy.ReturnURL = "https://old.example/billing"
	w.fault(t, sandbox.Fault{Op: "attach", Kind: sandbox.FaultReset})
	in := billing.NewCard{CardSource: billing.CardSource{Token: sandbox.TokenVisa}, Profile: profile}
	got, err := billing.Cards{Core: w.Core}.Add(t.Context(), a, in, nil)
	if err != nil || got.Record.Status != payment.MethodProcessing {
		t.Fatalf("without an answer: %s, %v", got.Record.Status, err)
	}
	w.Core.Policy.ReturnURL = "https://new.example/billing"
	w.advance(2 * time.Minute)
	w.sweep(t)
	if m := w.card(t, a.Account, got.Record.ID); m.Status != payment.MethodActive {
		t.Errorf("the card is %s once the provider was asked again", m.Status)
	}
}

// A change of a card that the provider has refused, or not answered, can be made in another way.
func TestChangeCard_OtherwiseAfterNoAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := asked(w.onPro(t), "")
	m := w.defaultCard(t, a.Account)
	w.fault(t, sandbox.Fault{Op: "update", Kind: sandbox.FaultReset})
	change := func(city string) (payment.Method, error) {
		moved := m.Billing
		moved.Address.City = city
		return billing.Cards{Core: w.Core}.Change(t.Context(), a, m.ID, billing.CardChange{Version: m.Version, Billing: &moved})
	}
	if got, err := change("Ockham"); err == nil {
		t.Fatalf("%+v without an answer", got)
	}
	if got, err := change("Oakham"); err != nil || got.Billing.Address.City != "Oakham" {
		t.Errorf("%+v, %v", got.Billing, err)
	}
}
