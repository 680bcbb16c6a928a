package postgres_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	store := db.APIKeys()
	a, other := mustAccount(t, db).ID, mustAccount(t, db).ID
	ceiling := usd(5000)
	mine := auth.APIKey{
		ID: id.New[auth.APIKey](), Account: a, Name: "server", Mode: auth.Test, LastFour: "wxyz",
		Scopes: []auth.Scope{auth.UsageWrite, auth.BillingRead}, Ceilings: auth.Ceilings{PerPayment: &ceiling}, CreatedAt: noon, ExpiresAt: noon.Add(24 * time.Hour),
	}
	platform := auth.APIKey{ID: id.New[auth.APIKey](), Name: "media servers", Mode: auth.Test, LastFour: "0000", Scopes: []auth.Scope{auth.UsageWrite}, CreatedAt: noon}
	for i, k := range []auth.APIKey{mine, platform} {
		if err := store.Create(t.Context(), k, auth.KeyHash{byte(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}

	if got, err := store.ByHash(t.Context(), auth.KeyHash{1}); err != nil || !reflect.DeepEqual(got, mine) {
		t.Errorf("by hash: %+v, %v; want %+v", got, err, mine)
	}
	if _, err := store.ByHash(t.Context(), auth.KeyHash{9}); !errors.Is(err, auth.ErrKeyNotFound) {
		t.Errorf("an unknown hash: %v", err)
	}
	for name, c := range map[string]struct {
		owner account.ID
		key   auth.KeyID
		found bool
	}{"own": {a, mine.ID, true}, "another's": {other, mine.ID, false}, "the platform's": {account.ID{}, platform.ID, true}, "one's as the platform's": {account.ID{}, mine.ID, false}} {
		if _, err := store.Get(t.Context(), c.owner, c.key); (err == nil) != c.found {
			t.Errorf("%s key: %v", name, err)
		}
	}
	if err := store.Touch(t.Context(), a, mine.ID, noon.Add(time.Minute)); err != nil {
		t.Error(err)
	}

	next := mine
	next.ID, next.LastFour = id.New[auth.APIKey](), "next"
	if err := store.Rotate(t.Context(), mine.ID, noon, noon.Add(time.Hour), next, auth.KeyHash{3}); err != nil {
		t.Fatal(err)
	}
	first, err := store.List(t.Context(), a, page.Request{Limit: 1})
	if err != nil || len(first.Data) != 1 || first.Data[0].ID != next.ID || first.Next != next.ID.String() {
		t.Errorf("after the rotation: %+v, %v", first, err)
	}
	second, err := store.List(t.Context(), a, page.Request{Limit: 1, After: first.Next})
	if err != nil || len(second.Data) != 1 || second.Next != "" || !second.Data[0].ExpiresAt.Equal(noon.Add(time.Hour)) || !second.Data[0].LastUsedAt.Equal(noon.Add(time.Minute)) {
		t.Errorf("the one before: %+v, %v", second, err)
	}
	for at, want := range map[time.Time]int{noon: 2, noon.Add(time.Hour): 1} {
		if n, err := store.Good(t.Context(), a, at); err != nil || n != want {
			t.Errorf("good at %s: %d, %v; want %d", at, n, err, want)
		}
	}
	late := next
	late.ID = id.New[auth.APIKey]()
	if err := store.Rotate(t.Context(), mine.ID, noon.Add(2*time.Hour), noon.Add(3*time.Hour), late, auth.KeyHash{4}); !errors.Is(err, auth.ErrKeyNotFound) {
		t.Errorf("rotate an expired key: %v", err)
	}
	if _, err := store.ByHash(t.Context(), auth.KeyHash{4}); !errors.Is(err, auth.ErrKeyNotFound) {
		t.Error("a refused rotation left its successor")
	}

	if err := store.Revoke(t.Context(), other, next.ID, noon); !errors.Is(err, auth.ErrKeyNotFound) {
		t.Errorf("revoke another's key: %v", err)
	}
	for _, at := range []time.Time{noon, noon.Add(time.Hour)} {
		if err := store.Revoke(t.Context(), a, next.ID, at); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := store.Get(t.Context(), a, next.ID); err != nil || !got.RevokedAt.Equal(noon) {
		t.Errorf("revoked twice: %v, %v; want the first time", got.RevokedAt, err)
	}
}

// Every minute each key in use is marked as used. That must not read all keys that there are.
func TestAPIKeys_AreFoundByAnIndex(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	for _, q := range []string{
		`INSERT INTO api_keys (key_hash, id, account_id, name, mode, last_four, scopes, created_at)
			SELECT sha256(n::text::bytea), gen_random_uuid(), CASE WHEN n > 50 THEN gen_random_uuid() END, 'k', 'test', 'abcd', '{}', now()
			FROM generate_series(1, 5000) n`,
		"ANALYZE api_keys",
	} {
		if _, err := db.Pool().Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	for name, owner := range map[string]string{"an account's": "'00000000-0000-0000-0000-000000000001'", "the platform's": "NULL"} {
		q := "EXPLAIN (FORMAT JSON) SELECT * FROM api_keys WHERE " + strings.ReplaceAll(postgres.OwnedBy, "$1", owner) + " AND id = '00000000-0000-0000-0000-000000000002'"
		var plan string
		if err := db.Pool().QueryRow(t.Context(), q).Scan(&plan); err != nil || !strings.Contains(plan, "api_keys_account") {
			t.Errorf("%s: %v: %s", name, err, plan)
		}
	}
}
