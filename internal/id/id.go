// Package id gives every record a typed, time-ordered identifier.
//
// In the database an identifier is a UUID of version 7. On the wire it carries the prefix of its
// type and 26 characters of Crockford base 32 ("inv_01k4…"), which sort by time as the UUIDs do.
// An identifier of one type does not compile where another type is wanted.
package id

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// Prefixed is implemented by the record that an identifier names. The receiver is never used.
type Prefixed interface {
	IDPrefix() string // lower case, without the underscore
}

// ID names a record of type T. The zero ID names nothing and is refused by the stores.
type ID[T Prefixed] struct{ u uuid.UUID }

// ErrMalformed says that a text is not an identifier of the wanted type.
var ErrMalformed = errors.New("malformed identifier")

// New returns a fresh identifier. Later calls in one process sort after earlier ones.
func New[T Prefixed]() ID[T] { return ID[T]{uuid.Must(uuid.NewV7())} }

// FromUUID returns the identifier with the given UUID.
func FromUUID[T Prefixed](u uuid.UUID) ID[T] { return ID[T]{u} }

// Parse reads the wire form. A wrong prefix, length or character gives ErrMalformed.
func Parse[T Prefixed](s string) (ID[T], error) {
	var zero ID[T]
	rest, ok := strings.CutPrefix(s, prefix[T]()+"_")
	if !ok || len(rest) != 26 {
		return zero, fmt.Errorf("%w: want %s_ and 26 characters", ErrMalformed, prefix[T]())
	}
	u, ok := decode(rest)
	if !ok || u == uuid.Nil {
		return zero, fmt.Errorf("%w: not base 32", ErrMalformed)
	}
	return ID[T]{u}, nil
}

// MustParse is Parse for tests and constants.
func MustParse[T Prefixed](s string) ID[T] {
	v, err := Parse[T](s)
	if err != nil {
		panic(err)
	}
	return v
}

// UUID returns the identifier as the database keeps it.
func (i ID[T]) UUID() uuid.UUID { return i.u }

// IsZero reports whether the identifier names nothing.
func (i ID[T]) IsZero() bool { return i.u == uuid.Nil }

// String returns the wire form, and the empty string for the zero ID.
func (i ID[T]) String() string {
	if i.IsZero() {
		return ""
	}
	return prefix[T]() + "_" + encode(i.u)
}

// MarshalText returns the wire form.
func (i ID[T]) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText reads the wire form; the empty text is the zero ID.
func (i *ID[T]) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*i = ID[T]{}
		return nil
	}
	v, err := Parse[T](string(b))
	if err != nil {
		return err
	}
	*i = v
	return nil
}

// Value gives the driver a UUID, and NULL for the zero ID.
func (i ID[T]) Value() (driver.Value, error) {
	if i.IsZero() {
		return nil, nil //nolint:nilnil // NULL is the database's zero ID
	}
	return i.u.String(), nil
}

// Scan reads a UUID or NULL.
func (i *ID[T]) Scan(src any) error {
	if src == nil {
		*i = ID[T]{}
		return nil
	}
	return i.u.Scan(src)
}

func prefix[T Prefixed]() string {
	var t T
	return t.IDPrefix()
}

const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// encode writes 128 bits as 26 digits of base 32; the first digit holds the top three bits.
func encode(u uuid.UUID) string {
	var out [26]byte
	var acc uint32
	bits, pos := 0, len(out)
	for i := len(u) - 1; i >= 0; i-- {
		acc |= uint32(u[i]) << bits
		bits += 8
		for bits >= 5 {
			pos--
			out[pos] = alphabet[acc&31]
			acc >>= 5
			bits -= 5
		}
	}
	pos--
	out[pos] = alphabet[acc&31]
	return string(out[:])
}

func decode(s string) (u uuid.UUID, ok bool) {
	var acc uint32
	bits, pos := 0, len(u)
	for i := len(s) - 1; i >= 0; i-- {
		d := strings.IndexByte(alphabet, s[i])
		if d < 0 {
			return uuid.Nil, false
		}
		if i == 0 && d > 7 { // 26 digits hold 130 bits; the top two must be clear
			return uuid.Nil, false
		}
		acc |= uint32(d) << bits //nolint:gosec // d is an index into 32 digits
		bits += 5
		if bits >= 8 {
			pos--
			u[pos] = byte(acc) //nolint:gosec // the low eight bits are meant
			acc >>= 8
			bits -= 8
		}
	}
	return u, true
}
