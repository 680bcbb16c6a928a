package v1_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

const accountsPath = "/v1/admin/accounts"

func TestAdminAccounts(t *testing.T) {
	t.Parallel()

	t.Run("AreOpenedOnce", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		grace := w.operator(t, account.ID{})
		const body = `{"external_id":"lumen","name":"Lumen Labs","currency":"EUR","time_zone":"Europe/Berlin","billing_profile":` + profileJSON + `}`
		first := grace.key("k").post(t, accountsPath, body).want(t, http.StatusCreated).golden(t, "admin_account_created")
		again := grace.key("k").post(t, accountsPath, body).want(t, http.StatusCreated)
		path := accountsPath + "/" + first.str(t, "id")
		if string(again.Body) != string(first.Body) || again.Header.Get("Location") != path || first.Header.Get("Location") != path {
			t.Errorf("a repetition at %q answered %s", again.Header.Get("Location"), again.Body)
		}
		grace.post(t, accountsPath, `{"external_id":"lumen"}`).problem(t, http.StatusConflict, "external_id_taken")
		grace.get(t, path).want(t, http.StatusOK).golden(t, "admin_account")

		// The token of its user finds it by the operator's own name.
		w.bearer(t, auth.Grant{Subject: "ada", Account: "lumen", Scopes: []auth.Scope{auth.BillingRead}}).get(t, "/v1/account").want(t, http.StatusOK)
		plain := grace.post(t, accountsPath, `{}`).want(t, http.StatusCreated)
		if plain.str(t, "external_id") != plain.str(t, "id") || plain.str(t, "currency") != "USD" || plain.str(t, "time_zone") != "UTC" {
			t.Errorf("an account without wishes: %s", plain.Body)
		}
	})

	t.Run("BadInputOpensNone", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		grace := w.operator(t, account.ID{})
		for name, body := range map[string]string{
			"our own name":     `{"external_id":"` + w.open(t).ID.String() + `"}`,
			"a space":          `{"external_id":"a b"}`,
			"no such currency": `{"currency":"XXZ"}`,
			"no such zone":     `{"time_zone":"Mars/Olympus"}`,
			"half a profile":   `{"billing_profile":{"name":"Ada","email":"ada","address":{"line1":"1","city":"L","country":"GB"}}}`,
			"a status":         `{"status":"suspended"}`,
			"a distant time":   `{"test_clock":"0001-01-01T00:00:00Z"}`,
		} {
			if got := grace.post(t, accountsPath, body); got.Status != http.StatusUnprocessableEntity || got.str(t, "code") != "invalid_request" {
				t.Errorf("%s: %d %s", name, got.Status, got.Body)
			}
		}
		grace.key("-").post(t, accountsPath, `{}`).problem(t, http.StatusBadRequest, "idempotency_key_required")
		w.user(t, w.open(t).ID).post(t, accountsPath, `{}`).problem(t, http.StatusForbidden, "insufficient_scope")
		if n := len(grace.get(t, accountsPath).at(t, "data").([]any)); n != 2 {
			t.Errorf("%d accounts, want the two that were opened to test with", n)
		}
	})

	t.Run("AreFound", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		grace := w.operator(t, account.ID{})
		pro, _ := w.upgraded(t, sandbox.TokenVisa)
		for _, body := range []string{`{"external_id":"north_1","name":"100% North Oil"}`, `{"external_id":"south-2","name":"South Oil"}`} {
			grace.post(t, accountsPath, body).want(t, http.StatusCreated)
		}
		// Nothing is looked for that an identifier may hold by chance: it never has the letters I, L, O and U.
		for query, want := range map[string]int{
			"": 3, "?level=pro": 1, "?level=developer": 2, "?status=active": 3, "?status=closed": 0, "?external_id=north_1": 1, "?external_id=north": 0,
			"?q=SOUTH": 1, "?q=OIL": 2, "?q=%25": 1, "?q=h_1": 1, "?q=" + pro.ID.String(): 1, "?level=developer&q=south": 1, "?level=enterprise": 0,
		} {
			if got := grace.get(t, accountsPath+query).want(t, http.StatusOK); len(got.at(t, "data").([]any)) != want {
				t.Errorf("%q: %s, want %d", query, got.Body, want)
			}
		}
		page := grace.get(t, accountsPath+"?limit=2").want(t, http.StatusOK)
		rest := grace.get(t, accountsPath+"?limit=2&cursor="+page.str(t, "next_cursor")).want(t, http.StatusOK)
		if len(rest.at(t, "data").([]any)) != 1 || rest.str(t, "data", 0, "id") != pro.ID.String() {
			t.Errorf("the second page: %s", rest.Body)
		}
		grace.get(t, accountsPath+"?q=oil&cursor="+page.str(t, "next_cursor")).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		grace.get(t, accountsPath+"?status=odd").problem(t, http.StatusUnprocessableEntity, "invalid_request")
		grace.get(t, accountsPath+"?name=x").problem(t, http.StatusUnprocessableEntity, "invalid_request")
	})

	t.Run("ShowTheirMoney", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, _ := w.billed(t, sandbox.TokenChargeDeclined)
		grace := w.operator(t, account.ID{})
		one := grace.get(t, accountsPath+"/"+a.ID.String()).want(t, http.StatusOK).golden(t, "admin_account_owing")
		list := grace.get(t, accountsPath).want(t, http.StatusOK)
		if one.at(t, "open_invoices") != 1.0 || list.at(t, "data", 0, "due", "amount") != 78300.0 {
			t.Errorf("one %s\nlist %s", one.Body, list.Body)
		}
	})

	t.Run("AreChangedAndClosed", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		grace := w.operator(t, account.ID{})
		path := accountsPath + "/" + a.ID.String()
		tag := grace.get(t, path).want(t, http.StatusOK).Header.Get("ETag")
		patch := func(tag, body string) response {
			return grace.with("If-Match", tag).do(t, http.MethodPatch, path, body)
		}
		if got := patch(tag, `{"name":"North","time_zone":"Asia/Tokyo"}`).want(t, http.StatusOK); got.str(t, "name") != "North" {
			t.Errorf("%s", got.Body)
		}
		patch(tag, `{"name":"South"}`).problem(t, http.StatusPreconditionFailed, "stale_version")
		grace.do(t, http.MethodPatch, path, `{"name":"South"}`).problem(t, http.StatusPreconditionRequired, "if_match_required")
		patch("*", `{"currency":"EUR"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		grace.get(t, accountsPath+"/acct_x").problem(t, http.StatusNotFound, "account_not_found")
		for _, nobody := range []string{strings.Repeat("x", 300), "a%2Fb", "%2F%00", "%2F%FF"} {
			grace.get(t, accountsPath+"/"+nobody).problem(t, http.StatusNotFound, "account_not_found")
		}

		// By the operator's own name for it too, whatever that holds.
		made := grace.post(t, accountsPath, `{"external_id":"north/1?a%2F"}`).want(t, http.StatusCreated).str(t, "id")
		path = accountsPath + "/north%2F1%3Fa%252F"
		if got := grace.get(t, path).want(t, http.StatusOK); got.str(t, "id") != made {
			t.Errorf("%s", got.Body)
		}
		if got := patch("*", `{"name":"North"}`).want(t, http.StatusOK); got.str(t, "id") != made || got.str(t, "name") != "North" {
			t.Errorf("%s", got.Body)
		}
		path = accountsPath + "/" + a.ID.String()

		w.operator(t, a.ID).post(t, "/v1/account/close", `{"reason":"asked by letter"}`).want(t, http.StatusOK)
		closed := grace.get(t, path).want(t, http.StatusOK)
		if closed.str(t, "status") != "closed" || closed.at(t, "level") != nil {
			t.Errorf("%s", closed.Body)
		}
		patch("*", `{"name":"East"}`).problem(t, http.StatusConflict, "account_closed")
	})
}

func TestTestClock(t *testing.T) {
	t.Parallel()
	const path = "/v1/admin/test-clock"

	t.Run("LivesThroughWhatFallsDue", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a, ada := w.upgraded(t, sandbox.TokenVisa)
		other, _ := w.upgraded(t, sandbox.TokenVisa)
		w.use(t, a.ID, "voice", "1800000")
		grace := w.operator(t, a.ID)
		before := grace.get(t, path).want(t, http.StatusOK)
		if before.at(t, "frozen") != false {
			t.Errorf("an account in real time: %s", before.Body)
		}
		const quarter = `{"now":"2026-06-15T00:00:00Z"}`
		moved := grace.key("k").post(t, path, quarter).want(t, http.StatusOK).golden(t, "admin_test_clock")
		if again := grace.key("k").post(t, path, quarter).want(t, http.StatusOK); string(again.Body) != string(moved.Body) {
			t.Errorf("a repetition answered %s", again.Body)
		}
		bills := ada.get(t, "/v1/invoices").want(t, http.StatusOK)
		if n := len(bills.at(t, "data").([]any)); n != 3 {
			t.Fatalf("%d invoices, want one a month", n)
		}
		// The period ended on 10 April at midnight; its invoice was final a day later and paid at once, not in June.
		if at := bills.str(t, "data", 2, "paid_at"); at != "2026-04-11T00:00:00Z" {
			t.Errorf("the first bill was paid at %s", at)
		}
		grace.post(t, path, `{"now":"2026-06-14T00:00:00Z"}`).problem(t, http.StatusConflict, "clock_moves_forward")
		grace.post(t, path, `{"now":"2027-06-17T00:00:00Z"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		if got := w.operator(t, other.ID).get(t, path); got.at(t, "frozen") != false {
			t.Errorf("another account's clock was moved: %s", got.Body)
		}
		w.check(t)
	})

	t.Run("OnlyInTestMode", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.deps.V1.Mode = auth.Live
		grace := w.operator(t, w.open(t).ID)
		grace.post(t, path, `{"now":"2026-06-15T00:00:00Z"}`).problem(t, http.StatusConflict, "test_mode_only")
		grace.post(t, accountsPath, `{"test_clock":"2026-06-15T00:00:00Z"}`).problem(t, http.StatusConflict, "test_mode_only")
	})

	t.Run("AnAccountCanBeginOnOne", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		grace := w.operator(t, account.ID{})
		made := grace.post(t, accountsPath, `{"test_clock":"2020-01-15T12:00:00Z"}`).want(t, http.StatusCreated)
		if from := made.str(t, "current_period", "from"); from[:10] != "2020-01-15" {
			t.Errorf("its first period begins at %s", from)
		}
		got := grace.with("Accrue-Account", made.str(t, "id")).get(t, path).want(t, http.StatusOK)
		if at, _ := time.Parse(time.RFC3339, got.str(t, "now")); got.at(t, "frozen") != true || !at.Equal(time.Date(2020, 1, 15, 12, 0, 0, 0, time.UTC)) {
			t.Errorf("%s", got.Body)
		}
	})
}
