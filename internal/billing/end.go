package billing

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Ender closes accounts.
type Ender struct{ *Core }

// End closes an account for ever: nothing may be owed, the running period is billed at once, what is
// left of the funds goes back to the cards that paid it in, credit ends, and no usage is taken any more.
func (e Ender) End(ctx context.Context, asked Asked, reason string, render Renderer[account.Account]) (out Result[account.Account], err error) {
	defer errs.Wrap(&err, "end account %s", asked.Account)
	// What is due comes first: a period that is over, credit that has run out.
	if _, err := Sweeper(e).Account(ctx, asked.Account); err != nil {
		return out, err
	}
	var left ended
	err = e.readingAhead(ctx, asked.Account, func(seen readings) error {
		out, err = once(ctx, e.Core, asked, render, func(tx Tx) (account.Account, error) {
			left, err = e.end(ctx, tx, asked, reason, seen)
			return left.account, err
		})
		return err
	})
	if err != nil || out.Replayed != nil {
		return out, err
	}
	for _, ref := range left.refunds {
		// Committed intents: what fails here, the sweep carries on.
		res, callErr := e.askRefund(ctx, ref)
		if _, err := e.settleRefund(ctx, ref, res, callErr, nil); err != nil {
			e.Log.WarnContext(ctx, "refund of a closed account is left to the sweep", "refund", ref.ID, "error", err)
		}
	}
	for _, m := range left.cards {
		e.detachSoon(ctx, m)
	}
	return out, nil
}

// ended is an account that has been closed, with what the provider is then to be asked for.
type ended struct {
	account account.Account
	refunds []payment.Refund
	cards   []payment.Method // to be forgotten
}

func (e Ender) end(ctx context.Context, tx Tx, asked Asked, reason string, seen readings) (out ended, err error) {
	acct, err := tx.Accounts().Lock(ctx, asked.Account)
	if err != nil {
		return out, err
	}
	f, err := e.facts(ctx, tx, acct)
	if err != nil {
		return out, err
	}
	if err := f.Guard(ActCloseAccount); err != nil {
		return out, err
	}
	now := acct.Now(e.Clock())
	if err := e.lastPeriod(ctx, tx, acct, f.Subscription, seen, now); err != nil {
		return out, err
	}
	if out.refunds, err = e.giveBack(ctx, tx, acct, asked); err != nil {
		return out, err
	}
	grants, err := tx.Wallet().Unspent(ctx, acct.ID)
	if err != nil {
		return out, err
	}
	for _, gr := range grants {
		if err := Granter(e).end(ctx, tx, acct, &gr, "Promotional credit ended with the account", now); err != nil {
			return out, err
		}
	}
	if out.cards, err = e.dropCards(ctx, tx, acct, asked.Actor); err != nil {
		return out, err
	}
	acct, err = tx.Accounts().Get(ctx, acct.ID)
	if err != nil {
		return out, err
	}
	acct.Status, acct.UpdatedAt = account.Closed, now
	if err := tx.Accounts().Save(ctx, &acct); err != nil {
		return out, err
	}
	ent, err := tx.Entitlements().Lock(ctx, acct.ID)
	if err != nil {
		return out, err
	}
	ent.Status, ent.UpdatedAt = account.Closed, now
	if err := tx.Entitlements().Put(ctx, ent); err != nil {
		return out, err
	}
	if err := tx.Accounts().Audit(ctx, acct.ID, account.Entry{Actor: asked.Actor, Action: "account.close", Reason: reason, At: now}); err != nil {
		return out, err
	}
	out.account = acct
	return out, tx.Outbox().Publish(ctx, acct.ID, outbox.AccountClosed, map[string]any{"reason": reason}, now)
}

// dropCards removes every active card of an account that is being closed. Money goes back to a payment,
// not to a card on file, so refunds do not need them.
func (e Ender) dropCards(ctx context.Context, tx Tx, acct account.Account, actor string) ([]payment.Method, error) {
	all, err := tx.Payments().Methods(ctx, acct.ID)
	if err != nil {
		return nil, err
	}
	var dropped []payment.Method
	for _, m := range all {
		if m.Status != payment.MethodActive {
			continue
		}
		if err := e.dropCard(ctx, tx, acct, &m, actor); err != nil {
			return nil, err
		}
		dropped = append(dropped, m)
	}
	return dropped, nil
}

// lastPeriod bills what was used up to now. The guard has made sure that funds cover it.
func (e Ender) lastPeriod(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription, seen readings, now time.Time) error {
	if sub.ID.IsZero() {
		return nil
	}
	sub, err := tx.Subscriptions().Lock(ctx, acct.ID)
	if err != nil {
		return err
	}
	if _, err := tx.Entitlements().Lock(ctx, acct.ID); err != nil {
		return err
	}
	if err := Closer(e).finalizeDrafts(ctx, tx, acct, seen, now); err != nil {
		return err
	}
	last := sub.Opened()
	last.ClosedAt = now
	if err := tx.Subscriptions().ClosePeriod(ctx, last, subscription.Period{}); err != nil {
		return err
	}
	sub.Status, sub.UpdatedAt = subscription.Ended, now
	if err := tx.Subscriptions().Save(ctx, &sub); err != nil {
		return err
	}
	if billed, err := isBilled(ctx, tx, acct.ID, last); err != nil || !billed {
		return err
	}
	inv := invoice.NewCycle(last, acct.Currency, now, now)
	if err := tx.Invoices().Create(ctx, inv); err != nil {
		return err
	}
	return Closer(e).finalize(ctx, tx, acct, inv, seen, now)
}

// finalizeDrafts makes every draft of the account final before its time.
func (c Closer) finalizeDrafts(ctx context.Context, tx Tx, acct account.Account, seen readings, now time.Time) error {
	drafts, err := tx.Invoices().List(ctx, acct.ID, invoice.Draft, firstPage)
	if err != nil {
		return err
	}
	for _, inv := range slices.Backward(drafts.Data) { // the oldest first: its number comes first
		if err := c.finalize(ctx, tx, acct, inv, seen, now); err != nil {
			return err
		}
	}
	return nil
}

// giveBack commits refunds of what is left of the funds, to the cards that it came from, the latest first: top-ups, and
// then payments of invoices, as much of them as credit notes, corrections of usage or the steps of a provider have made funds.
func (e Ender) giveBack(ctx context.Context, tx Tx, acct account.Account, asked Asked) ([]payment.Refund, error) {
	b, err := tx.Ledger().Balances(ctx, acct.ID)
	if err != nil {
		return nil, err
	}
	left := books.StandingOf(b, acct.Currency).Funds.Minor
	if left <= 0 {
		return nil, nil
	}
	paid, err := tx.Payments().RefundablePayments(ctx, acct.ID)
	if err != nil {
		return nil, err
	}
	limits, err := e.Gateway.Limits(acct.Currency)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(paid, func(a, b payment.Payment) int { return cmp.Compare(rank(a), rank(b)) })
	var out []payment.Refund
	for i, p := range paid {
		if left < limits.Step {
			break
		}
		part := min(left, p.Refundable().Minor)
		if p.Purpose == payment.ForInvoice {
			beyond, err := beyondInvoice(ctx, tx, p, paid)
			if err != nil {
				return nil, err
			}
			part = min(part, beyond)
		}
		part -= part % limits.Step
		if part <= 0 {
			continue
		}
		ref, err := Refunder(e).begin(ctx, tx, acct, asked, id.New[payment.Refund](), RefundInput{
			Payment: p.ID, Amount: money.New(part, acct.Currency), Reason: "account closed", Origin: payment.ByAccountClose,
		})
		if err != nil {
			return nil, err
		}
		left -= part
		paid[i].Refunded.Minor += part
		out = append(out, ref)
	}
	if left >= limits.Step { // less than that no provider can give back, and nobody is kept for it
		return nil, errNotRefundable.With("left", money.New(left, acct.Currency))
	}
	return out, nil
}

// rank has funds go back to where they were paid in as funds, if they were.
func rank(p payment.Payment) int {
	if p.Purpose == payment.ForTopUp {
		return 0
	}
	return 1
}

// beyondInvoice is what has become funds of what cards have paid for the invoice of p: what credit notes and corrections of
// usage have given back of it, and what was more than it. What was refunded of that is no longer among the payments.
func beyondInvoice(ctx context.Context, tx Tx, p payment.Payment, paid []payment.Payment) (int64, error) {
	inv, err := tx.Invoices().Get(ctx, p.Account, p.Invoice)
	if err != nil {
		return 0, err
	}
	stands, err := standsPaid(ctx, tx, inv)
	if err != nil {
		return 0, err
	}
	beyond := -stands
	for _, other := range paid {
		if other.Invoice == p.Invoice {
			beyond += other.Refundable().Minor
		}
	}
	return max(0, beyond), nil
}

var errNotRefundable = errs.New(errs.Conflict, "funds_not_refundable", "Some of the remaining funds cannot go back to a card. Contact support to have them paid out.")
