package postgres

import (
	"math/bits"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// manyTexts are the texts of statements for several rows. They are few: for each statement, by the sizes of cut.
var manyTexts sync.Map

type manyRows struct {
	head, tail string
	rows       int
}

// few is how many rows one statement has whatever their number.
const few = 4

// text is the statement as it is sent.
func (s stmt) text() string {
	if s.missing == nil {
		return s.plain()
	}
	return "WITH written AS (" + s.plain() + " RETURNING 1) SELECT 1 / (count(*) / " + strconv.Itoa(max(s.rows, 1)) + ") FROM written"
}

// plain is text but for the check of what was written.
func (s stmt) plain() string {
	n := max(s.rows, 1)
	if s.many == nil || (n == 1 && s.sql != "") {
		return s.sql
	}
	key := manyRows{s.many.head, s.many.tail, n}
	if text, ok := manyTexts.Load(key); ok {
		return text.(string) //nolint:forcetypeassert // what is stored below
	}
	width := len(s.args) / n
	var b strings.Builder
	b.WriteString(s.many.head)
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('(')
		for j := range width {
			if j > 0 {
				b.WriteString(", ")
			}
			b.WriteString("$" + strconv.Itoa(i*width+j+1))
			if i == 0 && s.many.casts != nil {
				b.WriteString("::" + s.many.casts[j])
			}
		}
		b.WriteByte(')')
	}
	b.WriteString(s.many.tail)
	text, _ := manyTexts.LoadOrStore(key, b.String())
	return text.(string) //nolint:forcetypeassert // as above
}

// cut makes of a statement of many rows several of 4, 8, 16, … rows, so that a connection has few statements to prepare.
func cut(stmts []stmt) []stmt {
	out := make([]stmt, 0, len(stmts))
	for _, s := range stmts {
		for s.rows > few {
			width := len(s.args) / s.rows
			part := s
			part.rows = 1 << (bits.Len(uint(s.rows)) - 1)
			part.args = s.args[: part.rows*width : part.rows*width]
			s.args, s.rows = s.args[part.rows*width:], s.rows-part.rows
			out = append(out, part)
			if s.rows == 0 {
				break
			}
		}
		if s.many == nil || len(s.args) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// together makes one list of the lists, and one statement of those that differ in their arguments alone. Each
// list stays in its order, but for what may go ahead.
func together(lists [][]stmt) []stmt {
	if len(lists) == 1 {
		return lists[0]
	}
	var out []stmt
	last := map[[2]string]int{} // where the last statement of its kind is
	for _, list := range lists {
		at := -1 // where the last statement of the list is
		for _, s := range list {
			if s.many == nil {
				at = len(out)
				out = append(out, s)
				continue
			}
			kind := [2]string{s.many.head, s.many.tail}
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

// parameters names n columns of values.
func parameters(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = "p" + strconv.Itoa(i+1)
	}
	return strings.Join(names, ", ")
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
