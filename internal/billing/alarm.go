package billing

import (
	"context"
	"sync/atomic"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/payment"
)

// Alarm tells the operator of money whose fate has been unknown for longer than Policy.AlarmAfter, and of what is
// parked: in the log when there is more of it than before, and in numbers for whoever watches the service. Every
// replica tells for itself. It is safe for concurrent use.
type Alarm struct {
	*Core
	last atomic.Pointer[payment.Overdue]
}

// Look counts what is overdue now.
func (a *Alarm) Look(ctx context.Context) (err error) {
	defer errs.Wrap(&err, "look for what is overdue")
	now, err := a.DB.Payments().Overdue(ctx, a.Clock().Add(-a.Policy.AlarmAfter))
	if err != nil {
		return err
	}
	before := a.Last()
	a.last.Store(&now)
	if now.Payments > before.Payments || now.Refunds > before.Refunds || now.Cards > before.Cards || now.Events > before.Events {
		a.Log.ErrorContext(ctx, "the provider's word is overdue; it is asked on and on, and nothing is charged twice", "payments", now.Payments,
			"refunds", now.Refunds, "cards", now.Cards, "events", now.Events, "oldest", now.Oldest)
	}
	if now.Parked > before.Parked {
		a.Log.ErrorContext(ctx, "payments are parked until a person decides", "parked", now.Parked)
	}
	return nil
}

// Last is what Look found last.
func (a *Alarm) Last() payment.Overdue {
	if last := a.last.Load(); last != nil {
		return *last
	}
	return payment.Overdue{}
}
