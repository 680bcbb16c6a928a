package billing

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
)

// Corrections void and amend usage on record.
type Corrections struct {
	*Core
	Catalogue metering.Catalogue
}

// Correct changes what one stored event counts, and keeps who did it and why. Of a period whose
// invoice is final, the difference becomes an adjustment on the next one. The errors are account.ErrClosed and those
// declared beside metering.Correction.
func (c Corrections) Correct(ctx context.Context, asked Asked, wanted metering.Correction, render Renderer[metering.Correction]) (_ Result[metering.Correction], err error) {
	defer errs.Wrap(&err, "correct usage event of %s", asked.Account)
	return once(ctx, c.Core, asked, render, func(tx Tx) (metering.Correction, error) {
		acct, err := tx.Accounts().Lock(ctx, asked.Account)
		if err != nil {
			return metering.Correction{}, err
		}
		done := wanted
		done.ID, done.Account, done.Actor, done.At = id.New[metering.Correction](), asked.Account, asked.Actor, acct.Now(c.Clock())
		event, meter, err := c.eventOf(ctx, tx, done)
		if err != nil {
			return done, err
		}
		if done, err = tx.Usage().Correct(ctx, done, meter); err != nil {
			return done, err
		}
		if err := waiveAnew(ctx, tx, acct, done, meter, event.ReceivedAt); err != nil {
			return done, err
		}
		return done, tx.Accounts().Audit(ctx, asked.Account, account.Entry{
			Actor: asked.Actor, Action: "usage." + string(done.Kind), Reason: done.Reason, At: done.At,
			Detail: detail("correction", done.ID, "source", done.Source, "event", done.EventID, "meter", done.Meter, "before", done.Before, "after", done.After),
		})
	})
}

// waiveAnew keeps what was waived of the running period to what was counted before the plan had a price, as it stands
// after a correction: what was not used was not waived either.
func waiveAnew(ctx context.Context, tx Tx, acct account.Account, done metering.Correction, m *metering.Meter, received time.Time) error {
	if m.Aggregation != metering.Sum && m.Aggregation != metering.Count {
		return nil // what those come to does not follow from one event
	}
	sub, err := tx.Subscriptions().Lock(ctx, acct.ID)
	if err != nil {
		return err
	}
	over, noted := sub.Waived[m.Code]
	if !noted || !sub.Period.Start.Equal(done.Period) {
		return nil
	}
	var free time.Time // until when nothing was billed
	for _, h := range sub.Held {
		v, _, err := terms(ctx, tx, acct.ID, h.Terms, sub.Period.Start)
		if err != nil {
			return err
		}
		if !v.Priced() {
			free = h.Time.End
		}
	}
	if received.After(free) {
		return nil
	}
	sub.Waived[m.Code] = over.Add(done.After).Sub(done.Before)
	return tx.Subscriptions().Save(ctx, &sub)
}

// eventOf returns the event that is to be corrected, and its meter.
func (c Corrections) eventOf(ctx context.Context, tx Tx, x metering.Correction) (e metering.Record, m *metering.Meter, err error) {
	found, err := tx.Usage().Events(ctx, x.Account, metering.Filter{Source: x.Source, ID: x.EventID}, page.Request{Limit: 1})
	if err != nil {
		return e, nil, err
	}
	if len(found.Data) == 0 {
		fates, err := tx.Usage().Fates(ctx, x.Account, x.Source, []string{x.EventID})
		if err != nil {
			return e, nil, err
		}
		switch f := fates[x.EventID]; {
		case f.Voided:
			return e, nil, metering.ErrVoided
		case f.Stored:
			return e, nil, metering.ErrEventGone
		}
		return e, nil, metering.ErrEventNotFound
	}
	e = found.Data[0]
	if m = c.Catalogue.Meter(e.Meter); m == nil {
		return e, nil, metering.ErrUnknownMeter
	}
	return e, m, nil
}
