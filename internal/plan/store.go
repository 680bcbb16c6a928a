package plan

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/errs"
)

// Errors of the concept.
var (
	ErrNotFound         = errs.New(errs.NotFound, "plan_not_found", "There is no such plan.")
	ErrVersionNotFound  = errs.New(errs.NotFound, "plan_version_not_found", "The plan has no such version.")
	ErrMeterChanged     = errs.New(errs.Invalid, "meter_changed", "What a meter measures cannot change: recorded usage means what it meant. Add another meter.")
	ErrImmutable        = errs.New(errs.Invalid, "version_immutable", "A published version never changes: accounts are billed by it. Publish a new version; each entry that differs is named.")
	ErrVersionTaken     = errs.New(errs.Conflict, "version_taken", "Another version was published at the same time. Look at what is on sale and try again.")
	ErrContractMismatch = errs.New(errs.Conflict, "contract_mismatch", "The contract is on another plan or version.")
)

// Store keeps the catalogue. It is a reference table: small, rarely written, the same for every
// account. Reads are by value; what is returned may be kept and never changes underneath. Writes are made
// in the caller's transaction, which holds the plan's row until it ends.
type Store interface {
	// Meters returns every meter, by code.
	Meters(ctx context.Context) ([]Meter, error)

	// PutMeters adds meters, and updates the names, dimensions, caps and rounding of known ones. Unless all are the
	// SameMeasure as before it returns ErrMeterChanged, and writes nothing.
	PutMeters(ctx context.Context, meters []Meter) error

	// Plans returns every plan in catalogue order, the archived ones included.
	Plans(ctx context.Context) ([]Plan, error)

	// Plan returns one plan, or ErrNotFound.
	Plan(ctx context.Context, code Code) (Plan, error)

	// Current returns the version that is sold now: the latest that is not archived. It returns
	// ErrNotFound where there is no such plan and ErrVersionNotFound where nothing of it is on sale.
	Current(ctx context.Context, code Code) (Version, error)

	// Version returns one version, archived or not, or ErrVersionNotFound.
	Version(ctx context.Context, code Code, number int) (Version, error)

	// Versions returns every version of a plan, the latest first, or ErrNotFound.
	Versions(ctx context.Context, code Code) ([]Version, error)

	// Publish writes the plan's words and, if the terms differ from those of the latest version, a
	// new version with the next number. It returns the version that is current now, and whether it
	// is new. The caller has validated p and v.
	Publish(ctx context.Context, p Plan, v Version, at time.Time) (Version, bool, error)

	// Archive takes a version off sale; accounts on it stay. It returns ErrVersionNotFound. Archiving
	// twice is no error and keeps the first time.
	Archive(ctx context.Context, code Code, number int, at time.Time) error
}
