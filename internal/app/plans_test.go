package app_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/app"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
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
	if usage, ok := errors.AsType[*app.UsageError](err); !ok || !strings.Contains(usage.Error(), negative+":"+lineOf(shipped, `"0.027"`)+": #/plans/1/charges/0/prices/USD/tiers/0/unit_price") {
		t.Errorf("a negative price: %v, want the entry named, and its line", err)
	}
	if _, err = run("plans", "validate", file("broken.yaml", "plans:", "plans")); err == nil || !strings.Contains(err.Error(), "broken.yaml: ") {
		t.Errorf("what is no YAML: %v, want the file named", err)
	}
	documented, err := os.ReadFile("../../docs/pricing.md")
	if err != nil {
		t.Fatal(err)
	}
	drawn, err := run("plans", "draw", same)
	if first, _, _ := strings.Cut(drawn, "\n\n"); err != nil || !strings.Contains(first, "2,000     $27.00     $0.0135  ████████████████████▋") || !bytes.Contains(documented, []byte(first)) {
		t.Errorf("draw, as docs/pricing.md shows it: %v\n%s", err, first)
	}
	if out, err := run("plans", "apply", same, database); err != nil || !strings.Contains(out, "pro: is new, as version 1") {
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

// A dry run says what a catalogue would change and what the accounts that there are would pay; accounts stay
// on the version that they have when it is put on sale.
func TestPlans_DryRunTellsTheEffectOnAccounts(t *testing.T) {
	t.Parallel()

	shipped, err := os.ReadFile("../plan/catalogue.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shipped = bytes.ReplaceAll(shipped, []byte("    requires_card: true\n"), nil) // no provider here to save a card with
	dir, dsn := t.TempDir(), postgrestest.DSN(t)
	run := func(catalogue []byte, args ...string) string {
		t.Helper()
		file := filepath.Join(dir, "catalogue.yaml")
		if err := os.WriteFile(file, catalogue, 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := app.Execute(t.Context(), append(args, file, "--data-dir="+dir, "--database-url="+dsn), noEnvironment, &out, io.Discard); err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		return out.String()
	}
	run(shipped, "plans", "apply")
	accounts := onPro(t, dsn)

	dearer := bytes.Replace(shipped, []byte(`"0.027"`), []byte(`"0.03"`), 1)
	dearer = bytes.Replace(dearer, []byte(`"0.10"`), []byte(`"0.08"`), 1)
	const want = `pro: version 1 becomes 2
  #/charges/call_score/prices/USD/unit_price: 0.1 → 0.08
  #/charges/voice/prices/USD/tiers/0/unit_price: 0.027 → 0.03
  4 accounts stay on version 1
  if they were moved: 4 of 4 accounts compared by their last months: 1 would have paid more, 1 less, 1 the same
  37.00 USD → 38.00 USD
  caller: 27.00 USD → 30.00 USD (3.00 USD)
  idle: 0.00 USD → 0.00 USD (0.00 USD)
  agreed stays on version 1: contract
  scorer: 10.00 USD → 8.00 USD (-2.00 USD)
`
	for _, command := range [][]string{{"plans", "diff"}, {"plans", "apply", "--dry-run"}} {
		if got := run(dearer, command...); got != want {
			t.Errorf("%s prints\n%s\nwant\n%s", command, got, want)
		}
	}
	if got := run(shipped, "plans", "diff"); got != "nothing changes\n" {
		t.Errorf("a dry run has put something on sale: %s", got)
	}
	if got := run(dearer, "plans", "apply"); got != want {
		t.Errorf("apply prints\n%s\nwant\n%s", got, want)
	}
	if got := run(dearer, "plans", "diff"); got != "nothing changes\n" {
		t.Errorf("apply has not put it on sale: %s", got)
	}
	db := open(t, dsn)
	for _, a := range accounts {
		if sub, err := db.Subscriptions().Active(t.Context(), a); err != nil || sub.Terms.Version != 1 {
			t.Errorf("%s is on version %d, %v", a, sub.Terms.Version, err)
		}
	}
}

// A meter is part of a catalogue too: one that is new, or gets a dimension, is told.
func TestPlans_DiffTellsWhatBecomesOfMeters(t *testing.T) {
	t.Parallel()
	shipped, err := os.ReadFile("../plan/catalogue.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shipped = bytes.ReplaceAll(shipped, []byte("    requires_card: true\n"), nil)
	dir, dsn := t.TempDir(), postgrestest.DSN(t)
	run := func(catalogue []byte, command string) string {
		t.Helper()
		file := filepath.Join(dir, "catalogue.yaml")
		if err := os.WriteFile(file, catalogue, 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if err := app.Execute(t.Context(), []string{"plans", command, file, "--data-dir=" + dir, "--database-url=" + dsn}, noEnvironment, &out, io.Discard); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		return out.String()
	}
	run(shipped, "apply")
	more := bytes.Replace(shipped, []byte("dimensions: ["), []byte("dimensions: [zone_of_test, "), 1)
	if got := run(more, "diff"); !strings.Contains(got, "#/meters/") || !strings.Contains(got, "zone_of_test") {
		t.Errorf("a new dimension: %q", got)
	}
	run(more, "apply")
	if got := run(more, "diff"); got != "nothing changes\n" {
		t.Errorf("once applied: %q", got)
	}
}

// onPro opens four accounts on Pro: one that calls, one that scores calls, one that does nothing and one
// with a contract.
func onPro(t *testing.T, dsn string) (out []account.ID) {
	t.Helper()
	core := &billing.Core{DB: open(t, dsn), Clock: clock.System, Policy: billing.DefaultPolicy(), Log: slog.New(slog.DiscardHandler)}
	core.Policy.StartPlan = string(plan.Pro)
	ingest := metering.NewIngester(postgres.Journal(open(t, dsn).Pool()), billing.Meters(plan.Shipped().Meters), clock.System, core.Log, metering.Options{})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- ingest.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	for _, customer := range []struct{ name, meter, quantity string }{
		{"caller", "voice", "120000"}, // 2,000 minutes, 1,000 of them at 0.027
		{"scorer", "call_score", "100"},
		{"idle", "", ""},
		{"agreed", "", ""},
	} {
		a, err := billing.Opener{Core: core}.Open(ctx, billing.NewAccount{ExternalID: customer.name})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, a.ID)
		if customer.meter == "" {
			continue
		}
		res, err := ingest.Add(ctx, []metering.Event{{
			Account: a.ID, Source: "test", ID: "1", Meter: customer.meter, Quantity: money.MustDecimal(customer.quantity), OccurredAt: clock.System(),
		}})
		if err != nil || res[0].Status != metering.Accepted {
			t.Fatalf("usage of %s: %+v, %v", customer.name, res, err)
		}
	}
	_, err := billing.Contractor{Core: core}.Agree(ctx, billing.Asked{Account: out[3], Actor: "operator:test"}, plan.Contract{Reference: "C-1", Plan: plan.Pro}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func open(t *testing.T, dsn string) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), postgres.Config{URL: dsn, MaxConns: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	return db
}

// begin leaves a migration of Pro for the sweep, as the operator's API does.
func begin(t *testing.T, dsn string) string {
	t.Helper()
	m := billing.Migrator{Core: &billing.Core{DB: open(t, dsn), Clock: clock.System, Policy: billing.DefaultPolicy(), Log: slog.New(slog.DiscardHandler)}}
	got, err := m.Begin(t.Context(), billing.Asked{Actor: "operator:test"}, billing.MigrationInput{Plan: plan.Pro, To: 2, When: subscription.AtPeriodEnd}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got.Record.ID.String()
}

// lineOf is the number of the first line that holds text.
func lineOf(document []byte, text string) string {
	before, _, _ := bytes.Cut(document, []byte(text))
	return strconv.Itoa(1 + bytes.Count(before, []byte("\n")))
}

// Without the plan on which accounts begin none could ever be opened.
func TestServe_RefusesAFirstCatalogueWithoutTheStartPlan(t *testing.T) {
	t.Parallel()
	_, err := execute(t, "serve", "--addr=127.0.0.1:0", "--sandbox-addr=127.0.0.1:0", "--data-dir", t.TempDir(),
		"--database-url", postgrestest.DSN(t), "--catalogue=../../docs/catalogues/speech.yaml")
	if usage, ok := errors.AsType[*app.UsageError](err); !ok || !strings.Contains(usage.Error(), "catalogue: ../../docs/catalogues/speech.yaml has no plan developer") {
		t.Errorf("serve: %v, want the option named, and the plan", err)
	}
}

// The file that the service is configured with is what an empty database begins with. It is on disk for ever,
// while prices go on: a restart must not take back what has been put on sale since, nor what was taken off it.
func TestServe_ARestartKeepsThePricesThatAreOnSale(t *testing.T) {
	t.Parallel()

	shipped, err := os.ReadFile("../plan/catalogue.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir, dsn := t.TempDir(), postgrestest.DSN(t)
	file := func(name, price string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, bytes.ReplaceAll(shipped, []byte(`"0.027"`), []byte(`"`+price+`"`)), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	configured := file("catalogue.yaml", "0.031")
	options := []string{"--data-dir", dir, "--database-url", dsn}
	start := func() (prices, log string) {
		p := serve(t, append(options, "--catalogue", configured)...)
		_, prices = p.get(t, "/v1/plans")
		p.end(t)
		return prices, p.log.String()
	}

	// A probe that comes before the service is ready is told, and is none of the catalogue's.
	warns := func(log string) bool {
		return slices.ContainsFunc(strings.Split(log, "\n"), func(line string) bool {
			return strings.Contains(line, "level=WARN") && !strings.Contains(line, "route=/readyz")
		})
	}
	if prices, log := start(); !strings.Contains(prices, `"0.031"`) || warns(log) {
		t.Fatalf("an empty database has not begun with the file: %s\n%s", prices, log)
	}
	if _, log := start(); strings.Contains(log, "is not what is on sale") {
		t.Errorf("the file is what is on sale:\n%s", log)
	}
	if _, err := execute(t, append([]string{"plans", "apply", file("spring.yaml", "0.026")}, options...)...); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dsn).Plans().Archive(t.Context(), "enterprise", 1, time.Now()); err != nil {
		t.Fatal(err)
	}
	prices, log := start()
	if !strings.Contains(prices, `"0.026"`) || strings.Contains(prices, `"0.031"`) || strings.Contains(prices, `"enterprise"`) {
		t.Errorf("after a restart what is on sale is %s", prices)
	}
	for _, want := range []string{"plan=pro on_sale=2 changes=1", "plan=enterprise on_sale=0", "accrue plans diff " + configured} {
		if !strings.Contains(log, want) {
			t.Errorf("the log does not say %q:\n%s", want, log)
		}
	}
}
