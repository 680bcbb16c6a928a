package postgres

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
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

var (
	keys = tableOf[keyRow]()
	// The first answer stands: whoever repeats the work must not change what was said.
	completeKey = keys.update([]string{"account_id", "scope", "key", "fingerprint"}, "status", "body").where("status IS NULL")
	lockedKey   = keys.read("FOR UPDATE", "account_id", "scope", "key")
	// freeKey passes over a row that somebody else holds: who takes it for none collides with it at the commit.
	freeKey = keys.read("FOR UPDATE SKIP LOCKED", "account_id", "scope", "key")
)

// A keyName says which key it is.
type keyName struct {
	account    account.ID
	scope, key string
}

func (r keyRow) name() keyName {
	return keyName{id.FromUUID[account.Account](r.AccountID), r.Scope, r.Key}
}

type idempotencyStore stores

var _ idempotency.Store = idempotencyStore{}

func (s idempotencyStore) of(ctx context.Context, a account.ID, r idempotency.Request) *gorm.DB {
	return s.db.WithContext(ctx).Model(&keyRow{}).Where("account_id = ? AND scope = ? AND key = ?", a.UUID(), r.Scope, r.Key)
}

// errRaced says that another transaction has just claimed the key. Whoever tries again finds its row.
var errRaced = errors.New("idempotency key claimed at the same moment")

// clockTime reads the database's time. Leases go by it, since the clocks of replicas differ. It is read first
// and given as a parameter: a cluster of shards takes no volatile function in a write.
func clockTime(now *time.Time) stmt {
	return stmt{sql: "SELECT clock_timestamp()", take: []func(*value) error{func(v *value) error {
		*now = v.time(0)
		return nil
	}}}
}

// Claim waits for whoever holds the key's row. Two that find no row both write one: the second waits for
// the first one's commit, and is then tried again. Where the account is locked nobody else claims its
// keys; then the row is written at the transaction's end, with its answer if there is one.
func (s idempotencyStore) Claim(ctx context.Context, a account.ID, r idempotency.Request, operation uuid.UUID) (_ idempotency.Claimed, err error) {
	defer errs.Wrap(&err, "claim idempotency key of %s", a)
	var held *heldKey
	var now time.Time
	var row keyRow
	if h := s.held(); h != nil && h.keys[keyName{a, r.Scope, r.Key}] != nil {
		held, now = h.keys[keyName{a, r.Scope, r.Key}], h.now
		row = held.row
	} else if err := s.send(ctx, lockedKey.by(a.UUID(), r.Scope, r.Key).each(func(found keyRow) error {
		row = found
		return nil
	}), clockTime(&now)); err != nil {
		return idempotency.Claimed{}, err
	}
	if row.Key == "" {
		row = keyRow{
			AccountID: a.UUID(), Scope: r.Scope, Key: r.Key, Fingerprint: r.Fingerprint[:], OperationID: operationOrNil(operation),
			LockedUntil: now.Add(idempotency.Lease), CreatedAt: now, ExpiresAt: now.Add(idempotency.Kept),
		}
		if held != nil {
			held.row, held.claimed = row, true
			return idempotency.Claimed{Outcome: idempotency.Fresh}, nil
		}
		return idempotency.Claimed{Outcome: idempotency.Fresh}, s.later(ctx, keys.insert(row).conflict(errRaced))
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
	row.LockedUntil = now.Add(idempotency.Lease)
	if held != nil {
		held.row = row
	}
	err = s.of(ctx, a, r).Updates(map[string]any{"operation_id": row.OperationID, "locked_until": row.LockedUntil}).Error
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
	if h := s.held(); h != nil {
		if k := h.keys[keyName{a, r.Scope, r.Key}]; k != nil && k.row.Status == nil {
			k.row.Status, k.row.Body = &ans.Status, ans.Body
			if k.claimed {
				return nil
			}
		}
	}
	return s.later(ctx, completeKey.of(keyRow{Status: &ans.Status, Body: ans.Body}, a.UUID(), r.Scope, r.Key, r.Fingerprint[:]))
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
