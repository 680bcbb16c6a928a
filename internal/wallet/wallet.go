// Package wallet holds promotional credit and the rules of automatic top-up.
//
// It owns: credit grants and the order in which they are spent; the automatic top-up's settings and breaker.
// It does not own: paid-in funds (they are a balance of the ledger) or moving money (payment, billing).
//
// Always true: the remaining credit of all grants is the ledger's promotional balance.
package wallet

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/pkg/money"
)

// GrantID names a grant.
type GrantID = id.ID[Grant]

// Grant is promotional credit.
type Grant struct {
	ID        GrantID
	Account   account.ID
	Amount    money.Amount
	Remaining money.Amount
	Priority  int // lower is spent first, before expiry is looked at
	Reason    string
	Actor     string
	GrantedAt time.Time
	ExpiresAt time.Time // zero: never
	ExpiredAt time.Time // when what remained was taken back
}

// IDPrefix makes grants read "grt_…".
func (Grant) IDPrefix() string { return "grt" }

// Draw is a part of a grant that pays for something.
type Draw struct {
	Grant  GrantID
	Amount money.Amount
}

// Spend decides which grants pay for due: by priority, then the soonest to expire, then the oldest.
// What has expired at now pays for nothing. It changes Remaining of the grants given.
func Spend(grants []Grant, due money.Amount, now time.Time) []Draw {
	order := make([]*Grant, 0, len(grants))
	for i := range grants {
		g := &grants[i]
		if g.Remaining.Minor > 0 && g.Remaining.Currency == due.Currency && (g.ExpiresAt.IsZero() || now.Before(g.ExpiresAt)) {
			order = append(order, g)
		}
	}
	slices.SortStableFunc(order, func(a, b *Grant) int {
		return cmp.Or(
			cmp.Compare(a.Priority, b.Priority),
			compareExpiry(a.ExpiresAt, b.ExpiresAt),
			a.GrantedAt.Compare(b.GrantedAt),
			cmp.Compare(a.ID.String(), b.ID.String()))
	})
	var draws []Draw
	for _, g := range order {
		if due.Minor <= 0 {
			break
		}
		take := money.New(min(due.Minor, g.Remaining.Minor), due.Currency)
		g.Remaining.Minor -= take.Minor
		due.Minor -= take.Minor
		draws = append(draws, Draw{g.ID, take})
	}
	return draws
}

// compareExpiry orders times with "never" (zero) last.
func compareExpiry(a, b time.Time) int {
	switch {
	case a.IsZero() && b.IsZero():
		return 0
	case a.IsZero():
		return 1
	case b.IsZero():
		return -1
	}
	return a.Compare(b)
}

// AutoTopUp is the rule: when available falls below Threshold, charge what is missing to Target.
type AutoTopUp struct {
	Account        account.ID
	Enabled        bool
	Threshold      money.Amount
	Target         money.Amount
	MonthlyCeiling *money.Amount // of all automatic top-ups of a calendar month
	Tripped        bool          // a decline or a dispute opened the breaker: nothing is charged until the rule is saved again or another card comes
	TrippedReason  string
	TrippedAt      time.Time
	HeldUntil      time.Time // when it is looked at again, where its ceiling or its card's budget of attempts holds it back
	UpdatedAt      time.Time
	Version        int64 // 0 while there is none
}

// Missing returns what an automatic top-up would charge now, nothing if it is not due, and whether the ceiling holds
// some of it back. charged is what this month's automatic top-ups came to; minimum is the least that the provider charges, and never below nothing.
func (t AutoTopUp) Missing(available, charged, minimum money.Amount) (missing money.Amount, held bool) {
	missing = money.Zero(available.Currency)
	if !t.Enabled || t.Tripped || available.Minor >= t.Threshold.Minor {
		return missing, false
	}
	due := t.Target.Minor - available.Minor
	if t.MonthlyCeiling != nil {
		if left := t.MonthlyCeiling.Minor - charged.Minor; left < due {
			due, held = left, true
		}
	}
	if due >= minimum.Minor {
		missing.Minor = due
	}
	return missing, held
}

// Errors of the concept.
var (
	ErrGrantNotFound = errs.New(errs.NotFound, "credit_grant_not_found", "There is no such credit grant.")
	ErrNoAutoTopUp   = errs.New(errs.NotFound, "auto_top_up_not_found", "The account has no automatic top-up.")
)

// Store keeps grants and automatic top-ups.
type Store interface {
	CreateGrant(ctx context.Context, g Grant) error
	// Unspent returns the grants that have something left. Whoever is to spend them holds the account's lock, which
	// holds its grants too.
	Unspent(ctx context.Context, a account.ID) ([]Grant, error)
	// Grant returns the grant or ErrGrantNotFound.
	Grant(ctx context.Context, a account.ID, id GrantID) (Grant, error)
	// Grants pages through all grants of the account, newest first.
	Grants(ctx context.Context, a account.ID, r page.Request) (page.Page[Grant], error)
	// SaveGrant writes what is left of a grant and when it expired, or returns ErrGrantNotFound.
	SaveGrant(ctx context.Context, g Grant) error
	// Expiring returns up to limit grants that have something left and expired on their account's clock, the first to
	// expire first, from behind the given one on; the zero one is before them all.
	Expiring(ctx context.Context, now time.Time, after Grant, limit int) ([]Grant, error)

	// AutoTopUp returns the account's rule or ErrNoAutoTopUp.
	AutoTopUp(ctx context.Context, a account.ID) (AutoTopUp, error)
	// SaveAutoTopUp writes the rule and raises its version. It returns account.ErrStale if the version is another.
	SaveAutoTopUp(ctx context.Context, t *AutoTopUp) error
	// HoldAutoTopUp writes until when the rule is held back, the zero time for not at all, unless it has been saved anew.
	// It raises no version: nobody has changed the rule.
	HoldAutoTopUp(ctx context.Context, t AutoTopUp) error
	// Held returns up to limit rules that are in force and were held back until now on their account's clock, the longest
	// first, from behind the given one on; the zero one is before them all.
	Held(ctx context.Context, now time.Time, after AutoTopUp, limit int) ([]AutoTopUp, error)
}
