package gatewaytest

import (
	"errors"
	"testing"

	"github.com/accrue-billing/accrue/internal/payment"
)

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
