package demo_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/demo"
	"github.com/accrue-billing/accrue/internal/invariant"
	"github.com/accrue-billing/accrue/internal/invariant/invarianttest"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// A demo that is interrupted leaves customers whose weeks are half lived. The next run must not take them for the
// demo's: it would tell of bills that there are not.
func TestSeeder(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	const secret = "sandbox-test-key"
	server, err := sandbox.New(sandbox.Config{Mode: payment.ModeTest, SecretKey: secret, Clock: clock.System})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	provider := httptest.NewServer(server)
	t.Cleanup(provider.Close)
	gateway, err := sandbox.NewClient(sandbox.ClientConfig{Mode: payment.ModeTest, BaseURL: provider.URL, SecretKey: secret, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(gateway.Close)
	core := &billing.Core{DB: db, Gateway: gateway, Clock: clock.System, Policy: billing.DefaultPolicy(), Log: slog.New(slog.DiscardHandler)}
	if _, err := (billing.Publisher{Core: core}).Publish(t.Context(), plan.Shipped()); err != nil {
		t.Fatal(err)
	}
	seeder := demo.Seeder{Core: core, Journal: postgres.Journal(db.ByKey()), Meters: billing.Meters(plan.Shipped().Meters), Seed: 1}
	now := time.Now()

	ctx, interrupt := context.WithCancel(t.Context())
	seeder.Progress = func(done, _ int) {
		if done == 27 { // the first customer has lived, the second has begun
			interrupt()
		}
	}
	if _, err := seeder.Run(ctx, now); err == nil {
		t.Fatal("the run was not interrupted")
	}
	seeder.Progress = nil
	lived, err := seeder.Run(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := seeder.Run(t.Context(), now.Add(48*time.Hour)); !errors.Is(err, demo.ErrSeeded) || len(again) != len(lived) || again[0].Account != lived[0].Account {
		t.Errorf("the third run returns %v, %v; want what the second has lived", again, err)
	}

	levels := []plan.Code{plan.Developer, plan.Pro, plan.Enterprise}
	if len(lived) != len(levels) {
		t.Fatalf("%d customers, want %d", len(lived), len(levels))
	}
	for i, c := range lived {
		acct, err := billing.Keeper{Core: core}.View(t.Context(), c.Account)
		if err != nil {
			t.Fatal(err)
		}
		if acct.Name != c.Name || acct.ExternalID != c.ExternalID || acct.Subscription.Plan != levels[i] {
			t.Errorf("%q is %s, %q, on %s", c.Name, acct.ExternalID, acct.Name, acct.Subscription.Plan)
		}
	}
	if _, err := (billing.Sweeper{Core: core}).Sweep(t.Context()); err != nil { // what the interrupted ones have left to do
		t.Fatal(err)
	}
	invarianttest.Require(t, db, invariant.Options{Clock: clock.System, Gateway: gateway})
}
