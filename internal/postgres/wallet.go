package postgres

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/wallet"
)

type grantRow struct {
	AccountID account.ID     `gorm:"primaryKey"`
	ID        wallet.GrantID `gorm:"primaryKey"`
	Amount    int64
	Remaining int64
	Currency  string
	Priority  int
	Reason    string
	Actor     string
	GrantedAt time.Time
	ExpiresAt *time.Time
	ExpiredAt *time.Time
}

func (grantRow) TableName() string { return "credit_grants" }

var grants = tableOf[grantRow]()

func toGrantRow(g wallet.Grant) grantRow {
	return grantRow{
		g.Account, g.ID, g.Amount.Minor, g.Remaining.Minor, string(g.Amount.Currency), g.Priority, g.Reason, g.Actor, g.GrantedAt,
		timeOrNil(g.ExpiresAt), timeOrNil(g.ExpiredAt),
	}
}

func (r grantRow) grant() wallet.Grant {
	return wallet.Grant{
		ID: r.ID, Account: r.AccountID, Amount: minor(r.Amount, r.Currency), Remaining: minor(r.Remaining, r.Currency), Priority: r.Priority,
		Reason: r.Reason, Actor: r.Actor, GrantedAt: r.GrantedAt.UTC(), ExpiresAt: timeOf(r.ExpiresAt), ExpiredAt: timeOf(r.ExpiredAt),
	}
}

type autoTopUpRow struct {
	AccountID      account.ID `gorm:"primaryKey"`
	Enabled        bool
	Currency       string
	Threshold      int64
	Target         int64
	MonthlyCeiling *int64
	State          string
	TrippedReason  string
	TrippedAt      *time.Time
	HeldUntil      *time.Time
	UpdatedAt      time.Time `gorm:"autoUpdateTime:false"`
	Version        int64
}

func (autoTopUpRow) TableName() string { return "auto_top_ups" }

// The states of an automatic top-up's breaker.
const (
	breakerOK      = "ok"
	breakerTripped = "tripped"
)

func toAutoTopUpRow(t wallet.AutoTopUp) autoTopUpRow {
	row := autoTopUpRow{
		AccountID: t.Account, Enabled: t.Enabled, Currency: string(t.Target.Currency), Threshold: t.Threshold.Minor, Target: t.Target.Minor,
		State: breakerOK, TrippedReason: t.TrippedReason, TrippedAt: timeOrNil(t.TrippedAt), HeldUntil: timeOrNil(t.HeldUntil), UpdatedAt: t.UpdatedAt, Version: t.Version,
	}
	if t.MonthlyCeiling != nil {
		row.MonthlyCeiling = &t.MonthlyCeiling.Minor
	}
	if t.Tripped {
		row.State = breakerTripped
	}
	return row
}

func (r autoTopUpRow) autoTopUp() wallet.AutoTopUp {
	t := wallet.AutoTopUp{
		Account: r.AccountID, Enabled: r.Enabled, Threshold: minor(r.Threshold, r.Currency), Target: minor(r.Target, r.Currency),
		Tripped: r.State == breakerTripped, TrippedReason: r.TrippedReason, TrippedAt: timeOf(r.TrippedAt), HeldUntil: timeOf(r.HeldUntil),
		UpdatedAt: r.UpdatedAt.UTC(), Version: r.Version,
	}
	if r.MonthlyCeiling != nil {
		c := minor(*r.MonthlyCeiling, r.Currency)
		t.MonthlyCeiling = &c
	}
	return t
}

type walletStore stores

var _ wallet.Store = walletStore{}

func (s walletStore) CreateGrant(ctx context.Context, g wallet.Grant) (err error) {
	defer errs.Wrap(&err, "create grant %s", g.ID)
	return s.later(ctx, grants.insert(toGrantRow(g)))
}

func (s walletStore) Unspent(ctx context.Context, a account.ID) (_ []wallet.Grant, err error) {
	defer errs.Wrap(&err, "unspent grants of %s", a)
	return find(stores(s).of(ctx, a).Where("remaining > 0").Order("id"), grantRow.grant)
}

func (s walletStore) Grant(ctx context.Context, a account.ID, id wallet.GrantID) (_ wallet.Grant, err error) {
	defer errs.Wrap(&err, "grant %s of %s", id, a)
	row, err := take[grantRow](stores(s).of(ctx, a).Where("id = ?", id), wallet.ErrGrantNotFound)
	return row.grant(), err
}

func (s walletStore) Grants(ctx context.Context, a account.ID, r page.Request) (_ page.Page[wallet.Grant], err error) {
	defer errs.Wrap(&err, "grants of %s", a)
	list, err := find(newest[wallet.Grant](stores(s).of(ctx, a), r), grantRow.grant)
	return page.Cut(list, r.Limit, func(g wallet.Grant) string { return g.ID.String() }), err
}

func (s walletStore) SaveGrant(ctx context.Context, g wallet.Grant) (err error) {
	defer errs.Wrap(&err, "save grant %s", g.ID)
	row := toGrantRow(g)
	return changed(stores(s).of(ctx, g.Account).Model(&grantRow{}).Where("id = ?", g.ID).
		Select("remaining", "expired_at").Updates(&row), wallet.ErrGrantNotFound)
}

// The two branches are those of dueSubscriptions.
var dueGrants = `
	SELECT ` + namesIn("g", grants.columns) + ` FROM credit_grants g JOIN accounts a ON a.id = g.account_id
	WHERE g.remaining > 0 AND g.expires_at IS NOT NULL AND a.clock_at IS NULL AND g.expires_at <= @now
		AND (g.expires_at, g.account_id, g.id) > (@due, @account, @grant)
	UNION ALL
	SELECT ` + namesIn("g", grants.columns) + ` FROM credit_grants g JOIN accounts a ON a.id = g.account_id
	WHERE g.remaining > 0 AND g.expires_at IS NOT NULL AND a.clock_at IS NOT NULL AND g.expires_at <= a.clock_at
		AND (g.expires_at, g.account_id, g.id) > (@due, @account, @grant)
	ORDER BY expires_at, account_id, id LIMIT @limit`

func (s walletStore) Expiring(ctx context.Context, now time.Time, after wallet.Grant, limit int) (_ []wallet.Grant, err error) {
	defer errs.Wrap(&err, "expiring grants")
	return find(s.db.WithContext(ctx).Raw(dueGrants, map[string]any{
		"now": now, "limit": limit, "due": after.ExpiresAt, "account": after.Account.UUID(), "grant": after.ID.UUID(),
	}), grantRow.grant)
}

func (s walletStore) AutoTopUp(ctx context.Context, a account.ID) (_ wallet.AutoTopUp, err error) {
	defer errs.Wrap(&err, "automatic top-up of %s", a)
	row, err := take[autoTopUpRow](stores(s).of(ctx, a), wallet.ErrNoAutoTopUp)
	if err != nil {
		return wallet.AutoTopUp{}, err
	}
	return row.autoTopUp(), nil
}

func (s walletStore) SaveAutoTopUp(ctx context.Context, t *wallet.AutoTopUp) (err error) {
	defer errs.Wrap(&err, "save automatic top-up of %s", t.Account)
	row := toAutoTopUpRow(*t)
	row.Version++
	if t.Version == 0 {
		err = taken(s.db.WithContext(ctx).Create(&row).Error, account.ErrStale)
	} else {
		err = changed(stores(s).of(ctx, t.Account).Model(&autoTopUpRow{}).Where("version = ?", t.Version).
			Select("*").Omit("account_id").Updates(&row), account.ErrStale)
	}
	if err == nil {
		t.Version = row.Version
	}
	return err
}

func (s walletStore) HoldAutoTopUp(ctx context.Context, t wallet.AutoTopUp) (err error) {
	defer errs.Wrap(&err, "hold automatic top-up of %s", t.Account)
	return translate(stores(s).of(ctx, t.Account).Model(&autoTopUpRow{}).Where("version = ?", t.Version).
		UpdateColumn("held_until", timeOrNil(t.HeldUntil)).Error)
}

// The two branches are those of dueSubscriptions.
const heldTopUps = `
	SELECT r.* FROM auto_top_ups r JOIN accounts a ON a.id = r.account_id
	WHERE r.held_until IS NOT NULL AND r.enabled AND r.state = 'ok' AND a.clock_at IS NULL AND r.held_until <= @now
		AND (r.held_until, r.account_id) > (@due, @account)
	UNION ALL
	SELECT r.* FROM auto_top_ups r JOIN accounts a ON a.id = r.account_id
	WHERE r.held_until IS NOT NULL AND r.enabled AND r.state = 'ok' AND a.clock_at IS NOT NULL AND r.held_until <= a.clock_at
		AND (r.held_until, r.account_id) > (@due, @account)
	ORDER BY held_until, account_id LIMIT @limit`

func (s walletStore) Held(ctx context.Context, now time.Time, after wallet.AutoTopUp, limit int) (_ []wallet.AutoTopUp, err error) {
	defer errs.Wrap(&err, "held automatic top-ups")
	return find(stores(s).all(ctx).Raw(heldTopUps, map[string]any{
		"now": now, "limit": limit, "due": after.HeldUntil, "account": after.Account.UUID(),
	}), autoTopUpRow.autoTopUp)
}
