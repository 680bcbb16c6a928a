// Package subscription holds an account's agreement to a plan over billing periods.
//
// It owns: which plan version an account is on, since when and for which period; the change of plan;
// and every period that was opened, with its bounds as they were then.
// It does not own: what a plan costs (plan, pricing), how bounds are computed (period) or what a
// period comes to (invoice).
//
// Always true: an account has one active subscription; its periods are contiguous; a stored bound is
// never recomputed; a change of plan keeps the running period.
package subscription

import (
	"context"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// ID names a subscription.
type ID = id.ID[Subscription]

// ContractID names an enterprise contract.
type ContractID = id.ID[Contract]

// Contract is what was agreed with one account on top of a plan version.
type Contract struct {
	ID         ContractID
	Account    account.ID
	Definition plan.Contract
	CreatedAt  time.Time
	EndedAt    time.Time // when it was, or is to be, ended before its time; zero: it keeps to its own dates
}

// InForce reports whether the contract holds for a period that starts at t: by its own dates, and
// unless someone ended it before.
func (c Contract) InForce(t time.Time) bool {
	return c.Definition.InForce(t) && (c.EndedAt.IsZero() || t.Before(c.EndedAt))
}

// Over reports whether no period that starts at now or later is under the contract.
func (c Contract) Over(now time.Time) bool {
	end := c.Definition.End
	return (!end.IsZero() && !now.Before(end)) || (!c.EndedAt.IsZero() && !now.Before(c.EndedAt))
}

// IDPrefix makes contract identifiers read "ctr_…".
func (Contract) IDPrefix() string { return "ctr" }

// Status says whether the agreement holds.
type Status string

// The statuses of a subscription.
const (
	Active Status = "active"
	Ended  Status = "ended"
)

// Terms is what a period is billed under.
type Terms struct {
	Plan     plan.Code
	Version  int
	Contract ContractID // zero: none
}

// TermsOf returns the terms of a plan version without a contract.
func TermsOf(v plan.Version) Terms { return Terms{Plan: v.Plan, Version: v.Number} }

// Subscription is the agreement as it stands.
type Subscription struct {
	ID      ID
	Account account.ID
	Terms
	Status   Status
	Schedule period.Schedule
	Index    int // of the current period, counted from 0
	Period   period.Bounds
	NextPlan plan.Code // takes effect when the period ends; empty: no change
	// NextVersion is the version of the plan that is held to which the agreement moves when the period
	// ends; 0: none. A change of plan that is planned for then goes before it.
	NextVersion int
	// Waived is, per meter, how far the use of this period went beyond a soft limit while the plan billed
	// nothing for it. It stays free though a later plan of the same period has a price. Where it is less than
	// nothing, that much was left of the limit: nothing is free, unless a correction makes more of that use.
	Waived map[string]money.Decimal
	// Held are the terms that this period was under before the present ones, the earliest first. They
	// follow each other without a gap from the period's start, and the present terms follow the last.
	Held      []Holding
	CreatedAt time.Time
	UpdatedAt time.Time
	Revision  int64 // for ETag and If-Match
}

// Holding says that terms were held for a part of a period.
type Holding struct {
	Terms
	Time period.Bounds
}

// IDPrefix makes subscription identifiers read "sub_…".
func (Subscription) IDPrefix() string { return "sub" }

// Period is one billing period as it was opened, with the plan that it was (or will be) billed under.
type Period struct {
	Account      account.ID
	Subscription ID
	Index        int
	Bounds       period.Bounds
	Terms
	Waived   map[string]money.Decimal
	Held     []Holding // before the terms above
	ClosedAt time.Time // zero while it is open
}

// Present returns the part of the period for which its terms are held: all of it, but for what others were
// held before, and what is left of it when the account is closed.
func (p Period) Present() period.Bounds {
	held := p.Bounds
	if n := len(p.Held); n > 0 {
		held.Start = p.Held[n-1].Time.End
	}
	if !p.ClosedAt.IsZero() && p.ClosedAt.Before(held.End) {
		held.End = p.ClosedAt
	}
	return held
}

// Errors of the concept.
var (
	ErrNotFound = errs.New(errs.NotFound, "subscription_not_found", "The account has no active subscription.")
	// ErrContractNotFound says that the account has no such contract.
	ErrContractNotFound = errs.New(errs.NotFound, "contract_not_found", "The account has no such contract.")
	ErrSamePlan         = errs.New(errs.Conflict, "already_on_plan", "The account is on this plan already.")
	// ErrPeriodClosed says that the period was closed before: a rerun has nothing to do.
	ErrPeriodClosed = errs.New(errs.Conflict, "period_closed", "The period is closed.")
)

// New returns an account's first agreement. Its first period contains now.
func New(a account.ID, t Terms, s period.Schedule, now time.Time) Subscription {
	return Subscription{
		ID: id.New[Subscription](), Account: a, Terms: t, Status: Active, Schedule: s, Period: s.Containing(now),
		Waived: map[string]money.Decimal{}, CreatedAt: now, UpdatedAt: now, Revision: 1,
	}
}

// Opened returns the current period as a record.
func (s Subscription) Opened() Period {
	return Period{
		Account: s.Account, Subscription: s.ID, Index: s.Index, Bounds: s.Period,
		Terms: s.Terms, Waived: s.Waived, Held: s.Held,
	}
}

// ChangePlan moves the agreement to other terms at once. The running period and what was used in it
// stay, and so does the time for which the former terms were held; a change that was planned for its end
// is dropped.
func (s *Subscription) ChangePlan(t Terms, now time.Time) error {
	if s.Terms == t {
		return ErrSamePlan
	}
	former := s.Opened().Present()
	former.End = now
	if now.After(s.Period.End) { // it has ended by the clock, and the closing has not come to it yet
		former.End = s.Period.End
	}
	if former.Start.Before(former.End) {
		s.Held = append(slices.Clone(s.Held), Holding{s.Terms, former})
	}
	s.Terms, s.NextPlan, s.NextVersion, s.UpdatedAt = t, "", 0, now
	return nil
}

// Replace puts other terms in the place of the present ones, as though they had been held in the running
// period for all the time for which these were. A change that was planned for its end is dropped.
func (s *Subscription) Replace(t Terms, now time.Time) error {
	if s.Terms == t {
		return ErrSamePlan
	}
	s.Held = slices.Clone(s.Held)
	for i := range s.Held {
		if s.Held[i].Terms == s.Terms {
			s.Held[i].Terms = t
		}
	}
	s.Terms, s.NextPlan, s.NextVersion, s.UpdatedAt = t, "", 0, now
	return nil
}

// Advance moves on to the period after the current one, under the terms given, which are billed by the interval given.
// Where that is another one, periods count from here on. zone is the account's present time zone. What was planned for
// the end of the period is done with.
func (s *Subscription) Advance(zone *time.Location, next Terms, every period.Interval, now time.Time) {
	s.Schedule.Zone = zone
	if s.Schedule.Interval != every {
		s.Schedule = period.Anchored(s.Period.End, zone, every)
	}
	s.Index++
	s.Period = s.Schedule.Next(s.Period.End)
	s.Waived, s.Held = map[string]money.Decimal{}, nil
	s.Terms, s.NextPlan, s.NextVersion, s.UpdatedAt = next, "", 0, now
}

// Due names a subscription whose period has ended.
type Due struct {
	Account   account.ID
	PeriodEnd time.Time
}

// Store keeps agreements.
type Store interface {
	// Create writes a new agreement and its first period.
	Create(ctx context.Context, s Subscription) error
	// Active returns the account's agreement or ErrNotFound.
	Active(ctx context.Context, a account.ID) (Subscription, error)
	// ActiveOf returns the agreements of several accounts; one that has none is left out.
	ActiveOf(ctx context.Context, as []account.ID) (map[account.ID]Subscription, error)
	// Lock returns the account's agreement and holds it until the transaction ends, or ErrNotFound.
	Lock(ctx context.Context, a account.ID) (Subscription, error)
	// Save writes the agreement, raises its revision and keeps the open period's record in step with it.
	// It returns account.ErrStale if the revision is another.
	Save(ctx context.Context, s *Subscription) error
	// ClosePeriod records that p was closed at p.ClosedAt, under the terms that p names, and opens next. It returns
	// ErrPeriodClosed if p was closed before. Where the agreement ends with p, next is the zero Period and none is opened.
	ClosePeriod(ctx context.Context, p Period, next Period) error
	// Periods returns the account's periods, the latest first, at most limit.
	Periods(ctx context.Context, a account.ID, limit int) ([]Period, error)
	// Period returns the period that begins at start, or ErrNotFound.
	Period(ctx context.Context, a account.ID, start time.Time) (Period, error)
	// Due returns up to limit active agreements whose period has ended on their account's own clock,
	// the longest overdue first, from behind the given one on; the zero one is before them all.
	Due(ctx context.Context, now time.Time, after Due, limit int) ([]Due, error)

	// OnPlan counts the active agreements on each version of a plan.
	OnPlan(ctx context.Context, code plan.Code) (map[int]int, error)
	// OnOtherVersions returns, in order and after the given one, up to limit accounts with an active
	// agreement on another version of the plan than the given one.
	OnOtherVersions(ctx context.Context, code plan.Code, number int, after account.ID, limit int) ([]account.ID, error)

	// CreateContract, Contract and EndContract keep what was agreed with one account. The last two
	// return ErrContractNotFound. A contract that has been ended keeps its first end. Contracts are
	// listed in the order in which they begin.
	CreateContract(ctx context.Context, c Contract) error
	Contract(ctx context.Context, a account.ID, id ContractID) (Contract, error)
	Contracts(ctx context.Context, a account.ID) ([]Contract, error)
	EndContract(ctx context.Context, a account.ID, id ContractID, at time.Time) error
}
