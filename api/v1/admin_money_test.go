package v1_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func TestAdminCredit(t *testing.T) {
	t.Parallel()

	t.Run("PaysBeforeTheCard", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.upgraded(t, sandbox.TokenVisa)
		grace := w.operator(t, a.ID)
		const path = "/v1/admin/credits"
		const body = `{"amount":{"amount":8000,"currency":"USD"},"reason":"welcome","expires_at":"2026-09-01T00:00:00Z"}`
		first := grace.key("k").post(t, path, body).want(t, http.StatusCreated).golden(t, "admin_credit")
		if again := grace.key("k").post(t, path, body); string(again.Body) != string(first.Body) {
			t.Errorf("a repetition answered %s", again.Body)
		}
		if got := ada.get(t, "/v1/balance").at(t, "promotional_credit", "amount"); got != 8000.0 {
			t.Errorf("credit %v, want 80.00", got)
		}
		w.use(t, a.ID, "voice", "1800000")
		grace.post(t, "/v1/admin/test-clock", `{"now":"2026-04-12T00:00:00Z"}`).want(t, http.StatusOK)
		one := path + "/" + first.str(t, "id")
		if got := grace.get(t, one).want(t, http.StatusOK); got.str(t, "status") != "spent" || got.at(t, "remaining", "amount") != 0.0 {
			t.Errorf("%s", got.Body)
		}
		if got := ada.get(t, "/v1/payments").at(t, "data", 0, "amount", "amount"); got != 70300.0 {
			t.Errorf("the card was charged %v, want 783.00 less the credit", got)
		}
		grace.get(t, path).want(t, http.StatusOK).golden(t, "admin_credits")
		w.check(t)
	})

	t.Run("CanBeTakenBack", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		grace := w.operator(t, a.ID)
		made := grace.post(t, "/v1/admin/credits", `{"amount":{"amount":500,"currency":"USD"},"reason":"by mistake"}`).want(t, http.StatusCreated)
		void := "/v1/admin/credits/" + made.str(t, "id") + "/void"
		if got := grace.post(t, void, `{"reason":"it was"}`).want(t, http.StatusOK); got.str(t, "status") != "ended" {
			t.Errorf("%s", got.Body)
		}
		grace.post(t, void, `{"reason":"once more"}`).want(t, http.StatusOK)
		if got := w.user(t, a.ID).get(t, "/v1/balance").at(t, "promotional_credit", "amount"); got != 0.0 {
			t.Errorf("credit %v after it was taken back", got)
		}
		w.operator(t, w.open(t).ID).post(t, void, `{"reason":"x"}`).problem(t, http.StatusNotFound, "credit_grant_not_found")
		w.check(t)
	})

	t.Run("BadInputGivesNone", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		grace := w.operator(t, a.ID)
		for _, body := range []string{
			`{"amount":{"amount":0,"currency":"USD"},"reason":"x"}`, `{"amount":{"amount":5,"currency":"USD"},"reason":""}`,
			`{"amount":{"amount":5,"currency":"USD"},"reason":"x","priority":-1}`, `{"amount":{"amount":5,"currency":"USD"},"reason":"x","remaining":5}`,
			`{"amount":{"amount":5,"currency":"USD"},"reason":"x","expires_at":"2026-03-10T08:00:00Z"}`,
		} {
			grace.post(t, "/v1/admin/credits", body).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		}
		grace.post(t, "/v1/admin/credits", `{"amount":{"amount":5,"currency":"EUR"},"reason":"x"}`).problem(t, http.StatusUnprocessableEntity, "currency_mismatch")
		if n := len(grace.get(t, "/v1/admin/credits").at(t, "data").([]any)); n != 0 {
			t.Errorf("%d credits", n)
		}
	})
}

func creditOf(invoice string, minor int64) string {
	return fmt.Sprintf(`{"invoice":%q,"amount":{"amount":%d,"currency":"USD"},"reason":"billed twice"}`, invoice, minor)
}

func TestAdminCreditNote(t *testing.T) {
	t.Parallel()
	const path = "/v1/admin/credit-notes"

	t.Run("OfWhatIsDueAndThenOfNothing", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.billed(t, sandbox.TokenChargeDeclined)
		grace := w.operator(t, a.ID)
		inv := ada.get(t, "/v1/invoices?status=open").str(t, "data", 0, "id")
		note := grace.key("k").post(t, path, creditOf(inv, 8300)).want(t, http.StatusCreated).golden(t, "credit_note")
		if at := note.Header.Get("Location"); at != "/v1/credit-notes/"+note.str(t, "id") {
			t.Errorf("Location %q", at)
		}
		grace.key("k").post(t, path, creditOf(inv, 8300)).want(t, http.StatusCreated)
		got := ada.get(t, "/v1/invoices/"+inv).want(t, http.StatusOK)
		if got.at(t, "amount_due", "amount") != 70000.0 || got.at(t, "total", "amount") != 78300.0 {
			t.Errorf("%s", got.Body)
		}
		ada.get(t, note.Header.Get("Location")).want(t, http.StatusOK).golden(t, "credit_note")
		ada.get(t, "/v1/credit-notes").want(t, http.StatusOK).golden(t, "credit_notes")
		w.user(t, w.open(t).ID).get(t, note.Header.Get("Location")).problem(t, http.StatusNotFound, "credit_note_not_found")

		refused := grace.post(t, path, creditOf(inv, 70001)).problem(t, http.StatusConflict, "credit_too_large")
		if refused.at(t, "creditable", "amount") != 70000.0 {
			t.Errorf("%s", refused.Body)
		}
		// Without an amount it is all that is left; then nobody owes the invoice any more.
		grace.post(t, path, fmt.Sprintf(`{"invoice":%q,"reason":"the rest"}`, inv)).want(t, http.StatusCreated)
		if got := ada.get(t, "/v1/invoices/"+inv); got.str(t, "status") != "paid" || got.at(t, "amount_due", "amount") != 0.0 {
			t.Errorf("%s", got.Body)
		}
		w.check(t)
	})

	t.Run("OfWhatWasPaidGoesToTheFunds", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.billed(t, sandbox.TokenVisa)
		inv := ada.get(t, "/v1/invoices?status=paid").str(t, "data", 0, "id")
		note := w.operator(t, a.ID).post(t, path, creditOf(inv, 300)).want(t, http.StatusCreated)
		if note.at(t, "to_funds", "amount") != 300.0 || ada.get(t, "/v1/balance").at(t, "funds", "amount") != 300.0 {
			t.Errorf("%s", note.Body)
		}
		w.check(t)
	})

	t.Run("WaitsForACardThatIsBeingCharged", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.billed(t, sandbox.TokenChargeDeclined)
		inv := ada.get(t, "/v1/invoices?status=open").str(t, "data", 0, "id")
		if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultProcessing}); err != nil {
			t.Fatal(err)
		}
		ada.post(t, "/v1/invoices/"+inv+"/pay", `{}`).want(t, http.StatusAccepted)
		grace := w.operator(t, a.ID)
		grace.post(t, path, creditOf(inv, 300)).problem(t, http.StatusConflict, "payment_pending")
		grace.post(t, "/v1/admin/invoices/"+inv+"/void", `{"reason":"x"}`).problem(t, http.StatusConflict, "payment_pending")
	})

	t.Run("WhatCannotBe", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.billed(t, sandbox.TokenChargeDeclined)
		inv := ada.get(t, "/v1/invoices?status=open").str(t, "data", 0, "id")
		grace := w.operator(t, a.ID)
		ada.post(t, path, creditOf(inv, 1)).problem(t, http.StatusForbidden, "insufficient_scope")
		w.operator(t, w.open(t).ID).post(t, path, creditOf(inv, 1)).problem(t, http.StatusNotFound, "invoice_not_found")
		grace.post(t, path, creditOf("inv_x", 1)).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		grace.post(t, path, creditOf(inv, -1)).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		grace.post(t, path, fmt.Sprintf(`{"invoice":%q,"amount":{"amount":1,"currency":"EUR"},"reason":"x"}`, inv)).problem(t, http.StatusUnprocessableEntity, "currency_mismatch")
		if n := len(ada.get(t, "/v1/credit-notes").at(t, "data").([]any)); n != 0 {
			t.Errorf("%d credit notes", n)
		}
	})
}

func TestAdminInvoice(t *testing.T) {
	t.Parallel()
	why := `{"reason":"agreed with the customer"}`

	t.Run("VoidIsOwedByNobody", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.billed(t, sandbox.TokenChargeDeclined)
		grace := w.operator(t, a.ID)
		inv := ada.get(t, "/v1/invoices?status=open").str(t, "data", 0, "id")
		path := "/v1/admin/invoices/" + inv
		grace.key("k").post(t, path+"/void", why).want(t, http.StatusOK).golden(t, "invoice_void")
		grace.key("k").post(t, path+"/void", why).want(t, http.StatusOK)
		grace.post(t, path+"/void", why).problem(t, http.StatusConflict, "invoice_state")
		grace.post(t, path+"/write-off", why).problem(t, http.StatusConflict, "invoice_state")
		ada.post(t, "/v1/invoices/"+inv+"/pay", `{}`).problem(t, http.StatusConflict, "invoice_not_open")
		if due := ada.get(t, "/v1/balance").at(t, "due", "amount"); due != 0.0 {
			t.Errorf("due %v", due)
		}
		w.check(t)
	})

	t.Run("WrittenOffIsStillADebt", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.billed(t, sandbox.TokenChargeDeclined)
		grace := w.operator(t, a.ID)
		inv := ada.get(t, "/v1/invoices?status=open").str(t, "data", 0, "id")
		path := "/v1/admin/invoices/" + inv
		if got := grace.post(t, path+"/write-off", why).want(t, http.StatusOK); got.str(t, "status") != "uncollectible" || got.at(t, "amount_due", "amount") != 0.0 || got.at(t, "amount_remaining", "amount") == 0.0 {
			t.Errorf("%s", got.Body)
		}
		w.check(t)
		if got := grace.post(t, path+"/void", why).want(t, http.StatusOK); got.str(t, "status") != "void" {
			t.Errorf("%s", got.Body)
		}
		w.check(t)
		grace.post(t, "/v1/admin/credit-notes", creditOf(inv, 1)).problem(t, http.StatusConflict, "invoice_state")
	})

	// A debtor who has paid a part of what was written off, and is let off the rest, is no debtor any more.
	t.Run("WhatIsLeftOfAWrittenOffInvoiceCanBeForgiven", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.billed(t, sandbox.TokenChargeDeclined)
		inv := ada.get(t, "/v1/invoices?status=open").str(t, "data", 0, "id")
		for range 40 {
			w.advance(24 * time.Hour)
			w.sweep(t)
			if ada.get(t, "/v1/account").str(t, "status") == string(account.Suspended) {
				break
			}
		}
		grace := w.operator(t, a.ID)
		path := "/v1/admin/invoices/" + inv
		due := grace.post(t, path+"/write-off", why).want(t, http.StatusOK).at(t, "amount_remaining", "amount").(float64)
		grace.post(t, "/v1/admin/credits", `{"amount":{"amount":200,"currency":"USD"},"reason":"goodwill"}`).want(t, http.StatusCreated)
		grace.post(t, path+"/void", why).problem(t, http.StatusConflict, "invoice_partly_paid")

		grace.post(t, "/v1/admin/credit-notes", creditOf(inv, 100)).want(t, http.StatusCreated)
		got := ada.get(t, "/v1/invoices/"+inv)
		if got.str(t, "status") != "uncollectible" || got.at(t, "amount_remaining", "amount") != due-300 || got.at(t, "amount_due", "amount") != 0.0 {
			t.Errorf("forgiven in part: %s", got.Body)
		}
		w.check(t)
		grace.post(t, "/v1/admin/credit-notes", fmt.Sprintf(`{"invoice":%q,"reason":"settled"}`, inv)).want(t, http.StatusCreated)
		if got := ada.get(t, "/v1/invoices/"+inv); got.at(t, "amount_remaining", "amount") != 0.0 {
			t.Errorf("forgiven: %s", got.Body)
		}
		if s := ada.get(t, "/v1/account").str(t, "status"); s != "active" {
			t.Errorf("the account is %s", s)
		}
		w.check(t)
	})

	t.Run("WhatWasPaidCannotBeVoid", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.billed(t, sandbox.TokenVisa)
		grace := w.operator(t, a.ID)
		inv := ada.get(t, "/v1/invoices").str(t, "data", 0, "id")
		grace.post(t, "/v1/admin/invoices/"+inv+"/void", why).problem(t, http.StatusConflict, "invoice_state")
		pay := ada.get(t, "/v1/payments").str(t, "data", 0, "id")
		grace.post(t, "/v1/admin/refunds", refundOf(pay, 300)).want(t, http.StatusCreated)
		grace.post(t, "/v1/admin/invoices/"+inv+"/void", why).problem(t, http.StatusConflict, "invoice_partly_paid")
		w.check(t)
	})

	t.Run("VoidingEndsASuspension", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.billed(t, sandbox.TokenChargeDeclined)
		inv := ada.get(t, "/v1/invoices?status=open").str(t, "data", 0, "id")
		for range 40 {
			w.advance(24 * time.Hour)
			w.sweep(t)
			if ada.get(t, "/v1/account").str(t, "status") == string(account.Suspended) {
				break
			}
		}
		if s := ada.get(t, "/v1/account").str(t, "status"); s != "suspended" {
			t.Fatalf("status %s", s)
		}
		if next := ada.get(t, "/v1/invoices/"+inv).at(t, "next_attempt_at"); next != nil {
			t.Errorf("a card is said to be charged at %v, when the debt is written off", next)
		}
		// Paid use has stopped. The Billing page has not: it shows what is owed, and takes a card and money.
		if res := w.tryUse(t, a.ID, "voice", "60001"); res.Status != metering.Rejected {
			t.Errorf("paid use while suspended: %+v", res)
		}
		for _, path := range []string{"/v1/overview", "/v1/balance", "/v1/invoices/" + inv, "/v1/payments", "/v1/payment-methods", "/v1/usage"} {
			ada.get(t, path).want(t, http.StatusOK)
		}
		ada.post(t, "/v1/invoices/"+inv+"/pay", "").want(t, http.StatusPaymentRequired)
		ada.post(t, "/v1/payment-methods/setup", "").want(t, http.StatusCreated)
		w.operator(t, a.ID).post(t, "/v1/admin/invoices/"+inv+"/void", why).want(t, http.StatusOK)
		if s := ada.get(t, "/v1/account").str(t, "status"); s != "active" {
			t.Errorf("status %s", s)
		}
		w.check(t)
	})
}
