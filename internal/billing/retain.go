package billing

import (
	"context"
	"errors"
	"time"

	"github.com/accrue-billing/accrue/internal/errs"
)

// Retention removes what is kept for a time only: answers under an Idempotency-Key (idempotency.Kept), the provider's webhooks,
// attempts at cards and setups of which no card came. What it removes has nothing to say any more, so it may run twice and on several replicas at once.
type Retention struct {
	*Core
	// Events is how long a webhook is kept after it was processed. A provider that sends one again later is listened to
	// as if for the first time, which is harmless: it is asked what there is now.
	Events time.Duration
}

// MinEventRetention is how long a webhook is kept at the least: Stripe sends one again for three days by itself, and for
// thirty where somebody asks it to.
const MinEventRetention = 30 * 24 * time.Hour

const (
	// retentionShare is how long one kind may be removed at a time; what is left is removed with the next sweep.
	retentionShare = 5 * time.Second
	// attemptsKept is how long attempts at cards are kept: much longer than the window that bounds them, since a rule
	// for automatic top-ups asks whether the card was declined since the rule was paused.
	attemptsKept = 400 * 24 * time.Hour
	// setupsKept is how long after its end a setup of which no card came still says that it has expired.
	setupsKept = 30 * 24 * time.Hour
)

// Sweep removes what is old enough now.
func (r Retention) Sweep(ctx context.Context) (err error) {
	defer errs.Wrap(&err, "remove what is kept no longer")
	now := r.Clock()
	return errors.Join(
		r.remove(ctx, func(limit int) (int, error) { return r.DB.Idempotency().Expire(ctx, now, limit) }),
		r.remove(ctx, func(limit int) (int, error) { return r.DB.Payments().DropEvents(ctx, now.Add(-r.Events), limit) }),
		r.remove(ctx, func(limit int) (int, error) { return r.DB.Payments().DropAttempts(ctx, now.Add(-attemptsKept), limit) }),
		r.remove(ctx, func(limit int) (int, error) { return r.DB.Payments().DropSetups(ctx, now.Add(-setupsKept), limit) }))
}

// remove calls some until there is nothing left or its share is over. Each call is a transaction of its own.
func (r Retention) remove(ctx context.Context, some func(limit int) (int, error)) error {
	for over := r.Clock().Add(retentionShare); ; {
		n, err := some(batch)
		if err != nil || n < batch || ctx.Err() != nil || r.Clock().After(over) {
			return err
		}
	}
}
