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

// ForbiddenName reports whether a field of this name asks for card data. Case and separators do not
// matter: "cardNumber", "card_number" and "CARD-NUMBER" are one name.
func ForbiddenName(name string) bool {
	if len(name) > 64 {
		return false
	}
	var folded [64]byte
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

// JSON searches a document, or several that follow one another (NDJSON), by its names, texts and
// numbers. What is not JSON is searched as text. It returns the first finding.
func JSON(doc []byte) (Finding, bool) {
	if harmless(doc) {
		return Finding{}, false
	}
	dec := jsontext.NewDecoder(bytes.NewBuffer(doc), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	for {
		tok, err := dec.ReadToken()
		if err != nil {
			if errors.Is(err, io.EOF) {
				return Finding{}, false
			}
			// The decoder behind will refuse it; until then nothing of it may be kept.
			if HasNumber(string(doc)) {
				return Finding{}, true
			}
			return Finding{}, false
		}
		kind := tok.Kind()
		if kind != '"' && kind != '0' {
			continue
		}
		parent, length := dec.StackIndex(dec.StackDepth())
		text := tok.String()
		if kind == '"' && parent == '{' && length%2 == 1 { // a name
			if ForbiddenName(text) {
				return Finding{Pointer: string(dec.StackPointer()), Name: true}, true
			}
			if HasNumber(text) {
				return Finding{Pointer: string(dec.StackPointer().Parent())}, true
			}
			continue
		}
		pointer := dec.StackPointer()
		if identifies(pointer, parent) {
			continue
		}
		if HasNumber(text) {
			return Finding{Pointer: string(pointer)}, true
		}
	}
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
			if length := i - quote - 1; quote >= 0 && length >= 3 && length <= 32 && named(doc[i+1:]) && ForbiddenName(string(doc[quote+1:i])) {
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
