package postgres

import (
	"bytes"
	"database/sql"
	"encoding/binary"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgtype"
)

// The hot path sends its rows as arrays, one for each column, in PostgreSQL's binary format. Built
// here by hand they cost a few nanoseconds an element, where a driver that finds out each element's
// type by reflection costs a hundred and an allocation.

// pgEpoch is 2000-01-01 in microseconds since 1970: where PostgreSQL counts time from.
const pgEpoch = 946_684_800_000_000

const arrayHeader = 20

// array is a one-dimensional array under construction.
type array struct{ b []byte }

func newArray(element uint32, n, elementSize int) *array {
	return &array{appendArrayHeader(make([]byte, 0, arrayHeader+n*(4+elementSize)), element, 0)}
}

func appendArrayHeader(b []byte, element uint32, elements int) []byte {
	b = binary.BigEndian.AppendUint32(b, 1) // dimensions
	b = binary.BigEndian.AppendUint32(b, 0) // no NULL
	b = binary.BigEndian.AppendUint32(b, element)
	b = binary.BigEndian.AppendUint32(b, uint32(elements)) //nolint:gosec // a few thousand
	return binary.BigEndian.AppendUint32(b, 1)             // lower bound
}

// more counts one more element, which the caller appends.
func (a *array) more() []byte {
	binary.BigEndian.PutUint32(a.b[12:], binary.BigEndian.Uint32(a.b[12:])+1)
	return a.b
}

func (a *array) null() {
	a.b[7] = 1 // there is one
	a.b = appendSize(a.more(), -1)
}

func (a *array) uuid(u uuid.UUID) { a.b = appendUUID(a.more(), u) }
func (a *array) text(s string)    { a.b = appendText(a.more(), s) }
func (a *array) bytes(b []byte)   { a.b = appendText(a.more(), b) }
func (a *array) bool(v bool)      { a.b = appendBool(a.more(), v) }
func (a *array) int8(n int64)     { a.b = appendInt8(a.more(), n) }

// micros appends a timestamptz given in microseconds since 1970.
func (a *array) micros(t int64) { a.int8(t - pgEpoch) }

// numeric appends a decimal as its text says it: an optional sign, digits, and digits after a point.
func (a *array) numeric(s string) {
	begin := len(a.b)
	a.b = appendNumeric(appendSize(a.more(), 0), s)
	a.setSize(begin)
}

// setSize writes the length of the last element, which begins at the given byte.
func (a *array) setSize(begin int) {
	binary.BigEndian.PutUint32(a.b[begin:], uint32(len(a.b)-begin-4)) //nolint:gosec // an element is far below 2 GiB
}

// int8Param is a parameter that is no array.
func int8Param(n int) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) } //nolint:gosec // a count

func newUUIDs(n int) *array    { return newArray(pgtype.UUIDOID, n, 16) }
func newTexts(n int) *array    { return newArray(pgtype.TextOID, n, 16) }
func newTimes(n int) *array    { return newArray(pgtype.TimestamptzOID, n, 8) }
func newInt8s(n int) *array    { return newArray(pgtype.Int8OID, n, 8) }
func newNumerics(n int) *array { return newArray(pgtype.NumericOID, n, 14) }

// appendNumeric writes a decimal text in numeric's binary form: digits of base 10,000, the weight of
// the first of them, the sign, and the number of decimals to show.
func appendNumeric(b []byte, s string) []byte {
	sign := uint16(0)
	if strings.HasPrefix(s, "-") {
		sign, s = 0x4000, s[1:]
	}
	integer, fraction, _ := strings.Cut(s, ".")
	var digits [12]uint16
	n := 0
	// Integer digits in groups of four from the point to the left, fraction digits to the right.
	lead := len(integer) % 4
	if lead == 0 {
		lead = min(4, len(integer))
	}
	for i := 0; i < len(integer); {
		end := i + 4
		if i == 0 {
			end = lead
		}
		digits[n] = group(integer[i:end])
		n++
		i = end
	}
	weight := n - 1
	for i := 0; i < len(fraction); i += 4 {
		part := fraction[i:min(i+4, len(fraction))]
		d := group(part)
		for range 4 - len(part) {
			d *= 10
		}
		digits[n] = d
		n++
	}
	first := 0
	for first < n && digits[first] == 0 {
		first++
		weight--
	}
	for n > first && digits[n-1] == 0 {
		n--
	}
	if first == n {
		weight, sign = 0, 0
	}
	b = binary.BigEndian.AppendUint16(b, uint16(n-first))       //nolint:gosec // at most 12
	b = binary.BigEndian.AppendUint16(b, uint16(int16(weight))) //nolint:gosec // at most 5
	b = binary.BigEndian.AppendUint16(b, sign)
	b = binary.BigEndian.AppendUint16(b, uint16(len(fraction))) //nolint:gosec // at most 19
	for _, d := range digits[first:n] {
		b = binary.BigEndian.AppendUint16(b, d)
	}
	return b
}

func group(s string) (d uint16) {
	for i := range len(s) {
		d = d*10 + uint16(s[i]-'0')
	}
	return d
}

// value reads the columns of a row in binary format. A mismatch is a fault of ours and shows as err.
type value struct {
	row [][]byte
	err error
}

func (v *value) column(i, size int) []byte {
	b := v.row[i]
	if len(b) != size {
		v.err = fmt.Errorf("column %d has %d bytes, not %d", i, len(b), size)
		return make([]byte, size)
	}
	return b
}

func (v *value) uuid(i int) uuid.UUID { return uuid.UUID(v.column(i, 16)) }
func (v *value) text(i int) string    { return string(v.row[i]) }
func (v *value) isNull(i int) bool    { return v.row[i] == nil }
func (v *value) int8(i int) int64     { return int64(binary.BigEndian.Uint64(v.column(i, 8))) } //nolint:gosec // two's complement
func (v *value) bytes(i int) []byte   { return bytes.Clone(v.row[i]) }
func (v *value) micros(i int) int64   { return v.int8(i) + pgEpoch }
func (v *value) time(i int) time.Time { return time.UnixMicro(v.micros(i)).UTC() }
func (v *value) times(i int) (ts []time.Time) {
	b := v.row[i]
	if len(b) < arrayHeader {
		return nil // an array without elements has no dimensions
	}
	for b = b[arrayHeader:]; len(b) >= 12; b = b[12:] {
		micros := int64(binary.BigEndian.Uint64(b[4:12])) + pgEpoch //nolint:gosec // two's complement
		ts = append(ts, time.UnixMicro(micros).UTC())
	}
	return ts
}

// integer reads an integer of any size.
func (v *value) integer(i int) int64 {
	switch b := v.row[i]; len(b) {
	case 2:
		return int64(int16(binary.BigEndian.Uint16(b))) //nolint:gosec // two's complement
	case 4:
		return int64(int32(binary.BigEndian.Uint32(b))) //nolint:gosec // two's complement
	}
	return v.int8(i)
}

// clone is the row for longer than it lasts on the wire.
func (v *value) clone() value {
	c := value{row: make([][]byte, len(v.row))}
	size := 0
	for _, b := range v.row {
		size += len(b)
	}
	all := make([]byte, 0, size)
	for i, b := range v.row {
		if b != nil {
			begins := len(all)
			all = append(all, b...)
			c.row[i] = all[begins:len(all):len(all)]
		}
	}
	return c
}

func itoa(n int) string { return strconv.Itoa(n) }

// elementSize is how long the first element of b is, with its length before it.
func elementSize(b []byte) (n int, null bool) {
	size := int(int32(binary.BigEndian.Uint32(b))) //nolint:gosec // two's complement
	return 4 + max(0, size), size < 0
}

// appendElement appends a value, or what a pointer leads to, as arrays have their elements. A zero identifier is NULL.
func appendElement(b []byte, v any, document bool) []byte {
	switch v := v.(type) {
	case string:
		return appendText(b, v)
	case *string:
		return appendText(b, *v)
	case int64:
		return appendInt8(b, v)
	case *int64:
		return appendInt8(b, *v)
	case int:
		return appendInt8(b, int64(v))
	case *int:
		return appendInt8(b, int64(*v))
	case *int16:
		return appendInt8(b, int64(*v))
	case *bool:
		return appendBool(b, *v)
	case *time.Time:
		return appendInt8(b, v.UnixMicro()-pgEpoch)
	case uuid.UUID:
		return appendUUID(b, v)
	case *uuid.UUID:
		return appendUUID(b, *v)
	case interface{ UUID() uuid.UUID }:
		if u := v.UUID(); u != uuid.Nil {
			return appendUUID(b, u)
		}
	case []byte:
		return appendBytes(b, v, document)
	case *[]byte:
		return appendBytes(b, *v, document)
	default: // a pointer to what may be NULL
		p := reflect.ValueOf(v)
		if p.Kind() != reflect.Pointer || p.Elem().Kind() != reflect.Pointer {
			panic(fmt.Sprintf("postgres: no column holds a %T", v))
		}
		if p = p.Elem(); !p.IsNil() {
			return appendElement(b, p.Interface(), document)
		}
	}
	return appendSize(b, -1)
}

// appendElements appends values that are not documents.
func appendElements(b []byte, values []any) []byte {
	for _, v := range values {
		b = appendElement(b, v, false)
	}
	return b
}

// appendSize begins an element; a negative length is NULL.
func appendSize(b []byte, n int) []byte { return binary.BigEndian.AppendUint32(b, uint32(int32(n))) } //nolint:gosec // an element is far below 2 GiB

func appendUUID(b []byte, u uuid.UUID) []byte { return append(appendSize(b, len(u)), u[:]...) }

func appendText[T string | []byte](b []byte, s T) []byte { return append(appendSize(b, len(s)), s...) }

func appendBool(b []byte, v bool) []byte {
	b = append(appendSize(b, 1), 0)
	if v {
		b[len(b)-1] = 1
	}
	return b
}

func appendInt8(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(appendSize(b, 8), uint64(n)) //nolint:gosec // two's complement
}

func appendBytes(b, v []byte, document bool) []byte {
	switch {
	case v == nil:
		return appendSize(b, -1)
	case document:
		return append(append(appendSize(b, len(v)+1), 1), v...) // the version of the format
	}
	return appendText(b, v)
}

// into reads a column to where a pointer leads, as appendElement writes it.
func (v *value) into(i int, p any, document bool) {
	switch p := p.(type) {
	case *string:
		*p = v.text(i)
	case *int64:
		*p = v.integer(i)
	case *int:
		*p = int(v.integer(i))
	case *int16:
		*p = int16(v.integer(i)) //nolint:gosec // of a column of that size
	case *bool:
		*p = v.column(i, 1)[0] != 0
	case *time.Time:
		if len(v.row[i]) == 4 { // a date
			*p = time.UnixMicro(pgEpoch).UTC().AddDate(0, 0, int(v.integer(i)))
			return
		}
		*p = v.time(i)
	case *uuid.UUID:
		*p = v.uuid(i)
	case *[]byte:
		*p = v.bytes(i)
		if document && !v.isNull(i) {
			*p = (*p)[1:]
		}
	case sql.Scanner: // an identifier
		var err error
		if v.isNull(i) {
			err = p.Scan(nil)
		} else {
			err = p.Scan(v.row[i])
		}
		if err != nil {
			v.err = err
		}
	default: // a pointer to what may be NULL
		to := reflect.ValueOf(p).Elem()
		if v.isNull(i) {
			to.SetZero()
			return
		}
		to.Set(reflect.New(to.Type().Elem()))
		v.into(i, to.Interface(), document)
	}
}
