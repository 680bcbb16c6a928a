package postgres

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
)

const reservationColumns = `r.account_id, r.id, r.meter, r.period_start, r.quantity::text, r.used::text, r.status, r.lease, r.reference,
  r.expires_at, r.created_at, r.settled_at, r.version`

// What a flush with operations on reservations reads and writes besides events.
var (
	sqlReservations = named(`
SELECT ` + reservationColumns + `
FROM unnest($1::uuid[], $2::uuid[]) AS u (account_id, id)
JOIN reservations r ON r.account_id = u.account_id AND r.id = u.id`)

	// The time, and what is overdue by it. It is read once and not for each row, so that the index of open
	// reservations is searched by it: what an account has settled does not matter.
	sqlOverdue = named(`
SELECT ` + reservationColumns + `, c.now
FROM (SELECT clock_timestamp() AS now) c
LEFT JOIN LATERAL (
  SELECT * FROM reservations r
  WHERE r.account_id = ANY ($1::uuid[]) AND r.status = 'open' AND r.expires_at <= c.now
  ORDER BY r.account_id, r.expires_at LIMIT 1000) r ON true`)

	// Asked every second. The time is read once here too, and for the same reason: else all open reservations are read.
	sqlHolders = `
SELECT DISTINCT account_id FROM reservations WHERE status = 'open' AND expires_at <= (SELECT clock_timestamp()) LIMIT $1`

	sqlAnswers = named(`
SELECT u.i, k.fingerprint, k.status::bigint, k.body
FROM unnest($1::uuid[], $2::text[], $3::text[]) WITH ORDINALITY AS u (account_id, scope, key, i)
JOIN idempotency_keys k ON k.account_id = u.account_id AND k.scope = u.scope AND k.key = u.key AND k.status IS NOT NULL`)

	sqlPutReservations = named(`
INSERT INTO reservations AS t (account_id, id, meter, period_start, quantity, used, status, lease, reference, expires_at,
                               created_at, settled_at, version)
SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::timestamptz[], $5::numeric[], $6::numeric[], $7::text[], $8::bool[],
                     $9::text[], $10::timestamptz[], $11::timestamptz[], $12::timestamptz[], $13::bigint[])
ON CONFLICT (account_id, id) DO UPDATE SET
  quantity = excluded.quantity, used = excluded.used, status = excluded.status, expires_at = excluded.expires_at,
  settled_at = excluded.settled_at, version = excluded.version`)

	sqlPutAnswers = named(`
INSERT INTO idempotency_keys (account_id, scope, key, fingerprint, status, body, locked_until, created_at, expires_at)
SELECT u.a, u.s, u.k, u.f, u.t::integer, u.b, $7, $7, $8
FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::bytea[]) AS u (a, s, k, f, t, b)`)
)

func newBytes(n int) *array { return newArray(pgtype.ByteaOID, n, 64) }
func newBools(n int) *array { return newArray(pgtype.BoolOID, n, 1) }

// one returns an array's only element as a parameter of its own.
func (a *array) one() []byte { return a.b[arrayHeader+4:] }

func reservationOf(v *value) (entitlement.Reservation, error) {
	r := entitlement.Reservation{
		Account: id.FromUUID[account.Account](v.uuid(0)), ID: id.FromUUID[entitlement.Reservation](v.uuid(1)), Meter: v.text(2),
		Period: v.time(3), Status: entitlement.ReservationStatus(v.text(6)), Lease: v.row[7][0] == 1, Reference: v.text(8),
		ExpiresAt: v.time(9), CreatedAt: v.time(10), Version: v.int8(12),
	}
	var err1, err2 error
	r.Quantity, err1 = stored(v.text(4))
	if !v.isNull(5) {
		r.Used, err2 = stored(v.text(5))
	}
	if !v.isNull(11) {
		r.SettledAt = v.time(11)
	}
	return r, errors.Join(err1, err2)
}

// queueReservationReads asks for what operations on reservations are decided by, if there are any.
func (f *flush) queueReservationReads(ctx context.Context, ask metering.Ask, known *metering.Known) error {
	if len(ask.Holders) == 0 {
		return nil
	}
	known.Reservations = make(map[metering.ReservationRef]entitlement.Reservation, len(ask.Reservations))
	known.Answers = map[metering.AnswerRef]metering.StoredAnswer{}
	holders := newUUIDs(len(ask.Holders))
	for _, a := range ask.Holders {
		holders.uuid(a.UUID())
	}
	accounts, ids := newUUIDs(len(ask.Reservations)), newUUIDs(len(ask.Reservations))
	for _, r := range ask.Reservations {
		accounts.uuid(r.Account.UUID())
		ids.uuid(r.ID.UUID())
	}
	err := errors.Join(
		f.queue(ctx, sqlReservations, func(v *value) error {
			r, err := reservationOf(v)
			known.Reservations[metering.ReservationRef{Account: r.Account, ID: r.ID}] = r
			return err
		}, accounts.b, ids.b),
		f.queue(ctx, sqlOverdue, func(v *value) error {
			if known.Now = v.time(13); v.isNull(0) {
				return nil
			}
			r, err := reservationOf(v)
			known.Overdue = append(known.Overdue, r)
			return err
		}, holders.b),
	)
	if len(ask.Answers) == 0 {
		return err
	}
	n := len(ask.Answers)
	owners, scopes, keys := newUUIDs(n), newTexts(n), newTexts(n)
	for _, a := range ask.Answers {
		owners.uuid(a.Account.UUID())
		scopes.text(a.Scope)
		keys.text(a.Key)
	}
	return errors.Join(err, f.queue(ctx, sqlAnswers, func(v *value) error {
		ref := ask.Answers[v.int8(0)-1]
		a := metering.StoredAnswer{AnswerRef: ref, Answer: idempotency.Answer{Status: int(v.int8(2)), Body: append([]byte(nil), v.row[3]...)}}
		copy(a.Fingerprint[:], v.row[1])
		known.Answers[ref] = a
		return nil
	}, owners.b, scopes.b, keys.b))
}

func (f *flush) joinReservations(rs []entitlement.Reservation) {
	n := len(rs)
	if n == 0 {
		return
	}
	accounts, ids, meters, periods := newUUIDs(n), newUUIDs(n), newTexts(n), newTimes(n)
	quantities, used, statuses, leases := newNumerics(n), newNumerics(n), newTexts(n), newBools(n)
	references, expires, created, settled, versions := newTexts(n), newTimes(n), newTimes(n), newTimes(n), newInt8s(n)
	for i := range rs {
		r := &rs[i]
		accounts.uuid(r.Account.UUID())
		ids.uuid(r.ID.UUID())
		meters.text(r.Meter)
		periods.micros(r.Period.UnixMicro())
		quantities.numeric(r.Quantity.String())
		if r.Status == entitlement.Committed {
			used.numeric(r.Used.String())
		} else {
			used.null()
		}
		statuses.text(string(r.Status))
		leases.bool(r.Lease)
		references.text(r.Reference)
		expires.micros(r.ExpiresAt.UnixMicro())
		created.micros(r.CreatedAt.UnixMicro())
		if r.SettledAt.IsZero() {
			settled.null()
		} else {
			settled.micros(r.SettledAt.UnixMicro())
		}
		versions.int8(r.Version)
	}
	f.join(sqlPutReservations, accounts.b, ids.b, meters.b, periods.b, quantities.b, used.b, statuses.b, leases.b,
		references.b, expires.b, created.b, settled.b, versions.b)
}

func (f *flush) joinAnswers(w metering.Writes) {
	n := len(w.Answers)
	if n == 0 {
		return
	}
	accounts, scopes, keys := newUUIDs(n), newTexts(n), newTexts(n)
	fingerprints, statuses, bodies := newBytes(n), newInt8s(n), newBytes(n)
	for i := range w.Answers {
		a := &w.Answers[i]
		accounts.uuid(a.Account.UUID())
		scopes.text(a.Scope)
		keys.text(a.Key)
		fingerprints.bytes(a.Fingerprint[:])
		statuses.int8(int64(a.Status))
		bodies.bytes(a.Body)
	}
	now, until := newTimes(1), newTimes(1)
	now.micros(w.At.UnixMicro())
	until.micros(w.At.Add(idempotency.Kept).UnixMicro())
	f.join(sqlPutAnswers, accounts.b, scopes.b, keys.b, fingerprints.b, statuses.b, bodies.b, now.one(), until.one())
}

// reservationStore reads reservations, and lets go those whose time is over.
type reservationStore stores

var _ entitlement.Reservations = reservationStore{}

func (s reservationStore) Get(ctx context.Context, a account.ID, rid entitlement.ReservationID) (_ entitlement.Reservation, err error) {
	defer errs.Wrap(&err, "reservation %s", rid)
	found, err := s.query(ctx, `r.account_id = $1 AND r.id = $2`, mustOwner(a), rid.UUID())
	if err == nil && len(found) == 0 {
		err = entitlement.ErrReservationNotFound
	}
	if err != nil {
		return entitlement.Reservation{}, err
	}
	return found[0], nil
}

func (s reservationStore) List(ctx context.Context, a account.ID, status entitlement.ReservationStatus, r page.Request) (_ page.Page[entitlement.Reservation], err error) {
	defer errs.Wrap(&err, "reservations of %s", a)
	after := id.ID[entitlement.Reservation]{}
	if r.After != "" {
		if after, err = id.Parse[entitlement.Reservation](r.After); err != nil {
			return page.Page[entitlement.Reservation]{}, err
		}
	}
	found, err := s.query(ctx, `r.account_id = $1 AND r.id > $2 AND ($3 = '' OR r.status = $3) ORDER BY r.id LIMIT $4`,
		mustOwner(a), after.UUID(), string(status), r.Limit+1)
	return page.Cut(found, r.Limit, func(r entitlement.Reservation) string { return r.ID.String() }), err
}

func (s reservationStore) query(ctx context.Context, where string, args ...any) ([]entitlement.Reservation, error) {
	rows, err := s.db.Statement.ConnPool.QueryContext(ctx, `
SELECT r.account_id, r.id, r.meter, r.period_start, r.quantity, r.used, r.status, r.lease, r.reference, r.expires_at, r.created_at,
  r.settled_at, r.version FROM reservations r WHERE `+where, args...)
	if err != nil {
		return nil, translate(err)
	}
	defer func() { _ = rows.Close() }()
	var found []entitlement.Reservation
	for rows.Next() {
		var r entitlement.Reservation
		var used *string
		var settled *time.Time
		if err := rows.Scan(&r.Account, &r.ID, &r.Meter, &r.Period, &r.Quantity, &used, &r.Status, &r.Lease, &r.Reference, &r.ExpiresAt,
			&r.CreatedAt, &settled, &r.Version); err != nil {
			return nil, err
		}
		r.Period, r.ExpiresAt, r.CreatedAt, r.SettledAt = r.Period.UTC(), r.ExpiresAt.UTC(), r.CreatedAt.UTC(), timeOf(settled)
		if used != nil {
			if err := r.Used.Scan(*used); err != nil {
				return nil, err
			}
		}
		found = append(found, r)
	}
	return found, translate(rows.Err())
}

func (s reservationStore) Holders(ctx context.Context, limit int) (_ []account.ID, err error) {
	defer errs.Wrap(&err, "accounts with overdue reservations")
	return accountsOf(ctx, s.db, sqlHolders, limit)
}
