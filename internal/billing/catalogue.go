package billing

import (
	"context"
	"sync/atomic"

	"github.com/accrue-billing/accrue/internal/account"
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

// LiveMeters are the meters of the catalogue as the database had them when they were read last: whoever
// counts usage goes by them, and a meter that was published is known after the next Refresh. It is safe
// for concurrent use. Construct it with NewLiveMeters.
type LiveMeters struct {
	core *Core
	now  atomic.Pointer[metering.Meters]
}

var _ metering.Catalogue = (*LiveMeters)(nil)

// NewLiveMeters reads the meters for the first time.
func NewLiveMeters(ctx context.Context, c *Core) (*LiveMeters, error) {
	l := &LiveMeters{core: c}
	return l, l.Refresh(ctx)
}

// Refresh reads the meters again.
func (l *LiveMeters) Refresh(ctx context.Context) (err error) {
	defer errs.Wrap(&err, "read meters")
	of, err := l.core.DB.Plans().Meters(ctx)
	if err != nil {
		return err
	}
	meters := Meters(of)
	l.now.Store(&meters)
	return nil
}

// Meter implements metering.Catalogue.
func (l *LiveMeters) Meter(code string) *metering.Meter { return l.now.Load().Meter(code) }

// Meters implements metering.Catalogue.
func (l *LiveMeters) Meters() []*metering.Meter { return l.now.Load().Meters() }

// Revisions are those of the store, told apart by the meters that this process knows as well: meters are only
// ever added, and what is answered lists all of them.
func (l *LiveMeters) Revisions(of account.Revisions) account.Revisions { return liveRevisions{of, l} }

type liveRevisions struct {
	account.Revisions
	meters *LiveMeters
}

func (r liveRevisions) Revision(ctx context.Context, a account.ID) (account.Revision, error) {
	n := len(r.meters.Meters()) // before the rest, as everything that an answer stands on
	rev, err := r.Revisions.Revision(ctx, a)
	rev.Meters = n
	return rev, err
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

// PublishOnce is Publish for an operator's request, answered once per key. It returns the effects with the
// accounts that stay where they are.
func (p Publisher) PublishOnce(ctx context.Context, asked Asked, c plan.Catalogue, render Renderer[[]PlanEffect]) (_ Result[[]PlanEffect], err error) {
	defer errs.Wrap(&err, "publish catalogue")
	return once(ctx, p.Core, asked, render, func(tx Tx) ([]PlanEffect, error) {
		at := p.Clock()
		done, err := plan.Apply(ctx, tx.Plans(), c, at)
		if err != nil {
			return nil, err
		}
		out, err := withAccounts(ctx, tx, done)
		if err != nil {
			return nil, err
		}
		type published struct {
			Plan    plan.Code `json:"plan"`
			Version int       `json:"version"`
			Before  int       `json:"before"`
		}
		var list []published
		for _, e := range done {
			if e.Before != e.After {
				list = append(list, published{e.Plan, e.After, e.Before})
			}
		}
		return out, tx.Accounts().Audit(ctx, account.ID{}, account.Entry{
			Actor: asked.Actor, Action: "catalogue.publish", Detail: detail("published", list), At: at,
		})
	})
}

// Preview says what Publish would do, on how many accounts, which stay where they are, and what their last
// months would have come to on the new terms.
func (p Publisher) Preview(ctx context.Context, c plan.Catalogue) ([]PlanEffect, error) {
	would, err := plan.Preview(ctx, p.DB.Plans(), c)
	if err != nil {
		return nil, err
	}
	out, err := withAccounts(ctx, p.DB, would)
	if err != nil {
		return nil, err
	}
	for i := range out {
		e := &out[i]
		if e.Before == e.After || len(e.Accounts) == 0 {
			continue
		}
		offer, _ := c.Offer(e.Plan)
		offer.Version.Number = e.After
		r, err := p.reprice(ctx, e.Plan, offer.Version, maxListed, maxPreviewed)
		if err != nil {
			return nil, err
		}
		e.IfMigrated = &r
	}
	return out, nil
}

// Bounds of one plan's preview: the accounts that it prices, and of these those that it lists, whose bill
// rises most.
const (
	maxPreviewed = 1000
	maxListed    = 20
)

func withAccounts(ctx context.Context, tx Tx, effects []plan.Effect) ([]PlanEffect, error) {
	out := make([]PlanEffect, 0, len(effects))
	for _, e := range effects {
		on, err := tx.Subscriptions().OnPlan(ctx, e.Plan)
		if err != nil {
			return nil, err
		}
		out = append(out, PlanEffect{Effect: e, Accounts: on})
	}
	return out, nil
}

// PlanEffect is what publishing does to a plan, with the number of accounts on each of its versions.
type PlanEffect struct {
	plan.Effect
	Accounts map[int]int
	// IfMigrated is what the accounts' last months would have come to on the new terms; nil where the
	// terms stay or nobody is on the plan.
	IfMigrated *Repricing
}

// Archive takes a version off sale, answered once per key. Accounts on it stay. The last version on sale
// of the plan that new accounts begin with is ErrStartPlan.
func (p Publisher) Archive(ctx context.Context, asked Asked, code plan.Code, number int, reason string, render Renderer[plan.Version]) (_ Result[plan.Version], err error) {
	defer errs.Wrap(&err, "archive version %d of %s", number, code)
	return once(ctx, p.Core, asked, render, func(tx Tx) (plan.Version, error) {
		if _, err := tx.Plans().Plan(ctx, code); err != nil {
			return plan.Version{}, err
		}
		at := p.Clock()
		if err := tx.Plans().Archive(ctx, code, number, at); err != nil {
			return plan.Version{}, err
		}
		if string(code) == p.Policy.StartPlan {
			if _, err := tx.Plans().Current(ctx, code); errs.KindOf(err) == errs.NotFound {
				return plan.Version{}, ErrStartPlan
			} else if err != nil {
				return plan.Version{}, err
			}
		}
		if err := tx.Accounts().Audit(ctx, account.ID{}, account.Entry{
			Actor: asked.Actor, Action: "plan.archive", Reason: reason, Detail: detail("plan", code, "version", number), At: at,
		}); err != nil {
			return plan.Version{}, err
		}
		return tx.Plans().Version(ctx, code, number)
	})
}

// ErrStartPlan says that new accounts would have nothing to begin with.
var ErrStartPlan = errs.New(errs.Conflict, "start_plan", "New accounts begin on this plan; publish another version of it before the last one is archived.")
