package stripe

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/stripe/stripe-go/v85"

	"github.com/accrue-billing/accrue/internal/payment"
)

// classify turns whatever a call of stripe-go returned into an error of the port. Stripe's own error
// is not kept as the cause: its text is the whole answer, client secrets and addresses included.
func classify(err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*stripe.Error](err)
	if !ok {
		if below, ok := errors.AsType[*url.Error](err); ok {
			return payment.TransportError(below)
		}
		// stripe-go quotes the beginning of an answer that it cannot read.
		return payment.ErrUnknown.Because(errors.New("stripe: the answer cannot be read"))
	}
	cause := summary(e)
	switch e.Code {
	case stripe.ErrorCodeResourceMissing:
		return payment.ErrMissing.Because(cause)
	case stripe.ErrorCodeAmountTooSmall, stripe.ErrorCodeAmountTooLarge:
		return payment.ErrAmount.Because(cause)
	case stripe.ErrorCodeChargeAlreadyRefunded, stripe.ErrorCodeChargeDisputed,
		stripe.ErrorCodeChargeNotRefundable, stripe.ErrorCodeRefundDisputedPayment:
		return payment.ErrRefundTooLarge.Because(cause)
	case stripe.ErrorCodeIdempotencyKeyInUse, stripe.ErrorCodeLockTimeout, stripe.ErrorCodeRateLimit:
		return payment.StatusError(http.StatusTooManyRequests, header(e), cause)
	}
	if e.Type == stripe.ErrorTypeIdempotency {
		return payment.ErrUnknown.Because(cause) // the key was used with other parameters: something was done under it
	}
	if e.HTTPStatusCode < 300 { // no error that a server sends
		return payment.ErrUnknown.Because(cause)
	}
	return payment.StatusError(e.HTTPStatusCode, header(e), cause)
}

func header(e *stripe.Error) http.Header {
	if e.LastResponse == nil {
		return nil
	}
	return e.LastResponse.Header
}

// summary is what may be logged of an error.
func summary(e *stripe.Error) error {
	return fmt.Errorf("stripe: status %d, type %q, code %q, decline code %q, parameter %q, request %q",
		e.HTTPStatusCode, e.Type, e.Code, e.DeclineCode, e.Param, e.RequestID)
}

// declined returns Stripe's error if it says that a card was refused.
func declined(err error) (*stripe.Error, bool) {
	e, ok := errors.AsType[*stripe.Error](err)
	return e, ok && e.Type == stripe.ErrorTypeCard
}

// decline returns what a refused card's error means: by the issuer's reason where there is one.
func decline(e *stripe.Error) *payment.Decline {
	code := string(e.DeclineCode)
	if code == "" {
		code = string(e.Code)
	}
	d := payment.DeclineFor(code)
	return &d
}

// aboutMethod reports whether Stripe complains of the payment method that it was given.
func aboutMethod(err error) (*stripe.Error, bool) {
	e, ok := errors.AsType[*stripe.Error](err)
	return e, ok && (e.Param == "payment_method" || e.Code == stripe.ErrorCodePaymentMethodUnexpectedState)
}
