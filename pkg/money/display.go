package money

import (
	"strings"

	"github.com/bojanz/currency"
)

// Display writes a sum in major units as an English page shows it, with all of its decimals: "$0.027",
// "$1,234.50", "¥3,300".
func (c Currency) Display(d Decimal) string {
	symbol, ok := currency.GetSymbol(string(c), currency.NewLocale("en"))
	if !ok || symbol == string(c) {
		symbol = string(c) + "\u00a0"
	}
	number, minus := strings.CutPrefix(d.Grouped(), "-")
	if e := c.Exponent(); e > 0 {
		_, decimals, _ := strings.Cut(number, ".")
		if decimals == "" {
			number += "."
		}
		number += strings.Repeat("0", max(0, e-len(decimals)))
	}
	if minus {
		symbol = "-" + symbol
	}
	return symbol + number
}

// Grouped writes d with its thousands apart: "1,800,000".
func (d Decimal) Grouped() string {
	number, minus := strings.CutPrefix(d.String(), "-")
	whole, decimals, _ := strings.Cut(number, ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if decimals != "" {
		whole += "." + decimals
	}
	if minus {
		return "-" + whole
	}
	return whole
}
