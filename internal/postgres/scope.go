package postgres

import (
	"context"
	"database/sql"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/pkg/money"
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

// ofAny begins a query of the operator's over one account or, for the zero one, over all. It is not for
// what a customer asks: a customer always has an account.
func (s stores) ofAny(ctx context.Context, a account.ID) *gorm.DB {
	if a.IsZero() {
		return s.all(ctx)
	}
	return s.of(ctx, a)
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

// take reads one row, or returns missing.
func take[R any](q *gorm.DB, missing error) (R, error) {
	var row R
	err := q.Take(&row).Error
	return row, notFound(err, missing)
}

// find reads every row and makes a T of each.
func find[R, T any](q *gorm.DB, to func(R) T) ([]T, error) {
	var rows []R
	if err := q.Find(&rows).Error; err != nil {
		return nil, translate(err)
	}
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = to(r)
	}
	return out, nil
}

// findEach is find for rows that may not be readable.
func findEach[R, T any](q *gorm.DB, to func(R) (T, error)) ([]T, error) {
	var rows []R
	if err := q.Find(&rows).Error; err != nil {
		return nil, translate(err)
	}
	out := make([]T, len(rows))
	for i, r := range rows {
		var err error
		if out[i], err = to(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// newest orders a list by identifier, the newest first, from the position that r names.
func newest[T id.Prefixed](q *gorm.DB, r page.Request) *gorm.DB {
	q = q.Order("id DESC").Limit(r.Limit + 1)
	if after, err := id.Parse[T](r.After); err == nil {
		q = q.Where("id < ?", after.UUID())
	}
	return q
}

// changed makes missing of an update that found no row.
func changed(res *gorm.DB, missing error) error {
	if res.Error != nil {
		return translate(res.Error)
	}
	if res.RowsAffected == 0 {
		return missing
	}
	return nil
}

// textOrNil is NULL for the empty text.
func textOrNil(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// textOf is the empty text for NULL.
func textOf(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// minor makes an amount of a column.
func minor(n int64, currency string) money.Amount { return money.New(n, money.Currency(currency)) }

// eachRow scans every row that a query of our own finds, until one cannot be.
func eachRow(ctx context.Context, db *gorm.DB, scan func(*sql.Rows) error, query string, args ...any) error {
	rows, err := db.Statement.ConnPool.QueryContext(ctx, query, args...)
	if err != nil {
		return translate(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return translate(rows.Err())
}

// accountsOf returns the accounts that a query names.
func accountsOf(ctx context.Context, db *gorm.DB, query string, args ...any) (accounts []account.ID, err error) {
	err = eachRow(ctx, db, func(rows *sql.Rows) error {
		var a account.ID
		err := rows.Scan(&a)
		accounts = append(accounts, a)
		return err
	}, query, args...)
	return accounts, err
}
