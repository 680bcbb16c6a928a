package postgres_test

import (
	"context"
	"io/fs"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/migrations"
)

func migrator(t *testing.T, dsn string) *postgres.Migrator {
	t.Helper()
	m, err := postgres.NewMigrator(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// describe returns the schema as the catalogue has it, so that two states can be compared.
func describe(t *testing.T, dsn string) string {
	t.Helper()
	pool := postgrestest.Connect(t, dsn)
	all := rows[struct{ Line string }](t.Context(), t, pool, `
		SELECT c.relname || ' ' || c.relkind::text || ' ' || coalesce(a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull::text, '')
		       || ' ' || coalesce(c.relacl::text, '') AS line
		FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE c.relnamespace = 'public'::regnamespace
		UNION ALL
		SELECT conrelid::regclass::text || ' ' || conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
		UNION ALL
		SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
		UNION ALL
		SELECT 'type ' || typname FROM pg_type WHERE typnamespace = 'public'::regnamespace
		ORDER BY 1`)
	var b strings.Builder
	for _, l := range all {
		b.WriteString(l.Line + "\n")
	}
	return b.String()
}

func TestMigrate_UpDownUp(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.NewEmpty(t)
	m := migrator(t, dsn)

	first, err := m.Up(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	up := describe(t, dsn)
	again, err := m.Up(t.Context())
	if err != nil || len(again) != 0 {
		t.Fatalf("nothing was left to do, but: %v, %v", again, err)
	}

	// Down one at a time, as an operator would, until nothing is left.
	undone := 0
	for {
		u, err := m.Down(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(u) == 0 {
			break
		}
		undone += len(u)
	}
	if undone != len(first) {
		t.Errorf("%d went up, %d came down", len(first), undone)
	}
	for line := range strings.Lines(describe(t, dsn)) {
		if !strings.Contains(line, "goose_db_version") {
			t.Errorf("left behind: %s", line)
		}
	}

	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if now := describe(t, dsn); now != up {
		t.Errorf("the second time up differs:\n%s\nfrom the first:\n%s", now, up)
	}
	if _, err := m.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Databases from before the store looked for another may have alerts twice.
func TestMigrate_KeepsTheOldestOfTheSameAlerts(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	dsn := db.Pool().Config().ConnString()
	owner, m := postgrestest.Connect(t, dsn), migrator(t, dsn)
	a := mustAccount(t, db)
	for mustText(t, db, `SELECT coalesce(to_regclass('usage_alerts_same')::text, '')`) != "" {
		if _, err := m.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	const insert = `INSERT INTO usage_alerts (account_id, id, kind, meter, threshold, created_at)
		SELECT $1, ('00000000-0000-7000-8000-00000000000' || i)::uuid, kind, meter, threshold, now()
		FROM (VALUES (1, 'spend', NULL, 5), (2, 'spend', NULL, 5.0), (3, 'spend', NULL, 6), (4, 'usage', 'voice', 5), (5, 'usage', 'text', 5),
		             (6, 'usage', 'voice', 5), (7, 'spend', NULL, 5)) AS v (i, kind, meter, threshold)`
	if _, err := owner.Exec(t.Context(), insert, a.ID.UUID()); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if kept := mustText(t, db, `SELECT string_agg(right(id::text, 1), ' ' ORDER BY id) FROM usage_alerts WHERE removed_at IS NULL`); kept != "1 3 4 5" {
		t.Errorf("kept are %s", kept)
	}
	if _, err := owner.Exec(t.Context(), strings.ReplaceAll(insert, "00000000000'", "00000000001'"), a.ID.UUID()); err == nil {
		t.Error("the same alerts were taken once more")
	}
}

// Which credit paid which invoice was not written down at first: the journal and the grants together say it.
func TestMigrate_FindsWhichCreditPaidWhichInvoice(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	m := migrator(t, db.Pool().Config().ConnString())
	a := mustAccount(t, db).ID
	first := mustDraft(t, db, a).ID
	soon := wallet.Grant{ID: id.New[wallet.Grant](), Account: a, Amount: usd(500), Remaining: usd(0), GrantedAt: noon, ExpiresAt: noon.Add(time.Hour), ExpiredAt: noon.Add(time.Hour)}
	never := wallet.Grant{ID: id.New[wallet.Grant](), Account: a, Amount: usd(300), Remaining: usd(50), GrantedAt: noon}
	unspent := wallet.Grant{ID: id.New[wallet.Grant](), Account: a, Amount: usd(100), Remaining: usd(100), Priority: 1, GrantedAt: noon}
	fact := func(reference string) books.Fact {
		return books.Fact{Account: a, Reference: reference, At: noon, RecordedAt: noon}
	}
	err := db.InTx(t.Context(), func(tx billing.Tx) error {
		for _, g := range []wallet.Grant{soon, never, unspent} {
			if err := tx.Wallet().CreateGrant(t.Context(), g); err != nil {
				return err
			}
			if err := tx.Ledger().Append(t.Context(), books.PromoGranted(fact(g.ID.String()), g.Amount)); err != nil {
				return err
			}
		}
		return tx.Ledger().Append(t.Context(),
			books.PromoApplied(fact(first.String()+"/v2"), usd(300)), books.PromoApplied(fact(first.String()+"/v3"), usd(340)),
			books.PromoExpired(fact(soon.ID.String()), usd(110)))
	})
	if err != nil {
		t.Fatal(err)
	}
	for mustText(t, db, `SELECT coalesce(to_regclass('credit_draws')::text, '')`) != "" {
		if _, err := m.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []invoice.Draw{{Grant: never.ID, Amount: usd(250), Returned: usd(0)}, {Grant: soon.ID, Amount: usd(390), Returned: usd(0)}}
	if got, err := db.Invoices().Draws(t.Context(), a, first); err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

// A correction from before corrections named their event finds its own, so long as that is kept: not another account's of the
// same name, nor another of its account at the same moment.
func TestMigrate_CorrectionsFindTheirEvents(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	dsn := db.Pool().Config().ConnString()
	owner, m := postgrestest.Connect(t, dsn), migrator(t, dsn)
	ada, bob := mustAccount(t, db).ID, mustAccount(t, db).ID
	for mustText(t, db, `SELECT count(*)::text FROM information_schema.columns WHERE table_name = 'usage_corrections' AND column_name = 'event_id'`) != "0" {
		if _, err := m.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := owner.Exec(t.Context(), sql, args...); err != nil {
			t.Fatal(err)
		}
	}
	event := func(a account.ID, source, event string, kept bool) uuid.UUID {
		key := metering.KeyOf(source, event)
		exec(`INSERT INTO usage_event_keys (account_id, key, content, occurred_at) VALUES ($1, $2, $2, $3)`, a.UUID(), key, noon)
		if kept {
			exec(`INSERT INTO usage_events (account_id, received_at, key, source, event_id, meter, quantity, occurred_at, period_start, series)
				VALUES ($1, $2, $3, $4, $5, 'voice', 60, $2, $2, '00000000-0000-0000-0000-000000000000')`, a.UUID(), noon, key, source, event)
		}
		return key
	}
	correct := func(a account.ID, key uuid.UUID, sequence, after int) {
		exec(`INSERT INTO usage_corrections (account_id, id, key, sequence, kind, meter, quantity_before, quantity_after, period_start, reason, actor, at)
			VALUES ($1, $2, $3, $4, 'amend', 'voice', 60, $5, $6, 'r', 'a', $6)`, a.UUID(), id.New[metering.Correction]().UUID(), key, sequence, after, noon)
	}
	call, text, gone := event(ada, "pbx", "call", true), event(ada, "sms", "text", true), event(ada, "pbx", "gone", false)
	event(bob, "pbx", "gone", true)
	bobs := event(bob, "pbx", "call", true)
	correct(ada, call, 1, 1)
	correct(ada, call, 2, 2)
	correct(ada, text, 1, 3)
	correct(ada, gone, 1, 4)
	correct(bob, bobs, 1, 5)
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	for a, want := range map[account.ID]string{ada: "1 pbx/call, 2 pbx/call, 3 sms/text, 4 /", bob: "5 pbx/call"} {
		all, err := db.Usage().Corrections(t.Context(), a, metering.Filter{}, page.Request{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range slices.Backward(all.Data) {
			got = append(got, c.After.String()+" "+c.Source+"/"+c.EventID)
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("corrections %q, want %q", got, want)
		}
	}
}

// Which invoice brought a credit note was told by who had written the note, and when.
func TestMigrate_FindsWhichInvoiceBroughtACreditNote(t *testing.T) {
	t.Parallel()
	db := postgrestest.New(t)
	m := migrator(t, db.Pool().Config().ConnString())
	a := mustAccount(t, db).ID
	of := mustDraft(t, db, a)
	other, by := of, of
	for n, i := range []*invoice.Invoice{&other, &by} {
		i.ID, i.Period.Start, i.Period.End = id.New[invoice.Invoice](), of.Period.End.AddDate(0, n, 0), of.Period.End.AddDate(0, n+1, 0)
		mustInTx(t, db, func(tx billing.Tx) error { return tx.Invoices().Create(t.Context(), *i) })
	}
	for _, i := range []*invoice.Invoice{&of, &other, &by} {
		i.Status, i.FinalizedAt = invoice.Open, i.Period.End
		mustInTx(t, db, func(tx billing.Tx) error { return tx.Invoices().Save(t.Context(), i) })
	}
	for _, n := range []invoice.CreditNote{
		{Number: "brought", Actor: "system", IssuedAt: by.FinalizedAt, By: by.ID}, {Number: "by a person", Actor: "user:eve", IssuedAt: by.FinalizedAt},
	} {
		n.ID, n.Account, n.Invoice, n.Amount, n.ToDue = id.New[invoice.CreditNote](), a, of.ID, usd(1), usd(1)
		if err := db.Invoices().AddCreditNote(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	const column = `SELECT count(*)::text FROM information_schema.columns WHERE table_name = 'credit_notes' AND column_name = 'by_invoice_id'`
	for mustText(t, db, column) != "0" {
		if _, err := m.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := db.Invoices().CreditNotesBroughtBy(t.Context(), a)
	if err != nil || len(got) != 1 || got[0].Number != "brought" || got[0].By != by.ID {
		t.Errorf("%+v, %v; want the one that was brought", got, err)
	}
}

func TestMigrate_RunnersTakeTurns(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.NewEmpty(t)
	var g errgroup.Group
	applied := make([]int, 4)
	for i := range applied {
		m := migrator(t, dsn)
		g.Go(func() error {
			done, err := m.Up(t.Context())
			applied[i] = len(done)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	slices.Sort(applied)
	if applied[3] == 0 || applied[2] != 0 {
		t.Fatalf("one runner applies everything, the others nothing: %v", applied)
	}
}

func TestMigrate_WaitingRunnerHeedsItsContext(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.NewEmpty(t)
	conn, err := postgrestest.Connect(t, dsn).Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if _, err := conn.Exec(t.Context(), "SELECT pg_advisory_lock($1)", int64(0x6163637275)); err != nil {
		t.Fatal(err)
	}
	m := migrator(t, dsn)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := m.Up(ctx); err == nil || !strings.Contains(err.Error(), "the migration lock") {
		t.Fatalf("got %v", err)
	}
}

// What serves meanwhile holds a table now and then, an export for long. A migration that cannot have it lets everybody
// else through after a moment, and comes back.
func TestMigrate_LetsOthersThroughWhileATableIsHeld(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.DSN(t)
	m := migrator(t, dsn)
	const undone = 1 // 00031 is the last that is about a table which was there before
	for range undone {
		if _, err := m.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	owner := postgrestest.Connect(t, dsn)
	holder, err := owner.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback(context.WithoutCancel(t.Context())) }()
	const lockAll = `DO $$ BEGIN EXECUTE (SELECT 'LOCK TABLE ' || string_agg(c.oid::regclass::text, ', ') || ' IN ROW EXCLUSIVE MODE'
		FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> 'goose_db_version'); END $$`
	if _, err := holder.Exec(t.Context(), lockAll); err != nil { // whichever the migrations are about
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var g errgroup.Group
	var applied []postgres.Migration
	g.Go(func() (err error) {
		applied, err = m.Up(t.Context())
		return err
	})
	for _, waits := range []bool{true, false} { // it queues, and gives up for a while
		for is := !waits; is != waits; {
			if err := owner.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))").Scan(&is); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := holder.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := g.Wait(); err != nil || len(applied) != undone {
		t.Errorf("applied %v, %v", applied, err)
	}
}

// What was applied before one that failed stays, and is told of.
func TestMigrate_TellsWhatWasAppliedBeforeAFailure(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.NewEmpty(t)
	db := postgrestest.Connect(t, dsn)
	if _, err := db.Exec(t.Context(), "CREATE TABLE meters ()"); err != nil { // the second migration makes it
		t.Fatal(err)
	}
	m := migrator(t, dsn)
	applied, err := m.Up(t.Context())
	if err == nil || !strings.Contains(err.Error(), "00002_catalogue.sql") || len(applied) != 1 || applied[0].Version != 1 {
		t.Errorf("applied %v, %v; want the first, and the name of the second", applied, err)
	}
}

// An instance of an older version starts on the schema of a newer one.
func TestMigrate_LeavesANewerSchemaAlone(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.DSN(t)
	if _, err := postgrestest.Connect(t, dsn).Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)"); err != nil {
		t.Fatal(err)
	}
	if applied, err := migrator(t, dsn).Up(t.Context()); err != nil || len(applied) != 0 {
		t.Errorf("applied %v, %v", applied, err)
	}
}

func TestMigrate_Status(t *testing.T) {
	t.Parallel()
	dsn := postgrestest.DSN(t)
	m := migrator(t, dsn)
	count := func() (applied, all int) {
		t.Helper()
		list, err := m.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range list {
			if s.Applied {
				applied++
			}
		}
		return applied, len(list)
	}
	if applied, all := count(); applied != all || all == 0 {
		t.Fatalf("%d of %d applied", applied, all)
	}
	if _, err := m.Up(t.Context()); err != nil { // nothing is missing, and what the service may see is granted
		t.Fatal(err)
	}
	byService := migrator(t, dsn+"&options=-c%20role%3D"+postgres.AppRole) // whoever owns nothing
	if _, err := byService.Status(t.Context()); err != nil {
		t.Errorf("the service may not see what is missing: %v", err)
	}
	if _, err := m.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if applied, all := count(); applied != all-1 {
		t.Fatalf("after one down %d of %d are applied", applied, all)
	}
}

// A service that was started too early, as a user that owns nothing, learns that all is missing.
func TestMigrate_StatusOfAnEmptyDatabaseIsForAnybody(t *testing.T) {
	t.Parallel()
	postgrestest.DSN(t) // makes the role, which is the server's
	m := migrator(t, postgrestest.NewEmpty(t)+"&options=-c%20role%3D"+postgres.AppRole)
	all, err := m.Status(t.Context())
	if err != nil || len(all) == 0 {
		t.Fatalf("%d migrations: %v", len(all), err)
	}
	for _, one := range all {
		if one.Applied {
			t.Errorf("%s is applied", one)
		}
	}
}

func TestMigrate_SaysWhatItsUserLacks(t *testing.T) {
	t.Parallel()
	postgrestest.DSN(t) // makes the role, which is the server's
	m := migrator(t, postgrestest.NewEmpty(t)+"&options=-c%20role%3D"+postgres.AppRole)
	if _, err := m.Up(t.Context()); err == nil || !strings.Contains(err.Error(), "owns the schema") {
		t.Errorf("error %v", err)
	}
}

func TestMigrations_Files(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`^(\d{5})_[a-z0-9_]+\.sql$`)
	files, err := fs.ReadDir(migrations.FS, ".")
	if err != nil {
		t.Fatal(err)
	}
	numbers := map[string]string{}
	for _, f := range files {
		m := name.FindStringSubmatch(f.Name())
		if m == nil {
			t.Errorf("%s is not named NNNNN_name.sql", f.Name())
			continue
		}
		if other, taken := numbers[m[1]]; taken {
			t.Errorf("%s and %s have the same number", other, f.Name())
		}
		numbers[m[1]] = f.Name()
		text, err := fs.ReadFile(migrations.FS, f.Name())
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"-- +goose Up\n", "-- +goose Down\n"} {
			if strings.Count(string(text), part) != 1 {
				t.Errorf("%s needs one %q", f.Name(), strings.TrimSpace(part))
			}
		}
	}
}
