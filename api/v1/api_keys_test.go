package v1_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

var firstPage = page.Request{Limit: page.MaxLimit}

// keyed is a caller with an API key.
func (w *world) keyed(key string) caller {
	return caller{w: w, header: http.Header{}, token: func() string { return key }}
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	ada := w.user(t, a.ID)

	const body = `{"name":"server","scopes":["usage:write","billing:read","keys:manage"],"ceilings":{"per_payment":{"amount":500,"currency":"USD"}},"expires_at":"2026-06-01T00:00:00Z"}`
	first := ada.key("k").post(t, "/v1/api-keys", body).want(t, http.StatusCreated)
	text := first.str(t, "key")
	if len(text) != len("acr_test_")+36 || first.str(t, "last_four") != text[len(text)-4:] {
		t.Errorf("key %q", text)
	}

	t.Run("IsShownOnce", func(t *testing.T) {
		again := ada.key("k").post(t, "/v1/api-keys", body).want(t, http.StatusCreated)
		if again.str(t, "key") != "" || again.at(t, "key_omitted") != true || again.str(t, "id") != first.str(t, "id") {
			t.Errorf("a repetition: %s", again.Body)
		}
		if list := ada.get(t, "/v1/api-keys").want(t, http.StatusOK); len(list.at(t, "data").([]any)) != 1 || list.str(t, "data", 0, "key") != "" {
			t.Errorf("list %s", list.Body)
		}
	})
	t.Run("Works", func(t *testing.T) {
		w.keyed(text).get(t, "/v1/invoices").want(t, http.StatusOK)
		w.keyed(text).post(t, "/v1/invoices/inv_x/pay", "").problem(t, http.StatusForbidden, "insufficient_scope")
	})
	t.Run("MakesNoWiderKey", func(t *testing.T) {
		key := w.keyed(text)
		for name, body := range map[string]string{
			"a scope more":     `{"name":"x","scopes":["payments:write"],"expires_at":"2026-05-01T00:00:00Z"}`,
			"a longer life":    `{"name":"x","scopes":["usage:write"],"ceilings":{"per_payment":{"amount":500,"currency":"USD"}}}`,
			"a higher ceiling": `{"name":"x","scopes":["usage:write"],"expires_at":"2026-05-01T00:00:00Z","ceilings":{"per_payment":{"amount":501,"currency":"USD"}}}`,
			"no ceiling":       `{"name":"x","scopes":["usage:write"],"expires_at":"2026-05-01T00:00:00Z"}`,
		} {
			if got := key.post(t, "/v1/api-keys", body); got.Status != http.StatusForbidden || got.str(t, "code") != "insufficient_scope" {
				t.Errorf("%s: %d %s", name, got.Status, got.Body)
			}
		}
		key.post(t, "/v1/api-keys", `{"name":"narrower","scopes":["usage:write"],"expires_at":"2026-05-01T00:00:00Z","ceilings":{"per_payment":{"amount":5,"currency":"USD"}}}`).want(t, http.StatusCreated)
	})
	t.Run("BadInput", func(t *testing.T) {
		for _, body := range []string{
			`{"name":"","scopes":["usage:write"]}`, `{"name":"x","scopes":[]}`, `{"name":"x","scopes":["operator"]}`, `{"name":"x","scopes":["usage"]}`,
			`{"name":"x","scopes":["usage:write","usage:write"]}`, `{"name":"x","scopes":["usage:write"],"expires_at":"2026-03-10T09:00:00Z"}`,
			`{"name":"x","scopes":["usage:write"],"ceilings":{"per_day":{"amount":0,"currency":"USD"}}}`, `{"name":"x","scopes":["usage:write"],"account":"y"}`,
		} {
			ada.post(t, "/v1/api-keys", body).problem(t, http.StatusUnprocessableEntity, "invalid_request")
		}
	})
	t.Run("RotationOverlaps", func(t *testing.T) {
		next := ada.post(t, "/v1/api-keys/"+first.str(t, "id")+"/rotate", `{"overlap_seconds":3600}`).want(t, http.StatusCreated)
		for _, k := range []string{text, next.str(t, "key")} {
			w.keyed(k).get(t, "/v1/invoices").want(t, http.StatusOK)
		}
		w.advance(time.Hour)
		w.keyed(text).get(t, "/v1/invoices").problem(t, http.StatusUnauthorized, "invalid_token")
		w.keyed(next.str(t, "key")).get(t, "/v1/invoices").want(t, http.StatusOK)
		ada.post(t, "/v1/api-keys/"+first.str(t, "id")+"/rotate", "").problem(t, http.StatusNotFound, "api_key_not_found")
		ada.post(t, "/v1/api-keys/"+next.str(t, "id")+"/rotate", `{"overlap_seconds":604801}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")

		ada.post(t, "/v1/api-keys/"+next.str(t, "id")+"/revoke", "").want(t, http.StatusNoContent)
		w.advance(2 * time.Second)
		w.keyed(next.str(t, "key")).get(t, "/v1/invoices").problem(t, http.StatusUnauthorized, "invalid_token")
	})
	t.Run("Another'sIsNotThere", func(t *testing.T) {
		bob := w.user(t, w.open(t).ID)
		bob.post(t, "/v1/api-keys/"+first.str(t, "id")+"/revoke", "").problem(t, http.StatusNotFound, "api_key_not_found")
		bob.post(t, "/v1/api-keys/"+first.str(t, "id")+"/rotate", "").problem(t, http.StatusNotFound, "api_key_not_found")
	})
	t.Run("EveryChangeIsAudited", func(t *testing.T) {
		log, err := w.DB.Accounts().AuditLog(t.Context(), a.ID, firstPage)
		if err != nil || len(log.Data) != 4 {
			t.Errorf("%d entries, %v; want 4", len(log.Data), err)
		}
	})
}

// Each rotation leaves a key that goes on for days: however often it is done, what has to be listed, and could leak, is bounded.
func TestAPIKeys_AreNotMadeWithoutEndByRotation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	ada := w.user(t, a.ID)
	by := auth.Principal{Kind: auth.User, Account: a.ID, Scopes: []auth.Scope{auth.UsageWrite}}
	first, _, err := w.keys.Create(t.Context(), by, auth.NewKey{Account: a.ID, Name: "server", Scopes: by.Scopes})
	if err != nil {
		t.Fatal(err)
	}
	for range 198 {
		if _, _, err := w.keys.Rotate(t.Context(), by, a.ID, first.ID, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	id := first.ID.String()
	ada.post(t, "/v1/api-keys/"+id+"/rotate", "").want(t, http.StatusCreated)
	ada.post(t, "/v1/api-keys/"+id+"/rotate", "").problem(t, http.StatusConflict, "too_many_api_keys")
	ada.post(t, "/v1/api-keys", `{"name":"another","scopes":["usage:write"]}`).problem(t, http.StatusConflict, "too_many_api_keys")
	w.user(t, w.open(t).ID).post(t, "/v1/api-keys", `{"name":"server","scopes":["usage:write"]}`).want(t, http.StatusCreated)
	if list := ada.get(t, "/v1/api-keys").want(t, http.StatusOK); len(list.at(t, "data").([]any)) != 20 || list.at(t, "has_more") != true {
		t.Errorf("the first page: %d keys", len(list.at(t, "data").([]any)))
	}
}

func TestPlatformKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	grace := w.operator(t, account.ID{})

	made := grace.key("k").post(t, "/v1/admin/api-keys", `{"name":"media servers","scopes":["usage:write","usage:read"]}`).want(t, http.StatusCreated)
	if again := grace.key("k").post(t, "/v1/admin/api-keys", `{"name":"media servers","scopes":["usage:write","usage:read"]}`); again.str(t, "id") != made.str(t, "id") || again.str(t, "key") != "" {
		t.Errorf("a repetition: %s", again.Body)
	}
	w.keyed(made.str(t, "key")).with("Accrue-Account", a.ID.String()).get(t, "/v1/usage").want(t, http.StatusOK)
	w.keyed(made.str(t, "key")).get(t, "/v1/usage").problem(t, http.StatusBadRequest, "account_required")
	grace.get(t, "/v1/admin/api-keys").want(t, http.StatusOK).golden(t, "platform_keys")
	w.user(t, a.ID).get(t, "/v1/admin/api-keys").problem(t, http.StatusForbidden, "insufficient_scope")
	log, err := w.DB.Accounts().AuditLog(t.Context(), account.ID{}, firstPage)
	if err != nil || len(log.Data) != 1 || log.Data[0].Action != "api_key.create" {
		t.Errorf("audit log %+v, %v", log, err)
	}
}

func TestCeilingOfAKeyBoundsPayments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.billed(t, sandbox.TokenChargeDeclined)
	id := ada.get(t, "/v1/invoices?status=open").str(t, "data", 0, "id")
	made := ada.post(t, "/v1/api-keys", `{"name":"buyer","scopes":["payments:write"],"ceilings":{"per_payment":{"amount":78299,"currency":"USD"}}}`)
	key := w.keyed(made.want(t, http.StatusCreated).str(t, "key"))
	if got := key.post(t, "/v1/invoices/"+id+"/pay", "").problem(t, http.StatusForbidden, "ceiling_exceeded"); got.str(t, "ceiling") != "per_payment" {
		t.Errorf("%s", got.Body)
	}
}
