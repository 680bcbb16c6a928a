package postgres_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/inquiry"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

func TestGrants(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	a := mustAccount(t, db).ID
	grants := make([]wallet.Grant, 3)
	for i := range grants {
		grants[i] = wallet.Grant{
			ID: id.New[wallet.Grant](), Account: a, Amount: usd(1000), Remaining: usd(1000), Priority: i, Reason: "welcome", Actor: "operator:1",
			GrantedAt: noon,
		}
		if i > 0 {
			grants[i].ExpiresAt = noon.Add(time.Duration(i) * time.Hour)
		}
		if err := db.Wallet().CreateGrant(t.Context(), grants[i]); err != nil {
			t.Fatal(err)
		}
	}
	grants[1].Remaining, grants[1].ExpiredAt = usd(0), noon
	if err := db.Wallet().SaveGrant(t.Context(), grants[1]); err != nil {
		t.Fatal(err)
	}
	if all, err := db.Wallet().Grants(t.Context(), a, page.Request{Limit: 10}); err != nil || !reflect.DeepEqual(all.Data, []wallet.Grant{grants[2], grants[1], grants[0]}) {
		t.Errorf("grants %+v, %v; want all, newest first", all, err)
	}
	mustInTx(t, db, func(tx billing.Tx) error {
		left, err := tx.Wallet().Unspent(t.Context(), a)
		if err == nil && !reflect.DeepEqual(left, []wallet.Grant{grants[0], grants[2]}) {
			t.Errorf("with something left: %+v", left)
		}
		return err
	})
	expiring := func(now time.Time) int {
		list, err := db.Wallet().Expiring(t.Context(), now, wallet.Grant{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	if before, at := expiring(noon.Add(2*time.Hour-time.Second)), expiring(noon.Add(2*time.Hour)); before != 0 || at != 1 {
		t.Errorf("%d expire before and %d at the hour, want 0 and 1", before, at)
	}
	wantPages(t, 1, func(after wallet.Grant, limit int) ([]wallet.Grant, error) {
		return db.Wallet().Expiring(t.Context(), noon.AddDate(10, 0, 0), after, limit)
	})
	mustMoveClock(t, db, a, noon.Add(2*time.Hour))
	if n := expiring(noon); n != 1 {
		t.Errorf("%d expire on the account's own clock, want 1", n)
	}
	mustMoveClock(t, db, a, noon)
	if n := expiring(noon.AddDate(1, 0, 0)); n != 0 {
		t.Errorf("%d expire though the account's clock stands still, want 0", n)
	}
	lost := grants[0]
	lost.ID = id.New[wallet.Grant]()
	if err := db.Wallet().SaveGrant(t.Context(), lost); !errors.Is(err, wallet.ErrGrantNotFound) {
		t.Errorf("save of no grant: %v, want ErrGrantNotFound", err)
	}
}

func TestAutoTopUps(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	store := db.Wallet()
	rule := wallet.AutoTopUp{Account: mustAccount(t, db).ID, Enabled: true, Threshold: usd(1000), Target: usd(5000), UpdatedAt: noon}
	second := rule
	if _, err := store.AutoTopUp(t.Context(), rule.Account); !errors.Is(err, wallet.ErrNoAutoTopUp) {
		t.Errorf("before there is one: %v, want ErrNoAutoTopUp", err)
	}
	if err := store.SaveAutoTopUp(t.Context(), &rule); err != nil {
		t.Fatal(err)
	}
	if err := store.SaveAutoTopUp(t.Context(), &second); !errors.Is(err, account.ErrStale) {
		t.Errorf("a second first rule: %v, want ErrStale", err)
	}
	ceiling := usd(20000)
	rule.Enabled, rule.MonthlyCeiling, rule.Tripped, rule.TrippedReason, rule.TrippedAt = false, &ceiling, true, "expired_card", noon
	if err := store.SaveAutoTopUp(t.Context(), &rule); err != nil {
		t.Fatal(err)
	}
	if got, err := store.AutoTopUp(t.Context(), rule.Account); err != nil || !reflect.DeepEqual(got, rule) || got.Version != 2 {
		t.Errorf("read %+v, %v; want %+v", got, err, rule)
	}
	rule.Tripped, rule.TrippedReason, rule.TrippedAt, rule.MonthlyCeiling = false, "", time.Time{}, nil
	if err := store.SaveAutoTopUp(t.Context(), &rule); err != nil {
		t.Fatal(err)
	}
	if got, err := store.AutoTopUp(t.Context(), rule.Account); err != nil || !reflect.DeepEqual(got, rule) {
		t.Errorf("reset: %+v, %v; want %+v", got, err, rule)
	}
	rule.Version--
	if err := store.SaveAutoTopUp(t.Context(), &rule); !errors.Is(err, account.ErrStale) {
		t.Errorf("save of an old version: %v, want ErrStale", err)
	}
}

func TestAlerts(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	store := db.Alerts()
	newAlert := func(a account.ID) alert.Alert {
		return alert.Alert{ID: id.New[alert.Alert](), Account: a, Kind: alert.Usage, Meter: "voice", Threshold: money.MustDecimal("100.5"), CreatedAt: noon}
	}
	create := func(v alert.Alert) error {
		return db.InTx(t.Context(), func(tx billing.Tx) error { return tx.Alerts().Create(t.Context(), v) })
	}

	t.Run("TellWhoIsWatched", func(t *testing.T) {
		t.Parallel()
		none, alerted, toppedUp, limited := mustAccount(t, db).ID, mustAccount(t, db).ID, mustAccount(t, db).ID, mustAccount(t, db).ID
		all := []account.ID{none, alerted, toppedUp, limited}
		watched := func() map[account.ID]bool {
			got, err := store.Watched(t.Context(), all)
			if err != nil {
				t.Fatal(err)
			}
			set := map[account.ID]bool{}
			for _, a := range got {
				set[a] = true
			}
			return set
		}
		if got := watched(); len(got) != 0 {
			t.Fatalf("watched from the start: %v", got)
		}
		al := newAlert(alerted)
		if err := create(al); err != nil {
			t.Fatal(err)
		}
		limit := int64(1000)
		e := entitlement.Entitlement{
			Account: limited, Status: account.Active, Level: "pro", Currency: money.USD, PeriodStarts: []time.Time{noon}, PeriodEnd: noon.AddDate(0, 1, 0),
			SpendLimit: &limit, UpdatedAt: noon,
		}
		if err := db.InTx(t.Context(), func(tx billing.Tx) error { return tx.Entitlements().Put(t.Context(), e) }); err != nil {
			t.Fatal(err)
		}
		rule := wallet.AutoTopUp{Account: toppedUp, Enabled: true, Threshold: money.New(1000, money.USD), Target: money.New(5000, money.USD), UpdatedAt: noon}
		if err := db.Wallet().SaveAutoTopUp(t.Context(), &rule); err != nil {
			t.Fatal(err)
		}
		if got := watched(); len(got) != 3 || got[none] {
			t.Errorf("watched %v, want all but %s", got, none)
		}
		if err := store.Remove(t.Context(), alerted, al.ID, noon); err != nil {
			t.Fatal(err)
		}
		if got := watched(); len(got) != 2 || got[alerted] {
			t.Errorf("watched %v after the alert was removed", got)
		}
	})
	t.Run("KeepsThemUntilTheyAreRemoved", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		usage, spend := newAlert(a), newAlert(a)
		spend.Kind, spend.Meter = alert.Spend, ""
		for _, v := range []alert.Alert{usage, spend} {
			if err := create(v); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := store.List(t.Context(), a); err != nil || len(got) != 2 || got[0].ID != usage.ID || got[0].Meter != "voice" ||
			got[0].Threshold.String() != "100.5" || got[1].Kind != alert.Spend || got[1].Meter != "" {
			t.Errorf("alerts %+v, %v", got, err)
		}
		if err := store.Remove(t.Context(), a, usage.ID, noon); err != nil {
			t.Fatal(err)
		}
		if err := store.Remove(t.Context(), a, usage.ID, noon); !errors.Is(err, alert.ErrNotFound) {
			t.Errorf("removed twice: %v, want ErrNotFound", err)
		}
		if got, err := store.List(t.Context(), a); err != nil || len(got) != 1 || got[0].ID != spend.ID {
			t.Errorf("after a removal: %+v, %v", got, err)
		}
	})

	t.Run("FiresOncePerPeriodAndThreshold", func(t *testing.T) {
		t.Parallel()
		v := newAlert(mustAccount(t, db).ID)
		if err := create(v); err != nil {
			t.Fatal(err)
		}
		f := alert.Firing{Alert: v.ID, PeriodStart: noon, Threshold: v.Threshold, Value: money.MustDecimal("101"), FiredAt: noon}
		var first atomic.Int32
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				fired, err := store.Fire(t.Context(), v.Account, f)
				if err != nil {
					t.Error(err)
				}
				if fired {
					first.Add(1)
				}
			})
		}
		wg.Wait()
		if first.Load() != 1 {
			t.Errorf("%d calls were the first", first.Load())
		}
		next := f
		next.PeriodStart = noon.AddDate(0, 1, 0)
		if fired, err := store.Fire(t.Context(), v.Account, next); err != nil || !fired {
			t.Errorf("in the next period: %v, %v; want it to fire", fired, err)
		}
		got, err := store.Fired(t.Context(), v.Account, noon)
		if err != nil || len(got) != 1 || got[0].Value.String() != "101" || got[0].Alert != v.ID || got[0].Threshold.Cmp(v.Threshold) != 0 {
			t.Errorf("fired %+v, %v; want the one of this period", got, err)
		}
		if _, err := store.Fire(t.Context(), mustAccount(t, db).ID, f); !errors.Is(err, alert.ErrNotFound) {
			t.Errorf("another account's alert: %v, want ErrNotFound", err)
		}
	})

	t.Run("BoundsTheirNumber", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		var tooMany atomic.Int32
		var wg sync.WaitGroup
		for n := range alert.MaxPerAccount + 5 {
			wg.Go(func() {
				v := newAlert(a)
				v.Threshold = money.DecimalFromInt(int64(n + 1))
				switch err := create(v); {
				case errors.Is(err, alert.ErrTooMany):
					tooMany.Add(1)
				case err != nil:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got, err := store.List(t.Context(), a); err != nil || len(got) != alert.MaxPerAccount || tooMany.Load() != 5 {
			t.Errorf("%d alerts, %d refused, %v; want %d and 5", len(got), tooMany.Load(), err, alert.MaxPerAccount)
		}
	})
}

func TestInquiries(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	store := db.Inquiries()
	a, b := mustAccount(t, db).ID, mustAccount(t, db).ID
	var sent []inquiry.Inquiry
	for _, acct := range []account.ID{a, b, a} {
		i := inquiry.Inquiry{
			ID: id.New[inquiry.Inquiry](), Account: acct, Status: inquiry.Received, Name: "Ada", Email: "ada@example.com", Company: "Engines",
			Message: "More.", Snapshot: json.RawMessage(`{"voice": "12"}`), CreatedAt: noon, UpdatedAt: noon, Version: 1,
		}
		if err := store.Create(t.Context(), i); err != nil {
			t.Fatal(err)
		}
		sent = append(sent, i)
	}
	sent[0].Status, sent[0].UpdatedAt = inquiry.Won, noon.Add(time.Hour)
	if err := store.Save(t.Context(), &sent[0]); err != nil {
		t.Fatal(err)
	}
	if got, err := store.Get(t.Context(), a, sent[0].ID); err != nil || !reflect.DeepEqual(got, sent[0]) || got.Version != 2 {
		t.Errorf("read %+v, %v; want %+v", got, err, sent[0])
	}
	stale := sent[0]
	stale.Version--
	if err := store.Save(t.Context(), &stale); !errors.Is(err, account.ErrStale) {
		t.Errorf("save of an old version: %v, want ErrStale", err)
	}
	own, err := store.List(t.Context(), a, page.Request{Limit: 10})
	if err != nil || !reflect.DeepEqual(own.Data, []inquiry.Inquiry{sent[2], sent[0]}) {
		t.Errorf("own inquiries %+v, %v; want two, newest first", own, err)
	}
	first, err := store.All(t.Context(), account.ID{}, "", page.Request{Limit: 2})
	if err != nil || !reflect.DeepEqual(first.Data, []inquiry.Inquiry{sent[2], sent[1]}) || first.Next == "" {
		t.Fatalf("first page of all %+v, %v", first, err)
	}
	last, err := store.All(t.Context(), account.ID{}, "", page.Request{Limit: 2, After: first.Next})
	if err != nil || !reflect.DeepEqual(last.Data, []inquiry.Inquiry{sent[0]}) || last.Next != "" {
		t.Errorf("last page of all %+v, %v", last, err)
	}
}
