package middleware

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/internal/errs"
)

const (
	versionKey = "accrue.version"
	// AnyVersion is what ExpectedVersion returns for "If-Match: *".
	AnyVersion int64 = -1
	// noVersion is of a tag that no representation of ours ever had. It matches nothing.
	noVersion int64 = -2
)

// Errors of conditional requests. A version that is not the present one is account.ErrStale, found by
// the operation.
var (
	ErrIfMatchRequired = errs.New(errs.PreconditionRequired, "if_match_required", "Send the ETag that you read as If-Match, so that nobody's change is lost.")
	ErrIfMatch         = errs.New(errs.Malformed, "invalid_if_match", "If-Match wants one entity tag in quotes, or *.")
)

// ifMatch parses the If-Match header. The comparison itself belongs into the transaction that makes
// the change: only there nothing can come between.
func ifMatch(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		headers := c.Request().Header.Values("If-Match")
		if len(headers) == 0 {
			return ErrIfMatchRequired
		}
		tag := strings.TrimSpace(headers[0])
		if len(headers) > 1 || tag == "" || strings.Contains(tag, ",") {
			return ErrIfMatch
		}
		version, err := parseTag(tag)
		if err != nil {
			return err
		}
		c.Set(versionKey, version)
		return next(c)
	}
}

func parseTag(tag string) (int64, error) {
	if tag == "*" {
		return AnyVersion, nil
	}
	opaque, weak := strings.CutPrefix(tag, "W/")
	if len(opaque) < 2 || opaque[0] != '"' || opaque[len(opaque)-1] != '"' {
		return 0, ErrIfMatch
	}
	if weak { // strong comparison: a weak tag never matches
		return noVersion, nil
	}
	digits, ok := strings.CutPrefix(opaque[1:len(opaque)-1], "v")
	n, err := strconv.ParseInt(digits, 10, 64)
	if !ok || err != nil || n < 0 || strconv.FormatInt(n, 10) != digits {
		return noVersion, nil //nolint:nilerr // well formed, but never a tag of ours
	}
	return n, nil
}

// ExpectedVersion returns the version that the caller's If-Match names, for the operation to compare
// inside its transaction: zero where nothing has been written yet, AnyVersion for "*", and another
// negative number for a tag that can match nothing.
func ExpectedVersion(c echo.Context) int64 {
	v, ok := c.Get(versionKey).(int64)
	if !ok {
		panic("middleware: no If-Match on " + c.Path())
	}
	return v
}

// ETag returns the strong entity tag of a version.
func ETag(version int64) string { return `"v` + strconv.FormatInt(version, 10) + `"` }

// SetETag puts the version's tag on the answer.
func SetETag(c echo.Context, version int64) { SetTag(c, ETag(version)) }

// SetTag puts a tag on an answer that has no version of its own, such as a view of many records.
func SetTag(c echo.Context, tag string) {
	h := c.Response().Header()
	h.Set("ETag", tag)
	// With a tag the caller may keep a copy, if it asks each time whether the copy is still good.
	h.Set("Cache-Control", "private, no-cache")
	// A copy is kept by its address, which is the same for all accounts, and so may the tags of their records be.
	h.Add(echo.HeaderVary, echo.HeaderAuthorization)
	h.Add(echo.HeaderVary, headerAccount)
}

// NotModified reports whether the caller's If-None-Match names the tag that was set; the handler then
// answers 304 and nothing else.
func NotModified(c echo.Context) bool {
	tag := c.Response().Header().Get("ETag")
	if tag == "" || (c.Request().Method != http.MethodGet && c.Request().Method != http.MethodHead) {
		return false
	}
	for part := range strings.SplitSeq(strings.Join(c.Request().Header.Values("If-None-Match"), ","), ",") {
		part = strings.TrimSpace(part)
		if part == "*" || strings.TrimPrefix(part, "W/") == tag { // weak comparison, RFC 9110 section 13.1.2
			return true
		}
	}
	return false
}

// JSON answers 200 with v and the version's tag, or 304 if the caller has it already.
func JSON(c echo.Context, version int64, v any) error {
	SetETag(c, version)
	if NotModified(c) {
		return c.NoContent(http.StatusNotModified)
	}
	return c.JSON(http.StatusOK, v)
}
