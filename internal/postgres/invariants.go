package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invariant"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/internal/upgrade"
	"github.com/accrue-billing/accrue/internal/wallet"
)

var _ invariant.Source = (*DB)(nil)

// Snapshot implements invariant.Source with a read-only transaction of repeatable reads.
func (d *DB) Snapshot(ctx context.Context, fn func(r invariant.Reader) error) error {
	err := d.db.WithContext(ctx).Transaction(func(tx *gorm.DB) error { return fn(auditReader{db: tx}) },
		&sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	return translate(err)
}

// auditReader reads over all accounts, page by page.
type auditReader stores

var _ invariant.Reader = auditReader{}

func (s auditReader) Violations(ctx context.Context, check invariant.ID, p invariant.Params) (_ []string, err error) {
	defer errs.Wrap(&err, "violations of %s", check)
	queries := violations[check]
	if check == invariant.Parents {
		foreign, err := s.foreignKeys(ctx)
		if err != nil {
			return nil, err
		}
		queries = append(foreign, queries...)
	}
	if len(queries) == 0 {
		return nil, fmt.Errorf("no query for %s", check)
	}
	chart := make([]string, 0, len(books.Chart()))
	for _, n := range books.Chart() {
		chart = append(chart, string(n))
	}
	args := map[string]any{
		"now": p.Now, "overdue": p.Now.Add(-p.Grace), "grace": p.Grace.Seconds(), "limit": p.Limit, "chart": chart,
		"cash": string(books.Cash), "receivable": string(books.Receivable), "funds": string(books.Funds), "promo": string(books.Promo),
		"revenue": string(books.Revenue), "tax": string(books.Tax), "absorbed": string(books.Absorbed), "matched": pricedByDimension,
	}
	var out []string
	for _, q := range queries {
		var rows []struct {
			AccountID account.ID
			Words     string
		}
		// Of a CTE all is expected to be wanted: planned for the first few of what is not there, it would be sought row by row.
		if err := s.db.WithContext(ctx).Raw("WITH v (account_id, words) AS MATERIALIZED ("+q+") SELECT * FROM v LIMIT @limit", args).Scan(&rows).Error; err != nil {
			return out, err
		}
		for _, r := range rows {
			words := identifiers.ReplaceAllStringFunc(r.Words, wire)
			if !r.AccountID.IsZero() {
				words = r.AccountID.String() + ": " + words
			}
			if out = append(out, words); len(out) >= p.Limit {
				return out, nil
			}
		}
	}
	return out, nil
}

// identifiers finds them as the queries write them, "pay:" and a UUID, to be shown as the API writes them.
var identifiers = regexp.MustCompile(`\b[a-z]+:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b`)

var wireForms = map[string]func(uuid.UUID) string{
	"txn": wireForm[ledger.Transaction], "inv": wireForm[invoice.Invoice], "pay": wireForm[payment.Payment], "ref": wireForm[payment.Refund],
	"pm": wireForm[payment.Method], "top": wireForm[payment.TopUp], "dsp": wireForm[payment.Dispute], "sub": wireForm[subscription.Subscription],
	"upg": wireForm[upgrade.Upgrade], "grt": wireForm[wallet.Grant], "acct": wireForm[account.Account],
}

func wireForm[T id.Prefixed](u uuid.UUID) string { return id.FromUUID[T](u).String() }

func wire(token string) string {
	prefix, rest, _ := strings.Cut(token, ":")
	u, err := uuid.Parse(rest)
	form := wireForms[prefix]
	if err != nil || form == nil {
		return rest
	}
	return form(u)
}

// pages yields the rows of a list that read returns page by page, each after the row given.
func pages[R any](limit int, read func(after R) ([]R, error)) iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		var last R
		for {
			rows, err := read(last)
			if err != nil {
				yield(last, translate(err))
				return
			}
			for _, r := range rows {
				if !yield(r, nil) {
					return
				}
			}
			if len(rows) < limit {
				return
			}
			last = rows[len(rows)-1]
		}
	}
}

// Rows of a page. One page of the journal is a few hundred kilobytes.
const (
	journalPage  = 1000
	contentsPage = 100
	paymentsPage = 1000
)

func (s auditReader) Journal(ctx context.Context) iter.Seq2[ledger.Transaction, error] {
	return pages(journalPage, func(after ledger.Transaction) ([]ledger.Transaction, error) {
		var rows []transactionRow
		err := s.db.WithContext(ctx).Where("(account_id, sequence) > (?, ?)", after.Account.UUID(), after.Sequence).
			Order("account_id, sequence").Limit(journalPage).Find(&rows).Error
		if err != nil || len(rows) == 0 {
			return nil, err
		}
		last := rows[len(rows)-1]
		var posted []postingRow
		err = s.db.WithContext(ctx).Raw("SELECT "+namesIn("p", postings.columns)+` FROM ledger_postings p
			JOIN ledger_transactions t ON t.account_id = p.account_id AND t.id = p.transaction_id
			WHERE (t.account_id, t.sequence) > (?, ?) AND (t.account_id, t.sequence) <= (?, ?) ORDER BY p.number`,
			after.Account.UUID(), after.Sequence, last.AccountID, last.Sequence).Scan(&posted).Error
		if err != nil {
			return nil, err
		}
		byID := make(map[uuid.UUID][]ledger.Posting, len(rows))
		for _, p := range posted {
			byID[p.TransactionID] = append(byID[p.TransactionID], p.posting())
		}
		out := make([]ledger.Transaction, len(rows))
		for i, r := range rows {
			out[i] = r.transaction(byID[r.ID])
		}
		return out, nil
	})
}

func (r transactionRow) transaction(postings []ledger.Posting) ledger.Transaction {
	return ledger.Transaction{
		ID: id.FromUUID[ledger.Transaction](r.ID), Account: id.FromUUID[account.Account](r.AccountID), Kind: r.Kind, Reference: r.Reference,
		Description: r.Description, Postings: postings, BookedAt: r.BookedAt.UTC(), RecordedAt: r.RecordedAt.UTC(), Sequence: r.Sequence,
		PrevHash: r.PrevHash, Hash: r.Hash, Recipe: int(r.Recipe),
	}
}

func (s auditReader) Contents(ctx context.Context) iter.Seq2[invoice.Content, error] {
	return pages(contentsPage, func(after invoice.Content) ([]invoice.Content, error) {
		var rows []contentRow
		err := s.db.WithContext(ctx).Model(&contentRow{}).Select(contentColumns).
			Joins("JOIN invoices i ON i.account_id = invoice_contents.account_id AND i.id = invoice_contents.invoice_id").
			Where("(invoice_contents.account_id, invoice_id) > (?, ?)", after.Account.UUID(), after.Invoice.UUID()).
			Order("invoice_contents.account_id, invoice_id").Limit(contentsPage).Find(&rows).Error
		if err != nil || len(rows) == 0 {
			return nil, err
		}
		last := rows[len(rows)-1]
		var lines []lineRow
		err = s.db.WithContext(ctx).Where("(account_id, invoice_id) > (?, ?) AND (account_id, invoice_id) <= (?, ?)",
			after.Account.UUID(), after.Invoice.UUID(), last.AccountID.UUID(), last.InvoiceID.UUID()).Order("number").Find(&lines).Error
		if err != nil {
			return nil, err
		}
		byID := make(map[invoice.ID][]lineRow, len(rows))
		for _, l := range lines {
			byID[l.InvoiceID] = append(byID[l.InvoiceID], l)
		}
		out := make([]invoice.Content, len(rows))
		for i, r := range rows {
			if out[i], err = r.content(); err != nil {
				return nil, fmt.Errorf("content of %s: %w", r.InvoiceID, err)
			}
			for _, l := range byID[r.InvoiceID] {
				out[i].Lines = append(out[i].Lines, l.line(out[i].Total.Currency))
			}
		}
		return out, nil
	})
}

func (s auditReader) Payments(ctx context.Context, provider string, since time.Time) iter.Seq2[payment.Payment, error] {
	return pages(paymentsPage, func(after payment.Payment) ([]payment.Payment, error) {
		return findEach(s.db.WithContext(ctx).Where("(account_id, id) > (?, ?)", after.Account.UUID(), after.ID.UUID()).
			Where("provider = ? AND created_at >= ?", provider, since).Order("account_id, id").Limit(paymentsPage), paymentRow.payment)
	})
}

type headRow struct {
	AccountID account.ID
	Sequence  int64
	Hash      []byte
}

func (s auditReader) heads(q *gorm.DB) iter.Seq2[invariant.Head, error] {
	return func(yield func(invariant.Head, error) bool) {
		rows, err := q.Rows()
		if err != nil {
			yield(invariant.Head{}, translate(err))
			return
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var r headRow
			if err := rows.Scan(&r.AccountID, &r.Sequence, &r.Hash); err != nil {
				yield(invariant.Head{}, err)
				return
			}
			if !yield(invariant.Head{Account: r.AccountID, Sequence: r.Sequence, Hash: r.Hash}, nil) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			yield(invariant.Head{}, translate(err))
		}
	}
}

func (s auditReader) Heads(ctx context.Context, t time.Time) iter.Seq2[invariant.Head, error] {
	return s.heads(s.db.WithContext(ctx).Raw(`SELECT DISTINCT ON (account_id) account_id, sequence, hash
		FROM ledger_transactions WHERE recorded_at < ? ORDER BY account_id, sequence DESC`, t))
}

func (s auditReader) ChainEnds(ctx context.Context) iter.Seq2[invariant.Head, error] {
	return s.heads(s.db.WithContext(ctx).Raw("SELECT account_id, ledger, ledger_hash FROM account_counters ORDER BY account_id"))
}

// foreignKeys makes a query of every foreign key: a row whose parent is not there, or is another account's.
func (s auditReader) foreignKeys(ctx context.Context) ([]string, error) {
	var keys []struct{ Query string }
	err := s.db.WithContext(ctx).Raw(`
SELECT format('SELECT %s, %L FROM %s c WHERE %s AND NOT EXISTS (SELECT FROM %s p WHERE %s)',
         CASE WHEN bool_or(ca.attname = 'account_id') THEN 'c.account_id' ELSE 'NULL::uuid' END,
         'a row of ' || con.conrelid::regclass || ' has no parent in ' || con.confrelid::regclass,
         con.conrelid::regclass,
         string_agg(format('c.%I IS NOT NULL', ca.attname), ' AND '),
         con.confrelid::regclass,
         string_agg(format('p.%I = c.%I', pa.attname, ca.attname), ' AND ')) AS query
FROM pg_constraint con
CROSS JOIN LATERAL unnest(con.conkey, con.confkey) AS k (child, parent)
JOIN pg_attribute ca ON ca.attrelid = con.conrelid AND ca.attnum = k.child
JOIN pg_attribute pa ON pa.attrelid = con.confrelid AND pa.attnum = k.parent
WHERE con.contype = 'f' AND con.conparentid = 0 AND con.connamespace = 'public'::regnamespace
  AND has_table_privilege(con.conrelid, 'SELECT') AND has_table_privilege(con.confrelid, 'SELECT')
GROUP BY con.oid, con.conrelid, con.confrelid ORDER BY con.conrelid::regclass::text, con.oid`).Scan(&keys).Error
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.Query
	}
	return out, translate(err)
}

// longDigits matches what may hold a card number: thirteen digits with at most one separator between
// them, or characters that ASCII does not have, digits of other scripts among them.
const longDigits = `[0-9]([^0-9A-Za-z]?[0-9]){12}|[^\x01-\x7f]`

// shortest is the length in bytes of what may hold a card number. Most texts are shorter, and asked for their length only.
const shortest = 13

func (s auditReader) Texts(ctx context.Context) iter.Seq2[invariant.Text, error] {
	return func(yield func(invariant.Text, error) bool) {
		columns, err := s.textColumns(ctx)
		if err != nil {
			yield(invariant.Text{}, err)
			return
		}
		for _, c := range columns {
			if !s.textsOf(ctx, c, yield) {
				return
			}
		}
	}
}

type textColumn struct {
	Name  string // table and column
	Attr  string
	Type  string
	Query string // of a row's key and the text
}

// textColumns finds every column of the schema that can hold a text, and makes a query for it. A row is
// named by those columns of its key that are UUIDs: a text in a key may be what is looked for.
func (s auditReader) textColumns(ctx context.Context) ([]textColumn, error) {
	var columns []textColumn
	err := s.db.WithContext(ctx).Raw(`
SELECT c.relname || '.' || a.attname AS name, a.attname AS attr, t.typname AS type,
  format('SELECT concat_ws(''/'', %s), %s FROM %I c WHERE octet_length(%s) >= $1 AND %s ~ $2',
    coalesce((SELECT string_agg(format('c.%I', k.attname), ', ' ORDER BY k.attnum) FROM pg_index i
              JOIN pg_attribute k ON k.attrelid = c.oid AND k.attnum = ANY (i.indkey) AND k.atttypid = 'uuid'::regtype
              WHERE i.indrelid = c.oid AND i.indisprimary), ''''''),
    v.expr, c.relname, v.expr, v.expr) AS query
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
CROSS JOIN LATERAL (SELECT CASE t.typname WHEN 'bytea' THEN format('encode(c.%I, ''escape'')', a.attname)
                                          ELSE format('c.%I::text', a.attname) END AS expr) v
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND t.typname IN ('text', 'varchar', 'json', 'jsonb', 'bytea', '_text', '_varchar') AND has_table_privilege(c.oid, 'SELECT')
ORDER BY 1`).Scan(&columns).Error
	return columns, translate(err)
}

// workedOut is the column whose numbers nobody has typed: exact fractions of many digits, some of which look like a
// card's. Its texts are those of plan versions and contracts, where they are searched.
const workedOut = "invoice_lines.derivation"

func (s auditReader) textsOf(ctx context.Context, c textColumn, yield func(invariant.Text, error) bool) bool {
	if invariant.Identifier(c.Attr) || c.Name == workedOut {
		return true
	}
	more := true
	err := usageStore(s).each(ctx, func(rows *sql.Rows) error {
		var key, text string
		if err := rows.Scan(&key, &text); err != nil {
			return err
		}
		isJSON := c.Type == "json" || c.Type == "jsonb" || c.Type == "bytea" // stored answers and webhooks are JSON
		if more && !yield(invariant.Text{Where: c.Name + " of row " + key, JSON: isJSON, Value: text}, nil) {
			more = false
		}
		return nil
	}, c.Query, shortest, longDigits)
	if err != nil {
		yield(invariant.Text{}, err)
		return false
	}
	return more
}

type proofRow struct {
	Day        time.Time `gorm:"type:date;primaryKey"`
	Accounts   int
	Root       []byte
	Results    []byte `gorm:"type:jsonb"`
	RecordedAt time.Time
}

func (proofRow) TableName() string { return "ledger_proofs" }

type proofStore stores

var _ invariant.ProofStore = proofStore{}

// Proofs keeps the daily proofs.
func (s stores) Proofs() invariant.ProofStore { return proofStore(s) }

func (s proofStore) SaveProof(ctx context.Context, p invariant.Proof) (_ bool, err error) {
	defer errs.Wrap(&err, "save proof of %s", p.Day.Format(time.DateOnly))
	results, err := json.Marshal(p.Results)
	if err != nil {
		return false, err
	}
	res := s.db.WithContext(ctx).Clauses(clause.OnConflict{DoNothing: true}).
		Create(&proofRow{invariant.Day(p.Day), p.Accounts, p.Root[:], results, p.RecordedAt})
	return res.RowsAffected == 1, translate(res.Error)
}

func (s proofStore) Proof(ctx context.Context, day time.Time) (p invariant.Proof, err error) {
	defer errs.Wrap(&err, "proof of %s", day.Format(time.DateOnly))
	r, err := take[proofRow](s.db.WithContext(ctx).Where("day = ?", invariant.Day(day)), invariant.ErrNoProof)
	if err != nil {
		return p, err
	}
	if len(r.Root) != len(p.Root) {
		return p, fmt.Errorf("root of %d bytes", len(r.Root))
	}
	p = invariant.Proof{Day: r.Day.UTC(), Accounts: r.Accounts, Root: [32]byte(r.Root), RecordedAt: r.RecordedAt.UTC()}
	return p, json.Unmarshal(r.Results, &p.Results)
}
