package postgres_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// A kind says how a table would be spread over several machines.
type kind string

const (
	tenant    kind = "tenant"    // distributed by the account: every key of it holds account_id
	reference kind = "reference" // small, rarely written, copied to every machine; no account
	lookup    kind = "lookup"    // distributed by the value that is looked up; no foreign keys
	local     kind = "local"     // stays on one machine: the tools' own tables
)

// tables declares every table. A migration that adds one adds it here, which is a decision: see
// docs/adr and CONTRIBUTING ("add a table").
var tables = map[kind]string{
	reference: "meters plans plan_versions plan_migrations ledger_proofs operator_audit_entries sweeps",
	lookup:    "account_external_ids api_keys provider_refs provider_events card_attempts",
	local:     "goose_db_version river_*",
	tenant: `accounts account_counters account_events audit_entries auto_top_ups billing_periods billing_profiles
		contracts credit_draws credit_grants credit_notes disputes entitlements idempotency_keys invoice_contents invoice_lines
		invoices job_intents ledger_balances ledger_postings ledger_transactions payment_methods payment_setups payments
		plan_migration_accounts provider_customers refunds removal_requests reservations sales_inquiries subscriptions top_ups upgrades
		usage_alert_firings usage_alerts usage_buckets usage_corrections usage_event_keys usage_events usage_rejects
		usage_series usage_series_totals usage_totals usage_unique_values`,
}

func TestSchema_CanBeDistributed(t *testing.T) {
	t.Parallel()
	for _, fault := range lintSchema(t, postgrestest.Pool(t)) {
		t.Error(fault)
	}
}

// Each statement breaks one rule; the check must see it, or it checks nothing.
func TestSchema_FaultsAreSeen(t *testing.T) {
	t.Parallel()
	cases := []struct{ name, ddl, want string }{
		{"UndeclaredTable", "CREATE TABLE surprise (id uuid PRIMARY KEY)", "surprise: not declared"},
		{"TenantKeyWithoutAccount", "ALTER TABLE usage_alert_firings ADD UNIQUE (alert_id)", "usage_alert_firings_alert_id_key"},
		{"TenantUniqueIndexWithoutAccount", "CREATE UNIQUE INDEX planted ON payments (amount)", "planted"},
		{"TenantExclusionWithoutAccount", "ALTER TABLE payments ADD CONSTRAINT planted EXCLUDE (amount WITH =)", "planted"},
		{"TableWithoutPrimaryKey", "ALTER TABLE usage_alert_firings DROP CONSTRAINT usage_alert_firings_pkey", "usage_alert_firings: no primary key"},
		{"ForeignKeyWithoutAccount", "ALTER TABLE accounts ADD UNIQUE (id, external_id); ALTER TABLE usage_alerts ADD other uuid, ADD CONSTRAINT planted FOREIGN KEY (other) REFERENCES accounts (id)", "planted"},
		{"ForeignKeyToLookup", "ALTER TABLE usage_alerts ADD key_hash bytea, ADD CONSTRAINT planted FOREIGN KEY (key_hash) REFERENCES api_keys", "planted"},
		{"ReferenceToTenant", "ALTER TABLE plans ADD owner uuid CONSTRAINT planted REFERENCES accounts (id)", "planted"},
		{"LookupToTenant", "ALTER TABLE api_keys ADD CONSTRAINT planted FOREIGN KEY (account_id) REFERENCES accounts (id)", "planted"},
		{"SetNull", "ALTER TABLE usage_alerts ADD CONSTRAINT planted FOREIGN KEY (account_id) REFERENCES accounts (id) ON DELETE SET NULL", "planted: SET NULL"},
		{"Trigger", "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER planted BEFORE INSERT ON payments FOR EACH ROW EXECUTE FUNCTION f()", "planted: trigger"},
		{"VolatileDefault", "ALTER TABLE usage_alerts ADD planted timestamptz DEFAULT clock_timestamp()", "usage_alerts.planted"},
		{"NullableAccount", "CREATE TABLE surprise (account_id uuid, PRIMARY KEY (account_id)); ALTER TABLE usage_alerts ALTER account_id SET NOT NULL; ALTER TABLE usage_series RENAME account_id TO acct", "usage_series: no column account_id"},
		{"MissingTable", "DROP TABLE usage_series", "usage_series: declared but not there"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pool := postgrestest.Pool(t)
			if _, err := pool.Exec(t.Context(), c.ddl, pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Fatal(err)
			}
			faults := lintSchema(t, pool)
			if !slices.ContainsFunc(faults, func(f string) bool { return strings.Contains(f, c.want) }) {
				t.Fatalf("not seen; saw %q", faults)
			}
		})
	}
}

// appendOnly are the tables whose rows the service itself can neither change nor remove.
var appendOnly = []string{"ledger_transactions", "ledger_postings", "usage_event_keys", "usage_events", "audit_entries", "account_events"}

func TestSchema_ServiceCannotRewriteHistory(t *testing.T) {
	t.Parallel()
	pool := postgrestest.Pool(t)
	for _, table := range appendOnly {
		for _, privilege := range []string{"UPDATE", "DELETE", "TRUNCATE"} {
			var allowed bool
			err := pool.QueryRow(t.Context(), "SELECT has_table_privilege('accrue_app', $1, $2) OR has_any_column_privilege('accrue_app', $1, 'UPDATE')",
				table, privilege).Scan(&allowed)
			if err != nil {
				t.Fatal(err)
			}
			if allowed {
				t.Errorf("accrue_app has %s on %s", privilege, table)
			}
		}
	}
}

func kindOf(table string) kind {
	for k, names := range tables {
		for name := range strings.FieldsSeq(names) {
			if prefix, wild := strings.CutSuffix(name, "*"); name == table || wild && strings.HasPrefix(table, prefix) {
				return k
			}
		}
	}
	return ""
}

// accountColumn is the column that says whose row it is.
func accountColumn(table string) string {
	if table == "accounts" {
		return "id"
	}
	return "account_id"
}

// lintSchema returns what stands in the way of spreading the schema over several machines. It reads
// the catalogue of a plain PostgreSQL; partitions follow their parents and are left out.
func lintSchema(t *testing.T, pool *pgxpool.Pool) (faults []string) {
	t.Helper()
	ctx := t.Context()
	found := map[string]bool{}
	for _, r := range rows[tableRow](ctx, t, pool, `
		SELECT c.relname::text AS name,
		       EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) AS has_key,
		       ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND a.attnotnull AND NOT a.attisdropped) AS columns
		FROM pg_class c
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition`) {
		found[r.Name] = true
		k := kindOf(r.Name)
		if k == "" {
			faults = append(faults, r.Name+": not declared as tenant, reference, lookup or local")
		}
		if !r.HasKey {
			faults = append(faults, r.Name+": no primary key")
		}
		if k == tenant && !slices.Contains(r.Columns, accountColumn(r.Name)) {
			faults = append(faults, r.Name+": no column "+accountColumn(r.Name)+" that is NOT NULL")
		}
	}
	for _, names := range tables {
		for name := range strings.FieldsSeq(names) {
			if !strings.HasSuffix(name, "*") && !found[name] {
				faults = append(faults, name+": declared but not there")
			}
		}
	}
	for _, r := range rows[indexRow](ctx, t, pool, `
		SELECT c.relname::text AS table, ic.relname::text AS index,
		       ARRAY(SELECT a.attname::text FROM unnest(i.indkey) k JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k) AS columns
		FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class ic ON ic.oid = i.indexrelid
		WHERE c.relnamespace = 'public'::regnamespace AND (i.indisunique OR i.indisexclusion) AND NOT c.relispartition`) {
		if kindOf(r.Table) == tenant && !slices.Contains(r.Columns, accountColumn(r.Table)) {
			faults = append(faults, r.Index+": a unique key of "+r.Table+" without "+accountColumn(r.Table))
		}
	}
	for _, r := range rows[foreignKeyRow](ctx, t, pool, `
		SELECT f.conname::text AS name, c.relname::text AS from, p.relname::text AS to,
		       ARRAY(SELECT a.attname::text FROM unnest(f.conkey) WITH ORDINALITY k(n, o) JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.n ORDER BY o) AS columns,
		       ARRAY(SELECT a.attname::text FROM unnest(f.confkey) WITH ORDINALITY k(n, o) JOIN pg_attribute a ON a.attrelid = p.oid AND a.attnum = k.n ORDER BY o) AS targets,
		       f.confdeltype IN ('n', 'd') OR f.confupdtype IN ('n', 'd') AS sets_null
		FROM pg_constraint f JOIN pg_class c ON c.oid = f.conrelid JOIN pg_class p ON p.oid = f.confrelid
		WHERE f.contype = 'f' AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND NOT p.relispartition`) {
		faults = append(faults, r.faults()...)
	}
	for _, r := range rows[namedRow](ctx, t, pool, `
		SELECT c.relname::text AS table, g.tgname::text AS name
		FROM pg_trigger g JOIN pg_class c ON c.oid = g.tgrelid
		WHERE c.relnamespace = 'public'::regnamespace AND NOT g.tgisinternal`) {
		if k := kindOf(r.Table); k != local {
			faults = append(faults, r.Name+": trigger on the "+string(k)+" table "+r.Table)
		}
	}
	for _, r := range rows[namedRow](ctx, t, pool, `
		SELECT c.relname::text AS table, a.attname::text AS name
		FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.adnum
		WHERE c.relnamespace = 'public'::regnamespace
		  AND pg_get_expr(d.adbin, d.adrelid) ~* 'now\(\)|timestamp\(\)|random|uuid_generate|nextval|current_'`) {
		if kindOf(r.Table) != local {
			faults = append(faults, r.Table+"."+r.Name+": the default is volatile; times and identifiers come from the program")
		}
	}
	return faults
}

type tableRow struct {
	Name    string
	HasKey  bool
	Columns []string
}

type indexRow struct {
	Table, Index string
	Columns      []string
}

type namedRow struct{ Table, Name string }

type foreignKeyRow struct {
	Name, From, To   string
	Columns, Targets []string
	SetsNull         bool
}

func (r foreignKeyRow) faults() (faults []string) {
	from, to := kindOf(r.From), kindOf(r.To)
	if r.SetsNull {
		faults = append(faults, r.Name+": SET NULL or SET DEFAULT cannot be distributed")
	}
	switch {
	case from == local && to == local, from == tenant && to == reference, from == reference && to == reference:
	case from == tenant && to == tenant:
		i := slices.Index(r.Columns, accountColumn(r.From))
		if i < 0 || r.Targets[i] != accountColumn(r.To) {
			faults = append(faults, r.Name+": a foreign key of "+r.From+" that does not carry the account")
		}
	default:
		faults = append(faults, r.Name+": a foreign key from the "+string(from)+" table "+r.From+" to the "+string(to)+" table "+r.To)
	}
	return faults
}

func rows[T any](ctx context.Context, t *testing.T, pool *pgxpool.Pool, sql string) []T {
	t.Helper()
	r, err := pool.Query(ctx, sql)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(r, pgx.RowToStructByName[T])
	if err != nil {
		t.Fatal(err)
	}
	return all
}
