package pricing

import (
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Derivation is how a line came about: enough to compute it again, and nothing else. It is stored
// with the line and served as its explanation; its JSON form is stable.
type Derivation struct {
	Plan     plan.Code      `json:"plan"`
	Version  int            `json:"version"`
	Hash     string         `json:"hash,omitempty"`     // of the version's terms
	Contract string         `json:"contract,omitempty"` // the reference of the contract applied
	Kind     Kind           `json:"kind"`
	Charge   string         `json:"charge,omitempty"`
	Currency money.Currency `json:"currency"`

	// A usage line: Quantity, rounded up to a multiple of Step, is Rounded; Included of that is the
	// allowance, Billable the rest, and Parts price it.
	Model    plan.Model     `json:"model,omitempty"`
	Meter    plan.MeterCode `json:"meter,omitempty"`
	Unit     string         `json:"unit,omitempty"`
	Per      plan.Quote     `json:"per,omitzero"`
	Quantity money.Decimal  `json:"quantity,omitzero"`
	Step     money.Decimal  `json:"step,omitzero"`
	Rounded  money.Decimal  `json:"rounded,omitzero"`
	Included money.Decimal  `json:"included,omitzero"`
	Billable money.Decimal  `json:"billable,omitzero"`
	Package  money.Decimal  `json:"package,omitzero"`
	Parts    []Part         `json:"parts,omitempty"`
	Evidence Evidence       `json:"evidence,omitzero"`

	// A line of another kind. What is due is the share of Base from From to Numerator, in parts of
	// Denominator, each end rounded: that is a fee's or a percentage's amount. A minimum, maximum,
	// true-up or adjustment is what is due less Against; a credit or drawdown takes off what is due, at most
	// Against; the absorbed part is Against (the limit, or what is billed of late usage) less what is due.
	Base        *money.Amount `json:"base,omitempty"`
	Numerator   int64         `json:"numerator,omitempty"`
	From        int64         `json:"from,omitempty"`
	Denominator int64         `json:"denominator,omitempty"`
	Against     *money.Amount `json:"against,omitempty"`

	// An adjustment is the difference of two ratings, and carries both.
	Before *Derivation `json:"before,omitempty"`
	After  *Derivation `json:"after,omitempty"`

	Exact     money.Fraction `json:"exact"`     // in major units, before the one rounding
	Remainder money.Fraction `json:"remainder"` // Exact less what it was rounded to
	Amount    money.Amount   `json:"amount"`
}

// Part is what one tier contributes to a usage line. Without tiers there is one part, from 0 on.
type Part struct {
	Over       money.Decimal `json:"over"` // the tier begins after this total quantity
	*plan.Tier               // that of the version, which never changes; of a package its unit price is the package's
	Units      money.Decimal `json:"units"` // billable units in the tier, in the unit of the meter
	Packages   int64         `json:"packages,omitempty"`
	Amount     money.Amount  `json:"amount"` // its share of the line, by largest remainder
}

// Evidence says which events a quantity comes from. Rate knows only their number; who reads them
// from storage adds the rest.
type Evidence struct {
	Events int64  `json:"events,omitempty"`
	First  string `json:"first,omitempty"` // time of the first event
	Last   string `json:"last,omitempty"`
	Hash   string `json:"hash,omitempty"`  // over the events' keys and their corrections
	AsOf   string `json:"as_of,omitempty"` // real time at which they were counted: what came later is not in it
}

// IsZero reports whether nothing is known of the events.
func (e Evidence) IsZero() bool { return e == Evidence{} }
