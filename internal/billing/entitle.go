package billing

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// terms returns the plan version that a period is billed under, with its contract's overrides on it,
// and the contract itself.
func terms(ctx context.Context, tx Tx, a account.ID, t subscription.Terms, at time.Time) (plan.Version, *plan.Contract, error) {
	v, err := tx.Plans().Version(ctx, t.Plan, t.Version)
	if err != nil || t.Contract.IsZero() {
		return v, nil, err
	}
	c, err := tx.Subscriptions().Contract(ctx, a, t.Contract)
	if err != nil {
		return plan.Version{}, nil, err
	}
	if !c.Definition.InForce(at) {
		return v, nil, nil
	}
	return v, &c.Definition, nil
}

// entitle writes what the account may use now as plain numbers. It is called whenever the account's
// status, plan, contract or period changes, in the same transaction. The spend limit stays as it is.
func entitle(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription, now time.Time) error {
	v, contract, err := terms(ctx, tx, acct.ID, sub.Terms, sub.Period.Start)
	if err != nil {
		return err
	}
	applied := v
	if contract != nil {
		if applied, err = contract.Apply(v); err != nil {
			return err
		}
	}
	e, err := tx.Entitlements().Lock(ctx, acct.ID)
	if err != nil && !errors.Is(err, entitlement.ErrNotFound) {
		return err
	}
	periods, err := tx.Subscriptions().Periods(ctx, acct.ID, openPeriods)
	if err != nil {
		return err
	}
	e.Account, e.Level, e.Currency, e.UpdatedAt = acct.ID, string(sub.Plan), acct.Currency, now
	e.PeriodStarts, e.PeriodEnd = starts(periods, acct.Now(now)), sub.Period.End
	e.Status, e.Limits = acct.Status, limits(applied)
	paidUse, err := mayPay(ctx, tx, acct, sub)
	if err != nil {
		return err
	}
	if !paidUse {
		// Paid use stops, the allowance does not: the included quantities become hard limits.
		maps.Copy(e.Limits, allowances(applied))
	}
	if acct.Status == account.Suspended {
		e.Status = account.Active
	}
	return tx.Entitlements().Put(ctx, e)
}

// mayPay reports whether the account may use what costs money: it is not suspended, and there is a card
// where its plan needs one.
func mayPay(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription) (bool, error) {
	if acct.Status == account.Suspended {
		return false, nil
	}
	p, err := tx.Plans().Plan(ctx, sub.Plan)
	if err != nil || !p.RequiresCard {
		return true, err
	}
	_, err = tx.Payments().DefaultMethod(ctx, acct.ID)
	if noMethod(err) {
		return false, nil
	}
	return true, err
}

// openPeriods bounds how many periods back an event can lie: the oldest that is taken is 35 days old.
const openPeriods = 4

// starts returns, ascending, the starts of the periods that still take events.
func starts(latestFirst []subscription.Period, now time.Time) []time.Time {
	var out []time.Time
	for _, p := range latestFirst {
		if now.Sub(p.Bounds.End) <= metering.MaxAge {
			out = append(out, p.Bounds.Start)
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}

func limits(v plan.Version) map[string]entitlement.Limit {
	out := make(map[string]entitlement.Limit, len(v.Limits))
	for _, l := range v.Limits {
		out[string(l.Meter)] = entitlement.Limit{Quantity: l.Quantity, Mode: entitlement.Mode(l.Mode)}
	}
	return out
}

// allowances are the included quantities of every priced meter, as hard limits.
func allowances(v plan.Version) map[string]entitlement.Limit {
	out := map[string]entitlement.Limit{}
	for i := range v.Charges {
		m := v.Charges[i].Meter
		if m == "" || len(v.Charges[i].Prices) == 0 {
			continue
		}
		included := v.Included(m)
		if l, ok := v.Limit(m); ok && l.Mode == plan.Hard && l.Quantity.Cmp(included) < 0 {
			included = l.Quantity
		}
		out[string(m)] = entitlement.Limit{Quantity: included, Mode: entitlement.Hard}
	}
	return out
}

// waivedUse returns what an account used beyond a soft limit while its plan had no price for it: an
// upgrade in the same period must not make it billable.
func waivedUse(v plan.Version, used map[string]money.Decimal) map[string]money.Decimal {
	out := map[string]money.Decimal{}
	if v.Priced() {
		return out
	}
	for _, l := range v.Limits {
		if over := used[string(l.Meter)].Sub(l.Quantity); l.Mode == plan.Soft && over.Sign() > 0 {
			out[string(l.Meter)] = over
		}
	}
	return out
}

// waive notes, before the terms of the running period change, what was used beyond a soft limit while
// nothing was billed for it. It holds the entitlement, since nothing may be counted between what is
// waived and the new limits.
func waive(ctx context.Context, tx Tx, acct account.Account, sub *subscription.Subscription) error {
	held, contract, err := terms(ctx, tx, acct.ID, sub.Terms, sub.Period.Start)
	if err != nil {
		return err
	}
	if contract != nil {
		if held, err = contract.Apply(held); err != nil {
			return err
		}
	}
	if _, err := tx.Entitlements().Lock(ctx, acct.ID); err != nil {
		return err
	}
	totals, err := tx.Usage().Totals(ctx, acct.ID, sub.Period.Start, false)
	if err != nil {
		return err
	}
	if sub.Waived == nil {
		sub.Waived = map[string]money.Decimal{}
	}
	for meter, over := range waivedUse(held, quantities(totals)) {
		if over.Cmp(sub.Waived[meter]) > 0 {
			sub.Waived[meter] = over
		}
	}
	return nil
}
