// Package route describes the operations of the API, one value for each.
//
// A Route is declared once, next to its handler, and everything else follows from it: the router's
// entry, the scope that is required, the rate class, whether an Idempotency-Key or an If-Match must be
// sent, the limits of size and time, and the comparison with the OpenAPI document. What is not in the
// table is not served.
package route

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/internal/auth"
)

// Class groups operations that share a rate limit.
type Class string

// The classes. Money writes are few and dear, ingest is many and cheap.
const (
	Reads  Class = "reads"
	Ingest Class = "ingest"
	Money  Class = "money"
)

// AccountRule says how an operation gets its account.
type AccountRule uint8

// The rules.
const (
	// AccountRequired: the operation acts for one account, the credential's own or the one that an
	// operator or platform service names by Accrue-Account. middleware.Account gives it.
	AccountRequired AccountRule = iota
	// AccountOptional: a platform service may leave the header out, because the body names an account
	// with each item; and so may the operator's staff on a route of theirs, which is then about all
	// accounts. middleware.AccountIfAny gives it.
	AccountOptional
	// AccountNone: the operation belongs to no account.
	AccountNone
)

// Limits where a route declares none.
const (
	DefaultMaxBody = 64 << 10
	DefaultTimeout = 10 * time.Second
)

// Route is one operation.
type Route struct {
	Method string
	Path   string // as in the OpenAPI document: "/v1/invoices/{id}"

	Scope  auth.Scope // required of the caller
	Public bool       // no credential is asked for; Scope and Account are not used then
	// Signed says that the body is a provider's own and proves its sender by a signature over its bytes.
	// The card tripwire lets it pass: a provider's words (an invoice's "number") are not a caller's, and
	// what is refused would be sent again for days.
	Signed  bool
	Account AccountRule
	Class   Class // Reads if empty

	Idempotent bool // an Idempotency-Key is required
	Repeatable bool // an Idempotency-Key is honoured where one is sent
	IfMatch    bool // an If-Match is required
	// Creates is the path under which what a 201 has made can be read: with the id of its body it is the
	// answer's Location. Where it is empty and "GET " + Path + "/{id}" is a route, Complete fills it.
	Creates string
	Tagged  bool // answers carry an ETag, and 304 is one of them
	// OfState says that the answer depends on nothing but the address and the account's records, not on the
	// time nor on who asks: it is the same as long as account.Revision is, and may be answered from memory.
	OfState bool
	// MayAge lets an answer OfState be given again for so long without asking for the revision, to a request
	// without a query or with strict=false.
	MayAge time.Duration

	NoBody   bool     // there is nothing to say in a body: one that comes has no members
	Query    []string // names of the query's parameters; any other is refused, and any at all where there are none
	Consumes []string // media types of the body; application/json if empty
	Produces []string // media types of the answer; application/json if empty
	MaxBody  int64    // bytes after decompression; DefaultMaxBody if zero
	// Timeout is how long the operation may take; DefaultTimeout if zero, none if negative (streams).
	Timeout time.Duration
	// AtMost is how many of it an instance runs at one time, any number if zero: for what reads so much that a few keep
	// the others from the database. Whoever comes then is told to come again.
	AtMost int64

	Deprecated time.Time // since when; zero unless deprecated
	Sunset     time.Time // when it ends; zero if not decided
	Successor  string    // address of a page about what to use instead

	Handler echo.HandlerFunc
}

// Name identifies the route in logs, metrics and idempotency scopes: "POST /v1/top-ups".
func (r Route) Name() string { return r.Method + " " + r.Path }

// EchoPath returns the path in the router's notation: "/v1/invoices/:id".
func (r Route) EchoPath() string {
	return strings.NewReplacer("{", ":", "}", "").Replace(r.Path)
}

// WithDefaults fills what was left out.
func (r Route) WithDefaults() Route {
	if r.Class == "" {
		r.Class = Reads
	}
	if r.MaxBody == 0 {
		r.MaxBody = DefaultMaxBody
	}
	if r.Timeout == 0 {
		r.Timeout = DefaultTimeout
	}
	if len(r.Consumes) == 0 {
		r.Consumes = []string{echo.MIMEApplicationJSON}
	}
	if len(r.Produces) == 0 {
		r.Produces = []string{echo.MIMEApplicationJSON}
	}
	if r.Public {
		r.Account = AccountNone
	}
	return r
}

// WithoutBody returns the route with NoBody.
func (r Route) WithoutBody() Route {
	r.NoBody = true
	return r
}

// Complete fills what of a route follows from the others of its table.
func Complete(table []Route) []Route {
	readable := map[string]bool{}
	for _, r := range table {
		readable[r.Path] = readable[r.Path] || r.Method == http.MethodGet
	}
	for i, r := range table {
		if one := r.Path + "/{id}"; r.Method == http.MethodPost && r.Creates == "" && readable[one] {
			table[i].Creates = one
		}
	}
	return table
}

// HasBody reports whether the operation may take a body.
func (r Route) HasBody() bool {
	return r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch
}

// TakesKey reports whether an Idempotency-Key has a meaning here.
func (r Route) TakesKey() bool { return r.Idempotent || r.Repeatable }

// Check returns what is wrong with a declaration.
func (r Route) Check() error {
	var problems []error
	fail := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%s: %s", r.Name(), fmt.Sprintf(format, args...)))
	}
	if r.Handler == nil {
		fail("has no handler")
	}
	if !strings.HasPrefix(r.Path, "/") || strings.Contains(r.Path, ":") {
		fail("wants a path like /v1/things/{id}")
	}
	if r.Public == (r.Scope != "") {
		fail("must be either public or name a scope")
	}
	if !r.Public && !slices.Contains(auth.All(), r.Scope) {
		fail("names the unknown scope %q", r.Scope)
	}
	if strings.HasPrefix(r.Path, "/v1/admin") && r.Scope != auth.Operator {
		fail("is under /v1/admin and must require the operator scope")
	}
	if r.Signed && !r.Public {
		fail("is signed and asks for a credential as well")
	}
	if r.OfState && (r.Method != http.MethodGet || r.Public || r.Account != AccountRequired || r.Tagged || r.Timeout < 0) {
		fail("is of an account's state and must be a plain GET for one account")
	}
	if r.NoBody && !r.HasBody() {
		fail("has no body by its method")
	}
	if r.Public && r.TakesKey() {
		fail("is public: nobody's keys could be told apart")
	}
	if !r.Sunset.IsZero() && (r.Deprecated.IsZero() || r.Sunset.Before(r.Deprecated)) {
		fail("ends before it is deprecated")
	}
	return errors.Join(problems...)
}
