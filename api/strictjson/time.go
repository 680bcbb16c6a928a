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
	errTimeRange = errors.New("must lie in the years 1 to 9998 of UTC")
)

// ParseTime reads a time as in RFC 3339. One that UTC or the calendar of another zone could put into a year of more
// than four digits is refused: it could be stored, and then no answer that shows it could be written.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return time.Time{}, errNoTime
	}
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9998 {
		return time.Time{}, errTimeRange
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
