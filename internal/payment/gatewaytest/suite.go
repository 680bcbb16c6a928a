package gatewaytest

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Run tests a gateway. newHarness is called for each case and returns a fresh provider.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	t.Helper()
	cases := []struct {
		name     string
		remember bool // the case needs a provider that remembers
		run      func(t *testing.T, h Harness)
	}{
		{"GatewayNamesItselfAndItsLimits", false, limits},
		{"EveryCallIsUnderstoodByTheProvider", false, everyCall},
		{"EventIsBelievedOnlyWithAFreshSignature", false, signatures},
		{"SetupSavesTheCardThatTheBrowserGave", true, setup},
		{"SetupOfAnotherAccountIsForeign", true, foreignSetup},
		{"TokenOfAnotherCustomerIsForeign", true, foreignToken},
		{"DeclinedCardIsNotSaved", true, saveDeclined},
		{"AuthenticationIsNeededBeforeACardIsSaved", true, saveAuth},
		{"RepeatedAttachmentSavesOneCard", true, attachTwice},
		{"ChargeAgreesWithWhatWasAsked", true, charge},
		{"RepeatedChargeTakesTheMoneyOnce", true, chargeTwice},
		{"KeyIsNotTakenForAnotherCharge", true, keyReused},
		{"CallersAtOnceTakeTheMoneyOnce", true, chargeAtOnce},
		{"DeclineSaysWhatToDo", true, declines},
		{"AuthenticationIsNeededBeforeACharge", true, chargeAuth},
		{"AuthenticationWithoutTheCustomerIsADecline", true, offSession},
		{"ChargeThatWaitsCanBeCanceled", true, cancel},
		{"UnknownOutcomeIsFoundAndTakenOnce", true, unknown},
		{"ChargeOutlivesItsKey", true, forgottenKey},
		{"AnotherAmountIsNoticed", true, mismatch},
		{"AmountOutsideTheLimitsIsNotSent", true, amounts},
		{"RefundsNeverExceedTheCharge", true, refunds},
		{"RefundMadeOutsideIsSeen", true, refundOutside},
		{"DisputeIsSeen", true, disputes},
		{"BillingDetailsAndExpiryChange", true, update},
		{"DetachedCardCannotBeCharged", true, detach},
		{"WhatIsNotThereIsMissing", true, missing},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()

			h := newHarness(t)
			if c.remember && !h.Remembers {
				return // the same gateway runs the case against a provider that remembers
			}
			c.run(t, h)
		})
	}
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Fatalf("%s: got error %v, want %v", what, got, want)
	}
}

func must(t *testing.T, what string, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func want[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

func limits(t *testing.T, h Harness) {
	if h.Gateway.Name() == "" {
		t.Error("no name")
	}
	want(t, "mode", h.Gateway.Mode(), payment.ModeTest)
	for _, c := range []money.Currency{"USD", "EUR", "JPY", "KWD"} {
		l, err := h.Gateway.Limits(c)
		must(t, string(c), err)
		must(t, "minimum", l.Check(l.Minimum))
		must(t, "maximum", l.Check(l.Maximum))
		below := money.New(l.Minimum.Minor-l.Step, c)
		above := money.New(l.Maximum.Minor+l.Step, c)
		wantErr(t, "below", l.Check(below), payment.ErrAmount)
		wantErr(t, "above", l.Check(above), payment.ErrAmount)
		wantErr(t, "zero", l.Check(money.Zero(c)), payment.ErrAmount)
		if l.Step > 1 {
			wantErr(t, "between", l.Check(money.New(l.Minimum.Minor+1, c)), payment.ErrAmount)
		}
	}
	_, err := h.Gateway.Limits("XQQ")
	wantErr(t, "no currency", err, payment.ErrAmount)
}

// everyCall makes every call once, with every member of its request, so that a provider that checks
// requests against its specification has seen them all.
func everyCall(t *testing.T, h Harness) {
	ctx, g := t.Context(), h.Gateway
	su, err := g.CreateSetup(ctx, payment.SetupRequest{Key: unique("key"), AccountRef: unique("acct"), ReturnURL: "https://example.com/back"})
	must(t, "create setup", err)
	if su.Ref == "" || su.CustomerRef == "" || su.ClientSecret == "" || su.ExpiresAt.IsZero() {
		t.Fatalf("incomplete setup: %+v", su)
	}
	if su.ExpiresAt.Sub(h.Now) > payment.SetupLifetime {
		t.Fatalf("the client secret lives until %s", su.ExpiresAt)
	}
	seen, err := g.LookupSetup(ctx, su.Ref)
	must(t, "look up setup", err)
	want(t, "secret of a setup looked up", seen.ClientSecret, "")
	_, err = g.ConfirmSetup(ctx, confirmation(su.Ref))
	must(t, "confirm setup", err)

	a := attach(t, h, h.Tokens.Good)
	if a.method == "" {
		a.method = h.Tokens.Good
	}
	m, err := g.UpdateBilling(ctx, payment.UpdateRequest{
		Key: unique("key"), CustomerRef: a.customer, MethodRef: a.method, Billing: billing(), ExpMonth: 11, ExpYear: h.Now.Year() + 2,
	})
	switch {
	case !h.Remembers && errors.Is(err, payment.ErrMissing): // the provider forgot whose card it is
	case err != nil:
		t.Fatalf("update: %v", err)
	case m.Ref == "" || m.Card.Last4 == "" || m.Card.Brand == "" || m.Card.ExpMonth == 0:
		t.Fatalf("incomplete method: %+v", m)
	}
	r := a.request(5000)
	r.OffSession, r.ReturnURL = true, ""
	c, err := g.Charge(ctx, r)
	must(t, "charge", err)
	if c.Ref == "" || c.Amount.Currency == "" || c.Outcome == "" {
		t.Fatalf("incomplete charge: %+v", c)
	}
	_, err = g.Charge(ctx, a.request(5000))
	must(t, "charge on session", err)
	_, err = g.LookupCharge(ctx, payment.ChargeLookup{Ref: c.Ref})
	must(t, "look up charge", err)
	_, err = g.ConfirmCharge(ctx, payment.ConfirmRequest{Key: unique("key"), Ref: c.Ref, ReturnURL: "https://example.com/back"})
	must(t, "confirm charge", err)
	if h.Remembers {
		_, err = g.LookupCharge(ctx, payment.ChargeLookup{PaymentRef: r.PaymentRef, CustomerRef: a.customer, Since: h.Now.Add(-time.Minute)})
		must(t, "find charge", err)
		_, err = g.LookupCharge(ctx, payment.ChargeLookup{PaymentRef: r.PaymentRef})
		must(t, "search charge", err)
	}
	rf, err := g.Refund(ctx, payment.RefundRequest{Key: unique("key"), ChargeRef: c.Ref, Amount: usd(100), RefundID: unique("rfnd")})
	must(t, "refund", err)
	_, err = g.LookupRefund(ctx, payment.RefundLookup{Ref: rf.Ref})
	must(t, "look up refund", err)
	for _, err := range g.ListCharges(ctx, h.Now.Add(-time.Hour), h.Now.Add(time.Hour)) {
		must(t, "list", err)
	}
	_, err = g.CancelCharge(ctx, payment.CancelRequest{Key: unique("key"), Ref: c.Ref})
	must(t, "cancel", err)
	for kind, ref := range map[payment.ObjectKind]string{
		payment.ObjectCharge: c.Ref, payment.ObjectRefund: rf.Ref, payment.ObjectMethod: a.method, payment.ObjectSetup: su.Ref,
	} {
		_, err := g.Fetch(ctx, kind, ref)
		must(t, "fetch "+string(kind), err)
	}
	must(t, "detach", g.Detach(ctx, payment.DetachRequest{Key: unique("key"), CustomerRef: a.customer, MethodRef: a.method}))
}

func signatures(t *testing.T, h Harness) {
	at := h.Now
	for secret := range 2 {
		header, body := h.Event(t, payment.ObjectCharge, "some_charge", at, secret)
		e, err := h.Gateway.VerifyEvent(header, body, at)
		must(t, "good signature", err)
		if e.ID == "" || e.Type == "" || e.Object != payment.ObjectCharge || e.Ref != "some_charge" {
			t.Fatalf("incomplete event: %+v", e)
		}
		for _, off := range []time.Duration{-payment.SignatureTolerance, payment.SignatureTolerance} {
			_, err = h.Gateway.VerifyEvent(header, body, at.Add(off).Truncate(time.Second))
			must(t, "at the edge of the tolerance", err)
		}
		for _, off := range []time.Duration{-payment.SignatureTolerance - 2*time.Second, payment.SignatureTolerance + 2*time.Second} {
			_, err = h.Gateway.VerifyEvent(header, body, at.Add(off))
			wantErr(t, "stale signature", err, payment.ErrSignature)
		}
		for i := range body {
			forged := append([]byte(nil), body...)
			forged[i] ^= 1
			_, err := h.Gateway.VerifyEvent(header, forged, at)
			wantErr(t, "altered body", err, payment.ErrSignature)
		}
		_, err = h.Gateway.VerifyEvent(header, append([]byte(" "), body...), at)
		wantErr(t, "re-encoded body", err, payment.ErrSignature)
		_, err = h.Gateway.VerifyEvent(http.Header{}, body, at)
		wantErr(t, "no signature", err, payment.ErrSignature)
		for name := range header {
			for i := range header.Get(name) {
				altered := header.Clone()
				v := []byte(header.Get(name))
				v[i] ^= 1
				altered.Set(name, string(v))
				_, err := h.Gateway.VerifyEvent(altered, body, at)
				wantErr(t, "altered header", err, payment.ErrSignature)
			}
		}
	}
	header, body := h.Event(t, payment.ObjectCharge, "some_charge", at, 2)
	_, err := h.Gateway.VerifyEvent(header, body, at)
	wantErr(t, "unknown secret", err, payment.ErrSignature)
}

func setup(t *testing.T, h Harness) {
	ctx, g, account := t.Context(), h.Gateway, unique("acct")
	su, err := g.CreateSetup(ctx, payment.SetupRequest{Key: unique("key"), AccountRef: account, ReturnURL: "https://example.com/back"})
	must(t, "create", err)
	r := payment.AttachRequest{Key: unique("key"), AccountRef: account, CustomerRef: su.CustomerRef, Setup: su.Ref, Billing: billing()}
	_, err = g.Attach(ctx, r)
	wantErr(t, "attach before a card was given", err, payment.ErrSetupIncomplete)

	h.GiveCard(t, su.Ref, h.Tokens.Good)
	r.Key = unique("key")
	res, err := g.Attach(ctx, r)
	must(t, "attach", err)
	want(t, "outcome", res.Outcome, payment.OutcomeSucceeded)
	want(t, "customer", res.CustomerRef, su.CustomerRef)
	want(t, "billing", res.Method.Billing, billing())
	if res.Method.Card.Fingerprint == "" || res.Method.Card.Last4 == "" || res.Method.Card.Expired(h.Now) {
		t.Fatalf("incomplete card: %+v", res.Method.Card)
	}
	r.Key = unique("key")
	again, err := g.Attach(ctx, r)
	must(t, "attach again", err)
	want(t, "method of the same setup", again.Method.Ref, res.Method.Ref)

	a := attached{Harness: h, account: account, customer: res.CustomerRef, method: res.Method.Ref}
	a.charge(t, 500)
}

func foreignSetup(t *testing.T, h Harness) {
	ctx, g := t.Context(), h.Gateway
	su, err := g.CreateSetup(ctx, payment.SetupRequest{Key: unique("key"), AccountRef: unique("acct")})
	must(t, "create", err)
	h.GiveCard(t, su.Ref, h.Tokens.Good)
	_, err = g.Attach(ctx, payment.AttachRequest{Key: unique("key"), AccountRef: unique("acct"), Setup: su.Ref, Billing: billing()})
	wantErr(t, "setup of another account", err, payment.ErrForeignToken)
	_, err = g.Attach(ctx, payment.AttachRequest{Key: unique("key"), AccountRef: unique("acct"), Setup: "seti_unknown", Billing: billing()})
	wantErr(t, "unknown setup", err, payment.ErrForeignToken)
}

func foreignToken(t *testing.T, h Harness) {
	ctx, g := t.Context(), h.Gateway
	a, b := attach(t, h, h.Tokens.Good), attach(t, h, h.Tokens.Good)
	for name, token := range map[string]string{"another customer's": a.method, "unknown": "pm_unknown"} {
		_, err := g.Attach(ctx, payment.AttachRequest{Key: unique("key"), AccountRef: b.account, CustomerRef: b.customer, Token: token, Billing: billing()})
		wantErr(t, "token "+name, err, payment.ErrForeignToken)
	}
	r := b.request(500)
	r.MethodRef = a.method
	_, err := g.Charge(ctx, r)
	wantErr(t, "charge another customer's card", err, payment.ErrForeignToken)
	want(t, "charges", a.charges(t)+b.charges(t), 0)
	must(t, "detach", g.Detach(ctx, payment.DetachRequest{Key: unique("key"), CustomerRef: a.customer, MethodRef: a.method}))
	_, err = g.Attach(ctx, payment.AttachRequest{Key: unique("key"), AccountRef: a.account, CustomerRef: a.customer, Token: a.method, Billing: billing()})
	wantErr(t, "token that was used and removed", err, payment.ErrForeignToken)
}

func saveDeclined(t *testing.T, h Harness) {
	res, err := h.Gateway.Attach(t.Context(), payment.AttachRequest{
		Key: unique("key"), AccountRef: unique("acct"), Token: h.Tokens.SaveDeclined, Billing: billing(),
	})
	must(t, "attach", err)
	want(t, "outcome", res.Outcome, payment.OutcomeDeclined)
	want(t, "method", res.Method.Ref, "")
	if res.Decline == nil || res.Decline.Code == "" || res.Decline.Message == "" {
		t.Fatalf("decline %+v", res.Decline)
	}
}

func saveAuth(t *testing.T, h Harness) {
	for _, approve := range []bool{true, false} {
		r := payment.AttachRequest{
			Key: unique("key"), AccountRef: unique("acct"), Token: h.Tokens.SaveAuth, Billing: billing(),
			ReturnURL: "https://example.com/back",
		}
		res, err := h.Gateway.Attach(t.Context(), r)
		must(t, "attach", err)
		want(t, "outcome", res.Outcome, payment.OutcomeRequiresAction)
		if res.NextAction == nil || res.SetupRef == "" || (res.NextAction.URL == "" && res.NextAction.ClientSecret == "") {
			t.Fatalf("nothing for the customer to do: %+v", res)
		}
		h.Act(t, res.SetupRef, approve)
		res, err = h.Gateway.ConfirmSetup(t.Context(), confirmation(res.SetupRef))
		must(t, "confirm", err)
		if !approve {
			want(t, "outcome of a rejection", res.Outcome, payment.OutcomeDeclined)
			want(t, "class", res.Decline.Class, payment.DeclineAuthentication)
			continue
		}
		want(t, "outcome", res.Outcome, payment.OutcomeSucceeded)
		want(t, "billing", res.Method.Billing, billing())
		a := attached{Harness: h, account: r.AccountRef, customer: res.CustomerRef, method: res.Method.Ref}
		off := a.request(500)
		off.OffSession = true
		c, err := h.Gateway.Charge(t.Context(), off)
		must(t, "charge", err)
		want(t, "charge of a card set up with authentication", c.Outcome, payment.OutcomeSucceeded)
	}
}

func attachTwice(t *testing.T, h Harness) {
	r := payment.AttachRequest{Key: unique("key"), AccountRef: unique("acct"), Token: h.Tokens.Good, Billing: billing()}
	first, err := h.Gateway.Attach(t.Context(), r)
	must(t, "attach", err)
	second, err := h.Gateway.Attach(t.Context(), r)
	must(t, "attach again", err)
	want(t, "method", second.Method.Ref, first.Method.Ref)
	want(t, "customer", second.CustomerRef, first.CustomerRef)
}

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
	wantErr(t, "another amount under the key", err, payment.ErrRejected)
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
		{h.Tokens.Lost, "lost_card", payment.DeclineFraud, payment.RetryNewMethod},
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

func refunds(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	_, c := a.charge(t, 1000)
	r := payment.RefundRequest{Key: unique("key"), ChargeRef: c.Ref, Amount: usd(600), RefundID: unique("rfnd")}
	first, err := h.Gateway.Refund(t.Context(), r)
	must(t, "refund", err)
	want(t, "outcome", first.Outcome, payment.OutcomeSucceeded)
	want(t, "amount", first.Amount, usd(600))
	again, err := h.Gateway.Refund(t.Context(), r)
	must(t, "repeat", err)
	want(t, "refund", again.Ref, first.Ref)
	for _, l := range []payment.RefundLookup{{Ref: first.Ref}, {ChargeRef: c.Ref, RefundID: r.RefundID}} {
		found, err := h.Gateway.LookupRefund(t.Context(), l)
		must(t, "look up", err)
		want(t, "refund looked up", found.Ref, first.Ref)
		want(t, "our name for it", found.RefundID, r.RefundID)
		want(t, "charge", found.ChargeRef, c.Ref)
	}
	_, err = h.Gateway.LookupRefund(t.Context(), payment.RefundLookup{ChargeRef: c.Ref, RefundID: "rfnd_other"})
	wantErr(t, "refund never made", err, payment.ErrMissing)

	more := payment.RefundRequest{Key: unique("key"), ChargeRef: c.Ref, Amount: usd(600), RefundID: unique("rfnd")}
	_, err = h.Gateway.Refund(t.Context(), more)
	wantErr(t, "refund beyond the charge", err, payment.ErrRefundTooLarge)
	more.Key, more.Amount = unique("key"), usd(400)
	_, err = h.Gateway.Refund(t.Context(), more)
	must(t, "refund the rest", err)
	seen, err := h.Gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: c.Ref})
	must(t, "look up charge", err)
	want(t, "refunded", seen.Refunded, usd(1000))
	want(t, "outcome", seen.Outcome, payment.OutcomeSucceeded)
}

func refundOutside(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	_, c := a.charge(t, 1000)
	h.RefundOutside(t, c.Ref, 250)
	seen, err := h.Gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: c.Ref})
	must(t, "look up charge", err)
	want(t, "refunded", seen.Refunded, usd(250))
}

func disputes(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	_, c := a.charge(t, 1000)
	ref := h.Dispute(t, c.Ref)
	o, err := h.Gateway.Fetch(t.Context(), payment.ObjectDispute, ref)
	must(t, "fetch", err)
	want(t, "charge", o.Dispute.ChargeRef, c.Ref)
	want(t, "status", o.Dispute.Status, payment.DisputeOpen)
	want(t, "withdrawn", o.Dispute.Withdrawn, true)
	want(t, "amount", o.Dispute.Amount, usd(1000))
	seen, err := h.Gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: c.Ref})
	must(t, "look up", err)
	want(t, "disputed", seen.Disputed, true)
	_, err = h.Gateway.Refund(t.Context(), payment.RefundRequest{Key: unique("key"), ChargeRef: c.Ref, Amount: usd(100), RefundID: unique("rfnd")})
	wantErr(t, "refund of a disputed charge", err, payment.ErrRefundTooLarge)
}

func update(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	b := billing()
	b.Name, b.Address.Line2, b.Address.City = "Ada King", "Second floor", "Nottingham"
	m, err := h.Gateway.UpdateBilling(t.Context(), payment.UpdateRequest{
		Key: unique("key"), CustomerRef: a.customer, MethodRef: a.method, Billing: b, ExpMonth: 2, ExpYear: h.Now.Year() + 5,
	})
	must(t, "update", err)
	want(t, "billing", m.Billing, b)
	want(t, "month", m.Card.ExpMonth, 2)
	want(t, "year", m.Card.ExpYear, h.Now.Year()+5)
	o, err := h.Gateway.Fetch(t.Context(), payment.ObjectMethod, a.method)
	must(t, "fetch", err)
	want(t, "fetched", *o.Method, m)
	other := attach(t, h, h.Tokens.Good)
	want(t, "fingerprint", m.Card.Fingerprint, mustMethod(t, h, other.method).Card.Fingerprint)
	_, err = h.Gateway.UpdateBilling(t.Context(), payment.UpdateRequest{Key: unique("key"), CustomerRef: other.customer, MethodRef: a.method, Billing: b})
	wantErr(t, "another customer's card", err, payment.ErrForeignToken)
}

func mustMethod(t *testing.T, h Harness, ref string) payment.MethodResult {
	t.Helper()
	o, err := h.Gateway.Fetch(t.Context(), payment.ObjectMethod, ref)
	must(t, "fetch", err)
	return *o.Method
}

func detach(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	for range 2 {
		must(t, "detach", h.Gateway.Detach(t.Context(), payment.DetachRequest{Key: unique("key"), CustomerRef: a.customer, MethodRef: a.method}))
	}
	want(t, "customer", mustMethod(t, h, a.method).CustomerRef, "")
	_, err := h.Gateway.Charge(t.Context(), a.request(500))
	if !errors.Is(err, payment.ErrMissing) { // a provider may not tell a removed card from a foreign one
		wantErr(t, "charge a detached card", err, payment.ErrForeignToken)
	}
	want(t, "charges", a.charges(t), 0)
	must(t, "detach what never was", h.Gateway.Detach(t.Context(), payment.DetachRequest{Key: unique("key"), CustomerRef: a.customer, MethodRef: "pm_unknown"}))
}

func missing(t *testing.T, h Harness) {
	ctx, g := t.Context(), h.Gateway
	a := attach(t, h, h.Tokens.Good)
	_, err := g.LookupSetup(ctx, "seti_unknown")
	wantErr(t, "setup", err, payment.ErrMissing)
	_, err = g.ConfirmSetup(ctx, confirmation("seti_unknown"))
	wantErr(t, "confirm setup", err, payment.ErrMissing)
	for _, l := range []payment.ChargeLookup{
		{Ref: "pi_unknown"}, {PaymentRef: "pay_unknown", CustomerRef: a.customer, Since: h.Now.Add(-time.Minute)},
	} {
		_, err = g.LookupCharge(ctx, l)
		wantErr(t, "charge", err, payment.ErrMissing)
	}
	_, err = g.LookupCharge(ctx, payment.ChargeLookup{PaymentRef: "pay_unknown"})
	if !errors.Is(err, payment.ErrUnknown) {
		wantErr(t, "charge that only an index could find", err, payment.ErrMissing)
	}
	_, err = g.ConfirmCharge(ctx, payment.ConfirmRequest{Key: unique("key"), Ref: "pi_unknown"})
	wantErr(t, "confirm charge", err, payment.ErrMissing)
	_, err = g.CancelCharge(ctx, payment.CancelRequest{Key: unique("key"), Ref: "pi_unknown"})
	wantErr(t, "cancel", err, payment.ErrMissing)
	_, err = g.Refund(ctx, payment.RefundRequest{Key: unique("key"), ChargeRef: "pi_unknown", Amount: usd(100), RefundID: "rfnd_1"})
	wantErr(t, "refund", err, payment.ErrMissing)
	_, err = g.LookupRefund(ctx, payment.RefundLookup{Ref: "re_unknown"})
	wantErr(t, "look up refund", err, payment.ErrMissing)
	for _, kind := range []payment.ObjectKind{payment.ObjectCharge, payment.ObjectRefund, payment.ObjectDispute, payment.ObjectMethod, payment.ObjectSetup, payment.ObjectOther} {
		_, err = g.Fetch(ctx, kind, "unknown")
		wantErr(t, "fetch "+string(kind), err, payment.ErrMissing)
	}
}
