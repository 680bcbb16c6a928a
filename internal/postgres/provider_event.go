package postgres

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/payment"
)

type providerEventRow struct {
	Provider    string `gorm:"primaryKey"`
	EventID     string `gorm:"primaryKey"`
	Type        string
	Object      string
	ObjectRef   string
	Payload     []byte // as it came, to the byte
	ReceivedAt  time.Time
	ProcessedAt *time.Time
	Attempts    int
	NextTryAt   *time.Time
	Outcome     string
}

func (providerEventRow) TableName() string { return "provider_events" }

var (
	providerEvents      = tableOf[providerEventRow]()
	lockedProviderEvent = providerEvents.read("", "provider", "event_id").locked()
	updateProviderEvent = providerEvents.update([]string{"provider", "event_id"}, "processed_at", "attempts", "next_try_at", "outcome").
				mustFind(payment.ErrNotFound)
	saveProviderEvent = newRows(providerEvents, "provider", "event_id")
)

func toProviderEventRow(e payment.ProviderEvent) providerEventRow {
	return providerEventRow{
		e.Provider, e.EventID, e.Type, string(e.Object), e.ObjectRef, e.Payload, e.ReceivedAt, timeOrNil(e.ProcessedAt), e.Attempts,
		timeOrNil(e.NextTryAt), e.Outcome,
	}
}

func (r providerEventRow) event() payment.ProviderEvent {
	return payment.ProviderEvent{
		Provider: r.Provider, EventID: r.EventID, Type: r.Type, Object: payment.ObjectKind(r.Object), ObjectRef: r.ObjectRef, Payload: r.Payload,
		ReceivedAt: r.ReceivedAt.UTC(), ProcessedAt: timeOf(r.ProcessedAt), Attempts: r.Attempts, NextTryAt: timeOf(r.NextTryAt), Outcome: r.Outcome,
	}
}

func (s paymentStore) SaveEvent(ctx context.Context, e payment.ProviderEvent) (fresh bool, err error) {
	defer errs.Wrap(&err, "save event %s of %s", e.EventID, e.Provider)
	save := providerEvents.write(saveProviderEvent, toProviderEventRow(e))
	save.take = []func(*value) error{func(*value) error {
		fresh = true
		return nil
	}}
	err = s.send(ctx, save)
	return fresh, err
}

func (s paymentStore) LockEvent(ctx context.Context, provider, eventID string) (_ payment.ProviderEvent, err error) {
	defer errs.Wrap(&err, "lock event %s of %s", eventID, provider)
	row, err := lockedProviderEvent.by(provider, eventID).one(ctx, s, payment.ErrNotFound)
	return row.event(), err
}

func (s paymentStore) UpdateEvent(ctx context.Context, e payment.ProviderEvent) (err error) {
	defer errs.Wrap(&err, "update event %s of %s", e.EventID, e.Provider)
	return s.later(ctx, updateProviderEvent.of(toProviderEventRow(e), e.Provider, e.EventID))
}

func (s paymentStore) PendingEvents(ctx context.Context, now time.Time, after payment.ProviderEvent, limit int) (_ []payment.ProviderEvent, err error) {
	defer errs.Wrap(&err, "pending provider events")
	return find(s.db.WithContext(ctx).Where("processed_at IS NULL AND (next_try_at IS NULL OR next_try_at <= ?)", now).
		Where("(received_at, event_id) > (?, ?)", after.ReceivedAt, after.EventID).
		Order("received_at, event_id").Limit(limit), providerEventRow.event)
}

// Another replica may be at it too: what it holds is passed over.
const dropProviderEvents = `
WITH old AS MATERIALIZED (
  SELECT provider, event_id FROM provider_events WHERE processed_at < ? ORDER BY processed_at LIMIT ? FOR UPDATE SKIP LOCKED)
DELETE FROM provider_events e USING old WHERE e.provider = old.provider AND e.event_id = old.event_id`

func (s paymentStore) DropEvents(ctx context.Context, t time.Time, limit int) (_ int, err error) {
	defer errs.Wrap(&err, "drop provider events of before %s", t)
	res := s.db.WithContext(ctx).Exec(dropProviderEvents, t, limit)
	return int(res.RowsAffected), translate(res.Error)
}
