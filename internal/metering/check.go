package metering

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/coalesce"
	"github.com/accrue-billing/accrue/internal/entitlement"
)

// Standing is everything that a check of an account is decided by.
type Standing struct {
	Admission
	Uses map[TotalKey]Held // of the current period and later, and of NoPeriod
}

// A StandingSource reads standings of many accounts in one round trip. Accounts that do not exist are
// left out.
type StandingSource interface {
	Standings(ctx context.Context, accounts []account.ID) (map[account.ID]*Standing, error)
}

// freshFor is how long a standing answers from memory. With the time to read it, an answer is never
// older than a second on any replica.
const freshFor = 500 * time.Millisecond

// checkerSize bounds the accounts in memory; beyond it, memory is emptied.
const checkerSize = 50_000

// Checker answers "may this account use it now?" from memory that is at most a second old, or strictly
// from the database. Concurrent reads share one round trip. It is safe for concurrent use.
type Checker struct {
	source    StandingSource
	revisions account.Revisions
	catalogue Catalogue
	clock     clock.Clock
	pricer    entitlement.Pricer // nil: spend limits are not looked at
	uses      func(ctx context.Context, a account.ID, period time.Time) ([]entitlement.Use, error)

	mu     sync.Mutex
	memory map[account.ID]remembered
	reads  *coalesce.Reads[account.ID, *answerable]
}

// remembered is what an account's checks are answered from: known to be true at the time read, and at
// every later time at which the account has the same revision.
type remembered struct {
	*answerable
	revision account.Revision
	read     time.Time
}

// answerable is a standing with what its account has spent.
type answerable struct {
	*Standing
	spent int64
}

// NewChecker returns a checker. With a pricer, uses must return an account's use of a period.
func NewChecker(source StandingSource, revisions account.Revisions, catalogue Catalogue, clk clock.Clock, pricer entitlement.Pricer,
	uses func(ctx context.Context, a account.ID, period time.Time) ([]entitlement.Use, error),
) *Checker {
	c := &Checker{source: source, revisions: revisions, catalogue: catalogue, clock: clk, pricer: pricer, uses: uses, memory: map[account.ID]remembered{}}
	c.reads = coalesce.New(2, 256, 5*time.Second, c.load)
	return c
}

// Check decides for one meter. Strict answers are as of now: they see every event that was acknowledged
// before the call. It returns entitlement.ErrNotFound or ErrUnknownMeter.
func (c *Checker) Check(ctx context.Context, a account.ID, meter string, strict bool) (entitlement.Decision, error) {
	m := c.catalogue.Meter(meter)
	if m == nil {
		return entitlement.Decision{}, ErrUnknownMeter.With("meter", meter)
	}
	s, err := c.standing(ctx, a, strict)
	if err != nil {
		return entitlement.Decision{}, err
	}
	return c.decide(s, m), nil
}

// CheckAll decides for every meter, in the catalogue's order.
func (c *Checker) CheckAll(ctx context.Context, a account.ID, strict bool) ([]entitlement.Decision, error) {
	s, err := c.standing(ctx, a, strict)
	if err != nil {
		return nil, err
	}
	var out []entitlement.Decision
	for _, m := range c.catalogue.Meters() {
		out = append(out, c.decide(s, m))
	}
	return out, nil
}

// Forget drops an account from memory, when it is known to have changed.
func (c *Checker) Forget(accounts ...account.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range accounts {
		delete(c.memory, a)
	}
}

func (c *Checker) decide(s *answerable, m *Meter) entitlement.Decision {
	period, _ := s.PeriodOf(s.now(c.clock()))
	ends := s.ResetsAt(period)
	if m.Reserved {
		period = NoPeriod
	}
	held := s.Uses[TotalKey{s.Account, m.Code, period.UnixMicro()}]
	d := s.Entitlement.Check(m.Code, held.Used, held.Reserved)
	if d.ResetsAt = ends; m.Reserved {
		d.ResetsAt = time.Time{}
	}
	return s.CheckSpend(d, s.spent)
}

// standing returns what the account's checks are decided by: from memory while it is young or, if strict,
// while the account has the revision that it was read at.
func (c *Checker) standing(ctx context.Context, a account.ID, strict bool) (*answerable, error) {
	now := c.clock()
	c.mu.Lock()
	got, ok := c.memory[a]
	c.mu.Unlock()
	if age := now.Sub(got.read); ok && !strict && age >= 0 && age < freshFor {
		return got.answerable, nil
	}
	// The revision is read before what it stands for, so that it is never newer.
	revision, err := c.revisions.Revision(ctx, a)
	if errors.Is(err, account.ErrNotFound) {
		return nil, entitlement.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	if !ok || got.revision != revision {
		s, found, err := c.reads.Get(a)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, entitlement.ErrNotFound
		}
		got = remembered{answerable: s, revision: revision}
	}
	got.read = now // as old as the question, not as the answer
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.memory) >= checkerSize {
		clear(c.memory)
	}
	c.memory[a] = got
	return got.answerable, nil
}

func (c *Checker) load(ctx context.Context, accounts []account.ID) (map[account.ID]*answerable, error) {
	found, err := c.source.Standings(ctx, accounts)
	if err != nil {
		return nil, err
	}
	out := make(map[account.ID]*answerable, len(found))
	for a, s := range found {
		out[a] = &answerable{Standing: s}
		if s.SpendLimit == nil || c.pricer == nil {
			continue
		}
		period, _ := s.PeriodOf(s.now(c.clock()))
		uses, err := c.uses(ctx, a, period)
		if err != nil {
			return nil, err
		}
		amount, err := c.pricer.Accrued(ctx, s.Entitlement, period, uses)
		if err != nil {
			return nil, err
		}
		out[a].spent = amount.Minor
	}
	return out, nil
}
