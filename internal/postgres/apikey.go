package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/pkg/money"
)

// APIKeys returns the store of API keys. It is no part of a billing transaction, and it is asked with
// every request, so it goes without the ORM.
func (d *DB) APIKeys() auth.KeyStore { return keyStore{d.pool} }

type keyStore struct{ pool *pgxpool.Pool }

var _ auth.KeyStore = keyStore{}

// storedCeilings is the form in which ceilings are kept.
type storedCeilings struct {
	PerPayment *money.Amount `json:"per_payment,omitempty"`
	PerDay     *money.Amount `json:"per_day,omitempty"`
}

// owner is NULL for a key of the platform.
func owner(a account.ID) *uuid.UUID {
	if a.IsZero() {
		return nil
	}
	u := a.UUID()
	return &u
}

// ownedBy is true of the keys of the account that the first parameter names, or of the platform's for NULL. Of IS NOT
// DISTINCT FROM, which says the same, PostgreSQL does not know that an index can answer it.
const ownedBy = `(account_id = $1 OR account_id IS NULL AND $1::uuid IS NULL)`

const keyColumns = `id, account_id, name, mode, last_four, scopes, ceilings, created_at, expires_at, revoked_at, last_used_at`

func scanKey(row pgx.CollectableRow) (k auth.APIKey, err error) {
	var keyID uuid.UUID
	var account *uuid.UUID
	var mode string
	var scopes []string
	var ceilings []byte
	var expires, revoked, used *time.Time
	if err = row.Scan(&keyID, &account, &k.Name, &mode, &k.LastFour, &scopes, &ceilings, &k.CreatedAt, &expires, &revoked, &used); err != nil {
		return k, err
	}
	k.ID, k.Mode, k.CreatedAt = id.FromUUID[auth.APIKey](keyID), auth.Mode(mode), k.CreatedAt.UTC()
	k.ExpiresAt, k.RevokedAt, k.LastUsedAt = timeOf(expires), timeOf(revoked), timeOf(used)
	if account != nil {
		k.Account = accountID(*account)
	}
	for _, s := range scopes {
		k.Scopes = append(k.Scopes, auth.Scope(s))
	}
	var c storedCeilings
	if err = json.Unmarshal(ceilings, &c); err == nil {
		k.Ceilings = auth.Ceilings(c)
	}
	return k, err
}

func accountID(u uuid.UUID) account.ID { return id.FromUUID[account.Account](u) }

func (s keyStore) one(ctx context.Context, query string, args ...any) (auth.APIKey, error) {
	rows, err := s.pool.Query(ctx, query, args...)
	if err != nil {
		return auth.APIKey{}, translate(err)
	}
	k, err := pgx.CollectExactlyOneRow(rows, scanKey)
	if errors.Is(err, pgx.ErrNoRows) {
		return k, auth.ErrKeyNotFound
	}
	return k, translate(err)
}

// executor is a pool or a transaction.
type executor interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func createKey(ctx context.Context, db executor, k auth.APIKey, hash auth.KeyHash) error {
	ceilings, err := json.Marshal(storedCeilings(k.Ceilings))
	if err != nil {
		return err
	}
	scopes := make([]string, len(k.Scopes))
	for i, sc := range k.Scopes {
		scopes[i] = string(sc)
	}
	rows, err := db.Query(ctx, `INSERT INTO api_keys (key_hash, `+keyColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULL, NULL)`,
		hash[:], k.ID.UUID(), owner(k.Account), k.Name, string(k.Mode), k.LastFour, scopes, ceilings, k.CreatedAt, timeOrNil(k.ExpiresAt))
	if err != nil {
		return translate(err)
	}
	rows.Close()
	return translate(rows.Err())
}

func (s keyStore) Create(ctx context.Context, k auth.APIKey, hash auth.KeyHash) (err error) {
	defer errs.Wrap(&err, "create API key %s", k.ID)
	return createKey(ctx, s.pool, k, hash)
}

func (s keyStore) ByHash(ctx context.Context, hash auth.KeyHash) (_ auth.APIKey, err error) {
	defer errs.Wrap(&err, "find API key")
	return s.one(ctx, `SELECT `+keyColumns+` FROM api_keys WHERE key_hash = $1`, hash[:])
}

func (s keyStore) Get(ctx context.Context, a account.ID, k auth.KeyID) (_ auth.APIKey, err error) {
	defer errs.Wrap(&err, "API key %s", k)
	return s.one(ctx, `SELECT `+keyColumns+` FROM api_keys WHERE `+ownedBy+` AND id = $2`, owner(a), k.UUID())
}

func (s keyStore) List(ctx context.Context, a account.ID, r page.Request) (_ page.Page[auth.APIKey], err error) {
	defer errs.Wrap(&err, "list API keys")
	query, args := `SELECT `+keyColumns+` FROM api_keys WHERE `+ownedBy, []any{owner(a), r.Limit + 1}
	if r.After != "" {
		after, err := id.Parse[auth.APIKey](r.After)
		if err != nil {
			return page.Page[auth.APIKey]{}, err
		}
		query, args = query+` AND id < $3`, append(args, after.UUID())
	}
	rows, err := s.pool.Query(ctx, query+` ORDER BY id DESC LIMIT $2`, args...)
	if err != nil {
		return page.Page[auth.APIKey]{}, translate(err)
	}
	list, err := pgx.CollectRows(rows, scanKey)
	return page.Cut(list, r.Limit, func(k auth.APIKey) string { return k.ID.String() }), translate(err)
}

func (s keyStore) Good(ctx context.Context, a account.ID, at time.Time) (n int, err error) {
	defer errs.Wrap(&err, "count API keys")
	err = s.pool.QueryRow(ctx, `SELECT count(*) FROM api_keys WHERE `+ownedBy+` AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)`,
		owner(a), at).Scan(&n)
	return n, translate(err)
}

func (s keyStore) Revoke(ctx context.Context, a account.ID, k auth.KeyID, at time.Time) (err error) {
	defer errs.Wrap(&err, "revoke API key %s", k)
	return s.update(ctx, `UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $3) WHERE `+ownedBy+` AND id = $2`, owner(a), k.UUID(), at)
}

func (s keyStore) Touch(ctx context.Context, a account.ID, k auth.KeyID, at time.Time) (err error) {
	defer errs.Wrap(&err, "touch API key %s", k)
	return s.update(ctx, `UPDATE api_keys SET last_used_at = $3 WHERE `+ownedBy+` AND id = $2`, owner(a), k.UUID(), at)
}

func (s keyStore) update(ctx context.Context, query string, args ...any) error {
	tag, err := s.pool.Exec(ctx, query, args...)
	if err != nil {
		return translate(err)
	}
	if tag.RowsAffected() == 0 {
		return auth.ErrKeyNotFound
	}
	return nil
}

func (s keyStore) Rotate(ctx context.Context, old auth.KeyID, now, oldExpires time.Time, successor auth.APIKey, hash auth.KeyHash) (err error) {
	defer errs.Wrap(&err, "rotate API key %s", old)
	return translate(pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `UPDATE api_keys SET expires_at = $3
			WHERE `+ownedBy+` AND id = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $4)`,
			owner(successor.Account), old.UUID(), oldExpires, now)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return auth.ErrKeyNotFound
		}
		return createKey(ctx, tx, successor, hash)
	}))
}
