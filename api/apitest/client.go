package apitest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync/atomic"
	"testing"
)

// Client talks to the API as one caller. Every exchange is held to the document.
type Client struct {
	tb    testing.TB
	base  string
	token string
	http  *http.Client
	keys  *atomic.Int64
	fixed http.Header
}

// NewClient returns a client of the API at baseURL that authenticates with token; the empty token sends
// no credential.
func NewClient(tb testing.TB, baseURL, token string) *Client {
	tb.Helper()
	return &Client{
		tb: tb, base: baseURL, token: token, keys: new(atomic.Int64), fixed: http.Header{},
		http: &http.Client{Transport: Transport(tb, nil)},
	}
}

// With returns a client that also sends a header with every request.
func (c *Client) With(name, value string) *Client {
	d := *c
	d.fixed = c.fixed.Clone()
	d.fixed.Set(name, value)
	return &d
}

// As returns a client with another credential.
func (c *Client) As(token string) *Client {
	d := *c
	d.token = token
	return &d
}

// Response is an answer that has been read.
type Response struct {
	tb     testing.TB
	what   string
	Status int
	Header http.Header
	Body   []byte
}

// Get reads.
func (c *Client) Get(path string, headers ...string) *Response {
	c.tb.Helper()
	return c.Do(http.MethodGet, path, nil, headers...)
}

// Post writes, with a fresh Idempotency-Key unless one is among the headers.
func (c *Client) Post(path string, body any, headers ...string) *Response {
	c.tb.Helper()
	fresh := fmt.Sprintf("%s-%d", "test-key", c.keys.Add(1))
	return c.Do(http.MethodPost, path, body, append([]string{"Idempotency-Key", fresh}, headers...)...)
}

// Put replaces; tag is the If-Match.
func (c *Client) Put(path, tag string, body any, headers ...string) *Response {
	c.tb.Helper()
	return c.Do(http.MethodPut, path, body, append([]string{"If-Match", tag}, headers...)...)
}

// Patch changes; tag is the If-Match.
func (c *Client) Patch(path, tag string, body any, headers ...string) *Response {
	c.tb.Helper()
	return c.Do(http.MethodPatch, path, body, append([]string{"If-Match", tag}, headers...)...)
}

// Do sends a request. The body is sent as it is if it is a string or bytes, else as JSON; nil sends
// none. Headers come in pairs; an empty value takes a header away.
func (c *Client) Do(method, path string, body any, headers ...string) *Response {
	c.tb.Helper()
	var data []byte
	switch b := body.(type) {
	case nil:
	case string:
		data = []byte(b)
	case []byte:
		data = b
	default:
		var err error
		if data, err = json.Marshal(b); err != nil {
			c.tb.Fatalf("%s %s: %v", method, path, err)
		}
	}
	// The test's own context ends before its clean-up, in which some tests still ask.
	req, err := http.NewRequestWithContext(context.WithoutCancel(c.tb.Context()), method, c.base+path, bytes.NewReader(data))
	if err != nil {
		c.tb.Fatalf("%s %s: %v", method, path, err)
	}
	if body == nil {
		req.Body, req.ContentLength = nil, 0
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	maps.Copy(req.Header, c.fixed)
	for i := 0; i+1 < len(headers); i += 2 {
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
		} else {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.tb.Fatalf("%s %s: %v", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		c.tb.Fatalf("%s %s: %v", method, path, err)
	}
	return &Response{c.tb, method + " " + path, resp.StatusCode, resp.Header, got}
}

// Want fails the test unless the status is the wanted one. It returns the response for what follows.
func (r *Response) Want(status int) *Response {
	r.tb.Helper()
	if r.Status != status {
		r.tb.Fatalf("%s answered %d, want %d: %s", r.what, r.Status, status, r.Body)
	}
	return r
}

// WantProblem fails the test unless the answer is a problem of the status and code.
func (r *Response) WantProblem(status int, code string) *Response {
	r.tb.Helper()
	r.Want(status)
	var p problem
	if err := json.Unmarshal(r.Body, &p); err != nil || p.Code != code {
		r.tb.Fatalf("%s answered problem %q, want %q: %s", r.what, p.Code, code, r.Body)
	}
	return r
}

// Into decodes the body.
func (r *Response) Into(v any) *Response {
	r.tb.Helper()
	if err := json.Unmarshal(r.Body, v); err != nil {
		r.tb.Fatalf("%s: decode %s: %v", r.what, r.Body, err)
	}
	return r
}

// ETag returns the tag of the answer.
func (r *Response) ETag() string { return r.Header.Get("ETag") }

// JSON decodes the body into a value of type T.
func JSON[T any](r *Response) T {
	r.tb.Helper()
	var v T
	r.Into(&v)
	return v
}
