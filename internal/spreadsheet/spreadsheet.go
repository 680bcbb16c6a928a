// Package spreadsheet writes texts into CSV files so that no spreadsheet takes one for a formula, and reads them as they were.
//
// A text that begins as a formula does gets an apostrophe in front, which spreadsheets take for "this is a text". So does one
// that is written like that already: each text has a cell of its own, and the way back is exact.
package spreadsheet

import (
	"strings"
	"unicode/utf8"
)

// formula is what a formula begins with in one spreadsheet or another, those of wide characters too.
const formula = "=+-@\t\r\n＝＋－＠"

// Cell returns what to write for a text.
func Cell(text string) string {
	if begins(text) {
		return "'" + text
	}
	return text
}

// Text returns what a cell was written for. A cell that Cell does not write is the text that it is.
func Text(cell string) string {
	if text, ok := strings.CutPrefix(cell, "'"); ok && begins(text) {
		return text
	}
	return cell
}

// begins reports whether a text begins as a formula does, behind any apostrophes.
func begins(text string) bool {
	first, _ := utf8.DecodeRuneInString(strings.TrimLeft(text, "'"))
	return strings.ContainsRune(formula, first)
}
