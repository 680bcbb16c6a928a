package openapi

import "maps"

// The documents that the operator writes: catalogues and contracts. They come as YAML or JSON and are
// read by internal/plan, whose form is kept in files; so their schemas are written here by hand.

func catalogueBody() object {
	return documentBody(documentOf([]string{"meters", "plans"}, object{
		"source":     text("Where the price list was published"),
		"currencies": listOf(currency(), "The plans' currencies, unless a plan states its own"),
		"meters": listOf(documentOf([]string{"code", "unit"}, object{
			"code": code(), "name": text(""), "unit": text("In the singular: second"),
			"aggregation": oneOf("sum", "count", "max", "last", "unique"),
			"dimensions":  listOf(code(), "Event attributes that usage is kept apart by; at most 5"),
			"series_cap":  object{"type": "integer", "minimum": 1, "maximum": 100_000},
			"units":       object{"type": "object", "additionalProperties": object{"type": "integer", "minimum": 1}, "description": "Larger units that prices may be quoted in, as multiples of the unit"},
			"rounding":    documentOf(nil, object{"first": decimal(""), "step": decimal("")}),
			"reserved":    object{"type": "boolean"},
		}), ""),
		"plans": listOf(documentOf([]string{"code"}, merged(termsOf(), object{
			"code": code(), "version": object{"type": "integer", "minimum": 1, "description": "Which version these terms are. A published version with other terms is refused; left out, other terms make a new version"},
			"name": text(""), "description": text(""), "requires_card": object{"type": "boolean"},
			"contact_sales": object{"type": "boolean"}, "interval": oneOf("month", "year"), "currencies": listOf(currency(), ""),
		})), "In the order of a pricing page"),
	}))
}

func contractBody() object {
	return documentBody(documentOf([]string{"plan", "reference"}, merged(termsOf(), object{
		"plan":       code(),
		"version":    object{"type": "integer", "minimum": 1, "description": "The version that the contract overrides; left out, the one on sale"},
		"reference":  text("The number on the paper"),
		"currencies": listOf(currency(), "Left out: the version's, or the account's where it has none"),
		"start":      object{"type": "string", "format": "date-time", "description": "The contract holds from the first period that begins here or later; left out, from the running period"},
		"end":        object{"type": "string", "format": "date-time", "description": "The last period under the contract begins before this; left out, until further notice"},
		"then":       object{"type": "string", "description": "The plan that the account goes to when the contract ends; left out, the one that it is on now"},
		"unlimited":  listOf(code(), "Meters whose limits fall away"),
		"commitment": documentOf([]string{"steps"}, object{
			"term":         object{"type": "boolean", "description": "A step's sum is for the whole time to the next step or the end of the contract, with one true-up there, and not for each period"},
			"overage_rate": decimal("What usage beyond the commitment costs, in percent of the price; per period only"),
			"steps": listOf(documentOf([]string{"from", "sums"}, object{
				"from": object{"type": "string", "format": "date-time"}, "sums": sums(""),
			}), "A ramp: each holds until the next"),
		}),
	})))
}

// termsOf is what a plan and a contract have in common.
func termsOf() object {
	tier := documentOf(nil, object{"from": decimal(""), "up_to": decimal("Left out in the last tier"), "unit_price": decimal(""), "flat": decimal("")})
	price := documentOf([]string{"model"}, object{
		"model": oneOf("per_unit", "package", "graduated", "volume"), "unit_price": decimal(""), "package": decimal(""),
		"tiers": listOf(tier, ""), "minimum": decimal(""), "maximum": decimal(""),
	})
	charge := documentOf(nil, object{
		"code": code(), "name": text(""), "meter": code(),
		"match":    object{"type": "object", "additionalProperties": object{"type": "string"}},
		"per":      text("The unit that the prices and quantities of this charge are quoted in"),
		"step":     decimal("The period's quantity is rounded up to a multiple of this"),
		"included": decimal("The allowance"),
		"prices":   object{"type": "object", "additionalProperties": price, "description": "By currency"},
		"percent":  documentOf([]string{"rate"}, object{"rate": decimal("In percent"), "of": listOf(code(), "")}),
	})
	return object{
		"fee":     documentOf([]string{"prices"}, object{"name": text(""), "prices": sums("")}),
		"credit":  sums("Usage that the fee covers, per period"),
		"minimum": sums("The least that usage is billed at, per period"),
		"charges": listOf(charge, ""),
		"limits": listOf(documentOf([]string{"meter", "quantity"}, object{
			"meter": code(), "quantity": decimal(""), "unit": text(""), "mode": oneOf("hard", "soft"),
		}), ""),
	}
}

func documentBody(schema object) object {
	schema["description"] = "Sums are in major units. Numbers may be written as numbers or as strings; they are read as they are written, never as floats."
	return object{
		"application/json": object{"schema": schema},
		"application/yaml": object{"schema": object{"type": "string", "description": "The same document as YAML"}},
	}
}

func documentOf(required []string, properties object) object {
	out := object{"type": "object", "additionalProperties": false, "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

func merged(a, b object) object {
	maps.Copy(a, b)
	return a
}

func listOf(item object, description string) object {
	return described(object{"type": "array", "maxItems": 500, "items": item}, description)
}

func sums(description string) object {
	return described(object{"type": "object", "additionalProperties": decimal("")}, description)
}

func decimal(description string) object {
	return described(object{"anyOf": []any{object{"type": "string", "format": "decimal"}, object{"type": "number", "minimum": 0}}}, description)
}

func text(description string) object {
	return described(object{"type": "string", "maxLength": 500}, description)
}

func oneOf(values ...any) object { return object{"type": "string", "enum": values} }

func code() object { return object{"type": "string", "pattern": "^[a-z][a-z0-9_]{0,62}$"} }

func currency() object { return object{"type": "string", "pattern": "^[A-Z]{3}$"} }

func described(o object, description string) object {
	if description != "" {
		o["description"] = description
	}
	return o
}
