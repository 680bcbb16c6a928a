package billing

import (
	"context"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
)

// Downgrader moves accounts to a lower plan at the end of their period.
type Downgrader struct{ *Core }

// Plan plans the change for the end of the running period. Until then nothing changes, and it can be taken back.
func (d Downgrader) Plan(ctx context.Context, asked Asked, code plan.Code, render Renderer[subscription.Subscription]) (_ Result[subscription.Subscription], err error) {
	defer errs.Wrap(&err, "downgrade %s to %s", asked.Account, code)
	return once(ctx, d.Core, asked, render, func(tx Tx) (subscription.Subscription, error) {
		acct, err := d.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return subscription.Subscription{}, err
		}
		f, err := d.facts(ctx, tx, acct)
		if err != nil {
			return subscription.Subscription{}, err
		}
		if err := f.Guard(ActDowngrade); err != nil {
			return f.Subscription, err
		}
		p, err := tx.Plans().Plan(ctx, code)
		if err != nil {
			return f.Subscription, err
		}
		if p.Position >= f.Plan.Position {
			return f.Subscription, ErrNotADowngrade.Details("The plan %s is not below the account's, which is %s.", code, f.Plan.Code)
		}
		if _, err := sold(ctx, tx, acct, p); err != nil {
			return f.Subscription, err
		}
		sub, err := tx.Subscriptions().Lock(ctx, acct.ID)
		if err != nil {
			return sub, err
		}
		sub.NextPlan, sub.UpdatedAt = code, acct.Now(d.Clock())
		if err := tx.Subscriptions().Save(ctx, &sub); err != nil {
			return sub, err
		}
		return sub, publishChange(ctx, tx, acct, sub, sub.UpdatedAt)
	})
}

// Cancel takes a planned change back. Without one it does nothing.
func (d Downgrader) Cancel(ctx context.Context, asked Asked) (sub subscription.Subscription, err error) {
	defer errs.Wrap(&err, "cancel downgrade of %s", asked.Account)
	err = d.DB.InTx(ctx, func(tx Tx) error {
		acct, err := d.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return err
		}
		if sub, err = tx.Subscriptions().Lock(ctx, acct.ID); err != nil || sub.NextPlan == "" {
			return err
		}
		sub.NextPlan, sub.UpdatedAt = "", acct.Now(d.Clock())
		if err := tx.Subscriptions().Save(ctx, &sub); err != nil {
			return err
		}
		return publishChange(ctx, tx, acct, sub, sub.UpdatedAt)
	})
	return sub, err
}
