package postgres_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/pkg/money"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// mustAccount opens an account without a subscription.
func mustAccount(tb testing.TB, db *postgres.DB) account.Account {
	tb.Helper()
	a := account.Account{
		ID: id.New[account.Account](), Status: account.Active, Currency: money.USD,
		TimeZone: "UTC", CreatedAt: noon, UpdatedAt: noon, Version: 1,
	}
	a.ExternalID = a.ID.String()
	if err := db.InTx(tb.Context(), func(tx billing.Tx) error { return tx.Accounts().Create(tb.Context(), a) }); err != nil {
		tb.Fatal(err)
	}
	return a
}

func fact(a account.ID, reference string) books.Fact {
	return books.Fact{Account: a, Reference: reference, At: noon, RecordedAt: noon}
}

func TestLedgerAppend(t *testing.T) {
	t.Parallel()

	usd := func(minor int64) money.Amount { return money.New(minor, money.USD) }

	t.Run("KeepsRunningBalancesAndTheChain", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		a := mustAccount(t, db)
		err := db.InTx(t.Context(), func(tx billing.Tx) error {
			return tx.Ledger().Append(t.Context(),
				books.TopUp(fact(a.ID, "pay_1"), usd(5000)),
				books.Invoice(fact(a.ID, "inv_1"), usd(2700), usd(300), usd(0)),
				books.FundsApplied(fact(a.ID, "inv_1"), usd(3000)))
		})
		if err != nil {
			t.Fatal(err)
		}
		b, err := db.Ledger().Balances(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		want := books.Standing{Funds: usd(2000), Promo: usd(0), Due: usd(0)}
		if got := books.StandingOf(b, money.USD); got != want {
			t.Errorf("standing %+v, want %+v", got, want)
		}
		statement, err := db.Ledger().Entries(t.Context(), a.ID, []ledger.Name{books.Funds}, page.Request{Limit: 10})
		if err != nil || len(statement.Data) != 2 {
			t.Fatalf("statement %+v, %v; want the draw and the top-up", statement, err)
		}
		if got := statement.Data[0].Balance; got != usd(-2000) {
			t.Errorf("running balance %s after the draw, want -20.00 USD (credits are negative)", got)
		}
		txs, err := db.Ledger().Transactions(t.Context(), a.ID, 0, 10)
		if err != nil || len(txs) != 3 {
			t.Fatalf("%d transactions, %v; want 3", len(txs), err)
		}
		var prev []byte
		for i, tx := range txs {
			if tx.Sequence != int64(i+1) || string(tx.Hash) != string(tx.ChainHash(prev)) {
				t.Errorf("transaction %d breaks the chain: %+v", i+1, tx)
			}
			prev = tx.Hash
		}
	})

	// Whatever is booked in whatever groups: the balances of any moment, and the statement row by row over its pages,
	// equal a naive sum.
	t.Run("BalancesOfAnyMomentAndTheStatementEqualANaiveSum", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		a, stranger := mustAccount(t, db), mustAccount(t, db)
		rng := rand.New(rand.NewPCG(7, 7))
		at, naive := noon, ledger.Balances{}
		type moment struct {
			at   time.Time
			want ledger.Balances // before it
		}
		var moments []moment
		var rows []int64 // running balances of what the statement shows, oldest first
		names := books.StatementNames()
		record := 0
		for range 12 {
			moments = append(moments, moment{at, maps.Clone(naive)})
			err := db.InTx(t.Context(), func(tx billing.Tx) error {
				for range 1 + rng.IntN(4) {
					record++
					f := fact(a.ID, strconv.Itoa(record))
					f.At = at
					amount := func() money.Amount { return usd(1 + rng.Int64N(100_000)) }
					booked := []*ledger.Transaction{
						books.TopUp(f, amount()), books.Invoice(f, amount(), amount(), amount()), books.FundsApplied(f, amount()),
						books.PromoGranted(f, amount()), books.CreditNote(f, amount(), amount(), amount()),
					}[rng.IntN(5)]
					if err := tx.Ledger().Append(t.Context(), booked); err != nil {
						return err
					}
					for _, p := range booked.Postings {
						naive[p.Debit] += p.Amount.Minor
						naive[p.Credit] -= p.Amount.Minor
						for _, n := range []ledger.Name{p.Credit, p.Debit} { // a row each, the debit shown first of the newest
							if slices.Contains(names, n) {
								rows = append(rows, naive[n])
							}
						}
					}
				}
				return tx.Ledger().Append(t.Context(), books.TopUp(fact(stranger.ID, strconv.Itoa(record)), usd(1)))
			})
			if err != nil {
				t.Fatal(err)
			}
			at = at.Add(time.Duration(1+rng.IntN(3)) * time.Microsecond)
		}
		moments = append(moments, moment{at, naive})
		for _, m := range moments {
			got, err := db.Ledger().BalancesAt(t.Context(), a.ID, m.at)
			if err != nil || !maps.Equal(got, m.want) {
				t.Errorf("before %s: %v, %v; want %v", m.at.Format(time.RFC3339Nano), got, err, m.want)
			}
		}
		now, err := db.Ledger().Balances(t.Context(), a.ID)
		if err != nil || !maps.Equal(now, naive) {
			t.Errorf("now: %v, %v; want %v", now, err, naive)
		}
		var shown []int64
		for r := (page.Request{Limit: 3}); ; {
			got, err := db.Ledger().Entries(t.Context(), a.ID, names, r)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range got.Data {
				shown = append(shown, e.Balance.Minor)
			}
			if r.After = got.Next; r.After == "" {
				break
			}
		}
		slices.Reverse(shown)
		if !slices.Equal(shown, rows) {
			t.Errorf("the statement's balances are %v, want %v", shown, rows)
		}
	})

	t.Run("BooksARecordOnce", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		a := mustAccount(t, db)
		book := func() error {
			return db.InTx(t.Context(), func(tx billing.Tx) error {
				return tx.Ledger().Append(t.Context(), books.TopUp(fact(a.ID, "pay_1"), usd(5000)))
			})
		}
		if err := book(); err != nil {
			t.Fatal(err)
		}
		if err := book(); !errors.Is(err, ledger.ErrAlreadyBooked) {
			t.Fatalf("second booking: %v, want ErrAlreadyBooked", err)
		}
	})

	t.Run("QueuesWritersOfOneAccount", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		a := mustAccount(t, db)
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				err := db.InTx(t.Context(), func(tx billing.Tx) error {
					return tx.Ledger().Append(t.Context(), books.TopUp(fact(a.ID, id.New[ledger.Transaction]().String()), usd(int64(i+1))))
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		b, err := db.Ledger().Balances(t.Context(), a.ID)
		if err != nil || b[books.Cash] != 40*41/2 || b[books.Funds] != -40*41/2 {
			t.Errorf("balances %v, %v; want 820 on either side", b, err)
		}
	})

	t.Run("TheServiceCannotEditThePast", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		a := mustAccount(t, db)
		if err := db.InTx(t.Context(), func(tx billing.Tx) error {
			return tx.Ledger().Append(t.Context(), books.TopUp(fact(a.ID, "pay_1"), usd(5000)))
		}); err != nil {
			t.Fatal(err)
		}
		for _, q := range []string{
			"UPDATE ledger_postings SET amount = 1", "DELETE FROM ledger_postings",
			"UPDATE ledger_transactions SET total = 1", "DELETE FROM ledger_transactions", "TRUNCATE ledger_postings",
		} {
			if _, err := db.Pool().Exec(t.Context(), q); err == nil {
				t.Errorf("%s succeeded as the service's role", q)
			}
		}
	})
}
