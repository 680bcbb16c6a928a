package billing_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// What a period comes to, naively: from docs/pricing.md and docs/metering.md alone, over rationals, by recounting all events.
// It shares nothing with what it is compared with, the calendar of the standard library apart.

// lifeTerms is what is sold under a plan's version, or agreed by a contract. Sums are in minor units, 0 where there is none.
type lifeTerms struct {
	plan                 string
	version              int
	year                 bool // billed by the year
	fee, credit, minimum int64
	charges              []lifeCharge
	percent              *big.Rat // of all usage; nil: none
}

type lifeCharge struct {
	code, meter      string
	match            map[string]string
	size             int64    // of the unit that all below are written in, in units of the meter
	step, included   *big.Rat // nil: none
	model            string
	unit             *big.Rat // price of a unit or package
	pack             *big.Rat
	tiers            []lifeTier
	minimum, maximum int64
}

type lifeTier struct {
	upTo *big.Rat // nil: without end
	unit *big.Rat
	flat int64
}

type lifeEvent struct {
	id, meter, value string
	quantity         *big.Rat
	dimensions       map[string]string
	at               time.Time
	void             bool
}

type lifeHolding struct {
	terms    *lifeTerms
	from, to time.Time
}

// lifePeriod is a period with what it was held under, the last of which prices its usage.
type lifePeriod struct {
	start, end time.Time
	held       []lifeHolding
	contract   *lifeContract
	billed     int64      // of it on all final invoices so far, void ones too, with what they absorbed
	parts      []lifePart // of billed, the latest last

	// Of its invoice:
	final, void bool
	sum         int64 // less than nothing: what it gives to the balance
	absorbed    int64 // by the spend limit, less what was taken back of it since
	corrected   bool  // it takes something back of another, or another of it
}

// lifePart is what is left of what an invoice bills for a period, with what it absorbed.
type lifePart struct {
	invoice *lifePeriod
	sum     int64
}

type lifeContract struct {
	terms      *lifeTerms
	start, end time.Time
	then       string
	steps      []lifeStep // of the commitment, if there is one
	of         string     // what it is a sum for: each "period", the "term" of a step, or that too and "prepaid"
	overage    *big.Rat   // what is beyond it costs, in percent; nil: what it costs
}

// lifeStep is a sum that holds for the periods that begin from then on.
type lifeStep struct {
	from time.Time
	sum  int64
}

func (s lifeStep) String() string { return fmt.Sprintf("%d from %s", s.sum, s.from.UTC()) }

func (k *lifeContract) inForce(at time.Time) bool { return !at.Before(k.start) && at.Before(k.end) }

// step is the step in force in a period that begins then.
func (k *lifeContract) step(at time.Time) (step lifeStep) {
	for _, s := range k.steps {
		if !at.Before(s.from) {
			step = s
		}
	}
	return step
}

// lifeLine is a line of a bill. Those of nothing are left out.
type lifeLine struct {
	kind   string
	amount int64
}

func (l lifeLine) String() string { return fmt.Sprintf("%s %d", l.kind, l.amount) }

// half rounds half away from zero.
func half(r *big.Rat) int64 {
	n := new(big.Int).Abs(r.Num())
	n.Lsh(n, 1).Add(n, r.Denom()).Quo(n, new(big.Int).Lsh(r.Denom(), 1))
	if r.Sign() < 0 {
		n.Neg(n)
	}
	return n.Int64()
}

func over(a, b int64) *big.Rat { return big.NewRat(a, b) }

func mul(a, b *big.Rat) *big.Rat { return new(big.Rat).Mul(a, b) }

func less(a, b *big.Rat) *big.Rat { return new(big.Rat).Sub(a, b) }

// started is the least whole number that is not below r.
func started(r *big.Rat) *big.Rat {
	n := new(big.Int).Add(r.Num(), r.Denom())
	n.Sub(n, big.NewInt(1))
	return new(big.Rat).SetInt(n.Div(n, r.Denom()))
}

// due is what is due of a sum for a part of the period: what is due up to its end less what was due up to its beginning.
func (p *lifePeriod) due(sum int64, from, to time.Time) int64 {
	whole := p.end.Sub(p.start).Microseconds()
	upTo := func(at time.Time) int64 { return half(mul(over(sum, 1), over(at.Sub(p.start).Microseconds(), whole))) }
	return upTo(to) - upTo(from)
}

// counted is what an event counts on its meter.
func (e *lifeEvent) counted() *big.Rat {
	first, step := over(60, 1), over(6, 1)
	switch {
	case e.meter == "requests":
		return over(1, 1)
	case e.meter != "calls" || e.quantity.Sign() == 0:
		return e.quantity
	case e.quantity.Cmp(first) <= 0:
		return first
	}
	return new(big.Rat).Add(first, mul(step, started(new(big.Rat).Quo(less(e.quantity, first), step))))
}

// charge is the charge that an event falls under: with the most dimensions, then the most literal characters; -1: none.
func (t *lifeTerms) charge(e *lifeEvent) int {
	best, rank := -1, [2]int{-1, -1}
	for i, c := range t.charges {
		matches, letters := c.meter == e.meter, 0
		for k, pattern := range c.match {
			text, wild := strings.CutSuffix(pattern, "*")
			v := e.dimensions[k]
			matches = matches && (v == text || wild && v != "" && strings.HasPrefix(v, text))
			letters += len(text)
		}
		if r := [2]int{len(c.match), letters}; matches && (r[0] > rank[0] || r[0] == rank[0] && r[1] > rank[1]) {
			best, rank = i, r
		}
	}
	return best
}

// quantity is what events come to on a meter, nil where there are none.
func lifeQuantity(meter string, events []*lifeEvent) (q *big.Rat) {
	var last time.Time
	values := map[string]bool{}
	for _, e := range events {
		if q == nil {
			q = new(big.Rat)
		}
		switch meter {
		case "peak":
			if e.counted().Cmp(q) > 0 {
				q = e.counted()
			}
		case "stored":
			if e.at.After(last) {
				q, last = e.counted(), e.at
			}
		case "users":
			values[e.value] = true
			q = over(int64(len(values)), 1)
		default:
			q = new(big.Rat).Add(q, e.counted())
		}
	}
	return q
}

// price is what a quantity costs, in minor units of a currency of so many digits.
func (c *lifeCharge) price(quantity *big.Rat, digits int) int64 {
	q := new(big.Rat).Quo(quantity, over(c.size, 1))
	if c.step != nil {
		q = mul(c.step, started(new(big.Rat).Quo(q, c.step)))
	}
	included := new(big.Rat)
	if c.included != nil {
		included = c.included
	}
	minor := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits)), nil))
	billable := less(q, included)
	if billable.Sign() <= 0 {
		return 0
	}
	sum := new(big.Rat)
	switch c.model {
	case "per_unit":
		sum = mul(billable, mul(c.unit, minor))
	case "package":
		sum = mul(started(new(big.Rat).Quo(billable, c.pack)), mul(c.unit, minor))
	case "volume":
		for _, t := range c.tiers {
			if t.upTo == nil || q.Cmp(t.upTo) <= 0 {
				sum = new(big.Rat).Add(mul(billable, mul(t.unit, minor)), over(t.flat, 1))
				break
			}
		}
	case "graduated":
		from := new(big.Rat)
		for _, t := range c.tiers {
			lower, upper := from, q
			if included.Cmp(lower) > 0 {
				lower = included
			}
			if t.upTo != nil && t.upTo.Cmp(upper) < 0 {
				upper = t.upTo
			}
			if upper.Cmp(lower) > 0 {
				sum.Add(sum, mul(less(upper, lower), mul(t.unit, minor))).Add(sum, over(t.flat, 1))
			}
			if t.upTo == nil {
				break
			}
			from = t.upTo
		}
	}
	return half(sum)
}

// usage adds the lines of a period's usage to its bill, and returns what they come to, without percentages.
func (o *oracle) usage(p *lifePeriod) (lines []lifeLine, sum int64) {
	present := p.held[len(p.held)-1]
	t := present.terms
	by := make([][]*lifeEvent, len(t.charges))
	for _, e := range o.events {
		if e.void || e.at.Before(p.start) || !e.at.Before(p.end) {
			continue
		}
		if at := t.charge(e); at >= 0 {
			by[at] = append(by[at], e)
		}
	}
	for i := range t.charges {
		c := &t.charges[i]
		costs := int64(0)
		if q := lifeQuantity(c.meter, by[i]); q != nil {
			costs = c.price(q, o.digits)
			lines = append(lines, lifeLine{"usage", costs})
		}
		if least := p.due(c.minimum, present.from, present.to); c.minimum > 0 && costs < least {
			lines = append(lines, lifeLine{"minimum", least - costs})
			costs = least
		}
		if most := p.due(c.maximum, present.from, present.to); c.maximum > 0 && costs > most {
			lines = append(lines, lifeLine{"maximum", most - costs})
			costs = most
		}
		sum += costs
	}
	if t.percent != nil {
		lines = append(lines, lifeLine{"percent", half(mul(new(big.Rat).SetFrac64(sum, 100), t.percent))})
	}
	if least := p.due(t.minimum, present.from, present.to); t.minimum > 0 && sum < least {
		lines = append(lines, lifeLine{"minimum", least - sum})
		sum = least
	}
	return lines, sum
}

// bill is what a period comes to by all that is known of it now.
func (o *oracle) bill(p *lifePeriod) (lines []lifeLine, total int64) {
	for _, h := range p.held {
		lines = append(lines, lifeLine{"fee", p.due(h.terms.fee, h.from, h.to)})
	}
	usage, sum := o.usage(p)
	lines = append(lines, usage...)
	left := sum
	for _, h := range p.held {
		covers := min(left, p.due(h.terms.credit, h.from, h.to))
		lines = append(lines, lifeLine{"credit", -covers})
		left -= covers
	}
	if k := p.contract; k != nil && len(k.steps) > 0 {
		lines = append(lines, o.commitment(p, k, sum))
	}
	lines = slices.DeleteFunc(lines, func(l lifeLine) bool { return l.amount == 0 })
	for _, l := range lines {
		total += l.amount
	}
	return lines, total
}

// commitment is the line for what was committed to in a period whose usage comes to a sum.
func (o *oracle) commitment(p *lifePeriod, k *lifeContract, sum int64) lifeLine {
	step := k.step(p.start)
	last := !k.inForce(p.end) || k.step(p.end) != step
	before := int64(0) // in the step
	for _, q := range o.periods {
		if q.contract == k && k.step(q.start) == step && q.start.Before(p.start) {
			_, spent := o.usage(q)
			before += spent
		}
	}
	switch {
	case k.of == "prepaid":
		return lifeLine{"drawdown", -min(sum, max(step.sum-before, 0))}
	case k.of == "term" && !last:
		return lifeLine{"commitment", 0}
	case k.of == "term":
		return lifeLine{"commitment", max(step.sum-before-sum, 0)}
	case k.overage != nil && sum > step.sum:
		beyond := sum - step.sum
		return lifeLine{"overage", half(mul(over(beyond, 100), k.overage)) - beyond}
	}
	return lifeLine{"commitment", max(step.sum-sum, 0)}
}

// ahead is what has been billed ahead.
func (o *oracle) ahead() (sum int64) {
	for i, p := range o.periods {
		if k := p.contract; k != nil && k.of == "prepaid" && (i == 0 || o.periods[i-1].contract != k || k.step(o.periods[i-1].start) != k.step(p.start)) {
			sum += k.step(p.start).sum
		}
	}
	return sum
}

// oracle knows what was told of an account, and so what it owes.
type oracle struct {
	zone    *time.Location
	anchor  time.Time // noon of the first day of the first period that was as long as the running one, without another between
	first   int       // which that was
	year    bool      // how long they are
	digits  int
	sold    map[string]*lifeTerms // what is on sale, by plan
	all     []*lifeTerms
	events  []*lifeEvent
	periods []*lifePeriod // the last one is running

	nextPlan    string
	nextVersion *lifeTerms
	contracts   []*lifeContract
	limit       int64 // on what a period comes to; 0: none
}

// boundary is where the n-th period begins: at the first instant of its day in the account's zone. The day is the
// anchor's, or the last of a month that is too short.
func (o *oracle) boundary(n int) time.Time {
	months := n - o.first
	if o.year {
		months *= 12
	}
	first := time.Date(o.anchor.Year(), o.anchor.Month()+time.Month(months), 1, 12, 0, 0, 0, o.zone)
	d := min(o.anchor.Day(), first.AddDate(0, 1, -1).Day())
	at := time.Date(first.Year(), first.Month(), d, 12, 0, 0, 0, o.zone)
	for before := at; before.After(at.Add(-30 * time.Hour)); before = before.Add(-time.Minute) {
		if before.In(o.zone).Day() == d {
			at = before
		}
	}
	return at
}

func (o *oracle) running() *lifePeriod { return o.periods[len(o.periods)-1] }

func (o *oracle) present() *lifeTerms {
	h := o.running().held
	return h[len(h)-1].terms
}

func (o *oracle) begin(t *lifeTerms, k *lifeContract) {
	n := len(o.periods)
	if t.year != o.year {
		d := o.boundary(n).In(o.zone)
		o.anchor, o.first, o.year = time.Date(d.Year(), d.Month(), d.Day(), 12, 0, 0, 0, o.zone), n, t.year
	}
	p := &lifePeriod{start: o.boundary(n), end: o.boundary(n + 1), contract: k}
	p.held = []lifeHolding{{t, p.start, p.end}}
	o.periods = append(o.periods, p)
	o.nextPlan, o.nextVersion = "", nil
}

// change moves the account to other terms within its period, from now on.
func (o *oracle) change(t *lifeTerms, now time.Time) {
	p := o.running()
	p.held[len(p.held)-1].to = now
	p.held = append(p.held, lifeHolding{t, now, p.end})
	o.nextPlan, o.nextVersion = "", nil
}

// turn begins the periods whose time has come.
func (o *oracle) turn(now time.Time) {
	for !now.Before(o.running().end) {
		p, t := o.running(), o.present()
		var k *lifeContract
		for _, c := range o.contracts {
			if c.inForce(p.end) {
				k, t = c, c.terms
			}
		}
		switch {
		case k != nil:
		case o.nextPlan != "":
			t = o.sold[o.nextPlan]
		case p.contract != nil:
			t = o.sold[p.contract.then]
		case o.nextVersion != nil:
			t = o.nextVersion
		}
		o.begin(t, k)
	}
}

// lifeInvoice is what the invoice of a period would be now.
type lifeInvoice struct {
	lines    []lifeLine      // its own
	late     map[int64]int64 // for earlier periods, by their starts
	sum      int64
	parts    map[*lifePeriod][]lifePart // of each that it bills something for, after it
	absorbed map[*lifePeriod]int64      // what it adds to what invoices have absorbed, itself or earlier ones
	corrects []*lifePeriod              // those of which it takes something back
}

// invoice bills a period, and what came late for those before it, within the spend limit.
func (o *oracle) invoice(p *lifePeriod) *lifeInvoice {
	v := &lifeInvoice{late: map[int64]int64{}, parts: map[*lifePeriod][]lifePart{}, absorbed: map[*lifePeriod]int64{}}
	for _, q := range o.periods {
		if q.final && q.start.Before(p.start) {
			late := o.late(v, q, p)
			v.late[q.start.UnixMicro()] = late
			v.sum += late
		}
	}
	lines, own := o.bill(p)
	v.parts[p] = []lifePart{{p, own}}
	if most := o.limit - max(v.sum, 0); o.limit > 0 && own > most {
		lines = append(lines, lifeLine{"absorbed", most - own})
		v.absorbed[p] += own - most
		own = most
	}
	v.lines, v.sum = lines, v.sum+own
	return v
}

// late bills the difference of what an earlier period comes to now from what was billed of it. What is more is billed so far
// as the period stays within the limit. What is less is taken off what void invoices billed, which is not given back once more,
// then off what was billed last, and of each invoice off what it absorbed first.
func (o *oracle) late(v *lifeInvoice, q, p *lifePeriod) (bills int64) {
	_, now := o.bill(q)
	came, parts := now-q.billed, slices.Clone(q.parts)
	if came > 0 {
		bills = came
		if o.limit > 0 {
			bills = max(0, min(came, o.limit-q.billed))
		}
		v.absorbed[p] += came - bills
		parts = append(parts, lifePart{p, came})
	}
	less := max(0, -came)
	for _, void := range []bool{true, false} {
		for at := range slices.Backward(parts) {
			part := &parts[at]
			taken := min(less, part.sum)
			if taken <= 0 || part.invoice.void != void {
				continue
			}
			part.sum -= taken
			less -= taken
			if !void {
				unpaid := min(taken, part.invoice.absorbed+v.absorbed[part.invoice])
				v.absorbed[part.invoice] -= unpaid
				v.corrects = append(v.corrects, part.invoice)
				bills -= taken - unpaid
			}
		}
	}
	v.parts[q] = parts
	return bills
}

// finalize makes the invoice of a period final.
func (o *oracle) finalize(p *lifePeriod) *lifeInvoice {
	v := o.invoice(p)
	for q, parts := range v.parts {
		_, q.billed = o.bill(q)
		q.parts = parts
	}
	for i, more := range v.absorbed {
		i.absorbed += more
	}
	for _, i := range v.corrects {
		i.corrected, p.corrected = true, true
	}
	p.final, p.sum = true, v.sum
	return v
}

// gone is what void invoices have billed of a period.
func (p *lifePeriod) gone() (sum int64) {
	for _, part := range p.parts {
		if part.invoice.void {
			sum += part.sum
		}
	}
	return sum
}

// passes reports whether an event is refused for the spend limit: it would bring its period beyond it, and costs something.
// In a period that has not been opened yet it is on the present terms, which price nothing there if their contract is over.
func (o *oracle) passes(e *lifeEvent) bool {
	if o.limit == 0 {
		return false
	}
	n := len(o.periods)
	p := &lifePeriod{start: o.boundary(n), end: o.boundary(n + 1), contract: o.running().contract}
	p.held = []lifeHolding{{o.present(), p.start, p.end}}
	for _, q := range o.periods {
		if e.at.Before(q.end) {
			p = q
			break
		}
	}
	if p.contract != nil && !p.contract.inForce(p.start) {
		return false
	}
	_, before := o.bill(p)
	asked := *e
	if last := o.stored(p); e.meter == "stored" && last != nil { // asked to stand there, whatever its time: it does if what came later is taken back
		if e.quantity.Cmp(last.quantity) <= 0 {
			return false
		}
		asked.at, last.void = last.at, true
		defer func() { last.void = false }()
	}
	o.events = append(o.events, &asked)
	_, after := o.bill(p)
	o.events = o.events[:len(o.events)-1]
	return after > o.limit && after > before
}

// stored is the event whose value stands on the meter of that name in a period, nil where there is none.
func (o *oracle) stored(p *lifePeriod) (last *lifeEvent) {
	for _, e := range o.events {
		if e.meter == "stored" && !e.void && !e.at.Before(p.start) && e.at.Before(p.end) && (last == nil || e.at.After(last.at)) {
			last = e
		}
	}
	return last
}

// decimal draws a positive number with at most so many digits after the point.
func decimal(r *rand.Rand, most int64, digits int) *big.Rat {
	den := int64(1)
	for range digits {
		den *= 10
	}
	return over(1+r.Int64N(most*den), den)
}

func text(q *big.Rat) string {
	s := q.FloatString(9)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

// lifePrices draws prices for a meter.
func (o *oracle) lifePrices(r *rand.Rand, code, meter string, size int64, match map[string]string) lifeCharge {
	c := lifeCharge{code: code, meter: meter, size: size, match: match}
	maybe := func() bool { return r.IntN(3) == 0 }
	if maybe() {
		c.step = decimal(r, 5, 1)
	}
	if maybe() {
		c.included = decimal(r, 40, 2)
	}
	if maybe() {
		c.minimum = 1 + r.Int64N(3000)
	}
	if maybe() {
		c.maximum = c.minimum + 1 + r.Int64N(9000)
	}
	c.model = []string{"per_unit", "package", "graduated", "volume"}[r.IntN(4)]
	switch c.model {
	case "per_unit":
		c.unit = decimal(r, 1, 5)
	case "package":
		c.unit, c.pack = decimal(r, 3, 3), decimal(r, 20, 1)
	default:
		end := new(big.Rat)
		for i := range 1 + r.IntN(4) {
			t := lifeTier{unit: decimal(r, 1, 4)}
			if maybe() {
				t.flat = 1 + r.Int64N(500)
			}
			if i > 0 {
				end = new(big.Rat).Add(end, decimal(r, 50, 2))
				c.tiers[i-1].upTo = end
			}
			c.tiers = append(c.tiers, t)
		}
	}
	return c
}

// draw draws the terms of a plan's version. A plan may leave a meter without a price.
func (o *oracle) draw(r *rand.Rand, plan string, version int, agreed bool) *lifeTerms {
	t := &lifeTerms{plan: plan, version: version, year: r.IntN(4) == 0 && !agreed}
	if plan != "life0" && !agreed {
		t.fee = 1 + r.Int64N(9000)
	}
	if r.IntN(2) == 0 && !agreed {
		t.credit = 1 + r.Int64N(3000)
	}
	if r.IntN(3) == 0 {
		t.minimum = 1 + r.Int64N(5000)
	}
	if r.IntN(3) == 0 && !agreed {
		t.percent = decimal(r, 30, 2)
	}
	for _, m := range []struct {
		code, meter string
		size        int64
		match       map[string]string
	}{
		{"calls", "calls", 60, nil},
		{"calls_de", "calls", 60, map[string]string{"to": "+49*"}},
		{"calls_mobile", "calls", 60, map[string]string{"to": "+4915*"}},
		{"calls_nova", "calls", 1, map[string]string{"to": "+49*", "model": "nova-1"}},
		{"words", "words", 1000, nil},
		{"words_nova", "words", 1000, map[string]string{"model": "nova-*"}},
		{"requests", "requests", 1, nil},
		{"peak", "peak", 1, nil},
		{"peak_de", "peak", 1, map[string]string{"to": "+49*"}},
		{"stored", "stored", 1, nil},
		{"users", "users", 1, nil},
	} {
		general := slices.ContainsFunc(t.charges, func(c lifeCharge) bool { return c.meter == m.meter })
		if r.IntN(3) > 0 && (m.match == nil || general) {
			t.charges = append(t.charges, o.lifePrices(r, m.code, m.meter, m.size, m.match))
		}
	}
	if len(t.charges) == 0 {
		t.charges = []lifeCharge{o.lifePrices(r, "calls", "calls", 60, nil)}
	}
	return t
}

// yaml writes terms down as a plan of a catalogue.
func (o *oracle) yaml(t *lifeTerms, currency string) string {
	var b strings.Builder
	sum := func(minor int64) string {
		return fmt.Sprintf("{%s: %q}", currency, text(new(big.Rat).Quo(over(minor, 1), new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(o.digits)), nil)))))
	}
	amount := func(minor int64) string {
		return strings.TrimSuffix(strings.TrimPrefix(sum(minor), "{"+currency+": "), "}")
	}
	fmt.Fprintf(&b, "  - code: %s\n    name: %s\n    requires_card: true\n", t.plan, t.plan)
	if t.year {
		b.WriteString("    interval: year\n")
	}
	if t.fee > 0 {
		fmt.Fprintf(&b, "    fee: {name: Fee, prices: %s}\n", sum(t.fee))
	}
	if t.credit > 0 {
		fmt.Fprintf(&b, "    credit: %s\n", sum(t.credit))
	}
	if t.minimum > 0 {
		fmt.Fprintf(&b, "    minimum: %s\n", sum(t.minimum))
	}
	b.WriteString("    charges:\n")
	for _, c := range t.charges {
		fmt.Fprintf(&b, "      - code: %s\n        name: %s\n        meter: %s\n", c.code, c.code, c.meter)
		if per := map[int64]string{60: "minute", 1000: "thousand"}[c.size]; per != "" {
			fmt.Fprintf(&b, "        per: %s\n", per)
		}
		if len(c.match) > 0 {
			b.WriteString("        match:\n")
			for k, v := range c.match {
				fmt.Fprintf(&b, "          %s: %q\n", k, v)
			}
		}
		if c.step != nil {
			fmt.Fprintf(&b, "        step: %q\n", text(c.step))
		}
		if c.included != nil {
			fmt.Fprintf(&b, "        included: %q\n", text(c.included))
		}
		fmt.Fprintf(&b, "        prices:\n          %s:\n            model: %s\n", currency, c.model)
		if c.unit != nil {
			fmt.Fprintf(&b, "            unit_price: %q\n", text(c.unit))
		}
		if c.pack != nil {
			fmt.Fprintf(&b, "            package: %q\n", text(c.pack))
		}
		if len(c.tiers) > 0 {
			b.WriteString("            tiers:\n")
		}
		for _, tier := range c.tiers {
			fmt.Fprintf(&b, "              - unit_price: %q\n", text(tier.unit))
			if tier.upTo != nil {
				fmt.Fprintf(&b, "                up_to: %q\n", text(tier.upTo))
			}
			if tier.flat > 0 {
				fmt.Fprintf(&b, "                flat: %s\n", amount(tier.flat))
			}
		}
		if c.minimum > 0 {
			fmt.Fprintf(&b, "            minimum: %s\n", amount(c.minimum))
		}
		if c.maximum > 0 {
			fmt.Fprintf(&b, "            maximum: %s\n", amount(c.maximum))
		}
	}
	if t.percent != nil {
		fmt.Fprintf(&b, "      - {code: support, name: Support, percent: {rate: %q}}\n", text(t.percent))
	}
	return b.String()
}
