package pricing

import (
	"cmp"
	"slices"

	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Month is one period of real usage.
type Month struct {
	Period period.Bounds
	Usage  []Usage
}

// Comparison is the same usage under several plans.
type Comparison struct {
	Plans      []Fitting   `json:"plans"`
	Cheapest   plan.Code   `json:"cheapest,omitempty"` // of those that would have taken all usage; empty: none would
	BreakEvens []BreakEven `json:"break_evens"`
}

// Fitting is what the usage would have cost on one plan.
type Fitting struct {
	Plan    plan.Code      `json:"plan"`
	Version int            `json:"version"`
	Months  []money.Amount `json:"months"`
	Total   money.Amount   `json:"total"`
	Blocked []Blocked      `json:"blocked"` // usage that a hard limit would have refused
}

// Blocked is a month in which a hard limit would have stopped usage.
type Blocked struct {
	Month    int            `json:"month"` // its place among the months, from 0
	Meter    plan.MeterCode `json:"meter"`
	Quantity money.Decimal  `json:"quantity"`
	Limit    money.Decimal  `json:"limit"`
}

// BreakEven is a quantity of one meter per period from which To is the better plan, with the other
// meters as in the average month.
type BreakEven struct {
	Meter    plan.MeterCode `json:"meter"`
	From     plan.Code      `json:"from"`
	To       plan.Code      `json:"to"`
	Quantity money.Decimal  `json:"quantity"` // in whole units of the meter
	Reason   Reason         `json:"reason"`
}

// Reason says why a plan is the better one.
type Reason string

// The reasons.
const (
	Cheaper Reason = "price" // it costs less
	Limited Reason = "limit" // the other one stops here
)

// Fit prices months of usage under every version, and finds where one plan becomes better than
// another. Hard limits are looked at over all dimensions of a meter; reserved meters are not.
func Fit(months []Month, versions []plan.Version, cur money.Currency) (Comparison, error) {
	var c Comparison
	for i := range versions {
		f, err := Under(months, &versions[i], cur)
		if err != nil {
			return Comparison{}, err
		}
		c.Plans = append(c.Plans, f)
	}
	best := -1
	for i := range c.Plans {
		if len(c.Plans[i].Blocked) == 0 && (best < 0 || c.Plans[i].Total.Minor < c.Plans[best].Total.Minor) {
			best, c.Cheapest = i, c.Plans[i].Plan
		}
	}
	average := averageOf(months)
	for _, meter := range metersOf(months, versions) {
		for i := range versions {
			for j := i + 1; j < len(versions); j++ {
				found, err := breakEvens(meter, average, &versions[i], &versions[j], cur)
				if err != nil {
					return Comparison{}, err
				}
				c.BreakEvens = append(c.BreakEvens, found...)
			}
		}
	}
	return c, nil
}

// Agreed prices months of usage under a version and a contract on it, as if the contract had been in force
// in each of them; without a contract it is Under. A commitment for each period counts with the step of
// the month or, before the first, with the first step. One for a term does not: no month is its last.
func Agreed(months []Month, v *plan.Version, c *plan.Contract, cur money.Currency) (Fitting, error) {
	if c == nil {
		return Under(months, v, cur)
	}
	applied, err := c.Apply(*v)
	if err != nil {
		return Fitting{}, err
	}
	f, err := Under(months, &applied, cur)
	if err != nil || c.Commitment == nil {
		return f, err
	}
	f.Total = money.Zero(cur)
	for i, m := range months {
		as, agreed := *c, *c.Commitment
		step, ok := agreed.In(m.Period.Start)
		if !ok {
			step = agreed.Steps[0]
		}
		step.From = m.Period.Start
		agreed.Steps = []plan.Step{step}
		as.Start, as.End, as.Commitment = m.Period.Start, m.Period.End, &agreed
		if f.Months[i], err = Accrued(Input{Version: *v, Contract: &as, Currency: cur, Period: m.Period, Usage: m.Usage}); err != nil {
			return f, err
		}
		if f.Total, err = f.Total.Add(f.Months[i]); err != nil {
			return f, refine(err)
		}
	}
	return f, nil
}

// Under prices months of usage under one version.
func Under(months []Month, v *plan.Version, cur money.Currency) (Fitting, error) {
	f := Fitting{Plan: v.Plan, Version: v.Number, Total: money.Zero(cur)}
	for i, m := range months {
		a, err := Accrued(Input{Version: *v, Currency: cur, Period: m.Period, Usage: m.Usage})
		if err != nil {
			return f, err
		}
		f.Months = append(f.Months, a)
		if f.Total, err = f.Total.Add(a); err != nil {
			return f, refine(err)
		}
		for _, l := range v.Limits {
			if q := quantityOf(m.Usage, l.Meter); l.Mode == plan.Hard && q.Cmp(l.Quantity) > 0 {
				f.Blocked = append(f.Blocked, Blocked{Month: i, Meter: l.Meter, Quantity: q, Limit: l.Quantity})
			}
		}
	}
	return f, nil
}

func quantityOf(usage []Usage, m plan.MeterCode) money.Decimal {
	var sum money.Decimal
	for i := range usage {
		if usage[i].Meter == m {
			sum = sum.Add(usage[i].Quantity)
		}
	}
	return sum
}

// averageOf returns the average month, in whole units; series keep their dimensions.
func averageOf(months []Month) []Usage {
	var out []Usage
	for _, m := range months {
	next:
		for _, u := range m.Usage {
			for i := range out {
				if out[i].Meter == u.Meter && sameDimensions(out[i].Dimensions, u.Dimensions) {
					out[i].Quantity = out[i].Quantity.Add(u.Quantity)
					continue next
				}
			}
			out = append(out, Usage{Meter: u.Meter, Dimensions: u.Dimensions, Quantity: u.Quantity})
		}
	}
	n := money.DecimalFromInt(int64(max(1, len(months))))
	for i := range out {
		if whole, err := out[i].Quantity.CeilDiv(n); err == nil {
			out[i].Quantity = money.DecimalFromInt(whole)
		}
	}
	return out
}

func sameDimensions(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// metersOf lists the meters that were used or that a version prices, in the order of appearance.
func metersOf(months []Month, versions []plan.Version) []plan.MeterCode {
	var out []plan.MeterCode
	add := func(m plan.MeterCode) {
		if m != "" && !slices.Contains(out, m) {
			out = append(out, m)
		}
	}
	for i := range versions {
		for j := range versions[i].Charges {
			add(versions[i].Charges[j].Meter)
		}
	}
	for _, m := range months {
		for _, u := range m.Usage {
			add(u.Meter)
		}
	}
	return out
}

// breakEvens finds where the better of two plans changes with the quantity of one meter.
func breakEvens(meter plan.MeterCode, average []Usage, a, b *plan.Version, cur money.Currency) ([]BreakEven, error) {
	var out []BreakEven
	la, lb := hardLimit(a, meter), hardLimit(b, meter)
	switch {
	case la > 0 && (lb == 0 || la < lb):
		out = append(out, BreakEven{meter, a.Plan, b.Plan, money.DecimalFromInt(la), Limited})
	case lb > 0 && (la == 0 || lb < la):
		out = append(out, BreakEven{meter, b.Plan, a.Plan, money.DecimalFromInt(lb), Limited})
	}
	// Past the lower limit the prices are no longer an alternative.
	end := int64(0)
	for _, l := range [...]int64{la, lb} {
		if l > 0 && (end == 0 || l < end) {
			end = l
		}
	}
	difference := func(q int64) (int, error) {
		usage := make([]Usage, 0, len(average)+1)
		for _, u := range average {
			if u.Meter != meter {
				usage = append(usage, u)
			}
		}
		usage = append(usage, Usage{Meter: meter, Quantity: money.DecimalFromInt(q)})
		x, err := Accrued(Input{Version: *a, Currency: cur, Usage: usage})
		if err != nil {
			return 0, err
		}
		y, err := Accrued(Input{Version: *b, Currency: cur, Usage: usage})
		return cmp.Compare(y.Minor, x.Minor), err
	}
	// Between two points of the tables the difference of the totals is a straight line (but for
	// rounding), so that a change of its sign is found by halving.
	was, low := 0, int64(0)
	for _, q := range points(meter, average, a, b, end) {
		sign, err := difference(q)
		if err != nil {
			return nil, err
		}
		if sign != 0 && was != 0 && sign != was {
			lo, hi := low, q // the sign at lo is not that of hi
			for hi-lo > 1 {
				mid := lo + (hi-lo)/2
				s, err := difference(mid)
				if err != nil {
					return nil, err
				}
				if s == sign {
					hi = mid
				} else {
					lo = mid
				}
			}
			e := BreakEven{meter, a.Plan, b.Plan, money.DecimalFromInt(hi), Cheaper}
			if sign > 0 {
				e.From, e.To = e.To, e.From
			}
			out = append(out, e)
		}
		if sign != 0 {
			was = sign
		}
		low = q
	}
	return out, nil
}

func hardLimit(v *plan.Version, m plan.MeterCode) int64 {
	l, ok := v.Limit(m)
	if !ok || l.Mode != plan.Hard {
		return 0
	}
	n, err := l.Quantity.CeilDiv(money.DecimalFromInt(1))
	if err != nil {
		return 0
	}
	return n
}

// points lists the quantities at which the slope of either total may change, from 0 to end; without
// an end, to ten times the largest.
func points(meter plan.MeterCode, average []Usage, a, b *plan.Version, end int64) []int64 {
	const most = 1_000_000_000_000
	out := []int64{0, 1}
	add := func(d money.Decimal) {
		if n, err := d.CeilDiv(money.DecimalFromInt(1)); err == nil && n <= most {
			out = append(out, n, n+1)
		}
	}
	add(quantityOf(average, meter))
	for _, v := range [...]*plan.Version{a, b} {
		for i := range v.Charges {
			c := &v.Charges[i]
			if c.Meter != meter {
				continue
			}
			add(c.Included)
			for _, p := range c.Prices {
				for _, t := range p.Tiers {
					add(t.UpTo)
				}
			}
		}
	}
	slices.Sort(out)
	if end == 0 {
		end = max(10*out[len(out)-1], 1_000_000)
	}
	out = append(out, end)
	slices.Sort(out)
	return slices.DeleteFunc(slices.Compact(out), func(n int64) bool { return n > end })
}
