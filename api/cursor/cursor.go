// Package cursor turns a position in a list into an opaque text and back.
//
// A cursor works only for the account and the list (route and filter) that it was given for: it
// carries a keyed digest over all of them, so it can neither be made up nor carried over.
package cursor

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"net/url"
	"strings"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/secret"
)

// ErrInvalid says that a cursor was not given by us for this list.
var ErrInvalid = errs.InvalidField("#/cursor", "invalid_cursor", "is not a cursor of this list; take next_cursor as it was given, with the same filter")

const macSize = 16

// Codec writes and reads cursors. It is safe for concurrent use.
type Codec struct{ key []byte }

// NewCodec returns a codec. With another key, cursors that are out become invalid.
func NewCodec(key secret.Text) *Codec { return &Codec{[]byte(key.Reveal())} }

// List is what a cursor is bound to.
type List struct {
	Account account.ID // zero for lists that belong to no account
	Route   string     // "GET /v1/invoices"
	Path    string     // as requested, with identifiers
	Filter  url.Values // the query without cursor and limit
}

// Encode returns the cursor of a position.
func (c *Codec) Encode(l List, position string) string {
	return base64.RawURLEncoding.EncodeToString(append(c.mac(l, position), position...))
}

// Decode returns the position of a cursor, or ErrInvalid.
func (c *Codec) Decode(l List, cursor string) (string, error) {
	if len(cursor) > 1024 || strings.ContainsAny(cursor, "\r\n") { // line ends mean nothing to base64
		return "", ErrInvalid
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(raw) <= macSize {
		return "", ErrInvalid
	}
	position := string(raw[macSize:])
	if !hmac.Equal(raw[:macSize], c.mac(l, position)) {
		return "", ErrInvalid
	}
	return position, nil
}

func (c *Codec) mac(l List, position string) []byte {
	mac := hmac.New(sha256.New, c.key)
	for _, part := range []string{"v1", l.Account.String(), l.Route, l.Path, l.Filter.Encode(), position} {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(part)))
		mac.Write(size[:])
		mac.Write([]byte(part))
	}
	return mac.Sum(nil)[:macSize]
}
