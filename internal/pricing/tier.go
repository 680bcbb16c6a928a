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
	line := Line{
		Kind: KindUsage, Charge: c.Code, Meter: c.Meter, Description: c.Name,
		Quantity: t.quantity, Included: included, Billable: rounded.Sub(included), Amount: money.Zero(r.in.Currency),
	}
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
	return r.add(&line)
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
func (r *rater) price(p *plan.Price, per int64, total, included, billable money.Decimal) (money.Amount, money.Fraction, error) {
	var room [16]money.Fraction
	fractions := room[:0]
	first := len(r.parts)
	var exact money.Fraction

	part := func(b *Part, per int64) error {
		units := b.Units
		if b.Packages > 0 {
			units = money.DecimalFromInt(b.Packages)
		}
		f, err := money.Quotient(units, b.UnitPrice, per)
		if err != nil {
			return err
		}
		if b.Flat != nil && b.Units.Sign() > 0 {
			if f, err = f.AddAmount(*b.Flat); err != nil {
				return err
			}
		}
		if len(fractions) == 0 {
			exact = f
		} else if exact, err = exact.Add(f); err != nil {
			return err
		}
		fractions = append(fractions, f)
		if r.explain {
			r.parts = append(r.parts, *b)
		}
		return nil
	}

	err := eachPart(p, per, total, included, billable, part)
	if err != nil {
		return money.Amount{}, exact, err
	}
	amount, err := exact.Round(r.in.Currency)
	if err != nil || !r.explain {
		return amount, exact, err
	}
	var shares [16]money.Amount
	dst := shares[:]
	if len(fractions) > len(dst) {
		dst = make([]money.Amount, len(fractions))
	}
	if err := money.Apportion(dst, amount, fractions); err != nil {
		return amount, exact, err
	}
	for i := range fractions {
		r.parts[first+i].Amount = dst[i]
	}
	return amount, exact, nil
}

// eachPart calls part with what each tier prices, and with the size of the unit that it is quoted in.
func eachPart(p *plan.Price, per int64, total, included, billable money.Decimal, part func(*Part, int64) error) error {
	switch p.Model {
	case plan.PerUnit:
		return part(&Part{Units: billable, UnitPrice: p.UnitPrice}, per)
	case plan.Package:
		n, err := billable.CeilDiv(p.Package)
		if err != nil {
			return err
		}
		return part(&Part{Units: billable, UnitPrice: p.UnitPrice, Packages: n}, 1)
	case plan.Volume:
		var over money.Decimal
		for i := range p.Tiers {
			t := &p.Tiers[i]
			if t.UpTo.IsZero() || total.Cmp(t.UpTo) <= 0 {
				return part(&Part{Over: over, UpTo: t.UpTo, Units: billable, UnitPrice: t.UnitPrice, Flat: t.Flat}, per)
			}
			over = t.UpTo
		}
	case plan.Graduated:
		var over money.Decimal
		for i := range p.Tiers {
			t := &p.Tiers[i]
			b := Part{Over: over, UpTo: t.UpTo, UnitPrice: t.UnitPrice, Flat: t.Flat}
			from, to := over, total
			if included.Cmp(from) > 0 {
				from = included
			}
			last := t.UpTo.IsZero() || total.Cmp(t.UpTo) <= 0
			if !last {
				to = t.UpTo
			}
			if to.Cmp(from) > 0 {
				b.Units = to.Sub(from)
			}
			if err := part(&b, per); err != nil || last {
				return err
			}
			over = t.UpTo
		}
	}
	return fmt.Errorf("pricing: the model %q prices no quantity of %s", p.Model, total)
}
