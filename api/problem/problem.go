// Package problem writes errors as problem documents (RFC 9457).
//
// It owns: the one table from errs.Kind to status code, the one echo.HTTPErrorHandler, and the pages
// that the documents' types lead to. It does not own: what went wrong, which the error says, or which
// errors there are, which their packages declare.
//
// Always true: every answer of 400 or more is a problem document, those of the router included; an
// error without a kind is a 500 that says nothing but where to find it in the log.
package problem

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/trace"
)

// MediaType is the content type of a problem document.
const MediaType = "application/problem+json"

// Problem is a problem document. Some problems carry further members; which ones goes by the code.
type Problem struct {
	Type     string  `json:"type" format:"uri-reference" validate:"required" example:"https://billing.example.com/problems/invalid-request"` // identifies the problem; leads to a page about it
	Title    string  `json:"title" validate:"required" example:"Invalid request"`                                                            // the same for every occurrence
	Status   int     `json:"status" validate:"required" example:"422"`                                                                       // the status code of the answer
	Detail   string  `json:"detail,omitempty" example:"A value in the request is not valid."`                                                // this occurrence, for a person; not to be parsed
	Instance string  `json:"instance" format:"uri" validate:"required" example:"urn:uuid:01a0b9f2-7c50-7d05-8d1c-5a2b6f5f3c11"`              // the request id
	Code     string  `json:"code" validate:"required" example:"invalid_request"`                                                             // stable, for a program
	Errors   []Field `json:"errors,omitempty"`                                                                                               // the offending values, if any

	params map[string]any
} //@name Problem

// Field points at one offending value.
type Field struct {
	Pointer string `json:"pointer" validate:"required" example:"#/amount/currency"` // RFC 6901, as a URI fragment
	Detail  string `json:"detail" validate:"required" example:"is not a currency"`  // what is wrong, for a person
	Code    string `json:"code,omitempty" example:"unknown_currency"`               // stable, for a program
} //@name ProblemField

// MarshalJSON writes the standard members and then the further ones, in order of their names.
func (p Problem) MarshalJSON() ([]byte, error) {
	type plain Problem // without this method
	standard, err := json.Marshal(plain(p))
	if err != nil || len(p.params) == 0 {
		return standard, err
	}
	params := maps.Clone(p.params)
	for _, reserved := range []string{"type", "title", "status", "detail", "instance", "code", "errors"} {
		delete(params, reserved)
	}
	extra, err := json.Marshal(params)
	if err != nil || len(params) == 0 {
		return standard, err
	}
	return append(append(standard[:len(standard)-1], ','), extra[1:]...), nil
}

// statuses is the table from kind to status code.
var statuses = map[errs.Kind]int{
	errs.Internal:             http.StatusInternalServerError,
	errs.Malformed:            http.StatusBadRequest,
	errs.Unauthenticated:      http.StatusUnauthorized,
	errs.PaymentDeclined:      http.StatusPaymentRequired,
	errs.Forbidden:            http.StatusForbidden,
	errs.NotFound:             http.StatusNotFound,
	errs.Conflict:             http.StatusConflict,
	errs.PreconditionFailed:   http.StatusPreconditionFailed,
	errs.PreconditionRequired: http.StatusPreconditionRequired,
	errs.TooLarge:             http.StatusRequestEntityTooLarge,
	errs.UnsupportedMedia:     http.StatusUnsupportedMediaType,
	errs.Invalid:              http.StatusUnprocessableEntity,
	errs.RateLimited:          http.StatusTooManyRequests,
	errs.Unavailable:          http.StatusServiceUnavailable,
}

// Status returns the status code of a kind.
func Status(k errs.Kind) int {
	if s, ok := statuses[k]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// Errors that the edge itself meets.
var (
	ErrNoRoute   = errs.New(errs.NotFound, "route_not_found", "There is no such address in this API. Addresses are in lower case, without a slash at the end; /openapi.json lists them.")
	ErrTimeout   = errs.New(errs.Unavailable, "timeout", "The request took too long and was given up; repeat it with the same Idempotency-Key.").After(time.Second)
	errInternal  = errs.New(errs.Internal, "internal", "Something went wrong on our side. The instance finds it in our log.")
	errMalformed = errs.New(errs.Malformed, "malformed_request", "The request cannot be read.")

	// Of these two the router alone knows the status: there is no kind for them.
	errMethod        = errs.New(errs.Malformed, "method_not_allowed", "The address exists, but not for this method; Allow names those it takes.")
	errNotAcceptable = errs.New(errs.Malformed, "not_acceptable", "The operation answers in no form that Accept allows. Leave Accept out, or send */*.")
)

// standardTypes are problem types that IANA has registered; all others lead to pages of ours.
var standardTypes = map[string]string{
	"rate_limited": "https://iana.org/assignments/http-problem-types#quota-exceeded",
	"overloaded":   "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
}

// Writer turns errors into answers.
type Writer struct {
	// BaseURL is where this API is reached from outside ("https://billing.example.com"); types are
	// absolute under it. Empty makes them relative references.
	BaseURL string
	Log     *slog.Logger
}

// Handle is the echo.HTTPErrorHandler.
func (w Writer) Handle(err error, c echo.Context) {
	ctx := c.Request().Context()
	status, e := w.classify(err, c.Response().Header())
	w.log(ctx, err, status, c)
	if c.Response().Committed {
		return // part of another answer is on its way; all that is left is to say so in the log
	}
	w.write(c, status, e)
}

// classify finds the error to show and its status. It sets the headers that belong to the status.
func (w Writer) classify(err error, h http.Header) (int, *errs.Error) {
	status, e := known(err)
	switch {
	case status == http.StatusUnauthorized || (status == http.StatusForbidden && e.Code == "insufficient_scope"):
		h.Set(echo.HeaderWWWAuthenticate, challenge(e))
	case e.RetryAfter == 0 && (status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable):
		e = e.After(time.Second)
	}
	if e.RetryAfter > 0 {
		h.Set(echo.HeaderRetryAfter, strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	return status, e
}

func known(err error) (int, *errs.Error) {
	if e, ok := errors.AsType[*errs.Error](err); ok {
		if e.Kind == errs.Internal {
			return http.StatusInternalServerError, errInternal
		}
		return Status(e.Kind), e
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return Status(errs.Unavailable), ErrTimeout
	}
	if he, ok := errors.AsType[*echo.HTTPError](err); ok {
		switch he.Code {
		case http.StatusNotFound:
			return he.Code, ErrNoRoute
		case http.StatusMethodNotAllowed: // the router has set Allow
			return he.Code, errMethod
		case http.StatusNotAcceptable:
			return he.Code, errNotAcceptable
		}
		if he.Code >= 400 && he.Code < 500 {
			return he.Code, errMalformed
		}
	}
	return http.StatusInternalServerError, errInternal
}

// challenge writes WWW-Authenticate as RFC 6750 wants it: without credentials no error code.
func challenge(e *errs.Error) string {
	const realm = `Bearer realm="accrue"`
	switch e.Code {
	case "authentication_required":
		return realm
	case "insufficient_scope":
		s := realm + `, error="insufficient_scope"`
		if scope, ok := e.Params["required_scope"].(string); ok {
			s += `, scope="` + scope + `"`
		}
		return s
	default:
		return realm + `, error="invalid_token", error_description="` + strings.ReplaceAll(e.Detail, `"`, `'`) + `"`
	}
}

// Document returns the status and the problem document of an error, as Handle would answer it: for
// whoever must keep an answer to give it again.
func (w Writer) Document(ctx context.Context, err error) (int, []byte, error) {
	status, e := known(err)
	doc, err := w.document(ctx, status, e)
	return status, doc, err
}

func (w Writer) document(ctx context.Context, status int, e *errs.Error) ([]byte, error) {
	p := Problem{
		Type: w.typeOf(e.Code), Title: Title(e.Code), Status: status, Detail: e.Detail,
		Instance: "urn:uuid:" + trace.From(ctx).RequestID(), Code: e.Code, params: e.Params,
	}
	for _, f := range e.Fields {
		p.Errors = append(p.Errors, Field(f))
	}
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	err := enc.Encode(p)
	return body.Bytes(), err
}

// Send answers with a document that is written already.
func Send(c echo.Context, status int, document []byte) error {
	h := c.Response().Header()
	h.Set("Content-Language", "en")
	h.Set("Cache-Control", "no-store")
	for _, name := range []string{"ETag", echo.HeaderContentType, echo.HeaderContentEncoding, echo.HeaderContentDisposition} {
		h.Del(name) // it belonged to the answer that was not given
	}
	return c.Blob(status, MediaType, document)
}

func (w Writer) write(c echo.Context, status int, e *errs.Error) {
	doc, err := w.document(c.Request().Context(), status, e)
	if err != nil {
		w.Log.ErrorContext(c.Request().Context(), "problem document not written", "error", err)
		doc = []byte(`{"type":"about:blank","title":"Internal","status":500,"code":"internal"}`)
		status = http.StatusInternalServerError
	}
	if err := Send(c, status, doc); err != nil {
		w.Log.DebugContext(c.Request().Context(), "caller left before the problem document", "error", err)
	}
}

// log writes down what nobody else will: faults of ours, and the causes of refusals.
func (w Writer) log(ctx context.Context, err error, status int, c echo.Context) {
	level := slog.LevelDebug
	switch {
	case errors.Is(err, context.Canceled):
	case status == http.StatusInternalServerError || c.Response().Committed:
		level = slog.LevelError
	case status >= http.StatusInternalServerError:
		level = slog.LevelWarn
	}
	w.Log.Log(ctx, level, "request failed",
		"error", err, "status", status, "method", c.Request().Method, "route", c.Path(),
		"request_id", trace.From(ctx).RequestID())
}

func (w Writer) typeOf(code string) string {
	if t, ok := standardTypes[code]; ok {
		return t
	}
	return w.BaseURL + "/problems/" + Slug(code)
}

// Slug returns a code as it stands in an address: "card_declined" gives "card-declined".
func Slug(code string) string { return strings.ReplaceAll(code, "_", "-") }

// Title returns the words of a code: "card_declined" gives "Card declined".
func Title(code string) string {
	words := strings.ReplaceAll(code, "_", " ")
	if words == "" {
		return ""
	}
	return strings.ToUpper(words[:1]) + words[1:]
}
