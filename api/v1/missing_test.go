package v1_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// What a body lacks is told as what it lacks, not as the bad value that nothing would be.
func TestWhatIsMissingIsRequired(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	op := w.operator(t, a.ID)
	for _, tc := range []struct {
		who                caller
		method, path, body string
		want               string
	}{
		{ada, http.MethodPost, "/v1/top-ups", `{}`, "#/amount required"},
		{ada, http.MethodPost, "/v1/top-ups/preview", `{"amount":null}`, "#/amount required"},
		{ada, http.MethodPost, "/v1/top-ups", `{"amount":{"amount":500}}`, "#/amount/currency required"},
		{ada, http.MethodPut, "/v1/auto-top-up", `{"enabled":true}`, "#/target required, #/threshold required"},
		{ada, http.MethodPut, "/v1/auto-top-up", `{"enabled":true,"target":{"amount":500,"currency":"USD"}}`, "#/threshold required"},
		{ada, http.MethodPost, "/v1/usage/corrections", `{"action":"amend","id":"1","reason":"Nothing."}`, "#/quantity required"},
		{ada, http.MethodPost, "/v1/usage/reconciliations", `{"meter":"voice"}`, "#/hours required"},
		{ada, http.MethodPost, "/v1/usage/reconciliations", `{"meter":"voice","ids":["1"]}`, "#/source required"},
		{ada, http.MethodPost, "/v1/usage/reconciliations", `{"meter":"voice","hours":[{"hour":"2026-03-10T08:00:00Z"}]}`, "#/hours/0/events required"},
		{ada, http.MethodPost, "/v1/usage/reservations", `{"quantity":"600"}`, "#/meter required"},
		{ada, http.MethodPost, "/v1/usage/leases", `{"quantity":"0"}`, "#/meter required, #/quantity out_of_range"},
		{op, http.MethodPost, "/v1/admin/credits", `{}`, "#/amount required, #/reason required"},
		{op, http.MethodPost, "/v1/admin/refunds", `{}`, "#/payment required, #/reason required"},
		{op, http.MethodPost, "/v1/admin/credit-notes", `{"invoice":" "}`, "#/invoice required, #/reason required"},
		{op, http.MethodPost, "/v1/admin/credit-notes", `{"invoice":"inv_1","reason":"r"}`, "#/invoice invalid_identifier"},
	} {
		got := tc.who.with("If-Match", "*").do(t, tc.method, tc.path, tc.body).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		var told []string
		for _, e := range got.at(t, "errors").([]any) {
			told = append(told, fmt.Sprint(e.(map[string]any)["pointer"], " ", e.(map[string]any)["code"]))
		}
		if s := strings.Join(told, ", "); s != tc.want {
			t.Errorf("%s %s %s: %s, want %s", tc.method, tc.path, tc.body, s, tc.want)
		}
	}
}
