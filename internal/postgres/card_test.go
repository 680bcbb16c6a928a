package postgres_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

func TestCards(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	store := db.Payments()

	t.Run("ReadsBackWhatWasWrittenButTheSecret", func(t *testing.T) {
		t.Parallel()
		m := card(mustAccount(t, db).ID)
		m.Status = payment.MethodRequiresAction
		m.NextAction = &payment.NextAction{Type: payment.ActionProviderScript, URL: "https://bank.example", ClientSecret: "s3cret"}
		m.Failure = &payment.Failure{Code: "generic_decline", Class: payment.DeclineSoft, Advice: payment.RetryLater, Message: "No."}
		if err := store.CreateMethod(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		want := m
		want.NextAction = &payment.NextAction{Type: m.NextAction.Type, URL: m.NextAction.URL}
		got, err := store.Method(t.Context(), m.Account, m.ID)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("read %+v, %v; want %+v", got, err, want)
		}
		want.Status, want.NextAction, want.Failure, want.CheckAt = payment.MethodActive, nil, nil, time.Time{}
		want.Default, want.NoticedAt, want.Billing.Address.City, want.Card.ExpYear = true, noon, "Cologne", 2031
		if err := store.SaveMethod(t.Context(), &want); err != nil {
			t.Fatal(err)
		}
		got, err = store.DefaultMethod(t.Context(), m.Account)
		if err != nil || !reflect.DeepEqual(got, want) || got.Version != 2 {
			t.Fatalf("after a save: %+v, %v; want %+v", got, err, want)
		}
		want.Version--
		if err := store.SaveMethod(t.Context(), &want); !errors.Is(err, account.ErrStale) {
			t.Errorf("save of an old version: %v, want ErrStale", err)
		}
	})

	t.Run("KeepsAnIntentWithoutACard", func(t *testing.T) {
		t.Parallel()
		m := payment.Method{
			ID: id.New[payment.Method](), Account: mustAccount(t, db).ID, Status: payment.MethodProcessing, Provider: "sandbox", ReturnURL: "https://app.example/billing", CreatedAt: noon,
			UpdatedAt: noon, Version: 1,
		}
		if err := store.CreateMethod(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		if got, err := store.Method(t.Context(), m.Account, m.ID); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("read %+v, %v; want %+v", got, err, m)
		}
	})

	t.Run("ChargesOneCardByDefault", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		if _, err := store.DefaultMethod(t.Context(), a); !errors.Is(err, payment.ErrNoMethod) {
			t.Errorf("default of none: %v, want ErrNoMethod", err)
		}
		first, second, failed, removed := mustCard(t, db, a), mustCard(t, db, a), mustCard(t, db, a), mustCard(t, db, a)
		failed.Status, removed.Status = payment.MethodFailed, payment.MethodRemoved
		for _, m := range []*payment.Method{&failed, &removed} {
			if err := store.SaveMethod(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range []payment.Method{first, second} {
			mustInTx(t, db, func(tx billing.Tx) error { return tx.Payments().MakeDefault(t.Context(), a, m.ID, noon.Add(time.Hour)) })
		}
		list, err := store.Methods(t.Context(), a)
		if err != nil || len(list) != 2 || list[0].ID != second.ID || !list[0].Default || list[1].Default {
			t.Fatalf("cards %+v, %v; want the default first and no other default", list, err)
		}
		if list[0].Version != 2 || list[1].Version != 3 || !list[1].UpdatedAt.Equal(noon.Add(time.Hour)) {
			t.Errorf("versions %d and %d, want 2 and 3", list[0].Version, list[1].Version)
		}
		err = db.InTx(t.Context(), func(tx billing.Tx) error { return tx.Payments().MakeDefault(t.Context(), a, failed.ID, noon) })
		if !errors.Is(err, payment.ErrMethodNotFound) {
			t.Errorf("default of a failed card: %v, want ErrMethodNotFound", err)
		}
		if m, err := store.DefaultMethod(t.Context(), a); err != nil || m.ID != second.ID {
			t.Errorf("default %s, %v; want it unchanged", m.ID, err)
		}
		if m, err := store.Method(t.Context(), a, removed.ID); err != nil || m.Status != payment.MethodRemoved {
			t.Errorf("removed card: %+v, %v; want it found", m, err)
		}
	})

	t.Run("UsesASetupOnce", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		v := payment.SavedSetup{ID: id.New[payment.SavedSetup](), Account: a, Provider: "sandbox", Ref: "seti_p", CreatedAt: noon, ExpiresAt: noon.Add(time.Hour)}
		if err := store.CreateSetup(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		m := id.New[payment.Method]()
		for range 2 {
			if err := store.UseSetup(t.Context(), a, v.ID, m); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.UseSetup(t.Context(), a, v.ID, id.New[payment.Method]()); !errors.Is(err, payment.ErrSetupUsed) {
			t.Errorf("used for another card: %v, want ErrSetupUsed", err)
		}
		if err := store.UseSetup(t.Context(), a, id.New[payment.SavedSetup](), m); !errors.Is(err, payment.ErrSetupNotFound) {
			t.Errorf("no such setup: %v, want ErrSetupNotFound", err)
		}
		v.UsedBy = m
		for _, ref := range []string{v.ID.String(), v.Ref} {
			if got, err := store.Setup(t.Context(), a, ref); err != nil || got != v {
				t.Errorf("setup by %s: %+v, %v; want %+v", ref, got, err, v)
			}
		}
	})

	t.Run("LeavesASetupFreeWhoseCardFailed", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		v := payment.SavedSetup{ID: id.New[payment.SavedSetup](), Account: a, Provider: "sandbox", Ref: "seti_" + a.String(), CreatedAt: noon, ExpiresAt: noon.Add(time.Hour)}
		if err := store.CreateSetup(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		first, second := mustCard(t, db, a), mustCard(t, db, a)
		if err := store.UseSetup(t.Context(), a, v.ID, first.ID); err != nil {
			t.Fatal(err)
		}
		if err := store.UseSetup(t.Context(), a, v.ID, second.ID); !errors.Is(err, payment.ErrSetupUsed) {
			t.Fatalf("while the first card may still come of it: %v, want ErrSetupUsed", err)
		}
		first.Status, first.Failure = payment.MethodFailed, &payment.Failure{Code: "setup_incomplete", Message: "No card."}
		if err := store.SaveMethod(t.Context(), &first); err != nil {
			t.Fatal(err)
		}
		if err := store.UseSetup(t.Context(), a, v.ID, second.ID); err != nil {
			t.Errorf("after the first card failed: %v", err)
		}
	})

	t.Run("RemembersTheFirstCustomer", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		if ref, err := store.Customer(t.Context(), a, "sandbox"); ref != "" || err != nil {
			t.Errorf("customer %q, %v before there is one", ref, err)
		}
		for _, ref := range []string{"cus_1", "cus_2"} {
			if err := store.SaveCustomer(t.Context(), a, "sandbox", ref); err != nil {
				t.Fatal(err)
			}
		}
		if ref, err := store.Customer(t.Context(), a, "sandbox"); ref != "cus_1" || err != nil {
			t.Errorf("customer %q, %v; want the first", ref, err)
		}
	})

	t.Run("OpensOneRemovalRequestPerCard", func(t *testing.T) {
		t.Parallel()
		m := mustCard(t, db, mustAccount(t, db).ID)
		r := payment.Removal{ID: id.New[payment.Removal](), Account: m.Account, Method: m.ID, Kind: payment.BySupport, Status: payment.RemovalOpen, Note: "bye", CreatedAt: noon}
		if err := store.CreateRemoval(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		again := r
		again.ID = id.New[payment.Removal]()
		if err := store.CreateRemoval(t.Context(), again); !errors.Is(err, payment.ErrRemovalOpen) {
			t.Errorf("second request: %v, want ErrRemovalOpen", err)
		}
		lost := again
		lost.ID, lost.Method = id.New[payment.Removal](), id.New[payment.Method]()
		if err := store.CreateRemoval(t.Context(), lost); !errors.Is(err, payment.ErrMethodNotFound) {
			t.Errorf("request for no card: %v, want ErrMethodNotFound", err)
		}
		if open, err := store.OpenRemovals(t.Context(), m.Account); err != nil || len(open) != 1 || open[0] != r {
			t.Errorf("open %+v, %v; want %+v", open, err, r)
		}
		r.Status, r.ResolvedAt, r.ResolvedBy = payment.RemovalDone, noon, "operator:1"
		if err := store.SaveRemoval(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if got, err := store.Removal(t.Context(), m.Account, r.ID); err != nil || got != r {
			t.Errorf("resolved %+v, %v; want %+v", got, err, r)
		}
		if err := store.CreateRemoval(t.Context(), again); err != nil {
			t.Errorf("a new request after the first was resolved: %v", err)
		}
		if err := store.SaveRemoval(t.Context(), lost); !errors.Is(err, payment.ErrRemovalNotFound) {
			t.Errorf("save of no request: %v, want ErrRemovalNotFound", err)
		}
	})
}

func TestCardsExpiring(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	var defaults []payment.Method
	for range 3 {
		m := card(mustAccount(t, db).ID) // good through December 2030
		m.Default = true
		if err := db.Payments().CreateMethod(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		defaults = append(defaults, m)
	}
	mustCard(t, db, defaults[0].Account) // not the default
	defaults[1].NoticedAt = noon
	defaults[2].Card.ExpYear = 2031
	for i := 1; i < 3; i++ {
		if err := db.Payments().SaveMethod(t.Context(), &defaults[i]); err != nil {
			t.Fatal(err)
		}
	}
	newYear := time.Date(2031, 1, 1, 0, 0, 0, 0, time.UTC)
	for at, want := range map[time.Time]int{newYear.Add(-time.Nanosecond): 0, newYear: 1, newYear.AddDate(1, 0, 0): 2} {
		if got, err := db.Payments().Expiring(t.Context(), at, payment.Method{}, 10); err != nil || len(got) != want {
			t.Errorf("expiring at %s: %d, %v; want %d", at, len(got), err, want)
		}
	}
	wantPages(t, 2, func(after payment.Method, limit int) ([]payment.Method, error) {
		return db.Payments().Expiring(t.Context(), newYear.AddDate(1, 0, 0), after, limit)
	})
}

// The sweep looks every few seconds for cards that expire soon. It must not read every card there is for that.
func TestExpiringCards_AreFoundByAnIndex(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	for _, q := range []string{
		`INSERT INTO accounts (id, external_id, status, currency, time_zone, created_at, updated_at)
			SELECT gen_random_uuid(), 'a' || n, 'active', 'USD', 'UTC', now(), now() FROM generate_series(1, 5000) n`,
		`INSERT INTO payment_methods (account_id, id, status, is_default, provider, exp_month, exp_year, created_at, updated_at)
			SELECT id, gen_random_uuid(), 'active', true, 'sandbox', 12, 2035, now(), now() FROM accounts`,
		"ANALYZE payment_methods",
	} {
		if _, err := db.Pool().Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	q := strings.NewReplacer("< ?", "< 24350", "(?, ?)", "(0, '00000000-0000-0000-0000-000000000000')", "LIMIT ?", "LIMIT 200").Replace(postgres.ExpiringCards)
	var plan string
	if err := db.Pool().QueryRow(t.Context(), "EXPLAIN (FORMAT JSON) "+q).Scan(&plan); err != nil || !strings.Contains(plan, "payment_methods_expiring") {
		t.Errorf("%v: %s", err, plan)
	}
}
