package pricing_test

import (
	"testing"

	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

func dec(s string) money.Decimal { return money.MustDecimal(s) }

func minutes(s string) money.Decimal { return dec(s).Mul(money.DecimalFromInt(60)) }

func version(tb testing.TB, c plan.Catalogue, code plan.Code) plan.Version {
	tb.Helper()
	o, ok := c.Offer(code)
	if !ok {
		tb.Fatalf("there is no plan %s", code)
	}
	return o.Version
}

// rate prices usage in dollars, and checks what holds of every bill.
func rate(tb testing.TB, in pricing.Input) pricing.Bill {
	tb.Helper()
	if in.Currency == "" {
		in.Currency = money.USD
	}
	bill, err := pricing.Rate(in)
	if err != nil {
		tb.Fatal(err)
	}
	checkBill(tb, in, bill)
	return bill
}

// checkBill checks that the lines sum to the total, that each verifies from its derivation, and that
// the cheap total is the same.
func checkBill(tb testing.TB, in pricing.Input, bill pricing.Bill) {
	tb.Helper()
	var sum int64
	for _, l := range bill.Lines {
		sum += l.Amount.Minor
		if a, err := pricing.Verify(l.Derivation); err != nil || a != l.Amount {
			tb.Fatalf("line %s %s: verified as %s: %v", l.Kind, l.Charge, a, err)
		}
	}
	if sum != bill.Total.Minor {
		tb.Fatalf("the lines sum to %d, the total is %d", sum, bill.Total.Minor)
	}
	if a, err := pricing.Accrued(in); err != nil || a != bill.Total {
		tb.Fatalf("accrued %s, billed %s: %v", a, bill.Total, err)
	}
}

// The worked examples that came with the published price list, to the cent.
func TestShippedPriceListGivesThePublishedTotals(t *testing.T) {
	t.Parallel()

	pro := version(t, plan.Shipped(), plan.Pro)
	for _, c := range []struct {
		minutes, words, criteria string
		total                    int64
		exact                    string // of the voice line, in dollars
	}{
		{"1000", "10000", "0", 0, "0"},
		{"1001", "10000", "0", 3, "27/1000"},                          // 0.027 before rounding
		{"30000", "0", "0", 78300, "783"},                             // 29,000 × 0.027
		{"45000", "0", "0", 103800, "1038"},                           // 783 + 15,000 × 0.017
		{"0", "4000000", "0", 77800, "0"},                             // 3,740,000 × 0.0002 + 250,000 × 0.00012
		{"30000", "4000000", "0", 156100, "783"},                      // the API's example
		{"0", "0", "7", 70, "0"},                                      // 7 × 0.10
		{"1000.5", "0", "0", 1, "27/2000"},                            // half a minute: 0.0135
		{"1000.000000001", "0", "0", 0, "27/1000000000000"},           // exact, not rounded up to a minute
		{"30000.5", "10001", "1", 78300 + 1 + 0 + 10, "1566017/2000"}, // 783.0085 + 0.0002 + 0.10
	} {
		bill := rate(t, pricing.Input{Version: pro, Usage: []pricing.Usage{
			{Meter: "voice", Quantity: minutes(c.minutes)},
			{Meter: "text", Quantity: dec(c.words)},
			{Meter: "call_score", Quantity: dec(c.criteria)},
		}})
		if bill.Total.Minor != c.total {
			t.Errorf("%s min, %s words, %s criteria: %s, want %d cents", c.minutes, c.words, c.criteria, bill.Total, c.total)
		}
		if got := bill.Lines[0].Derivation.Exact.String(); got != c.exact {
			t.Errorf("%s min: exactly %s, want %s", c.minutes, got, c.exact)
		}
	}
}

func TestDeveloperIsNeverBilled(t *testing.T) {
	t.Parallel()

	bill := rate(t, pricing.Input{Version: version(t, plan.Shipped(), plan.Developer), Usage: []pricing.Usage{
		{Meter: "voice", Quantity: minutes("100000")}, {Meter: "text", Quantity: dec("99999999")},
	}})
	if !bill.Total.IsZero() {
		t.Errorf("billed %s", bill.Total)
	}
	if got := bill.Lines[0].Included; got.Cmp(dec("60000")) != 0 {
		t.Errorf("the allowance took %s s, want 60000", got)
	}
}
