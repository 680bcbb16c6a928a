// Package pricing turns quantities and prices into charges.
//
// It owns: rating a period's usage under a version of a plan, the derivation that explains every
// line, its verification, adjustments for late usage, proration, and the comparison of plans. It
// does not own: prices (plan), quantities (metering), documents (invoice), tax. It is pure: it has no
// store, no context, no clock, and does the same for the same input for ever.
//
// Always true: a line is computed as an exact fraction and rounded once, half away from zero; the
// total is the sum of the lines; a larger quantity never costs less under graduated tiers; how a
// period's usage is split into entries never changes a bill. What passes the range of money is
// refused, never wrapped.
package pricing

import (
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Usage is the quantity of one series of a meter in the period.
type Usage struct {
	Meter      plan.MeterCode
	Dimensions map[string]string
	Quantity   money.Decimal // in the unit of the meter, aggregated as the meter says
	Events     int64         // how many events it comes from
}

// Input is all that a bill depends on.
type Input struct {
	Version  plan.Version
	Contract *plan.Contract // applied to Version where it is in force at Period.Start
	Currency money.Currency
	Period   period.Bounds // needed for proration and for contracts
	Held     period.Bounds // the part of the period that the plan was held; zero: all of it
	Before   []Holding     // plans with a fee that were held in the period before this one
	Usage    []Usage
	Cap      *money.Amount // the most that may be billed, also less than nothing; the rest is absorbed
	Term     *Term         // for commitments over a term, and prepaid ones
}

// Holding is a version that was held for a part of the period. Only its fee counts, and the credit that
// goes with it: usage is priced once, under the version that is held at the end.
type Holding struct {
	Version plan.Version
	Held    period.Bounds
}

// Term is where a period stands in the term of a commitment, or in the time for which usage is prepaid.
type Term struct {
	Spent money.Amount // usage in the term before this period, as Spent returns it
	Last  bool         // the term ends with this period: the true-up is due
}

// Kind says what a line is.
type Kind string

// The kinds of lines, in the order in which a bill has them.
const (
	KindFee        Kind = "fee"
	KindUsage      Kind = "usage"
	KindMinimum    Kind = "minimum"    // what a charge's or the version's minimum adds
	KindMaximum    Kind = "maximum"    // what a charge's maximum takes off
	KindPercent    Kind = "percent"    // in proportion to other lines
	KindCredit     Kind = "credit"     // usage that the fee covers, taken off
	KindCommitment Kind = "commitment" // the true-up of a commitment
	KindPrepayment Kind = "prepayment" // what is paid ahead for usage; it stands on a bill of its own
	KindDrawdown   Kind = "drawdown"   // usage that was paid ahead, taken off
	KindOverage    Kind = "overage"    // what usage beyond a commitment costs more or less
	KindAdjustment Kind = "adjustment" // late usage of a period that is closed
	KindAbsorbed   Kind = "absorbed"   // what passes the spending limit, taken off
)

// Line is one line of a bill.
type Line struct {
	Kind        Kind           `json:"kind"`
	Charge      string         `json:"charge,omitempty"` // the code of the charge in the version
	Meter       plan.MeterCode `json:"meter,omitempty"`
	Description string         `json:"description"`
	Quantity    money.Decimal  `json:"quantity,omitzero"` // in the unit of the meter
	Included    money.Decimal  `json:"included,omitzero"` // how much of it the allowance took
	Billable    money.Decimal  `json:"billable,omitzero"` // the rest
	Amount      money.Amount   `json:"amount"`
	Derivation  Derivation     `json:"derivation"`
}

// Bill is a priced period. Total is the sum of the lines' amounts; Absorbed is what the spending
// limit kept off it.
type Bill struct {
	Lines    []Line       `json:"lines"`
	Total    money.Amount `json:"total"`
	Absorbed money.Amount `json:"absorbed"`
}

// Errors of the concept.
var (
	ErrRange    = errs.New(errs.Invalid, "amount_out_of_range", "The quantity or its price is beyond the range of amounts.")
	ErrCurrency = errs.New(errs.Invalid, "currency_not_offered", "The plan has no prices in this currency.")
	ErrQuantity = errs.New(errs.Invalid, "quantity_out_of_range", "A quantity must be from 0 to 10^15 with at most 9 decimals.")
)
