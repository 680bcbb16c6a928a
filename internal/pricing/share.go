package pricing

import (
	"fmt"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/pkg/money"
)

// ErrHeld says that the time held is not within the period.
var ErrHeld = errs.New(errs.Invalid, "held_outside_period", "The time that the plan was held must lie within the period.")

// share is a part of a sum: from ÷ den of it is before the part, num ÷ den is up to its end.
type share struct{ num, from, den int64 }

// whole is all of a sum.
var whole = share{1, 0, 1}

// shareOf returns the share of the period that was held, in microseconds, which is what storage keeps.
func shareOf(p, held period.Bounds) (share, error) {
	if held.IsZero() || held.Equal(p) {
		return whole, nil
	}
	if held.Start.Before(p.Start) || held.End.After(p.End) || held.End.Before(held.Start) || !p.Start.Before(p.End) {
		return share{}, ErrHeld.Details("The time held %s must lie within the period %s.", held, p)
	}
	s := share{
		num:  held.End.Sub(p.Start).Microseconds(),
		from: held.Start.Sub(p.Start).Microseconds(),
		den:  p.Duration().Microseconds(),
	}
	if s.den == 0 {
		return share{}, ErrHeld
	}
	return s, nil
}

// percentage returns a rate in percent as a share.
func percentage(rate money.Decimal) (share, error) {
	// A rate has at most 9 decimals, so that in billionths it is whole.
	n, err := rate.Mul(money.DecimalFromInt(1_000_000_000)).CeilDiv(money.DecimalFromInt(1))
	if err != nil {
		return share{}, fmt.Errorf("%s percent: %w", rate, err)
	}
	return share{num: n, den: 100 * 1_000_000_000}, nil
}

// of returns the share of a sum: what is due up to the end of the part, less what was due up to its
// beginning. Each is rounded on its own, which is what makes shares telescope. Where exact is asked
// for, it also returns the share before rounding.
func (s share) of(sum money.Amount, exact bool) (money.Amount, money.Fraction, error) {
	if s == whole {
		return sum, money.FractionOf(sum), nil
	}
	upTo, err := money.Ratio(sum, s.num, s.den)
	if err != nil {
		return money.Amount{}, money.Fraction{}, err
	}
	before, err := money.Ratio(sum, s.from, s.den)
	if err != nil {
		return money.Amount{}, money.Fraction{}, err
	}
	a, err := upTo.Round(sum.Currency)
	if err != nil {
		return money.Amount{}, money.Fraction{}, err
	}
	b, err := before.Round(sum.Currency)
	if err != nil {
		return money.Amount{}, money.Fraction{}, err
	}
	a, err = a.Sub(b)
	if err != nil || !exact {
		return a, money.Fraction{}, err
	}
	f, err := upTo.Sub(before)
	return a, f, err
}

// derive computes a line that is not usage: the share of a base, and what the line's kind does with
// the amount it stands against. It fills in the amount and the derivation.
func (r *rater) derive(l *Line, base money.Amount, s share, against *money.Amount) error {
	due, exact, err := s.of(base, r.explain)
	if err != nil {
		return err
	}
	if l.Amount, err = settle(l.Kind, due, against); err != nil || !r.explain {
		return err
	}
	d := &l.Derivation
	d.Base, d.Numerator, d.From, d.Denominator = new(base), s.num, s.from, s.den
	if against != nil {
		d.Against = new(*against)
	}
	d.Exact = exact
	d.Remainder, err = exact.Sub(money.FractionOf(due))
	return err
}

// settle turns what is due into the amount of a line.
func settle(k Kind, due money.Amount, against *money.Amount) (money.Amount, error) {
	if against == nil {
		return due, nil
	}
	switch k {
	case KindCredit, KindDrawdown: // no more than there is to cover
		if against.Minor < due.Minor {
			due = *against
		}
		return due.Neg(), nil
	case KindAbsorbed:
		return against.Sub(due)
	default:
		return due.Sub(*against)
	}
}
