package ledger_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/pkg/money"
)

const euro money.Currency = "EUR"

func usd(minor int64) money.Amount { return money.New(minor, money.USD) }

func move(minor int64, debit, credit ledger.Name) ledger.Posting {
	return ledger.Posting{Debit: debit, Credit: credit, Amount: usd(minor)}
}

// What cannot be booked says why, before anything is written.
func TestCheck(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name     string
		postings []ledger.Posting
		want     error
	}{
		{"OnePosting", []ledger.Posting{move(1, "a", "b")}, nil},
		{"Several", []ledger.Posting{move(1, "a", "b"), move(1e15-1, "b", "c")}, nil},
		{"Nothing", nil, ledger.ErrEmpty},
		{"AnAmountOfZero", []ledger.Posting{move(0, "a", "b")}, ledger.ErrPosting},
		{"LessThanNothing", []ledger.Posting{move(-1, "a", "b")}, ledger.ErrPosting},
		{"ABadOneBehindAGoodOne", []ledger.Posting{move(1, "a", "b"), move(0, "a", "b")}, ledger.ErrPosting},
		{"FromAnAccountToItself", []ledger.Posting{move(1, "a", "a")}, ledger.ErrPosting},
		{"FromNowhere", []ledger.Posting{move(1, "a", "")}, ledger.ErrPosting},
		{"ToNowhere", []ledger.Posting{move(1, "", "a")}, ledger.ErrPosting},
		{"TwoCurrencies", []ledger.Posting{move(1, "a", "b"), {Debit: "a", Credit: "b", Amount: money.New(1, euro)}}, ledger.ErrCurrency},
		{"MoreThanCanBeSummed", []ledger.Posting{move(math.MaxInt64, "a", "b"), move(1, "a", "b")}, money.ErrOverflow},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if err := (ledger.Transaction{Postings: c.postings}).Check(); !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
}

// drawn is a transaction whose fields are all set.
func drawn(t *rapid.T) ledger.Transaction {
	text := func(label string) string { return rapid.StringN(1, 8, -1).Draw(t, label) }
	at := func(label string) time.Time {
		return time.UnixMicro(rapid.Int64Range(0, 4e15).Draw(t, label)).UTC()
	}
	tx := ledger.Transaction{
		ID: id.New[ledger.Transaction](), Account: id.New[account.Account](), Kind: text("kind"), Reference: text("reference"),
		Description: text("description"), BookedAt: at("booked"), RecordedAt: at("recorded"), Sequence: rapid.Int64Range(1, 1e9).Draw(t, "sequence"),
	}
	for range rapid.IntRange(1, 4).Draw(t, "postings") {
		tx.Postings = append(tx.Postings, ledger.Posting{
			Debit: ledger.Name(text("debit")), Credit: ledger.Name(text("credit")), Amount: usd(rapid.Int64Range(1, 1e12).Draw(t, "amount")),
		})
	}
	return tx
}

// forgeries change one thing each that a transaction says. Those of a field are named as it is.
var forgeries = map[string]func(tx *ledger.Transaction, p *ledger.Posting){
	"ID":               func(tx *ledger.Transaction, _ *ledger.Posting) { tx.ID = id.New[ledger.Transaction]() },
	"Account":          func(tx *ledger.Transaction, _ *ledger.Posting) { tx.Account = id.New[account.Account]() },
	"Kind":             func(tx *ledger.Transaction, _ *ledger.Posting) { tx.Kind += "!" },
	"Reference":        func(tx *ledger.Transaction, _ *ledger.Posting) { tx.Reference += "!" },
	"Description":      func(tx *ledger.Transaction, _ *ledger.Posting) { tx.Description += "!" },
	"BookedAt":         func(tx *ledger.Transaction, _ *ledger.Posting) { tx.BookedAt = tx.BookedAt.Add(time.Microsecond) },
	"RecordedAt":       func(tx *ledger.Transaction, _ *ledger.Posting) { tx.RecordedAt = tx.RecordedAt.Add(-time.Microsecond) },
	"Sequence":         func(tx *ledger.Transaction, _ *ledger.Posting) { tx.Sequence++ },
	"Postings":         func(tx *ledger.Transaction, _ *ledger.Posting) { tx.Postings = append(tx.Postings, tx.Postings[0]) },
	"Posting.Debit":    func(_ *ledger.Transaction, p *ledger.Posting) { p.Debit += "!" },
	"Posting.Credit":   func(_ *ledger.Transaction, p *ledger.Posting) { p.Credit += "!" },
	"Posting.Amount":   func(_ *ledger.Transaction, p *ledger.Posting) { p.Amount.Minor++ },
	"another currency": func(_ *ledger.Transaction, p *ledger.Posting) { p.Amount.Currency = euro },
	"the other way round": func(_ *ledger.Transaction, p *ledger.Posting) {
		p.Debit, p.Credit = p.Credit+"!", p.Debit
	},
	"a posting less": func(tx *ledger.Transaction, _ *ledger.Posting) { tx.Postings = tx.Postings[:len(tx.Postings)-1] },
	"a letter moved to the next field": func(tx *ledger.Transaction, _ *ledger.Posting) {
		tx.Kind, tx.Reference = tx.Kind+tx.Reference[:1], tx.Reference[1:]
	},
}

// Every field of a transaction is either in the chain's hash or follows from what is in it.
func TestChainHash_ForgeriesCoverEveryField(t *testing.T) {
	t.Parallel()
	derived := []string{"PrevHash", "Hash", "Recipe", "Posting.DebitBalance", "Posting.CreditBalance"} // of the chain, and of the postings before
	fields := func(of reflect.Type, prefix string) {
		for _, f := range reflect.VisibleFields(of) {
			name := prefix + f.Name
			if _, forged := forgeries[name]; forged == slices.Contains(derived, name) {
				t.Errorf("%s is neither forged nor derived, or both", name)
			}
		}
	}
	fields(reflect.TypeFor[ledger.Transaction](), "")
	fields(reflect.TypeFor[ledger.Posting](), "Posting.")
}

// Whoever changes anything of a transaction in the middle of a chain breaks it there and, should the hash be
// computed again, at the next one: nothing short of all later hashes will do.
func TestChainHash_BreaksWhateverIsChanged(t *testing.T) {
	t.Parallel()
	for what, forge := range forgeries {
		t.Run(strings.ReplaceAll(what, " ", "_"), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) {
				var chain []ledger.Transaction
				var prev []byte
				for range rapid.IntRange(2, 5).Draw(t, "length") {
					tx := drawn(t)
					tx.PrevHash, tx.Hash = prev, tx.ChainHash(prev)
					prev = tx.Hash
					chain = append(chain, tx)
				}
				at := rapid.IntRange(0, len(chain)-2).Draw(t, "forged")
				forged := chain[at]
				forged.Postings = slices.Clone(forged.Postings)
				forge(&forged, &forged.Postings[rapid.IntRange(0, len(forged.Postings)-1).Draw(t, "posting")])
				again := forged.ChainHash(forged.PrevHash)
				if bytes.Equal(again, forged.Hash) {
					t.Fatalf("%+v has the hash of %+v", forged, chain[at])
				}
				if next := chain[at+1]; bytes.Equal(next.ChainHash(again), next.Hash) {
					t.Fatal("the next one does not notice")
				}
			})
		})
	}
}

// The form is for ever: books that are kept verify with every later version.
func TestChainHash_OfBooksThatAreKept(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 10, 9, 0, 0, 123_456_000, time.UTC)
	tx := ledger.Transaction{
		ID:      id.FromUUID[ledger.Transaction](uuid.MustParse("0195b3c0-0000-7000-8000-000000000001")),
		Account: id.FromUUID[account.Account](uuid.MustParse("0195b3c0-0000-7000-8000-000000000002")),
		Kind:    "invoice", Reference: "inv_1", Description: "March", Sequence: 7, BookedAt: at, RecordedAt: at.Add(time.Second),
		Postings: []ledger.Posting{move(10_000, "customer:receivable", "operator:revenue"), move(800, "customer:receivable", "operator:tax")},
	}
	const want = "b0273ae1706674807afc939cab203a500f0a3bd3ad8b0b652ff77db0af94cb16"
	if got := hex.EncodeToString(tx.ChainHash([]byte{1, 2, 3})); got != want {
		t.Errorf("the hash is %s, and was %s", got, want)
	}
}

// The hashes of one transaction by every recipe that there was: they must hold for ever, so a recipe that is changed, and not
// followed by another, fails here.
func TestChained_ByEveryRecipeThatThereWas(t *testing.T) {
	t.Parallel()
	tx := ledger.Transaction{
		ID: id.FromUUID[ledger.Transaction](uuid.UUID{1}), Account: id.FromUUID[account.Account](uuid.UUID{2}), Sequence: 7, Kind: "top_up", Reference: "pay_1",
		Description: "Top-up by card", BookedAt: time.Unix(1_750_000_000, 0), RecordedAt: time.Unix(1_760_000_000, 0),
		Postings: []ledger.Posting{{Debit: "operator:cash", Credit: "customer:funds", Amount: money.New(5000, money.USD)}},
	}
	prev := []byte("the one before")
	for recipe, want := range map[int]string{1: "8c0965c227198d3508764dfb3541146dd1c7724a16834d61139efbe35fe40908", 2: "986aca5686c7894823200be61bf9f19f3aabdd4e966a5e843f9c04a77c6b82c8"} {
		old := tx
		old.Recipe = recipe
		old.Hash, _ = hex.DecodeString(want)
		unsaid := old
		unsaid.Recipe = 0
		if !old.Chained(prev) || !unsaid.Chained(prev) {
			t.Errorf("recipe %d does not hold any more: %x now", recipe, tx.ChainHash(prev))
		}
		other := old
		other.Recipe = 3 - recipe
		if other.Chained(prev) {
			t.Errorf("a link by recipe %d passes for one by %d", recipe, other.Recipe)
		}
		if old.Kind = "refund"; old.Chained(prev) {
			t.Errorf("recipe %d holds for another kind", recipe)
		}
		unknown := tx
		unknown.Hash = tx.ChainHash(prev)
		if unknown.Recipe = ledger.Recipe + 1; unknown.Chained(prev) {
			t.Error("a recipe that is not known holds")
		}
	}
}

// What the database keeps of a time is enough to compute the hash again.
func TestChainHash_HoldsOverStorage(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tx := drawn(t)
		stored := tx
		stored.BookedAt = tx.BookedAt.In(time.FixedZone("elsewhere", 3600)).Add(999 * time.Nanosecond)
		stored.RecordedAt = tx.RecordedAt.Add(time.Nanosecond)
		stored.Postings = slices.Clone(tx.Postings)
		stored.Postings[0].DebitBalance = 17
		if !bytes.Equal(tx.ChainHash(nil), stored.ChainHash(nil)) {
			t.Fatal("another zone, or nanoseconds that are not stored, change the hash")
		}
	})
}
