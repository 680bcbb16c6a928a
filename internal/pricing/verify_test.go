package pricing_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

func TestAdjustIsTheDifferenceOfTwoRatings(t *testing.T) {
	t.Parallel()

	v := one(t, `    minimum: {USD: 3}
    charges: [{meter: n, included: 10, prices: {USD: {model: graduated, tiers: [{up_to: 20, unit_price: "0.333"}, {unit_price: "0.111"}]}}}]
`)
	in := func(q string) pricing.Input {
		return pricing.Input{Version: v, Currency: money.USD, Usage: use("n", q)}
	}
	total := rate(t, in("11")).Total.Minor
	billed := "11"
	for _, now := range []string{"12", "19.5", "25", "25", "40"} {
		lines, err := pricing.Adjust(in(now), in(billed))
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range lines {
			total += l.Amount.Minor
			if a, err := pricing.Verify(l.Derivation); err != nil || a != l.Amount || l.Kind != pricing.KindAdjustment {
				t.Errorf("adjustment to %s: verified as %s, %v", now, a, err)
			}
		}
		if (now == billed) != (len(lines) == 0) {
			t.Errorf("from %s to %s there are %d lines", billed, now, len(lines))
		}
		billed = now
		if want := rate(t, in(now)).Total.Minor; total != want {
			t.Errorf("at %s calls all lines sum to %d, the bill is %d", now, total, want)
		}
	}
}

func TestVerifyFindsWhatWasChanged(t *testing.T) {
	t.Parallel()

	v := one(t, `    fee: {prices: {USD: 31}}
    charges:
      - {meter: n, included: 10, step: 2, prices: {USD: {model: graduated, tiers: [{up_to: 20, flat: 1, unit_price: "0.333"}, {unit_price: "0.111"}]}}}
      - {meter: users, prices: {USD: {model: volume, tiers: [{up_to: 20, unit_price: "0.5"}, {unit_price: "0.25"}]}}}
      - {meter: m, prices: {USD: {model: package, package: 10, unit_price: 1}}}
`)
	bill := rate(t, pricing.Input{
		Version: v, Period: january, Held: period.Bounds{Start: day(3), End: day(12)},
		Usage: append(append(use("n", "25"), use("users", "30")...), use("m", "55")...),
	})
	one, other := money.New(1, money.USD), dec("3")
	spoilt := 0
	for name, spoil := range map[string]func(*pricing.Derivation) bool{
		"Amount": func(d *pricing.Derivation) bool { d.Amount.Minor++; return true },
		"Quantity": func(d *pricing.Derivation) bool {
			d.Quantity = d.Quantity.Add(other)
			return d.Kind == pricing.KindUsage
		},
		"Rounded":   func(d *pricing.Derivation) bool { d.Rounded = d.Rounded.Add(other); return d.Kind == pricing.KindUsage },
		"Included":  func(d *pricing.Derivation) bool { d.Included = other; return d.Kind == pricing.KindUsage },
		"Billable":  func(d *pricing.Derivation) bool { d.Billable = other; return d.Kind == pricing.KindUsage },
		"UnitPrice": func(d *pricing.Derivation) bool { return len(d.Parts) > 0 && set(&d.Parts[0].UnitPrice, other) },
		"Units":     func(d *pricing.Derivation) bool { return len(d.Parts) > 0 && set(&d.Parts[0].Units, other) },
		"UpTo":      func(d *pricing.Derivation) bool { return len(d.Parts) > 1 && set(&d.Parts[0].UpTo, other) },
		"Over": func(d *pricing.Derivation) bool {
			return len(d.Parts) > 0 && set(&d.Parts[len(d.Parts)-1].Over, dec("1000"))
		},
		"PartAmount":  func(d *pricing.Derivation) bool { return len(d.Parts) > 0 && set(&d.Parts[0].Amount, one) },
		"Tier":        func(d *pricing.Derivation) bool { return len(d.Parts) > 0 && set(&d.Parts[0].Tier, nil) },
		"Packages":    func(d *pricing.Derivation) bool { return d.Model == plan.Package && set(&d.Parts[0].Packages, 7) },
		"Flat":        func(d *pricing.Derivation) bool { return len(d.Parts) > 1 && set(&d.Parts[0].Flat, nil) },
		"Exact":       func(d *pricing.Derivation) bool { d.Exact = money.FractionOf(one); return true },
		"Remainder":   func(d *pricing.Derivation) bool { d.Remainder = money.FractionOf(one); return true },
		"Base":        func(d *pricing.Derivation) bool { return d.Base != nil && set(d.Base, one) },
		"Numerator":   func(d *pricing.Derivation) bool { d.Numerator++; return d.Base != nil },
		"Denominator": func(d *pricing.Derivation) bool { d.Denominator = 0; return d.Base != nil },
		"Kind":        func(d *pricing.Derivation) bool { d.Kind = "gift"; return d.Base == nil },
		"Currency":    func(d *pricing.Derivation) bool { d.Currency = jpy; return true },
		"Last":        func(d *pricing.Derivation) bool { p := d.Parts; d.Parts = p[:max(0, len(p)-1)]; return len(p) > 0 },
	} {
		for _, l := range bill.Lines {
			b, err := json.Marshal(l.Derivation)
			if err != nil {
				t.Fatal(err)
			}
			var d pricing.Derivation
			if err := json.Unmarshal(b, &d); err != nil {
				t.Fatal(err)
			}
			if a, err := pricing.Verify(d); err != nil || a != l.Amount {
				t.Fatalf("the %s line does not survive JSON: %s, %v\n%s", l.Kind, a, err, b)
			}
			if !spoil(&d) {
				continue
			}
			spoilt++
			if a, err := pricing.Verify(d); !errors.Is(err, pricing.ErrUnverified) {
				t.Errorf("%s of the %s line was changed, and it verified as %s", name, l.Kind, a)
			}
		}
	}
	if spoilt < 30 {
		t.Errorf("only %d changes were tried", spoilt)
	}
}

func set[T any](p *T, v T) bool { *p = v; return true }
