package postgres

import (
	"bytes"
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/idempotency"
)

type keyRow struct {
	AccountID   uuid.UUID `gorm:"primaryKey"` // nil: the operator's own
	Scope       string    `gorm:"primaryKey"`
	Key         string    `gorm:"primaryKey"`
	Fingerprint []byte
	OperationID *uuid.UUID
	Status      *int
	Body        []byte
	LockedUntil time.Time
	CreatedAt   time.Time `gorm:"autoCreateTime:false"`
	ExpiresAt   time.Time
}

func (keyRow) TableName() string { return "idempotency_keys" }

var keys = tableOf[keyRow]()

type idempotencyStore stores

var _ idempotency.Store = idempotencyStore{}

func (s idempotencyStore) of(ctx context.Context, a account.ID, r idempotency.Request) *gorm.DB {
	return s.db.WithContext(ctx).Model(&keyRow{}).Where("account_id = ? AND scope = ? AND key = ?", a.UUID(), r.Scope, r.Key)
}

// clock reads the database's time. Leases go by it, since the clocks of replicas differ. It is read
// first and given as a parameter: a cluster of shards takes no volatile function in a write.
func (s idempotencyStore) clock(ctx context.Context) (now time.Time, err error) {
	err = s.send(ctx, stmt{sql: "SELECT clock_timestamp()", row: func(r pgx.Rows) error { return r.Scan(&now) }})
	return now.UTC(), err
}

// Claim inserts first: of two requests at the same moment the second waits here for the first one's
// commit, and then finds its row.
func (s idempotencyStore) Claim(ctx context.Context, a account.ID, r idempotency.Request, operation uuid.UUID) (_ idempotency.Claimed, err error) {
	defer errs.Wrap(&err, "claim idempotency key of %s", a)
	now, err := s.clock(ctx)
	if err != nil {
		return idempotency.Claimed{}, err
	}
	fresh := false
	err = s.send(ctx, keys.insert(keyRow{
		AccountID: a.UUID(), Scope: r.Scope, Key: r.Key, Fingerprint: r.Fingerprint[:], OperationID: operationOrNil(operation),
		LockedUntil: now.Add(idempotency.Lease), CreatedAt: now, ExpiresAt: now.Add(idempotency.Kept),
	}).onConflict("DO NOTHING").inserted(&fresh))
	if err != nil || fresh {
		return idempotency.Claimed{Outcome: idempotency.Fresh}, err
	}
	// The row may be gone again (released, expired): then whoever released it was quicker than we are.
	row, err := take[keyRow](s.of(ctx, a, r).Clauses(clause.Locking{Strength: "UPDATE"}), idempotency.ErrInProgress)
	if err != nil {
		return idempotency.Claimed{}, err
	}
	if now, err = s.clock(ctx); err != nil { // we may have waited long for the row
		return idempotency.Claimed{}, err
	}
	switch {
	case !bytes.Equal(row.Fingerprint, r.Fingerprint[:]):
		return idempotency.Claimed{}, idempotency.ErrReused
	case row.Status != nil:
		return idempotency.Claimed{Outcome: idempotency.Replay, Answer: idempotency.Answer{Status: *row.Status, Body: row.Body}}, nil
	case now.Before(row.LockedUntil):
		return idempotency.Claimed{}, idempotency.ErrInProgress
	}
	claimed := idempotency.Claimed{Outcome: idempotency.Fresh}
	if row.OperationID != nil {
		claimed = idempotency.Claimed{Outcome: idempotency.Resume, Operation: *row.OperationID}
	} else {
		row.OperationID = operationOrNil(operation)
	}
	err = s.of(ctx, a, r).Updates(map[string]any{"operation_id": row.OperationID, "locked_until": now.Add(idempotency.Lease)}).Error
	return claimed, translate(err)
}

func operationOrNil(u uuid.UUID) *uuid.UUID {
	if u == uuid.Nil {
		return nil
	}
	return &u
}

func (s idempotencyStore) Complete(ctx context.Context, a account.ID, r idempotency.Request, ans idempotency.Answer) (err error) {
	defer errs.Wrap(&err, "complete idempotency key of %s", a)
	if ans.Body == nil {
		ans.Body = []byte{}
	}
	// The first answer stands: whoever repeats the work must not change what was said.
	return s.later(ctx, stmt{
		sql: `UPDATE idempotency_keys SET status = $1, body = $2
			WHERE account_id = $3 AND scope = $4 AND key = $5 AND fingerprint = $6 AND status IS NULL`,
		args: []any{ans.Status, ans.Body, param(a.UUID()), r.Scope, r.Key, r.Fingerprint[:]},
	})
}

func (s idempotencyStore) Release(ctx context.Context, a account.ID, r idempotency.Request) (err error) {
	defer errs.Wrap(&err, "release idempotency key of %s", a)
	return translate(s.of(ctx, a, r).Where("fingerprint = ? AND status IS NULL", r.Fingerprint[:]).Delete(&keyRow{}).Error)
}

// Expire reads over all accounts and deletes account by account.
func (s idempotencyStore) Expire(ctx context.Context, now time.Time, limit int) (n int, err error) {
	defer errs.Wrap(&err, "expire idempotency keys")
	var rows []keyRow
	err = stores(s).all(ctx).Select("account_id", "scope", "key").Where("expires_at <= ?", now).Order("expires_at").Limit(limit).Find(&rows).Error
	if err != nil {
		return 0, translate(err)
	}
	byAccount := map[uuid.UUID][][]any{}
	for _, r := range rows {
		byAccount[r.AccountID] = append(byAccount[r.AccountID], []any{r.Scope, r.Key})
	}
	for a, keys := range byAccount {
		res := s.db.WithContext(ctx).Where("account_id = ? AND (scope, key) IN ? AND expires_at <= ?", a, keys, now).Delete(&keyRow{})
		if res.Error != nil {
			return n, translate(res.Error)
		}
		n += int(res.RowsAffected)
	}
	return n, nil
}
