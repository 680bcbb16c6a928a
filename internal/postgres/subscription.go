package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

type subscriptionRow struct {
	AccountID   account.ID      `gorm:"primaryKey"`
	ID          subscription.ID `gorm:"primaryKey"`
	PlanCode    string
	PlanVersion int
	ContractID  subscription.ContractID
	Status      string
	Anchor      time.Time `gorm:"type:date"`
	TimeZone    string
	Interval    string
	PeriodIndex int
	PeriodStart time.Time
	PeriodEnd   time.Time
	NextPlan    *string
	NextVersion *int
	Waived      []byte    `gorm:"type:jsonb"`
	Held        []byte    `gorm:"type:jsonb"`
	CreatedAt   time.Time `gorm:"autoCreateTime:false"`
	UpdatedAt   time.Time `gorm:"autoUpdateTime:false"`
	Version     int64
}

func (subscriptionRow) TableName() string { return "subscriptions" }

var (
	subscriptions      = tableOf[subscriptionRow]()
	activeSubscription = subscriptions.read("AND status = 'active'", "account_id").beforehand()
	lockedSubscription = activeSubscription.locked()
)

func toSubscriptionRow(s subscription.Subscription) (subscriptionRow, error) {
	waived, err := marshalWaived(s.Waived)
	if err != nil {
		return subscriptionRow{}, err
	}
	held, err := marshalHeld(s.Held)
	if err != nil {
		return subscriptionRow{}, err
	}
	d := s.Schedule.Anchor
	return subscriptionRow{
		AccountID: s.Account, ID: s.ID, PlanCode: string(s.Plan), PlanVersion: s.Terms.Version, ContractID: s.Contract,
		Status: string(s.Status), Anchor: time.Date(d.Year, d.Month, d.Day, 0, 0, 0, 0, time.UTC),
		TimeZone: s.Schedule.Zone.String(), Interval: string(s.Schedule.Interval), PeriodIndex: s.Index,
		PeriodStart: s.Period.Start, PeriodEnd: s.Period.End, NextPlan: textOrNil(string(s.NextPlan)), NextVersion: numberOrNil(s.NextVersion), Waived: waived, Held: held,
		CreatedAt: s.CreatedAt, UpdatedAt: s.UpdatedAt, Version: s.Revision,
	}, nil
}

func (r subscriptionRow) subscription() (subscription.Subscription, error) {
	zone, err := period.LoadZone(r.TimeZone)
	if err != nil {
		return subscription.Subscription{}, err
	}
	waived, err := unmarshalWaived(r.Waived)
	if err != nil {
		return subscription.Subscription{}, err
	}
	held, err := unmarshalHeld(r.Held)
	if err != nil {
		return subscription.Subscription{}, err
	}
	return subscription.Subscription{
		ID: r.ID, Account: r.AccountID, Terms: terms(r.PlanCode, r.PlanVersion, r.ContractID), Status: subscription.Status(r.Status),
		Schedule: period.Schedule{Anchor: period.DateOf(r.Anchor, time.UTC), Zone: zone, Interval: period.Interval(r.Interval)},
		Index:    r.PeriodIndex, Period: bounds(r.PeriodStart, r.PeriodEnd), NextPlan: plan.Code(textOf(r.NextPlan)), NextVersion: numberOf(r.NextVersion), Waived: waived, Held: held,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), Revision: r.Version,
	}, nil
}

type periodRow struct {
	AccountID      account.ID      `gorm:"primaryKey"`
	SubscriptionID subscription.ID `gorm:"primaryKey"`
	PeriodStart    time.Time       `gorm:"primaryKey"`
	PeriodEnd      time.Time
	Index          int
	PlanCode       string
	PlanVersion    int
	ContractID     subscription.ContractID
	Waived         []byte `gorm:"type:jsonb"`
	Held           []byte `gorm:"type:jsonb"`
	ClosedAt       *time.Time
}

func (periodRow) TableName() string { return "billing_periods" }

func toPeriodRow(p subscription.Period) (periodRow, error) {
	waived, err := marshalWaived(p.Waived)
	if err != nil {
		return periodRow{}, err
	}
	held, err := marshalHeld(p.Held)
	return periodRow{
		AccountID: p.Account, SubscriptionID: p.Subscription, PeriodStart: p.Bounds.Start, PeriodEnd: p.Bounds.End, Index: p.Index,
		PlanCode: string(p.Plan), PlanVersion: p.Version, ContractID: p.Contract, Waived: waived, Held: held, ClosedAt: timeOrNil(p.ClosedAt),
	}, err
}

func (r periodRow) period() (subscription.Period, error) {
	waived, err := unmarshalWaived(r.Waived)
	if err != nil {
		return subscription.Period{}, err
	}
	held, err := unmarshalHeld(r.Held)
	return subscription.Period{
		Account: r.AccountID, Subscription: r.SubscriptionID, Index: r.Index, Bounds: bounds(r.PeriodStart, r.PeriodEnd),
		Terms: terms(r.PlanCode, r.PlanVersion, r.ContractID), Waived: waived, Held: held, ClosedAt: timeOf(r.ClosedAt),
	}, err
}

type contractRow struct {
	AccountID   account.ID              `gorm:"primaryKey"`
	ID          subscription.ContractID `gorm:"primaryKey"`
	PlanCode    string
	PlanVersion int
	Definition  []byte `gorm:"type:jsonb"`
	StartsAt    time.Time
	EndsAt      *time.Time
	CreatedAt   time.Time `gorm:"autoCreateTime:false"`
	EndedAt     *time.Time
}

func (contractRow) TableName() string { return "contracts" }

func (r contractRow) contract() (subscription.Contract, error) {
	c := subscription.Contract{ID: r.ID, Account: r.AccountID, CreatedAt: r.CreatedAt.UTC(), EndedAt: timeOf(r.EndedAt)}
	return c, json.Unmarshal(r.Definition, &c.Definition)
}

func terms(code string, version int, c subscription.ContractID) subscription.Terms {
	return subscription.Terms{Plan: plan.Code(code), Version: version, Contract: c}
}

func bounds(start, end time.Time) period.Bounds {
	return period.Bounds{Start: start.UTC(), End: end.UTC()}
}

func marshalWaived(w map[string]money.Decimal) ([]byte, error) {
	if w == nil {
		return []byte(`{}`), nil
	}
	return json.Marshal(w)
}

func unmarshalWaived(b []byte) (map[string]money.Decimal, error) {
	w := map[string]money.Decimal{}
	return w, json.Unmarshal(b, &w)
}

// holdingRow is the stored form of a subscription.Holding.
type holdingRow struct {
	Plan     string                   `json:"plan"`
	Version  int                      `json:"version"`
	Contract *subscription.ContractID `json:"contract,omitempty"`
	From     time.Time                `json:"from"`
	Until    time.Time                `json:"until"`
}

func marshalHeld(held []subscription.Holding) ([]byte, error) {
	rows := make([]holdingRow, len(held))
	for i, h := range held {
		rows[i] = holdingRow{Plan: string(h.Plan), Version: h.Version, From: h.Time.Start.UTC(), Until: h.Time.End.UTC()}
		if !h.Contract.IsZero() {
			rows[i].Contract = new(h.Contract)
		}
	}
	return json.Marshal(rows)
}

func unmarshalHeld(b []byte) ([]subscription.Holding, error) {
	var rows []holdingRow
	if err := json.Unmarshal(b, &rows); err != nil || len(rows) == 0 {
		return nil, err
	}
	held := make([]subscription.Holding, len(rows))
	for i, r := range rows {
		var contract subscription.ContractID
		if r.Contract != nil {
			contract = *r.Contract
		}
		held[i] = subscription.Holding{Terms: terms(r.Plan, r.Version, contract), Time: bounds(r.From, r.Until)}
	}
	return held, nil
}

type subscriptionStore stores

var _ subscription.Store = subscriptionStore{}

func (s subscriptionStore) Create(ctx context.Context, sub subscription.Subscription) (err error) {
	defer errs.Wrap(&err, "create subscription %s", sub.ID)
	row, err := toSubscriptionRow(sub)
	if err != nil {
		return err
	}
	if err := s.db.WithContext(ctx).Create(&row).Error; err != nil {
		return translate(err)
	}
	return s.open(ctx, sub.Opened())
}

func (s subscriptionStore) open(ctx context.Context, p subscription.Period) error {
	row, err := toPeriodRow(p)
	if err != nil {
		return err
	}
	return taken(s.db.WithContext(ctx).Create(&row).Error, subscription.ErrPeriodClosed)
}

func (s subscriptionStore) Active(ctx context.Context, a account.ID) (_ subscription.Subscription, err error) {
	defer errs.Wrap(&err, "subscription of %s", a)
	return s.active(ctx, activeSubscription.of(a))
}

func (s subscriptionStore) ActiveOf(ctx context.Context, as []account.ID) (_ map[account.ID]subscription.Subscription, err error) {
	defer errs.Wrap(&err, "subscriptions of %d accounts", len(as))
	list, err := findEach(stores(s).all(ctx).Where("account_id IN ? AND status = ?", as, string(subscription.Active)), subscriptionRow.subscription)
	out := make(map[account.ID]subscription.Subscription, len(list))
	for _, sub := range list {
		out[sub.Account] = sub
	}
	return out, err
}

func (s subscriptionStore) Lock(ctx context.Context, a account.ID) (_ subscription.Subscription, err error) {
	defer errs.Wrap(&err, "lock subscription of %s", a)
	return s.active(ctx, lockedSubscription.of(a))
}

func (s subscriptionStore) active(ctx context.Context, q query[subscriptionRow]) (subscription.Subscription, error) {
	row, err := q.one(ctx, s, subscription.ErrNotFound)
	if err != nil {
		return subscription.Subscription{}, err
	}
	return row.subscription()
}

func (s subscriptionStore) Save(ctx context.Context, sub *subscription.Subscription) (err error) {
	defer errs.Wrap(&err, "save subscription %s", sub.ID)
	row, err := toSubscriptionRow(*sub)
	if err != nil {
		return err
	}
	row.Version++
	err = changed(stores(s).of(ctx, sub.Account).Model(&subscriptionRow{}).Where("id = ? AND version = ?", sub.ID, sub.Revision).
		Select("plan_code", "plan_version", "contract_id", "status", "anchor", "time_zone", "interval", "period_index", "period_start",
			"period_end", "next_plan", "next_version", "waived", "held", "updated_at", "version").Updates(&row), account.ErrStale)
	if err != nil {
		return err
	}
	open, err := toPeriodRow(sub.Opened())
	if err != nil {
		return err
	}
	// No row is no fault: a period that is only just beginning is opened by ClosePeriod.
	res := stores(s).of(ctx, sub.Account).Model(&periodRow{}).
		Where("subscription_id = ? AND period_start = ? AND closed_at IS NULL", sub.ID, sub.Period.Start).
		Select("plan_code", "plan_version", "contract_id", "waived", "held").Updates(&open)
	if res.Error != nil {
		return translate(res.Error)
	}
	sub.Revision = row.Version
	return nil
}

func (s subscriptionStore) ClosePeriod(ctx context.Context, p, next subscription.Period) (err error) {
	defer errs.Wrap(&err, "close period %s of %s", p.Bounds, p.Subscription)
	if p.ClosedAt.IsZero() {
		return errors.New("no time of closing")
	}
	last := next.Account.IsZero()
	if !last && (next.Account != p.Account || next.Subscription != p.Subscription || !next.Bounds.Start.Equal(p.Bounds.End) || next.Index != p.Index+1) {
		return fmt.Errorf("period %d %s of %s does not follow", next.Index, next.Bounds, next.Subscription)
	}
	row, err := toPeriodRow(p)
	if err != nil {
		return err
	}
	err = changed(stores(s).of(ctx, p.Account).Model(&periodRow{}).
		Where("subscription_id = ? AND period_start = ? AND closed_at IS NULL", p.Subscription, p.Bounds.Start).
		Select("plan_code", "plan_version", "contract_id", "waived", "held", "closed_at").Updates(&row), subscription.ErrPeriodClosed)
	if err != nil || last {
		return err
	}
	return s.open(ctx, next)
}

func (s subscriptionStore) Periods(ctx context.Context, a account.ID, limit int) (_ []subscription.Period, err error) {
	defer errs.Wrap(&err, "periods of %s", a)
	return findEach(stores(s).of(ctx, a).Order("period_start DESC").Limit(limit), periodRow.period)
}

func (s subscriptionStore) Period(ctx context.Context, a account.ID, start time.Time) (_ subscription.Period, err error) {
	defer errs.Wrap(&err, "period of %s from %s", a, start)
	row, err := take[periodRow](stores(s).of(ctx, a).Where("period_start = ?", start), subscription.ErrNotFound)
	if err != nil {
		return subscription.Period{}, err
	}
	return row.period()
}

// Two branches, so that the one for accounts in real time can go by the index on the period's end; the
// other goes by the index of test clocks, of which a live deployment has none.
const dueSubscriptions = `
	SELECT s.account_id, s.period_end FROM subscriptions s JOIN accounts a ON a.id = s.account_id
	WHERE s.status = 'active' AND a.clock_at IS NULL AND s.period_end <= @now AND (s.period_end, s.account_id) > (@due, @account)
	UNION ALL
	SELECT s.account_id, s.period_end FROM subscriptions s JOIN accounts a ON a.id = s.account_id
	WHERE s.status = 'active' AND a.clock_at IS NOT NULL AND s.period_end <= a.clock_at AND (s.period_end, s.account_id) > (@due, @account)
	ORDER BY period_end, account_id LIMIT @limit`

func (s subscriptionStore) Due(ctx context.Context, now time.Time, after subscription.Due, limit int) (_ []subscription.Due, err error) {
	defer errs.Wrap(&err, "due subscriptions")
	type row struct {
		AccountID account.ID
		PeriodEnd time.Time
	}
	q := stores(s).all(ctx).Raw(dueSubscriptions, map[string]any{
		"now": now, "limit": limit, "due": after.PeriodEnd, "account": after.Account.UUID(),
	})
	return find(q, func(r row) subscription.Due {
		return subscription.Due{Account: r.AccountID, PeriodEnd: r.PeriodEnd.UTC()}
	})
}

func (s subscriptionStore) CreateContract(ctx context.Context, c subscription.Contract) (err error) {
	defer errs.Wrap(&err, "create contract %s", c.ID)
	definition, err := json.Marshal(c.Definition)
	if err != nil {
		return err
	}
	return translate(s.db.WithContext(ctx).Create(&contractRow{
		AccountID: c.Account, ID: c.ID, PlanCode: string(c.Definition.Plan), PlanVersion: c.Definition.Version, Definition: definition,
		StartsAt: c.Definition.Start, EndsAt: timeOrNil(c.Definition.End), CreatedAt: c.CreatedAt, EndedAt: timeOrNil(c.EndedAt),
	}).Error)
}

func (s subscriptionStore) Contract(ctx context.Context, a account.ID, id subscription.ContractID) (_ subscription.Contract, err error) {
	defer errs.Wrap(&err, "contract %s of %s", id, a)
	row, err := take[contractRow](stores(s).of(ctx, a).Where("id = ?", id), subscription.ErrContractNotFound)
	if err != nil {
		return subscription.Contract{}, err
	}
	return row.contract()
}

func (s subscriptionStore) Contracts(ctx context.Context, a account.ID) (_ []subscription.Contract, err error) {
	defer errs.Wrap(&err, "contracts of %s", a)
	return findEach(stores(s).of(ctx, a).Order("starts_at, id"), contractRow.contract)
}

func (s subscriptionStore) EndContract(ctx context.Context, a account.ID, id subscription.ContractID, at time.Time) (err error) {
	defer errs.Wrap(&err, "end contract %s of %s", id, a)
	res := stores(s).of(ctx, a).Model(&contractRow{}).Where("id = ? AND ended_at IS NULL", id).Update("ended_at", at)
	if res.Error != nil || res.RowsAffected == 1 {
		return translate(res.Error)
	}
	_, err = s.Contract(ctx, a, id)
	return err
}

func (s subscriptionStore) OnPlan(ctx context.Context, code plan.Code) (_ map[int]int, err error) {
	defer errs.Wrap(&err, "count agreements on %s", code)
	var rows []struct{ PlanVersion, Accounts int }
	err = stores(s).all(ctx).Table("subscriptions").Select("plan_version, count(*) AS accounts").
		Where("status = ? AND plan_code = ?", subscription.Active, code).Group("plan_version").Find(&rows).Error
	out := make(map[int]int, len(rows))
	for _, r := range rows {
		out[r.PlanVersion] = r.Accounts
	}
	return out, translate(err)
}

func (s subscriptionStore) OnOtherVersions(ctx context.Context, code plan.Code, number int, after account.ID, limit int) (_ []account.ID, err error) {
	defer errs.Wrap(&err, "agreements on other versions of %s than %d", code, number)
	type row struct{ AccountID account.ID }
	q := stores(s).all(ctx).Table("subscriptions").Select("account_id").
		Where("status = ? AND plan_code = ? AND plan_version <> ? AND account_id > ?", subscription.Active, code, number, after.UUID()).
		Order("account_id").Limit(limit)
	return find(q, func(r row) account.ID { return r.AccountID })
}
