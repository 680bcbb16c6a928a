package money

import (
	"errors"
	"fmt"
)

// ErrParts says that a sum is not that of the parts over which it is to be divided.
var ErrParts = errors.New("the sum is not that of its parts")

// Costs adds up what the parts of a charge cost: each a quantity at a unit price, all over one
// denominator, so that nothing has to be reduced. Its zero value costs nothing; Reset begins a sum.
// It keeps a few parts in itself and allocates for more.
type Costs struct {
	per   int64
	den   uint128 // of every part
	whole Fraction
	n     int
	few   [8]uint128 // the numerators of the parts, none of them negative
	more  []uint128
}

// Reset forgets all parts. per is the size of the unit that prices are quoted in. It fails with
// ErrOverflow where per is not positive.
func (c *Costs) Reset(per int64) error {
	if per <= 0 {
		return fmt.Errorf("%w: ÷ %d", ErrOverflow, per)
	}
	c.per, c.n, c.more = per, 0, c.more[:0]
	c.den, _ = uint128{lo: powersOfTen[fractionScale]}.mul64(uint64(per))
	c.whole = Fraction{den: c.den}
	return nil
}

// Add adds a part of quantity q at the unit price p, and flat, unless it is nil. None may be negative.
// It fails with ErrDecimal where q or p has more than 9 decimals, and with ErrOverflow where the
// part or the sum does not fit.
func (c *Costs) Add(q, p *Decimal, flat *Amount) error {
	var num uint128
	if !q.IsZero() { // of the tiers, many hold nothing
		qn, qneg, err := q.nano()
		if err != nil {
			return err
		}
		pn, pneg, err := p.nano()
		if err != nil {
			return err
		}
		var ok bool
		if num, ok = qn.mul(pn); !ok || ((qneg || pneg) && !num.isZero()) {
			return fmt.Errorf("%w: %s × %s ÷ %d", ErrOverflow, *q, *p, c.per)
		}
	}
	if flat != nil {
		k, _ := c.den.quoRem(uint128{lo: powersOfTen[flat.Currency.Exponent()]}) // den has 18 decimals
		f, ok := k.mul64(abs64(flat.Minor))
		if ok {
			num, ok = num.add(f)
		}
		if !ok || flat.Minor < 0 {
			return fmt.Errorf("%w: %s", ErrOverflow, *flat)
		}
	}
	if c.n < len(c.few) {
		c.few[c.n] = num
	} else {
		c.more = append(c.more, num)
	}
	c.n++
	if c.whole.den == c.den {
		if sum, ok := c.whole.num.add(num); ok {
			c.whole.num = sum
			return nil
		}
	}
	var err error
	c.whole, err = c.whole.Add(Fraction{num: num, den: c.den}) // over a lesser denominator it may fit
	return err
}

// Sum returns what the parts cost together, exactly.
func (c *Costs) Sum() Fraction { return c.whole }

// part returns the numerator of the i-th part.
func (c *Costs) part(i int) uint128 {
	if i < len(c.few) {
		return c.few[i]
	}
	return c.more[i-len(c.few)]
}

// Shares divides whole, the rounded sum, over the parts by largest remainder, and writes the shares
// to dst, which must be as long as there are parts. They sum to whole, and none is off what its part
// costs exactly by a whole minor unit or more. It fails with ErrOverflow, and with ErrParts where
// whole is not the rounded sum of the parts.
func (c *Costs) Shares(dst []Amount, whole Amount) error {
	var few [len(c.few)]uint128
	lost := few[:0]
	if c.n > len(few) {
		lost = make([]uint128, 0, c.n)
	}
	left := whole.Minor
	scale := powersOfTen[whole.Currency.Exponent()]
	for i := range c.n {
		num := c.part(i)
		scaled, ok := num.mul64(scale)
		if !ok {
			return fmt.Errorf("%w: %s", ErrOverflow, Fraction{num: num, den: c.den})
		}
		n, rest := scaled.quoRem(c.den)
		if n.hi != 0 || n.lo > MaxMinor {
			return fmt.Errorf("%w: %s", ErrOverflow, Fraction{num: num, den: c.den})
		}
		dst[i] = Amount{int64(n.lo), whole.Currency}
		left -= dst[i].Minor
		lost = append(lost, rest)
	}
	if left < 0 || left > int64(c.n) {
		return fmt.Errorf("%w: %s", ErrParts, whole)
	}
	handOut(dst[:c.n], lost, uint64(left))
	return nil
}

// handOut gives one unit to each of the n shares that lost most.
func handOut(shares []Amount, lost []uint128, n uint64) {
	for ; n > 0; n-- {
		most := -1
		for i := range lost {
			if !lost[i].isZero() && (most < 0 || lost[i].cmp(lost[most]) > 0) {
				most = i
			}
		}
		if most < 0 { // cannot be: what is left over was lost by someone
			most = 0
		}
		shares[most].Minor++
		lost[most] = uint128{}
	}
}
