package billing

import (
	"context"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
)

// nextTerms returns what the period after the running one is billed under. What was planned is read from
// the database when the period closes, so that nothing depends on somebody remembering it:
//
//   - a contract that holds for that period; of several the one that begins last,
//   - else the plan that was planned for it, if it can still be bought in the account's currency (see dropped),
//   - else, after a contract, the plan that the contract leads to,
//   - else the version of the plan that a migration planned,
//   - else what was held.
func (c *Core) nextTerms(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription) (subscription.Terms, error) {
	contracts, err := tx.Subscriptions().Contracts(ctx, acct.ID)
	if err != nil {
		return subscription.Terms{}, err
	}
	for _, k := range slices.Backward(contracts) {
		if k.InForce(sub.Period.End) {
			return subscription.Terms{Plan: k.Definition.Plan, Version: k.Definition.Version, Contract: k.ID}, nil
		}
	}
	if sub.NextPlan != "" {
		v, err := tx.Plans().Current(ctx, sub.NextPlan)
		if err != nil && errs.KindOf(err) != errs.NotFound {
			return subscription.Terms{}, err
		}
		if err == nil && sells(v, acct.Currency) {
			return subscription.TermsOf(v), nil
		}
	}
	switch {
	case !sub.Contract.IsZero():
		return c.afterContract(ctx, tx, acct, sub)
	case sub.NextVersion != 0:
		return subscription.Terms{Plan: sub.Plan, Version: sub.NextVersion}, nil
	}
	return sub.Terms, nil
}

// dropped tells that a planned change was not made, since the plan cannot be bought any more: what is held goes on, and
// customer and operator may plan another. A contract that comes instead is told of by itself.
func dropped(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription, next subscription.Terms, now time.Time) error {
	if sub.NextPlan == "" || sub.NextPlan == next.Plan || !next.Contract.IsZero() {
		return nil
	}
	err := tx.Accounts().Audit(ctx, acct.ID, account.Entry{
		Actor: system, Action: "subscription.change_dropped", Reason: "The plan is no longer sold in " + string(acct.Currency) + ".",
		Detail: detail("plan", sub.NextPlan), At: now,
	})
	if err != nil {
		return err
	}
	return tx.Outbox().Publish(ctx, acct.ID, outbox.SubscriptionUnchanged, map[string]any{
		"subscription": sub.ID, "plan": sub.NextPlan, "kept": next.Plan,
	}, now)
}

// afterContract returns where an account goes whose contract is over: to the plan that the contract
// names or, where that cannot be bought, to the start plan.
func (c *Core) afterContract(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription) (subscription.Terms, error) {
	k, err := tx.Subscriptions().Contract(ctx, acct.ID, sub.Contract)
	if err != nil {
		return subscription.Terms{}, err
	}
	for _, code := range [...]plan.Code{k.Definition.Then, plan.Code(c.Policy.StartPlan)} {
		v, err := tx.Plans().Current(ctx, code)
		if errs.KindOf(err) == errs.NotFound || (err == nil && !sells(v, acct.Currency)) {
			continue
		}
		return subscription.TermsOf(v), err
	}
	return subscription.Terms{Plan: sub.Plan, Version: sub.Terms.Version}, nil
}

// contractTurn records that with the end of a period a contract ends or another one begins.
func contractTurn(ctx context.Context, tx Tx, acct account.Account, ended subscription.Period, next subscription.Terms, now time.Time) error {
	if ended.Contract == next.Contract {
		return nil
	}
	note := func(action string, id subscription.ContractID) error {
		k, err := tx.Subscriptions().Contract(ctx, acct.ID, id)
		if err != nil {
			return err
		}
		return tx.Accounts().Audit(ctx, acct.ID, account.Entry{Actor: system, Action: action, Reason: k.Definition.Reference, At: now})
	}
	if !ended.Contract.IsZero() {
		// One that was replaced ends here; one that was ended before keeps its time.
		if err := tx.Subscriptions().EndContract(ctx, acct.ID, ended.Contract, ended.Bounds.End); err != nil {
			return err
		}
		if err := note("contract.over", ended.Contract); err != nil {
			return err
		}
	}
	if next.Contract.IsZero() {
		return nil
	}
	return note("contract.begin", next.Contract)
}
