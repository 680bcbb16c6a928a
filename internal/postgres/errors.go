package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"gorm.io/gorm"

	"github.com/accrue-billing/accrue/internal/errs"
)

// ErrBusy says that the database could not do it now. Where the connection broke while a transaction was
// being committed nobody knows whether it was, so what is repeated must be harmless to repeat.
var ErrBusy = errs.New(errs.Unavailable, "database_unavailable", "The service cannot reach its data for a moment. Try again, a change with the same Idempotency-Key.").After(time.Second)

// SQLSTATE classes and codes that are told apart. A constraint's name is never looked at: a cluster
// of shards does not report it.
const (
	uniqueViolation       = "23505"
	foreignKeyViolation   = "23503"
	notNullViolation      = "23502"
	divisionByZero        = "22012"
	serializationFailure  = "40001"
	deadlockDetected      = "40P01"
	lockNotAvailable      = "55P03"
	insufficientPrivilege = "42501"
	readOnly              = "25006" // the server, or a host that keeps it from filling its disk, takes no writes
	idleInTransaction     = "25P03" // we stood still for too long
)

// unavailable are the classes of what the server will be able to do later: the connection, who may have one (a password
// that is being changed), its resources (a full disk among them), and what an operator has ended.
var unavailable = []string{"08", notLetIn, "53", "57"}

// notLetIn is the class of credentials that the server does not take.
const notLetIn = "28"

func sqlState(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

func retryable(err error) bool {
	switch sqlState(err) {
	case serializationFailure, deadlockDetected:
		return true
	}
	return errors.Is(err, errRaced)
}

// unique reports whether err says that a key is taken.
func unique(err error) bool {
	return sqlState(err) == uniqueViolation || errors.Is(err, gorm.ErrDuplicatedKey)
}

// orphan reports whether err says that the row which another refers to is not there.
func orphan(err error) bool {
	return sqlState(err) == foreignKeyViolation || errors.Is(err, gorm.ErrForeignKeyViolated)
}

// translate makes ErrBusy of what the database will be able to do later: no connection, shutdown, full
// disk, a time-out, a deadlock that nobody has tried again. Everything else it returns as it is.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*errs.Error](err); ok {
		return err
	}
	var network net.Error
	var connect *pgconn.ConnectError
	switch state := sqlState(err); state {
	case lockNotAvailable, readOnly, idleInTransaction, serializationFailure, deadlockDetected:
		return ErrBusy.Because(err)
	case "":
		if errors.As(err, &connect) || errors.As(err, &network) || broken(err) || errors.Is(err, context.DeadlineExceeded) ||
			pgconn.SafeToRetry(err) || pgconn.Timeout(err) {
			return ErrBusy.Because(err)
		}
	default:
		if slices.Contains(unavailable, state[:2]) {
			return ErrBusy.Because(err)
		}
	}
	return err
}

// broken reports whether a connection ended in the middle of what it was asked.
func broken(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE, driver.ErrBadConn, sql.ErrConnDone, sql.ErrTxDone} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

// notFound makes missing of a query that found no row, and translates any other error.
func notFound(err error, missing error) error {
	if errors.Is(err, gorm.ErrRecordNotFound) {
		return missing
	}
	return translate(err)
}

// taken makes conflict of a write that hit a unique key, and translates any other error.
func taken(err error, conflict error) error {
	if unique(err) {
		return conflict
	}
	return translate(err)
}
