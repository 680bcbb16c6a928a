package pricing

import (
	"errors"
	"slices"

	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Point is what so much usage in a period costs.
type Point struct {
	Units int64 // of the charge's quoted unit
	Cost  money.Amount
}

// Curve prices growing usage by one charge and nothing else: where its allowance and its tiers end, one unit beyond
// where that may cost a step, and at 1, 2 and 5 times the powers of ten between, up to ten times the last end. Of a
// price that is always the same it is one point. It fails as Rate does, but ends where Rate would find the sums too large.
func Curve(c plan.Charge, cur money.Currency) (curve []Point, err error) {
	c.Match = nil // of all usage
	alone := plan.Version{Charges: []plan.Charge{c}}
	per := money.DecimalFromInt(c.Per.Divisor())
	units, err := turns(c, cur, per)
	if err != nil {
		return nil, refine(err)
	}
	for _, n := range units {
		u := Usage{Meter: c.Meter, Quantity: money.DecimalFromInt(n).Mul(per), Events: 1}
		cost, err := Accrued(Input{Version: alone, Currency: cur, Usage: []Usage{u}})
		if !u.Quantity.InRange() || errors.Is(err, ErrRange) {
			break // nobody will use so much
		}
		if err != nil {
			return nil, err
		}
		curve = append(curve, Point{n, cost})
	}
	return curve, nil
}

// turns lists the quantities, in quoted units, at which a charge is looked at, in their order.
func turns(c plan.Charge, cur money.Currency, per money.Decimal) (units []int64, err error) {
	const plain = 1000 // where a price without a turn is looked at
	i := slices.IndexFunc(c.Prices, func(p plan.Price) bool { return p.Currency == cur })
	if i < 0 {
		return nil, nil
	}
	p := &c.Prices[i]
	ends, steps := []money.Decimal{c.Included, p.Package}, p.Model == plan.Volume || p.Model == plan.Package
	for _, t := range p.Tiers {
		ends, steps = append(ends, t.UpTo), steps || t.Flat != nil
	}
	for _, end := range ends {
		if end.Sign() <= 0 {
			continue
		}
		n, err := end.CeilDiv(per)
		if err != nil {
			return nil, err
		}
		units = append(units, n)
	}
	first, last := int64(1), int64(plain)
	switch {
	case len(units) > 0:
		first, last = units[0], slices.Max(units)
		if c.Included.IsZero() { // what the first tier costs
			first = max(first/10, 1)
		}
	case p.Minimum == nil && p.Maximum == nil:
		return []int64{plain}, nil
	}
	if steps {
		for _, n := range units {
			units = append(units, n+1)
		}
	}
	units = append(units, first, 10*last)
	for power := int64(1); power <= 10*last; power *= 10 {
		for _, n := range [...]int64{power, 2 * power, 5 * power} {
			if n > first && n <= 10*last {
				units = append(units, n)
			}
		}
	}
	slices.Sort(units)
	return slices.Compact(units), nil
}
