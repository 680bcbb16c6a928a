package postgres

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/upgrade"
)

type upgradeRow struct {
	AccountID       account.ID `gorm:"primaryKey"`
	ID              upgrade.ID `gorm:"primaryKey"`
	PlanCode        string
	PlanVersion     int
	Status          string
	PaymentMethodID payment.MethodID
	BillingProfile  []byte    `gorm:"type:jsonb"`
	NextAction      []byte    `gorm:"type:jsonb"`
	Failure         []byte    `gorm:"type:jsonb"`
	CreatedAt       time.Time `gorm:"autoCreateTime:false"`
	UpdatedAt       time.Time `gorm:"autoUpdateTime:false"`
	ExpiresAt       time.Time
	Version         int64
}

func (upgradeRow) TableName() string { return "upgrades" }

var (
	upgrades           = tableOf[upgradeRow]()
	upgradeByID        = upgrades.read("", "account_id", "id")
	pendingUpgrade     = upgrades.read("AND "+isPending, "account_id")
	pendingUpgradeWith = upgrades.read("AND "+isPending, "account_id", "payment_method_id")
	saveUpgrade        = upgrades.update([]string{"account_id", "id", "version"}, "status", "payment_method_id", "billing_profile", "next_action",
		"failure", "updated_at", "expires_at", "version").mustFind(account.ErrStale)
)

func toUpgradeRow(u upgrade.Upgrade) (row upgradeRow, err error) {
	row = upgradeRow{
		AccountID: u.Account, ID: u.ID, PlanCode: string(u.Plan), PlanVersion: u.Version, Status: string(u.Status), PaymentMethodID: u.Method,
		CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt, ExpiresAt: u.ExpiresAt, Version: u.Revision,
	}
	if row.BillingProfile, err = jsonOrNil(u.Profile); err != nil {
		return row, err
	}
	if row.NextAction, err = jsonOrNil(toStoredAction(u.NextAction)); err != nil {
		return row, err
	}
	row.Failure, err = jsonOrNil(u.Failure)
	return row, err
}

func (r upgradeRow) upgrade() (u upgrade.Upgrade, err error) {
	u = upgrade.Upgrade{
		ID: r.ID, Account: r.AccountID, Plan: plan.Code(r.PlanCode), Version: r.PlanVersion, Status: payment.Status(r.Status), Method: r.PaymentMethodID,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), ExpiresAt: r.ExpiresAt.UTC(), Revision: r.Version,
	}
	if u.Profile, err = jsonOf[account.Profile](r.BillingProfile); err != nil {
		return u, err
	}
	if u.NextAction, err = actionOf(r.NextAction); err != nil {
		return u, err
	}
	u.Failure, err = jsonOf[payment.Failure](r.Failure)
	return u, err
}

type upgradeStore stores

var _ upgrade.Store = upgradeStore{}

func (s upgradeStore) Create(ctx context.Context, u upgrade.Upgrade) (err error) {
	defer errs.Wrap(&err, "create upgrade %s", u.ID)
	row, err := toUpgradeRow(u)
	if err != nil {
		return err
	}
	return s.later(ctx, upgrades.insert(row).conflict(upgrade.ErrPending))
}

func (s upgradeStore) one(ctx context.Context, q query[upgradeRow]) (upgrade.Upgrade, error) {
	row, err := q.one(ctx, s, upgrade.ErrNotFound)
	if err != nil {
		return upgrade.Upgrade{}, err
	}
	return row.upgrade()
}

func (s upgradeStore) Get(ctx context.Context, a account.ID, id upgrade.ID) (_ upgrade.Upgrade, err error) {
	defer errs.Wrap(&err, "get upgrade %s of %s", id, a)
	return s.one(ctx, upgradeByID.of(a, id))
}

func (s upgradeStore) List(ctx context.Context, a account.ID, r page.Request) (_ page.Page[upgrade.Upgrade], err error) {
	defer errs.Wrap(&err, "list upgrades of %s", a)
	list, err := findEach(newest[upgrade.Upgrade](stores(s).of(ctx, a), r), upgradeRow.upgrade)
	return page.Cut(list, r.Limit, func(u upgrade.Upgrade) string { return u.ID.String() }), err
}

func (s upgradeStore) Pending(ctx context.Context, a account.ID) (_ upgrade.Upgrade, err error) {
	defer errs.Wrap(&err, "pending upgrade of %s", a)
	return s.one(ctx, pendingUpgrade.of(a))
}

func (s upgradeStore) OfMethod(ctx context.Context, a account.ID, m payment.MethodID) (_ upgrade.Upgrade, err error) {
	defer errs.Wrap(&err, "pending upgrade of %s with %s", a, m)
	return s.one(ctx, pendingUpgradeWith.of(a, m))
}

func (s upgradeStore) GivenUp(ctx context.Context, a account.ID, m payment.MethodID) (_ bool, err error) {
	defer errs.Wrap(&err, "canceled upgrade of %s with %s", a, m)
	var n int64
	err = stores(s).of(ctx, a).Model(&upgradeRow{}).Where("payment_method_id = ? AND status = 'canceled'", m).Count(&n).Error
	return n > 0, translate(err)
}

func (s upgradeStore) Save(ctx context.Context, u *upgrade.Upgrade) (err error) {
	defer errs.Wrap(&err, "save upgrade %s", u.ID)
	row, err := toUpgradeRow(*u)
	if err != nil {
		return err
	}
	row.Version++
	if err = s.later(ctx, saveUpgrade.of(row, u.Account, u.ID, u.Revision)); err == nil {
		u.Revision = row.Version
	}
	return err
}

func (s upgradeStore) Expired(ctx context.Context, now time.Time, after upgrade.Upgrade, limit int) (_ []upgrade.Upgrade, err error) {
	defer errs.Wrap(&err, "expired upgrades")
	return findEach(stores(s).all(ctx).Where("status IN ? AND expires_at <= ?", pendingStatuses, now).
		Where("(expires_at, account_id) > (?, ?)", after.ExpiresAt, after.Account.UUID()).
		Order("expires_at, account_id").Limit(limit), upgradeRow.upgrade)
}
