package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"gorm.io/gorm"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

type invoiceRow struct {
	AccountID      account.ID `gorm:"primaryKey"`
	ID             invoice.ID `gorm:"primaryKey"`
	Kind           string
	Status         string
	SubscriptionID subscription.ID
	PeriodStart    time.Time
	PeriodEnd      time.Time
	Currency       string
	Total          int64
	AmountPaid     int64
	AmountCredited int64
	FinalizeAt     time.Time
	FinalizedAt    *time.Time
	DueAt          *time.Time
	PaidAt         *time.Time
	ClosedAt       *time.Time
	Attempts       int
	NextAttemptAt  *time.Time
	Dunning        string
	CreatedAt      time.Time `gorm:"autoCreateTime:false"`
	UpdatedAt      time.Time `gorm:"autoUpdateTime:false"`
	Version        int64
}

func (invoiceRow) TableName() string { return "invoices" }

var (
	invoices           = tableOf[invoiceRow]()
	invoiceByID        = invoices.read("", "account_id", "id")
	lockedInvoice      = invoiceByID.locked()
	unpaidInvoices     = invoices.read("AND status = 'open' ORDER BY finalized_at, id", "account_id").beforehand()
	suspendingInvoices = invoices.read("AND status IN ('open', 'uncollectible') AND dunning = 'suspended' ORDER BY finalized_at, id", "account_id")
	saveInvoice        = invoices.update([]string{"account_id", "id", "version"}, "status", "total", "amount_paid", "amount_credited", "finalize_at",
		"finalized_at", "due_at", "paid_at", "closed_at", "attempts", "next_attempt_at", "dunning", "updated_at", "version").
		mustFind(account.ErrStale)
)

func toInvoiceRow(i invoice.Invoice) invoiceRow {
	return invoiceRow{
		AccountID: i.Account, ID: i.ID, Kind: string(i.Kind), Status: string(i.Status), SubscriptionID: i.Subscription,
		PeriodStart: i.Period.Start, PeriodEnd: i.Period.End, Currency: string(i.Currency),
		Total: i.Total.Minor, AmountPaid: i.AmountPaid.Minor, AmountCredited: i.Credited.Minor,
		FinalizeAt: i.FinalizeAt, FinalizedAt: timeOrNil(i.FinalizedAt), DueAt: timeOrNil(i.DueAt), PaidAt: timeOrNil(i.PaidAt),
		ClosedAt: timeOrNil(i.ClosedAt), Attempts: i.Attempts, NextAttemptAt: timeOrNil(i.NextAttempt), Dunning: string(i.Dunning),
		CreatedAt: i.CreatedAt, UpdatedAt: i.UpdatedAt, Version: i.Version,
	}
}

func (r invoiceRow) invoice() invoice.Invoice {
	return invoice.Invoice{
		ID: r.ID, Account: r.AccountID, Kind: invoice.Kind(r.Kind), Status: invoice.Status(r.Status), Subscription: r.SubscriptionID,
		Period: bounds(r.PeriodStart, r.PeriodEnd), Currency: money.Currency(r.Currency),
		Total: minor(r.Total, r.Currency), AmountPaid: minor(r.AmountPaid, r.Currency), Credited: minor(r.AmountCredited, r.Currency),
		FinalizeAt: r.FinalizeAt.UTC(), FinalizedAt: timeOf(r.FinalizedAt), DueAt: timeOf(r.DueAt), PaidAt: timeOf(r.PaidAt),
		ClosedAt: timeOf(r.ClosedAt), Attempts: r.Attempts, NextAttempt: timeOf(r.NextAttemptAt), Dunning: invoice.Dunning(r.Dunning),
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), Version: r.Version,
	}
}

type contentRow struct {
	AccountID account.ID `gorm:"primaryKey"`
	InvoiceID invoice.ID `gorm:"primaryKey"`
	Number    string
	BillTo    []byte `gorm:"type:jsonb"`
	Currency  string `gorm:"->"` // the invoice's: see contents
	Subtotal  int64
	Tax       int64
	Total     int64
	Absorbed  int64
	Lines     int
	IssuedAt  time.Time
	Hash      []byte
}

func (contentRow) TableName() string { return "invoice_contents" }

// billTo is the part of a billing profile that an invoice keeps.
type billTo struct {
	Name    string          `json:"name"`
	Email   string          `json:"email"`
	Address account.Address `json:"address"`
	TaxID   string          `json:"tax_id"`
}

func (r contentRow) content() (invoice.Content, error) {
	var to billTo
	if err := json.Unmarshal(r.BillTo, &to); err != nil {
		return invoice.Content{}, err
	}
	if len(r.Hash) != len(invoice.Content{}.Hash) {
		return invoice.Content{}, fmt.Errorf("hash of %d bytes", len(r.Hash))
	}
	return invoice.Content{
		Invoice: r.InvoiceID, Account: r.AccountID, Number: r.Number,
		BillTo:   account.Profile{Name: to.Name, Email: to.Email, Address: to.Address, TaxID: to.TaxID},
		Subtotal: minor(r.Subtotal, r.Currency), Tax: minor(r.Tax, r.Currency), Total: minor(r.Total, r.Currency),
		Absorbed: minor(r.Absorbed, r.Currency), IssuedAt: r.IssuedAt.UTC(), Hash: [32]byte(r.Hash),
	}, nil
}

type lineRow struct {
	AccountID   account.ID `gorm:"primaryKey"`
	InvoiceID   invoice.ID `gorm:"primaryKey"`
	Number      int        `gorm:"primaryKey;autoIncrement:false"`
	Kind        string
	Meter       *string
	Description string
	PeriodStart time.Time
	PeriodEnd   time.Time
	Quantity    money.Decimal
	Amount      int64
	Derivation  []byte `gorm:"type:jsonb"`
}

func (lineRow) TableName() string { return "invoice_lines" }

func (r lineRow) line(c money.Currency) invoice.Line {
	return invoice.Line{
		Number: r.Number, Kind: r.Kind, Meter: textOf(r.Meter), Description: r.Description, Period: bounds(r.PeriodStart, r.PeriodEnd),
		Quantity: r.Quantity, Amount: money.New(r.Amount, c), Derivation: r.Derivation,
	}
}

type creditNoteRow struct {
	AccountID   account.ID           `gorm:"primaryKey"`
	ID          invoice.CreditNoteID `gorm:"primaryKey"`
	InvoiceID   invoice.ID
	ByInvoiceID invoice.ID
	Number      string
	Amount      int64
	Currency    string
	ToDue       int64
	ToFunds     int64
	ToCredit    int64
	Reason      string
	Actor       string
	IssuedAt    time.Time
}

func (creditNoteRow) TableName() string { return "credit_notes" }

func (r creditNoteRow) note() invoice.CreditNote {
	return invoice.CreditNote{
		ID: r.ID, Account: r.AccountID, Invoice: r.InvoiceID, By: r.ByInvoiceID, Number: r.Number, Amount: minor(r.Amount, r.Currency),
		ToDue: minor(r.ToDue, r.Currency), ToFunds: minor(r.ToFunds, r.Currency),
		ToCredit: minor(r.ToCredit, r.Currency), Reason: r.Reason, Actor: r.Actor, IssuedAt: r.IssuedAt.UTC(),
	}
}

type invoiceStore stores

var _ invoice.Store = invoiceStore{}

func (s invoiceStore) Create(ctx context.Context, i invoice.Invoice) (err error) {
	defer errs.Wrap(&err, "create invoice %s", i.ID)
	row := toInvoiceRow(i)
	return taken(s.db.WithContext(ctx).Create(&row).Error, subscription.ErrPeriodClosed)
}

func (s invoiceStore) Get(ctx context.Context, a account.ID, id invoice.ID) (_ invoice.Invoice, err error) {
	defer errs.Wrap(&err, "get invoice %s of %s", id, a)
	row, err := invoiceByID.of(a, id).one(ctx, s, invoice.ErrNotFound)
	return row.invoice(), err
}

func (s invoiceStore) Lock(ctx context.Context, a account.ID, id invoice.ID) (_ invoice.Invoice, err error) {
	defer errs.Wrap(&err, "lock invoice %s of %s", id, a)
	row, err := lockedInvoice.of(a, id).one(ctx, s, invoice.ErrNotFound)
	return row.invoice(), err
}

func (s invoiceStore) Save(ctx context.Context, i *invoice.Invoice) (err error) {
	defer errs.Wrap(&err, "save invoice %s", i.ID)
	row := toInvoiceRow(*i)
	row.Version++
	if err = s.later(ctx, saveInvoice.of(row, i.Account, i.ID, i.Version)); err == nil {
		i.Version = row.Version
	}
	return err
}

func (s invoiceStore) List(ctx context.Context, a account.ID, st invoice.Status, r page.Request) (_ page.Page[invoice.Invoice], err error) {
	defer errs.Wrap(&err, "list invoices of %s", a)
	q := newest[invoice.Invoice](stores(s).of(ctx, a), r)
	if st != "" {
		q = q.Where("status = ?", string(st))
	}
	list, err := find(q, invoiceRow.invoice)
	return page.Cut(list, r.Limit, func(i invoice.Invoice) string { return i.ID.String() }), err
}

func (s invoiceStore) Suspending(ctx context.Context, a account.ID) (_ []invoice.Invoice, err error) {
	defer errs.Wrap(&err, "debts that suspend %s", a)
	return all(ctx, s, suspendingInvoices.of(a),
		func(r invoiceRow) (invoice.Invoice, error) { return r.invoice(), nil })
}

func (s invoiceStore) Unpaid(ctx context.Context, a account.ID) (_ []invoice.Invoice, err error) {
	defer errs.Wrap(&err, "unpaid invoices of %s", a)
	return all(ctx, s, unpaidInvoices.of(a),
		func(r invoiceRow) (invoice.Invoice, error) { return r.invoice(), nil })
}

func (s invoiceStore) OfPeriod(ctx context.Context, a account.ID, sub subscription.ID, start time.Time) (_ invoice.Invoice, err error) {
	defer errs.Wrap(&err, "invoice of %s for the period from %s", sub, start)
	row, err := take[invoiceRow](stores(s).of(ctx, a).
		Where("kind = ? AND subscription_id = ? AND period_start = ?", string(invoice.Cycle), sub, start), invoice.ErrNotFound)
	return row.invoice(), err
}

func (s invoiceStore) NextNumber(ctx context.Context, a account.ID) (_ string, err error) {
	defer errs.Wrap(&err, "next invoice number of %s", a)
	var next struct{ Invoices int64 }
	res := s.db.WithContext(ctx).Raw("UPDATE account_counters SET invoices = invoices + 1 WHERE account_id = ? RETURNING invoices", a).Scan(&next)
	if err := changed(res, account.ErrNotFound); err != nil {
		return "", err
	}
	return invoice.Number(a, next.Invoices), nil
}

func (s invoiceStore) Issue(ctx context.Context, c invoice.Content) (err error) {
	defer errs.Wrap(&err, "issue invoice %s", c.Invoice)
	to, err := json.Marshal(billTo{c.BillTo.Name, c.BillTo.Email, c.BillTo.Address, c.BillTo.TaxID})
	if err != nil {
		return err
	}
	db := s.db.WithContext(ctx)
	err = db.Create(&contentRow{
		AccountID: c.Account, InvoiceID: c.Invoice, Number: c.Number, BillTo: to, Subtotal: c.Subtotal.Minor, Tax: c.Tax.Minor,
		Total: c.Total.Minor, Absorbed: c.Absorbed.Minor, Lines: len(c.Lines), IssuedAt: c.IssuedAt, Hash: c.Hash[:],
	}).Error
	if err != nil {
		return taken(err, invoice.ErrTransition)
	}
	if len(c.Lines) == 0 {
		return nil
	}
	rows := make([]lineRow, len(c.Lines))
	for i, l := range c.Lines {
		rows[i] = lineRow{
			AccountID: c.Account, InvoiceID: c.Invoice, Number: l.Number, Kind: l.Kind, Meter: textOrNil(l.Meter), Description: l.Description,
			PeriodStart: l.Period.Start, PeriodEnd: l.Period.End, Quantity: l.Quantity, Amount: l.Amount.Minor, Derivation: l.Derivation,
		}
	}
	return translate(db.CreateInBatches(&rows, 500).Error)
}

var contentColumns = "invoice_contents." + strings.Join(tableOf[contentRow]().but("currency"), ", invoice_contents.") + ", i.currency"

// contents reads contents with their invoices' currency.
func (s invoiceStore) contents(ctx context.Context, a account.ID) *gorm.DB {
	return s.db.WithContext(ctx).Model(&contentRow{}).Select(contentColumns).
		Joins("JOIN invoices i ON i.account_id = invoice_contents.account_id AND i.id = invoice_contents.invoice_id").
		Where("invoice_contents.account_id = ?", a)
}

func (s invoiceStore) Content(ctx context.Context, a account.ID, id invoice.ID) (_ invoice.Content, err error) {
	defer errs.Wrap(&err, "content of invoice %s of %s", id, a)
	row, err := take[contentRow](s.contents(ctx, a).Where("invoice_contents.invoice_id = ?", id), invoice.ErrNotFound)
	if err != nil {
		return invoice.Content{}, err
	}
	c, err := row.content()
	if err != nil {
		return invoice.Content{}, err
	}
	c.Lines, err = find(stores(s).of(ctx, a).Where("invoice_id = ?", id).Order("number"),
		func(r lineRow) invoice.Line { return r.line(c.Total.Currency) })
	return c, err
}

func (s invoiceStore) Contents(ctx context.Context, a account.ID, ids []invoice.ID) (_ map[invoice.ID]invoice.Content, err error) {
	defer errs.Wrap(&err, "contents of %d invoices of %s", len(ids), a)
	out := make(map[invoice.ID]invoice.Content, len(ids))
	if len(ids) == 0 {
		return out, nil
	}
	var rows []contentRow
	if err := s.contents(ctx, a).Where("invoice_contents.invoice_id IN ?", ids).Find(&rows).Error; err != nil {
		return nil, translate(err)
	}
	for _, r := range rows {
		if out[r.InvoiceID], err = r.content(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s invoiceStore) Parts(ctx context.Context, a account.ID, starts []time.Time) (_ []invoice.Part, err error) {
	defer errs.Wrap(&err, "what is billed for %d periods of %s", len(starts), a)
	type row struct {
		InvoiceID              invoice.ID
		PeriodStart            time.Time
		Currency               string
		Amount, Absorbed, Owed int64
		FinalizedAt            time.Time
		VoidedAt               *time.Time
	}
	return find(s.db.WithContext(ctx).Raw(`
SELECT l.invoice_id, l.period_start, i.currency, sum(l.amount)::bigint AS amount, i.absorbed, i.finalized_at,
       CASE i.status WHEN 'void' THEN i.closed_at END AS voided_at,
       CASE i.status WHEN 'uncollectible' THEN i.total - i.amount_paid - i.amount_credited ELSE 0 END AS owed
FROM invoice_lines l JOIN invoices i ON i.account_id = l.account_id AND i.id = l.invoice_id
WHERE l.account_id = ? AND l.period_start IN ? AND i.kind = 'cycle' AND l.kind NOT IN ('absorbed', 'credit_to_balance')
GROUP BY l.invoice_id, l.period_start, i.currency, i.absorbed, i.finalized_at, i.status, i.closed_at, i.total, i.amount_paid, i.amount_credited
ORDER BY i.finalized_at, l.invoice_id`, a, starts), func(r row) invoice.Part {
		return invoice.Part{
			Invoice: r.InvoiceID, Period: r.PeriodStart.UTC(), Amount: minor(r.Amount, r.Currency), Absorbed: minor(r.Absorbed, r.Currency),
			Owed: minor(r.Owed, r.Currency), FinalizedAt: r.FinalizedAt, VoidedAt: timeOf(r.VoidedAt),
		}
	})
}

func (s invoiceStore) Absorb(ctx context.Context, a account.ID, id invoice.ID, amount money.Amount) (err error) {
	defer errs.Wrap(&err, "absorb %s of invoice %s", amount, id)
	return changed(s.db.WithContext(ctx).Exec(
		"UPDATE invoices SET absorbed = absorbed + ? WHERE account_id = ? AND id = ?", amount.Minor, a, id), invoice.ErrNotFound)
}

func (s invoiceStore) Draw(ctx context.Context, a account.ID, id invoice.ID, draws []wallet.Draw) (err error) {
	defer errs.Wrap(&err, "draw on credit for invoice %s", id)
	for _, d := range draws {
		err := s.db.WithContext(ctx).Exec(`INSERT INTO credit_draws (account_id, invoice_id, grant_id, amount) VALUES (?, ?, ?, ?)
			ON CONFLICT (account_id, invoice_id, grant_id) DO UPDATE SET amount = credit_draws.amount + excluded.amount`, a, id, d.Grant, d.Amount.Minor).Error
		if orphan(err) {
			return invoice.ErrNotFound
		}
		if err != nil {
			return translate(err)
		}
	}
	return nil
}

func (s invoiceStore) Return(ctx context.Context, a account.ID, id invoice.ID, d wallet.Draw) (err error) {
	defer errs.Wrap(&err, "return credit of invoice %s", id)
	return changed(s.db.WithContext(ctx).Exec(
		"UPDATE credit_draws SET returned = returned + ? WHERE account_id = ? AND invoice_id = ? AND grant_id = ?", d.Amount.Minor, a, id, d.Grant), invoice.ErrNotFound)
}

func (s invoiceStore) Draws(ctx context.Context, a account.ID, id invoice.ID) (_ []invoice.Draw, err error) {
	defer errs.Wrap(&err, "credit that has paid of invoice %s", id)
	type row struct {
		GrantID          wallet.GrantID
		Amount, Returned int64
		Currency         string
	}
	return find(s.db.WithContext(ctx).Raw(`
SELECT d.grant_id, d.amount, d.returned, g.currency FROM credit_draws d JOIN credit_grants g ON g.account_id = d.account_id AND g.id = d.grant_id
WHERE d.account_id = ? AND d.invoice_id = ?
ORDER BY g.priority DESC, g.expires_at DESC NULLS FIRST, g.granted_at DESC, g.id DESC`, a, id), func(r row) invoice.Draw {
		return invoice.Draw{Grant: r.GrantID, Amount: minor(r.Amount, r.Currency), Returned: minor(r.Returned, r.Currency)}
	})
}

func (s invoiceStore) AddCreditNote(ctx context.Context, n invoice.CreditNote) (err error) {
	defer errs.Wrap(&err, "add credit note %s", n.ID)
	err = s.db.WithContext(ctx).Create(&creditNoteRow{
		n.Account, n.ID, n.Invoice, n.By, n.Number, n.Amount.Minor, string(n.Amount.Currency), n.ToDue.Minor, n.ToFunds.Minor, n.ToCredit.Minor,
		n.Reason, n.Actor, n.IssuedAt,
	}).Error
	if orphan(err) {
		return invoice.ErrNotFound
	}
	return translate(err)
}

func (s invoiceStore) CreditNote(ctx context.Context, a account.ID, id invoice.CreditNoteID) (_ invoice.CreditNote, err error) {
	defer errs.Wrap(&err, "credit note %s of %s", id, a)
	row, err := take[creditNoteRow](stores(s).of(ctx, a).Where("id = ?", id), invoice.ErrCreditNoteNotFound)
	return row.note(), err
}

func (s invoiceStore) CreditNotesOf(ctx context.Context, a account.ID, i invoice.ID) (_ []invoice.CreditNote, err error) {
	defer errs.Wrap(&err, "credit notes of %s", i)
	return find(stores(s).of(ctx, a).Where("invoice_id = ?", i).Order("id"), creditNoteRow.note)
}

func (s invoiceStore) CreditNotesBroughtBy(ctx context.Context, a account.ID) (_ []invoice.CreditNote, err error) {
	defer errs.Wrap(&err, "credit notes that invoices of %s brought", a)
	return find(stores(s).of(ctx, a).Where("by_invoice_id IS NOT NULL").Order("id"), creditNoteRow.note)
}

func (s invoiceStore) CreditNotes(ctx context.Context, a account.ID, r page.Request) (_ page.Page[invoice.CreditNote], err error) {
	defer errs.Wrap(&err, "list credit notes of %s", a)
	list, err := find(newest[invoice.CreditNote](stores(s).of(ctx, a), r), creditNoteRow.note)
	return page.Cut(list, r.Limit, func(n invoice.CreditNote) string { return n.ID.String() }), err
}

// The two branches of each are those of dueSubscriptions.
const (
	dueToFinalize = `
		SELECT i.account_id, i.id, i.finalize_at AS due FROM invoices i JOIN accounts a ON a.id = i.account_id
		WHERE i.status = 'draft' AND a.clock_at IS NULL AND i.finalize_at <= @now AND (i.finalize_at, i.account_id, i.id) > (@due, @account, @invoice)
		UNION ALL
		SELECT i.account_id, i.id, i.finalize_at FROM invoices i JOIN accounts a ON a.id = i.account_id
		WHERE i.status = 'draft' AND a.clock_at IS NOT NULL AND i.finalize_at <= a.clock_at AND (i.finalize_at, i.account_id, i.id) > (@due, @account, @invoice)
		ORDER BY due, account_id, id LIMIT @limit`
	dueToCollect = `
		SELECT i.account_id, i.id, i.next_attempt_at AS due FROM invoices i JOIN accounts a ON a.id = i.account_id
		WHERE i.status = 'open' AND i.next_attempt_at IS NOT NULL AND a.clock_at IS NULL AND i.next_attempt_at <= @now
			AND (i.next_attempt_at, i.account_id, i.id) > (@due, @account, @invoice)
		UNION ALL
		SELECT i.account_id, i.id, i.next_attempt_at FROM invoices i JOIN accounts a ON a.id = i.account_id
		WHERE i.status = 'open' AND i.next_attempt_at IS NOT NULL AND a.clock_at IS NOT NULL AND i.next_attempt_at <= a.clock_at
			AND (i.next_attempt_at, i.account_id, i.id) > (@due, @account, @invoice)
		ORDER BY due, account_id, id LIMIT @limit`
)

func (s invoiceStore) ToFinalize(ctx context.Context, now time.Time, after invoice.Ref, limit int) (_ []invoice.Ref, err error) {
	defer errs.Wrap(&err, "drafts to finalise")
	return s.due(ctx, dueToFinalize, now, after, limit)
}

func (s invoiceStore) ToCollect(ctx context.Context, now time.Time, after invoice.Ref, limit int) (_ []invoice.Ref, err error) {
	defer errs.Wrap(&err, "invoices to collect")
	return s.due(ctx, dueToCollect, now, after, limit)
}

func (s invoiceStore) due(ctx context.Context, sql string, now time.Time, after invoice.Ref, limit int) ([]invoice.Ref, error) {
	type row struct {
		AccountID account.ID
		ID        invoice.ID
		Due       time.Time
	}
	q := s.db.WithContext(ctx).Raw(sql, map[string]any{
		"now": now, "limit": limit, "due": after.Due, "account": after.Account.UUID(), "invoice": after.Invoice.UUID(),
	})
	return find(q, func(r row) invoice.Ref { return invoice.Ref{Account: r.AccountID, Invoice: r.ID, Due: r.Due} })
}
