package money

import (
	"errors"
	"fmt"

	"github.com/bojanz/currency"
)

// Currency is an ISO 4217 code in capitals.
type Currency string

// USD is the default currency of an account.
const USD Currency = "USD"

// ErrUnknownCurrency says that a code is not in ISO 4217.
var ErrUnknownCurrency = errors.New("unknown currency")

// ParseCurrency returns the currency with the given code, in capitals.
func ParseCurrency(code string) (Currency, error) {
	if code == "" || !currency.IsValid(code) { // the library takes the empty code for valid
		return "", fmt.Errorf("%w %q", ErrUnknownCurrency, code)
	}
	return Currency(code), nil
}

// Exponent returns the number of decimals of the minor unit: 2 for USD, 0 for JPY, 3 for KWD.
func (c Currency) Exponent() int {
	if c == USD || c == "EUR" { // what nearly all amounts are in needs no table
		return 2
	}
	d, ok := currency.GetDigits(string(c))
	if !ok {
		return 2
	}
	return int(d)
}
