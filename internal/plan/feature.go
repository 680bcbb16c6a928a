package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/accrue-billing/accrue/pkg/money"
)

// FeatureKind says what a feature is about.
type FeatureKind string

// The kinds of features, in the order in which they are listed.
const (
	FeatureFee      FeatureKind = "fee"
	FeatureCredit   FeatureKind = "credit"   // usage that the fee covers
	FeatureMinimum  FeatureKind = "minimum"  // the least that usage is billed at
	FeatureIncluded FeatureKind = "included" // an allowance
	FeaturePrice    FeatureKind = "price"
	FeatureLimit    FeatureKind = "limit"
	FeatureCard     FeatureKind = "card"
	FeatureSales    FeatureKind = "contact_sales"
)

// Feature is one thing to say of a plan on a pricing page, in words and in figures.
type Feature struct {
	Kind     FeatureKind
	Name     string         // of the charge or the meter that it is about; empty: of the plan as a whole
	Meter    MeterCode      // empty: no single one
	Quantity money.Decimal  // an allowance or a limit, in Unit
	Unit     string         // the one that prices are quoted in
	Currency money.Currency // of a sum of money; empty: the same in all
	Text     string         // in English
}

// Features says what a plan offers on the terms of a version, which is nil where sales agree them.
func Features(p Plan, v *Version, meters []Meter) []Feature {
	var out []Feature
	if p.ContactSales {
		out = append(out, Feature{Kind: FeatureSales, Text: "Prices, limits and terms by agreement"})
	}
	if v == nil {
		return out
	}
	l := lister{v: v, meters: meters}
	l.sums()
	for i := range v.Charges {
		l.charge(&v.Charges[i])
	}
	for _, limit := range v.Limits {
		l.limit(limit)
	}
	out = append(l.out, out...)
	switch {
	case p.RequiresCard:
		out = append(out, Feature{Kind: FeatureCard, Text: "Credit card required"})
	case !p.ContactSales:
		out = append(out, Feature{Kind: FeatureCard, Text: "No credit card required"})
	}
	return out
}

// lister writes the features of one version.
type lister struct {
	v      *Version
	meters []Meter
	out    []Feature
}

func (l *lister) sums() {
	each := func(kind FeatureKind, name, format string, sums Sums) {
		for _, s := range sums {
			l.out = append(l.out, Feature{
				Kind: kind, Name: name, Currency: s.Currency, Text: fmt.Sprintf(format, s.Currency.Display(s.Decimal()), l.v.Interval),
			})
		}
	}
	if l.v.Fee != nil {
		each(FeatureFee, l.v.Fee.Name, "%s per %s", l.v.Fee.Prices)
	}
	each(FeatureCredit, "", "%s of usage included per %s", l.v.Credit)
	each(FeatureMinimum, "", "At least %s of usage per %s", l.v.Minimum)
}

func (l *lister) charge(c *Charge) {
	if c.Percent != nil {
		l.out = append(l.out, Feature{Kind: FeaturePrice, Name: c.Name, Text: fmt.Sprintf("%s: %s%% of %s", c.Name, c.Percent.Rate, l.named(c.Percent.Of))})
		return
	}
	unit := unitOf(c)
	if !c.Included.IsZero() || len(c.Prices) == 0 {
		quantity := c.Included.Quo(c.Per.Divisor())
		f := Feature{Kind: FeatureIncluded, Name: c.Name, Meter: c.Meter, Quantity: quantity, Unit: unit}
		switch {
		case c.Included.IsZero():
			f.Text = c.Name + ": free"
		case len(c.Prices) == 0 && l.v.Fee == nil:
			f.Text = fmt.Sprintf("%s: %s per %s, free", c.Name, count(quantity, unit), l.v.Interval)
		default:
			f.Text = fmt.Sprintf("%s: %s included per %s", c.Name, count(quantity, unit), l.v.Interval)
		}
		l.out = append(l.out, f)
	}
	for i := range c.Prices {
		l.out = append(l.out, Feature{
			Kind: FeaturePrice, Name: c.Name, Meter: c.Meter, Unit: unit, Currency: c.Prices[i].Currency,
			Text: c.Name + ": " + l.price(c, &c.Prices[i]),
		})
	}
}

// limit says where usage stops, unless the allowance has said so.
func (l *lister) limit(limit Limit) {
	m, ok := meterOf(l.meters, limit.Meter)
	if !ok {
		m = Meter{Code: limit.Meter, Name: string(limit.Meter)}
	}
	per := Quote{Unit: m.Unit}
	for i := range l.v.Charges {
		c := &l.v.Charges[i]
		if c.Meter != limit.Meter {
			continue
		}
		if len(c.Prices) == 0 && len(c.Match) == 0 && limit.Mode == Hard && c.Included.Cmp(limit.Quantity) == 0 {
			return
		}
		if !c.Per.IsZero() {
			per = c.Per
		}
	}
	quantity := limit.Quantity.Quo(per.Divisor())
	f := Feature{Kind: FeatureLimit, Name: m.Name, Meter: m.Code, Quantity: quantity, Unit: per.Unit}
	switch {
	case m.Reserved:
		f.Text = fmt.Sprintf("%s: %s at a time", m.Name, quantity.Grouped())
	case limit.Mode == Soft:
		f.Text = fmt.Sprintf("%s: fair use up to %s per %s", m.Name, count(quantity, per.Unit), l.v.Interval)
	default:
		f.Text = fmt.Sprintf("%s: at most %s per %s", m.Name, count(quantity, per.Unit), l.v.Interval)
	}
	l.out = append(l.out, f)
}

// price says what a charge costs in one currency.
func (l *lister) price(c *Charge, p *Price) string {
	each := func(unitPrice money.Decimal, flat *money.Amount) string {
		per := p.Currency.Display(unitPrice) + " per " + unitOf(c)
		switch {
		case flat == nil:
			return per
		case unitPrice.IsZero():
			return p.Currency.Display(flat.Decimal())
		}
		return p.Currency.Display(flat.Decimal()) + " and " + per
	}
	var text string
	switch p.Model {
	case PerUnit:
		text = each(p.UnitPrice, nil)
	case Package:
		text = fmt.Sprintf("%s per started %s", p.Currency.Display(p.UnitPrice), count(p.Package, c.Unit))
	case Graduated, Volume:
		parts := make([]string, 0, len(p.Tiers))
		for _, t := range p.Tiers {
			part := each(t.UnitPrice, t.Flat)
			switch {
			case !t.UpTo.IsZero():
				part += " up to " + count(t.UpTo.Quo(c.Per.Divisor()), unitOf(c))
			case len(p.Tiers) > 1:
				part = "then " + part
			}
			parts = append(parts, part)
		}
		if text = strings.Join(parts, ", "); p.Model == Volume && len(parts) > 1 {
			text += ", by the total"
		}
	}
	if p.Minimum != nil {
		text += fmt.Sprintf(", at least %s per %s", p.Currency.Display(p.Minimum.Decimal()), l.v.Interval)
	}
	if p.Maximum != nil {
		text += fmt.Sprintf(", at most %s per %s", p.Currency.Display(p.Maximum.Decimal()), l.v.Interval)
	}
	return text
}

// named are the names of charges, and of all usage where there are none.
func (l *lister) named(codes []string) string {
	if len(codes) == 0 {
		return "all usage"
	}
	var names []string
	for i := range l.v.Charges {
		if slices.Contains(codes, l.v.Charges[i].Code) {
			names = append(names, l.v.Charges[i].Name)
		}
	}
	return strings.Join(names, " and ")
}

func meterOf(meters []Meter, code MeterCode) (Meter, bool) {
	for _, m := range meters {
		if m.Code == code {
			return m, true
		}
	}
	return Meter{}, false
}

// unitOf is the unit that the prices of a charge are quoted in.
func unitOf(c *Charge) string {
	if c.Per.IsZero() {
		return c.Unit
	}
	return c.Per.Unit
}

// count writes a quantity with its unit.
func count(n money.Decimal, unit string) string {
	if single, ok := strings.CutPrefix(unit, "thousand "); ok {
		n, unit = n.Mul(money.DecimalFromInt(1000)), single
	}
	if n.Cmp(money.DecimalFromInt(1)) != 0 {
		unit = Plural(unit)
	}
	return strings.TrimSpace(n.Grouped() + " " + unit)
}

// Plural is the plural of a unit, which a catalogue gives in the singular.
func Plural(unit string) string {
	switch {
	case unit == "" || strings.HasSuffix(unit, "s"):
		return unit
	case strings.HasSuffix(unit, "erion"):
		return strings.TrimSuffix(unit, "on") + "a" // criteria
	case strings.HasSuffix(unit, "y") && !strings.HasSuffix(unit, "ay") && !strings.HasSuffix(unit, "ey"):
		return strings.TrimSuffix(unit, "y") + "ies" // queries
	}
	return unit + "s"
}
