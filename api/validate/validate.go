// Package validate checks values that came in readable, and points at each that breaks a rule.
//
// It owns the rules of form that many resources share. It does not own rules of business, which belong
// to their concepts.
package validate

import (
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/language"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Lengths in characters that many fields share.
const (
	MaxName  = 200
	MaxLine  = 200
	MaxText  = 4000
	MaxEmail = 254
)

// Checks collects what is wrong. The zero value is ready; it is not safe for concurrent use.
type Checks struct{ fields []errs.Field }

// Fail notes that the value at a pointer ("#/name") breaks a rule.
func (c *Checks) Fail(pointer, code, detail string) {
	c.fields = append(c.fields, errs.Field{Pointer: pointer, Detail: detail, Code: code})
}

// Err returns nil, or an errs.Invalid error with everything that was noted.
func (c *Checks) Err() error {
	if len(c.fields) == 0 {
		return nil
	}
	e := errs.InvalidField("", "", "")
	e.Fields = c.fields
	return e
}

// Require notes an empty value. It reports whether there is one.
func (c *Checks) Require(pointer, s string) bool {
	if strings.TrimSpace(s) != "" {
		return true
	}
	c.Fail(pointer, "required", "is required")
	return false
}

// Line checks a text of one line, of at most limit characters; it may be empty.
func (c *Checks) Line(pointer, s string, limit int) {
	if strings.ContainsAny(s, "\n\t") {
		c.Fail(pointer, "invalid_text", "must be one line")
		return
	}
	c.Text(pointer, s, limit)
}

// RequiredLine checks a text of one line that must not be empty.
func (c *Checks) RequiredLine(pointer, s string, limit int) {
	if c.Require(pointer, s) {
		c.Line(pointer, s, limit)
	}
}

// Text checks a text of at most limit characters; it may be empty and have lines. It is bound in bytes
// as well, since a character may take many.
func (c *Checks) Text(pointer, s string, limit int) {
	if len(s) > 4*limit || utf8.RuneCountInString(s) > limit {
		c.Fail(pointer, "too_long", "is too long")
	}
}

// Email checks an address for form. Whether it can be reached only a letter can tell.
func (c *Checks) Email(pointer, s string) {
	if !c.Require(pointer, s) {
		return
	}
	if !isEmail(s) {
		c.Fail(pointer, "invalid_email", "is not an e-mail address")
	}
}

func isEmail(s string) bool {
	at := strings.LastIndexByte(s, '@')
	if len(s) > MaxEmail || at < 1 || at > 64 {
		return false
	}
	local, domain := s[:at], s[at+1:]
	if strings.ContainsAny(local, `"(),:;<>@[\] `) || strings.HasPrefix(local, ".") || strings.HasSuffix(local, ".") || strings.Contains(local, "..") {
		return false
	}
	if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return false
	}
	labels := strings.Split(domain, ".")
	if len(labels) < 2 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' ||
			strings.ContainsFunc(l, func(r rune) bool { return r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
			return false
		}
	}
	return true
}

// Country checks a code as in ISO 3166-1 alpha-2, in capitals.
func (c *Checks) Country(pointer, s string) {
	if !c.Require(pointer, s) {
		return
	}
	region, err := language.ParseRegion(s)
	if err != nil || len(s) != 2 || region.String() != s || !region.IsCountry() || region.Canonicalize() != region {
		c.Fail(pointer, "unknown_country", "is not a country code as in ISO 3166-1, such as DE")
	}
}

// Currency checks a code as in ISO 4217.
func (c *Checks) Currency(pointer, s string) {
	if !c.Require(pointer, s) {
		return
	}
	if _, err := money.ParseCurrency(s); err != nil {
		c.Fail(pointer, "unknown_currency", "is not a currency code as in ISO 4217, such as USD")
	}
}

// maxMinor bounds an amount that a request can name: 10^15 minor units.
const maxMinor = 1_000_000_000_000_000

// Amount notes an amount that is missing, which is one without a number and without a currency. It reports whether there is one.
func (c *Checks) Amount(pointer string, a money.Amount) bool {
	if a != (money.Amount{}) {
		return true
	}
	c.Fail(pointer, "required", "is required")
	return false
}

// Positive checks an amount that must be more than nothing, in a currency that there is.
func (c *Checks) Positive(pointer string, a money.Amount) {
	if !c.Amount(pointer, a) {
		return
	}
	c.Currency(pointer+"/currency", string(a.Currency))
	switch {
	case a.Minor <= 0:
		c.Fail(pointer+"/amount", "not_positive", "must be greater than zero")
	case a.Minor > maxMinor:
		c.Fail(pointer+"/amount", "too_large", "is larger than any amount taken here")
	}
}

// OneOf checks that a value is among those allowed.
func (c *Checks) OneOf(pointer, s string, allowed ...string) {
	if !slices.Contains(allowed, s) {
		c.Fail(pointer, "not_allowed", "must be one of: "+strings.Join(allowed, ", "))
	}
}

// Count checks the length of a list.
func (c *Checks) Count(pointer string, n, least, most int) {
	switch {
	case n < least:
		c.Fail(pointer, "too_few", "has too few entries")
	case n > most:
		c.Fail(pointer, "too_many", "has too many entries")
	}
}

var identifier = regexp.MustCompile(`^[\x21-\x7e]{1,255}$`)

// Identifier checks a name that a caller's own system gave: 1 to 255 visible ASCII characters.
func (c *Checks) Identifier(pointer, s string) {
	if !identifier.MatchString(s) {
		c.Fail(pointer, "invalid_identifier", "must be 1 to 255 visible ASCII characters")
	}
}
