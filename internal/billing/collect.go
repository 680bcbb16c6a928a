package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/failpoint"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Collector takes what is due.
type Collector struct{ *Core }

// Collect makes the next attempt to charge an open invoice, if one is due on the account's clock.
// An invoice that is paid, or is being paid, is left alone, and any while charges are withheld. It reports whether it asked the provider.
func (c Collector) Collect(ctx context.Context, a account.ID, iid invoice.ID) (asked bool, err error) {
	defer errs.Wrap(&err, "collect %s", iid)
	failpoint.Hit(failpoint.Collect, failpoint.Received)
	if c.charging.withheld.Load() {
		return false, nil // it stays due
	}
	var p payment.Payment
	var m payment.Method
	called, err := c.commitIntent(ctx, func(tx Tx) error {
		asked = false
		acct, err := tx.Accounts().Lock(ctx, a)
		if err != nil {
			return err
		}
		inv, err := tx.Invoices().Lock(ctx, a, iid)
		if err != nil {
			return err
		}
		now := acct.Now(c.Clock())
		if inv.Status != invoice.Open || inv.NextAttempt.IsZero() || now.Before(inv.NextAttempt) {
			return nil
		}
		// What has come in since it became due, while a card was being asked for it, pays first.
		if err := c.payFromFunds(ctx, tx, acct, now); err != nil {
			return err
		}
		if inv, err = tx.Invoices().Lock(ctx, a, iid); err != nil || inv.Status != invoice.Open {
			return err
		}
		if c.Policy.Dunning.WriteOff(inv.DueAt, now) {
			return c.writeOff(ctx, tx, acct, &inv, now)
		}
		if paying, err := tx.Payments().Paying(ctx, a); err != nil || slices.Contains(paying, iid) {
			return err // somebody else is asking for it
		}
		if err := nonePending(ctx, tx, a); answersSoon(err) {
			return nil // a card is being asked for funds right now, which pay first: it stays due
		} else if err != nil && !errors.Is(err, payment.ErrTopUpPending) {
			return err
		}
		m, err = tx.Payments().DefaultMethod(ctx, a)
		if noMethod(err) {
			return c.dun(ctx, tx, acct, &inv, &payment.Failure{Code: "no_payment_method", Class: payment.DeclineHard, Message: "There is no active card."}, now)
		}
		if err != nil {
			return err
		}
		limits, err := c.Gateway.Limits(acct.Currency)
		if err != nil {
			return err
		}
		if inv.AmountDue().Minor < limits.Minimum.Minor {
			// Too little for any card: it stays due, and the next top-up pays it.
			inv.NextAttempt = time.Time{}
			return tx.Invoices().Save(ctx, &inv)
		}
		if err := c.mayTry(ctx, tx, m, now); errors.Is(err, ErrCardBudget) {
			inv.Attempts++
			return c.dun(ctx, tx, acct, &inv, &payment.Failure{Code: ErrCardBudget.Code, Class: payment.DeclineHard, Message: ErrCardBudget.Detail}, now)
		} else if err != nil {
			return err
		}
		p, err = c.beginPayment(ctx, tx, acct, &inv, chargeable(inv, limits), m, id.New[payment.Payment](), system, true, now)
		asked = err == nil
		return err
	})
	defer called()
	if err != nil || !asked {
		return false, err
	}
	_, err = c.charge(ctx, p, m, called, nil)
	return true, err
}

// chargeable is what a card is asked for an invoice: what is due, up to the provider's next step where it takes whole
// steps only (what that is too much goes to the funds), or the most that it takes, which leaves what it takes too.
func chargeable(inv invoice.Invoice, l payment.Limits) money.Amount {
	due := inv.AmountDue()
	if over := due.Minor % l.Step; over > 0 {
		due.Minor += l.Step - over
	}
	if rest := due.Minor - l.Maximum.Minor; rest > 0 {
		due.Minor = l.Maximum.Minor - max(0, l.Minimum.Minor-rest)
		due.Minor -= due.Minor % l.Step
	}
	return due
}

// cardToCharge returns the card that is to be charged, the default one for the zero id, or why it cannot be now.
func (c *Core) cardToCharge(ctx context.Context, tx Tx, acct account.Account, mid payment.MethodID) (m payment.Method, err error) {
	if mid.IsZero() {
		m, err = tx.Payments().DefaultMethod(ctx, acct.ID)
	} else if m, err = tx.Payments().Method(ctx, acct.ID, mid); err == nil && m.Status != payment.MethodActive {
		err = payment.ErrMethodNotFound
	}
	if err != nil {
		return m, err
	}
	return m, c.mayTry(ctx, tx, m, acct.Now(c.Clock()))
}

// beginPayment commits the intent to charge an amount for an invoice, which no payment may be about already.
func (c *Core) beginPayment(ctx context.Context, tx Tx, acct account.Account, inv *invoice.Invoice, amount money.Amount, m payment.Method, pid payment.ID, actor string, offSession bool, now time.Time) (payment.Payment, error) {
	inv.Attempts++
	inv.NextAttempt, inv.UpdatedAt = time.Time{}, now
	if err := tx.Invoices().Save(ctx, inv); err != nil {
		return payment.Payment{}, err
	}
	p := payment.Payment{
		ID: pid, Account: acct.ID, Purpose: payment.ForInvoice, Invoice: inv.ID, Method: m.ID,
		Amount: amount, Status: payment.Processing, OffSession: offSession, Actor: actor, Provider: m.Provider,
		Refunded: zeroOf(acct), Disputed: zeroOf(acct), CheckAt: c.Clock().Add(pause(1)), CreatedAt: c.Clock(), UpdatedAt: now, Version: 1,
	}
	return p, tx.Payments().CreatePayment(ctx, p)
}

func (c *Core) writeOff(ctx context.Context, tx Tx, acct account.Account, inv *invoice.Invoice, now time.Time) error {
	// A debt may be written off, paid, disputed and written off again: each is a booking of its own.
	f := c.fact(acct, fmt.Sprintf("%s/%d", inv.ID, inv.Version), "Written off", now)
	if err := inv.Become(invoice.Uncollectible, now); err != nil {
		return err
	}
	if err := tx.Ledger().Append(ctx, books.WriteOff(f, inv.AmountDue())); err != nil {
		return err
	}
	if err := tx.Invoices().Save(ctx, inv); err != nil {
		return err
	}
	return tx.Outbox().Publish(ctx, acct.ID, outbox.InvoiceUncollectible, map[string]any{"invoice": inv.ID, "amount": inv.AmountDue()}, now)
}

// Pay is "pay now": the customer is there, so the provider may ask for 3-D Secure.
func (c Collector) Pay(ctx context.Context, asked Asked, iid invoice.ID, mid payment.MethodID, render Renderer[payment.Payment]) (out Result[payment.Payment], err error) {
	defer errs.Wrap(&err, "pay %s", iid)
	failpoint.Hit(failpoint.PayInvoice, failpoint.Received)
	pid := id.New[payment.Payment]()
	var p payment.Payment
	var m payment.Method
	settled := false
	called, err := c.commitIntent(ctx, func(tx Tx) error {
		settled = false
		acct, err := tx.Accounts().Lock(ctx, asked.Account)
		if err != nil {
			return err
		}
		return claimed(ctx, tx, asked, pid.UUID(), &out, func() error {
			p, m, err = c.beginPay(ctx, tx, acct, asked, iid, mid, pid)
			return err
		}, func(record uuid.UUID) error {
			if p, err = tx.Payments().Payment(ctx, acct.ID, id.FromUUID[payment.Payment](record)); err != nil {
				return err
			}
			if p.Status.Pending() {
				m, err = tx.Payments().Method(ctx, acct.ID, p.Method)
				return err
			}
			settled = true
			return complete(ctx, tx, asked, p, render)
		})
	})
	defer called()
	if err != nil || out.Replayed != nil {
		return out, err
	}
	if !settled {
		p, err = c.charge(ctx, p, m, called, func(tx Tx, done payment.Payment) error { return complete(ctx, tx, asked, done, render) })
		if err != nil {
			return out, err
		}
	}
	out.Record = p
	return out, nil
}

func (c Collector) beginPay(ctx context.Context, tx Tx, acct account.Account, asked Asked, iid invoice.ID, mid payment.MethodID, pid payment.ID) (p payment.Payment, m payment.Method, err error) {
	inv, err := tx.Invoices().Lock(ctx, acct.ID, iid)
	if err != nil {
		return p, m, err
	}
	m, err = c.cardToCharge(ctx, tx, acct, mid)
	noCharge, err := refused(err)
	if err != nil {
		return p, m, err
	}
	paying, err := tx.Payments().Paying(ctx, acct.ID)
	if err != nil {
		return p, m, err
	}
	limits, err := c.Gateway.Limits(acct.Currency)
	if err != nil {
		return p, m, err
	}
	if err := first(whyNotPay(inv, slices.Contains(paying, inv.ID), noCharge, limits)); err != nil {
		return p, m, err
	}
	amount := chargeable(inv, limits)
	if err := c.withinCeiling(ctx, tx, asked, amount); err != nil {
		return p, m, err
	}
	p, err = c.beginPayment(ctx, tx, acct, &inv, amount, m, pid, asked.Actor, false, acct.Now(c.Clock()))
	return p, m, err
}
