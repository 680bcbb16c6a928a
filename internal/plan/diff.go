package plan

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// Change is one difference between two versions. Before or After is empty where there was or will be
// nothing.
type Change struct {
	Pointer string `json:"pointer"` // into the version: "#/charges/voice/prices/USD/tiers/0/unit_price"
	Before  string `json:"before,omitempty"`
	After   string `json:"after,omitempty"`
}

// Diff lists how b's terms differ from a's, in the order of their places. Charges are told apart by
// code, limits by meter, prices by currency; so a charge that only moved has not changed.
func Diff(a, b Version) []Change {
	a.Number, b.Number = 0, 0
	var out []Change
	diff(&out, "#", tree(a), tree(b))
	return out
}

// DiffMeters lists how the meters that a catalogue names differ from those that there are. Others stay as they are.
func DiffMeters(are, named []Meter) []Change {
	before, after := map[MeterCode]Meter{}, map[MeterCode]Meter{}
	for i := range named {
		after[named[i].Code] = named[i]
	}
	for i := range are {
		if _, ok := after[are[i].Code]; ok {
			before[are[i].Code] = are[i]
		}
	}
	var out []Change
	diff(&out, "#/meters", tree(before), tree(after))
	return out
}

// tree returns a version or meters as plain values, with lists that have names turned into mappings.
func tree(v any) any {
	b, err := json.Marshal(v)
	if err != nil {
		panic("plan: terms that are no JSON: " + err.Error())
	}
	var t any
	if err := json.Unmarshal(b, &t); err != nil {
		panic("plan: " + err.Error())
	}
	return named(t)
}

// named turns a list of mappings into a mapping by the name that each carries, if all do.
func named(t any) any {
	switch t := t.(type) {
	case map[string]any:
		for k, v := range t {
			t[k] = named(v)
		}
	case []any:
		for i, v := range t {
			t[i] = named(v)
		}
		for _, key := range []string{"code", "currency", "meter", "unit"} {
			if m, ok := byName(t, key); ok {
				return m
			}
		}
	}
	return t
}

func byName(list []any, key string) (map[string]any, bool) {
	m := make(map[string]any, len(list))
	for _, v := range list {
		o, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		name, ok := o[key].(string)
		if !ok || m[name] != nil {
			return nil, false
		}
		m[name] = o
	}
	return m, len(m) > 0
}

func diff(out *[]Change, ptr string, a, b any) {
	if am, ok := a.(map[string]any); ok {
		if bm, ok := b.(map[string]any); ok {
			keys := slices.Sorted(maps.Keys(am))
			for _, k := range slices.Sorted(maps.Keys(bm)) {
				if _, both := am[k]; !both {
					keys = append(keys, k)
				}
			}
			slices.Sort(keys)
			for _, k := range keys {
				diff(out, at(ptr, k), am[k], bm[k])
			}
			return
		}
	}
	if al, ok := a.([]any); ok {
		if bl, ok := b.([]any); ok {
			for i := range max(len(al), len(bl)) {
				diff(out, at(ptr, strconv.Itoa(i)), element(al, i), element(bl, i))
			}
			return
		}
	}
	if before, after := plain(a), plain(b); before != after {
		*out = append(*out, Change{Pointer: ptr, Before: before, After: after})
	}
}

func element(list []any, i int) any {
	if i < len(list) {
		return list[i]
	}
	return nil
}

// plain writes a value: text without quotes, everything else as JSON.
func plain(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	b, err := json.Marshal(v)
	if err != nil {
		return ""
	}
	return string(b)
}
