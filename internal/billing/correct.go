package billing

import (
	"context"

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
		acct, err := tx.Accounts().Get(ctx, asked.Account)
		if err != nil {
			return metering.Correction{}, err
		}
		done := wanted
		done.ID, done.Account, done.Actor, done.At = id.New[metering.Correction](), asked.Account, asked.Actor, acct.Now(c.Clock())
		meter, err := c.meterOf(ctx, tx, done)
		if err != nil {
			return done, err
		}
		if done, err = tx.Usage().Correct(ctx, done, meter); err != nil {
			return done, err
		}
		return done, tx.Accounts().Audit(ctx, asked.Account, account.Entry{
			Actor: asked.Actor, Action: "usage." + string(done.Kind), Reason: done.Reason, At: done.At,
		})
	})
}

// meterOf returns the meter of the event that is to be corrected.
func (c Corrections) meterOf(ctx context.Context, tx Tx, x metering.Correction) (*metering.Meter, error) {
	found, err := tx.Usage().Events(ctx, x.Account, metering.Filter{Source: x.Source, ID: x.EventID}, page.Request{Limit: 1})
	if err != nil {
		return nil, err
	}
	if len(found.Data) == 0 {
		fates, err := tx.Usage().Fates(ctx, x.Account, x.Source, []string{x.EventID})
		if err != nil {
			return nil, err
		}
		if fates[x.EventID].Stored {
			return nil, metering.ErrEventGone
		}
		return nil, metering.ErrEventNotFound
	}
	m := c.Catalogue.Meter(found.Data[0].Meter)
	if m == nil {
		return nil, metering.ErrUnknownMeter
	}
	return m, nil
}
