package validate_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/api/validate"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/pkg/money"
)

func TestRules(t *testing.T) {
	t.Parallel()
	type rule = func(c *validate.Checks, s string)
	email := func(c *validate.Checks, s string) { c.Email("#", s) }
	country := func(c *validate.Checks, s string) { c.Country("#", s) }
	line := func(c *validate.Checks, s string) { c.RequiredLine("#", s, 5) }
	ident := func(c *validate.Checks, s string) { c.Identifier("#", s) }
	for name, tc := range map[string]struct {
		rule rule
		good []string
		bad  []string
	}{
		"Email": {
			email,
			[]string{"ada@example.com", "a.b+c@sub.example.co.uk", "o'hara@example.ie", "ü@exämple.de", strings.Repeat("a", 64) + "@example.com"},
			[]string{
				"", "ada", "@example.com", "ada@", "ada@localhost", "ada@-x.com", "a b@example.com", ".a@example.com", "a..b@example.com",
				"ada@example..com", "Ada <ada@example.com>", "ada@example.com\n", "ada@ex_ample.com", "a@b@c.de", strings.Repeat("a", 65) + "@example.com",
				"a@" + strings.Repeat("b", 64) + ".de", "ada@[127.0.0.1]",
			},
		},
		"Country": {country, []string{"DE", "US", "JP", "GB"}, []string{"", "de", "DEU", "UK", "XX", "EU", "ZZ", "419", "D"}},
		"Line":    {line, []string{"a", "abcde", "äöüßé"}, []string{"", "  ", "abcdef", "a\nb", strings.Repeat("😀", 6)}},
		"Identifier": {
			ident,
			[]string{"a", "call-8f2c", strings.Repeat("x", 255)},
			[]string{"", " ", "a b", "ä", "a\x00", strings.Repeat("x", 256)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, s := range tc.good {
				var c validate.Checks
				if tc.rule(&c, s); c.Err() != nil {
					t.Errorf("%q refused: %v", s, c.Err())
				}
			}
			for _, s := range tc.bad {
				var c validate.Checks
				if tc.rule(&c, s); c.Err() == nil {
					t.Errorf("%q taken", s)
				}
			}
		})
	}
}

func TestEveryFaultIsNamed(t *testing.T) {
	t.Parallel()
	var c validate.Checks
	c.Email("#/email", "x")
	c.Positive("#/amount", money.Amount{Minor: 0, Currency: "XXX"})
	var e *errs.Error
	if !errors.As(c.Err(), &e) || e.Kind != errs.Invalid || e.Code != "invalid_request" {
		t.Fatalf("Err() = %v", c.Err())
	}
	var got []string
	for _, f := range e.Fields {
		got = append(got, f.Pointer+" "+f.Code)
	}
	const want = "#/email invalid_email, #/amount/currency unknown_currency, #/amount/amount not_positive"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}
