package books_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/pkg/money"
)

func usd(minor int64) money.Amount { return money.New(minor, money.USD) }

var (
	noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	fact = books.Fact{Account: id.New[account.Account](), Reference: "ref_1", At: noon, RecordedAt: noon.Add(time.Hour), Description: "what it was"}
)

// moved is what a transaction does to the balances, debits less credits.
func moved(tx *ledger.Transaction) ledger.Balances {
	out := ledger.Balances{}
	for _, p := range tx.Postings {
		out[p.Debit] += p.Amount.Minor
		out[p.Credit] -= p.Amount.Minor
	}
	maps.DeleteFunc(out, func(_ ledger.Name, n int64) bool { return n == 0 })
	return out
}

type recipe struct {
	function, kind string
	book           func(f books.Fact) *ledger.Transaction
	want           ledger.Balances
}

// The whole of the books: every recipe, and what it moves. Debits are positive.
var recipes = []recipe{
	{
		"TopUp", "top_up", func(f books.Fact) *ledger.Transaction { return books.TopUp(f, usd(5000)) },
		ledger.Balances{books.Cash: 5000, books.Funds: -5000},
	},
	{
		"Invoice", "invoice", func(f books.Fact) *ledger.Transaction { return books.Invoice(f, usd(2700), usd(270), usd(300)) },
		ledger.Balances{books.Receivable: 2970, books.Revenue: -3000, books.Tax: -270, books.Absorbed: 300},
	},
	{
		"FundsApplied", "funds_applied", func(f books.Fact) *ledger.Transaction { return books.FundsApplied(f, usd(10)) },
		ledger.Balances{books.Funds: 10, books.Receivable: -10},
	},
	{
		"PromoApplied", "promo_applied", func(f books.Fact) *ledger.Transaction { return books.PromoApplied(f, usd(10)) },
		ledger.Balances{books.Promo: 10, books.Receivable: -10},
	},
	{
		"InvoicePayment", "invoice_payment", func(f books.Fact) *ledger.Transaction { return books.InvoicePayment(f, usd(10)) },
		ledger.Balances{books.Cash: 10, books.Receivable: -10},
	},
	{
		"PromoGranted", "promo_granted", func(f books.Fact) *ledger.Transaction { return books.PromoGranted(f, usd(10)) },
		ledger.Balances{books.Promotions: 10, books.Promo: -10},
	},
	{
		"PromoExpired", "promo_expired", func(f books.Fact) *ledger.Transaction { return books.PromoExpired(f, usd(10)) },
		ledger.Balances{books.Promo: 10, books.Promotions: -10},
	},
	{
		"Refund", "refund", func(f books.Fact) *ledger.Transaction { return books.Refund(f, usd(0), usd(10)) },
		ledger.Balances{books.Funds: 10, books.Cash: -10},
	},
	{
		"Refund", "refund", func(f books.Fact) *ledger.Transaction { return books.Refund(f, usd(10), usd(0)) },
		ledger.Balances{books.Receivable: 10, books.Cash: -10},
	},
	{
		"RefundFailed", "refund_failed", func(f books.Fact) *ledger.Transaction { return books.RefundFailed(f, usd(4), usd(6)) },
		ledger.Balances{books.Cash: 10, books.Receivable: -4, books.Funds: -6},
	},
	{
		"CreditNote", "credit_note", func(f books.Fact) *ledger.Transaction { return books.CreditNote(f, usd(10), usd(7), usd(3)) },
		ledger.Balances{books.Waived: 20, books.Receivable: -10, books.Funds: -7, books.Promo: -3},
	},
	{
		"WriteOff", "write_off", func(f books.Fact) *ledger.Transaction { return books.WriteOff(f, usd(10)) },
		ledger.Balances{books.BadDebt: 10, books.Receivable: -10},
	},
	{
		"WriteOffUndone", "write_off_undone", func(f books.Fact) *ledger.Transaction { return books.WriteOffUndone(f, usd(10)) },
		ledger.Balances{books.Receivable: 10, books.BadDebt: -10},
	},
	{
		"DisputeOpened", "dispute_opened", func(f books.Fact) *ledger.Transaction { return books.DisputeOpened(f, usd(4), usd(6)) },
		ledger.Balances{books.Receivable: 4, books.Funds: 6, books.Cash: -10},
	},
	{
		"DisputeWon", "dispute_won", func(f books.Fact) *ledger.Transaction { return books.DisputeWon(f, usd(4), usd(6)) },
		ledger.Balances{books.Cash: 10, books.Receivable: -4, books.Funds: -6},
	},
}

func TestRecipes(t *testing.T) {
	t.Parallel()
	for _, r := range recipes {
		t.Run(r.function, func(t *testing.T) {
			t.Parallel()
			tx := r.book(fact)
			if err := tx.Check(); err != nil {
				t.Fatal(err)
			}
			if got := moved(tx); !maps.Equal(got, r.want) {
				t.Errorf("it moves %v, want %v", got, r.want)
			}
			if tx.Kind != r.kind || tx.Account != fact.Account || tx.Reference != fact.Reference || tx.Description != fact.Description ||
				!tx.BookedAt.Equal(fact.At) || !tx.RecordedAt.Equal(fact.RecordedAt) {
				t.Errorf("%+v is not the %s of %+v", tx, r.kind, fact)
			}
			if again := r.book(fact); again.ID == tx.ID {
				t.Error("two transactions have one identifier")
			}
		})
	}
}

// A recipe that is added has to say above what it moves.
func TestRecipes_NoneIsLeftOut(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "recipes.go", nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	declared := 0
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !f.Name.IsExported() {
			continue
		}
		declared++
		if !slices.ContainsFunc(recipes, func(r recipe) bool { return r.function == f.Name.Name }) {
			t.Errorf("%s is not among the recipes", f.Name.Name)
		}
	}
	if declared == 0 {
		t.Error("no recipe was found")
	}
}

// The chart names every ledger account that a recipe moves, and no other; the document lists them all.
func TestChart(t *testing.T) {
	t.Parallel()
	used := map[ledger.Name]bool{}
	for _, r := range recipes {
		for name := range r.want {
			used[name] = true
		}
	}
	got := books.Chart()
	want := slices.Sorted(maps.Keys(used))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the chart is %v, the recipes move %v", got, want)
	}
	document, err := os.ReadFile("../../docs/ledger.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range got {
		if !strings.Contains(string(document), "| `"+string(name)+"` |") {
			t.Errorf("docs/ledger.md does not list %s", name)
		}
	}
}

// What undoes another leaves nothing behind.
func TestRecipes_WhatIsUndoneLeavesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := usd(rapid.Int64Range(1, 1e15).Draw(t, "amount"))
		b := usd(rapid.Int64Range(0, 1e15-a.Minor).Draw(t, "another amount"))
		for name, pair := range map[string][2]*ledger.Transaction{
			"a refund that fails":           {books.Refund(fact, a, b), books.RefundFailed(fact, a, b)},
			"a dispute that is won":         {books.DisputeOpened(fact, b, a), books.DisputeWon(fact, b, a)},
			"a write-off that is undone":    {books.WriteOff(fact, a), books.WriteOffUndone(fact, a)},
			"credit that runs out":          {books.PromoGranted(fact, a), books.PromoExpired(fact, a)},
			"a top-up that is refunded":     {books.TopUp(fact, a), books.Refund(fact, usd(0), a)},
			"a payment that is disputed":    {books.InvoicePayment(fact, a), books.DisputeOpened(fact, a, usd(0))},
			"a prepaid invoice, by its due": {books.InvoicePayment(fact, a), books.Refund(fact, a, usd(0))},
		} {
			sum := moved(pair[0])
			for n, minor := range moved(pair[1]) {
				sum[n] += minor
			}
			for n, minor := range sum {
				if minor != 0 {
					t.Fatalf("%s leaves %d on %s", name, minor, n)
				}
			}
		}
	})
}

// A part that is nothing is not booked; a fact that is nothing cannot be, nor one of less than nothing.
func TestRecipes_PartsThatAreNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) int64 {
			return rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(1, 1e14)).Draw(t, label)
		}
		net, tax, absorbed := draw("net"), draw("tax"), draw("absorbed")
		if rapid.Bool().Draw(t, "taken back") {
			absorbed = -absorbed
		}
		tx := books.Invoice(fact, usd(net), usd(tax), usd(absorbed))
		parts := 0
		for _, n := range []int64{net, tax, absorbed} {
			if n != 0 {
				parts++
			}
		}
		if len(tx.Postings) != parts {
			t.Fatalf("%d postings, want %d: %+v", len(tx.Postings), parts, tx.Postings)
		}
		if err := tx.Check(); parts == 0 != errors.Is(err, ledger.ErrEmpty) || (parts > 0 && err != nil) {
			t.Fatalf("an invoice of %d, %d and %d: %v", net, tax, absorbed, err)
		}
		got := moved(tx)
		if got[books.Receivable] != net+tax || got[books.Revenue] != -net-absorbed || got[books.Absorbed] != absorbed {
			t.Fatalf("due %d and earned %d of %d, %d tax and %d absorbed", got[books.Receivable], -got[books.Revenue], net, tax, absorbed)
		}
		less := books.TopUp(fact, usd(-1-draw("less")))
		if err := less.Check(); !errors.Is(err, ledger.ErrPosting) {
			t.Fatalf("a top-up of less than nothing: %v", err)
		}
	})
}

// The customer's side is read with the customer's signs: what is paid in and what is given are positive, and so is what
// is owed.
func TestStandingOf(t *testing.T) {
	t.Parallel()
	sum := ledger.Balances{}
	for _, tx := range []*ledger.Transaction{
		books.TopUp(fact, usd(5000)), books.PromoGranted(fact, usd(700)), books.Invoice(fact, usd(9000), usd(900), usd(400)),
		books.PromoApplied(fact, usd(600)), books.FundsApplied(fact, usd(5000)), books.InvoicePayment(fact, usd(1000)),
	} {
		for n, minor := range moved(tx) {
			sum[n] += minor
		}
	}
	want := books.Standing{Funds: usd(0), Promo: usd(100), Due: usd(3300)}
	if got := books.StandingOf(sum, money.USD); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	for n, minor := range moved(books.DisputeOpened(fact, usd(0), usd(5000))) {
		sum[n] += minor
	}
	if got := books.StandingOf(sum, money.USD); got.Funds != usd(-5000) {
		t.Errorf("funds %s after a top-up that was spent is disputed, want -50.00 USD", got.Funds)
	}
}
