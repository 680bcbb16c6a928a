package v1_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/api/middleware"
	v1 "github.com/accrue-billing/accrue/api/v1"
	"github.com/accrue-billing/accrue/internal/changes"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/postgres"
)

// A second after another replica has committed something, what a replica answers from memory goes by it. The
// clock stands while it is asked, so that the test knows what memory may still say; no notification is
// waited for, so that it holds where none arrives.
func TestEntitlements_ASecondBehindAnotherReplicaAtMost(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	here := w.replica(t, v1.Streams{}, changes.Options{})
	w.deps.Memory = middleware.NewMemory(postgres.Revisions(w.db.ByKey(), w.clock)) // a replica's memory is its own
	there := w.replica(t, v1.Streams{}, changes.Options{})
	ada := w.user(t, w.open(t).ID)

	says := func(when, used string, allowed bool) {
		t.Helper()
		var got v1.Entitlement
		there.send(t, ada, http.MethodGet, "/v1/entitlements/voice", "", &got)
		if got.Used != used || got.Allowed != allowed {
			t.Errorf("%s: %s used, allowed: %v; want %s, %v", when, got.Used, got.Allowed, used, allowed)
		}
	}
	says("before", "0", true)
	here.post(t, ada, "/v1/usage/events", `{"events":[{"id":"1","source":"test","meter":"voice","quantity":"60000","timestamp":"2026-03-10T08:00:00Z"}]}`)
	says("at once, from memory", "0", true)
	w.advance(time.Second)
	says("a second after the limit was reached", "60000", false)

	here.post(t, ada, "/v1/upgrades", upgradeBody(sandbox.TokenVisa))
	w.advance(time.Second)
	says("a second after the upgrade", "60000", true)

	tag := ada.get(t, "/v1/spend-limit").Header.Get("ETag")
	here.send(t, ada.with("If-Match", tag), http.MethodPut, "/v1/spend-limit", `{"amount":{"amount":100,"currency":"USD"}}`, nil)
	here.post(t, ada, "/v1/usage/events", `{"events":[{"id":"2","source":"test","meter":"voice","quantity":"2220","timestamp":"2026-03-10T08:00:00Z"}]}`)
	w.advance(time.Second)
	says("a second after the spend limit was reached, by 37 minutes at 0.027", "62220", false)
}
