package postgres

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"gorm.io/gorm/schema"

	"github.com/accrue-billing/accrue/internal/account"
)

// A table maps rows of type R to a table, each field to the column that GORM gives it, for the paths that
// go without GORM. It is made once for each type and safe for concurrent use.
type table[R schema.Tabler] struct {
	name    string
	columns []column // of the fields of R, in their order
	inserts *kind
}

func tableOf[R schema.Tabler]() table[R] {
	var row R
	t := table[R]{name: row.TableName()}
	names := schema.NamingStrategy{}
	for f := range reflect.TypeFor[R]().Fields() {
		t.columns = append(t.columns, columnOf(names.ColumnName("", f.Name), f))
	}
	t.inserts = t.inserting("").ready()
	return t
}

// inserting begins the kind of the statements that insert rows. then is what their text ends with.
func (t table[R]) inserting(then string) kind {
	into := "INSERT INTO " + t.name + " (" + namesOf(t.columns) + ") "
	return kind{
		table: t.name, columns: t.columns, inserts: then == "",
		one:  strings.TrimSuffix(into+"VALUES ("+parameters(t.columns, "")+") "+then, " "),
		many: strings.TrimSuffix(into+"SELECT * FROM "+arrays(t.columns)+" AS v "+then, " "),
	}
}

// newRows is the kind of insert that passes over rows whose key is taken, and answers with a row for each other.
func newRows[R schema.Tabler](t table[R], key ...string) *kind {
	k := t.inserting("ON CONFLICT DO NOTHING RETURNING " + key[0])
	same := make([]string, len(key))
	for i, c := range key {
		same[i] = "w." + c + " = v.p" + itoa(t.field(c)+1)
	}
	k.answers = true
	k.many = "WITH v AS MATERIALIZED (SELECT * FROM " + arrays(k.columns) + " WITH ORDINALITY AS v (" + places(len(k.columns)) + ", n)), " +
		"w AS (INSERT INTO " + t.name + " (" + namesOf(k.columns) + ") SELECT " + places(len(k.columns)) + " FROM v ON CONFLICT DO NOTHING RETURNING " + strings.Join(key, ", ") + ") " +
		"SELECT min(v.n) FROM w JOIN v ON " + strings.Join(same, " AND ") + " GROUP BY " + strings.Join(key, ", ")
	return k.ready()
}

func namesOf(columns []column) string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	return strings.Join(names, ", ")
}

// namesIn lists the columns of a table that goes by another name.
func namesIn(alias string, columns []column) string {
	return alias + "." + strings.ReplaceAll(namesOf(columns), ", ", ", "+alias+".")
}

// parameters lists a parameter for each column, or an array of them.
func parameters(columns []column, array string) string {
	list := make([]string, len(columns))
	for i, c := range columns {
		list[i] = "$" + itoa(i+1) + "::" + c.cast + array
	}
	return strings.Join(list, ", ")
}

// arrays are the rows of arrays of the columns' values.
func arrays(columns []column) string { return "unnest(" + parameters(columns, "[]") + ")" }

// places names the columns of such rows: p1 and so on.
func places(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = "p" + itoa(i+1)
	}
	return strings.Join(list, ", ")
}

// insert is the statement that writes the rows.
func (t table[R]) insert(rows ...R) stmt { return t.write(t.inserts, rows...) }

// write is the statement of a kind of insert.
func (t table[R]) write(k *kind, rows ...R) stmt {
	s := stmt{kind: k, rows: make([][]byte, len(rows))}
	for i := range rows {
		b := make([]byte, 0, 32*len(t.columns))
		row := reflect.ValueOf(&rows[i]).Elem()
		for f, c := range t.columns {
			b = appendElement(b, row.Field(f).Addr().Interface(), c.document)
		}
		s.rows[i] = b
	}
	return s
}

// An update is a statement that writes some columns of a row.
type update[R schema.Tabler] struct {
	*kind
	fields []int
}

// update prepares the statement that writes the given columns where the key's columns have the values
// that are asked for. A tenant's table names the account among them.
func (t table[R]) update(key []string, columns ...string) update[R] {
	k, u := kind{table: t.name}, update[R]{}
	for i, name := range slices.Concat(columns, key) {
		f := t.field(name)
		k.columns = append(k.columns, t.columns[f])
		if i < len(columns) {
			u.fields = append(u.fields, f)
		}
	}
	text := func(from string, value func(i int) string) string {
		var set, where []string
		for i, c := range k.columns {
			if i < len(columns) {
				set = append(set, c.name+" = "+value(i))
			} else {
				where = append(where, t.name+"."+c.name+" = "+value(i))
			}
		}
		return "UPDATE " + t.name + " SET " + strings.Join(set, ", ") + from + " WHERE " + strings.Join(where, " AND ")
	}
	k.one = text("", func(i int) string { return "$" + itoa(i+1) + "::" + k.columns[i].cast })
	k.many = text(" FROM "+arrays(k.columns)+" AS v ("+places(len(k.columns))+")", func(i int) string { return "v.p" + itoa(i+1) })
	u.kind = k.ready()
	return u
}

// where adds a condition to an update.
func (u update[R]) where(condition string) update[R] {
	k := *u.kind
	k.one, k.many = k.one+" AND "+condition, k.many+" AND "+condition
	u.kind = k.ready()
	return u
}

// mustFind makes an error of an update that finds no row.
func (u update[R]) mustFind(missing error) update[R] {
	u.kind = u.kind.mustFind(missing)
	return u
}

// of is the statement that writes a row where the key has these values.
func (u update[R]) of(row R, key ...any) stmt {
	v := reflect.ValueOf(&row).Elem()
	b := make([]byte, 0, 32*len(u.columns))
	for i, f := range u.fields {
		b = appendElement(b, v.Field(f).Addr().Interface(), u.columns[i].document)
	}
	return stmt{kind: u.kind, rows: [][]byte{appendElements(b, key)}}
}

// but lists the columns without the given ones.
func (t table[R]) but(columns ...string) (rest []string) {
	for _, c := range t.columns {
		if !slices.Contains(columns, c.name) {
			rest = append(rest, c.name)
		}
	}
	return rest
}

func (t table[R]) field(column string) int {
	for i, c := range t.columns {
		if c.name == column {
			return i
		}
	}
	panic("postgres: " + t.name + " has no column " + column)
}

// A query reads rows of a table.
type query[R schema.Tabler] struct {
	table table[R]
	stmt
}

// A read is a query by the values of some columns, of which several can go as one.
type read[R schema.Tabler] struct {
	table table[R]
	*kind
	rest string
}

// read prepares the query of the rows in which the key's columns have the values that are asked for and for which
// the rest of the condition is true. That of a tenant's table begins with the account.
func (t table[R]) read(rest string, key ...string) read[R] {
	columns, where := make([]column, len(key)), make([]string, len(key))
	for i, name := range key {
		columns[i], where[i] = t.columns[t.field(name)], name+" = ?"
	}
	r := t.readAs(strings.TrimSuffix("SELECT "+namesOf(t.columns)+" FROM "+t.name+" WHERE "+strings.Join(where, " AND ")+" "+rest, " "), columns...)
	r.rest = rest
	return r
}

// readAs prepares the query with a text of its own, in which a question mark stands for each value of the key. Its names
// are other than v, which is the key's.
func (t table[R]) readAs(text string, key ...column) read[R] {
	k := kind{table: t.name, columns: key, answers: true, reads: true}
	by := func(value func(i int) string) string {
		said := text
		for i := range key {
			said = strings.Replace(said, "?", value(i), 1)
		}
		return said
	}
	k.one = by(func(i int) string { return "$" + itoa(i+1) + "::" + key[i].cast })
	// OFFSET keeps the planner from joining: it goes by the same index, whatever it thinks of the table's size.
	k.many = "SELECT found.*, v.n FROM " + arrays(key) + " WITH ORDINALITY AS v (" + places(len(key)) + ", n), LATERAL (" +
		by(func(i int) string { return "v.p" + itoa(i+1) }) + " OFFSET 0) found"
	return read[R]{table: t, kind: k.ready()}
}

// locked holds the rows until the transaction ends. It does not stand in the way of foreign keys that point at them.
func (r read[R]) locked() read[R] {
	key := make([]string, len(r.columns))
	for i, c := range r.columns {
		key[i] = c.name
	}
	return r.table.read(r.rest+" FOR NO KEY UPDATE", key...)
}

// beforehand marks what guest.expect reads for an operation before it asks.
func (r read[R]) beforehand() read[R] {
	k := *r.kind
	k.expected = true
	r.kind = k.ready()
	return r
}

// by reads the rows with these values.
func (r read[R]) by(key ...any) query[R] {
	return query[R]{r.table, stmt{kind: r.kind, rows: [][]byte{appendElements(make([]byte, 0, 64), key)}}}
}

// of reads rows of one account. As in stores.of, the zero account is a fault of ours, hence the panic.
func (r read[R]) of(a account.ID, key ...any) query[R] {
	return r.by(append([]any{mustOwner(a)}, key...)...)
}

// each is the statement that gives each row to fn.
func (q query[R]) each(fn func(R) error) stmt {
	q.take = []func(*value) error{func(v *value) error {
		var row R
		if err := q.table.scan(v, &row); err != nil {
			return err
		}
		return fn(row)
	}}
	return q.stmt
}

// scan reads the columns of a row.
func (t table[R]) scan(v *value, row *R) error {
	to := reflect.ValueOf(row).Elem()
	for i, c := range t.columns {
		v.into(i, to.Field(i).Addr().Interface(), c.document)
	}
	return v.err
}

// rows reads the rows, unless they have been read beforehand.
func (q query[R]) rows(ctx context.Context, s session) (list []R, err error) {
	ask := q.each(func(r R) error {
		list = append(list, r)
		return nil
	})
	if known, ok := s.held().known(q.stmt); ok {
		for i := range known {
			if err := ask.take[0](&known[i]); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	err = s.send(ctx, ask)
	return list, err
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
