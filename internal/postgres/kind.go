package postgres

import (
	"reflect"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// A kind is what statements have in common that differ in their values alone. One is sent with a parameter for
// each value. Several are sent as one, with an array for each parameter, or as a part of a statement that writes more.
type kind struct {
	table   string
	columns []column // of the values
	// The text with a parameter for each value, and that with an array for each. Answers to the second end
	// with the number of the statement that they are for, from 1.
	one, many string
	inserts   bool // rows that nobody has seen yet
	answers   bool // with rows
	reads     bool // and does no more
	expected  bool // is read ahead, see held.ahead
	// missing is the error if a write finds fewer rows than it was given. The database takes that for success,
	// so it is told to divide by zero then.
	missing error

	alone, together, part statement // as it is sent: by itself, over arrays, and as a part of another
}

// column is where a value goes.
type column struct {
	name, cast string
	array      uint32 // the element's type in an array
	document   bool   // jsonb
}

// ready makes the statements.
func (k kind) ready() *kind {
	k.alone, k.together, k.part = named(k.guarded(k.one)), named(k.guarded(k.many)), named(k.many)
	return &k
}

// mustFind makes an error of a write that finds no row.
func (k kind) mustFind(missing error) *kind {
	k.missing = missing
	return k.ready()
}

// guarded adds to a text of which nothing may be missing a parameter that says how many rows it must find.
func (k kind) guarded(text string) string {
	if k.missing == nil {
		return text
	}
	return "WITH written AS (" + text + " RETURNING 1) SELECT " + mustBe("written", len(k.columns)+1)
}

// mustBe divides by zero if the rows of a WITH query are fewer than a parameter says.
func mustBe(query string, parameter int) string {
	return "1 / ((SELECT count(*) FROM " + query + ") / $" + itoa(parameter) + "::bigint)"
}

// params are the parameters of the rows' values as they are sent.
func (k *kind) params(rows [][]byte) [][]byte {
	if len(rows) > 1 {
		return k.arrays(rows)
	}
	params := make([][]byte, len(k.columns), len(k.columns)+1)
	rest := rows[0]
	for i := range params {
		n, null := elementSize(rest)
		if !null {
			params[i] = rest[4:n]
		}
		rest = rest[n:]
	}
	return params
}

// arrays are the values of the rows as an array for each column.
func (k *kind) arrays(rows [][]byte) [][]byte {
	size := arrayHeader * len(k.columns)
	for _, r := range rows {
		size += len(r)
	}
	b := make([]byte, 0, size)
	rest := append(make([][]byte, 0, len(rows)), rows...)
	params := make([][]byte, len(k.columns), len(k.columns)+1)
	for c := range params {
		begins := len(b)
		b = appendArrayHeader(b, k.columns[c].array, len(rows))
		for i, r := range rest {
			n, null := elementSize(r)
			if null {
				b[begins+7] = 1 // there is one
			}
			b = append(b, r[:n]...)
			rest[i] = r[n:]
		}
		params[c] = b[begins:len(b):len(b)]
	}
	return params
}

// columnOf is the column of a row's field.
func columnOf(name string, f reflect.StructField) column {
	if strings.Contains(f.Tag.Get("gorm"), "type:jsonb") {
		return column{name, "jsonb", pgtype.JSONBOID, true}
	}
	t := f.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[time.Time]():
		return column{name, "timestamptz", pgtype.TimestamptzOID, false}
	case t == reflect.TypeFor[uuid.UUID](), t.Implements(reflect.TypeFor[interface{ UUID() uuid.UUID }]()):
		return column{name, "uuid", pgtype.UUIDOID, false}
	case t == reflect.TypeFor[[]byte]():
		return column{name, "bytea", pgtype.ByteaOID, false}
	}
	switch t.Kind() {
	case reflect.String:
		return column{name, "text", pgtype.TextOID, false}
	case reflect.Bool:
		return column{name, "boolean", pgtype.BoolOID, false}
	case reflect.Int, reflect.Int16, reflect.Int64:
		return column{name, "bigint", pgtype.Int8OID, false}
	default:
		panic("postgres: no type for the column " + name)
	}
}
