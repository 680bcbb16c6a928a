package postgres

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/pkg/money"
)

type accountRow struct {
	ID         uuid.UUID `gorm:"primaryKey"`
	ExternalID string
	Name       string
	Status     string
	Currency   string
	TimeZone   string
	ClockAt    *time.Time
	CreatedAt  time.Time `gorm:"autoCreateTime:false"`
	UpdatedAt  time.Time `gorm:"autoUpdateTime:false"`
	Version    int64
}

func (accountRow) TableName() string { return "accounts" }

var (
	accounts    = tableOf[accountRow]()
	accountByID = accounts.read("", "id")
	lockedByID  = accountByID.locked()
	saveAccount = accounts.update([]string{"id", "version"}, "name", "status", "currency", "time_zone", "clock_at", "updated_at", "version").
			mustFind(account.ErrStale)
)

func toAccountRow(a account.Account) accountRow {
	return accountRow{
		ID: a.ID.UUID(), ExternalID: a.ExternalID, Name: a.Name, Status: string(a.Status), Currency: string(a.Currency),
		TimeZone: a.TimeZone, ClockAt: timeOrNil(a.ClockAt), CreatedAt: a.CreatedAt, UpdatedAt: a.UpdatedAt, Version: a.Version,
	}
}

func (r accountRow) account() account.Account {
	return account.Account{
		ID: id.FromUUID[account.Account](r.ID), ExternalID: r.ExternalID, Name: r.Name, Status: account.Status(r.Status),
		Currency: money.Currency(r.Currency), TimeZone: r.TimeZone, ClockAt: timeOf(r.ClockAt),
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), Version: r.Version,
	}
}

type profileRow struct {
	AccountID uuid.UUID `gorm:"primaryKey"`
	Name      string
	Email     string
	Address   []byte `gorm:"type:jsonb"`
	TaxID     string
	UpdatedAt time.Time `gorm:"autoUpdateTime:false"`
	Version   int64
}

func (profileRow) TableName() string { return "billing_profiles" }

type auditRow struct {
	AccountID uuid.UUID `gorm:"primaryKey"`
	ID        uuid.UUID `gorm:"primaryKey"`
	Actor     string
	Action    string
	Reason    string
	Detail    []byte `gorm:"type:jsonb"`
	At        time.Time
}

func (auditRow) TableName() string { return "audit_entries" }

var auditEntries = tableOf[auditRow]()

func (r auditRow) entry() account.Entry {
	return account.Entry{
		ID: id.FromUUID[account.Entry](r.ID), Account: id.FromUUID[account.Account](r.AccountID), Actor: r.Actor, Action: r.Action, Reason: r.Reason, Detail: r.Detail, At: r.At.UTC(),
	}
}

// operatorAuditRow is an entry that concerns no one account.
type operatorAuditRow struct {
	ID     uuid.UUID `gorm:"primaryKey"`
	Actor  string
	Action string
	Reason string
	Detail []byte `gorm:"type:jsonb"`
	At     time.Time
}

func (operatorAuditRow) TableName() string { return "operator_audit_entries" }

func (r operatorAuditRow) entry() account.Entry {
	return auditRow{ID: r.ID, Actor: r.Actor, Action: r.Action, Reason: r.Reason, Detail: r.Detail, At: r.At}.entry()
}

type accountStore stores

var _ account.Store = accountStore{}

func (s accountStore) Create(ctx context.Context, a account.Account) (err error) {
	defer errs.Wrap(&err, "create account %s", a.ID)
	db := s.db.WithContext(ctx)
	// The lookup row first: it is the one that two creators of the same name collide on.
	if err := db.Exec("INSERT INTO account_external_ids (external_id, account_id) VALUES (?, ?)", a.ExternalID, a.ID.UUID()).Error; err != nil {
		return taken(err, account.ErrExternalIDTaken)
	}
	row := toAccountRow(a)
	if err := db.Create(&row).Error; err != nil {
		return translate(err)
	}
	return translate(db.Exec("INSERT INTO account_counters (account_id) VALUES (?)", a.ID.UUID()).Error)
}

func (s accountStore) Get(ctx context.Context, a account.ID) (_ account.Account, err error) {
	defer errs.Wrap(&err, "get account %s", a)
	row, err := accountByID.of(a).one(ctx, s, account.ErrNotFound)
	return row.account(), err
}

func (s accountStore) ByExternalID(ctx context.Context, externalID string) (_ account.Account, err error) {
	defer errs.Wrap(&err, "find account by external id")
	var found struct{ AccountID uuid.UUID }
	err = s.db.WithContext(ctx).Table("account_external_ids").Where("external_id = ?", externalID).Take(&found).Error
	if err != nil {
		return account.Account{}, notFound(err, account.ErrNotFound)
	}
	return s.Get(ctx, id.FromUUID[account.Account](found.AccountID))
}

func (s accountStore) Known(ctx context.Context, names []string, ids []account.ID) (_ map[string]account.ID, err error) {
	defer errs.Wrap(&err, "find %d accounts", len(names)+len(ids))
	keys := make([]string, len(ids))
	for i, a := range ids {
		keys[i] = a.UUID().String()
	}
	found := make(map[string]account.ID, len(names)+len(ids))
	err = usageStore(s).each(ctx, func(rows *sql.Rows) error {
		var name *string
		var key uuid.UUID
		if err := rows.Scan(&name, &key); err != nil {
			return err
		}
		a := id.FromUUID[account.Account](key)
		if name == nil {
			found[a.String()] = a
		} else {
			found[*name] = a
		}
		return nil
	}, `
SELECT external_id, account_id FROM account_external_ids WHERE external_id = ANY($1::text[])
UNION ALL SELECT NULL, id FROM accounts WHERE id = ANY($2::uuid[])`, names, keys)
	return found, err
}

func (s accountStore) Lock(ctx context.Context, a account.ID) (_ account.Account, err error) {
	defer errs.Wrap(&err, "lock account %s", a)
	if h := s.held(); h != nil {
		if row, ok := h.account(a); ok {
			return row.account(), nil
		}
	}
	row, err := lockedByID.of(a).one(ctx, s, account.ErrNotFound)
	return row.account(), err
}

func (s accountStore) Save(ctx context.Context, a *account.Account) (err error) {
	defer errs.Wrap(&err, "save account %s", a.ID)
	row := toAccountRow(*a)
	row.Version++
	if h := s.held(); h != nil {
		h.forget(a.ID)
	}
	if err := s.later(ctx, saveAccount.of(row, a.ID, a.Version)); err != nil {
		return err
	}
	a.Version = row.Version
	return nil
}

// List walks the primary key backwards until the page is full. A text that hardly any account contains
// reads them all, which a person at a search box can wait for.
func (s accountStore) List(ctx context.Context, f account.Filter, r page.Request) (_ page.Page[account.Account], err error) {
	defer errs.Wrap(&err, "list accounts")
	q := newest[account.Account](stores(s).all(ctx), r)
	if f.Status != "" {
		q = q.Where("status = ?", string(f.Status))
	}
	if f.Level != "" {
		q = q.Where("EXISTS (SELECT FROM subscriptions s WHERE s.account_id = accounts.id AND s.status = 'active' AND s.plan_code = ?)", f.Level)
	}
	if f.ExternalID != "" {
		q = q.Where("id = (SELECT x.account_id FROM account_external_ids x WHERE x.external_id = ?)", f.ExternalID)
	}
	if f.Text != "" {
		part := "%" + likeEscapes.Replace(f.Text) + "%"
		q = q.Where("(name ILIKE ? OR external_id ILIKE ?)", part, part)
	}
	list, err := find(q, accountRow.account)
	return page.Cut(list, r.Limit, func(a account.Account) string { return a.ID.String() }), err
}

// likeEscapes takes their meaning from the characters that LIKE gives one.
var likeEscapes = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func (s accountStore) Profile(ctx context.Context, a account.ID) (_ account.Profile, err error) {
	defer errs.Wrap(&err, "billing profile of %s", a)
	var row profileRow
	if err := stores(s).of(ctx, a).Take(&row).Error; err != nil {
		return account.Profile{}, notFound(err, account.ErrNoProfile)
	}
	p := account.Profile{Name: row.Name, Email: row.Email, TaxID: row.TaxID, UpdatedAt: row.UpdatedAt.UTC(), Version: row.Version}
	return p, json.Unmarshal(row.Address, &p.Address)
}

func (s accountStore) SaveProfile(ctx context.Context, a account.ID, p *account.Profile) (err error) {
	defer errs.Wrap(&err, "save billing profile of %s", a)
	address, err := json.Marshal(p.Address)
	if err != nil {
		return err
	}
	row := profileRow{AccountID: a.UUID(), Name: p.Name, Email: p.Email, Address: address, TaxID: p.TaxID, UpdatedAt: p.UpdatedAt, Version: p.Version + 1}
	if p.Version == 0 {
		if err := s.db.WithContext(ctx).Create(&row).Error; err != nil {
			return taken(err, account.ErrStale)
		}
	} else {
		res := stores(s).of(ctx, a).Model(&profileRow{}).Where("version = ?", p.Version).
			Select("name", "email", "address", "tax_id", "updated_at", "version").Updates(&row)
		if res.Error != nil {
			return translate(res.Error)
		}
		if res.RowsAffected == 0 {
			return account.ErrStale
		}
	}
	p.Version = row.Version
	return nil
}

func (s accountStore) Audit(ctx context.Context, a account.ID, e account.Entry) (err error) {
	defer errs.Wrap(&err, "audit %s of %s", e.Action, a)
	if e.ID.IsZero() {
		e.ID = id.New[account.Entry]()
	}
	if e.Detail == nil {
		e.Detail = json.RawMessage(`{}`)
	}
	if a.IsZero() {
		row := operatorAuditRow{ID: e.ID.UUID(), Actor: e.Actor, Action: e.Action, Reason: e.Reason, Detail: e.Detail, At: e.At}
		return translate(s.db.WithContext(ctx).Create(&row).Error)
	}
	return s.later(ctx, auditEntries.insert(auditRow{
		AccountID: a.UUID(), ID: e.ID.UUID(), Actor: e.Actor, Action: e.Action, Reason: e.Reason, Detail: e.Detail, At: e.At,
	}))
}

func (s accountStore) AuditLog(ctx context.Context, a account.ID, r page.Request) (_ page.Page[account.Entry], err error) {
	defer errs.Wrap(&err, "audit log of %s", a)
	var list []account.Entry
	if a.IsZero() {
		list, err = find(newest[account.Entry](stores(s).all(ctx), r), operatorAuditRow.entry)
	} else {
		list, err = find(newest[account.Entry](stores(s).of(ctx, a), r), auditRow.entry)
	}
	return page.Cut(list, r.Limit, func(e account.Entry) string { return e.ID.String() }), err
}

// audited takes a page from each of the two tables, along their keys, and merges them.
const audited = `
	SELECT * FROM (
		(SELECT account_id, id, actor, action, reason, detail, at FROM audit_entries
		 WHERE (CAST(@after AS uuid) IS NULL OR id < CAST(@after AS uuid)) AND (CAST(@account AS uuid) IS NULL OR account_id = CAST(@account AS uuid))
		   AND (@actor = '' OR actor = @actor) AND (@action = '' OR action = @action) ORDER BY id DESC LIMIT @limit)
		UNION ALL
		(SELECT '00000000-0000-0000-0000-000000000000', id, actor, action, reason, detail, at FROM operator_audit_entries
		 WHERE CAST(@account AS uuid) IS NULL AND (CAST(@after AS uuid) IS NULL OR id < CAST(@after AS uuid))
		   AND (@actor = '' OR actor = @actor) AND (@action = '' OR action = @action) ORDER BY id DESC LIMIT @limit)
	) entries ORDER BY id DESC LIMIT @limit`

func (s accountStore) Audited(ctx context.Context, f account.EntryFilter, r page.Request) (_ page.Page[account.Entry], err error) {
	defer errs.Wrap(&err, "audit log")
	param := map[string]any{"after": nil, "account": nil, "actor": f.Actor, "action": f.Action, "limit": r.Limit + 1}
	if after, perr := id.Parse[account.Entry](r.After); perr == nil {
		param["after"] = after.UUID()
	}
	if !f.Account.IsZero() {
		param["account"] = f.Account.UUID()
	}
	list, err := find(stores(s).all(ctx).Raw(audited, param), auditRow.entry)
	return page.Cut(list, r.Limit, func(e account.Entry) string { return e.ID.String() }), err
}
