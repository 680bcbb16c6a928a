package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
)

var sqlCurrentTotals = named(`
SELECT t.account_id, t.meter, t.period_start, t.quantity::text, t.reserved::text
FROM entitlements e
JOIN usage_totals t ON t.account_id = e.account_id
 AND (t.period_start >= e.period_starts[cardinality(e.period_starts)] OR t.period_start = 'epoch')
WHERE e.account_id = ANY ($1::uuid[])`)

// standingSource reads what checks are decided by: two statements in one round trip, whatever the
// number of accounts.
type standingSource struct {
	pool       *pgxpool.Pool
	quantities quantityMaps
}

var _ metering.StandingSource = (*standingSource)(nil)

// Standings returns the source of a metering.Checker.
func Standings(pool *pgxpool.Pool) metering.StandingSource { return &standingSource{pool: pool} }

func (s *standingSource) Standings(ctx context.Context, accounts []account.ID) (found map[account.ID]*metering.Standing, err error) {
	err = onConn(ctx, s.pool, func(p *pipeline) error {
		ids := newUUIDs(len(accounts))
		for _, a := range accounts {
			ids.uuid(a.UUID())
		}
		found = make(map[account.ID]*metering.Standing, len(accounts))
		err := p.queue(ctx, sqlAdmissions, func(v *value) error {
			ad, err := s.quantities.admission(v)
			found[ad.Account] = &metering.Standing{Admission: *ad, Uses: map[metering.TotalKey]metering.Held{}}
			return err
		}, ids.b)
		if err != nil {
			return err
		}
		err = p.queue(ctx, sqlCurrentTotals, func(v *value) error {
			key, held, err := heldTotal(v)
			if st := found[key.Account]; st != nil {
				st.Uses[key] = held
			}
			return err
		}, ids.b)
		if err != nil {
			return err
		}
		return p.send(ctx)
	})
	if err != nil {
		return nil, fmt.Errorf("standings: %w", translate(err))
	}
	return found, nil
}

// Uses returns a function that reads an account's use of a period by series, for pricing.
func Uses(pool *pgxpool.Pool) func(ctx context.Context, a account.ID, period time.Time) ([]entitlement.Use, error) {
	return func(ctx context.Context, a account.ID, period time.Time) (uses []entitlement.Use, err error) {
		err = onConn(ctx, pool, func(p *pipeline) error {
			uses, err = p.Uses(ctx, a, period)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("uses of %s: %w", a, translate(err))
		}
		return uses, nil
	}
}

func heldTotal(v *value) (metering.TotalKey, metering.Held, error) {
	key := metering.TotalKey{Account: id.FromUUID[account.Account](v.uuid(0)), Meter: v.text(1), Period: v.micros(2)}
	used, err := stored(v.text(3))
	if err != nil {
		return key, metering.Held{}, err
	}
	reserved, err := stored(v.text(4))
	return key, metering.Held{Used: used, Reserved: reserved}, err
}
