package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/pkg/money"
)

// entitlementChannel is where replicas hear that an account's entitlement changed; the payload is the
// account's UUID.
const entitlementChannel = "accrue_entitlements"

type entitlementStore stores

var _ entitlement.Store = entitlementStore{}

const entitlementColumns = `
SELECT status, level, currency, period_starts, period_end, limits, coalesce(earlier_limits, 'null'), max_quantities, spend_limit, spend_mode, updated_at, version
FROM entitlements WHERE account_id = $1`

func (s entitlementStore) Get(ctx context.Context, a account.ID) (_ entitlement.Entitlement, err error) {
	defer errs.Wrap(&err, "entitlement of %s", a)
	return s.read(ctx, a, entitlementColumns)
}

func (s entitlementStore) Lock(ctx context.Context, a account.ID) (_ entitlement.Entitlement, err error) {
	defer errs.Wrap(&err, "lock entitlement of %s", a)
	return s.read(ctx, a, entitlementColumns+" FOR NO KEY UPDATE")
}

func (s entitlementStore) read(ctx context.Context, a account.ID, query string) (entitlement.Entitlement, error) {
	e := entitlement.Entitlement{Account: a}
	var status, currency, mode string
	var limits, earlier, most []byte
	err := s.db.Statement.ConnPool.QueryRowContext(ctx, query, a.UUID()).Scan(&status, &e.Level, &currency,
		pgtype.NewMap().SQLScanner(&e.PeriodStarts), &e.PeriodEnd, &limits, &earlier, &most, &e.SpendLimit, &mode, &e.UpdatedAt, &e.Version)
	if errors.Is(err, sql.ErrNoRows) {
		return e, entitlement.ErrNotFound
	}
	if err != nil {
		return e, translate(err)
	}
	e.Status, e.Currency, e.SpendMode = account.Status(status), money.Currency(currency), entitlement.Mode(mode)
	for i := range e.PeriodStarts {
		e.PeriodStarts[i] = e.PeriodStarts[i].UTC()
	}
	e.PeriodEnd, e.UpdatedAt = e.PeriodEnd.UTC(), e.UpdatedAt.UTC()
	return e, errors.Join(json.Unmarshal(limits, &e.Limits), json.Unmarshal(earlier, &e.EarlierLimits), json.Unmarshal(most, &e.MaxQuantities))
}

func (s entitlementStore) Put(ctx context.Context, e entitlement.Entitlement) (err error) {
	defer errs.Wrap(&err, "put entitlement of %s", e.Account)
	if e.Limits == nil {
		e.Limits = map[string]entitlement.Limit{}
	}
	if e.MaxQuantities == nil {
		e.MaxQuantities = map[string]money.Decimal{}
	}
	if e.SpendMode == "" {
		e.SpendMode = entitlement.Hard
	}
	limits, err := json.Marshal(e.Limits)
	if err != nil {
		return err
	}
	most, err := json.Marshal(e.MaxQuantities)
	if err != nil {
		return err
	}
	var earlier *string
	if e.EarlierLimits != nil {
		b, err := json.Marshal(e.EarlierLimits)
		if err != nil {
			return err
		}
		text := string(b)
		earlier = &text
	}
	starts := make([]time.Time, len(e.PeriodStarts))
	copy(starts, e.PeriodStarts)
	put := stmt{sql: `
INSERT INTO entitlements AS t (account_id, status, level, currency, period_starts, period_end, limits, earlier_limits, max_quantities, spend_limit, spend_mode, updated_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (account_id) DO UPDATE SET
  status = excluded.status, level = excluded.level, currency = excluded.currency,
  period_starts = excluded.period_starts, period_end = excluded.period_end, limits = excluded.limits,
  earlier_limits = excluded.earlier_limits, max_quantities = excluded.max_quantities,
  spend_limit = excluded.spend_limit, spend_mode = excluded.spend_mode, updated_at = excluded.updated_at,
  spend_told = CASE WHEN t.spend_limit IS NOT DISTINCT FROM excluded.spend_limit THEN t.spend_told END,
  version = t.version + 1`, args: []any{
		e.Account.UUID(), string(e.Status), e.Level, string(e.Currency), starts, e.PeriodEnd, string(limits), earlier, string(most), e.SpendLimit,
		string(e.SpendMode), e.UpdatedAt,
	}}
	return s.later(ctx, put, stmt{sql: "SELECT pg_notify($1, $2)", args: []any{entitlementChannel, e.Account.UUID().String()}})
}

func (s entitlementStore) TellSpendLimit(ctx context.Context, a account.ID, periodStart time.Time) (first bool, err error) {
	defer errs.Wrap(&err, "spend limit of %s told", a)
	return s.tell(ctx, `
UPDATE entitlements SET spend_told = $2 WHERE account_id = $1 AND spend_limit IS NOT NULL AND spend_told IS DISTINCT FROM $2`, a.UUID(), periodStart)
}

func (s entitlementStore) TellLimit(ctx context.Context, a account.ID, meter string, limit money.Decimal, periodStart time.Time) (first bool, err error) {
	defer errs.Wrap(&err, "limit of %s on %s told", a, meter)
	return s.tell(ctx, `
UPDATE entitlements SET limits_told = limits_told || jsonb_build_object($2::text, $3::text)
WHERE account_id = $1 AND limits_told ->> $2 IS DISTINCT FROM $3`, a.UUID(), meter, periodStart.UTC().Format(time.RFC3339Nano)+" "+limit.String())
}

// tell reports whether the statement, which writes that something was told, has found it untold.
func (s entitlementStore) tell(ctx context.Context, write string, args ...any) (first bool, err error) {
	res, err := s.db.Statement.ConnPool.ExecContext(ctx, write, args...)
	if err != nil {
		return false, translate(err)
	}
	n, err := res.RowsAffected()
	return n == 1, err
}
