package pricing_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

func TestFitComparesPlansOnRealUsage(t *testing.T) {
	t.Parallel()

	c := plan.Shipped()
	developer, pro := version(t, c, plan.Developer), version(t, c, plan.Pro)
	flat := one(t, "    fee: {prices: {USD: 100}}\n    charges: [{meter: m, per: minute, included: 100000}]\n")
	flat.Plan, flat.Charges[0].Meter, flat.Charges[0].Code = "flat", "voice", "voice"

	months := []pricing.Month{
		{Usage: []pricing.Usage{{Meter: "voice", Quantity: minutes("900")}}},
		{Usage: []pricing.Usage{{Meter: "voice", Quantity: minutes("2000")}}},
	}
	got, err := pricing.Fit(months, []plan.Version{developer, pro, flat}, money.USD)
	if err != nil {
		t.Fatal(err)
	}
	if got.Cheapest != plan.Pro {
		t.Errorf("the cheapest is %q", got.Cheapest)
	}
	if b := got.Plans[0].Blocked; len(b) != 1 || b[0].Month != 1 || b[0].Meter != "voice" {
		t.Errorf("developer would have been blocked %+v", b)
	}
	if total := got.Plans[1].Total.Minor; total != 2700 { // 1,000 × 0.027
		t.Errorf("pro costs %d", total)
	}
	// 100 dollars buy 1,000 + 100 ⁄ 0.027 = 4,703.70 min; half a cent before, the totals are equal.
	want := map[string]string{"voice developer pro limit": "60000", "voice pro flat price": "282234"}
	for _, b := range got.BreakEvens {
		key := fmt.Sprintf("%s %s %s %s", b.Meter, b.From, b.To, b.Reason)
		if q, ok := want[key]; ok {
			if b.Quantity.String() != q {
				t.Errorf("%s at %s, want %s", key, b.Quantity, q)
			}
			delete(want, key)
		}
	}
	if len(want) > 0 {
		t.Errorf("not found: %v in %+v", want, got.BreakEvens)
	}
}

// rival is a plan of the meters of one, under a code of its own.
func rival(tb testing.TB, code plan.Code, body string) plan.Version {
	tb.Helper()
	v := one(tb, body)
	v.Plan = code
	return v
}

// Which of two plans is the better one, from where on and why: nothing else is said.
func TestFit_BreakEvens(t *testing.T) {
	t.Parallel()
	const (
		metered = "    charges: [{meter: n, prices: {USD: {model: per_unit, unit_price: \"0.01\"}}}]\n"
		flat    = "    fee: {prices: {USD: 10}}\n" // what a thousand calls cost by the call
	)
	limit := func(n int, mode string) string {
		return fmt.Sprintf("    limits: [{meter: n, quantity: %d, mode: %s}]\n", n, mode)
	}
	for _, c := range []struct{ name, a, b, want string }{
		{"TheFirstOneThatIsCheaper", metered, flat, "n a b 1001 price"},
		{"WhicheverStandsFirst", flat, metered, "n b a 1001 price"},
		{"NoneBetweenTheSame", metered, metered, ""},
		{"WhereTheFirstStops", metered + limit(100, "hard"), metered, "n a b 100 limit"},
		{"WhereTheSecondStops", metered, metered + limit(100, "hard"), "n b a 100 limit"},
		{"WhereTheLowerLimitOfTheFirstIs", metered + limit(100, "hard"), metered + limit(200, "hard"), "n a b 100 limit"},
		{"WhereTheLowerLimitOfTheSecondIs", metered + limit(200, "hard"), metered + limit(100, "hard"), "n b a 100 limit"},
		{"WhereOneUnitDecides", metered + limit(1, "hard"), metered, "n a b 1 limit"},
		{"WhereOneUnitDecidesTheOtherWay", metered, metered + limit(1, "hard"), "n b a 1 limit"},
		{"NoneAtLimitsThatAreTheSame", metered + limit(100, "hard"), metered + limit(100, "hard"), ""},
		{"NoneWhereNothingStops", metered + limit(100, "soft"), metered, ""},
		{"NoneWhereNeitherStops", metered, metered + limit(100, "soft"), ""},
		{"ThePriceUpToTheLimit", metered + limit(1001, "hard"), flat, "n a b 1001 limit, n a b 1001 price"},
		{"NoPriceBeyondIt", metered + limit(1000, "hard"), flat, "n a b 1000 limit"},
		{"NoPriceBeyondTheLowerOne", metered + limit(5000, "hard"), flat + limit(1000, "hard"), "n b a 1000 limit"},
		{"NoPriceBeyondTheLowerOneOfTheFirst", metered + limit(1000, "hard"), flat + limit(5000, "hard"), "n a b 1000 limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := pricing.Fit([]pricing.Month{{Usage: use("n", "7")}}, []plan.Version{rival(t, "a", c.a), rival(t, "b", c.b)}, money.USD)
			if err != nil {
				t.Fatal(err)
			}
			said := make([]string, len(got.BreakEvens))
			for i, b := range got.BreakEvens {
				said[i] = fmt.Sprintf("%s %s %s %s %s", b.Meter, b.From, b.To, b.Quantity, b.Reason)
			}
			if all := strings.Join(said, ", "); all != c.want {
				t.Errorf("%q, want %q", all, c.want)
			}
		})
	}
}

// The other meters are as in the average month: in whole units, whatever their dimensions, each with its own.
func TestFit_BreaksEvenInTheAverageMonth(t *testing.T) {
	t.Parallel()
	both := rival(t, "a", `    charges:
      - {meter: n, prices: {USD: {model: per_unit, unit_price: "0.01"}}}
      - {meter: m, prices: {USD: {model: per_unit, unit_price: 1}}}
`)
	flat := rival(t, "b", "    fee: {prices: {USD: 40}}\n")
	in := func(region, quantity string) pricing.Usage {
		return pricing.Usage{Meter: "m", Dimensions: map[string]string{"region": region}, Quantity: dec(quantity)}
	}
	got, err := pricing.Fit([]pricing.Month{
		{Usage: []pricing.Usage{in("eu", "11")}},
		{Usage: []pricing.Usage{in("eu", "15"), in("us", "6")}},
	}, []plan.Version{both, flat}, money.USD)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(got.BreakEvens, func(b pricing.BreakEven) bool { return b.Meter == "n" })
	if i < 0 || got.BreakEvens[i].Quantity.String() != "2401" { // 13 and 3 seconds cost 16 dollars of the 40
		t.Errorf("%+v, want 2401 calls", got.BreakEvens)
	}
}

// The cheapest is one that would have taken all usage, and of those that cost the same the first. A limit refuses what is
// beyond it, if it is a hard one.
func TestFit_Cheapest(t *testing.T) {
	t.Parallel()
	const free, dear = "    charges: []\n", "    fee: {prices: {USD: 10}}\n"
	limited := func(mode string, n int) string {
		return free + fmt.Sprintf("    limits: [{meter: n, quantity: %d, mode: %s}]\n", n, mode)
	}
	for _, c := range []struct {
		name    string
		a, b    string
		want    plan.Code
		blocked int // of a
	}{
		{"TheFirstOfTwo", free, free, "a", 0},
		{"TheCheaper", dear, free, "b", 0},
		{"TheLimitIsReached", limited("hard", 7), dear, "a", 0},
		{"TheLimitIsPassed", limited("hard", 6), dear, "b", 1},
		{"TheLimitOnlyTells", limited("soft", 6), dear, "a", 0},
		{"NoneTakesAll", limited("hard", 6), limited("hard", 5), "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, err := pricing.Fit([]pricing.Month{{Usage: use("n", "7")}}, []plan.Version{rival(t, "a", c.a), rival(t, "b", c.b)}, money.USD)
			if err != nil {
				t.Fatal(err)
			}
			if got.Cheapest != c.want || len(got.Plans[0].Blocked) != c.blocked {
				t.Errorf("the cheapest is %q, and %+v is blocked", got.Cheapest, got.Plans[0].Blocked)
			}
		})
	}
}

// A contract that is not in force yet is tried on months that were before it.
func TestAgreed(t *testing.T) {
	t.Parallel()
	base := one(t, "    fee: {prices: {USD: 50}}\n    charges: [{meter: n, prices: {USD: {model: per_unit, unit_price: 1}}}]\n")
	base.Number = 3
	const head = "reference: C-1\nstart: 2026-01-01T00:00:00Z\nfee: {prices: {USD: 0}}\n"
	month := func(n int, calls string) pricing.Month {
		return pricing.Month{
			Period: period.Bounds{Start: january.Start.AddDate(0, n, 0), End: january.Start.AddDate(0, n+1, 0)}, Usage: use("n", calls),
		}
	}
	months := []pricing.Month{month(-1, "30"), month(0, "30"), month(2, "120")}
	for _, c := range []struct{ name, contract, want string }{
		{"WithoutOne", "", "80.00 USD 80.00 USD 170.00 USD = 330.00 USD"},
		{"OfPricesOnly", head, "30.00 USD 30.00 USD 120.00 USD = 180.00 USD"},
		{"OfACommitmentThatGrows", head + `commitment:
  steps:
    - {from: 2026-01-01T00:00:00Z, sums: {USD: 100}}
    - {from: 2026-03-01T00:00:00Z, sums: {USD: 200}}
`, "100.00 USD 100.00 USD 200.00 USD = 400.00 USD"},
		{"OfACommitmentForATerm", head + `end: 2027-01-01T00:00:00Z
commitment:
  term: true
  steps: [{from: 2026-01-01T00:00:00Z, sums: {USD: 1200}}]
`, "30.00 USD 30.00 USD 120.00 USD = 180.00 USD"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var agreed *plan.Contract
			if c.contract != "" {
				parsed, err := plan.ParseContract([]byte(c.contract), []plan.Meter{{Code: "n", Unit: "call"}}, base)
				if err != nil {
					t.Fatal(err)
				}
				agreed = &parsed
			}
			f, err := pricing.Agreed(months, &base, agreed, money.USD)
			if got := strings.Trim(fmt.Sprint(f.Months), "[]") + " = " + f.Total.String(); err != nil || got != c.want {
				t.Errorf("%s, %v; want %s", got, err, c.want)
			}
		})
	}
	elsewhere := &plan.Contract{Plan: base.Plan, Version: 4}
	if _, err := pricing.Agreed(months, &base, elsewhere, money.USD); !errors.Is(err, plan.ErrContractMismatch) {
		t.Errorf("a contract on another version: %v", err)
	}
}
