// Package alert tells once per period that a threshold was passed.
//
// It owns: an account's thresholds on usage, spend and balance, and that each fires once per period.
// It does not own: measuring (metering, ledger) or telling (outbox).
package alert

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/pkg/money"
)

// ID names an alert.
type ID = id.ID[Alert]

// Kind says what is watched.
type Kind string

// The kinds of alert.
const (
	Usage      Kind = "usage"       // a meter's quantity in the period has reached the threshold
	Spend      Kind = "spend"       // what has accrued in the period has reached it (minor units)
	LowBalance Kind = "low_balance" // what is available has fallen to it or below (minor units)
)

// Alert is a threshold.
type Alert struct {
	ID        ID
	Account   account.ID
	Kind      Kind
	Meter     string        // with Usage
	Threshold money.Decimal // units of the meter, or minor units of money
	CreatedAt time.Time
}

// IDPrefix makes alerts read "alr_…".
func (Alert) IDPrefix() string { return "alr" }

// Reached reports whether value passes the threshold: at it counts.
func (a Alert) Reached(value money.Decimal) bool {
	if a.Kind == LowBalance {
		return value.Cmp(a.Threshold) <= 0
	}
	return value.Cmp(a.Threshold) >= 0
}

// Money returns a value of an alert on money, in minor units, as an amount.
func Money(value money.Decimal, currency money.Currency) money.Amount {
	return money.New(value.Rat().Num().Int64(), currency) // it was made of an amount
}

// Firing is the record that an alert was told in a period.
type Firing struct {
	Alert       ID
	PeriodStart time.Time
	Threshold   money.Decimal
	Value       money.Decimal
	FiredAt     time.Time
}

// MaxPerAccount bounds the alerts of an account.
const MaxPerAccount = 50

// Errors of the concept.
var (
	ErrNotFound = errs.New(errs.NotFound, "usage_alert_not_found", "There is no such alert.")
	ErrExists   = errs.New(errs.Conflict, "usage_alert_exists", "The account has this alert already.")
	ErrTooMany  = errs.New(errs.Conflict, "too_many_usage_alerts", "An account can have %d alerts. Remove one first.", MaxPerAccount)
)

// Store keeps alerts.
type Store interface {
	// Create writes an alert, or returns ErrTooMany, or ErrExists where there is the same already, which would tell of one
	// threshold twice. It holds the account until the transaction ends.
	Create(ctx context.Context, a Alert) error
	List(ctx context.Context, a account.ID) ([]Alert, error)
	Remove(ctx context.Context, a account.ID, id ID, at time.Time) error // or ErrNotFound
	// Fire records a firing and reports whether this call was the first: it alone may tell. It
	// returns ErrNotFound if the account has no such alert.
	Fire(ctx context.Context, a account.ID, f Firing) (bool, error)
	// Fired returns the firings of a period.
	Fired(ctx context.Context, a account.ID, periodStart time.Time) ([]Firing, error)
	// Watched returns those of the accounts that have anything to be told of or done when they use more:
	// an alert, a spend limit, a soft limit, an automatic top-up.
	Watched(ctx context.Context, accounts []account.ID) ([]account.ID, error)
	// AllWatched returns up to limit of all such accounts, ascending, from the first after the given one on.
	AllWatched(ctx context.Context, after account.ID, limit int) ([]account.ID, error)
}
