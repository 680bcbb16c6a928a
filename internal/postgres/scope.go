package postgres

import (
	"context"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/accrue-billing/accrue/internal/account"
)

// of begins every tenant query: it binds the account, so no query can be written without one. The zero
// account is a fault of ours that must never widen a query to all accounts, hence the panic.
func (s stores) of(ctx context.Context, a account.ID) *gorm.DB {
	if a.IsZero() {
		panic("postgres: query without an account")
	}
	return s.db.WithContext(ctx).Where("account_id = ?", a.UUID())
}

// all begins a query over every account, for sweeps and for the operator's lists.
func (s stores) all(ctx context.Context) *gorm.DB { return s.db.WithContext(ctx) }

// locked holds the rows that the query returns until the transaction ends. It does not stand in the
// way of foreign keys that point at them.
func locked(q *gorm.DB) *gorm.DB {
	return q.Clauses(clause.Locking{Strength: "NO KEY UPDATE"})
}

// timeOrNil is NULL for the zero time.
func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// timeOf is the zero time for NULL, and UTC.
func timeOf(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// onConflictUpdate makes an insert overwrite the given columns of a row with the same key.
func onConflictUpdate(key []string, columns ...string) clause.OnConflict {
	c := clause.OnConflict{DoUpdates: clause.AssignmentColumns(columns)}
	for _, k := range key {
		c.Columns = append(c.Columns, clause.Column{Name: k})
	}
	return c
}
