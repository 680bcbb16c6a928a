package billing

import (
	"context"
	"errors"

	"github.com/accrue-billing/accrue/internal/failpoint"
	"github.com/accrue-billing/accrue/internal/payment"
)

// charge asks the provider for a payment whose intent is committed, with its card m, and settles it. called is
// told that the provider was asked. then runs in the second transaction, after the payment was settled. The
// returned payment carries the client secret of its next action, if any.
func (c *Core) charge(ctx context.Context, p payment.Payment, m payment.Method, called func(), then func(tx Tx, p payment.Payment) error) (payment.Payment, error) {
	failpoint.Hit(chargeOf(p), failpoint.AfterTx1)
	if c.Clock().Sub(p.CreatedAt) > CallTimeout {
		// A request that died may have asked before. What came of it is looked up first, so that nothing
		// hangs on this request saying exactly what that one said.
		return c.resolvePayment(ctx, p, then)
	}
	res, callErr := c.ask(ctx, p, m)
	failpoint.Hit(chargeOf(p), failpoint.AfterGateway)
	called()
	ctx, cancel := detached(ctx)
	defer cancel()
	settled, err := c.settleCharge(ctx, p, res, callErr, then)
	if err != nil {
		return p, err
	}
	if settled.Status == payment.RequiresAction && res.NextAction != nil {
		settled.NextAction = res.NextAction
	}
	return settled, nil
}

// ask makes the provider's call of a payment with its card m. It is repeated with the same key until the
// outcome is known.
func (c *Core) ask(ctx context.Context, p payment.Payment, m payment.Method) (payment.ChargeResult, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	return c.Gateway.Charge(ctx, payment.ChargeRequest{
		Key: p.ID.String(), Amount: p.Amount, CustomerRef: m.CustomerRef, MethodRef: m.ProviderRef, OffSession: p.OffSession,
		Description: describe(p), AccountRef: p.Account.String(), PaymentRef: p.ID.String(), ReturnURL: c.Policy.ReturnURL,
	})
}

// chargeOf names the operation that a charge belongs to, for its failpoints.
func chargeOf(p payment.Payment) failpoint.Op {
	switch {
	case p.Purpose == payment.ForTopUp:
		return failpoint.TopUp
	case p.OffSession:
		return failpoint.Collect
	}
	return failpoint.PayInvoice
}

func describe(p payment.Payment) string {
	if p.Purpose == payment.ForTopUp {
		return "Top-up " + p.TopUp.String()
	}
	return "Invoice " + p.Invoice.String()
}

// refusedCharge reports whether the provider has said that it does not even try to charge.
func refusedCharge(err error) bool {
	return errors.Is(err, payment.ErrRejected) || errors.Is(err, payment.ErrMissing) ||
		errors.Is(err, payment.ErrForeignToken) || errors.Is(err, payment.ErrAmount)
}

// settleCharge is the second transaction of a charge, whoever runs it.
func (c *Core) settleCharge(ctx context.Context, known payment.Payment, res payment.ChargeResult, callErr error, then func(tx Tx, p payment.Payment) error) (p payment.Payment, err error) {
	a, pid := known.Account, known.ID
	switch {
	case callErr == nil:
	case unknowable(callErr):
		// Nothing may be concluded: the payment stays processing, and the sweep asks again.
		res = payment.ChargeResult{Outcome: payment.OutcomeProcessing}
	case refusedCharge(callErr):
		c.Log.ErrorContext(ctx, "provider rejected a charge; nothing was taken", "payment", pid, "error", callErr)
		res = payment.ChargeResult{Outcome: payment.OutcomeDeclined, Decline: &payment.Decline{
			Code: codeOf(callErr), Class: payment.DeclineSoft, Message: "The payment could not be made. You have not been charged.",
		}}
	default:
		return p, callErr
	}
	err = c.DB.InTxOf(ctx, Start{Account: a, Books: res.Outcome == payment.OutcomeSucceeded, Payment: pid, TopUp: known.TopUp}, func(tx Tx) error {
		acct, err := tx.Accounts().Lock(ctx, a)
		if err != nil {
			return err
		}
		if p, err = tx.Payments().LockPayment(ctx, a, pid); err != nil {
			return err
		}
		if err := c.settlePayment(ctx, tx, acct, &p, res); err != nil {
			return err
		}
		defer failpoint.Hit(chargeOf(p), failpoint.Tx2BeforeCommit)
		if then == nil {
			return nil
		}
		return then(tx, p)
	})
	failpoint.Hit(chargeOf(p), failpoint.AfterTx2)
	if err == nil && (errors.Is(callErr, payment.ErrForeignToken) || errors.Is(callErr, payment.ErrMissing)) {
		c.lookAtCard(ctx, p)
	}
	return p, err
}

// lookAtCard asks the provider about the card of a charge that it refused because of it: the webhook which tells that a
// card is gone may have been lost. What fails here, the next charge finds out.
func (c *Core) lookAtCard(ctx context.Context, p payment.Payment) {
	ctx, cancel := detached(ctx)
	defer cancel()
	m, err := c.DB.Payments().Method(ctx, p.Account, p.Method)
	if err == nil && m.Status == payment.MethodActive {
		err = c.takeOver(ctx, m)
	}
	if err != nil {
		c.Log.WarnContext(ctx, "a card that the provider refuses could not be looked at", "payment_method", p.Method, "error", err)
	}
}
