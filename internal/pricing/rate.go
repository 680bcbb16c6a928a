package pricing

import (
	"errors"
	"slices"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Rate prices a period's usage, line by line, with a derivation for each. It fails with ErrCurrency,
// ErrQuantity or ErrRange, and with plan.ErrContractMismatch where the contract is on other terms.
//
// Sums of money per period (fee, minimum, maximum, credit, commitment) are prorated by the time that
// the plan was held. Quantities (allowance, tiers, limits) never are: they count once per period.
func Rate(in Input) (Bill, error) {
	r := rater{in: &in, v: &in.Version, explain: true}
	if err := r.run(); err != nil {
		return Bill{}, refine(err)
	}
	return Bill{Lines: r.lines, Total: r.total, Absorbed: r.absorbed}, nil
}

// Accrued returns the total of the bill that Rate would make. It makes neither lines nor
// derivations: use it where the sum alone is wanted, as for a live balance.
func Accrued(in Input) (money.Amount, error) {
	r := rater{in: &in, v: &in.Version}
	if err := r.run(); err != nil {
		return money.Amount{}, refine(err)
	}
	return r.total, nil
}

// refine gives the errors of arithmetic a kind.
func refine(err error) error {
	var e *errs.Error
	switch {
	case errors.As(err, &e):
		return err
	case errors.Is(err, money.ErrOverflow):
		return ErrRange.Because(err)
	case errors.Is(err, money.ErrDecimal):
		return ErrQuantity.Because(err)
	}
	return err
}

// tally is what one charge has gathered.
type tally struct {
	quantity money.Decimal
	events   int64
	used     bool
	amount   money.Amount // of its lines
}

// rater makes one bill, once.
type rater struct {
	in      *Input
	v       *plan.Version
	by      *plan.Version // whose terms the line in hand follows
	explain bool
	share   share

	contract   string
	commitment *plan.Commitment

	tallies []tally
	other   []Usage // of meters that the version does not price

	lines     []Line       // without explain, room for the one in hand
	parts     []Part       // of all lines, one after the other
	costs     money.Costs  // of the parts of the line in hand
	usage     money.Amount // usage lines with their minimums and maximums
	uncovered money.Amount // usage less the credit that covers it
	total     money.Amount
	absorbed  money.Amount
}

func (r *rater) run() error {
	if err := r.terms(); err != nil {
		return err
	}
	if err := r.gather(); err != nil {
		return err
	}
	r.usage, r.total, r.absorbed = money.Zero(r.in.Currency), money.Zero(r.in.Currency), money.Zero(r.in.Currency)
	r.makeRoom()
	err := r.fees()
	if err == nil {
		err = r.charges()
	}
	if err == nil {
		err = r.percents()
	}
	if err == nil {
		err = r.minimum()
	}
	if err == nil {
		err = r.credits()
	}
	if err == nil {
		err = r.commit()
	}
	if err == nil {
		err = r.cap()
	}
	return err
}

// terms finds the terms in force and the share of the period.
func (r *rater) terms() error {
	if c := r.in.Contract; c != nil && c.InForce(r.in.Period.Start) {
		v, err := c.Apply(*r.v)
		if err != nil {
			return err
		}
		r.v, r.contract, r.commitment = &v, c.Reference, c.Commitment
	}
	r.by = r.v
	if r.v.Priced() && !slices.Contains(r.v.Currencies, r.in.Currency) {
		return ErrCurrency.With("currencies", r.v.Currencies)
	}
	var err error
	r.share, err = shareOf(r.in.Period, r.in.Held)
	return err
}

// gather adds the usage up, charge by charge.
func (r *rater) gather() error {
	r.tallies = make([]tally, len(r.v.Charges))
	for i := range r.in.Usage {
		u := &r.in.Usage[i]
		if u.Quantity.Sign() < 0 || !u.Quantity.InRange() {
			return ErrQuantity.With("meter", u.Meter)
		}
		at := r.v.ChargeFor(u.Meter, u.Dimensions)
		if at < 0 {
			r.unpriced(u)
			continue
		}
		t := &r.tallies[at]
		if r.v.Charges[at].Aggregation == plan.Max {
			if u.Quantity.Cmp(t.quantity) > 0 {
				t.quantity = u.Quantity
			}
		} else {
			t.quantity = t.quantity.Add(u.Quantity)
			if !t.quantity.InRange() {
				return ErrQuantity.With("meter", u.Meter)
			}
		}
		t.events += u.Events
		t.used = true
	}
	return nil
}

// unpriced notes usage that costs nothing, so that the bill still shows it.
func (r *rater) unpriced(u *Usage) {
	for i := range r.other {
		if r.other[i].Meter == u.Meter {
			r.other[i].Quantity = r.other[i].Quantity.Add(u.Quantity)
			r.other[i].Events += u.Events
			return
		}
	}
	r.other = append(r.other, Usage{Meter: u.Meter, Quantity: u.Quantity, Events: u.Events})
}

// makeRoom allocates what the bill will hold, in one piece for lines and one for parts.
func (r *rater) makeRoom() {
	if !r.explain {
		r.lines, r.parts = make([]Line, 0, 1), make([]Part, 0, 1)
		return
	}
	lines, parts := len(r.other)+2*len(r.in.Before), 0
	for _, may := range [...]bool{
		r.v.Fee != nil, r.v.Minimum != nil, r.v.Credit != nil, r.commitment != nil, r.in.Cap != nil,
	} {
		if may {
			lines++
		}
	}
	for i := range r.v.Charges {
		c := &r.v.Charges[i]
		used := r.tallies[i].used
		if used || c.Percent != nil {
			lines++
		}
		p, ok := c.Price(r.in.Currency)
		if !ok {
			continue
		}
		if used {
			parts += max(1, len(p.Tiers))
		}
		if p.Minimum != nil || p.Maximum != nil {
			lines++
		}
	}
	r.lines = make([]Line, 0, lines)
	r.parts = make([]Part, 0, parts)
}

// line begins a line in its final place, since lines are large; add ends it. A line that is not
// added is overwritten by the next.
func (r *rater) line(k Kind, charge string, m plan.MeterCode, description string) *Line {
	n := len(r.lines)
	if n == cap(r.lines) { // cannot be: makeRoom counts every line that may come
		r.lines = slices.Grow(r.lines, 1)
	}
	l := &r.lines[:n+1][n]
	if l.Kind != "" {
		*l = Line{}
	}
	l.Kind, l.Charge, l.Meter, l.Description = k, charge, m, description
	return l
}

// add puts the line begun last on the bill.
func (r *rater) add(l *Line) (err error) {
	if r.total, err = r.total.Add(l.Amount); err != nil {
		return err
	}
	if r.explain {
		d := &l.Derivation
		d.Plan, d.Version, d.Hash = r.by.Plan, r.by.Number, r.by.Hash
		if r.by == r.v {
			d.Contract = r.contract
		}
		d.Kind, d.Charge, d.Meter, d.Currency, d.Amount = l.Kind, l.Charge, l.Meter, r.in.Currency, l.Amount
		r.lines = r.lines[:len(r.lines)+1]
	}
	return nil
}

// held returns the i-th version that was held in the period, the last of which is the one held at the end,
// with the share of the period for which it was. What is added next is by its terms.
func (r *rater) held(i int) (*plan.Version, share, error) {
	if i == len(r.in.Before) {
		r.by = r.v
		return r.v, r.share, nil
	}
	h := &r.in.Before[i]
	r.by = &h.Version
	s, err := shareOf(r.in.Period, h.Held)
	return r.by, s, err
}

func (r *rater) fees() error {
	for i := range len(r.in.Before) + 1 {
		v, s, err := r.held(i)
		if err != nil {
			return err
		}
		if err := r.fee(v, s); err != nil {
			return err
		}
	}
	return nil
}

func (r *rater) fee(v *plan.Version, s share) error {
	if v.Fee == nil {
		return nil
	}
	base, ok := v.Fee.Prices.In(r.in.Currency)
	if !ok {
		return ErrCurrency.With("currencies", v.Currencies)
	}
	line := r.line(KindFee, "", "", v.Fee.Name)
	if err := r.derive(line, base, s, nil); err != nil {
		return err
	}
	return r.add(line)
}

func (r *rater) charges() error {
	for i := range r.v.Charges {
		c := &r.v.Charges[i]
		if c.Percent != nil {
			continue
		}
		if err := r.charge(c, &r.tallies[i]); err != nil {
			return err
		}
	}
	if !r.explain {
		return nil
	}
	for i := range r.other {
		u := &r.other[i]
		line := r.line(KindUsage, "", u.Meter, string(u.Meter))
		line.Quantity, line.Amount = u.Quantity, money.Zero(r.in.Currency)
		line.Derivation.Quantity, line.Derivation.Rounded = u.Quantity, u.Quantity
		line.Derivation.Evidence.Events = u.Events
		if err := r.add(line); err != nil {
			return err
		}
	}
	return nil
}

func (r *rater) charge(c *plan.Charge, t *tally) (err error) {
	t.amount = money.Zero(r.in.Currency)
	price, priced := c.Price(r.in.Currency)
	if !priced && len(c.Prices) > 0 {
		return ErrCurrency.With("currencies", r.v.Currencies)
	}
	if t.used {
		if err := r.usageLine(c, price, t); err != nil {
			return err
		}
	}
	if priced && price.Minimum != nil {
		if err := r.bound(c, t, KindMinimum, "Minimum: ", *price.Minimum); err != nil {
			return err
		}
	}
	if priced && price.Maximum != nil {
		if err := r.bound(c, t, KindMaximum, "Maximum: ", *price.Maximum); err != nil {
			return err
		}
	}
	r.usage, err = r.usage.Add(t.amount)
	return err
}

// bound adds the line that lifts a charge to its minimum or lowers it to its maximum, if it must.
func (r *rater) bound(c *plan.Charge, t *tally, kind Kind, word string, bound money.Amount) error {
	line := r.line(kind, c.Code, c.Meter, c.Name)
	if err := r.derive(line, bound, r.share, &t.amount); err != nil {
		return err
	}
	if s := line.Amount.Sign(); s == 0 || (s > 0) != (kind == KindMinimum) {
		return nil
	}
	if r.explain {
		line.Description = word + c.Name
	}
	var err error
	if t.amount, err = t.amount.Add(line.Amount); err != nil {
		return err
	}
	return r.add(line)
}

// percents adds the charges in proportion to others. A percentage is taken of rounded lines, so that
// a reader can check it with the bill alone.
func (r *rater) percents() error {
	for i := range r.v.Charges {
		c := &r.v.Charges[i]
		if c.Percent == nil {
			continue
		}
		base, err := r.base(c.Percent)
		if err != nil {
			return err
		}
		if base.IsZero() {
			continue
		}
		line := r.line(KindPercent, c.Code, "", c.Name)
		rate, err := percentage(c.Percent.Rate)
		if err != nil {
			return err
		}
		if err := r.derive(line, base, rate, nil); err != nil {
			return err
		}
		if err := r.add(line); err != nil {
			return err
		}
	}
	return nil
}

func (r *rater) base(p *plan.Percent) (money.Amount, error) {
	if len(p.Of) == 0 {
		return r.usage, nil
	}
	sum := money.Zero(r.in.Currency)
	for i := range r.v.Charges {
		for _, code := range p.Of {
			if r.v.Charges[i].Code != code {
				continue
			}
			var err error
			if sum, err = sum.Add(r.tallies[i].amount); err != nil {
				return sum, err
			}
		}
	}
	return sum, nil
}

// minimum lifts all usage to the version's minimum.
func (r *rater) minimum() error {
	least, ok := r.v.Minimum.In(r.in.Currency)
	if !ok {
		return nil
	}
	line := r.line(KindMinimum, "", "", "Minimum usage")
	if err := r.derive(line, least, r.share, &r.usage); err != nil {
		return err
	}
	if line.Amount.Sign() <= 0 {
		return nil
	}
	var err error
	if r.usage, err = r.usage.Add(line.Amount); err != nil {
		return err
	}
	return r.add(line)
}

// credits takes off the usage that the fees cover.
func (r *rater) credits() error {
	left := r.usage
	defer func() { r.uncovered = left }()
	for i := range len(r.in.Before) + 1 {
		v, s, err := r.held(i)
		if err != nil {
			return err
		}
		credit, ok := v.Credit.In(r.in.Currency)
		if !ok || left.Sign() <= 0 {
			continue
		}
		line := r.line(KindCredit, "", "", "Included usage")
		if err := r.derive(line, credit, s, &left); err != nil {
			return err
		}
		if line.Amount.IsZero() {
			continue
		}
		if left, err = left.Add(line.Amount); err != nil {
			return err
		}
		if err := r.add(line); err != nil {
			return err
		}
	}
	return nil
}

// cap clamps the bill to the spending limit. What passes it is absorbed, and the bill says so.
func (r *rater) cap() error {
	if r.in.Cap == nil {
		return nil
	}
	if r.in.Cap.Currency != r.in.Currency {
		return ErrCurrency.With("cap", r.in.Cap.Currency)
	}
	line := r.line(KindAbsorbed, "", "", "Beyond the spending limit, not billed")
	if err := r.derive(line, r.total, whole, r.in.Cap); err != nil {
		return err
	}
	if line.Amount.Sign() >= 0 {
		return nil
	}
	r.absorbed = line.Amount.Neg()
	return r.add(line)
}
