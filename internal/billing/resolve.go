package billing

import (
	"context"
	"errors"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/upgrade"
)

// Resolver asks providers what became of what a crash, a time-out or a slow customer left open.
type Resolver struct{ *Core }

// Resolve settles one record that waits for a provider's word.
func (r Resolver) Resolve(ctx context.Context, p payment.Pending) (err error) {
	defer errs.Wrap(&err, "resolve %s of %s", p.Kind, p.Account)
	switch p.Kind {
	case payment.RecordPayment:
		pay, err := r.DB.Payments().Payment(ctx, p.Account, p.Payment)
		if err != nil || !pay.Status.Pending() {
			return err
		}
		_, err = r.resolvePayment(ctx, pay, nil)
		return err
	case payment.RecordRefund:
		ref, err := r.DB.Payments().Refund(ctx, p.Account, p.Refund)
		if err != nil || ref.Status != payment.Processing {
			return err
		}
		return r.resolveRefund(ctx, ref)
	case payment.RecordMethod:
		m, err := r.DB.Payments().Method(ctx, p.Account, p.Method)
		switch {
		case err != nil:
		case m.Status == payment.MethodRemoved && !m.CheckAt.IsZero():
			err = r.detach(ctx, m)
		case m.Pending():
			_, err = r.resolveMethod(ctx, m)
		}
		return err
	case payment.RecordCustomer:
	}
	return nil
}

// resolvePayment finds out what became of a payment and settles it.
//
//   - The provider has it: its word goes, whatever error was seen last.
//   - The provider never made it, and the intent is young: the call is made again with the same key,
//     which is what the process that died was about to do.
//   - The provider never made it, and the intent is too old for its key: it has failed. No money moved.
func (c *Core) resolvePayment(ctx context.Context, p payment.Payment, then func(tx Tx, p payment.Payment) error) (payment.Payment, error) {
	m, err := c.DB.Payments().Method(ctx, p.Account, p.Method)
	if err != nil {
		return p, err
	}
	age := c.Clock().Sub(p.CreatedAt)
	cctx, cancel := detached(ctx)
	defer cancel()
	var res payment.ChargeResult
	asked := false
	if p.ProviderRef != "" && p.Status == payment.RequiresAction {
		res, err = c.Gateway.ConfirmCharge(cctx, payment.ConfirmRequest{Key: p.ID.String() + "/confirm", Ref: p.ProviderRef, ReturnURL: c.Policy.ReturnURL})
	} else {
		res, err = c.Gateway.LookupCharge(cctx, payment.ChargeLookup{Ref: p.ProviderRef, PaymentRef: p.ID.String(), CustomerRef: m.CustomerRef, Since: p.CreatedAt})
	}
	switch {
	case errors.Is(err, payment.ErrMissing) && age < payment.KeyRetention:
		asked = true
		res, err = c.ask(ctx, p, m)
	case errors.Is(err, payment.ErrMissing):
		res, err = payment.ChargeResult{Outcome: payment.OutcomeDeclined, Decline: &payment.Decline{
			Code: "expired", Class: payment.DeclineSoft, Message: "The payment was not completed in time. You have not been charged.",
		}}, nil
	case err == nil && res.Outcome == payment.OutcomeRequiresAction && age > upgrade.Lifetime:
		res, err = c.Gateway.CancelCharge(cctx, payment.CancelRequest{Key: p.ID.String() + "/cancel", Ref: res.Ref})
	}
	if err != nil && !unknowable(err) && (!asked || !refusedCharge(err)) {
		c.Log.ErrorContext(ctx, "a payment's outcome could not be asked for", "payment", p.ID, "error", err)
		err = payment.ErrUnknown.Because(err)
	}
	got, serr := c.settleCharge(ctx, p, res, err, then)
	if serr == nil && got.Status == payment.RequiresAction && res.NextAction != nil {
		got.NextAction = res.NextAction
	}
	return got, serr
}
