package middleware

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/idempotency"
)

const (
	headerIdempotencyKey = "Idempotency-Key"
	idempotencyKey       = "accrue.idempotency"
	maxKeyLength         = 255
)

// Errors of the Idempotency-Key header.
var (
	ErrKeyRequired = errs.New(errs.Malformed, "idempotency_key_required", "Send an Idempotency-Key: a fresh one for each thing to be done, the same one to repeat.")
	ErrKeyInvalid  = errs.New(errs.Malformed, "invalid_idempotency_key", "An Idempotency-Key is 1 to 255 visible ASCII characters, in double quotes or without.")
)

// idempotency parses the key and fingerprints the request. It answers nothing from memory: the claim
// and the stored answer belong to the transaction that does the work.
func (ch *Chain) idempotency(r route.Route) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			headers := c.Request().Header.Values(headerIdempotencyKey)
			switch {
			case len(headers) == 0 && r.Idempotent:
				return ErrKeyRequired
			case len(headers) == 0:
				return next(c)
			case len(headers) > 1:
				return ErrKeyInvalid
			}
			k, ok := parseKey(headers[0])
			if !ok {
				return ErrKeyInvalid
			}
			p := Principal(c)
			c.Set(idempotencyKey, idempotency.Request{
				Key:         k,
				Scope:       string(p.Kind) + " " + p.Subject + " " + r.Name(),
				Fingerprint: ch.fingerprint(c),
			})
			return next(c)
		}
	}
}

// parseKey reads a structured-field String ("…", with \" and \\ escaped) or a bare word. Both forms
// of one key are the same key.
func parseKey(header string) (string, bool) {
	k := header
	if len(k) >= 2 && k[0] == '"' {
		if k[len(k)-1] != '"' {
			return "", false
		}
		inner, out := k[1:len(k)-1], make([]byte, 0, len(k))
		for i := 0; i < len(inner); i++ {
			switch ch := inner[i]; ch {
			case '"':
				return "", false
			case '\\':
				if i++; i == len(inner) || (inner[i] != '"' && inner[i] != '\\') {
					return "", false
				}
			}
			out = append(out, inner[i])
		}
		k = string(out)
	}
	if len(k) == 0 || len(k) > maxKeyLength {
		return "", false
	}
	for i := range len(k) {
		if k[i] <= ' ' || k[i] > '~' {
			return "", false
		}
	}
	return k, true
}

// fingerprint is keyed, since a plain digest of a body with few possible values could be reversed.
func (ch *Chain) fingerprint(c echo.Context) (sum [32]byte) {
	mac := hmac.New(sha256.New, []byte(ch.cfg.Fingerprint.Reveal()))
	for _, part := range [][]byte{
		[]byte(AccountIfAny(c).String()), []byte(c.Request().URL.EscapedPath()), []byte(c.Request().URL.RawQuery), body.Bytes(c),
	} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		mac.Write(size[:]) // so that what ends one part cannot begin the next
		mac.Write(part)
	}
	mac.Sum(sum[:0])
	return sum
}

// Idempotency returns the caller's key and the fingerprint of the request. It panics on a route that
// does not require a key.
func Idempotency(c echo.Context) idempotency.Request {
	r, ok := c.Get(idempotencyKey).(idempotency.Request)
	if !ok {
		panic("middleware: no idempotency key on " + c.Path())
	}
	return r
}

// IdempotencyIfAny is Idempotency, or the zero Request where no key was sent or the route takes none.
func IdempotencyIfAny(c echo.Context) idempotency.Request {
	r, _ := c.Get(idempotencyKey).(idempotency.Request)
	return r
}
