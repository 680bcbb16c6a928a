package v1

import (
	"encoding/json"
	"net/http"
	"strconv"
	"sync"

	"github.com/labstack/echo/v4"
)

// answers are the buffers of answers that were written by hand.
var answers = sync.Pool{New: func() any { return new(make([]byte, 0, 4<<10)) }}

// maxAnswer is the size beyond which a buffer is not kept.
const maxAnswer = 64 << 10

// write answers with the estimate. Anybody may ask for estimates, as often as a visitor moves a slider, and
// half of what one cost was encoding/json: this writes byte for byte what it would.
func (e *Estimate) write(c echo.Context) error {
	buf := answers.Get().(*[]byte) //nolint:forcetypeassert // the pool has nothing else
	*buf = append(e.append((*buf)[:0]), '\n')
	err := c.JSONBlob(http.StatusOK, *buf)
	if cap(*buf) <= maxAnswer {
		answers.Put(buf)
	}
	return err
}

func (e *Estimate) append(b []byte) []byte {
	b = appendText(append(b, `{"plan":`...), e.Plan)
	b = strconv.AppendInt(append(b, `,"plan_version":`...), int64(e.Version), 10)
	b = appendText(append(b, `,"currency":`...), e.Currency)
	b = appendList(append(b, `,"lines":`...), e.Lines, (*EstimateLine).append)
	b = appendList(append(b, `,"blocked":`...), e.Blocked, (*BlockedUsage).append)
	b = e.Total.append(append(b, `,"total":`...))
	return append(b, '}')
}

func (l *EstimateLine) append(b []byte) []byte {
	b = appendText(append(b, `{"kind":`...), l.Kind)
	b = appendTextIf(append(b, `,"meter":`...), l.Meter)
	b = appendText(append(b, `,"description":`...), l.Description)
	b = appendText(append(b, `,"quantity":`...), l.Quantity)
	b = appendText(append(b, `,"included":`...), l.Included)
	b = appendText(append(b, `,"billable":`...), l.Billable)
	b = appendTextIf(append(b, `,"unit":`...), l.Unit)
	b = appendList(append(b, `,"tiers":`...), l.Tiers, (*InvoicedUnits).append)
	b = l.Amount.append(append(b, `,"amount":`...))
	return append(b, '}')
}

func (u *InvoicedUnits) append(b []byte) []byte {
	b = appendText(append(b, `{"over":`...), u.Over)
	b = appendTextIf(append(b, `,"up_to":`...), u.UpTo)
	b = appendText(append(b, `,"quantity":`...), u.Quantity)
	b = appendText(append(b, `,"units":`...), u.Units)
	b = appendText(append(b, `,"unit":`...), u.Unit)
	b = appendText(append(b, `,"unit_price":`...), u.UnitPrice)
	b = append(b, `,"flat":`...)
	if u.Flat == nil {
		b = append(b, "null"...)
	} else {
		b = u.Flat.append(b)
	}
	b = u.Amount.append(append(b, `,"amount":`...))
	return append(b, '}')
}

func (u *BlockedUsage) append(b []byte) []byte {
	b = appendText(append(b, `{"meter":`...), u.Meter)
	b = appendText(append(b, `,"quantity":`...), u.Quantity)
	b = appendText(append(b, `,"limit":`...), u.Limit)
	return append(b, '}')
}

func (m Money) append(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"amount":`...), m.Amount, 10)
	b = appendText(append(b, `,"currency":`...), m.Currency)
	return append(b, '}')
}

func appendList[T any](b []byte, list []T, each func(*T, []byte) []byte) []byte {
	b = append(b, '[')
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = each(&list[i], b)
	}
	return append(b, ']')
}

func appendTextIf(b []byte, s *string) []byte {
	if s == nil {
		return append(b, "null"...)
	}
	return appendText(b, *s)
}

// appendText appends a string. What needs escapes, or may, is left to encoding/json.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			w := appender(b)
			enc := json.NewEncoder(&w)
			enc.SetEscapeHTML(false)
			if err := enc.Encode(s); err != nil {
				panic("v1: a string that is no JSON: " + err.Error()) // cannot be
			}
			return w[:len(w)-1] // Encode ends its line
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// appender is a writer that appends.
type appender []byte

func (a *appender) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}
