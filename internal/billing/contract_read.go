package billing

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Read reads a contract's document for an account: what it overrides is the version that it names, or the
// one on sale. Every fault is named by its place.
func (c Contractor) Read(ctx context.Context, a account.ID, text []byte) (plan.Contract, error) {
	code, number, err := plan.ContractTarget(text)
	if err != nil {
		return plan.Contract{}, err
	}
	acct, err := c.DB.Accounts().Get(ctx, a)
	if err != nil {
		return plan.Contract{}, err
	}
	var v plan.Version
	if number == 0 {
		v, err = c.DB.Plans().Current(ctx, code)
	} else {
		v, err = c.DB.Plans().Version(ctx, code, number)
	}
	if errs.KindOf(err) == errs.NotFound {
		return plan.Contract{}, errs.InvalidField("#/plan", "unknown_plan", "There is no such version of a plan.")
	}
	if err != nil {
		return plan.Contract{}, err
	}
	if len(v.Currencies) == 0 { // a plan without prices: the contract's are the account's
		v.Currencies = []money.Currency{acct.Currency}
	}
	meters, err := c.DB.Plans().Meters(ctx)
	if err != nil {
		return plan.Contract{}, err
	}
	def, err := plan.ParseContract(text, meters, v)
	if err != nil || def.Then == "" {
		return def, err
	}
	if _, err = c.DB.Plans().Current(ctx, def.Then); errs.KindOf(err) == errs.NotFound {
		err = errs.InvalidField("#/then", "unknown_plan", "There is no such plan on sale.")
	}
	return def, err
}

// ContractPreview is what a contract would change.
type ContractPreview struct {
	Agreement     Agreement // as it would be; it is not kept
	Months        []period.Bounds
	Before, After pricing.Fitting // the account's last months on its present terms and under the contract
}

// Preview says what Agree would do, and does nothing.
func (c Contractor) Preview(ctx context.Context, a account.ID, def plan.Contract) (out ContractPreview, err error) {
	defer errs.Wrap(&err, "preview contract of %s", a)
	// A transaction, since the agreement is read under its lock; it writes nothing.
	err = c.DB.InTx(ctx, func(tx Tx) error {
		out = ContractPreview{}
		def := def // completed anew in every run
		acct, err := c.lockUsable(ctx, tx, a)
		if err != nil {
			return err
		}
		sub, err := tx.Subscriptions().Lock(ctx, acct.ID)
		if err != nil {
			return err
		}
		now := acct.Now(c.Clock())
		v, err := c.agreeable(ctx, tx, acct, sub, &def, now)
		if err != nil {
			return err
		}
		k := subscription.Contract{ID: id.New[subscription.Contract](), Account: acct.ID, Definition: def, CreatedAt: now}
		if k.InForce(sub.Period.Start) {
			out.Agreement = Agreement{Contract: k, Status: ContractActive}
		} else if err := noneScheduled(ctx, tx, sub, acct.ID, now); err != nil {
			return err
		} else {
			out.Agreement = agreement(k, sub, now)
		}
		return c.compare(ctx, tx, acct, sub, v, def, &out)
	})
	return out, err
}

// compare prices the last months on the terms that are held and under the contract.
func (c Contractor) compare(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription, v plan.Version, def plan.Contract, out *ContractPreview) error {
	held, contract, err := terms(ctx, tx, acct.ID, sub.Terms, sub.Period.Start)
	if err != nil {
		return err
	}
	applied, err := def.Apply(v)
	if err != nil {
		return err
	}
	months, err := lastMonths(ctx, tx, acct.ID, []plan.Version{held, applied})
	if err != nil {
		return err
	}
	for _, m := range months {
		out.Months = append(out.Months, m.Period)
	}
	if out.Before, err = pricing.Agreed(months, &held, contract, acct.Currency); err != nil {
		return err
	}
	out.After, err = pricing.Agreed(months, &v, &def, acct.Currency)
	return err
}

// maxAhead bounds the periods in which the beginning of a contract is looked for: a century of months.
const maxAhead = 1200

// takesEffect returns the start of the first period that a contract, which has not begun, will hold for.
// It goes by the account's present time zone, and is zero where no period is left between its dates.
func takesEffect(k subscription.Contract, sub subscription.Subscription) time.Time {
	next := sub.Period
	for range maxAhead {
		next = sub.Schedule.Next(next.End)
		if k.InForce(next.Start) {
			return next.Start
		}
		if k.Over(next.Start) {
			break
		}
	}
	return time.Time{}
}
