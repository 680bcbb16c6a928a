package v1_test

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// gatewayEvent delivers a signed event about an object of the provider's.
func (w *world) gatewayEvent(t *testing.T, event, kind, ref string) {
	t.Helper()
	body := fmt.Sprintf(`{"id":%q,"type":"%s.updated","mode":"test","created":"2026-04-11T10:00:00Z","object":{"kind":%q,"id":%q}}`, event, kind, kind, ref)
	caller{w: w, header: http.Header{"Sandbox-Signature": {payment.Sign("whsec", []byte(body), w.clock())}}}.
		post(t, "/v1/gateway-events/sandbox", body).want(t, http.StatusOK)
}

// happened returns how often an event of the type was told.
func (c caller) happened(t *testing.T, what outbox.Type) int {
	t.Helper()
	n := 0
	for _, e := range c.get(t, "/v1/events?limit=100").want(t, http.StatusOK).at(t, "data").([]any) {
		if e.(map[string]any)["type"] == string(what) {
			n++
		}
	}
	return n
}

// What the networks change of a card at the provider arrives by webhook: in any order, twice, and late. What is shown is
// what the provider says now, each change is told once, and a card that has run out soon is noticed again.
func TestCardChangesAtTheProvider(t *testing.T) {
	t.Parallel()
	orders := [][]string{
		{"renewed", "replaced"},
		{"replaced", "renewed"},
		{"replaced", "renewed", "replaced", "renewed"},
		{"replaced"}, // the other is lost
	}
	for _, order := range orders {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a, ada := w.upgraded(t, sandbox.TokenExpiringThisMonth)
			first := ada.get(t, "/v1/payment-methods").want(t, http.StatusOK)
			path := "/v1/payment-methods/" + first.str(t, "data", 0, "id")
			tag := ada.get(t, path).Header.Get("ETag")
			m, err := w.DB.Payments().Method(t.Context(), a.ID, id.MustParse[payment.Method](first.str(t, "data", 0, "id")))
			if err != nil {
				t.Fatal(err)
			}
			w.sweep(t)
			if n := ada.happened(t, outbox.PaymentMethodExpires); n != 1 {
				t.Fatalf("told %d times that the card runs out, want 1", n)
			}
			// Another address is no other expiry.
			ada.with("If-Match", ada.get(t, path).Header.Get("ETag")).do(t, http.MethodPatch, path, `{"billing_profile":{"name":"Ada King","email":"ada@example.com",
				"address":{"line1":"1 Elsewhere","city":"London","postal_code":"SW1Y 4JH","country":"GB"}}}`).want(t, http.StatusOK)
			changes := ada.happened(t, outbox.PaymentMethodChanged)
			w.sweep(t)
			if n := ada.happened(t, outbox.PaymentMethodExpires); n != 1 {
				t.Errorf("told %d times that the card runs out, once more for another address", n)
			}

			if err := w.control.Renew(t.Context(), m.ProviderRef, 4, 2026); err != nil {
				t.Fatal(err)
			}
			if err := w.control.Replace(t.Context(), m.ProviderRef, "1881", 4, 2026); err != nil {
				t.Fatal(err)
			}
			for _, e := range order {
				w.gatewayEvent(t, "evt_"+e, "method", m.ProviderRef)
			}
			card := ada.get(t, path).want(t, http.StatusOK)
			if got := []any{card.at(t, "card", "last_four"), card.at(t, "card", "exp_month"), card.at(t, "card", "exp_year")}; !slices.Equal(got, []any{"1881", 4.0, 2026.0}) {
				t.Errorf("the card is shown as %v", got)
			}
			if got := ada.get(t, "/v1/overview").str(t, "payment_method", "card", "last_four"); got != "1881" {
				t.Errorf("the Billing page shows %q", got)
			}
			if n := ada.happened(t, outbox.PaymentMethodChanged) - changes; n != 1 {
				t.Errorf("told %d times of the change, want 1", n)
			}
			// Who has read the old card cannot change the new one by mistake.
			ada.with("If-Match", tag).do(t, http.MethodPatch, path, `{"exp_month":11,"exp_year":2031}`).problem(t, http.StatusPreconditionFailed, "stale_version")

			w.sweep(t)
			w.advance(31 * 24 * time.Hour)
			w.sweep(t)
			w.sweep(t)
			if n := ada.happened(t, outbox.PaymentMethodExpires); n != 2 {
				t.Errorf("told %d times in all that a card runs out, want once more for the new one", n)
			}
			ada.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated)
		})
	}
}

// A card that is taken away at the provider is not shown as usable, whoever took it.
func TestCardRemovedAtTheProvider(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	card := ada.get(t, "/v1/payment-methods").want(t, http.StatusOK).str(t, "data", 0, "id")
	m, err := w.DB.Payments().Method(t.Context(), a.ID, id.MustParse[payment.Method](card))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Gateway.Detach(t.Context(), payment.DetachRequest{Key: "d", CustomerRef: m.CustomerRef, MethodRef: m.ProviderRef}); err != nil {
		t.Fatal(err)
	}
	for _, event := range []string{"evt_1", "evt_1", "evt_2"} {
		w.gatewayEvent(t, event, "method", m.ProviderRef)
	}
	if s := ada.get(t, "/v1/payment-methods/"+card).str(t, "status"); s != "removed" {
		t.Errorf("the card is %s", s)
	}
	if n := ada.happened(t, outbox.PaymentMethodRemoved); n != 1 {
		t.Errorf("told %d times, want 1", n)
	}
	ada.post(t, "/v1/top-ups", funds(5000)).problem(t, http.StatusConflict, "no_payment_method")
}
