package metering

import (
	"context"
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

// Checker answers "may this account use it now?" as of now: it sees every event that was acknowledged
// before it was asked. Concurrent reads share one round trip. It is safe for concurrent use.
type Checker struct {
	catalogue Catalogue
	source    StandingSource
	clock     clock.Clock
	pricer    entitlement.Pricer // nil: spend limits are not looked at
	uses      func(ctx context.Context, a account.ID, period time.Time) ([]entitlement.Use, error)
	reads     *coalesce.Reads[account.ID, *answerable]
}

// answerable is a standing with what its account has spent.
type answerable struct {
	*Standing
	spent int64
	err   error // why that is not known, which is no reason to answer nobody else of the same read
}

// NewChecker returns a checker. With a pricer, uses must return an account's use of a period.
func NewChecker(source StandingSource, catalogue Catalogue, clk clock.Clock, pricer entitlement.Pricer,
	uses func(ctx context.Context, a account.ID, period time.Time) ([]entitlement.Use, error),
) *Checker {
	c := &Checker{source: source, catalogue: catalogue, clock: clk, pricer: pricer, uses: uses}
	c.reads = coalesce.New(2, 256, 5*time.Second, c.load)
	return c
}

// Check decides for one meter. It returns entitlement.ErrNotFound or ErrUnknownMeter.
func (c *Checker) Check(a account.ID, meter string) (entitlement.Decision, error) {
	m := c.catalogue.Meter(meter)
	if m == nil {
		return entitlement.Decision{}, ErrUnknownMeter.With("meter", meter)
	}
	s, err := c.standing(a)
	if err != nil {
		return entitlement.Decision{}, err
	}
	return c.decide(s, m), nil
}

// CheckAll decides for every meter, in the catalogue's order.
func (c *Checker) CheckAll(a account.ID) ([]entitlement.Decision, error) {
	s, err := c.standing(a)
	if err != nil {
		return nil, err
	}
	var out []entitlement.Decision
	for _, m := range c.catalogue.Meters() {
		out = append(out, c.decide(s, m))
	}
	return out, nil
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

func (c *Checker) standing(a account.ID) (*answerable, error) {
	s, found, err := c.reads.Get(a)
	switch {
	case err != nil:
		return nil, err
	case !found:
		return nil, entitlement.ErrNotFound
	}
	return s, s.err
}

func (c *Checker) load(ctx context.Context, accounts []account.ID) (map[account.ID]*answerable, error) {
	found, err := c.source.Standings(ctx, accounts)
	if err != nil {
		return nil, err
	}
	out := make(map[account.ID]*answerable, len(found))
	for a, s := range found {
		out[a] = &answerable{Standing: s}
		if s.SpendLimit != nil && c.pricer != nil {
			out[a].spent, out[a].err = c.spent(ctx, s)
		}
	}
	return out, nil
}

func (c *Checker) spent(ctx context.Context, s *Standing) (int64, error) {
	period, _ := s.PeriodOf(s.now(c.clock()))
	uses, err := c.uses(ctx, s.Account, period)
	if err != nil {
		return 0, err
	}
	amount, err := c.pricer.Accrued(ctx, s.Entitlement, period, uses)
	return amount.Minor, err
}
