// Package entitlement says what an account may use now.
//
// It owns: the account's limits, spend limit and open billing periods as plain numbers (one row an
// account, which is also the lock that every writer of usage holds), and reservations of units,
// with their signed leases.
// It does not own: where the numbers come from (package billing writes them whenever a plan, a
// period or a spend limit changes) or how much was used (package metering).
//
// Always true: with a hard limit, used plus reserved never passes it, under any concurrency, since
// both change only under the lock of the account's row. What was used before a limit was lowered
// stays used.
package entitlement

import (
	"context"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Mode says what happens at a limit.
type Mode string

// The modes of a limit.
const (
	Hard Mode = "hard" // use beyond the limit is refused
	Soft Mode = "soft" // use beyond the limit is counted, and told
)

// Limit bounds one meter's use in one period.
type Limit struct {
	Quantity money.Decimal `json:"limit"` // in the meter's unit
	Mode     Mode          `json:"mode"`
}

// Entitlement is everything that admits or refuses an account's usage, resolved to plain numbers.
type Entitlement struct {
	Account  account.ID
	Status   account.Status
	Level    string // the plan's code, to be shown and nothing else
	Currency money.Currency
	// PeriodStarts holds, ascending, the starts of the periods that still take events. The last is
	// the current one; each ends where the next begins, and the current one at PeriodEnd.
	PeriodStarts []time.Time
	PeriodEnd    time.Time
	Limits       map[string]Limit // by meter code; a meter that is not here has no limit
	// EarlierLimits are those of each of PeriodStarts but the last, to which late events are held; nil: as Limits.
	EarlierLimits []map[string]Limit
	// MaxQuantities bound what may be used of a meter in a period so that it can be priced; a meter that is not here has AnyQuantity.
	MaxQuantities map[string]money.Decimal
	SpendLimit    *int64    // minor units a period, tax included; nil: none
	SpendMode     Mode      // meaningless without a SpendLimit
	UpdatedAt     time.Time // in real time: what is refused since is looked for by it
	Version       int64
}

// nextPeriodSpan is how far past the current period's end an event may lie while the closing is
// late. Every period lasts at least this long, so such an event is surely of the next period.
const nextPeriodSpan = 27 * 24 * time.Hour

// PeriodStart returns the start of the current period.
func (e Entitlement) PeriodStart() time.Time {
	if len(e.PeriodStarts) == 0 {
		return time.Time{}
	}
	return e.PeriodStarts[len(e.PeriodStarts)-1]
}

// PeriodOf returns the start of the period that an event at t counts in: an open one or, where the
// closing of the current one is late, the next. It reports false where t lies before the open
// periods or too far beyond them.
func (e Entitlement) PeriodOf(t time.Time) (start time.Time, ok bool) {
	if !t.Before(e.PeriodEnd) {
		return e.PeriodEnd, t.Before(e.PeriodEnd.Add(nextPeriodSpan))
	}
	for _, s := range slices.Backward(e.PeriodStarts) {
		if !t.Before(s) {
			return s, true
		}
	}
	return time.Time{}, false
}

// EndOf returns the end of an open period, and the zero time where start is none of them or its
// end is not yet known (the next period's).
func (e Entitlement) EndOf(start time.Time) time.Time {
	for i, s := range e.PeriodStarts {
		if s.Equal(start) {
			if i+1 < len(e.PeriodStarts) {
				return e.PeriodStarts[i+1]
			}
			return e.PeriodEnd
		}
	}
	return time.Time{}
}

// ResetsAt returns when a limit that was reached in the period counts from zero again. For the
// period after the current one, whose end is not yet known, it is the zero time.
func (e Entitlement) ResetsAt(periodStart time.Time) time.Time { return e.EndOf(periodStart) }

// HardLimit returns the hard limit of a meter in the period that starts at periodStart, if it has one.
func (e Entitlement) HardLimit(meter string, periodStart time.Time) (money.Decimal, bool) {
	limits := e.Limits
	for i := range e.EarlierLimits {
		if e.PeriodStarts[i].Equal(periodStart) {
			limits = e.EarlierLimits[i]
		}
	}
	l, ok := limits[meter]
	if !ok || l.Mode != Hard {
		return money.Decimal{}, false
	}
	return l.Quantity, true
}

// AnyQuantity is the greatest quantity that is stored of anything.
var AnyQuantity = money.MustDecimal("999999999999999")

// MaxQuantity returns the greatest quantity of a meter in a period that can be billed: more is refused, since no bill, balance or
// invoice could be made of it.
func (e Entitlement) MaxQuantity(meter string) money.Decimal {
	if most, ok := e.MaxQuantities[meter]; ok {
		return most
	}
	return AnyQuantity
}

// Limited reports whether anything may be refused or told for what was used before.
func (e Entitlement) Limited() bool {
	return len(e.Limits) > 0 || len(e.EarlierLimits) > 0 || e.SpendLimit != nil
}

// SoftLimits returns the meters whose limits in the current period let use pass, sorted.
func (e Entitlement) SoftLimits() (meters []string) {
	for meter, l := range e.Limits {
		if l.Mode == Soft {
			meters = append(meters, meter)
		}
	}
	slices.Sort(meters)
	return meters
}

// HasHardSpendLimit reports whether spend is refused beyond a sum.
func (e Entitlement) HasHardSpendLimit() bool { return e.SpendLimit != nil && e.SpendMode == Hard }

// Reason says why use is not allowed, or that it passes a soft limit. It is part of the API.
type Reason string

// The reasons of a decision.
const (
	Within            Reason = ""                    // nothing stands in the way
	LimitReached      Reason = "limit_reached"       // the meter's limit
	SpendLimitReached Reason = "spend_limit_reached" // the account's limit on money
	AccountSuspended  Reason = "account_suspended"
	AccountClosed     Reason = "account_closed"
)

// Decision answers "may this account use it now?".
type Decision struct {
	Meter     string
	Allowed   bool
	Reason    Reason // also set where use is allowed beyond a soft limit
	Limit     *Limit // nil: none
	Used      money.Decimal
	Reserved  money.Decimal
	Remaining *money.Decimal // nil without a limit; never negative
	ResetsAt  time.Time      // end of the current period
}

// Check decides whether one more unit, however small, may be used in the current period, given
// what was used and what is reserved. The spend limit is not looked at: see CheckSpend.
func (e Entitlement) Check(meter string, used, reserved money.Decimal) Decision {
	d := Decision{Meter: meter, Allowed: true, Used: used, Reserved: reserved, ResetsAt: e.PeriodEnd}
	if l, ok := e.Limits[meter]; ok {
		d.Limit = &l
		left := l.Quantity.Sub(used).Sub(reserved)
		if left.Sign() <= 0 {
			left = money.Decimal{}
			d.Allowed, d.Reason = l.Mode == Soft, LimitReached
		}
		d.Remaining = &left
	}
	if reason := e.Standing(); reason != Within {
		d.Allowed, d.Reason = false, reason
	}
	return d
}

// CheckSpend refuses, in an allowed decision, what a hard spend limit forbids once spent (tax
// included, minor units of the account's currency) has reached it.
func (e Entitlement) CheckSpend(d Decision, spent int64) Decision {
	if e.SpendLimit == nil || spent < *e.SpendLimit || !d.Allowed {
		return d
	}
	d.Allowed, d.Reason = e.SpendMode == Soft, SpendLimitReached
	return d
}

// Standing returns the reason for which the account may use nothing at all, or Within.
func (e Entitlement) Standing() Reason {
	switch e.Status {
	case account.Suspended:
		return AccountSuspended
	case account.Closed:
		return AccountClosed
	default:
		return Within
	}
}

// ErrNotFound says that an account has no entitlement, which is so only if there is no such account.
var ErrNotFound = errs.New(errs.NotFound, "account_not_found", "There is no such account.")

// Store keeps entitlements.
type Store interface {
	// Get returns an account's entitlement, or ErrNotFound.
	Get(ctx context.Context, a account.ID) (Entitlement, error)
	// Lock returns an account's entitlement, or ErrNotFound, and keeps every other writer of the
	// account's usage, reservations and limits out until the transaction ends. Outside a
	// transaction it holds nothing.
	Lock(ctx context.Context, a account.ID) (Entitlement, error)
	// Put creates or replaces an account's entitlement and raises its Version. Replicas that hold
	// it in memory learn of the change when the transaction commits.
	Put(ctx context.Context, e Entitlement) error
	// TellSpendLimit records that the account is told of having reached its spend limit in a period, and
	// reports whether this call was the first: it alone may tell. Another limit can be reached again. The
	// Version stays.
	TellSpendLimit(ctx context.Context, a account.ID, periodStart time.Time) (first bool, err error)
	// TellLimit is TellSpendLimit for a limit of a meter.
	TellLimit(ctx context.Context, a account.ID, meter string, limit money.Decimal, periodStart time.Time) (first bool, err error)
}

// Use is what an account has used of one series of a meter in one period. What is reserved has no
// dimensions yet, and stands in an entry without any.
type Use struct {
	Meter      string
	Dimensions map[string]string
	Used       money.Decimal
	Reserved   money.Decimal
	Events     int64
}

// A Pricer prices an account's use of a period, tax included. It is asked inside the transaction
// that admits usage, with the entitlement's row locked, so it must be quick and must write nothing.
// More use must not cost less.
type Pricer interface {
	// Accrued returns what the use of the period that starts at periodStart costs. What is reserved
	// counts as used.
	Accrued(ctx context.Context, e Entitlement, periodStart time.Time, use []Use) (money.Amount, error)
}
