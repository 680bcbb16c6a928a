package sandbox_test

import (
	"errors"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// TestEveryTokenBehavesAsDocumented is docs/sandbox.md as a table.
func TestEveryTokenBehavesAsDocumented(t *testing.T) {
	t.Parallel()

	const ok, action, processing = payment.OutcomeSucceeded, payment.OutcomeRequiresAction, payment.OutcomeProcessing
	const refused payment.Outcome = "refused" // with the code
	cases := map[string]struct {
		save, charge, offSession payment.Outcome
		code                     string
		unanswered               bool
	}{
		sandbox.TokenVisa:               {save: ok, charge: ok, offSession: ok},
		sandbox.TokenMastercard:         {save: ok, charge: ok, offSession: ok},
		sandbox.TokenAmex:               {save: ok, charge: ok, offSession: ok},
		sandbox.TokenExpiringThisMonth:  {save: ok, charge: ok, offSession: ok},
		sandbox.TokenDeclined:           {save: refused, code: "generic_decline"},
		sandbox.TokenExpired:            {save: refused, code: "expired_card"},
		sandbox.TokenIncorrectCVC:       {save: refused, code: "incorrect_cvc"},
		sandbox.TokenChargeDeclined:     {save: ok, charge: refused, offSession: refused, code: "generic_decline"},
		sandbox.TokenInsufficientFunds:  {save: ok, charge: refused, offSession: refused, code: "insufficient_funds"},
		sandbox.TokenLost:               {save: ok, charge: refused, offSession: refused, code: "lost_card"},
		sandbox.TokenFraudulent:         {save: ok, charge: refused, offSession: refused, code: "fraudulent"},
		sandbox.TokenProcessingError:    {save: ok, charge: refused, offSession: refused, code: "processing_error"},
		sandbox.Token3DSRequired:        {save: action, charge: action, offSession: refused, code: "authentication_required"},
		sandbox.Token3DSSetup:           {save: action, charge: ok, offSession: ok},
		sandbox.TokenProcessing:         {save: ok, charge: processing, offSession: processing},
		sandbox.TokenTimeoutThenSuccess: {save: ok, charge: ok, offSession: ok, unanswered: true},
		sandbox.TokenTimeoutThenDecline: {save: ok, charge: refused, offSession: refused, code: "generic_decline", unanswered: true},
		sandbox.TokenDispute:            {save: ok, charge: ok, offSession: ok},
	}
	for _, token := range sandbox.Tokens() {
		c, known := cases[token]
		if !known {
			t.Errorf("%s is not in the table", token)
			continue
		}
		t.Run(token, func(t *testing.T) {
			t.Parallel()

			p := start(t, nil)
			ctx, g := t.Context(), p.gateway
			check := func(what string, got payment.Outcome, d *payment.Decline, want payment.Outcome) {
				t.Helper()
				if want == refused {
					if got != payment.OutcomeDeclined || d == nil || d.Code != c.code {
						t.Fatalf("%s: %s %+v, want to be refused as %s", what, got, d, c.code)
					}
				} else if got != want {
					t.Fatalf("%s: %s %+v, want %s", what, got, d, want)
				}
			}
			first := func(what string, err error) { // a call that is not answered the first time
				t.Helper()
				if c.unanswered && !errors.Is(err, payment.ErrUnknown) {
					t.Fatalf("%s: %v, want no answer", what, err)
				}
				if !c.unanswered && err != nil {
					t.Fatalf("%s: %v", what, err)
				}
			}
			attach := payment.AttachRequest{Key: "a", AccountRef: "acct_1", Token: token}
			_, err := g.Attach(ctx, attach)
			first("save", err)
			a, err := g.Attach(ctx, attach)
			must(t, err)
			check("save", a.Outcome, a.Decline, c.save)
			if a.Outcome == action {
				must(t, p.control.Act(ctx, a.SetupRef, true))
				a, err = g.ConfirmSetup(ctx, payment.ConfirmSetupRequest{Key: "b", Ref: a.SetupRef})
				must(t, err)
			}
			if c.save == refused {
				return
			}
			if a.Method.Card.Last4 == "" || a.Method.Card.Fingerprint == "" || a.Method.Card.Expired(now) {
				t.Fatalf("card %+v", a.Method.Card)
			}
			if soon := a.Method.Card.Expired(now.AddDate(0, 1, 0)); soon != (token == sandbox.TokenExpiringThisMonth) {
				t.Fatalf("expires within a month: %t", soon)
			}
			for _, off := range []bool{false, true} {
				r := payment.ChargeRequest{
					Key: "c", Amount: usd(500), CustomerRef: a.CustomerRef, MethodRef: a.Method.Ref, AccountRef: "acct_1", PaymentRef: "pay_1", OffSession: off,
				}
				want := c.charge
				if off {
					r.Key, r.PaymentRef, want = "d", "pay_2", c.offSession
				}
				_, err := g.Charge(ctx, r)
				first("charge", err)
				ch, err := g.LookupCharge(ctx, payment.ChargeLookup{PaymentRef: r.PaymentRef})
				must(t, err)
				check("charge", ch.Outcome, ch.Decline, want)
				if ch.Disputed != (token == sandbox.TokenDispute) {
					t.Fatalf("disputed: %t", ch.Disputed)
				}
			}
		})
	}
	if len(cases) != len(sandbox.Tokens()) {
		t.Errorf("%d tokens in the table, %d in the sandbox", len(cases), len(sandbox.Tokens()))
	}
}

func TestTokenMakesAFreshMethodOfOneCard(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	save := func(key, account, token string) payment.MethodResult {
		a, err := p.gateway.Attach(t.Context(), payment.AttachRequest{Key: key, AccountRef: account, Token: token})
		must(t, err)
		return a.Method
	}
	one, two, other := save("1", "acct_1", sandbox.TokenVisa), save("2", "acct_2", sandbox.TokenVisa), save("3", "acct_1", sandbox.TokenAmex)
	if one.Ref == two.Ref || one.Card.Fingerprint != two.Card.Fingerprint || one.Card.Fingerprint == other.Card.Fingerprint {
		t.Errorf("methods %+v, %+v, %+v", one, two, other)
	}
	if one.CustomerRef != other.CustomerRef || one.CustomerRef == two.CustomerRef {
		t.Errorf("customers %s, %s, %s", one.CustomerRef, two.CustomerRef, other.CustomerRef)
	}
}

func TestCardChangesItsBehaviour(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	ctx, g := t.Context(), p.gateway
	request := card(t, g, sandbox.TokenVisa, "acct_1")
	ref := request(0).MethodRef

	must(t, p.control.Behave(ctx, ref, sandbox.TokenInsufficientFunds))
	c, err := g.Charge(ctx, request(1))
	if err != nil || c.Outcome != payment.OutcomeDeclined || c.Decline.Code != "insufficient_funds" {
		t.Fatalf("%+v, %v", c, err)
	}
	must(t, p.control.Behave(ctx, ref, sandbox.TokenProcessing))
	c, err = g.Charge(ctx, request(2))
	if err != nil || c.Outcome != payment.OutcomeProcessing {
		t.Fatalf("%+v, %v", c, err)
	}
	must(t, p.control.Settle(ctx, c.Ref, "do_not_honor"))
	if c, err = g.LookupCharge(ctx, payment.ChargeLookup{Ref: c.Ref}); err != nil || c.Decline.Code != "do_not_honor" {
		t.Fatalf("%+v, %v", c, err)
	}
	must(t, p.control.Behave(ctx, ref, sandbox.TokenVisa))
	must(t, p.control.Renew(ctx, ref, 1, now.Year()-1))
	if c, err = g.Charge(ctx, request(3)); err != nil || c.Outcome != payment.OutcomeDeclined || c.Decline.Code != "expired_card" {
		t.Fatalf("%+v, %v", c, err)
	}
	must(t, p.control.Renew(ctx, ref, 1, now.Year()+1))
	if c, err = g.Charge(ctx, request(4)); err != nil || c.Outcome != payment.OutcomeSucceeded {
		t.Fatalf("%+v, %v", c, err)
	}
	f, err := g.Refund(ctx, payment.RefundRequest{Key: "r", ChargeRef: c.Ref, Amount: usd(50), RefundID: "rfnd_1"})
	must(t, err)
	must(t, p.control.SettleRefund(ctx, f.Ref, "expired_or_canceled_card"))
	if f, err = g.LookupRefund(ctx, payment.RefundLookup{Ref: f.Ref}); err != nil || f.Outcome != payment.OutcomeDeclined || f.Failure == "" {
		t.Fatalf("%+v, %v", f, err)
	}
	if c, err = g.LookupCharge(ctx, payment.ChargeLookup{Ref: c.Ref}); err != nil || c.Refunded != usd(0) {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestDisputeIsDecided(t *testing.T) {
	t.Parallel()

	p := start(t, nil)
	request := card(t, p.gateway, sandbox.TokenVisa, "acct_1")
	for n, won := range []bool{true, false} {
		c, err := p.gateway.Charge(t.Context(), request(n))
		must(t, err)
		ref, err := p.control.Dispute(t.Context(), c.Ref)
		must(t, err)
		must(t, p.control.CloseDispute(t.Context(), ref, won))
		o, err := p.gateway.Fetch(t.Context(), payment.ObjectDispute, ref)
		must(t, err)
		if (o.Dispute.Status == payment.DisputeWon) != won || o.Dispute.Withdrawn == won {
			t.Errorf("won %t: %+v", won, o.Dispute)
		}
	}
}

func TestSetupExpires(t *testing.T) {
	t.Parallel()

	at := now
	p := start(t, func(c *sandbox.Config) { c.Clock = func() time.Time { return at } })
	su, err := p.gateway.CreateSetup(t.Context(), payment.SetupRequest{Key: "s", AccountRef: "acct_1"})
	must(t, err)
	at = at.Add(payment.SetupLifetime + time.Second)
	if err := p.control.GiveCard(t.Context(), su.Ref, sandbox.TokenVisa); err == nil {
		t.Error("a card was given too late")
	}
	_, err = p.gateway.Attach(t.Context(), payment.AttachRequest{Key: "a", AccountRef: "acct_1", Setup: su.Ref})
	if !errors.Is(err, payment.ErrSetupExpired) {
		t.Errorf("attached too late: %v", err)
	}
	if su, err = p.gateway.LookupSetup(t.Context(), su.Ref); err != nil || su.Outcome != payment.OutcomeCanceled {
		t.Errorf("%+v, %v", su, err)
	}
}
