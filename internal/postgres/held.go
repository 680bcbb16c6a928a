package postgres

import (
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/payment"
)

// held is what a transaction has read of the rows that it holds locked: nobody else can change them, so
// nothing of it is read again. The zero value holds nothing.
type held struct {
	accounts map[account.ID]accountRow
	books    map[account.ID]*book
	topUps   map[payment.TopUpID]payment.TopUp
	keys     map[keyName]*heldKey
	now      time.Time // the database's, when the keys were read
}

// A heldKey is what there is under an idempotency key: no row if its account is zero.
type heldKey struct {
	row     keyRow
	claimed bool // here, and it is not written yet
}

// A book is the end of an account's chain of transactions, and its balances.
type book struct {
	account  account.ID
	known    bool // there is such an account
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

// claim holds what there is under a key.
func (h *held) claim(name keyName, row keyRow) { put(&h.keys, name, &heldKey{row: row}) }

// topUp returns a top-up that was read or written under the account's lock.
func (h *held) topUp(id payment.TopUpID) (payment.TopUp, bool) {
	if h == nil {
		return payment.TopUp{}, false
	}
	t, ok := h.topUps[id]
	return t, ok
}

// holdTopUp holds what was read or written of a top-up if the account is locked, as it is for whoever writes one.
func (h *held) holdTopUp(t payment.TopUp) {
	if h == nil {
		return
	}
	if _, locked := h.account(t.Account); locked {
		put(&h.topUps, t.ID, t)
	}
}

// of copies what is held of an account.
func (h *held) of(a account.ID) (part held) {
	part.now = h.now
	for name, k := range h.keys {
		if name.account == a {
			c := *k
			put(&part.keys, name, &c)
		}
	}
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
	for name, k := range part.keys {
		put(&h.keys, name, k)
	}
}

// readBooks makes the statements that lock the ends of the accounts' chains and read their balances. The
// books are held already.
func (h *held) readBooks(of [][16]byte) []stmt {
	return []stmt{
		{
			sql: "SELECT account_id, ledger, ledger_hash FROM account_counters WHERE account_id = ANY ($1::uuid[]) FOR NO KEY UPDATE", args: []any{of},
			row: func(r pgx.Rows) error {
				var a uuid.UUID
				var sequence int64
				var hash []byte
				if err := r.Scan(&a, &sequence, &hash); err != nil {
					return err
				}
				b := h.book(id.FromUUID[account.Account](a))
				b.sequence, b.hash, b.known = sequence, hash, true
				return nil
			},
		},
		balances.where("account_id = ANY ($1::uuid[])", of).each(func(r balanceRow) error {
			h.book(id.FromUUID[account.Account](r.AccountID)).balance[ledger.Name(r.Name)] = r.Balance
			return nil
		}),
	}
}

// writes makes the statements that write what the transaction has kept to its end.
func (h *held) writes() []stmt {
	var claimed []keyRow
	for _, k := range h.keys {
		if k.claimed {
			claimed, k.claimed = append(claimed, k.row), false
		}
	}
	if len(claimed) == 0 {
		return h.writeBooks()
	}
	return append([]stmt{keys.insert(claimed...).conflict(errRaced)}, h.writeBooks()...)
}

// writeBooks makes the statements that write the balances which have changed, and the ends of their chains.
func (h *held) writeBooks() []stmt {
	var (
		rows      []balanceRow
		owners    [][16]byte
		sequences []int64
		hashes    [][]byte
	)
	for _, b := range h.books {
		if len(b.changed) == 0 {
			continue
		}
		for _, n := range slices.Sorted(maps.Keys(b.changed)) {
			rows = append(rows, balanceRow{b.account.UUID(), string(n), b.changed[n], b.balance[n]})
		}
		b.changed = nil
		owners, sequences, hashes = append(owners, b.account.UUID()), append(sequences, b.sequence), append(hashes, b.hash)
	}
	if len(rows) == 0 {
		return nil
	}
	ends := stmt{
		sql:  "UPDATE account_counters SET ledger = $2, ledger_hash = $3 WHERE account_id = $1",
		args: []any{owners[0], sequences[0], hashes[0]},
	}
	if len(owners) > 1 {
		ends = stmt{
			sql: `UPDATE account_counters c SET ledger = n.ledger, ledger_hash = n.hash
FROM unnest($1::uuid[], $2::bigint[], $3::bytea[]) AS n (account_id, ledger, hash) WHERE c.account_id = n.account_id`,
			args: []any{owners, sequences, hashes},
		}
	}
	return []stmt{ends, balances.insert(rows...).onConflict("(account_id, name, currency) DO UPDATE SET balance = excluded.balance")}
}

func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}
