package postgres

import (
	"context"
	"errors"
	"hash/fnv"
	"strconv"

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
	conn  *pgx.Conn
	batch *pgconn.Batch
	each  []func(*value) error // what reads the rows of each statement in the batch; nil: none are expected
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
	p.batch.ExecPrepared(d.Name, params, binaryFormat, binaryFormat)
	p.each = append(p.each, each)
	return nil
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
