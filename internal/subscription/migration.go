package subscription

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/plan"
)

// MigrationID names a migration.
type MigrationID = id.ID[Migration]

// Migration moves every account on older versions of a plan to one version, account by account. It may
// be interrupted anywhere: what it has done stands in a record for each account.
type Migration struct {
	ID          MigrationID
	Plan        plan.Code
	To          int
	When        When
	Status      MigrationStatus
	Actor       string
	Reason      string
	CreatedAt   time.Time
	CompletedAt time.Time       // zero unless it is completed
	CanceledAt  time.Time       // zero unless it was canceled
	Outcomes    map[Outcome]int // accounts dealt with so far
}

// IDPrefix makes the identifiers of migrations read "pmg_…".
func (Migration) IDPrefix() string { return "pmg" }

// When says when an account that is migrated is billed by the new version.
type When string

// The times of a migration.
const (
	AtPeriodEnd When = "period_end" // from the account's next period on
	AtOnce      When = "now"        // for all of its running period
)

// MigrationStatus says whether there may be accounts left.
type MigrationStatus string

// The statuses of a migration.
const (
	MigrationRunning   MigrationStatus = "running"
	MigrationCompleted MigrationStatus = "completed"
	MigrationCanceled  MigrationStatus = "canceled" // what it has done stays done
)

// Outcome is what a migration did about one account.
type Outcome string

// The outcomes. All but the first leave the account where it is.
const (
	Migrated     Outcome = "migrated"
	KeptContract Outcome = "contract"     // it has a contract on its version
	KeptCurrency Outcome = "currency"     // the new version has no prices in its currency
	KeptLeaving  Outcome = "plan_changed" // it has left the plan since
)

// Moved is the record of one account.
type Moved struct {
	Account   account.ID
	Migration MigrationID
	From      int
	Outcome   Outcome
	At        time.Time
}

// Errors of migrations.
var (
	ErrMigrationNotFound = errs.New(errs.NotFound, "migration_not_found", "The plan has no such migration.")
	ErrMigrationRunning  = errs.New(errs.Conflict, "migration_running", "A migration of this plan is running; wait until it is completed, or cancel it.")
	ErrMigrationOver     = errs.New(errs.Conflict, "migration_over", "The migration is over. What it has done stays; another one can move the accounts again.")
)

// Migrations keeps migrations of plans.
type Migrations interface {
	// Create writes a migration. It returns ErrMigrationRunning while another one of the plan runs.
	Create(ctx context.Context, m Migration) error
	// Get returns a migration with its outcomes so far, or ErrMigrationNotFound.
	Get(ctx context.Context, id MigrationID) (Migration, error)
	// List returns the migrations of a plan with their outcomes, the newest first.
	List(ctx context.Context, code plan.Code) ([]Migration, error)
	// Hold keeps a running migration from being canceled or completed until the transaction ends; any number
	// may hold it. It returns ErrMigrationOver where it does not run.
	Hold(ctx context.Context, id MigrationID) error
	// Running returns the migrations that run, the oldest first.
	Running(ctx context.Context) ([]Migration, error)
	// Left returns, in order and after the given one, up to limit accounts on other versions of the plan
	// that the migration has not dealt with.
	Left(ctx context.Context, m Migration, after account.ID, limit int) ([]account.ID, error)
	// Record notes what was done about an account. The first record of an account stands.
	Record(ctx context.Context, r Moved) error
	// Cancel ends a running migration, after those who hold it. It returns ErrMigrationOver where it does not run.
	Cancel(ctx context.Context, id MigrationID, at time.Time) error
	// Complete says that nobody is left. It does nothing where the migration does not run.
	Complete(ctx context.Context, id MigrationID, at time.Time) error
}
