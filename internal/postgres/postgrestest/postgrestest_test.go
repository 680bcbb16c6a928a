package postgrestest_test

import (
	"fmt"
	"testing"

	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

func TestPool_DatabasesAreMigratedAndApart(t *testing.T) {
	t.Parallel()
	for i := range 4 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			pool := postgrestest.Pool(t)
			var n int
			if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM accounts").Scan(&n); err != nil {
				t.Fatal(err)
			}
			if n != 0 {
				t.Fatalf("%d accounts of another test", n)
			}
			if _, err := pool.Exec(t.Context(), `INSERT INTO accounts (id, external_id, status, currency, time_zone, created_at, updated_at)
				VALUES (gen_random_uuid(), 'x', 'active', 'USD', 'UTC', now(), now())`); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestNewEmpty_HasNoTables(t *testing.T) {
	t.Parallel()
	var n int
	pool := postgrestest.Connect(t, postgrestest.NewEmpty(t))
	if err := pool.QueryRow(t.Context(), "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").Scan(&n); err != nil {
		t.Fatal(err)
	}
	if n != 0 {
		t.Fatalf("%d tables in an empty database", n)
	}
}

func BenchmarkDSN(b *testing.B) {
	for b.Loop() {
		b.Run("", func(b *testing.B) { postgrestest.DSN(b) })
	}
}
