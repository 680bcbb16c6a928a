package billing_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// perMinute is a contract of one dollar a minute, without limits.
func perMinute(reference string) plan.Contract {
	return plan.Contract{
		Reference: reference, Plan: plan.Enterprise, Unlimited: []plan.MeterCode{"voice"},
		Charges: []plan.Charge{{
			Code: "voice", Name: "Voice", Meter: "voice", Unit: "second", Aggregation: plan.Sum, Per: plan.Quote{Unit: "minute", Size: 60},
			Prices: []plan.Price{{Currency: money.USD, Model: plan.PerUnit, UnitPrice: money.DecimalFromInt(1)}},
		}},
	}
}

func (w *world) agree(t *testing.T, a account.ID, def plan.Contract) billing.Agreement {
	t.Helper()
	got, err := billing.Contractor{Core: w.Core}.Agree(t.Context(), asked(a, newKey()), def, asJSON[billing.Agreement](201))
	if err != nil {
		t.Fatal(err)
	}
	return got.Record
}

func (w *world) contract(t *testing.T, a account.ID, id subscription.ContractID) billing.ContractStatus {
	t.Helper()
	k, err := billing.Reader{Core: w.Core}.Contract(t.Context(), a, id)
	if err != nil {
		t.Fatal(err)
	}
	return k.Status
}

func (w *world) level(t *testing.T, a account.ID) plan.Code {
	t.Helper()
	sub, err := w.DB.Subscriptions().Active(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	return sub.Plan
}

func commitment(term bool, minor ...int64) *plan.Commitment {
	c := &plan.Commitment{Term: term}
	for i, m := range minor {
		c.Steps = append(c.Steps, plan.Step{From: day(time.March+time.Month(3*i), 10), Sums: plan.Sums{usd(m)}})
	}
	return c
}

func TestContractBeginsAndEndsByItsDates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	def := perMinute("C-1")
	def.Start, def.End = day(time.April, 1), day(time.May, 15)
	k := w.agree(t, a, def)
	if k.Status != billing.ContractScheduled || !k.TakesEffect.Equal(day(time.April, 10)) || k.Definition.Then != plan.Pro {
		t.Fatalf("agreed as %s from %s, then %s", k.Status, k.TakesEffect, k.Definition.Then)
	}
	_, err := billing.Contractor{Core: w.Core}.Agree(t.Context(), asked(a, newKey()), def, nil)
	if !errors.Is(err, billing.ErrContractScheduled) {
		t.Errorf("a second one that waits: %v", err)
	}

	w.use(t, a, "voice", "72000") // 1,200 minutes, 200 of them at 0.027
	w.until(t, day(time.April, 10))
	if got := w.contract(t, a, k.ID); got != billing.ContractActive || w.level(t, a) != plan.Enterprise {
		t.Errorf("on 10 April it is %s, the level %s", got, w.level(t, a))
	}
	w.use(t, a, "voice", "600")
	w.until(t, day(time.May, 10)) // before its end: holds for this period too
	w.use(t, a, "voice", "120")
	w.until(t, day(time.June, 10))
	if got := w.contract(t, a, k.ID); got != billing.ContractEnded || w.level(t, a) != plan.Pro {
		t.Errorf("on 10 June it is %s, the level %s", got, w.level(t, a))
	}
	w.use(t, a, "voice", "72000")
	w.until(t, day(time.July, 10))
	w.until(t, day(time.July, 12))
	for start, want := range map[time.Time]string{
		day(time.March, 10): "usage 540", day(time.April, 10): "usage 1000", day(time.May, 10): "usage 200", day(time.June, 10): "usage 540",
	} {
		if got := w.lines(t, a, start); got != want {
			t.Errorf("the invoice of %s: %s, want %s", start.Format(time.DateOnly), got, want)
		}
	}
}

// A replica that was away for months does it all in one sweep, by what the database says.
func TestContractDatesAreFoundAfterMonths(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	first, second := perMinute("C-1"), perMinute("C-2")
	first.Start, first.End = day(time.April, 10), day(time.May, 10)
	k := w.agree(t, a, first)
	w.until(t, day(time.April, 10))
	second.Start, second.End, second.Then = day(time.May, 1), day(time.June, 10), plan.Developer
	l := w.agree(t, a, second)
	w.until(t, day(time.September, 12))
	if w.contract(t, a, k.ID) != billing.ContractEnded || w.contract(t, a, l.ID) != billing.ContractEnded || w.level(t, a) != plan.Developer {
		t.Errorf("%s, %s, level %s", w.contract(t, a, k.ID), w.contract(t, a, l.ID), w.level(t, a))
	}
	for start, want := range map[time.Time]subscription.ContractID{
		day(time.March, 10): {}, day(time.April, 10): k.ID, day(time.May, 10): l.ID, day(time.June, 10): {}, day(time.August, 10): {},
	} {
		if p, err := w.DB.Subscriptions().Period(t.Context(), a, start); err != nil || p.Contract != want {
			t.Errorf("the period of %s is under %s, %v; want %s", start.Format(time.DateOnly), p.Contract, err, want)
		}
	}
}

func TestCommitmentOverATerm(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	def := perMinute("C-1")
	def.End, def.Commitment = day(time.September, 10), commitment(true, 100_000, 50_000) // 1,000 over three months, then 500 over three
	if k := w.agree(t, a, def); k.Status != billing.ContractActive {
		t.Fatalf("%s", k.Status)
	}
	for i, minutes := range []int64{100, 200, 300, 100, 500, 0} {
		if minutes > 0 {
			w.use(t, a, "voice", fmt.Sprint(60*minutes))
		}
		w.until(t, day(time.April+time.Month(i), 10))
	}
	if due := w.balance(t, a).Accrued; due != usd(0) { // back on Pro, nothing used
		t.Errorf("accrued %s", due)
	}
	w.until(t, day(time.September, 12))
	for i, want := range []string{
		"usage 10000", "usage 20000", "usage 30000, commitment 40000", // 600 of 1,000
		"usage 10000", "usage 50000", "", // 600 of 500: nothing is missing
	} {
		if got := w.lines(t, a, day(time.March+time.Month(i), 10)); got != want {
			t.Errorf("month %d: %s, want %s", i+1, got, want)
		}
	}
}

// What comes late for a period of the term takes its part of the true-up back.
func TestCommitmentOverATermCountsLateUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	def := perMinute("C-1")
	w.upgrade(t, a, sandbox.TokenVisa)
	def.End, def.Commitment = day(time.May, 10), commitment(true, 100_000)
	w.agree(t, a, def)
	w.use(t, a, "voice", "6000")
	w.until(t, day(time.April, 10))
	w.until(t, day(time.May, 10))
	w.until(t, day(time.May, 12))
	if got := w.lines(t, a, day(time.April, 10)); got != "commitment 90000" {
		t.Errorf("the last month of the term: %s", got)
	}
	if r := w.useAt(t, a, "voice", "600", day(time.May, 9)); r.Problem != nil {
		t.Fatalf("late usage: %+v", r)
	}
	w.until(t, day(time.June, 10))
	w.until(t, day(time.June, 12))
	if got := w.lines(t, a, day(time.May, 10)); got != "adjustment 1000, adjustment -1000" {
		t.Errorf("the next invoice: %s, want ten minutes more and as much less true-up", got)
	}
}

// prepaid is 1,000 dollars paid ahead for three months, then 500, at a dollar a minute.
func prepaid(t *testing.T, w *world, token string) (account.ID, billing.Agreement) {
	t.Helper()
	a := w.open(t).ID
	w.upgrade(t, a, token)
	def := perMinute("C-1")
	def.End, def.Commitment = day(time.September, 10), commitment(false, 100_000, 50_000)
	def.Commitment.Prepaid = true
	return a, w.agree(t, a, def)
}

// prepayments are the account's prepayment invoices, the latest first, every line verified.
func (w *world) prepayments(t *testing.T, a account.ID) string {
	t.Helper()
	all, err := w.DB.Invoices().List(t.Context(), a, "", page.Request{Limit: page.MaxLimit})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, inv := range all.Data {
		if inv.Kind != invoice.Prepayment {
			continue
		}
		out = append(out, fmt.Sprintf("%s %s %d", inv.Period.Start.Format(time.DateOnly), inv.Status, inv.Total.Minor))
		if v, err := (billing.Reader{Core: w.Core}).Verify(t.Context(), a, inv.ID, 1); err != nil || !v.Verified || v.Line.Kind != "prepayment" {
			t.Errorf("the line of %s is not verified: %+v, %v", inv.ID, v, err)
		}
	}
	return strings.Join(out, ", ")
}

func TestPrepaidUsageIsDrawnDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, _ := prepaid(t, w, sandbox.TokenVisa)
	if got := w.prepayments(t, a); got != "2026-03-10 open 100000" {
		t.Fatalf("billed ahead: %s", got)
	}
	w.sweep(t)
	if got, b := w.prepayments(t, a), w.balance(t, a); got != "2026-03-10 paid 100000" || b.Due != usd(0) || b.Accrued != usd(0) {
		t.Fatalf("the card is charged at once: %s, %+v", got, b)
	}
	for i, minutes := range []int64{600, 700, 100, 200, 0, 400} {
		if minutes > 0 {
			w.use(t, a, "voice", fmt.Sprint(60*minutes))
		}
		want := []int64{0, 30_000, 10_000, 0, 0, 10_000}[i] // what is beyond
		if b := w.balance(t, a); b.Accrued != usd(want) {
			t.Errorf("month %d: accrued %s, want %s", i+1, b.Accrued, usd(want))
		}
		w.until(t, day(time.April+time.Month(i), 10))
		w.until(t, day(time.April+time.Month(i), 12))
	}
	for i, want := range []string{
		"usage 60000, drawdown -60000",
		"usage 70000, drawdown -40000", // the last 400 of 1,000
		"usage 10000",
		"usage 20000, drawdown -20000", // of the next 500
		"",
		"usage 40000, drawdown -30000",
	} {
		if got := w.lines(t, a, day(time.March+time.Month(i), 10)); got != want {
			t.Errorf("month %d: %s, want %s", i+1, got, want)
		}
	}
	if got := w.prepayments(t, a); got != "2026-06-10 paid 50000, 2026-03-10 paid 100000" {
		t.Errorf("billed ahead: %s", got)
	}
	all, err := w.DB.Payments().Payments(t.Context(), a, page.Request{Limit: page.MaxLimit})
	if err != nil {
		t.Fatal(err)
	}
	paid := int64(0)
	for _, p := range all.Data {
		if p.Status == payment.Succeeded {
			paid += p.Amount.Minor
		}
	}
	if paid != 200_000 { // 1,500 ahead, and 300 + 100 + 100 beyond
		t.Errorf("the card has paid %d", paid)
	}
}

// What comes late for a period draws on what was prepaid before what was used in later periods does.
func TestPrepaidUsageCountsLateUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, _ := prepaid(t, w, sandbox.TokenVisa)
	w.use(t, a, "voice", "54000") // 900 minutes
	w.until(t, day(time.April, 10))
	w.until(t, day(time.April, 12))
	if r := w.useAt(t, a, "voice", "3000", day(time.April, 9)); r.Problem != nil {
		t.Fatalf("late usage: %+v", r)
	}
	w.use(t, a, "voice", "6000")
	w.until(t, day(time.May, 10))
	w.until(t, day(time.May, 12))
	// 50 minutes late, which 50.00 of the 100.00 left pay for; of the 100 minutes of April 50 are left to pay.
	if got := w.lines(t, a, day(time.April, 10)); got != "usage 10000, drawdown -5000, adjustment 5000, adjustment -5000" {
		t.Errorf("the invoice of April: %s", got)
	}
}

// A prepayment that no card pays is owed like any other invoice.
func TestPrepaymentThatIsDeclinedIsDue(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, _ := prepaid(t, w, sandbox.TokenChargeDeclined)
	w.sweep(t)
	if got, b := w.prepayments(t, a), w.balance(t, a); got != "2026-03-10 open 100000" || b.Due != usd(100_000) {
		t.Errorf("%s, %+v", got, b)
	}
	all, err := w.DB.Invoices().List(t.Context(), a, "", page.Request{Limit: 1})
	if err != nil || len(all.Data) == 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	adjuster := billing.Adjuster{Core: w.Core}
	if _, err := adjuster.Void(t.Context(), asked(a, newKey()), all.Data[0].ID, "goodwill", nil); !errors.Is(err, billing.ErrPaidAhead) {
		t.Errorf("what usage draws on was taken back: %v", err)
	}
}

func TestContractEndedBeforeItsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	def := perMinute("C-1")
	def.End, def.Commitment = day(time.September, 10), commitment(true, 100_000)
	k := w.agree(t, a, def)
	w.use(t, a, "voice", "6000")
	w.until(t, day(time.April, 10))
	end := func(id subscription.ContractID, at time.Time) (billing.Agreement, error) {
		got, err := billing.Contractor{Core: w.Core}.End(t.Context(), asked(a, newKey()), billing.EndInput{Contract: id, At: at, Reason: "terminated"}, nil)
		return got.Record, err
	}
	if _, err := end(k.ID, day(time.April, 1)); err == nil {
		t.Error("it was ended in the past")
	}
	if _, err := end(k.ID, day(time.October, 1)); err == nil {
		t.Error("it was ended after its own end")
	}
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "", nil); !errors.Is(err, billing.ErrUnderContract) {
		t.Errorf("the account was closed under a contract: %v", err)
	}
	if got, err := end(k.ID, time.Time{}); err != nil || got.Status != billing.ContractActive {
		t.Fatalf("%+v, %v: it holds until the period ends", got, err)
	}
	if _, err := end(k.ID, time.Time{}); !errors.Is(err, billing.ErrContractOver) {
		t.Errorf("ended twice: %v", err)
	}
	w.use(t, a, "voice", "6000")
	w.until(t, day(time.May, 10))
	w.until(t, day(time.May, 12))
	if got := w.lines(t, a, day(time.April, 10)); got != "usage 10000, commitment 80000" {
		t.Errorf("its last period: %s", got)
	}
	if w.level(t, a) != plan.Developer || w.contract(t, a, k.ID) != billing.ContractEnded {
		t.Errorf("level %s, contract %s", w.level(t, a), w.contract(t, a, k.ID))
	}

	later := perMinute("C-2")
	later.Start = day(time.June, 10)
	waiting := w.agree(t, a, later)
	if got, err := end(waiting.ID, time.Time{}); err != nil || got.Status != billing.ContractEnded {
		t.Errorf("one that waits: %+v, %v", got, err)
	}
	w.until(t, day(time.July, 10))
	if w.level(t, a) != plan.Developer {
		t.Errorf("an ended contract has begun: %s", w.level(t, a))
	}
}

// Due goes by the account's own clock: the machine's stands still here.
func TestContractGoesByTheAccountsClock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct, err := billing.Opener{Core: w.Core}.Open(t.Context(), billing.NewAccount{ClockAt: start})
	if err != nil {
		t.Fatal(err)
	}
	def := perMinute("C-1")
	def.Start = day(time.April, 10)
	k := w.agree(t, acct.ID, def)
	w.sweep(t)
	if got := w.contract(t, acct.ID, k.ID); got != billing.ContractScheduled {
		t.Errorf("%s before its time", got)
	}
	if acct, err = w.DB.Accounts().Get(t.Context(), acct.ID); err != nil {
		t.Fatal(err)
	}
	acct.ClockAt = day(time.April, 11)
	if err := w.DB.Accounts().Save(t.Context(), &acct); err != nil {
		t.Fatal(err)
	}
	w.sweep(t)
	if got := w.contract(t, acct.ID, k.ID); got != billing.ContractActive {
		t.Errorf("%s on the account's 11 April", got)
	}
}
