package plan

import (
	"slices"
	"strings"

	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Catalogue is every meter and plan on sale, as one document states it.
type Catalogue struct {
	Source string  `json:"source,omitempty"` // where the price list was published
	Meters []Meter `json:"meters"`
	Offers []Offer `json:"plans"`
}

// Offer is a plan with the terms it is sold on. A document may state which version the terms are: it is
// then refused where that version has other terms, since a published version never changes. The number
// is 0 where it states none.
type Offer struct {
	Plan    Plan    `json:"plan"`
	Version Version `json:"version"`
}

// maxVersion bounds the number that a document may state.
const maxVersion = 1_000_000

// Meter returns the meter with the given code.
func (c *Catalogue) Meter(code MeterCode) (Meter, bool) {
	i := slices.IndexFunc(c.Meters, func(m Meter) bool { return m.Code == code })
	if i < 0 {
		return Meter{}, false
	}
	return c.Meters[i], true
}

// Offer returns the plan with the given code, and its terms.
func (c *Catalogue) Offer(code Code) (Offer, bool) {
	i := slices.IndexFunc(c.Offers, func(o Offer) bool { return o.Plan.Code == code })
	if i < 0 {
		return Offer{}, false
	}
	return c.Offers[i], true
}

// ParseCatalogue reads a catalogue from YAML or JSON. It is strict: an unknown field, a float that
// is not exact, a tier that does not rise, a price without a currency are all refused. Where values
// break rules it returns ErrInvalid with a pointer to each; where the text cannot be read at all,
// ErrUnreadable or ErrTooLarge.
func ParseCatalogue(b []byte) (Catalogue, error) {
	root, err := parseDocument(b)
	if err != nil {
		return Catalogue{}, err
	}
	r := &terms{}
	c := r.catalogue(item{root, "#"})
	if err := r.err(); err != nil {
		return Catalogue{}, err
	}
	for i := range c.Offers {
		c.Offers[i].Version.Hash = c.Offers[i].Version.ContentHash()
	}
	return c, nil
}

// terms reads prices, with the meters and currencies that they may refer to.
type terms struct {
	reader
	meters     []Meter
	currencies []money.Currency
	codes      map[string]bool // of the charges read so far in this version
	base       []Charge        // of the version that a contract overrides
}

func (r *terms) meter(code MeterCode) (Meter, bool) {
	i := slices.IndexFunc(r.meters, func(m Meter) bool { return m.Code == code })
	if i < 0 {
		return Meter{}, false
	}
	return r.meters[i], true
}

func (r *terms) catalogue(it item) Catalogue {
	var c Catalogue
	o, ok := r.object(it, "source", "currencies", "meters", "plans")
	if !ok {
		return c
	}
	c.Source = o.text("source")
	standard := r.currencyList(o)
	if o.require("meters") {
		for _, m := range o.list("meters") {
			c.Meters = append(c.Meters, r.readMeter(m))
		}
	}
	r.meters = c.Meters
	r.unique(o.ptr+"/meters", len(c.Meters), func(i int) string { return string(c.Meters[i].Code) })
	if o.require("plans") {
		for i, p := range o.list("plans") {
			r.currencies = standard
			offer := r.offer(p)
			offer.Plan.Position = i
			c.Offers = append(c.Offers, offer)
		}
	}
	r.unique(o.ptr+"/plans", len(c.Offers), func(i int) string { return string(c.Offers[i].Plan.Code) })
	return c
}

// unique notes every code that a list repeats.
func (r *reader) unique(ptr string, n int, code func(int) string) {
	seen := make(map[string]bool, n)
	for i := range n {
		if c := code(i); c != "" && seen[c] {
			r.fault(at(ptr, itoa(i))+"/code", "duplicate", "The code "+c+" appears twice.")
		} else {
			seen[c] = true
		}
	}
}

func (r *reader) currencyList(o object) []money.Currency {
	var out []money.Currency
	for _, it := range o.list("currencies") {
		if c, ok := r.currency(r.text(it), it.ptr); ok {
			if slices.Contains(out, c) {
				r.fault(it.ptr, "duplicate", "The currency appears twice.")
				continue
			}
			out = append(out, c)
		}
	}
	return out
}

func (r *reader) currency(code, ptr string) (money.Currency, bool) {
	c, err := money.ParseCurrency(code)
	if err != nil {
		r.fault(ptr, "currency", "Want the ISO 4217 code of a currency, in capitals.")
		return "", false
	}
	return c, true
}

func (r *terms) readMeter(it item) Meter {
	o, ok := r.object(it, "code", "name", "unit", "aggregation", "dimensions", "series_cap", "units", "rounding", "reserved")
	if !ok {
		return Meter{}
	}
	o.require("code")
	o.require("unit")
	m := Meter{
		Code: MeterCode(o.code("code")), Name: o.text("name"), Unit: o.text("unit"),
		Aggregation: Aggregation(o.text("aggregation")), Reserved: o.boolean("reserved"),
		SeriesCap: int(o.integer("series_cap", DefaultSeriesCap, MaxSeriesCap)),
	}
	if m.Name == "" {
		m.Name = string(m.Code)
	}
	if m.Aggregation == "" {
		m.Aggregation = Sum
	}
	if !m.Aggregation.Valid() {
		r.fault(at(o.ptr, "aggregation"), "aggregation", "Want sum, count, max, last or unique.")
	}
	for _, d := range o.list("dimensions") {
		name := r.text(d)
		if !isCode(name) || slices.Contains(m.Dimensions, name) {
			r.fault(d.ptr, "dimension", "Want a name in lower case that is not in the list already.")
			continue
		}
		m.Dimensions = append(m.Dimensions, name)
	}
	if len(m.Dimensions) > MaxDimensions {
		r.fault(at(o.ptr, "dimensions"), "too_many", "A meter has at most "+itoa(MaxDimensions)+" dimensions.")
	}
	if m.Aggregation == Unique && len(m.Dimensions) > 0 {
		r.fault(at(o.ptr, "dimensions"), "unique_dimensions", "Distinct values of several series cannot be added up, so such a meter has no dimensions.")
	}
	if o.has("units") {
		names, sizes, _ := r.entries(o.at("units"))
		for i, name := range names {
			if name == "" || name == m.Unit {
				r.fault(sizes[i].ptr, "unit", "Want the name of another unit than the meter's own.")
			}
			m.Units = append(m.Units, Quote{name, r.integer(sizes[i], 1_000_000_000)})
		}
	}
	if o.has("rounding") {
		m.Rounding = r.rounding(o.at("rounding"), m.Aggregation)
	}
	return m
}

func (r *terms) rounding(it item, a Aggregation) Rounding {
	o, ok := r.object(it, "first", "step")
	if !ok {
		return Rounding{}
	}
	out := Rounding{First: o.decimal("first"), Step: o.decimal("step")}
	if out.IsZero() {
		r.fault(it.ptr, "rounding", "Want a first amount, a step, or both.")
	}
	if a == Count || a == Unique {
		r.fault(it.ptr, "rounding", "A meter that does not look at quantities cannot round them.")
	}
	return out
}

func (r *terms) offer(it item) Offer {
	o, ok := r.object(it, "code", "version", "name", "description", "requires_card", "contact_sales", "interval", "currencies",
		"fee", "credit", "minimum", "charges", "limits")
	if !ok {
		return Offer{}
	}
	o.require("code")
	p := Plan{
		Code: Code(o.code("code")), Name: o.text("name"), Description: o.text("description"),
		RequiresCard: o.boolean("requires_card"), ContactSales: o.boolean("contact_sales"),
	}
	if p.Name == "" {
		p.Name = string(p.Code)
	}
	if o.has("currencies") {
		r.currencies = r.currencyList(o)
	}
	v := Version{Plan: p.Code, Number: int(o.integer("version", 0, maxVersion)), Interval: period.Interval(o.text("interval"))}
	if v.Interval == "" {
		v.Interval = period.Month
	}
	if !v.Interval.Valid() {
		r.fault(at(o.ptr, "interval"), "interval", "Want month or year.")
	}
	v.Fee, v.Credit, v.Minimum = r.fee(o), r.sums(o, "credit"), r.sums(o, "minimum")
	v.Charges = r.charges(o)
	v.Limits = r.limits(o)
	v.Currencies = currenciesOf(&v)
	if v.Minimum != nil && !slices.ContainsFunc(v.Charges, func(c Charge) bool { return len(c.Prices) > 0 }) {
		r.fault(at(o.ptr, "minimum"), "unpriced", "A minimum of usage needs a price of usage.")
	}
	if p.ContactSales && v.Priced() {
		r.fault(at(o.ptr, "contact_sales"), "contact_sales", "A plan with public prices is not a matter for sales.")
	}
	return Offer{p, v}
}

func (r *terms) fee(o object) *Fee {
	if !o.has("fee") {
		return nil
	}
	f, ok := r.object(o.at("fee"), "name", "prices")
	if !ok || !f.require("prices") {
		return nil
	}
	fee := &Fee{Name: f.text("name"), Prices: r.sums(f, "prices")}
	if fee.Name == "" {
		fee.Name = "Fee"
	}
	return fee
}

// sums reads a sum of money in each of the plan's currencies.
func (r *terms) sums(o object, key string) Sums {
	if !o.has(key) {
		return nil
	}
	it := o.at(key)
	keys, vals, ok := r.entries(it)
	if !ok {
		return nil
	}
	var out Sums
	for i, k := range keys {
		if c, ok := r.priceCurrency(k, vals[i].ptr); ok {
			out = append(out, r.amount(vals[i], c))
		}
	}
	r.everyCurrency(it.ptr, func(c money.Currency) bool { _, ok := out.In(c); return ok })
	return out
}

// priceCurrency reads a currency that the plan is sold in.
func (r *terms) priceCurrency(code, ptr string) (money.Currency, bool) {
	c, ok := r.currency(code, ptr)
	if ok && !slices.Contains(r.currencies, c) {
		r.fault(ptr, "currency_mismatch", "The plan is not sold in "+code+"; its currencies are "+joinCurrencies(r.currencies)+".")
		return c, false
	}
	return c, ok
}

func (r *terms) everyCurrency(ptr string, has func(money.Currency) bool) {
	for _, c := range r.currencies {
		if !has(c) {
			r.fault(at(ptr, string(c)), "required", "There is no price in "+string(c)+", which the plan is sold in.")
		}
	}
	if len(r.currencies) == 0 {
		r.fault(ptr, "currency_mismatch", "There are no currencies to have prices in.")
	}
}

// amount reads a sum in major units that is whole in minor ones.
func (r *reader) amount(it item, c money.Currency) money.Amount {
	d := r.decimal(it)
	a, err := money.Round(d, 1, 1, c)
	if err != nil {
		r.fault(it.ptr, "amount", "The sum is larger than any amount can be.")
		return money.Zero(c)
	}
	if a.Decimal().Cmp(d) != 0 {
		r.fault(it.ptr, "amount", "A sum in "+string(c)+" has at most "+itoa(c.Exponent())+" decimals.")
	}
	return a
}

func (r *terms) limits(o object) []Limit {
	var out []Limit
	for i, it := range o.list("limits") {
		l, ok := r.limit(it)
		if !ok {
			continue
		}
		if slices.ContainsFunc(out, func(x Limit) bool { return x.Meter == l.Meter }) {
			r.fault(at(at(o.ptr, "limits"), itoa(i)), "duplicate", "The meter has a limit already.")
			continue
		}
		out = append(out, l)
	}
	return out
}

func (r *terms) limit(it item) (Limit, bool) {
	o, ok := r.object(it, "meter", "quantity", "unit", "mode")
	if !ok || !o.require("meter") || !o.require("quantity") {
		return Limit{}, false
	}
	m, ok := r.meter(MeterCode(o.text("meter")))
	if !ok {
		r.fault(at(o.ptr, "meter"), "unknown_meter", "There is no such meter.")
		return Limit{}, false
	}
	l := Limit{Meter: m.Code, Mode: Mode(o.text("mode"))}
	if l.Mode == "" {
		l.Mode = Hard
	}
	if l.Mode != Hard && l.Mode != Soft {
		r.fault(at(o.ptr, "mode"), "mode", "Want hard or soft.")
	}
	var per Quote
	if o.has("unit") {
		per = r.quote(o.at("unit"), m)
	}
	l.Quantity = r.inMeterUnit(o.at("quantity"), per)
	return l, true
}

// quote reads the name of a unit that the meter declares.
func (r *terms) quote(it item, m Meter) Quote {
	name := r.text(it)
	if name == m.Unit {
		return Quote{}
	}
	for _, q := range m.Units {
		if q.Unit == name {
			return q
		}
	}
	r.fault(it.ptr, "unknown_unit", "The meter "+string(m.Code)+" has no unit of this name.")
	return Quote{}
}

// inMeterUnit reads a quantity in the quoted unit and returns it in the meter's.
func (r *reader) inMeterUnit(it item, per Quote) money.Decimal {
	d := r.decimal(it).Mul(money.DecimalFromInt(per.Divisor()))
	if !d.InRange() {
		r.fault(it.ptr, "quantity", "The quantity is out of range.")
		return money.Decimal{}
	}
	return d
}

func joinCurrencies(list []money.Currency) string {
	if len(list) == 0 {
		return "none"
	}
	s := make([]string, len(list))
	for i, c := range list {
		s[i] = string(c)
	}
	return strings.Join(s, ", ")
}
