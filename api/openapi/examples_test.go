package openapi_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/api/apitest"
	"github.com/accrue-billing/accrue/docs"
)

// Every answer in JSON has an example, and every body that is sent has one too, but for those that are a document of their
// own. Each is one that the document allows.
func TestExamples_AreWhatTheDocumentAllows(t *testing.T) {
	t.Parallel()
	var doc any
	if err := json.Unmarshal(docs.OpenAPI, &doc); err != nil {
		t.Fatal(err)
	}
	parameter := regexp.MustCompile(`\{(\w+)\}`)
	some := map[string]string{"line": "1", "version": "1", "date": "2026-11-23", "provider": "sandbox"}
	without := map[string]bool{ // YAML that docs/pricing.md has, and what the provider sends
		"adminPublishCatalogue": true, "adminPreviewCatalogue": true, "adminCreateContract": true, "adminPreviewContract": true, "receiveGatewayEvent": true,
	}
	for path, item := range at(t, doc, "paths").(map[string]any) {
		url := parameter.ReplaceAllStringFunc(path, func(p string) string {
			if v := some[strings.Trim(p, "{}")]; v != "" {
				return v
			}
			return "x"
		})
		for method, op := range item.(map[string]any) {
			id := at(t, op, "operationId").(string)
			var sent []byte
			if body, ok := op.(map[string]any)["requestBody"]; ok && !without[id] {
				if sent = examplesOf(t, body, "application/json")["example"]; sent == nil {
					t.Errorf("what is sent to %s has no example", id)
				}
			}
			for code, answer := range at(t, op, "responses").(map[string]any) {
				status, err := strconv.Atoi(code)
				if err != nil {
					t.Fatal(err)
				}
				media := "application/json"
				if status >= 400 {
					media = "application/problem+json"
				}
				answered := examplesOf(t, answer, media)
				content, _ := answer.(map[string]any)["content"].(map[string]any)
				if content[media] != nil && status < 300 && len(answered) == 0 {
					t.Errorf("the %d of %s has no example", status, id)
				}
				for _, got := range answered {
					if without[id] || status >= 400 {
						sent = nil
					}
					req := httptest.NewRequest(strings.ToUpper(method), url, bytes.NewReader(sent))
					for name, value := range map[string]string{
						"Authorization": "Bearer x", "Idempotency-Key": "x", "If-Match": "*", "Content-Type": "application/json", "Content-Encoding": encodingOf(sent),
					} {
						if value != "" {
							req.Header.Set(name, value)
						}
					}
					resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {media}, "Location": {"x"}}, Body: io.NopCloser(bytes.NewReader(got))}
					apitest.Check(t, req, sent, resp, got)
				}
			}
		}
	}
}

// encodingOf keeps a request without a body of its own from being looked at.
func encodingOf(sent []byte) string {
	if sent == nil {
		return "gzip"
	}
	return ""
}

// examplesOf returns the examples of a body or an answer by their names.
func examplesOf(t *testing.T, of any, media string) map[string][]byte {
	t.Helper()
	content, _ := of.(map[string]any)["content"].(map[string]any)
	m, _ := content[media].(map[string]any)
	out := map[string][]byte{}
	add := func(name string, v any) {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out[name] = text
	}
	if v, ok := m["example"]; ok {
		add("example", v)
	}
	several, _ := m["examples"].(map[string]any)
	for name, v := range several {
		add(name, at(t, v, "value"))
	}
	return out
}
