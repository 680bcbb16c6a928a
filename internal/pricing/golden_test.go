package pricing_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/pkg/money"
)

// invoice is one that a catalogue's comments work out by hand.
type invoice struct {
	line  int // where it begins
	head  string
	lines []string // "22.00 fee"
}

// invoicesIn reads the golden invoices out of the comments.
func invoicesIn(doc string) []invoice {
	var out []invoice
	open := false
	for i, line := range strings.Split(doc, "\n") {
		text, comment := strings.CutPrefix(line, "#")
		text = strings.TrimSpace(text)
		switch {
		case comment && strings.HasPrefix(text, "invoice "):
			out = append(out, invoice{line: i + 1, head: strings.TrimPrefix(text, "invoice ")})
			open = true
		case comment && open && text != "":
			words := strings.Fields(text)
			inv := &out[len(out)-1]
			inv.lines = append(inv.lines, strings.Join(words[:min(2, len(words))], " "))
			open = words[min(1, len(words)-1)] != "total"
		default:
			open = false
		}
	}
	return out
}

// parseInvoice reads "creator JPY credits[model=a]=130001".
func parseInvoice(tb testing.TB, c plan.Catalogue, head string) pricing.Input {
	tb.Helper()
	words := strings.Fields(head)
	in := pricing.Input{Version: version(tb, c, plan.Code(words[0])), Currency: money.USD}
	for _, w := range words[1:] {
		if cur, err := money.ParseCurrency(w); err == nil {
			in.Currency = cur
			continue
		}
		at := strings.LastIndex(w, "=")
		name, dimensions, _ := strings.Cut(strings.TrimSuffix(w[:at], "]"), "[")
		u := pricing.Usage{Meter: plan.MeterCode(name), Quantity: dec(w[at+1:])}
		if key, value, ok := strings.Cut(dimensions, "="); ok {
			u.Dimensions = map[string]string{key: value}
		}
		in.Usage = append(in.Usage, u)
	}
	return in
}

func TestGoldenInvoicesOfTheCatalogues(t *testing.T) {
	t.Parallel()

	files, err := filepath.Glob("../../docs/catalogues/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d catalogues: %v", len(files), err)
	}
	for _, file := range append(files, "../plan/catalogue.yaml") {
		doc, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := plan.ParseCatalogue(doc)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		invoices := invoicesIn(string(doc))
		if len(invoices) < 4 {
			t.Errorf("%s has %d golden invoices", file, len(invoices))
		}
		for _, inv := range invoices {
			t.Run(fmt.Sprintf("%s:%d", filepath.Base(file), inv.line), func(t *testing.T) {
				t.Parallel()
				bill := rate(t, parseInvoice(t, c, inv.head))
				var got []string
				for _, l := range bill.Lines {
					got = append(got, strings.Fields(l.Amount.String())[0]+" "+string(l.Kind))
				}
				got = append(got, strings.Fields(bill.Total.String())[0]+" total")
				if strings.Join(got, "\n") != strings.Join(inv.lines, "\n") {
					t.Errorf("%s\ngot  %s\nwant %s", inv.head, strings.Join(got, ", "), strings.Join(inv.lines, ", "))
				}
			})
		}
	}
}
