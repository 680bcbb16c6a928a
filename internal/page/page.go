// Package page pages through lists.
//
// Lists are read by keyset, never by offset: a page starts after the last item of the page before,
// so its cost does not grow with its number and a new item cannot shift it.
package page

// MaxLimit is the largest page that is served; DefaultLimit applies where none is asked for.
const (
	DefaultLimit = 20
	MaxLimit     = 100
)

// Request asks for up to Limit items that follow After in the list's own order. After is the
// position of the last item seen (usually an identifier or a sequence), empty for the first page.
type Request struct {
	Limit int
	After string
}

// Page is one page of a list. Next is the position to continue after, empty on the last page.
type Page[T any] struct {
	Data []T
	Next string
}

// Cut makes a page of rows that were read with a limit of one more than asked: the extra row says
// that there is a next page. position gives an item's place in the list's order.
func Cut[T any](rows []T, limit int, position func(T) string) Page[T] {
	if len(rows) <= limit {
		return Page[T]{Data: rows}
	}
	rows = rows[:limit]
	return Page[T]{Data: rows, Next: position(rows[limit-1])}
}
