package billing

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// UpgradePreview is what an upgrade would change.
type UpgradePreview struct {
	Version       plan.Version
	RequiresCard  bool
	Method        *payment.Method // the default card, or nil
	Blockers      []Blocker       // why it is not possible now
	At            time.Time       // when it would take effect
	Period        period.Bounds   // goes on
	DueNow        money.Amount
	Before, After money.Amount // what the period's usage comes to, tax not included
	Fit           Fit          // the account's last months under every plan
}

// Preview says what an upgrade to the plan would change, without changing it. A plan that no upgrade
// can lead to is the error that Upgrade gives.
func (u Upgrader) Preview(ctx context.Context, a account.ID, code plan.Code) (out UpgradePreview, err error) {
	defer errs.Wrap(&err, "preview upgrade of %s to %s", a, code)
	// A transaction, since the target is read under the subscription's lock; it writes nothing.
	err = u.DB.InTx(ctx, func(tx Tx) error {
		acct, err := tx.Accounts().Get(ctx, a)
		if err != nil {
			return err
		}
		if acct.Status == account.Closed {
			return account.ErrClosed
		}
		out = UpgradePreview{At: acct.Now(u.Clock()), DueNow: zeroOf(acct)}
		if out.Version, err = u.target(ctx, tx, acct, code); err != nil {
			return err
		}
		f, err := u.facts(ctx, tx, acct)
		if err != nil {
			return err
		}
		out.Blockers, out.Method, out.Period = f.Blockers(ActUpgrade), f.DefaultMethod(), f.Subscription.Period
		p, err := tx.Plans().Plan(ctx, code)
		if err != nil {
			return err
		}
		out.RequiresCard = p.RequiresCard
		if out.Fit, err = planFit(ctx, tx, acct, f.Subscription); err != nil {
			return err
		}
		return u.compare(ctx, tx, acct, f.Subscription, &out)
	})
	return out, err
}

// compare prices the period's usage under the terms that are held and under those of the upgrade.
func (u Upgrader) compare(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription, out *UpgradePreview) error {
	now, err := rate(ctx, tx, acct, sub.Opened())
	if err != nil {
		return err
	}
	out.Before = now.bill.Total
	held, err := tx.Plans().Version(ctx, sub.Plan, sub.Terms.Version)
	if err != nil {
		return err
	}
	if err := sub.ChangePlan(subscription.TermsOf(out.Version), out.At); err != nil { // of this copy
		return err
	}
	opened := sub.Opened()
	in := pricing.Input{Version: out.Version, Currency: acct.Currency, Period: sub.Period, Held: opened.Present(), Cap: now.input.Cap}
	if in.Before, err = heldBefore(ctx, tx, acct.ID, opened); err != nil {
		return err
	}
	// What the plan that is held bills nothing for stays free.
	if in.Usage, err = usageOf(in, now.totals, waivedUse(sub.Waived, held, quantities(now.totals)), used); err != nil {
		return err
	}
	after, err := pricing.Rate(in)
	out.After = after.Total
	return err
}
