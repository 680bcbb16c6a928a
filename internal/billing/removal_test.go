package billing_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// wantDetached fails the test unless the provider has let go of the card.
func (w *world) wantDetached(t *testing.T, m payment.Method, want bool) {
	t.Helper()
	o, err := w.Gateway.Fetch(t.Context(), payment.ObjectMethod, m.ProviderRef)
	if err != nil {
		t.Fatal(err)
	}
	if got := o.Method.CustomerRef == ""; got != want {
		t.Errorf("the provider has let go of the card: %v, want %v", got, want)
	}
}

// "Remove when paid" is granted inside the transaction that records the payment, in which no provider may
// be called: the sweep tells the provider.
func TestRemoveWhenPaid_IsDetachedByTheSweep(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenInsufficientFunds)
	m := w.defaultCard(t, a)
	w.use(t, a, "voice", "90000")
	w.advance(33 * 24 * time.Hour)
	w.sweep(t)
	if _, err := (billing.Cards{Core: w.Core}).RequestRemoval(t.Context(), asked(a, newKey()), m.ID, payment.WhenPaid, "", nil); err != nil {
		t.Fatal(err)
	}
	if got := w.card(t, a, m.ID); got.Status != payment.MethodActive {
		t.Fatalf("the card is %s while something is owed", got.Status)
	}
	// The next try of the same card succeeds.
	if err := w.control.Behave(t.Context(), m.ProviderRef, sandbox.TokenVisa); err != nil {
		t.Fatal(err)
	}
	w.pay(t, a)
	if got := w.card(t, a, m.ID); got.Status != payment.MethodRemoved {
		t.Fatalf("the card is %s once all is paid", got.Status)
	}
	w.wantDetached(t, m, false)
	w.sweep(t)
	w.wantDetached(t, m, true)
	if got := w.card(t, a, m.ID); !got.CheckAt.IsZero() {
		t.Errorf("the card is still to be looked at, at %s", got.CheckAt)
	}
}

// A top-up under way keeps the card that it charges, and nothing else may: however it ends, the request is granted then.
func TestRemoveWhenPaid_OnceATopUpHasEnded(t *testing.T) {
	t.Parallel()
	for name, decline := range map[string]string{"Succeeded": "", "Declined": "generic_decline"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.open(t).ID
			w.upgrade(t, a, sandbox.TokenProcessing)
			m := w.defaultCard(t, a)
			top := w.topUp(t, a, 5000)
			r, err := billing.Cards{Core: w.Core}.RequestRemoval(t.Context(), asked(a, newKey()), m.ID, payment.WhenPaid, "", nil)
			if err != nil || r.Record.Status != payment.RemovalOpen {
				t.Fatalf("while a top-up is %s the request is %s, %v", top.Status, r.Record.Status, err)
			}
			if err := w.control.Settle(t.Context(), top.Charge.ProviderRef, decline); err != nil {
				t.Fatal(err)
			}
			w.tell(t, top.Charge.ProviderRef)
			if got := w.card(t, a, m.ID); got.Status != payment.MethodRemoved {
				t.Errorf("the card is %s once nothing is under way", got.Status)
			}
			if r, err := w.DB.Payments().Removal(t.Context(), a, r.Record.ID); err != nil || r.Status != payment.RemovalDone {
				t.Errorf("the request is %s, %v", r.Status, err)
			}
		})
	}
}

// pay pays the account's only unpaid invoice.
func (w *world) pay(t *testing.T, a account.ID) {
	t.Helper()
	open := w.unpaid(t, a)
	got, err := billing.Collector{Core: w.Core}.Pay(t.Context(), asked(a, newKey()), open.ID, payment.MethodID{}, nil)
	if err != nil || got.Record.Status != payment.Succeeded {
		t.Fatalf("%+v, %v", got.Record, err)
	}
}

// A provider that cannot be reached does not keep a card: it is removed here, and there when it answers.
func TestRemoveCard_IsDetachedOnceTheProviderAnswers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	m := w.defaultCard(t, a)
	w.fault(t, sandbox.Fault{Op: "detach", Kind: sandbox.FaultStatus, Status: 503})
	if err := (billing.Cards{Core: w.Core}).RemoveByOperator(t.Context(), asked(a, ""), m.ID, "asked for by phone"); err != nil {
		t.Fatal(err)
	}
	if got := w.card(t, a, m.ID); got.Status != payment.MethodRemoved || got.CheckAt.IsZero() {
		t.Errorf("%s, to be looked at %s", got.Status, got.CheckAt)
	}
	w.wantDetached(t, m, false)
	w.advance(2 * time.Hour)
	w.sweep(t)
	w.wantDetached(t, m, true)
}

func TestCloseAccount_LetsGoOfItsCards(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	m := w.defaultCard(t, a)
	w.topUp(t, a, 5000)
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "leaves", nil); err != nil {
		t.Fatal(err)
	}
	if got := w.card(t, a, m.ID); got.Status != payment.MethodRemoved || got.Default {
		t.Errorf("%+v", got)
	}
	w.wantDetached(t, m, true)
	if c := w.charges(t)[a]; len(c) != 1 || c[0].Refunded != usd(5000) {
		t.Errorf("%+v, want all of it given back", c)
	}
}

// "Remove when paid" is granted by whatever pays, funds too.
func TestRemoveWhenPaid_ByFunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.use(t, a, "voice", "120000") // 27.00
	m := w.defaultCard(t, a)
	r, err := billing.Cards{Core: w.Core}.RequestRemoval(t.Context(), asked(a, newKey()), m.ID, payment.WhenPaid, "", nil)
	if err != nil || r.Record.Status != payment.RemovalOpen {
		t.Fatalf("%+v, %v", r.Record, err)
	}
	w.topUp(t, a, 3000)
	w.until(t, w.clock().Add(35*24*time.Hour))
	if got := w.card(t, a, m.ID); got.Status != payment.MethodRemoved {
		t.Errorf("the card is %s", got.Status)
	}
}

// A card is removed without a person only where that was asked for and the policy allows it, and not before all is paid.
func TestRemoveWhenPaid_IsForThePolicyToSay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		policy  bool
		kind    payment.RemovalKind
		granted bool
	}{
		"AskedForAndAllowed": {true, payment.WhenPaid, true},
		"SupportWasAsked":    {true, payment.BySupport, false},
		"NotAllowed":         {false, payment.WhenPaid, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.Policy.RemoveWhenPaid = c.policy
			request := func(a account.ID) payment.MethodID {
				t.Helper()
				m := w.defaultCard(t, a).ID
				if _, err := (billing.Cards{Core: w.Core}).RequestRemoval(t.Context(), asked(a, newKey()), m, c.kind, "", nil); err != nil {
					t.Fatal(err)
				}
				return m
			}
			want := func(when string, a account.ID, m payment.MethodID, removed bool) {
				t.Helper()
				if got := w.card(t, a, m).Status; (got == payment.MethodRemoved) != removed {
					t.Errorf("the card is %s %s", got, when)
				}
			}
			nothing := w.onPro(t)
			want("of whom nothing is owed", nothing, request(nothing), c.granted)

			a := w.open(t).ID
			w.upgrade(t, a, sandbox.TokenInsufficientFunds)
			w.use(t, a, "voice", "90000") // 13.50
			w.until(t, w.clock().Add(35*24*time.Hour))
			w.wantBalance(t, a, 0, 1350)
			m := request(a)
			w.grant(t, a, 1000, 0, 0)
			w.wantBalance(t, a, 0, 350)
			want("while a part is owed", a, m, false)
			w.use(t, a, "voice", "120000") // 27.00 of the running period
			w.grant(t, a, 1000, 0, 0)
			w.wantBalance(t, a, 0, 0)
			want("while what is used is owed", a, m, false)
			w.grant(t, a, 5000, 0, 0)
			w.until(t, w.clock().Add(35*24*time.Hour))
			want("once all is paid", a, m, c.granted)
		})
	}
}

func TestActiveCardIsNotRemovedWhileMoneyIsOwed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.use(t, a, "voice", "1800000")
	m := w.defaultCard(t, a)
	cards := billing.Cards{Core: w.Core}
	if err := cards.Remove(t.Context(), asked(a, ""), m.ID, m.Version); !errors.Is(err, billing.ErrActiveCard) {
		t.Fatalf("%v, want ErrActiveCard with blockers", err)
	}
	if err := cards.Remove(t.Context(), asked(a, ""), m.ID, m.Version+1); !errors.Is(err, account.ErrStale) {
		t.Errorf("as it is not any more: %v, want ErrStale", err)
	}
	req, err := cards.RequestRemoval(t.Context(), asked(a, newKey()), m.ID, payment.WhenPaid, "", nil)
	if err != nil || req.Record.Status != payment.RemovalOpen {
		t.Fatalf("%+v, %v; want an open request", req.Record, err)
	}
	if err := cards.RemoveByOperator(t.Context(), billing.Asked{Account: a, Actor: "operator:x"}, m.ID, "asked by phone"); err != nil {
		t.Fatal(err)
	}
	if err := cards.RemoveByOperator(t.Context(), asked(a, ""), m.ID, "again"); !errors.Is(err, payment.ErrMethodNotFound) || w.told(t, a, outbox.PaymentMethodRemoved) != 1 {
		t.Errorf("removed again: %v, told %d times; want ErrMethodNotFound, and once", err, w.told(t, a, outbox.PaymentMethodRemoved))
	}
	b := w.balance(t, a)
	if b.Accrued != usd(78300) {
		t.Errorf("accrued %s after removal, want it still owed", b.Accrued)
	}
	if r := w.tryUse(t, a, "voice", "1"); r.Status != metering.Rejected {
		t.Errorf("paid use without a card: %+v", r)
	}
}

// Two of the support answer one request at the same time: one answer counts, and the other is told so.
func TestResolveRemoval_OneAnswerCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cards := billing.Cards{Core: w.Core}
	for range often(10, 100) {
		a := w.onPro(t)
		r, err := cards.RequestRemoval(t.Context(), asked(a, newKey()), w.defaultCard(t, a).ID, payment.BySupport, "", nil)
		if err != nil {
			t.Fatal(err)
		}
		answers := [2]string{"declined", "granted"}
		var errs [2]error
		together(2, func(i int) {
			_, errs[i] = cards.ResolveRemoval(t.Context(), asked(a, ""), r.Record.ID, i == 1, answers[i])
		})
		winner, status, action := 0, payment.RemovalDeclined, "removal_request.decline"
		if errs[1] == nil {
			winner, status, action = 1, payment.RemovalDone, "payment_method.remove"
		}
		if errs[winner] != nil || !errors.Is(errs[1-winner], payment.ErrRemovalResolved) {
			t.Fatalf("declined: %v, granted: %v; want one of them to be told that the other was quicker", errs[0], errs[1])
		}
		got, err := w.DB.Payments().Removal(t.Context(), a, r.Record.ID)
		if err != nil || got.Status != status || got.Answer != answers[winner] {
			t.Errorf("%+v, %v; want it %s", got, err, answers[winner])
		}
		log, err := w.DB.Accounts().AuditLog(t.Context(), a, page.Request{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, e := range log.Data {
			if e.Reason == answers[0] || e.Reason == answers[1] {
				told = append(told, e.Action)
			}
		}
		if !slices.Equal(told, []string{action}) {
			t.Errorf("the log says %v, want %s", told, action)
		}
	}
}
