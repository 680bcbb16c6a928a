package money_test

import (
	"errors"
	"math"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/pkg/money"
)

func TestAllocateGivesTheOddUnitsByLargestRemainder(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		minor   int64
		weights []int64
		want    []int64
	}{
		{100, []int64{1, 1, 1}, []int64{34, 33, 33}},
		{5, []int64{3, 7}, []int64{2, 3}},        // 1.5 and 3.5: a tie, the earlier first
		{10, []int64{1, 2, 4}, []int64{1, 3, 6}}, // 1.43, 2.86, 5.71
		{-10, []int64{1, 2, 4}, []int64{-1, -3, -6}},
		{7, []int64{0, 1, 0}, []int64{0, 7, 0}},
		{0, []int64{1, 2}, []int64{0, 0}},
		{math.MaxInt64, []int64{math.MaxInt64}, []int64{math.MaxInt64}},
	} {
		shares, err := money.Allocate(money.New(c.minor, money.USD), c.weights...)
		if err != nil {
			t.Fatal(err)
		}
		var got []int64
		for _, s := range shares {
			got = append(got, s.Minor)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%d over %v: %v, want %v", c.minor, c.weights, got, c.want)
		}
	}
	for _, weights := range [][]int64{nil, {0, 0}, {1, -1}, {math.MaxInt64, 1}} {
		if _, err := money.Allocate(money.New(1, money.USD), weights...); err == nil {
			t.Errorf("weights %v were taken", weights)
		}
	}
	if _, err := money.Split(money.New(1, money.USD), 0); !errors.Is(err, money.ErrWeights) {
		t.Errorf("split in no shares: %v", err)
	}
}

func TestSharesSumToTheWhole(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		a := money.New(rapid.Int64Range(-money.MaxMinor, money.MaxMinor).Draw(t, "amount"), money.USD)
		weights := rapid.SliceOfN(rapid.Int64Range(0, math.MaxInt64/64), 1, 50).Draw(t, "weights")
		shares, err := money.Allocate(a, weights...)
		sum := int64(0)
		total := new(big.Int)
		for _, w := range weights {
			total.Add(total, big.NewInt(w))
		}
		if total.Sign() == 0 {
			if !errors.Is(err, money.ErrWeights) {
				t.Fatal(err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range shares {
			sum += s.Minor
			// No share is off its exact value by a whole unit.
			exact := new(big.Rat).SetFrac(new(big.Int).Mul(big.NewInt(a.Minor), big.NewInt(weights[i])), total)
			off := new(big.Rat).Sub(exact, big.NewRat(s.Minor, 1))
			if off.Abs(off).Cmp(big.NewRat(1, 1)) >= 0 {
				t.Fatalf("share %d is %d, exactly %s", i, s.Minor, exact.FloatString(3))
			}
		}
		if sum != a.Minor {
			t.Fatalf("the shares sum to %d, not to %d", sum, a.Minor)
		}
		if again, _ := money.Allocate(a.Neg(), weights...); again[0] != shares[0].Neg() {
			t.Fatal("Allocate(-a) is not -Allocate(a)")
		}
	})
}

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
	if err := c.Shares(make([]money.Amount, 1), money.New(99, money.USD)); !errors.Is(err, money.ErrWeights) {
		t.Errorf("a third of a dollar was shared out as 99 cents: %v", err)
	}
}
