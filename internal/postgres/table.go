package postgres

import (
	"context"
	"math/bits"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm/schema"

	"github.com/accrue-billing/accrue/internal/account"
)

// A table maps rows of type R to a table, each field to the column that GORM gives it, for the paths that
// go without GORM. It is made once for each type and safe for concurrent use.
type table[R schema.Tabler] struct {
	name    string
	columns []string // of the fields of R, in their order
	into    string   // how an insert of a row begins
}

func tableOf[R schema.Tabler]() table[R] {
	var row R
	t := table[R]{name: row.TableName()}
	names := schema.NamingStrategy{}
	for f := range reflect.TypeFor[R]().Fields() {
		t.columns = append(t.columns, names.ColumnName("", f.Name))
	}
	t.into = "INSERT INTO " + t.name + " (" + strings.Join(t.columns, ", ") + ") VALUES "
	return t
}

// places lists n parameters, the first of which has the given number.
func places(first, n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteByte('$')
		b.WriteString(strconv.Itoa(first + i))
	}
	return b.String()
}

// insert is the statement that writes the rows.
func (t table[R]) insert(rows ...R) stmt {
	args := make([]any, 0, len(rows)*len(t.columns))
	for i := range rows {
		row := reflect.ValueOf(&rows[i]).Elem()
		for f := range t.columns {
			args = append(args, param(row.Field(f).Interface()))
		}
	}
	return stmt{sql: t.into, args: args, width: len(t.columns)}
}

// text is the statement as it is sent.
func (s stmt) text() string {
	if s.width == 0 {
		return s.sql
	}
	key := insertion{s.sql, s.tail, len(s.args)}
	if text, ok := insertions.Load(key); ok {
		return text.(string) //nolint:forcetypeassert // what is stored below
	}
	var b strings.Builder
	b.WriteString(s.sql)
	for at := 0; at < len(s.args); at += s.width {
		if at > 0 {
			b.WriteString(", ")
		}
		b.WriteString("(" + places(at+1, s.width) + ")")
	}
	b.WriteString(s.tail)
	text, _ := insertions.LoadOrStore(key, b.String())
	return text.(string) //nolint:forcetypeassert // as above
}

// insertions are the texts of inserts. They are few: of every table, by the sizes of cut.
var insertions sync.Map

type insertion struct {
	sql, tail string
	args      int
}

// few is how many rows one insert writes whatever their number.
const few = 4

// cut makes of an insert of many rows several of 4, 8, 16, … rows, so that a connection has few statements to prepare.
func cut(stmts []stmt) []stmt {
	out := make([]stmt, 0, len(stmts))
	for _, s := range stmts {
		for s.width > 0 && len(s.args) > few*s.width {
			n := s.width << (bits.Len(uint(len(s.args)/s.width)) - 1)
			part := s
			part.args, s.args = s.args[:n:n], s.args[n:]
			out = append(out, part)
		}
		if s.width == 0 || len(s.args) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// onConflict adds to an insert what happens where there is such a row.
func (s stmt) onConflict(what string) stmt {
	s.tail += " ON CONFLICT " + what
	return s
}

// conflict makes an error of a unique key that is taken.
func (s stmt) conflict(with error) stmt {
	s.done = func(_ pgconn.CommandTag, err error) error { return taken(err, with) }
	return s
}

// inserted says whether an insert wrote a row, or found one already there.
func (s stmt) inserted(fresh *bool) stmt {
	s.single = true
	s.done = func(tag pgconn.CommandTag, err error) error {
		*fresh = tag.RowsAffected() > 0
		return translate(err)
	}
	return s
}

// found makes an error of a write that finds no row.
func (s stmt) found(missing error) stmt {
	s.checked = true
	s.done = func(tag pgconn.CommandTag, err error) error {
		if err == nil && tag.RowsAffected() == 0 {
			return missing
		}
		return translate(err)
	}
	return s
}

// An update is a statement that writes some columns of a row.
type update[R schema.Tabler] struct {
	sql    string
	fields []int
}

// update prepares the statement that writes the given columns where the key's columns have the values
// that are asked for. A tenant's table names the account among them.
func (t table[R]) update(key []string, columns ...string) update[R] {
	u := update[R]{sql: "UPDATE " + t.name + " SET "}
	for i, c := range columns {
		if i > 0 {
			u.sql += ", "
		}
		u.sql += c + " = $" + strconv.Itoa(i+1)
		u.fields = append(u.fields, t.field(c))
	}
	for i, c := range key {
		u.sql += []string{" WHERE ", " AND "}[min(i, 1)] + c + " = $" + strconv.Itoa(len(columns)+i+1)
	}
	return u
}

// but lists the columns without the given ones.
func (t table[R]) but(columns ...string) []string {
	return slices.DeleteFunc(slices.Clone(t.columns), func(c string) bool { return slices.Contains(columns, c) })
}

func (t table[R]) field(column string) int {
	i := slices.Index(t.columns, column)
	if i < 0 {
		panic("postgres: " + t.name + " has no column " + column)
	}
	return i
}

func (u update[R]) of(row R, key ...any) stmt {
	v := reflect.ValueOf(&row).Elem()
	args := make([]any, 0, len(u.fields)+len(key))
	for _, f := range u.fields {
		args = append(args, param(v.Field(f).Interface()))
	}
	for _, k := range key {
		args = append(args, param(k))
	}
	return stmt{sql: u.sql, args: args}
}

// A query reads rows of a table.
type query[R schema.Tabler] struct {
	table table[R]
	stmt
}

// where reads the rows of which the condition is true. Its parameters are $1 and so on.
func (t table[R]) where(condition string, args ...any) query[R] {
	q := query[R]{t, stmt{sql: "SELECT " + strings.Join(t.columns, ", ") + " FROM " + t.name + " WHERE " + condition}}
	for _, a := range args {
		q.args = append(q.args, param(a))
	}
	return q
}

// of reads rows of one account, of which the rest of the condition is true. The account is $1. As in
// stores.of, the zero account is a fault of ours, hence the panic.
func (t table[R]) of(a account.ID, rest string, args ...any) query[R] {
	if rest != "" {
		rest = " AND " + rest
	}
	return t.where("account_id = $1"+rest, append([]any{mustOwner(a)}, args...)...)
}

// locked holds the rows until the transaction ends, as the function of that name does.
func (q query[R]) locked() query[R] {
	q.sql += " FOR NO KEY UPDATE"
	return q
}

// each is the statement that gives each row to fn.
func (q query[R]) each(fn func(R) error) stmt {
	q.row = func(rows pgx.Rows) error {
		var row R
		v := reflect.ValueOf(&row).Elem()
		into := make([]any, len(q.table.columns))
		for i := range into {
			into[i] = v.Field(i).Addr().Interface()
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		return fn(row)
	}
	return q.stmt
}

// one reads the only row, or returns missing.
func (q query[R]) one(ctx context.Context, s session, missing error) (row R, err error) {
	n := 0
	err = s.send(ctx, q.each(func(r R) error {
		row, n = r, n+1
		return nil
	}))
	if err == nil && n == 0 {
		err = missing
	}
	return row, err
}

// all reads every row and makes a T of each.
func all[R schema.Tabler, T any](ctx context.Context, s session, q query[R], to func(R) (T, error)) (list []T, err error) {
	err = s.send(ctx, q.each(func(r R) error {
		v, err := to(r)
		list = append(list, v)
		return err
	}))
	return list, err
}

// param makes a parameter of a value, as driver.Valuer does but without going by a text.
func param(v any) any {
	var u uuid.UUID
	switch v := v.(type) {
	case uuid.UUID:
		return [16]byte(v)
	case interface{ UUID() uuid.UUID }: // an identifier: NULL for the zero one
		if u = v.UUID(); u == uuid.Nil {
			return nil
		}
	default:
		return v
	}
	return [16]byte(u)
}
