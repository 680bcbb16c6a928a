package billing

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/failpoint"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Refunder gives money back.
type Refunder struct{ *Core }

// RefundInput is an operator's decision.
type RefundInput struct {
	Payment payment.ID
	Amount  money.Amount // zero: all that is left
	Reason  string
	Origin  payment.RefundOrigin
}

// Refund gives back a part or all of a payment to the card that paid. The amount is set aside on the
// payment in the first transaction, so that concurrent refunds never pass what was taken. The
// result's status is succeeded, processing or failed.
func (r Refunder) Refund(ctx context.Context, asked Asked, in RefundInput, render Renderer[payment.Refund]) (out Result[payment.Refund], err error) {
	defer errs.Wrap(&err, "refund %s", in.Payment)
	failpoint.Hit(failpoint.Refund, failpoint.Received)
	rid := id.New[payment.Refund]()
	var ref payment.Refund
	ask, settled := r.askRefund, false
	called, err := r.commitIntent(ctx, func(tx Tx) error {
		settled = false
		acct, err := tx.Accounts().Lock(ctx, asked.Account)
		if err != nil {
			return err
		}
		return claimed(ctx, tx, asked, rid.UUID(), &out, func() error {
			ref, err = r.begin(ctx, tx, acct, asked, rid, in)
			return err
		}, func(record uuid.UUID) error {
			ask = r.lookUpRefund // the request that died may have asked, too long ago for its key
			if ref, err = tx.Payments().Refund(ctx, acct.ID, id.FromUUID[payment.Refund](record)); err != nil || ref.Status == payment.Processing {
				return err
			}
			settled = true
			return complete(ctx, tx, asked, ref, render)
		})
	})
	defer called()
	if err != nil || out.Replayed != nil {
		return out, err
	}
	if !settled {
		failpoint.Hit(failpoint.Refund, failpoint.AfterTx1)
		res, callErr := ask(ctx, ref)
		failpoint.Hit(failpoint.Refund, failpoint.AfterGateway)
		called()
		if ref, err = r.settleRefund(ctx, ref, res, callErr, func(tx Tx, done payment.Refund) error {
			return complete(ctx, tx, asked, done, render)
		}); err != nil {
			return out, err
		}
	}
	out.Record = ref
	return out, nil
}

func (r Refunder) begin(ctx context.Context, tx Tx, acct account.Account, asked Asked, rid payment.RefundID, in RefundInput) (payment.Refund, error) {
	p, err := tx.Payments().LockPayment(ctx, acct.ID, in.Payment)
	if err != nil {
		return payment.Refund{}, err
	}
	if in.Amount.IsZero() {
		in.Amount = p.Refundable()
	}
	if in.Amount.Currency != p.Amount.Currency {
		return payment.Refund{}, ErrCurrency
	}
	if in.Amount.Minor <= 0 || in.Amount.Minor > p.Refundable().Minor {
		return payment.Refund{}, payment.ErrRefundTooLarge.With("refundable", p.Refundable())
	}
	limits, err := r.Gateway.Limits(in.Amount.Currency)
	if err != nil {
		return payment.Refund{}, err
	}
	if in.Amount.Minor%limits.Step != 0 {
		step := money.New(limits.Step, in.Amount.Currency)
		return payment.Refund{}, payment.ErrAmount.Details("The payment provider gives back multiples of %s.", step).With("step", limits.Step)
	}
	if p.Purpose == payment.ForTopUp && in.Origin == payment.ByOperator {
		b, err := tx.Ledger().Balances(ctx, acct.ID)
		if err != nil {
			return payment.Refund{}, err
		}
		if left := books.StandingOf(b, acct.Currency).Funds; left.Minor < in.Amount.Minor {
			return payment.Refund{}, ErrFundsSpent.With("funds", left)
		}
	}
	now := acct.Now(r.Clock())
	ref := payment.Refund{
		ID: rid, Account: acct.ID, Payment: p.ID, Amount: in.Amount, Status: payment.Processing, Origin: in.Origin,
		Reason: in.Reason, Actor: asked.Actor, CheckAt: r.Clock().Add(pause(1)), CreatedAt: r.Clock(), UpdatedAt: now,
	}
	p.Refunded.Minor += in.Amount.Minor
	p.UpdatedAt = now
	if err := tx.Payments().SavePayment(ctx, &p); err != nil {
		return ref, err
	}
	// The money is on its way: it can be neither spent nor promised again.
	if f := r.fact(acct, ref.ID.String(), "Refund", now); in.Origin == payment.ByAccountClose {
		err = tx.Ledger().Append(ctx, books.Refund(f, zeroOf(acct), ref.Amount)) // it was of the funds already, whatever it had paid
	} else {
		err = r.takenBack(ctx, tx, acct, &p, ref.Amount, books.Refund, f)
		if err == nil {
			err = r.keepGivenBack(ctx, tx, acct, ref, p.Method, now)
		}
	}
	if err != nil {
		return ref, err
	}
	if err := tx.Accounts().Audit(ctx, acct.ID, account.Entry{
		Actor: asked.Actor, Action: "payment.refund", Reason: in.Reason, Detail: detail("refund", ref.ID), At: now,
	}); err != nil {
		return ref, err
	}
	return ref, tx.Payments().CreateRefund(ctx, ref)
}

// ErrFundsSpent says that a top-up's money has been used.
var ErrFundsSpent = errs.New(errs.Conflict, "funds_spent", "The funds of this top-up have been used in part. Refund what is left, or give credit.")

// A recipe books an amount of a payment that goes or comes back: what of it an invoice has to do with, and what the
// funds.
type recipe func(f books.Fact, ofInvoice, ofFunds money.Amount) *ledger.Transaction

// takenBack books what was given or fetched back of a payment. What it had paid of an invoice is due again, and paid from
// credit and funds where there are any. Dunning stops: no card is charged again by itself for that. Of an invoice that was
// written off it is written off too. What cards have paid beyond the invoice has gone to the funds, and comes from them;
// so does what a credit note, or a correction of usage, has given back of what they have paid, so far as it is still there.
func (c *Core) takenBack(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, amount money.Amount, by recipe, f books.Fact) error {
	if err := c.watch(ctx, tx, p.Account); err != nil {
		return err
	}
	if p.Purpose != payment.ForInvoice {
		return tx.Ledger().Append(ctx, by(f, money.Zero(amount.Currency), amount))
	}
	inv, err := tx.Invoices().Lock(ctx, p.Account, p.Invoice)
	if err != nil {
		return err
	}
	paid, err := tx.Payments().PaymentsOf(ctx, p.Account, p.Invoice)
	if err != nil {
		return err
	}
	cards := amount.Minor // p counts without it by now
	for _, other := range paid {
		cards += other.Refundable().Minor
	}
	stands, err := standsPaid(ctx, tx, inv)
	if err != nil {
		return err
	}
	b, err := tx.Ledger().Balances(ctx, acct.ID)
	if err != nil {
		return err
	}
	there := books.StandingOf(b, acct.Currency).Funds.Minor
	beyond := max(0, cards-inv.AmountPaid.Minor, min(cards-stands, there))
	ofFunds := money.New(min(amount.Minor, beyond), amount.Currency)
	ofInvoice := money.New(amount.Minor-ofFunds.Minor, amount.Currency)
	if err := tx.Ledger().Append(ctx, by(f, ofInvoice, ofFunds)); err != nil || ofInvoice.IsZero() {
		return err
	}
	inv.AmountPaid.Minor -= ofInvoice.Minor
	switch inv.Status {
	case invoice.Paid:
		if err := inv.Become(invoice.Open, f.At); err != nil {
			return err
		}
	case invoice.Uncollectible:
		f.Description = "Written off with the rest of its invoice"
		if err := tx.Ledger().Append(ctx, books.WriteOff(f, ofInvoice)); err != nil {
			return err
		}
	case invoice.Draft, invoice.Open, invoice.Void:
	}
	inv.Dunning, inv.NextAttempt = invoice.Stopped, time.Time{}
	if err := tx.Invoices().Save(ctx, &inv); err != nil {
		return err
	}
	return c.payFromFunds(ctx, tx, acct, f.At)
}

// cameBack books that what takenBack took is there again: it pays what is due of its invoice. What others have paid of
// it meanwhile, or nobody owes any more, goes to the funds, which pay other open invoices.
func (c *Core) cameBack(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, amount money.Amount, by recipe, f books.Fact) error {
	if p.Purpose != payment.ForInvoice {
		if err := tx.Ledger().Append(ctx, by(f, zeroOf(acct), amount)); err != nil {
			return err
		}
		return c.payFromFunds(ctx, tx, acct, f.At)
	}
	inv, err := tx.Invoices().Lock(ctx, p.Account, p.Invoice)
	if err != nil {
		return err
	}
	ofInvoice := money.New(min(amount.Minor, inv.AmountDue().Minor), acct.Currency)
	ofFunds := money.New(amount.Minor-ofInvoice.Minor, acct.Currency)
	if inv.Status == invoice.Uncollectible && !ofInvoice.IsZero() {
		undone := f
		undone.Description = "Paid after all"
		if err := tx.Ledger().Append(ctx, books.WriteOffUndone(undone, ofInvoice)); err != nil {
			return err
		}
	}
	if err := tx.Ledger().Append(ctx, by(f, ofInvoice, ofFunds)); err != nil {
		return err
	}
	inv.AmountPaid.Minor += ofInvoice.Minor
	if err := c.afterPayment(ctx, tx, acct, &inv, f.At); err != nil || ofFunds.IsZero() {
		return err
	}
	return c.payFromFunds(ctx, tx, acct, f.At)
}

func (c *Core) askRefund(ctx context.Context, ref payment.Refund) (payment.RefundResult, error) {
	p, err := c.DB.Payments().Payment(ctx, ref.Account, ref.Payment)
	if err != nil {
		return payment.RefundResult{}, err
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	return c.Gateway.Refund(ctx, payment.RefundRequest{Key: ref.ID.String(), ChargeRef: p.ProviderRef, Amount: ref.Amount, RefundID: ref.ID.String()})
}

// settleRefund is the second transaction of a refund, whoever runs it.
func (c *Core) settleRefund(ctx context.Context, asked payment.Refund, res payment.RefundResult, callErr error, then func(tx Tx, ref payment.Refund) error) (ref payment.Refund, err error) {
	switch {
	case callErr == nil:
	case unknowable(callErr):
		res = payment.RefundResult{Outcome: payment.OutcomeProcessing}
	case errors.Is(callErr, payment.ErrRejected), errors.Is(callErr, payment.ErrMissing), errors.Is(callErr, payment.ErrRefundTooLarge),
		errors.Is(callErr, payment.ErrAmount):
		c.Log.ErrorContext(ctx, "provider rejected a refund", "refund", asked.ID, "error", callErr)
		res = payment.RefundResult{Outcome: payment.OutcomeDeclined, Failure: codeOf(callErr)}
	default:
		return asked, callErr
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	err = c.DB.InTx(ctx, func(tx Tx) error {
		acct, err := tx.Accounts().Lock(ctx, asked.Account)
		if err != nil {
			return err
		}
		p, err := tx.Payments().LockPayment(ctx, asked.Account, asked.Payment)
		if err != nil {
			return err
		}
		if ref, err = tx.Payments().Refund(ctx, asked.Account, asked.ID); err != nil {
			return err
		}
		if err := c.writeRefund(ctx, tx, acct, &p, &ref, res); err != nil {
			return err
		}
		defer failpoint.Hit(failpoint.Refund, failpoint.Tx2BeforeCommit)
		if then == nil {
			return nil
		}
		return then(tx, ref)
	})
	failpoint.Hit(failpoint.Refund, failpoint.AfterTx2)
	return ref, err
}

func (c *Core) writeRefund(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, ref *payment.Refund, res payment.RefundResult) error {
	now := acct.Now(c.Clock())
	// One that has succeeded may turn out not to have arrived.
	failed := res.Outcome == payment.OutcomeDeclined || res.Outcome == payment.OutcomeCanceled
	if ref.Status != payment.Processing && (ref.Status != payment.Succeeded || !failed) {
		return nil
	}
	if !failed && res.Ref != "" && res.Amount != ref.Amount {
		c.Log.ErrorContext(ctx, "provider reports another refund than was asked for",
			"refund", ref.ID, "asked", ref.Amount, "reported", res.Amount, "provider_ref", res.Ref)
		most := p.Refundable().Minor + ref.Amount.Minor
		// A single answer may be garbled. What is said again, once the provider is asked what it has, is gone.
		if ref.ProviderRef == res.Ref && res.Outcome == payment.OutcomeSucceeded &&
			res.Amount.Currency == ref.Amount.Currency && res.Amount.Minor > 0 && res.Amount.Minor <= most {
			if err := c.gaveAnother(ctx, tx, acct, p, ref, res.Amount, now); err != nil {
				return err
			}
		} else {
			res.Outcome = payment.OutcomeProcessing
		}
	}
	if res.Ref != "" && ref.ProviderRef == "" {
		ref.ProviderRef = res.Ref
		if err := tx.Payments().Remember(ctx, p.Provider, res.Ref, payment.Located{Account: acct.ID, Kind: payment.RecordRefund, Refund: ref.ID}); err != nil {
			return err
		}
	}
	ref.UpdatedAt = now
	switch res.Outcome {
	case payment.OutcomeSucceeded:
		ref.Status, ref.CheckAt = payment.Succeeded, time.Time{}
		if err := tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentRefunded, aboutRefund(*ref), now); err != nil {
			return err
		}
	case payment.OutcomeDeclined, payment.OutcomeCanceled:
		ref.Status, ref.CheckAt = payment.Failed, time.Time{}
		p.Refunded.Minor -= ref.Amount.Minor
		if err := tx.Payments().SavePayment(ctx, p); err != nil {
			return err
		}
		if err := tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentRefundFailed, aboutRefund(*ref), now); err != nil {
			return err
		}
		if err := c.cameBack(ctx, tx, acct, p, ref.Amount, books.RefundFailed, c.fact(acct, ref.ID.String(), "Refund failed", now)); err != nil {
			return err
		}
	case payment.OutcomeProcessing, payment.OutcomeRequiresAction:
		ref.CheckAt = c.Clock().Add(pause(3))
	}
	return tx.Payments().SaveRefund(ctx, *ref)
}

// gaveAnother makes a refund that of the amount which the provider has given back. What that is less than was asked for is
// again where it came from, and what it is more comes from there too.
func (c *Core) gaveAnother(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, ref *payment.Refund, gave money.Amount, now time.Time) error {
	more := money.New(gave.Minor-ref.Amount.Minor, gave.Currency)
	about := detail("refund", ref.ID, "asked", ref.Amount, "given_back", gave)
	ref.Amount = gave
	p.Refunded.Minor += more.Minor
	if err := tx.Payments().SavePayment(ctx, p); err != nil {
		return err
	}
	f := c.fact(acct, ref.ID.String()+"/difference", "Refund of another amount", now)
	var err error
	if more.Sign() > 0 {
		err = c.takenBack(ctx, tx, acct, p, more, books.Refund, f)
	} else {
		err = c.cameBack(ctx, tx, acct, p, more.Neg(), books.RefundFailed, f)
	}
	if err != nil {
		return err
	}
	return tx.Accounts().Audit(ctx, acct.ID, account.Entry{
		Actor: system, Action: "payment.refund_corrected", Reason: "The provider gave back another amount than was asked for.", Detail: about, At: now,
	})
}

func aboutRefund(r payment.Refund) map[string]any {
	return map[string]any{"payment": r.Payment, "refund": r.ID, "amount": r.Amount}
}

// resolveRefund settles a refund by what became of it at the provider.
func (c *Core) resolveRefund(ctx context.Context, ref payment.Refund) error {
	res, err := c.lookUpRefund(ctx, ref)
	_, err = c.settleRefund(ctx, ref, res, err, nil)
	return err
}

// lookUpRefund asks the provider what became of a refund. One of ours that it does not know is asked for again while it
// remembers the key.
func (c *Core) lookUpRefund(ctx context.Context, ref payment.Refund) (payment.RefundResult, error) {
	p, err := c.DB.Payments().Payment(ctx, ref.Account, ref.Payment)
	if err != nil {
		return payment.RefundResult{}, err
	}
	cctx, cancel := detached(ctx)
	defer cancel()
	res, err := c.Gateway.LookupRefund(cctx, payment.RefundLookup{Ref: ref.ProviderRef, ChargeRef: p.ProviderRef, RefundID: ref.ID.String()})
	switch {
	case errors.Is(err, payment.ErrMissing) && ref.Origin != payment.ByProvider && c.Clock().Sub(ref.CreatedAt) < payment.KeyRetention:
		return c.askRefund(ctx, ref)
	case errors.Is(err, payment.ErrMissing):
		return payment.RefundResult{Outcome: payment.OutcomeDeclined, Failure: "expired"}, nil
	case err != nil && !unknowable(err): // that the provider does not say what became of it says nothing of it
		c.Log.ErrorContext(ctx, "a refund's outcome could not be asked for", "refund", ref.ID, "error", err)
		err = payment.ErrUnknown.Because(err)
	}
	return res, err
}
