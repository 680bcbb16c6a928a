package postgres_test

import (
	"math/rand/v2"
	"testing"

	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Go and SQL round alike: quantity × price × num ÷ den, half away from zero, for 20,000 drawn cases of
// which many are ties.
func TestGoAndSQLRoundAlike(t *testing.T) {
	t.Parallel()

	const n = 20_000
	r := rand.New(rand.NewPCG(1, 2026))
	decimal := func(most int64) money.Decimal {
		d := money.DecimalFromUnits(r.Int64N(most), uint8(r.IntN(money.MaxFractionDigits+1)))
		if r.IntN(4) == 0 {
			d = d.Neg()
		}
		return d
	}
	currencies := []money.Currency{money.USD, "JPY", "KWD"}
	var (
		quantities, prices []string
		divisors, want     []int64
		exponents          []int32
	)
	for len(want) < n {
		q, p, den, c := decimal(1_000_000_000_000), decimal(1_000_000), 1+r.Int64N(10_000), currencies[r.IntN(3)]
		if r.IntN(3) == 0 { // a tie in the last place
			q, p, den = money.DecimalFromUnits(2*r.Int64N(1_000_000)+1, 1), money.DecimalFromUnits(1, uint8(c.Exponent())), 1
		}
		exact, err := money.Quotient(q, p, den)
		if err != nil {
			t.Fatal(err)
		}
		a, err := exact.Round(c)
		if err != nil {
			continue // beyond any amount
		}
		b, err := money.Round(q.Mul(p), 1, den, c)
		if err != nil || a != b {
			t.Fatalf("%s × %s ÷ %d is %s by one way and %s by the other: %v", q, p, den, a, b, err)
		}
		quantities, prices = append(quantities, q.String()), append(prices, p.String())
		divisors, exponents, want = append(divisors, den), append(exponents, int32(c.Exponent())), append(want, a.Minor)
	}
	// Multiply first, divide once. numeric division keeps at least 16 significant digits and here is
	// asked for 40, so that a tie is a tie.
	rows, err := postgrestest.Pool(t).Query(t.Context(), `
		SELECT round(q::numeric * p::numeric * 10::numeric ^ e::numeric::int / round(d::numeric, 40))::bigint
		FROM unnest($1::text[], $2::text[], $3::bigint[], $4::int[]) WITH ORDINALITY AS x (q, p, d, e, i) ORDER BY i`,
		quantities, prices, divisors, exponents)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	i := 0
	for ; rows.Next(); i++ {
		var got int64
		if err := rows.Scan(&got); err != nil {
			t.Fatal(err)
		}
		if got != want[i] {
			t.Errorf("%s × %s ÷ %d with %d decimals: %d in Go, %d in SQL", quantities[i], prices[i], divisors[i], exponents[i], want[i], got)
		}
	}
	if err := rows.Err(); err != nil || i != n {
		t.Fatalf("%d rows: %v", i, err)
	}
}
