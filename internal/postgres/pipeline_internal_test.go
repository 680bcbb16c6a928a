package postgres

import "testing"

func TestJoinStatements(t *testing.T) {
	t.Parallel()

	parts := []part{
		{statement: named("INSERT INTO a VALUES ($1, $2)"), params: make([][]byte, 2)},
		{statement: named("INSERT INTO b VALUES ($2, $1, $1)"), params: make([][]byte, 2)},
		{statement: named("UPDATE c SET x = $1"), params: make([][]byte, 2), guarded: true},
	}
	want := "WITH w0 AS (INSERT INTO a VALUES ($1, $2)), w1 AS (INSERT INTO b VALUES ($4, $3, $3)), w2 AS (UPDATE c SET x = $5 RETURNING 1)\n" +
		"SELECT 1 / ((SELECT count(*) FROM w2) / $6::bigint)"
	if got := joinStatements(parts).sql; got != want {
		t.Errorf("%s", got)
	}
	if got := joinStatements(parts[:1]).sql; got != "INSERT INTO a VALUES ($1, $2)" {
		t.Errorf("alone: %s", got)
	}
}
