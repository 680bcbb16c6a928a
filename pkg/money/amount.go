package money

import (
	"errors"
	"fmt"
	"math"
	"strconv"
)

// MaxMinor bounds every amount, so that sums of amounts cannot overflow unnoticed: 10^15 minor units.
const MaxMinor = 1_000_000_000_000_000

// Errors of the arithmetic. They are wrapped with the values concerned.
var (
	ErrOverflow         = errors.New("amount out of range")
	ErrCurrencyMismatch = errors.New("currencies differ")
)

// Amount is a sum of money in whole minor units (cents for USD, yen for JPY).
// The zero Amount has no currency and only serves as "nothing".
type Amount struct {
	Minor    int64    `json:"amount"`
	Currency Currency `json:"currency"`
}

// New returns an amount of minor units.
func New(minor int64, c Currency) Amount { return Amount{Minor: minor, Currency: c} }

// Zero returns nothing, in a currency.
func Zero(c Currency) Amount { return Amount{Currency: c} }

// Add returns a + b. It fails if the currencies differ or the sum passes MaxMinor.
func (a Amount) Add(b Amount) (Amount, error) {
	if a.Currency != b.Currency {
		return Amount{}, fmt.Errorf("%w: %s and %s", ErrCurrencyMismatch, a.Currency, b.Currency)
	}
	sum := a.Minor + b.Minor
	if (b.Minor > 0 && sum < a.Minor) || (b.Minor < 0 && sum > a.Minor) || sum > MaxMinor || sum < -MaxMinor {
		return Amount{}, fmt.Errorf("%w: %d + %d", ErrOverflow, a.Minor, b.Minor)
	}
	return Amount{sum, a.Currency}, nil
}

// Sub returns a - b under the conditions of Add.
func (a Amount) Sub(b Amount) (Amount, error) {
	if b.Minor == math.MinInt64 {
		return Amount{}, fmt.Errorf("%w: %d", ErrOverflow, b.Minor)
	}
	return a.Add(b.Neg())
}

// Neg returns -a.
func (a Amount) Neg() Amount { return Amount{-a.Minor, a.Currency} }

// IsZero reports whether the amount is nothing, in whatever currency.
func (a Amount) IsZero() bool { return a.Minor == 0 }

// Sign returns -1, 0 or 1.
func (a Amount) Sign() int {
	switch {
	case a.Minor < 0:
		return -1
	case a.Minor > 0:
		return 1
	}
	return 0
}

// Decimal returns the amount in major units: 1234 cents are 12.34.
func (a Amount) Decimal() Decimal {
	return decimalFromParts(a.Minor, a.Currency.Exponent())
}

// String writes the amount in major units with its currency: "12.34 USD".
func (a Amount) String() string {
	e := a.Currency.Exponent()
	if e == 0 {
		return strconv.FormatInt(a.Minor, 10) + " " + string(a.Currency)
	}
	u := strconv.FormatUint(abs64(a.Minor), 10)
	for len(u) <= e {
		u = "0" + u
	}
	sign := ""
	if a.Minor < 0 {
		sign = "-"
	}
	return sign + u[:len(u)-e] + "." + u[len(u)-e:] + " " + string(a.Currency)
}
