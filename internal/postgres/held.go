package postgres

import (
	"maps"
	"slices"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/ledger"
)

// held is what a transaction has read of the rows that it holds locked: nobody else can change them, so
// nothing of it is read again. The zero value holds nothing.
type held struct {
	accounts map[account.ID]accountRow
	books    map[account.ID]*book
}

// A book is the end of an account's chain of transactions, and its balances.
type book struct {
	account  account.ID
	sequence int64
	hash     []byte
	balance  ledger.Balances
	changed  map[ledger.Name]string // the balances that are not written yet, with their currency
}

// move changes the balances as a posting says, and says them in it.
func (b *book) move(p *ledger.Posting) {
	if b.changed == nil {
		b.changed = map[ledger.Name]string{}
	}
	b.changed[p.Debit], b.changed[p.Credit] = string(p.Amount.Currency), string(p.Amount.Currency)
	b.balance[p.Debit] += p.Amount.Minor
	b.balance[p.Credit] -= p.Amount.Minor
	p.DebitBalance, p.CreditBalance = b.balance[p.Debit], b.balance[p.Credit]
}

func (b *book) clone() *book {
	c := *b
	c.balance, c.changed = maps.Clone(b.balance), maps.Clone(b.changed)
	return &c
}

// account returns the row of an account that is locked, and false if it is not, or not known.
func (h *held) account(a account.ID) (accountRow, bool) {
	row, ok := h.accounts[a]
	return row, ok
}

func (h *held) hold(row accountRow) { put(&h.accounts, row.account().ID, row) }

// forget says that the account's row was written.
func (h *held) forget(a account.ID) { delete(h.accounts, a) }

// book returns the account's book, or nil if it is not held.
func (h *held) book(a account.ID) *book { return h.books[a] }

func (h *held) keep(b *book) { put(&h.books, b.account, b) }

// of copies what is held of an account.
func (h *held) of(a account.ID) (part held) {
	if row, ok := h.accounts[a]; ok {
		part.hold(row)
	}
	if b := h.books[a]; b != nil {
		part.keep(b.clone())
	}
	return part
}

// replace makes what is held of an account what a part holds.
func (h *held) replace(a account.ID, part held) {
	delete(h.accounts, a)
	maps.Copy(h.accounts, part.accounts)
	for _, b := range part.books {
		h.keep(b)
	}
}

// writeBooks makes the statements that write the balances which have changed, and the ends of their chains.
func (h *held) writeBooks() []stmt {
	var rows []balanceRow
	var out []stmt
	for _, b := range h.books {
		if len(b.changed) == 0 {
			continue
		}
		for _, n := range slices.Sorted(maps.Keys(b.changed)) {
			rows = append(rows, balanceRow{b.account.UUID(), string(n), b.changed[n], b.balance[n]})
		}
		b.changed = nil
		out = append(out, stmt{
			sql:  "UPDATE account_counters SET ledger = $2, ledger_hash = $3 WHERE account_id = $1",
			args: []any{param(b.account), b.sequence, b.hash},
		})
	}
	if len(rows) > 0 {
		out = append(out, balances.insert(rows...).onConflict("(account_id, name, currency) DO UPDATE SET balance = excluded.balance"))
	}
	return out
}

func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}
