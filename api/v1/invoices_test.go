package v1_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
	"github.com/accrue-billing/accrue/pkg/money"
)

// billed is an account on Pro whose first month is invoiced: 30,000 minutes of voice, of which 29,000
// are not included and cost 783.00 USD, and nothing else. The card was charged by the sweep.
func (w *world) billed(tb testing.TB, token string) (account.Account, caller) {
	tb.Helper()
	a, c := w.upgraded(tb, token)
	w.use(tb, a.ID, "voice", "1800000")
	w.advance(start.AddDate(0, 1, 0).Add(25 * time.Hour).Sub(w.clock()))
	w.sweep(tb)
	w.sweep(tb)
	return a, c
}

func TestInvoices(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.billed(t, sandbox.TokenVisa)

	list := ada.get(t, "/v1/invoices").want(t, http.StatusOK).golden(t, "invoices")
	id := list.str(t, "data", 0, "id")
	one := ada.get(t, "/v1/invoices/"+id).want(t, http.StatusOK).golden(t, "invoice")
	if got := one.at(t, "total", "amount"); got != 78300.0 {
		t.Errorf("total %v, want 783.00", got)
	}
	if ada.with("If-None-Match", one.Header.Get("ETag")).get(t, "/v1/invoices/"+id).Status != http.StatusNotModified {
		t.Error("an invoice that has not changed was sent again")
	}

	t.Run("Status", func(t *testing.T) {
		if n := len(ada.get(t, "/v1/invoices?status=paid").want(t, http.StatusOK).at(t, "data").([]any)); n != 1 {
			t.Errorf("%d paid invoices", n)
		}
		if n := len(ada.get(t, "/v1/invoices?status=draft").want(t, http.StatusOK).at(t, "data").([]any)); n != 0 {
			t.Errorf("%d drafts", n)
		}
		ada.get(t, "/v1/invoices?status=lost").problem(t, http.StatusUnprocessableEntity, "invalid_request")
	})
	t.Run("Another'sIsNotThere", func(t *testing.T) {
		bob := w.user(t, w.open(t).ID)
		for _, path := range []string{"/v1/invoices/" + id, "/v1/invoices/" + id + "/lines/1/explanation", "/v1/invoices/nonsense"} {
			bob.get(t, path).problem(t, http.StatusNotFound, "invoice_not_found")
		}
		bob.post(t, "/v1/invoices/"+id+"/pay", "").problem(t, http.StatusNotFound, "invoice_not_found")
	})
	t.Run("Upcoming", func(t *testing.T) {
		w.use(t, a.ID, "voice", "66600")
		ada.get(t, "/v1/invoices/upcoming").want(t, http.StatusOK).golden(t, "invoice_upcoming")
	})
	t.Run("UpcomingNamesThePeriodOfLateUsage", func(t *testing.T) {
		w.useAt(t, a.ID, "voice", "60", start.Add(24*time.Hour))
		up := ada.get(t, "/v1/invoices/upcoming").want(t, http.StatusOK)
		if kind, from := up.str(t, "lines", 1, "kind"), up.str(t, "lines", 1, "period", "from"); kind != "adjustment" || from != start.Format(time.DateOnly)+"T00:00:00Z" {
			t.Errorf("the second line is of kind %s, for the period from %s", kind, from)
		}
	})
	t.Run("PaidIsPaid", func(t *testing.T) {
		ada.post(t, "/v1/invoices/"+id+"/pay", "").problem(t, http.StatusConflict, "invoice_not_open")
	})
	t.Run("CreditNotes", func(t *testing.T) {
		ada.get(t, "/v1/credit-notes").want(t, http.StatusOK).golden(t, "credit_notes_none")
	})
}

func TestExplanation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.billed(t, sandbox.TokenVisa)
	id := ada.get(t, "/v1/invoices").str(t, "data", 0, "id")
	line := "/v1/invoices/" + id + "/lines/1/explanation"

	ada.get(t, line).want(t, http.StatusOK).golden(t, "explanation")
	ada.post(t, line+"/verify", "").want(t, http.StatusOK).golden(t, "verification")
	for _, n := range []string{"0", "99", "01", "x"} {
		ada.get(t, "/v1/invoices/"+id+"/lines/"+n+"/explanation").problem(t, http.StatusNotFound, "invoice_line_not_found")
	}

	// Whoever changes what the line stands on is found out, and told apart by what was changed.
	owner := postgrestest.Connect(t, w.dsn)
	for _, c := range []struct{ change, check string }{
		{`UPDATE invoice_lines SET amount = amount + 1 WHERE kind = 'usage'`, "amount"},
		{`UPDATE invoice_lines SET derivation = jsonb_set(derivation, '{quantity}', '"1800060"') WHERE kind = 'usage'`, "derivation"},
		{`UPDATE plan_versions SET definition = jsonb_set(definition, '{interval}', '"year"') WHERE plan_code = 'pro'`, "plan"},
		{`DELETE FROM usage_events`, "events"},
	} {
		if _, err := owner.Exec(t.Context(), c.change); err != nil {
			t.Fatal(err)
		}
		got := ada.post(t, line+"/verify", "").want(t, http.StatusOK)
		if got.at(t, "verified") != false {
			t.Errorf("after %s: verified", c.change)
		}
		found := false
		for i := range got.at(t, "checks").([]any) {
			found = found || got.str(t, "checks", i, "check") == c.check && got.at(t, "checks", i, "ok") == false && got.str(t, "checks", i, "detail") != ""
		}
		if !found {
			t.Errorf("after %s: %s", c.change, got.Body)
		}
	}
}

// Growth costs 22.00 a month and is held from the 10th to the end of 31 days: 22.00 less 22 × 10⁄31 = 7.10 is 14.90,
// and the explanation says so.
func TestExplanationOfAProratedFee(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := plan.Shipped()
	c.Offers = append(c.Offers, plan.Offer{
		Plan: plan.Plan{Code: "growth", Name: "Growth", Position: len(c.Offers), RequiresCard: true},
		Version: plan.Version{
			Plan: "growth", Currencies: []money.Currency{money.USD}, Fee: &plan.Fee{Name: "Growth", Prices: plan.Sums{money.New(2200, money.USD)}},
		},
	})
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	w.advance(time.Date(2026, time.March, 20, 0, 0, 0, 0, time.UTC).Sub(w.clock()))
	ada.post(t, "/v1/upgrades", `{"plan":"growth"}`).want(t, http.StatusCreated)
	w.advance(start.AddDate(0, 1, 0).Add(25 * time.Hour).Sub(w.clock()))
	w.sweep(t)
	w.sweep(t)

	line := "/v1/invoices/" + ada.get(t, "/v1/invoices").str(t, "data", 0, "id") + "/lines/1/explanation"
	got := ada.get(t, line).want(t, http.StatusOK).golden(t, "explanation_prorated")
	if amount := got.at(t, "line", "amount", "amount"); amount != 1490.0 {
		t.Errorf("the fee is %v, want 14.90", amount)
	}
	if verified := ada.post(t, line+"/verify", "").want(t, http.StatusOK).at(t, "verified"); verified != true {
		t.Error("it is not verified")
	}
}

func TestVerificationLooksPastLateUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.billed(t, sandbox.TokenVisa)
	id := ada.get(t, "/v1/invoices").str(t, "data", 0, "id")
	w.advance(time.Minute)
	w.useAt(t, a.ID, "voice", "600", start.Add(time.Hour))
	got := ada.post(t, "/v1/invoices/"+id+"/lines/1/explanation/verify", "").want(t, http.StatusOK)
	if got.at(t, "verified") != true {
		t.Errorf("an event that came after the invoice unsettles it: %s", got.Body)
	}
}

func TestPayInvoice(t *testing.T) {
	t.Parallel()

	t.Run("PaysOnceAndReplays", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		_, ada := w.billed(t, sandbox.TokenChargeDeclined)
		inv := ada.get(t, "/v1/invoices?status=open").want(t, http.StatusOK)
		id := inv.str(t, "data", 0, "id")

		again := ada.key("k1")
		first := again.post(t, "/v1/invoices/"+id+"/pay", "").problem(t, http.StatusPaymentRequired, "card_declined").golden(t, "invoice_pay_declined")
		replay := again.post(t, "/v1/invoices/"+id+"/pay", "")
		if string(replay.Body) != string(first.Body) || replay.Header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("a repetition: %d %s", replay.Status, replay.Body)
		}
		again.post(t, "/v1/invoices/"+id+"/pay", `{"payment_method":"pm_00000000000000000000000001"}`).problem(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	})
	t.Run("BadInput", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		_, ada := w.billed(t, sandbox.TokenChargeDeclined)
		id := ada.get(t, "/v1/invoices?status=open").str(t, "data", 0, "id")
		ada.post(t, "/v1/invoices/"+id+"/pay", `{"amount":1}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		ada.post(t, "/v1/invoices/"+id+"/pay", `{"payment_method":"pm_x"}`).problem(t, http.StatusNotFound, "payment_method_not_found")
		ada.key("-").post(t, "/v1/invoices/"+id+"/pay", "").problem(t, http.StatusBadRequest, "idempotency_key_required")
		w.user(t, w.open(t).ID, "billing:read").post(t, "/v1/invoices/"+id+"/pay", "").problem(t, http.StatusForbidden, "insufficient_scope")
	})
}

func TestPayments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.billed(t, sandbox.TokenVisa)

	list := ada.get(t, "/v1/payments").want(t, http.StatusOK).golden(t, "payments")
	id := list.str(t, "data", 0, "id")
	ada.get(t, "/v1/payments/"+id).want(t, http.StatusOK).golden(t, "payment")
	ada.get(t, "/v1/payments/"+id+"/receipt").want(t, http.StatusOK).golden(t, "receipt")

	bob := w.user(t, w.open(t).ID)
	bob.get(t, "/v1/payments/"+id).problem(t, http.StatusNotFound, "payment_not_found")
	bob.get(t, "/v1/payments/"+id+"/receipt").problem(t, http.StatusNotFound, "payment_not_found")
}

func TestNoReceiptOfAFailure(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.billed(t, sandbox.TokenChargeDeclined)
	id := ada.get(t, "/v1/payments").str(t, "data", 0, "id")
	ada.get(t, "/v1/payments/"+id+"/receipt").problem(t, http.StatusConflict, "payment_not_succeeded")
}
