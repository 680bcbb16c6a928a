package plan

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/accrue-billing/accrue/pkg/money"
)

func itoa(i int) string { return strconv.Itoa(i) }

// charges reads the charges of one version, and then what only shows between them.
func (r *terms) charges(o object) []Charge {
	items := o.list("charges")
	out := make([]Charge, 0, len(items))
	ptrs := make([]string, 0, len(items))
	r.codes = map[string]bool{}
	for _, it := range items {
		c, ok := r.charge(it)
		if !ok {
			continue
		}
		if r.codes[c.Code] {
			r.fault(at(it.ptr, "code"), "duplicate", "The version has a charge "+c.Code+" already; charges on one meter need codes of their own.")
		}
		r.codes[c.Code] = true
		out = append(out, c)
		ptrs = append(ptrs, it.ptr)
	}
	all, places := out, ptrs
	for _, c := range r.base { // what a contract leaves in place
		if !r.codes[c.Code] {
			all, places = append(all, c), append(places, at(o.ptr, "charges"))
		}
	}
	r.betweenCharges(all, places)
	if len(out) == 0 {
		return nil
	}
	return out
}

func (r *terms) charge(it item) (Charge, bool) {
	o, ok := r.object(it, "code", "name", "meter", "match", "per", "step", "included", "prices", "percent")
	if !ok {
		return Charge{}, false
	}
	c := Charge{Code: o.code("code"), Name: o.text("name")}
	if o.has("percent") {
		return r.percent(o, c)
	}
	if !o.require("meter") {
		return Charge{}, false
	}
	m, ok := r.meter(MeterCode(o.text("meter")))
	switch {
	case !ok:
		r.fault(at(o.ptr, "meter"), "unknown_meter", "There is no such meter.")
		return Charge{}, false
	case m.Reserved:
		r.fault(at(o.ptr, "meter"), "reserved_meter", "A meter that counts open reservations cannot be priced.")
	}
	c.Meter, c.Unit, c.Aggregation = m.Code, m.Unit, m.Aggregation
	if c.Code == "" {
		c.Code = string(m.Code)
	}
	if c.Name == "" {
		c.Name = m.Name
	}
	if o.has("per") {
		c.Per = r.quote(o.at("per"), m)
	}
	if o.has("step") {
		c.Step = r.inMeterUnit(o.at("step"), c.Per)
		if c.Step.IsZero() {
			r.fault(at(o.ptr, "step"), "step", "A step must be more than 0.")
		}
	}
	if o.has("included") {
		c.Included = r.inMeterUnit(o.at("included"), c.Per)
	}
	if o.has("match") {
		c.Match = r.match(o.at("match"), m)
	}
	if o.has("prices") {
		c.Prices = r.prices(o.at("prices"), &c)
	}
	return c, true
}

func (r *terms) percent(o object, c Charge) (Charge, bool) {
	for _, key := range []string{"meter", "match", "per", "step", "included", "prices"} {
		if o.has(key) {
			r.fault(at(o.ptr, key), "percent", "A percentage of other charges has neither meter nor prices.")
		}
	}
	o.require("code")
	p, ok := r.object(o.at("percent"), "rate", "of")
	if !ok || !p.require("rate") {
		return c, false
	}
	c.Percent = &Percent{Rate: p.decimal("rate")}
	if most := money.DecimalFromInt(1000); c.Percent.Rate.Cmp(most) > 0 {
		r.fault(at(p.ptr, "rate"), "rate", "A percentage is at most 1000.")
	}
	for _, of := range p.list("of") {
		c.Percent.Of = append(c.Percent.Of, r.text(of))
	}
	if c.Name == "" {
		c.Name = c.Code
	}
	return c, true
}

func (r *terms) match(it item, m Meter) map[string]string {
	keys, vals, ok := r.entries(it)
	if !ok {
		return nil
	}
	out := make(map[string]string, len(keys))
	for i, k := range keys {
		v := r.text(vals[i])
		switch {
		case !slices.Contains(m.Dimensions, k):
			r.fault(vals[i].ptr, "unknown_dimension", "The meter "+string(m.Code)+" has no such dimension.")
		case v == "" || strings.Contains(strings.TrimSuffix(v, "*"), "*"):
			r.fault(vals[i].ptr, "pattern", "Want a value, or the beginning of one and a final *.")
		default:
			out[k] = v
		}
	}
	if len(keys) == 0 {
		r.fault(it.ptr, "match", "A match names at least one dimension.")
	}
	return out
}

// betweenCharges notes percentages of nothing, matches that tie, and usage that no charge takes.
func (r *terms) betweenCharges(charges []Charge, ptrs []string) {
	for i := range charges {
		c := &charges[i]
		if c.Percent != nil {
			for k, of := range c.Percent.Of {
				j := slices.IndexFunc(charges, func(x Charge) bool { return x.Code == of })
				if j < 0 || charges[j].Percent != nil {
					r.fault(ptrs[i]+"/percent/of/"+itoa(k), "unknown_charge", "Want the code of a charge on a meter in this version.")
				}
			}
			continue
		}
		caught := false
		for j := range charges {
			d := &charges[j]
			if d.Meter != c.Meter {
				continue
			}
			caught = caught || len(d.Match) == 0
			if j < i && ties(c.Match, d.Match) {
				r.fault(ptrs[i]+"/match", "ambiguous", "There is usage that this charge and "+d.Code+" match equally well.")
			}
		}
		if !caught {
			r.fault(ptrs[i]+"/match", "gap", "Usage of "+string(c.Meter)+" that no match takes has no price; add a charge without a match.")
		}
	}
}

// ties reports whether some series is matched by a and b with the same rank.
func ties(a, b map[string]string) bool {
	if rank(a) != rank(b) {
		return false
	}
	for k, x := range a {
		if y, ok := b[k]; ok && !overlap(x, y) {
			return false
		}
	}
	return true
}

func overlap(x, y string) bool {
	px, wildX := strings.CutSuffix(x, "*")
	py, wildY := strings.CutSuffix(y, "*")
	switch {
	case wildX && wildY:
		return strings.HasPrefix(px, py) || strings.HasPrefix(py, px)
	case wildX:
		return strings.HasPrefix(y, px)
	case wildY:
		return strings.HasPrefix(x, py)
	}
	return x == y
}

// rank orders matches: more dimensions first, then more literal characters.
func rank(match map[string]string) int {
	n := len(match) << 20
	for v := range maps.Values(match) {
		n += len(strings.TrimSuffix(v, "*"))
	}
	return n
}

func (r *terms) prices(it item, c *Charge) []Price {
	keys, vals, ok := r.entries(it)
	if !ok {
		return nil
	}
	var out []Price
	for i, k := range keys {
		if cur, ok := r.priceCurrency(k, vals[i].ptr); ok {
			if p, ok := r.price(vals[i], cur, c); ok {
				out = append(out, p)
			} else {
				out = append(out, Price{Currency: cur}) // noted already; not missing as well
			}
		}
	}
	r.everyCurrency(it.ptr, func(c money.Currency) bool {
		return slices.ContainsFunc(out, func(p Price) bool { return p.Currency == c })
	})
	return out
}

func (r *terms) price(it item, cur money.Currency, c *Charge) (Price, bool) {
	o, ok := r.object(it, "model", "unit_price", "package", "tiers", "minimum", "maximum")
	if !ok || !o.require("model") {
		return Price{}, false
	}
	p := Price{Currency: cur, Model: Model(o.text("model"))}
	wanted := map[Model][]string{
		PerUnit: {"unit_price"}, Package: {"unit_price", "package"}, Graduated: {"tiers"}, Volume: {"tiers"},
	}[p.Model]
	if wanted == nil {
		r.fault(at(o.ptr, "model"), "model", "Want per_unit, package, graduated or volume.")
		return p, false
	}
	for _, key := range []string{"unit_price", "package", "tiers"} {
		switch {
		case slices.Contains(wanted, key):
			o.require(key)
		case o.has(key):
			r.fault(at(o.ptr, key), "model", "The model "+string(p.Model)+" has no such field.")
		}
	}
	p.UnitPrice = o.decimal("unit_price")
	if o.has("package") {
		p.Package = r.inMeterUnit(o.at("package"), c.Per)
		if p.Package.IsZero() {
			r.fault(at(o.ptr, "package"), "package", "A package holds more than 0.")
		}
	}
	if o.has("tiers") {
		p.Tiers = r.tiers(o, cur, c)
	}
	if o.has("minimum") {
		a := r.amount(o.at("minimum"), cur)
		p.Minimum = &a
	}
	if o.has("maximum") {
		a := r.amount(o.at("maximum"), cur)
		p.Maximum = &a
		if p.Minimum != nil && p.Minimum.Minor > a.Minor {
			r.fault(at(o.ptr, "maximum"), "maximum", "The maximum is below the minimum.")
		}
	}
	return p, true
}

func (r *terms) tiers(o object, cur money.Currency, c *Charge) []Tier {
	items := o.list("tiers")
	if len(items) == 0 {
		r.fault(at(o.ptr, "tiers"), "required", "There is no tier.")
		return nil
	}
	out := make([]Tier, 0, len(items))
	var before money.Decimal // where the tier before ends, in units of the meter
	for i, it := range items {
		last := i == len(items)-1
		t, ok := r.object(it, "from", "up_to", "unit_price", "flat")
		if !ok {
			return nil
		}
		if !t.has("flat") {
			t.require("unit_price")
		}
		tier := Tier{UnitPrice: t.decimal("unit_price")}
		if t.has("flat") {
			a := r.amount(t.at("flat"), cur)
			tier.Flat = &a
		}
		if t.has("from") {
			r.from(t.at("from"), before, i == 0, c)
		}
		switch {
		case last && t.has("up_to"):
			r.fault(at(t.ptr, "up_to"), "tier_gap", "The last tier must have no end, so that every quantity has a price.")
		case !last && !t.has("up_to"):
			r.fault(at(t.ptr, "up_to"), "tier_overlap", "Every tier but the last must end: say up_to.")
		case t.has("up_to"):
			tier.UpTo = r.inMeterUnit(t.at("up_to"), c.Per)
			if tier.UpTo.Cmp(before) <= 0 {
				r.fault(at(t.ptr, "up_to"), "tier_order", "A tier must end after the tier before it.")
			}
			before = tier.UpTo
		}
		out = append(out, tier)
	}
	return out
}

// from checks a tier's beginning, which says nothing new: it is one after the end of the tier before
// (or of the allowance), or that end itself.
func (r *terms) from(it item, before money.Decimal, first bool, c *Charge) {
	d := r.inMeterUnit(it, c.Per)
	one := money.DecimalFromInt(c.Per.Divisor())
	if d.Cmp(before) == 0 || d.Cmp(before.Add(one)) == 0 {
		return
	}
	if first && (d.Cmp(c.Included) == 0 || d.Cmp(c.Included.Add(one)) == 0) {
		return
	}
	if d.Cmp(before) < 0 {
		r.fault(it.ptr, "tier_overlap", "The tier begins inside the tier before it.")
		return
	}
	r.fault(it.ptr, "tier_gap", "Between the tier before and this one there are quantities without a price.")
}
