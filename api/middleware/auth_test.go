package middleware_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/page"
)

func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	b := setup(t, nil,
		route.Route{Method: http.MethodGet, Path: "/v1/balance", Scope: auth.BillingRead},
		route.Route{Method: http.MethodPost, Path: "/v1/usage/events", Scope: auth.UsageWrite, Account: route.AccountOptional},
		route.Route{Method: http.MethodPost, Path: "/v1/usage/reservations", Scope: auth.UsageWrite},
		route.Route{Method: http.MethodGet, Path: "/v1/admin/audit-log", Scope: auth.Operator, Account: route.AccountOptional},
		route.Route{Method: http.MethodGet, Path: "/v1/admin/accounts", Scope: auth.Operator, Account: route.AccountNone},
		route.Route{Method: http.MethodGet, Path: "/v1/plans", Public: true},
	)
	mine, other := b.accounts.mine, b.accounts.other
	user := b.token("billing:read", nil)
	byExternal := b.token("billing:read usage:write", map[string]any{"account_id": "customer-1"})
	operator := b.token("operator", map[string]any{"account_id": nil, "sub": "staff"})
	platform := b.key(account.ID{}, auth.UsageWrite)
	key := b.key(mine, auth.BillingRead)

	const challenge = `Bearer realm="accrue"`
	invalid := challenge + `, error="invalid_token"`
	for name, tc := range map[string]struct {
		target    string
		headers   []string
		status    int
		code      string
		challenge string // prefix of WWW-Authenticate
		account   account.ID
	}{
		"NoCredential":              {target: "/v1/balance", status: 401, code: "authentication_required", challenge: challenge},
		"AnotherScheme":             {target: "/v1/balance", headers: []string{"Authorization", "Basic dTpw"}, status: 401, code: "authentication_required", challenge: challenge},
		"TwoHeaders":                {target: "/v1/balance", headers: append(bearer(user), bearer(user)...), status: 400, code: "invalid_authorization"},
		"EmptyBearer":               {target: "/v1/balance", headers: []string{"Authorization", "Bearer "}, status: 400, code: "invalid_authorization"},
		"TwoTokens":                 {target: "/v1/balance", headers: bearer(user + " " + user), status: 400, code: "invalid_authorization"},
		"TwoTokensByATab":           {target: "/v1/balance", headers: bearer(user + "\t" + user), status: 400, code: "invalid_authorization"},
		"TwoTokensByAComma":         {target: "/v1/balance", headers: bearer(user + "," + user), status: 400, code: "invalid_authorization"},
		"ACommaAlone":               {target: "/v1/balance", headers: bearer("," + user), status: 400, code: "invalid_authorization"},
		"NoTokenAtAll":              {target: "/v1/balance", headers: []string{"Authorization", "Bearer"}, status: 400, code: "invalid_authorization"},
		"SpacesBeforeTheToken":      {target: "/v1/balance", headers: bearer("  " + user), status: 200, account: mine},
		"TokenInQuery":              {target: "/v1/balance?access_token=" + user, status: 401, code: "authentication_required", challenge: challenge},
		"NonsenseToken":             {target: "/v1/balance", headers: bearer("nonsense"), status: 401, code: "invalid_token", challenge: invalid},
		"ExpiredToken":              {target: "/v1/balance", headers: bearer(b.token("billing:read", map[string]any{"exp": start.Add(-time.Minute).Unix()})), status: 401, code: "invalid_token", challenge: invalid},
		"KeyWithTypingError":        {target: "/v1/balance", headers: bearer(key[:len(key)-1] + "~"), status: 401, code: "invalid_token", challenge: invalid},
		"LiveKeyOnTest":             {target: "/v1/balance", headers: bearer(liveKey(t)), status: 401, code: "wrong_mode", challenge: invalid},
		"UserReads":                 {target: "/v1/balance", headers: bearer(user), status: 200, account: mine},
		"SchemeInLowerCase":         {target: "/v1/balance", headers: []string{"Authorization", "bearer " + user}, status: 200, account: mine},
		"UserByExternalID":          {target: "/v1/balance", headers: bearer(byExternal), status: 200, account: mine},
		"UserOfUnknownAccount":      {target: "/v1/balance", headers: bearer(b.token("billing:read", map[string]any{"account_id": "nobody"})), status: 403, code: "account_unknown"},
		"UserWithoutAccount":        {target: "/v1/balance", headers: bearer(b.token("billing:read", map[string]any{"account_id": nil})), status: 403, code: "no_account"},
		"UserNamesItsOwnExternalID": {target: "/v1/balance", headers: append(bearer(byExternal), "Accrue-Account", "customer-1"), status: 200, account: mine},
		"KeyReads":                  {target: "/v1/balance", headers: bearer(key), status: 200, account: mine},
		"KeyNamesItsOwnAccount":     {target: "/v1/balance", headers: append(bearer(key), "Accrue-Account", mine.String()), status: 200, account: mine},
		"KeyNamesAnother":           {target: "/v1/balance", headers: append(bearer(key), "Accrue-Account", other.String()), status: 403, code: "account_not_allowed"},
		"KeyNamesNobody":            {target: "/v1/balance", headers: append(bearer(key), "Accrue-Account", "nobody"), status: 403, code: "account_not_allowed"},
		"ScopeMissing":              {target: "POST /v1/usage/events", headers: bearer(user), status: 403, code: "insufficient_scope", challenge: challenge + `, error="insufficient_scope", scope="usage:write"`},
		"ScopeInUpperCase":          {target: "/v1/balance", headers: bearer(b.token("BILLING:READ", nil)), status: 403, code: "insufficient_scope"},
		"ScopeAsPrefix":             {target: "/v1/balance", headers: bearer(b.token("billing:read:all billing:* billing", nil)), status: 403, code: "insufficient_scope"},
		"ScopeSplitByTab":           {target: "/v1/balance", headers: bearer(b.token("usage:read\tbilling:read", nil)), status: 403, code: "insufficient_scope"},
		"UserOnAdmin":               {target: "/v1/admin/accounts", headers: bearer(user), status: 403, code: "insufficient_scope"},
		"OperatorOnAdmin":           {target: "/v1/admin/accounts", headers: bearer(operator), status: 200},
		"OperatorNamesAnAccount":    {target: "/v1/balance", headers: append(bearer(operator), "Accrue-Account", other.String()), status: 200, account: other},
		"OperatorNamesByExternalID": {target: "/v1/balance", headers: append(bearer(operator), "Accrue-Account", "customer-2"), status: 200, account: other},
		"OperatorNamesNone":         {target: "/v1/balance", headers: bearer(operator), status: 400, code: "account_required"},
		"OperatorReportsForNobody":  {target: "POST /v1/usage/events", headers: bearer(operator), status: 400, code: "account_required"},
		"OperatorAsksAboutAll":      {target: "/v1/admin/audit-log", headers: bearer(operator), status: 200},
		"PlatformReservesForNobody": {target: "POST /v1/usage/reservations", headers: bearer(platform), status: 400, code: "account_required"},
		"ATabBeforeTheToken":        {target: "/v1/balance", headers: []string{"Authorization", "Bearer \t" + user}, status: 400, code: "invalid_authorization"},
		"OperatorNamesNobody":       {target: "/v1/balance", headers: append(bearer(operator), "Accrue-Account", "nobody"), status: 404, code: "account_not_found"},
		"OperatorNamesTwo":          {target: "/v1/balance", headers: append(bearer(operator), "Accrue-Account", mine.String(), "Accrue-Account", other.String()), status: 400, code: "account_required"},
		"PlatformNamesAnEmptyOne":   {target: "POST /v1/usage/events", headers: append(bearer(platform), "Accrue-Account", " "), status: 400, code: "account_required"},
		"PlatformNamesNone":         {target: "POST /v1/usage/events", headers: bearer(platform), status: 200},
		"PlatformNamesOne":          {target: "POST /v1/usage/events", headers: append(bearer(platform), "Accrue-Account", "customer-2"), status: 200, account: other},
		"PlatformReadsNothing":      {target: "/v1/balance", headers: append(bearer(platform), "Accrue-Account", "customer-2"), status: 403, code: "insufficient_scope"},
		"Public":                    {target: "/v1/plans", status: 200},
		"PublicWithBrokenToken":     {target: "/v1/plans", headers: bearer("nonsense"), status: 200},
		"NoSuchRoute":               {target: "/v1/nothing", status: 404, code: "route_not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			method, target, ok := strings.Cut(tc.target, " ")
			if !ok {
				method, target = http.MethodGet, tc.target
			}
			a := b.do(method, target, "", tc.headers...)
			if a.status != tc.status || a.code() != tc.code {
				t.Fatalf("answered %d %q, want %d %q: %s", a.status, a.code(), tc.status, tc.code, a.body)
			}
			if scope, _ := a.doc["required_scope"].(string); scope != "" && !strings.Contains(a.doc["detail"].(string), scope) {
				t.Errorf("the words do not name %s: %v", scope, a.doc["detail"])
			}
			got := a.header.Get("WWW-Authenticate")
			if a.status == 401 && tc.challenge == challenge && got != challenge {
				t.Errorf("WWW-Authenticate %q must carry no error code", got)
			}
			if !strings.HasPrefix(got, tc.challenge) || (tc.challenge == "" && a.status != 403 && got != "") {
				t.Errorf("WWW-Authenticate %q, want %q", got, tc.challenge)
			}
			if a.status == 200 && strings.HasPrefix(target, "/v1/") && a.doc["account"] != tc.account.String() {
				t.Errorf("acts for %v, want %v", a.doc["account"], tc.account)
			}
		})
	}
}

func liveKey(t *testing.T) string {
	t.Helper()
	b := &bundle{t: t}
	keys, err := newKeys(auth.Live)
	if err != nil {
		t.Fatal(err)
	}
	b.keys = keys
	return b.key(account.ID{}, auth.BillingRead)
}

func TestRevokedKeyStopsWithinASecond(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{Method: http.MethodGet, Path: "/v1/balance", Scope: auth.BillingRead})
	key := b.key(b.accounts.mine, auth.BillingRead)
	if a := b.do(http.MethodGet, "/v1/balance", "", bearer(key)...); a.status != 200 {
		t.Fatalf("a fresh key: %d %s", a.status, a.body)
	}
	list, err := b.keys.List(t.Context(), b.accounts.mine, page.Request{Limit: 2})
	if err != nil || len(list.Data) != 1 {
		t.Fatalf("List = %v, %v", list, err)
	}
	if err := b.keys.Revoke(t.Context(), b.accounts.mine, list.Data[0].ID); err != nil {
		t.Fatal(err)
	}
	b.advance(time.Second)
	if a := b.do(http.MethodGet, "/v1/balance", "", bearer(key)...); a.status != 401 || a.code() != "invalid_token" {
		t.Fatalf("a second after its revocation: %d %s", a.status, a.body)
	}
}

func TestGuessingIsSlowedDown(t *testing.T) {
	t.Parallel()
	b := setup(t, nil, route.Route{Method: http.MethodGet, Path: "/v1/balance", Scope: auth.BillingRead})
	good := b.token("billing:read", nil)
	for i := range 20 {
		if a := b.do(http.MethodGet, "/v1/balance", "", bearer("guess")...); a.status != 401 {
			t.Fatalf("guess %d: %d", i, a.status)
		}
	}
	a := b.do(http.MethodGet, "/v1/balance", "", bearer("guess")...)
	if a.status != 429 || a.header.Get("Retry-After") == "" {
		t.Fatalf("guess 21: %d, Retry-After %q", a.status, a.header.Get("Retry-After"))
	}
	if a := b.do(http.MethodGet, "/v1/balance", "", bearer(good)...); a.status != 200 {
		t.Fatalf("somebody else at the same address: %d %s", a.status, a.body)
	}
	b.advance(3 * time.Second)
	if a := b.do(http.MethodGet, "/v1/balance", "", bearer("guess")...); a.status != 401 {
		t.Fatalf("a guess after the wait: %d %s", a.status, a.body)
	}
}
