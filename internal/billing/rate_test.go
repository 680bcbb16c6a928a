package billing_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// everyKind has a meter for each aggregation and each rounding. All of it costs 1 a unit, so that amounts
// in dollars are the quantities billed.
const everyKind = `
currencies: [USD]
meters:
  - {code: total, unit: byte, aggregation: sum}
  - {code: requests, unit: request, aggregation: count}
  - {code: peak, unit: seat, aggregation: max, dimensions: [region]}
  - {code: stored, unit: gigabyte, aggregation: last}
  - {code: users, unit: user, aggregation: unique}
  - {code: calls, unit: second, rounding: {first: 60, step: 6}}
  - {code: batch, unit: second}
plans:
  - code: every
    name: Every kind
    charges:
      - {meter: total, prices: {USD: {model: per_unit, unit_price: 1}}}
      - {meter: requests, prices: {USD: {model: per_unit, unit_price: 1}}}
      - {meter: peak, prices: {USD: {model: per_unit, unit_price: 1}}}
      - {code: peak_eu, meter: peak, match: {region: eu}, prices: {USD: {model: per_unit, unit_price: 1}}}
      - {meter: stored, prices: {USD: {model: per_unit, unit_price: 1}}}
      - {meter: users, prices: {USD: {model: per_unit, unit_price: 1}}}
      - {meter: calls, prices: {USD: {model: per_unit, unit_price: 1}}}
      - {meter: batch, step: 60, prices: {USD: {model: per_unit, unit_price: 1}}}
      - {code: fee, name: Regulatory fee, percent: {rate: 10, of: [calls, batch]}}
`

// From events to the invoice, whichever way they are sent:
//
//	total      2.5 + 4.25 + 1            7.75
//	requests   three events, whatever their quantity      3
//	peak       the largest of 2, 5, 3    5; in the region that has a price of its own, of 4, 1    4
//	stored     the latest by its time    3
//	users      ann, bob, ann             2
//	calls      by 60/6 each: 1 → 60, 61 → 66, 72 → 72   198
//	batch      61.5 in the period, by 60 started        120
//	fee        10 % of 198 + 120         31.80
func TestAggregations_FromEventsToTheInvoice(t *testing.T) {
	t.Parallel()

	const want = "total 7.75 775, requests 3 300, peak 5 500, peak 4 400, stored 3 300, users 2 200, calls 198 19800, batch 61.5 12000,  0 3180"
	w := newWorld(t)
	own, err := plan.ParseCatalogue([]byte(everyKind))
	if err != nil {
		t.Fatal(err)
	}
	c := plan.Shipped()
	own.Offers[0].Plan.Position = len(c.Offers) // above all others
	c.Meters, c.Offers = append(c.Meters, own.Meters...), append(c.Offers, own.Offers...)
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	in := metering.NewIngester(postgres.Journal(w.db.ByKey()), billing.Meters(c.Meters), w.clock, w.Log, metering.Options{Pricer: billing.Pricer{Core: w.Core}})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = in.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })

	a, b := w.open(t).ID, w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.upgrade(t, b, sandbox.TokenVisa)
	w.moveTo(t, a, "every")
	w.moveTo(t, b, "every")
	w.advance(24 * time.Hour)
	var events []metering.Event
	for i, e := range []struct{ meter, quantity, value string }{
		{"total", "2.5", ""},
		{"total", "4.25", ""},
		{"total", "1", ""},
		{"requests", "9", ""},
		{"requests", "1", ""},
		{"requests", "0.5", ""},
		{"peak", "2", ""},
		{"peak", "5", ""},
		{"peak", "3", ""},
		{"peak", "4", "eu"},
		{"peak", "1", "eu"},
		{"stored", "8", ""},
		{"stored", "1", ""},
		{"stored", "3", ""},
		{"users", "1", "ann"},
		{"users", "1", "bob"},
		{"users", "1", "ann"},
		{"calls", "1", ""},
		{"calls", "61", ""},
		{"calls", "72", ""},
		{"batch", "40", ""},
		{"batch", "21.5", ""},
	} {
		event := metering.Event{
			Account: a, Source: "test", ID: newKey(), Meter: e.meter, Quantity: money.MustDecimal(e.quantity), Value: e.value,
			OccurredAt: w.clock().Add(time.Duration(i-100) * time.Minute),
		}
		if e.meter == "peak" && e.value != "" {
			event.Value, event.Dimensions = "", metering.DimensionsOf(map[string]string{"region": e.value})
		}
		events = append(events, event)
	}
	send := func(events ...metering.Event) {
		t.Helper()
		results, err := in.Add(t.Context(), events)
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range results {
			if r.Status != metering.Accepted {
				t.Fatalf("%+v: %+v", events[i], r)
			}
		}
	}
	send(events...)
	slices.Reverse(events) // and to the other account one by one, the latest first
	for _, e := range events {
		e.Account, e.ID = b, newKey()
		send(e)
	}
	w.until(t, day(time.April, 12))
	for _, account := range []struct {
		name  string
		lines []invoice.Line
	}{{"in order", w.content(t, a, day(time.March, 10))}, {"latest first", w.content(t, b, day(time.March, 10))}} {
		got := ""
		for i, l := range account.lines {
			if i > 0 {
				got += ", "
			}
			var d pricing.Derivation
			if err := json.Unmarshal(l.Derivation, &d); err != nil {
				t.Fatal(err)
			}
			got += fmt.Sprintf("%s %s %d", d.Meter, d.Quantity, l.Amount.Minor)
		}
		if got != want {
			t.Errorf("%s: billed %s,\nwant %s", account.name, got, want)
		}
	}
}

// A plan's fee is due for the time for which the plan was held. The period is 10 March to 10 April, 31 days:
//
//	10 to 20 March  Pro, without a fee
//	20 to 30 March  Growth, 22.00: 22 × 20⁄31 = 14.19 less 22 × 10⁄31 = 7.10        7.09
//	30 March on     Scale, 330.00: 330.00 less 330 × 20⁄31 = 212.90               117.10
//	usage           1,000 minutes over all of it, at Scale's 0.01                   10.00
//	credit          Growth's 10.00 for its time: 10 × 20⁄31 less 10 × 10⁄31         −3.22
func TestProration_FeesAreDueForTheTimeHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onProAmongFees(t)
	w.use(t, a, "voice", "30000")
	w.until(t, day(time.March, 20))
	w.moveTo(t, a, "growth")

	w.until(t, day(time.March, 30))
	preview, err := billing.Upgrader{Core: w.Core}.Preview(t.Context(), a, "scale")
	if err != nil {
		t.Fatal(err)
	}
	w.use(t, a, "voice", "30000")
	w.moveTo(t, a, "scale")
	if want := usd(709 + 11710 + 500 - 322); preview.After != want { // with half of the usage
		t.Errorf("the preview says %s, want %s", preview.After, want)
	}
	balance, err := billing.Reader{Core: w.Core}.Balance(t.Context(), a)
	if err != nil || balance.Accrued != usd(709+11710+1000-322) {
		t.Errorf("accrued is %s (%v)", balance.Accrued, err)
	}

	w.until(t, day(time.April, 12))
	if got, want := w.lines(t, a, day(time.March, 10)), "fee 709, fee 11710, usage 1000, credit -322"; got != want {
		t.Errorf("billed %s, want %s", got, want)
	}
	// What comes late is priced as the rest of its period; the fees stay what they were.
	if r := w.useAt(t, a, "voice", "60000", day(time.March, 25)); r.Status != metering.Accepted {
		t.Fatalf("late usage: %+v", r)
	}
	w.until(t, day(time.May, 12))
	if got, want := w.lines(t, a, day(time.April, 10)), "fee 33000, adjustment 1000"; got != want {
		t.Errorf("the next period is billed %s, want %s", got, want)
	}
}

// A credit is due for the time for which its plan was held, also where the plan has no fee. The period is as above:
//
//	20 to 30 March  Covered, which has 10.00 of usage included and no fee
//	30 March on     Scale, 330.00: 330.00 less 330 × 20⁄31                              117.10
//	usage           1,000 minutes at Scale's 0.01                                   10.00
//	credit          10 × 20⁄31 less 10 × 10⁄31                                      −3.22
func TestProration_ACreditWithoutAFeeIsDueForTheTimeHeld(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onProAmongFees(t)
	c := plan.Shipped()
	c.Offers = append(c.Offers, plan.Offer{
		Plan:    plan.Plan{Code: "covered", Name: "Covered", Position: 9, RequiresCard: true},
		Version: plan.Version{Plan: "covered", Currencies: []money.Currency{money.USD}, Credit: plan.Sums{usd(1000)}, Charges: perMinute("").Charges},
	})
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	w.use(t, a, "voice", "60000")
	w.until(t, day(time.March, 20))
	w.moveTo(t, a, "covered")
	w.until(t, day(time.March, 30))
	w.moveTo(t, a, "scale")
	w.until(t, day(time.April, 12))
	if got, want := w.lines(t, a, day(time.March, 10)), "fee 11710, usage 1000, credit -322"; got != want {
		t.Errorf("billed %s, want %s", got, want)
	}
}

// A migration at once bills the running period as though its version had been held instead of the older one:
//
//	10 to 20 March  Pro, without a fee
//	20 March on     Growth, 44.00 from version 2 on: 44.00 less 44 × 10⁄31 = 14.19     29.81
func TestProration_AMigrationAtOnceCountsFromTheBeginning(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onProAmongFees(t)
	w.until(t, day(time.March, 20))
	w.moveTo(t, a, "growth")
	w.until(t, day(time.March, 25))
	c := plan.Shipped()
	v, err := w.DB.Plans().Current(t.Context(), "growth")
	if err != nil {
		t.Fatal(err)
	}
	v.Number, v.Fee = 0, &plan.Fee{Name: "Growth", Prices: plan.Sums{usd(4400)}}
	c.Offers = append(c.Offers, plan.Offer{Plan: plan.Plan{Code: "growth", Name: "growth", Position: 10, RequiresCard: true}, Version: v})
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	in := billing.MigrationInput{Plan: "growth", To: 2, When: subscription.AtOnce}
	if _, err := (billing.Migrator{Core: w.Core}).Begin(t.Context(), asked(account.ID{}, newKey()), in, asJSON[subscription.Migration](201)); err != nil {
		t.Fatal(err)
	}
	w.sweep(t)
	if b := w.balance(t, a); b.Accrued != usd(2981) {
		t.Errorf("accrued is %s", b.Accrued)
	}
	w.until(t, day(time.April, 12))
	if got, want := w.lines(t, a, day(time.March, 10)), "fee 2981"; got != want {
		t.Errorf("billed %s, want %s", got, want)
	}
}

// Plans without a fee are changed without a trace on the bill, and the allowance counts once.
func TestProration_NothingIsProratedWithoutAFee(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.until(t, day(time.March, 25))
	w.upgrade(t, a, sandbox.TokenVisa)
	w.use(t, a, "voice", "72000") // 1,200 minutes, of which 1,000 are included: 200 × 0.027
	w.until(t, day(time.April, 12))
	if got, want := w.lines(t, a, day(time.March, 10)), "usage 540"; got != want {
		t.Errorf("billed %s, want %s", got, want)
	}
}
