package money_test

import (
	"errors"
	"math/big"
	"testing"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/pkg/money"
)

func TestCostsAreTheSumOfTheirPartsAndShareItOut(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		per := rapid.Int64Range(1, 1000).Draw(t, "per")
		n := rapid.IntRange(1, 20).Draw(t, "parts")
		var c money.Costs
		if rapid.Bool().Draw(t, "again") { // what was there before leaves no trace
			q := money.DecimalFromInt(7)
			if err := errors.Join(c.Reset(1), c.Add(&q, &q, nil)); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Reset(per); err != nil {
			t.Fatal(err)
		}
		parts := make([]*big.Rat, n)
		exact := new(big.Rat)
		for i := range parts {
			q := money.DecimalFromUnits(rapid.Int64Range(0, 1_000_000_000).Draw(t, "quantity"), 3)
			p := money.DecimalFromUnits(rapid.Int64Range(0, 1_000_000).Draw(t, "price"), 6)
			parts[i] = new(big.Rat).Mul(q.Rat(), p.Rat())
			parts[i].Quo(parts[i], big.NewRat(per, 1))
			var flat *money.Amount
			if rapid.Bool().Draw(t, "flat") {
				flat = new(money.New(rapid.Int64Range(0, 100_000).Draw(t, "sum"), money.USD))
				parts[i].Add(parts[i], money.FractionOf(*flat).Rat())
			}
			exact.Add(exact, parts[i])
			if err := c.Add(&q, &p, flat); err != nil {
				t.Fatal(err)
			}
		}
		if c.Sum().Rat().Cmp(exact) != 0 {
			t.Fatalf("the parts sum to %s, exactly %s", c.Sum(), exact)
		}
		whole, err := c.Sum().Round(money.USD)
		if err != nil {
			t.Fatal(err)
		}
		shares := make([]money.Amount, n)
		if err := c.Shares(shares, whole); err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		for i, s := range shares {
			sum += s.Minor
			off := new(big.Rat).Sub(parts[i], money.FractionOf(s).Rat())
			if off.Abs(off).Cmp(big.NewRat(1, 100)) >= 0 {
				t.Fatalf("share %d is %s, exactly %s", i, s, parts[i])
			}
		}
		if sum != whole.Minor {
			t.Fatalf("the shares sum to %d, not to %d", sum, whole.Minor)
		}
	})
}

func TestCostsAreRefusedBeforeTheyWrap(t *testing.T) {
	t.Parallel()

	var c money.Costs
	if err := c.Reset(0); !errors.Is(err, money.ErrOverflow) {
		t.Errorf("divided by 0: %v", err)
	}
	if err := c.Reset(3); err != nil {
		t.Fatal(err)
	}
	one, minus, most := money.MustDecimal("1"), money.MustDecimal("-1"), money.MustDecimal("999999999999999.999999999")
	fine := money.DecimalFromUnits(1, 10)
	owed := money.New(-1, money.USD)
	for name, c := range map[string]struct {
		q, p money.Decimal
		flat *money.Amount
		want error
	}{
		"beyond 128 bits":       {most, most, nil, money.ErrOverflow},
		"a negative quantity":   {minus, one, nil, money.ErrOverflow},
		"a negative price":      {one, minus, nil, money.ErrOverflow},
		"a negative flat sum":   {one, one, &owed, money.ErrOverflow},
		"ten decimals of price": {one, fine, nil, money.ErrDecimal},
		"ten decimals of units": {fine, one, nil, money.ErrDecimal},
	} {
		var costs money.Costs
		if err := costs.Reset(3); err != nil {
			t.Fatal(err)
		}
		if err := costs.Add(&c.q, &c.p, c.flat); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := c.Add(&one, &one, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Shares(make([]money.Amount, 1), money.New(99, money.USD)); !errors.Is(err, money.ErrParts) {
		t.Errorf("a third of a dollar was shared out as 99 cents: %v", err)
	}
}
