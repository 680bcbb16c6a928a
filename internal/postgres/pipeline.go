package postgres

import (
	"context"
	"errors"
	"hash/fnv"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The hot paths go without GORM: they send prepared statements with binary arrays for parameters, several
// in one round trip.

// statement has the name under which each connection keeps it prepared.
type statement struct{ name, sql string }

func named(sql string) statement {
	sum := fnv.New64a()
	_, _ = sum.Write([]byte(sql))
	return statement{"usage_" + strconv.FormatUint(sum.Sum64(), 36), sql}
}

// pipeline is a connection with the statements that go over it together.
type pipeline struct {
	conn   *pgx.Conn
	batch  *pgconn.Batch
	each   []func(*value) error // what reads the rows of each statement in the batch; nil: none are expected
	joined []part
}

// part is a write that shares a statement with others.
type part struct {
	statement
	params [][]byte
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
	d, err := p.conn.Prepare(ctx, s.name, s.sql)
	if err != nil {
		return err
	}
	if p.batch == nil {
		p.batch = &pgconn.Batch{}
	}
	p.batch.ExecStatement(d, params, binaryFormat, binaryFormat)
	p.each = append(p.each, each)
	return nil
}

// join adds a write to those that become one statement, and so pay once for what a statement costs besides its
// rows. They run in any order, none sees what another does, and no two may touch the same row.
func (p *pipeline) join(s statement, params ...[]byte) {
	p.joined = append(p.joined, part{s, params})
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
	s, ok := joinedStatements.Load(names.String())
	if !ok {
		s, _ = joinedStatements.LoadOrStore(names.String(), joinStatements(parts))
	}
	return p.queue(ctx, s.(statement), nil, params...) //nolint:forcetypeassert // nothing else is stored
}

var (
	joinedStatements sync.Map // by the names of the parts
	parameter        = regexp.MustCompile(`\$[0-9]+`)
)

// joinStatements makes all parts but the last WITH queries of the last.
func joinStatements(parts []part) statement {
	var sql strings.Builder
	before := 0 // parameters of the parts before
	for i, p := range parts {
		text := parameter.ReplaceAllStringFunc(p.sql, func(s string) string {
			n, _ := strconv.Atoi(s[1:])
			return "$" + itoa(before+n)
		})
		before += len(p.params)
		if i == len(parts)-1 {
			sql.WriteString("\n" + text)
			break
		}
		sql.WriteString([]string{"WITH", ","}[min(i, 1)] + " w" + itoa(i) + " AS (" + text + ")")
	}
	return named(sql.String())
}

var binaryFormat = []int16{1} // for all columns

// send sends the pipeline and reads all of its answers.
func (p *pipeline) send(ctx context.Context) error {
	if p.batch == nil {
		return nil
	}
	batch, each := p.batch, p.each
	p.batch, p.each = nil, nil
	mrr := p.conn.PgConn().ExecBatch(ctx, batch)
	var failed error
	for i := 0; mrr.NextResult(); i++ {
		rr := mrr.ResultReader()
		for rr.NextRow() {
			if each[i] == nil || failed != nil {
				continue
			}
			v := value{row: rr.Values()}
			failed = errors.Join(each[i](&v), v.err)
		}
		if _, err := rr.Close(); err != nil {
			break
		}
	}
	return errors.Join(mrr.Close(), failed)
}
