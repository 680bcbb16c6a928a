package postgres

import (
	"context"
	"strings"
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
	held, err := s.List(ctx, a.Account)
	if err != nil {
		return err
	}
	for _, h := range held {
		if h.Kind == a.Kind && h.Meter == a.Meter && h.Threshold.Cmp(a.Threshold) == 0 {
			return alert.ErrExists.With("usage_alert", h.ID)
		}
	}
	if len(held) >= alert.MaxPerAccount {
		return alert.ErrTooMany
	}
	err = s.db.WithContext(ctx).Create(&alertRow{a.Account, a.ID, string(a.Kind), textOrNil(a.Meter), a.Threshold, a.CreatedAt, nil}).Error
	if unique(err) {
		return alert.ErrExists.Because(err)
	}
	return translate(err)
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

// watchedAccounts selects the accounts that have anything to look at, from those that are asked for.
func watchedAccounts(asked string) string {
	var arms []string
	for _, of := range []string{
		"entitlements WHERE (spend_limit IS NOT NULL OR limits @? '$.*.mode ? (@ == \"soft\")')",
		"usage_alerts WHERE removed_at IS NULL",
		"auto_top_ups WHERE enabled",
	} {
		arms = append(arms, "(SELECT DISTINCT account_id FROM "+of+" AND "+asked+")")
	}
	return strings.Join(arms, "\nUNION ")
}

var (
	sqlWatched    = watchedAccounts("account_id = ANY ($1::uuid[])")
	sqlAllWatched = watchedAccounts("account_id > $1 ORDER BY account_id LIMIT $2") + "\nORDER BY account_id LIMIT $2"
)

func (s alertStore) Watched(ctx context.Context, accounts []account.ID) (_ []account.ID, err error) {
	defer errs.Wrap(&err, "watched accounts")
	ids := make([]uuid.UUID, len(accounts))
	for i, a := range accounts {
		ids[i] = mustOwner(a)
	}
	return accountsOf(ctx, s.db, sqlWatched, ids)
}

func (s alertStore) AllWatched(ctx context.Context, after account.ID, limit int) (_ []account.ID, err error) {
	defer errs.Wrap(&err, "all watched accounts")
	return accountsOf(ctx, s.db, sqlAllWatched, after.UUID(), limit)
}
