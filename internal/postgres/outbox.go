package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/outbox"
)

// EventsChannel is where committed events are announced, as "account uuid:sequence of the last", to every session
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

var accountEvents = tableOf[eventRow]()

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
	return s.publish(ctx, eventRow{AccountID: a, ID: id.New[outbox.Event](), Type: string(t), Payload: body, OccurredAt: at})
}

// The event's number is the counter's, which is the account's own: whoever writes holds it until the commit.
// Without a counter there is no number, which the column refuses. Events of one account name it once, so that
// a cluster of shards sends the statement where the account is.
const (
	writeEvents = `
WITH counted AS (UPDATE account_counters SET events = events + $2 WHERE account_id = $1 RETURNING events)
INSERT INTO account_events (account_id, sequence, id, type, payload, occurred_at)
SELECT $1, c.events - $2 + e.number, e.id, e.type, e.payload, e.occurred_at
FROM unnest($3::uuid[], $4::text[], $5::jsonb[], $6::timestamptz[]) WITH ORDINALITY AS e (id, type, payload, occurred_at, number)
LEFT JOIN counted c ON true`
	announceEvents = `SELECT pg_notify($1, account_id || ':' || events) FROM account_counters WHERE account_id = $2`

	writeEventsOfMany = `
WITH counted AS (
  UPDATE account_counters c SET events = c.events + n.events FROM unnest($1::uuid[], $2::integer[]) AS n (account_id, events)
  WHERE c.account_id = n.account_id RETURNING c.account_id, c.events - n.events AS before)
INSERT INTO account_events (account_id, sequence, id, type, payload, occurred_at)
SELECT e.account_id, c.before + e.number, e.id, e.type, e.payload, e.occurred_at
FROM unnest($3::uuid[], $4::integer[], $5::uuid[], $6::text[], $7::jsonb[], $8::timestamptz[]) AS e (account_id, number, id, type, payload, occurred_at)
LEFT JOIN counted c ON c.account_id = e.account_id`
	announceEventsOfMany = `SELECT pg_notify($1, account_id || ':' || events) FROM account_counters WHERE account_id = ANY ($2::uuid[])`
)

// announcing makes the statement that announces the last event of each account.
func announcing(events []eventRow) stmt {
	last := map[account.ID]int64{}
	for _, e := range events {
		last[e.AccountID] = e.Sequence
	}
	told := make([]string, 0, len(last))
	for a, n := range last {
		told = append(told, a.UUID().String()+":"+strconv.FormatInt(n, 10))
	}
	return stmt{sql: "SELECT pg_notify($1, told) FROM unnest($2::text[]) AS told", args: []any{EventsChannel, told}}
}

// publishing makes the statements that number and write events, in order within each account, and announce the last of each.
func publishing(events []eventRow) []stmt {
	if len(events) == 0 {
		return nil
	}
	n := len(events)
	owners, numbers := make([][16]byte, n), make([]int, n)
	ids, types, payloads, times := make([][16]byte, n), make([]string, n), make([]json.RawMessage, n), make([]time.Time, n)
	var accounts [][16]byte
	counts := map[[16]byte]int{}
	for i, e := range events {
		a := [16]byte(e.AccountID.UUID())
		if counts[a]++; counts[a] == 1 {
			accounts = append(accounts, a)
		}
		owners[i], numbers[i] = a, counts[a]
		ids[i], types[i], payloads[i], times[i] = e.ID.UUID(), e.Type, e.Payload, e.OccurredAt
	}
	write := stmt{sql: writeEvents, args: []any{accounts[0], n, ids, types, payloads, times}}
	announce := stmt{sql: announceEvents, args: []any{EventsChannel, accounts[0]}}
	if len(accounts) > 1 {
		of := make([]int, len(accounts))
		for i, a := range accounts {
			of[i] = counts[a]
		}
		write = stmt{sql: writeEventsOfMany, args: []any{accounts, of, owners, numbers, ids, types, payloads, times}}
		announce = stmt{sql: announceEventsOfMany, args: []any{EventsChannel, accounts}}
	}
	write.done = func(_ pgconn.CommandTag, err error) error {
		if sqlState(err) == notNullViolation {
			return account.ErrNotFound
		}
		return translate(err)
	}
	return []stmt{write, announce}
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
