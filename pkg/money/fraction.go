package money

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// ErrFraction says that a text is not a fraction.
var ErrFraction = errors.New("not a fraction")

// Fraction is an exact sum of money in major units, before it is rounded: a quantity times a unit
// price, divided by the size of the quoted unit. The zero Fraction is 0.
//
// It holds 128 bits above the line and 128 below. An operation whose result does not fit fails with
// ErrOverflow; nothing wraps and nothing is cut off.
type Fraction struct {
	neg      bool
	num, den uint128 // den 0 means 1, so that the zero value is a number
}

// fractionScale is the number of decimals below every line that Quotient draws: those of a quantity
// and those of a unit price. A common scale lets the parts of a charge be added without reducing.
const fractionScale = 2 * MaxFractionDigits

// Quotient returns q × p ÷ divisor, exactly. It fails with ErrDecimal where q or p has more than 9
// decimals, and with ErrOverflow where divisor is not positive or the result does not fit.
func Quotient(q, p Decimal, divisor int64) (Fraction, error) {
	qn, qneg, err := q.nano()
	if err != nil {
		return Fraction{}, err
	}
	pn, pneg, err := p.nano()
	if err != nil {
		return Fraction{}, err
	}
	num, ok := qn.mul(pn)
	if !ok || divisor <= 0 {
		return Fraction{}, fmt.Errorf("%w: %s × %s ÷ %d", ErrOverflow, q, p, divisor)
	}
	den, _ := uint128{lo: powersOfTen[fractionScale]}.mul64(uint64(divisor))
	return Fraction{qneg != pneg && !num.isZero(), num, den}, nil
}

// FractionOf returns an amount as a fraction.
func FractionOf(a Amount) Fraction {
	return Fraction{a.Minor < 0, uint128{lo: abs64(a.Minor)}, uint128{lo: powersOfTen[a.Currency.Exponent()]}}
}

// Ratio returns a × num ÷ den, exactly. It fails with ErrOverflow where den is not positive.
func Ratio(a Amount, num, den int64) (Fraction, error) {
	if den <= 0 {
		return Fraction{}, fmt.Errorf("%w: %s ÷ %d", ErrOverflow, a, den)
	}
	f := FractionOf(a)
	f.num, _ = f.num.mul64(abs64(num)) // 64 bits each
	f.den, _ = f.den.mul64(uint64(den))
	f.neg = f.neg != (num < 0) && !f.num.isZero()
	return f, nil
}

// Add returns f + g, or ErrOverflow.
func (f Fraction) Add(g Fraction) (Fraction, error) {
	fd, gd := f.denominator(), g.denominator()
	if fd != gd {
		var ok bool
		if f, g, ok = common(f, g); !ok {
			return addBig(f, g)
		}
	}
	out := Fraction{den: f.denominator()}
	if f.neg == g.neg {
		sum, ok := f.num.add(g.num)
		if !ok {
			return addBig(f, g)
		}
		out.neg, out.num = f.neg, sum
		return out, nil
	}
	if f.num.cmp(g.num) >= 0 {
		out.neg, out.num = f.neg, f.num.sub(g.num)
	} else {
		out.neg, out.num = g.neg, g.num.sub(f.num)
	}
	out.neg = out.neg && !out.num.isZero()
	return out, nil
}

// Sub returns f - g, or ErrOverflow.
func (f Fraction) Sub(g Fraction) (Fraction, error) {
	g.neg = !g.neg && !g.num.isZero()
	return f.Add(g)
}

// common brings two fractions over one denominator.
func common(f, g Fraction) (Fraction, Fraction, bool) {
	fd, gd := f.denominator(), g.denominator()
	d := fd.gcd(gd)
	fk, _ := gd.quoRem(d)
	gk, _ := fd.quoRem(d)
	fn, ok1 := f.num.mul(fk)
	gn, ok2 := g.num.mul(gk)
	den, ok3 := fd.mul(fk)
	if !ok1 || !ok2 || !ok3 {
		return f, g, false
	}
	return Fraction{f.neg, fn, den}, Fraction{g.neg, gn, den}, true
}

// addBig adds where the common denominator or the sum does not fit: the reduced sum still may.
func addBig(f, g Fraction) (Fraction, error) {
	return fractionFromRat(new(big.Rat).Add(f.Rat(), g.Rat()))
}

func fractionFromRat(r *big.Rat) (Fraction, error) {
	num, ok1 := uint128FromBig(new(big.Int).Abs(r.Num()))
	den, ok2 := uint128FromBig(r.Denom())
	if !ok1 || !ok2 {
		return Fraction{}, fmt.Errorf("%w: %s", ErrOverflow, r)
	}
	return Fraction{r.Sign() < 0, num, den}, nil
}

func (f Fraction) denominator() uint128 {
	if f.den.isZero() {
		return uint128{lo: 1}
	}
	return f.den
}

// IsZero reports whether f is 0.
func (f Fraction) IsZero() bool { return f.num.isZero() }

// Sign returns -1, 0 or 1.
func (f Fraction) Sign() int {
	switch {
	case f.num.isZero():
		return 0
	case f.neg:
		return -1
	}
	return 1
}

// Cmp returns -1, 0 or 1 as f is less than, equal to or greater than g.
func (f Fraction) Cmp(g Fraction) int {
	if a, b, ok := common(f, g); ok && a.neg == b.neg {
		if a.neg {
			return b.num.cmp(a.num)
		}
		return a.num.cmp(b.num)
	}
	return f.Rat().Cmp(g.Rat())
}

// Round returns the amount nearest to f; a tie goes away from zero, as in PostgreSQL's
// round(numeric). It fails with ErrOverflow beyond MaxMinor.
func (f Fraction) Round(c Currency) (Amount, error) {
	num, ok := f.num.mul64(powersOfTen[c.Exponent()])
	if !ok {
		return RoundRat(f.Rat(), c)
	}
	den := f.denominator()
	q, r := num.quoRem(den)
	if r.cmp(den.sub(r)) >= 0 { // 2r ≥ den, without the doubling that could overflow
		q, _ = q.add(uint128{lo: 1})
	}
	return q.amount(f.neg, c)
}

func (u uint128) amount(neg bool, c Currency) (Amount, error) {
	if u.hi != 0 || u.lo > MaxMinor {
		return Amount{}, fmt.Errorf("%w: %s", ErrOverflow, u.big())
	}
	n := int64(u.lo)
	if neg {
		n = -n
	}
	return Amount{n, c}, nil
}

// Rat returns f as a rational number.
func (f Fraction) Rat() *big.Rat {
	n := f.num.big()
	if f.neg {
		n.Neg(n)
	}
	return new(big.Rat).SetFrac(n, f.denominator().big())
}

// String writes f in lowest terms: "27/1000", and "3" where there is nothing below the line.
func (f Fraction) String() string { return f.Rat().RatString() }

// MarshalText writes f as String does.
func (f Fraction) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what String writes.
func (f *Fraction) UnmarshalText(b []byte) error {
	const longest = 1 + 39 + 1 + 39 // a sign, 128 bits, a line, 128 bits
	s := string(b)
	num, den, line := strings.Cut(strings.TrimPrefix(s, "-"), "/")
	if len(s) > longest || !digits(num, 39) || (line && !digits(den, 39)) {
		return fmt.Errorf("%w: want digits, and perhaps a line and more digits", ErrFraction)
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return fmt.Errorf("%w: nothing can be divided by 0", ErrFraction)
	}
	v, err := fractionFromRat(r)
	if err != nil {
		return err
	}
	*f = v
	return nil
}

// AddAmount returns f + a over f's own denominator where a fits there, so that sums of prices and
// flat amounts stay over one line.
func (f Fraction) AddAmount(a Amount) (Fraction, error) {
	k, r := f.denominator().quoRem(uint128{lo: powersOfTen[a.Currency.Exponent()]})
	if !r.isZero() {
		return f.Add(FractionOf(a))
	}
	num, ok := k.mul64(abs64(a.Minor))
	if !ok {
		return f.Add(FractionOf(a))
	}
	return f.Add(Fraction{a.Minor < 0, num, f.denominator()})
}
