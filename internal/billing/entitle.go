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
func (c *Core) entitle(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription) error {
	e, err := tx.Entitlements().Lock(ctx, acct.ID)
	if err != nil && !errors.Is(err, entitlement.ErrNotFound) {
		return err
	}
	periods, err := tx.Subscriptions().Periods(ctx, acct.ID, openPeriods)
	if err != nil {
		return err
	}
	e.Account, e.Level, e.Currency, e.UpdatedAt = acct.ID, string(sub.Plan), acct.Currency, c.Clock()
	e.Status, e.PeriodEnd, e.PeriodStarts, e.EarlierLimits = acct.Status, sub.Period.End, nil, nil
	e.MaxQuantities = nil
	if e.Limits, err = limitsOf(ctx, tx, acct, sub.Terms, sub.Period.Start, &e); err != nil {
		return err
	}
	for _, p := range takingEvents(periods, acct.Now(c.Clock())) {
		e.PeriodStarts = append(e.PeriodStarts, p.Bounds.Start)
		if p.Bounds.Start.Equal(sub.Period.Start) {
			continue
		}
		held := e.Limits
		if p.Terms != sub.Terms || !p.Contract.IsZero() {
			if held, err = limitsOf(ctx, tx, acct, p.Terms, p.Bounds.Start, &e); err != nil {
				return err
			}
		}
		e.EarlierLimits = append(e.EarlierLimits, held)
	}
	if !slices.ContainsFunc(e.EarlierLimits, func(l map[string]entitlement.Limit) bool { return !maps.Equal(l, e.Limits) }) {
		e.EarlierLimits = nil
	}
	if acct.Status == account.Suspended { // its limits say so
		e.Status = account.Active
	}
	return tx.Entitlements().Put(ctx, e)
}

// limitsOf resolves what may be used of a period that starts at start, under its terms, as the account stands now, and lowers
// the quantities that can be billed to what its prices allow.
func limitsOf(ctx context.Context, tx Tx, acct account.Account, t subscription.Terms, start time.Time, e *entitlement.Entitlement) (map[string]entitlement.Limit, error) {
	v, contract, err := terms(ctx, tx, acct.ID, t, start)
	if err != nil {
		return nil, err
	}
	if contract != nil {
		if v, err = contract.Apply(v); err != nil {
			return nil, err
		}
	}
	for m, most := range v.MaxQuantities(acct.Currency) {
		if most.Cmp(e.MaxQuantity(string(m))) < 0 {
			if e.MaxQuantities == nil {
				e.MaxQuantities = map[string]money.Decimal{}
			}
			e.MaxQuantities[string(m)] = most
		}
	}
	out := limits(v)
	paidUse, err := mayPay(ctx, tx, acct, t.Plan)
	if err != nil {
		return nil, err
	}
	if !paidUse {
		// Paid use stops, the allowance does not: the included quantities become hard limits.
		maps.Copy(out, allowances(v))
	}
	return out, nil
}

// mayPay reports whether the account may use what costs money: it is not suspended, and there is a card
// where the plan needs one.
func mayPay(ctx context.Context, tx Tx, acct account.Account, code plan.Code) (bool, error) {
	if acct.Status == account.Suspended {
		return false, nil
	}
	p, err := tx.Plans().Plan(ctx, code)
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

// takingEvents returns, ascending, the periods that still take events.
func takingEvents(latestFirst []subscription.Period, now time.Time) []subscription.Period {
	out := slices.DeleteFunc(slices.Clone(latestFirst), func(p subscription.Period) bool { return now.Sub(p.Bounds.End) > metering.MaxAge })
	slices.SortFunc(out, func(a, b subscription.Period) int { return a.Bounds.Start.Compare(b.Bounds.Start) })
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

// waivedUse returns what is waived of a period if the plan that is held ends now: what was before, and how far the use goes
// beyond each soft limit while the plan has no price for it. An upgrade in the same period must not make that billable.
func waivedUse(before map[string]money.Decimal, held plan.Version, used map[string]money.Decimal) map[string]money.Decimal {
	out := map[string]money.Decimal{}
	maps.Copy(out, before)
	if held.Priced() {
		return out
	}
	for _, l := range held.Limits {
		if l.Mode != plan.Soft {
			continue
		}
		over := used[string(l.Meter)].Sub(l.Quantity)
		if was, noted := out[string(l.Meter)]; !noted || over.Cmp(was) > 0 {
			out[string(l.Meter)] = over
		}
	}
	return out
}

// waive notes, before the terms of the running period change, how far the use went beyond soft limits while
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
	sub.Waived = waivedUse(sub.Waived, held, quantities(totals))
	return nil
}
