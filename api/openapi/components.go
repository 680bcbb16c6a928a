package openapi

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/accrue-billing/accrue/internal/auth"
)

// tagWords describes the groups of operations, in the order of the documentation.
var tagWords = [][2]string{
	{"plans", "What can be bought, and what it would cost"},
	{"overview", "The whole Billing page in one read"},
	{"account", "The account and whom its invoices are made out to"},
	{"usage", "Reporting usage, and reading it back"},
	{"entitlements", "Whether an account may use something now; reservations and leases"},
	{"balance", "Funds, what is due, and the statement"},
	{"payment methods", "Cards, by the provider's own form"},
	{"upgrades", "Changing the plan"},
	{"sales", "Enterprise: talking to a person"},
	{"invoices", "Invoices, credit notes and how each line came about"},
	{"payments", "Payment history and receipts"},
	{"api keys", "Credentials of integrations"},
	{"webhooks", "Telling your systems what happened"},
	{"events", "What happened, in order and live"},
	{"portal", "The hosted Billing page"},
	{"admin", "For the operator's staff"},
}

func tags() []any {
	out := make([]any, len(tagWords))
	for i, t := range tagWords {
		out[i] = object{"name": t[0], "description": t[1]}
	}
	return out
}

func securitySchemes() object {
	var b strings.Builder
	b.WriteString("A signed token (JWT) of the operator's identity provider, with the claims `iss`, `aud`, `exp`, `iat`, `sub`, `account_id` (of users) and `scope`, or an API key (`acr_live_…`, `acr_test_…`). Scopes:")
	for _, s := range auth.All() {
		b.WriteString(" `" + string(s) + "`")
	}
	return object{"bearer": object{"type": "http", "scheme": "bearer", "bearerFormat": "JWT or API key", "description": b.String() + "."}} //nolint:gosec // words, no credential
}

// refusalWords describes the refusals that no handler has to mention.
var refusalWords = map[int]string{
	400: "The request cannot be read: malformed JSON, a required header that is missing or malformed.",
	401: "No credential, or one that is not valid.",
	403: "The credential does not allow this; `required_scope` names what is missing.",
	404: "No such record, or not the caller's.",
	406: "The operation has no representation that Accept allows.",
	409: "The record's state forbids it now, or a request with the same Idempotency-Key is still running.",
	412: "The record has changed since it was read.",
	413: "The body is larger than the operation takes.",
	415: "The content type or encoding is not spoken here.",
	422: "A value is not valid; `errors` points at each. Or the request holds card data, which is never accepted.",
	428: "If-Match is required.",
	429: "Too many requests; wait as long as Retry-After says.",
	500: "A fault on our side; `instance` finds it in our log.",
	503: "Not now, which says nothing about what was done: try again after Retry-After, with the same Idempotency-Key where there is one.",
}

// responseName is the component's name: 404 gives NotFound.
func responseName(status int) string {
	return strings.NewReplacer(" ", "", "-", "").Replace(http.StatusText(status))
}

func responses(examples Examples) object {
	out := object{}
	for status, words := range refusalWords {
		h := problemHeaders(status)
		content := problemContent()
		examples.give(child(content, "application/problem+json"), responseName(status))
		out[responseName(status)] = object{"description": words, "content": content, "headers": h}
	}
	return out
}

// answerHeaders are those that every answer may have: the quota's once the caller is known.
var answerHeaders = []string{"X-Request-Id", "RateLimit", "RateLimit-Policy"}

// problemHeaders are the headers of a refusal: those of every answer, and those that belong to its status alone.
func problemHeaders(status int) object {
	names := answerHeaders
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		names = append(names, "WWW-Authenticate")
	case http.StatusPaymentRequired:
		names = append(names, "Idempotent-Replayed")
	case http.StatusUnsupportedMediaType:
		names = append(names, "Accept-Encoding")
	case http.StatusConflict, http.StatusTooManyRequests, http.StatusServiceUnavailable:
		names = append(names, "Retry-After")
	}
	h := object{}
	for _, name := range names {
		h[name] = headerRef(name)
	}
	return h
}

// furtherMembers are what some problems carry beside the standard members, so that a client that is generated has types for
// them. A test that meets another one fails: apitest holds problems to the document with nothing beside it. What else
// answers have too is as it is there, in schemas.
func furtherMembers(schemas object) (object, error) {
	var missing error
	like := func(schema, member, words string) object {
		of, _ := schemas[schema].(object)
		properties, _ := of["properties"].(object)
		m, ok := properties[member].(object)
		if !ok {
			missing = errors.Join(missing, fmt.Errorf("no %s.%s for problems to be like", schema, member))
			return nil
		}
		m = maps.Clone(m)
		delete(m, "example")
		m["description"] = words
		return m
	}
	text := func(words string) object { return object{"type": "string", "description": words} }
	amount := func(words string) object {
		return object{"$ref": "#/components/schemas/Money", "description": words}
	}
	list := func(words string, of object) object {
		return object{"type": "array", "items": of, "description": words}
	}
	moment := func(words string) object {
		return object{"type": "string", "format": "date-time", "description": words}
	}
	record := func(words string) object { return text("its id: " + words) }
	members := object{
		"action":   like("Action", "name", "what cannot be done now, by its name in the overview's actions"),
		"blockers": list("why it cannot be done now", object{"$ref": "#/components/schemas/ActionBlocker"}),
		"ways_out": list("what can be done instead", object{
			"type": "object", "required": []any{"name", "method", "href"},
			"properties": object{
				"name":   object{"type": "string", "enum": []any{"replace_card", "pay_now", "add_funds", "ask_support", "remove_when_paid"}},
				"method": text("of the request that does it"), "href": text("of the request that does it"),
			},
		}),
		"outstanding":            amount("what is owed"),
		"decline_code":           like("Failure", "code", "why the card was declined, as in failure"),
		"decline_class":          like("Failure", "class", "what follows from it, as in failure"),
		"retry":                  like("Failure", "retry", "what its holder can do, as in failure"),
		"retry_after":            moment("when the card can be tried again"),
		"upgrade":                record("the upgrade that failed, or that is pending"),
		"upgrade_status":         like("Upgrade", "status", "of the pending upgrade"),
		"top_up":                 record("the top-up that failed, or that is pending"),
		"top_up_status":          like("TopUp", "status", "of the pending top-up"),
		"payment":                record("the payment that failed"),
		"payment_status":         like("Payment", "status", "of the payment that is not parked"),
		"payment_method":         record("the card that was declined"),
		"removal_request_status": like("RemovalRequest", "status", "of the request that is resolved already"),
		"refund":                 record("the refund that was refused"),
		"usage_alert":            record("the alert that there is already"),
		"contract":               record("the contract that holds, or is planned already"),
		"plan":                   text("that the account is on, or goes to"),
		"at":                     moment("when it goes there"),
		"plans":                  list("that are sold", object{"type": "string"}),
		"minimum":                amount("the least that is taken"),
		"maximum":                amount("the most that is taken"),
		"step":                   object{"type": "integer", "description": "what amounts are multiples of, in minor units"},
		"ceiling":                object{"type": "string", "enum": []any{"per_payment", "per_day"}, "description": "which ceiling of the API key"},
		"moved":                  amount("by the key within the day"),
		"funds":                  amount("that there are"),
		"left":                   amount("what cannot be given back"),
		"amount_paid":            amount("of the invoice"),
		"creditable":             amount("that can be credited"),
		"refundable":             amount("that can be refunded"),
		"asked":                  amount("what the provider was asked for"),
		"reported":               amount("what the provider reports"),
		"taken":                  amount("what the provider has taken"),
		"given_back":             amount("what of it was given back"),
		"now":                    moment("the account's own time"),
		"cap":                    text("the currency of the spend limit"),
		"commitment":             text("the contract whose minimum it is"),
		"currencies":             list("that there are prices in", object{"type": "string"}),
		"meter":                  text("that the problem is about"),
		"limit":                  object{"description": "that holds: an amount of money (Money), or a quantity of the meter's unit", "anyOf": []any{object{"$ref": "#/components/schemas/Money"}, object{"type": "string", "format": "decimal"}, object{"type": "integer"}}},
		"remaining":              object{"type": "string", "format": "decimal", "description": "of the limit"},
		"resets_at":              moment("when there is room again"),
		"required_scope":         object{"type": "string", "enum": scopes(), "description": "that the credential lacks"},
		"limit_bytes":            object{"type": "integer", "description": "the most that a body may have"},
		"supported":              list("content types that are taken", object{"type": "string"}),
		"location":               text("where in the request"),
		"header":                 text("of the request"),
		"violated-policies":      list("the quotas that are used up (draft-ietf-httpapi-ratelimit-headers)", object{"type": "string"}),
	}
	return members, missing
}

func scopes() (all []any) {
	for _, s := range auth.All() {
		all = append(all, string(s))
	}
	return all
}

func problemContent() object {
	return object{"application/problem+json": object{"schema": object{"$ref": "#/components/schemas/Problem"}}}
}

func headerRef(name string) object { return object{"$ref": "#/components/headers/" + name} }

func headers() object {
	text := func(description, example string) object {
		return object{"description": description, "schema": object{"type": "string"}, "example": example}
	}
	return object{
		"Accept-Encoding":     text("The encodings that bodies are taken in.", "gzip, zstd"),
		"Link":                text("The first page and the next one, as absolute URLs (RFC 8288).", `<https://billing.example.com/v1/payments?limit=20&cursor=…>; rel="next"`),
		"ETag":                text("The version of the representation, a strong tag.", `"v3"`),
		"Idempotent-Replayed": text("true where the answer is the stored one of an earlier request with the same Idempotency-Key.", "true"),
		"Location":            object{"description": "Where what was made can be read.", "required": true, "schema": object{"type": "string"}, "example": "/v1/top-ups/top_01jqxyzabcdefghjkmnpqrstvw"},
		"RateLimit":           text("What is left of the quota (draft-ietf-httpapi-ratelimit-headers-10).", `"reads";r=1199;t=1`),
		"RateLimit-Policy":    text("The quota of the operation's class (draft-ietf-httpapi-ratelimit-headers-10).", `"reads";q=1200;w=60`),
		"Retry-After":         object{"description": "Seconds to wait before trying again.", "schema": object{"type": "integer"}, "example": 1},
		"WWW-Authenticate":    text("What is wrong with the credential (RFC 6750).", `Bearer realm="accrue", error="invalid_token"`),
		"X-Request-Id":        text("The request's id, as in the instance of problems and in our log.", "01a0b9f2-7c50-7d05-8d1c-5a2b6f5f3c11"),
	}
}
