package v1

import (
	"time"

	"github.com/accrue-billing/accrue/pkg/money"
)

// Money is an amount that moves, in whole minor units of its currency.
type Money struct {
	Amount   int64  `json:"amount" validate:"required" example:"78300"`                                                  // minor units: cents, yen, fils
	Currency string `json:"currency" validate:"required" minLength:"3" maxLength:"3" pattern:"^[A-Z]{3}$" example:"USD"` // ISO 4217
} //@name Money

func toMoney(a money.Amount) Money { return Money{Amount: a.Minor, Currency: string(a.Currency)} }

func toMoneyIf(a *money.Amount) *Money {
	if a == nil {
		return nil
	}
	m := toMoney(*a)
	return &m
}

// amount returns the amount that a request names. Its currency is checked by validate.
func (m Money) amount() money.Amount {
	return money.Amount{Minor: m.Amount, Currency: money.Currency(m.Currency)}
}

// timeIf returns nil for the zero time, which JSON writes as null.
func timeIf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
