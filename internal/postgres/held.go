package postgres

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
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
	// expected is what was read for the operation before it asks: the answers, as long as it has written nothing there.
	expected []*expected
}

// expected is the answer to a read that an operation will ask.
type expected struct {
	kind *kind
	key  []byte // the values that it reads by
	rows []value
}

// known returns what was read for the operation before it asks, once.
func (h *held) known(ask stmt) (rows []value, ok bool) {
	if h == nil || ask.kind == nil || !ask.kind.expected {
		return nil, false
	}
	i := slices.IndexFunc(h.expected, func(e *expected) bool { return e.kind == ask.kind && bytes.Equal(e.key, ask.rows[0]) })
	if i < 0 {
		return nil, false
	}
	rows = h.expected[i].rows
	h.expected = slices.Delete(h.expected, i, i+1)
	return rows, true
}

// written forgets what was read of where something is written. A text of its own may write anywhere.
func (h *held) written(stmts ...stmt) {
	for _, s := range stmts {
		if !s.reads() {
			h.expected = slices.DeleteFunc(h.expected, func(e *expected) bool { return s.kind == nil || s.kind.table == e.kind.table })
		}
	}
}

// A heldKey is what there is under an idempotency key: no row if its account is zero.
type heldKey struct {
	row     keyRow
	claimed bool // here, and it is not written yet
}

// A book is an account's row of counters, which is locked, and its balances.
type book struct {
	account  account.ID
	events   int64
	sequence int64 // of the ledger
	hash     []byte
	counted  bool                   // a counter is not written yet
	balance  ledger.Balances        // nil: not read
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

// of copies what is held of an account, and of its keys the one that is asked for.
func (h *held) of(a account.ID, key keyName) (part held) {
	part.now = h.now
	if k := h.keys[key]; k != nil {
		c := *k
		put(&part.keys, key, &c)
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

// readCounters makes the statement that locks an account's counters.
func (h *held) readCounters(a account.ID) stmt {
	return stmt{
		sql: "SELECT events, ledger, ledger_hash FROM account_counters WHERE account_id = $1 FOR NO KEY UPDATE", args: []any{mustOwner(a)},
		take: []func(*value) error{func(v *value) error {
			h.keep(&book{account: a, events: v.int8(0), sequence: v.int8(1), hash: v.bytes(2)})
			return nil
		}},
	}
}

// readBalances makes the statement that reads the balances of an account whose counters are read before it. Whoever
// sends it opens the book then, in which there may be none.
func (h *held) readBalances(a account.ID) stmt {
	return balancesOf.of(a).each(func(r balanceRow) error {
		if b := h.open(a); b != nil {
			b.balance[ledger.Name(r.Name)] = r.Balance
		}
		return nil
	})
}

// open returns the account's book with its balances, or nil if it is not held.
func (h *held) open(a account.ID) *book {
	b := h.book(a)
	if b != nil && b.balance == nil {
		b.balance = ledger.Balances{}
	}
	return b
}

// writes makes the statements that write what the transaction has kept to its end, and its events.
func (h *held) writes(events []eventRow) (stmts []stmt) {
	var claimed []keyRow
	for _, k := range h.keys {
		if k.claimed {
			claimed, k.claimed = append(claimed, k.row), false
		}
	}
	if len(claimed) > 0 {
		stmts = append(stmts, keys.insert(claimed...).conflict(errRaced))
	}
	numbered, rest := h.number(events)
	if len(numbered) > 0 {
		stmts = append(stmts, accountEvents.insert(numbered...))
	}
	stmts = append(stmts, h.writeBooks()...)
	if len(numbered) > 0 {
		stmts = append(stmts, announcing(numbered))
	}
	return append(stmts, publishing(rest)...)
}

// number gives the events of accounts whose counters are held their numbers. It returns the others as they are.
func (h *held) number(events []eventRow) (numbered, rest []eventRow) {
	for _, e := range events {
		b := h.book(e.AccountID)
		if b == nil {
			rest = append(rest, e)
			continue
		}
		b.events++
		b.counted = true
		e.Sequence = b.events
		numbered = append(numbered, e)
	}
	return numbered, rest
}

// writeBooks makes the statements that write the counters and balances which have changed.
func (h *held) writeBooks() (stmts []stmt) {
	for _, b := range h.books {
		var rows []balanceRow
		for _, n := range slices.Sorted(maps.Keys(b.changed)) {
			rows = append(rows, balanceRow{b.account.UUID(), string(n), b.changed[n], b.balance[n]})
		}
		if b.counted {
			stmts = merge(stmts, saveCounters.of(counterRow{Events: b.events, Ledger: b.sequence, LedgerHash: b.hash}, b.account))
		}
		if len(rows) > 0 {
			stmts = merge(stmts, balances.write(saveBalances, rows...))
		}
		b.changed, b.counted = nil, false
	}
	return stmts
}

// counterRow is what is written of an account's row of counters.
type counterRow struct {
	AccountID  uuid.UUID `gorm:"primaryKey"`
	Events     int64
	Ledger     int64
	LedgerHash []byte
}

func (counterRow) TableName() string { return "account_counters" }

var saveCounters = tableOf[counterRow]().update([]string{"account_id"}, "events", "ledger", "ledger_hash")

func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}
