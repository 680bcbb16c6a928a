package pricing_test

import (
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

// source is where the random values of a price list come from: rapid, which shrinks, or a fast
// generator for the long run.
type source interface {
	upTo(n int64, label string) int64 // 0 … n
}

type rapidSource struct{ t *rapid.T }

func (s rapidSource) upTo(n int64, label string) int64 {
	return rapid.Int64Range(0, n).Draw(s.t, label)
}

type fastSource struct{ r *rand.Rand }

func (s fastSource) upTo(n int64, _ string) int64 { return s.r.Int64N(n + 1) }

// quantity draws a quantity with up to nine decimals, often a small or whole one.
func quantity(s source, label string) money.Decimal {
	switch s.upTo(3, label+" kind") {
	case 0:
		return money.DecimalFromInt(s.upTo(100, label))
	case 1:
		return money.DecimalFromInt(s.upTo(10_000_000, label))
	case 2:
		return money.DecimalFromUnits(s.upTo(10_000_000_000, label), 3)
	default:
		return money.DecimalFromUnits(s.upTo(1_000_000_000_000_000, label), 9)
	}
}

func unitPrice(s source) money.Decimal {
	return money.DecimalFromUnits(s.upTo(1_000_000, "price"), uint8(2+s.upTo(7, "price decimals")))
}

func tiers(s source, flat bool) []plan.Tier {
	out := make([]plan.Tier, 1+s.upTo(5, "tiers"))
	var end money.Decimal
	for i := range out {
		out[i].UnitPrice = unitPrice(s)
		if flat && s.upTo(3, "flat") == 0 {
			a := money.New(s.upTo(100_000, "flat amount"), money.USD)
			out[i].Flat = &a
		}
		if i < len(out)-1 {
			end = end.Add(quantity(s, "width")).Add(money.DecimalFromUnits(1, 9))
			out[i].UpTo = end
		}
	}
	return out
}

// randomCharge draws a charge on the meter: any model, quoted unit, step and allowance.
func randomCharge(s source, code string, models ...plan.Model) plan.Charge {
	c := plan.Charge{Code: code, Name: code, Meter: plan.MeterCode(code), Unit: "unit", Aggregation: plan.Sum}
	if s.upTo(1, "quoted") == 1 {
		c.Per = plan.Quote{Unit: "lot", Size: 1 + s.upTo(9_999, "size")}
	}
	if s.upTo(2, "stepped") == 0 {
		c.Step = money.DecimalFromUnits(1+s.upTo(600_000, "step"), 4)
	}
	if s.upTo(1, "allowed") == 1 {
		c.Included = quantity(s, "included")
	}
	p := plan.Price{Currency: money.USD, Model: models[s.upTo(int64(len(models)-1), "model")]}
	switch p.Model {
	case plan.PerUnit:
		p.UnitPrice = unitPrice(s)
	case plan.Package:
		p.UnitPrice, p.Package = unitPrice(s), money.DecimalFromUnits(100+s.upTo(1_000_000, "package"), 2)
	default:
		p.Tiers = tiers(s, true)
	}
	c.Prices = []plan.Price{p}
	return c
}

func amount(s source, most int64, label string) *money.Amount {
	a := money.New(s.upTo(most, label), money.USD)
	return &a
}

// randomInput draws a month under random terms with everything that terms may have.
func randomInput(s source) pricing.Input {
	in := pricing.Input{Currency: money.USD, Period: january}
	v := &in.Version
	v.Plan, v.Number, v.Currencies = "random", 1, []money.Currency{money.USD}
	codes := [...]string{"a", "b", "c"}
	for i := range 1 + s.upTo(2, "charges") {
		c := randomCharge(s, codes[i], plan.PerUnit, plan.Package, plan.Graduated, plan.Volume)
		if s.upTo(4, "has minimum") == 0 {
			c.Prices[0].Minimum = amount(s, 1_000_000, "minimum")
		}
		if s.upTo(4, "has maximum") == 0 {
			c.Prices[0].Maximum = amount(s, 1_000_000, "maximum")
		}
		v.Charges = append(v.Charges, c)
		for range s.upTo(2, "series") {
			in.Usage = append(in.Usage, pricing.Usage{Meter: c.Meter, Quantity: quantity(s, "quantity"), Events: 1})
		}
	}
	if s.upTo(2, "has percentage") == 0 {
		v.Charges = append(v.Charges, plan.Charge{Code: "p", Name: "p", Percent: &plan.Percent{Rate: money.DecimalFromUnits(s.upTo(50_000, "rate"), 3)}})
	}
	if s.upTo(1, "has fee") == 0 {
		v.Fee = &plan.Fee{Name: "Fee", Prices: plan.Sums{*amount(s, 1_000_000, "fee")}}
	}
	if s.upTo(3, "has credit") == 0 {
		v.Credit = plan.Sums{*amount(s, 1_000_000, "credit")}
	}
	if s.upTo(3, "has plan minimum") == 0 {
		v.Minimum = plan.Sums{*amount(s, 1_000_000, "plan minimum")}
	}
	if s.upTo(3, "held in part") == 0 {
		from := time.Duration(s.upTo(int64(january.Duration()/time.Microsecond), "held from")) * time.Microsecond
		in.Held = period.Bounds{Start: january.Start.Add(from), End: january.End}
	}
	if s.upTo(3, "committed") == 0 {
		in.Contract = &plan.Contract{Reference: "C", Plan: v.Plan, Version: v.Number, Start: january.Start, Commitment: &plan.Commitment{
			Steps:       []plan.Step{{From: january.Start, Sums: plan.Sums{*amount(s, 5_000_000, "commitment")}}},
			OverageRate: money.DecimalFromUnits(s.upTo(200_000, "overage"), 3),
		}}
		if c := in.Contract.Commitment; s.upTo(1, "prepaid") == 1 {
			c.Prepaid, c.OverageRate = true, money.Decimal{}
			in.Term = &pricing.Term{Spent: *amount(s, 6_000_000, "spent before")}
		}
	}
	if s.upTo(3, "capped") == 0 {
		in.Cap = amount(s, 2_000_000, "cap")
	}
	return in
}

func TestEveryBillAddsUpAndVerifies(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		in := randomInput(rapidSource{t})
		bill, err := pricing.Rate(in)
		if err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		for _, l := range bill.Lines {
			sum += l.Amount.Minor
			a, err := pricing.Verify(l.Derivation)
			if err != nil || a != l.Amount {
				t.Fatalf("%s %s: billed %s, verified as %s: %v", l.Kind, l.Charge, l.Amount, a, err)
			}
		}
		if sum != bill.Total.Minor {
			t.Fatalf("the lines sum to %d, the total is %d", sum, bill.Total.Minor)
		}
		if a, err := pricing.Accrued(in); err != nil || a != bill.Total {
			t.Fatalf("accrued %s, billed %s: %v", a, bill.Total, err)
		}
		if in.Cap != nil && bill.Total.Minor > in.Cap.Minor {
			t.Fatalf("billed %s over the limit of %s", bill.Total, in.Cap)
		}
		if in.Cap != nil {
			in.Cap = nil
			if a, err := pricing.Accrued(in); err != nil || a.Minor != bill.Total.Minor+bill.Absorbed.Minor {
				t.Fatalf("billed %s and absorbed %s of %s: %v", bill.Total, bill.Absorbed, a, err)
			}
		}
		// Charges stay within their own bounds.
		perCharge := map[string]int64{}
		for _, l := range bill.Lines {
			switch l.Kind {
			case pricing.KindUsage, pricing.KindMinimum, pricing.KindMaximum:
				perCharge[l.Charge] += l.Amount.Minor
			}
		}
		for _, c := range in.Version.Charges {
			for _, p := range c.Prices {
				if p.Maximum != nil && in.Held.IsZero() && perCharge[c.Code] > p.Maximum.Minor {
					t.Fatalf("%s costs %d, at most %d", c.Code, perCharge[c.Code], p.Maximum.Minor)
				}
			}
		}
	})
}

// A million random invoices, each of which adds up; fewer in short runs.
func TestAMillionInvoicesAddUp(t *testing.T) {
	t.Parallel()

	n, workers := 20_000, 2
	if os.Getenv("ACCRUE_TEST_FULL") != "" {
		n = 1_000_000
	}
	for w := range workers {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			s := fastSource{rand.New(rand.NewPCG(2026, uint64(w)))}
			for i := range n / workers {
				in := randomInput(s)
				bill, err := pricing.Rate(in)
				if err != nil {
					t.Fatal(err)
				}
				sum := int64(0)
				for j := range bill.Lines {
					l := &bill.Lines[j]
					sum += l.Amount.Minor
					parts := int64(0)
					for _, p := range l.Derivation.Parts {
						parts += p.Amount.Minor
					}
					if len(l.Derivation.Parts) > 0 && parts != l.Amount.Minor {
						t.Fatalf("invoice %d: the tiers of %s sum to %d, the line is %s", i, l.Charge, parts, l.Amount)
					}
				}
				if sum != bill.Total.Minor || (in.Cap != nil && sum > in.Cap.Minor) {
					t.Fatalf("invoice %d: the lines sum to %d, the total is %s", i, sum, bill.Total)
				}
			}
		})
	}
}

// More usage never costs less. Volume tiers are exempt by nature: passing into a cheaper tier makes
// every unit cheaper.
func TestMoreUsageNeverCostsLess(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		s := rapidSource{t}
		c := randomCharge(s, "a", plan.PerUnit, plan.Package, plan.Graduated)
		v := plan.Version{Plan: "p", Currencies: []money.Currency{money.USD}, Charges: []plan.Charge{c}}
		less := quantity(s, "quantity")
		more := less.Add(quantity(s, "more"))
		var total [2]int64
		for i, q := range []money.Decimal{less, more} {
			a, err := pricing.Accrued(pricing.Input{Version: v, Currency: money.USD, Usage: []pricing.Usage{{Meter: "a", Quantity: q}}})
			if err != nil {
				t.Fatal(err)
			}
			total[i] = a.Minor
		}
		if total[1] < total[0] {
			t.Fatalf("%s costs %d and %s costs %d", less, total[0], more, total[1])
		}
	})
}

// A graduated price is the sum of its tiers, each rated on its own, exactly.
func TestGraduatedIsTheSumOfItsTiers(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		s := rapidSource{t}
		c := randomCharge(s, "a", plan.Graduated)
		c.Step = money.Decimal{}
		v := plan.Version{Plan: "p", Currencies: []money.Currency{money.USD}, Charges: []plan.Charge{c}}
		q := quantity(s, "quantity")
		bill, err := pricing.Rate(pricing.Input{Version: v, Currency: money.USD, Usage: []pricing.Usage{{Meter: "a", Quantity: q}}})
		if err != nil {
			t.Fatal(err)
		}
		want, over := new(big.Rat), new(big.Rat)
		for _, tier := range c.Prices[0].Tiers {
			upTo := q.Rat()
			if !tier.UpTo.IsZero() && tier.UpTo.Rat().Cmp(upTo) < 0 {
				upTo = tier.UpTo.Rat()
			}
			from := over
			if c.Included.Rat().Cmp(from) > 0 {
				from = c.Included.Rat()
			}
			if units := new(big.Rat).Sub(upTo, from); units.Sign() > 0 {
				if tier.Flat != nil {
					want.Add(want, money.FractionOf(*tier.Flat).Rat())
				}
				units.Mul(units, tier.UnitPrice.Rat())
				want.Add(want, units.Quo(units, big.NewRat(c.Per.Divisor(), 1)))
			}
			if !tier.UpTo.IsZero() {
				over = tier.UpTo.Rat()
			}
		}
		if got := bill.Lines[0].Derivation.Exact.Rat(); got.Cmp(want) != 0 {
			t.Fatalf("%s costs exactly %s, its tiers %s", q, got, want)
		}
	})
}

// However a period's usage is cut into entries and in whatever order they come, the bill is the same.
func TestSplittingUsageNeverChangesABill(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		in := randomInput(rapidSource{t})
		whole, err := pricing.Rate(in)
		if err != nil {
			t.Fatal(err)
		}
		var cut []pricing.Usage
		for _, u := range in.Usage {
			rest := u.Quantity
			for range rapid.IntRange(0, 4).Draw(t, "cuts") {
				piece := money.DecimalFromUnits(rapid.Int64Range(0, 1_000_000_000_000).Draw(t, "piece"), 9)
				if piece.Cmp(rest) > 0 {
					break
				}
				cut = append(cut, pricing.Usage{Meter: u.Meter, Quantity: piece})
				rest = rest.Sub(piece)
			}
			cut = append(cut, pricing.Usage{Meter: u.Meter, Quantity: rest, Events: u.Events})
		}
		in.Usage = rapid.Permutation(cut).Draw(t, "order")
		again, err := pricing.Rate(in)
		if err != nil {
			t.Fatal(err)
		}
		if again.Total != whole.Total || len(again.Lines) != len(whole.Lines) {
			t.Fatalf("%s whole, %s in pieces", whole.Total, again.Total)
		}
		for i := range whole.Lines {
			if again.Lines[i].Amount != whole.Lines[i].Amount || again.Lines[i].Quantity.Cmp(whole.Lines[i].Quantity) != 0 {
				t.Fatalf("line %d is %s whole and %s in pieces", i, whole.Lines[i].Amount, again.Lines[i].Amount)
			}
		}
	})
}

// Any number of changes within a period costs what was held, to the cent.
func TestProrationsTelescope(t *testing.T) {
	t.Parallel()

	rapid.Check(t, func(t *rapid.T) {
		fee := money.New(rapid.Int64Range(0, 1_000_000_000).Draw(t, "fee"), money.USD)
		length := january.Duration() / time.Microsecond
		at := january.Start
		sum := int64(0)
		for range rapid.IntRange(0, 20).Draw(t, "changes") {
			left := int64(length) - at.Sub(january.Start).Microseconds()
			next := at.Add(time.Duration(rapid.Int64Range(0, left).Draw(t, "after")) * time.Microsecond)
			a, err := prorated(fee, january, period.Bounds{Start: at, End: next})
			if err != nil || a.Sign() < 0 {
				t.Fatalf("%s: %v", a, err)
			}
			sum, at = sum+a.Minor, next
		}
		a, err := prorated(fee, january, period.Bounds{Start: at, End: january.End})
		if err != nil {
			t.Fatal(err)
		}
		if sum += a.Minor; sum != fee.Minor {
			t.Fatalf("the parts cost %d, the whole %d", sum, fee.Minor)
		}
	})
}

// A quantity as the wire has it is priced or refused, and never wraps.
func FuzzQuantity(f *testing.F) {
	for _, q := range []string{"0", "63.5", "999999999999999.999999999", "-1", "1e9", "9007199254740993", "0.000000001"} {
		f.Add(q)
	}
	c := plan.Shipped()
	offer, _ := c.Offer(plan.Pro)
	f.Fuzz(func(t *testing.T, text string) {
		q, err := money.ParseDecimal(text)
		if err != nil {
			return
		}
		bill, err := pricing.Rate(pricing.Input{Version: offer.Version, Currency: money.USD, Usage: []pricing.Usage{{Meter: "voice", Quantity: q}}})
		if q.Sign() < 0 {
			if err == nil {
				t.Fatalf("%s was billed", text)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		// The published price list, written down once more: minutes over 1,000 at 0.027, over 30,000 at 0.017.
		x, _ := new(big.Rat).SetString(text)
		x.Quo(x, big.NewRat(60, 1))
		want := new(big.Rat)
		for _, tier := range []struct {
			over  int64
			price *big.Rat
		}{{1000, big.NewRat(27, 1000)}, {30000, big.NewRat(-10, 1000)}} {
			if units := new(big.Rat).Sub(x, big.NewRat(tier.over, 1)); units.Sign() > 0 {
				want.Add(want, units.Mul(units, tier.price))
			}
		}
		if amount, err := money.RoundRat(want, money.USD); err != nil || bill.Total != amount {
			t.Fatalf("%s s cost %s, want %s: %v", text, bill.Total, amount, err)
		}
	})
}

// Changes of plan telescope: whatever is held for whatever part of a period, what a plan's fee comes to over
// the times in which it was held is rounded at their ends only, so that a plan that was held throughout
// costs its fee, however often it was left and taken up again in the same instant, and every line verifies.
func TestFees_PropertyChangesOfPlanTelescope(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		whole := january.Duration().Microseconds()
		fees := [...]int64{
			rapid.Int64Range(0, 10_000_00).Draw(t, "fee a"), rapid.Int64Range(0, 10_000_00).Draw(t, "fee b"), rapid.Int64Range(0, 10_000_00).Draw(t, "fee c"),
		}
		version := func(i int) plan.Version {
			return plan.Version{
				Plan: plan.Code("abc"[i : i+1]), Number: 1, Currencies: []money.Currency{money.USD},
				Fee: &plan.Fee{Name: "Fee", Prices: plan.Sums{money.New(fees[i], money.USD)}},
			}
		}
		at := rapid.SliceOfN(rapid.Int64Range(0, whole), 0, 8).Draw(t, "changes")
		slices.Sort(at)
		in := pricing.Input{Currency: money.USD, Period: january}
		upTo := func(i int, t int64) int64 { // what the fee comes to from the period's start to t, half away from zero
			x := new(big.Int).Mul(big.NewInt(2*fees[i]), big.NewInt(t))
			x.Add(x, big.NewInt(whole))
			return x.Quo(x, big.NewInt(2*whole)).Int64()
		}
		var want, from int64
		held := rapid.IntRange(0, 2).Draw(t, "plan")
		same := true
		first := held
		for _, until := range append(at, whole) {
			b := period.Bounds{Start: january.Start.Add(time.Duration(from) * time.Microsecond), End: january.Start.Add(time.Duration(until) * time.Microsecond)}
			want += upTo(held, until) - upTo(held, from)
			same = same && (held == first || from == until)
			if until == whole {
				in.Version, in.Held = version(held), b
				break
			}
			in.Before = append(in.Before, pricing.Holding{Version: version(held), Held: b})
			from, held = until, rapid.IntRange(0, 2).Draw(t, "plan")
		}
		bill, err := pricing.Rate(in)
		if err != nil {
			t.Fatal(err)
		}
		if bill.Total.Minor != want {
			t.Fatalf("the fees come to %d, want %d", bill.Total.Minor, want)
		}
		if same && bill.Total.Minor != fees[first] {
			t.Fatalf("held throughout it comes to %d, and the fee is %d", bill.Total.Minor, fees[first])
		}
		for _, l := range bill.Lines {
			if a, err := pricing.Verify(l.Derivation); err != nil || a != l.Amount {
				t.Fatalf("billed %s, verified as %s: %v", l.Amount, a, err)
			}
		}
		if sum, err := pricing.Accrued(in); err != nil || sum != bill.Total {
			t.Fatalf("accrued %s, %v, billed %s", sum, err, bill.Total)
		}
	})
}
