package postgres

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

// text is the statement as it is sent.
func (s stmt) text() string {
	text, params := s.sql, len(s.args)
	if s.rows > 1 || text == "" {
		text, params = s.many.sql, len(s.args)/max(s.rows, 1)
	}
	if s.missing == nil {
		return text
	}
	return "WITH written AS (" + text + " RETURNING 1) SELECT 1 / (count(*) / $" + strconv.Itoa(params+1) + "::bigint) FROM written"
}

// params are the statement's parameters as they are sent: of several rows an array of each column.
func (s stmt) params() []any {
	params := s.args
	if s.rows > 1 {
		params = make([]any, len(s.args)/s.rows, len(s.args)/s.rows+1)
		for c := range params {
			column := make(pgtype.FlatArray[any], s.rows)
			for r := range column {
				column[r] = s.args[r*len(params)+c]
			}
			params[c] = column
		}
	}
	if s.missing != nil {
		params = append(slices.Clip(params), max(s.rows, 1))
	}
	return params
}

// together makes one list of the lists, and one statement of those that differ in their arguments alone. Each
// list stays in its order, but for what may go ahead.
func together(lists [][]stmt) []stmt {
	if len(lists) == 1 {
		return lists[0]
	}
	var out []stmt
	last := map[string]int{} // where the last statement of its kind is
	for _, list := range lists {
		at := -1 // where the last statement of the list is
		for _, s := range list {
			if s.many == nil {
				at = len(out)
				out = append(out, s)
				continue
			}
			kind := s.many.sql
			if i, ok := last[kind]; ok && (i >= at || s.many.ahead) && out[i].add(s, i == at) {
				at = max(at, i)
				continue
			}
			at = len(out)
			last[kind] = at
			s.args = slices.Clip(s.args)
			out = append(out, s)
		}
	}
	return out
}

// add makes another statement of the same kind a part of this one. same says that they come from the same list.
func (s *stmt) add(other stmt, same bool) bool {
	if same && s.many.once {
		return false
	}
	if s.many.answers {
		if s.of == nil {
			of := map[string]*asked{rawKey(s.args[s.many.key]): {args: s.args, row: s.row}}
			s.of, s.row = of, func(r pgx.Rows) error { return of[string(r.RawValues()[0])].row(r) }
		}
		k := rawKey(other.args[s.many.key])
		if known := s.of[k]; known != nil {
			return s.many.reads && known.also(other)
		}
		s.of[k] = &asked{args: other.args, row: other.row}
	}
	s.rows = max(s.rows, 1) + max(other.rows, 1)
	s.args = append(s.args, other.args...)
	return true
}

// asked is what takes the rows of one of several statements that have rows in their answers.
type asked struct {
	args []any
	row  func(pgx.Rows) error
}

// also gives the rows to another statement too. It returns false if that asks for something else.
func (a *asked) also(other stmt) bool {
	if !slices.Equal(a.args, other.args) {
		return false
	}
	first := a.row
	a.row = func(r pgx.Rows) error {
		if err := first(r); err != nil {
			return err
		}
		return other.row(r)
	}
	return true
}

// rawKey is a parameter as a column comes, in binary format.
func rawKey(param any) string {
	if u, ok := param.([16]byte); ok {
		return string(u[:])
	}
	return param.(string) //nolint:forcetypeassert // keys are identifiers or texts
}

// rowsOf are the rows of arrays of values for the given columns, which it names p1 and so on.
func (t table[R]) rowsOf(columns ...string) string {
	arrays, names := make([]string, len(columns)), make([]string, len(columns))
	for i, c := range columns {
		arrays[i], names[i] = "$"+strconv.Itoa(i+1)+"::"+t.cast(c)+"[]", "p"+strconv.Itoa(i+1)
	}
	return "unnest(" + strings.Join(arrays, ", ") + ") AS v (" + strings.Join(names, ", ") + ")"
}

// cast is the type of a column's values.
func (t table[R]) cast(column string) string {
	f := reflect.TypeFor[R]().Field(t.field(column))
	if strings.Contains(f.Tag.Get("gorm"), "type:jsonb") {
		return "jsonb"
	}
	cast := castOf(f.Type)
	if cast == "" {
		panic("postgres: no type for " + t.name + "." + column)
	}
	return cast
}

func castOf(t reflect.Type) string {
	if t == nil {
		return ""
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "timestamptz"
	case t == reflect.TypeFor[[16]byte](), t == reflect.TypeFor[uuid.UUID](), t.Implements(reflect.TypeFor[interface{ UUID() uuid.UUID }]()):
		return "uuid"
	case t == reflect.TypeFor[[]byte]():
		return "bytea"
	}
	switch t.Kind() {
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int16, reflect.Int32, reflect.Int64:
		return "bigint"
	}
	return ""
}
