package postgres

import (
	"strings"
	"testing"
)

func TestTogether(t *testing.T) {
	t.Parallel()

	kinds := map[string]*kind{}
	lists := func(text string) (lists [][]stmt) {
		for list := range strings.SplitSeq(text, "|") {
			var stmts []stmt
			for name := range strings.FieldsSeq(list) {
				k := kinds[name]
				if k == nil {
					table, how, _ := strings.Cut(strings.TrimPrefix(name, "?"), ".")
					reads := name[0] == '?'
					k = &kind{table: table, inserts: how == "" && !reads, answers: reads, reads: reads, one: name}
					kinds[name] = k
				}
				s := stmt{kind: k, rows: [][]byte{nil}}
				if name == "text" {
					s = stmt{sql: name}
				}
				stmts = append(stmts, s)
			}
			lists = append(lists, stmts)
		}
		return lists
	}
	written := func(s stmt) string {
		if s.kind == nil {
			return s.sql
		}
		return s.kind.one + strings.Repeat("+", len(s.rows)-1)
	}
	for _, c := range []struct{ name, lists, last, want string }{
		{"ListsShareAStatement", "a b | b a | c", "", "(a+ b+ c)"},
		{"ReadsOfAKindAreOne", "?a ?b | ?a", "", "?a+ ?b"},
		{"ReadsComeAfterWhatWasWrittenBefore", "a ?b | ?b c", "", "(a) ?b+ (c)"},
		{"RowsOfATableAreInsertedTogether", "a a b", "", "(a+ b)"},
		{"RowsAreInsertedBeforeTheyAreChanged", "a b a.save | a b", "", "(a+ b+) (a.save)"},
		{"RowsAreChangedOneAfterTheOther", "a.save a.save | a.save", "", "(a.save+) (a.save)"},
		{"TextOfItsOwnStaysWhereItIs", "a text b | b", "", "(a b) text (b)"},
		{"TheLastJoin", "a | b.save", "c d.save", "(a b.save c d.save)"},
		{"TheLastInsertIntoWhatWasChanged", "a.save", "a", "(a.save a)"},
		{"TheLastChangeWhatWasChangedBefore", "a.save | b", "b a.save", "(a.save b) (b a.save)"},
		{"ThereIsNothing", "", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, s := range together(lists(c.lists), lists(c.last)[0]...) {
				if s.parts == nil {
					got = append(got, written(s))
					continue
				}
				var parts []string
				for _, p := range s.parts {
					parts = append(parts, written(p))
				}
				got = append(got, "("+strings.Join(parts, " ")+")")
			}
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("%s: %s, want %s", c.lists, got, c.want)
			}
		})
	}
}
