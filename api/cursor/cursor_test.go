package cursor_test

import (
	"net/url"
	"testing"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/api/cursor"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
)

func TestCursorIsBound(t *testing.T) {
	t.Parallel()
	mine := id.New[account.Account]()
	list := func() cursor.List {
		return cursor.List{Account: mine, Route: "GET /v1/invoices", Path: "/v1/invoices", Filter: url.Values{"status": {"open"}}}
	}
	codec := cursor.NewCodec("key")
	c := codec.Encode(list(), "inv_1")
	if got, err := codec.Decode(list(), c); err != nil || got != "inv_1" {
		t.Fatalf("Decode = %q, %v", got, err)
	}
	for name, change := range map[string]func(*cursor.List){
		"Account": func(l *cursor.List) { l.Account = id.New[account.Account]() },
		"Route":   func(l *cursor.List) { l.Route = "GET /v1/payments" },
		"Path":    func(l *cursor.List) { l.Path = "/v1/payments" },
		"Filter":  func(l *cursor.List) { l.Filter = url.Values{"status": {"paid"}} },
		"More":    func(l *cursor.List) { l.Filter.Add("x", "y") },
	} {
		l := list()
		change(&l)
		if _, err := codec.Decode(l, c); err == nil {
			t.Errorf("%s: the cursor works for another list", name)
		}
	}
	if _, err := cursor.NewCodec("another").Decode(list(), c); err == nil {
		t.Error("the cursor works under another key")
	}
}

func TestNobodyElseMakesCursors(t *testing.T) {
	t.Parallel()
	codec, list := cursor.NewCodec("key"), cursor.List{Route: "GET /v1/plans"}
	good := codec.Encode(list, "position")
	rapid.Check(t, func(t *rapid.T) {
		forged := []byte(good)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			i := rapid.IntRange(0, len(forged)-1).Draw(t, "at")
			forged[i] = rapid.SampledFrom([]byte("ABCxyz019-_=.%")).Draw(t, "to")
		}
		if string(forged) == good {
			return
		}
		if p, err := codec.Decode(list, string(forged)); err == nil {
			t.Fatalf("%q is taken for position %q", forged, p)
		}
	})
}

// FuzzDecode: only what was given is taken.
func FuzzDecode(f *testing.F) {
	codec, list := cursor.NewCodec("key"), cursor.List{Route: "GET /v1/plans", Path: "/v1/plans"}
	f.Add(codec.Encode(list, "position"))
	f.Add(codec.Encode(list, "position") + "\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if position, err := codec.Decode(list, text); err == nil && codec.Encode(list, position) != text {
			t.Errorf("%q is taken for %q", text, position)
		}
	})
}
