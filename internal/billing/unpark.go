package billing

import (
	"context"
	"errors"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/payment"
)

// ParkedDecision is what a person has decided about a parked payment.
type ParkedDecision string

// The decisions. What was asked for never changes, so there is none that books another amount.
const (
	AskAgain ParkedDecision = "ask"       // take the provider's word if it now reports what was asked for
	GiveBack ParkedDecision = "give_back" // have the provider give back whatever it took, and ask for nothing
)

// Errors of parked payments.
var (
	ErrNotParked      = errs.New(errs.Conflict, "payment_not_parked", "The payment is not parked.")
	ErrStillParked    = errs.New(errs.Conflict, "payment_still_parked", "The provider still reports something else than was asked for.")
	ErrNotGivenBack   = errs.New(errs.Conflict, "not_given_back", "The provider has not given back what it took. Repeat this when it has.")
	ErrProviderSilent = errs.New(errs.Unavailable, "provider_unreachable", "The payment provider does not answer. Nothing was changed.")
)

// Unpark ends the wait of a parked payment by a person's decision and the provider's word: it succeeds
// if the provider now reports what was asked for, and fails if nothing was taken or all of it was given
// back. Anything else leaves it parked: ErrStillParked, ErrNotGivenBack. It may be repeated.
func (r Resolver) Unpark(ctx context.Context, asked Asked, pid payment.ID, d ParkedDecision, reason string, render Renderer[payment.Payment]) (_ Result[payment.Payment], err error) {
	defer errs.Wrap(&err, "unpark %s", pid)
	p, err := r.DB.Payments().Payment(ctx, asked.Account, pid)
	if err != nil {
		return Result[payment.Payment]{}, err
	}
	var res payment.ChargeResult
	var missing bool
	if p.Status == payment.Parked {
		if res, missing, err = r.reported(ctx, p, d); err != nil {
			return Result[payment.Payment]{}, err
		}
	}
	return once(ctx, r.Core, asked, render, func(tx Tx) (payment.Payment, error) {
		acct, err := tx.Accounts().Lock(ctx, asked.Account)
		if err != nil {
			return p, err
		}
		if p, err = tx.Payments().LockPayment(ctx, acct.ID, pid); err != nil {
			return p, err
		}
		if p.Status != payment.Parked {
			return p, ErrNotParked.With("payment_status", p.Status)
		}
		now := acct.Now(r.Clock())
		if err := r.unpark(ctx, tx, acct, &p, res, missing, d, now); err != nil {
			return p, err
		}
		return p, tx.Accounts().Audit(ctx, acct.ID, account.Entry{
			Actor: asked.Actor, Action: "payment.unpark", Reason: reason, Detail: detail("payment", p.ID), At: now,
		})
	})
}

// reported asks the provider what it has, after it has given back what it took where that was decided.
func (r Resolver) reported(ctx context.Context, p payment.Payment, d ParkedDecision) (res payment.ChargeResult, missing bool, err error) {
	cctx, cancel := detached(ctx)
	defer cancel()
	look := func() (payment.ChargeResult, error) {
		return r.Gateway.LookupCharge(cctx, payment.ChargeLookup{Ref: p.ProviderRef, PaymentRef: p.ID.String(), Since: p.CreatedAt})
	}
	res, err = look()
	if left := res.Amount; err == nil && d == GiveBack && res.Outcome == payment.OutcomeSucceeded {
		if left.Minor -= res.Refunded.Minor; left.Minor > 0 {
			_, err = r.Gateway.Refund(cctx, payment.RefundRequest{Key: p.ID.String() + "/give-back", ChargeRef: res.Ref, Amount: left})
			switch {
			case err != nil && !unknowable(err):
				return res, false, ErrNotGivenBack.With("taken", res.Amount).With("given_back", res.Refunded).Because(err)
			case err != nil: // it may have done it
				return res, false, ErrProviderSilent.Details("The provider was asked to give back %s, and what came of it is not known. Repeat this: it is given back once.", left).Because(err)
			}
			res, err = look()
		}
	}
	switch {
	case errors.Is(err, payment.ErrMissing):
		return res, true, nil
	case err != nil:
		return res, false, ErrProviderSilent.Because(err)
	}
	return res, false, nil
}

func (r Resolver) unpark(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, res payment.ChargeResult, missing bool, d ParkedDecision, now time.Time) error {
	none := &payment.Failure{Code: "given_back", Message: "The payment was given back. You have not been charged."}
	ours := res.PaymentRef == "" || res.PaymentRef == p.ID.String()
	switch {
	case missing:
		return r.declined(ctx, tx, acct, p, none, payment.Failed, now)
	case res.Outcome == payment.OutcomeDeclined:
		return r.declined(ctx, tx, acct, p, payment.FailureOf(res.Decline), payment.Failed, now)
	case res.Outcome == payment.OutcomeCanceled, res.Outcome == payment.OutcomeSucceeded && res.Refunded == res.Amount:
		return r.declined(ctx, tx, acct, p, none, payment.Failed, now)
	case d == GiveBack:
		return ErrNotGivenBack.With("taken", res.Amount).With("given_back", res.Refunded)
	case res.Outcome == payment.OutcomeSucceeded && ours && res.Amount == p.Amount && res.Refunded.IsZero():
		return r.paid(ctx, tx, acct, p, now)
	}
	return ErrStillParked.With("asked", p.Amount).With("reported", res.Amount)
}
