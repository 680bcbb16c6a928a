package postgres_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// Writes wait for the next read or for the commit. None of that is to be seen from outside but the time at
// which a failure shows.
func TestTransaction_WritesThatWait(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	ctx := t.Context()
	payload := map[string]string{"id": "x"}
	inTx := func(fn func(tx billing.Tx) error) error { return db.InTx(ctx, fn) }

	t.Run("AreSeenByReadsOfTheSameTransaction", func(t *testing.T) {
		t.Parallel()
		m := mustCard(t, db, mustAccount(t, db).ID)
		p := charge(m)
		err := inTx(func(tx billing.Tx) error {
			if err := tx.Payments().CreatePayment(ctx, p); err != nil {
				return err
			}
			p.Checks = 3
			if err := tx.Payments().SavePayment(ctx, &p); err != nil {
				return err
			}
			// One read goes by pgx, the other by GORM.
			got, err := tx.Payments().Payment(ctx, p.Account, p.ID)
			if err != nil || got.Checks != 3 || got.Version != 2 {
				t.Errorf("read %+v, %v", got, err)
			}
			p.Status = payment.Succeeded
			if err := tx.Payments().SavePayment(ctx, &p); err != nil {
				return err
			}
			paid, err := tx.Payments().RefundablePayments(ctx, p.Account)
			if len(paid) != 1 {
				t.Errorf("%d payments have succeeded, want 1", len(paid))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})

	t.Run("FailAtTheCommitByTheirOwnName", func(t *testing.T) {
		t.Parallel()
		m := mustCard(t, db, mustAccount(t, db).ID)
		p := mustPayment(t, db, charge(m))
		err := inTx(func(tx billing.Tx) error {
			if err := tx.Outbox().Publish(ctx, m.Account, outbox.PaymentSucceeded, payload, noon); err != nil {
				return err
			}
			p.Version = 7
			return tx.Payments().SavePayment(ctx, &p)
		})
		if !errors.Is(err, account.ErrStale) {
			t.Errorf("commit: %v, want ErrStale", err)
		}
		if events, err := db.Outbox().After(ctx, m.Account, 0, 10); err != nil || len(events) != 0 {
			t.Errorf("%d events, %v: something was committed", len(events), err)
		}
	})

	t.Run("FailAtTheNextRead", func(t *testing.T) {
		t.Parallel()
		m := mustCard(t, db, mustAccount(t, db).ID)
		p := mustPayment(t, db, charge(m))
		p.Version = 7
		for name, read := range map[string]func(tx billing.Tx) error{
			"pgx":  func(tx billing.Tx) error { _, err := tx.Payments().Payment(ctx, p.Account, p.ID); return err },
			"GORM": func(tx billing.Tx) error { _, err := tx.Payments().RefundablePayments(ctx, p.Account); return err },
			"row":  func(tx billing.Tx) error { _, err := tx.Entitlements().Get(ctx, p.Account); return err },
		} {
			err := inTx(func(tx billing.Tx) error {
				if err := tx.Payments().SavePayment(ctx, new(p)); err != nil {
					return err
				}
				return read(tx)
			})
			if !errors.Is(err, account.ErrStale) {
				t.Errorf("%s: %v, want ErrStale", name, err)
			}
		}
	})

	t.Run("AreLostWithWhoeverIgnoresTheFailure", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		m := mustCard(t, db, a)
		for name, fail := range map[string]func(tx billing.Tx){
			"pgx":  func(tx billing.Tx) { _ = tx.Payments().CreateMethod(ctx, m); _, _ = tx.Payments().Method(ctx, a, m.ID) },
			"GORM": func(tx billing.Tx) { _ = tx.Accounts().Create(ctx, account.Account{ID: a, ExternalID: a.String()}) },
		} {
			err := inTx(func(tx billing.Tx) error {
				fail(tx)
				return tx.Outbox().Publish(ctx, a, outbox.PaymentSucceeded, payload, noon)
			})
			if err == nil {
				t.Errorf("%s: a transaction with a failed statement was told to be committed", name)
			}
		}
		if newest, err := db.Outbox().Newest(ctx, a); err != nil || newest != 0 {
			t.Errorf("the newest event is %d, %v; want none", newest, err)
		}
	})

	t.Run("LeaveAUsableConnectionWhenTheCallerGoes", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		for range 40 { // more than there are connections
			ctx, cancel := context.WithCancel(ctx)
			err := db.InTx(ctx, func(tx billing.Tx) error {
				if _, err := tx.Accounts().Lock(ctx, a); err != nil {
					return err
				}
				cancel()
				return tx.Outbox().Publish(ctx, a, outbox.PaymentSucceeded, payload, noon)
			})
			if err == nil {
				t.Fatal("committed for nobody")
			}
		}
		if _, err := db.Accounts().Get(ctx, a); err != nil {
			t.Error(err)
		}
	})

	t.Run("EventsAreNumberedAsPublished", func(t *testing.T) {
		t.Parallel()
		a, b := mustAccount(t, db).ID, mustAccount(t, db).ID
		types := []outbox.Type{outbox.PaymentSucceeded, outbox.TopUpSucceeded, outbox.InvoicePaid}
		err := inTx(func(tx billing.Tx) error {
			for _, typ := range types {
				if err := errors.Join(tx.Outbox().Publish(ctx, a, typ, payload, noon), tx.Outbox().Publish(ctx, b, typ, payload, noon)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, of := range []account.ID{a, b} {
			events, err := db.Outbox().After(ctx, of, 0, 10)
			if err != nil || len(events) != len(types) {
				t.Fatalf("%d events, %v; want %d", len(events), err, len(types))
			}
			for i, e := range events {
				if e.Type != types[i] || e.Sequence != int64(i+1) {
					t.Errorf("event %d is %s, number %d", i+1, e.Type, e.Sequence)
				}
			}
		}
	})
}

// A machine that dies in the middle of a transaction says nothing to the database, which must let go of what it held
// soon. Who stores usage of many waits for one account's lock for less.
func TestOpen_SessionsThatStandStillLetGo(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	for name, c := range map[string]struct {
		pool *pgxpool.Pool
		lock time.Duration
	}{"Pool": {db.Pool(), 0}, "ByKey": {db.ByKey(), time.Second}, "Shared": {db.Shared(), 0}} {
		var idle, lock int64
		err := c.pool.QueryRow(t.Context(), `SELECT (SELECT setting FROM pg_settings WHERE name = 'idle_in_transaction_session_timeout')::bigint,
			(SELECT setting FROM pg_settings WHERE name = 'lock_timeout')::bigint`).Scan(&idle, &lock)
		if err != nil {
			t.Fatal(err)
		}
		if idle == 0 || time.Duration(idle)*time.Millisecond > 10*time.Second || time.Duration(lock)*time.Millisecond != c.lock {
			t.Errorf("%s: sessions stand still for %d ms, and wait for locks for %d ms", name, idle, lock)
		}
	}
}
