package billing

import (
	"context"
	"errors"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
)

// Contractor keeps what is agreed with single accounts.
type Contractor struct{ *Core }

// Agree puts the account on a contract: overrides on a version of a plan, the current one unless def names
// another. A contract holds for whole periods. One that holds for the running period (that begins with it
// where def names no start) takes effect at once: the account's earlier contract, if any, ends, and what
// was used in the period stays and is billed by the new terms. Any other begins with the first period
// after its start, by itself; an account has one of these at most.
func (c Contractor) Agree(ctx context.Context, asked Asked, def plan.Contract, render Renderer[Agreement]) (_ Result[Agreement], err error) {
	defer errs.Wrap(&err, "agree on a contract with %s", asked.Account)
	return once(ctx, c.Core, asked, render, func(tx Tx) (Agreement, error) {
		def := def // completed anew in every run
		acct, err := c.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return Agreement{}, err
		}
		sub, err := tx.Subscriptions().Lock(ctx, acct.ID)
		if err != nil {
			return Agreement{}, err
		}
		now := acct.Now(c.Clock())
		v, err := c.agreeable(ctx, tx, acct, sub, &def, now)
		if err != nil {
			return Agreement{}, err
		}
		out := subscription.Contract{ID: id.New[subscription.Contract](), Account: acct.ID, Definition: def, CreatedAt: now}
		if !out.InForce(sub.Period.Start) {
			return c.schedule(ctx, tx, acct, sub, asked, out, now)
		}
		if !sub.Contract.IsZero() {
			if err := tx.Subscriptions().EndContract(ctx, acct.ID, sub.Contract, now); err != nil {
				return Agreement{}, err
			}
		}
		if err := tx.Subscriptions().CreateContract(ctx, out); err != nil {
			return Agreement{}, err
		}
		terms := subscription.Terms{Plan: v.Plan, Version: v.Number, Contract: out.ID}
		if err := c.switchTo(ctx, tx, acct, &sub, terms, asked, "contract.agree", def.Reference, now); err != nil {
			return Agreement{}, err
		}
		err = Closer(c).prepay(ctx, tx, acct, subscription.Period{}, sub.Opened(), now)
		return agreement(out, sub, now), err
	})
}

// agreeable completes what def leaves out, and says why it cannot be agreed on.
func (c Contractor) agreeable(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription, def *plan.Contract, now time.Time) (plan.Version, error) {
	var v plan.Version
	var err error
	if def.Version == 0 {
		v, err = tx.Plans().Current(ctx, def.Plan)
	} else {
		v, err = tx.Plans().Version(ctx, def.Plan, def.Version)
	}
	if err != nil {
		return v, err
	}
	def.Version = v.Number
	if def.Start.IsZero() {
		def.Start = sub.Period.Start
	}
	if !def.End.IsZero() && !now.Before(def.End) {
		return v, ErrContractOver
	}
	applied, err := def.Apply(v)
	if err != nil {
		return v, err
	}
	if applied.Priced() && !sells(applied, acct.Currency) {
		return v, ErrCurrency.Details("The contract has no prices in %s.", acct.Currency)
	}
	if !def.Start.After(sub.Period.Start) {
		if err := sameInterval(sub, applied); err != nil {
			return v, err
		}
	}
	if def.Commitment != nil {
		for _, s := range def.Commitment.Steps {
			if _, ok := s.Sums.In(acct.Currency); !ok {
				return v, ErrCurrency.Details("The contract has no commitment in %s.", acct.Currency)
			}
		}
	}
	if def.Then == "" {
		def.Then, err = c.before(ctx, tx, acct.ID, sub)
		return v, err
	}
	_, err = tx.Plans().Current(ctx, def.Then)
	return v, err
}

// before returns the plan that the account goes back to after a contract that names none: the one that it
// is on now, or that its present contract leads to.
func (c Contractor) before(ctx context.Context, tx Tx, a account.ID, sub subscription.Subscription) (plan.Code, error) {
	if sub.Contract.IsZero() {
		return sub.Plan, nil
	}
	k, err := tx.Subscriptions().Contract(ctx, a, sub.Contract)
	return k.Definition.Then, err
}

// schedule keeps a contract that begins with a later period.
func (c Contractor) schedule(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription, asked Asked, k subscription.Contract, now time.Time) (Agreement, error) {
	if err := noneScheduled(ctx, tx, sub, acct.ID, now); err != nil {
		return Agreement{}, err
	}
	if err := tx.Subscriptions().CreateContract(ctx, k); err != nil {
		return Agreement{}, err
	}
	err := tx.Accounts().Audit(ctx, acct.ID, account.Entry{Actor: asked.Actor, Action: "contract.schedule", Reason: k.Definition.Reference, At: now})
	return agreement(k, sub, now), err
}

// noneScheduled returns ErrContractScheduled if a contract of the account waits for its start.
func noneScheduled(ctx context.Context, tx Tx, sub subscription.Subscription, a account.ID, now time.Time) error {
	all, err := tx.Subscriptions().Contracts(ctx, a)
	if err != nil {
		return err
	}
	for _, other := range all {
		if agreement(other, sub, now).Status == ContractScheduled {
			return ErrContractScheduled.With("contract", other.ID.String())
		}
	}
	return nil
}

// EndInput says which contract is to end, when and why.
type EndInput struct {
	Contract subscription.ContractID
	At       time.Time // zero: now
	Reason   string
}

// End ends a contract before its time. It still holds for the period that is running at that instant, and
// with it a commitment for a term is due; the account then goes to the plan that the contract leads to.
// One that has not begun never does.
func (c Contractor) End(ctx context.Context, asked Asked, in EndInput, render Renderer[Agreement]) (_ Result[Agreement], err error) {
	defer errs.Wrap(&err, "end contract of %s", asked.Account)
	return once(ctx, c.Core, asked, render, func(tx Tx) (Agreement, error) {
		acct, err := c.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return Agreement{}, err
		}
		sub, err := tx.Subscriptions().Lock(ctx, acct.ID)
		if err != nil {
			return Agreement{}, err
		}
		k, err := tx.Subscriptions().Contract(ctx, acct.ID, in.Contract)
		if err != nil {
			return Agreement{}, err
		}
		now := acct.Now(c.Clock())
		if k.Over(now) || !k.EndedAt.IsZero() {
			return Agreement{}, ErrContractOver
		}
		if k.EndedAt = in.At; in.At.IsZero() {
			k.EndedAt = now
		}
		if k.EndedAt.Before(now) {
			return Agreement{}, errs.InvalidField("#/at", "in_the_past", "must not be in the past")
		}
		if end := k.Definition.End; !end.IsZero() && !k.EndedAt.Before(end) {
			return Agreement{}, errs.InvalidField("#/at", "after_the_end", "must be before the contract's own end")
		}
		if err := tx.Subscriptions().EndContract(ctx, acct.ID, k.ID, k.EndedAt); err != nil {
			return Agreement{}, err
		}
		err = tx.Accounts().Audit(ctx, acct.ID, account.Entry{Actor: asked.Actor, Action: "contract.end", Reason: in.Reason, At: now})
		return agreement(k, sub, now), err
	})
}

// ContractStatus says where a contract stands.
type ContractStatus string

// The statuses of a contract.
const (
	ContractScheduled ContractStatus = "scheduled" // begins with a later period
	ContractActive    ContractStatus = "active"    // the running period is under it
	ContractEnded     ContractStatus = "ended"
)

// Agreement is a contract and where it stands.
type Agreement struct {
	subscription.Contract
	Status ContractStatus
	// TakesEffect is where the first period under a scheduled contract begins; zero for others.
	TakesEffect time.Time
}

func agreement(k subscription.Contract, sub subscription.Subscription, now time.Time) Agreement {
	out := Agreement{Contract: k, Status: ContractScheduled}
	switch {
	case !sub.ID.IsZero() && sub.Contract == k.ID:
		out.Status = ContractActive
	case sub.ID.IsZero() || k.Over(now):
		out.Status = ContractEnded
	default:
		out.TakesEffect = takesEffect(k, sub)
	}
	return out
}

// Contracts returns the account's contracts, in the order in which they begin.
func (r Reader) Contracts(ctx context.Context, a account.ID) (out []Agreement, err error) {
	defer errs.Wrap(&err, "contracts of %s", a)
	acct, err := r.DB.Accounts().Get(ctx, a)
	if err != nil {
		return nil, err
	}
	sub, err := r.DB.Subscriptions().Active(ctx, a)
	if err != nil && !errors.Is(err, subscription.ErrNotFound) {
		return nil, err
	}
	all, err := r.DB.Subscriptions().Contracts(ctx, a)
	for _, k := range all {
		out = append(out, agreement(k, sub, acct.Now(r.Clock())))
	}
	return out, err
}

// Contract returns one of the account's contracts, or subscription.ErrContractNotFound.
func (r Reader) Contract(ctx context.Context, a account.ID, kid subscription.ContractID) (Agreement, error) {
	all, err := r.Contracts(ctx, a)
	if err != nil {
		return Agreement{}, err
	}
	for _, k := range all {
		if k.ID == kid {
			return k, nil
		}
	}
	return Agreement{}, subscription.ErrContractNotFound
}

// Errors of contracts.
var (
	ErrContractOver      = errs.New(errs.Conflict, "contract_over", "The contract is over, or its end is decided already.")
	ErrContractScheduled = errs.New(errs.Conflict, "contract_scheduled", "Another contract of the account waits for its start. End that one first.")
	ErrUnderContract     = errs.New(errs.Conflict, "under_contract", "The account is under a contract. It can be changed when the contract is over.")
)

// switchTo puts other terms in the place of the agreement's own, for all of the running period, with its
// limits, its event and its audit entry.
func (c *Core) switchTo(ctx context.Context, tx Tx, acct account.Account, sub *subscription.Subscription, t subscription.Terms, asked Asked, action, reason string, now time.Time) error {
	if err := waive(ctx, tx, acct, sub); err != nil {
		return err
	}
	if err := sub.Replace(t, now); err != nil {
		return err
	}
	if err := tx.Subscriptions().Save(ctx, sub); err != nil {
		return err
	}
	if err := c.entitle(ctx, tx, acct, *sub); err != nil {
		return err
	}
	if err := publishChange(ctx, tx, acct, *sub, now); err != nil {
		return err
	}
	return tx.Accounts().Audit(ctx, acct.ID, account.Entry{Actor: asked.Actor, Action: action, Reason: reason, At: now})
}
