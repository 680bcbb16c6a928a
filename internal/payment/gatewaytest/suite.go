package gatewaytest

import (
	"errors"
	"net/http"
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
