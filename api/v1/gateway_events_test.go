package v1_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func TestGatewayEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.billed(t, sandbox.TokenVisa)
	p, err := w.DB.Payments().Payments(t.Context(), a.ID, firstPage)
	if err != nil || len(p.Data) != 1 {
		t.Fatalf("%+v, %v", p, err)
	}
	ref := p.Data[0].ProviderRef
	event := func(id string) string {
		return fmt.Sprintf(`{"id":%q,"type":"charge.refunded","mode":"test","created":"2026-04-11T10:00:00Z","object":{"kind":"charge","id":%q}}`, id, ref)
	}
	provider := func(body string) caller {
		return caller{w: w, header: http.Header{"Sandbox-Signature": {payment.Sign("whsec", []byte(body), w.clock())}}}
	}
	const path = "/v1/gateway-events/sandbox"

	// Someone gives money back at the provider itself; the event makes us look.
	if err := w.control.Refund(t.Context(), ref, 300); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{`{"received":true,"duplicate":false}`, `{"received":true,"duplicate":true}`} {
		got := provider(event("evt_1")).post(t, path, event("evt_1")).want(t, http.StatusOK)
		if string(got.Body) != want+"\n" {
			t.Errorf("delivery %d: %s, want %s", i+1, got.Body, want)
		}
		if back := ada.get(t, "/v1/payments/"+p.Data[0].ID.String()).at(t, "refunded", "amount"); back != 300.0 {
			t.Errorf("delivery %d: refunded %v, want 300", i+1, back)
		}
	}
	ada.get(t, "/v1/payments/"+p.Data[0].ID.String()+"/receipt").want(t, http.StatusOK).golden(t, "receipt_refunded")

	t.Run("ForgedOrAlteredIsNotStored", func(t *testing.T) {
		provider(event("evt_2")).post(t, path, event("evt_3")).problem(t, http.StatusBadRequest, "webhook_signature_invalid")
		caller{w: w}.post(t, path, event("evt_3")).problem(t, http.StatusBadRequest, "webhook_signature_invalid")
		if _, err := w.DB.Payments().LockEvent(t.Context(), "sandbox", "evt_3"); err == nil {
			t.Error("an event whose sender is not known was stored")
		}
	})
	t.Run("AnObjectThatIsNotOurs", func(t *testing.T) {
		body := `{"id":"evt_4","type":"charge.succeeded","mode":"test","created":"2026-04-11T10:00:00Z","object":{"kind":"charge","id":"ch_unknown"},"number":"4242424242424242"}`
		provider(body).post(t, path, body).want(t, http.StatusOK) // stored, and tried again later
		e, err := w.DB.Payments().LockEvent(t.Context(), "sandbox", "evt_4")
		if err != nil || !e.ProcessedAt.IsZero() || e.NextTryAt.IsZero() {
			t.Errorf("%+v, %v; want an event that waits for its next try", e, err)
		}
	})
	t.Run("AnotherProvider", func(t *testing.T) {
		provider(event("evt_5")).post(t, "/v1/gateway-events/stripe", event("evt_5")).problem(t, http.StatusNotFound, "provider_not_found")
	})
}
