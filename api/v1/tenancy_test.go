package v1_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// An owner is an account with a record of every kind that has an address of its own.
type owner struct {
	account       account.Account
	user, support caller
	named         map[string]string // identifiers by the kind that they begin with: "pay_" + …
}

// owning makes an owner through the API.
func (w *world) owning(t *testing.T) owner {
	t.Helper()
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	o := owner{a, ada, w.operator(t, a.ID), map[string]string{}}
	made := func(path, body string) response { return ada.post(t, path, body).want(t, http.StatusCreated) }
	top := ada.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated)
	made("/v1/usage/reservations", `{"meter":"voice","quantity":"5","ttl_seconds":86400}`)
	made("/v1/usage-alerts", `{"kind":"usage","meter":"voice","quantity":"1000000"}`)
	made("/v1/api-keys", `{"name":"server","scopes":["usage:write"]}`)
	made("/v1/sales-inquiries", `{"name":"Ada","email":"ada@example.com"}`)
	o.support.post(t, "/v1/admin/refunds", refundOf(top.str(t, "payment"), 100)).want(t, http.StatusCreated)
	o.support.post(t, "/v1/admin/api-keys", `{"name":"media","scopes":["usage:write"]}`).want(t, http.StatusCreated)
	o.named["seti"] = made("/v1/payment-methods/setup", "").str(t, "id")
	w.use(t, a.ID, "voice", "1800000")
	o.support.post(t, "/v1/admin/test-clock", `{"now":"2026-04-09T00:00:00Z"}`).want(t, http.StatusOK)
	// From here on the card refuses, so that an invoice stays open.
	card := ada.get(t, "/v1/payment-methods").str(t, "data", 0, "id")
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultDecline, Code: "insufficient_funds", Account: a.ID.String()}); err != nil {
		t.Fatal(err)
	}
	o.support.post(t, "/v1/admin/test-clock", `{"now":"2026-04-11T00:00:00Z"}`).want(t, http.StatusOK)
	inv := ada.get(t, "/v1/invoices?status=open").str(t, "data", 0, "id")
	o.support.post(t, "/v1/admin/credit-notes", creditOf(inv, 100)).want(t, http.StatusCreated)
	o.support.post(t, "/v1/admin/credits", `{"amount":{"amount":5,"currency":"USD"},"reason":"welcome"}`).want(t, http.StatusCreated)
	ask := ada.post(t, "/v1/payment-methods/"+card+"/removal-requests", `{"kind":"support"}`).want(t, http.StatusCreated)
	o.named["rmr"] = ask.str(t, "id")
	const contract = `{"plan":"enterprise","reference":"R-1","start":"2026-06-10T00:00:00Z","end":"2027-06-10T00:00:00Z","fee":{"name":"Fee","prices":{"USD":5}}}`
	o.support.post(t, "/v1/admin/contracts", contract).want(t, http.StatusCreated)
	o.named["inv"] = inv
	return o
}

// asks returns who of the owner's may ask for an operation, on whatever version of a record, and its address, which names
// a record of the owner's.
func (o owner) asks(t *testing.T, op operation) (c caller, address string) {
	t.Helper()
	c, id := o.user, ""
	if op.byStaff() {
		c = o.support
	}
	if strings.Contains(op.Path, "{id}") {
		id = o.find(t, op)
	}
	return c.with("If-Match", "*"), op.address(id)
}

// find returns the identifier of a record under the path of an operation, from the list that is served
// there or, for what has none, from how the owner was made.
func (o owner) find(t *testing.T, op operation) string {
	t.Helper()
	collection, _, _ := strings.Cut(op.Path, "/{id}")
	switch collection { // what has no list of its own
	case "/v1/admin/invoices", "/v1/invoices":
		return o.named["inv"]
	case "/v1/admin/removal-requests":
		return o.named["rmr"]
	case "/v1/admin/payment-methods":
		collection = "/v1/payment-methods"
	case "/v1/admin/parked-payments":
		collection = "/v1/payments"
	case "/v1/admin/plans/{code}/migrations": // no owner's; a body is refused before one is looked for
		return "pmg_00000000000000000000000001"
	}
	c := o.user
	if strings.HasPrefix(collection, "/v1/admin/") {
		c = o.support
	}
	list := c.get(t, collection)
	data, _ := list.at(t, "data").([]any)
	if list.Status != http.StatusOK || len(data) == 0 {
		t.Fatalf("%s: the owner has no record of this kind (%d %s): teach owning to make one, or find to name one", op.Name(), list.Status, list.Body)
	}
	return list.str(t, "data", 0, "id")
}

// digest is a hash over every row of every table that belongs to the account.
func (w *world) digest(t *testing.T, a account.ID) map[string]string {
	t.Helper()
	rows, err := w.db.Pool().Query(t.Context(), `
		SELECT c.table_name FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
		WHERE c.table_schema = current_schema() AND c.column_name = 'account_id' AND t.table_type = 'BASE TABLE' ORDER BY 1`)
	if err != nil {
		t.Fatal(err)
	}
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		tables = append(tables, name)
	}
	rows.Close()
	if len(tables) < 20 {
		t.Fatalf("only %v belong to accounts", tables)
	}
	out := map[string]string{}
	for _, name := range append(tables, "accounts") {
		column := "account_id"
		if name == "accounts" {
			column = "id"
		}
		var sum string
		q := fmt.Sprintf(`SELECT coalesce(md5(string_agg(r::text, '|' ORDER BY r::text)), '') FROM %s r WHERE %s = $1`, name, column)
		if err := w.db.Pool().QueryRow(t.Context(), q, a.UUID()).Scan(&sum); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name] = sum
	}
	return out
}

func (w *world) unchanged(t *testing.T, a account.ID, before map[string]string, what string) {
	t.Helper()
	for table, sum := range w.digest(t, a) {
		if sum != before[table] {
			t.Errorf("%s changed %s", what, table)
		}
	}
}

// TestAnothersRecordIsNotThere is failure case 81 for every operation with an identifier in its path:
// with the credentials of another account the record does not exist, and nothing of it changes.
func TestAnothersRecordIsNotThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada, eve := w.owning(t), w.owning(t)
	before := w.digest(t, ada.account.ID)
	tried := 0
	for _, op := range operations() {
		if !strings.Contains(op.Path, "{id}") || op.ofNoAccount() {
			continue
		}
		tried++
		c := eve.user
		if op.byStaff() {
			c = eve.support
		}
		c = c.with("If-Match", "*")
		path := op.address(ada.find(t, op))
		got := c.do(t, op.Method, path, toJSON(t, op.body.sample(false)))
		if code := got.str(t, "code"); got.Status != http.StatusNotFound || !strings.HasSuffix(code, "_not_found") || code == "route_not_found" || code == "account_not_found" {
			t.Errorf("%s with another account's credentials: %d %s", op.Name(), got.Status, got.Body)
		}
		if strings.Contains(string(got.Body), ada.account.ID.String()) {
			t.Errorf("%s names the owner: %s", op.Name(), got.Body)
		}
	}
	if tried < 30 {
		t.Errorf("only %d operations were tried", tried)
	}
	w.unchanged(t, ada.account.ID, before, "somebody else's request")
}

// TestAnothersRecordCannotBeReferredTo is failure case 81 for every member of a body that names a
// record, found by its example.
func TestAnothersRecordCannotBeReferredTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada, eve := w.owning(t), w.owning(t)
	kinds := map[string]string{"seti": ada.named["seti"], "inv": ada.named["inv"], "ref": ada.named["ref"], "rmr": ada.named["rmr"]}
	for kind, path := range map[string]string{"pm": "/v1/payment-methods", "pay": "/v1/payments", "top": "/v1/top-ups", "upg": "/v1/upgrades", "key": "/v1/api-keys"} {
		kinds[kind] = ada.user.get(t, path).want(t, http.StatusOK).str(t, "data", 0, "id")
	}
	kinds["acct"] = ada.account.ID.String()
	fresh := w.user(t, w.open(t).ID) // for what an account on Pro cannot do
	before := w.digest(t, ada.account.ID)
	tried := 0
	for _, op := range operations() {
		if op.ofNoAccount() {
			continue
		}
		op.body.each(nil, func(way []any, object *schema) {
			for name, member := range object.Properties {
				example, _ := member.Example.(string)
				kind, random, ok := strings.Cut(example, "_")
				if !ok || len(random) != 26 {
					continue
				}
				theirs := kinds[kind]
				if theirs == "" {
					t.Fatalf("%s refers to a record %q: teach this test to name one of the owner's", op.Name(), example)
				}
				body := op.body.sample(true)
				at := reach(body, way)
				for other, m := range object.Properties { // what else could name the same thing
					if slices.Contains(m.Types, "string") && !slices.Contains(object.Required, other) {
						delete(at, other)
					}
				}
				at[name] = theirs
				c, path := eve.user, op.Path
				switch {
				case op.byStaff():
					c = eve.support
				case op.Path == "/v1/upgrades":
					c = fresh
				}
				if strings.Contains(path, "{id}") {
					path = op.address(eve.find(t, op))
				}
				tried++
				got := c.with("If-Match", "*").do(t, op.Method, path, toJSON(t, body))
				refused := got.Status == http.StatusOK && got.at(t, "rejected") == 1.0 // a batch is answered item by item
				if !refused && (got.Status != http.StatusNotFound || !strings.HasSuffix(got.str(t, "code"), "_not_found")) {
					t.Errorf("%s with another account's %s: %d %s", op.Name(), name, got.Status, got.Body)
				}
			}
		})
	}
	if tried < 5 {
		t.Errorf("only %d references were tried", tried)
	}
	w.unchanged(t, ada.account.ID, before, "a reference to it")
}

// TestAnothersCursorIsWorthNothing is failure case 81 for the cursors of every list.
func TestAnothersCursorIsWorthNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada, eve := w.owning(t), w.owning(t)
	for range 2 { // so that more lists have a second page
		ada.user.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated)
		ada.user.post(t, "/v1/sales-inquiries", `{"name":"Ada","email":"ada@example.com"}`).want(t, http.StatusCreated)
	}
	tried := 0
	for _, op := range operations() {
		if op.Method != http.MethodGet || op.ofNoAccount() || op.byStaff() || !strings.Contains(strings.Join(op.queries, " "), "cursor") || strings.Contains(op.Path, "{") {
			continue
		}
		cursor := ada.user.get(t, op.Path+"?limit=1").want(t, http.StatusOK).str(t, "next_cursor")
		if cursor == "" {
			continue
		}
		tried++
		eve.user.get(t, op.Path+"?limit=1&cursor="+cursor).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	}
	if tried < 4 {
		t.Errorf("only %d lists had a second page", tried)
	}
}
