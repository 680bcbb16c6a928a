package billing_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

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
			a := w.open(t)
			w.upgrade(t, a.ID, sandbox.TokenVisa)
			fault.Op, fault.Times = "charge", 1
			if err := w.control.Plan(t.Context(), fault); err != nil {
				t.Fatal(err)
			}
			key := asked(a.ID, newKey())
			top, err := billing.Funder{Core: w.Core}.TopUp(t.Context(), key, billing.TopUpInput{Amount: usd(1000)}, asJSON[billing.TopUp](202))
			if err != nil || top.Record.Status != payment.Processing {
				t.Fatalf("%+v, %v; want it processing", top.Record, err)
			}
			if b := w.balance(t, a.ID); b.Funds != usd(0) {
				t.Errorf("funds %s before the provider has said yes", b.Funds)
			}
			w.advance(2 * time.Minute)
			w.sweep(t)
			after, err := billing.Funder{Core: w.Core}.Get(t.Context(), a.ID, top.Record.ID)
			if err != nil || after.Status != payment.Succeeded || after.Charge.ID != top.Record.Charge.ID {
				t.Errorf("after a sweep: %+v, %v", after, err)
			}
			if n := len(w.charges(t)[a.ID]); n != 1 {
				t.Errorf("%d charges, want 1", n)
			}
			if b := w.balance(t, a.ID); b.Funds != usd(1000) {
				t.Errorf("funds %s, want 10.00 USD", b.Funds)
			}
		})
	}
}

// What a card network takes back of an invoice is due again, and is not charged again by itself, however long it takes;
// if the dispute is won, it is paid.
func TestDispute_StopsDunning(t *testing.T) {
	t.Parallel()
	for name, won := range map[string]bool{"Lost": false, "Won": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.open(t)
			w.upgrade(t, a.ID, sandbox.TokenVisa)
			w.use(t, a.ID, "voice", "120000") // 27.00
			w.until(t, w.clock().Add(35*24*time.Hour))
			taken := w.charges(t)[a.ID]
			if len(taken) != 1 {
				t.Fatalf("%d charges, want that of the invoice", len(taken))
			}
			dispute, err := w.control.Dispute(t.Context(), taken[0].Ref)
			if err != nil {
				t.Fatal(err)
			}
			told := func() {
				for _, e := range w.eventsOf(t, dispute) {
					w.deliver(t, e)
				}
			}
			told()
			due, err := w.DB.Invoices().Unpaid(t.Context(), a.ID)
			if err != nil || len(due) != 1 || due[0].AmountDue() != usd(2700) {
				t.Fatalf("due is %+v, %v; want the invoice again", due, err)
			}
			for range 70 { // days
				w.advance(24 * time.Hour)
				w.sweep(t)
			}
			if acct, err := w.DB.Accounts().Get(t.Context(), a.ID); err != nil || acct.Status != account.Active {
				t.Errorf("the account is %s, %v: a dispute suspends nobody", acct.Status, err)
			}
			if err := w.control.CloseDispute(t.Context(), dispute, won); err != nil {
				t.Fatal(err)
			}
			told()
			if n := len(w.charges(t)[a.ID]); n != 1 {
				t.Errorf("%d charges: what is disputed was charged again", n)
			}
			want := invoice.Open
			if won {
				want = invoice.Paid
			}
			if inv, err := w.DB.Invoices().Get(t.Context(), a.ID, due[0].ID); err != nil || inv.Status != want {
				t.Errorf("the invoice is %s, %v; want %s", inv.Status, err, want)
			}
		})
	}
}

// An invoice that is taken back while its next attempt is due is either void and not charged, or charged and not void.
func TestVoid_RacingACollection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for round := range often(6, 100) {
		a := w.open(t)
		w.upgrade(t, a.ID, sandbox.TokenChargeDeclined)
		w.use(t, a.ID, "voice", "120000") // 27.00
		w.until(t, w.clock().Add(35*24*time.Hour))
		open, err := w.DB.Invoices().Unpaid(t.Context(), a.ID)
		if err != nil || len(open) != 1 || open[0].NextAttempt.IsZero() {
			t.Fatalf("%+v, %v; want one that is tried again", open, err)
		}
		m, err := w.DB.Payments().DefaultMethod(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.control.Behave(t.Context(), m.ProviderRef, sandbox.TokenVisa); err != nil {
			t.Fatal(err)
		}
		w.advance(open[0].NextAttempt.Sub(w.clock()))
		var voided error
		together(2, func(i int) {
			if i == 0 {
				_, voided = billing.Adjuster{Core: w.Core}.Void(t.Context(), asked(a.ID, newKey()), open[0].ID, "not theirs", nil)
				return
			}
			if _, err := (billing.Collector{Core: w.Core}).Collect(t.Context(), a.ID, open[0].ID); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		})
		inv, err := w.DB.Invoices().Get(t.Context(), a.ID, open[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%s, charged %d times, voiding refused: %v", inv.Status, len(w.charges(t)[a.ID]), voided != nil)
		if got != "void, charged 0 times, voiding refused: false" && got != "paid, charged 1 times, voiding refused: true" {
			t.Errorf("round %d: %s (%v)", round, got, voided)
		}
	}
}
