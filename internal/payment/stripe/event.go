package stripe

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
)

// VerifyEvent implements payment.Gateway. It does what stripe-go's webhook.ConstructEvent does, with a
// time of the caller's, in both directions, and with several secrets.
func (g *Gateway) VerifyEvent(header map[string][]string, body []byte, now time.Time) (payment.Event, error) {
	if err := payment.VerifySignature(http.Header(header).Get("Stripe-Signature"), body, g.cfg.WebhookSecrets, now); err != nil {
		return payment.Event{}, err
	}
	var e struct {
		ID       string `json:"id"`
		Object   string `json:"object"`
		Type     string `json:"type"`
		Created  int64  `json:"created"`
		Livemode bool   `json:"livemode"`
		Data     struct {
			Object struct {
				ID            string `json:"id"`
				Object        string `json:"object"`
				PaymentIntent any    `json:"payment_intent"`
			} `json:"object"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &e); err != nil || e.Object != "event" || e.ID == "" {
		return payment.Event{}, payment.ErrSignature.Because(errors.New("signed, but not an event"))
	}
	if e.Livemode != (g.cfg.Mode == payment.ModeLive) {
		return payment.Event{}, payment.ErrSignature.Because(errors.New("signed, but of the other mode"))
	}
	out := payment.Event{ID: e.ID, Type: e.Type, Object: payment.ObjectOther, Ref: e.Data.Object.ID, CreatedAt: when(e.Created)}
	switch e.Data.Object.Object {
	case "payment_intent":
		out.Object, out.Succeeded = payment.ObjectCharge, e.Type == "payment_intent.succeeded"
	case "charge": // of a payment intent, which is what we know
		if ref, ok := e.Data.Object.PaymentIntent.(string); ok {
			out.Object, out.Ref = payment.ObjectCharge, ref
		}
	case "refund":
		out.Object = payment.ObjectRefund
	case "dispute":
		out.Object = payment.ObjectDispute
	case "payment_method":
		out.Object = payment.ObjectMethod
	case "setup_intent":
		out.Object = payment.ObjectSetup
	}
	return out, nil
}

// Fetch implements payment.Gateway.
func (g *Gateway) Fetch(ctx context.Context, kind payment.ObjectKind, ref string) (payment.Object, error) {
	switch kind {
	case payment.ObjectCharge:
		v, err := g.LookupCharge(ctx, payment.ChargeLookup{Ref: ref})
		return payment.Object{Charge: found(v, err)}, err
	case payment.ObjectRefund:
		v, err := g.LookupRefund(ctx, payment.RefundLookup{Ref: ref})
		return payment.Object{Refund: found(v, err)}, err
	case payment.ObjectDispute:
		v, err := g.dispute(ctx, ref)
		return payment.Object{Dispute: found(v, err)}, err
	case payment.ObjectMethod:
		v, err := g.method(ctx, ref)
		return payment.Object{Method: found(v, err)}, err
	case payment.ObjectSetup:
		v, err := g.LookupSetup(ctx, ref)
		return payment.Object{Setup: found(v, err)}, err
	default:
		return payment.Object{}, payment.ErrMissing
	}
}

func found[T any](v T, err error) *T {
	if err != nil {
		return nil
	}
	return &v
}
