package postgres

import (
	"context"
	"time"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
)

type planMigrationRow struct {
	ID          subscription.MigrationID `gorm:"primaryKey"`
	PlanCode    string
	ToVersion   int
	TakesEffect string
	Status      string
	Actor       string
	Reason      string
	CreatedAt   time.Time `gorm:"autoCreateTime:false"`
	CompletedAt *time.Time
	CanceledAt  *time.Time
}

func (planMigrationRow) TableName() string { return "plan_migrations" }

func (r planMigrationRow) migration() subscription.Migration {
	return subscription.Migration{
		ID: r.ID, Plan: plan.Code(r.PlanCode), To: r.ToVersion, When: subscription.When(r.TakesEffect),
		Status: subscription.MigrationStatus(r.Status), Actor: r.Actor, Reason: r.Reason,
		CreatedAt: r.CreatedAt.UTC(), CompletedAt: timeOf(r.CompletedAt), CanceledAt: timeOf(r.CanceledAt), Outcomes: map[subscription.Outcome]int{},
	}
}

type movedRow struct {
	AccountID   account.ID               `gorm:"primaryKey"`
	MigrationID subscription.MigrationID `gorm:"primaryKey"`
	FromVersion int
	Outcome     string
	At          time.Time
}

func (movedRow) TableName() string { return "plan_migration_accounts" }

type migrationStore stores

var _ subscription.Migrations = migrationStore{}

func (s migrationStore) Create(ctx context.Context, m subscription.Migration) (err error) {
	defer errs.Wrap(&err, "create migration of %s", m.Plan)
	return taken(s.db.WithContext(ctx).Create(&planMigrationRow{
		ID: m.ID, PlanCode: string(m.Plan), ToVersion: m.To, TakesEffect: string(m.When), Status: string(m.Status),
		Actor: m.Actor, Reason: m.Reason, CreatedAt: m.CreatedAt,
	}).Error, subscription.ErrMigrationRunning)
}

func (s migrationStore) Get(ctx context.Context, id subscription.MigrationID) (_ subscription.Migration, err error) {
	defer errs.Wrap(&err, "migration %s", id)
	row, err := take[planMigrationRow](stores(s).all(ctx).Where("id = ?", id), subscription.ErrMigrationNotFound)
	if err != nil {
		return subscription.Migration{}, err
	}
	m := row.migration()
	return m, s.outcomes(ctx, &m)
}

func (s migrationStore) outcomes(ctx context.Context, m *subscription.Migration) error {
	var rows []struct {
		Outcome  subscription.Outcome
		Accounts int
	}
	err := stores(s).all(ctx).Table("plan_migration_accounts").Select("outcome, count(*) AS accounts").
		Where("migration_id = ?", m.ID).Group("outcome").Find(&rows).Error
	for _, r := range rows {
		m.Outcomes[r.Outcome] = r.Accounts
	}
	return translate(err)
}

func (s migrationStore) List(ctx context.Context, code plan.Code) (_ []subscription.Migration, err error) {
	defer errs.Wrap(&err, "migrations of %s", code)
	out, err := find(stores(s).all(ctx).Where("plan_code = ?", string(code)).Order("id DESC"), planMigrationRow.migration)
	for i := range out {
		if err == nil {
			err = s.outcomes(ctx, &out[i])
		}
	}
	return out, err
}

func (s migrationStore) Hold(ctx context.Context, id subscription.MigrationID) (err error) {
	defer errs.Wrap(&err, "hold migration %s", id)
	_, err = take[planMigrationRow](s.running(ctx, id).Clauses(clause.Locking{Strength: "SHARE"}), subscription.ErrMigrationOver)
	return err
}

func (s migrationStore) running(ctx context.Context, id subscription.MigrationID) *gorm.DB {
	return stores(s).all(ctx).Where("id = ? AND status = ?", id, string(subscription.MigrationRunning))
}

func (s migrationStore) Cancel(ctx context.Context, id subscription.MigrationID, at time.Time) (err error) {
	defer errs.Wrap(&err, "cancel migration %s", id)
	res := s.running(ctx, id).Model(&planMigrationRow{}).
		Updates(map[string]any{"status": string(subscription.MigrationCanceled), "canceled_at": at})
	if res.Error == nil && res.RowsAffected == 0 {
		return subscription.ErrMigrationOver
	}
	return translate(res.Error)
}

func (s migrationStore) Running(ctx context.Context) (_ []subscription.Migration, err error) {
	defer errs.Wrap(&err, "running migrations")
	return find(stores(s).all(ctx).Where("status = ?", string(subscription.MigrationRunning)).Order("id"), planMigrationRow.migration)
}

func (s migrationStore) Left(ctx context.Context, m subscription.Migration, after account.ID, limit int) (_ []account.ID, err error) {
	defer errs.Wrap(&err, "accounts left to migrate")
	type row struct{ AccountID account.ID }
	q := stores(s).all(ctx).Table("subscriptions s").Select("s.account_id").
		Where("s.status = ? AND s.plan_code = ? AND s.plan_version <> ? AND s.account_id > ?",
			string(subscription.Active), string(m.Plan), m.To, after.UUID()).
		Where("NOT EXISTS (SELECT 1 FROM plan_migration_accounts d WHERE d.account_id = s.account_id AND d.migration_id = ?)", m.ID).
		Order("s.account_id").Limit(limit)
	return find(q, func(r row) account.ID { return r.AccountID })
}

func (s migrationStore) Record(ctx context.Context, r subscription.Moved) (err error) {
	defer errs.Wrap(&err, "record migration of %s", r.Account)
	return translate(s.db.WithContext(ctx).Clauses(clause.OnConflict{DoNothing: true}).Create(&movedRow{
		AccountID: r.Account, MigrationID: r.Migration, FromVersion: r.From, Outcome: string(r.Outcome), At: r.At,
	}).Error)
}

func (s migrationStore) Complete(ctx context.Context, id subscription.MigrationID, at time.Time) (err error) {
	defer errs.Wrap(&err, "complete migration %s", id)
	return translate(s.running(ctx, id).Model(&planMigrationRow{}).
		Updates(map[string]any{"status": string(subscription.MigrationCompleted), "completed_at": at}).Error)
}
