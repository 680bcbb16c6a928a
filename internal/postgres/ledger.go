package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/pkg/money"
)

type transactionRow struct {
	AccountID   uuid.UUID `gorm:"primaryKey"`
	ID          uuid.UUID `gorm:"primaryKey"`
	Sequence    int64
	Kind        string
	Reference   string
	Currency    string
	Total       int64
	Postings    int16
	Description string
	BookedAt    time.Time
	RecordedAt  time.Time
	PrevHash    []byte
	Hash        []byte
	Recipe      int16
}

func (transactionRow) TableName() string { return "ledger_transactions" }

var transactions = tableOf[transactionRow]()

type postingRow struct {
	AccountID     uuid.UUID `gorm:"primaryKey"`
	TransactionID uuid.UUID `gorm:"primaryKey"`
	Number        int16     `gorm:"primaryKey"`
	Debit         string
	Credit        string
	Amount        int64
	Currency      string
	DebitBalance  int64
	CreditBalance int64
}

func (postingRow) TableName() string { return "ledger_postings" }

var postings = tableOf[postingRow]()

func (r postingRow) posting() ledger.Posting {
	return ledger.Posting{
		Debit: ledger.Name(r.Debit), Credit: ledger.Name(r.Credit), Amount: money.New(r.Amount, money.Currency(r.Currency)),
		DebitBalance: r.DebitBalance, CreditBalance: r.CreditBalance,
	}
}

type balanceRow struct {
	AccountID uuid.UUID `gorm:"primaryKey"`
	Name      string    `gorm:"primaryKey"`
	Currency  string    `gorm:"primaryKey"`
	Balance   int64
}

func (balanceRow) TableName() string { return "ledger_balances" }

var (
	balances     = tableOf[balanceRow]()
	balancesOf   = balances.read("", "account_id")
	saveBalances = balances.inserting("ON CONFLICT (account_id, name, currency) DO UPDATE SET balance = excluded.balance").ready()
)

type ledgerStore stores

var _ ledger.Store = ledgerStore{}

// Append takes the counters' row first, so that two writers of one account queue there and the balances
// below it need no order of their own. The balances and the end of the chain are written once in a
// transaction, at its end or before somebody reads them.
func (s ledgerStore) Append(ctx context.Context, txs ...*ledger.Transaction) (err error) {
	defer errs.Wrap(&err, "append to the ledger")
	if len(txs) == 0 {
		return nil
	}
	a := txs[0].Account
	for _, t := range txs {
		if t.Account != a {
			return fmt.Errorf("transactions of two accounts, %s and %s", a, t.Account)
		}
		if err := t.Check(); err != nil {
			return err
		}
	}
	b, err := s.book(ctx, a)
	if err != nil {
		return err
	}
	var (
		written []transactionRow
		posted  []postingRow
	)
	for _, t := range txs {
		total, err := t.Total()
		if err != nil {
			return err
		}
		b.sequence++
		t.Sequence, t.PrevHash = b.sequence, b.hash
		for i := range t.Postings {
			p := &t.Postings[i]
			b.move(p)
			if max(p.DebitBalance, -p.DebitBalance, p.CreditBalance, -p.CreditBalance) > money.MaxMinor {
				return ledger.ErrBalance
			}
			posted = append(posted, postingRow{
				AccountID: a.UUID(), TransactionID: t.ID.UUID(), Number: int16(i + 1),
				Debit: string(p.Debit), Credit: string(p.Credit), Amount: p.Amount.Minor, Currency: string(p.Amount.Currency),
				DebitBalance: p.DebitBalance, CreditBalance: p.CreditBalance,
			})
		}
		t.Hash, t.Recipe = t.ChainHash(t.PrevHash), ledger.Recipe
		b.hash, b.counted = t.Hash, true
		written = append(written, transactionRow{
			AccountID: a.UUID(), ID: t.ID.UUID(), Sequence: t.Sequence, Kind: t.Kind, Reference: t.Reference,
			Currency: string(t.Currency()), Total: total.Minor, Postings: int16(len(t.Postings)), //nolint:gosec // as above
			Description: t.Description, BookedAt: t.BookedAt, RecordedAt: t.RecordedAt, PrevHash: t.PrevHash, Hash: t.Hash,
			Recipe: int16(t.Recipe), //nolint:gosec // a small constant
		})
	}
	return s.later(ctx, transactions.insert(written...).conflict(ledger.ErrAlreadyBooked), postings.insert(posted...))
}

// book returns the account's book, which the transaction holds from then on.
func (s ledgerStore) book(ctx context.Context, a account.ID) (*book, error) {
	h := s.held()
	if h == nil {
		return nil, errors.New("the ledger is written in transactions only")
	}
	b := h.book(a)
	if b != nil && b.balance != nil {
		return b, nil
	}
	asks := []stmt{h.readBalances(a)}
	if b == nil {
		asks = []stmt{h.readCounters(a), asks[0]}
	}
	if err := s.send(ctx, asks...); err != nil {
		return nil, err
	}
	if b = h.open(a); b == nil {
		return nil, account.ErrNotFound
	}
	return b, nil
}

// written has what Append left for the end of the transaction written, for those who read it.
func (s ledgerStore) written(ctx context.Context) error {
	if h := s.held(); h != nil {
		return s.later(ctx, h.writeBooks()...)
	}
	return nil
}

func (s ledgerStore) Booked(ctx context.Context, a account.ID, kind, reference string) (bool, error) {
	var n int64
	err := stores(s).of(ctx, a).Model(&transactionRow{}).Where("kind = ? AND reference = ?", kind, reference).Count(&n).Error
	return n > 0, translate(err)
}

func (s ledgerStore) Balances(ctx context.Context, a account.ID) (ledger.Balances, error) {
	if h := s.held(); h != nil {
		if b := h.book(a); b != nil && b.balance != nil {
			return maps.Clone(b.balance), nil
		}
	}
	if err := s.written(ctx); err != nil {
		return nil, err
	}
	var rows []balanceRow
	if err := stores(s).of(ctx, a).Find(&rows).Error; err != nil {
		return nil, translate(err)
	}
	out := make(ledger.Balances, len(rows))
	for _, r := range rows {
		out[ledger.Name(r.Name)] = r.Balance
	}
	return out, nil
}

func (s ledgerStore) BalancesOf(ctx context.Context, as []account.ID) (_ map[account.ID]ledger.Balances, err error) {
	defer errs.Wrap(&err, "balances of %d accounts", len(as))
	if err := s.written(ctx); err != nil {
		return nil, err
	}
	var rows []balanceRow
	if err := stores(s).all(ctx).Where("account_id IN ?", as).Find(&rows).Error; err != nil {
		return nil, translate(err)
	}
	out := make(map[account.ID]ledger.Balances, len(as))
	for _, r := range rows {
		a := id.FromUUID[account.Account](r.AccountID)
		if out[a] == nil {
			out[a] = ledger.Balances{}
		}
		out[a][ledger.Name(r.Name)] = r.Balance
	}
	return out, nil
}

// bookedAround is how far the clocks of replicas may differ: transactions that are further apart are in order of their time, as
// they are of their sequence.
const bookedAround = time.Hour

// balancesAt takes what was booked since off the balances of now, so that a look at last month does not read the years before. Where it
// has to begin is searched for by halves. The upper bound excludes nothing: between two bounds PostgreSQL goes by the index, above one it reads all.
const balancesAt = `
WITH RECURSIVE search AS (
  SELECT 0::bigint AS low, ledger AS high FROM account_counters WHERE account_id = @account
  UNION ALL
  SELECT CASE WHEN sure THEN mid ELSE low END, CASE WHEN sure THEN high ELSE mid - 1 END
  FROM (SELECT low, high, mid, (SELECT t.booked_at < @sure FROM ledger_transactions t WHERE t.account_id = @account AND t.sequence = mid) AS sure
        FROM search, LATERAL (SELECT (low + high + 1) / 2 AS mid) half WHERE low < high) halved
), since AS MATERIALIZED (
  SELECT p.debit, p.credit, p.amount FROM ledger_transactions t
  JOIN ledger_postings p ON p.account_id = t.account_id AND p.transaction_id = t.id
  WHERE t.account_id = @account AND t.booked_at >= @at
    AND t.sequence > (SELECT low FROM search WHERE low = high) AND t.sequence <= (SELECT max(high) FROM search)
)
SELECT b.name, (b.balance - coalesce(m.change, 0))::bigint AS balance
FROM ledger_balances b
LEFT JOIN (SELECT name, sum(amount) AS change FROM (SELECT debit AS name, amount FROM since UNION ALL SELECT credit, -amount FROM since) moved
           GROUP BY name) m ON m.name = b.name
WHERE b.account_id = @account AND b.balance <> coalesce(m.change, 0)`

func (s ledgerStore) BalancesAt(ctx context.Context, a account.ID, t time.Time) (_ ledger.Balances, err error) {
	defer errs.Wrap(&err, "balances of %s at %s", a, t)
	var rows []struct {
		Name    string
		Balance int64
	}
	if err := s.db.WithContext(ctx).Raw(balancesAt, map[string]any{"account": a.UUID(), "at": t, "sure": t.Add(-bookedAround)}).Scan(&rows).Error; err != nil {
		return nil, translate(err)
	}
	out := make(ledger.Balances, len(rows))
	for _, r := range rows {
		out[ledger.Name(r.Name)] = r.Balance
	}
	return out, nil
}

func (s ledgerStore) Entries(ctx context.Context, a account.ID, names []ledger.Name, r page.Request) (_ page.Page[ledger.Entry], err error) {
	defer errs.Wrap(&err, "ledger entries of %s", a)
	// A page is cut between transactions, so the limit counts those; the last may bring a row or two more.
	list := make([]string, len(names))
	for i, n := range names {
		list[i] = string(n)
	}
	q := stores(s).of(ctx, a).Model(&transactionRow{}).
		Where("EXISTS (SELECT FROM ledger_postings p WHERE p.account_id = ledger_transactions.account_id AND p.transaction_id = ledger_transactions.id AND (p.debit IN ? OR p.credit IN ?))", list, list).
		Order("sequence DESC").Limit(r.Limit + 1)
	if after, perr := strconv.ParseInt(r.After, 10, 64); perr == nil {
		q = q.Where("sequence < ?", after)
	}
	var rows []transactionRow
	if err := q.Find(&rows).Error; err != nil {
		return page.Page[ledger.Entry]{}, translate(err)
	}
	cut := page.Cut(rows, r.Limit, func(t transactionRow) string { return strconv.FormatInt(t.Sequence, 10) })
	byID, err := s.postingsOf(ctx, a, cut.Data)
	if err != nil {
		return page.Page[ledger.Entry]{}, err
	}
	out := page.Page[ledger.Entry]{Next: cut.Next}
	for _, t := range cut.Data {
		ps := byID[t.ID]
		for _, p := range slices.Backward(ps) {
			out.Data = append(out.Data, entriesOf(t, p, names)...)
		}
	}
	return out, nil
}

func entriesOf(t transactionRow, p postingRow, names []ledger.Name) (out []ledger.Entry) {
	entry := ledger.Entry{
		Transaction: id.FromUUID[ledger.Transaction](t.ID), Sequence: t.Sequence, Number: int(p.Number), Kind: t.Kind,
		Reference: t.Reference, Description: t.Description, BookedAt: t.BookedAt.UTC(),
	}
	c := money.Currency(p.Currency)
	if slices.Contains(names, ledger.Name(p.Debit)) {
		e := entry
		e.Name, e.Change, e.Balance = ledger.Name(p.Debit), money.New(p.Amount, c), money.New(p.DebitBalance, c)
		out = append(out, e)
	}
	if slices.Contains(names, ledger.Name(p.Credit)) {
		e := entry
		e.Name, e.Change, e.Balance = ledger.Name(p.Credit), money.New(-p.Amount, c), money.New(p.CreditBalance, c)
		out = append(out, e)
	}
	return out
}

func (s ledgerStore) postingsOf(ctx context.Context, a account.ID, txs []transactionRow) (map[uuid.UUID][]postingRow, error) {
	ids := make([]uuid.UUID, len(txs))
	for i, t := range txs {
		ids[i] = t.ID
	}
	var rows []postingRow
	if err := stores(s).of(ctx, a).Where("transaction_id IN ?", ids).Order("number").Find(&rows).Error; err != nil {
		return nil, translate(err)
	}
	out := make(map[uuid.UUID][]postingRow, len(txs))
	for _, p := range rows {
		out[p.TransactionID] = append(out[p.TransactionID], p)
	}
	return out, nil
}

func (s ledgerStore) Transactions(ctx context.Context, a account.ID, after int64, limit int) (_ []ledger.Transaction, err error) {
	defer errs.Wrap(&err, "ledger transactions of %s", a)
	var rows []transactionRow
	if err := stores(s).of(ctx, a).Where("sequence > ?", after).Order("sequence").Limit(limit).Find(&rows).Error; err != nil {
		return nil, translate(err)
	}
	byID, err := s.postingsOf(ctx, a, rows)
	if err != nil {
		return nil, err
	}
	out := make([]ledger.Transaction, len(rows))
	for i, r := range rows {
		t := ledger.Transaction{
			ID: id.FromUUID[ledger.Transaction](r.ID), Account: a, Kind: r.Kind, Reference: r.Reference, Description: r.Description,
			BookedAt: r.BookedAt.UTC(), RecordedAt: r.RecordedAt.UTC(), Sequence: r.Sequence, PrevHash: r.PrevHash, Hash: r.Hash,
		}
		for _, p := range byID[r.ID] {
			t.Postings = append(t.Postings, p.posting())
		}
		out[i] = t
	}
	return out, nil
}
