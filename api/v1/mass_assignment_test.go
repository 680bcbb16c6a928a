package v1_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
)

// What a caller must not be able to set: members of records, of ours and of any.
var surplus = []string{
	"account", "account_id", "actor", "amount_due", "amount_paid", "balance", "created_at", "credited", "funds", "id", "level", "limit",
	"operation_id", "paid_at", "plan_version", "price", "refunded", "remaining", "scope", "scopes", "status", "total", "unit_price", "version",
	"Status", "__proto__",
}

// TestNothingElseCanBeSet is failure case 82 for every object in every body: a member that the
// operation does not know is refused with a pointer to it, and nothing is stored.
func TestNothingElseCanBeSet(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.owning(t)
	before := w.digest(t, ada.account.ID)
	tried := 0
	for _, op := range operations() {
		if op.body == nil {
			continue
		}
		c, address := ada.asks(t, op)
		op.body.each(nil, func(way []any, object *schema) {
			if !object.Closed {
				return
			}
			for _, name := range surplus {
				if object.Properties[name] != nil {
					continue
				}
				body := op.body.sample(true)
				at := reach(body, way)
				if at == nil {
					t.Fatalf("%s: no object at %v of %v", op.Name(), way, body)
				}
				at[name] = "x"
				pointer := "#"
				for _, step := range append(way, name) {
					pointer += fmt.Sprint("/", step)
				}
				tried++
				got := c.do(t, op.Method, address, toJSON(t, body))
				if got.Status == http.StatusOK && got.at(t, "rejected") == 1.0 { // a batch is answered item by item
					continue
				}
				if got.Status == http.StatusUnprocessableEntity && slices.Contains(op.Consumes, "application/yaml") {
					continue // a document, which is read as a whole: package plan tests what it may hold
				}
				if got.Status != http.StatusUnprocessableEntity || got.str(t, "code") != "invalid_request" || got.str(t, "errors", 0, "pointer") != pointer ||
					got.str(t, "errors", 0, "code") != "unknown_member" {
					t.Errorf("%s with %s: %d %s", op.Name(), pointer, got.Status, got.Body)
				}
			}
		})
	}
	if tried < 1000 {
		t.Errorf("only %d members were tried", tried)
	}
	w.unchanged(t, ada.account.ID, before, "a member that is not known")
}
