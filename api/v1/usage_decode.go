package v1

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Media types of usage events.
const (
	mediaNDJSON     = "application/x-ndjson"
	mediaCloudEvent = "application/cloudevents+json"
	mediaCloudBatch = "application/cloudevents-batch+json"
	mediaCSV        = "text/csv" // of an export only
)

// maxEvents bounds the events of one request.
const maxEvents = 10_000

// maxItemBytes bounds one event, as CloudEvents asks consumers to take.
const maxItemBytes = 64 << 10

// Errors of a request with events as a whole. A fault within one event is that event's alone.
var (
	errTooManyEvents = errs.New(errs.TooLarge, "too_many_events", "A request holds at most %d events.", maxEvents)
	errNotAnEvent    = errs.InvalidField("#", "wrong_type", "must be an event or an object with a list of events")
	errNotABatch     = errs.InvalidField("#", "wrong_type", "must be a list of CloudEvents")
	errEventsMember  = errs.InvalidField("#/events", "wrong_type", "must be a list and the only member")
)

// incoming is one event as it was sent. Problem says what in it could not be read; its other members
// are then those that could.
type incoming struct {
	metering.Event
	subject     string
	hasQuantity bool
	form        form
	problem     *metering.Problem
}

// form is how an event was written, and so what its members are called.
type form uint8

const (
	formNative     form = iota
	formBinary          // a CloudEvent whose attributes are headers and whose data is the body
	formStructured      // a CloudEvent with a member data
	formBase64          // a CloudEvent with a member data_base64
)

// place returns the place of a member of ours in an event as it was written.
func (f form) place(pointer string) string {
	if f == formNative {
		return pointer
	}
	switch name, _, _ := strings.Cut(strings.TrimPrefix(pointer, "/"), "/"); name {
	case "meter":
		return "/type"
	case "timestamp":
		return "/time"
	case "quantity", "value", "dimensions":
		return f.inData(pointer)
	}
	return pointer
}

// inData returns the place of something in what a CloudEvent carries.
func (f form) inData(pointer string) string {
	switch f {
	case formStructured:
		return "/data" + pointer
	case formBase64:
		return "/data_base64" // there are no places within
	case formNative, formBinary:
	}
	return pointer
}

func (in *incoming) fail(pointer, code, detail string) {
	if in.problem == nil {
		in.problem = &metering.Problem{Code: code, Detail: detail, Pointer: pointer}
	}
}

// eventDecoder reads events from JSON in one pass, strictly, and with few allocations: names that come
// again and again are kept once.
type eventDecoder struct {
	dec    *jsontext.Decoder
	in     bytes.Buffer
	events []incoming
	words  map[string]string
}

// eventDecoders are kept from one request to the next: a single event costs less to read than its decoder to make.
var eventDecoders = sync.Pool{New: func() any { return newEventDecoder(nil) }}

// maxKeptWords is how many words a decoder may have learned and still be kept.
const maxKeptWords = 64

// release keeps the decoder, and nothing of what it has read.
func (d *eventDecoder) release() {
	if len(d.words) > maxKeptWords {
		return
	}
	d.in, d.events = bytes.Buffer{}, nil
	d.dec.Reset(&d.in)
	clear(d.words)
	eventDecoders.Put(d)
}

// memberNames are the names that members have, so that they need not be made anew.
var memberNames = func() map[string]string {
	names := map[string]string{}
	for _, n := range []string{
		"events", "id", "source", "meter", "subject", "timestamp", "quantity", "value", "dimensions",
		"specversion", "type", "time", "datacontenttype", "data", "data_base64",
	} {
		names[n] = n
	}
	return names
}()

func newEventDecoder(data []byte) *eventDecoder {
	return &eventDecoder{dec: jsontext.NewDecoder(bytes.NewBuffer(data)), words: map[string]string{}}
}

// word returns the text of a JSON string value, one copy for all that are equal.
func (d *eventDecoder) word(v jsontext.Value) (string, bool) {
	if bytes.IndexByte(v, '\\') >= 0 {
		return d.text(v)
	}
	inner := v[1 : len(v)-1]
	if s, ok := d.words[string(inner)]; ok {
		return s, true
	}
	s, ok := d.text(v)
	if ok && len(d.words) < 4096 {
		d.words[s] = s
	}
	return s, ok
}

// text returns the text of a JSON string value, in normal form.
func (d *eventDecoder) text(v jsontext.Value) (string, bool) {
	var s string
	if bytes.IndexByte(v, '\\') < 0 {
		s = string(v[1 : len(v)-1])
	} else {
		b, err := jsontext.AppendUnquote(nil, v)
		if err != nil {
			return "", false
		}
		s = string(b)
	}
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf || s[i] < ' ' {
			clean, err := strictjson.CheckText(s)
			return clean, err == nil
		}
	}
	return s, true
}

// decodeJSON reads one event, or {"events": [...]}, and reports which of them it was.
func decodeJSON(data []byte) (in []incoming, listed bool, err error) {
	d := eventDecoders.Get().(*eventDecoder) //nolint:forcetypeassert // nothing else is put there
	defer d.release()
	d.in = *bytes.NewBuffer(data)
	d.dec.Reset(&d.in)
	switch d.dec.PeekKind() {
	case '{':
	case 'n', 'f', 't', '"', '0', '[':
		return nil, false, errNotAnEvent
	default:
		return nil, false, d.syntax()
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return nil, false, explainJSON(err)
	}
	first, err := d.name()
	if err != nil {
		return nil, false, err
	}
	if first != "events" {
		var one incoming
		if err := d.members(&one, first, (*eventDecoder).member); err != nil {
			return nil, false, err
		}
		return []incoming{one}, false, d.end()
	}
	if d.dec.PeekKind() != '[' {
		return nil, true, errEventsMember
	}
	if err := d.list((*eventDecoder).member); err != nil {
		return nil, true, err
	}
	if d.dec.PeekKind() == '"' {
		name, err := d.name()
		if err != nil {
			return nil, true, err
		}
		pointer := strictjson.Fragment("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
		return nil, true, errs.InvalidField(pointer, "unknown_member", "is not a member that is known here")
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return nil, true, explainJSON(err)
	}
	return d.events, true, d.end()
}

// decodeNDJSON reads one event a line. A line that is no JSON is a rejected event.
func decodeNDJSON(data []byte) ([]incoming, error) {
	d := newEventDecoder(nil)
	for line := range bytes.Lines(data) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		if len(d.events) == maxEvents {
			return nil, errTooManyEvents
		}
		d.dec.Reset(bytes.NewBuffer(line))
		var in incoming
		if err := d.object(&in, (*eventDecoder).member); err != nil {
			in.problem = &metering.Problem{Code: "malformed_json", Detail: "The line is not a JSON object with each member once."}
		} else if err := d.end(); err != nil {
			in.problem = &metering.Problem{Code: "malformed_json", Detail: "Something follows the JSON object on its line."}
		}
		d.events = append(d.events, in)
	}
	return d.events, nil
}

// member reads the value of one member into an event, or skips it and marks the event.
type member func(d *eventDecoder, in *incoming, name string) error

func (d *eventDecoder) list(m member) error {
	return d.each(func(in *incoming) error { return d.object(in, m) })
}

// each reads a list and calls one for every element; it grows no further than a request may.
func (d *eventDecoder) each(one func(*incoming) error) error {
	if _, err := d.dec.ReadToken(); err != nil {
		return explainJSON(err)
	}
	for d.dec.PeekKind() != ']' {
		if len(d.events) == maxEvents {
			return errTooManyEvents
		}
		d.events = append(d.events, incoming{})
		in := &d.events[len(d.events)-1]
		begin := d.dec.InputOffset()
		if err := one(in); err != nil {
			return err
		}
		if d.dec.InputOffset()-begin > maxItemBytes {
			in.fail("", "event_too_large", "An event has at most 64 KiB.")
		}
	}
	_, err := d.dec.ReadToken()
	return explainJSON(err)
}

// object reads one event; what is no object is skipped and marked.
func (d *eventDecoder) object(in *incoming, m member) error {
	if d.dec.PeekKind() != '{' {
		in.fail("", "wrong_type", "An event is an object.")
		return explainJSON(d.dec.SkipValue())
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return explainJSON(err)
	}
	name, err := d.name()
	if err != nil {
		return err
	}
	return d.members(in, name, m)
}

// members reads members from the one whose name has been read to the end of the object. The empty
// name is the end.
func (d *eventDecoder) members(in *incoming, name string, m member) error {
	for name != "" {
		if err := m(d, in, name); err != nil {
			return err
		}
		var err error
		if name, err = d.name(); err != nil {
			return err
		}
	}
	return nil
}

// name reads the next member's name, or the end of the object. A member without a name is read as if
// it had a strange one.
func (d *eventDecoder) name() (string, error) {
	if d.dec.PeekKind() == '}' {
		_, err := d.dec.ReadToken()
		return "", explainJSON(err)
	}
	v, err := d.dec.ReadValue()
	if err != nil {
		return "", explainJSON(err)
	}
	if s, ok := memberNames[string(v[1:len(v)-1])]; ok {
		return s, nil
	}
	s, ok := d.word(v)
	if !ok || s == "" {
		s = "?"
	}
	return s, nil
}

// member reads a member of an event in our own form.
func (d *eventDecoder) member(in *incoming, name string) error {
	switch name {
	case "id":
		return d.string(in, "/id", &in.ID, false)
	case "source":
		return d.string(in, "/source", &in.Source, true)
	case "meter":
		return d.string(in, "/meter", &in.Meter, true)
	case "subject":
		return d.string(in, "/subject", &in.subject, true)
	case "timestamp":
		return d.time(in, "/timestamp")
	default:
		return d.payload(in, name)
	}
}

// string reads a text. Words are texts that come again in many events.
func (d *eventDecoder) string(in *incoming, pointer string, to *string, word bool) error {
	if d.dec.PeekKind() != '"' {
		in.fail(pointer, "wrong_type", "The value must be a string.")
		return explainJSON(d.dec.SkipValue())
	}
	v, err := d.dec.ReadValue()
	if err != nil {
		return explainJSON(err)
	}
	if len(v) > maxItemBytes { // refused in any case; kept, it would be repeated in the answer
		in.fail("", "event_too_large", "An event has at most 64 KiB.")
		return nil
	}
	read := d.text
	if word {
		read = d.word
	}
	s, ok := read(v)
	if !ok {
		in.fail(pointer, "invalid_text", "The text holds characters that are not taken.")
	}
	*to = s
	return nil
}

func (d *eventDecoder) time(in *incoming, pointer string) error {
	var s string
	if err := d.string(in, pointer, &s, false); err != nil || s == "" {
		return err
	}
	in.timestamp(pointer, s)
	return nil
}

// timestamp reads a time and cuts it to the microsecond, the resolution that is kept.
func (in *incoming) timestamp(pointer, s string) {
	t, err := strictjson.RFC3339(s)
	if err != nil || t.Year() < 1 || t.Year() > 9999 {
		in.fail(pointer, "invalid_timestamp", "The time is not one of RFC 3339.")
		return
	}
	in.OccurredAt = t.UTC().Truncate(time.Microsecond)
}

// quantity reads a decimal, as a string or a JSON number: one grammar for both.
func (d *eventDecoder) quantity(in *incoming) error {
	kind := d.dec.PeekKind()
	if kind != '"' && kind != '0' {
		in.fail("/quantity", "wrong_type", "A quantity is a decimal number, best in a string.")
		return explainJSON(d.dec.SkipValue())
	}
	v, err := d.dec.ReadValue()
	if err != nil {
		return explainJSON(err)
	}
	if kind == '"' {
		v = v[1 : len(v)-1]
	}
	q, err := money.ParseDecimal(string(v))
	if err != nil {
		in.fail("/quantity", "invalid_quantity", "A quantity has at most 15 digits before the point and 9 after it, and no exponent.")
		return nil //nolint:nilerr // the item is refused, the request goes on
	}
	in.Quantity, in.hasQuantity = q, true
	return nil
}

func (d *eventDecoder) dimensions(in *incoming) error {
	if d.dec.PeekKind() != '{' {
		in.fail("/dimensions", "wrong_type", "Dimensions are an object of strings.")
		return explainJSON(d.dec.SkipValue())
	}
	if _, err := d.dec.ReadToken(); err != nil {
		return explainJSON(err)
	}
	dims := make(metering.Dimensions, 0, 2)
	for {
		name, err := d.name()
		if err != nil {
			return err
		}
		if name == "" {
			break
		}
		var v string
		if err := d.string(in, "/dimensions/"+escapePointer(name), &v, true); err != nil {
			return err
		}
		if len(dims) <= metering.MaxDimensions { // one more than allowed is enough to be refused
			dims = append(dims, metering.Dimension{Name: name, Value: v})
		}
	}
	if len(dims) > 0 {
		dims.Sort()
		in.Dimensions = dims
	}
	return nil
}

func escapePointer(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "")
	}
	return strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
}

// end refuses whatever follows the value but white space.
func (d *eventDecoder) end() error {
	if _, err := d.dec.ReadToken(); !errors.Is(err, io.EOF) {
		return strictjson.ErrTrailing
	}
	return nil
}

// syntax returns what stands in the way of reading a value at all.
func (d *eventDecoder) syntax() error {
	_, err := d.dec.ReadToken()
	return explainJSON(err)
}

func explainJSON(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return strictjson.ErrNoBody
	}
	return strictjson.Explain(err)
}
