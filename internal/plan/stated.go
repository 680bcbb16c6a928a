package plan

import (
	"slices"
	"strings"

	"github.com/accrue-billing/accrue/internal/errs"
)

// statedFaults says what is wrong with an offer that states its version, given the plan's versions, the
// latest first: a version that is published has the terms that it has.
func statedFaults(i int, o *Offer, versions []Version) []errs.Field {
	stated := o.Version.Number
	if stated == 0 {
		return nil
	}
	place, latest := "#/plans/"+itoa(i), 0
	if len(versions) > 0 {
		latest = versions[0].Number
	}
	j := slices.IndexFunc(versions, func(v Version) bool { return v.Number == stated })
	switch {
	case j < 0 && stated == latest+1:
		return nil // the next one
	case j < 0:
		return []errs.Field{{
			Pointer: place + "/version", Code: "version_gap",
			Detail: "The next version of " + string(o.Plan.Code) + " is " + itoa(latest+1) + ".",
		}}
	}
	changes := Diff(versions[j], o.Version)
	if len(changes) == 0 && (j > 0 || !versions[j].ArchivedAt.IsZero()) {
		return []errs.Field{{
			Pointer: place + "/version", Code: "version_superseded",
			Detail: "Version " + itoa(stated) + " is no longer sold; state " + itoa(latest+1) + ", or none, to sell its terms again.",
		}}
	}
	out := make([]errs.Field, 0, len(changes))
	for _, c := range changes {
		out = append(out, errs.Field{
			Pointer: inDocument(place, o, c.Pointer), Code: "version_immutable",
			Detail: "Version " + itoa(stated) + " is published with " + orNone(c.Before) + " here and cannot change; state " +
				itoa(latest+1) + ", or none, to publish a new version.",
		})
	}
	return out
}

// inDocument turns the place of a change in a version into the place in the document that states it.
func inDocument(place string, o *Offer, pointer string) string {
	steps := strings.Split(strings.TrimPrefix(pointer, "#/"), "/")
	index := func(n int) bool {
		if n < 0 {
			steps = steps[:1] // the document has left the entry out
			return false
		}
		steps[1] = itoa(n)
		return true
	}
	switch {
	case len(steps) > 1 && steps[0] == "charges":
		ok := index(slices.IndexFunc(o.Version.Charges, func(c Charge) bool { return at("", c.Code) == "/"+steps[1] }))
		if ok && len(steps) > 2 && steps[2] == "per" {
			steps = steps[:3] // a unit's name, which stands for its size
		}
	case len(steps) > 1 && steps[0] == "limits":
		index(slices.IndexFunc(o.Version.Limits, func(l Limit) bool { return at("", string(l.Meter)) == "/"+steps[1] }))
	}
	if last := len(steps) - 1; steps[last] == "amount" {
		steps = steps[:last] // a sum is written without its currency
	}
	return place + "/" + strings.Join(steps, "/")
}

func orNone(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}
