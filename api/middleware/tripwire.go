package middleware

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/internal/cardguard"
	"github.com/accrue-billing/accrue/internal/errs"
)

// ErrCardData refuses a request that holds card data. It names the places and never the value, and
// nothing of the request has been kept when it is returned.
var ErrCardData = errs.New(errs.Invalid, "card_data_not_accepted",
	"The request seems to hold card data. Card numbers and security codes go to the payment provider's own form, never to this API.")

// unsearched reports whether a header holds credentials, digests or the identifiers of machines, and
// never a person's typing. Tracing systems in between write decimal identifiers of 64 bits, of which
// some would pass for card numbers.
func unsearched(name string) bool {
	switch name {
	case echo.HeaderAuthorization, headerTraceparent, "Tracestate", "Baggage", "B3", "Ce-Time", "If-Match", "If-None-Match":
		return true
	}
	return strings.HasSuffix(name, "-Id") || strings.Contains(name, "Trace") ||
		strings.HasPrefix(name, "X-B3-") || strings.HasPrefix(name, "X-Datadog-")
}

// tripwire refuses requests with card data in the address, the headers or the body, before anything
// could log, store, hash or trace them.
func tripwire(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		if err := searchAddress(c.Request().URL); err != nil {
			return err
		}
		if err := searchHeaders(c.Request().Header); err != nil {
			return err
		}
		if data := body.Bytes(c); len(data) > 0 {
			if err := searchBody(c.Request().Header.Get(echo.HeaderContentType), data); err != nil {
				return err
			}
		}
		return next(c)
	}
}

func searchAddress(u *url.URL) error {
	for segment := range strings.SplitSeq(u.Path, "/") {
		if cardguard.HasNumber(segment) {
			return cardData("path")
		}
	}
	if u.RawQuery == "" {
		return nil
	}
	for parameter := range strings.SplitSeq(u.RawQuery, "&") {
		name, value, _ := strings.Cut(parameter, "=")
		name = unescaped(name)
		if cardguard.ForbiddenName(name) || cardguard.HasNumber(name) || !cardguard.IsIdentifier(name) && cardguard.HasNumber(unescaped(value)) {
			return cardData("query")
		}
	}
	return nil
}

// unescaped returns a part of a query as it was meant, or as it stands if it is malformed.
func unescaped(s string) string {
	if plain, err := url.QueryUnescape(s); err == nil {
		return plain
	}
	return s
}

func searchHeaders(h http.Header) error {
	for name, values := range h {
		if unsearched(name) {
			continue
		}
		if cardguard.HasNumber(name) {
			return cardData("headers")
		}
		for _, v := range values {
			if cardguard.HasNumber(v) {
				return inHeader(name)
			}
			if strings.HasPrefix(name, "Ce-") { // CloudEvents write their headers percent-encoded
				if plain, err := url.PathUnescape(v); err == nil && cardguard.HasNumber(plain) {
					return inHeader(name)
				}
			}
		}
	}
	return nil
}

func searchBody(contentType string, data []byte) error {
	media, _, _ := body.MediaType(contentType)
	if media == "text/csv" || media == echo.MIMETextPlain {
		if cardguard.HasNumber(string(data)) {
			return cardData("body")
		}
		return nil
	}
	if found := cardguard.JSON(data); len(found) > 0 {
		return cardData("body", found...)
	}
	return nil
}

// inHeader names the header: a key that is a long number may look like a card's.
func inHeader(name string) error {
	return ErrCardData.With("location", "headers").With("header", name)
}

func cardData(where string, found ...cardguard.Finding) error {
	e := *ErrCardData
	for _, f := range found {
		e.Fields = append(e.Fields, errs.Field{Pointer: strictjson.Fragment(f.Pointer), Detail: "looks like card data", Code: "card_data"})
	}
	return e.With("location", where)
}
