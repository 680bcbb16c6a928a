package v1_test

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
)

// catalogue is the shipped price list, changed as strings.NewReplacer does.
func catalogue(t *testing.T, oldnew ...string) string {
	t.Helper()
	text, err := os.ReadFile("../../internal/plan/catalogue.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out := strings.NewReplacer(oldnew...).Replace(string(text))
	if len(oldnew) > 0 && out == string(text) {
		t.Fatalf("%q changed nothing", oldnew)
	}
	return out
}

// document sends a catalogue or a contract as YAML.
func (c caller) document(t *testing.T, path, yaml string) response {
	t.Helper()
	return c.with("Content-Type", "application/yaml").post(t, path, yaml)
}

func TestAdminPlans(t *testing.T) {
	t.Parallel()

	t.Run("PublishesAVersionAndLeavesAccountsWhereTheyAre", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		_, ada := w.upgraded(t, "pm_sandbox_visa")
		op := w.operator(t, account.ID{})
		dearer := catalogue(t, `"0.027"`, `"0.030"`)

		op.document(t, "/v1/admin/plans/preview", dearer).want(t, http.StatusOK).golden(t, "admin_catalogue_preview")
		if got := op.get(t, "/v1/admin/plans/pro/versions"); len(got.at(t, "data").([]any)) != 1 {
			t.Errorf("a preview has published: %s", got.Body)
		}
		first := op.key("publish").document(t, "/v1/admin/plans", dearer).want(t, http.StatusCreated).golden(t, "admin_catalogue")
		again := op.key("publish").document(t, "/v1/admin/plans", dearer).want(t, http.StatusCreated)
		if string(again.Body) != string(first.Body) || again.Header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("a repetition answered %s", again.Body)
		}
		if got := op.document(t, "/v1/admin/plans", dearer).want(t, http.StatusCreated); got.at(t, "plans", 1, "before") != 2.0 || got.at(t, "plans", 1, "after") != 2.0 {
			t.Errorf("the same list under another key: %s", got.Body)
		}
		op.get(t, "/v1/admin/plans").want(t, http.StatusOK).golden(t, "admin_plans")
		op.get(t, "/v1/admin/plans/pro/versions").want(t, http.StatusOK).golden(t, "admin_plan_versions")
		op.get(t, "/v1/admin/plans/pro/versions/1").want(t, http.StatusOK).golden(t, "admin_plan_version")
		if v := ada.get(t, "/v1/plan-fit").at(t, "plans", 1, "plan_version"); v != 1.0 {
			t.Errorf("the account is on version %v", v)
		}
		if v := ada.get(t, "/v1/plans/pro").at(t, "terms", "version"); v != 2.0 {
			t.Errorf("version %v is on sale", v)
		}
	})

	t.Run("AVersionIsImmutable", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		op := w.operator(t, account.ID{})
		op.document(t, "/v1/admin/plans", catalogue(t, "- code: pro ", "- code: pro\n    version: 1 ")).want(t, http.StatusCreated)
		changed := catalogue(t, "- code: pro ", "- code: pro\n    version: 1 ", `"0.027"`, `"0.026"`, "quantity: 50, mode: hard", "quantity: 60, mode: hard")
		for _, path := range []string{"/v1/admin/plans/preview", "/v1/admin/plans"} {
			got := op.document(t, path, changed).problem(t, http.StatusUnprocessableEntity, "version_immutable").golden(t, "problem_version_immutable")
			if p := got.str(t, "errors", 0, "pointer"); p != "#/plans/1/charges/0/prices/USD/tiers/0/unit_price" {
				t.Errorf("the refusal points at %s", p)
			}
		}
		if got := op.get(t, "/v1/admin/plans/pro/versions"); len(got.at(t, "data").([]any)) != 1 {
			t.Errorf("half of a refused catalogue was applied: %s", got.Body)
		}
		for text, code := range map[string]string{
			catalogue(t, "- code: pro ", "- code: pro\n    version: 3 "): "version_gap",
		} {
			if got := op.document(t, "/v1/admin/plans", text).problem(t, http.StatusUnprocessableEntity, "version_immutable"); got.str(t, "errors", 0, "code") != code {
				t.Errorf("%s, want %s", got.Body, code)
			}
		}
		next := catalogue(t, "- code: pro ", "- code: pro\n    version: 2 ", `"0.027"`, `"0.026"`)
		op.document(t, "/v1/admin/plans", next).want(t, http.StatusCreated)
		old := op.document(t, "/v1/admin/plans", catalogue(t, "- code: pro ", "- code: pro\n    version: 1 ")).problem(t, http.StatusUnprocessableEntity, "version_immutable")
		if code := old.str(t, "errors", 0, "code"); code != "version_superseded" {
			t.Errorf("an old list is refused as %s", code)
		}
	})

	t.Run("NamesEveryFaultAndAppliesNothing", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		op := w.operator(t, account.ID{})
		before := op.get(t, "/v1/admin/plans")
		for _, c := range []struct{ old, replacement, pointer, code string }{
			{"{up_to: 30000, unit_price: \"0.027\"}", "{up_to: 30000, unit_price: \"-1\"}", "#/plans/1/charges/0/prices/USD/tiers/0/unit_price", "negative"},
			{"{up_to: 30000, unit_price: \"0.027\"}", "{up_to: 30000, unit_price: \"0.0000000001\"}", "#/plans/1/charges/0/prices/USD/tiers/0/unit_price", "decimal"},
			{"{up_to: 30000, unit_price: \"0.027\"}", "{up_to: 0, unit_price: \"0.027\"}", "#/plans/1/charges/0/prices/USD/tiers/0/up_to", "tier_order"},
			{"{up_to: 30000, unit_price: \"0.027\"}", "{unit_price: \"0.027\"}", "#/plans/1/charges/0/prices/USD/tiers/0/up_to", "tier_overlap"},
			{"{up_to: 30000, unit_price: \"0.027\"}", "{from: 2000, up_to: 30000, unit_price: \"0.027\"}", "#/plans/1/charges/0/prices/USD/tiers/0/from", "tier_gap"},
			{"- {meter: voice, per: minute, included: 1000}", "- {meter: smoke}", "#/plans/0/charges/0/meter", "unknown_meter"},
			{"currencies: [USD]", "currencies: [USD, EUR]", "#/plans/1/charges/0/prices/EUR", "required"},
			{"currencies: [USD]", "currencies: [EUR]", "#/plans/1/charges/0/prices/USD", "currency_mismatch"},
		} {
			got := op.document(t, "/v1/admin/plans", catalogue(t, c.old, c.replacement)).problem(t, http.StatusUnprocessableEntity, "catalogue_invalid")
			if p, code := got.str(t, "errors", 0, "pointer"), got.str(t, "errors", 0, "code"); p != c.pointer || code != c.code {
				t.Errorf("%s: %s at %s, want %s at %s", c.replacement, code, p, c.code, c.pointer)
			}
		}
		for _, c := range []struct{ old, replacement, pointer string }{
			{"unit: word", "unit: letter", "#/meters/1/unit"},
			{"[project, api_key, tag, model]", "[project, api_key, model]", "#/meters/0/dimensions"},
			{"reserved: true", "dimensions: [project]", "#/meters/4/reserved"},
		} {
			got := op.document(t, "/v1/admin/plans", catalogue(t, c.old, c.replacement)).problem(t, http.StatusUnprocessableEntity, "meter_changed")
			if p := got.str(t, "errors", 0, "pointer"); p != c.pointer {
				t.Errorf("the changed meter is at %s, want %s", p, c.pointer)
			}
		}
		op.document(t, "/v1/admin/plans", "plans: [").problem(t, http.StatusBadRequest, "catalogue_unreadable")
		op.post(t, "/v1/admin/plans", "").problem(t, http.StatusBadRequest, "body_required")
		op.with("Content-Type", "text/plain").post(t, "/v1/admin/plans", "x").problem(t, http.StatusUnsupportedMediaType, "unsupported_media_type")
		if after := op.get(t, "/v1/admin/plans"); string(after.Body) != string(before.Body) {
			t.Errorf("what is refused has left a trace: %s", after.Body)
		}
	})

	t.Run("TakesJSONToo", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		body, err := json.Marshal(map[string]any{
			"currencies": []string{"KWD"},
			"meters":     []any{map[string]any{"code": "minutes", "unit": "minute", "aggregation": "sum"}},
			"plans": []any{map[string]any{"code": "kuwait", "charges": []any{map[string]any{
				"meter": "minutes", "prices": map[string]any{"KWD": map[string]any{"model": "per_unit", "unit_price": "0.0125"}},
			}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		op := w.operator(t, account.ID{})
		op.post(t, "/v1/admin/plans", string(body)).want(t, http.StatusCreated)
		anyone := caller{w: w, header: http.Header{}}.key("-")
		got := anyone.post(t, "/v1/estimates", `{"plan":"kuwait","currency":"KWD","usage":{"minutes":"1001"}}`).want(t, http.StatusOK)
		if total := got.at(t, "total", "amount"); total != 12513.0 { // 12.5125 dinars, rounded to fils
			t.Errorf("total %v", total)
		}
	})

	t.Run("ArchivesButNotTheStartPlan", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		op := w.operator(t, account.ID{})
		_, ada := w.upgraded(t, "pm_sandbox_visa")
		op.post(t, "/v1/admin/plans/developer/versions/1/archive", `{"reason":"prices of last year"}`).problem(t, http.StatusConflict, "start_plan")
		op.post(t, "/v1/admin/plans/pro/versions/1/archive", `{"reason":"prices of last year"}`).want(t, http.StatusOK).golden(t, "admin_plan_archived")
		op.post(t, "/v1/admin/plans/pro/versions/1/archive", `{"reason":"prices of last year"}`).want(t, http.StatusOK)
		if e := op.get(t, "/v1/admin/audit-log?action=plan.archive"); e.str(t, "data", 0, "reason") != "prices of last year" {
			t.Errorf("the audit log does not say why: %s", e.Body)
		}
		op.post(t, "/v1/admin/plans/pro/versions/9/archive", `{"reason":"prices of last year"}`).problem(t, http.StatusNotFound, "plan_version_not_found")
		op.post(t, "/v1/admin/plans/pro/versions/x/archive", `{"reason":"prices of last year"}`).problem(t, http.StatusNotFound, "plan_version_not_found")
		op.get(t, "/v1/admin/plans/none/versions").problem(t, http.StatusNotFound, "plan_not_found")
		if level := ada.get(t, "/v1/account").str(t, "level"); level != "pro" {
			t.Errorf("level %s after its version was archived", level)
		}
		w.user(t, w.open(t).ID).post(t, "/v1/upgrades", upgradeBody("pm_sandbox_visa")).problem(t, http.StatusConflict, "plan_not_sold")
		ada.get(t, "/v1/admin/plans").problem(t, http.StatusForbidden, "insufficient_scope")
		w.platform(t, auth.UsageWrite).document(t, "/v1/admin/plans", catalogue(t)).problem(t, http.StatusForbidden, "insufficient_scope")
	})
}

func TestAdminMigrations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	heavy, ada := w.upgraded(t, "pm_sandbox_visa")
	light, eve := w.upgraded(t, "pm_sandbox_visa")
	idle, _ := w.upgraded(t, "pm_sandbox_visa")
	op := w.operator(t, account.ID{})
	w.use(t, heavy.ID, "voice", "2700000") // 45,000 minutes: 1,038.00
	w.use(t, light.ID, "voice", "600000")  // 10,000 minutes: 243.00
	w.advance(start.AddDate(0, 1, 0).Sub(start))
	w.sweep(t)

	// Cheaper at the top, dearer below.
	op.document(t, "/v1/admin/plans", catalogue(t, `"0.027"`, `"0.030"`, `"0.017"`, `"0.010"`)).want(t, http.StatusCreated)
	const path = "/v1/admin/plans/pro/migrations"
	preview := op.post(t, path+"/preview", `{"to":2}`).want(t, http.StatusOK).golden(t, "admin_migration_preview")
	want := []struct {
		account    account.ID
		difference float64
	}{{light.ID, 2700}, {idle.ID, 0}, {heavy.ID, 8700 - 10500}}
	for i, x := range want {
		if a, d := preview.str(t, "data", i, "account"), preview.at(t, "data", i, "difference", "amount"); a != x.account.String() || d != x.difference {
			t.Errorf("row %d: %s differs by %v, want %s by %v", i, a, d, x.account, x.difference)
		}
	}
	op.post(t, path+"/preview", `{"to":3}`).problem(t, http.StatusNotFound, "plan_version_not_found")
	op.post(t, path+"/preview", `{"to":0}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	op.post(t, "/v1/admin/plans/none/migrations/preview", `{"to":1}`).problem(t, http.StatusNotFound, "plan_not_found")

	first := op.key("m").post(t, path, `{"to":2,"reason":"prices of spring"}`).want(t, http.StatusCreated).golden(t, "admin_migration")
	if again := op.key("m").post(t, path, `{"to":2,"reason":"prices of spring"}`); string(again.Body) != string(first.Body) {
		t.Errorf("a repetition answered %s", again.Body)
	}
	op.post(t, path, `{"to":2}`).problem(t, http.StatusConflict, "migration_running")
	cancel := path + "/" + first.str(t, "id") + "/cancel"
	op.post(t, "/v1/admin/plans/developer/migrations/"+first.str(t, "id")+"/cancel", `{"reason":"prices were wrong"}`).problem(t, http.StatusNotFound, "migration_not_found")
	canceled := op.key("c").post(t, cancel, `{"reason":"prices were wrong"}`).want(t, http.StatusOK).golden(t, "admin_migration_canceled")
	if again := op.key("c").post(t, cancel, `{"reason":"prices were wrong"}`).want(t, http.StatusOK); string(again.Body) != string(canceled.Body) {
		t.Errorf("a repetition answered %s", again.Body)
	}
	if e := op.get(t, "/v1/admin/audit-log?action=plan.migrate.cancel"); e.str(t, "data", 0, "reason") != "prices were wrong" {
		t.Errorf("the audit log does not say why: %s", e.Body)
	}
	op.post(t, cancel, "{}").problem(t, http.StatusUnprocessableEntity, "invalid_request")
	w.sweep(t) // moves nobody
	first = op.post(t, path, `{"to":2,"reason":"prices of spring"}`).want(t, http.StatusCreated)
	op.post(t, path, `{"to":2,"when":"soon"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	w.sweep(t)
	done := op.get(t, path+"/"+first.str(t, "id")).want(t, http.StatusOK).golden(t, "admin_migration_completed")
	if n := done.at(t, "done", "migrated"); n != 3.0 {
		t.Errorf("%v accounts were migrated", n)
	}
	op.post(t, path+"/"+first.str(t, "id")+"/cancel", `{"reason":"prices were wrong"}`).problem(t, http.StatusConflict, "migration_over")
	op.get(t, path).want(t, http.StatusOK).golden(t, "admin_migrations")
	op.get(t, "/v1/admin/plans/developer/migrations/"+first.str(t, "id")).problem(t, http.StatusNotFound, "migration_not_found")
	op.get(t, path+"/pmg_x").problem(t, http.StatusNotFound, "migration_not_found")

	// The running period is still billed by version 1, the next one by version 2.
	w.use(t, light.ID, "voice", "600000")
	if got := eve.get(t, "/v1/invoices/upcoming").at(t, "total", "amount"); got != 24300.0 {
		t.Errorf("the running period comes to %v, want the old prices", got)
	}
	w.advance(start.AddDate(0, 1, 0).Sub(start))
	w.sweep(t)
	w.use(t, light.ID, "voice", "600000")
	if got := eve.get(t, "/v1/invoices/upcoming").at(t, "total", "amount"); got != 27000.0 {
		t.Errorf("the next period comes to %v, want the new prices", got)
	}
	if v := ada.get(t, "/v1/plan-fit").at(t, "plans", 1, "plan_version"); v != 2.0 {
		t.Errorf("version %v", v)
	}
	if n := op.post(t, path+"/preview", `{"to":2}`).at(t, "accounts"); n != 0.0 {
		t.Errorf("%v accounts are left", n)
	}
}
