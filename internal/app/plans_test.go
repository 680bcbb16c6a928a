package app_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/app"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/subscription"
)

func TestPlans(t *testing.T) {
	t.Parallel()

	shipped, err := os.ReadFile("../plan/catalogue.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := func(name, old, replacement string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.ReplaceAll(shipped, []byte(old), []byte(replacement)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	same, cheaper, negative := file("same.yaml", "0.027", "0.027"), file("cheaper.yaml", "0.027", "0.026"), file("negative.yaml", "0.027", "-1")
	dsn := postgrestest.DSN(t)
	database := "--database-url=" + dsn
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := app.Execute(t.Context(), append(args, "--data-dir="+dir), noEnvironment, &out, io.Discard)
		return out.String(), err
	}

	if out, err := run("plans", "validate", same); err != nil || !strings.Contains(out, "is good") {
		t.Errorf("validate: %q, %v", out, err)
	}
	_, err = run("plans", "validate", negative)
	if usage, ok := errors.AsType[*app.UsageError](err); !ok || !strings.Contains(usage.Error(), "#/plans/1/charges/0/prices/USD/tiers/0/unit_price") {
		t.Errorf("a negative price: %v, want the entry named", err)
	}
	if out, err := run("plans", "apply", same, database); err != nil || !strings.Contains(out, "pro: version 0 becomes 1") {
		t.Errorf("first apply: %q, %v", out, err)
	}
	if out, err := run("plans", "diff", cheaper, database); err != nil || !strings.Contains(out, "0.027 → 0.026") {
		t.Errorf("diff: %q, %v", out, err)
	}
	if out, err := run("plans", "apply", same, database); err != nil || !strings.Contains(out, "nothing changes") {
		t.Errorf("diff must not have changed anything: %q, %v", out, err)
	}
	if out, err := run("plans", "apply", cheaper, database); err != nil || !strings.Contains(out, "pro: version 1 becomes 2") {
		t.Errorf("second apply: %q, %v", out, err)
	}
	if out, err := run("plans", "migrate", "pro", "--to=2", database); err != nil || !strings.Contains(out, "nothing was changed") {
		t.Errorf("preview of a migration: %q, %v", out, err)
	}
	out, err := run("plans", "migrate", "pro", "--to=2", "--yes", database)
	if err != nil || !strings.Contains(out, "0 accounts dealt with") {
		t.Errorf("migration: %q, %v", out, err)
	}
	done := out[strings.Index(out, "pmg_"):strings.LastIndex(out, ":")]
	if _, err := run("plans", "cancel", "pro", done, database); !errors.Is(err, subscription.ErrMigrationOver) {
		t.Errorf("%s was canceled when it was over: %v", done, err)
	}
	running := begin(t, dsn)
	if _, err := run("plans", "cancel", "developer", running, database); !errors.Is(err, subscription.ErrMigrationNotFound) {
		t.Errorf("canceled a migration of another plan: %v", err)
	}
	if out, err := run("plans", "cancel", "pro", running, database); err != nil || out != running+" is canceled\n" {
		t.Errorf("cancel: %q, %v", out, err)
	}
	if _, err := run("plans", "cancel", "pro", "pmg_x", database); !errors.Is(err, subscription.ErrMigrationNotFound) {
		t.Errorf("canceled a migration that there is not: %v", err)
	}
	if _, err := run("plans", "migrate", "pro", "--to=9", database); !errors.Is(err, plan.ErrVersionNotFound) {
		t.Errorf("migration to a version that there is not: %v", err)
	}
}

// begin leaves a migration of Pro for the sweep, as the operator's API does.
func begin(t *testing.T, dsn string) string {
	t.Helper()
	db, err := postgres.Open(t.Context(), postgres.Config{URL: dsn, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	m := billing.Migrator{Core: &billing.Core{DB: db, Clock: clock.System, Policy: billing.DefaultPolicy(), Log: slog.New(slog.DiscardHandler)}}
	got, err := m.Begin(t.Context(), billing.Asked{Actor: "operator:test"}, billing.MigrationInput{Plan: plan.Pro, To: 2, When: subscription.AtPeriodEnd}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got.Record.ID.String()
}
