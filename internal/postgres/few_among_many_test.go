package postgres_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/pkg/money"
)

// mustAge gives an account years of everything: 5,000 of each, all of them done with but the last, and reservations that are open; one row a day up to noon.
func mustAge(t *testing.T, db *postgres.DB, a account.ID) (newest payment.ID) {
	t.Helper()
	mustPlans(t, db)
	sub, card := mustSubscription(t, db, a), mustCard(t, db, a)
	const days = " FROM (SELECT n, n = 5000 AS last, @noon::timestamptz - (5000 - n) * interval '1 day' AS at, md5('p' || n)::uuid AS id FROM generate_series(1, 5000) n) d"
	for _, q := range []string{
		`INSERT INTO credit_grants (account_id, id, amount, remaining, currency, reason, actor, granted_at)
			SELECT @account, id, 100, CASE WHEN last THEN 5 ELSE 0 END, 'USD', '', '', at` + days,
		`INSERT INTO invoices (account_id, id, kind, status, subscription_id, period_start, period_end, currency, total, amount_paid, finalize_at, finalized_at, created_at, updated_at)
			SELECT @account, id, 'threshold', CASE WHEN last THEN 'open' ELSE 'paid' END, @sub, at, at + interval '1 day', 'USD', 5, CASE WHEN last THEN 0 ELSE 5 END, at, at, at, at` + days,
		`INSERT INTO payments (account_id, id, purpose, top_up_id, payment_method_id, amount, currency, status, off_session, actor, provider, created_at, updated_at)
			SELECT @account, id, 'top_up', id, @card, 100, 'USD', 'succeeded', false, 'key:1', 'sandbox', at, at` + days,
		`INSERT INTO top_ups (account_id, id, origin, amount, currency, status, payment_id, created_at, updated_at)
			SELECT @account, id, 'auto', 100, 'USD', 'succeeded', id, at, at` + days,
		`INSERT INTO refunds (account_id, id, payment_id, amount, currency, status, origin, created_at, updated_at)
			SELECT @account, id, id, 5, 'USD', CASE WHEN last THEN 'parked' ELSE 'succeeded' END, 'operator', at, at` + days,
		`INSERT INTO ledger_transactions (account_id, id, sequence, kind, reference, currency, total, postings, booked_at, recorded_at, prev_hash, hash)
			SELECT @account, id, n, 'top_up', id::text, 'USD', 100, 1, at, at, '', sha256(n::text::bytea)` + days,
		`INSERT INTO ledger_postings (account_id, transaction_id, number, debit, credit, amount, currency, debit_balance, credit_balance)
			SELECT @account, id, 1, 'cash', 'funds', 100, 'USD', 100 * n, -100 * n` + days,
		`INSERT INTO ledger_balances VALUES (@account, 'cash', 'USD', 500000), (@account, 'funds', 'USD', -500000)`,
		`UPDATE account_counters SET ledger = 5000 WHERE account_id = @account`,
		`INSERT INTO reservations (account_id, id, meter, period_start, quantity, status, expires_at, created_at)
			SELECT @account, id, 'text', at, 1, 'open', at + interval '100 years', at` + days,
		`INSERT INTO usage_rejects (account_id, id, source, event_id, meter, quantity, occurred_at, received_at, reason)
			SELECT @account, id, 'test', 'e' || n, 'text', 1, at, at, 'limit_reached'` + days,
		"ANALYZE",
	} {
		_, err := db.Pool().Exec(t.Context(), q, pgx.NamedArgs{"account": a.UUID(), "sub": sub.ID.UUID(), "card": card.ID.UUID(), "noon": noon})
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
	}
	if err := db.Pool().QueryRow(t.Context(), "SELECT md5('p5000')::uuid").Scan(&newest); err != nil {
		t.Fatal(err)
	}
	return newest
}

// What is few among all that an account has had is found without reading the rest: operations, the Billing page and sweeps
// do not become slower with the age of an account.
func TestFewAmongMany_AreReadAlone(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	a := mustAccount(t, db).ID
	newest := mustAge(t, db, a)
	day := 24 * time.Hour
	for name, read := range map[string]func(tx billing.Tx) (got, want any, err error){
		"CreditThatIsLeft": func(tx billing.Tx) (any, any, error) {
			l, err := tx.Wallet().Unspent(t.Context(), a)
			return len(l), 1, err
		},
		"UnpaidInvoices": func(tx billing.Tx) (any, any, error) {
			l, err := tx.Invoices().Unpaid(t.Context(), a)
			return len(l), 1, err
		},
		"DebtsThatSuspend": func(tx billing.Tx) (any, any, error) {
			l, err := tx.Invoices().Suspending(t.Context(), a)
			return len(l), 0, err
		},
		"WhatAKeyHasMovedInADay": func(tx billing.Tx) (any, any, error) {
			sum, err := tx.Payments().Moved(t.Context(), a, "key:1", noon.Add(-day), money.USD)
			return sum.Minor, int64(100), err
		},
		"WhatWasToppedUpAutomaticallyInAMonth": func(tx billing.Tx) (any, any, error) {
			sum, err := tx.Payments().ToppedUp(t.Context(), a, payment.Auto, noon.Add(-9*day), money.USD)
			return sum.Minor, int64(1000), err
		},
		"RefundsOfAPayment": func(tx billing.Tx) (any, any, error) {
			l, err := tx.Payments().RefundsOf(t.Context(), a, newest)
			return len(l), 1, err
		},
		"WhatWaitsForAPerson": func(tx billing.Tx) (any, any, error) {
			o, err := tx.Payments().Overdue(t.Context(), noon)
			return o.Parked, 1, err
		},
		"TheBalanceOfLastWeek": func(tx billing.Tx) (any, any, error) {
			b, err := tx.Ledger().BalancesAt(t.Context(), a, noon.Add(-7*day))
			return b[ledger.Name("funds")], int64(-499_200), err
		},
		"ReservationsWhoseTimeIsOver": func(tx billing.Tx) (any, any, error) {
			l, err := reservationsOf(tx).Holders(t.Context(), 20)
			return len(l), 0, err
		},
		"RefusedEventsByTheirIDs": func(tx billing.Tx) (any, any, error) {
			fates, err := tx.Usage().Fates(t.Context(), a, "test", []string{"e1", "e4000", "e5001"})
			return len(fates), 2, err
		},
		"RefusedEventsOfLatelyByTheHour": func(tx billing.Tx) (any, any, error) {
			hours, err := tx.Usage().Hours(t.Context(), a, "text", "test", period.Bounds{Start: noon.Add(-7 * day), End: noon})
			return len(hours), 7, err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 7 { // a plan for any parameters is made after five
				mustInTx(t, db, func(tx billing.Tx) error {
					before, err := postgres.RowsRead(t.Context(), tx)
					if err != nil {
						return err
					}
					got, want, err := read(tx)
					if err != nil || got != want {
						t.Errorf("got %v, %v; want %v", got, err, want)
					}
					if n, err := postgres.RowsRead(t.Context(), tx); err != nil || n-before > 50 {
						t.Errorf("%d rows were read for it, %v", n-before, err)
					}
					return nil
				})
			}
		})
	}
}

// Balances of the past are exact wherever they are asked for, though some of the clocks of replicas are behind.
func TestBalancesAt_AnyMoment(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	a := mustAccount(t, db).ID
	if b, err := db.Ledger().BalancesAt(t.Context(), a, noon); err != nil || len(b) != 0 {
		t.Errorf("of none: %v, %v", b, err)
	}
	var booked []time.Time
	for i := range 40 {
		at := noon.Add(time.Duration(i) * 7 * time.Minute)
		if i%3 == 0 {
			at = at.Add(-20 * time.Minute)
		}
		booked = append(booked, at)
		tr := ledger.Transaction{
			ID: id.New[ledger.Transaction](), Account: a, Kind: "top_up", Reference: at.String(), BookedAt: at, RecordedAt: at,
			Postings: []ledger.Posting{{Debit: "cash", Credit: "funds", Amount: money.New(1, money.USD)}},
		}
		mustInTx(t, db, func(tx billing.Tx) error { return tx.Ledger().Append(t.Context(), &tr) })
	}
	for _, at := range append(booked, noon.Add(-time.Hour), noon.Add(24*time.Hour)) {
		var want int64
		for _, b := range booked {
			if b.Before(at) {
				want--
			}
		}
		if b, err := db.Ledger().BalancesAt(t.Context(), a, at); err != nil || b["funds"] != want || b["cash"] != -want {
			t.Errorf("at %s: %v, %v; want funds of %d", at, b, err, want)
		}
	}
}

// reservationsOf reads reservations within a transaction.
func reservationsOf(tx billing.Tx) entitlement.Reservations {
	return tx.(interface {
		Reservations() entitlement.Reservations
	}).Reservations()
}
