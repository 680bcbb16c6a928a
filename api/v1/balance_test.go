package v1_test

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func TestBalanceAndStatement(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	ada.post(t, "/v1/top-ups", `{"amount":{"amount":50000,"currency":"USD"}}`).want(t, http.StatusCreated)
	w.use(t, a.ID, "voice", "1800000") // 783.00
	ada.get(t, "/v1/balance").want(t, http.StatusOK).golden(t, "balance")

	w.advance(35 * 24 * time.Hour)
	w.sweep(t) // closes the period; funds pay, then the card
	ada.get(t, "/v1/balance/transactions").want(t, http.StatusOK).golden(t, "balance_transactions")

	// Following the cursor gives the same rows as one page.
	whole, _ := ada.get(t, "/v1/balance/transactions").at(t, "data").([]any)
	var walked []any
	for path := "/v1/balance/transactions?limit=1"; path != ""; {
		p := ada.get(t, path).want(t, http.StatusOK)
		rows, _ := p.at(t, "data").([]any)
		walked = append(walked, rows...)
		path = ""
		if next := p.str(t, "next_cursor"); next != "" {
			path = "/v1/balance/transactions?limit=1&cursor=" + url.QueryEscape(next)
		}
	}
	if len(whole) == 0 || len(walked) != len(whole) {
		t.Errorf("%d rows by the cursor, %d at once", len(walked), len(whole))
	}

	// Each part's newest row says where the part stands now.
	now := ada.get(t, "/v1/balance")
	for part, member := range map[string]string{"funds": "funds", "due": "due"} {
		row := ada.get(t, "/v1/balance/transactions?limit=1&part="+part).want(t, http.StatusOK)
		if got, want := row.at(t, "data", 0, "balance", "amount"), now.at(t, member, "amount"); got != want {
			t.Errorf("%s: the statement ends with %v, the balance is %v", part, got, want)
		}
	}
	ada.get(t, "/v1/balance/transactions?part=gold").problem(t, http.StatusUnprocessableEntity, "invalid_request")

	// A moment that is past.
	past := ada.get(t, "/v1/balance?at="+start.Add(time.Hour).Format(time.RFC3339)).want(t, http.StatusOK).golden(t, "balance_past")
	if past.at(t, "funds", "amount") != 50000.0 {
		t.Errorf("%s", past.Body)
	}
	if before := ada.get(t, "/v1/balance?at="+start.Add(-time.Hour).Format(time.RFC3339)); before.at(t, "funds", "amount") != 0.0 {
		t.Errorf("%s", before.Body)
	}
	ada.get(t, "/v1/balance?at=2099-01-01T00:00:00Z").problem(t, http.StatusUnprocessableEntity, "invalid_request")
	ada.get(t, "/v1/balance?at=yesterday").problem(t, http.StatusUnprocessableEntity, "invalid_request")
	ada.get(t, "/v1/balance?when=now").problem(t, http.StatusUnprocessableEntity, "invalid_request")
}

func TestRunway(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	if got := ada.get(t, "/v1/balance/runway").want(t, http.StatusOK).golden(t, "runway_unknown"); got.at(t, "known") != false {
		t.Errorf("%s", got.Body)
	}
	ada.post(t, "/v1/top-ups", `{"amount":{"amount":100000,"currency":"USD"}}`).want(t, http.StatusCreated)
	w.use(t, a.ID, "voice", "60000") // the allowance: a day that costs nothing
	for range 9 {
		w.advance(24 * time.Hour)
		w.use(t, a.ID, "voice", "60000") // 1,000 minutes: 27.00
	}
	w.advance(time.Hour)
	got := ada.get(t, "/v1/balance/runway").want(t, http.StatusOK).golden(t, "runway")
	// Nine days have passed since the account was opened; each but the last whole hours cost 27.00.
	if daily := got.at(t, "estimates", 0, "daily_spend", "amount"); daily != 2700.0 {
		t.Errorf("an ordinary day costs %v, want 2700", daily)
	}
	// 1,000.00 − 9 × 27.00 = 757.00: 28.037 days more.
	until, err := time.Parse(time.RFC3339, got.str(t, "estimates", 0, "lasts_until"))
	if days := until.Sub(w.clock()).Hours() / 24; err != nil || days < 28.03 || days > 28.04 {
		t.Errorf("lasts %v days, %v; want 28.037", days, err)
	}
}
