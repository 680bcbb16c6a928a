package pricing

import (
	"fmt"
	"slices"

	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// usageLine prices what one charge gathered.
func (r *rater) usageLine(c *plan.Charge, price *plan.Price, t *tally) error {
	rounded, err := roundUp(t.quantity, c.Step)
	if err != nil {
		return err
	}
	included := rounded
	if c.Included.Cmp(included) < 0 {
		included = c.Included
	}
	line := r.line(KindUsage, c.Code, c.Meter, c.Name)
	line.Quantity, line.Included, line.Billable = t.quantity, included, rounded.Sub(included)
	line.Amount = money.Zero(r.in.Currency)
	var exact money.Fraction
	first := len(r.parts)
	if price != nil {
		if line.Amount, exact, err = r.price(price, c.Per.Divisor(), &rounded, &line.Included, &line.Billable); err != nil {
			return err
		}
	}
	t.amount = line.Amount
	if r.explain {
		d := &line.Derivation
		d.Unit, d.Per, d.Step, d.Quantity, d.Rounded = c.Unit, c.Per, c.Step, t.quantity, rounded
		d.Included, d.Billable, d.Evidence.Events = included, line.Billable, t.events
		if price != nil {
			d.Model, d.Package = price.Model, price.Package
			d.Parts = r.parts[first:len(r.parts):len(r.parts)]
		}
		d.Exact = exact
		if d.Remainder, err = exact.AddAmount(line.Amount.Neg()); err != nil {
			return err
		}
	}
	return r.add(line)
}

// roundUp returns the least multiple of step that covers q; without a step, q.
func roundUp(q, step money.Decimal) (money.Decimal, error) {
	if step.IsZero() {
		return q, nil
	}
	n, err := q.CeilDiv(step)
	if err != nil {
		return q, err
	}
	if q = step.Mul(money.DecimalFromInt(n)); !q.InRange() {
		return q, fmt.Errorf("%w: %s", money.ErrOverflow, q)
	}
	return q, nil
}

// price prices the billable part of a total quantity. With explain it leaves the parts in r.parts.
func (r *rater) price(p *plan.Price, per int64, total, included, billable *money.Decimal) (money.Amount, money.Fraction, error) {
	if p.Model == plan.Package {
		per = 1
	}
	first := len(r.parts)
	if err := r.costs.Reset(per); err != nil {
		return money.Amount{}, money.Fraction{}, err
	}
	if err := r.tiers(p, total, included, billable); err != nil {
		return money.Amount{}, money.Fraction{}, err
	}
	exact := r.costs.Sum()
	amount, err := exact.Round(r.in.Currency)
	if err != nil || !r.explain {
		return amount, exact, err
	}
	parts := r.parts[first:]
	var room [16]money.Amount
	shares := room[:]
	if len(parts) > len(shares) {
		shares = make([]money.Amount, len(parts))
	}
	if err := r.costs.Shares(shares, amount); err != nil {
		return amount, exact, err
	}
	for i := range parts {
		parts[i].Amount = shares[i]
	}
	return amount, exact, nil
}

// part begins a part in its final place, since parts are large; cost prices it.
func (r *rater) part() *Part {
	n := len(r.parts)
	if !r.explain && n > 0 { // the room for one
		r.parts[0] = Part{}
		return &r.parts[0]
	}
	if n == cap(r.parts) { // cannot be: makeRoom counts every part that may come
		r.parts = slices.Grow(r.parts, 1)
	}
	r.parts = r.parts[:n+1]
	return &r.parts[n]
}

// cost prices a part: so many units or packages at its unit price.
func (r *rater) cost(b *Part, units *money.Decimal) error {
	flat := b.Flat
	if flat != nil && units.Sign() <= 0 {
		flat = nil
	}
	return r.costs.Add(units, &b.UnitPrice, flat)
}

// tiers adds the parts of a price, tier by tier, up to the tier that the total lies in.
func (r *rater) tiers(p *plan.Price, total, included, billable *money.Decimal) error {
	switch p.Model {
	case plan.PerUnit:
		b := r.part()
		b.Tier, b.Units = &plan.Tier{UnitPrice: p.UnitPrice}, *billable
		return r.cost(b, billable)
	case plan.Package:
		n, err := billable.CeilDiv(p.Package)
		if err != nil {
			return err
		}
		b := r.part()
		b.Tier, b.Units, b.Packages = &plan.Tier{UnitPrice: p.UnitPrice}, *billable, n
		return r.cost(b, new(money.DecimalFromInt(n)))
	case plan.Volume:
		for i := range p.Tiers {
			t := &p.Tiers[i]
			if !t.UpTo.IsZero() && total.Cmp(t.UpTo) > 0 {
				continue
			}
			b := r.part()
			if i > 0 {
				b.Over = p.Tiers[i-1].UpTo
			}
			b.Tier, b.Units = t, *billable
			return r.cost(b, billable)
		}
	case plan.Graduated:
		return r.graduated(p.Tiers, total, included)
	}
	return fmt.Errorf("pricing: the model %q prices no quantity of %s", p.Model, *total)
}

func (r *rater) graduated(tiers []plan.Tier, total, included *money.Decimal) error {
	from := included // what is billable begins here, and then where each tier begins
	for i := range tiers {
		t := &tiers[i]
		b := r.part()
		if i > 0 {
			b.Over = tiers[i-1].UpTo
		}
		b.Tier = t
		to, last := total, true
		if !t.UpTo.IsZero() && total.Cmp(t.UpTo) > 0 {
			to, last = &t.UpTo, false
		}
		if to.Cmp(*from) > 0 {
			b.Units = to.Sub(*from)
			from = to
		}
		if err := r.cost(b, &b.Units); err != nil || last {
			return err
		}
	}
	return fmt.Errorf("pricing: no tier holds a quantity of %s", *total)
}
