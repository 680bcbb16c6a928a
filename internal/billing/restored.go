package billing

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/payment"
)

// charging says whether cards may be charged by themselves: not while the provider may have charged what the database has
// forgotten.
//
// An intent is committed before the provider hears of it, so the two agree whatever crashes, but for one case: a database that
// was restored to an earlier moment, or that lost its last moments with a machine. There an invoice is open again that was
// paid, and nothing in the database says so. The provider does. So it is asked before anything is charged after a start, and
// again where the database shows an older sweep than was written to it. What a customer asks for is not kept from them.
type charging struct {
	withheld atomic.Bool
	mu       sync.Mutex
	swept    time.Time // when this process wrote down a sweep last; guarded by mu
}

// WithholdCharges keeps cards from being charged by themselves until a sweep has found that the provider has charged nothing
// that the database does not know.
func (c *Core) WithholdCharges() { c.charging.withheld.Store(true) }

// withheldFor is when an automatic top-up is looked at again that was withheld.
const withheldFor = time.Minute

// sweepOverlap is how long before the last sweep that is known the provider's charges are looked at: clocks differ.
const sweepOverlap = 10 * time.Minute

// remember is the first step of a sweep: it finds out whether the database has forgotten charges, and writes the sweep down.
func (s Sweeper) remember(ctx context.Context, now time.Time, _ *Swept) error {
	s.charging.mu.Lock()
	defer s.charging.mu.Unlock()
	last, err := s.DB.Jobs().LastSweep(ctx)
	if err != nil {
		return err
	}
	if last.Before(s.charging.swept) {
		s.Log.ErrorContext(ctx, "the database has forgotten a sweep: it is an earlier one", "last", last, "written", s.charging.swept)
		s.WithholdCharges()
	}
	if s.charging.withheld.Load() && !last.IsZero() { // else the database is new
		if err := s.forgotten(ctx, last.Add(-sweepOverlap)); err != nil {
			return fmt.Errorf("no card is charged by itself: %w", err)
		}
	}
	now = now.Truncate(time.Microsecond) // as it is stored
	if err := s.DB.Jobs().Sweeping(ctx, now); err != nil {
		return err
	}
	if s.charging.swept = last; now.After(last) {
		s.charging.swept = now
	}
	s.charging.withheld.Store(false)
	return nil
}

// forgotten returns an error that names the charges of accounts of ours, since a time, that the database has no payment for
// and that were not given back.
func (s Sweeper) forgotten(ctx context.Context, since time.Time) error {
	const most = 20
	var named []string
	for c, err := range s.Gateway.ListCharges(ctx, since, s.Clock().Add(24*time.Hour)) {
		if err != nil {
			return fmt.Errorf("list the provider's charges: %w", err)
		}
		if c.Outcome.Final() && !c.Kept() {
			continue // nothing was taken, or all of it was given back
		}
		known, err := s.known(ctx, c)
		if err != nil {
			return err
		}
		if !known {
			named = append(named, fmt.Sprintf("%s as %s for payment %s of %s", c.Amount, c.Ref, c.PaymentRef, c.AccountRef))
		}
		if len(named) == most {
			break
		}
	}
	if len(named) == 0 {
		return nil
	}
	return fmt.Errorf("the provider has charged what the database has forgotten, as one that was restored to an earlier moment has; give it back there: %s",
		strings.Join(named, "; "))
}

// known reports whether a charge is one of a payment here, or of nobody here.
func (s Sweeper) known(ctx context.Context, c payment.ChargeResult) (bool, error) {
	a, err1 := id.Parse[account.Account](c.AccountRef)
	p, err2 := id.Parse[payment.Payment](c.PaymentRef)
	if ours := err1 == nil && err2 == nil; !ours {
		return true, nil // not made by this service
	}
	_, err := s.DB.Payments().Payment(ctx, a, p)
	if !errors.Is(err, payment.ErrNotFound) {
		return true, err
	}
	_, err = s.DB.Accounts().Get(ctx, a)
	if errors.Is(err, account.ErrNotFound) {
		return true, nil // of another deployment, or forgotten with its account
	}
	return false, err
}
