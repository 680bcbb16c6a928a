package billing_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

// everyKind has a meter for each aggregation and each rounding. All of it costs 1 a unit, so that amounts
// in dollars are the quantities billed.
const everyKind = `
currencies: [USD]
meters:
  - {code: total, unit: byte, aggregation: sum}
  - {code: requests, unit: request, aggregation: count}
  - {code: peak, unit: seat, aggregation: max}
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
//	peak       the largest of 2, 5, 3    5
//	stored     the latest by its time    3
//	users      ann, bob, ann             2
//	calls      by 60/6 each: 1 → 60, 61 → 66, 72 → 72   198
//	batch      61.5 in the period, by 60 started        120
//	fee        10 % of 198 + 120         31.80
func TestAggregations_FromEventsToTheInvoice(t *testing.T) {
	t.Parallel()

	const want = "total 7.75 775, requests 3 300, peak 5 500, stored 3 300, users 2 200, calls 198 19800, batch 61.5 12000,  0 3180"
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
		events = append(events, metering.Event{
			Account: a, Source: "test", ID: newKey(), Meter: e.meter, Quantity: money.MustDecimal(e.quantity), Value: e.value,
			OccurredAt: w.clock().Add(time.Duration(i-100) * time.Minute),
		})
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
