package postgres

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/pkg/money"
)

// What accounts are admitted to, as journals and checks read it. Rows are locked in the order of their key.
const (
	admissions = `
SELECT e.account_id, e.status, e.level, e.currency, e.period_starts, e.period_end, e.limits::text,
       e.spend_limit, e.spend_mode, e.version, a.clock_at, e.earlier_limits::text, e.max_quantities::text
FROM entitlements e JOIN accounts a ON a.id = e.account_id
WHERE e.account_id = ANY ($1::uuid[])`
	lockAdmissions = admissions + `
ORDER BY e.account_id FOR NO KEY UPDATE OF e`
)

var (
	sqlAdmissions     = named(admissions)
	sqlLockAdmissions = named(lockAdmissions)
	sqlLockFree       = named(lockAdmissions + ` SKIP LOCKED`)
)

// admission reads a row of sqlAdmissions, or of one that locks them too.
func (q *quantityMaps) admission(v *value) (*metering.Admission, error) {
	ad := &metering.Admission{Entitlement: entitlement.Entitlement{
		Account: id.FromUUID[account.Account](v.uuid(0)), Status: account.Status(v.text(1)), Level: v.text(2),
		Currency: money.Currency(v.text(3)), PeriodStarts: v.times(4), PeriodEnd: v.time(5),
		SpendMode: entitlement.Mode(v.text(8)), Version: v.int8(9),
	}}
	if limits := v.row[6]; string(limits) != "{}" {
		if err := json.Unmarshal(limits, &ad.Limits); err != nil {
			return ad, fmt.Errorf("limits of %s: %w", ad.Account, err)
		}
	}
	if !v.isNull(11) {
		if err := json.Unmarshal(v.row[11], &ad.EarlierLimits); err != nil {
			return ad, fmt.Errorf("earlier limits of %s: %w", ad.Account, err)
		}
	}
	if most := v.row[12]; string(most) != "{}" {
		var err error
		if ad.MaxQuantities, err = q.of(most); err != nil {
			return ad, fmt.Errorf("max quantities of %s: %w", ad.Account, err)
		}
	}
	if !v.isNull(7) {
		n := v.int8(7)
		ad.SpendLimit = &n
	}
	if !v.isNull(10) {
		ad.ClockAt = v.time(10)
	}
	return ad, nil
}

// limitedAccounts remembers which accounts had limits when they were last read. It is a guess, which saves
// most flushes a statement for totals that nothing is compared with; where it is wrong they are read after
// all, in a round trip of their own. It is bounded by being emptied.
type limitedAccounts struct {
	mu  sync.Mutex
	set map[account.ID]struct{}
}

const limitedAccountsSize = 20_000

// of returns those of the accounts that had limits.
func (l *limitedAccounts) of(accounts []account.ID) (limited []account.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range accounts {
		if _, ok := l.set[a]; ok {
			limited = append(limited, a)
		}
	}
	return limited
}

// learn keeps what was read of accounts, and returns those whose limits were not expected.
func (l *limitedAccounts) learn(read map[account.ID]*metering.Admission, expected []account.ID) (missed []account.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for a, ad := range read {
		if !ad.Limited() {
			delete(l.set, a)
			continue
		}
		if !slices.Contains(expected, a) {
			missed = append(missed, a)
		}
		if l.set == nil || len(l.set) >= limitedAccountsSize {
			l.set = map[account.ID]struct{}{}
		}
		l.set[a] = struct{}{}
	}
	return missed
}

// quantityMaps remembers documents of quantities as they were read: all accounts of a plan have the same, and every
// flush reads those of its accounts. What it returns is shared and never changed. It is bounded by being emptied.
type quantityMaps struct {
	mu   sync.Mutex
	read map[string]map[string]money.Decimal
}

const quantityMapsSize = 1000

func (q *quantityMaps) of(document []byte) (quantities map[string]money.Decimal, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if quantities = q.read[string(document)]; quantities != nil {
		return quantities, nil
	}
	if err = json.Unmarshal(document, &quantities); err != nil {
		return nil, err
	}
	if q.read == nil || len(q.read) >= quantityMapsSize {
		q.read = map[string]map[string]money.Decimal{}
	}
	q.read[string(document)] = quantities
	return quantities, nil
}
