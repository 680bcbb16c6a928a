package billing

import (
	"context"
	"errors"
	"slices"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Overview is the whole Billing page in one read.
type Overview struct {
	Facts       Facts
	Actions     []Action
	Balance     Balance
	Entitlement entitlement.Entitlement
	Usage       []MeterUse
	Payments    []payment.Payment // the latest
	SpendLimit  SpendLimit
	Absorbed    money.Amount // used beyond the spend limit and not billed
}

// MeterUse is one meter's use to date with what it costs.
type MeterUse struct {
	Meter    plan.Meter
	Total    metering.Total
	Decision entitlement.Decision
	// Charged reports whether the plan has a price or an allowance for the meter, and Allowance is what
	// is free of it in a period.
	Charged   bool
	Allowance money.Decimal
	Currency  money.Currency
	Lines     []pricing.Line // of the bill so far; empty where the plan has no price for it
}

// latestPayments is how many payments the Billing page shows at first.
const latestPayments = 10

// Overview gathers the Billing page. It is read without a lock: each part is true when it is read.
func (r Reader) Overview(ctx context.Context, a account.ID) (o Overview, err error) {
	defer errs.Wrap(&err, "overview of %s", a)
	acct, err := r.DB.Accounts().Get(ctx, a)
	if err != nil {
		return o, err
	}
	if o.Facts, err = r.facts(ctx, r.DB, acct); err != nil {
		return o, err
	}
	o.Actions, o.Balance = o.Facts.Actions(), o.Facts.Balance
	if o.Entitlement, err = r.DB.Entitlements().Get(ctx, a); err != nil {
		return o, err
	}
	o.SpendLimit, o.Absorbed = spendLimit(o.Entitlement), zeroOf(acct)
	if !o.Facts.Subscription.ID.IsZero() {
		o.Absorbed = o.Facts.running.bill.Absorbed
		if o.Usage, err = r.usage(ctx, acct, o.Entitlement, o.Facts.running); err != nil {
			return o, err
		}
	}
	latest, err := r.DB.Payments().Payments(ctx, a, page.Request{Limit: latestPayments})
	o.Payments = latest.Data
	return o, err
}

func (r Reader) usage(ctx context.Context, acct account.Account, e entitlement.Entitlement, bill rated) ([]MeterUse, error) {
	spent, err := bill.spent()
	if err != nil {
		return nil, err
	}
	meters, err := r.DB.Plans().Meters(ctx)
	if err != nil {
		return nil, err
	}
	open, err := r.DB.Usage().Totals(ctx, acct.ID, metering.NoPeriod, false)
	if err != nil {
		return nil, err
	}
	byMeter := make(map[string]metering.Total, len(bill.totals)+len(open))
	for _, t := range slices.Concat(bill.totals, open) {
		byMeter[t.Meter] = t
	}
	v, charged, err := bill.charged()
	if err != nil {
		return nil, err
	}
	var out []MeterUse
	for _, m := range meters {
		u := MeterUse{Meter: m, Total: byMeter[string(m.Code)], Charged: charged[m.Code], Allowance: v.Included(m.Code), Currency: acct.Currency}
		u.Total.Meter = string(m.Code)
		u.Decision = e.CheckSpend(e.Check(string(m.Code), u.Total.Quantity, u.Total.Reserved), spent.Minor)
		for _, l := range bill.bill.Lines {
			if l.Meter == m.Code {
				u.Lines = append(u.Lines, l)
			}
		}
		out = append(out, u)
	}
	return out, nil
}

// charged returns the terms of the bill, and the meters that they have a price or an allowance for.
func (r rated) charged() (v plan.Version, meters map[plan.MeterCode]bool, err error) {
	v = r.input.Version
	if r.input.Contract != nil {
		if v, err = r.input.Contract.Apply(v); err != nil {
			return v, nil, err
		}
	}
	meters = map[plan.MeterCode]bool{}
	for i := range v.Charges {
		if m := v.Charges[i].Meter; m != "" {
			meters[m] = true
		}
	}
	return v, meters, nil
}

// Upcoming is the running period's invoice as it would be if the period ended now.
type Upcoming struct {
	Period   period.Bounds
	Currency money.Currency
	Bill     pricing.Bill
	Late     []Late       // usage of earlier periods that came after their invoices
	Absorbed money.Amount // by the spend limit, less what is taken back of what it absorbed on earlier invoices
	Total    money.Amount
}

// Late is what has come late for an earlier period.
type Late struct {
	Period period.Bounds
	Lines  []pricing.Line
}

// Upcoming previews the running period's invoice.
func (r Reader) Upcoming(ctx context.Context, a account.ID) (u Upcoming, err error) {
	defer errs.Wrap(&err, "upcoming invoice of %s", a)
	acct, err := r.DB.Accounts().Get(ctx, a)
	if err != nil {
		return u, err
	}
	sub, err := r.DB.Subscriptions().Active(ctx, a)
	if err != nil {
		return u, err
	}
	got, err := rate(ctx, r.DB, acct, sub.Opened())
	if err != nil {
		return u, err
	}
	u = Upcoming{Period: sub.Period, Currency: acct.Currency, Bill: got.bill, Absorbed: got.absorbed()}
	for _, adj := range got.adjusted {
		u.Late = append(u.Late, Late{adj.period.Bounds, adj.lines})
	}
	u.Total, err = got.total()
	return u, err
}

// MeterCost is what one meter's use of the running period comes to so far, tax not included.
type MeterCost struct {
	Included money.Decimal // taken by the allowance
	Billable money.Decimal
	Amount   money.Amount
}

// Costs prices the running period by meter. A meter that the account's terms have neither a price
// nor an allowance for is left out; one that is not used costs nothing. A closed account has no running period.
func (r Reader) Costs(ctx context.Context, a account.ID) (_ map[string]MeterCost, err error) {
	defer errs.Wrap(&err, "costs of %s", a)
	acct, err := r.DB.Accounts().Get(ctx, a)
	if err != nil {
		return nil, err
	}
	sub, err := r.DB.Subscriptions().Active(ctx, a)
	if errors.Is(err, subscription.ErrNotFound) {
		return map[string]MeterCost{}, nil
	}
	if err != nil {
		return nil, err
	}
	got, err := rate(ctx, r.DB, acct, sub.Opened())
	if err != nil {
		return nil, err
	}
	_, charged, err := got.charged()
	if err != nil {
		return nil, err
	}
	out := make(map[string]MeterCost, len(charged))
	for m := range charged {
		out[string(m)] = MeterCost{Amount: zeroOf(acct)}
	}
	for _, l := range got.bill.Lines {
		if l.Meter == "" {
			continue
		}
		c, ok := out[string(l.Meter)]
		if !ok { // under the terms before
			c.Amount = zeroOf(acct)
		}
		c.Included, c.Billable = c.Included.Add(l.Included), c.Billable.Add(l.Billable)
		if c.Amount, err = c.Amount.Add(l.Amount); err != nil {
			return nil, err
		}
		out[string(l.Meter)] = c
	}
	return out, nil
}
