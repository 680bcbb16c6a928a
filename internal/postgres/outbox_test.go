package postgres_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

func TestOutbox(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	payload := map[string]string{"id": "x"}

	t.Run("NumbersWithoutAGap", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				err := db.InTx(t.Context(), func(tx billing.Tx) error {
					if err := tx.Outbox().Publish(t.Context(), a, outbox.InvoicePaid, payload, noon); err != nil {
						return err
					}
					if i%4 == 0 {
						return errUndone
					}
					return nil
				})
				if err != nil && !errors.Is(err, errUndone) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		events, err := db.Outbox().After(t.Context(), a, 0, 100)
		if err != nil || len(events) != 15 {
			t.Fatalf("%d events, %v; want 15", len(events), err)
		}
		for i, e := range events {
			if e.Sequence != int64(i+1) || e.Account != a || e.ID.IsZero() || e.Type != outbox.InvoicePaid || !e.OccurredAt.Equal(noon) {
				t.Errorf("event %d: %+v", i+1, e)
			}
		}
		if tail, err := db.Outbox().After(t.Context(), a, 13, 1); err != nil || len(tail) != 1 || tail[0].Sequence != 14 {
			t.Errorf("after 13: %+v, %v", tail, err)
		}
	})

	t.Run("RefusesWhatIsNoObject", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		for _, bad := range []any{nil, "text", 7, []int{1}} {
			if err := db.Outbox().Publish(t.Context(), a, outbox.InvoicePaid, bad, noon); err == nil {
				t.Errorf("%v was published", bad)
			}
		}
		if err := db.Outbox().Publish(t.Context(), id.New[account.Account](), outbox.InvoicePaid, payload, noon); !errors.Is(err, account.ErrNotFound) {
			t.Errorf("unknown account: %v, want ErrNotFound", err)
		}
	})

	t.Run("AnnouncesAfterTheCommit", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		conn, err := db.Pool().Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		if _, err := conn.Exec(t.Context(), "LISTEN "+postgres.EventsChannel); err != nil {
			t.Fatal(err)
		}
		mustInTx(t, db, func(tx billing.Tx) error {
			return tx.Outbox().Publish(t.Context(), a, outbox.InvoicePaid, payload, noon)
		})
		for {
			n, err := conn.Conn().WaitForNotification(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if n.Payload == fmt.Sprintf("%s:1", a.UUID()) {
				return
			}
		}
	})
}

var errUndone = errors.New("undone on purpose")

func TestJobs(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	a, b := mustAccount(t, db).ID, mustAccount(t, db).ID
	enqueue := func(a account.ID, due time.Time) {
		mustInTx(t, db, func(tx billing.Tx) error {
			return tx.Jobs().Enqueue(t.Context(), a, "collect_invoice", map[string]string{"invoice": "inv"}, due)
		})
	}
	enqueue(b, noon.Add(time.Minute))
	enqueue(a, noon)
	enqueue(a, noon.Add(time.Hour))
	if err := db.Jobs().Enqueue(t.Context(), a, "collect_invoice", "no object", noon); err == nil {
		t.Error("arguments that are no object were taken")
	}

	due, err := db.Jobs().Due(t.Context(), noon.Add(time.Minute), 10)
	if err != nil || len(due) != 2 || due[0].Account != a || due[1].Account != b || string(due[0].Args) != `{"invoice": "inv"}` {
		t.Fatalf("due %+v, %v; want a's first job, then b's", due, err)
	}
	if one, err := db.Jobs().Due(t.Context(), noon.Add(time.Minute), 1); err != nil || len(one) != 1 || one[0].ID != due[0].ID {
		t.Errorf("with limit 1: %+v, %v", one, err)
	}
	foreign := due[0]
	foreign.Account = b
	for _, in := range []struct {
		name string
		run  func() error
		left int
	}{
		{"another account's name relays nothing", func() error { return db.Jobs().Relayed(t.Context(), foreign) }, 2},
		{"relayed", func() error { return db.Jobs().Relayed(t.Context(), due[0]) }, 1},
		{"relayed twice", func() error { return db.Jobs().Relayed(t.Context(), due[0]) }, 1},
	} {
		if err := in.run(); err != nil {
			t.Fatalf("%s: %v", in.name, err)
		}
		if left, err := db.Jobs().Due(t.Context(), noon.Add(time.Minute), 10); err != nil || len(left) != in.left {
			t.Errorf("%s: %d left, %v; want %d", in.name, len(left), err, in.left)
		}
	}
	// One is written down whenever money moves: what is done with does not pile up.
	var kept int
	if err := db.Pool().QueryRow(t.Context(), "SELECT count(*) FROM job_intents").Scan(&kept); err != nil || kept != 2 {
		t.Errorf("%d intents are kept, %v; want those that are not handed on, 2", kept, err)
	}
}
