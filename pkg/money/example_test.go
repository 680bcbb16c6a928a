package money_test

import (
	"fmt"

	"github.com/accrue-billing/accrue/pkg/money"
)

// 63.5 seconds at 2.7 cents a minute, exactly and rounded once.
func ExampleQuotient() {
	exact, _ := money.Quotient(money.MustDecimal("63.5"), money.MustDecimal("0.027"), 60)
	amount, _ := exact.Round(money.USD)
	fmt.Println(exact, "is", amount)
	// Output: 1143/40000 is 0.03 USD
}

func ExampleRound() {
	half, _ := money.Round(money.MustDecimal("0.125"), 1, 1, money.USD)
	third, _ := money.Round(money.MustDecimal("100"), 1, 3, money.USD)
	fmt.Println(half, third)
	// Output: 0.13 USD 33.33 USD
}

func ExampleParseDecimal() {
	_, err := money.ParseDecimal("1e400")
	fmt.Println(err)
	// Output: not a decimal: want at most 15 integer and 9 fraction digits
}
