package money_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/pkg/money"
)

const (
	jpy = money.Currency("JPY") // no decimals
	kwd = money.Currency("KWD") // three
)

// decimals draws any decimal that can cross the wire, short ones as likely as long ones.
func decimals() *rapid.Generator[money.Decimal] {
	return rapid.Custom(func(t *rapid.T) money.Decimal {
		whole := rapid.Int64Range(0, tenTo(rapid.IntRange(0, money.MaxIntegerDigits).Draw(t, "integer digits"))-1).Draw(t, "integer")
		digits := rapid.IntRange(0, money.MaxFractionDigits).Draw(t, "fraction digits")
		d := money.DecimalFromInt(whole)
		if digits > 0 {
			d = d.Add(money.DecimalFromUnits(rapid.Int64Range(0, tenTo(digits)-1).Draw(t, "fraction"), uint8(digits)))
		}
		if rapid.Bool().Draw(t, "negative") {
			d = d.Neg()
		}
		return d
	})
}

func tenTo(n int) int64 {
	p := int64(1)
	for range n {
		p *= 10
	}
	return p
}

// oracle rounds half away from zero over arbitrary rationals, written differently from the code: by
// adding a half to the absolute value and cutting off.
func oracle(x *big.Rat, exponent int) (int64, bool) {
	scaled := new(big.Rat).Mul(x, big.NewRat(tenTo(exponent), 1))
	sign := scaled.Sign()
	scaled.Abs(scaled).Add(scaled, big.NewRat(1, 2))
	n := new(big.Int).Quo(scaled.Num(), scaled.Denom())
	if !n.IsInt64() || n.Int64() > money.MaxMinor {
		return 0, false
	}
	return n.Int64() * int64(sign), true
}

func TestParseDecimalTakesOneGrammar(t *testing.T) {
	t.Parallel()

	for _, s := range []string{
		"0", "1", "-1", "0.5", "-0.5", "1.0", "63.5", "0.00012", "999999999999999.999999999", "-999999999999999.999999999", "0.000000001",
	} {
		if _, err := money.ParseDecimal(s); err != nil {
			t.Errorf("%q was refused: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "-", ".", ".5", "5.", "-.5", "+1", " 1", "1 ", "01", "-01", "00", "-0", "-0.0", "-0.000000000", "1e3", "1E400", "1e131071",
		"0x10", "1_000", "1,5", "NaN", "Infinity", "1000000000000000", "0.0000000001", "1.2.3", "--1", "١", "\x001",
		strings.Repeat("9", 40), "0." + strings.Repeat("0", 40),
	} {
		if d, err := money.ParseDecimal(s); err == nil || !errors.Is(err, money.ErrDecimal) {
			t.Errorf("%q was read as %s: %v", s, d, err)
		}
	}
}

func FuzzDecimal(f *testing.F) {
	for _, s := range []string{"0", "-0", "1.50", "1e9", "999999999999999.999999999", "9007199254740993", "0.1", "-3.000000001", "１"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := money.ParseDecimal(s)
		if err != nil {
			return
		}
		want, ok := new(big.Rat).SetString(s)
		if !ok || d.Rat().Cmp(want) != 0 {
			t.Fatalf("%q was read as %s", s, d)
		}
		if !d.InRange() {
			t.Fatalf("%q was read, and is out of range", s)
		}
		again, err := money.ParseDecimal(d.String())
		if err != nil || again.Cmp(d) != 0 {
			t.Fatalf("%q is written %q, which reads as %s: %v", s, d, again, err)
		}
	})
}

func TestDecimalCrossesJSONAsText(t *testing.T) {
	t.Parallel()

	b, err := json.Marshal(struct{ D money.Decimal }{money.MustDecimal("1200.50")})
	if err != nil || string(b) != `{"D":"1200.5"}` {
		t.Errorf("wrote %s, %v", b, err)
	}
	var v struct{ D money.Decimal }
	if err := json.Unmarshal([]byte(`{"D":0.1}`), &v); err == nil {
		t.Error("a JSON float was taken for a decimal")
	}
}

func TestRoundGoesHalfAwayFromZero(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		x        string
		num, den int64
		currency money.Currency
		want     int64
	}{
		{"0.005", 1, 1, money.USD, 1},
		{"-0.005", 1, 1, money.USD, -1},
		{"0.004999999", 1, 1, money.USD, 0},
		{"0.015", 1, 1, money.USD, 2}, // and not to even
		{"0.025", 1, 1, money.USD, 3},
		{"0.5", 1, 1, jpy, 1},
		{"-0.5", 1, 1, jpy, -1},
		{"1.4995", 1, 1, kwd, 1500},
		{"1", 1, 3, money.USD, 33},
		{"2", 1, 3, money.USD, 67},
		{"0.027", 1, 60, money.USD, 0},
		{"783", 1, 1, money.USD, 78300},
		{"10000000000000", 1, 1, money.USD, money.MaxMinor},
	} {
		got, err := money.Round(money.MustDecimal(c.x), c.num, c.den, c.currency)
		if err != nil || got != money.New(c.want, c.currency) {
			t.Errorf("%s × %d ÷ %d in %s: %s, %v; want %d", c.x, c.num, c.den, c.currency, got, err, c.want)
		}
	}
	for _, c := range []struct {
		x        string
		num, den int64
	}{{"10000000000000.01", 1, 1}, {"999999999999999", math.MaxInt64, 1}, {"1", 1, 0}, {"1", 1, -1}} {
		if got, err := money.Round(money.MustDecimal(c.x), c.num, c.den, money.USD); !errors.Is(err, money.ErrOverflow) {
			t.Errorf("%s × %d ÷ %d: %s, %v; want it refused", c.x, c.num, c.den, got, err)
		}
	}
}

func TestRoundAgreesWithRationals(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		x := decimals().Draw(t, "x")
		num := rapid.Int64().Draw(t, "num")
		den := rapid.Int64Range(1, math.MaxInt64).Draw(t, "den")
		c := rapid.SampledFrom([]money.Currency{money.USD, jpy, kwd}).Draw(t, "currency")
		exact := x.Rat()
		exact.Mul(exact, big.NewRat(num, den))
		want, fits := oracle(exact, c.Exponent())

		for name, round := range map[string]func() (money.Amount, error){
			"Round":    func() (money.Amount, error) { return money.Round(x, num, den, c) },
			"RoundRat": func() (money.Amount, error) { return money.RoundRat(exact, c) },
		} {
			got, err := round()
			if fits != (err == nil) || (fits && got.Minor != want) {
				t.Fatalf("%s: %d, %v; want %d (in range: %t)", name, got.Minor, err, want, fits)
			}
		}
		if num == math.MinInt64 {
			return
		}
		a, err1 := money.Round(x, num, den, c)
		b, err2 := money.Round(x, -num, den, c)
		if (err1 == nil) != (err2 == nil) || a != b.Neg() {
			t.Fatalf("round(x) = %s and round(-x) = %s", a, b)
		}
	})
}

func TestFractionsAgreeWithRationals(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		var f [2]money.Fraction
		var want [2]*big.Rat
		for i := range f {
			q, p := decimals().Draw(t, "quantity"), decimals().Draw(t, "price")
			den := rapid.Int64Range(1, 1_000_000).Draw(t, "divisor")
			var err error
			if f[i], err = money.Quotient(q, p, den); err != nil {
				if !errors.Is(err, money.ErrOverflow) {
					t.Fatal(err)
				}
				t.Skip("beyond 128 bits")
			}
			want[i] = q.Rat()
			want[i].Mul(want[i], p.Rat()).Mul(want[i], big.NewRat(1, den))
			if f[i].Rat().Cmp(want[i]) != 0 || f[i].Sign() != want[i].Sign() || f[i].IsZero() != (want[i].Sign() == 0) {
				t.Fatalf("%s × %s ÷ %d = %s", q, p, den, f[i])
			}
			var back money.Fraction
			if err := back.UnmarshalText([]byte(f[i].String())); err != nil || back.Cmp(f[i]) != 0 {
				t.Fatalf("%s reads back as %s: %v", f[i], back, err)
			}
			minor, fits := oracle(want[i], 2)
			if a, err := f[i].Round(money.USD); fits != (err == nil) || (fits && a.Minor != minor) {
				t.Fatalf("round(%s) = %s, %v; want %d", f[i], a, err, minor)
			}
		}
		if got := f[0].Cmp(f[1]); got != want[0].Cmp(want[1]) {
			t.Fatalf("cmp(%s, %s) = %d", f[0], f[1], got)
		}
		if sum, err := f[0].Add(f[1]); err == nil && sum.Rat().Cmp(new(big.Rat).Add(want[0], want[1])) != 0 {
			t.Fatalf("%s + %s = %s", f[0], f[1], sum)
		}
		if diff, err := f[0].Sub(f[1]); err == nil && diff.Rat().Cmp(new(big.Rat).Sub(want[0], want[1])) != 0 {
			t.Fatalf("%s - %s = %s", f[0], f[1], diff)
		}
		a := money.New(rapid.Int64Range(-money.MaxMinor, money.MaxMinor).Draw(t, "amount"), kwd)
		if sum, err := f[0].AddAmount(a); err == nil && sum.Rat().Cmp(new(big.Rat).Add(want[0], money.FractionOf(a).Rat())) != 0 {
			t.Fatalf("%s + %s = %s", f[0], a, sum)
		}
	})
}

func TestFractionOfPlainNumbers(t *testing.T) {
	t.Parallel()

	var zero money.Fraction
	if zero.String() != "0" || zero.Sign() != 0 {
		t.Errorf("the zero fraction is %s", zero)
	}
	f, err := money.Ratio(money.New(100, money.USD), 1, 3)
	if err != nil || f.String() != "1/3" {
		t.Errorf("a third of a dollar is %s, %v", f, err)
	}
	for _, s := range []string{"", "-", "1/0", "0/0", "1/-2", "1.5", "1/2/3", " 1", "1e3", strings.Repeat("9", 40), "+1"} {
		if err := f.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q was read as %s", s, f)
		}
	}
	if _, err := money.Ratio(money.New(1, money.USD), 1, 0); !errors.Is(err, money.ErrOverflow) {
		t.Errorf("divided by 0: %v", err)
	}
	if _, err := money.Quotient(money.MustDecimal("999999999999999"), money.MustDecimal("999999999999999"), 1); !errors.Is(err, money.ErrOverflow) {
		t.Errorf("a product beyond 128 bits: %v", err)
	}
}

// Sums and differences are those of whole numbers without bounds, or refused where they pass what an amount holds.
func TestAmountArithmeticAgreesWithIntegers(t *testing.T) {
	t.Parallel()

	minor := rapid.OneOf(
		rapid.Int64(), rapid.Int64Range(-3, 3),
		rapid.Int64Range(money.MaxMinor-3, money.MaxMinor+3), rapid.Int64Range(-money.MaxMinor-3, -money.MaxMinor+3))
	rapid.Check(t, func(t *rapid.T) {
		a, b := minor.Draw(t, "a"), minor.Draw(t, "b")
		for name, c := range map[string]struct {
			op   func(a, b money.Amount) (money.Amount, error)
			want *big.Int
		}{
			"sum":        {money.Amount.Add, new(big.Int).Add(big.NewInt(a), big.NewInt(b))},
			"difference": {money.Amount.Sub, new(big.Int).Sub(big.NewInt(a), big.NewInt(b))},
		} {
			got, err := c.op(money.New(a, money.USD), money.New(b, money.USD))
			if inRange := c.want.CmpAbs(big.NewInt(money.MaxMinor)) <= 0; (err == nil) != inRange && b != math.MinInt64 {
				t.Errorf("%s: %v, want %s", name, err, c.want)
			} else if err == nil && got != money.New(c.want.Int64(), money.USD) {
				t.Errorf("%s: %s, want %s", name, got, c.want)
			}
		}
	})
}

func TestAmountArithmeticIsRefusedBeforeItWraps(t *testing.T) {
	t.Parallel()

	most := money.New(money.MaxMinor, money.USD)
	one := money.New(1, money.USD)
	for name, op := range map[string]func() (money.Amount, error){
		"max + 1":       func() (money.Amount, error) { return most.Add(one) },
		"-max - 1":      func() (money.Amount, error) { return most.Neg().Sub(one) },
		"wrapping sum":  func() (money.Amount, error) { return money.New(math.MaxInt64, money.USD).Add(one) },
		"to a little":   func() (money.Amount, error) { m := money.New(math.MaxInt64, money.USD); return m.Add(m) },
		"to nothing":    func() (money.Amount, error) { m := money.New(math.MinInt64, money.USD); return m.Add(m) },
		"minus minimum": func() (money.Amount, error) { return one.Sub(money.New(math.MinInt64, money.USD)) },
	} {
		if got, err := op(); !errors.Is(err, money.ErrOverflow) {
			t.Errorf("%s gave %s, %v", name, got, err)
		}
	}
	if _, err := one.Add(money.New(1, jpy)); !errors.Is(err, money.ErrCurrencyMismatch) {
		t.Errorf("dollars and yen were added: %v", err)
	}
}

func TestCurrenciesHaveTheirExponents(t *testing.T) {
	t.Parallel()

	for code, want := range map[string]string{"USD": "-12.05 USD", "JPY": "-1205 JPY", "KWD": "-1.205 KWD", "BHD": "-1.205 BHD"} {
		c, err := money.ParseCurrency(code)
		if err != nil {
			t.Fatal(err)
		}
		if got := money.New(-1205, c).String(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if got := money.New(-5, money.USD).String(); got != "-0.05 USD" {
		t.Errorf("%s, want -0.05 USD", got)
	}
	for _, code := range []string{"", "usd", "XYZ", "US", "USDT"} {
		if c, err := money.ParseCurrency(code); !errors.Is(err, money.ErrUnknownCurrency) {
			t.Errorf("%q is taken for the currency %s", code, c)
		}
	}
}

func TestCeilDiv(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		d, e := decimals().Draw(t, "d"), decimals().Draw(t, "e")
		n, err := d.CeilDiv(e)
		if d.Sign() < 0 || e.Sign() <= 0 {
			if err == nil {
				t.Fatalf("⌈%s ÷ %s⌉ = %d", d, e, n)
			}
			return
		}
		q := new(big.Rat).Quo(d.Rat(), e.Rat())
		want, rest := new(big.Int).QuoRem(q.Num(), q.Denom(), new(big.Int))
		if rest.Sign() > 0 {
			want.Add(want, big.NewInt(1))
		}
		if want.IsInt64() != (err == nil) || (err == nil && n != want.Int64()) {
			t.Fatalf("⌈%s ÷ %s⌉ = %d, %v; want %s", d, e, n, err, want)
		}
	})
}

//nolint:paralleltest // AllocsPerRun counts the allocations of the whole process
func TestRoundingAllocatesNothing(t *testing.T) {
	x := money.MustDecimal("1234567.027")
	q := money.MustDecimal("432123.456789")
	if n := testing.AllocsPerRun(100, func() { _, _ = money.Round(x, 7, 60, money.USD) }); n > 0 {
		t.Errorf("Round allocates %v times", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		f, _ := money.Quotient(q, x, 60)
		f, _ = f.Add(f)
		_, _ = f.Round(money.USD)
	}); n > 0 {
		t.Errorf("a priced quantity allocates %v times", n)
	}
}

func BenchmarkRound(b *testing.B) {
	x := money.MustDecimal("1234567.027")
	b.ReportAllocs()
	for b.Loop() {
		_, _ = money.Round(x, 7, 60, money.USD)
	}
}

// To the last decimal what math/big says.
func TestQuoProperty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		d := money.DecimalFromUnits(rapid.Int64Range(-1_000_000_000_000_000_000, 1_000_000_000_000_000_000).Draw(t, "units"), uint8(rapid.IntRange(0, 9).Draw(t, "scale")))
		n := rapid.Int64Range(1, 1_000_000_000).Draw(t, "divisor")
		exact := new(big.Rat).Quo(d.Rat(), big.NewRat(n, 1))
		want := money.MustDecimal("0")
		if s := strings.TrimSuffix(strings.TrimRight(exact.FloatString(9), "0"), "."); s != "-0" {
			if parsed, err := money.ParseDecimal(s); err == nil {
				want = parsed
			} else {
				t.Skip("more digits than a quantity has")
			}
		}
		if got := d.Quo(n); got.Cmp(want) != 0 || d.Neg().Quo(n).Cmp(want.Neg()) != 0 || d.Quo(-n).Cmp(want.Neg()) != 0 {
			t.Fatalf("%s ÷ %d = %s, want %s", d, n, got, want)
		}
	})
}

func TestDisplay(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		currency       money.Currency
		decimal, shown string
	}{
		{money.USD, "0.027", "$0.027"},
		{money.USD, "1234.5", "$1,234.50"},
		{money.USD, "0.000000001", "$0.000000001"},
		{money.USD, "-3", "-$3.00"},
		{"EUR", "0.014", "€0.014"},
		{"JPY", "3300", "¥3,300"},
		{"KWD", "1.5", "KWD\u00a01.500"},
	} {
		if got := c.currency.Display(money.MustDecimal(c.decimal)); got != c.shown {
			t.Errorf("%s %s is shown as %q, want %q", c.decimal, c.currency, got, c.shown)
		}
	}
	if got := money.MustDecimal("1800000.25").Grouped(); got != "1,800,000.25" {
		t.Errorf("grouped as %q", got)
	}
}
