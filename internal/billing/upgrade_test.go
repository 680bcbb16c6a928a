package billing_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/upgrade"
	"github.com/accrue-billing/accrue/pkg/money"
)

// A contract that is agreed on while an upgrade waits for its card stays.
func TestUpgrade_OvertakenByAContract(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	up, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{
		Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.Token3DSSetup}, Profile: &profile,
	}, nil)
	if err != nil || up.Record.Status != payment.RequiresAction {
		t.Fatalf("%+v, %v", up.Record, err)
	}
	k := w.agree(t, a, perMinute("C-1"))
	m, err := w.DB.Payments().Method(t.Context(), a, up.Record.Method)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.control.Act(t.Context(), m.SetupRef, true); err != nil {
		t.Fatal(err)
	}
	got, err := billing.Upgrader{Core: w.Core}.Confirm(t.Context(), a, up.Record.ID)
	if err != nil || got.Status != payment.Canceled {
		t.Errorf("the upgrade is %s, %v; want it canceled", got.Status, err)
	}
	if l := w.level(t, a); l != plan.Enterprise {
		t.Errorf("the account is on %s", l)
	}
	if s := w.contract(t, a, k.ID); s != billing.ContractActive {
		t.Errorf("the contract is %s", s)
	}
	if card := w.defaultCard(t, a); card.ID != m.ID {
		t.Errorf("the card is not on file")
	}
}

// The card of an upgrade that was canceled, confirmed after all, is kept, and nothing else changes: what is charged is still
// the card that was, or none.
func TestUpgrade_TheCardOfACanceledOneIsKeptAndNotCharged(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]bool{"BesideAnother": true, "Alone": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.open(t).ID
			var held payment.MethodID
			if before {
				held = w.addCard(t, a, sandbox.TokenVisa).ID
			}
			other := profile
			other.Name = "Charles Babbage"
			up, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{
				Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.Token3DSSetup}, Profile: &other,
			}, nil)
			if err != nil || up.Record.Status != payment.RequiresAction {
				t.Fatalf("%+v, %v", up.Record, err)
			}
			if _, err := (billing.Upgrader{Core: w.Core}).Cancel(t.Context(), a, up.Record.ID); err != nil {
				t.Fatal(err)
			}
			if err := w.control.Act(t.Context(), w.card(t, a, up.Record.Method).SetupRef, true); err != nil {
				t.Fatal(err)
			}
			if m, err := (billing.Cards{Core: w.Core}).Confirm(t.Context(), a, up.Record.Method); err != nil || m.Status != payment.MethodActive || m.Default {
				t.Errorf("the card is %s, and charged: %v, %v", m.Status, m.Default, err)
			}
			if m, err := w.DB.Payments().DefaultMethod(t.Context(), a); m.ID != held || (before && err != nil) {
				t.Errorf("%s is charged, %v; want %s", m.ID, err, held)
			}
			if p, err := w.DB.Accounts().Profile(t.Context(), a); p.Name == other.Name {
				t.Errorf("the billing profile is %+v, %v", p, err)
			}
			if _, err := (billing.Cards{Core: w.Core}).Use(t.Context(), asked(a, newKey()), up.Record.Method, nil); err != nil {
				t.Error(err)
			}
			w.moveTo(t, a, plan.Pro)
		})
	}
}

// An upgrade by a card that is on file makes it the one that is charged, as choosing it does: what another could not pay is
// collected from it.
func TestUpgrade_ByACardOnFileCollectsWhatIsOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onProAmongFees(t)
	good := w.defaultCard(t, a)
	w.addCard(t, a, sandbox.TokenInsufficientFunds)
	w.use(t, a, "voice", "120000") // 27.00
	w.closed(t, day(time.April, 10))
	w.wantBalance(t, a, 0, 2700)
	up, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{Plan: "growth", Method: good.ID}, nil)
	if err != nil || up.Record.Status != payment.Succeeded {
		t.Fatalf("%+v, %v", up.Record, err)
	}
	w.sweep(t)
	w.wantBalance(t, a, 0, 0)
}

// A plan of which nothing is on sale any more is refused as that, with what is sold, and the page does not offer it.
func TestUpgrade_ToAPlanThatIsNoLongerSold(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(t, withFees(plan.Shipped()))
	a := w.onPro(t)
	archive := func(code plan.Code) {
		t.Helper()
		if _, err := (billing.Publisher{Core: w.Core}).Archive(t.Context(), asked(account.ID{}, newKey()), code, 1, "test", nil); err != nil {
			t.Fatal(err)
		}
	}
	archive("growth")
	_, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{Plan: "growth"}, nil)
	e, ok := errors.AsType[*errs.Error](err)
	if want := []plan.Code{plan.Developer, plan.Pro, "scale"}; !ok || !errors.Is(e, billing.ErrNotSold) || !slices.Equal(e.Params["plans"].([]plan.Code), want) {
		t.Errorf("%v, want ErrNotSold with %v", err, want)
	}
	if _, err := (billing.Upgrader{Core: w.Core}).Preview(t.Context(), a, "growth"); !errors.Is(err, billing.ErrNotSold) {
		t.Errorf("the preview says %v", err)
	}
	if act := w.action(t, a, billing.ActUpgrade); !act.Allowed {
		t.Errorf("the page says %+v, and another plan is sold", act)
	}
	w.moveTo(t, a, "scale")
	archive(plan.Pro)
	if _, err := (billing.Downgrader{Core: w.Core}).Plan(t.Context(), asked(a, newKey()), plan.Pro, nil); !errors.Is(err, billing.ErrNotSold) {
		t.Errorf("a downgrade says %v", err)
	}
}

// An account under a contract is not taken out of it by its own upgrade.
func TestUpgrade_NotUnderAContract(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.addCard(t, a, sandbox.TokenVisa)
	special := perMinute("C-2")
	special.Plan = plan.Developer
	w.agree(t, a, special)
	_, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, newKey()), billing.UpgradeInput{Plan: plan.Pro}, nil)
	if !errors.Is(err, billing.ErrUnderContract) {
		t.Errorf("%v, want ErrUnderContract", err)
	}
}

// What was used beyond a soft limit while nothing was billed stays free after an upgrade, and no more than that. Of
// 1,000 minutes on Developer with 600 free, 400 are waived. 700 more on Pro, of which 1,000 are included, come to
// 300 at 0.027: 8.10. Void 300 of those on Developer, and 100 are left waived: the rest is what it was. It was
// 300 less with the waiver as it was, nothing at all. Void what was used on Pro, and the waiver stays as it is.
func TestUpgrade_WhatWasWaivedIsCorrectedWithTheUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(t, softenDeveloper(plan.Shipped()))
	a := w.open(t).ID
	w.useAs(t, a, "free", "voice", "42000", w.clock())
	w.useAs(t, a, "mistaken", "voice", "18000", w.clock())
	w.advance(time.Hour)
	w.upgrade(t, a, sandbox.TokenVisa)
	w.advance(time.Hour)
	w.useAs(t, a, "paid", "voice", "42000", w.clock())
	want := func(cents int64, when string) {
		t.Helper()
		if got := w.balance(t, a).Accrued; got != usd(cents) {
			t.Errorf("%s %s has accrued, want %s", when, got, usd(cents))
		}
	}
	want(810, "before any correction")
	w.correct(t, a, "mistaken", "")
	want(810, "without 300 of the minutes on Developer")
	w.correct(t, a, "paid", "24000")
	want(0, "with 300 minutes less on Pro")
	w.correct(t, a, "paid", "36000")
	w.correct(t, a, "free", "30000")
	want(270, "with all of those beyond the limit taken back")
	w.correct(t, a, "free", "42000")
	want(540, "with 100 of those beyond the limit given again")
	w.correct(t, a, "free", "54000")
	want(540, "with 200 more")
}

func TestUpgrade_WhatBecomesMoreThanTheLimitIsWaived(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(t, softenDeveloper(plan.Shipped()))
	a := w.open(t).ID
	w.useAs(t, a, "free", "voice", "30000", w.clock())
	w.advance(time.Hour)
	w.upgrade(t, a, sandbox.TokenVisa)
	w.advance(time.Hour)
	w.useAs(t, a, "paid", "voice", "36000", w.clock())
	for _, c := range []struct {
		free  string
		cents int64
	}{{"36000", 540}, {"48000", 540}, {"24000", 0}, {"36000", 540}} {
		w.correct(t, a, "free", c.free)
		if got := w.balance(t, a).Accrued; got != usd(c.cents) {
			t.Errorf("with %s s on Developer of 36000 %s has accrued, want %s", c.free, got, usd(c.cents))
		}
	}
}

func TestUpgrade_ThePreviewOfASecondLeavesOutWhatTheFirstWaived(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(t, softenDeveloper(withFees(plan.Shipped())))
	a := w.open(t).ID
	w.use(t, a, "voice", "42000")
	w.upgrade(t, a, sandbox.TokenVisa)
	preview, err := billing.Upgrader{Core: w.Core}.Preview(t.Context(), a, "scale")
	if err != nil {
		t.Fatal(err)
	}
	w.moveTo(t, a, "scale")
	want := usd(32601 + 600) // the fee for the rest of the period, and 600 of 700 minutes
	if got := w.balance(t, a).Accrued; preview.After != want || got != want {
		t.Errorf("the preview says %s, then %s has accrued; want %s", preview.After, got, want)
	}
}

// softenDeveloper lets 600 minutes on Developer pass, and those beyond them.
func softenDeveloper(c plan.Catalogue) plan.Catalogue {
	for i := range c.Offers {
		if v := &c.Offers[i].Version; v.Plan == plan.Developer {
			v.Limits = []plan.Limit{{Meter: "voice", Quantity: money.MustDecimal("36000"), Mode: plan.Soft}}
		}
	}
	return c
}

func TestDistinctKeys_FiftyUpgradesHaveOneEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	up := billing.Upgrader{Core: w.Core}
	for round := range often(8, 200) {
		a := w.open(t)
		var mu sync.Mutex
		done := 0
		together(callers, func(int) {
			got, err := up.Upgrade(t.Context(), asked(a.ID, newKey()), billing.UpgradeInput{
				Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenVisa}, Profile: &profile,
			}, asJSON[upgrade.Upgrade](201))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && got.Record.Status == payment.Succeeded:
				done++
			case !errors.Is(err, upgrade.ErrPending) && !errors.Is(err, billing.ErrNotAnUpgrade):
				t.Errorf("round %d: %+v, %v", round, got.Record, err)
			}
		})
		cards, err := w.DB.Payments().Methods(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		if done != 1 || len(cards) != 1 {
			t.Errorf("round %d: %d callers were told of success, %d cards; want 1 and 1", round, done, len(cards))
		}
	}
}

// Whichever comes first, the period is closed once and the account ends on Pro with one period open.
func TestUpgrade_RacesTheCloseOfThePeriod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	accounts := make([]account.ID, often(15, 200))
	for i := range accounts {
		accounts[i] = w.open(t).ID
		w.use(t, accounts[i], "voice", "100")
	}
	w.advance(32 * 24 * time.Hour)
	for _, a := range accounts {
		together(4, func(i int) {
			if i%2 == 0 {
				if _, err := (billing.Closer{Core: w.Core}).Close(t.Context(), a); err != nil {
					t.Errorf("close: %v", err)
				}
				return
			}
			_, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, fmt.Sprint("key ", i)), billing.UpgradeInput{
				Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenVisa}, Profile: &profile,
			}, asJSON[upgrade.Upgrade](201))
			if err != nil && !errors.Is(err, upgrade.ErrPending) && !errors.Is(err, billing.ErrNotAnUpgrade) {
				t.Errorf("upgrade: %v", err)
			}
		})
		sub, err := w.DB.Subscriptions().Active(t.Context(), a)
		if err != nil || sub.Plan != plan.Pro || !sub.Period.Start.After(start) {
			t.Errorf("%s is on %s since %s, %v; want Pro in the second period", a, sub.Plan, sub.Period.Start, err)
		}
	}
	w.sweep(t) // finalises what was closed as Pro
}

func TestUpgrade(t *testing.T) {
	t.Parallel()

	t.Run("DeclinedCardStaysDeveloper", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		got, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a.ID, "k"), billing.UpgradeInput{
			Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenDeclined}, Profile: &profile,
		}, asJSON[upgrade.Upgrade](402))
		if err != nil || got.Record.Status != payment.Failed || got.Record.Failure == nil {
			t.Fatalf("%+v, %v; want a failed upgrade that says why", got.Record, err)
		}
		if sub, _ := w.DB.Subscriptions().Active(t.Context(), a.ID); sub.Plan != plan.Developer {
			t.Errorf("plan %s after a decline", sub.Plan)
		}
		again, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a.ID, "k"), billing.UpgradeInput{
			Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenDeclined}, Profile: &profile,
		}, asJSON[upgrade.Upgrade](402))
		if err != nil || again.Replayed == nil || again.Replayed.Status != 402 {
			t.Errorf("a repetition: %+v, %v; want the stored 402", again, err)
		}
		w.upgrade(t, a.ID, sandbox.TokenVisa) // another key, another card
	})

	t.Run("ThreeDSecureIsResumedAndOnlyThenChangesThePlan", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		up := billing.Upgrader{Core: w.Core}
		got, err := up.Upgrade(t.Context(), asked(a.ID, newKey()), billing.UpgradeInput{
			Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.Token3DSSetup}, Profile: &profile,
		}, nil)
		if err != nil || got.Record.Status != payment.RequiresAction || got.Record.NextAction == nil {
			t.Fatalf("%+v, %v; want requires_action with a next action", got.Record, err)
		}
		if _, err := up.Upgrade(t.Context(), asked(a.ID, newKey()), billing.UpgradeInput{
			Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenVisa}, Profile: &profile,
		}, nil); !errors.Is(err, upgrade.ErrPending) {
			t.Fatalf("second upgrade: %v, want ErrPending", err)
		}
		m, err := w.DB.Payments().Method(t.Context(), a.ID, got.Record.Method)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.control.Act(t.Context(), m.SetupRef, true); err != nil {
			t.Fatal(err)
		}
		done, err := up.Confirm(t.Context(), a.ID, got.Record.ID)
		if err != nil || done.Status != payment.Succeeded {
			t.Fatalf("confirmed: %+v, %v", done, err)
		}
	})

	t.Run("TimeoutIsProcessingAndTheSweepFindsOut", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		w.fault(t, sandbox.Fault{Op: "attach", Kind: sandbox.FaultReset})
		got, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a.ID, newKey()), billing.UpgradeInput{
			Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenVisa}, Profile: &profile,
		}, nil)
		if err != nil || got.Record.Status != payment.Processing {
			t.Fatalf("%+v, %v; want processing", got.Record, err)
		}
		w.advance(2 * time.Minute)
		w.sweep(t)
		if u, err := w.DB.Upgrades().Get(t.Context(), a.ID, got.Record.ID); err != nil || u.Status != payment.Succeeded {
			t.Errorf("after the sweep: %+v, %v", u, err)
		}
	})

	t.Run("EnterpriseIsAgreedWithAPerson", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		_, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a.ID, newKey()), billing.UpgradeInput{Plan: plan.Enterprise}, nil)
		if !errors.Is(err, billing.ErrContactSales) {
			t.Errorf("%v, want ErrContactSales", err)
		}
	})
}
