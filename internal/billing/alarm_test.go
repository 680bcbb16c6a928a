package billing_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// A payment whose outcome stays unknown, however often the provider is asked, is told to the operator after 15
// minutes: once in the log, and in numbers for as long as it lasts.
func TestAlarm_TellsOfAPaymentThatStaysUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var log bytes.Buffer
	w.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
	a := w.onPro(t)
	began := w.clock()
	w.fault(t, sandbox.Fault{Op: "*", Kind: sandbox.FaultStatus, Status: 500, Times: 1000})
	if top := w.topUp(t, a, 1000); top.Status != payment.Processing {
		t.Fatalf("the top-up is %s, want it processing", top.Status)
	}

	alarm := &billing.Alarm{Core: w.Core}
	look := func(want payment.Overdue, told int, when string) {
		t.Helper()
		if err := alarm.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := alarm.Last(); got != want {
			t.Errorf("%s: %+v is overdue, want %+v", when, got, want)
		}
		if n := strings.Count(log.String(), "the provider's word is overdue"); n != told {
			t.Errorf("%s: told %d times, want %d\n%s", when, n, told, &log)
		}
	}
	pass := func(d time.Duration) {
		t.Helper()
		w.advance(d)
		w.sweep(t) // asks the provider again, which does not say
	}
	pass(w.Policy.AlarmAfter)
	look(payment.Overdue{}, 0, "within its time")
	pass(time.Second)
	for range 3 {
		look(payment.Overdue{Payments: 1, Oldest: began}, 1, "after its time")
		pass(time.Minute)
	}
	if err := w.control.ClearPlan(t.Context()); err != nil {
		t.Fatal(err)
	}
	pass(24 * time.Hour)
	look(payment.Overdue{}, 1, "once the provider has answered")
}

// What the provider reports otherwise than it was asked for waits for a person from the first moment on.
func TestAlarm_TellsOfAPaymentThatIsParked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var log bytes.Buffer
	w.Log = slog.New(slog.NewTextHandler(&log, nil))
	a := w.onPro(t)
	w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultWrongAmount})
	w.topUp(t, a, 1000)
	alarm := &billing.Alarm{Core: w.Core}
	for range 2 {
		if err := alarm.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := alarm.Last(); got != (payment.Overdue{Parked: 1}) {
		t.Errorf("%+v is overdue, want one parked", got)
	}
	if n := strings.Count(log.String(), "parked until a person decides"); n != 1 {
		t.Errorf("told %d times, want once:\n%s", n, &log)
	}
}
