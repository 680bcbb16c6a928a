package pricing

import (
	"fmt"

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
		if line.Amount, exact, err = r.price(price, c.Per.Divisor(), rounded, line.Included, line.Billable); err != nil {
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
		if d.Remainder, err = exact.Sub(money.FractionOf(line.Amount)); err != nil {
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

// tiering is the arithmetic of one usage line, on the stack.
type tiering struct {
	r     *rater
	exact money.Fraction
}

// price prices the billable part of a total quantity. With explain it leaves the parts in r.parts.
func (r *rater) price(p *plan.Price, per int64, total, included, billable money.Decimal) (money.Amount, money.Fraction, error) {
	x := tiering{r: r}
	r.fractions = r.fractions[:0]
	first := len(r.parts)
	if err := x.tiers(p, per, total, included, billable); err != nil {
		return money.Amount{}, x.exact, err
	}
	amount, err := x.exact.Round(r.in.Currency)
	if err != nil || !r.explain {
		return amount, x.exact, err
	}
	var room [16]money.Amount
	shares := room[:]
	if len(r.fractions) > len(shares) {
		shares = make([]money.Amount, len(r.fractions))
	}
	if err := money.Apportion(shares, amount, r.fractions); err != nil {
		return amount, x.exact, err
	}
	for i := range r.fractions {
		r.parts[first+i].Amount = shares[i]
	}
	return amount, x.exact, nil
}

// part begins a part in its final place; add prices it.
func (r *rater) part(over, upTo, price money.Decimal, flat *money.Amount) *Part {
	if !r.explain {
		r.parts = r.parts[:0]
	}
	r.parts = append(r.parts, Part{Over: over, UpTo: upTo, UnitPrice: price, Flat: flat})
	return &r.parts[len(r.parts)-1]
}

// add prices a part. per is the size of the unit that its price is quoted in.
func (x *tiering) add(b *Part, units money.Decimal, per int64) error {
	f, err := money.Quotient(units, b.UnitPrice, per)
	if err != nil {
		return err
	}
	if b.Flat != nil && units.Sign() > 0 {
		if f, err = f.AddAmount(*b.Flat); err != nil {
			return err
		}
	}
	if x.exact.IsZero() { // and perhaps without a denominator yet
		x.exact = f
	} else if x.exact, err = x.exact.Add(f); err != nil {
		return err
	}
	if x.r.explain {
		x.r.fractions = append(x.r.fractions, f)
	}
	return nil
}

// tiers adds the parts of a price, tier by tier, up to the tier that the total lies in.
func (x *tiering) tiers(p *plan.Price, per int64, total, included, billable money.Decimal) error {
	switch p.Model {
	case plan.PerUnit:
		b := x.r.part(money.Decimal{}, money.Decimal{}, p.UnitPrice, nil)
		b.Units = billable
		return x.add(b, billable, per)
	case plan.Package:
		n, err := billable.CeilDiv(p.Package)
		if err != nil {
			return err
		}
		b := x.r.part(money.Decimal{}, money.Decimal{}, p.UnitPrice, nil)
		b.Units, b.Packages = billable, n
		return x.add(b, money.DecimalFromInt(n), 1)
	case plan.Volume:
		var over money.Decimal
		for i := range p.Tiers {
			t := &p.Tiers[i]
			if t.UpTo.IsZero() || total.Cmp(t.UpTo) <= 0 {
				b := x.r.part(over, t.UpTo, t.UnitPrice, t.Flat)
				b.Units = billable
				return x.add(b, billable, per)
			}
			over = t.UpTo
		}
	case plan.Graduated:
		return x.graduated(p.Tiers, per, total, included)
	}
	return fmt.Errorf("pricing: the model %q prices no quantity of %s", p.Model, total)
}

func (x *tiering) graduated(tiers []plan.Tier, per int64, total, included money.Decimal) error {
	var over money.Decimal
	from := included // what is billable begins here, and then where each tier begins
	for i := range tiers {
		t := &tiers[i]
		b := x.r.part(over, t.UpTo, t.UnitPrice, t.Flat)
		to, last := total, true
		if !t.UpTo.IsZero() && total.Cmp(t.UpTo) > 0 {
			to, last = t.UpTo, false
		}
		if units := to.Sub(from); units.Sign() > 0 {
			b.Units, from = units, to
		}
		if err := x.add(b, b.Units, per); err != nil || last {
			return err
		}
		over = t.UpTo
	}
	return fmt.Errorf("pricing: no tier holds a quantity of %s", total)
}
