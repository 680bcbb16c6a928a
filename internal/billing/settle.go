package billing

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/dunning"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/job"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// The second transaction of every charge. The request that began it, a webhook and the sweep all run
// this same code; whoever comes first under the account's lock settles the payment, the others find
// it settled.

// settlePayment writes down what the provider says of a payment. The account is locked; p is read
// under that lock. It changes p.
func (c *Core) settlePayment(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, res payment.ChargeResult) error {
	now := acct.Now(c.Clock())
	fresh := res.Ref != "" && p.ProviderRef == ""
	if fresh {
		p.ProviderRef = res.Ref
		if err := tx.Payments().Remember(ctx, p.Provider, res.Ref, payment.Located{Account: acct.ID, Kind: payment.RecordPayment, Payment: p.ID}); err != nil {
			return err
		}
	}
	if !p.Status.Pending() && !succeedsLate(*p, res) {
		if fresh {
			return tx.Payments().SavePayment(ctx, p)
		}
		return nil
	}
	if res.Ref != "" && (res.Amount != p.Amount || (res.PaymentRef != "" && res.PaymentRef != p.ID.String())) {
		return c.park(ctx, tx, acct, p, res, now)
	}
	switch res.Outcome {
	case payment.OutcomeSucceeded:
		return c.paid(ctx, tx, acct, p, now)
	case payment.OutcomeDeclined:
		return c.declined(ctx, tx, acct, p, payment.FailureOf(res.Decline), payment.Failed, now)
	case payment.OutcomeCanceled:
		return c.declined(ctx, tx, acct, p, &payment.Failure{Code: "canceled", Message: "The payment was canceled."}, payment.Canceled, now)
	case payment.OutcomeRequiresAction:
		if p.Status != payment.RequiresAction {
			if err := p.Become(payment.RequiresAction, now); err != nil {
				return err
			}
			if err := tx.Outbox().Publish(ctx, acct.ID, needsAction(p), about(p), now); err != nil {
				return err
			}
		}
		p.NextAction = res.NextAction
	case payment.OutcomeProcessing:
	}
	p.Checks++
	p.CheckAt = c.Clock().Add(pause(p.Checks))
	if err := tx.Payments().SavePayment(ctx, p); err != nil {
		return err
	}
	return c.mirrorTopUp(ctx, tx, acct, p, now)
}

// succeedsLate reports whether a payment that was given up was made after all: the provider has the very money that was
// asked for, and has not given it back.
func succeedsLate(p payment.Payment, res payment.ChargeResult) bool {
	return (p.Status == payment.Failed || p.Status == payment.Canceled) && res.Outcome == payment.OutcomeSucceeded &&
		res.Amount == p.Amount && res.PaymentRef == p.ID.String() && res.Refunded.Minor < res.Amount.Minor
}

func needsAction(p *payment.Payment) outbox.Type {
	if p.Purpose == payment.ForTopUp {
		return outbox.TopUpNeedsAction
	}
	return outbox.PaymentNeedsAction
}

func about(p *payment.Payment) map[string]any {
	m := map[string]any{"payment": p.ID, "amount": p.Amount, "status": p.Status, "purpose": p.Purpose}
	if !p.Invoice.IsZero() {
		m["invoice"] = p.Invoice
	}
	if !p.TopUp.IsZero() {
		m["top_up"] = p.TopUp
	}
	if p.Failure != nil {
		m["failure"] = p.Failure.Told()
	}
	return m
}

// park keeps a payment that is not what was asked for out of the books until a person has looked.
func (c *Core) park(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, res payment.ChargeResult, now time.Time) error {
	c.Log.ErrorContext(ctx, "provider reports another payment than was asked for; parked",
		"payment", p.ID, "asked", p.Amount, "reported", res.Amount, "provider_ref", res.Ref)
	if err := p.Become(payment.Parked, now); err != nil {
		return err
	}
	p.Failure = &payment.Failure{Code: "provider_mismatch", Message: "The payment is being looked into. You have not been charged twice."}
	if err := tx.Payments().SavePayment(ctx, p); err != nil {
		return err
	}
	if err := tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentParked, about(p), now); err != nil {
		return err
	}
	return c.mirrorTopUp(ctx, tx, acct, p, now)
}

func (c *Core) fact(acct account.Account, reference, words string, now time.Time) books.Fact {
	return books.Fact{Account: acct.ID, Reference: reference, At: now, RecordedAt: c.Clock(), Description: words}
}

func (c *Core) paid(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, now time.Time) error {
	if err := p.Become(payment.Succeeded, now); err != nil {
		return err
	}
	if err := tx.Payments().SavePayment(ctx, p); err != nil {
		return err
	}
	if err := tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentSucceeded, about(p), now); err != nil {
		return err
	}
	if p.Purpose == payment.ForTopUp {
		if err := tx.Ledger().Append(ctx, books.TopUp(c.fact(acct, p.ID.String(), "Top-up by card", now), p.Amount)); err != nil {
			return err
		}
		if err := c.mirrorTopUp(ctx, tx, acct, p, now); err != nil {
			return err
		}
		// New funds pay what is open before anything is charged.
		return c.payFromFunds(ctx, tx, acct, now)
	}
	inv, err := tx.Invoices().Lock(ctx, acct.ID, p.Invoice)
	if err != nil {
		return err
	}
	return c.payInvoice(ctx, tx, acct, &inv, p, now)
}

// payInvoice books a card's payment for an invoice. What the invoice does not need, because a dispute that was won or a
// refund that failed has paid it meanwhile, or the provider takes whole steps, becomes funds.
func (c *Core) payInvoice(ctx context.Context, tx Tx, acct account.Account, inv *invoice.Invoice, p *payment.Payment, now time.Time) error {
	content, err := tx.Invoices().Content(ctx, acct.ID, inv.ID)
	if err != nil {
		return err
	}
	f := c.fact(acct, p.ID.String(), "Card payment of invoice "+content.Number, now)
	toInvoice := money.New(min(p.Amount.Minor, inv.AmountDue().Minor), acct.Currency)
	if !toInvoice.IsZero() {
		if inv.Status == invoice.Uncollectible {
			undone := c.fact(acct, p.ID.String(), "Invoice "+content.Number+" paid after all", now)
			if err := tx.Ledger().Append(ctx, books.WriteOffUndone(undone, toInvoice)); err != nil {
				return err
			}
		}
		if err := tx.Ledger().Append(ctx, books.InvoicePayment(f, toInvoice)); err != nil {
			return err
		}
		inv.AmountPaid.Minor += toInvoice.Minor
	}
	if inv.Status == invoice.Open && inv.Dunning != invoice.Stopped && inv.AmountDue().Minor > 0 { // it was more than the provider takes at once
		inv.Attempts, inv.NextAttempt = 0, now
		if err := tx.Jobs().Enqueue(ctx, acct.ID, job.CollectInvoice, map[string]any{"invoice": inv.ID}, now); err != nil {
			return err
		}
	}
	if err := c.afterPayment(ctx, tx, acct, inv, now); err != nil {
		return err
	}
	rest := money.New(p.Amount.Minor-toInvoice.Minor, acct.Currency)
	if rest.IsZero() {
		return nil
	}
	if err := tx.Ledger().Append(ctx, books.TopUp(f, rest)); err != nil {
		return err
	}
	return c.payFromFunds(ctx, tx, acct, now)
}

// afterPayment writes an invoice that was paid in part or whole, and what follows when nothing is left.
func (c *Core) afterPayment(ctx context.Context, tx Tx, acct account.Account, inv *invoice.Invoice, now time.Time) error {
	if !inv.AmountDue().IsZero() || !inv.Status.CanBecome(invoice.Paid) {
		return tx.Invoices().Save(ctx, inv)
	}
	if err := inv.Become(invoice.Paid, now); err != nil {
		return err
	}
	inv.Dunning = invoice.NotDunned
	if err := tx.Invoices().Save(ctx, inv); err != nil {
		return err
	}
	if err := tx.Outbox().Publish(ctx, acct.ID, outbox.InvoicePaid, map[string]any{"invoice": inv.ID, "total": inv.Total}, now); err != nil {
		return err
	}
	if err := c.reinstate(ctx, tx, acct, now); err != nil {
		return err
	}
	return c.removeWhenPaid(ctx, tx, acct)
}

// payFromFunds lets credit and funds pay open invoices, the oldest first, and then what was written off and keeps the
// account suspended. What was written off and is asked of nobody is paid only by who says so (Pay).
func (c *Core) payFromFunds(ctx context.Context, tx Tx, acct account.Account, now time.Time) error {
	open, err := payable(ctx, tx, acct)
	if err != nil || len(open) == 0 {
		return err
	}
	paying, err := tx.Payments().Paying(ctx, acct.ID)
	if err != nil {
		return err
	}
	for i := range open {
		inv := &open[i]
		if slices.Contains(paying, inv.ID) {
			continue // a card is being asked for it right now
		}
		before := inv.AmountPaid
		f := c.fact(acct, "", "Open invoice paid from the balance", now)
		if err := applyCredit(ctx, tx, acct, inv, f, now); err != nil {
			return err
		}
		if inv.AmountPaid == before {
			return nil // nothing left to pay with
		}
		if err := c.afterPayment(ctx, tx, acct, inv, now); err != nil {
			return err
		}
	}
	return nil
}

// payable returns the invoices that the account is to pay: those that are open, and what was written off and keeps it
// suspended.
func payable(ctx context.Context, tx Tx, acct account.Account) ([]invoice.Invoice, error) {
	out, err := tx.Invoices().Unpaid(ctx, acct.ID)
	if err != nil || acct.Status != account.Suspended {
		return out, err
	}
	suspending, err := tx.Invoices().Suspending(ctx, acct.ID)
	for _, inv := range suspending {
		if inv.Status == invoice.Uncollectible {
			out = append(out, inv)
		}
	}
	return out, err
}

// declined writes down that a payment came to nothing, and what follows for what it was to pay.
func (c *Core) declined(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, why *payment.Failure, s payment.Status, now time.Time) error {
	if err := p.Become(s, now); err != nil {
		return err
	}
	p.Failure = why
	if err := tx.Payments().SavePayment(ctx, p); err != nil {
		return err
	}
	if s == payment.Failed && why != nil {
		if err := c.countAttempt(ctx, tx, acct, p, why); err != nil {
			return err
		}
	}
	if err := tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentFailed, about(p), now); err != nil {
		return err
	}
	if p.Purpose == payment.ForTopUp {
		return c.mirrorTopUp(ctx, tx, acct, p, now)
	}
	if err := c.watch(ctx, tx, acct.ID); err != nil { // an automatic top-up has left out what this would have paid
		return err
	}
	// What has come in while the card was being asked pays first.
	if err := c.payFromFunds(ctx, tx, acct, now); err != nil {
		return err
	}
	inv, err := tx.Invoices().Lock(ctx, acct.ID, p.Invoice)
	if err != nil {
		return err
	}
	other, err := chargesAnother(ctx, tx, *p)
	if err != nil {
		return err
	}
	switch {
	case !other:
	case p.OffSession && inv.Status == invoice.Open && inv.Dunning != invoice.Stopped:
		return collectAnew(ctx, tx, acct, &inv, now) // by the card that has come while this one was being asked
	case inv.Dunning != invoice.Suspended:
		why = nil // it says nothing of the card that is charged by itself
	}
	return c.dun(ctx, tx, acct, &inv, why, now)
}

// chargesAnother reports whether the account's default card is another than the one that a payment has asked: not the same
// brought again.
func chargesAnother(ctx context.Context, tx Tx, p payment.Payment) (bool, error) {
	m, err := tx.Payments().DefaultMethod(ctx, p.Account)
	if noMethod(err) {
		return false, nil
	}
	if err != nil || m.ID == p.Method {
		return false, err
	}
	asked, err := tx.Payments().Method(ctx, p.Account, p.Method)
	return asked.Card.Fingerprint == "" || asked.Card.Fingerprint != m.Card.Fingerprint, err
}

// collectAnew has an invoice collected now, by a card of which nothing is known yet.
func collectAnew(ctx context.Context, tx Tx, acct account.Account, inv *invoice.Invoice, now time.Time) error {
	inv.NextAttempt, inv.Attempts = now, 0
	if err := tx.Invoices().Save(ctx, inv); err != nil {
		return err
	}
	return tx.Jobs().Enqueue(ctx, acct.ID, job.CollectInvoice, map[string]any{"invoice": inv.ID}, now)
}

// dun plans what follows a failed attempt to collect an invoice.
func (c *Core) dun(ctx context.Context, tx Tx, acct account.Account, inv *invoice.Invoice, why *payment.Failure, now time.Time) error {
	if inv.Status != invoice.Open || inv.Dunning == invoice.Stopped {
		inv.NextAttempt = time.Time{}
		return tx.Invoices().Save(ctx, inv)
	}
	step := c.Policy.Dunning.Next(dunning.Failure{Attempts: inv.Attempts, Final: final(why)}, now)
	inv.NextAttempt, inv.UpdatedAt = step.RetryAt, now
	inv.Dunning = invoice.Retrying
	if step.Suspend {
		inv.Dunning = invoice.Suspended
		if after := c.Policy.Dunning.Uncollectible; after > 0 {
			inv.NextAttempt = inv.DueAt.Add(after) // no attempt by then means that it is written off
		}
	}
	if err := tx.Invoices().Save(ctx, inv); err != nil {
		return err
	}
	if step.Suspend {
		return c.suspend(ctx, tx, acct, inv, now)
	}
	return tx.Jobs().Enqueue(ctx, acct.ID, job.CollectInvoice, map[string]any{"invoice": inv.ID}, step.RetryAt)
}

// final reports whether a decline means that the card will not pass without its holder.
func final(f *payment.Failure) bool {
	if f == nil {
		return false
	}
	switch f.Class {
	case payment.DeclineHard, payment.DeclineFraud, payment.DeclineLost, payment.DeclineBarred, payment.DeclineExpired, payment.DeclineAuthentication, payment.DeclineData:
		return true
	case payment.DeclineSoft:
	}
	return false
}

// suspend stops paid use until the debt is paid. The Billing page stays open, and the debt stays owed.
func (c *Core) suspend(ctx context.Context, tx Tx, acct account.Account, inv *invoice.Invoice, now time.Time) error {
	acct, err := tx.Accounts().Get(ctx, acct.ID) // an earlier step of this transaction may have changed it
	if err != nil || acct.Status != account.Active {
		return err
	}
	acct.Status, acct.UpdatedAt = account.Suspended, now
	if err := tx.Accounts().Save(ctx, &acct); err != nil {
		return err
	}
	if err := c.reentitle(ctx, tx, acct); err != nil {
		return err
	}
	return tx.Outbox().Publish(ctx, acct.ID, outbox.AccountSuspended, map[string]any{"reason": "unpaid_invoice", "invoice": inv.ID}, now)
}

// reinstate takes a suspension back once no invoice asks for it any more.
func (c *Core) reinstate(ctx context.Context, tx Tx, acct account.Account, now time.Time) error {
	acct, err := tx.Accounts().Get(ctx, acct.ID) // an earlier step of this transaction may have changed it
	if err != nil || acct.Status != account.Suspended {
		return err
	}
	owes, err := tx.Invoices().Suspending(ctx, acct.ID)
	if err != nil || len(owes) > 0 {
		return err
	}
	acct.Status, acct.UpdatedAt = account.Active, now
	if err := tx.Accounts().Save(ctx, &acct); err != nil {
		return err
	}
	if err := c.reentitle(ctx, tx, acct); err != nil {
		return err
	}
	return tx.Outbox().Publish(ctx, acct.ID, outbox.AccountReinstated, map[string]any{}, now)
}

func (c *Core) reentitle(ctx context.Context, tx Tx, acct account.Account) error {
	sub, err := tx.Subscriptions().Lock(ctx, acct.ID)
	if err != nil {
		return err
	}
	return c.entitle(ctx, tx, acct, sub)
}

// mirrorTopUp makes a top-up's status its payment's, and tells.
func (c *Core) mirrorTopUp(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, now time.Time) error {
	if p.Purpose != payment.ForTopUp {
		return nil
	}
	t, err := tx.Payments().TopUp(ctx, acct.ID, p.TopUp)
	if err != nil || t.Status == p.Status || !t.Status.CanBecome(p.Status) {
		return err
	}
	t.Status, t.Failure, t.UpdatedAt = p.Status, p.Failure, now
	if err := tx.Payments().SaveTopUp(ctx, &t); err != nil {
		return err
	}
	switch t.Status {
	case payment.Succeeded:
		if err := tx.Outbox().Publish(ctx, acct.ID, outbox.TopUpSucceeded, map[string]any{"top_up": t.ID, "amount": t.Amount}, now); err != nil {
			return err
		}
	case payment.Failed, payment.Canceled:
		if err := c.tripAutoTopUp(ctx, tx, acct, t, *p, now); err != nil {
			return err
		}
		if err := tx.Outbox().Publish(ctx, acct.ID, outbox.TopUpFailed, map[string]any{"top_up": t.ID, "amount": t.Amount, "failure": t.Failure.Told()}, now); err != nil {
			return err
		}
	case payment.Parked:
		// The next one would be reported as this one was, and charge the card again.
		return c.tripAutoTopUp(ctx, tx, acct, t, *p, now)
	case payment.Processing, payment.RequiresAction:
		return nil
	}
	// It may have been all that a card to be removed was kept for.
	return c.removeWhenPaid(ctx, tx, acct)
}

// countAttempt counts a decline against the card's budget that all operations share.
func (c *Core) countAttempt(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, why *payment.Failure) error {
	m, err := tx.Payments().Method(ctx, acct.ID, p.Method)
	if err != nil {
		return err
	}
	return countCard(ctx, tx, m.Card.Fingerprint, acct.Now(c.Clock()), why)
}

// countCard counts a decline. A success costs no budget, and a card in good use has many.
func countCard(ctx context.Context, tx Tx, fingerprint string, at time.Time, why *payment.Failure) error {
	if fingerprint == "" {
		return nil // the provider could not tell the card
	}
	return tx.Payments().AddAttempt(ctx, fingerprint, payment.Attempt{At: at, Declined: true, Class: why.Class})
}

// mayTry returns ErrCardBudget if the card may not be asked now. It says when it may again, if ever.
func (c *Core) mayTry(ctx context.Context, tx Tx, m payment.Method, now time.Time) error {
	if m.Card.Fingerprint == "" {
		return nil
	}
	past, err := tx.Payments().Attempts(ctx, m.Card.Fingerprint, time.Time{})
	if err != nil {
		return err
	}
	tries := make([]dunning.Attempt, 0, len(past))
	for _, a := range past {
		tries = append(tries, dunning.Attempt{At: a.At, Declined: a.Declined, Final: a.Class == payment.DeclineFraud, Lost: a.Class.ForEver()})
	}
	ok, again := c.Policy.Dunning.MayTry(tries, now)
	switch {
	case ok:
		return nil
	case again.IsZero():
		return ErrCardBudget
	}
	return ErrCardBudget.With("retry_after", again)
}

// noMethod reports whether err says that the account has no card to charge.
func noMethod(err error) bool { return errors.Is(err, payment.ErrNoMethod) }
