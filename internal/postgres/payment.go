package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/pkg/money"
)

type paymentRow struct {
	AccountID       account.ID `gorm:"primaryKey"`
	ID              payment.ID `gorm:"primaryKey"`
	Purpose         string
	InvoiceID       invoice.ID
	TopUpID         payment.TopUpID
	PaymentMethodID payment.MethodID
	Amount          int64
	Currency        string
	Status          string
	OffSession      bool
	Actor           string
	Provider        string
	ProviderRef     *string
	NextAction      []byte `gorm:"type:jsonb"`
	Failure         []byte `gorm:"type:jsonb"`
	Refunded        int64
	Disputed        int64
	CheckAt         *time.Time
	Checks          int
	CreatedAt       time.Time `gorm:"autoCreateTime:false"`
	UpdatedAt       time.Time `gorm:"autoUpdateTime:false"`
	SucceededAt     *time.Time
	Version         int64
}

func (paymentRow) TableName() string { return "payments" }

var (
	payments      = tableOf[paymentRow]()
	paymentByID   = payments.read("", "account_id", "id").beforehand()
	lockedPayment = paymentByID.locked()
	// What was asked for never changes: purpose, card, amount, provider.
	savePayment = payments.update([]string{"account_id", "id", "version"}, "status", "provider_ref", "next_action", "failure",
		"refunded", "disputed", "check_at", "checks", "updated_at", "succeeded_at", "version").mustFind(account.ErrStale)
)

func toPaymentRow(p payment.Payment) (row paymentRow, err error) {
	row = paymentRow{
		AccountID: p.Account, ID: p.ID, Purpose: string(p.Purpose), InvoiceID: p.Invoice, TopUpID: p.TopUp, PaymentMethodID: p.Method,
		Amount: p.Amount.Minor, Currency: string(p.Amount.Currency), Status: string(p.Status), OffSession: p.OffSession, Actor: p.Actor,
		Provider: p.Provider, ProviderRef: textOrNil(p.ProviderRef), Refunded: p.Refunded.Minor, Disputed: p.Disputed.Minor,
		CheckAt: timeOrNil(p.CheckAt), Checks: p.Checks, CreatedAt: p.CreatedAt, UpdatedAt: p.UpdatedAt,
		SucceededAt: timeOrNil(p.SucceededAt), Version: p.Version,
	}
	if row.NextAction, err = jsonOrNil(toStoredAction(p.NextAction)); err != nil {
		return row, err
	}
	row.Failure, err = jsonOrNil(p.Failure)
	return row, err
}

func (r paymentRow) payment() (p payment.Payment, err error) {
	p = payment.Payment{
		ID: r.ID, Account: r.AccountID, Purpose: payment.Purpose(r.Purpose), Invoice: r.InvoiceID, TopUp: r.TopUpID, Method: r.PaymentMethodID,
		Amount: minor(r.Amount, r.Currency), Status: payment.Status(r.Status), OffSession: r.OffSession, Actor: r.Actor, Provider: r.Provider,
		ProviderRef: textOf(r.ProviderRef), Refunded: minor(r.Refunded, r.Currency), Disputed: minor(r.Disputed, r.Currency),
		CheckAt: timeOf(r.CheckAt), Checks: r.Checks, CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
		SucceededAt: timeOf(r.SucceededAt), Version: r.Version,
	}
	if p.NextAction, err = actionOf(r.NextAction); err != nil {
		return p, err
	}
	p.Failure, err = jsonOf[payment.Failure](r.Failure)
	return p, err
}

type topUpRow struct {
	AccountID account.ID      `gorm:"primaryKey"`
	ID        payment.TopUpID `gorm:"primaryKey"`
	Origin    string
	Amount    int64
	Currency  string
	Status    string
	PaymentID payment.ID
	Failure   []byte    `gorm:"type:jsonb"`
	CreatedAt time.Time `gorm:"autoCreateTime:false"`
	UpdatedAt time.Time `gorm:"autoUpdateTime:false"`
	Version   int64
}

func (topUpRow) TableName() string { return "top_ups" }

var (
	topUps       = tableOf[topUpRow]()
	topUpByID    = topUps.read("", "account_id", "id").beforehand()
	pendingTopUp = topUps.read("AND "+isPending, "account_id").beforehand()
	saveTopUp    = topUps.update([]string{"account_id", "id", "version"}, "status", "payment_id", "failure", "updated_at", "version").
			mustFind(account.ErrStale)
)

func toTopUpRow(t payment.TopUp) (row topUpRow, err error) {
	row = topUpRow{
		AccountID: t.Account, ID: t.ID, Origin: string(t.Origin), Amount: t.Amount.Minor, Currency: string(t.Amount.Currency),
		Status: string(t.Status), PaymentID: t.Payment, CreatedAt: t.CreatedAt, UpdatedAt: t.UpdatedAt, Version: t.Version,
	}
	row.Failure, err = jsonOrNil(t.Failure)
	return row, err
}

func (r topUpRow) topUp() (t payment.TopUp, err error) {
	t = payment.TopUp{
		ID: r.ID, Account: r.AccountID, Origin: payment.Origin(r.Origin), Amount: minor(r.Amount, r.Currency), Status: payment.Status(r.Status),
		Payment: r.PaymentID, CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), Version: r.Version,
	}
	t.Failure, err = jsonOf[payment.Failure](r.Failure)
	return t, err
}

type refundRow struct {
	AccountID   account.ID       `gorm:"primaryKey"`
	ID          payment.RefundID `gorm:"primaryKey"`
	PaymentID   payment.ID
	Amount      int64
	Currency    string
	Status      string
	Origin      string
	ProviderRef *string
	Reason      string
	Actor       string
	CheckAt     *time.Time
	CreatedAt   time.Time `gorm:"autoCreateTime:false"`
	UpdatedAt   time.Time `gorm:"autoUpdateTime:false"`
}

func (refundRow) TableName() string { return "refunds" }

func toRefundRow(r payment.Refund) refundRow {
	return refundRow{
		r.Account, r.ID, r.Payment, r.Amount.Minor, string(r.Amount.Currency), string(r.Status), string(r.Origin), textOrNil(r.ProviderRef),
		r.Reason, r.Actor, timeOrNil(r.CheckAt), r.CreatedAt, r.UpdatedAt,
	}
}

func (r refundRow) refund() payment.Refund {
	return payment.Refund{
		ID: r.ID, Account: r.AccountID, Payment: r.PaymentID, Amount: minor(r.Amount, r.Currency), Status: payment.Status(r.Status),
		Origin: payment.RefundOrigin(r.Origin), ProviderRef: textOf(r.ProviderRef), Reason: r.Reason, Actor: r.Actor, CheckAt: timeOf(r.CheckAt),
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}
}

type disputeRow struct {
	AccountID   account.ID        `gorm:"primaryKey"`
	ID          payment.DisputeID `gorm:"primaryKey"`
	PaymentID   payment.ID
	ProviderRef string
	Amount      int64
	Currency    string
	Status      string
	Reason      string
	CreatedAt   time.Time `gorm:"autoCreateTime:false"`
	UpdatedAt   time.Time `gorm:"autoUpdateTime:false"`
}

func (disputeRow) TableName() string { return "disputes" }

type paymentStore stores

var _ payment.Store = paymentStore{}

func (s paymentStore) CreatePayment(ctx context.Context, p payment.Payment) (err error) {
	defer errs.Wrap(&err, "create payment %s", p.ID)
	row, err := toPaymentRow(p)
	if err != nil {
		return err
	}
	return s.later(ctx, payments.insert(row).conflict(payment.ErrPaymentPending))
}

func (s paymentStore) one(ctx context.Context, q query[paymentRow]) (payment.Payment, error) {
	row, err := q.one(ctx, s, payment.ErrNotFound)
	if err != nil {
		return payment.Payment{}, err
	}
	return row.payment()
}

func (s paymentStore) Payment(ctx context.Context, a account.ID, p payment.ID) (_ payment.Payment, err error) {
	defer errs.Wrap(&err, "payment %s of %s", p, a)
	return s.one(ctx, paymentByID.of(a, p))
}

// LockPayment locks no row where the transaction holds the account's: whoever changes a payment locks its account first,
// so nobody can come between. Who does not is refused by the payment's version.
func (s paymentStore) LockPayment(ctx context.Context, a account.ID, p payment.ID) (_ payment.Payment, err error) {
	defer errs.Wrap(&err, "lock payment %s of %s", p, a)
	q := lockedPayment.of(a, p)
	if h := s.held(); h != nil {
		if _, held := h.account(a); held {
			q = paymentByID.of(a, p)
		}
	}
	return s.one(ctx, q)
}

func (s paymentStore) SavePayment(ctx context.Context, p *payment.Payment) (err error) {
	defer errs.Wrap(&err, "save payment %s", p.ID)
	row, err := toPaymentRow(*p)
	if err != nil {
		return err
	}
	row.Version++
	if err = s.later(ctx, savePayment.of(row, p.Account, p.ID, p.Version)); err == nil {
		p.Version = row.Version
	}
	return err
}

func (s paymentStore) Payments(ctx context.Context, a account.ID, r page.Request) (_ page.Page[payment.Payment], err error) {
	defer errs.Wrap(&err, "list payments of %s", a)
	list, err := findEach(newest[payment.Payment](stores(s).of(ctx, a), r), paymentRow.payment)
	return page.Cut(list, r.Limit, func(p payment.Payment) string { return p.ID.String() }), err
}

func (s paymentStore) Parked(ctx context.Context, a account.ID, r page.Request) (_ page.Page[payment.Payment], err error) {
	defer errs.Wrap(&err, "parked payments")
	list, err := findEach(newest[payment.Payment](stores(s).ofAny(ctx, a), r).Where("status = 'parked'"), paymentRow.payment)
	return page.Cut(list, r.Limit, func(p payment.Payment) string { return p.ID.String() }), err
}

func (s paymentStore) PaymentsOf(ctx context.Context, a account.ID, i invoice.ID) (_ []payment.Payment, err error) {
	defer errs.Wrap(&err, "payments of invoice %s of %s", i, a)
	return findEach(stores(s).of(ctx, a).Where("invoice_id = ?", i).Order("id"), paymentRow.payment)
}

func (s paymentStore) Paying(ctx context.Context, a account.ID) (ids []invoice.ID, err error) {
	defer errs.Wrap(&err, "invoices of %s that are being paid", a)
	// The words of payments_one_active_per_invoice, so that it is the index which is read.
	err = stores(s).of(ctx, a).Model(&paymentRow{}).Where("status IN ('processing', 'requires_action', 'parked') AND invoice_id IS NOT NULL").
		Pluck("invoice_id", &ids).Error
	return ids, translate(err)
}

func (s paymentStore) RefundablePayments(ctx context.Context, a account.ID) (_ []payment.Payment, err error) {
	defer errs.Wrap(&err, "refundable payments of %s", a)
	return findEach(stores(s).of(ctx, a).Where("status = 'succeeded' AND amount > refunded + disputed").Order("id DESC"), paymentRow.payment)
}

func (s paymentStore) CreateTopUp(ctx context.Context, t payment.TopUp) (err error) {
	defer errs.Wrap(&err, "create top-up %s", t.ID)
	row, err := toTopUpRow(t)
	if err != nil {
		return err
	}
	return s.later(ctx, topUps.insert(row).conflict(payment.ErrTopUpPending))
}

func (s paymentStore) TopUp(ctx context.Context, a account.ID, t payment.TopUpID) (_ payment.TopUp, err error) {
	defer errs.Wrap(&err, "top-up %s of %s", t, a)
	if known, ok := s.held().topUp(t); ok && known.Account == a {
		return known, nil
	}
	row, err := topUpByID.of(a, t).one(ctx, s, payment.ErrTopUpNotFound)
	if err != nil {
		return payment.TopUp{}, err
	}
	top, err := row.topUp()
	if err == nil {
		s.held().holdTopUp(top)
	}
	return top, err
}

func (s paymentStore) TopUps(ctx context.Context, a account.ID, r page.Request) (_ page.Page[payment.TopUp], err error) {
	defer errs.Wrap(&err, "list top-ups of %s", a)
	list, err := findEach(newest[payment.TopUp](stores(s).of(ctx, a), r), topUpRow.topUp)
	return page.Cut(list, r.Limit, func(t payment.TopUp) string { return t.ID.String() }), err
}

func (s paymentStore) SaveTopUp(ctx context.Context, t *payment.TopUp) (err error) {
	defer errs.Wrap(&err, "save top-up %s", t.ID)
	row, err := toTopUpRow(*t)
	if err != nil {
		return err
	}
	row.Version++
	if err = s.later(ctx, saveTopUp.of(row, t.Account, t.ID, t.Version)); err == nil {
		t.Version = row.Version
		s.held().holdTopUp(*t)
	}
	return err
}

func (s paymentStore) PendingTopUp(ctx context.Context, a account.ID) (_ payment.TopUp, err error) {
	defer errs.Wrap(&err, "pending top-up of %s", a)
	row, err := pendingTopUp.of(a).one(ctx, s, payment.ErrTopUpNotFound)
	if err != nil {
		return payment.TopUp{}, err
	}
	return row.topUp()
}

func (s paymentStore) ToppedUp(ctx context.Context, a account.ID, o payment.Origin, since time.Time, c money.Currency) (_ money.Amount, err error) {
	defer errs.Wrap(&err, "top-ups of %s since %s", a, since)
	var sum struct{ Minor int64 }
	q := stores(s).of(ctx, a).Model(&topUpRow{}).Select("coalesce(sum(amount), 0)::bigint AS minor").
		Where("origin = ? AND currency = ? AND created_at >= ?", string(o), string(c), since).
		Where("status IN ('processing', 'requires_action', 'succeeded')")
	if o == payment.Auto { // which has a ceiling, and so an index
		q = q.Where("origin = 'auto'")
	}
	err = q.Scan(&sum).Error
	return money.New(sum.Minor, c), translate(err)
}

func (s paymentStore) Moved(ctx context.Context, a account.ID, actor string, since time.Time, c money.Currency) (_ money.Amount, err error) {
	defer errs.Wrap(&err, "payments by %s of %s", actor, a)
	var sum struct{ Minor int64 }
	q := stores(s).of(ctx, a).Model(&paymentRow{}).Select("coalesce(sum(amount), 0)::bigint AS minor").
		Where("actor = ? AND currency = ? AND created_at > ?", actor, string(c), since).
		Where("status NOT IN ('failed', 'canceled')")
	if strings.HasPrefix(actor, "key:") || strings.HasPrefix(actor, "platform:") { // they have ceilings, and so an index
		q = q.Where("(actor LIKE 'key:%' OR actor LIKE 'platform:%')")
	}
	err = q.Scan(&sum).Error
	return money.New(sum.Minor, c), translate(err)
}

func (s paymentStore) CreateRefund(ctx context.Context, r payment.Refund) (err error) {
	defer errs.Wrap(&err, "create refund %s", r.ID)
	row := toRefundRow(r)
	err = s.db.WithContext(ctx).Create(&row).Error
	if orphan(err) {
		return payment.ErrNotFound
	}
	return translate(err)
}

func (s paymentStore) Refund(ctx context.Context, a account.ID, r payment.RefundID) (_ payment.Refund, err error) {
	defer errs.Wrap(&err, "refund %s of %s", r, a)
	row, err := take[refundRow](stores(s).of(ctx, a).Where("id = ?", r), payment.ErrRefundNotFound)
	return row.refund(), err
}

func (s paymentStore) RefundsOf(ctx context.Context, a account.ID, p payment.ID) (_ []payment.Refund, err error) {
	defer errs.Wrap(&err, "refunds of payment %s of %s", p, a)
	return find(stores(s).of(ctx, a).Where("payment_id = ?", p).Order("id"), refundRow.refund)
}

func (s paymentStore) Refunds(ctx context.Context, a account.ID, r page.Request) (_ page.Page[payment.Refund], err error) {
	defer errs.Wrap(&err, "list refunds of %s", a)
	list, err := find(newest[payment.Refund](stores(s).of(ctx, a), r), refundRow.refund)
	return page.Cut(list, r.Limit, func(r payment.Refund) string { return r.ID.String() }), err
}

func (s paymentStore) SaveRefund(ctx context.Context, r payment.Refund) (err error) {
	defer errs.Wrap(&err, "save refund %s", r.ID)
	row := toRefundRow(r)
	return changed(stores(s).of(ctx, r.Account).Model(&refundRow{}).Where("id = ?", r.ID).
		Select("amount", "status", "provider_ref", "reason", "check_at", "updated_at").Updates(&row), payment.ErrRefundNotFound)
}

func (s paymentStore) DisputeByRef(ctx context.Context, a account.ID, ref string) (_ payment.Dispute, err error) {
	defer errs.Wrap(&err, "dispute of %s by reference", a)
	r, err := take[disputeRow](stores(s).of(ctx, a).Where("provider_ref = ?", ref), payment.ErrNotFound)
	return payment.Dispute{
		ID: r.ID, Account: r.AccountID, Payment: r.PaymentID, ProviderRef: r.ProviderRef, Amount: minor(r.Amount, r.Currency),
		Status: payment.DisputeStatus(r.Status), Reason: r.Reason, CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(),
	}, err
}

func (s paymentStore) SaveDispute(ctx context.Context, d payment.Dispute) (err error) {
	defer errs.Wrap(&err, "save dispute %s", d.ID)
	err = s.db.WithContext(ctx).Clauses(onConflictUpdate([]string{"account_id", "id"}, "amount", "status", "reason", "updated_at")).Create(&disputeRow{
		d.Account, d.ID, d.Payment, d.ProviderRef, d.Amount.Minor, string(d.Amount.Currency), string(d.Status), d.Reason, d.CreatedAt, d.UpdatedAt,
	}).Error
	if orphan(err) {
		return payment.ErrNotFound
	}
	return taken(err, account.ErrStale)
}

type providerRefRow struct {
	Ref       string `gorm:"primaryKey"`
	Provider  string `gorm:"primaryKey"`
	AccountID account.ID
	Kind      string
	RecordID  uuid.UUID
}

func (providerRefRow) TableName() string { return "provider_refs" }

var (
	providerRefs = tableOf[providerRefRow]()
	refByName    = providerRefs.read("", "provider", "ref")
	// One that is known already finds its row by writing what is there; of another record it finds none.
	remember = providerRefs.inserting(`ON CONFLICT (provider, ref) DO UPDATE SET kind = excluded.kind
		WHERE (provider_refs.account_id, provider_refs.kind, provider_refs.record_id) = (excluded.account_id, excluded.kind, excluded.record_id)`).
		mustFind(errForeignRef)
)

type locatedRow struct {
	AccountID account.ID
	Kind      string
	RecordID  uuid.UUID
}

func (r locatedRow) located() payment.Located {
	l := payment.Located{Account: r.AccountID, Kind: payment.RecordKind(r.Kind)}
	switch l.Kind {
	case payment.RecordPayment:
		l.Payment = id.FromUUID[payment.Payment](r.RecordID)
	case payment.RecordRefund:
		l.Refund = id.FromUUID[payment.Refund](r.RecordID)
	case payment.RecordMethod:
		l.Method = id.FromUUID[payment.Method](r.RecordID)
	case payment.RecordCustomer: // the account says it all
	}
	return l
}

func recordOf(l payment.Located) (uuid.UUID, error) {
	u := map[payment.RecordKind]uuid.UUID{
		payment.RecordPayment: l.Payment.UUID(), payment.RecordRefund: l.Refund.UUID(),
		payment.RecordMethod: l.Method.UUID(), payment.RecordCustomer: l.Account.UUID(),
	}[l.Kind]
	if u == uuid.Nil {
		return u, fmt.Errorf("no %q in %+v", l.Kind, l)
	}
	return u, nil
}

func (s paymentStore) Remember(ctx context.Context, provider, ref string, l payment.Located) (err error) {
	defer errs.Wrap(&err, "remember %s of %s at %s", l.Kind, l.Account, provider)
	record, err := recordOf(l)
	if err != nil {
		return err
	}
	return s.later(ctx, providerRefs.write(remember, providerRefRow{ref, provider, l.Account, string(l.Kind), record}))
}

var errForeignRef = errors.New("the reference belongs to another record")

func (s paymentStore) Locate(ctx context.Context, provider, ref string) (_ payment.Located, err error) {
	defer errs.Wrap(&err, "locate a reference of %s", provider)
	row, err := refByName.by(provider, ref).one(ctx, s, payment.ErrNotFound)
	if err != nil {
		return payment.Located{}, err
	}
	return locatedRow{row.AccountID, row.Kind, row.RecordID}.located(), nil
}

const dueChecks = `
	SELECT * FROM (
	  SELECT account_id, 'payment' AS kind, id AS record_id, check_at FROM payments WHERE status IN ('processing', 'requires_action') AND check_at <= @now
	  UNION ALL
	  SELECT account_id, 'refund', id, check_at FROM refunds WHERE status = 'processing' AND check_at <= @now
	  UNION ALL
	  SELECT account_id, 'payment_method', id, check_at FROM payment_methods WHERE status IN ('processing', 'requires_action', 'removed') AND check_at <= @now) due
	WHERE (check_at, record_id) > (@due, @record)
	ORDER BY check_at, record_id LIMIT @limit`

func (s paymentStore) ToCheck(ctx context.Context, now time.Time, after payment.Pending, limit int) (_ []payment.Pending, err error) {
	defer errs.Wrap(&err, "records to check")
	type row struct {
		AccountID account.ID
		Kind      string
		RecordID  uuid.UUID
		CheckAt   time.Time
	}
	record := uuid.Nil
	if after.Kind != "" {
		if record, err = recordOf(after.Located); err != nil {
			return nil, err
		}
	}
	return find(s.db.WithContext(ctx).Raw(dueChecks, map[string]any{"now": now, "limit": limit, "due": after.Due, "record": record}),
		func(r row) payment.Pending {
			return payment.Pending{Located: locatedRow{r.AccountID, r.Kind, r.RecordID}.located(), Due: r.CheckAt.UTC()}
		})
}

const sqlOverdueChecks = `
	SELECT count(*) FILTER (WHERE kind = 'payment'), count(*) FILTER (WHERE kind = 'refund'), count(*) FILTER (WHERE kind = 'card'),
	       count(*) FILTER (WHERE kind = 'event'), min(since),
	       (SELECT count(*) FROM payments WHERE status = 'parked') + (SELECT count(*) FROM refunds WHERE status = 'parked')
	FROM (
	  SELECT 'payment' AS kind, created_at AS since FROM payments WHERE status = 'processing'
	  UNION ALL
	  SELECT 'refund', created_at FROM refunds WHERE status = 'processing'
	  UNION ALL
	  SELECT 'card', created_at FROM payment_methods WHERE status = 'processing' AND check_at IS NOT NULL
	  UNION ALL
	  SELECT 'event', received_at FROM provider_events WHERE processed_at IS NULL) waiting
	WHERE since < $1`

func (s paymentStore) Overdue(ctx context.Context, t time.Time) (o payment.Overdue, err error) {
	defer errs.Wrap(&err, "overdue records")
	var oldest *time.Time
	err = s.db.Statement.ConnPool.QueryRowContext(ctx, sqlOverdueChecks, t).Scan(&o.Payments, &o.Refunds, &o.Cards, &o.Events, &oldest, &o.Parked)
	o.Oldest = timeOf(oldest)
	return o, translate(err)
}
