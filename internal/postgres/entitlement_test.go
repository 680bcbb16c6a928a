package postgres_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/pkg/money"
)

func TestEntitlements(t *testing.T) {
	t.Parallel()

	t.Run("ComeBackAsTheyWerePut", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		a := mustAccount(t, db)
		limit := int64(5000)
		e := entitlement.Entitlement{
			Account: a.ID, Status: account.Active, Level: "pro", Currency: money.USD,
			PeriodStarts: []time.Time{noon.AddDate(0, -1, 0), noon}, PeriodEnd: noon.AddDate(0, 1, 0),
			Limits:        map[string]entitlement.Limit{"voice": {Quantity: money.MustDecimal("60000.5"), Mode: entitlement.Hard}},
			MaxQuantities: map[string]money.Decimal{"voice": money.MustDecimal("100000000000000")},
			SpendLimit:    &limit, SpendMode: entitlement.Soft, UpdatedAt: noon,
		}
		if err := db.Entitlements().Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		got, err := db.Entitlements().Get(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		e.Version = 1
		if !reflect.DeepEqual(got, e) {
			t.Errorf("got  %+v\nwant %+v", got, e)
		}
		e.Limits, e.SpendLimit = nil, nil
		if err := db.Entitlements().Put(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		got, err = db.Entitlements().Get(t.Context(), a.ID)
		if err != nil || got.Version != 2 || len(got.Limits) != 0 || got.SpendLimit != nil {
			t.Errorf("after a second Put: %+v, %v", got, err)
		}
	})

	t.Run("AreNotFoundForAnUnknownAccount", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		_, err := db.Entitlements().Get(t.Context(), id.New[account.Account]())
		if !errors.Is(err, entitlement.ErrNotFound) {
			t.Errorf("err = %v", err)
		}
	})
}
