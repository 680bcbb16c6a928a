package billing

import (
	"context"
	"slices"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
)

// Fit is an account's own usage under every plan that it could have by itself.
type Fit struct {
	Held    plan.Code       // the plan that the account is on, priced on the account's own terms
	Plans   []plan.Plan     // as in Comparison.Plans
	Periods []period.Bounds // the months compared, the oldest first
	pricing.Comparison
}

// fitPeriods is how many periods a comparison looks at.
const fitPeriods = 3

// PlanFit prices the account's last periods under every plan. Periods that are over are compared, up to
// three; an account that has none is compared by its running one.
func (r Reader) PlanFit(ctx context.Context, a account.ID) (f Fit, err error) {
	defer errs.Wrap(&err, "plan fit of %s", a)
	acct, err := r.DB.Accounts().Get(ctx, a)
	if err != nil {
		return f, err
	}
	sub, err := r.DB.Subscriptions().Active(ctx, a)
	if err != nil {
		return f, err
	}
	return planFit(ctx, r.DB, acct, sub)
}

func planFit(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription) (f Fit, err error) {
	versions, err := fitVersions(ctx, tx, acct, sub, &f)
	if err != nil {
		return f, err
	}
	months, err := lastMonths(ctx, tx, acct.ID, versions)
	if err != nil {
		return f, err
	}
	for _, m := range months {
		f.Periods = append(f.Periods, m.Period)
	}
	f.Comparison, err = pricing.Fit(months, versions, acct.Currency)
	return f, err
}

// lastMonths returns the account's last periods that are over, up to three and the oldest first, with
// usage that each of the versions can price; where there is none, the running period.
func lastMonths(ctx context.Context, tx Tx, a account.ID, versions []plan.Version) ([]pricing.Month, error) {
	periods, err := tx.Subscriptions().Periods(ctx, a, fitPeriods+1)
	if err != nil {
		return nil, err
	}
	if len(periods) > 1 {
		periods = periods[1:] // the running period says nothing of a month yet
	}
	months := make([]pricing.Month, 0, len(periods))
	for _, p := range slices.Backward(periods) {
		totals, err := tx.Usage().Totals(ctx, a, p.Bounds.Start, true)
		if err != nil {
			return nil, err
		}
		months = append(months, pricing.Month{Period: p.Bounds, Usage: usageUnder(versions, totals)})
	}
	return months, nil
}

// fitVersions returns the terms to compare, and notes in f whose they are: the account's own terms for
// the plan that it is on, and what is on sale for every other plan that needs no salesperson.
func fitVersions(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription, f *Fit) ([]plan.Version, error) {
	plans, err := tx.Plans().Plans(ctx)
	if err != nil {
		return nil, err
	}
	f.Held = sub.Plan
	var out []plan.Version
	for _, p := range plans {
		var v plan.Version
		switch {
		case p.Code == sub.Plan:
			var contract *plan.Contract
			if v, contract, err = terms(ctx, tx, acct.ID, sub.Terms, sub.Period.Start); err == nil && contract != nil {
				v, err = contract.Apply(v)
			}
		case p.ContactSales || p.Archived:
			continue
		default:
			v, err = tx.Plans().Current(ctx, p.Code)
		}
		if errs.KindOf(err) == errs.NotFound || (err == nil && !sells(v, acct.Currency)) {
			continue
		}
		if err != nil {
			return nil, err
		}
		f.Plans = append(f.Plans, p)
		out = append(out, v)
	}
	return out, nil
}

// usageUnder turns totals into usage that each of the versions can price: apart where one of them
// prices series apart.
func usageUnder(versions []plan.Version, totals []metering.Total) []pricing.Usage {
	var out []pricing.Usage
	for _, t := range totals {
		apart := false
		for _, v := range versions {
			apart = apart || byDimension(v, t.Meter)
		}
		if !apart {
			out = append(out, pricing.Usage{Meter: plan.MeterCode(t.Meter), Quantity: t.Quantity, Events: t.Events})
			continue
		}
		for _, s := range t.Series {
			out = append(out, pricing.Usage{Meter: plan.MeterCode(t.Meter), Dimensions: s.Dimensions, Quantity: s.Quantity, Events: s.Events})
		}
	}
	return out
}
