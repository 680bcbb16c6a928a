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
	CompletedAt time.Time       // zero while it runs
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
	ErrMigrationRunning  = errs.New(errs.Conflict, "migration_running", "A migration of this plan is running; wait until it is completed.")
)

// Migrations keeps migrations of plans.
type Migrations interface {
	// Create writes a migration. It returns ErrMigrationRunning while another one of the plan runs.
	Create(ctx context.Context, m Migration) error
	// Get returns a migration with its outcomes so far, or ErrMigrationNotFound.
	Get(ctx context.Context, id MigrationID) (Migration, error)
	// List returns the migrations of a plan with their outcomes, the newest first.
	List(ctx context.Context, code plan.Code) ([]Migration, error)
	// Running returns the migrations that are not completed, the oldest first.
	Running(ctx context.Context) ([]Migration, error)
	// Left returns, in order and after the given one, up to limit accounts on other versions of the plan
	// that the migration has not dealt with.
	Left(ctx context.Context, m Migration, after account.ID, limit int) ([]account.ID, error)
	// Record notes what was done about an account. The first record of an account stands.
	Record(ctx context.Context, r Moved) error
	// Complete says that nobody is left. Completing twice keeps the first time.
	Complete(ctx context.Context, id MigrationID, at time.Time) error
}
