package metering

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/pkg/money"
)

// DefaultSource is the source of an event whose sender names none.
const DefaultSource = "default"

// Bounds of an event's texts, in bytes.
const (
	MaxIDLength     = 255
	MaxSourceLength = 255
	MaxValueLength  = 255
	MaxDimensions   = 5
)

// Dimension is one attribute of an event that its meter declares.
type Dimension struct{ Name, Value string }

// Dimensions are an event's attributes, sorted by name, each name once.
type Dimensions []Dimension

// DimensionsOf returns the attributes in a map.
func DimensionsOf(m map[string]string) Dimensions {
	if len(m) == 0 {
		return nil
	}
	d := make(Dimensions, 0, len(m))
	for k, v := range m {
		d = append(d, Dimension{k, v})
	}
	d.Sort()
	return d
}

// Sort puts the attributes in their order. Dimensions made by hand need it.
func (d Dimensions) Sort() {
	slices.SortFunc(d, func(a, b Dimension) int { return strings.Compare(a.Name, b.Name) })
}

// Get returns the value of an attribute, and the empty string without it.
func (d Dimensions) Get(name string) string {
	for i := range d {
		if d[i].Name == name {
			return d[i].Value
		}
	}
	return ""
}

// Map returns the attributes as a map, and nil without any.
func (d Dimensions) Map() map[string]string {
	if len(d) == 0 {
		return nil
	}
	m := make(map[string]string, len(d))
	for i := range d {
		m[d[i].Name] = d[i].Value
	}
	return m
}

// Series names the combination of attributes that usage is kept apart by: a digest, or one of the
// two fixed ones.
type Series = uuid.UUID

// The series without attributes, and the one that takes what is beyond a meter's cap.
var (
	NoSeries    = uuid.Nil
	OtherSeries = uuid.Max
)

// OtherValue is shown for every attribute of what was counted in OtherSeries.
const OtherValue = "other"

// Series returns the digest of the attributes.
func (d Dimensions) Series() Series {
	if len(d) == 0 {
		return NoSeries
	}
	t := newDigest()
	t.dimensions(d)
	return t.sum()
}

// Event is one report of usage.
type Event struct {
	Account  account.ID
	Source   string // who reports; with ID it is the event's identity
	ID       string
	Meter    string
	Quantity money.Decimal // in the meter's unit, as reported
	// Value is what a meter of distinct values counts once; empty on any other meter.
	Value      string
	OccurredAt time.Time // UTC, to the microsecond
	Dimensions Dimensions
}

// Key returns the event's identity within its account: 128 bits of SHA-256 over source and id.
func (e *Event) Key() uuid.UUID { return KeyOf(e.Source, e.ID) }

// KeyOf returns the identity of the event with the given source and id.
func KeyOf(source, id string) uuid.UUID {
	t := newDigest()
	t.text(source)
	t.text(id)
	return t.sum()
}

// Content returns 128 bits of SHA-256 over everything the event says besides its identity. Two
// events of one identity with the same content are a repetition; with different content, a conflict.
func (e *Event) Content() uuid.UUID {
	t := newDigest()
	t.text(e.Meter)
	t.text(e.Quantity.String())
	t.text(e.Value)
	t.int64(e.OccurredAt.UnixMicro())
	t.dimensions(e.Dimensions)
	return t.sum()
}

// digest is 128 bits of SHA-256 in the making. It is kept from one use to the next: an event has three.
type digest struct {
	b    []byte
	hash hash.Hash
}

var digests = sync.Pool{New: func() any { return &digest{hash: sha256.New()} }}

func newDigest() *digest { return digests.Get().(*digest) } //nolint:forcetypeassert // nothing else is put there

// text writes a text behind its length, so that no two sequences of texts read alike.
func (d *digest) text(s string) {
	d.b = binary.AppendUvarint(d.b, uint64(len(s)))
	d.b = append(d.b, s...)
}

func (d *digest) int64(n int64) {
	d.b = binary.BigEndian.AppendUint64(d.b, uint64(n)) //nolint:gosec // the bits are hashed, not counted with
}

func (d *digest) dimensions(dims Dimensions) {
	for i := range dims {
		d.text(dims[i].Name)
		d.text(dims[i].Value)
	}
}

// sum ends the digest, which its user must not use any more.
func (d *digest) sum() uuid.UUID {
	d.hash.Reset()
	d.hash.Write(d.b)
	d.b = d.hash.Sum(d.b[:0])
	sum := uuid.UUID(d.b[:16])
	d.b = d.b[:0]
	digests.Put(d)
	return sum
}

// validate checks what can be checked without the account: a nil Problem is a good event.
func (e *Event) validate(m *Meter) *Problem {
	switch {
	case !text(e.ID, MaxIDLength):
		return invalid("id", "invalid_id", "An id has 1 to 255 bytes of UTF-8 without control characters.")
	case !text(e.Source, MaxSourceLength):
		return invalid("source", "invalid_source", "A source has 1 to 255 bytes of UTF-8 without control characters.")
	case m == nil:
		return invalid("meter", "unknown_meter", "There is no such meter.")
	case m.Reserved:
		return invalid("meter", "meter_takes_no_events", "This meter counts open reservations and takes no events.")
	case e.Quantity.Sign() < 0:
		return invalid("quantity", "negative_quantity", "A quantity is not negative. Use a correction to take usage back.")
	case e.OccurredAt.IsZero():
		return invalid("timestamp", "invalid_timestamp", "An event needs the time at which the usage happened.")
	case len(e.Dimensions) > MaxDimensions:
		return invalid("dimensions", "too_many_dimensions", "An event has at most 5 dimensions.")
	case m.Aggregation == Unique && !text(e.Value, MaxValueLength):
		return invalid("value", "invalid_value", "This meter counts distinct values; an event needs one of 1 to 255 bytes.")
	case m.Aggregation != Unique && e.Value != "":
		return invalid("value", "unexpected_value", "This meter does not count distinct values.")
	}
	for i := range e.Dimensions {
		d := &e.Dimensions[i]
		if !slices.Contains(m.Dimensions, d.Name) {
			return invalid("dimensions/"+pointerToken(d.Name), "unknown_dimension", "The meter does not declare this dimension.")
		}
		if i > 0 && e.Dimensions[i-1].Name == d.Name {
			return invalid("dimensions/"+pointerToken(d.Name), "duplicate_dimension", "The dimension is given twice.")
		}
		if !text(d.Value, MaxValueLength) {
			return invalid("dimensions/"+pointerToken(d.Name), "invalid_dimension", "A dimension has 1 to 255 bytes of UTF-8 without control characters.")
		}
	}
	return nil
}

// text reports whether s has 1 to most bytes of UTF-8 without control characters.
func text(s string, most int) bool { //nolint:unparam // the bound is the caller's, though most agree
	if s == "" || len(s) > most {
		return false
	}
	ascii := true
	for i := range len(s) {
		if s[i] < 0x20 || s[i] == 0x7f {
			return false
		}
		ascii = ascii && s[i] < utf8.RuneSelf
	}
	if ascii {
		return true
	}
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r >= 0x80 && r < 0xa0 {
			return false
		}
	}
	return true
}

// pointerToken escapes a name for a JSON pointer, cut to what a name may be.
func pointerToken(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "")
	}
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
}
