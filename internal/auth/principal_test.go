package auth_test

import (
	"errors"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/errs"
)

// The operator's staff may do what any account may; a key or a platform service has the scopes that it was given.
func TestWhatAPrincipalMayDo(t *testing.T) {
	t.Parallel()
	scopes := func(s ...auth.Scope) []auth.Scope { return s }
	for name, tc := range map[string]struct {
		who           auth.Principal
		reads, forAny bool
	}{
		"AUserWithTheScope":         {auth.Principal{Kind: auth.User, Scopes: scopes(auth.BillingRead)}, true, false},
		"AUserWithAnother":          {auth.Principal{Kind: auth.User, Scopes: scopes(auth.BillingWrite)}, false, false},
		"AKeyWithTheScope":          {auth.Principal{Kind: auth.Key, Scopes: scopes(auth.BillingRead)}, true, false},
		"AKeyThatSaysItIsOperator":  {auth.Principal{Kind: auth.Key, Scopes: scopes(auth.Operator)}, false, false},
		"APlatformServiceWithIt":    {auth.Principal{Kind: auth.Platform, Scopes: scopes(auth.BillingRead)}, true, true},
		"APlatformServiceWithout":   {auth.Principal{Kind: auth.Platform, Scopes: scopes(auth.Operator)}, false, true},
		"StaffWithTheOperatorScope": {auth.Principal{Kind: auth.OperatorUser, Scopes: scopes(auth.Operator)}, true, true},
		"StaffWithout":              {auth.Principal{Kind: auth.OperatorUser}, false, true},
	} {
		err := tc.who.Require(auth.BillingRead)
		if tc.who.Can(auth.BillingRead) != tc.reads || (err == nil) != tc.reads || tc.who.ActsForAny() != tc.forAny {
			t.Errorf("%s: reads %v (%v), acts for any account %v", name, tc.who.Can(auth.BillingRead), err, tc.who.ActsForAny())
		}
		if e, ok := errors.AsType[*errs.Error](err); err != nil && (!ok || !errors.Is(err, auth.ErrInsufficientScope) || e.Params["required_scope"] != "billing:read") {
			t.Errorf("%s: the refusal does not name the scope: %v", name, err)
		}
	}
}

// A key is looked up and a token is verified, whichever there is.
func TestACredentialIsAKeyOrAToken(t *testing.T) {
	t.Parallel()
	b := keySetup(t)
	k, text := b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
	a := auth.Authenticator{Tokens: verifier(t, nil), Keys: b.keys}
	if p, err := a.Authenticate(t.Context(), text); err != nil || p.KeyID != k.ID {
		t.Errorf("a key: %+v, %v", p, err)
	}
	if p, err := a.Authenticate(t.Context(), sign(t, jwt.SigningMethodEdDSA, keys().ed25519, claims(), "kid", "ed")); err != nil || p.Kind != auth.User {
		t.Errorf("a token: %+v, %v", p, err)
	}
}
