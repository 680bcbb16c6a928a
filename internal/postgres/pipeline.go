package postgres

import (
	"context"
	"errors"
	"hash/fnv"
	"strconv"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The hot paths go without GORM: they send prepared statements with binary arrays for parameters, several
// in one round trip.

// A statement has the name under which each connection keeps it prepared.
type statement struct{ name, sql string }

func named(sql string) statement {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(sql))
	return statement{"accrue_" + strconv.FormatUint(sum.Sum64(), 36), sql}
}

// pipeline is a connection with the statements that go over it together.
type pipeline struct {
	conn   *pgx.Conn
	batch  *pgconn.Batch
	asked  []asked // of each statement in the batch
	joined []part
}

// asked is what becomes of a statement's answer.
type asked struct {
	each func(*value) error                   // takes a row; nil: none are expected
	done func(pgconn.CommandTag, error) error // makes the statement's error of how it ended; nil: as it is
}

// part is a write that shares a statement with others.
type part struct {
	statement
	params  [][]byte
	guarded bool // the last parameter says how many rows it must find
}

// onConn runs fn with the pipeline of one connection, outside any transaction.
func onConn(ctx context.Context, pool *pgxpool.Pool, fn func(*pipeline) error) error {
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer pooled.Release()
	return fn(&pipeline{conn: pooled.Conn()})
}

// queue adds a statement to the pipeline. Parameters are in binary format.
func (p *pipeline) queue(ctx context.Context, s statement, each func(*value) error, params ...[]byte) error {
	return p.ask(ctx, s, asked{each: each}, params...)
}

// ask is queue for whoever wants to know more of the answer than its rows.
func (p *pipeline) ask(ctx context.Context, s statement, a asked, params ...[]byte) error {
	d, err := p.conn.Prepare(ctx, s.name, s.sql)
	if err != nil {
		return err
	}
	p.add(d, a, params)
	return nil
}

// queueText adds a statement with a text of its own, whose parameters are as the driver knows them.
func (p *pipeline) queueText(ctx context.Context, s stmt) error {
	text := named(s.sql)
	d, err := p.conn.Prepare(ctx, text.name, text.sql)
	if err != nil {
		return err
	}
	params := make([][]byte, len(s.args))
	for i, a := range s.args {
		empty := []byte{} // nil would be NULL
		if params[i], err = p.conn.TypeMap().Encode(d.ParamOIDs[i], pgx.BinaryFormatCode, a, empty); err != nil {
			return err
		}
	}
	p.add(d, s.answered(), params)
	return nil
}

func (p *pipeline) add(d *pgconn.StatementDescription, a asked, params [][]byte) {
	if p.batch == nil {
		p.batch = &pgconn.Batch{}
	}
	p.batch.ExecStatement(d, params, binaryFormat, binaryFormat)
	p.asked = append(p.asked, a)
}

// join adds a write to those that become one statement, and so pay once for what a statement costs besides its
// rows. They run in any order, none sees what another does, and no two may touch the same row.
func (p *pipeline) join(s statement, params ...[]byte) {
	p.joined = append(p.joined, part{statement: s, params: params})
}

// mustFind makes the whole statement fail if the part that was joined last finds fewer rows.
func (p *pipeline) mustFind(rows int) {
	last := &p.joined[len(p.joined)-1]
	last.params, last.guarded = append(last.params, int8Param(rows)), true
}

// queueJoined adds the joined writes to the pipeline.
func (p *pipeline) queueJoined(ctx context.Context) error {
	if len(p.joined) == 0 {
		return nil
	}
	parts := p.joined
	p.joined = nil
	var names strings.Builder
	var params [][]byte
	for i := range parts {
		names.WriteString(parts[i].name)
		params = append(params, parts[i].params...)
	}
	mix := names.String()
	s, known := mixes.Get(mix)
	if !known {
		s = joinStatements(parts)
		mixes.Add(mix, s)
	}
	if err := p.makeRoom(ctx, s.name); err != nil {
		return err
	}
	return p.queue(ctx, s, nil, params...)
}

// maxMixes bounds the joined statements that are kept, and those that one connection has prepared. Which writes come
// together is a matter of load, and there are more mixes of them than anybody has memory for; those that come again and
// again are a few dozen.
const maxMixes = 200

// mixes are the joined statements by the names of their parts. A text of its parts alone never goes stale.
var mixes = mixesOf[statement]()

func mixesOf[V any]() *lru.Cache[string, V] {
	c, err := lru.New[string, V](maxMixes)
	if err != nil {
		panic(err) // a size that is not positive
	}
	return c
}

// makeRoom lets the connection forget the joined statement that it has gone without the longest, if there are too many.
func (p *pipeline) makeRoom(ctx context.Context, name string) error {
	const key = "accrue.mixes"
	data := p.conn.PgConn().CustomData()
	prepared, ok := data[key].(*lru.Cache[string, struct{}])
	if !ok {
		prepared = mixesOf[struct{}]()
		data[key] = prepared
	}
	if !prepared.Contains(name) && prepared.Len() == maxMixes {
		oldest, _, _ := prepared.RemoveOldest()
		if err := p.conn.Deallocate(ctx, oldest); err != nil {
			return err
		}
	}
	prepared.Add(name, struct{}{})
	return nil
}

// joinStatements makes a WITH query of each part. What they are joined to counts the rows that must be found.
func joinStatements(parts []part) statement {
	if len(parts) == 1 && !parts[0].guarded {
		return parts[0].statement
	}
	var sql strings.Builder
	var counts []string
	before := 0 // parameters of the parts before
	for i, p := range parts {
		query := "w" + itoa(i)
		text := numberedFrom(before, p.sql)
		before += len(p.params)
		if p.guarded {
			text += " RETURNING 1"
			counts = append(counts, mustBe(query, before))
		}
		sql.WriteString([]string{"WITH ", ", "}[min(i, 1)] + query + " AS (" + text + ")")
	}
	return named(sql.String() + "\nSELECT " + strings.Join(counts, ", "))
}

// numberedFrom is a text with its parameters numbered after so many others.
func numberedFrom(before int, text string) string {
	if before == 0 {
		return text
	}
	pieces := strings.Split(text, "$")
	for i, piece := range pieces[1:] {
		number := piece[:len(piece)-len(strings.TrimLeft(piece, "0123456789"))]
		n, _ := strconv.Atoi(number)
		pieces[i+1] = itoa(before+n) + piece[len(number):]
	}
	return strings.Join(pieces, "$")
}

var binaryFormat = []int16{1} // for all columns

// send sends the pipeline and reads all of its answers. It returns the first error; what comes after the
// statement that failed has not been run.
func (p *pipeline) send(ctx context.Context) error {
	if p.batch == nil {
		return nil
	}
	batch, asked := p.batch, p.asked
	p.batch, p.asked = nil, nil
	answers := p.conn.PgConn().ExecBatch(ctx, batch)
	var failed error
	i := 0
	for ; failed == nil && answers.NextResult(); i++ {
		failed = asked[i].read(answers.ResultReader())
	}
	err := answers.Close()
	if failed == nil && err != nil && i < len(asked) {
		failed = asked[i].end(pgconn.CommandTag{}, err)
	}
	if failed == nil {
		return err
	}
	return failed
}

// read reads the answer to a statement.
func (a asked) read(rows *pgconn.ResultReader) (failed error) {
	for rows.NextRow() {
		if a.each != nil && failed == nil {
			v := value{row: rows.Values()}
			failed = errors.Join(a.each(&v), v.err)
		}
	}
	tag, err := rows.Close()
	if failed != nil {
		return failed
	}
	return a.end(tag, err)
}

func (a asked) end(tag pgconn.CommandTag, err error) error {
	if a.done == nil {
		return err
	}
	return a.done(tag, err)
}
