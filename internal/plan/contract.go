package plan

import (
	"slices"
	"time"

	"github.com/accrue-billing/accrue/pkg/money"
)

// Contract is a set of overrides on a version, agreed with one account. It holds for whole periods: for
// those that begin at Start or later, and before End.
type Contract struct {
	Reference string    `json:"reference"` // the number on the paper
	Plan      Code      `json:"plan"`
	Version   int       `json:"version"`       // what it overrides
	Start     time.Time `json:"start"`         // in force from here, by the start of a period
	End       time.Time `json:"end,omitzero"`  // and before here; zero: until further notice
	Fee       *Fee      `json:"fee,omitempty"` // replaces the version's
	Credit    Sums      `json:"credit,omitempty"`
	Minimum   Sums      `json:"minimum,omitempty"`
	// Charges replace the version's charges of the same code; others are added.
	Charges []Charge `json:"charges,omitempty"`
	// Limits replace the version's limits on the same meter; others are added.
	Limits []Limit `json:"limits,omitempty"`
	// Unlimited lists meters whose limits fall away.
	Unlimited  []MeterCode `json:"unlimited,omitempty"`
	Commitment *Commitment `json:"commitment,omitempty"`
	// Then is the plan that the account goes to, on the terms on sale by then, when the contract ends.
	Then Code `json:"then,omitempty"`
}

// Commitment is spending that an account has agreed to. Usage counts against it at the prices of the
// version; what is missing is billed as a true-up, what is beyond is overage.
type Commitment struct {
	// Steps ramp the commitment; the step in force is the last whose From is not after the start of
	// the period.
	Steps []Step `json:"steps"`
	// Term says that a step's sum is for the whole time to the next step (or the contract's end),
	// with one true-up in the last period of that time, and not for each period. Such a contract has an end.
	Term bool `json:"term,omitempty"`
	// Prepaid says that a step's sum is billed when the step begins. Usage then draws on it until it is
	// spent or the next step begins (or the contract ends); what is left then is not given back.
	Prepaid bool `json:"prepaid,omitempty"`
	// OverageRate is what usage beyond the commitment costs, in percent of the price: 120. Zero
	// means 100. It applies to commitments per period.
	OverageRate money.Decimal `json:"overage_rate,omitzero"`
}

// Step is one stage of a ramped commitment.
type Step struct {
	From time.Time `json:"from"`
	Sums Sums      `json:"sums"`
}

// In returns the step in force in a period that starts at t.
func (c *Commitment) In(t time.Time) (Step, bool) {
	for _, v := range slices.Backward(c.Steps) {
		if !t.Before(v.From) {
			return v, true
		}
	}
	return Step{}, false
}

// Begins reports whether a step that is prepaid begins with the period from start. before is the start of
// the last period, and zero if that was not under the contract.
func (c *Commitment) Begins(start, before time.Time) bool {
	step, ok := c.In(start)
	last, had := c.In(before)
	return c.Prepaid && ok && (before.IsZero() || !had || !last.From.Equal(step.From))
}

// InForce reports whether the contract holds for a period that starts at t.
func (c *Contract) InForce(t time.Time) bool {
	return !t.Before(c.Start) && (c.End.IsZero() || t.Before(c.End))
}

// Apply returns the version as the contract changes it. The version given is left alone.
func (c *Contract) Apply(v Version) (Version, error) {
	if c.Plan != v.Plan || c.Version != v.Number {
		return Version{}, ErrContractMismatch.Details("The contract %s is on version %d of %s, not on version %d of %s.",
			c.Reference, c.Version, c.Plan, v.Number, v.Plan)
	}
	if c.Fee != nil {
		v.Fee = c.Fee
	}
	if c.Credit != nil {
		v.Credit = c.Credit
	}
	if c.Minimum != nil {
		v.Minimum = c.Minimum
	}
	v.Charges = replace(v.Charges, c.Charges, func(a Charge) string { return a.Code })
	v.Limits = replace(v.Limits, c.Limits, func(l Limit) string { return string(l.Meter) })
	if len(c.Unlimited) > 0 {
		kept := make([]Limit, 0, len(v.Limits))
		for _, l := range v.Limits {
			if !slices.Contains(c.Unlimited, l.Meter) {
				kept = append(kept, l)
			}
		}
		v.Limits = kept
	}
	v.Currencies = currenciesOf(&v)
	return v, nil
}

func replace[T any](base, over []T, key func(T) string) []T {
	out := append(make([]T, 0, len(base)+len(over)), base...)
next:
	for _, o := range over {
		for i := range out {
			if key(out[i]) == key(o) {
				out[i] = o
				continue next
			}
		}
		out = append(out, o)
	}
	return out
}

// currenciesOf lists the currencies in which the version has prices, in order of appearance.
func currenciesOf(v *Version) []money.Currency {
	var out []money.Currency
	add := func(c money.Currency) {
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	if v.Fee != nil {
		for _, a := range v.Fee.Prices {
			add(a.Currency)
		}
	}
	for i := range v.Charges {
		for j := range v.Charges[i].Prices {
			add(v.Charges[i].Prices[j].Currency)
		}
	}
	return out
}
