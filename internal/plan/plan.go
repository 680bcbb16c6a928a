// Package plan is the catalogue of what can be bought.
//
// It owns: meters, plans, the immutable versions of a plan (fee, charges, prices, limits), contracts
// that override a version for one account, and the reading of a catalogue from YAML or JSON with
// every fault named. It does not own: who is on which plan (subscription), how much was used
// (metering), or what that costs (pricing).
//
// Always true: a published version never changes, and its hash says so; a sum of money in it (fee,
// minimum, commitment) is whole minor units; a unit price has at most 9 decimals; quantities are in
// the unit of the meter, whatever unit the price is quoted in; tiers rise without gap or overlap and
// the last has no end.
package plan

import (
	"math/big"
	"strings"
	"time"

	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Code names a plan: "developer", "pro".
type Code string

// MeterCode names a meter: "voice", "text".
type MeterCode string

// The plans of the shipped catalogue.
const (
	Developer  Code = "developer"
	Pro        Code = "pro"
	Enterprise Code = "enterprise"
)

// Plan is something that an account can be on. Its prices are in its versions.
type Plan struct {
	Code         Code   `json:"code"`
	Name         string `json:"name"`
	Description  string `json:"description,omitempty"`
	RequiresCard bool   `json:"requires_card"`
	ContactSales bool   `json:"contact_sales"` // not for self-service; prices come with a contract
	Archived     bool   `json:"archived,omitempty"`
	Position     int    `json:"position"` // its place in the catalogue, from 0
}

// Aggregation says how the events of a period become its quantity.
type Aggregation string

// The aggregations. Sum, Count and Unique never depend on the order of events; Max and Last go by
// event time, then by event id.
const (
	Sum    Aggregation = "sum"    // of the quantities
	Count  Aggregation = "count"  // of the events, whatever their quantity
	Max    Aggregation = "max"    // the largest quantity
	Last   Aggregation = "last"   // the latest quantity
	Unique Aggregation = "unique" // the number of distinct values of the event's key
)

// Valid reports whether a is one of the aggregations.
func (a Aggregation) Valid() bool {
	switch a {
	case Sum, Count, Max, Last, Unique:
		return true
	}
	return false
}

// Bounds on a meter.
const (
	MaxDimensions    = 5
	DefaultSeriesCap = 1000
	MaxSeriesCap     = 100_000
)

// Meter is a quantity that events report and prices refer to.
type Meter struct {
	Code        MeterCode   `json:"code"`
	Name        string      `json:"name"`
	Unit        string      `json:"unit"` // in the singular: "second"
	Aggregation Aggregation `json:"aggregation"`
	// Dimensions are the event attributes that usage is kept apart by, at most MaxDimensions. Beyond
	// SeriesCap distinct combinations in a period, usage goes to the series "other".
	Dimensions []string `json:"dimensions,omitempty"`
	SeriesCap  int      `json:"series_cap"`
	// Units are the larger units that prices may be quoted in, as multiples of Unit.
	Units []Quote `json:"units,omitempty"`
	// Rounding applies to each event as it is taken in. The zero Rounding leaves quantities alone.
	Rounding Rounding `json:"rounding,omitzero"`
	// Reserved says that the quantity is the number of open reservations: there are no events on
	// this meter, and it can be limited but not priced.
	Reserved bool `json:"reserved,omitempty"`
}

// Rounding rounds the quantity of one event up, as telephony does: a call of 61 s by 60/6 counts 66.
type Rounding struct {
	First money.Decimal `json:"first,omitzero"` // the least that an event counts, once it counts at all
	Step  money.Decimal `json:"step,omitzero"`  // what is beyond First counts in multiples of this
}

// IsZero reports whether nothing is rounded.
func (r Rounding) IsZero() bool { return r.First.IsZero() && r.Step.IsZero() }

// Quote is a unit that prices are quoted in: Size units of the meter are one Unit.
type Quote struct {
	Unit string `json:"unit"` // "minute", "1,000 characters"
	Size int64  `json:"size"`
}

// IsZero reports whether the price is quoted in the unit of the meter.
func (q Quote) IsZero() bool { return q.Size == 0 }

// Divisor returns the size of the quoted unit, and 1 where the price is quoted in the meter's own.
func (q Quote) Divisor() int64 {
	if q.Size == 0 {
		return 1
	}
	return q.Size
}

// Version is one state of a plan's terms. It is immutable once published; an account stays on the
// version that it bought until it is migrated.
type Version struct {
	Plan       Code             `json:"plan"`
	Number     int              `json:"number"` // from 1, and 0 before it is published
	Interval   period.Interval  `json:"interval"`
	Currencies []money.Currency `json:"currencies,omitempty"` // each price exists in all of these; none: nothing is priced
	Fee        *Fee             `json:"fee,omitempty"`
	Credit     Sums             `json:"credit,omitempty"`  // usage that the fee covers, per period
	Minimum    Sums             `json:"minimum,omitempty"` // the least that usage is billed at, per period
	Charges    []Charge         `json:"charges,omitempty"`
	Limits     []Limit          `json:"limits,omitempty"`

	Hash        string    `json:"-"` // of the terms; see Version.ContentHash. Set by Parse and by stores
	PublishedAt time.Time `json:"-"`
	ArchivedAt  time.Time `json:"-"` // zero while the version may be bought
}

// Every is the interval by which the version is billed: a month, unless it says otherwise.
func (v Version) Every() period.Interval {
	if v.Interval == "" {
		return period.Month
	}
	return v.Interval
}

// Fee is a flat sum per period.
type Fee struct {
	Name   string `json:"name"`
	Prices Sums   `json:"prices"`
}

// Charge is one priced component of a version: a line of the invoice.
type Charge struct {
	Code string `json:"code"` // unique in the version
	Name string `json:"name"` // as the invoice prints it

	// Meter is what is priced, and empty where Percent is. Unit and Aggregation are the meter's,
	// repeated here so that a version explains itself.
	Meter       MeterCode   `json:"meter,omitempty"`
	Unit        string      `json:"unit,omitempty"`
	Aggregation Aggregation `json:"aggregation,omitempty"`

	// Match narrows the charge to series with these dimensions; a value that ends in "*" matches by
	// prefix. Of several charges that match, the one with more dimensions wins, then the one with
	// more literal characters.
	Match map[string]string `json:"match,omitempty"`

	Per      Quote         `json:"per,omitzero"`      // what Prices are quoted in
	Step     money.Decimal `json:"step,omitzero"`     // the period's quantity is rounded up to a multiple of this
	Included money.Decimal `json:"included,omitzero"` // the allowance: not billed, but counted in the tiers
	Prices   []Price       `json:"prices,omitempty"`  // one per currency; none: usage beyond the allowance is never billed

	Percent *Percent `json:"percent,omitempty"`
}

// Percent is a charge in proportion to other lines.
type Percent struct {
	Rate money.Decimal `json:"rate"`         // in percent: 12.5
	Of   []string      `json:"of,omitempty"` // codes of charges; none: every usage charge
}

// Model says how units become money.
type Model string

// The price models. All of them price what exceeds the allowance.
const (
	PerUnit   Model = "per_unit"  // UnitPrice for each quoted unit, exactly pro rata
	Package   Model = "package"   // UnitPrice for each started Package
	Graduated Model = "graduated" // each unit at the price of the tier that it lies in
	Volume    Model = "volume"    // every unit at the price of the tier that the total lies in
)

// Price is what a charge costs in one currency.
type Price struct {
	Currency  money.Currency `json:"currency"`
	Model     Model          `json:"model"`
	UnitPrice money.Decimal  `json:"unit_price,omitzero"` // in major units, for one quoted unit or package
	Package   money.Decimal  `json:"package,omitzero"`    // units of the meter in a package
	Tiers     []Tier         `json:"tiers,omitempty"`
	Minimum   *money.Amount  `json:"minimum,omitempty"` // the least that this charge costs in a period
	Maximum   *money.Amount  `json:"maximum,omitempty"` // the most
}

// Tier is a range of the period's total quantity, allowance included: from the end of the tier
// before, exclusive, to UpTo, inclusive.
type Tier struct {
	UpTo      money.Decimal `json:"up_to,omitzero"` // in units of the meter; 0: without end
	UnitPrice money.Decimal `json:"unit_price"`     // in major units, for one quoted unit
	Flat      *money.Amount `json:"flat,omitempty"` // once, when a billable unit lies in the tier
}

// Mode says what happens at a limit.
type Mode string

// The modes of a limit.
const (
	Hard Mode = "hard" // an event that passes the limit is refused whole
	Soft Mode = "soft" // it is counted and flagged
)

// Limit bounds the quantity of a meter in one period (or, for a reserved meter, at any time).
type Limit struct {
	Meter    MeterCode     `json:"meter"`
	Quantity money.Decimal `json:"quantity"` // in the unit of the meter
	Mode     Mode          `json:"mode"`
}

// Sums is a sum of money in each of several currencies.
type Sums []money.Amount

// In returns the sum in currency c.
func (s Sums) In(c money.Currency) (money.Amount, bool) {
	for _, a := range s {
		if a.Currency == c {
			return a, true
		}
	}
	return money.Zero(c), false
}

// Price returns the charge's price in currency c.
func (c *Charge) Price(cur money.Currency) (*Price, bool) {
	for i := range c.Prices {
		if c.Prices[i].Currency == cur {
			return &c.Prices[i], true
		}
	}
	return nil, false
}

// Limit returns the limit on a meter.
func (v *Version) Limit(m MeterCode) (Limit, bool) {
	for _, l := range v.Limits {
		if l.Meter == m {
			return l, true
		}
	}
	return Limit{}, false
}

// Included returns the allowance of a meter over all its charges.
func (v *Version) Included(m MeterCode) money.Decimal {
	var sum money.Decimal
	for i := range v.Charges {
		if v.Charges[i].Meter == m {
			sum = sum.Add(v.Charges[i].Included)
		}
	}
	return sum
}

// Priced reports whether anything in the version can cost money.
func (v *Version) Priced() bool { return len(v.Currencies) > 0 }

// maxLine is what a period's use of one meter may come to, in minor units: a hundredth of money.MaxMinor, so that a bill with
// several meters, with what came late for other periods, percentages and tax on it, has room below that.
const maxLine = money.MaxMinor / 100

// MaxQuantities returns, by meter, the greatest power of ten of a period's use that stays within the range of amounts at the
// dearest price. Meters that are not in it have no price, or none that could leave the range.
func (v *Version) MaxQuantities(cur money.Currency) map[MeterCode]money.Decimal {
	out := map[MeterCode]money.Decimal{}
	for i := range v.Charges {
		c := &v.Charges[i]
		p, ok := c.Price(cur)
		if !ok || c.Meter == "" {
			continue
		}
		most, bounded := p.maxQuantity(c.Per.Divisor())
		if least, ok := out[c.Meter]; bounded && (!ok || most.Cmp(least) < 0) {
			out[c.Meter] = most
		}
	}
	return out
}

func (p *Price) maxQuantity(divisor int64) (money.Decimal, bool) {
	dearest, per := p.UnitPrice, money.DecimalFromInt(divisor)
	if p.Model == Package {
		per = p.Package
	}
	for i := range p.Tiers {
		if p.Tiers[i].UnitPrice.Cmp(dearest) > 0 {
			dearest = p.Tiers[i].UnitPrice
		}
	}
	if dearest.Sign() <= 0 {
		return dearest, false
	}
	units := new(big.Rat).Quo(per.Rat(), dearest.Rat())
	for range p.Currency.Exponent() {
		units.Quo(units, big.NewRat(10, 1))
	}
	units.Mul(units, big.NewRat(maxLine, 1))
	digits := len(new(big.Int).Quo(units.Num(), units.Denom()).String())
	if digits > money.MaxIntegerDigits {
		return dearest, false
	}
	return money.MustDecimal("1" + strings.Repeat("0", digits-1)), true
}
