package openapi

import (
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
	b.WriteString("A signed token (JWT) of the operator's identity provider, or an API key (`acr_live_…`, `acr_test_…`). Scopes:")
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
	503: "Not now; nothing was changed. Try again after Retry-After.",
}

// responseName is the component's name: 404 gives NotFound.
func responseName(status int) string {
	return strings.NewReplacer(" ", "", "-", "").Replace(http.StatusText(status))
}

func responses() object {
	out := object{}
	for status, words := range refusalWords {
		resp := object{"description": words, "content": problemContent()}
		switch status {
		case http.StatusUnauthorized, http.StatusForbidden:
			resp["headers"] = object{"WWW-Authenticate": headerRef("WWW-Authenticate")}
		case http.StatusTooManyRequests:
			resp["headers"] = object{"Retry-After": headerRef("Retry-After"), "RateLimit": headerRef("RateLimit"), "RateLimit-Policy": headerRef("RateLimit-Policy")}
		case http.StatusServiceUnavailable:
			resp["headers"] = object{"Retry-After": headerRef("Retry-After")}
		}
		out[responseName(status)] = resp
	}
	return out
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
