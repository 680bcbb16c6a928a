package postgres

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/job"
)

type intentRow struct {
	AccountID account.ID `gorm:"primaryKey"`
	ID        job.ID     `gorm:"primaryKey"`
	Kind      string
	Args      []byte `gorm:"type:jsonb"`
	DueAt     time.Time
	RelayedAt *time.Time
}

func (intentRow) TableName() string { return "job_intents" }

var intents = tableOf[intentRow]()

func (r intentRow) intent() job.Intent {
	return job.Intent{ID: r.ID, Account: r.AccountID, Kind: job.Kind(r.Kind), Args: r.Args, DueAt: r.DueAt.UTC()}
}

type jobQueue stores

var _ job.Queue = jobQueue{}

func (s jobQueue) Enqueue(ctx context.Context, a account.ID, kind job.Kind, args any, due time.Time) (err error) {
	defer errs.Wrap(&err, "enqueue %s for %s", kind, a)
	body, err := object(args)
	if err != nil {
		return err
	}
	return s.later(ctx, intents.insert(intentRow{AccountID: a, ID: id.New[job.Intent](), Kind: string(kind), Args: body, DueAt: due}))
}

func (s jobQueue) Due(ctx context.Context, now time.Time, limit int) (_ []job.Intent, err error) {
	defer errs.Wrap(&err, "due jobs")
	// Earlier versions kept what they had handed on, and marked it so.
	return find(stores(s).all(ctx).Where("relayed_at IS NULL AND due_at <= ?", now).Order("due_at, account_id, id").Limit(limit), intentRow.intent)
}

func (s jobQueue) Relayed(ctx context.Context, in job.Intent) (err error) {
	defer errs.Wrap(&err, "relay job %s", in.ID)
	return translate(stores(s).of(ctx, in.Account).Where("id = ?", in.ID).Delete(&intentRow{}).Error)
}

func (s jobQueue) LastSweep(ctx context.Context) (began time.Time, err error) {
	defer errs.Wrap(&err, "last sweep")
	err = translate(stores(s).all(ctx).Raw("SELECT began_at FROM sweeps").Scan(&began).Error) // no row leaves it as it is
	return began.UTC(), err
}

func (s jobQueue) Sweeping(ctx context.Context, at time.Time) (err error) {
	defer errs.Wrap(&err, "write a sweep down")
	return translate(stores(s).all(ctx).Exec("INSERT INTO sweeps (began_at) VALUES (?) ON CONFLICT (one) DO UPDATE SET began_at = greatest(sweeps.began_at, excluded.began_at)", at).Error)
}
