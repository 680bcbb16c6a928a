package billing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// rated is what a period comes to.
type rated struct {
	input    pricing.Input
	totals   []metering.Total
	bill     pricing.Bill
	adjusted []adjustment                // late usage of earlier periods that enters this one's invoice
	evidence map[behind]pricing.Evidence // of the events behind the lines; of an invoice that is being made final
}

// total is the bill with its adjustments, tax not included.
func (r rated) total() (money.Amount, error) { return r.late(r.bill.Total) }

// late adds what came late for earlier periods to a sum.
func (r rated) late(sum money.Amount) (_ money.Amount, err error) {
	for _, a := range r.adjusted {
		for _, l := range a.lines {
			if sum, err = sum.Add(l.Amount); err != nil {
				return sum, err
			}
		}
	}
	return sum, nil
}

// absorbed is what the spend limit keeps off the bill, less what is taken back of what it kept off earlier ones.
func (r rated) absorbed() money.Amount {
	sum := r.bill.Absorbed
	for _, a := range r.adjusted {
		sum.Minor += a.absorbed.Minor
	}
	return sum
}

// usageOf turns a period's totals into what pricing takes, less what was waived. Series are told apart
// only where the version prices them apart: what a meter counts (distinct values, a maximum) is not the
// sum of its series.
func usageOf(in pricing.Input, totals []metering.Total, waived map[string]money.Decimal, of func(metering.SeriesTotal) (money.Decimal, int64)) ([]pricing.Usage, error) {
	v := in.Version
	if in.Contract != nil {
		var err error
		if v, err = in.Contract.Apply(v); err != nil {
			return nil, err
		}
	}
	var out []pricing.Usage
	for _, t := range totals {
		series := t.Series
		if !byDimension(v, t.Meter) {
			whole := metering.SeriesTotal{Quantity: t.Quantity, Events: t.Events, BilledEvents: t.BilledEvents}
			if t.Billed != nil {
				whole.Billed = *t.Billed
			}
			series = []metering.SeriesTotal{whole}
		}
		for _, s := range series {
			u := pricing.Usage{Meter: plan.MeterCode(t.Meter), Dimensions: s.Dimensions}
			u.Quantity, u.Events = of(s)
			out = append(out, u)
		}
	}
	return lessWaived(out, waived), nil
}

// used and billed say which quantity of a series is meant.
func used(s metering.SeriesTotal) (money.Decimal, int64)   { return s.Quantity, s.Events }
func billed(s metering.SeriesTotal) (money.Decimal, int64) { return s.Billed, s.BilledEvents }

// byDimension reports whether the version prices a meter's series apart.
func byDimension(v plan.Version, meter string) bool {
	for i := range v.Charges {
		if string(v.Charges[i].Meter) == meter && len(v.Charges[i].Match) > 0 {
			return true
		}
	}
	return false
}

// lessWaived takes what is never billed off the meter's series, from the first on.
func lessWaived(usage []pricing.Usage, waived map[string]money.Decimal) []pricing.Usage {
	if len(waived) == 0 {
		return usage
	}
	left := make(map[string]money.Decimal, len(waived))
	maps.Copy(left, waived)
	for i := range usage {
		m := string(usage[i].Meter)
		take := left[m]
		if take.Sign() <= 0 {
			continue
		}
		if take.Cmp(usage[i].Quantity) > 0 {
			take = usage[i].Quantity
		}
		usage[i].Quantity = usage[i].Quantity.Sub(take)
		left[m] = left[m].Sub(take)
	}
	return usage
}

// input gathers what a period's bill depends on but the usage.
func input(ctx context.Context, tx Tx, acct account.Account, p subscription.Period, limit *money.Amount) (pricing.Input, error) {
	v, contract, err := terms(ctx, tx, acct.ID, p.Terms, p.Bounds.Start)
	if err != nil {
		return pricing.Input{}, err
	}
	in := pricing.Input{Version: v, Contract: contract, Currency: acct.Currency, Period: p.Bounds, Cap: limit}
	if contract == nil { // one that is in force at the period's beginning is, whenever it was entered, held from there on
		in.Held = p.Present()
		if in.Before, err = heldBefore(ctx, tx, acct.ID, p); err != nil {
			return pricing.Input{}, err
		}
	}
	in.Term, err = termOf(ctx, tx, acct, p, in, used)
	return in, err
}

// heldBefore returns the versions with a fee or a credit that a period was under before its present terms, as the
// contracts that went with them had them.
func heldBefore(ctx context.Context, tx Tx, a account.ID, p subscription.Period) (out []pricing.Holding, err error) {
	for _, h := range p.Held {
		v, contract, err := terms(ctx, tx, a, h.Terms, p.Bounds.Start)
		if err != nil {
			return nil, err
		}
		if contract != nil {
			if v, err = contract.Apply(v); err != nil {
				return nil, err
			}
		}
		if v.Fee != nil || len(v.Credit) > 0 {
			out = append(out, pricing.Holding{Version: v, Held: h.Time})
		}
	}
	return out, nil
}

// maxTerm bounds the periods of one term: ten years of months.
const maxTerm = 120

// termOf returns where a period stands in the term of its contract's commitment, and nil where there is
// none. What was spent before is priced again from the usage of the periods before, so that what came late
// counts; it is looked up where the bill depends on it: in the last period of the term, where the true-up is
// due, and in every period of a prepaid one.
func termOf(ctx context.Context, tx Tx, acct account.Account, p subscription.Period, in pricing.Input, of func(metering.SeriesTotal) (money.Decimal, int64)) (*pricing.Term, error) {
	if in.Contract == nil || in.Contract.Commitment == nil || !in.Contract.Commitment.Term && !in.Contract.Commitment.Prepaid {
		return nil, nil //nolint:nilnil // no term
	}
	held, err := tx.Subscriptions().Contract(ctx, acct.ID, p.Contract)
	if err != nil {
		return nil, err
	}
	step, ok := in.Contract.Commitment.In(p.Bounds.Start)
	if !ok {
		return nil, nil //nolint:nilnil // no term yet
	}
	next, _ := in.Contract.Commitment.In(p.Bounds.End)
	goesOn := held.InForce(p.Bounds.End) && next.From.Equal(step.From) && (p.ClosedAt.IsZero() || !p.ClosedAt.Before(p.Bounds.End))
	out := &pricing.Term{Spent: zeroOf(acct), Last: !goesOn}
	if goesOn && !in.Contract.Commitment.Prepaid {
		return out, nil
	}
	periods, err := tx.Subscriptions().Periods(ctx, acct.ID, maxTerm)
	if err != nil {
		return nil, err
	}
	for _, q := range periods {
		if q.Contract != p.Contract || q.Bounds.Start.Before(step.From) || !q.Bounds.Start.Before(p.Bounds.Start) {
			continue
		}
		totals, err := tx.Usage().Totals(ctx, acct.ID, q.Bounds.Start, true)
		if err != nil {
			return nil, err
		}
		in.Period, in.Held, in.Before = q.Bounds, period.Bounds{}, nil
		if in.Usage, err = usageOf(in, totals, q.Waived, of); err != nil {
			return nil, err
		}
		spent, err := pricing.Spent(in)
		if err != nil {
			return nil, fmt.Errorf("spent in %s: %w", q.Bounds.Start.Format(time.DateOnly), err)
		}
		if out.Spent, err = out.Spent.Add(spent); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// rate prices a period as its usage stands, with what came late for earlier periods.
func rate(ctx context.Context, tx Tx, acct account.Account, p subscription.Period) (rated, error) {
	var out rated
	limit, err := spendLimitOf(ctx, tx, acct)
	if err != nil {
		return out, err
	}
	if out.adjusted, err = adjustments(ctx, tx, acct, p, limit); err != nil {
		return out, err
	}
	most, err := out.leaves(limit)
	if err != nil {
		return out, err
	}
	in, err := input(ctx, tx, acct, p, most)
	if err != nil {
		return out, err
	}
	totals, err := tx.Usage().Totals(ctx, acct.ID, p.Bounds.Start, true)
	if err != nil {
		return out, err
	}
	if in.Usage, err = usageOf(in, totals, p.Waived, used); err != nil {
		return out, err
	}
	if out.bill, err = pricing.Rate(in); err != nil {
		return out, fmt.Errorf("rate %s: %w", p.Bounds.Start.Format(time.DateOnly), err)
	}
	out.input, out.totals = in, totals
	return out, nil
}

// withReserved is the input with the units that are held by open reservations counted as used, and whether any are.
func (r rated) withReserved() (in pricing.Input, held bool) {
	in = r.input
	in.Usage = append([]pricing.Usage(nil), in.Usage...)
	for _, t := range r.totals {
		if t.Reserved.Sign() > 0 {
			held = true
			in.Usage = append(in.Usage, pricing.Usage{Meter: plan.MeterCode(t.Meter), Quantity: t.Reserved})
		}
	}
	return in, held
}

// reserved is what the units that are held by open reservations would add to the bill.
func (r rated) reserved() (money.Amount, error) {
	in, held := r.withReserved()
	if !held {
		return money.Zero(r.bill.Total.Currency), nil
	}
	with, err := accrued(in, r.bill.Total.Currency)
	if err != nil {
		return with, err
	}
	return with.Sub(r.bill.Total)
}

// accrued prices what is not billed yet: units that are held, and use that asks to be admitted. What is beyond the range
// of amounts comes to the largest, which is past every limit. As an error it would keep the use of all other accounts
// that is stored together with it from being stored.
func accrued(in pricing.Input, c money.Currency) (money.Amount, error) {
	priced, err := pricing.Accrued(in)
	if errors.Is(err, pricing.ErrRange) || errors.Is(err, pricing.ErrQuantity) {
		return money.New(money.MaxMinor, c), nil
	}
	return priced, err
}

// spent is what a spend limit is compared with: all that is used or reserved, as if there were none.
func (r rated) spent() (money.Amount, error) {
	in, _ := r.withReserved()
	in.Cap = nil
	return accrued(in, r.bill.Total.Currency)
}

// spendLimitOf is the account's spend limit, nil where it has none that holds its bills down.
func spendLimitOf(ctx context.Context, tx Tx, acct account.Account) (*money.Amount, error) {
	e, err := tx.Entitlements().Get(ctx, acct.ID)
	if err != nil || !e.HasHardSpendLimit() {
		return nil, err
	}
	return new(money.New(*e.SpendLimit, acct.Currency)), nil
}

// leaves is what the spend limit leaves to the period's own usage. Late usage of several earlier periods, each within
// the limit, can come to more than it on one invoice: then less than nothing is left, and what is absorbed brings the
// invoice down to the limit. What is credited of earlier periods leaves no more than the limit.
func (r rated) leaves(limit *money.Amount) (*money.Amount, error) {
	if limit == nil {
		return nil, nil //nolint:nilnil // no cap
	}
	late, err := r.late(money.Zero(limit.Currency))
	if err != nil || late.Sign() <= 0 {
		return limit, err
	}
	left, err := limit.Sub(late)
	return &left, err
}

// Pricer prices an account's use inside the transaction that admits it. It implements entitlement.Pricer.
type Pricer struct{ *Core }

var _ entitlement.Pricer = Pricer{}

// Accrued returns what the given use of a period comes to, by itself: what came late for other periods is held to
// the limit as theirs. What is reserved counts as used, at the general price of its meter.
func (p Pricer) Accrued(ctx context.Context, e entitlement.Entitlement, periodStart time.Time, use []entitlement.Use) (_ money.Amount, err error) {
	defer errs.Wrap(&err, "accrued of %s", e.Account)
	acct := account.Account{ID: e.Account, Currency: e.Currency}
	sub, err := p.DB.Subscriptions().Active(ctx, e.Account)
	if err != nil {
		return zeroOf(acct), err
	}
	open := sub.Opened()
	switch {
	case periodStart.Equal(open.Bounds.Start):
	case !periodStart.Before(open.Bounds.End): // it has begun by the clock, and the closing has not come to it yet
		open.Bounds, open.Index, open.Waived, open.Held = sub.Schedule.Next(open.Bounds.End), sub.Index+1, nil, nil
	default:
		if open, err = p.DB.Subscriptions().Period(ctx, e.Account, periodStart); err != nil {
			return zeroOf(acct), err
		}
	}
	in, err := input(ctx, p.DB, acct, open, nil)
	if err != nil {
		return zeroOf(acct), err
	}
	for _, u := range use {
		in.Usage = append(in.Usage, pricing.Usage{
			Meter: plan.MeterCode(u.Meter), Dimensions: u.Dimensions, Quantity: u.Used.Add(u.Reserved), Events: u.Events,
		})
	}
	in.Usage = lessWaived(in.Usage, open.Waived)
	return accrued(in, acct.Currency)
}
