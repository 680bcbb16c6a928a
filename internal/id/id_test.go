package id_test

import (
	"sort"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/id"
)

type thing struct{}

func (thing) IDPrefix() string { return "thg" }

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var u uuid.UUID
		copy(u[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid"))
		if u == uuid.Nil {
			return
		}
		want := id.FromUUID[thing](u)
		got, err := id.Parse[thing](want.String())
		if err != nil || got != want {
			t.Fatalf("Parse(%q) = %v, %v", want, got, err)
		}
	})
}

func TestNewSortsByTime(t *testing.T) {
	t.Parallel()
	texts := make([]string, 1000)
	for i := range texts {
		texts[i] = id.New[thing]().String()
	}
	if !sort.StringsAreSorted(texts) {
		t.Fatal("identifiers made in order do not sort in order")
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	good := id.New[thing]().String()
	for name, text := range map[string]string{
		"Empty":       "",
		"WrongPrefix": "inv" + good[3:],
		"NoPrefix":    good[4:],
		"TooShort":    good[:len(good)-1],
		"TooLong":     good + "0",
		"Letter":      good[:10] + "u" + good[11:],
		"Overflow":    "thg_8" + good[5:],
		"Zero":        "thg_00000000000000000000000000",
		"UpperCase":   "THG_" + good[4:],
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if v, err := id.Parse[thing](text); err == nil {
				t.Fatalf("Parse(%q) = %v, want an error", text, v)
			}
		})
	}
}
