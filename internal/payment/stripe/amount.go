package stripe

import (
	"fmt"
	"strings"

	"github.com/stripe/stripe-go/v85"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

// maxAmount is the eight digits that Stripe takes, in its own minor units.
const maxAmount = 99_999_999

// decimals returns how many decimals Stripe counts in, which is not always what ISO 4217 says: króna
// and shilling have lost their cents, but Stripe's interface still has them; the ariary has fifths,
// which Stripe leaves out. (HUF and TWD are special for payouts alone, which are none of ours.)
func decimals(c money.Currency) int {
	switch c {
	case "ISK", "UGX":
		return 2
	case "MGA":
		return 0
	default:
		return c.Exponent()
	}
}

// minimums are the smallest charges, in ISO minor units, of the currencies that Stripe settles in.
// Others are bounded by their worth in the currency of settlement, which only Stripe knows; a charge
// below that is refused with ErrAmount when it is made.
var minimums = map[money.Currency]int64{
	"USD": 50, "AED": 200, "AUD": 50, "BGN": 100, "BRL": 50, "CAD": 50, "CHF": 50, "CZK": 1500, "DKK": 250,
	"EUR": 50, "GBP": 30, "HKD": 400, "HUF": 17500, "INR": 50, "JPY": 50, "MXN": 1000, "MYR": 200, "NOK": 300,
	"NZD": 50, "PLN": 200, "RON": 200, "SEK": 300, "SGD": 50, "THB": 1000,
}

// Limits implements payment.Gateway.
func (g *Gateway) Limits(c money.Currency) (payment.Limits, error) {
	if _, err := money.ParseCurrency(string(c)); err != nil {
		return payment.Limits{}, payment.ErrAmount.Because(err)
	}
	l := payment.Limits{Minimum: money.New(1, c), Step: 1}
	theirs, ours := decimals(c), c.Exponent()
	maximum := int64(maxAmount)
	switch {
	case ours == 3:
		l.Step = 10 // the card networks take no thousandths, though they are written
	case theirs < ours:
		l.Step = power(ours - theirs)
		maximum *= l.Step
	case theirs > ours:
		maximum /= power(theirs - ours)
	}
	if m := minimums[c]; m > 0 {
		l.Minimum.Minor = m
	} else {
		l.Minimum.Minor = l.Step
	}
	l.Maximum = money.New(maximum/l.Step*l.Step, c)
	return l, nil
}

// toStripe returns an amount in Stripe's minor units. It fails with ErrAmount for one that Stripe
// cannot write.
func toStripe(a money.Amount) (int64, error) {
	theirs, ours := decimals(a.Currency), a.Currency.Exponent()
	if theirs >= ours {
		return a.Minor * power(theirs-ours), nil
	}
	f := power(ours - theirs)
	if a.Minor%f != 0 {
		return 0, payment.ErrAmount.Because(fmt.Errorf("%s has more decimals than Stripe takes", a))
	}
	return a.Minor / f, nil
}

// fromStripe returns an amount of Stripe's in ours. It fails with ErrUnknown for one that makes no
// sense: something was done, and what was said of it cannot be relied on.
func fromStripe(n int64, currency stripe.Currency) (money.Amount, error) {
	c, err := money.ParseCurrency(strings.ToUpper(string(currency)))
	if err != nil || n < 0 || n > money.MaxMinor {
		return money.Amount{}, payment.ErrUnknown.Because(fmt.Errorf("stripe answered %d %q", n, currency))
	}
	theirs, ours := decimals(c), c.Exponent()
	if theirs <= ours {
		return money.New(n*power(ours-theirs), c), nil
	}
	f := power(theirs - ours)
	if n%f != 0 {
		return money.Amount{}, payment.ErrUnknown.Because(fmt.Errorf("stripe answered %d %q, a fraction", n, currency))
	}
	return money.New(n/f, c), nil
}

func power(digits int) int64 {
	p := int64(1)
	for range digits {
		p *= 10
	}
	return p
}
