package plan

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/accrue-billing/accrue/internal/errs"
)

// Effect is what applying a catalogue does, or would do, to one plan.
type Effect struct {
	Plan    Code     `json:"plan"`
	Before  int      `json:"before"` // the number of the version on sale; 0: none
	After   int      `json:"after"`  // the number of the version that would be
	Changes []Change `json:"changes,omitempty"`
}

// Preview says what Apply would do, and does nothing. It fails as Apply does.
func Preview(ctx context.Context, s Store, c Catalogue) (_ []Effect, err error) {
	defer errs.Wrap(&err, "preview catalogue")
	meters, err := s.Meters(ctx)
	if err != nil {
		return nil, err
	}
	var faults []errs.Field
	for i := range c.Meters {
		if j := slices.IndexFunc(meters, func(old Meter) bool { return old.Code == c.Meters[i].Code }); j >= 0 {
			faults = append(faults, meterFaults("#/meters/"+itoa(i), meters[j], c.Meters[i])...)
		}
	}
	if len(faults) > 0 {
		return nil, faulty(ErrMeterChanged, faults)
	}
	effects := make([]Effect, 0, len(c.Offers))
	for i := range c.Offers {
		o := &c.Offers[i]
		e := Effect{Plan: o.Plan.Code, After: 1}
		versions, err := s.Versions(ctx, o.Plan.Code)
		if err != nil && errs.KindOf(err) != errs.NotFound {
			return nil, err
		}
		faults = append(faults, statedFaults(i, o, versions)...)
		if len(versions) > 0 {
			e.After = versions[0].Number + 1
			if latest := versions[0]; latest.ArchivedAt.IsZero() {
				e.Before, e.Changes = latest.Number, Diff(latest, o.Version)
				if latest.Hash == o.Version.ContentHash() {
					e.After = latest.Number
				}
			}
		}
		effects = append(effects, e)
	}
	if len(faults) > 0 {
		return nil, faulty(ErrImmutable, faults)
	}
	return effects, nil
}

func faulty(err *errs.Error, faults []errs.Field) error {
	e := *err
	e.Fields = faults
	return &e
}

// SameMeasure reports whether usage that was recorded under the old definition of a meter means the same under the
// new one.
func SameMeasure(old, m Meter) bool { return old.Code == m.Code && len(meterFaults("", old, m)) == 0 }

// meterFaults names what a document would change of a meter that is known, so that it would measure
// something else.
func meterFaults(place string, old, m Meter) (out []errs.Field) {
	fault := func(key, was string) {
		out = append(out, errs.Field{
			Pointer: place + "/" + key, Code: ErrMeterChanged.Code,
			Detail: "The meter " + string(old.Code) + " has " + was + " here, and usage is recorded by it; add another meter.",
		})
	}
	if m.Unit != old.Unit {
		fault("unit", old.Unit)
	}
	if m.Aggregation != old.Aggregation {
		fault("aggregation", string(old.Aggregation))
	}
	if m.Reserved != old.Reserved {
		fault("reserved", strconv.FormatBool(old.Reserved))
	}
	if !addsTo(m.Dimensions, old.Dimensions) {
		fault("dimensions", "["+strings.Join(old.Dimensions, ", ")+"]")
	}
	return out
}

// addsTo reports whether a meter's dimensions may become these: more of them, as what was recorded keeps its series
// and lacks the new ones. None may go, since prices of old versions match by them; and a meter without any stays so,
// since its series are not kept apart from its total.
func addsTo(dimensions, old []string) bool {
	missing := slices.ContainsFunc(old, func(d string) bool { return !slices.Contains(dimensions, d) })
	return !missing && (len(old) > 0 || len(dimensions) == 0)
}

// Apply writes a catalogue to the store: meters first, then every plan, with a new version where the
// terms differ. Applying the same catalogue twice changes nothing. Plans that the catalogue does not
// name stay as they are; take them off sale with Store.Archive. Run it in one transaction, so that
// a catalogue is applied whole or not at all.
func Apply(ctx context.Context, s Store, c Catalogue, at time.Time) (_ []Effect, err error) {
	defer errs.Wrap(&err, "apply catalogue")
	effects, err := Preview(ctx, s, c)
	if err != nil {
		return nil, err
	}
	if err := s.PutMeters(ctx, c.Meters); err != nil {
		return nil, err
	}
	for i := range c.Offers {
		stated := c.Offers[i].Version.Number
		v, _, err := s.Publish(ctx, c.Offers[i].Plan, c.Offers[i].Version, at)
		if err != nil {
			return nil, err
		}
		if stated != 0 && v.Number != stated { // another publisher was quicker
			return nil, ErrVersionTaken
		}
		effects[i].After = v.Number
	}
	return effects, nil
}
