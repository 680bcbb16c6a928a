package v1_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// TestMemoryIsNeverStale does everything that changes what an account has used, owes or may use, and
// after each of it compares the answers that may come from memory with those of a service without any.
func TestMemoryIsNeverStale(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, user := w.upgraded(t, sandbox.TokenVisa)
	forgetful := w.deps
	forgetful.Memory = nil
	fresh, err := api.New(forgetful)
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{"/v1/balance", "/v1/usage", "/v1/usage?group_by=project", "/v1/usage?meter=voice", "/v1/entitlements?strict=true", "/v1/entitlements/voice?strict=true"}
	check := func(step string) {
		t.Helper()
		for _, path := range paths {
			user.get(t, path) // what may be remembered
			got := user.get(t, path)
			req := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
			req.Header.Set("Authorization", "Bearer "+user.token())
			rec := httptest.NewRecorder()
			fresh.ServeHTTP(rec, req)
			if got.Status != rec.Code || string(got.Body) != rec.Body.String() {
				t.Errorf("after %s: GET %s from memory: %d %s\nand afresh: %d %s", step, path, got.Status, got.Body, rec.Code, rec.Body)
			}
		}
	}
	ok := func(r response) response {
		t.Helper()
		if r.Status >= 300 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		return r
	}

	check("the upgrade")
	w.use(t, a.ID, "voice", "120000")
	check("usage")
	events := ok(user.post(t, "/v1/usage/events", `{"id":"call-1","timestamp":"`+w.clock().Format(time.RFC3339)+`","meter":"voice","quantity":"600","dimensions":{"project":"helpdesk"}}`))
	if events.str(t, "results", 0, "status") != "accepted" {
		t.Fatalf("%s", events.Body)
	}
	check("usage with a dimension")
	ok(user.post(t, "/v1/usage/corrections", `{"id":"call-1","action":"amend","quantity":"60","reason":"cut off"}`))
	check("a correction")
	reservation := ok(user.post(t, "/v1/usage/reservations", `{"meter":"voice","quantity":"100"}`))
	check("a reservation")
	ok(user.post(t, "/v1/usage/reservations/"+reservation.str(t, "id")+"/commit", `{"quantity":"70"}`))
	check("its commit")
	ok(user.post(t, "/v1/top-ups", `{"amount":{"amount":5000,"currency":"USD"}}`))
	check("a top-up")
	tag := ok(user.get(t, "/v1/spend-limit")).Header.Get("ETag")
	ok(user.with("If-Match", tag).do(t, "PUT", "/v1/spend-limit", `{"amount":{"amount":1000000,"currency":"USD"},"mode":"hard"}`))
	check("a spend limit")
	w.advance(32 * 24 * time.Hour)
	check("the end of the period, before it is closed")
	w.sweep(t)
	check("the closing")
	late := w.clock().Add(-3 * 24 * time.Hour).Format(time.RFC3339)
	if r := ok(user.post(t, "/v1/usage/events", `{"id":"late-1","timestamp":"`+late+`","meter":"voice","quantity":"300"}`)); r.str(t, "results", 0, "status") != "accepted" {
		t.Fatalf("%s", r.Body)
	}
	check("late usage")
	w.advance(5 * 24 * time.Hour)
	w.sweep(t)
	check("the final invoice")
	ok(user.post(t, "/v1/usage/corrections", `{"id":"call-1","action":"void","reason":"a test call"}`))
	check("a correction of a period that is billed")
	ok(user.post(t, "/v1/downgrades", `{"plan":"developer"}`))
	check("a downgrade that is planned")
	w.advance(31 * 24 * time.Hour)
	w.sweep(t)
	check("a downgrade")
}
