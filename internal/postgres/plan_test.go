package postgres_test

import (
	"errors"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/pkg/money"
)

func TestPlanStore(t *testing.T) {
	t.Parallel()

	t.Run("AppliesACatalogueOnce", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		shipped := plan.Shipped()
		for i, wantNew := range []bool{true, false} {
			effects, err := plan.Apply(t.Context(), db.Plans(), shipped, noon)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range effects {
				if e.After != 1 || (e.Before == 0) != wantNew || len(e.Changes) > 0 {
					t.Errorf("application %d: %+v", i+1, e)
				}
			}
		}
		for _, o := range shipped.Offers {
			got, err := db.Plans().Current(t.Context(), o.Plan.Code)
			if err != nil {
				t.Fatal(err)
			}
			want := o.Version
			want.Number, want.PublishedAt = 1, noon
			if changes := plan.Diff(want, got); len(changes) > 0 || got.Number != 1 || !got.PublishedAt.Equal(noon) || !got.ArchivedAt.IsZero() {
				t.Errorf("stored %+v\nwant %+v: %+v", got, want, changes)
			}
			if got.Hash != want.Hash || got.ContentHash() != got.Hash {
				t.Errorf("%s: the hash of what is stored is not the stored hash", o.Plan.Code)
			}
		}
		meters, err := db.Plans().Meters(t.Context())
		if err != nil || len(meters) != len(shipped.Meters) {
			t.Errorf("%d meters, %v; want %d", len(meters), err, len(shipped.Meters))
		}
		plans, err := db.Plans().Plans(t.Context())
		if err != nil || len(plans) != 3 || plans[0].Code != plan.Developer || plans[2].Code != plan.Enterprise {
			t.Errorf("plans %+v, %v; want the catalogue's order", plans, err)
		}
	})

	t.Run("NewTermsAreANewVersionAndTheOldOneStays", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		c := plan.Shipped()
		if _, err := plan.Apply(t.Context(), db.Plans(), c, noon); err != nil {
			t.Fatal(err)
		}
		old, err := db.Plans().Current(t.Context(), plan.Pro)
		if err != nil {
			t.Fatal(err)
		}
		c.Offers[1].Version.Charges[2].Prices[0].UnitPrice = money.MustDecimal("0.09")
		preview, err := plan.Preview(t.Context(), db.Plans(), c)
		if err != nil {
			t.Fatal(err)
		}
		want := plan.Change{Pointer: "#/charges/call_score/prices/USD/unit_price", Before: "0.1", After: "0.09"}
		if len(preview[1].Changes) != 1 || preview[1].Changes[0] != want || preview[1].After != 2 {
			t.Errorf("preview %+v", preview[1])
		}
		if _, err := plan.Apply(t.Context(), db.Plans(), c, noon.Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if now, err := db.Plans().Current(t.Context(), plan.Pro); err != nil || now.Number != 2 {
			t.Errorf("current version %d, %v; want 2", now.Number, err)
		}
		if kept, err := db.Plans().Version(t.Context(), plan.Pro, 1); err != nil || !reflect.DeepEqual(kept, old) {
			t.Errorf("version 1 changed to %+v, %v", kept, err)
		}
		if all, err := db.Plans().Versions(t.Context(), plan.Pro); err != nil || len(all) != 2 || all[0].Number != 2 {
			t.Errorf("versions %+v, %v; want 2 and 1", all, err)
		}
	})

	t.Run("ArchivedIsOffSale", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		c := plan.Shipped()
		if _, err := plan.Apply(t.Context(), db.Plans(), c, noon); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time is no error
			if err := db.Plans().Archive(t.Context(), plan.Pro, 1, noon); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := db.Plans().Current(t.Context(), plan.Pro); !errors.Is(err, plan.ErrVersionNotFound) {
			t.Errorf("current version of an archived plan: %v", err)
		}
		if p, err := db.Plans().Plan(t.Context(), plan.Pro); err != nil || !p.Archived {
			t.Errorf("plan %+v, %v; want it archived", p, err)
		}
		if v, err := db.Plans().Version(t.Context(), plan.Pro, 1); err != nil || v.ArchivedAt.IsZero() {
			t.Errorf("version %+v, %v; want it to be there still", v, err)
		}
		v, fresh, err := db.Plans().Publish(t.Context(), c.Offers[1].Plan, c.Offers[1].Version, noon)
		if err != nil || !fresh || v.Number != 2 {
			t.Errorf("published again as %d (new: %t), %v; want a new version 2", v.Number, fresh, err)
		}
	})

	t.Run("NamesWhatIsMissing", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		s := db.Plans()
		if _, err := s.Plan(t.Context(), "none"); !errors.Is(err, plan.ErrNotFound) {
			t.Errorf("plan: %v", err)
		}
		if _, err := s.Current(t.Context(), "none"); !errors.Is(err, plan.ErrNotFound) {
			t.Errorf("current: %v", err)
		}
		if _, err := s.Versions(t.Context(), "none"); !errors.Is(err, plan.ErrNotFound) {
			t.Errorf("versions: %v", err)
		}
		if _, err := s.Version(t.Context(), "none", 1); !errors.Is(err, plan.ErrVersionNotFound) {
			t.Errorf("version: %v", err)
		}
		if err := s.Archive(t.Context(), "none", 1, noon); !errors.Is(err, plan.ErrVersionNotFound) {
			t.Errorf("archive: %v", err)
		}
	})

	t.Run("AMeterKeepsItsUnit", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		c := plan.Shipped()
		if _, err := plan.Apply(t.Context(), db.Plans(), c, noon); err != nil {
			t.Fatal(err)
		}
		c.Meters[0].Name, c.Meters[1].Unit = "Changed", "letter"
		if _, err := plan.Apply(t.Context(), db.Plans(), c, noon); !errors.Is(err, plan.ErrMeterChanged) {
			t.Errorf("a meter changed its unit: %v", err)
		}
		meters, err := db.Plans().Meters(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range meters {
			if m.Name == "Changed" {
				t.Error("half of a refused catalogue was applied")
			}
		}
	})

	t.Run("RacingPublishersGetOneNumberEach", func(t *testing.T) {
		t.Parallel()
		db := postgrestest.New(t)
		o := plan.Shipped().Offers[1]
		const publishers = 8
		var wg sync.WaitGroup
		for i := range publishers {
			v := o.Version
			v.Limits = []plan.Limit{{Meter: "voice", Quantity: money.DecimalFromInt(int64(i)), Mode: plan.Soft}}
			wg.Go(func() {
				err := db.InTx(t.Context(), func(tx billing.Tx) error {
					_, _, err := tx.Plans().Publish(t.Context(), o.Plan, v, noon)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		all, err := db.Plans().Versions(t.Context(), plan.Pro)
		if err != nil || len(all) != publishers || all[0].Number != publishers {
			t.Errorf("%d versions, %v; want %d", len(all), err, publishers)
		}
	})
}
