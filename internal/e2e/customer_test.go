package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// customer is a person at the Billing page: it talks to the API with a token of the operator's identity
// provider, and to the payment provider's pages with a browser.
type customer struct {
	t       *testing.T
	web     *http.Client // follows no redirect: where a page leads is looked at
	api     string
	token   string
	headers map[string]string // sent with the next requests
}

func newCustomer(t *testing.T, api, token string) *customer {
	t.Helper()
	web := &http.Client{
		Timeout: time.Minute, Transport: &http.Transport{},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(web.CloseIdleConnections)
	return &customer{t: t, web: web, api: api, token: token}
}

// with is the customer sending one more header.
func (c *customer) with(name, value string) *customer {
	out := *c
	out.headers = map[string]string{}
	maps.Copy(out.headers, c.headers)
	out.headers[name] = value
	return &out
}

// reply is an answer of the API, or a page.
type reply struct {
	t      *testing.T
	what   string
	status int
	header http.Header
	body   []byte
}

func (c *customer) get(path string) reply { return c.do(http.MethodGet, path, nil) }

func (c *customer) post(path string, body object) reply { return c.do(http.MethodPost, path, body) }

// do sends a request to the API; every POST has an Idempotency-Key of its own unless a header says otherwise.
func (c *customer) do(method, path string, body object) reply {
	c.t.Helper()
	var r io.Reader = http.NoBody
	if body != nil {
		r = bytes.NewReader(encoded(body))
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.api+path, r)
	if err != nil {
		c.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	if method == http.MethodPost {
		req.Header.Set("Idempotency-Key", `"`+uuid.NewString()+`"`)
	}
	for k, v := range c.headers {
		req.Header.Set(k, v)
	}
	return c.send(req)
}

func (c *customer) send(req *http.Request) reply {
	c.t.Helper()
	what := req.Method + " " + req.URL.Path
	res, err := c.web.Do(req)
	if err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatalf("%s: %v", what, err)
	}
	return reply{c.t, what, res.StatusCode, res.Header, got}
}

// decide answers the bank's question at the provider's 3-D Secure page, and returns where the browser is
// sent then.
func (c *customer) decide(page, decision string) string {
	c.t.Helper()
	c.visit(page)
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, page, strings.NewReader(url.Values{"decision": {decision}}.Encode()))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return c.send(req).want(http.StatusSeeOther).header.Get("Location")
}

// enterCard fills in the provider's card page: the page's script has turned the number into a token in
// the browser, so this is what leaves it.
func (c *customer) enterCard(page, token string) reply {
	c.t.Helper()
	c.visit(page)
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, page, bytes.NewReader(encoded(object{"token": token})))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	return c.send(req).want(http.StatusOK)
}

// visit opens a page of the provider, whose origin is not the service's.
func (c *customer) visit(page string) {
	c.t.Helper()
	if strings.HasPrefix(page, c.api) {
		c.t.Errorf("the provider's page %s is on the service's own origin", page)
	}
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, page, http.NoBody)
	if err != nil {
		c.t.Fatal(err)
	}
	if got := c.send(req).want(http.StatusOK); !strings.HasPrefix(got.header.Get("Content-Type"), "text/html") {
		c.t.Errorf("%s is %s", page, got.header.Get("Content-Type"))
	}
}

// want fails the test unless the answer has the status.
func (r reply) want(status int) reply {
	r.t.Helper()
	if r.status != status {
		r.t.Fatalf("%s answered %d, want %d: %s", r.what, r.status, status, r.body)
	}
	return r
}

// problem fails the test unless the answer is the problem.
func (r reply) problem(status int, code string) reply {
	r.t.Helper()
	r.want(status).says(code, "code")
	if ct := r.header.Get("Content-Type"); ct != "application/problem+json" {
		r.t.Errorf("%s: a problem of type %q", r.what, ct)
	}
	return r
}

// at returns the value at a path of member names, list indexes, and functions that choose from a list.
func (r reply) at(path ...any) any {
	r.t.Helper()
	var v any
	d := json.NewDecoder(bytes.NewReader(r.body))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		r.t.Fatalf("%s: %v: %s", r.what, err, r.body)
	}
	for _, step := range path {
		switch s := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[s]
		case int:
			l, _ := v.([]any)
			if s >= len(l) {
				r.t.Fatalf("%s: no %v in %s", r.what, path, r.body)
			}
			v = l[s]
		case named:
			l, _ := v.([]any)
			v = nil
			for _, x := range l {
				if m, _ := x.(map[string]any); m[s.member] == s.value {
					v = m
				}
			}
			if v == nil {
				r.t.Fatalf("%s: nothing with %s %q in %s", r.what, s.member, s.value, r.body)
			}
		}
	}
	return v
}

// named chooses the object of a list whose member has the value.
type named struct{ member, value string }

func (r reply) str(path ...any) string {
	r.t.Helper()
	s, _ := r.at(path...).(string)
	return s
}

// says fails the test unless the value at the path is the wanted one. Numbers are written as they are read.
func (r reply) says(want any, path ...any) reply {
	r.t.Helper()
	if got := r.at(path...); fmt.Sprint(got) != fmt.Sprint(want) {
		r.t.Errorf("%s: %v is %v, want %v", r.what, path, got, want)
	}
	return r
}
