package auth_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
)

var now = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// keys are one of each kind, made once: RSA takes its time.
var keys = sync.OnceValue(func() (k struct {
	rsa     *rsa.PrivateKey
	short   *rsa.PrivateKey
	ecdsa   *ecdsa.PrivateKey
	p384    *ecdsa.PrivateKey
	ed25519 ed25519.PrivateKey
	other   ed25519.PrivateKey
},
) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	var err error
	k.rsa, err = rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	k.short, err = rsa.GenerateKey(rand.Reader, 1024)
	must(err)
	k.ecdsa, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	k.p384, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(err)
	_, k.ed25519, err = ed25519.GenerateKey(rand.Reader)
	must(err)
	_, k.other, err = ed25519.GenerateKey(rand.Reader)
	must(err)
	return k
})

// jwks returns a key set of public keys by id.
func jwks(t *testing.T, public map[string]crypto.PublicKey) []byte {
	t.Helper()
	var set jwkset.JWKSMarshal
	for kid, key := range public {
		jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: kid, USE: jwkset.UseSig}})
		if err != nil {
			t.Fatal(err)
		}
		set.Keys = append(set.Keys, jwk.Marshal())
	}
	data, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func threeKeys(t *testing.T) []byte {
	t.Helper()
	k := keys()
	return jwks(t, map[string]crypto.PublicKey{"rsa": k.rsa.Public(), "ec": k.ecdsa.Public(), "ed": k.ed25519.Public()})
}

func claims(change ...any) jwt.MapClaims {
	c := jwt.MapClaims{
		"iss": "https://id.example", "aud": "accrue", "sub": "user-1", "account_id": "customer-1",
		"scope": "billing:read usage:read unknown:scope", "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	for i := 0; i < len(change); i += 2 {
		if change[i+1] == nil {
			delete(c, change[i].(string))
		} else {
			c[change[i].(string)] = change[i+1]
		}
	}
	return c
}

// sign returns a token; header changes come in pairs.
func sign(t *testing.T, method jwt.SigningMethod, key any, c jwt.MapClaims, header ...any) string {
	t.Helper()
	tok := jwt.NewWithClaims(method, c)
	for i := 0; i < len(header); i += 2 {
		if header[i+1] == nil {
			delete(tok.Header, header[i].(string))
		} else {
			tok.Header[header[i].(string)] = header[i+1]
		}
	}
	s, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func verifier(t *testing.T, change func(*auth.Issuer)) *auth.Verifier {
	t.Helper()
	i := auth.Issuer{Name: "https://id.example", Audience: "accrue", Keys: threeKeys(t)}
	if change != nil {
		change(&i)
	}
	v, err := auth.NewVerifier([]auth.Issuer{i}, auth.Test, clock.Fixed(now), nil)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTokensAreTaken(t *testing.T) {
	t.Parallel()
	k := keys()
	v := verifier(t, nil)
	for name, token := range map[string]string{
		"RS256":         sign(t, jwt.SigningMethodRS256, k.rsa, claims(), "kid", "rsa"),
		"ES256":         sign(t, jwt.SigningMethodES256, k.ecdsa, claims(), "kid", "ec"),
		"EdDSA":         sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", "ed"),
		"AudienceList":  sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims("aud", []string{"other", "accrue"}), "kid", "ed"),
		"WithoutNbf":    sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims("nbf", nil), "kid", "ed"),
		"WithinLeeway":  sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims("exp", now.Add(-29*time.Second).Unix()), "kid", "ed"),
		"ClockAhead":    sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims("iat", now.Add(29*time.Second).Unix()), "kid", "ed"),
		"RemoteKeyHint": sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", "ed", "jku", "https://evil.example/keys", "x5u", "https://evil.example"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // the second time from the cache
				p, err := v.Verify(t.Context(), token)
				if err != nil {
					t.Fatalf("Verify: %v", err)
				}
				if p.Kind != auth.User || p.Subject != "https://id.example|user-1" || p.ExternalAccount != "customer-1" ||
					!slices.Equal(p.Scopes, []auth.Scope{auth.BillingRead, auth.UsageRead}) {
					t.Errorf("principal %+v", p)
				}
			}
		})
	}
}

func TestAPrincipalIsWhatTheClaimsSay(t *testing.T) {
	t.Parallel()
	k := keys()
	long := strings.Repeat("x", 255)
	whole := auth.Principal{
		Kind: auth.User, Subject: "https://id.example|user-1", ExternalAccount: "customer-1",
		Scopes: []auth.Scope{auth.BillingRead, auth.UsageRead}, Expiry: now.Add(time.Hour),
	}
	for name, tc := range map[string]struct {
		change []any
		want   func(*auth.Principal)
	}{
		"Whole":             {nil, func(*auth.Principal) {}},
		"NoAccount":         {[]any{"account_id", nil}, func(p *auth.Principal) { p.ExternalAccount = "" }},
		"EmptyAccount":      {[]any{"account_id", ""}, func(p *auth.Principal) { p.ExternalAccount = "" }},
		"LongestAccount":    {[]any{"account_id", long}, func(p *auth.Principal) { p.ExternalAccount = long }},
		"NoScope":           {[]any{"scope", nil}, func(p *auth.Principal) { p.Scopes = nil }},
		"ScopesOfManyOther": {[]any{"scope", strings.Repeat("of:another ", 100) + "usage:read usage:read"}, func(p *auth.Principal) { p.Scopes = []auth.Scope{auth.UsageRead} }},
		"AScopeIsNoPrefix":  {[]any{"scope", "usage:readonly USAGE:READ"}, func(p *auth.Principal) { p.Scopes = nil }},
		"Operator":          {[]any{"scope", "operator"}, func(p *auth.Principal) { p.Kind, p.Scopes = auth.OperatorUser, []auth.Scope{auth.Operator} }},
	} {
		want := whole
		tc.want(&want)
		got, err := verifier(t, nil).Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(tc.change...), "kid", "ed"))
		got.Expiry = got.Expiry.UTC()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
	}
}

// A token that was verified is remembered, and not beyond its end.
func TestATokenThatIsRememberedEnds(t *testing.T) {
	t.Parallel()
	k := keys()
	var later atomic.Int64
	v, err := auth.NewVerifier([]auth.Issuer{{Name: "https://id.example", Audience: "accrue", Keys: threeKeys(t)}}, auth.Test,
		func() time.Time { return now.Add(time.Duration(later.Load())) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	token := sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims("exp", now.Add(time.Hour).Unix()), "kid", "ed")
	end := time.Hour + 30*time.Second // the leeway
	for _, tc := range []struct {
		at   time.Duration
		good bool
	}{{0, true}, {time.Hour, true}, {end - 1, true}, {end, false}, {24 * time.Hour, false}} {
		later.Store(int64(tc.at))
		if _, err := v.Verify(t.Context(), token); (err == nil) != tc.good || (err != nil && !errors.Is(err, auth.ErrInvalidToken)) {
			t.Errorf("%s after it was verified: %v", tc.at, err)
		}
	}
}

// TestTokensAreRefused is the table of forgeries: failure cases 75 to 77.
func TestTokensAreRefused(t *testing.T) {
	t.Parallel()
	k := keys()
	ed := func(change ...any) string {
		return sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(change...), "kid", "ed")
	}
	good := ed()
	parts := strings.Split(good, ".")
	rsaPEM := publicPEM(t, k.rsa.Public(), "")
	forged := func(header string, mac []byte) string {
		h := base64.RawURLEncoding.EncodeToString([]byte(header))
		body := base64.RawURLEncoding.EncodeToString(must(json.Marshal(claims())))
		m := hmac.New(sha256.New, mac)
		m.Write([]byte(h + "." + body))
		return h + "." + body + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
	}
	past := now.Add(-time.Hour).Unix()

	for name, token := range map[string]string{
		"Empty":                "",
		"AlgNone":              sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, claims(), "kid", "ed"),
		"AlgNoneMixedCase":     forged(`{"alg":"nOnE","kid":"ed"}`, nil),
		"AlgEmpty":             forged(`{"alg":"","kid":"ed"}`, nil),
		"AlgMissing":           forged(`{"kid":"ed"}`, nil),
		"AlgOfAnotherType":     forged(`{"alg":1,"kid":"ed"}`, nil),
		"HS256WithPublicKey":   forged(`{"alg":"HS256","kid":"rsa"}`, rsaPEM),
		"HS256AsRS256":         forged(`{"alg":"RS256","kid":"rsa"}`, rsaPEM),
		"AlgInLowerCase":       forged(`{"alg":"rs256","kid":"rsa"}`, rsaPEM),
		"RS512":                sign(t, jwt.SigningMethodRS512, k.rsa, claims(), "kid", "rsa"),
		"PS256":                sign(t, jwt.SigningMethodPS256, k.rsa, claims(), "kid", "rsa"),
		"KeyOfAnotherAlg":      sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", "rsa"),
		"AnotherKey":           sign(t, jwt.SigningMethodEdDSA, k.other, claims(), "kid", "ed"),
		"EmbeddedKey":          sign(t, jwt.SigningMethodEdDSA, k.other, claims(), "kid", "x", "jwk", map[string]string{"kty": "OKP", "crv": "Ed25519"}),
		"KidUnknown":           sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", "none"),
		"KidMissingOfThree":    sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims()),
		"KidEmpty":             sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", ""),
		"KidInjection":         sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", "ed' OR '1'='1"),
		"KidPath":              sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", "../../../dev/null"),
		"KidANumber":           sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", 1),
		"CritUnknown":          sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", "ed", "crit", []string{"exp"}, "exp", 1),
		"CritEmpty":            sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", "ed", "crit", []string{}),
		"SignatureCut":         good[:len(good)-4],
		"SignatureMissing":     parts[0] + "." + parts[1] + ".",
		"PayloadChanged":       parts[0] + "." + base64.RawURLEncoding.EncodeToString(must(json.Marshal(claims("sub", "root")))) + "." + parts[2],
		"Padded":               parts[0] + "." + parts[1] + "==." + parts[2],
		"FourParts":            good + ".x",
		"TwoParts":             parts[0] + "." + parts[1],
		"Dots":                 strings.Repeat(".", 100_000),
		"JSONSerialisation":    `{"payload":"` + parts[1] + `","signatures":[{"protected":"` + parts[0] + `","signature":"` + parts[2] + `"}]}`,
		"Megabyte":             ed("padding", strings.Repeat("x", 1<<20)),
		"JustTooLarge":         ed("padding", strings.Repeat("x", 8<<10)),
		"IssMissing":           ed("iss", nil),
		"IssWrong":             ed("iss", "https://evil.example"),
		"IssWithSlash":         ed("iss", "https://id.example/"),
		"IssOfAnotherType":     ed("iss", 1),
		"AudMissing":           ed("aud", nil),
		"AudWrong":             ed("aud", "another-service"),
		"AudOfAnotherType":     ed("aud", 1),
		"AudEmptyList":         ed("aud", []string{}),
		"SubMissing":           ed("sub", nil),
		"SubEmpty":             ed("sub", ""),
		"SubOfAnotherType":     ed("sub", 1),
		"SubThatCannotBeKept":  ed("sub", "a\x00b"),
		"ExpMissing":           ed("exp", nil),
		"ExpPast":              ed("exp", past),
		"ExpPastLeeway":        ed("exp", now.Add(-31*time.Second).Unix()),
		"ExpOfAnotherType":     ed("exp", "tomorrow"),
		"NbfFuture":            ed("nbf", now.Add(time.Minute).Unix()),
		"NbfOfAnotherType":     ed("nbf", "now"),
		"IatMissing":           ed("iat", nil),
		"IatFuture":            ed("iat", now.Add(time.Minute).Unix()),
		"IatOfAnotherType":     ed("iat", "now"),
		"AccountOfAnotherType": ed("account_id", 1),
		"ScopeOfAnotherType":   ed("scope", []string{"billing:read"}),
		"IssInAnotherCase":     ed("iss", nil, "ISS", "https://id.example"),
		"AccountIDOverlyLong":  ed("account_id", strings.Repeat("x", 256)),
		"ShortKeyIsNoKeyAtAll": sign(t, jwt.SigningMethodRS256, k.short, claims(), "kid", "short"),
		"OtherCurveIsNoKey":    sign(t, jwt.SigningMethodES384, k.p384, claims(), "kid", "p384"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one := map[string]crypto.PublicKey{"ed": k.ed25519.Public()} // which is meant where the token names none
			five := map[string]crypto.PublicKey{
				"rsa": k.rsa.Public(), "ec": k.ecdsa.Public(), "ed": k.ed25519.Public(), "short": k.short.Public(), "p384": k.p384.Public(),
			}
			for _, keys := range []map[string]crypto.PublicKey{one, five} {
				if name == "KidMissingOfThree" && len(keys) == 1 {
					continue
				}
				v := verifier(t, func(i *auth.Issuer) { i.Keys = jwks(t, keys) })
				if p, err := v.Verify(t.Context(), token); !errors.Is(err, auth.ErrInvalidToken) {
					t.Errorf("by an issuer with %d keys: %+v, %v; want ErrInvalidToken", len(keys), p, err)
				}
			}
		})
	}
}

// Whoever holds a token that its issuer has signed learns what is wrong with it; a forger learns nothing.
func TestARefusalSaysWhatIsWrongWithARealToken(t *testing.T) {
	t.Parallel()
	k := keys()
	v := verifier(t, func(i *auth.Issuer) { i.Keys = jwks(t, map[string]crypto.PublicKey{"ed": k.ed25519.Public()}) })
	past, soon := now.Add(-time.Hour).Unix(), now.Add(time.Minute).Unix()
	ed := func(change ...any) string {
		return sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(change...), "kid", "ed")
	}
	for name, tc := range map[string]struct{ token, want string }{
		"Expired":         {ed("exp", past), "has expired"},
		"NotYet":          {ed("nbf", soon), "not valid yet"},
		"IssuedTomorrow":  {ed("iat", soon), "not valid yet"},
		"OtherAudience":   {ed("aud", "another-service"), "another audience"},
		"WithoutAudience": {ed("aud", nil), "aud, exp and iat are wanted"},
		"WithoutSubject":  {ed("sub", nil), "sub is missing"},
		"ForgedExpired":   {sign(t, jwt.SigningMethodEdDSA, k.other, claims("exp", past), "kid", "ed"), auth.ErrInvalidToken.Detail},
		"OtherIssuer":     {ed("iss", "https://evil.example"), auth.ErrInvalidToken.Detail},
	} {
		_, err := v.Verify(t.Context(), tc.token)
		if e, ok := errors.AsType[*errs.Error](err); !ok || !errors.Is(err, auth.ErrInvalidToken) || !strings.Contains(e.Detail, tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestTokenType(t *testing.T) {
	t.Parallel()
	k := keys()
	v := verifier(t, func(i *auth.Issuer) {
		i.TokenType, i.Keys = "at+jwt", jwks(t, map[string]crypto.PublicKey{"ed": k.ed25519.Public()})
	})
	for typ, ok := range map[string]bool{"at+jwt": true, "AT+JWT": true, "application/at+jwt": true, "JWT": false, "id+jwt": false, "": false} {
		_, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", "ed", "typ", typ))
		if (err == nil) != ok {
			t.Errorf("typ %q: %v", typ, err)
		}
	}
	if _, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", "ed", "typ", nil)); err == nil {
		t.Error("a token without typ is taken")
	}
}

func TestAnIssuerGivesOnlyItsScopes(t *testing.T) {
	t.Parallel()
	k := keys()
	token := sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims("scope", "operator billing:read"), "kid", "ed")
	all, err := verifier(t, nil).Verify(t.Context(), token)
	if err != nil || all.Kind != auth.OperatorUser || !all.Can(auth.KeysManage) {
		t.Errorf("an operator: %+v, %v", all, err)
	}
	bound, err := verifier(t, func(i *auth.Issuer) { i.Scopes = []auth.Scope{auth.BillingRead} }).Verify(t.Context(), token)
	if err != nil || bound.Kind != auth.User || bound.Can(auth.Operator) || !bound.Can(auth.BillingRead) {
		t.Errorf("bound to billing:read: %+v, %v", bound, err)
	}
}

func TestNewVerifierRefuses(t *testing.T) {
	t.Parallel()
	k := keys()
	symmetric := jwt.MapClaims{"keys": []any{map[string]string{"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "h"}}}
	ed := publicPEM(t, k.ed25519.Public(), "")
	for name, i := range map[string]auth.Issuer{
		"NoName":        {Audience: "a", Keys: threeKeys(t)},
		"NoAudience":    {Name: "i", Keys: threeKeys(t)},
		"NoKeys":        {Name: "i", Audience: "a"},
		"BothKeys":      {Name: "i", Audience: "a", Keys: threeKeys(t), JWKSURL: "https://id.example"},
		"PlainHTTP":     {Name: "i", Audience: "a", JWKSURL: "http://id.example/keys"},
		"File":          {Name: "i", Audience: "a", JWKSURL: "file:///etc/passwd"},
		"NotKeys":       {Name: "i", Audience: "a", Keys: []byte("hello")},
		"OnlySymmetric": {Name: "i", Audience: "a", Keys: must(json.Marshal(symmetric))},
		"OnlyShort":     {Name: "i", Audience: "a", Keys: jwks(t, map[string]crypto.PublicKey{"short": k.short.Public()})},
		"OnlyP384":      {Name: "i", Audience: "a", Keys: jwks(t, map[string]crypto.PublicKey{"p384": k.p384.Public()})},
		"NotAURL":       {Name: "i", Audience: "a", JWKSURL: "https://id.example/%"},
		"FTP":           {Name: "i", Audience: "a", JWKSURL: "ftp://localhost/keys"},
		"PEMShort":      {Name: "i", Audience: "a", Keys: publicPEM(t, k.short.Public(), "")},
		"PEMP384":       {Name: "i", Audience: "a", Keys: publicPEM(t, k.p384.Public(), "")},
		"PEMOfNoKey":    {Name: "i", Audience: "a", Keys: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("hello")})},
		"PEMUnnamed":    {Name: "i", Audience: "a", Keys: slices.Concat(publicPEM(t, k.rsa.Public(), "rsa"), ed)},
		"PEMUnnamedToo": {Name: "i", Audience: "a", Keys: slices.Concat(ed, publicPEM(t, k.rsa.Public(), "rsa"))},
		"PEMTwice":      {Name: "i", Audience: "a", Keys: slices.Concat(publicPEM(t, k.rsa.Public(), "k"), publicPEM(t, k.ed25519.Public(), "k"))},
		"PEMAndARest":   {Name: "i", Audience: "a", Keys: slices.Concat(publicPEM(t, k.ed25519.Public(), "ed"), publicPEM(t, k.short.Public(), "short"))},
	} {
		if _, err := auth.NewVerifier([]auth.Issuer{i}, auth.Test, clock.Fixed(now), nil); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	one := auth.Issuer{Name: "i", Audience: "a", Keys: ed}
	if _, err := auth.NewVerifier([]auth.Issuer{one, one}, auth.Test, clock.Fixed(now), nil); err == nil {
		t.Error("an issuer is configured twice")
	}
	loopback := auth.Issuer{Name: "i", Audience: "a", JWKSURL: "http://127.0.0.1:1/keys"}
	if _, err := auth.NewVerifier([]auth.Issuer{loopback}, auth.Test, clock.Fixed(now), nil); err != nil {
		t.Errorf("http on the loopback in test mode: %v", err)
	}
	if _, err := auth.NewVerifier([]auth.Issuer{loopback}, auth.Live, clock.Fixed(now), nil); err == nil {
		t.Error("http on the loopback is taken in live mode")
	}
}

func publicPEM(t *testing.T, key crypto.PublicKey, kid string) []byte {
	t.Helper()
	b := &pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(key))}
	if kid != "" {
		b.Headers = map[string]string{"kid": kid}
	}
	return pem.EncodeToMemory(b)
}

// A PEM file has no key ids, and an identity provider puts one into every token; or its only key has one, and its tokens have none.
func TestTheOnlyKeyNeedsNoID(t *testing.T) {
	t.Parallel()
	k := keys()
	for name, set := range map[string][]byte{
		"PEM": publicPEM(t, k.ed25519.Public(), ""), "JWKS": jwks(t, map[string]crypto.PublicKey{"ours": k.ed25519.Public()}),
	} {
		v := verifier(t, func(i *auth.Issuer) { i.Keys = set })
		kids := []any{nil, "theirs"}
		if name == "JWKS" {
			kids[1] = "ours"
		}
		for _, kid := range kids {
			if _, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", kid)); err != nil {
				t.Errorf("%s: by the key, kid %v: %v", name, kid, err)
			}
			if _, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, k.other, claims(), "kid", kid)); !errors.Is(err, auth.ErrInvalidToken) {
				t.Errorf("%s: by another key, kid %v: %v", name, kid, err)
			}
		}
	}
}

func TestSeveralKeysInPEMAreToldApart(t *testing.T) {
	t.Parallel()
	k := keys()
	v := verifier(t, func(i *auth.Issuer) {
		i.Keys = slices.Concat(publicPEM(t, k.rsa.Public(), "rsa"), publicPEM(t, k.ecdsa.Public(), "ec"))
	})
	for name, token := range map[string]string{
		"the first": sign(t, jwt.SigningMethodRS256, k.rsa, claims(), "kid", "rsa"), "the second": sign(t, jwt.SigningMethodES256, k.ecdsa, claims(), "kid", "ec"),
	} {
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An issuer publishes keys for other uses, too, and says more of its keys than is looked at.
func TestOfASetTheKeysForSignaturesOfOursCount(t *testing.T) {
	t.Parallel()
	k := keys()
	entry := func(key crypto.PublicKey, more map[string]any) map[string]any {
		jwk := must(jwkset.NewJWKFromKey(key, jwkset.JWKOptions{}))
		var e map[string]any
		if err := json.Unmarshal(must(json.Marshal(jwk.Marshal())), &e); err != nil {
			t.Fatal(err)
		}
		delete(e, "alg")
		maps.Copy(e, more)
		return e
	}
	for name, tc := range map[string]struct {
		key   map[string]any
		taken bool
	}{
		"ForSignatures":          {entry(k.ed25519.Public(), map[string]any{"use": "sig", "alg": "EdDSA"}), true},
		"ForAnything":            {entry(k.ed25519.Public(), nil), true},
		"WithWhatIsNotFollowed":  {entry(k.ed25519.Public(), map[string]any{"x5u": "http://127.0.0.1:1/certificate", "x5c": []string{"bm9uZQ=="}, "x5t": "bm9uZQ"}), true},
		"ForEncryption":          {entry(k.ed25519.Public(), map[string]any{"use": "enc"}), false},
		"OfAnotherAlgorithm":     {entry(k.ed25519.Public(), map[string]any{"alg": "RS512"}), false},
		"OfATypeThatIsNotSpoken": {map[string]any{"kty": "AKP", "pub": "bm9uZQ"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tc.key["kid"] = "this"
			set := map[string]any{"keys": []any{tc.key, entry(k.rsa.Public(), map[string]any{"kid": "rsa"})}}
			v := verifier(t, func(i *auth.Issuer) { i.Keys = must(json.Marshal(set)) })
			if _, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims(), "kid", "this")); (err == nil) != tc.taken {
				t.Errorf("a token by the key: %v", err)
			}
			if _, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodRS256, k.rsa, claims(), "kid", "rsa")); err != nil {
				t.Errorf("a token by the key beside it: %v", err)
			}
		})
	}
	twice := map[string]any{"keys": []any{entry(k.ed25519.Public(), map[string]any{"kid": "k"}), entry(k.rsa.Public(), map[string]any{"kid": "k"})}}
	if _, err := auth.NewVerifier([]auth.Issuer{{Name: "i", Audience: "a", Keys: must(json.Marshal(twice))}}, auth.Test, clock.Fixed(now), nil); err == nil {
		t.Error("two keys of one id are taken")
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// provider is an identity provider whose keys can be changed and which can be down.
type provider struct {
	mu      sync.Mutex
	keys    []byte
	down    bool
	fetches atomic.Int64
}

func (p *provider) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.fetches.Add(1)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		http.Error(w, "down", http.StatusBadGateway)
		return
	}
	_, _ = w.Write(p.keys)
}

func (p *provider) set(keys []byte, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys, p.down = keys, down
}

// TestRemoteKeys is failure case 78.
func TestRemoteKeys(t *testing.T) {
	t.Parallel()
	k := keys()
	setup := func(t *testing.T) (*provider, *auth.Verifier, *atomic.Int64) {
		t.Helper()
		p := &provider{keys: jwks(t, map[string]crypto.PublicKey{"ed": k.ed25519.Public()})}
		s := httptest.NewServer(p)
		t.Cleanup(s.Close)
		var offset atomic.Int64
		clk := func() time.Time { return now.Add(time.Duration(offset.Load())) }
		v, err := auth.NewVerifier([]auth.Issuer{{Name: "https://id.example", Audience: "accrue", JWKSURL: s.URL}}, auth.Test, clk, nil)
		if err != nil {
			t.Fatal(err)
		}
		return p, v, &offset
	}
	long := func(kid string, key ed25519.PrivateKey) string {
		return sign(t, jwt.SigningMethodEdDSA, key, claims("exp", now.Add(72*time.Hour).Unix()), "kid", kid)
	}

	t.Run("FetchedOnceForManyAtOnce", func(t *testing.T) {
		t.Parallel()
		p, v, offset := setup(t)
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				if _, err := v.Verify(t.Context(), long("ed", k.ed25519)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		offset.Add(int64(23 * time.Hour))
		if _, err := v.Verify(t.Context(), sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims("exp", now.Add(80*time.Hour).Unix()), "kid", "ed")); err != nil {
			t.Error(err)
		}
		if n := p.fetches.Load(); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
	t.Run("RotationIsNoticedByTheUnknownKey", func(t *testing.T) {
		t.Parallel()
		p, v, offset := setup(t)
		if _, err := v.Verify(t.Context(), long("ed", k.ed25519)); err != nil {
			t.Fatal(err)
		}
		p.set(jwks(t, map[string]crypto.PublicKey{"new": k.other.Public()}), false)
		offset.Add(int64(6 * time.Minute))
		if _, err := v.Verify(t.Context(), long("new", k.other)); err != nil {
			t.Errorf("a token by the new key: %v", err)
		}
		if _, err := v.Verify(t.Context(), long("ed", k.ed25519)); !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("a cached token by the withdrawn key: %v", err)
		}
	})
	// Keys are compared with those before, so that what was verified stays so; what has changed must be seen.
	for name, keys := range map[string]map[string]crypto.PublicKey{
		"AnotherKeyUnderItsID":        {"ed": k.other.Public()},
		"AKeyOfAnotherKindUnderItsID": {"ed": k.ecdsa.Public()},
		"TheSameKeyUnderAnotherID":    {"new": k.ed25519.Public()},
		"OneMoreAndOneLess":           {"new": k.other.Public(), "ec": k.ecdsa.Public()},
	} {
		t.Run("WhatIsWithdrawnIsNoticedByTheNextFetch/"+name, func(t *testing.T) {
			t.Parallel()
			p, v, offset := setup(t)
			p.set(jwks(t, map[string]crypto.PublicKey{"ed": k.ed25519.Public(), "rsa": k.rsa.Public()}), false)
			if _, err := v.Verify(t.Context(), long("ed", k.ed25519)); err != nil {
				t.Fatal(err)
			}
			keys := maps.Clone(keys)
			if len(keys) == 1 {
				keys["rsa"] = k.rsa.Public()
			}
			p.set(jwks(t, keys), false)
			offset.Add(int64(15 * time.Minute))
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // after the first look
			if err := v.Run(ctx); err != nil {
				t.Fatal(err)
			}
			if _, err := v.Verify(t.Context(), long("ed", k.ed25519)); !errors.Is(err, auth.ErrInvalidToken) {
				t.Errorf("a token by the withdrawn key: %v", err)
			}
			if key, ok := keys["ed"]; ok && key.(interface{ Equal(crypto.PublicKey) bool }).Equal(k.other.Public()) {
				if _, err := v.Verify(t.Context(), long("ed", k.other)); err != nil {
					t.Errorf("a token by the new key: %v", err)
				}
			}
		})
	}
	t.Run("OnlyTheConfiguredAddressIsBelieved", func(t *testing.T) {
		t.Parallel()
		const most = 256 << 10
		good := string(jwks(t, map[string]crypto.PublicKey{"ed": k.ed25519.Public()}))
		for name, tc := range map[string]struct {
			status int
			body   string
			taken  bool
		}{
			"Good":         {http.StatusOK, good, true},
			"AsLongAsMay":  {http.StatusOK, good + strings.Repeat(" ", most-len(good)), true},
			"TooLong":      {http.StatusOK, good + strings.Repeat(" ", most+1-len(good)), false},
			"Elsewhere":    {http.StatusFound, good, false},
			"WithoutKeys":  {http.StatusOK, `{"keys":[]}`, false},
			"NoConnection": {0, "", false},
		} {
			asked := 0
			transport := roundTripper(func(r *http.Request) (*http.Response, error) {
				if asked++; tc.status == 0 {
					return nil, errors.New("connection refused")
				}
				if r.URL.String() != "https://id.example/keys" {
					return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(strings.NewReader(good)), Request: r}, nil
				}
				return &http.Response{
					StatusCode: tc.status, Header: http.Header{"Location": {"https://evil.example/keys"}},
					Body: io.NopCloser(strings.NewReader(tc.body)), Request: r,
				}, nil
			})
			v, err := auth.NewVerifier([]auth.Issuer{{Name: "https://id.example", Audience: "accrue", JWKSURL: "https://id.example/keys"}},
				auth.Live, clock.Fixed(now), transport)
			if err != nil {
				t.Fatal(err)
			}
			_, err = v.Verify(t.Context(), long("ed", k.ed25519))
			if (err == nil) != tc.taken || (err != nil && errs.KindOf(err) != errs.Unavailable) || asked != 1 {
				t.Errorf("%s: %v after %d requests", name, err, asked)
			}
		}
	})
	t.Run("AFloodOfUnknownKeysFetchesLittle", func(t *testing.T) {
		t.Parallel()
		p, v, offset := setup(t)
		for i := range 200 {
			_, _ = v.Verify(t.Context(), long("none", k.other))
			if i == 100 {
				offset.Add(int64(5 * time.Minute))
			}
		}
		if n := p.fetches.Load(); n > 2 {
			t.Errorf("%d fetches in five minutes", n)
		}
	})
	t.Run("StaleKeysServeWhileTheProviderIsDown", func(t *testing.T) {
		t.Parallel()
		p, v, offset := setup(t)
		if _, err := v.Verify(t.Context(), long("ed", k.ed25519)); err != nil {
			t.Fatal(err)
		}
		p.set(nil, true)
		offset.Add(int64(24 * time.Hour))
		fresh := sign(t, jwt.SigningMethodEdDSA, k.ed25519, claims("exp", now.Add(80*time.Hour).Unix()), "kid", "ed")
		if _, err := v.Verify(t.Context(), fresh); err != nil {
			t.Errorf("after a day: %v", err)
		}
		offset.Add(1)
		for name, token := range map[string]string{"seen": fresh, "new": long("ed", k.ed25519)} {
			if _, err := v.Verify(t.Context(), token); errs.KindOf(err) != errs.Unavailable {
				t.Errorf("a %s token after more than a day: %v, want Unavailable", name, err)
			}
		}
	})
	t.Run("KeysThatBecameTooOldAreFetchedAnew", func(t *testing.T) {
		t.Parallel()
		p, v, offset := setup(t)
		if _, err := v.Verify(t.Context(), long("ed", k.ed25519)); err != nil {
			t.Fatal(err)
		}
		p.set(nil, true)
		offset.Add(int64(25 * time.Hour))
		if _, err := v.Verify(t.Context(), long("ed", k.ed25519)); errs.KindOf(err) != errs.Unavailable {
			t.Errorf("while the provider is down: %v, want Unavailable", err)
		}
		p.set(jwks(t, map[string]crypto.PublicKey{"ed": k.ed25519.Public()}), false)
		offset.Add(int64(10 * time.Second))
		if _, err := v.Verify(t.Context(), long("ed", k.ed25519)); err != nil {
			t.Errorf("once the provider is up: %v", err)
		}
	})
	t.Run("AKeySetThatIsGoneIsToldOfWhileItsKeysServe", func(t *testing.T) {
		t.Parallel()
		p, v, _ := setup(t)
		p.set(nil, true)
		var log bytes.Buffer
		v.Log = slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // after the first look
		if err := v.Run(ctx); err != nil || !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "status 502") {
			t.Errorf("%v, and the log says %q", err, log.String())
		}
	})
	t.Run("DownFromTheStartIsNotTheCallersFault", func(t *testing.T) {
		t.Parallel()
		p, v, offset := setup(t)
		p.set(nil, true)
		if _, err := v.Verify(t.Context(), long("ed", k.ed25519)); errs.KindOf(err) != errs.Unavailable || !strings.Contains(err.Error(), "fetch keys from http://127.0.0.1") {
			t.Errorf("got %v, want Unavailable, and why", err)
		}
		p.set(jwks(t, map[string]crypto.PublicKey{"ed": k.ed25519.Public()}), false)
		offset.Add(int64(10 * time.Second))
		if _, err := v.Verify(t.Context(), long("ed", k.ed25519)); err != nil {
			t.Errorf("once the provider is up: %v", err)
		}
	})
	t.Run("KeysThatWereConfiguredAreNotFetched", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // after the first look
		v := verifier(t, nil)
		if err := v.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Run("RunStopsWithItsContext", func(t *testing.T) {
		t.Parallel()
		p, v, _ := setup(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- v.Run(ctx) }()
		for p.fetches.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
