package stripe

import (
	"context"
	"errors"
	"slices"

	"github.com/stripe/stripe-go/v85"

	"github.com/accrue-billing/accrue/internal/payment"
)

// Refund implements payment.Gateway.
func (g *Gateway) Refund(ctx context.Context, r payment.RefundRequest) (payment.RefundResult, error) {
	amount, err := toStripe(r.Amount)
	if err != nil {
		return payment.RefundResult{}, err
	}
	p := &stripe.RefundCreateParams{
		PaymentIntent: &r.ChargeRef,
		Amount:        &amount,
		Metadata:      map[string]string{metaRefund: r.RefundID},
		Expand:        expand("payment_intent"),
	}
	p.SetIdempotencyKey(r.Key)
	f, err := g.client.V1Refunds.Create(ctx, p)
	if e, ok := errors.AsType[*stripe.Error](err); ok && tooMuch(e) {
		return payment.RefundResult{}, payment.ErrRefundTooLarge.Because(summary(e))
	}
	if err != nil {
		return payment.RefundResult{}, classify(err)
	}
	return refund(f)
}

// tooMuch reports whether Stripe says that the charge has less left, or nothing was charged at all.
func tooMuch(e *stripe.Error) bool {
	return e.Type == stripe.ErrorTypeInvalidRequest &&
		(e.Param == "amount" || e.Code == stripe.ErrorCodePaymentIntentUnexpectedState)
}

// LookupRefund implements payment.Gateway.
func (g *Gateway) LookupRefund(ctx context.Context, l payment.RefundLookup) (payment.RefundResult, error) {
	if l.Ref != "" {
		p := &stripe.RefundRetrieveParams{}
		p.Expand = expand("payment_intent")
		f, err := g.client.V1Refunds.Retrieve(ctx, l.Ref, p)
		if err != nil {
			return payment.RefundResult{}, classify(err)
		}
		return refund(f)
	}
	if l.ChargeRef == "" || l.RefundID == "" {
		return payment.RefundResult{}, payment.ErrRejected.Because(errors.New("a refund is looked up by its charge and our identifier"))
	}
	all, err := g.Refunds(ctx, l.ChargeRef)
	if err != nil {
		return payment.RefundResult{}, err
	}
	for _, f := range all {
		if f.RefundID == l.RefundID {
			return f, nil
		}
	}
	return payment.RefundResult{}, payment.ErrMissing
}

// Refunds implements payment.Gateway. Stripe lists the newest first.
func (g *Gateway) Refunds(ctx context.Context, chargeRef string) ([]payment.RefundResult, error) {
	p := &stripe.RefundListParams{PaymentIntent: &chargeRef}
	p.Limit = stripe.Int64(100)
	p.Expand = expand("data.payment_intent")
	var out []payment.RefundResult
	for f, err := range g.client.V1Refunds.List(ctx, p).All(ctx) {
		if err != nil {
			return nil, classify(err)
		}
		r, err := refund(f)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	slices.Reverse(out)
	return out, nil
}

// refund reads a Refund.
func refund(f *stripe.Refund) (payment.RefundResult, error) {
	a, err := fromStripe(f.Amount, f.Currency)
	if err != nil {
		return payment.RefundResult{}, err
	}
	if f.ID == "" {
		return payment.RefundResult{}, payment.ErrUnknown.Because(errors.New("a refund without a name"))
	}
	out := payment.RefundResult{
		Ref: f.ID, RefundID: f.Metadata[metaRefund], Amount: a, Failure: string(f.FailureReason), CreatedAt: when(f.Created),
	}
	if pi := f.PaymentIntent; pi != nil {
		out.ChargeRef, out.PaymentRef = pi.ID, pi.Metadata[metaPayment]
	}
	switch f.Status {
	case stripe.RefundStatusSucceeded:
		out.Outcome = payment.OutcomeSucceeded
	case stripe.RefundStatusFailed, stripe.RefundStatusCanceled:
		out.Outcome = payment.OutcomeDeclined
	default:
		out.Outcome = payment.OutcomeProcessing
	}
	return out, nil
}

// dispute returns a dispute as it is now.
func (g *Gateway) dispute(ctx context.Context, ref string) (payment.DisputeResult, error) {
	p := &stripe.DisputeRetrieveParams{}
	p.Expand = expand("payment_intent")
	d, err := g.client.V1Disputes.Retrieve(ctx, ref, p)
	if err != nil {
		return payment.DisputeResult{}, classify(err)
	}
	return readDispute(d)
}

// readDispute reads a Dispute. What is off our balance is what its balance transactions add up to: an
// inquiry has none, a dispute takes the amount, and winning it gives the amount back.
func readDispute(d *stripe.Dispute) (payment.DisputeResult, error) {
	a, err := fromStripe(d.Amount, d.Currency)
	if err != nil {
		return payment.DisputeResult{}, err
	}
	out := payment.DisputeResult{Ref: d.ID, Amount: a, Reason: string(d.Reason), CreatedAt: when(d.Created)}
	if pi := d.PaymentIntent; pi != nil {
		out.ChargeRef, out.PaymentRef = pi.ID, pi.Metadata[metaPayment]
	}
	switch d.Status {
	case stripe.DisputeStatusWon:
		out.Status = payment.DisputeWon
	case stripe.DisputeStatusLost:
		out.Status = payment.DisputeLost
	case stripe.DisputeStatusWarningClosed, stripe.DisputeStatusPrevented:
		out.Status = payment.DisputeOpen // an inquiry that is over has given nothing back, unless it had taken something
		if len(d.BalanceTransactions) > 0 {
			out.Status = payment.DisputeWon
		}
	default:
		out.Status = payment.DisputeOpen
	}
	var net int64
	for _, t := range d.BalanceTransactions {
		net += t.Amount
	}
	out.Withdrawn = net < 0
	return out, nil
}
