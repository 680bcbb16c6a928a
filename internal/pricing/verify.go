package pricing

import (
	"fmt"
	"math/big"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// ErrUnverified says that a derivation does not add up: it was not made by Rate, or was changed.
var ErrUnverified = errs.New(errs.Conflict, "derivation_unverified", "The derivation does not add up.")

// Verify computes the amount of a line again from its derivation alone, and returns it. It goes its
// own way, over arbitrary rationals, so that it does not repeat a fault of Rate. It fails with
// ErrUnverified, naming the step, where a recorded figure is not what the figures before it give.
func Verify(d Derivation) (money.Amount, error) {
	v := verifier{d: &d}
	var a money.Amount
	switch {
	case d.Kind == KindUsage:
		a = v.usage()
	case d.Kind == KindAdjustment:
		a = v.adjustment()
	case d.Base != nil:
		a = v.share()
	default:
		v.refuse("kind", "a line that is neither usage nor a share of something")
	}
	if v.err == nil && a != d.Amount {
		v.refuse("amount", "%s is recorded, %s is right", d.Amount, a)
	}
	return a, v.err
}

type verifier struct {
	d   *Derivation
	err error
}

func (v *verifier) refuse(step, format string, args ...any) {
	if v.err == nil {
		v.err = ErrUnverified.Details("The derivation does not add up at %q: %s.", step, fmt.Sprintf(format, args...))
	}
}

// equal checks a recorded figure.
func (v *verifier) equal(step string, recorded, right *big.Rat) {
	if recorded.Cmp(right) != 0 {
		v.refuse(step, "%s is recorded, %s is right", recorded.RatString(), right.RatString())
	}
}

func (v *verifier) round(x *big.Rat) money.Amount {
	a, err := money.RoundRat(x, v.d.Currency)
	if err != nil {
		v.refuse("amount", "%v", err)
	}
	return a
}

// usage checks quantity → rounded → included and billable → parts → exact → amount.
func (v *verifier) usage() money.Amount {
	d := v.d
	rounded := d.Quantity.Rat()
	if d.Step.Sign() > 0 {
		rounded = multiple(rounded, d.Step.Rat())
	}
	v.equal("rounded", d.Rounded.Rat(), rounded)
	if d.Model == "" { // nothing but an allowance
		v.equal("exact", d.Exact.Rat(), new(big.Rat))
		return money.Zero(d.Currency)
	}
	if d.Included.Sign() < 0 || d.Included.Cmp(d.Rounded) > 0 {
		v.refuse("included", "the allowance used is more than the quantity")
	}
	v.equal("billable", d.Billable.Rat(), new(big.Rat).Sub(rounded, d.Included.Rat()))

	for i := range d.Parts {
		if d.Parts[i].Tier == nil {
			v.refuse(fmt.Sprintf("parts/%d", i), "it has no price")
			return money.Amount{}
		}
	}
	exact, units, shares := new(big.Rat), new(big.Rat), int64(0)
	for i := range d.Parts {
		p := &d.Parts[i]
		v.part(i, p)
		count, divisor := p.Units.Rat(), big.NewRat(d.Per.Divisor(), 1)
		if d.Model == plan.Package {
			count, divisor = packages(count, d.Package), big.NewRat(1, 1)
			v.equal(fmt.Sprintf("parts/%d/packages", i), big.NewRat(p.Packages, 1), count)
		}
		x := new(big.Rat).Mul(count, p.UnitPrice.Rat())
		exact.Add(exact, x.Quo(x, divisor))
		if p.Flat != nil && p.Units.Sign() > 0 {
			exact.Add(exact, money.FractionOf(*p.Flat).Rat())
		}
		units.Add(units, p.Units.Rat())
		shares += p.Amount.Minor
	}
	v.equal("parts", units, d.Billable.Rat())
	v.equal("exact", d.Exact.Rat(), exact)
	a := v.round(exact)
	v.equal("remainder", d.Remainder.Rat(), new(big.Rat).Sub(exact, money.FractionOf(a).Rat()))
	if shares != a.Minor {
		v.refuse("parts", "the shares of the parts do not sum to the line")
	}
	return a
}

// part checks that a tier follows the one before it and holds the units that lie in it.
func (v *verifier) part(i int, p *Part) {
	d, step := v.d, fmt.Sprintf("parts/%d", i)
	over, total := p.Over.Rat(), d.Rounded.Rat()
	last := i == len(d.Parts)-1
	if i > 0 && p.Over.Cmp(d.Parts[i-1].UpTo) != 0 {
		v.refuse(step, "the tier does not begin where the one before it ends")
	}
	reached := p.UpTo.IsZero() || total.Cmp(p.UpTo.Rat()) <= 0
	if last != reached {
		v.refuse(step, "the last tier listed must be the one that the total lies in")
	}
	want := new(big.Rat).Set(d.Billable.Rat())
	switch d.Model {
	case plan.Graduated:
		if i == 0 && !p.Over.IsZero() {
			v.refuse(step, "the first tier begins at 0")
		}
		from, to := over, total
		if d.Included.Rat().Cmp(from) > 0 {
			from = d.Included.Rat()
		}
		if !last {
			to = p.UpTo.Rat()
		}
		want = new(big.Rat).Sub(to, from)
		if want.Sign() < 0 {
			want = new(big.Rat)
		}
	case plan.Volume:
		if len(d.Parts) != 1 || (total.Sign() > 0 && total.Cmp(over) <= 0) {
			v.refuse(step, "the total does not lie in the tier")
		}
	default:
		if len(d.Parts) != 1 || !p.Over.IsZero() || !p.UpTo.IsZero() {
			v.refuse(step, "one price has one part, from 0 on")
		}
	}
	v.equal(step+"/units", p.Units.Rat(), want)
}

// share checks base × (numerator − from) ÷ denominator, less or more what it stands against.
func (v *verifier) share() money.Amount {
	d := v.d
	if d.Denominator <= 0 || d.Base.Currency != d.Currency {
		v.refuse("denominator", "a share of nothing")
		return money.Amount{}
	}
	base := money.FractionOf(*d.Base).Rat()
	upTo := new(big.Rat).Mul(base, big.NewRat(d.Numerator, d.Denominator))
	before := new(big.Rat).Mul(base, big.NewRat(d.From, d.Denominator))
	exact := new(big.Rat).Sub(upTo, before)
	v.equal("exact", d.Exact.Rat(), exact)
	due, err := v.round(upTo).Sub(v.round(before))
	if err != nil {
		v.refuse("amount", "%v", err)
	}
	v.equal("remainder", d.Remainder.Rat(), new(big.Rat).Sub(exact, money.FractionOf(due).Rat()))
	a, err := settle(d.Kind, due, d.Against)
	if err != nil {
		v.refuse("against", "%v", err)
	}
	return a
}

// adjustment checks both ratings and takes their difference.
func (v *verifier) adjustment() money.Amount {
	after, before := money.Zero(v.d.Currency), money.Zero(v.d.Currency)
	for _, side := range []struct {
		name string
		d    *Derivation
		to   *money.Amount
	}{{"before", v.d.Before, &before}, {"after", v.d.After, &after}} {
		if side.d == nil {
			continue
		}
		a, err := Verify(*side.d)
		if err != nil {
			v.refuse(side.name, "%v", err)
			return a
		}
		*side.to = a
	}
	a, err := after.Sub(before)
	if err != nil {
		v.refuse("amount", "%v", err)
	}
	return a
}

// multiple returns the least multiple of step that is not below x.
func multiple(x, step *big.Rat) *big.Rat {
	n := ceil(new(big.Rat).Quo(x, step))
	return n.Mul(n, step)
}

func packages(units *big.Rat, size money.Decimal) *big.Rat {
	if size.Sign() <= 0 {
		return new(big.Rat)
	}
	return ceil(new(big.Rat).Quo(units, size.Rat()))
}

func ceil(x *big.Rat) *big.Rat {
	n, rest := new(big.Int).QuoRem(x.Num(), x.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		n.Add(n, big.NewInt(1))
	}
	return new(big.Rat).SetInt(n)
}
