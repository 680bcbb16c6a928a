package v1_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/invariant"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func TestAdminRemovalRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	grace, staff := w.operator(t, a.ID), w.operator(t, account.ID{})
	card := ada.get(t, "/v1/payment-methods").str(t, "data", 0, "id")
	ask := "/v1/payment-methods/" + card + "/removal-requests"
	const path = "/v1/admin/removal-requests"
	resolve := func(c caller, id, decision string) response {
		return c.post(t, path+"/"+id+"/resolve", fmt.Sprintf(`{"decision":%q,"reason":"you have asked"}`, decision))
	}

	first := ada.post(t, ask, `{"kind":"support","note":"please"}`).want(t, http.StatusCreated).str(t, "id")
	staff.get(t, path+"?status=open").want(t, http.StatusOK).golden(t, "admin_removal_requests")
	resolve(grace, first, "perhaps").problem(t, http.StatusUnprocessableEntity, "invalid_request")
	resolve(w.operator(t, w.open(t).ID), first, "approve").problem(t, http.StatusNotFound, "removal_request_not_found")
	resolve(staff, first, "approve").problem(t, http.StatusBadRequest, "account_required")
	resolve(grace, first, "decline").want(t, http.StatusOK).golden(t, "admin_removal_declined")
	if was := resolve(grace, first, "approve").problem(t, http.StatusConflict, "removal_request_resolved").str(t, "removal_request_status"); was == "" {
		t.Error("it does not say how it was resolved")
	}
	if n := len(ada.get(t, "/v1/payment-methods").at(t, "data").([]any)); n != 1 {
		t.Fatalf("%d cards after the request was declined", n)
	}

	mine := ada.get(t, "/v1/removal-requests").want(t, http.StatusOK) // who has asked reads the answer
	if mine.str(t, "data", 0, "id") != first || mine.str(t, "data", 0, "status") != "declined" || mine.str(t, "data", 0, "answer") != "you have asked" {
		t.Errorf("%s", mine.Body)
	}
	if n := len(w.user(t, w.open(t).ID).get(t, "/v1/removal-requests").at(t, "data").([]any)); n != 0 {
		t.Errorf("another account sees %d requests", n)
	}

	second := ada.post(t, ask, `{"kind":"support"}`).want(t, http.StatusCreated).str(t, "id")
	if got := resolve(grace, second, "approve").want(t, http.StatusOK); got.str(t, "status") != "done" || got.str(t, "answer") != "you have asked" {
		t.Errorf("%s", got.Body)
	}
	if n := len(ada.get(t, "/v1/payment-methods").at(t, "data").([]any)); n != 0 {
		t.Errorf("%d cards after the request was approved", n)
	}
	if n := len(grace.get(t, path).want(t, http.StatusOK).at(t, "data").([]any)); n != 2 {
		t.Errorf("%d requests of the account", n)
	}
	if n := len(staff.get(t, path+"?status=open").want(t, http.StatusOK).at(t, "data").([]any)); n != 0 {
		t.Errorf("%d requests are open", n)
	}
}

func TestAdminRemovesACard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.billed(t, sandbox.TokenChargeDeclined)
	grace := w.operator(t, a.ID)
	path := "/v1/admin/payment-methods/" + ada.get(t, "/v1/payment-methods").str(t, "data", 0, "id") + "/remove"
	grace.post(t, path, `{}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	got := grace.key("k").post(t, path, `{"reason":"stolen"}`).want(t, http.StatusOK)
	if got.str(t, "status") != "removed" {
		t.Errorf("%s", got.Body)
	}
	if again := grace.key("k").post(t, path, `{"reason":"stolen"}`); string(again.Body) != string(got.Body) {
		t.Errorf("a repetition answered %s", again.Body)
	}
	grace.post(t, path, `{"reason":"stolen"}`).problem(t, http.StatusNotFound, "payment_method_not_found")
	// What is owed stays owed, and so does the plan.
	if due := ada.get(t, "/v1/balance").at(t, "due", "amount"); due != 78300.0 || ada.get(t, "/v1/account").str(t, "level") != "pro" {
		t.Errorf("due %v", due)
	}
}

func TestAdminSalesInquiries(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	ada, grace, staff := w.user(t, a.ID), w.operator(t, a.ID), w.operator(t, account.ID{})
	const path = "/v1/admin/sales-inquiries"
	id := ada.post(t, "/v1/sales-inquiries", `{"name":"Ada","email":"ada@example.com","company":"Lumen","message":"hello"}`).want(t, http.StatusCreated).str(t, "id")
	staff.get(t, path+"?status=received").want(t, http.StatusOK).golden(t, "admin_sales_inquiries")
	tag := grace.get(t, path+"/"+id).want(t, http.StatusOK).Header.Get("ETag")
	patch := func(tag, body string) response {
		return grace.with("If-Match", tag).do(t, http.MethodPatch, path+"/"+id, body)
	}
	if got := patch(tag, `{"status":"in_progress","note":"called her"}`).want(t, http.StatusOK); got.str(t, "note") != "called her" {
		t.Errorf("%s", got.Body)
	}
	patch(tag, `{"status":"lost"}`).problem(t, http.StatusPreconditionFailed, "stale_version")
	patch("*", `{"status":"odd"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	patch("*", `{"message":"other"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	w.operator(t, w.open(t).ID).get(t, path+"/"+id).problem(t, http.StatusNotFound, "sales_inquiry_not_found")
	seen := ada.get(t, "/v1/sales-inquiries/"+id).want(t, http.StatusOK)
	if seen.str(t, "status") != "in_progress" || seen.at(t, "note") != nil {
		t.Errorf("the customer sees %s", seen.Body)
	}
	if n := len(staff.get(t, path+"?status=received").at(t, "data").([]any)); n != 0 {
		t.Errorf("%d have nobody to look after them", n)
	}
}

func TestAdminParkedPayments(t *testing.T) {
	t.Parallel()
	const path = "/v1/admin/parked-payments"
	setup := func(t *testing.T) (w *world, ada, grace caller, id string) {
		t.Helper()
		w = newWorld(t)
		a, ada := w.upgraded(t, sandbox.TokenVisa)
		if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultWrongAmount}); err != nil {
			t.Fatal(err)
		}
		return w, ada, w.operator(t, a.ID), ada.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusAccepted).str(t, "payment")
	}

	t.Run("StayUntilTheProviderReportsWhatWasAsked", func(t *testing.T) {
		t.Parallel()
		w, _, grace, id := setup(t)
		w.operator(t, account.ID{}).get(t, path).want(t, http.StatusOK).golden(t, "admin_parked_payments")
		got := grace.post(t, path+"/"+id+"/resolve", `{"decision":"ask","reason":"see whether it was put right"}`).problem(t, http.StatusConflict, "payment_still_parked")
		if got.at(t, "reported", "amount") != 5001.0 || got.at(t, "asked", "amount") != 5000.0 {
			t.Errorf("%s", got.Body)
		}
		w.operator(t, w.open(t).ID).post(t, path+"/"+id+"/resolve", `{"decision":"ask","reason":"x"}`).problem(t, http.StatusNotFound, "payment_not_found")
		grace.post(t, path+"/"+id+"/resolve", `{"decision":"accept","reason":"x"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	})

	t.Run("FailWhenAllWasGivenBack", func(t *testing.T) {
		t.Parallel()
		w, ada, grace, id := setup(t)
		const body = `{"decision":"give_back","reason":"the provider took a cent too much"}`
		got := grace.key("k").post(t, path+"/"+id+"/resolve", body).want(t, http.StatusOK)
		if got.str(t, "status") != "failed" || ada.get(t, "/v1/balance").at(t, "funds", "amount") != 0.0 {
			t.Errorf("%s", got.Body)
		}
		if again := grace.key("k").post(t, path+"/"+id+"/resolve", body); string(again.Body) != string(got.Body) {
			t.Errorf("a repetition answered %s", again.Body)
		}
		if got := grace.post(t, path+"/"+id+"/resolve", body).problem(t, http.StatusConflict, "payment_not_parked"); got.str(t, "payment_status") == "" {
			t.Errorf("it does not say how the payment stands: %s", got.Body)
		}
		// The customer may try again: the top-up has failed with its payment.
		ada.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated)
		w.check(t)
	})
}

func TestAdminRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, _ := w.upgraded(t, sandbox.TokenVisa)
	b, _ := w.upgraded(t, sandbox.TokenVisa)
	for _, acct := range []account.ID{a.ID, b.ID} {
		w.use(t, acct, "voice", "1800000")
	}
	w.advance(start.AddDate(0, 1, 0).Add(25 * time.Hour).Sub(w.clock()))
	one := w.operator(t, a.ID).key("k").post(t, "/v1/admin/invoice-runs", "").want(t, http.StatusOK).golden(t, "admin_invoice_run")
	if again := w.operator(t, a.ID).key("k").post(t, "/v1/admin/invoice-runs", ""); string(again.Body) != string(one.Body) {
		t.Errorf("a repetition answered %s", again.Body)
	}
	staff := w.operator(t, account.ID{})
	if all := staff.post(t, "/v1/admin/invoice-runs", "").want(t, http.StatusOK); all.at(t, "done", "periods_closed") != 1.0 || all.at(t, "complete") != true {
		t.Errorf("the other account: %s", all.Body)
	}
	if got := staff.post(t, "/v1/admin/sweeps", "").want(t, http.StatusOK); got.at(t, "done", "periods_closed") != 0.0 {
		t.Errorf("nothing was left: %s", got.Body)
	}
	w.operator(t, b.ID).post(t, "/v1/admin/sweeps", "").want(t, http.StatusOK)
	w.user(t, a.ID).post(t, "/v1/admin/sweeps", "").problem(t, http.StatusForbidden, "insufficient_scope")
	w.check(t)
}

// Whoever asks for a sweep does not wait for the time at which the provider would be asked again by itself.
func TestAdminSweep_AsksForEveryOutcomeNow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset}); err != nil {
		t.Fatal(err)
	}
	top := ada.post(t, "/v1/top-ups", `{"amount":{"amount":5000,"currency":"USD"}}`).want(t, http.StatusAccepted).str(t, "id")
	staff := w.operator(t, account.ID{})
	if got := staff.post(t, "/v1/admin/sweeps", "").want(t, http.StatusOK); got.at(t, "done", "outcomes_asked") != 1.0 {
		t.Errorf("%s", got.Body)
	}
	if got := ada.get(t, "/v1/top-ups/"+top); got.str(t, "status") != "succeeded" {
		t.Errorf("%s of %s", got.Body, a.ID)
	}
	w.check(t)
}

func TestAdminProofs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	staff := w.operator(t, account.ID{})
	ada.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated)

	t.Run("Checks", func(t *testing.T) {
		got := staff.get(t, "/v1/admin/checks").want(t, http.StatusOK).golden(t, "admin_checks")
		if got.at(t, "passed") != 14.0 {
			t.Errorf("%s", got.Body)
		}
		w.user(t, a.ID).get(t, "/v1/admin/checks").problem(t, http.StatusForbidden, "insufficient_scope")
	})
	t.Run("ProofOfADay", func(t *testing.T) {
		staff.get(t, "/v1/admin/proofs/2026-03-10").problem(t, http.StatusNotFound, "proof_not_found")
		w.advance(24 * time.Hour)
		proof, err := invariant.Prove(t.Context(), w.db, w.db.Proofs(), start, invariant.Options{Clock: w.clock, Gateway: w.Gateway})
		if err != nil {
			t.Fatal(err)
		}
		got := staff.get(t, "/v1/admin/proofs/2026-03-10").want(t, http.StatusOK).golden(t, "admin_proof")
		if got.str(t, "root") != fmt.Sprintf("%x", proof.Root) || got.at(t, "accounts") != 1.0 {
			t.Errorf("%s", got.Body)
		}
		for _, day := range []string{"2026-3-10", "yesterday", "2026-02-30"} {
			staff.get(t, "/v1/admin/proofs/"+day).problem(t, http.StatusNotFound, "proof_not_found")
		}
	})
	t.Run("AuditLog", func(t *testing.T) {
		other := w.open(t)
		w.operator(t, other.ID).post(t, "/v1/admin/credits", `{"amount":{"amount":5,"currency":"USD"},"reason":"welcome"}`).want(t, http.StatusCreated)
		w.operator(t, a.ID).post(t, "/v1/admin/credits", `{"amount":{"amount":5,"currency":"USD"},"reason":"welcome"}`).want(t, http.StatusCreated)
		staff.post(t, "/v1/admin/sweeps", "").want(t, http.StatusOK)
		all := staff.get(t, "/v1/admin/audit-log").want(t, http.StatusOK).golden(t, "admin_audit_log")
		if all.at(t, "data", 0, "account") != nil || all.str(t, "data", 1, "account") != a.ID.String() {
			t.Errorf("%s", all.Body)
		}
		for query, want := range map[string]int{"?action=credit.grant": 2, "?actor=nobody": 0, "?limit=1": 1} {
			if got := staff.get(t, "/v1/admin/audit-log"+query).want(t, http.StatusOK); len(got.at(t, "data").([]any)) != want {
				t.Errorf("%s: %s", query, got.Body)
			}
		}
		first := staff.get(t, "/v1/admin/audit-log?limit=1")
		if next := staff.get(t, "/v1/admin/audit-log?limit=1&cursor="+first.str(t, "next_cursor")); next.str(t, "data", 0, "id") != all.str(t, "data", 1, "id") {
			t.Errorf("the second page: %s", next.Body)
		}
		if own := w.operator(t, other.ID).get(t, "/v1/admin/audit-log"); len(own.at(t, "data").([]any)) != 1 {
			t.Errorf("the other account's: %s", own.Body)
		}
	})
}
