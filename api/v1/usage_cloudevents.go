package v1

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/accrue-billing/accrue/api/strictjson"
)

// decodeCloudEvent reads one CloudEvent in structured mode.
func decodeCloudEvent(data []byte) ([]incoming, error) {
	d := newEventDecoder(data)
	var in incoming
	if d.dec.PeekKind() != '{' {
		return nil, cmp.Or(d.syntax(), error(errNotAnEvent))
	}
	if err := d.cloud(&in); err != nil {
		return nil, err
	}
	return []incoming{in}, d.end()
}

// decodeCloudBatch reads a list of CloudEvents; it may be empty.
func decodeCloudBatch(data []byte) ([]incoming, error) {
	d := newEventDecoder(data)
	if d.dec.PeekKind() != '[' {
		return nil, cmp.Or(d.syntax(), error(errNotABatch))
	}
	err := d.each(func(in *incoming) error { return d.cloud(in) })
	if err != nil {
		return nil, err
	}
	return d.events, d.end()
}

// decodeBinary reads a CloudEvent in binary mode: its attributes are headers, its data the body.
func decodeBinary(h http.Header, data []byte) ([]incoming, error) {
	d := newEventDecoder(data)
	in := incoming{form: formBinary}
	version := ""
	for name, values := range h {
		attribute, ok := strings.CutPrefix(name, "Ce-")
		if !ok || len(values) == 0 {
			continue
		}
		attribute = strings.ToLower(attribute)
		v, err := url.PathUnescape(unquoted(values[0]))
		if err == nil && utf8.ValidString(v) {
			v, err = strictjson.CheckText(v)
		}
		if err != nil || len(values) > 1 || !utf8.ValidString(v) {
			in.fail("/"+attribute, "invalid_attribute", "The header is not one percent-encoded UTF-8 text.")
			continue
		}
		switch attribute {
		case "specversion":
			version = v
		case "id":
			in.ID = v
		case "source":
			in.Source = v
		case "type":
			in.Meter = v
		case "subject":
			in.subject = v
		case "time":
			in.timestamp("/time", v)
		}
	}
	in.required(version)
	if len(bytes.TrimSpace(data)) == 0 {
		return []incoming{in}, nil
	}
	if err := d.object(&in, (*eventDecoder).payload); err != nil {
		return nil, err
	}
	return []incoming{in}, d.end()
}

// unquoted returns what a header's value says. Senders by older versions of the specification put quotation marks around
// it; kept, they would make another event of the same one.
func unquoted(v string) string {
	if len(v) < 2 || v[0] != '"' || v[len(v)-1] != '"' {
		return v
	}
	var b strings.Builder
	for v = v[1 : len(v)-1]; v != ""; v = v[1:] {
		if v[0] == '\\' && len(v) > 1 {
			v = v[1:]
		}
		b.WriteByte(v[0])
	}
	return b.String()
}

// payload reads a member of what a CloudEvent carries as data.
func (d *eventDecoder) payload(in *incoming, name string) error {
	switch name {
	case "quantity":
		return d.quantity(in)
	case "value":
		return d.string(in, "/value", &in.Value, false)
	case "dimensions":
		return d.dimensions(in)
	default:
		words := "An event has no such member."
		if in.form != formNative {
			words = "A CloudEvent's data has quantity, value and dimensions; the meter is its type, and when it was is its time."
		}
		in.fail(in.form.inData("/"+escapePointer(name)), "unknown_member", words)
		return explainJSON(d.dec.SkipValue())
	}
}

// cloud reads a CloudEvent of version 1.0. A member that is null is one that was left out.
func (d *eventDecoder) cloud(in *incoming) error {
	version, carries := "", false
	in.form = formStructured
	err := d.object(in, func(d *eventDecoder, in *incoming, name string) error {
		if d.dec.PeekKind() == 'n' && (attributeName(name) || name == "data_base64") {
			return explainJSON(d.dec.SkipValue())
		}
		if name == "data" || name == "data_base64" {
			if carries {
				in.fail("/"+name, "invalid_data", "Give data or data_base64, not both.")
				return explainJSON(d.dec.SkipValue())
			}
			carries = true
		}
		switch name {
		case "specversion":
			return d.string(in, "/specversion", &version, true)
		case "id":
			return d.string(in, "/id", &in.ID, false)
		case "source":
			return d.string(in, "/source", &in.Source, true)
		case "type":
			return d.string(in, "/type", &in.Meter, true)
		case "subject":
			return d.string(in, "/subject", &in.subject, true)
		case "time":
			return d.time(in, "/time")
		case "datacontenttype":
			var media string
			if err := d.string(in, "/datacontenttype", &media, true); err != nil {
				return err
			}
			if !isJSON(media) && in.problem == nil {
				in.fail("/datacontenttype", "unsupported_data", "The data must be JSON.")
			}
			return nil
		case "data":
			if d.dec.PeekKind() != '{' {
				in.fail("/data", "wrong_type", "The data is an object.")
				return explainJSON(d.dec.SkipValue())
			}
			return d.object(in, (*eventDecoder).payload)
		case "data_base64":
			return d.base64(in)
		default: // an extension attribute: no concern of ours, but not wrong
			if !attributeName(name) {
				in.fail("/"+escapePointer(name), "unknown_member", "An attribute's name is of a to z and 0 to 9, at most 20.")
			}
			return explainJSON(d.dec.SkipValue())
		}
	})
	if err == nil {
		in.required(version)
	}
	return err
}

// required checks the attributes that CloudEvents requires and that have no other check.
func (in *incoming) required(version string) {
	if version != "1.0" {
		in.fail("/specversion", "unsupported_specversion", "The specversion must be 1.0.")
	}
	if in.Source == "" {
		in.fail("/source", "invalid_source", "A CloudEvent names its source.")
	}
}

// isJSON reports whether a media type is one of JSON, as CloudEvents' JSON format says.
func isJSON(media string) bool {
	kind, _, _ := strings.Cut(strings.ToLower(media), ";")
	_, sub, _ := strings.Cut(strings.TrimSpace(kind), "/")
	return sub == "json" || strings.HasSuffix(sub, "+json")
}

func attributeName(s string) bool {
	for i := range len(s) {
		if (s[i] < 'a' || s[i] > 'z') && (s[i] < '0' || s[i] > '9') {
			return false
		}
	}
	return len(s) <= 20
}

func (d *eventDecoder) base64(in *incoming) error {
	in.form = formBase64
	var text string
	if err := d.string(in, "/data_base64", &text, false); err != nil || in.problem != nil {
		return err
	}
	data, err := base64.StdEncoding.DecodeString(text)
	inner := eventDecoder{dec: jsontext.NewDecoder(bytes.NewBuffer(data)), words: d.words}
	if err == nil {
		err = errors.Join(inner.object(in, (*eventDecoder).payload), inner.end())
	}
	if err != nil {
		in.fail("/data_base64", "invalid_data", "The data is not base64 of a JSON object.")
	}
	return nil
}
