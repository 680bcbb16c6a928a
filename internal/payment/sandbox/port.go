package sandbox

import (
	"fmt"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// publishableKey is for the form's sake: the sandbox's card page needs none.
const publishableKey = "pk_sandbox"

// The port's words for the provider's objects. What makes no sense is ErrUnknown: the provider did
// something, and what it said of it cannot be relied on.

func nonsense(format string, args ...any) error {
	return payment.ErrUnknown.Because(fmt.Errorf("the sandbox answered nonsense: "+format, args...))
}

func outcome(status string) (payment.Outcome, error) {
	switch status {
	case statusSucceeded:
		return payment.OutcomeSucceeded, nil
	case statusRequiresAction:
		return payment.OutcomeRequiresAction, nil
	case statusProcessing, statusRequiresMethod:
		return payment.OutcomeProcessing, nil
	case statusDeclined, statusFailed:
		return payment.OutcomeDeclined, nil
	case statusCanceled:
		return payment.OutcomeCanceled, nil
	}
	return "", nonsense("status %q", status)
}

func amount(minor int64, currency string) (money.Amount, error) {
	c, err := money.ParseCurrency(currency)
	if err != nil || minor < 0 || minor > money.MaxMinor {
		return money.Amount{}, nonsense("%d %q", minor, currency)
	}
	return money.New(minor, c), nil
}

func (n *nextAction) port() *payment.NextAction {
	if n == nil {
		return nil
	}
	return &payment.NextAction{Type: n.Type, URL: n.URL}
}

func declineFor(code string) *payment.Decline {
	if code == "" {
		return nil
	}
	d := payment.DeclineFor(code)
	return &d
}

func (su setup) port() (payment.Setup, error) {
	o, err := outcome(su.Status)
	if err != nil {
		return payment.Setup{}, err
	}
	if su.ID == "" || su.Customer == "" {
		return payment.Setup{}, nonsense("a setup without a name")
	}
	return payment.Setup{
		Ref: su.ID, AccountRef: su.Account, CustomerRef: su.Customer, Outcome: o, MethodRef: su.Method,
		ClientSecret: payment.Secret(su.ClientSecret), PublishableKey: publishableKey, URL: su.URL,
		ExpiresAt: su.ExpiresAt, NextAction: su.NextAction.port(), Decline: declineFor(su.DeclineCode),
	}, nil
}

func (a attachment) port() (payment.AttachResult, error) {
	su, err := a.Setup.port()
	if err != nil {
		return payment.AttachResult{}, err
	}
	out := payment.AttachResult{
		Outcome: su.Outcome, SetupRef: su.Ref, CustomerRef: su.CustomerRef, NextAction: su.NextAction, Decline: su.Decline,
	}
	if out.Outcome == payment.OutcomeSucceeded {
		if a.Method == nil {
			return payment.AttachResult{}, nonsense("an attachment without a method")
		}
		if out.Method, err = a.Method.port(); err != nil {
			return payment.AttachResult{}, err
		}
	}
	return out, nil
}

func (m method) port() (payment.MethodResult, error) {
	if m.ID == "" {
		return payment.MethodResult{}, nonsense("a method without a name")
	}
	b := m.Billing
	return payment.MethodResult{
		Ref: m.ID, CustomerRef: m.Customer,
		Card: payment.Card(m.Card),
		Billing: payment.Billing{Name: b.Name, Email: b.Email, Address: payment.Address{
			Line1: b.Line1, Line2: b.Line2, City: b.City, State: b.State, PostalCode: b.PostalCode, Country: b.Country,
		}},
	}, nil
}

func billingFrom(b payment.Billing) billingInfo {
	a := b.Address
	return billingInfo{
		Name: b.Name, Email: b.Email, Line1: a.Line1, Line2: a.Line2, City: a.City, State: a.State,
		PostalCode: a.PostalCode, Country: a.Country,
	}
}

func (c charge) port() (payment.ChargeResult, error) {
	o, err := outcome(c.Status)
	if err != nil {
		return payment.ChargeResult{}, err
	}
	a, err := amount(c.Amount, c.Currency)
	if err != nil {
		return payment.ChargeResult{}, err
	}
	if c.ID == "" || c.Refunded < 0 || c.Refunded > c.Amount {
		return payment.ChargeResult{}, nonsense("charge %q with %d of %d refunded", c.ID, c.Refunded, c.Amount)
	}
	return payment.ChargeResult{
		Ref: c.ID, Outcome: o, Amount: a, Refunded: money.New(c.Refunded, a.Currency), Disputed: c.Disputed,
		CustomerRef: c.Customer, MethodRef: c.Method, AccountRef: c.Account, PaymentRef: c.Payment,
		CreatedAt: c.CreatedAt, NextAction: c.NextAction.port(), Decline: declineFor(c.DeclineCode),
	}, nil
}

func (f refund) port() (payment.RefundResult, error) {
	o, err := outcome(f.Status)
	if err != nil {
		return payment.RefundResult{}, err
	}
	a, err := amount(f.Amount, f.Currency)
	if err != nil {
		return payment.RefundResult{}, err
	}
	if f.ID == "" || f.Charge == "" {
		return payment.RefundResult{}, nonsense("a refund of nothing")
	}
	return payment.RefundResult{
		Ref: f.ID, ChargeRef: f.Charge, PaymentRef: f.Payment, RefundID: f.Refund, Outcome: o, Amount: a,
		Failure: f.Failure, CreatedAt: f.CreatedAt,
	}, nil
}

func (d dispute) port() (payment.DisputeResult, error) {
	a, err := amount(d.Amount, d.Currency)
	if err != nil {
		return payment.DisputeResult{}, err
	}
	status := payment.DisputeStatus(d.Status)
	switch status {
	case payment.DisputeOpen, payment.DisputeWon, payment.DisputeLost:
	default:
		return payment.DisputeResult{}, nonsense("dispute status %q", d.Status)
	}
	return payment.DisputeResult{
		Ref: d.ID, ChargeRef: d.Charge, PaymentRef: d.Payment, Status: status,
		Withdrawn: status != payment.DisputeWon, Amount: a, Reason: d.Reason, CreatedAt: d.CreatedAt,
	}, nil
}
