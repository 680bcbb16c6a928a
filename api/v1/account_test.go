package v1_test

import (
	"net/http"
	"testing"

	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func TestWorldServes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	ada.get(t, "/v1/usage").want(t, http.StatusOK)
	caller{w: w}.get(t, "/v1/usage").problem(t, http.StatusUnauthorized, "authentication_required")
}
