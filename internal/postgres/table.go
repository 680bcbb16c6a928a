package postgres

import (
	"context"
	"reflect"
	"slices"
	"strconv"
	"strings"

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
	one     string   // inserts a row
	inserts *many
}

func tableOf[R schema.Tabler]() table[R] {
	var row R
	t := table[R]{name: row.TableName()}
	names := schema.NamingStrategy{}
	for f := range reflect.TypeFor[R]().Fields() {
		t.columns = append(t.columns, names.ColumnName("", f.Name))
	}
	into := "INSERT INTO " + t.name + " (" + strings.Join(t.columns, ", ") + ") "
	values := make([]string, len(t.columns))
	for i := range values {
		values[i] = "$" + strconv.Itoa(i+1)
	}
	t.one, t.inserts = into+"VALUES ("+strings.Join(values, ", ")+")", &many{sql: into + "SELECT * FROM " + t.rowsOf(t.columns...)}
	return t
}

// ahead lets inserts go before what waits, with others of their kind. It is for a table without rules between rows, whose
// foreign keys lead to rows of such a table or to rows that are there. So the operations of one account write
// them together.
func (t table[R]) ahead() table[R] {
	t.inserts.ahead = true
	return t
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
	return stmt{table: t.name, sql: t.one, args: args, rows: len(rows), many: t.inserts}
}

// onConflict adds to an insert what happens where there is such a row.
func (s stmt) onConflict(what string) stmt {
	with := *s.many
	with.sql += " ON CONFLICT " + what
	s.sql, s.many = s.sql+" ON CONFLICT "+what, &with
	return s
}

// answers says that an insert returns rows, which begin with a column of what was inserted.
func (t table[R]) answers(s stmt, column string) stmt {
	with := *s.many
	with.answers, with.key = true, t.field(column)
	s.many = &with
	return s
}

// conflict makes an error of a unique key that is taken.
func (s stmt) conflict(with error) stmt {
	s.done = func(_ pgconn.CommandTag, err error) error { return taken(err, with) }
	return s
}

// found makes an error of a write that finds no row.
func (s stmt) found(missing error) stmt {
	s.missing = missing
	return s
}

// An update is a statement that writes some columns of a row.
type update[R schema.Tabler] struct {
	table  string
	sql    string
	many   *many
	fields []int
}

// update prepares the statement that writes the given columns where the key's columns have the values
// that are asked for. A tenant's table names the account among them.
func (t table[R]) update(key []string, columns ...string) update[R] {
	u := update[R]{table: t.name, sql: "UPDATE " + t.name + " SET ", many: &many{sql: "UPDATE " + t.name + " SET ", once: true}}
	for i, c := range columns {
		if i > 0 {
			u.sql += ", "
			u.many.sql += ", "
		}
		u.sql += c + " = $" + strconv.Itoa(i+1)
		u.many.sql += c + " = v.p" + strconv.Itoa(i+1)
		u.fields = append(u.fields, t.field(c))
	}
	u.many.sql += " FROM " + t.rowsOf(slices.Concat(columns, key)...)
	for i, c := range key {
		and := []string{" WHERE ", " AND "}[min(i, 1)]
		u.sql += and + c + " = $" + strconv.Itoa(len(columns)+i+1)
		u.many.sql += and + t.name + "." + c + " = v.p" + strconv.Itoa(len(columns)+i+1)
	}
	return u
}

// where adds a condition to an update.
func (u update[R]) where(condition string) update[R] {
	u.sql += " AND " + condition
	u.many.sql += " AND " + condition
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
	return stmt{table: u.table, sql: u.sql, args: args, many: u.many}
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

// locked holds the rows until the transaction ends, as the function of that name does.
func (q query[R]) locked() query[R] {
	q.sql, q.many = q.sql+forUpdate, nil
	return q
}

const forUpdate = " FOR NO KEY UPDATE"

// A read is a query by the values of some columns, of which several can go as one.
type read[R schema.Tabler] struct {
	table table[R]
	key   []string
	rest  string
	sql   string
	many  *many
}

// read prepares the query of the rows in which the key's columns have the values that are asked for, the table's
// first among them, and for which the rest of the condition is true. That of a tenant's table begins with the account.
func (t table[R]) read(rest string, key ...string) read[R] {
	by := func(param string) string {
		text := "SELECT " + strings.Join(t.columns, ", ") + " FROM " + t.name
		for i, c := range key {
			text += []string{" WHERE ", " AND "}[min(i, 1)] + c + " = " + param + strconv.Itoa(i+1)
		}
		return strings.TrimSuffix(text+" "+rest, " ")
	}
	r := read[R]{table: t, key: key, rest: rest, sql: by("$"), many: &many{answers: true, reads: true, key: slices.Index(key, t.columns[0])}}
	// OFFSET keeps the planner from joining: it goes by the same index, whatever it thinks of the table's size.
	r.many.sql = "SELECT " + strings.Join(t.columns, ", ") + " FROM " + t.rowsOf(key...) + ", LATERAL (" + by("v.p") + " OFFSET 0) found"
	return r
}

// locked holds the rows until the transaction ends, as the function of that name does.
func (r read[R]) locked() read[R] { return r.table.read(r.rest+forUpdate, r.key...) }

// by reads the rows with these values.
func (r read[R]) by(key ...any) query[R] {
	q := query[R]{r.table, stmt{sql: r.sql, many: r.many}}
	for _, k := range key {
		q.args = append(q.args, param(k))
	}
	return q
}

// of reads rows of one account. As in stores.of, the zero account is a fault of ours, hence the panic.
func (r read[R]) of(a account.ID, key ...any) query[R] {
	return r.by(append([]any{mustOwner(a)}, key...)...)
}

// each is the statement that gives each row to fn.
func (q query[R]) each(fn func(R) error) stmt {
	q.row = func(rows pgx.Rows) error {
		var row R
		if err := rows.Scan(fields(&row)...); err != nil {
			return err
		}
		return fn(row)
	}
	return q.stmt
}

// fields are where the columns of a row are scanned into.
func fields[R schema.Tabler](row *R) []any {
	v := reflect.ValueOf(row).Elem()
	into := make([]any, v.NumField())
	for i := range into {
		into[i] = v.Field(i).Addr().Interface()
	}
	return into
}

// rows reads the rows, unless they have been read ahead.
func (q query[R]) rows(ctx context.Context, s session) (list []R, err error) {
	if found, ok := s.held().take(q.sql, q.args); ok {
		return found.([]R), nil //nolint:forcetypeassert // what ahead stores for this text
	}
	err = s.send(ctx, q.each(func(r R) error {
		list = append(list, r)
		return nil
	}))
	return list, err
}

// ahead reads the rows for an operation that will ask for them.
func (q query[R]) ahead() (*ahead, stmt) {
	var list []R
	a := &ahead{table: q.table.name, sql: q.sql, args: q.args, rows: list}
	return a, q.each(func(r R) error {
		list = append(list, r)
		a.rows = list
		return nil
	})
}

// one reads the only row, or returns missing.
func (q query[R]) one(ctx context.Context, s session, missing error) (row R, err error) {
	rows, err := q.rows(ctx, s)
	if err == nil && len(rows) == 0 {
		err = missing
	}
	if err != nil {
		return row, err
	}
	return rows[len(rows)-1], nil
}

// all reads every row and makes a T of each.
func all[R schema.Tabler, T any](ctx context.Context, s session, q query[R], to func(R) (T, error)) (list []T, err error) {
	rows, err := q.rows(ctx, s)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		v, err := to(r)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
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
