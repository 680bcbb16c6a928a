package metering

import (
	"math/big"

	"github.com/accrue-billing/accrue/pkg/money"
)

// Aggregation says how the events of a period become its quantity.
type Aggregation string

// The aggregations. Max and Last go by event time, then by identity, never by arrival.
const (
	Sum    Aggregation = "sum"
	Count  Aggregation = "count"
	Max    Aggregation = "max"
	Last   Aggregation = "last"
	Unique Aggregation = "unique"
)

// additive reports whether a roll-up grows by what each event counts.
func (a Aggregation) additive() bool { return a != Max && a != Last }

// Meter is what metering must know about a meter.
type Meter struct {
	Code        string
	Unit        string
	Aggregation Aggregation
	Dimensions  []string // that events may carry
	// SeriesCap bounds the combinations of dimensions in a period; beyond it usage counts in "other".
	SeriesCap int
	// An event counts at least First (once it counts at all), and beyond it in multiples of Step.
	First, Step money.Decimal
	// Reserved says that the meter counts open reservations and takes no events.
	Reserved bool
}

// defaultSeriesCap applies to a meter that states none.
const defaultSeriesCap = 1000

func (m *Meter) seriesCap() int {
	if m.SeriesCap > 0 {
		return m.SeriesCap
	}
	return defaultSeriesCap
}

// Counted returns what a reported quantity counts as: rounded up where the meter says so.
func (m *Meter) Counted(q money.Decimal) money.Decimal {
	if q.Sign() <= 0 {
		return q
	}
	if m.First.Sign() > 0 && q.Cmp(m.First) <= 0 {
		return m.First
	}
	if m.Step.Sign() <= 0 {
		return q
	}
	over := q.Sub(m.First)
	steps := new(big.Rat).Quo(over.Rat(), m.Step.Rat())
	n := new(big.Int).Quo(steps.Num(), steps.Denom())
	if !steps.IsInt() {
		n.Add(n, big.NewInt(1))
	}
	count, err := money.ParseDecimal(n.String())
	if err != nil {
		return q // more steps than a quantity has digits: no meter means that
	}
	return m.First.Add(count.Mul(m.Step))
}

// A Catalogue knows the meters. It answers from memory and may be asked from several goroutines.
type Catalogue interface {
	// Meter returns the meter with the given code, which its user must not change, or nil.
	Meter(code string) *Meter
	// Meters returns all meters, in the catalogue's order.
	Meters() []*Meter
}

// Meters is a Catalogue that never changes.
type Meters []*Meter

var _ Catalogue = Meters(nil)

// Meter returns the meter with the given code, or nil.
func (ms Meters) Meter(code string) *Meter {
	for _, m := range ms {
		if m.Code == code {
			return m
		}
	}
	return nil
}

// Meters returns all meters.
func (ms Meters) Meters() []*Meter { return ms }
