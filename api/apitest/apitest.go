// Package apitest holds every request and response of a test to the OpenAPI document.
//
// A test that talks to the API through Transport or Client fails when an answer is not what the
// document says: an undocumented status, a missing or surplus member, a wrong type or format, a problem
// that is none. A request that the service took must be one that the document allows; a request that it
// refused may be anything, since tests send wrong ones on purpose.
package apitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/pb33f/libopenapi-validator/config"

	"github.com/accrue-billing/accrue/docs"
)

// Transport checks what passes through it and reports to tb. next is what carries the requests; nil is
// http.DefaultTransport.
func Transport(tb testing.TB, next http.RoundTripper) http.RoundTripper {
	tb.Helper()
	if next == nil {
		next = http.DefaultTransport
	}
	return &transport{tb, next}
}

type transport struct {
	tb   testing.TB
	next http.RoundTripper
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	var sent []byte
	if req.Body != nil {
		var err error
		if sent, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		_ = req.Body.Close()
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(sent))
	}
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return resp, nil // a stream has no end to wait for
	}
	got, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(got))
	Check(t.tb, req, sent, resp, got)
	return resp, nil
}

// Handler wraps a handler that a test calls without a network.
func Handler(tb testing.TB, h http.Handler) http.Handler {
	tb.Helper()
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		sent, err := io.ReadAll(req.Body)
		if err != nil {
			tb.Errorf("read the test's own request: %v", err)
		}
		req.Body = io.NopCloser(bytes.NewReader(sent))
		rec := httptest.NewRecorder()
		asSent := req.Clone(req.Context()) // the service takes headers off that it has dealt with
		h.ServeHTTP(rec, req)
		Check(tb, asSent, sent, rec.Result(), rec.Body.Bytes())
		maps.Copy(w.Header(), rec.Header())
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})
}

// Check holds one exchange to the document. Addresses outside of /v1 are not part of it.
func Check(tb testing.TB, req *http.Request, sent []byte, resp *http.Response, got []byte) {
	tb.Helper()
	if resp.StatusCode >= 400 {
		checkProblem(tb, req, resp, got)
	}
	if !strings.HasPrefix(req.URL.Path, "/v1/") || req.Method == http.MethodHead || req.Method == http.MethodOptions ||
		resp.StatusCode == http.StatusMethodNotAllowed || isRouterNotFound(resp, got) {
		return
	}
	v, err := document()
	if err != nil {
		tb.Fatalf("the OpenAPI document cannot be used: %v", err)
	}
	fresh := func() *http.Request {
		r := req.Clone(req.Context())
		r.Body = io.NopCloser(bytes.NewReader(sent))
		return r
	}
	if resp.StatusCode < 400 && req.Header.Get("Content-Encoding") == "" && !stream(req.Header) && !partlyRefused(got) {
		if ok, faults := v.ValidateHttpRequestSync(fresh()); !ok {
			for _, f := range faults {
				tb.Errorf("%s %s was taken (%d), but the document does not allow it: %s: %s%s\nbody: %.2000s",
					req.Method, req.URL.Path, resp.StatusCode, f.Message, f.Reason, details(f.SchemaValidationErrors), sent)
			}
		}
	}
	if stream(resp.Header) {
		return
	}
	again := *resp
	again.Body = io.NopCloser(bytes.NewReader(got))
	if ok, faults := v.ValidateHttpResponse(fresh(), &again); !ok {
		for _, f := range faults {
			tb.Errorf("%s %s answered %d against the document: %s: %s%s\nbody: %.2000s",
				req.Method, req.URL.Path, resp.StatusCode, f.Message, f.Reason, details(f.SchemaValidationErrors), got)
		}
	}
}

// stream reports whether a body is one of many JSON values, of which a schema describes only each.
func stream(h http.Header) bool {
	return strings.HasPrefix(h.Get("Content-Type"), "application/x-ndjson")
}

// partlyRefused reports whether the request held items that were answered as rejected: those need not
// be what the document describes.
func partlyRefused(got []byte) bool {
	var answer struct{ Rejected int }
	return json.Unmarshal(got, &answer) == nil && answer.Rejected > 0
}

func details[T any](faults []*T) string {
	var b strings.Builder
	for _, f := range faults {
		fmt.Fprintf(&b, "\n  %+v", *f)
	}
	s := b.String()
	if len(s) > 2000 {
		s = s[:2000]
	}
	return s
}

// problem is what every refusal must say.
type problem struct {
	Type, Title, Instance, Code string
	Status                      int
}

func checkProblem(tb testing.TB, req *http.Request, resp *http.Response, got []byte) {
	tb.Helper()
	if ct := resp.Header.Get("Content-Type"); ct != "application/problem+json" {
		tb.Errorf("%s %s: %d with content type %q", req.Method, req.URL.Path, resp.StatusCode, ct)
		return
	}
	if req.Method == http.MethodHead {
		return
	}
	var p problem
	if err := json.Unmarshal(got, &p); err != nil {
		tb.Errorf("%s %s: %d is no problem document: %v", req.Method, req.URL.Path, resp.StatusCode, err)
		return
	}
	if p.Status != resp.StatusCode || p.Type == "" || p.Title == "" || p.Code == "" || !strings.HasPrefix(p.Instance, "urn:uuid:") {
		tb.Errorf("%s %s: %d with an incomplete problem document: %s", req.Method, req.URL.Path, resp.StatusCode, got)
	}
}

func isRouterNotFound(resp *http.Response, got []byte) bool {
	var p problem
	return resp.StatusCode == http.StatusNotFound && json.Unmarshal(got, &p) == nil && p.Code == "route_not_found"
}

// document returns a validator of the document, with all its schemas closed: what an answer has beyond
// the document is a mistake of ours, though clients are told to bear with it.
var document = sync.OnceValues(func() (validator.Validator, error) {
	var doc map[string]any
	if err := json.Unmarshal(docs.OpenAPI, &doc); err != nil {
		return nil, err
	}
	components, _ := doc["components"].(map[string]any)
	schemas, _ := components["schemas"].(map[string]any)
	for _, s := range schemas {
		closeSchemas(s)
	}
	data, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	parsed, err := libopenapi.NewDocument(data)
	if err != nil {
		return nil, err
	}
	v, errs := validator.NewValidator(parsed,
		config.WithFormatAssertions(),
		config.WithRejectUndeclaredRequestBody(),
		config.WithCustomFormat("decimal", decimal),
	)
	if len(errs) > 0 {
		return nil, fmt.Errorf("%v", errs)
	}
	if ok, faults := v.ValidateDocument(); !ok {
		return nil, fmt.Errorf("not valid OpenAPI 3.1: %s: %s%s", faults[0].Message, faults[0].Reason, details(faults[0].SchemaValidationErrors))
	}
	return v, nil
})

// decimal checks the format of exact numbers in strings.
func decimal(v any) error {
	s, ok := v.(string)
	if !ok {
		return nil
	}
	body := strings.TrimPrefix(s, "-")
	integer, fraction, dot := strings.Cut(body, ".")
	digits := func(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
	if !digits(integer) || (len(integer) > 1 && integer[0] == '0') || (dot && !digits(fraction)) {
		return fmt.Errorf("%q is not a decimal", s)
	}
	return nil
}

func closeSchemas(node any) {
	switch node := node.(type) {
	case []any:
		for _, v := range node {
			closeSchemas(v)
		}
	case map[string]any:
		if _, said := node["additionalProperties"]; !said && node["properties"] != nil {
			node["additionalProperties"] = false
		}
		for _, v := range node {
			closeSchemas(v)
		}
	}
}
