package strictjson

import (
	"errors"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/accrue-billing/accrue/internal/errs"
)

// Errors of a time.
var (
	errNoTime    = errors.New("must be a time as in RFC 3339")
	errTimeRange = errors.New("must lie in the years 2 to 9998 of UTC")
)

// ParseTime reads a time as in RFC 3339. One that UTC or the calendar of another zone could put into a year of more
// than four digits is refused: it could be stored, and then no answer that shows it could be written. So is the year in
// which Go's zero time lies, which says that no time was given.
func ParseTime(s string) (time.Time, error) {
	t, err := RFC3339(s)
	if err != nil {
		return time.Time{}, err
	}
	if t = t.UTC(); t.Year() < 2 || t.Year() > 9998 {
		return time.Time{}, errTimeRange
	}
	return t, nil
}

// RFC3339 reads a time of any year. What time.Parse takes beyond RFC 3339 is refused: an hour of one digit, a comma before
// the fraction, an offset of a day or more, or with sixty minutes.
func RFC3339(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	const toMinute, toSecond, offset = len("2006-01-02T15:04"), len("2006-01-02T15:04:05"), len("07:00")
	if err != nil || s[toMinute] != ':' || s[toSecond] == ',' || (s[len(s)-1] != 'Z' && (s[len(s)-offset:] >= "24" || s[len(s)-len("00"):] >= "60")) {
		return time.Time{}, errNoTime
	}
	return t, nil
}

// times makes every time of a body go through ParseTime.
var times = json.WithUnmarshalers(json.UnmarshalFromFunc(func(dec *jsontext.Decoder, t *time.Time) error {
	if dec.PeekKind() != '"' {
		return errors.ErrUnsupported // left to the decoder, which says what is wrong with it
	}
	text, err := dec.ReadToken()
	if err != nil {
		return err
	}
	if *t, err = ParseTime(text.String()); err != nil {
		return errs.New(errs.Invalid, "invalid_value", "%s", err.Error())
	}
	return nil
}))
