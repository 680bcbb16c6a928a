package postgres

import "testing"

func TestJoinStatements(t *testing.T) {
	t.Parallel()

	parts := []part{
		{named("INSERT INTO a VALUES ($1, $2)"), [][]byte{nil, nil}},
		{named("INSERT INTO b VALUES ($2, $1, $1)"), [][]byte{nil, nil}},
		{named("UPDATE c SET x = $1"), [][]byte{nil}},
	}
	want := "WITH w0 AS (INSERT INTO a VALUES ($1, $2)), w1 AS (INSERT INTO b VALUES ($4, $3, $3))\nUPDATE c SET x = $5"
	if got := joinStatements(parts).sql; got != want {
		t.Errorf("%s", got)
	}
	if got := joinStatements(parts[2:]).sql; got != "\nUPDATE c SET x = $1" {
		t.Errorf("alone: %s", got)
	}
}
