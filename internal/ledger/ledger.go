// Package ledger is the double-entry journal.
//
// It owns: transactions, their postings, and the balances that follow from them.
// It does not own: what a ledger account stands for, or when to book. Package books names the ledger
// accounts and composes transactions; package billing decides when.
//
// Always true: a posting debits one ledger account and credits another by the same amount, so every
// transaction balances; a posting is never changed or removed, and a correction is a new transaction;
// a balance equals the sum of its postings; a record is booked at most once by each recipe; the
// transactions of an account form one sequence without gaps, chained by hash.
//
// All ledger accounts belong to one customer account, the operator's side (cash, revenue, …) too, so
// that a transaction never crosses accounts and no row is shared by all customers.
package ledger

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/pkg/money"
)

// ID names a transaction.
type ID = id.ID[Transaction]

// Name is the name of a ledger account within a customer account. Package books declares them.
type Name string

// Posting moves Amount from Credit to Debit: Debit's balance rises by it, Credit's falls by it.
type Posting struct {
	Debit, Credit Name
	Amount        money.Amount // positive
	// Balances after this posting, debits less credits, in minor units. Set by the store.
	DebitBalance, CreditBalance int64
}

// Transaction is a set of postings that are booked together.
type Transaction struct {
	ID          ID
	Account     account.ID
	Kind        string // the recipe, "top_up"
	Reference   string // the record that is booked, "pay_…"; unique with Kind
	Description string
	Postings    []Posting
	BookedAt    time.Time // on the account's clock
	RecordedAt  time.Time // in real time

	// Set by the store.
	Sequence int64
	PrevHash []byte
	Hash     []byte
	Recipe   int // of Hash; 0: it was chained before links said by which, by recipe 1 or 2
}

// IDPrefix makes transaction identifiers read "txn_…".
func (Transaction) IDPrefix() string { return "txn" }

// Errors of a transaction that cannot be booked. All are faults of ours, never of a caller.
var (
	ErrEmpty    = errors.New("ledger: transaction without postings")
	ErrPosting  = errors.New("ledger: posting without a positive amount between two ledger accounts")
	ErrCurrency = errors.New("ledger: postings in different currencies")
	// ErrAlreadyBooked says that the recipe has booked this record before. The earlier transaction stands.
	ErrAlreadyBooked = errors.New("ledger: record already booked")
)

// ErrBalance says that a balance would pass money.MaxMinor.
var ErrBalance = errs.New(errs.Conflict, "balance_out_of_range", "The account's balance would pass what can be kept.")

// Currency returns the transaction's currency.
func (t Transaction) Currency() money.Currency {
	if len(t.Postings) == 0 {
		return ""
	}
	return t.Postings[0].Amount.Currency
}

// Total returns the sum of the postings' amounts.
func (t Transaction) Total() (money.Amount, error) {
	sum := money.Zero(t.Currency())
	for _, p := range t.Postings {
		var err error
		if sum, err = sum.Add(p.Amount); err != nil {
			return money.Amount{}, err
		}
	}
	return sum, nil
}

// Check reports why the transaction cannot be booked, or nil.
func (t Transaction) Check() error {
	if len(t.Postings) == 0 {
		return ErrEmpty
	}
	for _, p := range t.Postings {
		if p.Amount.Minor <= 0 || p.Debit == "" || p.Credit == "" || p.Debit == p.Credit {
			return fmt.Errorf("%w: %+v", ErrPosting, p)
		}
		if p.Amount.Currency != t.Currency() {
			return fmt.Errorf("%w: %s and %s", ErrCurrency, p.Amount.Currency, t.Currency())
		}
	}
	_, err := t.Total()
	return err
}

// Recipe is what ChainHash covers today. Whoever changes that raises it, and keeps the old recipe for the links that were
// made by it: they are checked for ever.
const Recipe = 2

// ChainHash returns the hash that chains t to the transaction before it: SHA-256 over that one's hash
// and, length-prefixed, all that t says; times count in microseconds. Whoever changes an old posting has to change
// every later hash.
func (t Transaction) ChainHash(prev []byte) []byte { return t.chainHash(prev, Recipe) }

// Chained reports whether t's hash is the one that chains it to the transaction with the hash prev, by the recipe that t
// says. No recipe at all is one of the first two: which it was, nobody has written down.
func (t Transaction) Chained(prev []byte) bool {
	if t.Recipe == 0 {
		return bytes.Equal(t.Hash, t.chainHash(prev, 2)) || bytes.Equal(t.Hash, t.chainHash(prev, 1))
	}
	return t.Recipe <= Recipe && bytes.Equal(t.Hash, t.chainHash(prev, t.Recipe))
}

// chainHash is ChainHash by a recipe: the first left the description and the time of recording out.
func (t Transaction) chainHash(prev []byte, recipe int) []byte {
	h := sha256.New()
	put := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	num := func(v int64) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(v)) //nolint:gosec // bits, not a value
		put(n[:])
	}
	put(prev)
	a, i := t.Account.UUID(), t.ID.UUID()
	put(a[:])
	put(i[:])
	num(t.Sequence)
	put([]byte(t.Kind))
	put([]byte(t.Reference))
	if recipe > 1 {
		put([]byte(t.Description))
	}
	num(t.BookedAt.UnixMicro())
	if recipe > 1 {
		num(t.RecordedAt.UnixMicro())
	}
	for _, p := range t.Postings {
		put([]byte(p.Debit))
		put([]byte(p.Credit))
		num(p.Amount.Minor)
		put([]byte(p.Amount.Currency))
	}
	return h.Sum(nil)
}

// Balances maps the ledger accounts of one customer account to debits less credits, in minor units of
// the account's currency.
type Balances map[Name]int64

// Entry is one row of a statement: the effect of a posting on the ledger accounts that were asked for.
type Entry struct {
	Transaction ID
	Sequence    int64
	Number      int // of the posting in its transaction
	Kind        string
	Reference   string
	Description string
	BookedAt    time.Time
	Name        Name
	Change      money.Amount // signed: debits positive
	Balance     money.Amount // after the posting
}

// Store keeps the journal.
type Store interface {
	// Append books the transactions of one account in order, sets their sequence, hashes and running
	// balances, and updates the cached balances. It locks the account's counters, so writers of one
	// account queue. A transaction whose (Kind, Reference) is booked gives ErrAlreadyBooked and the
	// database transaction is of no further use. It returns Check's errors, and ErrBalance, before it writes.
	Append(ctx context.Context, txs ...*Transaction) error
	// Booked reports whether the recipe kind has booked reference.
	Booked(ctx context.Context, a account.ID, kind, reference string) (bool, error)
	// Balances returns the account's balances now.
	Balances(ctx context.Context, a account.ID) (Balances, error)
	// BalancesOf returns the balances of several accounts now.
	BalancesOf(ctx context.Context, as []account.ID) (map[account.ID]Balances, error)
	// BalancesAt returns the balances after all transactions that were booked before t.
	BalancesAt(ctx context.Context, a account.ID, t time.Time) (Balances, error)
	// Entries pages through what touched one of names, newest first. The position is the sequence.
	Entries(ctx context.Context, a account.ID, names []Name, r page.Request) (page.Page[Entry], error)
	// Transactions returns the account's transactions with sequence > after, ascending, at most limit:
	// what a proof walks.
	Transactions(ctx context.Context, a account.ID, after int64, limit int) ([]Transaction, error)
}
