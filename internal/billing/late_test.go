package billing_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// What a correction gives to the balance pays what is open, as other funds do.
func TestLateUsage_WhatItCreditsPaysWhatIsOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.useAs(t, a, "long", "voice", "180000", w.clock()) // 54.00
	w.until(t, w.clock().Add(35*24*time.Hour))
	w.addCard(t, a, sandbox.TokenLost)
	w.use(t, a, "voice", "120000") // 27.00
	w.until(t, w.clock().Add(30*24*time.Hour))
	w.wantBalance(t, a, 0, 2700)
	w.correct(t, a, "long", "")
	w.until(t, w.clock().Add(31*24*time.Hour))
	w.wantBalance(t, a, 2700, 0)
	if acct, err := w.DB.Accounts().Get(t.Context(), a); err != nil || acct.Status != account.Active {
		t.Errorf("the account is %s, %v", acct.Status, err)
	}
}

// Usage belongs to the period in which it happened, whenever it is told. The period is 10 March to 10 April,
// on a plan of 0.03 a minute; the next is on one of 0.01:
//
//	1,000 minutes in time                                          30.00
//	100 minutes, told while the invoice is a draft                  3.00   enter it
//	100 minutes, told when it is final and the plan another         3.00   an adjustment of the next, at the old price
func TestLateUsage_EntersTheDraftAndThenTheNextInvoice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onProAmongFees(t)
	w.moveTo(t, a, "growth")
	w.use(t, a, "voice", "60000")
	late := func(at time.Time) {
		t.Helper()
		if r := w.useAt(t, a, "voice", "6000", at); r.Status != metering.Accepted {
			t.Fatalf("late usage: %+v", r)
		}
	}

	first, err := w.DB.Subscriptions().Active(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	w.until(t, first.Period.End.Add(time.Hour))
	draft, err := w.DB.Invoices().OfPeriod(t.Context(), a, first.ID, first.Period.Start)
	if err != nil || draft.Status != invoice.Draft {
		t.Fatalf("after its end the period has %+v (%v), not a draft", draft, err)
	}
	late(day(time.March, 25))
	w.until(t, first.Period.End.Add(w.Policy.Grace+time.Hour))
	const billed = "fee 2173, usage 3300, credit -988"
	if got := w.lines(t, a, first.Period.Start); got != billed {
		t.Errorf("billed %s, want %s", got, billed)
	}

	w.advance(time.Hour)
	w.moveTo(t, a, "scale")
	late(day(time.March, 26))
	w.until(t, first.Period.End.AddDate(0, 1, 2))
	if got, want := w.lines(t, a, first.Period.End), ", adjustment 300"; !strings.HasSuffix(got, want) {
		t.Errorf("the next period is billed %s, want %q at its end", got, want)
	}
	if got := w.lines(t, a, first.Period.Start); got != billed {
		t.Errorf("the final invoice became %s, was %s", got, billed)
	}
}

// What comes late, and what is corrected, in the very moment in which its period is closed or its invoice made final: it
// stands on that invoice or on the next, once. Of each account at 0.03 a minute:
//
//	1,000 minutes in time, two calls of 20 and two of 10         1,060
//	100 late minutes at each of the two moments                   +200
//	at each, one call of 20 becomes one of 10, and one of 10 void   −40
//	                                                             1,220 = 36.60
func TestLateUsage_ComesJustWhenItsPeriodIsClosed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(t, withFees(plan.Shipped()))
	w.tick = time.Microsecond // what was counted on an invoice is told from what came after by the time
	other := w.ingester(t, w.replica(t))
	fix := billing.Corrections{Core: w.replica(t), Catalogue: billing.Meters(plan.Shipped().Meters)}
	accounts := make([]account.ID, often(6, 100))
	var first subscription.Subscription
	for i := range accounts {
		a := w.open(t).ID
		accounts[i] = a
		w.upgrade(t, a, sandbox.TokenVisa)
		w.moveTo(t, a, "growth")
		w.use(t, a, "voice", "60000")
		for moment := range 2 {
			w.useAs(t, a, fmt.Sprint("long", moment), "voice", "1200", w.clock())
			w.useAs(t, a, fmt.Sprint("short", moment), "voice", "600", w.clock())
		}
		var err error
		if first, err = w.DB.Subscriptions().Active(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	correct := func(a account.ID, event string, kind metering.Kind) {
		_, err := fix.Correct(t.Context(), asked(a, newKey()), metering.Correction{
			Source: "test", EventID: event, Kind: kind, Quantity: money.DecimalFromInt(600), Reason: "it was otherwise",
		}, nil)
		if err != nil {
			t.Errorf("correct %s: %v", event, err)
		}
	}
	closer := billing.Closer{Core: w.Core}
	for moment, at := range []time.Time{first.Period.End.Add(time.Hour), first.Period.End.Add(w.Policy.Grace + 2*time.Hour)} {
		w.advance(at.Sub(w.clock()))
		for _, a := range accounts {
			sub, err := w.DB.Subscriptions().Active(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			draft, _ := w.DB.Invoices().OfPeriod(t.Context(), a, sub.ID, first.Period.Start)
			doing := []func(){
				func() {
					if moment == 0 {
						_, err = closer.Close(t.Context(), a)
					} else {
						err = closer.Finalize(t.Context(), a, draft.ID)
					}
					if err != nil {
						t.Error(err)
					}
				},
				func() { correct(a, fmt.Sprint("long", moment), metering.Amend) },
				func() { correct(a, fmt.Sprint("short", moment), metering.Void) },
				func() {
					for i, in := range []*metering.Ingester{w.ingest, other, w.ingest, other} {
						late := metering.Event{Account: a, Source: "late", ID: fmt.Sprint(moment, i), Meter: "voice", Quantity: money.DecimalFromInt(1500), OccurredAt: day(time.March, 25)}
						if r, err := in.Add(t.Context(), []metering.Event{late}); err != nil || r[0].Status != metering.Accepted {
							t.Errorf("late usage: %+v, %v", r, err)
						}
					}
				},
			}
			together(len(doing), func(i int) { doing[i]() })
		}
	}
	w.until(t, first.Period.End.AddDate(0, 1, 0).Add(time.Hour))
	w.until(t, first.Period.End.AddDate(0, 1, 0).Add(w.Policy.Grace+2*time.Hour))
	adjusted := 0
	for _, a := range accounts {
		var billed int64
		for _, start := range []time.Time{first.Period.Start, first.Period.End} {
			for _, l := range w.content(t, a, start) {
				switch pricing.Kind(l.Kind) {
				case pricing.KindAdjustment:
					adjusted++
					billed += l.Amount.Minor
				case pricing.KindUsage:
					billed += l.Amount.Minor
				default: // the fee, and what it covers
				}
			}
		}
		if billed != 3660 {
			t.Errorf("%s is billed %d for its usage, want 3660", a, billed)
		}
	}
	if adjusted == 0 {
		t.Error("nothing came after an invoice was final: the moments are badly chosen")
	}
}

// Late usage is held to the limits of the period in which it happened, not to those of today. Developer stops at
// 1,000 minutes, Pro does not.
func TestLateUsage_IsHeldToTheLimitsOfItsPeriod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const most, more = "60000", "600000" // seconds
	refused := func(a account.ID, at time.Time) {
		t.Helper()
		if r := w.useAt(t, a, "voice", more, at); r.Status != metering.Rejected || r.Problem.Code != string(entitlement.LimitReached) {
			t.Errorf("beyond the limit at %s: %+v", at, r)
		}
	}
	accepted := func(a account.ID, quantity string, at time.Time) {
		t.Helper()
		if r := w.useAt(t, a, "voice", quantity, at); r.Status != metering.Accepted {
			t.Errorf("%s s at %s: %+v", quantity, at, r)
		}
	}
	down, up := w.open(t).ID, w.open(t).ID
	w.upgrade(t, down, sandbox.TokenVisa)
	if _, err := (billing.Downgrader{Core: w.Core}).Plan(t.Context(), asked(down, newKey()), plan.Developer, nil); err != nil {
		t.Fatal(err)
	}
	first, err := w.DB.Subscriptions().Active(t.Context(), down)
	if err != nil {
		t.Fatal(err)
	}
	turn := first.Period.End
	w.until(t, turn.Add(time.Hour))
	w.upgrade(t, up, sandbox.TokenVisa)
	old, now := turn.Add(-time.Microsecond), turn

	t.Run("AfterADowngrade", func(t *testing.T) {
		accepted(down, more, old)
		refused(down, now)
		accepted(down, most, now)
		const id = "to be amended"
		res, err := w.ingest.Add(t.Context(), []metering.Event{{
			Account: down, Source: "test", ID: id, Meter: "voice", Quantity: money.MustDecimal("1"), OccurredAt: old,
		}})
		if err != nil || res[0].Status != metering.Accepted {
			t.Fatalf("%+v, %v", res, err)
		}
		fix := billing.Corrections{Core: w.Core, Catalogue: billing.Meters(plan.Shipped().Meters)}
		if _, err := fix.Correct(t.Context(), asked(down, newKey()), metering.Correction{
			Source: "test", EventID: id, Kind: metering.Amend, Quantity: money.MustDecimal(more), Reason: "it was longer",
		}, nil); err != nil {
			t.Errorf("the event of the old period cannot be amended: %v", err)
		}
	})

	t.Run("AfterAnUpgrade", func(t *testing.T) {
		accepted(up, most, old)
		refused(up, old)
		accepted(up, more, now)
	})

	t.Run("AfterASpendLimitWasSet", func(t *testing.T) {
		w.limitSpend(t, up, 1_000_000, entitlement.Hard)
		refused(up, old)
		accepted(up, more, now)
	})
}

// A spend limit is held twice: usage of a period never comes to more than it, whenever it is told, and no invoice
// says more, whatever came late for it. Ten dollars a period, and 0.027 a minute beyond 1,000:
//
//	10 March to 10 April    told late: 300 minutes, 8.10; 100 more would pass the limit
//	10 April to 10 May      told late: 300 minutes, 8.10; 100 more would pass the limit
//	10 May to 10 June       200 minutes, 5.40
//	on its invoice          16.20 that came late and 5.40, of which 11.60 is absorbed
func TestLateUsage_OfTwoPeriodsPassesNoSpendLimit(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const limit = 1000
	a := w.onPro(t)
	w.limitSpend(t, a, limit, entitlement.Hard)
	tell := func(seconds, refusal string, at time.Time) {
		t.Helper()
		event := newKey()
		if seconds == "18000" {
			event = "call of " + at.String()
		}
		r := w.useAs(t, a, event, "voice", seconds, at)
		if refused := r.Status == metering.Rejected; refused != (refusal != "") || refused && r.Problem.Code != refusal {
			t.Errorf("%s s at %s: %+v, want it refused for %q", seconds, at.Format(time.DateTime), r, refusal)
		}
	}

	first := day(time.April, 9)
	w.closed(t, day(time.April, 11))
	w.closed(t, day(time.May, 11))
	second := day(time.May, 9)
	for _, at := range []time.Time{first, second} {
		tell("60000", "", at)
		tell("18000", "", at)
		tell("6000", string(entitlement.SpendLimitReached), at)
	}
	tell("72000", "", w.clock())

	up, err := billing.Reader{Core: w.Core}.Upcoming(t.Context(), a)
	if err != nil || up.Total != usd(limit) || up.Bill.Absorbed != usd(1160) {
		t.Errorf("the preview is %s with %s absorbed (%v), want the limit", up.Total, up.Bill.Absorbed, err)
	}
	w.until(t, day(time.June, 12))
	if got, want := w.lines(t, a, day(time.May, 10)), "usage 540, absorbed -1160, adjustment 810, adjustment 810"; got != want {
		t.Errorf("billed %s, want %s", got, want)
	}

	// What is voided of it was billed on that invoice, with what it absorbed: that comes off first.
	for _, step := range []struct {
		void, want        string
		revenue, absorbed int64
	}{
		{"call of " + first.String(), "adjustment -810, absorbed 810", 1350, 350},
		{"call of " + second.String(), "adjustment -810, absorbed 350, credit_to_balance 460", 1000, 0},
	} {
		w.correct(t, a, step.void, "")
		sub, err := w.DB.Subscriptions().Active(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		start := sub.Period.Start
		w.closed(t, start.AddDate(0, 1, 0))
		if got := w.lines(t, a, start); got != step.want {
			t.Errorf("without the %s: billed %q, want %q", step.void, got, step.want)
		}
		w.wantEarned(t, a, step.revenue, step.absorbed)
	}
}

// What was billed by an invoice that is void was taken back with it: less usage is not credited once more. What comes
// late is billed all the same.
func TestLateUsage_OfAVoidInvoice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	start := day(time.March, 10)
	w.useAs(t, a, "wrong", "voice", "78000", w.clock())
	w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultDecline})
	w.closed(t, start.AddDate(0, 1, 0))
	if err := w.void(t, a, start); err != nil {
		t.Fatal(err)
	}
	w.correct(t, a, "wrong", "")
	w.closed(t, start.AddDate(0, 2, 0))
	if got, want := w.lines(t, a, start.AddDate(0, 1, 0)), "adjustment -810, absorbed 810"; got != want {
		t.Errorf("billed %q, want %q", got, want)
	}
	w.wantBalance(t, a, 0, 0)
	w.useAs(t, a, "late", "voice", "78000", day(time.April, 9))
	w.closed(t, start.AddDate(0, 3, 0))
	if got, want := w.lines(t, a, start.AddDate(0, 2, 0)), "adjustment 810"; got != want {
		t.Errorf("billed %q, want %q", got, want)
	}
	w.correct(t, a, "late", "")
	w.closed(t, start.AddDate(0, 4, 0))
	if got, want := w.lines(t, a, start.AddDate(0, 3, 0)), "adjustment -810, credit_to_balance 810"; got != want {
		t.Errorf("of what is paid billed %q, want %q", got, want)
	}
}

// Usage can be corrected for as long as its event is kept, however many periods have closed since.
func TestLateUsage_CorrectedAfterHalfAYear(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	start := day(time.March, 10)
	w.useAs(t, a, "wrong", "voice", "78000", w.clock())
	for i := range 6 {
		w.closed(t, start.AddDate(0, i+1, 0))
	}
	w.correct(t, a, "wrong", "")
	w.closed(t, start.AddDate(0, 7, 0))
	if got, want := w.lines(t, a, start.AddDate(0, 6, 0)), "adjustment -810, credit_to_balance 810"; got != want {
		t.Errorf("billed %q, want %q", got, want)
	}
	w.wantBalance(t, a, 810, 0)
}

// onPricesByModel is an account on Pro that is under a contract from the returned start: a minute by Opus costs 10.00, and by others 1.00.
func (w *world) onPricesByModel(t *testing.T) (a account.ID, start time.Time) {
	t.Helper()
	a = w.onPro(t)
	def := perMinute("by model")
	opus := def.Charges[0]
	opus.Code, opus.Match, opus.Prices = "opus", map[string]string{"model": "opus"}, []plan.Price{{
		Currency: money.USD, Model: plan.PerUnit, UnitPrice: money.MustDecimal("10"),
	}}
	def.Charges = append([]plan.Charge{opus}, def.Charges...)
	w.agree(t, a, def)
	start = day(time.April, 10)
	w.closed(t, start)
	return a, start
}

func (w *world) useOpus(t *testing.T, a account.ID, event, seconds string, at time.Time) {
	t.Helper()
	res, err := w.ingest.Add(t.Context(), []metering.Event{{
		Account: a, Source: "test", ID: event, Meter: "voice", Quantity: money.MustDecimal(seconds), OccurredAt: at,
		Dimensions: metering.DimensionsOf(map[string]string{"model": "opus"}),
	}})
	if err != nil || res[0].Status != metering.Accepted {
		t.Fatalf("%+v, %v", res, err)
	}
}

// What one model used less and another used more is billed by the prices of each, also where they come to the same total:
//
//	a minute of others in time      1.00
//	none of others, one of Opus    10.00
func TestLateUsage_OfOtherDimensions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, start := w.onPricesByModel(t)
	w.useAs(t, a, "other", "voice", "60", w.clock())
	w.closed(t, start.AddDate(0, 1, 0))
	w.correct(t, a, "other", "")
	w.useOpus(t, a, newKey(), "60", start.AddDate(0, 1, -1))
	w.closed(t, start.AddDate(0, 2, 0))
	if got, want := w.lines(t, a, start.AddDate(0, 1, 0)), "adjustment 1000, adjustment -100"; got != want {
		t.Errorf("billed %q, want %q", got, want)
	}
}

// So it is of a period that is long past, once: a minute of Opus was one of others.
func TestLateUsage_OfOtherDimensionsAfterHalfAYear(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, start := w.onPricesByModel(t)
	w.useAs(t, a, "other", "voice", "60", w.clock())
	w.useOpus(t, a, "opus", "60", w.clock())
	for i := range 6 {
		w.closed(t, start.AddDate(0, i+1, 0))
	}
	w.correct(t, a, "opus", "")
	w.correct(t, a, "other", "120")
	w.closed(t, start.AddDate(0, 7, 0))
	w.closed(t, start.AddDate(0, 8, 0))
	for i, want := range []string{"adjustment -1000, adjustment 100, credit_to_balance 900", ""} {
		if got := w.lines(t, a, start.AddDate(0, 6+i, 0)); got != want {
			t.Errorf("period %d is billed %q, want %q", 6+i, got, want)
		}
	}
}

// What a closed period used beyond its limit was never billed, so what is taken back of it comes off that part first.
// 2,000 minutes on Pro are 27.00, of which 17.00 is absorbed at a limit of 10.00:
//
//	300 minutes taken back    18.90 is left, and 10.00 was billed: nothing comes back
//	500 more                   5.40 is left: 4.60 comes back
func TestSpendLimit_WhatWasAbsorbedIsNotCredited(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	for event, seconds := range map[string]string{"right": "72000", "wrong": "18000", "wrong too": "30000"} {
		w.useAs(t, a, event, "voice", seconds, w.clock())
	}
	w.limitSpend(t, a, 1000, entitlement.Hard)
	for _, period := range []struct {
		start      time.Time
		want, void string
	}{
		{day(time.March, 10), "usage 2700, absorbed -1700", "wrong"},
		{day(time.April, 10), "adjustment -810, absorbed 810", "wrong too"},
		{day(time.May, 10), "adjustment -1350, absorbed 890, credit_to_balance 460", ""},
	} {
		w.closed(t, period.start.AddDate(0, 1, 0))
		if got := w.lines(t, a, period.start); got != period.want {
			t.Errorf("%s is billed %q, want %q", period.start.Format(time.DateOnly), got, period.want)
		}
		if period.void != "" {
			w.correct(t, a, period.void, "")
		}
	}
	w.wantEarned(t, a, 1000, 0) // of which 4.60 was credited
}

// More of a closed period is billed so far as all of the period stays within the limit as it is now. What was absorbed
// stays absorbed, also when the limit has been raised: the customer was told that it is not billed. One call on Pro:
//
//	2,000 minutes are 27.00    17.00 is absorbed at a limit of 10.00
//	2,300 are 35.10            8.10 more, of which nothing is within the limit
//	2,600 are 43.20            8.10 more, of which 4.90 is within a limit of 40.00
//	2,700 are 45.90            2.70 more, all within a limit of 100.00
//	none                       45.90 less, of which 28.30 was absorbed and 17.60 billed
func TestSpendLimit_MoreOfAClosedPeriodIsHeldToTheLimitAsItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	start := day(time.March, 10)
	w.useAs(t, a, "call", "voice", "120000", w.clock())
	w.limitSpend(t, a, 1000, entitlement.Hard)
	w.closed(t, start.AddDate(0, 1, 0))
	for i, change := range []struct {
		seconds           string
		limit             int64
		want              string
		revenue, absorbed int64
	}{
		{"138000", 1000, "adjustment 810, absorbed -810", 3510, 2510},
		{"156000", 4000, "adjustment 810, absorbed -320", 4320, 2830},
		{"162000", 10000, "adjustment 270", 4590, 2830},
		{"", 10000, "adjustment -4590, absorbed 2830, credit_to_balance 1760", 1760, 0},
	} {
		w.limitSpend(t, a, change.limit, entitlement.Hard)
		w.correct(t, a, "call", change.seconds)
		next := start.AddDate(0, i+1, 0)
		w.closed(t, next.AddDate(0, 1, 0))
		if got := w.lines(t, a, next); got != change.want {
			t.Errorf("%q s is billed %q, want %q", change.seconds, got, change.want)
		}
		w.wantEarned(t, a, change.revenue, change.absorbed)
	}
}

// What is credited of earlier periods leaves a period no more than its limit.
func TestSpendLimit_ACreditDoesNotRaiseIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	start := day(time.March, 10)
	w.useAs(t, a, "wrong", "voice", "78000", w.clock()) // 300 minutes beyond the allowance
	w.closed(t, start.AddDate(0, 1, 0))
	w.correct(t, a, "wrong", "")
	w.use(t, a, "voice", "120000")
	w.limitSpend(t, a, 1000, entitlement.Hard)
	w.closed(t, start.AddDate(0, 2, 0))
	if got, want := w.lines(t, a, start.AddDate(0, 1, 0)), "usage 2700, absorbed -1700, adjustment -810"; got != want {
		t.Errorf("billed %q, want %q", got, want)
	}
}

// What comes late for a paid period is billed also where the account is on a plan by now on which nothing costs anything:
// with the period that is running then, or at once where the account is closed in it.
func TestLateUsage_OfAPeriodBeforeAFreePlan(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*testing.T, *world, account.ID){
		"BilledWithTheNextPeriod": func(t *testing.T, w *world, _ account.ID) {
			t.Helper()
			w.closed(t, day(time.May, 10))
		},
		"BilledAtTheEnd": func(t *testing.T, w *world, a account.ID) {
			t.Helper()
			if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onPro(t)
			w.topUp(t, a, 1000)
			w.use(t, a, "voice", "60000") // the allowance
			if _, err := (billing.Downgrader{Core: w.Core}).Plan(t.Context(), asked(a, newKey()), plan.Developer, nil); err != nil {
				t.Fatal(err)
			}
			w.closed(t, day(time.April, 10))
			if r := w.useAt(t, a, "voice", "6000", day(time.April, 9)); r.Status != metering.Accepted {
				t.Fatalf("late usage: %+v", r)
			}
			end(t, w, a)
			if got, want := w.lines(t, a, day(time.April, 10)), "adjustment 270"; got != want {
				t.Errorf("billed %q, want %q", got, want)
			}
			w.wantEarned(t, a, 270, 0)
		})
	}
}

// What a void invoice billed for a period before its own was taken back with it too: 27.00 for 2,000 minutes of the first period, and 8.10 that
// came late for it, on the invoice that is void. Of those 8.10 nothing is credited once more, and of the 27.00 that are paid all is.
func TestLateUsage_OnAVoidInvoice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	start := day(time.March, 10)
	w.useAs(t, a, "call", "voice", "120000", w.clock())
	w.closed(t, start.AddDate(0, 1, 0))
	w.useAs(t, a, "late", "voice", "18000", day(time.April, 9))
	w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultDecline})
	w.closed(t, start.AddDate(0, 2, 0))
	if err := w.void(t, a, start.AddDate(0, 1, 0)); err != nil {
		t.Fatal(err)
	}
	w.correct(t, a, "late", "")
	w.closed(t, start.AddDate(0, 3, 0))
	if got, want := w.lines(t, a, start.AddDate(0, 2, 0)), "adjustment -810, absorbed 810"; got != want {
		t.Errorf("without what came late: billed %q, want %q", got, want)
	}
	w.correct(t, a, "call", "")
	w.closed(t, start.AddDate(0, 4, 0))
	if got, want := w.lines(t, a, start.AddDate(0, 3, 0)), "adjustment -2700, credit_to_balance 2700"; got != want {
		t.Errorf("without the call: billed %q, want %q", got, want)
	}
	w.wantBalance(t, a, 2700, 0)
}

// What is taken back of an invoice that was written off comes off what is owed of it, which nobody has paid, and only then is
// what has been paid given back: 2,000 minutes are 27.00, of which funds have paid 10.00.
func TestLateUsage_OfAnInvoiceThatWasWrittenOff(t *testing.T) {
	t.Parallel()
	start := day(time.March, 10)
	writtenOff := func(t *testing.T) (*world, account.ID, invoice.ID) {
		t.Helper()
		w := newWorld(t)
		a := w.onPro(t)
		w.topUp(t, a, 1000)
		w.behave(t, a, sandbox.TokenChargeDeclined)
		w.useAs(t, a, "call", "voice", "120000", w.clock())
		w.closed(t, start.AddDate(0, 1, 0))
		inv := w.invoiceOf(t, a, start)
		w.writeOff(t, a, inv)
		return w, a, inv
	}
	// corrected makes a quantity of the call, and lets the n-th period after its own be billed.
	corrected := func(t *testing.T, w *world, a account.ID, seconds string, n int, want string) {
		t.Helper()
		w.correct(t, a, "call", seconds)
		w.closed(t, start.AddDate(0, n+1, 0))
		if got := w.lines(t, a, start.AddDate(0, n, 0)); got != want {
			t.Errorf("%q s: billed %q, want %q", seconds, got, want)
		}
	}
	t.Run("NotAllThatIsOwed", func(t *testing.T) {
		t.Parallel()
		w, a, inv := writtenOff(t)
		corrected(t, w, a, "96000", 1, "adjustment -1080, absorbed 1080")
		w.wantInvoice(t, a, inv, invoice.Uncollectible, 1700-1080)
		w.wantBalance(t, a, 0, 0)
		if got, err := w.DB.Invoices().CreditNotesOf(t.Context(), a, inv); err != nil || len(got) != 1 || got[0].ToDue != usd(1080) || got[0].By != w.invoiceOf(t, a, start.AddDate(0, 1, 0)) {
			t.Errorf("credit notes %+v, %v; want one", got, err)
		}
	})
	t.Run("AllThatIsOwedAndThenWhatWasPaid", func(t *testing.T) {
		t.Parallel()
		w, a, inv := writtenOff(t)
		corrected(t, w, a, "80000", 1, "adjustment -1800, absorbed 1700, credit_to_balance 100")
		w.wantInvoice(t, a, inv, invoice.Paid, 0)
		w.wantBalance(t, a, 100, 0)
		corrected(t, w, a, "", 2, "adjustment -900, credit_to_balance 900")
		w.wantBalance(t, a, 1000, 0)
		if b := w.balance(t, a); b.Promo != usd(0) {
			t.Errorf("credit is %s, and only money had paid", b.Promo)
		}
	})
	t.Run("InPartsThatArePaidFor", func(t *testing.T) {
		t.Parallel()
		w, a, inv := writtenOff(t)
		corrected(t, w, a, "96000", 1, "adjustment -1080, absorbed 1080")
		corrected(t, w, a, "", 2, "adjustment -1620, absorbed 620, credit_to_balance 1000")
		w.wantInvoice(t, a, inv, invoice.Paid, 0)
		w.wantBalance(t, a, 1000, 0)
	})
	t.Run("NothingOffOtherUsage", func(t *testing.T) {
		t.Parallel()
		w, a, inv := writtenOff(t)
		w.use(t, a, "voice", "180000") // 54.00
		corrected(t, w, a, "96000", 1, "usage 5400, adjustment -1080, absorbed 1080")
		w.wantInvoice(t, a, inv, invoice.Uncollectible, 1700-1080)
		w.wantBalance(t, a, 0, 5400)
	})
}

// An invoice from which a later one has taken back what was not used is right as the two of them say. Without it the same usage would be given
// back twice, and without the later one what was taken back would be owed again: neither can be void.
func TestVoid_OfWhatCorrectsOrWasCorrected(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.behave(t, a, sandbox.TokenChargeDeclined)
	start := day(time.March, 10)
	w.useAs(t, a, "wrong", "voice", "120000", w.clock())
	w.closed(t, start.AddDate(0, 1, 0))
	w.correct(t, a, "wrong", "")
	w.use(t, a, "voice", "180000") // 54.00
	w.closed(t, start.AddDate(0, 2, 0))
	if got, want := w.lines(t, a, start.AddDate(0, 1, 0)), "usage 5400, adjustment -2700"; got != want {
		t.Fatalf("billed %q, want %q", got, want)
	}
	for _, of := range []time.Time{start, start.AddDate(0, 1, 0)} {
		if err := w.void(t, a, of); !errors.Is(err, billing.ErrCorrected) {
			t.Errorf("void of the invoice of %s: %v, want it refused", of.Format(time.DateOnly), err)
		}
	}
	w.wantBalance(t, a, 0, 5400)
}
