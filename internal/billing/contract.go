package billing

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
)

// Contractor keeps what is agreed with single accounts.
type Contractor struct{ *Core }

// Agree puts the account on a contract: overrides on the current version of its plan. The running
// period is billed under it if the contract is in force at the period's start; what was used in it
// stays. The account's earlier contract, if any, ends.
func (c Contractor) Agree(ctx context.Context, asked Asked, def plan.Contract, render Renderer[subscription.Contract]) (Result[subscription.Contract], error) {
	return once(ctx, c.Core, asked, render, func(tx Tx) (subscription.Contract, error) {
		var out subscription.Contract
		acct, err := c.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return out, err
		}
		sub, err := tx.Subscriptions().Lock(ctx, acct.ID)
		if err != nil {
			return out, err
		}
		now := acct.Now(c.Clock())
		v, err := tx.Plans().Current(ctx, def.Plan)
		if err != nil {
			return out, err
		}
		def.Version = v.Number
		if def.Start.IsZero() {
			def.Start = sub.Period.Start
		}
		applied, err := def.Apply(v)
		if err != nil {
			return out, err
		}
		if applied.Priced() && !sells(applied, acct.Currency) {
			return out, ErrCurrency.Details("The contract has no prices in %s.", acct.Currency)
		}
		if !sub.Contract.IsZero() {
			if err := tx.Subscriptions().EndContract(ctx, acct.ID, sub.Contract, now); err != nil {
				return out, err
			}
		}
		out = subscription.Contract{ID: id.New[subscription.Contract](), Account: acct.ID, Definition: def, CreatedAt: now}
		if err := tx.Subscriptions().CreateContract(ctx, out); err != nil {
			return out, err
		}
		terms := subscription.Terms{Plan: v.Plan, Version: v.Number, Contract: out.ID}
		return out, c.switchTo(ctx, tx, acct, &sub, terms, asked, "contract.agree", def.Reference, now)
	})
}

// End ends the account's contract; the plan stays, at the terms of its current version, from now on.
func (c Contractor) End(ctx context.Context, asked Asked, reason string) (err error) {
	defer errs.Wrap(&err, "end contract of %s", asked.Account)
	return c.DB.InTx(ctx, func(tx Tx) error {
		acct, err := c.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return err
		}
		sub, err := tx.Subscriptions().Lock(ctx, acct.ID)
		if err != nil {
			return err
		}
		if sub.Contract.IsZero() {
			return ErrNoContract
		}
		now := acct.Now(c.Clock())
		if err := tx.Subscriptions().EndContract(ctx, acct.ID, sub.Contract, now); err != nil {
			return err
		}
		terms := subscription.Terms{Plan: sub.Plan, Version: sub.Terms.Version}
		return c.switchTo(ctx, tx, acct, &sub, terms, asked, "contract.end", reason, now)
	})
}

// ErrNoContract says that the account has none.
var ErrNoContract = errs.New(errs.Conflict, "no_contract", "The account has no contract.")

// switchTo moves the agreement to other terms, with its limits, its event and its audit entry.
func (c *Core) switchTo(ctx context.Context, tx Tx, acct account.Account, sub *subscription.Subscription, t subscription.Terms, asked Asked, action, reason string, now time.Time) error {
	if err := sub.ChangePlan(t, now); err != nil {
		return err
	}
	if err := tx.Subscriptions().Save(ctx, sub); err != nil {
		return err
	}
	if err := entitle(ctx, tx, acct, *sub, c.Clock()); err != nil {
		return err
	}
	if err := publishChange(ctx, tx, acct, *sub, now); err != nil {
		return err
	}
	return tx.Accounts().Audit(ctx, acct.ID, account.Entry{Actor: asked.Actor, Action: action, Reason: reason, At: now})
}
