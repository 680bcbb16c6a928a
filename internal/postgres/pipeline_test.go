package postgres_test

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// However writes come together, neither the process nor a connection keeps more statements than a bound.
func TestJoinedWrites_KeepSoManyStatements(t *testing.T) {
	t.Parallel()
	pooled, err := postgrestest.Pool(t).Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer pooled.Release()
	conn := pooled.Conn()
	for i := range postgres.MaxMixes + 50 {
		if err := postgres.SendJoined(t.Context(), conn, "SELECT 0", fmt.Sprintf("SELECT %d", i+1)); err != nil {
			t.Fatalf("mix %d: %v", i, err)
		}
	}
	rows, _ := conn.Query(t.Context(), "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'accrue_%'", pgx.QueryExecModeSimpleProtocol)
	if n, err := pgx.CollectExactlyOneRow(rows, pgx.RowTo[int]); err != nil || n != postgres.MaxMixes {
		t.Errorf("the connection has prepared %d, %v; want %d", n, err, postgres.MaxMixes)
	}
	if n := postgres.KeptMixes(); n > postgres.MaxMixes {
		t.Errorf("the process keeps %d, want at most %d", n, postgres.MaxMixes)
	}
}
