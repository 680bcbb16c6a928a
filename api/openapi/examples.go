package openapi

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Examples are values by the name of their schema or response, or by an operation and its status, and then by a name of
// their own.
type Examples map[string]map[string]any

// add gives a body and the answers of an operation examples. An answer in JSON without one is an error: who reads
// the document wants to see it.
func (all Examples) add(op object) error {
	id, _ := op["operationId"].(string)
	body, _ := op["requestBody"].(object)
	if m, ok := jsonOf(body); ok {
		all.give(m, id, schemaOf(m))
	}
	responses := child(op, "responses")
	for code, v := range responses {
		resp, _ := v.(object)
		if m, ok := jsonOf(resp); ok && !all.give(m, id+" "+code, schemaOf(m)) {
			return fmt.Errorf("answer %s has no example", code)
		}
		if m, ok := child(resp, "content")["application/problem+json"].(object); ok {
			all.give(m, id+" "+code)
		}
		if len(child(resp, "content")) == 0 {
			delete(resp, "content")
		}
	}
	return nil
}

// give takes the first name that there are examples for. A page of a list that has none of its own has one of its records.
func (all Examples) give(media object, names ...string) bool {
	for _, name := range names {
		values := all[name]
		if of, ok := strings.CutPrefix(name, "Page-"); ok && values == nil {
			for _, record := range slices.Sorted(maps.Keys(all[of])) {
				values = map[string]any{"example": object{"data": []any{all[of][record]}, "has_more": false, "next_cursor": nil}}
			}
		}
		switch {
		case len(values) == 1:
			for _, v := range values {
				media["example"] = v
			}
			return true
		case len(values) > 1:
			named := object{}
			for k, v := range values {
				named[k] = object{"value": v}
			}
			media["examples"] = named
			return true
		}
	}
	return false
}

func jsonOf(of object) (object, bool) {
	content, _ := of["content"].(object)
	m, ok := content["application/json"].(object)
	return m, ok
}

func schemaOf(media object) string {
	s, _ := media["schema"].(object)
	ref, _ := s["$ref"].(string)
	return strings.TrimPrefix(ref, "#/components/schemas/")
}
