package spreadsheet_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/spreadsheet"
)

func TestCell(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":         "",
		"call-1":   "call-1",
		"'twas":    "'twas",
		"'":        "'",
		"1-2":      "1-2",
		"=1+1":     "'=1+1",
		"+49 30 1": "'+49 30 1",
		"-5":       "'-5",
		"@SUM(A1)": "'@SUM(A1)",
		"\t=1":     "'\t=1",
		"\r=1":     "'\r=1",
		"＝1":       "'＝1",
		"'=1":      "''=1",
		"''=1":     "'''=1",
		"\xff":     "\xff",
		"é":        "é",
	} {
		got := spreadsheet.Cell(text)
		if got != want {
			t.Errorf("%q is written %q, want %q", text, got, want)
		}
		if back := spreadsheet.Text(got); back != text {
			t.Errorf("%q is read as %q, was %q", got, back, text)
		}
	}
}

// Whatever a text is, its cell is no formula and is read as the text.
func TestCell_PropertyIsReadAsItWas(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.RuneFrom([]rune("'=+-@\t\ra1＝ é")), 0, 6, -1).Draw(t, "text")
		cell := spreadsheet.Cell(text)
		if cell != "" && strings.ContainsRune("=+-@\t\r＝", []rune(cell)[0]) {
			t.Fatalf("%q is a formula", cell)
		}
		if back := spreadsheet.Text(cell); back != text {
			t.Fatalf("%q is read as %q, was %q", cell, back, text)
		}
	})
}
