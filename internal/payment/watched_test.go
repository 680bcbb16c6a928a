package payment_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
)

// answering is a gateway whose charges come out as it is told.
type answering struct {
	payment.Gateway
	outcome payment.Outcome
	err     error
}

func (a answering) Charge(context.Context, payment.ChargeRequest) (payment.ChargeResult, error) {
	return payment.ChargeResult{Ref: "ch_1", Outcome: a.outcome}, a.err
}

func (a answering) Detach(context.Context, payment.DetachRequest) error { return a.err }

func TestWatch_TellsWhatCameOfACall(t *testing.T) {
	t.Parallel()
	now := time.Unix(0, 0)
	clk := func() time.Time { now = now.Add(time.Second); return now }
	for name, tc := range map[string]struct {
		outcome payment.Outcome
		err     error
		want    string
	}{
		"Outcome":   {payment.OutcomeDeclined, nil, "declined"},
		"Known":     {"", payment.ErrUnknown.Because(errors.New("EOF")), "gateway_outcome_unknown"},
		"Unknown":   {"", errors.New("EOF"), "failed"},
		"Succeeded": {payment.OutcomeSucceeded, nil, "succeeded"},
	} {
		var got []any
		g := payment.Watch(answering{outcome: tc.outcome, err: tc.err}, clk, func(call, outcome string, took time.Duration) {
			got = append(got, call, outcome, took)
		})
		r, err := g.Charge(t.Context(), payment.ChargeRequest{})
		if r.Ref != "ch_1" || !errors.Is(err, tc.err) || !slices.Equal(got, []any{"charge", tc.want, time.Second}) {
			t.Errorf("%s: %v %v, told %v", name, r, err, got)
		}
	}
	var outcome string
	told := func(_, o string, _ time.Duration) { outcome = o }
	if err := payment.Watch(answering{}, clk, told).Detach(t.Context(), payment.DetachRequest{}); err != nil || outcome != "done" {
		t.Errorf("without a result: %v, told %q", err, outcome)
	}
}

// A call that is added to the port is watched as well: with no gateway behind it, a watched one still looks at the clock
// before it fails, and one that was merely let through does not.
func TestWatch_LeavesNoCallOut(t *testing.T) {
	t.Parallel()
	looked := false
	clk := func() time.Time { looked = true; return time.Time{} }
	g := reflect.ValueOf(payment.Watch(nil, clk, func(string, string, time.Duration) {}))
	port := reflect.TypeFor[payment.Gateway]()
	for method := range port.Methods() {
		m := g.MethodByName(method.Name)
		if m.Type().NumIn() == 0 || m.Type().In(0) != reflect.TypeFor[context.Context]() || method.Name == "ListCharges" {
			continue
		}
		args := []reflect.Value{reflect.ValueOf(t.Context())}
		for j := 1; j < m.Type().NumIn(); j++ {
			args = append(args, reflect.Zero(m.Type().In(j)))
		}
		looked = false
		func() {
			defer func() { _ = recover() }()
			m.Call(args)
		}()
		if !looked {
			t.Errorf("%s is not watched", method.Name)
		}
	}
}
