package v1

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/pkg/money"
)

// convert maps a list. It never returns nil: an empty list is [] on the wire, not null.
func convert[D, T any](list []D, fn func(D) T) []T {
	out := make([]T, len(list))
	for i, d := range list {
		out[i] = fn(d)
	}
	return out
}

// text is for converting lists of named strings.
func text[S ~string](s S) string { return string(s) }

// textIf returns nil for the empty string, which JSON writes as null.
func textIf[S ~string](s S) *string {
	if s == "" {
		return nil
	}
	t := string(s)
	return &t
}

// textAt is textIf for a text that stays where it is: nothing is copied.
func textAt(s *string) *string {
	if *s == "" {
		return nil
	}
	return s
}

// decimalIf returns nil for zero, where zero means that there is none.
func decimalIf(d money.Decimal) *string {
	if d.IsZero() {
		return nil
	}
	s := d.String()
	return &s
}

// tagged answers with a view that has no version of its own. Its tag is a digest of its bytes, so a
// caller that has them already is told so in a few.
func tagged(c echo.Context, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	middleware.SetTag(c, `"`+base64.RawURLEncoding.EncodeToString(sum[:12])+`"`)
	if middleware.NotModified(c) {
		return c.NoContent(http.StatusNotModified)
	}
	return c.JSONBlob(http.StatusOK, data)
}
