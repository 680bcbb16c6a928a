package billing

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Adjuster corrects final invoices: nothing in them is edited, a document takes back what is wrong.
type Adjuster struct{ *Core }

// CreditInput is an operator's correction of an invoice.
type CreditInput struct {
	Invoice invoice.ID
	Amount  money.Amount // zero: all that can still be credited, and that no correction of usage has given back
	Reason  string
}

// Errors of corrections.
var (
	ErrCreditTooLarge = errs.New(errs.Conflict, "credit_too_large", "The invoice has less left than is to be credited.")
	ErrPartlyPaid     = errs.New(errs.Conflict, "invoice_partly_paid", "Something of the invoice has been paid, so it cannot be void. Give a credit note instead.")
	ErrCorrected      = errs.New(errs.Conflict, "invoice_corrected", "A correction of usage has taken back a part of one invoice on another, so neither can be void. Give a credit note for what is not to be paid.")
	ErrPaidAhead      = errs.New(errs.Conflict, "invoice_paid_ahead", "Other invoices draw on what this one bills ahead, so it cannot be void. End its contract, and give a credit note for what is not to be paid.")
)

// Credit issues a credit note: it takes off what is still due of the invoice, then gives back what cards and funds have
// paid of it, to the account's funds, and last what promotional credit has paid, or a correction of usage has given back
// already, which is credit again. They pay other open invoices at once. What was written off is due for the note, and so can
// be forgiven in part. The notes of an invoice never come to more than the invoice. While a card is being charged for it, it waits: payment.ErrPaymentPending.
func (a Adjuster) Credit(ctx context.Context, asked Asked, in CreditInput, render Renderer[invoice.CreditNote]) (_ Result[invoice.CreditNote], err error) {
	defer errs.Wrap(&err, "credit %s", in.Invoice)
	return once(ctx, a.Core, asked, render, func(tx Tx) (note invoice.CreditNote, err error) {
		acct, inv, err := a.lock(ctx, tx, asked.Account, in.Invoice)
		if err != nil {
			return note, err
		}
		if inv.Status == invoice.Draft || inv.Status == invoice.Void {
			return note, invoice.ErrTransition.Details("The invoice is %s; a credit note corrects one that is final, and not void.", inv.Status)
		}
		left, err := a.creditable(ctx, tx, inv)
		if err != nil {
			return note, err
		}
		amount := in.Amount
		if amount.IsZero() {
			all, err := takings(ctx, tx, acct.ID)
			if err != nil {
				return note, err
			}
			back := givenBack(inv.ID, all)
			if amount = money.New(left.Minor-back, left.Currency); back > 0 && amount.Minor <= 0 {
				return note, ErrCorrected.Details("Corrections of usage have given back what is left of the invoice, on others. Say how much is to be given back beside that.").With("creditable", left)
			}
		}
		switch {
		case amount.Currency != inv.Currency:
			return note, ErrCurrency
		case amount.Minor <= 0 || amount.Minor > left.Minor:
			return note, ErrCreditTooLarge.With("creditable", left)
		}
		now := acct.Now(a.Clock())
		if inv.Status == invoice.Uncollectible {
			if err := a.dueAgain(ctx, tx, acct, inv, money.New(min(amount.Minor, inv.AmountDue().Minor), inv.Currency), now); err != nil {
				return note, err
			}
		}
		if note, err = a.issue(ctx, tx, acct, &inv, invoice.CreditNote{Amount: amount, Actor: asked.Actor, Reason: in.Reason}, now); err != nil {
			return note, err
		}
		if note.ToDue.Minor > 0 {
			if err := a.afterPayment(ctx, tx, acct, &inv, now); err != nil {
				return note, err
			}
		}
		if note.ToDue.Minor < note.Amount.Minor {
			if err := a.payFromFunds(ctx, tx, acct, now); err != nil {
				return note, err
			}
		}
		return note, tx.Accounts().Audit(ctx, acct.ID, account.Entry{
			Actor: asked.Actor, Action: "invoice.credit", Reason: in.Reason, Detail: detail("credit_note", note.ID), At: now,
		})
	})
}

// Void takes an invoice back that should not have been: a credit note over all of it is issued, and
// nobody owes it any more. One that was paid in part cannot be void, nor one that others draw on, nor one that takes back
// what another bills or has a part taken back, which would be given back twice or not at all: ErrPartlyPaid, ErrPaidAhead, ErrCorrected.
func (a Adjuster) Void(ctx context.Context, asked Asked, iid invoice.ID, reason string, render Renderer[invoice.Invoice]) (_ Result[invoice.Invoice], err error) {
	defer errs.Wrap(&err, "void %s", iid)
	return once(ctx, a.Core, asked, render, func(tx Tx) (invoice.Invoice, error) {
		acct, inv, err := a.lock(ctx, tx, asked.Account, iid)
		if err != nil {
			return inv, err
		}
		now := acct.Now(a.Clock())
		was := inv.Status
		if err := inv.Become(invoice.Void, now); err != nil {
			return inv, err
		}
		if inv.Kind == invoice.Prepayment {
			return inv, ErrPaidAhead
		}
		if inv.AmountPaid.Minor > 0 {
			return inv, ErrPartlyPaid.With("amount_paid", inv.AmountPaid)
		}
		taken, err := takings(ctx, tx, acct.ID)
		if err != nil {
			return inv, err
		}
		if slices.ContainsFunc(taken.takings, func(t taking) bool { return t.by == inv.ID || t.of == inv.ID }) {
			return inv, ErrCorrected
		}
		if was == invoice.Uncollectible { // it is due again before it is taken back
			if err := a.dueAgain(ctx, tx, acct, inv, inv.AmountDue(), now); err != nil {
				return inv, err
			}
		}
		inv.Dunning = invoice.NotDunned
		if _, err := a.issue(ctx, tx, acct, &inv, invoice.CreditNote{Amount: inv.AmountDue(), Actor: asked.Actor, Reason: reason}, now); err != nil {
			return inv, err
		}
		if err := tx.Invoices().Save(ctx, &inv); err != nil {
			return inv, err
		}
		if err := tx.Outbox().Publish(ctx, acct.ID, outbox.InvoiceVoided, map[string]any{"invoice": inv.ID, "total": inv.Total}, now); err != nil {
			return inv, err
		}
		if err := a.reinstate(ctx, tx, acct, now); err != nil { // it is no longer owed
			return inv, err
		}
		if err := a.removeWhenPaid(ctx, tx, acct); err != nil {
			return inv, err
		}
		return inv, a.audit(ctx, tx, acct, asked, "invoice.void", reason, inv, now)
	})
}

// takeOff issues a credit note over what an invoice takes back of what is owed of another that was written off.
func (a Adjuster) takeOff(ctx context.Context, tx Tx, acct account.Account, by, iid invoice.ID, amount money.Amount, now time.Time) error {
	inv, err := tx.Invoices().Lock(ctx, acct.ID, iid)
	if err != nil {
		return err
	}
	if err := a.dueAgain(ctx, tx, acct, inv, amount, now); err != nil {
		return err
	}
	if _, err := a.issue(ctx, tx, acct, &inv, invoice.CreditNote{By: by, Amount: amount, Actor: system, Reason: "Usage that it bills was corrected."}, now); err != nil {
		return err
	}
	return a.afterPayment(ctx, tx, acct, &inv, now)
}

// dueAgain books that so much of what was written off is due, so that a credit note can take it off.
func (a Adjuster) dueAgain(ctx context.Context, tx Tx, acct account.Account, inv invoice.Invoice, amount money.Amount, now time.Time) error {
	f := a.fact(acct, fmt.Sprintf("%s/%d", inv.ID, inv.Version), "Write-off undone", now)
	return tx.Ledger().Append(ctx, books.WriteOffUndone(f, amount))
}

// WriteOff says that nobody expects the invoice to be paid any more. The debt stays: it can still be
// paid, and a suspension that it led to goes on.
func (a Adjuster) WriteOff(ctx context.Context, asked Asked, iid invoice.ID, reason string, render Renderer[invoice.Invoice]) (_ Result[invoice.Invoice], err error) {
	defer errs.Wrap(&err, "write off %s", iid)
	return once(ctx, a.Core, asked, render, func(tx Tx) (invoice.Invoice, error) {
		acct, inv, err := a.lock(ctx, tx, asked.Account, iid)
		if err != nil {
			return inv, err
		}
		now := acct.Now(a.Clock())
		if err := a.writeOff(ctx, tx, acct, &inv, now); err != nil {
			return inv, err
		}
		return inv, a.audit(ctx, tx, acct, asked, "invoice.write_off", reason, inv, now)
	})
}

// lock holds the account and the invoice, and refuses while a card may still pay for it.
func (a Adjuster) lock(ctx context.Context, tx Tx, aid account.ID, iid invoice.ID) (account.Account, invoice.Invoice, error) {
	acct, err := tx.Accounts().Lock(ctx, aid)
	if err != nil {
		return acct, invoice.Invoice{}, err
	}
	inv, err := tx.Invoices().Lock(ctx, aid, iid)
	if err != nil {
		return acct, inv, err
	}
	paying, err := tx.Payments().Paying(ctx, aid)
	if err == nil && slices.Contains(paying, iid) {
		err = payment.ErrPaymentPending
	}
	return acct, inv, err
}

// creditable is what the notes of an invoice have left of it.
func (a Adjuster) creditable(ctx context.Context, tx Tx, inv invoice.Invoice) (money.Amount, error) {
	notes, err := tx.Invoices().CreditNotesOf(ctx, inv.Account, inv.ID)
	left := inv.Total
	for _, n := range notes {
		left.Minor -= n.Amount.Minor
	}
	return left, err
}

// issue completes a credit note of which the amount, which is not more than can be credited, is given, and who wrote it and
// why; it writes and books it. The invoice's Credited is raised and not saved.
func (a Adjuster) issue(ctx context.Context, tx Tx, acct account.Account, inv *invoice.Invoice, note invoice.CreditNote, now time.Time) (invoice.CreditNote, error) {
	paid, err := standsPaid(ctx, tx, *inv)
	if err != nil {
		return note, err
	}
	b, err := tx.Ledger().Balances(ctx, acct.ID)
	if err != nil {
		return note, err
	}
	note.ID, note.Account, note.Invoice, note.IssuedAt = id.New[invoice.CreditNote](), acct.ID, inv.ID, now
	note.ToDue = money.New(min(note.Amount.Minor, inv.AmountDue().Minor), inv.Currency)
	left := note.Amount.Minor - note.ToDue.Minor
	note.ToFunds = money.New(max(0, min(left, paid, notInFunds(b, acct)-note.ToDue.Minor)), inv.Currency)
	note.ToCredit = money.New(left-note.ToFunds.Minor, inv.Currency)
	if note.Number, err = tx.Invoices().NextNumber(ctx, acct.ID); err != nil {
		return note, err
	}
	if err := tx.Invoices().AddCreditNote(ctx, note); err != nil {
		return note, err
	}
	f := a.fact(acct, note.ID.String(), "Credit note "+note.Number, now)
	if err := tx.Ledger().Append(ctx, books.CreditNote(f, note.ToDue, note.ToFunds, note.ToCredit)); err != nil {
		return note, err
	}
	if err := a.creditAgain(ctx, tx, acct, inv.ID, note.ToCredit, f); err != nil {
		return note, err
	}
	inv.Credited.Minor += note.ToDue.Minor
	inv.UpdatedAt = now
	return note, tx.Outbox().Publish(ctx, acct.ID, outbox.InvoiceCredited, map[string]any{
		"invoice": inv.ID, "credit_note": note.ID, "number": note.Number, "amount": note.Amount, "to_due": note.ToDue, "to_funds": note.ToFunds,
		"to_credit": note.ToCredit,
	}, now)
}

func (a Adjuster) audit(ctx context.Context, tx Tx, acct account.Account, asked Asked, action, reason string, inv invoice.Invoice, now time.Time) error {
	return tx.Accounts().Audit(ctx, acct.ID, account.Entry{
		Actor: asked.Actor, Action: action, Reason: reason, Detail: detail("invoice", inv.ID), At: now,
	})
}
