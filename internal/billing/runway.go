package billing

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/runway"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Runway is how long an account's funds will last.
type Runway struct {
	Balance   Balance
	At        time.Time
	Days      int               // how many days the estimate stands on
	Estimates []runway.Estimate // none: there are too few days yet
}

// Runway estimates how long what is available will last, from what the usage of the last weeks costs
// under the account's present terms. A day is 24 hours that end now, to the quarter of an hour.
func (r Reader) Runway(ctx context.Context, a account.ID) (out Runway, err error) {
	defer errs.Wrap(&err, "runway of %s", a)
	acct, err := r.DB.Accounts().Get(ctx, a)
	if err != nil {
		return out, err
	}
	out.At = acct.Now(r.Clock())
	if out.Balance, err = balance(ctx, r.DB, acct); err != nil {
		return out, err
	}
	sub, err := r.DB.Subscriptions().Active(ctx, a)
	if err != nil {
		return out, err
	}
	end := out.At.Truncate(metering.BucketWidth)
	out.Days = min(runway.MaxDays, int(end.Sub(acct.CreatedAt)/runway.Day))
	if out.Days < runway.MinDays {
		return out, nil
	}
	daily, err := r.dailySpend(ctx, acct, sub, end, out.Days)
	if err != nil {
		return out, err
	}
	out.Estimates, _ = runway.Of(out.At, out.Balance.Available.Minor, daily)
	return out, nil
}

// dailySpend is what each of the days before end has cost, the latest first: the difference between
// what a period had come to at the day's end and at its start, tiers and allowances counted.
func (r Reader) dailySpend(ctx context.Context, acct account.Account, sub subscription.Subscription, end time.Time, days int) ([]int64, error) {
	daily := make([]int64, days)
	periods, err := r.DB.Subscriptions().Periods(ctx, acct.ID, openPeriods)
	if err != nil {
		return nil, err
	}
	begin := end.Add(-time.Duration(days) * runway.Day)
	for _, p := range periods {
		if !p.Bounds.End.After(begin) {
			break
		}
		if !p.Bounds.Start.Before(end) {
			continue
		}
		if err := r.periodSpend(ctx, acct, sub, p, end, daily); err != nil {
			return nil, err
		}
	}
	return daily, nil
}

// periodSpend adds one period's part to the days.
func (r Reader) periodSpend(ctx context.Context, acct account.Account, sub subscription.Subscription, p subscription.Period, end time.Time, daily []int64) error {
	to := p.Bounds.End
	if end.Before(to) {
		to = end
	}
	steps := []time.Time{p.Bounds.Start}
	for i := len(daily); i > 0; i-- {
		if edge := end.Add(-time.Duration(i) * runway.Day); edge.After(p.Bounds.Start) && edge.Before(to) {
			steps = append(steps, edge)
		}
	}
	meters, err := r.DB.Plans().Meters(ctx)
	if err != nil {
		return err
	}
	q := metering.Query{Bounds: period.Bounds{Start: p.Bounds.Start, End: to}, Steps: steps}
	for _, m := range meters {
		q.Meters = append(q.Meters, string(m.Code))
	}
	found, err := r.DB.Usage().Slices(ctx, acct.ID, q, nil)
	if err != nil {
		return err
	}
	p.Terms = sub.Terms // what the coming days will be billed under
	in, err := input(ctx, r.DB, acct, p, nil)
	if err != nil {
		return err
	}
	come, err := pricing.Accrued(in) // a fee is no use
	if err != nil {
		return err
	}
	use := map[plan.MeterCode]money.Decimal{}
	for i, start := range steps {
		for _, s := range found {
			if s.Step == i {
				grow(use, meters, s)
			}
		}
		in.Usage = in.Usage[:0]
		for _, m := range meters {
			if q, ok := use[m.Code]; ok {
				in.Usage = append(in.Usage, pricing.Usage{Meter: m.Code, Quantity: q})
			}
		}
		now, err := pricing.Accrued(in)
		if err != nil {
			return err
		}
		if day := int((end.Sub(start) - 1) / runway.Day); day < len(daily) { // what the period saw before the first day is no day's
			daily[day] += now.Minor - come.Minor
		}
		come = now
	}
	return nil
}

// grow adds a slice to the quantities so far, as its meter counts. Distinct values do not add up over
// time and are left out.
func grow(use map[plan.MeterCode]money.Decimal, meters []plan.Meter, s metering.Slice) {
	for _, m := range meters {
		if string(m.Code) != s.Meter {
			continue
		}
		switch m.Aggregation {
		case plan.Sum, plan.Count:
			use[m.Code] = use[m.Code].Add(s.Sum)
		case plan.Max:
			if s.Max.Cmp(use[m.Code]) > 0 {
				use[m.Code] = s.Max
			}
		case plan.Last:
			use[m.Code] = s.Last
		case plan.Unique:
		}
	}
}
