package middleware_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/auth"
)

// cards are numbers that providers publish for tests.
var cards = []string{
	"4242424242424242", "4000000000000002", "4111111111111111", "4012888888881881", "5555555555554444", "5200828282828210",
	"2223003122003222", "378282246310005", "371449635398431", "30569309025904", "36227206271667", "6011111111111117",
	"3566002020360505", "6200000000000005", "6205500000000000004",
}

// spell is the ways in which a number reaches an API.
var spell = map[string]func(string) string{
	"Plain":  func(s string) string { return s },
	"Spaces": func(s string) string { return grouped(s, " ") },
	"Dashes": func(s string) string { return grouped(s, "-") },
	"Wide": func(s string) string {
		return strings.Map(func(r rune) rune { return r - '0' + '\uff10' }, s)
	},
	"Within": func(s string) string { return "my card is " + s + ". Thanks" },
}

func grouped(s, sep string) string {
	sizes := []int{4, 4, 4, 4, 4}
	switch len(s) {
	case 15:
		sizes = []int{4, 6, 5}
	case 14:
		sizes = []int{4, 6, 4}
	}
	var parts []string
	for _, n := range sizes {
		n = min(n, len(s))
		if n > 0 {
			parts, s = append(parts, s[:n]), s[n:]
		}
	}
	return strings.Join(parts, sep)
}

// TestCardDataIsRefusedEverywhere is failure case 87: a number in any place, in any spelling, gets a 422
// that names the place, and nothing writes it down.
func TestCardDataIsRefusedEverywhere(t *testing.T) {
	t.Parallel()
	b := setup(t, nil,
		route.Route{Method: http.MethodPost, Path: "/v1/things/{id}", Scope: auth.BillingWrite, Idempotent: true},
		route.Route{Method: http.MethodPost, Path: "/v1/public", Public: true, Consumes: []string{"application/json", "application/x-ndjson", "text/csv"}},
	)
	user := b.token("billing:write", nil)
	authorized := func(more ...string) []string {
		return append([]string{"Authorization", "Bearer " + user, "Idempotency-Key", "k"}, more...)
	}
	positions := map[string]func(pan string) answer{
		"Name": func(p string) answer { return b.do("POST", "/v1/things/1", jsonDoc("name", p), authorized()...) },
		"Nested": func(p string) answer {
			return b.do("POST", "/v1/things/1", `{"a":[{"b":`+jsonText(p)+`}]}`, authorized()...)
		},
		"Escaped":    func(p string) answer { return b.do("POST", "/v1/things/1", `{"a":"`+escaped(p)+`"}`, authorized()...) },
		"MemberName": func(p string) answer { return b.do("POST", "/v1/things/1", `{`+jsonText(p)+`:1}`, authorized()...) },
		"Path":       func(p string) answer { return b.do("POST", "/v1/things/"+url.PathEscape(p), `{}`, authorized()...) },
		"Query": func(p string) answer {
			return b.do("POST", "/v1/things/1?q="+url.QueryEscape(p), `{}`, authorized()...)
		},
		"QueryName": func(p string) answer {
			return b.do("POST", "/v1/things/1?"+url.QueryEscape(p)+"=1", `{}`, authorized()...)
		},
		"Key": func(p string) answer {
			return b.do("POST", "/v1/things/1", `{}`, "Authorization", "Bearer "+user, "Idempotency-Key", p)
		},
		"Account": func(p string) answer { return b.do("POST", "/v1/things/1", `{}`, authorized("Accrue-Account", p)...) },
		"CloudEvent": func(p string) answer {
			return b.do("POST", "/v1/things/1", `{}`, authorized("Ce-Subject", url.PathEscape(p))...)
		},
		"UserAgent": func(p string) answer { return b.do("POST", "/v1/things/1", `{}`, authorized("User-Agent", p)...) },
		"NDJSON": func(p string) answer {
			return b.do("POST", "/v1/public", "{\"a\":1}\n"+jsonDoc("a", p), "Content-Type", "", "Content-Type", "application/x-ndjson")
		},
		"CSV": func(p string) answer {
			return b.do("POST", "/v1/public", "a,b\n1,"+p+"\n", "Content-Type", "", "Content-Type", "text/csv")
		},
		"NotEvenJSON": func(p string) answer { return b.do("POST", "/v1/public", "card="+p) },
		"Stranger":    func(p string) answer { return b.do("POST", "/v1/things/1", jsonDoc("name", p)) },
	}
	for position, send := range positions {
		for spelling, sp := range spell {
			for _, pan := range cards {
				a := send(sp(pan))
				if a.status != http.StatusUnprocessableEntity || a.code() != "card_data_not_accepted" {
					t.Errorf("%s, %s, %s: %d %s", position, spelling, pan, a.status, a.body)
				}
				if a.doc["type"] != "https://billing.example/problems/card-data-not-accepted" {
					t.Errorf("type %v", a.doc["type"])
				}
				for _, form := range []string{pan, sp(pan), grouped(pan, " ")} {
					if strings.Contains(a.body, form) {
						t.Errorf("%s, %s: the answer repeats the number: %s", position, spelling, a.body)
					}
				}
			}
		}
	}
	log := b.log.String()
	for _, pan := range cards {
		for name, sp := range spell {
			if form := sp(pan); strings.Contains(log, form) {
				t.Errorf("the log holds %s as %s", pan, name)
			}
		}
	}
}

// A key that is a long number looks like a card's one time in forty. Its sender must learn that it is the key.
func TestTheHeaderWithACardNumberIsNamed(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{Method: http.MethodPost, Path: "/v1/public", Public: true})
	if a := b.do(http.MethodPost, "/v1/public", `{}`, "Idempotency-Key", "38892417716459"); a.code() != "card_data_not_accepted" || a.doc["header"] != "Idempotency-Key" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := b.do(http.MethodPost, "/v1/public", `{}`, "4242424242424242", "4242424242424242"); a.code() != "card_data_not_accepted" || strings.Contains(a.body, "4242") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func jsonText(s string) string { return fmt.Sprintf("%q", s) }

func jsonDoc(name, s string) string { return `{` + jsonText(name) + `:` + jsonText(s) + `}` }

func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		fmt.Fprintf(&b, `\u%04x`, r)
	}
	return b.String()
}

func TestFieldsForCardDataAreRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{Method: http.MethodPost, Path: "/v1/public", Public: true})
	for _, name := range []string{"number", "pan", "card_number", "cardNumber", "cvc", "CVV", "track", "securityCode"} {
		a := b.do(http.MethodPost, "/v1/public", `{"payment_method":{"`+name+`":"1"}}`)
		if a.status != http.StatusUnprocessableEntity || a.code() != "card_data_not_accepted" || !strings.Contains(a.body, `"#/payment_method/`+name+`"`) {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if a := b.do(http.MethodPost, "/v1/public?"+name+"=1", `{}`); a.code() != "card_data_not_accepted" {
			t.Errorf("%s in the query: %d %s", name, a.status, a.body)
		}
	}
}

func TestWhatOnlyLooksLikeACardPasses(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{Method: http.MethodPost, Path: "/v1/usage/events", Scope: auth.UsageWrite, Query: []string{"id"}, Idempotent: true})
	headers := []string{
		"Authorization", "Bearer " + b.token("usage:write", nil), "Idempotency-Key", "4242424242424241",
		"X-Cloud-Trace-Context", "105445aa7843bc8bf206b120001000/4242424242424242", "X-Datadog-Trace-Id", "4242424242424242",
		"Traceparent", "00-42424242424242424242424242424242-4242424242424242-01",
	}
	for name, body := range map[string]string{
		"Identifiers": `{"id":"4242424242424242","call_id":"4242424242424242"}`,
		"Telephone":   `{"to":"+4915112345678","from":"4915112345678"}`,
		"Times":       `{"at":1700000000000,"nanos":"1700000000000000000"}`,
		"IBAN":        `{"note":"DE89 3704 0044 0532 0130 00"}`,
		"WrongDigit":  `{"note":"4242424242424241"}`,
		"Hash":        `{"note":"a4242424242424242424242424242424"}`,
	} {
		if a := b.do(http.MethodPost, "/v1/usage/events", body, headers...); a.status != http.StatusOK {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := b.do(http.MethodPost, "/v1/usage/events?id=4242424242424242", `{"ids":["4242424242424242"]}`, headers...); a.status != http.StatusOK {
		t.Errorf("an event that is looked up: %d %s", a.status, a.body)
	}
}
