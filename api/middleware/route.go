package middleware

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/semaphore"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/internal/errs"
)

// ErrContentType says that the body is not in a form that the operation takes, ErrContentTypes that it is in several.
var (
	ErrContentType  = errs.New(errs.UnsupportedMedia, "unsupported_media_type", "The content type is not spoken here.")
	ErrContentTypes = errs.New(errs.Malformed, "invalid_content_type", "Send one header Content-Type.")
)

// deprecation announces the end of a route (RFC 9745, RFC 8594).
func deprecation(r route.Route) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		if r.Deprecated.IsZero() {
			return next
		}
		return func(c echo.Context) error {
			h := c.Response().Header()
			h.Set("Deprecation", "@"+strconv.FormatInt(r.Deprecated.Unix(), 10))
			if !r.Sunset.IsZero() {
				h.Set("Sunset", r.Sunset.UTC().Format(http.TimeFormat))
			}
			if r.Successor != "" {
				h.Add("Link", "<"+r.Successor+`>; rel="deprecation"; type="text/html"`)
			}
			return next(c)
		}
	}
}

// deadline bounds the operation. A stream (negative time-out) is also freed from the server's own
// limits of reading and writing.
func deadline(r route.Route) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if r.Timeout < 0 {
				control := http.NewResponseController(c.Response().Writer)
				if err := control.SetWriteDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
					return err
				}
				return next(c)
			}
			callOf(c).until = time.Now().Add(r.Timeout) //nolint:forbidigo // of a timer, which goes by real time
			return next(c)
		}
	}
}

// accept refuses a request whose answer the caller says it cannot read.
func accept(r route.Route) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			header := c.Request().Header.Values(echo.HeaderAccept)
			if len(header) == 1 && (header[0] == "*/*" || slices.Contains(r.Produces, header[0])) {
				return next(c)
			}
			if len(header) > 0 && !acceptable(strings.Join(header, ","), r.Produces) {
				return echo.NewHTTPError(http.StatusNotAcceptable)
			}
			return next(c)
		}
	}
}

// ErrQuery says that the query is not one.
var ErrQuery = errs.New(errs.Malformed, "malformed_query", "The query of the address cannot be read.")

// query reads the query's parameters: those that the route names, each at most once and fit to be stored. A
// name that is not known is refused, since a filter with a typing error would silently give the whole list.
func query(r route.Route) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			raw := c.Request().URL.RawQuery
			if raw == "" {
				return next(c)
			}
			q, err := url.ParseQuery(raw)
			if err != nil {
				return ErrQuery
			}
			for name, values := range q {
				pointer := strictjson.Fragment("/" + name)
				if !slices.Contains(r.Query, name) {
					return errs.InvalidField(pointer, "unknown_parameter", "is not a parameter of this operation")
				}
				if len(values) > 1 {
					return errs.InvalidField(pointer, "duplicate_member", "stands twice in the query")
				}
				if values[0], err = strictjson.CheckText(values[0]); err != nil { // as it is stored: in normal form
					return errs.InvalidField(pointer, "invalid_text", "%s", err.Error())
				}
			}
			callOf(c).query = q
			return next(c)
		}
	}
}

// Query returns the query's parameters, each with one value; nil where there is none.
func Query(c echo.Context) url.Values {
	k, _ := known(c)
	return k.query
}

// ErrOperationBusy says that as many requests of an operation are worked on as there may be.
var ErrOperationBusy = errs.New(errs.Unavailable, "operation_busy",
	"This operation reads a lot, and as many of it are being made as can be at one time. Try again in a moment.").After(5 * time.Second)

// atMost lets so many requests through at one time and refuses the others.
func atMost(n int64) echo.MiddlewareFunc {
	room := semaphore.NewWeighted(n)
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if !room.TryAcquire(1) {
				return ErrOperationBusy
			}
			defer room.Release(1)
			return next(c)
		}
	}
}

// ErrNothingThere says that an address cannot be that of any record.
var ErrNothingThere = errs.New(errs.NotFound, "address_not_found", "There is nothing at this address.")

// addressable refuses an address with a text in it that could never have been stored, before anybody
// looks for it.
func addressable(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		for _, v := range c.ParamValues() {
			if _, err := strictjson.CheckText(v); err != nil {
				return ErrNothingThere
			}
		}
		return next(c)
	}
}

func acceptable(header string, offers []string) bool {
	if strings.TrimSpace(header) == "" {
		return true
	}
	for part := range strings.SplitSeq(header, ",") {
		wanted, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if err != nil || params["q"] == "0" {
			continue
		}
		for _, offer := range offers {
			kind, _, _ := strings.Cut(offer, "/")
			if wanted == "*/*" || wanted == offer || wanted == kind+"/*" {
				return true
			}
		}
	}
	return false
}

// takeBody reads the body, bounded and decompressed, and checks that it is in a form that the
// operation takes. An operation without a body does not get one: what it cannot read it must not be
// able to keep.
func (ch *Chain) takeBody(r route.Route) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if !r.HasBody() {
				return next(c)
			}
			req := c.Request()
			data, done, err := ch.bodies.Read(c.Response(), req, r.MaxBody)
			defer done()
			if err != nil {
				if errors.Is(err, body.ErrEncoding) {
					c.Response().Header().Set(echo.HeaderAcceptEncoding, body.AcceptEncoding)
				}
				return err
			}
			if len(data) > 0 {
				if err := checkContentType(req.Header, r.Consumes); err != nil {
					return err
				}
			}
			body.Set(c, data)
			return next(c)
		}
	}
}

// noBody refuses what an operation without a body would pass over.
func noBody(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		var nothing struct{}
		if err := strictjson.Decode(c, &nothing); err != nil && !errors.Is(err, strictjson.ErrNoBody) {
			return err
		}
		return next(c)
	}
}

func checkContentType(h http.Header, consumes []string) error {
	if len(h.Values(echo.HeaderContentType)) > 1 {
		return ErrContentTypes // what stands before us may have gone by the other
	}
	media, params, err := body.MediaType(h.Get(echo.HeaderContentType))
	charset, named := params["charset"]
	switch {
	case err != nil || !slices.Contains(consumes, media):
		return ErrContentType.With("supported", consumes)
	case named && !strings.EqualFold(charset, "utf-8"):
		return ErrContentType.With("supported", consumes).Details("The charset is not spoken here; send UTF-8.")
	}
	return nil
}
