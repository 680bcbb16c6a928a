package postgres

import (
	"math/bits"
	"reflect"
	"regexp"
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
	if s.many.reads {
		if s.of == nil {
			s.of = map[[16]byte]func(pgx.Rows) error{s.args[0].([16]byte): s.row}
			of := s.of
			s.row = func(r pgx.Rows) error { return of[[16]byte(r.RawValues()[0])](r) }
		}
		a := other.args[0].([16]byte)
		if s.of[a] != nil {
			return false
		}
		s.of[a] = other.row
	}
	s.rows = max(s.rows, 1) + max(other.rows, 1)
	s.args = append(s.args, other.args...)
	return true
}

// manyReads are the forms for several accounts of reads of one, by their text.
var manyReads sync.Map

var parameter = regexp.MustCompile(`\$(\d+)`)

// reads makes the form for several accounts of a read of one. It goes by the same index, whatever the
// planner thinks of the table's size.
func (t table[R]) reads(s stmt) *many {
	if known, ok := manyReads.Load(s.sql); ok {
		return known.(*many) //nolint:forcetypeassert // what is stored below
	}
	if t.columns[0] != "account_id" {
		return nil
	}
	m := &many{reads: true}
	for _, a := range s.args {
		cast := castOf(reflect.TypeOf(a))
		if cast == "" {
			return nil
		}
		m.casts = append(m.casts, cast)
	}
	list := strings.Join(t.columns, ", ")
	m.head = "SELECT " + list + " FROM (VALUES "
	m.tail = ") AS v (" + parameters(len(s.args)) + "), LATERAL (" + parameter.ReplaceAllString(s.sql, "v.p$1") + " OFFSET 0) found"
	manyReads.Store(s.sql, m)
	return m
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
