package billing

import (
	"context"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/plan"
)

// Meters turns the catalogue's meters into those that usage is counted by.
func Meters(of []plan.Meter) metering.Meters {
	out := make(metering.Meters, 0, len(of))
	for _, m := range of {
		out = append(out, &metering.Meter{
			Code: string(m.Code), Unit: m.Unit, Aggregation: metering.Aggregation(m.Aggregation), Dimensions: m.Dimensions,
			SeriesCap: m.SeriesCap, First: m.Rounding.First, Step: m.Rounding.Step, Reserved: m.Reserved,
		})
	}
	return out
}

// Publisher puts catalogues on sale.
type Publisher struct{ *Core }

// Publish writes a catalogue that has been validated: its meters, its plans, and a new version of every
// plan whose terms have changed. Accounts stay on the versions that they bought. Publishing the same
// catalogue again changes nothing. It returns the versions that are new.
func (p Publisher) Publish(ctx context.Context, c plan.Catalogue) (fresh []plan.Version, err error) {
	defer errs.Wrap(&err, "publish catalogue")
	err = p.DB.InTx(ctx, func(tx Tx) error {
		fresh = nil
		if err := tx.Plans().PutMeters(ctx, c.Meters); err != nil {
			return err
		}
		for _, o := range c.Offers {
			v, isNew, err := tx.Plans().Publish(ctx, o.Plan, o.Version, p.Clock())
			if err != nil {
				return err
			}
			if isNew {
				fresh = append(fresh, v)
			}
		}
		return nil
	})
	return fresh, err
}
