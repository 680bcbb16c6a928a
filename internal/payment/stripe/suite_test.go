package stripe_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/gatewaytest"
	"github.com/accrue-billing/accrue/internal/payment/stripe"
	"github.com/accrue-billing/accrue/pkg/money"
)

const (
	secretKey      = payment.Secret("sk_test_canary0123456789")
	publishableKey = "pk_test_0123456789"
	oldSecret      = payment.Secret("whsec_old")
	newSecret      = payment.Secret("whsec_new")
)

var now = time.Date(2026, 11, 23, 10, 15, 0, 0, time.UTC)

func newGateway(t *testing.T, baseURL string, at time.Time) *stripe.Gateway {
	t.Helper()
	g, err := stripe.New(stripe.Config{
		Mode: payment.ModeTest, SecretKey: secretKey, PublishableKey: publishableKey, BaseURL: baseURL,
		WebhookSecrets: []payment.Secret{oldSecret, newSecret}, Timeout: 10 * time.Second, Clock: clock.Fixed(at),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	return g
}

// signedEvent is Stripe's event as its documentation shows it.
func signedEvent(t *testing.T, kind payment.ObjectKind, ref string, at time.Time, secret int) (http.Header, []byte) {
	t.Helper()
	name := map[payment.ObjectKind]string{
		payment.ObjectCharge: "payment_intent", payment.ObjectRefund: "refund", payment.ObjectDispute: "dispute",
		payment.ObjectMethod: "payment_method", payment.ObjectSetup: "setup_intent",
	}[kind]
	body, err := json.Marshal(object{
		"id": "evt_1", "object": "event", "type": name + ".succeeded", "created": at.Unix(), "livemode": false,
		"data": object{"object": object{"id": ref, "object": name}},
	})
	if err != nil {
		t.Fatal(err)
	}
	h := http.Header{}
	h.Set("Stripe-Signature", payment.Sign([]payment.Secret{oldSecret, newSecret, "whsec_unknown"}[secret], body, at))
	return h, body
}

func TestSuiteWithAProviderThatRemembers(t *testing.T) {
	t.Parallel()

	gatewaytest.Run(t, func(t *testing.T) gatewaytest.Harness {
		f, baseURL := newFake(t, now)
		return gatewaytest.Harness{
			Gateway: newGateway(t, baseURL, now), Now: now, Remembers: true,
			Tokens: gatewaytest.Tokens{
				Good: "pm_card_good", SaveDeclined: "pm_card_saveDeclined", ChargeDeclined: "pm_card_declined",
				InsufficientFunds: "pm_card_funds", Lost: "pm_card_lost", SaveAuth: "pm_card_saveAuth", ChargeAuth: "pm_card_chargeAuth",
			},
			GiveCard: func(t *testing.T, ref, token string) {
				f.mu.Lock()
				defer f.mu.Unlock()
				if p := f.giveCard(f.objects[ref], token, ""); p != nil {
					t.Fatal(p)
				}
			},
			Act: func(_ *testing.T, ref string, approve bool) { f.act(ref, approve) },
			Fail: func(_ *testing.T, failure gatewaytest.Failure) {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.fail = failure
			},
			ForgetKeys: func(_ *testing.T) {
				f.mu.Lock()
				defer f.mu.Unlock()
				clear(f.keys)
			},
			RefundOutside: func(t *testing.T, ref string, minor int64) {
				f.mu.Lock()
				defer f.mu.Unlock()
				if _, p := f.createRefund("", url.Values{"payment_intent": {ref}, "amount": {fmt.Sprint(minor)}}); p != nil {
					t.Fatal(p)
				}
			},
			Dispute: func(_ *testing.T, ref string) string { return f.openDispute(ref) },
			Event:   signedEvent,
		}
	})
}

func TestSuiteWithStripeMock(t *testing.T) {
	t.Parallel()

	baseURL := startStripeMock(t)
	gatewaytest.Run(t, func(t *testing.T) gatewaytest.Harness {
		return gatewaytest.Harness{
			Gateway: newGateway(t, baseURL, now), Now: now, Tokens: gatewaytest.Tokens{Good: "pm_card_visa"}, Event: signedEvent,
		}
	})
	t.Run("ChangesOfACardAreUnderstood", func(t *testing.T) {
		t.Parallel()

		g := newGateway(t, baseURL, now)
		m, err := stripe.UpdateUnchecked(g, t.Context(), payment.UpdateRequest{
			Key: "k1", MethodRef: "pm_1", ExpMonth: 11, ExpYear: 2029,
			Billing: payment.Billing{Name: "Ada", Email: "ada@example.com", Address: payment.Address{Line1: "1 Main St", City: "London", Country: "GB"}},
		})
		if err != nil || m.Ref == "" || m.Card.Last4 == "" || m.Card.Brand == "" {
			t.Fatalf("update: %+v, %v", m, err)
		}
		if err := stripe.DetachUnchecked(g, t.Context(), payment.DetachRequest{Key: "k2", MethodRef: "pm_1"}); err != nil {
			t.Fatalf("detach: %v", err)
		}
	})
	t.Run("KeyThatStripeDoesNotKnowIsAFaultOfOurs", func(t *testing.T) {
		t.Parallel()

		g, err := stripe.New(stripe.Config{
			Mode: payment.ModeTest, SecretKey: "xx_test_1", PublishableKey: publishableKey, BaseURL: baseURL, Clock: clock.Fixed(now),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Close)
		if _, err = g.LookupCharge(t.Context(), payment.ChargeLookup{Ref: "pi_1"}); !errors.Is(err, payment.ErrRejected) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestKeysOfTheOtherModeAreRefused(t *testing.T) {
	t.Parallel()

	for name, change := range map[string]func(*stripe.Config){
		"live secret key in test mode": func(c *stripe.Config) { c.SecretKey = "sk_live_x" },
		"live publishable key":         func(c *stripe.Config) { c.PublishableKey = "pk_live_x" },
		"test keys in live mode":       func(c *stripe.Config) { c.Mode = payment.ModeLive },
		"no mode":                      func(c *stripe.Config) { c.Mode = "" },
		"another server in live mode": func(c *stripe.Config) {
			c.Mode, c.SecretKey, c.PublishableKey, c.BaseURL = payment.ModeLive, "sk_live_x", "pk_live_x", "http://127.0.0.1:1"
		},
		"no clock": func(c *stripe.Config) { c.Clock = nil },
	} {
		c := stripe.Config{Mode: payment.ModeTest, SecretKey: secretKey, PublishableKey: publishableKey, Clock: clock.Fixed(now)}
		change(&c)
		if _, err := stripe.New(c); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestSandboxTokenIsForeignAndNotSent(t *testing.T) {
	t.Parallel()

	f, baseURL := newFake(t, now)
	_, err := newGateway(t, baseURL, now).Attach(t.Context(), payment.AttachRequest{Key: "k", AccountRef: "acct_1", Token: "pm_sandbox_visa"})
	if !errors.Is(err, payment.ErrForeignToken) {
		t.Fatalf("got %v", err)
	}
	if len(f.seen) != 0 {
		t.Fatalf("%d requests were sent", len(f.seen))
	}
}

func TestSetupThatWaitedTooLongIsExpired(t *testing.T) {
	t.Parallel()

	_, baseURL := newFake(t, now)
	early, late := newGateway(t, baseURL, now), newGateway(t, baseURL, now.Add(payment.SetupLifetime+time.Second))
	su, err := early.CreateSetup(t.Context(), payment.SetupRequest{Key: "k", AccountRef: "acct_1"})
	if err != nil {
		t.Fatal(err)
	}
	r := payment.AttachRequest{Key: "a", AccountRef: "acct_1", Setup: su.Ref}
	if _, err := early.Attach(t.Context(), r); !errors.Is(err, payment.ErrSetupIncomplete) {
		t.Fatalf("in time: %v", err)
	}
	if _, err := late.Attach(t.Context(), r); !errors.Is(err, payment.ErrSetupExpired) {
		t.Fatalf("too late: %v", err)
	}
}

func TestDeclineAfterAuthenticationIsFinalAtStripe(t *testing.T) {
	t.Parallel()

	f, baseURL := newFake(t, now)
	g := newGateway(t, baseURL, now)
	a, err := g.Attach(t.Context(), payment.AttachRequest{Key: "a", AccountRef: "acct_1", Token: "pm_card_chargeAuth"})
	if err != nil {
		t.Fatal(err)
	}
	f.act(a.SetupRef, true)
	if a, err = g.ConfirmSetup(t.Context(), payment.ConfirmSetupRequest{Key: "b", Ref: a.SetupRef}); err != nil {
		t.Fatal(err)
	}
	c, err := g.Charge(t.Context(), payment.ChargeRequest{
		Key: "c", Amount: usd(500), CustomerRef: a.CustomerRef, MethodRef: a.Method.Ref, AccountRef: "acct_1", PaymentRef: "pay_1",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.NextAction.Type != payment.ActionProviderScript || c.NextAction.ClientSecret.Reveal() != "canary_secret_payment" {
		t.Fatalf("next action %+v", c.NextAction)
	}
	f.act(c.Ref, false)
	for range 2 { // the second call finds it canceled
		if c, err = g.ConfirmCharge(t.Context(), payment.ConfirmRequest{Key: "d", Ref: c.Ref}); err != nil {
			t.Fatal(err)
		}
		if c.Outcome != payment.OutcomeDeclined || c.Decline.Class != payment.DeclineAuthentication {
			t.Fatalf("outcome %s, decline %+v", c.Outcome, c.Decline)
		}
	}
	if s := f.objects[c.Ref].str("status"); s != "canceled" {
		t.Fatalf("the payment intent is %s: the browser could still pay it", s)
	}
}

func TestErrorsAndResultsShowNoSecret(t *testing.T) {
	t.Parallel()

	f, baseURL := newFake(t, now)
	g := newGateway(t, baseURL, now)
	a, err := g.Attach(t.Context(), payment.AttachRequest{
		Key: "a", AccountRef: "acct_1", Token: "pm_card_good", Billing: payment.Billing{Name: "canary name"},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := payment.ChargeRequest{Key: "c", Amount: usd(500), CustomerRef: a.CustomerRef, MethodRef: a.Method.Ref, AccountRef: "acct_1", PaymentRef: "pay_1"}
	var shown []string
	for _, failure := range []gatewaytest.Failure{
		gatewaytest.NoAnswer, gatewaytest.NotCarried, gatewaytest.Broken, gatewaytest.Busy, gatewaytest.KeyInUse, gatewaytest.HalfAnAnswer,
	} {
		f.mu.Lock()
		f.fail = failure
		f.mu.Unlock()
		r.Key += "x"
		_, err := g.Charge(t.Context(), r)
		shown = append(shown, fmt.Sprintf("%v %+v", err, errors.Unwrap(err)))
	}
	su, err := g.CreateSetup(t.Context(), payment.SetupRequest{Key: "s", AccountRef: "acct_1"})
	if err != nil {
		t.Fatal(err)
	}
	if su.ClientSecret.Reveal() != "canary_secret_setup" {
		t.Fatalf("no client secret")
	}
	asJSON, err := json.Marshal(su)
	if err != nil {
		t.Fatal(err)
	}
	shown = append(shown, fmt.Sprintf("%v %+v %#v %s %q", su, su, su, su.ClientSecret, su.ClientSecret), string(asJSON))
	for _, s := range shown {
		if strings.Contains(s, "canary") {
			t.Errorf("a secret shows in %s", s)
		}
	}
}

func TestCallsHeedTheirContext(t *testing.T) {
	t.Parallel()

	_, baseURL := newFake(t, now)
	g := newGateway(t, baseURL, now)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := g.LookupCharge(ctx, payment.ChargeLookup{Ref: "pi_1"})
	if !errors.Is(err, payment.ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func usd(minor int64) money.Amount { return money.New(minor, money.USD) }
