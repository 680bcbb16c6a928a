package payment

import (
	"context"
	"errors"
	"time"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
)

// Told is told of a call to the provider: which it was, what came of it and how long it took. What came of it is the result's
// Outcome, the code of the error, or "done" where a result has no outcome and "failed" where an error has no code. It must
// be safe for concurrent use.
type Told func(call, outcome string, took time.Duration)

// Watch returns the gateway with somebody who is told of every call. ListCharges, which is many calls, is not among them.
func Watch(g Gateway, clk clock.Clock, told Told) Gateway { return watched{g, clk, told} }

type watched struct {
	Gateway
	clock clock.Clock
	told  Told
}

// watch makes one call. of gives the outcome of its result; nil: it has none.
func watch[R any](w watched, call string, of func(R) Outcome, do func() (R, error)) (R, error) {
	began := w.clock()
	r, err := do()
	outcome := "done"
	if known, ok := errors.AsType[*errs.Error](err); ok {
		outcome = known.Code
	} else if err != nil {
		outcome = "failed"
	} else if of != nil {
		outcome = string(of(r))
	}
	w.told(call, outcome, w.clock().Sub(began))
	return r, err
}

func ofAttach(r AttachResult) Outcome { return r.Outcome }
func ofCharge(r ChargeResult) Outcome { return r.Outcome }
func ofRefund(r RefundResult) Outcome { return r.Outcome }

func (w watched) CreateSetup(ctx context.Context, r SetupRequest) (Setup, error) {
	return watch(w, "create_setup", nil, func() (Setup, error) { return w.Gateway.CreateSetup(ctx, r) })
}

func (w watched) LookupSetup(ctx context.Context, ref string) (Setup, error) {
	return watch(w, "lookup_setup", nil, func() (Setup, error) { return w.Gateway.LookupSetup(ctx, ref) })
}

func (w watched) Attach(ctx context.Context, r AttachRequest) (AttachResult, error) {
	return watch(w, "attach", ofAttach, func() (AttachResult, error) { return w.Gateway.Attach(ctx, r) })
}

func (w watched) ConfirmSetup(ctx context.Context, r ConfirmSetupRequest) (AttachResult, error) {
	return watch(w, "confirm_setup", ofAttach, func() (AttachResult, error) { return w.Gateway.ConfirmSetup(ctx, r) })
}

func (w watched) UpdateBilling(ctx context.Context, r UpdateRequest) (MethodResult, error) {
	return watch(w, "update_billing", nil, func() (MethodResult, error) { return w.Gateway.UpdateBilling(ctx, r) })
}

func (w watched) Detach(ctx context.Context, r DetachRequest) error {
	_, err := watch(w, "detach", nil, func() (struct{}, error) { return struct{}{}, w.Gateway.Detach(ctx, r) })
	return err
}

func (w watched) Charge(ctx context.Context, r ChargeRequest) (ChargeResult, error) {
	return watch(w, "charge", ofCharge, func() (ChargeResult, error) { return w.Gateway.Charge(ctx, r) })
}

func (w watched) ConfirmCharge(ctx context.Context, r ConfirmRequest) (ChargeResult, error) {
	return watch(w, "confirm_charge", ofCharge, func() (ChargeResult, error) { return w.Gateway.ConfirmCharge(ctx, r) })
}

func (w watched) LookupCharge(ctx context.Context, l ChargeLookup) (ChargeResult, error) {
	return watch(w, "lookup_charge", ofCharge, func() (ChargeResult, error) { return w.Gateway.LookupCharge(ctx, l) })
}

func (w watched) CancelCharge(ctx context.Context, r CancelRequest) (ChargeResult, error) {
	return watch(w, "cancel_charge", ofCharge, func() (ChargeResult, error) { return w.Gateway.CancelCharge(ctx, r) })
}

func (w watched) Refund(ctx context.Context, r RefundRequest) (RefundResult, error) {
	return watch(w, "refund", ofRefund, func() (RefundResult, error) { return w.Gateway.Refund(ctx, r) })
}

func (w watched) LookupRefund(ctx context.Context, l RefundLookup) (RefundResult, error) {
	return watch(w, "lookup_refund", ofRefund, func() (RefundResult, error) { return w.Gateway.LookupRefund(ctx, l) })
}

func (w watched) Refunds(ctx context.Context, chargeRef string) ([]RefundResult, error) {
	return watch(w, "refunds", nil, func() ([]RefundResult, error) { return w.Gateway.Refunds(ctx, chargeRef) })
}

func (w watched) Fetch(ctx context.Context, o ObjectKind, ref string) (Object, error) {
	return watch(w, "fetch", nil, func() (Object, error) { return w.Gateway.Fetch(ctx, o, ref) })
}
