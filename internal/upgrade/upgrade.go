// Package upgrade is the one resumable operation by which a customer moves to a better plan.
//
// It owns: the upgrade's record and its life. It does not own: what it does (billing), the card (payment)
// or the agreement that it changes (subscription).
//
// Always true: an account has one pending upgrade; the plan changes in the transaction that makes the
// upgrade succeeded, and in no other.
package upgrade

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/plan"
)

// ID names an upgrade.
type ID = id.ID[Upgrade]

// Lifetime is how long a customer may take over an upgrade (the 3-D Secure step) before it is canceled.
const Lifetime = 24 * time.Hour

// Upgrade moves an account to a plan, with a card that the provider has validated.
type Upgrade struct {
	ID         ID
	Account    account.ID
	Plan       plan.Code
	Version    int
	Status     payment.Status // processing, requires_action, succeeded, failed or canceled
	Method     payment.MethodID
	Profile    *account.Profile // becomes the billing profile on success
	NextAction *payment.NextAction
	Failure    *payment.Failure
	CreatedAt  time.Time
	UpdatedAt  time.Time
	ExpiresAt  time.Time
	Revision   int64
}

// IDPrefix makes upgrade identifiers read "upg_…".
func (Upgrade) IDPrefix() string { return "upg" }

// Become changes the status of a pending upgrade by the same rules as a payment's.
func (u *Upgrade) Become(s payment.Status, now time.Time) error {
	if !u.Status.Pending() || !u.Status.CanBecome(s) || s == payment.Parked {
		return ErrSettled.Details("The upgrade is %s and cannot become %s.", u.Status, s)
	}
	u.Status, u.UpdatedAt = s, now
	if !s.Pending() {
		u.NextAction = nil
	}
	return nil
}

// Errors of the concept.
var (
	ErrNotFound = errs.New(errs.NotFound, "upgrade_not_found", "There is no such upgrade.")
	ErrPending  = errs.New(errs.Conflict, "upgrade_pending", "An upgrade of this account is still under way. Resume or cancel it.")
	ErrSettled  = errs.New(errs.Conflict, "upgrade_settled", "The upgrade is settled.")
)

// Store keeps upgrades.
type Store interface {
	// Create writes an upgrade, or returns ErrPending where another one is pending.
	Create(ctx context.Context, u Upgrade) error
	// Get returns the upgrade or ErrNotFound.
	Get(ctx context.Context, a account.ID, id ID) (Upgrade, error)
	// List pages through the account's upgrades, newest first.
	List(ctx context.Context, a account.ID, r page.Request) (page.Page[Upgrade], error)
	// Pending returns the account's pending upgrade or ErrNotFound.
	Pending(ctx context.Context, a account.ID) (Upgrade, error)
	// OfMethod returns the pending upgrade that waits for a card, or ErrNotFound.
	OfMethod(ctx context.Context, a account.ID, m payment.MethodID) (Upgrade, error)
	// GivenUp reports whether a card was brought for an upgrade that has been canceled since.
	GivenUp(ctx context.Context, a account.ID, m payment.MethodID) (bool, error)
	// Save writes the upgrade and raises its revision. It returns account.ErrStale if the revision is another.
	Save(ctx context.Context, u *Upgrade) error
	// Expired returns up to limit pending upgrades whose time is over in real time, which is
	// the provider's, the first to expire first, from behind the given one on; the zero one is before them all.
	Expired(ctx context.Context, now time.Time, after Upgrade, limit int) ([]Upgrade, error)
}
