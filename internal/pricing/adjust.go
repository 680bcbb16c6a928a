package pricing

import (
	"github.com/accrue-billing/accrue/pkg/money"
)

// Adjust prices usage that came after its period was billed, at that period's prices. full is what the
// period comes to now, with all usage; billed is what it was billed by. It returns a line for each line of the
// bill that differs: the difference of the two ratings, so that the original lines and all adjustments ever made
// sum to the bill of the full usage. A line may be negative, and where nothing changed there is none.
func Adjust(full, billed Input) ([]Line, error) {
	after, err := Rate(full)
	if err != nil {
		return nil, err
	}
	before, err := Rate(billed)
	if err != nil {
		return nil, err
	}
	var out []Line
	seen := make([]bool, len(before.Lines))
	for i := range after.Lines {
		a := &after.Lines[i]
		var b *Line
		for j := range before.Lines {
			if !seen[j] && same(a, &before.Lines[j]) {
				b, seen[j] = &before.Lines[j], true
				break
			}
		}
		if out, err = appendDifference(out, b, a); err != nil {
			return nil, refine(err)
		}
	}
	for j := range before.Lines { // what is no longer due, such as the rest of a minimum
		if seen[j] {
			continue
		}
		if out, err = appendDifference(out, &before.Lines[j], nil); err != nil {
			return nil, refine(err)
		}
	}
	return out, nil
}

func same(a, b *Line) bool { return a.Kind == b.Kind && a.Charge == b.Charge && a.Meter == b.Meter }

// appendDifference adds the line that leads from before to after; either may be nil.
func appendDifference(out []Line, before, after *Line) ([]Line, error) {
	of := after
	if of == nil {
		of = before
	}
	zero := Line{Amount: money.Zero(of.Amount.Currency)}
	a, b := &zero, &zero
	d := Derivation{
		Plan: of.Derivation.Plan, Version: of.Derivation.Version, Hash: of.Derivation.Hash, Contract: of.Derivation.Contract,
		Kind: KindAdjustment, Charge: of.Charge, Meter: of.Meter, Currency: of.Amount.Currency,
	}
	if after != nil {
		a, d.After = after, new(after.Derivation)
	}
	if before != nil {
		b, d.Before = before, new(before.Derivation)
	}
	amount, err := a.Amount.Sub(b.Amount)
	if err != nil {
		return nil, err
	}
	if amount.IsZero() && a.Quantity.Cmp(b.Quantity) == 0 {
		return out, nil
	}
	d.Amount, d.Exact = amount, money.FractionOf(amount)
	return append(out, Line{
		Kind: KindAdjustment, Charge: of.Charge, Meter: of.Meter, Description: "Adjustment: " + of.Description,
		Quantity: a.Quantity.Sub(b.Quantity), Included: a.Included.Sub(b.Included), Billable: a.Billable.Sub(b.Billable),
		Amount: amount, Derivation: d,
	}), nil
}

// Absorbed returns the line that brings what came late for a period to what is billed of it.
func Absorbed(in Input, why string, came, billed money.Amount) (Line, error) {
	r := rater{in: &in, v: &in.Version, explain: true, lines: make([]Line, 0, 1), total: money.Zero(in.Currency)}
	err := r.terms()
	if err == nil {
		line := r.line(KindAbsorbed, "", "", why)
		if err = r.derive(line, came, whole, &billed); err == nil {
			err = r.add(line)
		}
	}
	if err != nil {
		return Line{}, refine(err)
	}
	return r.lines[0], nil
}
