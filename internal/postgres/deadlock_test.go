package postgres_test

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// Two transactions that lock in opposite orders, against the rule, end all the same: the one that the database gives up
// is run again as a whole.
func TestInTx_ADeadlockIsRunAgain(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	one, two := mustAccount(t, db), mustAccount(t, db)
	var held, all sync.WaitGroup // each has its first lock
	held.Add(2)
	var runs atomic.Int64
	change := func(order ...account.ID) {
		first := true
		err := db.InTx(t.Context(), func(tx billing.Tx) error {
			runs.Add(1)
			for _, id := range order {
				a, err := tx.Accounts().Lock(t.Context(), id)
				if err != nil {
					return err
				}
				a.Name += "."
				if err := tx.Accounts().Save(t.Context(), &a); err != nil {
					return err
				}
				if first {
					first = false
					held.Done()
					held.Wait()
				}
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	all.Go(func() { change(one.ID, two.ID) })
	all.Go(func() { change(two.ID, one.ID) })
	all.Wait()
	if runs.Load() < 3 {
		t.Errorf("%d runs of two transactions: there was no deadlock to be seen", runs.Load())
	}
	for _, id := range []account.ID{one.ID, two.ID} {
		if a, err := db.Accounts().Get(t.Context(), id); err != nil || a.Name != ".." {
			t.Errorf("%q, %v; want each change once", a.Name, err)
		}
	}
}
