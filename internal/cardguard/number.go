// Package cardguard finds card data where there must be none.
//
// It owns: what a card number looks like however it is written, and which field names ask for card
// data. It does not own: what follows from a finding (api/middleware refuses the request). It is pure
// and keeps nothing of what it reads; a finding names a place, never a value.
//
// A finding is a number of 13 to 19 digits of a length that a card scheme issues, with that scheme's
// first digits and a valid check digit, standing alone or in the groups that cards are printed in. One
// random number of 16 digits in forty is such a number, so members that hold identifiers ("id",
// "…_id", and lists of them) are not searched; neither are digits glued to letters, as in a hash or a
// UUID, nor a telephone number with its plus sign.
package cardguard

import (
	"unicode"
	"unicode/utf8"
)

// minDigits and maxDigits bound a card number.
const (
	minDigits = 13
	maxDigits = 19
)

// groupings are the ways in which card numbers are printed, as digits per group.
var groupings = [...][]int8{
	{4, 4, 4, 4},    // most schemes
	{4, 6, 5},       // American Express
	{4, 6, 4},       // Diners Club
	{4, 4, 4, 4, 3}, // 19 digits
	{4, 4, 4, 4, 2}, // 18 digits
	{4, 4, 4, 4, 1}, // 17 digits
	{6, 13},         // UnionPay, 19 digits
	{8, 8},          // as typed by some terminals
}

// scheme is a range of first digits with the lengths that its cards have.
type scheme struct {
	low, high int // of the first six digits
	lengths   uint32
}

func lengths(ns ...int) (set uint32) {
	for _, n := range ns {
		set |= 1 << n
	}
	return set
}

// schemes are the known issuer ranges. Visa's 13 digits have not been issued for decades and are the
// length of telephone numbers that begin with 4, so they are left out.
var schemes = [...]scheme{
	{400000, 499999, lengths(16, 19)},             // Visa
	{510000, 559999, lengths(16)},                 // Mastercard
	{222100, 272099, lengths(16)},                 // Mastercard
	{340000, 349999, lengths(15)},                 // American Express
	{370000, 379999, lengths(15)},                 // American Express
	{300000, 305999, lengths(14, 16, 19)},         // Diners Club
	{309500, 309599, lengths(14, 16, 19)},         // Diners Club
	{360000, 369999, lengths(14, 16, 19)},         // Diners Club
	{380000, 399999, lengths(14, 16, 19)},         // Diners Club
	{601100, 601199, lengths(16, 19)},             // Discover
	{644000, 659999, lengths(16, 19)},             // Discover
	{352800, 358999, lengths(16, 17, 18, 19)},     // JCB
	{620000, 629999, lengths(16, 17, 18, 19)},     // UnionPay
	{810000, 817199, lengths(16, 17, 18, 19)},     // UnionPay
	{500000, 509999, lengths(13, 15, 16, 18, 19)}, // Maestro, Elo, Verve
	{560000, 589999, lengths(13, 15, 16, 18, 19)}, // Maestro
	{630400, 630499, lengths(13, 15, 16, 18, 19)}, // Maestro
	{639000, 639099, lengths(13, 15, 16, 18, 19)}, // Maestro
	{670000, 679999, lengths(13, 15, 16, 18, 19)}, // Maestro
	{220000, 220499, lengths(16, 17, 18, 19)},     // Mir
	{979200, 979289, lengths(16)},                 // Troy
	{636297, 636369, lengths(16)},                 // Elo and others
	{606282, 606282, lengths(16, 19)},             // Hipercard
	{817200, 819999, lengths(16)},                 // RuPay
}

// plausible reports whether the digits are a card number by scheme, length and check digit.
func plausible(digits []byte) bool {
	n := len(digits)
	if n < minDigits || n > maxDigits || !luhn(digits) {
		return false
	}
	first := 0
	for _, d := range digits[:6] {
		first = first*10 + int(d)
	}
	for _, s := range schemes {
		if first >= s.low && first <= s.high && s.lengths&(1<<n) != 0 {
			return true
		}
	}
	return false
}

// luhn checks the last digit against the others.
func luhn(digits []byte) bool {
	sum := 0
	for i, d := range digits {
		v := int(d)
		if (len(digits)-i)%2 == 0 {
			if v *= 2; v > 9 {
				v -= 9
			}
		}
		sum += v
	}
	return sum%10 == 0
}

// digitOf returns the value of a decimal digit of any script: full-width, Arabic-Indic and so on.
func digitOf(r rune) (byte, bool) {
	if r >= '0' && r <= '9' {
		return byte(r - '0'), true
	}
	if r < utf8.RuneSelf || !unicode.Is(unicode.Nd, r) {
		return 0, false
	}
	// Digits stand in tens, in order; where one ten follows another (bold and sans-serif ones do), the first is preceded by something else.
	d := byte(0)
	for unicode.Is(unicode.Nd, r-rune(d)-1) {
		d++
	}
	return d % 10, true
}

// separates reports whether a character may stand between the groups of a card number.
func separates(r rune) bool {
	switch r {
	case ' ', '-', '.', '\t', '_', '/', '\u00b7', '\u2212', '\ufe63', '\uff0d', '\u200b', '\u200c', '\u200d', '\u2060', '\ufeff', '\u00ad':
		return true
	}
	return r >= utf8.RuneSelf && (unicode.Is(unicode.Zs, r) || unicode.Is(unicode.Pd, r))
}

// HasNumber reports whether the text holds a card number.
func HasNumber(text string) bool {
	if !mayHoldNumber(text) {
		return false
	}
	var s scan
	for _, r := range text {
		if d, ok := digitOf(r); ok {
			s.digit(d)
			continue
		}
		if s.other(r) {
			return true
		}
	}
	return s.end(true)
}

// mayHoldNumber is a quick no for almost every text: fewer than 13 digits with nothing but possible
// separators between them. Bytes beyond ASCII may be digits or separators and count as both.
func mayHoldNumber(text string) bool {
	n := 0
	for i := range len(text) {
		switch b := text[i]; {
		case b >= '0' && b <= '9':
			if n++; n >= minDigits {
				return true
			}
		case b >= utf8.RuneSelf:
			n++ // a digit of another script takes two bytes or more
			if n >= minDigits {
				return true
			}
		case b == ' ' || b == '-' || b == '.' || b == '\t' || b == '_' || b == '/':
		default:
			n = 0
		}
	}
	return false
}

// maxGroups is how many groups of digits are looked back at: the longest grouping has five.
const maxGroups = 5

// maxSeparators is how many separators may stand between two groups of one number.
const maxSeparators = 3

// scan walks over a text and keeps the last few groups of digits.
type scan struct {
	groups     [maxGroups]group
	n          int  // groups that count
	current    int  // digits in the group that is being read; zero outside of a group
	separators int  // in a row since the last group; beyond maxSeparators nothing joins
	prev       rune // the last character that was no digit
}

type group struct {
	digits   [maxDigits]byte
	size     int8 // -1 if longer than a card number
	joined   bool // only separators stand between it and the group before
	glued    bool // stands directly behind a letter or a plus sign
	fraction bool // stands behind a decimal point
	iban     bool // belongs to an account number that began with two letters and two digits
}

func (s *scan) digit(d byte) {
	if s.current == 0 {
		s.begin()
	}
	g := &s.groups[s.n-1]
	if s.current < maxDigits {
		g.digits[s.current] = d
		g.size = int8(s.current + 1) //nolint:gosec // at most maxDigits
	} else {
		g.size = -1
	}
	s.current++
}

func (s *scan) begin() {
	if s.n == maxGroups {
		copy(s.groups[:], s.groups[1:])
		s.n--
	}
	g := group{glued: s.prev == '+' || unicode.IsLetter(s.prev)}
	if s.n > 0 && s.separators > 0 && s.separators <= maxSeparators {
		before := s.groups[s.n-1]
		g.joined = true
		g.fraction = s.prev == '.' && s.separators == 1
		g.iban = before.iban || (before.glued && before.size == 2)
	}
	s.groups[s.n] = g
	s.n++
	s.separators = 0
}

// other takes a character that is no digit. It reports whether the groups before it are a card number.
func (s *scan) other(r rune) bool {
	if s.end(!unicode.IsLetter(r)) {
		return true
	}
	s.current, s.prev = 0, r
	if separates(r) {
		s.separators++
	} else {
		s.separators = maxSeparators + 1
	}
	return false
}

// end reports whether the groups that end here are a card number. whole says that no letter is glued
// to the last one.
func (s *scan) end(whole bool) bool {
	if s.current == 0 || !whole {
		return false
	}
	last := &s.groups[s.n-1]
	if !last.glued && !last.fraction && last.size >= minDigits && plausible(last.digits[:last.size]) {
		return true
	}
	for _, shape := range groupings {
		if s.ends(shape) {
			return true
		}
	}
	return false
}

// ends reports whether the last groups have the given sizes, are joined, and are a card number.
func (s *scan) ends(shape []int8) bool {
	if len(shape) > s.n {
		return false
	}
	var digits [maxDigits]byte
	n := 0
	for i := range shape {
		g := &s.groups[s.n-len(shape)+i]
		if g.size != shape[i] || g.glued || g.iban || (i > 0 && !g.joined) {
			return false
		}
		n += copy(digits[n:], g.digits[:g.size])
	}
	return plausible(digits[:n])
}
