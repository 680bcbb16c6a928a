package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/outbox"
)

// EventsChannel is where a committed event is announced, as "account uuid:sequence", to every session
// that listens on the same node. A listener may miss one (it was not connected), so it polls too.
const EventsChannel = "accrue_events"

type eventRow struct {
	AccountID  account.ID `gorm:"primaryKey"`
	Sequence   int64      `gorm:"primaryKey;autoIncrement:false"`
	ID         outbox.ID
	Type       string
	Payload    []byte `gorm:"type:jsonb"`
	OccurredAt time.Time
}

func (eventRow) TableName() string { return "account_events" }

func (r eventRow) event() outbox.Event {
	return outbox.Event{
		ID: r.ID, Account: r.AccountID, Sequence: r.Sequence, Type: outbox.Type(r.Type), Payload: r.Payload, OccurredAt: r.OccurredAt.UTC(),
	}
}

type outboxStore stores

var _ outbox.Store = outboxStore{}

func (s outboxStore) Publish(ctx context.Context, a account.ID, t outbox.Type, payload any, at time.Time) (err error) {
	defer errs.Wrap(&err, "publish %s of %s", t, a)
	body, err := object(payload)
	if err != nil {
		return err
	}
	var next struct{ Events int64 }
	db := s.db.WithContext(ctx)
	res := db.Raw("UPDATE account_counters SET events = events + 1 WHERE account_id = ? RETURNING events", a).Scan(&next)
	if err := changed(res, account.ErrNotFound); err != nil {
		return err
	}
	row := eventRow{a, next.Events, id.New[outbox.Event](), string(t), body, at}
	if err := db.Create(&row).Error; err != nil {
		return translate(err)
	}
	return translate(db.Exec("SELECT pg_notify(?, ?)", EventsChannel, fmt.Sprintf("%s:%d", a.UUID(), next.Events)).Error)
}

func (s outboxStore) After(ctx context.Context, a account.ID, after int64, limit int) (_ []outbox.Event, err error) {
	defer errs.Wrap(&err, "events of %s after %d", a, after)
	return find(stores(s).of(ctx, a).Where("sequence > ?", after).Order("sequence").Limit(limit), eventRow.event)
}

func (s outboxStore) Newest(ctx context.Context, a account.ID) (_ int64, err error) {
	defer errs.Wrap(&err, "newest event of %s", a)
	var counters struct{ Events int64 }
	res := s.db.WithContext(ctx).Raw("SELECT events FROM account_counters WHERE account_id = ?", a).Scan(&counters)
	return counters.Events, changed(res, account.ErrNotFound)
}

// object marshals what must be a JSON object.
func object(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 || b[0] != '{' {
		return nil, fmt.Errorf("%T does not marshal to a JSON object", v)
	}
	return b, nil
}
