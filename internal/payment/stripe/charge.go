package stripe

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/stripe/stripe-go/v85"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// skew is how far Stripe's clock may be behind ours when we ask for what is new.
const skew = 5 * time.Minute

// Charge implements payment.Gateway.
func (g *Gateway) Charge(ctx context.Context, r payment.ChargeRequest) (payment.ChargeResult, error) {
	l, err := g.Limits(r.Amount.Currency)
	if err != nil {
		return payment.ChargeResult{}, err
	}
	if err := l.Check(r.Amount); err != nil {
		return payment.ChargeResult{}, err
	}
	amount, err := toStripe(r.Amount)
	if err != nil {
		return payment.ChargeResult{}, err
	}
	p := &stripe.PaymentIntentCreateParams{
		Amount:             &amount,
		Currency:           stripe.String(strings.ToLower(string(r.Amount.Currency))),
		Customer:           &r.CustomerRef,
		PaymentMethod:      &r.MethodRef,
		PaymentMethodTypes: expand("card"),
		Confirm:            new(true),
		Description:        optional(r.Description),
		Metadata:           map[string]string{metaAccount: r.AccountRef, metaPayment: r.PaymentRef},
		Expand:             expand("latest_charge"),
	}
	if r.OffSession {
		p.OffSession = new(true)
	} else {
		p.ReturnURL = optional(r.ReturnURL)
	}
	p.SetIdempotencyKey(r.Key)
	pi, err := g.client.V1PaymentIntents.Create(ctx, p)
	if e, ok := declined(err); ok {
		return declinedCharge(e, r)
	}
	if e, ok := aboutMethod(err); ok && e.Code != stripe.ErrorCodeResourceMissing {
		return payment.ChargeResult{}, payment.ErrForeignToken.Because(summary(e))
	}
	if err != nil {
		return payment.ChargeResult{}, classify(err)
	}
	return charge(pi)
}

// declinedCharge reads the PaymentIntent that comes with a refusal. A refusal without one is what was
// asked for, and refused.
func declinedCharge(e *stripe.Error, r payment.ChargeRequest) (payment.ChargeResult, error) {
	if e.PaymentIntent == nil || e.PaymentIntent.ID == "" {
		return payment.ChargeResult{
			Outcome: payment.OutcomeDeclined, Amount: r.Amount, Refunded: money.Zero(r.Amount.Currency),
			CustomerRef: r.CustomerRef, MethodRef: r.MethodRef, AccountRef: r.AccountRef, PaymentRef: r.PaymentRef,
			Decline: decline(e),
		}, nil
	}
	out, err := charge(e.PaymentIntent)
	if err != nil {
		return payment.ChargeResult{}, err
	}
	out.Outcome, out.Decline, out.MethodRef = payment.OutcomeDeclined, decline(e), r.MethodRef
	return out, nil
}

// charge reads a PaymentIntent.
func charge(pi *stripe.PaymentIntent) (payment.ChargeResult, error) {
	amount := pi.Amount
	if pi.Status == stripe.PaymentIntentStatusSucceeded {
		amount = pi.AmountReceived // what was taken, whatever was asked for
	}
	a, err := fromStripe(amount, pi.Currency)
	if err != nil {
		return payment.ChargeResult{}, err
	}
	if pi.ID == "" {
		return payment.ChargeResult{}, payment.ErrUnknown.Because(errors.New("a payment intent without a name"))
	}
	out := payment.ChargeResult{
		Ref: pi.ID, Amount: a, Refunded: money.Zero(a.Currency), CustomerRef: customerID(pi.Customer),
		AccountRef: pi.Metadata[metaAccount], PaymentRef: pi.Metadata[metaPayment], CreatedAt: when(pi.Created),
	}
	if pi.PaymentMethod != nil {
		out.MethodRef = pi.PaymentMethod.ID
	}
	if ch := pi.LatestCharge; ch != nil {
		out.Disputed = ch.Disputed
		if out.Refunded, err = fromStripe(ch.AmountRefunded, pi.Currency); err != nil {
			return payment.ChargeResult{}, err
		}
	}
	switch e := pi.LastPaymentError; pi.Status {
	case stripe.PaymentIntentStatusSucceeded:
		out.Outcome = payment.OutcomeSucceeded
	case stripe.PaymentIntentStatusRequiresAction:
		out.Outcome = payment.OutcomeRequiresAction
		out.NextAction = &payment.NextAction{Type: payment.ActionProviderScript, ClientSecret: payment.Secret(pi.ClientSecret)}
		if n := pi.NextAction; n != nil && n.RedirectToURL != nil {
			out.NextAction = &payment.NextAction{Type: payment.ActionRedirect, URL: n.RedirectToURL.URL}
		}
	case stripe.PaymentIntentStatusCanceled:
		out.Outcome = payment.OutcomeCanceled
		if e != nil {
			out.Outcome, out.Decline = payment.OutcomeDeclined, decline(e)
		}
	case stripe.PaymentIntentStatusRequiresPaymentMethod:
		out.Outcome = payment.OutcomeProcessing
		if e != nil {
			out.Outcome, out.Decline = payment.OutcomeDeclined, decline(e)
		}
	default:
		out.Outcome = payment.OutcomeProcessing
	}
	return out, nil
}

func (g *Gateway) paymentIntent(ctx context.Context, ref string) (*stripe.PaymentIntent, error) {
	p := &stripe.PaymentIntentRetrieveParams{}
	p.Expand = expand("latest_charge")
	pi, err := g.client.V1PaymentIntents.Retrieve(ctx, ref, p)
	if err != nil {
		return nil, classify(err)
	}
	return pi, nil
}

// ConfirmCharge implements payment.Gateway.
//
// After a refused authentication Stripe would let the browser, which holds the client secret, pay the
// same PaymentIntent with another card. It is canceled, so that a decline is final.
func (g *Gateway) ConfirmCharge(ctx context.Context, r payment.ConfirmRequest) (payment.ChargeResult, error) {
	pi, err := g.paymentIntent(ctx, r.Ref)
	if err != nil {
		return payment.ChargeResult{}, err
	}
	switch {
	case pi.Status == stripe.PaymentIntentStatusRequiresConfirmation:
		p := &stripe.PaymentIntentConfirmParams{ReturnURL: optional(r.ReturnURL), Expand: expand("latest_charge")}
		p.SetIdempotencyKey(r.Key)
		confirmed, err := g.client.V1PaymentIntents.Confirm(ctx, r.Ref, p)
		if _, ok := declined(err); ok {
			return g.LookupCharge(ctx, payment.ChargeLookup{Ref: r.Ref})
		}
		if err != nil {
			return payment.ChargeResult{}, classify(err)
		}
		pi = confirmed
	case pi.Status == stripe.PaymentIntentStatusRequiresPaymentMethod && pi.LastPaymentError != nil:
		return g.CancelCharge(ctx, payment.CancelRequest{Key: r.Key + "-final", Ref: r.Ref})
	}
	return charge(pi)
}

// CancelCharge implements payment.Gateway.
func (g *Gateway) CancelCharge(ctx context.Context, r payment.CancelRequest) (payment.ChargeResult, error) {
	p := &stripe.PaymentIntentCancelParams{Expand: expand("latest_charge")}
	p.SetIdempotencyKey(r.Key)
	pi, err := g.client.V1PaymentIntents.Cancel(ctx, r.Ref, p)
	if e, ok := errors.AsType[*stripe.Error](err); ok && e.Code == stripe.ErrorCodePaymentIntentUnexpectedState {
		return g.LookupCharge(ctx, payment.ChargeLookup{Ref: r.Ref}) // too late, or done already
	}
	if err != nil {
		return payment.ChargeResult{}, classify(err)
	}
	return charge(pi)
}

// LookupCharge implements payment.Gateway.
//
// By payment it goes through Stripe's list of the customer's, or everyone's, latest PaymentIntents,
// which is current. The search index may lag by a minute and more, so that what it finds is true and
// what it does not find is ErrUnknown.
func (g *Gateway) LookupCharge(ctx context.Context, l payment.ChargeLookup) (payment.ChargeResult, error) {
	if l.Ref != "" {
		pi, err := g.paymentIntent(ctx, l.Ref)
		if err != nil {
			return payment.ChargeResult{}, err
		}
		return charge(pi)
	}
	if !plain(l.PaymentRef) {
		return payment.ChargeResult{}, payment.ErrRejected.Because(fmt.Errorf("%q is not one of our identifiers", l.PaymentRef))
	}
	var all iter.Seq2[*stripe.PaymentIntent, error]
	if l.Since.IsZero() {
		p := &stripe.PaymentIntentSearchParams{}
		p.Query = fmt.Sprintf("metadata['%s']:'%s'", metaPayment, l.PaymentRef)
		p.Expand = expand("data.latest_charge")
		all = iter.Seq2[*stripe.PaymentIntent, error](g.client.V1PaymentIntents.Search(ctx, p).All(ctx))
	} else {
		p := &stripe.PaymentIntentListParams{
			Customer:     optional(l.CustomerRef),
			CreatedRange: &stripe.RangeQueryParams{GreaterThanOrEqual: l.Since.Add(-skew).Unix()},
		}
		all = g.list(ctx, p)
	}
	var found *stripe.PaymentIntent
	for pi, err := range all {
		if err != nil {
			return payment.ChargeResult{}, classify(err)
		}
		if pi.Metadata[metaPayment] != l.PaymentRef {
			continue
		}
		// There should be one; money that moved counts most.
		if found == nil || pi.Status == stripe.PaymentIntentStatusSucceeded {
			found = pi
		}
	}
	switch {
	case found != nil:
		return charge(found)
	case l.Since.IsZero():
		return payment.ChargeResult{}, payment.ErrUnknown.Because(errors.New("not in the search index, or not yet"))
	default:
		return payment.ChargeResult{}, payment.ErrMissing
	}
}

func (g *Gateway) list(ctx context.Context, p *stripe.PaymentIntentListParams) iter.Seq2[*stripe.PaymentIntent, error] {
	p.Limit = stripe.Int64(100)
	p.Expand = expand("data.latest_charge")
	return iter.Seq2[*stripe.PaymentIntent, error](g.client.V1PaymentIntents.List(ctx, p).All(ctx))
}

// ListCharges implements payment.Gateway.
func (g *Gateway) ListCharges(ctx context.Context, from, to time.Time) iter.Seq2[payment.ChargeResult, error] {
	return func(yield func(payment.ChargeResult, error) bool) {
		p := &stripe.PaymentIntentListParams{CreatedRange: &stripe.RangeQueryParams{
			GreaterThanOrEqual: from.Unix(), LesserThan: to.Add(time.Second - time.Nanosecond).Unix(),
		}}
		for pi, err := range g.list(ctx, p) {
			if err != nil {
				yield(payment.ChargeResult{}, classify(err))
				return
			}
			c, err := charge(pi)
			if !yield(c, err) || err != nil {
				return
			}
		}
	}
}

// plain reports whether a reference is made of letters, digits, "_" and "-", and so needs no quoting.
func plain(ref string) bool {
	for _, c := range ref {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return ref != ""
}
