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

// Publish puts a catalogue that has been validated on sale, whole or not at all: a new version of every
// plan whose terms have changed. Accounts stay on the versions that they bought. Publishing the same
// catalogue again changes nothing. It returns what it did to each plan.
func (p Publisher) Publish(ctx context.Context, c plan.Catalogue) (done []plan.Effect, err error) {
	defer errs.Wrap(&err, "publish catalogue")
	err = p.DB.InTx(ctx, func(tx Tx) error {
		var err error
		done, err = plan.Apply(ctx, tx.Plans(), c, p.Clock())
		return err
	})
	return done, err
}

// Preview says what Publish would do, and to how many accounts: they stay where they are.
func (p Publisher) Preview(ctx context.Context, c plan.Catalogue) ([]PlanEffect, error) {
	would, err := plan.Preview(ctx, p.DB.Plans(), c)
	if err != nil {
		return nil, err
	}
	out := make([]PlanEffect, 0, len(would))
	for _, e := range would {
		on, err := p.DB.Subscriptions().OnPlan(ctx, e.Plan)
		if err != nil {
			return nil, err
		}
		out = append(out, PlanEffect{e, on})
	}
	return out, nil
}

// PlanEffect is what publishing does to a plan, with the number of accounts on each of its versions.
type PlanEffect struct {
	plan.Effect
	Accounts map[int]int
}
