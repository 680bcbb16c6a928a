// Package strictjson reads JSON bodies and nothing that is merely like one.
//
// It refuses, with a pointer to the place: members that the type does not have (also by case), members
// that stand twice, values of another type, texts that are not fit to be stored, and documents that are
// too deep or followed by anything. Texts come out in Unicode normal form C.
//
// What cannot be read at all is errs.Malformed (400); what can be read but must not be is errs.Invalid
// (422).
package strictjson

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/internal/errs"
)

// MaxDepth is how deep objects and lists may be nested.
const MaxDepth = 32

// Errors of a body as a whole. Those of a place in it are errs.Invalid with the code "invalid_request".
var (
	ErrNoBody    = errs.New(errs.Malformed, "body_required", "The operation wants a JSON body.")
	ErrMalformed = errs.New(errs.Malformed, "malformed_json", "The body is not JSON.")
	ErrTrailing  = ErrMalformed.Details("Something follows the JSON value.")
	ErrDepth     = errs.New(errs.Malformed, "json_too_deep", "The body is nested too deeply.")
)

// Decode reads the request's body into v, a pointer to a struct, slice or map.
func Decode(c echo.Context, v any) error {
	return Unmarshal(body.Bytes(c), v)
}

// Unmarshal reads data into v. The errors are those of the package's description.
func Unmarshal(data []byte, v any) error {
	if len(bytes.TrimLeft(data, " \t\r\n")) == 0 {
		return ErrNoBody
	}
	data, err := clean(data)
	if err != nil {
		return err
	}
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); trimmed[0] == 'n' && bytes.HasPrefix(trimmed, []byte("null")) {
		return at("", "wrong_type", "must not be null")
	}
	if err := json.Unmarshal(data, v, json.RejectUnknownMembers(true), times); err != nil {
		return explain(err)
	}
	return nil
}

// clean checks depth and texts, and returns the document with its texts in normal form. A document of
// printable ASCII without escapes, which is nearly every one, is only looked over.
func clean(data []byte) ([]byte, error) {
	easy, depth, most, inText := true, 0, 0, false
	for _, b := range data {
		switch {
		case b == '\\' || b >= 0x7f:
			easy = false
		case b == '"':
			inText = !inText
		case inText:
		case b == '{' || b == '[':
			depth++
			most = max(most, depth)
		case b == '}' || b == ']':
			depth--
		}
	}
	if easy {
		if most > MaxDepth {
			return nil, ErrDepth
		}
		return data, nil
	}
	if !utf8.Valid(data) {
		return nil, at("", "invalid_text", "is not valid UTF-8")
	}
	return normalise(data)
}

// normalise walks over the document token by token.
func normalise(data []byte) ([]byte, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(data))
	var out bytes.Buffer
	enc := jsontext.NewEncoder(&out)
	changed := false
	for {
		tok, err := dec.ReadToken()
		if err != nil {
			if out.Len() > 0 && dec.StackDepth() == 0 { // the value is complete: what follows is judged below
				break
			}
			return nil, explain(err)
		}
		if dec.StackDepth() > MaxDepth {
			return nil, ErrDepth
		}
		if tok.Kind() == '"' {
			was := tok.String()
			text, err := CheckText(was)
			if err != nil {
				return nil, at(string(dec.StackPointer()), "invalid_text", "%s", err.Error())
			}
			if text != was {
				changed, tok = true, jsontext.String(text)
			}
		}
		if err := enc.WriteToken(tok); err != nil {
			return nil, explain(err) // two names that are one in normal form
		}
		if dec.StackDepth() == 0 {
			break
		}
	}
	if !changed {
		return data, nil
	}
	// Only white space may follow; the rest of the data is kept for the decoder to judge.
	return append(out.Bytes(), data[dec.InputOffset():]...), nil
}

// Explain turns an error of a jsontext or json decoder into one for the caller, for code that reads
// JSON by itself.
func Explain(err error) error { return explain(err) }

// explain turns an error of the decoder into one for the caller. It never repeats a value.
func explain(err error) error {
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		switch {
		case errors.Is(err, jsontext.ErrDuplicateName):
			return at(string(syntax.JSONPointer), "duplicate_member", "stands twice")
		case strings.Contains(syntax.Err.Error(), "UTF-8") || strings.Contains(syntax.Err.Error(), "surrogate"):
			return at(string(syntax.JSONPointer), "invalid_text", "is not valid Unicode")
		case strings.Contains(syntax.Err.Error(), "after top-level value"):
			return ErrTrailing
		}
		e := ErrMalformed.Because(err)
		e.Fields = []errs.Field{{Pointer: Fragment(string(syntax.JSONPointer)), Detail: fmt.Sprintf("cannot be read at byte %d", syntax.ByteOffset), Code: "syntax"}}
		return e
	}
	if semantic, ok := errors.AsType[*json.SemanticError](err); ok {
		pointer := string(semantic.JSONPointer)
		if errors.Is(semantic.Err, json.ErrUnknownName) {
			return at(pointer, "unknown_member", "is not a member that is known here")
		}
		if own, ok := errors.AsType[*errs.Error](semantic.Err); ok {
			return at(pointer, own.Code, "%s", own.Detail)
		}
		code := "wrong_type"
		if semantic.Err != nil {
			code = "invalid_value"
		}
		return at(pointer, code, "%s", expectation(semantic.GoType))
	}
	return ErrMalformed.Because(err)
}

// expectation says what a Go type looks like in JSON.
func expectation(t reflect.Type) string {
	if t == nil {
		return "is not valid"
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch name := t.String(); {
	case name == "time.Time":
		return errNoTime.Error() + ", in a string"
	case name == "money.Decimal":
		return "must be a decimal number in a string, with at most 15 digits before the point and 9 after it"
	case name == "money.Currency":
		return "must be a currency code as in ISO 4217"
	case strings.HasPrefix(name, "id.ID["):
		return "must be an identifier of the right kind"
	}
	switch t.Kind() {
	case reflect.String:
		return "must be a string"
	case reflect.Bool:
		return "must be true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "must be a whole number that is not too large, without fraction and exponent"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "must be a whole number from zero up that is not too large, without fraction and exponent"
	case reflect.Slice, reflect.Array:
		return "must be a list"
	case reflect.Struct, reflect.Map:
		return "must be an object"
	}
	return "is not valid"
}

func at(pointer, code, format string, args ...any) error {
	return errs.InvalidField(Fragment(pointer), code, format, args...)
}

// maxPointer bounds a pointer in bytes, before it is escaped: a name can be as long as the body.
const maxPointer = 512

// Fragment writes an RFC 6901 pointer as a URI fragment: "/a b" gives "#/a%20b". A very long one is cut.
func Fragment(pointer string) string {
	if len(pointer) > maxPointer {
		pointer = strings.ToValidUTF8(pointer[:maxPointer], "") + "…"
	}
	return "#" + strings.ReplaceAll(url.PathEscape(pointer), "%2F", "/")
}
