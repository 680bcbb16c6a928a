package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/coalesce"
	"github.com/accrue-billing/accrue/internal/id"
)

// Whatever changes an account leaves its trace in one of these counters: a record's version, a series
// of the account, or a total's. They are few rows by primary key, whatever the account has used.
var sqlRevisions = named(`
SELECT a.id, a.version, e.version, c.events, c.invoices, c.ledger, e.corrections, e.period_end, a.clock_at,
  (SELECT coalesce(sum(s.version), 0)::bigint FROM subscriptions s WHERE s.account_id = a.id),
  (SELECT coalesce(sum(t.version), 0)::bigint FROM usage_totals t
   WHERE t.account_id = a.id AND (t.period_start >= e.period_starts[1] OR t.period_start = 'epoch'))
FROM accounts a JOIN entitlements e ON e.account_id = a.id JOIN account_counters c ON c.account_id = a.id
WHERE a.id = ANY ($1::uuid[])`)

// revisionReads shares one reading of revisions among all who wait for one.
type revisionReads struct {
	reads *coalesce.Reads[account.ID, account.Revision]
}

// Revisions returns the source of revisions. It is safe for concurrent use.
func Revisions(pool *pgxpool.Pool, clk clock.Clock) account.Revisions {
	read := func(ctx context.Context, accounts []account.ID) (map[account.ID]account.Revision, error) {
		found := make(map[account.ID]account.Revision, len(accounts))
		err := onConn(ctx, pool, func(p *pipeline) error {
			ids := newUUIDs(len(accounts))
			for _, a := range accounts {
				ids.uuid(a.UUID())
			}
			err := p.queue(ctx, sqlRevisions, func(v *value) error {
				a, r := revision(v, clk())
				found[a] = r
				return nil
			}, ids.b)
			if err != nil {
				return err
			}
			return p.send(ctx)
		})
		if err != nil {
			return nil, fmt.Errorf("revisions: %w", translate(err))
		}
		return found, nil
	}
	return revisionReads{coalesce.New(2, 256, 5*time.Second, read)}
}

func (r revisionReads) Revision(_ context.Context, a account.ID) (account.Revision, error) {
	mustOwner(a)
	rev, ok, err := r.reads.Get(a)
	if err == nil && !ok {
		err = account.ErrNotFound
	}
	return rev, err
}

func revision(v *value, now time.Time) (account.ID, account.Revision) {
	if !v.isNull(8) {
		now = v.time(8)
	}
	return id.FromUUID[account.Account](v.uuid(0)), account.Revision{
		Account: v.int8(1), Entitlement: v.int8(2), Events: v.int8(3), Invoices: v.int8(4), Ledger: v.int8(5), Corrections: v.int8(6),
		PeriodOver: !now.Before(v.time(7)), Subscriptions: v.int8(9), Usage: v.int8(10),
	}
}
