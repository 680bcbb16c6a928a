package billing

import (
	"context"
	"sync"
	"time"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

// estimateCache is how long an estimator goes by the terms that it read last: a pricing page may lag
// behind a publication by so much, and asks the database nothing in between.
const estimateCache = time.Second

// Estimator prices hypothetical months. It is safe for concurrent use.
type Estimator struct {
	core *Core

	mu    sync.Mutex
	terms map[plan.Code]onSale
}

type onSale struct {
	plan    plan.Plan
	version plan.Version
	err     error
	read    time.Time
}

// NewEstimator returns an estimator on the current catalogue.
func NewEstimator(c *Core) *Estimator { return &Estimator{core: c, terms: map[plan.Code]onSale{}} }

// Estimate is a hypothetical month on a plan.
type Estimate struct {
	Plan    plan.Plan
	Version plan.Version
	Bill    pricing.Bill
	Blocked []pricing.Blocked // usage that a hard limit would refuse
}

// Estimate prices a month of usage on the terms that are on sale. It returns plan.ErrNotFound,
// plan.ErrVersionNotFound, ErrContactSales, or pricing's errors for usage that cannot be priced.
func (e *Estimator) Estimate(ctx context.Context, code plan.Code, cur money.Currency, usage []pricing.Usage) (out Estimate, err error) {
	defer errs.Wrap(&err, "estimate on %s", code)
	t := e.onSale(ctx, code)
	if t.err != nil {
		return out, t.err
	}
	out.Plan, out.Version = t.plan, t.version
	if t.plan.ContactSales {
		return out, ErrContactSales
	}
	// No charge that is on sale depends on when a month is; a contract's would.
	out.Bill, err = pricing.Rate(pricing.Input{Version: t.version, Currency: cur, Usage: usage})
	if err != nil {
		return out, err
	}
	for _, l := range t.version.Limits {
		var used money.Decimal
		for i := range usage {
			if usage[i].Meter == l.Meter {
				used = used.Add(usage[i].Quantity)
			}
		}
		if l.Mode == plan.Hard && used.Cmp(l.Quantity) > 0 {
			out.Blocked = append(out.Blocked, pricing.Blocked{Meter: l.Meter, Quantity: used, Limit: l.Quantity})
		}
	}
	return out, nil
}

// Meters returns the meters of the catalogue as the database has them.
func (e *Estimator) Meters(ctx context.Context) ([]plan.Meter, error) {
	return e.core.DB.Plans().Meters(ctx)
}

// onSale returns a plan's present terms. A plan that is not there is remembered as such for the same
// time, so that guessing names costs the database nothing; what failed is not.
func (e *Estimator) onSale(ctx context.Context, code plan.Code) onSale {
	now := e.core.Clock()
	e.mu.Lock()
	t, ok := e.terms[code]
	e.mu.Unlock()
	if age := now.Sub(t.read); ok && age >= 0 && age < estimateCache {
		return t
	}
	t = onSale{read: now}
	if t.plan, t.err = e.core.DB.Plans().Plan(ctx, code); t.err == nil && !t.plan.ContactSales {
		t.version, t.err = e.core.DB.Plans().Current(ctx, code)
	}
	if t.err != nil && errs.KindOf(t.err) != errs.NotFound {
		return t
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.terms) >= maxOnSale {
		clear(e.terms)
	}
	e.terms[code] = t
	return t
}

// maxOnSale bounds what is remembered: callers can make up names.
const maxOnSale = 1000
