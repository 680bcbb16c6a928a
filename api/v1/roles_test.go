package v1_test

import (
	"net/http"
	"testing"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
)

// TestOperationsByKindOfCaller is the matrix of operations and principals: a person, a partner's key, a
// service of the operator's and its staff, each with every scope that its kind can have. Which scope is
// asked for is tested in package api.
func TestOperationsByKindOfCaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	mine, other := w.open(t), w.open(t)
	var scopes []auth.Scope
	for _, s := range auth.All() {
		if s != auth.Operator {
			scopes = append(scopes, s)
		}
	}
	_, text, err := w.keys.Create(t.Context(), auth.Principal{Kind: auth.User, Account: mine.ID, Scopes: scopes},
		auth.NewKey{Account: mine.ID, Name: "partner", Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	nobody := caller{w: w, header: http.Header{}}
	user, key, platform := w.user(t, mine.ID, scopes...), w.keyed(text.Reveal()), w.platform(t, scopes...)
	staff := w.operator(t, account.ID{})
	naming := func(c caller, a account.ID) caller { return c.with("Accrue-Account", a.String()) }

	for _, op := range operations() {
		// Nothing is sent that could be done: who may not is told so before what is looked at.
		ask := func(c caller) (int, string) {
			got := c.do(t, op.Method, op.address("x"), "")
			if got.Status < 400 || len(got.Body) == 0 {
				return got.Status, ""
			}
			return got.Status, got.str(t, "code")
		}
		want := func(who string, c caller, status int, code string) {
			t.Helper()
			if s, got := ask(c); s != status || got != code {
				t.Errorf("%s by %s: %d %s, want %d %s", op.Name(), who, s, got, status, code)
			}
		}
		allowed := func(who string, c caller) {
			t.Helper()
			if op.Timeout < 0 {
				return // a stream would go on for ever; whoever may not is refused before it begins
			}
			if s, code := ask(c); s == http.StatusUnauthorized || s == http.StatusForbidden || code == "account_required" {
				t.Errorf("%s by %s: %d %s", op.Name(), who, s, code)
			}
		}
		switch {
		case op.Public:
			allowed("nobody", nobody)
			continue
		case op.Scope == auth.Operator:
			for who, c := range map[string]caller{"a user": user, "a key": key, "a service": platform, "a service for an account": naming(platform, mine.ID)} {
				want(who, c, http.StatusForbidden, "insufficient_scope")
			}
		default:
			allowed("a user", user)
			allowed("a key", key)
			allowed("a service for an account", naming(platform, mine.ID))
			if op.Account != route.AccountNone {
				want("a user for another account", naming(user, other.ID), http.StatusForbidden, "account_not_allowed")
				want("a key for another account", naming(key, other.ID), http.StatusForbidden, "account_not_allowed")
			}
			if op.Account == route.AccountRequired {
				want("a service for no account", platform, http.StatusBadRequest, "account_required")
			}
		}
		want("nobody", nobody, http.StatusUnauthorized, "authentication_required")
		allowed("staff for an account", naming(staff, mine.ID))
		if op.Account == route.AccountRequired {
			want("staff for no account", staff, http.StatusBadRequest, "account_required")
		}
	}
}
