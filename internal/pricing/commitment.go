package pricing

import (
	"fmt"

	"github.com/accrue-billing/accrue/pkg/money"
)

// Spent returns what a period's usage counts toward a commitment: its usage lines with their minimums and
// maximums, without fees and percentages. From one that is prepaid, what a credit covers is not drawn.
func Spent(in Input) (money.Amount, error) {
	in.Term, in.Cap = nil, nil
	r := rater{in: &in, v: &in.Version}
	if err := r.run(); err != nil {
		return money.Amount{}, refine(err)
	}
	if r.commitment != nil && r.commitment.Prepaid {
		return r.uncovered, nil
	}
	return r.usage, nil
}

// Prepayment returns the line that bills the step of a prepaid commitment that the period lies in.
func Prepayment(in Input) (Line, error) {
	r := rater{in: &in, v: &in.Version, explain: true, lines: make([]Line, 0, 1), total: money.Zero(in.Currency)}
	err := r.terms()
	if err == nil {
		err = r.prepayment()
	}
	if err != nil {
		return Line{}, refine(err)
	}
	return r.lines[0], nil
}

// committed returns the sum of the commitment's step that the period lies in, if there is one.
func (r *rater) committed() (sum money.Amount, ok bool, err error) {
	if r.commitment == nil {
		return sum, false, nil
	}
	step, ok := r.commitment.In(r.in.Period.Start)
	if !ok {
		return sum, false, nil
	}
	if sum, ok = step.Sums.In(r.in.Currency); !ok {
		err = ErrCurrency.With("commitment", r.contract)
	}
	return sum, ok, err
}

// prepayment bills a step of a commitment ahead.
func (r *rater) prepayment() error {
	sum, ok, err := r.committed()
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("pricing: nothing is prepaid in %s", r.in.Period)
	}
	line := r.line(KindPrepayment, "", "", "Prepaid usage")
	if err := r.derive(line, sum, whole, nil); err != nil {
		return err
	}
	return r.add(line)
}

// draw takes off the usage that was paid ahead.
func (r *rater) draw(paid money.Amount) error {
	if r.in.Term == nil { // what was drawn before is not known
		return nil
	}
	left, err := paid.Sub(r.in.Term.Spent)
	if err != nil || left.Sign() <= 0 || r.uncovered.Sign() <= 0 {
		return err
	}
	line := r.line(KindDrawdown, "", "", "Drawn from prepaid usage")
	if err := r.derive(line, left, whole, &r.uncovered); err != nil {
		return err
	}
	return r.add(line)
}

// commit bills what is missing from a commitment, and what usage beyond it costs more or less.
func (r *rater) commit() error {
	sum, ok, err := r.committed()
	if err != nil || !ok {
		return err
	}
	if r.commitment.Prepaid {
		return r.draw(sum)
	}
	line := r.line(KindCommitment, "", "", "Commitment true-up")
	spent, held := r.usage, r.share
	if r.commitment.Term {
		t := r.in.Term
		if t == nil || !t.Last {
			return nil
		}
		if spent, err = spent.Add(t.Spent); err != nil {
			return err
		}
		held = whole
	}
	if err := r.derive(line, sum, held, &spent); err != nil {
		return err
	}
	switch {
	case line.Amount.Sign() > 0:
		return r.add(line)
	case line.Amount.Sign() < 0 && !r.commitment.Term && !r.commitment.OverageRate.IsZero():
		return r.overage(line.Amount.Neg())
	}
	return nil
}

func (r *rater) overage(beyond money.Amount) error {
	rate, err := percentage(r.commitment.OverageRate)
	if err != nil {
		return err
	}
	rate.from = rate.den // the price itself is on the usage lines already
	line := r.line(KindOverage, "", "", "Overage")
	if err := r.derive(line, beyond, rate, nil); err != nil {
		return err
	}
	if line.Amount.IsZero() {
		return nil
	}
	return r.add(line)
}
