package api_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/api/apitest"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/id"
)

// oneAccount resolves every name to the same account.
type oneAccount account.ID

func (o oneAccount) Resolve(context.Context, string) (account.ID, error) { return account.ID(o), nil }

func (o oneAccount) Lookup(context.Context, string) (account.ID, error) { return account.ID(o), nil }

var parameter = regexp.MustCompile(`\{[a-z_]+\}`)

// TestOperationsByScope is failure case 80 for every operation there is: without a credential 401, with
// every scope but the right one 403 that names it.
func TestOperationsByScope(t *testing.T) {
	t.Parallel()
	d := newDeps(t)
	signer, err := auth.NewDevelopmentSigner(t.TempDir(), "accrue", auth.Test, clock.Fixed(now))
	if err != nil {
		t.Fatal(err)
	}
	if d.Auth.Tokens, err = auth.NewVerifier([]auth.Issuer{signer.Issuer()}, auth.Test, clock.Fixed(now), nil); err != nil {
		t.Fatal(err)
	}
	d.Accounts = oneAccount(id.New[account.Account]())
	d.Limits = nil
	e, err := api.New(d)
	if err != nil {
		t.Fatal(err)
	}
	token := func(scopes ...auth.Scope) string {
		text, err := signer.Sign(auth.Grant{Subject: "s", Account: "a", Scopes: scopes}, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		return text.Reveal()
	}
	send := func(t *testing.T, h http.Handler, r route.Route, bearer string) *httptest.ResponseRecorder {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), r.Method, parameter.ReplaceAllString(r.Path, "x"), nil)
		if bearer != "" {
			req.Header.Set("Authorization", "Bearer "+bearer)
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, req)
		return rec
	}
	for _, r := range api.Routes(api.Deps{}) {
		if r.Public {
			continue
		}
		t.Run(r.Name(), func(t *testing.T) {
			t.Parallel()
			h := apitest.Handler(t, e)
			if rec := send(t, h, r, ""); rec.Code != http.StatusUnauthorized || rec.Header().Get("WWW-Authenticate") != `Bearer realm="accrue"` {
				t.Errorf("without a credential: %d %s", rec.Code, rec.Body)
			}
			var others []auth.Scope
			for _, s := range auth.All() {
				if s != r.Scope && s != auth.Operator { // an operator may do what its scope implies
					others = append(others, s)
				}
			}
			rec := send(t, h, r, token(others...))
			if rec.Code != http.StatusForbidden || !strings.Contains(rec.Body.String(), `"required_scope":"`+string(r.Scope)+`"`) {
				t.Errorf("with every other scope: %d %s", rec.Code, rec.Body)
			}
		})
	}
}
