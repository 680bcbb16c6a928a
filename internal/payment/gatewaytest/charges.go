package gatewaytest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

func charge(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	r, res := a.charge(t, 1234)
	must(t, "agrees", res.Agrees(r))
	want(t, "amount", res.Amount, usd(1234))
	want(t, "refunded", res.Refunded, usd(0))
	want(t, "account", res.AccountRef, r.AccountRef)
	want(t, "method", res.MethodRef, r.MethodRef)
	if off := res.CreatedAt.Sub(h.Now).Abs(); off > time.Minute {
		t.Fatalf("created at %s", res.CreatedAt)
	}
	for name, l := range map[string]payment.ChargeLookup{
		"by reference": {Ref: res.Ref},
		"by list":      {PaymentRef: r.PaymentRef, CustomerRef: a.customer, Since: h.Now.Add(-time.Minute)},
		"by search":    {PaymentRef: r.PaymentRef},
	} {
		found, err := h.Gateway.LookupCharge(t.Context(), l)
		must(t, name, err)
		want(t, name, found.Ref, res.Ref)
		must(t, name, found.Agrees(r))
	}
	o, err := h.Gateway.Fetch(t.Context(), payment.ObjectCharge, res.Ref)
	must(t, "fetch", err)
	want(t, "fetched", o.Charge.Ref, res.Ref)
	jpy := a.request(0)
	jpy.Amount = money.New(500, "JPY")
	c, err := h.Gateway.Charge(t.Context(), jpy)
	must(t, "charge in yen", err)
	must(t, "yen agree", c.Agrees(jpy))
}

func chargeTwice(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	r, first := a.charge(t, 700)
	for range 3 {
		again, err := h.Gateway.Charge(t.Context(), r)
		must(t, "repeat", err)
		want(t, "charge", again.Ref, first.Ref)
	}
	want(t, "charges", a.charges(t), 1)
}

func keyReused(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	r, _ := a.charge(t, 700)
	r.Amount = usd(800)
	_, err := h.Gateway.Charge(t.Context(), r)
	wantErr(t, "another amount under the key", err, payment.ErrUnknown)
	want(t, "charges", a.charges(t), 1)
}

func chargeAtOnce(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	r := a.request(900)
	var wg sync.WaitGroup
	var mu sync.Mutex
	refs := map[string]bool{}
	for range 20 {
		wg.Go(func() {
			res, err := h.Gateway.Charge(t.Context(), r)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				refs[res.Ref] = true
			case !errors.Is(err, payment.ErrRetry):
				t.Errorf("charge: %v", err)
			}
		})
	}
	wg.Wait()
	want(t, "charges told of", len(refs), 1)
	want(t, "charges", a.charges(t), 1)
}

func declines(t *testing.T, h Harness) {
	for _, c := range []struct {
		token  string
		code   string
		class  payment.DeclineClass
		advice payment.RetryAdvice
	}{
		{h.Tokens.ChargeDeclined, "generic_decline", payment.DeclineSoft, payment.RetryLater},
		{h.Tokens.InsufficientFunds, "insufficient_funds", payment.DeclineSoft, payment.RetryLater},
		{h.Tokens.Lost, "lost_card", payment.DeclineLost, payment.RetryNewMethod},
	} {
		a := attach(t, h, c.token)
		r := a.request(500)
		res, err := h.Gateway.Charge(t.Context(), r)
		must(t, c.code, err)
		want(t, c.code, res.Outcome, payment.OutcomeDeclined)
		want(t, "code", res.Decline.Code, c.code)
		want(t, "class", res.Decline.Class, c.class)
		want(t, "advice", res.Decline.Advice, c.advice)
		if res.Ref == "" {
			t.Fatal("a declined charge has no reference")
		}
		must(t, "agrees", res.Agrees(r))
		again, err := h.Gateway.Charge(t.Context(), r)
		must(t, "repeat", err)
		want(t, "repeated decline", again.Ref, res.Ref)
		found, err := h.Gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: res.Ref})
		must(t, "look up", err)
		want(t, "outcome looked up", found.Outcome, payment.OutcomeDeclined)
		want(t, "code looked up", found.Decline.Code, c.code)
		want(t, "charges", a.charges(t), 0)
	}
}

func chargeAuth(t *testing.T, h Harness) {
	for _, approve := range []bool{true, false} {
		a := attach(t, h, h.Tokens.ChargeAuth)
		r := a.request(2500)
		res, err := h.Gateway.Charge(t.Context(), r)
		must(t, "charge", err)
		want(t, "outcome", res.Outcome, payment.OutcomeRequiresAction)
		if res.NextAction == nil || (res.NextAction.URL == "" && res.NextAction.ClientSecret == "") {
			t.Fatalf("nothing for the customer to do: %+v", res)
		}
		before, err := h.Gateway.ConfirmCharge(t.Context(), payment.ConfirmRequest{Key: unique("key"), Ref: res.Ref})
		must(t, "confirm before the customer acted", err)
		want(t, "outcome before the customer acted", before.Outcome, payment.OutcomeRequiresAction)
		want(t, "charges before the customer acted", a.charges(t), 0)

		h.Act(t, res.Ref, approve)
		after, err := h.Gateway.ConfirmCharge(t.Context(), payment.ConfirmRequest{Key: unique("key"), Ref: res.Ref})
		must(t, "confirm", err)
		must(t, "agrees", after.Agrees(r))
		if approve {
			want(t, "outcome", after.Outcome, payment.OutcomeSucceeded)
			want(t, "charges", a.charges(t), 1)
			continue
		}
		want(t, "outcome", after.Outcome, payment.OutcomeDeclined)
		want(t, "class", after.Decline.Class, payment.DeclineAuthentication)
		want(t, "charges", a.charges(t), 0)
	}
}

func offSession(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.ChargeAuth)
	r := a.request(2500)
	r.OffSession, r.ReturnURL = true, ""
	res, err := h.Gateway.Charge(t.Context(), r)
	must(t, "charge", err)
	want(t, "outcome", res.Outcome, payment.OutcomeDeclined)
	want(t, "code", res.Decline.Code, "authentication_required")
	want(t, "class", res.Decline.Class, payment.DeclineAuthentication)
	want(t, "advice", res.Decline.Advice, payment.RetryOnSession)
	want(t, "charges", a.charges(t), 0)
}

func cancel(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.ChargeAuth)
	r := a.request(2500)
	res, err := h.Gateway.Charge(t.Context(), r)
	must(t, "charge", err)
	for range 2 {
		got, err := h.Gateway.CancelCharge(t.Context(), payment.CancelRequest{Key: unique("key"), Ref: res.Ref})
		must(t, "cancel", err)
		want(t, "outcome", got.Outcome, payment.OutcomeCanceled)
	}
	b := attach(t, h, h.Tokens.Good)
	_, done := b.charge(t, 500)
	got, err := h.Gateway.CancelCharge(t.Context(), payment.CancelRequest{Key: unique("key"), Ref: done.Ref})
	must(t, "cancel too late", err)
	want(t, "outcome of a charge that was quicker", got.Outcome, payment.OutcomeSucceeded)
	want(t, "charges", a.charges(t)+b.charges(t), 1)
}

func unknown(t *testing.T, h Harness) {
	for _, c := range []struct {
		failure Failure
		err     error
		done    bool // the call was carried out
	}{
		{NoAnswer, payment.ErrUnknown, true},
		{HalfAnAnswer, payment.ErrUnknown, true},
		{NotCarried, payment.ErrUnknown, false},
		{Broken, payment.ErrUnknown, false},
		{Busy, payment.ErrRetry, false},
		{KeyInUse, payment.ErrRetry, false},
	} {
		a := attach(t, h, h.Tokens.Good)
		r := a.request(4200)
		h.Fail(t, c.failure)
		_, err := h.Gateway.Charge(t.Context(), r)
		wantErr(t, string(c.failure), err, c.err)

		lookup := payment.ChargeLookup{PaymentRef: r.PaymentRef, CustomerRef: a.customer, Since: h.Now.Add(-time.Minute)}
		found, err := h.Gateway.LookupCharge(t.Context(), lookup)
		if c.done {
			must(t, "look up after "+string(c.failure), err)
			want(t, "outcome", found.Outcome, payment.OutcomeSucceeded)
			must(t, "agrees", found.Agrees(r))
		} else {
			wantErr(t, "look up after "+string(c.failure), err, payment.ErrMissing)
		}
		res, err := h.Gateway.Charge(t.Context(), r)
		must(t, "repeat after "+string(c.failure), err)
		want(t, "outcome", res.Outcome, payment.OutcomeSucceeded)
		if c.done {
			want(t, "charge", res.Ref, found.Ref)
		}
		want(t, "charges after "+string(c.failure), a.charges(t), 1)
	}
}

func forgottenKey(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	r, res := a.charge(t, 700)
	h.ForgetKeys(t)
	found, err := h.Gateway.LookupCharge(t.Context(), payment.ChargeLookup{PaymentRef: r.PaymentRef, CustomerRef: a.customer, Since: h.Now.Add(-time.Minute)})
	must(t, "look up", err)
	want(t, "charge", found.Ref, res.Ref)
	// Why a request must not be repeated after KeyRetention: the provider takes it for a new one.
	_, err = h.Gateway.Charge(t.Context(), r)
	must(t, "repeat", err)
	want(t, "charges", a.charges(t), 2)
}

func mismatch(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	r := a.request(700)
	h.Fail(t, WrongAmount)
	res, err := h.Gateway.Charge(t.Context(), r)
	must(t, "charge", err)
	wantErr(t, "agrees", res.Agrees(r), payment.ErrMismatch)
}

func amounts(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	l, err := h.Gateway.Limits(money.USD)
	must(t, "limits", err)
	for _, bad := range []money.Amount{
		usd(0), usd(-100), usd(l.Minimum.Minor - 1), usd(l.Maximum.Minor + 1), money.New(1000, "XQQ"), money.New(12345, "KWD"),
	} {
		r := a.request(0)
		r.Amount = bad
		_, err := h.Gateway.Charge(t.Context(), r)
		wantErr(t, bad.String(), err, payment.ErrAmount)
	}
	want(t, "charges", a.charges(t), 0)
}
