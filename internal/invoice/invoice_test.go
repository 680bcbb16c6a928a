package invoice_test

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

func usd(minor int64) money.Amount { return money.New(minor, money.USD) }

var (
	march = period.Bounds{Start: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), End: time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC)}
	now   = march.End.Add(time.Hour)
)

// The whole life of an invoice: what is not listed cannot be.
func TestBecome(t *testing.T) {
	t.Parallel()
	all := []invoice.Status{invoice.Draft, invoice.Open, invoice.Paid, invoice.Void, invoice.Uncollectible}
	may := map[invoice.Status]string{
		invoice.Draft:         "open paid",
		invoice.Open:          "paid void uncollectible",
		invoice.Paid:          "open",
		invoice.Void:          "",
		invoice.Uncollectible: "paid void",
	}
	for _, from := range all {
		for _, to := range all {
			t.Run(string(from)+"_"+string(to), func(t *testing.T) {
				t.Parallel()
				before := invoice.Invoice{Status: from, PaidAt: march.Start, ClosedAt: march.Start, NextAttempt: march.End}
				after := before
				err := after.Become(to, now)
				if !strings.Contains(" "+may[from]+" ", " "+string(to)+" ") {
					if !errors.Is(err, invoice.ErrTransition) || after != before {
						t.Errorf("%v, and it is %+v; want ErrTransition and nothing changed", err, after)
					}
					return
				}
				if err != nil || after.Status != to || !after.UpdatedAt.Equal(now) {
					t.Fatalf("%+v, %v", after, err)
				}
				if attempted := !after.NextAttempt.IsZero(); attempted != (to == invoice.Open) {
					t.Errorf("the next attempt is at %s", after.NextAttempt)
				}
				switch to {
				case invoice.Paid:
					if !after.PaidAt.Equal(now) {
						t.Errorf("paid at %s", after.PaidAt)
					}
				case invoice.Void, invoice.Uncollectible:
					if !after.ClosedAt.Equal(now) {
						t.Errorf("closed at %s", after.ClosedAt)
					}
				case invoice.Open:
					if !after.PaidAt.IsZero() || !after.ClosedAt.IsZero() {
						t.Errorf("open, paid at %s and closed at %s", after.PaidAt, after.ClosedAt)
					}
				case invoice.Draft:
				}
			})
		}
	}
}

func TestNewCycle(t *testing.T) {
	t.Parallel()
	p := subscription.Period{Account: id.New[account.Account](), Subscription: id.New[subscription.Subscription](), Bounds: march}
	grace := march.End.Add(24 * time.Hour)
	got := invoice.NewCycle(p, money.USD, grace, now)
	if got.Kind != invoice.Cycle || got.Status != invoice.Draft || got.Account != p.Account || got.Subscription != p.Subscription ||
		got.Period != march || !got.FinalizeAt.Equal(grace) || got.AmountDue() != usd(0) || got.Dunning != invoice.NotDunned {
		t.Errorf("%+v", got)
	}
	if ahead := invoice.NewPrepayment(p, money.USD, now); ahead.Kind != invoice.Prepayment || !ahead.FinalizeAt.Equal(now) {
		t.Errorf("what is paid ahead has no grace: %+v", ahead)
	}
}

func TestAmountDue(t *testing.T) {
	t.Parallel()
	i := invoice.Invoice{Currency: money.USD, Total: usd(10000), AmountPaid: usd(2500), Credited: usd(300)}
	if got := i.AmountDue(); got != usd(7200) {
		t.Errorf("due %s, want 72.00 USD", got)
	}
}

// A total is never anything but the sum of its lines and the tax.
func TestSum(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var c invoice.Content
		var sum int64
		for _, minor := range rapid.SliceOfN(rapid.Int64Range(-1e12, 1e12), 0, 20).Draw(t, "lines") {
			c.Lines = append(c.Lines, invoice.Line{Amount: usd(minor)})
			sum += minor
		}
		tax := rapid.Int64Range(0, 1e12).Draw(t, "tax")
		if err := c.Sum(usd(tax)); err != nil {
			t.Fatal(err)
		}
		if c.Subtotal != usd(sum) || c.Tax != usd(tax) || c.Total != usd(sum+tax) {
			t.Fatalf("lines of %d and a tax of %d come to %s and %s", sum, tax, c.Subtotal, c.Total)
		}
	})

	t.Run("WhatCannotBeSummed", func(t *testing.T) {
		t.Parallel()
		for name, lines := range map[string][]money.Amount{
			"more than an amount holds": {usd(math.MaxInt64), usd(1)},
			"two currencies":            {usd(1), money.New(1, "EUR")},
		} {
			c := invoice.Content{}
			for _, a := range lines {
				c.Lines = append(c.Lines, invoice.Line{Amount: a})
			}
			if err := c.Sum(usd(0)); err == nil {
				t.Errorf("%s: summed to %s", name, c.Total)
			}
		}
	})
}

// Numbers of one account's series sort, and differ from those of every other account.
func TestNumber(t *testing.T) {
	t.Parallel()
	a, b := id.New[account.Account](), id.New[account.Account]()
	first := invoice.Number(a, 1)
	if tail := a.String()[len(a.String())-8:]; first != tail+"-000001" {
		t.Errorf("the first number of %s is %s", a, first)
	}
	if invoice.Number(a, 9) >= invoice.Number(a, 10) || invoice.Number(a, 1) == invoice.Number(b, 1) {
		t.Errorf("%s, %s, %s", invoice.Number(a, 9), invoice.Number(a, 10), invoice.Number(b, 1))
	}
	if got := invoice.Number(a, 1234567); !strings.HasSuffix(got, "-1234567") {
		t.Errorf("a long series is cut: %s", got)
	}
}

// content is a final invoice with every field set.
func content() invoice.Content {
	c := invoice.Content{
		Invoice: id.New[invoice.Invoice](), Account: id.New[account.Account](), Number: "abc-000001", IssuedAt: now, Absorbed: usd(5),
		BillTo: account.Profile{
			Name: "Ada", Email: "ada@example.com", TaxID: "GB1",
			Address: account.Address{Line1: "1 New St", Line2: "Flat 2", City: "Leeds", State: "WY", PostalCode: "LS1", Country: "GB"},
		},
		Lines: []invoice.Line{
			{
				Number: 1, Kind: "usage", Meter: "voice", Description: "Audio", Period: march, Quantity: money.MustDecimal("60.5"), Amount: usd(2700),
				Derivation: []byte(`{"exact": {"n": 9007199254740993}, "kind": "usage"}`),
			},
			{Number: 2, Kind: "fee", Description: "Fee", Period: march, Amount: usd(100), Derivation: []byte(`{}`)},
		},
	}
	if err := c.Sum(usd(280)); err != nil {
		panic(err)
	}
	return c
}

// changes change one thing each that a final invoice says, by the names of the fields.
var changes = map[string]func(c *invoice.Content, l *invoice.Line){
	"Invoice":                func(c *invoice.Content, _ *invoice.Line) { c.Invoice = id.New[invoice.Invoice]() },
	"Account":                func(c *invoice.Content, _ *invoice.Line) { c.Account = id.New[account.Account]() },
	"Number":                 func(c *invoice.Content, _ *invoice.Line) { c.Number += "1" },
	"BillTo.Name":            func(c *invoice.Content, _ *invoice.Line) { c.BillTo.Name += "!" },
	"BillTo.Email":           func(c *invoice.Content, _ *invoice.Line) { c.BillTo.Email += "!" },
	"BillTo.TaxID":           func(c *invoice.Content, _ *invoice.Line) { c.BillTo.TaxID += "!" },
	"BillTo.Address":         func(c *invoice.Content, _ *invoice.Line) { c.BillTo.Address.Country = "US" },
	"Lines":                  func(c *invoice.Content, _ *invoice.Line) { c.Lines = c.Lines[:1] },
	"Subtotal":               func(c *invoice.Content, _ *invoice.Line) { c.Subtotal.Minor++ },
	"Tax":                    func(c *invoice.Content, _ *invoice.Line) { c.Tax.Minor++ },
	"Total":                  func(c *invoice.Content, _ *invoice.Line) { c.Total.Minor++ },
	"Absorbed":               func(c *invoice.Content, _ *invoice.Line) { c.Absorbed.Minor++ },
	"IssuedAt":               func(c *invoice.Content, _ *invoice.Line) { c.IssuedAt = c.IssuedAt.Add(time.Microsecond) },
	"Line.Number":            func(_ *invoice.Content, l *invoice.Line) { l.Number++ },
	"Line.Kind":              func(_ *invoice.Content, l *invoice.Line) { l.Kind += "!" },
	"Line.Meter":             func(_ *invoice.Content, l *invoice.Line) { l.Meter += "!" },
	"Line.Description":       func(_ *invoice.Content, l *invoice.Line) { l.Description += "!" },
	"Line.Period":            func(_ *invoice.Content, l *invoice.Line) { l.Period.End = l.Period.End.Add(time.Microsecond) },
	"Line.Quantity":          func(_ *invoice.Content, l *invoice.Line) { l.Quantity = money.MustDecimal("60.500000001") },
	"Line.Amount":            func(_ *invoice.Content, l *invoice.Line) { l.Amount.Minor++ },
	"Line.Derivation":        func(_ *invoice.Content, l *invoice.Line) { l.Derivation = []byte(`{"kind": "usage"}`) },
	"the order of the lines": func(c *invoice.Content, _ *invoice.Line) { c.Lines[0], c.Lines[1] = c.Lines[1], c.Lines[0] },
	"another currency": func(c *invoice.Content, _ *invoice.Line) {
		c.Total.Currency = "EUR"
	},
	"the last digit of a large number": func(_ *invoice.Content, l *invoice.Line) {
		l.Derivation = []byte(strings.Replace(string(l.Derivation), "993", "992", 1))
	},
}

// Every field of what is issued is in the fingerprint.
func TestFingerprint_CoversEveryField(t *testing.T) {
	t.Parallel()
	outside := map[string]bool{"Hash": true, "BillTo": true, "BillTo.UpdatedAt": true, "BillTo.Version": true} // itself; by its parts; of the profile's record
	for prefix, of := range map[string]reflect.Type{
		"": reflect.TypeFor[invoice.Content](), "Line.": reflect.TypeFor[invoice.Line](), "BillTo.": reflect.TypeFor[account.Profile](),
	} {
		for _, f := range reflect.VisibleFields(of) {
			if name := prefix + f.Name; (changes[name] == nil) != outside[name] {
				t.Errorf("%s is neither changed below nor outside of the fingerprint, or both", name)
			}
		}
	}
}

func TestFingerprint_ChangesWithWhatIsSaid(t *testing.T) {
	t.Parallel()
	for what, change := range changes {
		t.Run(strings.ReplaceAll(what, " ", "_"), func(t *testing.T) {
			t.Parallel()
			c := content()
			before, err := c.Fingerprint()
			if err != nil {
				t.Fatal(err)
			}
			change(&c, &c.Lines[0])
			if after, err := c.Fingerprint(); err != nil || after == before {
				t.Errorf("another invoice has the same fingerprint (%v)", err)
			}
		})
	}
}

// What a database changes of the form changes nothing of the fingerprint, and what is no derivation has none.
func TestFingerprint_HoldsOverStorage(t *testing.T) {
	t.Parallel()
	c := content()
	c.Lines[1].Derivation = []byte(`{"parts": [1.50, 1e2, 2]}`)
	before, err := c.Fingerprint()
	if err != nil {
		t.Fatal(err)
	}
	c.IssuedAt = c.IssuedAt.In(time.FixedZone("elsewhere", 3600)).Add(time.Nanosecond)
	c.Lines[0].Quantity = money.MustDecimal("60.500")
	c.Lines[0].Derivation = []byte(`{"kind":"usage","exact":{"n":9007199254740993}}`)
	c.Lines[1].Derivation = []byte(`{"parts": [1.5, 100, 2e0]}`)
	if after, err := c.Fingerprint(); err != nil || after != before {
		t.Errorf("another zone, another order of members or zeros behind the point change the fingerprint (%v)", err)
	}
	c.Lines[1].Derivation = []byte(`{"parts": [3, 100, 2]}`)
	if after, err := c.Fingerprint(); err != nil || after == before {
		t.Errorf("three halves and three have one fingerprint (%v)", err)
	}
	for what, text := range map[string]string{"cut off": `{`, "beyond all numbers": `{"n": 1e9999999999}`} {
		c.Lines[1].Derivation = []byte(text)
		if _, err := c.Fingerprint(); err == nil {
			t.Errorf("a derivation that is %s has a fingerprint", what)
		}
	}
}
