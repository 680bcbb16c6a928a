// Package errs gives every failure a kind.
//
// A kind says what the caller can do about a failure; it knows nothing of HTTP. Package api/problem
// is the one place that turns a kind into a status code. An error without a kind is Internal: its
// text is for the log and never reaches a caller.
package errs

import (
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"time"
)

// Kind classifies a failure by what its reader can do next.
type Kind uint8

// The kinds, from the caller's side of the wire to ours.
const (
	Internal             Kind = iota // a fault of ours: nothing to be done but to report it
	Malformed                        // the request cannot be read at all
	Unauthenticated                  // no valid credential
	PaymentDeclined                  // the provider refused to move the money
	Forbidden                        // a valid credential without the right to do this
	NotFound                         // no such record, or not yours
	Conflict                         // the record's state forbids it now
	PreconditionFailed               // the record changed since it was read
	PreconditionRequired             // the request must say which version it changes
	TooLarge                         // more bytes, items or depth than are taken
	UnsupportedMedia                 // a content type or encoding that is not spoken here
	Invalid                          // readable, but a value breaks a rule
	RateLimited                      // too many requests
	Unavailable                      // try again later, nothing was changed
)

// Field names one offending value.
type Field struct {
	Pointer string `json:"pointer"`        // RFC 6901 pointer as a URI fragment, "#/amount"
	Detail  string `json:"detail"`         // what is wrong, for a person
	Code    string `json:"code,omitempty"` // stable, for a program
}

// Error is a failure with a kind, a stable code and words for the caller.
type Error struct {
	Kind       Kind
	Code       string         // stable and snake_case; part of the API
	Detail     string         // for the caller: what happened and what to do
	Fields     []Field        // the offending values, if any
	Params     map[string]any // further members of the problem document
	RetryAfter time.Duration  // when a repetition makes sense; zero says nothing
	Err        error          // the cause, for the log only
}

// New returns an error of the given kind with a stable code and a detail for the caller.
func New(kind Kind, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Detail: fmt.Sprintf(format, args...)}
}

// InvalidField returns an Invalid error that points at one value.
func InvalidField(pointer, code, format string, args ...any) *Error {
	detail := fmt.Sprintf(format, args...)
	return &Error{
		Kind: Invalid, Code: "invalid_request", Detail: "A value in the request is not valid.",
		Fields: []Field{{Pointer: pointer, Detail: detail, Code: code}},
	}
}

// Error writes the code, the detail and the cause.
func (e *Error) Error() string {
	s := e.Code + ": " + e.Detail
	for _, f := range e.Fields {
		s += fmt.Sprintf(" (%s: %s)", f.Pointer, f.Detail)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an Error of the same kind and code, so that a declared error stays
// recognisable after With has given it parameters.
func (e *Error) Is(target error) bool {
	var t *Error
	ok := errors.As(target, &t)
	return ok && t.Kind == e.Kind && t.Code == e.Code
}

// With returns a copy that carries one more member for the problem document.
func (e *Error) With(key string, value any) *Error {
	c := *e
	c.Params = make(map[string]any, len(e.Params)+1)
	maps.Copy(c.Params, e.Params)
	c.Params[key] = value
	return &c
}

// After returns a copy that says when a repetition makes sense.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Because returns a copy with a cause for the log.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// Details returns a copy with other words for the caller.
func (e *Error) Details(format string, args ...any) *Error {
	c := *e
	c.Detail = fmt.Sprintf(format, args...)
	return &c
}

// KindOf returns the kind of the first Error in err's chain, or Internal.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Wrap adds context to *errp if it is not nil. Use it as the first line of an operation:
//
//	defer errs.Wrap(&err, "close %s of %s", end, sub)
func Wrap(errp *error, format string, args ...any) {
	if *errp != nil {
		*errp = fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), *errp)
	}
}

// Contain runs do and returns a panic as an error with its stack, so that what is done for one record, and is broken, ends
// neither the process nor what is done for the others.
func Contain(do func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	return do()
}
