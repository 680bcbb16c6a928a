package postgres

import (
	"slices"
	"strings"
)

// steps are what several lists of statements come to when they are sent together: in each step all that is written is
// one statement, and what else is asked comes after it.
//
// A list stays in its order where that can be seen: the parts of one statement do not see each other, so what a list
// writes to a table after another write to it is of a later step, and so is what it writes after it has asked. Writes
// to different tables may change places (foreign keys are looked at when a statement has ended), and so may the writes
// of different lists: lists are of different accounts, and share no rows.
type steps []step

type step struct {
	writes, asks []stmt
}

// together makes one list of the lists, and then of last, which may write to rows that they have written to.
func together(lists [][]stmt, last ...stmt) []stmt {
	var all steps
	for _, list := range lists {
		all.add(list, 0)
	}
	at := max(len(all)-1, 0)
	if slices.ContainsFunc(last, all.touches) {
		at = len(all)
	}
	all.add(last, at)
	var out []stmt
	for _, s := range all {
		if len(s.writes) > 0 {
			// In one order, whoever came first, so that there are as few statements as can be.
			slices.SortFunc(s.writes, func(a, b stmt) int { return strings.Compare(a.kind.part.name, b.kind.part.name) })
			out = append(out, stmt{parts: s.writes})
		}
		out = append(out, s.asks...)
	}
	return out
}

// touches reports whether s writes to rows that may have been written to.
func (all steps) touches(s stmt) bool {
	return s.kind != nil && !s.kind.inserts && slices.ContainsFunc(all, func(to step) bool {
		return slices.ContainsFunc(to.writes, func(w stmt) bool { return w.kind.table == s.kind.table })
	})
}

// add adds a list, from a step on.
func (all *steps) add(list []stmt, at int) {
	var written []*kind // by the list in this step
	asked := false
	for _, s := range list {
		if joins := s.kind != nil && !s.kind.answers; !joins {
			all.at(at).asks = merge(all.at(at).asks, s)
			asked = true
			continue
		}
		clash := func(k *kind) bool { return k.table == s.kind.table && (k != s.kind || !k.inserts) }
		if asked || slices.ContainsFunc(written, clash) {
			at, asked, written = at+1, false, nil
		}
		written = append(written, s.kind)
		all.at(at).writes = merge(all.at(at).writes, s)
	}
}

func (all *steps) at(i int) *step {
	for len(*all) <= i {
		*all = append(*all, step{})
	}
	return &(*all)[i]
}

// merge adds a statement to a list, or its rows to those of the one of its kind that is there.
func merge(list []stmt, s stmt) []stmt {
	i := -1
	if s.kind != nil {
		i = slices.IndexFunc(list, func(known stmt) bool { return known.kind == s.kind })
	}
	if i < 0 {
		s.rows, s.take = slices.Clip(s.rows), slices.Clip(s.take)
		return append(list, s)
	}
	list[i].rows = append(list[i].rows, s.rows...)
	list[i].take = append(list[i].take, s.take...)
	return list
}
