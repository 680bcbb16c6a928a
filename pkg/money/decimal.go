package money

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"math/big"

	"github.com/quagmt/udecimal"
)

// Limits of a decimal as it crosses the wire.
const (
	MaxIntegerDigits  = 15
	MaxFractionDigits = 9
)

// ErrDecimal says that a text is not a decimal within the limits.
var ErrDecimal = errors.New("not a decimal")

// Decimal is an exact decimal number: a quantity, a unit price or a rate. The zero Decimal is 0.
// On the wire it is a string.
type Decimal struct{ d udecimal.Decimal }

// ParseDecimal reads an optional minus sign, 1 to 15 integer digits without superfluous zeros in
// front, and up to 9 fraction digits. It takes no exponent, no plus sign, no space and no "-0".
func ParseDecimal(s string) (Decimal, error) {
	body := s
	neg := len(body) > 0 && body[0] == '-'
	if neg {
		body = body[1:]
	}
	integer, fraction, dot := body, "", false
	for i := range len(body) {
		if body[i] == '.' {
			integer, fraction, dot = body[:i], body[i+1:], true
			break
		}
	}
	if !digits(integer, MaxIntegerDigits) || (dot && !digits(fraction, MaxFractionDigits)) ||
		(len(integer) > 1 && integer[0] == '0') {
		return Decimal{}, fmt.Errorf("%w: want at most %d integer and %d fraction digits", ErrDecimal, MaxIntegerDigits, MaxFractionDigits)
	}
	d, err := udecimal.Parse(s)
	if err != nil {
		return Decimal{}, fmt.Errorf("%w: %w", ErrDecimal, err)
	}
	if neg && d.IsZero() {
		return Decimal{}, fmt.Errorf("%w: minus zero", ErrDecimal)
	}
	return Decimal{d}, nil
}

func digits(s string, most int) bool {
	if len(s) == 0 || len(s) > most {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// MustDecimal is ParseDecimal for constants and tests.
func MustDecimal(s string) Decimal {
	d, err := ParseDecimal(s)
	if err != nil {
		panic(err)
	}
	return d
}

// DecimalFromInt returns n as a decimal.
func DecimalFromInt(n int64) Decimal { return Decimal{udecimal.MustFromInt64(n, 0)} }

func decimalFromParts(coefficient int64, exponent int) Decimal {
	return Decimal{udecimal.MustFromInt64(coefficient, uint8(exponent))} //nolint:gosec // an ISO 4217 exponent is 0 to 4
}

// Add returns d + e.
func (d Decimal) Add(e Decimal) Decimal { return Decimal{d.d.Add(e.d)} }

// Sub returns d - e.
func (d Decimal) Sub(e Decimal) Decimal { return Decimal{d.d.Sub(e.d)} }

// Mul returns d × e. It is exact while their fraction digits together are at most 19, as those of a
// quantity and a unit price are; a longer product is cut off. Quotient is exact or fails.
func (d Decimal) Mul(e Decimal) Decimal { return Decimal{d.d.Mul(e.d)} }

// Neg returns -d.
func (d Decimal) Neg() Decimal { return Decimal{d.d.Neg()} }

// Cmp returns -1, 0 or 1 as d is less than, equal to or greater than e.
func (d Decimal) Cmp(e Decimal) int { return d.d.Cmp(e.d) }

// Sign returns -1, 0 or 1.
func (d Decimal) Sign() int { return d.d.Sign() }

// IsZero reports whether d is 0.
func (d Decimal) IsZero() bool { return d.d.IsZero() }

// Rat returns d as a rational number.
func (d Decimal) Rat() *big.Rat {
	r, ok := new(big.Rat).SetString(d.d.String())
	if !ok {
		panic("money: a decimal that is no number: " + d.d.String())
	}
	return r
}

// String writes d without superfluous zeros: "63.5".
func (d Decimal) String() string { return d.d.String() }

// MarshalText writes d as String does, so that JSON holds a string.
func (d Decimal) MarshalText() ([]byte, error) { return []byte(d.d.String()), nil }

// UnmarshalText reads what ParseDecimal reads.
func (d *Decimal) UnmarshalText(b []byte) error {
	v, err := ParseDecimal(string(b))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// Value gives the driver the decimal's text, which a numeric column keeps exactly.
func (d Decimal) Value() (driver.Value, error) { return d.d.String(), nil }

// Scan reads a numeric column, with whatever digits a sum in SQL gave it.
func (d *Decimal) Scan(src any) error { return d.d.Scan(src) }

// DecimalFromUnits returns n × 10^-scale: DecimalFromUnits(-125, 2) is -1.25. It panics where scale
// is above 19.
func DecimalFromUnits(n int64, scale uint8) Decimal { return Decimal{udecimal.MustFromInt64(n, scale)} }

// CeilDiv returns the number of whole e that cover d: ⌈d ÷ e⌉. It fails with ErrOverflow where e is
// not positive, d is negative or the number does not fit.
func (d Decimal) CeilDiv(e Decimal) (int64, error) {
	if e.Sign() <= 0 || d.Sign() < 0 {
		return 0, fmt.Errorf("%w: %s ÷ %s", ErrOverflow, d, e)
	}
	q, r, err := d.d.QuoRem(e.d)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrOverflow, err)
	}
	n, err := q.Int64()
	if err != nil || n == math.MaxInt64 {
		return 0, fmt.Errorf("%w: %s ÷ %s", ErrOverflow, d, e)
	}
	if !r.IsZero() {
		n++
	}
	return n, nil
}

// Quo returns d ÷ n to 9 decimals, for people to read: a tie goes away from zero. It panics where n is 0.
// What is computed with keeps to fractions.
func (d Decimal) Quo(n int64) Decimal {
	q, err := d.d.Div64(uint64(max(n, -n))) //nolint:gosec // not negative
	if err != nil {
		panic("money: " + err.Error())
	}
	if q = q.RoundHAZ(MaxFractionDigits); n < 0 {
		q = q.Neg()
	}
	return Decimal{q}
}

// InRange reports whether d could have crossed the wire: at most 15 integer and 9 fraction digits.
func (d Decimal) InRange() bool {
	n, _, err := d.nano()
	return err == nil && n.cmp(nanoBound) < 0
}

var nanoBound, _ = uint128{lo: powersOfTen[MaxIntegerDigits]}.mul64(powersOfTen[MaxFractionDigits])

// nano returns |d| in units of 10^-9, and whether d is negative. It fails with ErrDecimal where d
// has more decimals or more than 128 bits.
func (d Decimal) nano() (uint128, bool, error) {
	neg, hi, lo, prec, ok := d.d.ToHiLo()
	u := uint128{hi, lo}
	if ok && prec <= MaxFractionDigits {
		if u, ok = u.mul64(powersOfTen[MaxFractionDigits-prec]); ok {
			return u, neg, nil
		}
	} else if ok { // a sum in SQL or a product may carry more decimals that are all 0
		q, r := u.quoRem(uint128{lo: powersOfTen[prec-MaxFractionDigits]})
		if r.isZero() {
			return q, neg, nil
		}
	}
	return uint128{}, false, fmt.Errorf("%w: %s has more than %d decimals or is too large", ErrDecimal, d, MaxFractionDigits)
}

// Round returns the amount that is nearest to x major units, times num, divided by den; a tie goes
// away from zero, as in PostgreSQL's round(numeric). With Fraction.Round it is the only way from a
// decimal to money. It fails with ErrOverflow beyond MaxMinor and where den is not positive.
func Round(x Decimal, num, den int64, c Currency) (Amount, error) {
	if den <= 0 {
		return Amount{}, fmt.Errorf("%w: ÷ %d", ErrOverflow, den)
	}
	neg, hi, lo, prec, ok := x.d.ToHiLo()
	if ok {
		u, ok1 := uint128{hi, lo}.mul64(abs64(num))
		v, ok2 := uint128{lo: uint64(den)}.mul64(powersOfTen[prec])
		if ok1 && ok2 {
			return Fraction{neg != (num < 0), u, v}.Round(c)
		}
	}
	r := x.Rat()
	r.Mul(r, big.NewRat(num, den))
	return RoundRat(r, c)
}

// RoundRat is Round for a rational number of major units.
func RoundRat(x *big.Rat, c Currency) (Amount, error) {
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(c.Exponent())), nil)
	n := new(big.Int).Mul(x.Num(), scale)
	den := x.Denom()
	// Half away from zero: |n|·2 + den, divided by den·2, with the sign put back.
	q := new(big.Int).Abs(n)
	q.Lsh(q, 1).Add(q, den)
	q.Quo(q, new(big.Int).Lsh(den, 1))
	if n.Sign() < 0 {
		q.Neg(q)
	}
	if !q.IsInt64() || q.Int64() > MaxMinor || q.Int64() < -MaxMinor {
		return Amount{}, fmt.Errorf("%w: %s", ErrOverflow, q)
	}
	return Amount{q.Int64(), c}, nil
}
