package openapi

import "github.com/accrue-billing/accrue/api/route"

// Bodies that come in more forms than an annotation can say.

func usageBodies() object {
	ref := func(name string) object { return object{"$ref": "#/components/schemas/" + name} }
	return object{
		"application/json": object{"schema": object{
			"anyOf":       []any{ref("UsageEvents"), ref("UsageEvent"), cloudEventData()},
			"description": "A batch; or one event; or, where the attributes of a CloudEvent stand in `ce-` headers (binary mode), its data.",
		}},
		"application/cloudevents+json":       object{"schema": cloudEvent()},
		"application/cloudevents-batch+json": object{"schema": object{"type": "array", "maxItems": 10_000, "items": cloudEvent()}},
		"application/x-ndjson": object{"schema": object{
			"type": "string", "description": "One UsageEvent a line. A line that is not JSON is a rejected event.",
		}},
	}
}

// cloudEvent is a CloudEvent 1.0 in structured mode.
func cloudEvent() object {
	text := func(description string) object {
		return object{"type": "string", "minLength": 1, "maxLength": 255, "description": description}
	}
	return object{
		"type":        "object",
		"description": "A CloudEvent 1.0. Extension attributes are let pass.",
		"required":    []any{"specversion", "id", "source", "type", "time"},
		"properties": object{
			"specversion":     object{"type": "string", "const": "1.0"},
			"id":              text("With source, the event's identity for ever"),
			"source":          text("Who reports"),
			"type":            text("The meter"),
			"subject":         object{"type": "string", "description": "The account; for platform services only"},
			"time":            object{"type": "string", "format": "date-time"},
			"datacontenttype": object{"type": "string"},
			"data":            cloudEventData(),
			"data_base64":     object{"type": "string", "description": "The data in base64, instead of data"},
		},
	}
}

func cloudEventData() object {
	return object{
		"type":                 "object",
		"additionalProperties": false,
		"properties": object{
			"quantity": object{
				"description": "A decimal, best in a string, in the meter's unit",
				"anyOf":       []any{object{"type": "string", "format": "decimal"}, object{"type": "number", "minimum": 0}},
			},
			"value":      object{"type": "string", "maxLength": 255},
			"dimensions": object{"type": "object", "additionalProperties": object{"type": "string"}, "maxProperties": 5},
		},
	}
}

// bodyOf returns the hand-written content of an operation's body, and nil where the annotation says
// it all.
func bodyOf(r route.Route) object {
	switch r.Name() {
	case "POST /v1/usage/events":
		return usageBodies()
	case "POST /v1/admin/plans", "POST /v1/admin/plans/preview":
		return catalogueBody()
	case "POST /v1/admin/contracts", "POST /v1/admin/contracts/preview":
		return contractBody()
	}
	return nil
}
