package billing

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

// SetAutoTopUp saves the rule; saving it closes a tripped breaker. The first version is 0.
func (f Funder) SetAutoTopUp(ctx context.Context, asked Asked, rule wallet.AutoTopUp) (saved wallet.AutoTopUp, err error) {
	defer errs.Wrap(&err, "set automatic top-up of %s", asked.Account)
	err = f.DB.InTx(ctx, func(tx Tx) error {
		saved = rule
		acct, err := f.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return err
		}
		if saved.Target.Currency != acct.Currency {
			return ErrCurrency
		}
		sub, err := tx.Subscriptions().Active(ctx, acct.ID)
		if err != nil {
			return err
		}
		if saved.Enabled {
			if asked.Ceiling != (auth.Ceilings{}) {
				return ErrCeiling.Details("What an automatic top-up charges counts toward no key's ceiling, so a key that has one sets none.")
			}
			if takes, err := takesFunds(ctx, tx, acct, sub); err != nil || !takes {
				return cmp.Or(err, error(ErrUpgradeRequired))
			}
		}
		saved.Account, saved.UpdatedAt = acct.ID, acct.Now(f.Clock())
		saved.Tripped, saved.TrippedReason, saved.TrippedAt = false, "", time.Time{}
		if err := tx.Wallet().SaveAutoTopUp(ctx, &saved); err != nil {
			return err
		}
		return f.watch(ctx, tx, acct.ID)
	})
	return saved, err
}

// AutoTopUp charges what the account's rule asks for, if it is due. It reports whether it asked the provider.
func (f Funder) AutoTopUp(ctx context.Context, a account.ID) (asked bool, err error) {
	defer errs.Wrap(&err, "automatic top-up of %s", a)
	// Most have no rule, or have enough. Whether it is due is found out again under the account's lock.
	rule, err := f.DB.Wallet().AutoTopUp(ctx, a)
	if err != nil || !rule.Enabled || rule.Tripped {
		return false, ignoreMissingRule(err)
	}
	acct, err := f.DB.Accounts().Get(ctx, a)
	if err != nil {
		return false, err
	}
	if f.charging.withheld.Load() {
		return false, f.hold(ctx, rule, acct.Now(f.Clock()).Add(withheldFor))
	}
	due, again, err := f.due(ctx, f.DB, acct)
	if err != nil {
		return false, err
	}
	if due.IsZero() {
		return false, f.hold(ctx, rule, again)
	}
	out, err := f.topUp(ctx, Asked{Account: a, Actor: system}, TopUpInput{Origin: payment.Auto}, nil)
	now := acct.Now(f.Clock())
	switch {
	case err == nil && out.Record.Status.Pending():
		return true, f.hold(ctx, rule, now.Add(pendingFor)) // more may be used until it ends
	case err == nil:
		return true, f.hold(ctx, rule, again)
	case errors.Is(err, errNotDue):
		return false, nil // whoever was quicker says what follows
	case errors.Is(err, payment.ErrTopUpPending):
		e, _ := errors.AsType[*errs.Error](err)
		other, _ := e.Params["top_up"].(payment.TopUpID)
		t, err := f.DB.Payments().TopUp(ctx, a, other)
		looked := !rule.HeldUntil.IsZero() && !rule.HeldUntil.After(now)
		if err != nil || (t.Origin == payment.Auto && !looked) {
			return false, err // as above
		}
		return false, f.hold(ctx, rule, now.Add(pendingFor)) // by hand it may come to nothing, or not be enough
	case errors.Is(err, ErrCardBudget):
		e, _ := errors.AsType[*errs.Error](err)
		again, _ = e.Params["retry_after"].(time.Time) // or never, with this card
		return false, f.hold(ctx, rule, again)
	case noMethod(err), errors.Is(err, ErrUpgradeRequired), errors.Is(err, account.ErrClosed):
		return false, f.hold(ctx, rule, time.Time{}) // the rule outlives the card and the plan: another one has it looked at
	}
	return false, err
}

// hold has a rule looked at again at a time at which nobody else would have: the zero time for not at all.
func (f Funder) hold(ctx context.Context, rule wallet.AutoTopUp, until time.Time) error {
	if rule.HeldUntil.Equal(until) {
		return nil
	}
	rule.HeldUntil = until
	return f.DB.InTx(ctx, func(tx Tx) error { return tx.Wallet().HoldAutoTopUp(ctx, rule) })
}

// pendingFor is when a rule is looked at again that a top-up which is pending keeps waiting.
const pendingFor = time.Minute

var errNotDue = errors.New("no automatic top-up is due")

// due returns what the account's rule asks to be charged now: not what a card is being asked for an invoice. Where its
// ceiling holds some of that back, it says when there is more: when the month turns. Where one top-up may not be enough, it is at once.
func (f Funder) due(ctx context.Context, tx Tx, acct account.Account) (missing money.Amount, again time.Time, err error) {
	missing = zeroOf(acct)
	rule, err := tx.Wallet().AutoTopUp(ctx, acct.ID)
	if err != nil || !rule.Enabled || rule.Tripped {
		return missing, again, ignoreMissingRule(err)
	}
	b, err := balance(ctx, tx, acct)
	if err != nil {
		return missing, again, err
	}
	if b.Available.Minor < rule.Threshold.Minor {
		being, err := beingPaid(ctx, tx, acct)
		if err != nil {
			return missing, again, err
		}
		b.Available.Minor += being
	}
	now := acct.Now(f.Clock())
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	charged, err := tx.Payments().ToppedUp(ctx, acct.ID, payment.Auto, month, acct.Currency)
	if err != nil {
		return missing, again, err
	}
	limits, err := f.Gateway.Limits(acct.Currency)
	if err != nil {
		return missing, again, err
	}
	missing, held := rule.Missing(b.Available, charged, limits.Minimum)
	if held {
		again = month.AddDate(0, 1, 0)
	}
	if missing.Minor > f.Policy.TopUpMaximum {
		missing.Minor, again = f.Policy.TopUpMaximum, now
	}
	missing.Minor -= missing.Minor % limits.Step
	return missing, again, nil
}

// beingPaid is what is due of invoices for which a payment may still succeed.
func beingPaid(ctx context.Context, tx Tx, acct account.Account) (sum int64, err error) {
	paying, err := tx.Payments().Paying(ctx, acct.ID)
	for _, iid := range paying {
		inv, err := tx.Invoices().Get(ctx, acct.ID, iid)
		if err != nil {
			return 0, err
		}
		if inv.Status == invoice.Open {
			sum += inv.AmountDue().Minor
		}
	}
	return sum, err
}

func ignoreMissingRule(err error) error {
	if errors.Is(err, wallet.ErrNoAutoTopUp) {
		return nil
	}
	return err
}

// tripAutoTopUp opens the breaker at the first decline: nothing more is charged by itself until the
// customer saves the rule again or brings another card. One that has come while its predecessor was asked is asked now.
func (c *Core) tripAutoTopUp(ctx context.Context, tx Tx, acct account.Account, t payment.TopUp, p payment.Payment, now time.Time) error {
	if t.Origin != payment.Auto {
		return nil
	}
	if p.Status != payment.Parked {
		other, err := chargesAnother(ctx, tx, p)
		if err != nil {
			return err
		}
		if other {
			return c.watch(ctx, tx, acct.ID)
		}
	}
	reason, why := "", t.Failure.Told()
	if why != nil {
		reason = why.Code
	}
	return trip(ctx, tx, acct, p.Method, reason, map[string]any{"top_up": t.ID, "failure": why}, now)
}

// keepGivenBack pauses automatic top-ups where they would take at once what was given back to a card.
func (c *Core) keepGivenBack(ctx context.Context, tx Tx, acct account.Account, ref payment.Refund, mid payment.MethodID, now time.Time) error {
	rule, err := tx.Wallet().AutoTopUp(ctx, acct.ID)
	if err != nil || !rule.Enabled {
		return ignoreMissingRule(err)
	}
	b, err := balance(ctx, tx, acct)
	if err != nil || b.Available.Minor >= rule.Threshold.Minor {
		return err
	}
	return trip(ctx, tx, acct, mid, "refunded", map[string]any{"refund": ref.ID}, now)
}

// trip opens the breaker of automatic top-ups for a card, if the account has a rule for them that is in force. That is written
// down with the card, so that bringing it again does not close the breaker, whatever has opened it.
func trip(ctx context.Context, tx Tx, acct account.Account, mid payment.MethodID, reason string, about map[string]any, now time.Time) error {
	rule, err := tx.Wallet().AutoTopUp(ctx, acct.ID)
	if err != nil || !rule.Enabled || rule.Tripped {
		return ignoreMissingRule(err)
	}
	rule.Tripped, rule.TrippedReason, rule.TrippedAt, rule.UpdatedAt = true, reason, now, now
	if err := tx.Wallet().SaveAutoTopUp(ctx, &rule); err != nil {
		return err
	}
	m, err := tx.Payments().Method(ctx, acct.ID, mid)
	if err != nil {
		return err
	}
	if m.Card.Fingerprint != "" {
		if err := tx.Payments().AddAttempt(ctx, m.Card.Fingerprint, payment.Attempt{At: now}); err != nil {
			return err
		}
	}
	return tx.Outbox().Publish(ctx, acct.ID, outbox.AutoTopUpTripped, about, now)
}
