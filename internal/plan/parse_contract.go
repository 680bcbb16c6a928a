package plan

import (
	"slices"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/accrue-billing/accrue/pkg/money"
)

// ParseContract reads a contract on a version, from YAML or JSON, as strictly as ParseCatalogue does
// and with its errors. A contract may be in other currencies than the version where it prices
// everything anew.
func ParseContract(b []byte, meters []Meter, v Version) (Contract, error) {
	root, err := parseDocument(b)
	if err != nil {
		return Contract{}, err
	}
	r := &terms{meters: meters, currencies: v.Currencies, base: v.Charges}
	c := r.contract(item{root, "#"}, v)
	if err := r.err(); err != nil {
		return Contract{}, err
	}
	return c, nil
}

// ContractTarget returns the plan that a contract's document names and the version, or 0 where it leaves
// that to who reads it. ParseContract takes no notice of either: it is given the version.
func ContractTarget(b []byte) (Code, int, error) {
	root, err := parseDocument(b)
	if err != nil {
		return "", 0, err
	}
	var r reader
	it := item{root, "#"}
	keys, vals, ok := r.entries(it)
	var code Code
	number := 0
	if ok {
		o := object{r: &r, ptr: it.ptr, vals: map[string]ast.Node{}}
		for i, k := range keys {
			o.vals[k] = vals[i].node
		}
		o.require("plan")
		code, number = Code(o.code("plan")), int(o.integer("version", 0, maxVersion))
	}
	return code, number, r.err()
}

func (r *terms) contract(it item, v Version) Contract {
	c := Contract{Plan: v.Plan, Version: v.Number}
	o, ok := r.object(it, "plan", "version", "reference", "currencies", "start", "end", "fee", "credit", "minimum", "charges", "limits", "unlimited", "commitment", "then")
	if !ok {
		return c
	}
	o.require("reference")
	if o.has("commitment") {
		o.require("start") // its steps are told from there
	}
	c.Reference, c.Then = o.text("reference"), Code(o.code("then"))
	c.Start, c.End = o.time("start"), o.time("end")
	if !c.End.IsZero() && !c.Start.Before(c.End) {
		r.fault(at(o.ptr, "end"), "end", "The contract ends before it begins.")
	}
	if o.has("currencies") {
		r.currencies = r.currencyList(o)
	}
	c.Fee, c.Credit, c.Minimum = r.fee(o), r.sums(o, "credit"), r.sums(o, "minimum")
	c.Charges = r.charges(o)
	c.Limits = r.limits(o)
	for _, u := range o.list("unlimited") {
		code := MeterCode(r.text(u))
		if _, ok := r.meter(code); !ok {
			r.fault(u.ptr, "unknown_meter", "There is no such meter.")
			continue
		}
		if slices.Contains(c.Unlimited, code) || slices.ContainsFunc(c.Limits, func(l Limit) bool { return l.Meter == code }) {
			r.fault(u.ptr, "duplicate", "The contract says of this meter already what its limit is.")
		}
		c.Unlimited = append(c.Unlimited, code)
	}
	if o.has("commitment") {
		c.Commitment = r.commitment(o.at("commitment"), &c)
	}
	return c
}

func (r *terms) commitment(it item, c *Contract) *Commitment {
	o, ok := r.object(it, "steps", "term", "prepaid", "overage_rate")
	if !ok || !o.require("steps") {
		return nil
	}
	out := &Commitment{Term: o.boolean("term"), Prepaid: o.boolean("prepaid"), OverageRate: o.decimal("overage_rate")}
	if out.OverageRate.Cmp(money.DecimalFromInt(1000)) > 0 {
		r.fault(at(o.ptr, "overage_rate"), "rate", "A percentage is at most 1000.")
	}
	if out.Prepaid && out.Term {
		r.fault(at(o.ptr, "prepaid"), "prepaid", "What is paid ahead is not trued up: want one of term and prepaid.")
	}
	if (out.Term || out.Prepaid) && !out.OverageRate.IsZero() {
		r.fault(at(o.ptr, "overage_rate"), "overage", "Overage of its own price needs a commitment per period.")
	}
	if out.Term && c.End.IsZero() {
		r.fault(at(o.ptr, "term"), "term", "A commitment for a term needs a contract that ends.")
	}
	steps := o.list("steps")
	if len(steps) == 0 {
		r.fault(at(o.ptr, "steps"), "required", "There is no step.")
	}
	var before time.Time
	for i, s := range steps {
		so, ok := r.object(s, "from", "sums")
		if !ok {
			continue
		}
		so.require("from")
		so.require("sums")
		step := Step{From: so.time("from"), Sums: r.sums(so, "sums")}
		switch {
		case i == 0 && step.From.After(c.Start):
			r.fault(at(so.ptr, "from"), "step_gap", "The first step begins with the contract.")
		case i > 0 && !step.From.After(before):
			r.fault(at(so.ptr, "from"), "step_order", "A step must begin after the step before it.")
		case !c.End.IsZero() && !step.From.Before(c.End):
			r.fault(at(so.ptr, "from"), "step_late", "The step begins when the contract is over.")
		}
		before = step.From
		out.Steps = append(out.Steps, step)
	}
	return out
}

// time reads an instant of RFC 3339 and returns it in UTC.
func (o object) time(key string) time.Time {
	if !o.has(key) {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, o.text(key))
	if err != nil {
		o.r.fault(at(o.ptr, key), "time", "Want an instant as RFC 3339 writes it: 2026-01-31T00:00:00Z.")
		return time.Time{}
	}
	return t.UTC()
}
