package postgres

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/accrue-billing/accrue/internal/errs"
)

// What the database will be able to do later is never answered as a fault of ours, and what may help now is tried again.
func TestTranslate(t *testing.T) {
	t.Parallel()
	for state, want := range map[string]struct {
		kind  errs.Kind
		again bool
	}{
		"08006": {errs.Unavailable, false}, // connection failure, as a pooler in between says it
		"25006": {errs.Unavailable, false}, // read only
		"25P03": {errs.Unavailable, false}, // ended for standing still in a transaction
		"28P01": {errs.Unavailable, false}, // the password was changed, and this instance is to be restarted yet
		"40001": {errs.Unavailable, true},
		"40P01": {errs.Unavailable, true},
		"53100": {errs.Unavailable, false}, // disk full
		"53200": {errs.Unavailable, false}, // out of memory
		"53300": {errs.Unavailable, false}, // too many connections
		"55P03": {errs.Unavailable, false}, // lock time-out
		"57014": {errs.Unavailable, false}, // canceled
		"57P01": {errs.Unavailable, false}, // shutdown
		"57P03": {errs.Unavailable, false}, // starting
		"23514": {errs.Internal, false},
		"42703": {errs.Internal, false},
	} {
		cause := &pgconn.PgError{Code: state}
		err := translate(cause)
		if errs.KindOf(err) != want.kind || retryable(err) != want.again || !errors.Is(err, error(cause)) {
			t.Errorf("%s is of kind %d, tried again: %v (%v)", state, errs.KindOf(err), retryable(err), err)
		}
	}
}
