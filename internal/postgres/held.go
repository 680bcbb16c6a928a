package postgres

import (
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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
	ahead    []*ahead
}

// ahead is what was read for an operation before it asks for it, and is the answer as long as it has written nothing there.
type ahead struct {
	table, sql string
	args       []any
	rows       any
}

// take returns the rows that were read ahead for a query, once.
func (h *held) take(sql string, args []any) (rows any, ok bool) {
	if h == nil {
		return nil, false
	}
	i := slices.IndexFunc(h.ahead, func(a *ahead) bool { return a.sql == sql && slices.Equal(a.args, args) })
	if i < 0 {
		return nil, false
	}
	rows = h.ahead[i].rows
	h.ahead = slices.Delete(h.ahead, i, i+1)
	return rows, true
}

// written forgets what was read ahead of where something is written.
func (h *held) written(stmts ...stmt) {
	for _, s := range stmts {
		h.ahead = slices.DeleteFunc(h.ahead, func(a *ahead) bool { return s.table == "" || s.table == a.table })
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
		row: func(r pgx.Rows) error {
			b := &book{account: a}
			h.keep(b)
			return r.Scan(&b.events, &b.sequence, &b.hash)
		},
	}
}

// readBalances makes the statement that reads the balances of accounts whose counters are read before it.
func (h *held) readBalances(of [][16]byte) stmt {
	book := func(a uuid.UUID) *book {
		b := h.book(id.FromUUID[account.Account](a))
		if b != nil && b.balance == nil {
			b.balance = ledger.Balances{}
		}
		return b
	}
	s := balances.where("account_id = ANY ($1::uuid[])", of).each(func(r balanceRow) error {
		if b := book(r.AccountID); b != nil {
			b.balance[ledger.Name(r.Name)] = r.Balance
		}
		return nil
	})
	s.done = func(_ pgconn.CommandTag, err error) error {
		for _, a := range of {
			book(a)
		}
		return translate(err)
	}
	return s
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
		stmts = append(stmts, accountEvents.insert(numbered...), announcing(numbered))
	}
	return slices.Concat(stmts, h.writeBooks(), publishing(rest))
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
	var (
		rows              []balanceRow
		owners            [][16]byte
		events, sequences []int64
		hashes            [][]byte
	)
	for _, b := range h.books {
		for _, n := range slices.Sorted(maps.Keys(b.changed)) {
			rows = append(rows, balanceRow{b.account.UUID(), string(n), b.changed[n], b.balance[n]})
		}
		if b.counted {
			owners, events = append(owners, b.account.UUID()), append(events, b.events)
			sequences, hashes = append(sequences, b.sequence), append(hashes, b.hash)
		}
		b.changed, b.counted = nil, false
	}
	switch len(owners) {
	case 0:
	case 1:
		stmts = append(stmts, stmt{
			sql:  "UPDATE account_counters SET events = $2, ledger = $3, ledger_hash = $4 WHERE account_id = $1",
			args: []any{owners[0], events[0], sequences[0], hashes[0]},
		})
	default:
		stmts = append(stmts, stmt{
			sql: `UPDATE account_counters c SET events = n.events, ledger = n.ledger, ledger_hash = n.hash
FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bytea[]) AS n (account_id, events, ledger, hash) WHERE c.account_id = n.account_id`,
			args: []any{owners, events, sequences, hashes},
		})
	}
	if len(rows) > 0 {
		stmts = append(stmts, balances.insert(rows...).onConflict("(account_id, name, currency) DO UPDATE SET balance = excluded.balance"))
	}
	return stmts
}

func put[K comparable, V any](m *map[K]V, k K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[k] = v
}
