package postgres_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

func TestIdempotency(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	request := idempotency.Request{Key: "k", Scope: "user:1 POST /v1/upgrades", Fingerprint: [32]byte{1}}
	operation := uuid.Must(uuid.NewV7())

	t.Run("ClaimsOnceAndReplaysTheFirstAnswer", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		if c := mustClaim(t, db, a, request, operation); c.Outcome != idempotency.Fresh {
			t.Fatalf("first claim: %+v, want Fresh", c)
		}
		if _, err := claim(t.Context(), db, a, request, operation); !errors.Is(err, idempotency.ErrInProgress) {
			t.Fatalf("claim while it runs: %v, want ErrInProgress", err)
		}
		other := request
		other.Fingerprint[0]++
		if _, err := claim(t.Context(), db, a, other, operation); !errors.Is(err, idempotency.ErrReused) {
			t.Fatalf("another request with the key: %v, want ErrReused", err)
		}
		for _, answer := range []idempotency.Answer{{Status: 201, Body: []byte(`{"a":1}`)}, {Status: 500, Body: []byte(`later`)}} {
			mustInTx(t, db, func(tx billing.Tx) error { return tx.Idempotency().Complete(t.Context(), a, request, answer) })
		}
		c := mustClaim(t, db, a, request, uuid.Nil)
		if c.Outcome != idempotency.Replay || c.Answer.Status != 201 || string(c.Answer.Body) != `{"a":1}` {
			t.Errorf("claim of an answered key: %+v, want the first answer", c)
		}
		if err := db.Idempotency().Release(t.Context(), a, request); err != nil {
			t.Fatal(err)
		}
		if c := mustClaim(t, db, a, request, uuid.Nil); c.Outcome != idempotency.Replay {
			t.Errorf("an answer was released: %+v", c)
		}
	})

	t.Run("KeepsAnEmptyAnswer", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		mustClaim(t, db, a, request, operation)
		if err := db.Idempotency().Complete(t.Context(), a, request, idempotency.Answer{Status: 204}); err != nil {
			t.Fatal(err)
		}
		if c := mustClaim(t, db, a, request, operation); c.Outcome != idempotency.Replay || c.Answer.Status != 204 || len(c.Answer.Body) != 0 {
			t.Errorf("claim %+v, want the empty answer", c)
		}
	})

	t.Run("AnswersTheOperatorsOwnRequests", func(t *testing.T) {
		t.Parallel()
		mustClaim(t, db, account.ID{}, request, operation)
		if err := db.Idempotency().Complete(t.Context(), account.ID{}, request, idempotency.Answer{Status: 201}); err != nil {
			t.Fatal(err)
		}
		if c := mustClaim(t, db, account.ID{}, request, operation); c.Outcome != idempotency.Replay || c.Answer.Status != 201 {
			t.Errorf("claim %+v, want the answer", c)
		}
	})

	t.Run("ResumesWhatADeadRequestBegan", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		mustClaim(t, db, a, request, operation)
		mustEndLeases(t, db, a)
		c := mustClaim(t, db, a, request, uuid.Must(uuid.NewV7()))
		if c.Outcome != idempotency.Resume || c.Operation != operation {
			t.Errorf("claim after the lease: %+v, want to resume %s", c, operation)
		}
		if _, err := claim(t.Context(), db, a, request, operation); !errors.Is(err, idempotency.ErrInProgress) {
			t.Errorf("the lease was not renewed: %v", err)
		}
	})

	t.Run("TakesOverWhatBeganNothing", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		mustClaim(t, db, a, request, uuid.Nil)
		mustEndLeases(t, db, a)
		if c := mustClaim(t, db, a, request, operation); c.Outcome != idempotency.Fresh {
			t.Errorf("claim %+v, want Fresh", c)
		}
		mustEndLeases(t, db, a)
		if c := mustClaim(t, db, a, request, uuid.Nil); c.Outcome != idempotency.Resume || c.Operation != operation {
			t.Errorf("claim %+v, want to resume what took over", c)
		}
	})

	t.Run("LetsAReleasedKeyBeUsedAgain", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		mustClaim(t, db, a, request, operation)
		if err := db.Idempotency().Release(t.Context(), a, request); err != nil {
			t.Fatal(err)
		}
		if c := mustClaim(t, db, a, request, operation); c.Outcome != idempotency.Fresh {
			t.Errorf("claim after a release: %+v, want Fresh", c)
		}
	})

	t.Run("KeepsAccountsAndScopesApart", func(t *testing.T) {
		t.Parallel()
		a, b := mustAccount(t, db).ID, mustAccount(t, db).ID
		mustClaim(t, db, a, request, operation)
		if c := mustClaim(t, db, b, request, operation); c.Outcome != idempotency.Fresh {
			t.Errorf("the same key of another account: %+v, want Fresh", c)
		}
		elsewhere := request
		elsewhere.Scope = "user:1 POST /v1/top-ups"
		if c := mustClaim(t, db, a, elsewhere, operation); c.Outcome != idempotency.Fresh {
			t.Errorf("the same key in another scope: %+v, want Fresh", c)
		}
		if err := db.Idempotency().Complete(t.Context(), b, elsewhere, idempotency.Answer{Status: 200}); err != nil {
			t.Errorf("completing without a claim: %v, want nothing", err)
		}
	})

	t.Run("GivesTheKeyToOneOfMany", func(t *testing.T) {
		t.Parallel()
		a := mustAccount(t, db).ID
		race := func(want idempotency.Outcome) {
			var won, lost atomic.Int32
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					c, err := claim(t.Context(), db, a, request, operation)
					switch {
					case err == nil && c.Outcome == want:
						won.Add(1)
					case errors.Is(err, idempotency.ErrInProgress):
						lost.Add(1)
					default:
						t.Errorf("claim %+v, %v", c, err)
					}
				})
			}
			wg.Wait()
			if won.Load() != 1 || lost.Load() != 19 {
				t.Errorf("%d won, %d lost; want one to win with outcome %d", won.Load(), lost.Load(), want)
			}
		}
		race(idempotency.Fresh)
		mustEndLeases(t, db, a)
		race(idempotency.Resume)
	})
}

func TestIdempotencyExpire(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	a, b := mustAccount(t, db).ID, mustAccount(t, db).ID
	for _, acct := range []account.ID{a, b} {
		for _, key := range []string{"1", "2"} {
			mustClaim(t, db, acct, idempotency.Request{Key: key, Scope: "s"}, uuid.Nil)
		}
	}
	later := time.Now().Add(idempotency.Kept + time.Minute)
	for _, step := range []struct {
		now         time.Time
		limit, want int
	}{{time.Now(), 10, 0}, {later, 3, 3}, {later, 3, 1}, {later, 3, 0}} {
		if n, err := db.Idempotency().Expire(t.Context(), step.now, step.limit); err != nil || n != step.want {
			t.Errorf("expired %d, %v; want %d", n, err, step.want)
		}
	}
}

func claim(ctx context.Context, db *postgres.DB, a account.ID, r idempotency.Request, operation uuid.UUID) (c idempotency.Claimed, err error) {
	err = db.InTx(ctx, func(tx billing.Tx) error {
		c, err = tx.Idempotency().Claim(ctx, a, r, operation)
		return err
	})
	return c, err
}

func mustClaim(tb testing.TB, db *postgres.DB, a account.ID, r idempotency.Request, operation uuid.UUID) idempotency.Claimed {
	tb.Helper()
	c, err := claim(tb.Context(), db, a, r, operation)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// mustEndLeases lets the database's clock pass the leases of an account's keys, by moving those back.
func mustEndLeases(tb testing.TB, db *postgres.DB, a account.ID) {
	tb.Helper()
	_, err := db.Pool().Exec(tb.Context(), "UPDATE idempotency_keys SET locked_until = locked_until - interval '1 hour' WHERE account_id = $1", a.UUID())
	if err != nil {
		tb.Fatal(err)
	}
}
