package postgres

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// A stmt is a statement with what becomes of its answer. It is one of a kind, which can stand for several of that
// kind; or several writes that are sent as one; or has a text of its own.
type stmt struct {
	kind  *kind
	rows  [][]byte // the values of each, see appendElement
	parts []stmt
	sql   string
	args  []any

	// take is called for each row of the answer: of a kind that answers, that of the statement which the row is for.
	// Empty: there are none, or they do not matter.
	take []func(*value) error
	// done makes the statement's error of how it ended. nil: translate. Of parts nobody knows which has failed.
	done func(pgconn.CommandTag, error) error
}

// reads reports whether the statement does no more.
func (s stmt) reads() bool {
	if s.kind != nil {
		return s.kind.reads
	}
	return reads(s.sql)
}

func reads(sql string) bool { return strings.HasPrefix(sql, "SELECT ") }

// conflict makes an error of a unique key that is taken.
func (s stmt) conflict(with error) stmt {
	s.done = func(_ pgconn.CommandTag, err error) error { return taken(err, with) }
	return s
}

// queue adds the statement to a pipeline.
func (s stmt) queue(ctx context.Context, p *pipeline) error {
	switch {
	case s.parts != nil:
		for _, part := range s.parts {
			k := part.kind
			p.join(k.part, k.arrays(part.rows)...)
			if k.missing != nil {
				p.mustFind(len(part.rows))
			}
		}
		return p.queueJoined(ctx)
	case s.kind == nil:
		return p.queueText(ctx, s)
	}
	params, sql := s.kind.params(s.rows), s.kind.alone
	if len(s.rows) > 1 {
		sql = s.kind.together
	}
	if s.kind.missing != nil {
		params = append(params, int8Param(len(s.rows)))
	}
	return p.ask(ctx, sql, s.answered(), params...)
}

// answered is what becomes of the answer.
func (s stmt) answered() asked {
	a := asked{done: func(tag pgconn.CommandTag, err error) error {
		switch {
		case s.kind != nil && s.kind.missing != nil && sqlState(err) == divisionByZero:
			return s.kind.missing
		case s.done != nil:
			return s.done(tag, err)
		}
		return translate(err)
	}}
	switch {
	case len(s.take) == 1:
		a.each = s.take[0]
	case len(s.take) > 1:
		a.each = func(v *value) error { return s.take[v.int8(len(v.row)-1)-1](v) }
	}
	return a
}

// A session is where the stores that go without GORM send their statements: to the pool, where what is sent
// together is a transaction of its own, or into one transaction. Every statement is prepared once on each connection.
type session interface {
	// send runs the statements, and before them those that wait, in one round trip.
	send(ctx context.Context, stmts ...stmt) error
	// later runs writes whose answers nobody needs: in a transaction they wait for the next statement that is
	// sent, or for the commit, and a failure shows there. Nothing is lost by that: a transaction in which a
	// statement has failed can do nothing more.
	later(ctx context.Context, stmts ...stmt) error
	// publish writes an event into its account's outbox. In a transaction it waits for the commit, so that the
	// events of an account go together, and the account's counter is held for a moment only.
	publish(ctx context.Context, e eventRow) error
	// held is what the transaction holds locked, nil outside of one.
	held() *held
}

// pooled is the session outside of any transaction.
type pooled struct{ pool *pgxpool.Pool }

func (p pooled) send(ctx context.Context, stmts ...stmt) error {
	conn, err := p.pool.Acquire(ctx)
	if err != nil {
		return translate(err)
	}
	defer conn.Release()
	return roundTrip(ctx, conn.Conn(), stmts)
}

func (p pooled) later(ctx context.Context, stmts ...stmt) error { return p.send(ctx, stmts...) }

func (p pooled) publish(ctx context.Context, e eventRow) error {
	return p.send(ctx, publishing([]eventRow{e})...)
}

func (p pooled) held() *held { return nil }

// roundTrip sends the statements together and reads all of their answers. It returns the first error; what
// comes after the statement that failed has not been run.
func roundTrip(ctx context.Context, conn *pgx.Conn, stmts []stmt) error {
	p := pipeline{conn: conn}
	for _, s := range stmts {
		if err := s.queue(ctx, &p); err != nil {
			return translate(err)
		}
	}
	return translate(p.send(ctx))
}

// transaction is the session of one transaction. Even its BEGIN waits for the first statement, and its
// COMMIT goes with the last ones. It is not safe for concurrent use.
type transaction struct {
	conn    *pgx.Conn
	waiting []stmt
	events  []eventRow
	holds   held
	begun   bool
	failed  error
}

var errRolledBack = errors.New("a statement had failed, and the transaction was rolled back")

func newTransaction(conn *pgx.Conn) *transaction {
	return &transaction{conn: conn, waiting: []stmt{{sql: "BEGIN"}}}
}

func (t *transaction) send(ctx context.Context, stmts ...stmt) error {
	if t.failed != nil {
		return t.failed
	}
	all := slices.Concat(t.waiting, stmts)
	t.waiting, t.begun = nil, true
	t.failed = roundTrip(ctx, t.conn, all)
	return t.failed
}

func (t *transaction) later(_ context.Context, stmts ...stmt) error {
	t.waiting = append(t.waiting, stmts...)
	return t.failed
}

func (t *transaction) held() *held { return &t.holds }

func (t *transaction) flush(ctx context.Context, _ string) error {
	if len(t.waiting) == 0 {
		return t.failed
	}
	return t.send(ctx)
}

func (t *transaction) publish(_ context.Context, e eventRow) error {
	t.events = append(t.events, e)
	return t.failed
}

func (t *transaction) commit(ctx context.Context) error {
	return t.finish(ctx, t.holds.writes(t.events)...)
}

// finish sends the last statements with the COMMIT behind them.
func (t *transaction) finish(ctx context.Context, last ...stmt) error {
	t.waiting = append(t.waiting, last...)
	if !t.begun && len(t.waiting) == 1 {
		return nil // nothing was asked of it
	}
	return t.send(ctx, stmt{sql: "COMMIT", done: func(tag pgconn.CommandTag, err error) error {
		if err == nil && tag.String() != "COMMIT" {
			err = errRolledBack // somebody went on after an error
		}
		return translate(err)
	}})
}

// intact reports whether the database has refused nothing so far.
func (t *transaction) intact() bool { return !t.conn.IsClosed() && t.conn.PgConn().TxStatus() == 'T' }

// rollback ends the transaction, even if ctx has ended. A connection on which that fails is closed.
func (t *transaction) rollback(ctx context.Context) {
	if !t.begun || t.conn.IsClosed() || t.conn.PgConn().TxStatus() == 'I' {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if _, err := t.conn.Exec(ctx, "ROLLBACK"); err != nil {
		_ = t.conn.Close(ctx)
	}
}

// ormConn is the connection of a transaction as GORM sees it.
type ormConn struct {
	conn *sql.Conn
	tx   flusher
}

// A flusher sends what waits, before a statement that goes another way.
type flusher interface {
	flush(ctx context.Context, before string) error
}

func (o ormConn) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	if err := o.tx.flush(ctx, query); err != nil {
		return nil, err
	}
	return o.conn.PrepareContext(ctx, query)
}

func (o ormConn) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if err := o.tx.flush(ctx, query); err != nil {
		return nil, err
	}
	return o.conn.ExecContext(ctx, query, args...)
}

func (o ormConn) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := o.tx.flush(ctx, query); err != nil {
		return nil, err
	}
	return o.conn.QueryContext(ctx, query, args...)
}

func (o ormConn) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	// sql.Row keeps its errors to itself, so one of what waited is met again by the next statement.
	_ = o.tx.flush(ctx, query)
	return o.conn.QueryRowContext(ctx, query, args...)
}

// Commit and Rollback tell GORM that it is in a transaction, so that one of its own in here is a savepoint.
// The transaction's end is DB.InTx's.
func (o ormConn) Commit() error   { return errors.ErrUnsupported }
func (o ormConn) Rollback() error { return errors.ErrUnsupported }

// onOneConn runs fn with a connection as database/sql and as pgx know it.
func onOneConn(ctx context.Context, db *sql.DB, fn func(*sql.Conn, *pgx.Conn) error) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	var bare *pgx.Conn
	err = conn.Raw(func(driver any) error {
		bare = driver.(*stdlib.Conn).Conn() //nolint:forcetypeassert // the pool is pgx's
		return nil
	})
	if err != nil {
		return err
	}
	return fn(conn, bare)
}
