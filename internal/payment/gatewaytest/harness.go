// Package gatewaytest is the suite that every gateway passes.
//
// It states, as tests, what the comments of payment.Gateway promise. A gateway's own tests run it
// against whatever plays its provider; the suite speaks to the gateway alone and asks the harness for
// everything that the rest of the world does.
package gatewaytest

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Failure is what goes wrong with the next call that charges.
type Failure string

// The failures that a harness can plan.
const (
	NoAnswer     Failure = "no answer, carried out"
	NotCarried   Failure = "no answer, not carried out"
	Broken       Failure = "5xx, not carried out"
	Busy         Failure = "429, not carried out"
	KeyInUse     Failure = "409, not carried out"
	HalfAnAnswer Failure = "half an answer, carried out"
	WrongAmount  Failure = "another amount is taken"
)

// Tokens are the provider's test cards.
type Tokens struct {
	Good              string
	SaveDeclined      string // refused when saved
	ChargeDeclined    string // can be saved; a charge is refused
	InsufficientFunds string // can be saved; a charge is refused with insufficient_funds
	Lost              string // can be saved; a charge is refused with lost_card
	SaveAuth          string // 3-D Secure when saved only
	ChargeAuth        string // 3-D Secure at every charge too
}

// Harness is a gateway with a provider behind it that nobody else uses.
type Harness struct {
	Gateway payment.Gateway
	Now     time.Time // the time that the provider goes by
	Tokens  Tokens

	// Remembers is false for a provider that answers every request with the same example, so that only
	// the form of requests and answers can be tested. The functions below are nil then.
	Remembers bool

	GiveCard      func(t *testing.T, setupRef, token string)
	Act           func(t *testing.T, ref string, approve bool) // at a setup's or a charge's 3-D Secure page
	Fail          func(t *testing.T, f Failure)                // the next call of Charge
	ForgetKeys    func(t *testing.T)
	RefundOutside func(t *testing.T, chargeRef string, minor int64)
	Dispute       func(t *testing.T, chargeRef string) (disputeRef string)

	// Event returns a webhook about an object as the provider sends it, signed at a time with the
	// secret of the given number, of the two that the gateway was given.
	Event func(t *testing.T, o payment.ObjectKind, ref string, at time.Time, secret int) (http.Header, []byte)
}

var counter atomic.Int64

// unique returns a name that no other test uses.
func unique(prefix string) string {
	return fmt.Sprintf("%s_%d_%d", prefix, time.Now().UnixNano(), counter.Add(1))
}

func usd(minor int64) money.Amount { return money.New(minor, money.USD) }

func billing() payment.Billing {
	return payment.Billing{
		Name: "Ada Lovelace", Email: "ada@example.com",
		Address: payment.Address{Line1: "12 St James's Square", City: "London", PostalCode: "SW1Y 4JH", Country: "GB"},
	}
}

func confirmation(setupRef string) payment.ConfirmSetupRequest {
	return payment.ConfirmSetupRequest{Key: unique("key"), Ref: setupRef, Billing: billing()}
}

// attached is an account with a saved card.
type attached struct {
	Harness
	account, customer, method string
}

func attach(t *testing.T, h Harness, token string) attached {
	t.Helper()
	account := unique("acct")
	res, err := h.Gateway.Attach(t.Context(), payment.AttachRequest{
		Key: unique("key"), AccountRef: account, Token: token, Billing: billing(), ReturnURL: "https://example.com/back",
	})
	if err != nil {
		t.Fatalf("attach: %v", err)
	}
	if h.Remembers && res.Outcome == payment.OutcomeRequiresAction {
		h.Act(t, res.SetupRef, true)
		if res, err = h.Gateway.ConfirmSetup(t.Context(), confirmation(res.SetupRef)); err != nil {
			t.Fatalf("confirm: %v", err)
		}
	}
	if h.Remembers && res.Outcome != payment.OutcomeSucceeded {
		t.Fatalf("attach: outcome %s, decline %+v", res.Outcome, res.Decline)
	}
	return attached{Harness: h, account: account, customer: res.CustomerRef, method: res.Method.Ref}
}

func (a attached) request(minor int64) payment.ChargeRequest {
	return payment.ChargeRequest{
		Key: unique("key"), Amount: usd(minor), CustomerRef: a.customer, MethodRef: a.method, Description: "Top-up",
		AccountRef: a.account, PaymentRef: unique("pay"), ReturnURL: "https://example.com/back",
	}
}

func (a attached) charge(t *testing.T, minor int64) (payment.ChargeRequest, payment.ChargeResult) {
	t.Helper()
	r := a.request(minor)
	res, err := a.Gateway.Charge(t.Context(), r)
	if err != nil {
		t.Fatalf("charge: %v", err)
	}
	if res.Outcome != payment.OutcomeSucceeded {
		t.Fatalf("charge: outcome %s, decline %+v", res.Outcome, res.Decline)
	}
	return r, res
}

// charges returns how often the account was charged with success, by the provider's own list.
func (a attached) charges(t *testing.T) (n int) {
	t.Helper()
	for c, err := range a.Gateway.ListCharges(t.Context(), a.Now.Add(-time.Hour), a.Now.Add(time.Hour)) {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		if c.AccountRef == a.account && c.Outcome == payment.OutcomeSucceeded {
			n++
		}
	}
	return n
}
