package billing

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
)

// The lines of a final invoice keep which events are behind them. To read these takes longer, for a large account, than its
// usage can wait. So they are read while nobody holds the account; that they are still all is told, once it is held, by
// the version of their total.

// fewEvents is how many events of a total are read while their account is held.
const fewEvents = 10_000

// readAhead is how often events are read ahead that have changed again when the account is held. Then they are read
// with the account held, since usage that keeps coming must not keep its bill from being made.
const readAhead = 3

// behind names the events of a meter in a period.
type behind struct {
	meter string
	start int64 // of the period, in microseconds
}

// readings is what has been read ahead.
type readings struct {
	read map[behind]reading
	held bool // what is missing is read with the account held
}

// A reading is what there was to see of events when their total had a version.
type reading struct {
	version  int64
	evidence pricing.Evidence
}

// unreadError ends a transaction that lacks a reading. It is never seen outside.
type unreadError struct{ of []unread }

type unread struct {
	meter string
	period.Bounds
}

func (unreadError) Error() string { return "events are to be read ahead" }

// readingAhead runs do, which makes invoices final in a transaction that holds the account, and reads ahead for it what it
// lacks. do may run several times, of which the last one may commit.
func (c *Core) readingAhead(ctx context.Context, a account.ID, do func(seen readings) error) error {
	seen := readings{read: map[behind]reading{}}
	for range readAhead {
		err := do(seen)
		lacks, ok := errors.AsType[unreadError](err)
		if !ok {
			return err
		}
		for _, u := range lacks.of {
			if err := c.readEvents(ctx, a, u, seen); err != nil {
				return err
			}
		}
	}
	seen.held = true
	return do(seen)
}

// readEvents reads events ahead. The total's version comes first: what comes in from then on changes it.
func (c *Core) readEvents(ctx context.Context, a account.ID, u unread, seen readings) error {
	totals, err := c.DB.Usage().Totals(ctx, a, u.Start, false)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(totals, func(t metering.Total) bool { return t.Meter == u.meter })
	if at < 0 {
		return nil
	}
	e, err := c.evidence(ctx, c.DB, a, u.meter, u.Bounds)
	seen.read[behind{u.meter, u.Start.UnixMicro()}] = reading{totals[at].Version, e}
	return err
}

// evidenceFor gathers what the lines of a bill keep of the events behind them. The account is held. It returns unreadError
// where it lacks a reading.
func (c *Core) evidenceFor(ctx context.Context, tx Tx, a account.ID, p subscription.Period, r rated, seen readings) (map[behind]pricing.Evidence, error) {
	out := map[behind]pricing.Evidence{}
	var lacks unreadError
	gather := func(b period.Bounds, totals []metering.Total, lines []pricing.Line) error {
		for _, t := range totals {
			if !slices.ContainsFunc(lines, func(l pricing.Line) bool { return string(l.Meter) == t.Meter }) {
				continue
			}
			of := behind{t.Meter, b.Start.UnixMicro()}
			if ahead, ok := seen.read[of]; ok && ahead.version == t.Version {
				out[of] = ahead.evidence
				continue
			}
			if t.Events > int64(cmp.Or(c.few, fewEvents)) && !seen.held {
				lacks.of = append(lacks.of, unread{t.Meter, b})
				continue
			}
			e, err := c.evidence(ctx, tx, a, t.Meter, b)
			if err != nil {
				return err
			}
			out[of] = e
		}
		return nil
	}
	if err := gather(p.Bounds, r.totals, r.bill.Lines); err != nil {
		return nil, err
	}
	for _, adj := range r.adjusted {
		if err := gather(adj.period.Bounds, adj.totals, adj.lines); err != nil {
			return nil, err
		}
	}
	if len(lacks.of) > 0 {
		return nil, lacks
	}
	return out, nil
}

// evidence reads the events of a meter in a period, so far as they have come by now.
func (c *Core) evidence(ctx context.Context, tx Tx, a account.ID, meter string, b period.Bounds) (pricing.Evidence, error) {
	by := c.Clock()
	d, err := tx.Usage().Digest(ctx, a, meter, b, by)
	return evidenceOf(d, by), err
}

// evidenceOf is what a line keeps of a digest.
func evidenceOf(d metering.Digest, by time.Time) pricing.Evidence {
	if d.Events == 0 {
		return pricing.Evidence{}
	}
	return pricing.Evidence{
		Events: d.Events, First: d.First.Format(time.RFC3339Nano), Last: d.Last.Format(time.RFC3339Nano), Hash: hex.EncodeToString(d.Hash[:]),
		AsOf: by.Format(time.RFC3339Nano),
	}
}
