package postgres

import (
	"database/sql"
	"encoding/binary"
	"fmt"
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

// elementSize is how long the first element of b is, with its length before it.
func elementSize(b []byte) (n int, null bool) {
	size := int(int32(binary.BigEndian.Uint32(b))) //nolint:gosec // two's complement
	return 4 + max(0, size), size < 0
}

// appendElement appends a value, or what a pointer leads to, as arrays have their elements. A zero identifier is NULL.
func appendElement(b []byte, v any, document bool) []byte {
	switch v := v.(type) {
	case string:
		return append(appendSize(b, len(v)), v...)
	case *string:
		return append(appendSize(b, len(*v)), *v...)
	case int64:
		return appendInt8(b, v)
	case *int64:
		return appendInt8(b, *v)
	case int:
		return appendInt8(b, int64(v))
	case *int:
		return appendInt8(b, int64(*v))
	case *int16:
		return appendInt8(b, int64(*v))
	case *bool:
		if *v {
			return append(appendSize(b, 1), 1)
		}
		return append(appendSize(b, 1), 0)
	case *time.Time:
		return appendInt8(b, v.UnixMicro()-pgEpoch)
	case uuid.UUID:
		return append(appendSize(b, len(v)), v[:]...)
	case *uuid.UUID:
		return append(appendSize(b, len(v)), v[:]...)
	case interface{ UUID() uuid.UUID }:
		if u := v.UUID(); u != uuid.Nil {
			return append(appendSize(b, len(u)), u[:]...)
		}
	case []byte:
		return appendBytes(b, v, document)
	case *[]byte:
		return appendBytes(b, *v, document)
	default: // a pointer to what may be NULL
		p := reflect.ValueOf(v)
		if p.Kind() != reflect.Pointer || p.Elem().Kind() != reflect.Pointer {
			panic(fmt.Sprintf("postgres: no column holds a %T", v))
		}
		if p = p.Elem(); !p.IsNil() {
			return appendElement(b, p.Interface(), document)
		}
	}
	return appendSize(b, -1)
}

// appendElements appends values that are not documents.
func appendElements(b []byte, values []any) []byte {
	for _, v := range values {
		b = appendElement(b, v, false)
	}
	return b
}

func appendSize(b []byte, n int) []byte { return binary.BigEndian.AppendUint32(b, uint32(int32(n))) } //nolint:gosec // an element is far below 2 GiB

func appendInt8(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(appendSize(b, 8), uint64(n)) //nolint:gosec // two's complement
}

func appendBytes(b, v []byte, document bool) []byte {
	switch {
	case v == nil:
		return appendSize(b, -1)
	case document:
		return append(append(appendSize(b, len(v)+1), 1), v...) // the version of the format
	}
	return append(appendSize(b, len(v)), v...)
}

// into reads a column to where a pointer leads, as appendElement writes it.
func (v *value) into(i int, p any, document bool) {
	switch p := p.(type) {
	case *string:
		*p = v.text(i)
	case *int64:
		*p = v.integer(i)
	case *int:
		*p = int(v.integer(i))
	case *int16:
		*p = int16(v.integer(i)) //nolint:gosec // of a column of that size
	case *bool:
		*p = v.column(i, 1)[0] != 0
	case *time.Time:
		if len(v.row[i]) == 4 { // a date
			*p = time.UnixMicro(pgEpoch).UTC().AddDate(0, 0, int(v.integer(i)))
			return
		}
		*p = v.time(i)
	case *uuid.UUID:
		*p = v.uuid(i)
	case *[]byte:
		*p = v.bytes(i)
		if document && !v.isNull(i) {
			*p = (*p)[1:]
		}
	case sql.Scanner: // an identifier
		var err error
		if v.isNull(i) {
			err = p.Scan(nil)
		} else {
			err = p.Scan(v.row[i])
		}
		if err != nil {
			v.err = err
		}
	default: // a pointer to what may be NULL
		to := reflect.ValueOf(p).Elem()
		if v.isNull(i) {
			to.SetZero()
			return
		}
		to.Set(reflect.New(to.Type().Elem()))
		v.into(i, to.Interface(), document)
	}
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
