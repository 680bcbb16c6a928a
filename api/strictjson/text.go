package strictjson

import (
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// maxMarks is how many combining marks may follow a letter: the bound of Unicode's stream-safe text
// (UAX 15). No writing system comes near it.
const maxMarks = 30

// Errors of a text.
var (
	errEncoding = errors.New("is not valid UTF-8")
	errControl  = errors.New("holds a control character")
	errBidi     = errors.New("holds a character that changes the direction of writing")
	errUnused   = errors.New("holds a code point that is not a character")
	errMarks    = errors.New("holds too many combining marks in a row")
)

// CheckText returns the text in normal form C, or what makes it unfit to be stored and shown: control
// characters other than line feed and tab, characters that change the direction of writing, code
// points that are no characters, and piles of combining marks. A line that ends as on Windows ends in a
// line feed then.
func CheckText(s string) (string, error) {
	if plain(s) {
		return s, nil
	}
	s = strings.ReplaceAll(s, "\r\n", "\n")
	if !utf8.ValidString(s) {
		return "", errEncoding
	}
	marks := 0
	for _, r := range s {
		switch {
		case r == '\n' || r == '\t':
		case unicode.IsControl(r) || r == '\u2028' || r == '\u2029':
			return "", errControl
		case unicode.Is(unicode.Bidi_Control, r):
			return "", errBidi
		case unicode.Is(unicode.Noncharacter_Code_Point, r):
			return "", errUnused
		case unicode.Is(unicode.M, r):
			if marks++; marks > maxMarks {
				return "", errMarks
			}
			continue
		}
		marks = 0
	}
	return norm.NFC.String(s), nil
}

// plain reports whether the text is printable ASCII, which is fit and in normal form.
func plain(s string) bool {
	for i := range len(s) {
		if b := s[i]; (b < ' ' && b != '\n' && b != '\t') || b >= 0x7f {
			return false
		}
	}
	return true
}
