package cardguard

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// forbidden are names of fields that ask for card data, in lower case without separators.
var forbidden = map[string]bool{
	"number": true, "pan": true, "cardnumber": true, "cardno": true, "cardnum": true, "ccnumber": true, "creditcard": true,
	"creditcardnumber": true, "primaryaccountnumber": true, "fpan": true, "dpan": true,
	"cvc": true, "cvc2": true, "cvv": true, "cvv2": true, "cid": true, "csc": true, "cav2": true, "cardcode": true,
	"securitycode": true, "cardsecuritycode": true, "verificationvalue": true,
	"track": true, "track1": true, "track2": true, "trackdata": true, "track1data": true, "track2data": true,
	"magstripe": true, "pinblock": true,
}

// maxName is how long a name may be that asks for card data.
const maxName = 64

// ForbiddenName reports whether a field of this name asks for card data. Case and separators do not
// matter: "cardNumber", "card_number" and "CARD-NUMBER" are one name.
func ForbiddenName(name string) bool {
	if len(name) > maxName {
		return false
	}
	var folded [maxName]byte
	n := 0
	for i := range len(name) {
		switch b := name[i]; {
		case b == '_' || b == '-' || b == ' ' || b == '.':
		case b >= 'A' && b <= 'Z':
			folded[n] = b + 'a' - 'A'
			n++
		default:
			folded[n] = b
			n++
		}
	}
	return forbidden[string(folded[:n])]
}

// IsIdentifier reports whether a member of this name holds an identifier, which is not searched.
func IsIdentifier(name string) bool {
	return name == "id" || strings.HasSuffix(name, "_id")
}

// identifies reports whether the value at the pointer is an identifier, by itself or in a list of them.
func identifies(pointer jsontext.Pointer, parent jsontext.Kind) bool {
	if parent == '[' {
		list, plural := strings.CutSuffix(pointer.Parent().LastToken(), "s")
		return plural && IsIdentifier(list)
	}
	return parent == '{' && IsIdentifier(pointer.LastToken())
}

// A Finding says where card data was found. Pointer is an RFC 6901 pointer to a place whose names are
// known to be harmless: a name that is itself card data is left out.
type Finding struct {
	Pointer string
	Name    bool // the name asks for card data; otherwise a value is a card number
}

// MaxFindings bounds what is said of one document.
const MaxFindings = 100

// JSON searches a document, or several that follow one another (NDJSON), by its names, texts and
// numbers. What is not JSON is searched as text. It returns the first findings, one of each place: whoever
// sent many things in one document then knows which of them to leave out.
func JSON(doc []byte) []Finding {
	if harmless(doc) {
		return nil
	}
	s := search{dec: jsontext.NewDecoder(bytes.NewBuffer(doc), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))}
	for len(s.found) < MaxFindings {
		if err := s.next(); err != nil {
			// What cannot be read the decoder behind will refuse; until then nothing of it may be kept.
			if !errors.Is(err, io.EOF) && len(s.found) == 0 && HasNumber(string(doc)) {
				s.add("", false)
			}
			break
		}
	}
	return s.found
}

type search struct {
	dec   *jsontext.Decoder
	found []Finding
}

func (s *search) add(p jsontext.Pointer, name bool) {
	if n := len(s.found); n == 0 || s.found[n-1].Pointer != string(p) {
		s.found = append(s.found, Finding{string(p), name})
	}
}

// next looks at one token. What belongs to a name that is found is not looked at: a pointer to it would hold the name.
func (s *search) next() error {
	tok, err := s.dec.ReadToken()
	if err != nil {
		return err
	}
	kind := tok.Kind()
	if kind != '"' && kind != '0' {
		return nil
	}
	parent, length := s.dec.StackIndex(s.dec.StackDepth())
	text, pointer := tok.String(), s.dec.StackPointer()
	switch {
	case kind == '"' && parent == '{' && length%2 == 1 && ForbiddenName(text):
		s.add(pointer, true)
		return s.dec.SkipValue()
	case kind == '"' && parent == '{' && length%2 == 1:
		if HasNumber(text) {
			s.add(pointer.Parent(), false)
			return s.dec.SkipValue()
		}
	case !identifies(pointer, parent) && HasNumber(text):
		s.add(pointer, false)
	}
	return nil
}

// harmless is a quick no for almost every document: ASCII without escapes, without a text or number that
// holds a card number and without a forbidden name.
func harmless(doc []byte) bool {
	digits, quote, searched := 0, -1, 0
	for i, b := range doc {
		switch {
		case b >= '0' && b <= '9':
			if digits++; digits >= minDigits && i >= searched {
				searched = len(doc) // what stands between two quotes is one text, or holds whole ones
				if length := bytes.IndexByte(doc[i:], '"'); length >= 0 {
					searched = i + length
				}
				if HasNumber(string(doc[quote+1 : searched])) {
					return false
				}
			}
			continue
		case b == ' ' || b == '-' || b == '.' || b == '_' || b == '/' || b == '\t':
			continue
		case b == '\\' || b >= utf8.RuneSelf:
			return false
		case b == '"':
			if length := i - quote - 1; quote >= 0 && length >= 3 && length <= maxName && named(doc[i+1:]) && ForbiddenName(string(doc[quote+1:i])) {
				return false
			}
			quote = i
		}
		digits = 0
	}
	return true
}

// named reports whether what comes before is a name: a colon follows.
func named(rest []byte) bool {
	for _, b := range rest {
		switch b {
		case ':':
			return true
		case ' ', '\t', '\r', '\n':
		default:
			return false
		}
	}
	return false
}
