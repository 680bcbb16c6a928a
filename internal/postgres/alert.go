package postgres

import (
	"context"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm/clause"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/pkg/money"
)

type alertRow struct {
	AccountID account.ID `gorm:"primaryKey"`
	ID        alert.ID   `gorm:"primaryKey"`
	Kind      string
	Meter     *string
	Threshold money.Decimal
	CreatedAt time.Time `gorm:"autoCreateTime:false"`
	RemovedAt *time.Time
}

func (alertRow) TableName() string { return "usage_alerts" }

func (r alertRow) alert() alert.Alert {
	return alert.Alert{
		ID: r.ID, Account: r.AccountID, Kind: alert.Kind(r.Kind), Meter: textOf(r.Meter), Threshold: r.Threshold, CreatedAt: r.CreatedAt.UTC(),
	}
}

type firingRow struct {
	AccountID   account.ID    `gorm:"primaryKey"`
	AlertID     alert.ID      `gorm:"primaryKey"`
	PeriodStart time.Time     `gorm:"primaryKey"`
	Threshold   money.Decimal `gorm:"primaryKey"`
	FiredAt     time.Time
	Value       money.Decimal
}

func (firingRow) TableName() string { return "usage_alert_firings" }

func (r firingRow) firing() alert.Firing {
	return alert.Firing{Alert: r.AlertID, PeriodStart: r.PeriodStart.UTC(), Threshold: r.Threshold, Value: r.Value, FiredAt: r.FiredAt.UTC()}
}

type alertStore stores

var _ alert.Store = alertStore{}

// Create holds the account, so that two at once cannot both take its last place.
func (s alertStore) Create(ctx context.Context, a alert.Alert) (err error) {
	defer errs.Wrap(&err, "create alert %s", a.ID)
	if _, err := accountStore(s).Lock(ctx, a.Account); err != nil {
		return err
	}
	var n int64
	if err := stores(s).of(ctx, a.Account).Model(&alertRow{}).Where("removed_at IS NULL").Count(&n).Error; err != nil {
		return translate(err)
	}
	if n >= alert.MaxPerAccount {
		return alert.ErrTooMany
	}
	return translate(s.db.WithContext(ctx).Create(&alertRow{a.Account, a.ID, string(a.Kind), textOrNil(a.Meter), a.Threshold, a.CreatedAt, nil}).Error)
}

func (s alertStore) List(ctx context.Context, a account.ID) (_ []alert.Alert, err error) {
	defer errs.Wrap(&err, "alerts of %s", a)
	return find(stores(s).of(ctx, a).Where("removed_at IS NULL").Order("id"), alertRow.alert)
}

func (s alertStore) Remove(ctx context.Context, a account.ID, id alert.ID, at time.Time) (err error) {
	defer errs.Wrap(&err, "remove alert %s of %s", id, a)
	return changed(stores(s).of(ctx, a).Model(&alertRow{}).Where("id = ? AND removed_at IS NULL", id).Update("removed_at", at), alert.ErrNotFound)
}

func (s alertStore) Fire(ctx context.Context, a account.ID, f alert.Firing) (_ bool, err error) {
	defer errs.Wrap(&err, "fire alert %s of %s", f.Alert, a)
	res := s.db.WithContext(ctx).Clauses(clause.OnConflict{DoNothing: true}).Create(&firingRow{a, f.Alert, f.PeriodStart, f.Threshold, f.FiredAt, f.Value})
	if orphan(res.Error) {
		return false, alert.ErrNotFound
	}
	return res.RowsAffected == 1, translate(res.Error)
}

func (s alertStore) Fired(ctx context.Context, a account.ID, periodStart time.Time) (_ []alert.Firing, err error) {
	defer errs.Wrap(&err, "alerts of %s fired in the period from %s", a, periodStart)
	return find(stores(s).of(ctx, a).Where("period_start = ?", periodStart).Order("fired_at, alert_id, threshold"), firingRow.firing)
}

func (s alertStore) Watched(ctx context.Context, accounts []account.ID) (watched []account.ID, err error) {
	defer errs.Wrap(&err, "watched accounts")
	ids := make([]uuid.UUID, len(accounts))
	for i, a := range accounts {
		ids[i] = mustOwner(a)
	}
	rows, err := s.db.Statement.ConnPool.QueryContext(ctx, `
SELECT account_id FROM entitlements WHERE account_id = ANY ($1::uuid[]) AND (spend_limit IS NOT NULL OR limits @? '$.*.mode ? (@ == "soft")')
UNION SELECT account_id FROM usage_alerts WHERE account_id = ANY ($1::uuid[]) AND removed_at IS NULL
UNION SELECT account_id FROM auto_top_ups WHERE account_id = ANY ($1::uuid[]) AND enabled`, ids)
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var a account.ID
		if err := rows.Scan(&a); err != nil {
			return nil, err
		}
		watched = append(watched, a)
	}
	return watched, translate(rows.Err())
}
