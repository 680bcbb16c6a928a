package postgres_test

import (
	"errors"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/upgrade"
)

func newUpgrade(a account.ID) upgrade.Upgrade {
	return upgrade.Upgrade{
		ID: id.New[upgrade.Upgrade](), Account: a, Plan: "pro", Version: 1, Status: payment.Processing,
		Profile:   &account.Profile{Name: "Ada", Email: "ada@example.com", Address: account.Address{Line1: "1 Main St", City: "Bonn", Country: "DE"}},
		CreatedAt: noon, UpdatedAt: noon, ExpiresAt: noon.Add(upgrade.Lifetime), Revision: 1,
	}
}

func TestUpgrades(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	store := db.Upgrades()

	t.Run("ReadsBackWhatWasWrittenButTheSecret", func(t *testing.T) {
		t.Parallel()
		u := newUpgrade(mustAccount(t, db).ID)
		if err := store.Create(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		if got, err := store.Pending(t.Context(), u.Account); err != nil || !reflect.DeepEqual(got, u) {
			t.Fatalf("read %+v, %v; want %+v", got, err, u)
		}
		u.Method = mustCard(t, db, u.Account).ID
		u.Status, u.NextAction = payment.RequiresAction, &payment.NextAction{Type: payment.ActionRedirect, URL: "https://bank.example", ClientSecret: "s3cret"}
		u.Failure = &payment.Failure{Code: "generic_decline", Message: "No."}
		if err := store.Save(t.Context(), &u); err != nil {
			t.Fatal(err)
		}
		u.NextAction = &payment.NextAction{Type: payment.ActionRedirect, URL: "https://bank.example"}
		if got, err := store.OfMethod(t.Context(), u.Account, u.Method); err != nil || !reflect.DeepEqual(got, u) || got.Revision != 2 {
			t.Fatalf("after a save: %+v, %v; want %+v", got, err, u)
		}
		if _, err := store.OfMethod(t.Context(), u.Account, id.New[payment.Method]()); !errors.Is(err, upgrade.ErrNotFound) {
			t.Errorf("upgrade of another card: %v, want ErrNotFound", err)
		}
		stale := u
		stale.Revision--
		if err := store.Save(t.Context(), &stale); !errors.Is(err, account.ErrStale) {
			t.Errorf("save of an old revision: %v, want ErrStale", err)
		}
		if err := u.Become(payment.Succeeded, noon); err != nil {
			t.Fatal(err)
		}
		if err := store.Save(t.Context(), &u); err != nil {
			t.Fatal(err)
		}
		if got, err := store.Get(t.Context(), u.Account, u.ID); err != nil || !reflect.DeepEqual(got, u) {
			t.Errorf("settled: %+v, %v; want %+v", got, err, u)
		}
		for _, err := range []error{
			func() error { _, err := store.Pending(t.Context(), u.Account); return err }(),
			func() error { _, err := store.OfMethod(t.Context(), u.Account, u.Method); return err }(),
		} {
			if !errors.Is(err, upgrade.ErrNotFound) {
				t.Errorf("pending after it succeeded: %v, want ErrNotFound", err)
			}
		}
	})

	t.Run("ListsTheNewestFirst", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		var want []upgrade.ID
		for range 3 {
			u := newUpgrade(a)
			u.Status = payment.Canceled
			if err := store.Create(t.Context(), u); err != nil {
				t.Fatal(err)
			}
			want = append([]upgrade.ID{u.ID}, want...)
		}
		var got []upgrade.ID
		for r := (page.Request{Limit: 2}); ; {
			p, err := store.List(t.Context(), a, r)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range p.Data {
				got = append(got, u.ID)
			}
			if r.After = p.Next; r.After == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("listed %v, want %v", got, want)
		}
	})

	t.Run("OnePending", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		var won atomic.Int32
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				switch err := db.InTx(t.Context(), func(tx billing.Tx) error { return tx.Upgrades().Create(t.Context(), newUpgrade(a)) }); {
				case err == nil:
					won.Add(1)
				case !errors.Is(err, upgrade.ErrPending):
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d upgrades were written, want 1", won.Load())
		}
	})
}

func TestUpgradesExpired(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	over := noon.Add(upgrade.Lifetime)
	pending, settled, later := newUpgrade(mustAccount(t, db).ID), newUpgrade(mustAccount(t, db).ID), newUpgrade(mustAccount(t, db).ID)
	settled.Status = payment.Canceled
	later.ExpiresAt = over.Add(time.Second)
	for _, u := range []upgrade.Upgrade{pending, settled, later} {
		if err := db.Upgrades().Create(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	mustMoveClock(t, db, pending.Account, noon.AddDate(-1, 0, 0)) // the provider lives in real time
	if got, err := db.Upgrades().Expired(t.Context(), over.Add(-time.Second), upgrade.Upgrade{}, 10); err != nil || len(got) != 0 {
		t.Errorf("expired before the time: %+v, %v", got, err)
	}
	if got, err := db.Upgrades().Expired(t.Context(), over, upgrade.Upgrade{}, 10); err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], pending) {
		t.Errorf("expired %+v, %v; want %+v", got, err, pending)
	}
	if one, err := db.Upgrades().Expired(t.Context(), over.Add(time.Hour), upgrade.Upgrade{}, 1); err != nil || len(one) != 1 || one[0].ID != pending.ID {
		t.Errorf("with limit 1: %+v, %v; want the longest over", one, err)
	}
	wantPages(t, 2, func(after upgrade.Upgrade, limit int) ([]upgrade.Upgrade, error) {
		return db.Upgrades().Expired(t.Context(), over.Add(time.Hour), after, limit)
	})
}
