package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/golang-jwt/jwt/v5"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
)

// What a token may be.
const (
	maxTokenBytes  = 8 << 10
	leeway         = 30 * time.Second
	maxCachedBytes = 8 << 20 // of tokens that are remembered
)

// Issuer is an identity provider whose tokens are believed.
type Issuer struct {
	Name     string // the iss claim, compared exactly
	Audience string // must be among the token's aud
	// TokenType is the typ that the header must carry, "at+jwt" for access tokens of RFC 9068, so that
	// an ID token cannot serve as one. Empty asks for none.
	TokenType string
	JWKSURL   string // where the keys are published, https (http on the loopback in test mode)
	Keys      []byte // or the keys themselves: a JWK Set or PEM public keys
	// Scopes are those that the issuer may give; what else its tokens name is ignored. Empty means all.
	Scopes []Scope
}

// Verifier checks signed tokens. It is safe for concurrent use.
type Verifier struct {
	Log *slog.Logger // told of keys that cannot be fetched; nil: nobody is

	issuers map[string]*issuer
	parser  *jwt.Parser
	clock   clock.Clock

	mu     sync.RWMutex
	cache  map[string]verified // by the whole token: nothing shorter is found as fast and as surely
	cached int                 // bytes of the tokens in it
}

type issuer struct {
	Issuer
	keys      keySource
	validator *jwt.Validator
}

// verified is a token that has passed. It stays good until it expires or its issuer's keys change.
type verified struct {
	principal Principal
	issuer    *issuer
	set       *keySet
}

// NewVerifier returns a verifier for the given issuers. transport is used to fetch keys; nil means
// the default.
func NewVerifier(issuers []Issuer, mode Mode, clk clock.Clock, transport http.RoundTripper) (*Verifier, error) {
	v := &Verifier{
		issuers: map[string]*issuer{},
		clock:   clk,
		cache:   map[string]verified{},
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{"RS256", "ES256", "EdDSA"}),
			jwt.WithStrictDecoding(),
			jwt.WithoutClaimsValidation(), // done per issuer, once the issuer is known
		),
	}
	for _, cfg := range issuers {
		i, err := newIssuer(cfg, mode, clk, transport)
		if err != nil {
			return nil, fmt.Errorf("issuer %q: %w", cfg.Name, err)
		}
		if _, twice := v.issuers[cfg.Name]; twice {
			return nil, fmt.Errorf("issuer %q is configured twice", cfg.Name)
		}
		v.issuers[cfg.Name] = i
	}
	return v, nil
}

func newIssuer(cfg Issuer, mode Mode, clk clock.Clock, transport http.RoundTripper) (*issuer, error) {
	if cfg.Name == "" || cfg.Audience == "" {
		return nil, errors.New("name and audience are required")
	}
	i := &issuer{
		Issuer: cfg,
		validator: jwt.NewValidator(
			jwt.WithIssuer(cfg.Name), jwt.WithAudience(cfg.Audience),
			jwt.WithExpirationRequired(), jwt.WithIssuedAt(), jwt.WithLeeway(leeway), jwt.WithTimeFunc(clk),
		),
	}
	switch {
	case (cfg.JWKSURL == "") == (len(cfg.Keys) == 0):
		return nil, errors.New("give either an address of the key set or the keys")
	case cfg.JWKSURL != "":
		u, err := url.Parse(cfg.JWKSURL)
		if err != nil {
			return nil, fmt.Errorf("address of the key set: %w", err)
		}
		loopback := slices.Contains([]string{"127.0.0.1", "::1", "localhost"}, u.Hostname())
		if u.Scheme != "https" && (u.Scheme != "http" || mode == Live || !loopback) {
			return nil, errors.New("the key set must be fetched by https")
		}
		i.keys.url, i.keys.client, i.keys.clock = cfg.JWKSURL, newKeyClient(transport), clk
	default:
		set, err := parseKeys(cfg.Keys)
		if err != nil {
			return nil, err
		}
		i.keys.static = set
	}
	return i, nil
}

// Run keeps the keys of all issuers fresh until ctx ends.
func (v *Verifier) Run(ctx context.Context) error {
	tick := time.NewTicker(backgroundRefresh)
	defer tick.Stop()
	for {
		for _, i := range v.issuers {
			if i.keys.static == nil {
				if err := i.keys.refresh(ctx, refreshInterval); err != nil && v.Log != nil {
					v.Log.WarnContext(ctx, "an identity provider's keys not fetched; those that are known serve for a day", "issuer", i.Name, "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Verify returns the principal that a token stands for. It returns ErrInvalidToken, with the cause
// for the log, or an Unavailable error when the issuer's keys cannot be had.
func (v *Verifier) Verify(ctx context.Context, token string) (Principal, error) {
	if p, ok := v.recall(ctx, token); ok {
		return p, nil
	}
	if len(token) > maxTokenBytes || strings.Count(token, ".") != 2 {
		return Principal{}, ErrInvalidToken.Because(errors.New("not a compact token of reasonable size"))
	}
	hit, err := v.verify(ctx, token)
	if err != nil {
		if errs.KindOf(err) == errs.Unavailable || errors.Is(err, ErrInvalidToken) {
			return Principal{}, err
		}
		return Principal{}, ErrInvalidToken.Because(err)
	}
	v.remember(strings.Clone(token), hit)
	return hit.principal, nil
}

func (v *Verifier) verify(ctx context.Context, token string) (verified, error) {
	var out verified
	claims := jwt.MapClaims{} // a map, so that names are compared exactly
	_, err := v.parser.ParseWithClaims(token, claims, func(t *jwt.Token) (any, error) {
		name, err := claims.GetIssuer()
		if err != nil {
			return nil, err
		}
		iss, ok := v.issuers[name]
		if !ok {
			return nil, errors.New("unknown issuer")
		}
		kid, err := checkHeader(t.Header, iss.TokenType)
		if err != nil {
			return nil, err
		}
		key, set, err := iss.keys.find(ctx, kid)
		if err != nil {
			return nil, err
		}
		if key.alg != t.Method.Alg() {
			return nil, fmt.Errorf("key is for %s", key.alg)
		}
		out.issuer, out.set = iss, set
		return key.key, nil
	})
	if err != nil {
		return verified{}, err
	}
	if err := out.issuer.validator.Validate(claims); err != nil {
		return verified{}, explain(err)
	}
	if out.principal, err = out.issuer.principal(claims); err != nil {
		return verified{}, ErrInvalidToken.Details("A claim of the token is not as it must be: %s.", err).Because(err)
	}
	return out, nil
}

// explain says what is wrong with the claims of a token whose signature holds.
func explain(err error) error {
	words := "The token lacks a claim, or one is not as it must be: iss, aud, exp and iat are wanted."
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		words = "The token has expired. Get a new one from its issuer."
	case errors.Is(err, jwt.ErrTokenNotValidYet), errors.Is(err, jwt.ErrTokenUsedBeforeIssued):
		words = "The token is not valid yet: its nbf or iat is ahead of our clock."
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		words = "The token is for another audience than this service. Ask its issuer for one that names it in aud."
	}
	return ErrInvalidToken.Details("%s", words).Because(err)
}

// checkHeader returns the key id of a token's header. Addresses of keys and embedded keys (jku, x5u,
// jwk, x5c) are not looked at. An extension that the sender calls critical is not understood.
func checkHeader(header map[string]any, tokenType string) (kid string, err error) {
	if _, ok := header["crit"]; ok {
		return "", errors.New("critical header parameter not understood")
	}
	if raw, ok := header["kid"]; ok {
		if kid, ok = raw.(string); !ok || kid == "" {
			return "", errors.New("kid is not a text")
		}
	}
	if tokenType != "" {
		typ, _ := header["typ"].(string)
		if typ = strings.TrimPrefix(strings.ToLower(typ), "application/"); typ != strings.ToLower(tokenType) {
			return "", fmt.Errorf("typ is %q, want %q", typ, tokenType)
		}
	}
	return kid, nil
}

func (i *issuer) principal(claims jwt.MapClaims) (Principal, error) {
	subject, err := text(claims, "sub", true)
	if err != nil {
		return Principal{}, err
	}
	ref, err := text(claims, "account_id", false)
	if err != nil {
		return Principal{}, err
	}
	scope, err := text(claims, "scope", false)
	if err != nil {
		return Principal{}, err
	}
	if issued, err := claims.GetIssuedAt(); err != nil || issued == nil {
		return Principal{}, errors.New("iat is required")
	}
	expiry, err := claims.GetExpirationTime()
	if err != nil {
		return Principal{}, err
	}
	p := Principal{
		Kind: User, Subject: i.Name + "|" + subject, ExternalAccount: ref,
		Scopes: ParseScopes(scope), Expiry: expiry.Time,
	}
	if len(i.Scopes) > 0 {
		p.Scopes = slices.DeleteFunc(p.Scopes, func(s Scope) bool { return !slices.Contains(i.Scopes, s) })
	}
	if slices.Contains(p.Scopes, Operator) {
		p.Kind = OperatorUser
	}
	return p, nil
}

// text returns a claim that must be a text of at most 255 bytes if it is there. Control characters are refused: the
// subject is stored with whatever it does.
func text(claims jwt.MapClaims, name string, required bool) (string, error) {
	raw, ok := claims[name]
	if !ok && !required {
		return "", nil
	}
	s, ok := raw.(string)
	if !ok || (required && s == "") || name != "scope" && (len(s) > 255 || strings.ContainsFunc(s, unicode.IsControl)) {
		return "", fmt.Errorf("%s is missing or not a text of reasonable length", name)
	}
	return s, nil
}

func (v *Verifier) recall(ctx context.Context, token string) (Principal, bool) {
	v.mu.RLock()
	hit, ok := v.cache[token]
	v.mu.RUnlock()
	if !ok || !v.clock().Before(hit.principal.Expiry.Add(leeway)) {
		return Principal{}, false
	}
	// A key that its issuer has withdrawn takes its tokens with it.
	if set, err := hit.issuer.keys.set(ctx); err != nil || set != hit.set {
		return Principal{}, false
	}
	return hit.principal, true
}

func (v *Verifier) remember(token string, hit verified) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.cache[token]; !ok {
		v.cached += len(token)
	}
	v.cache[token] = hit
	if v.cached <= maxCachedBytes {
		return
	}
	// Drop the dead, and then any few: the order of a map is arbitrary.
	now, drop := v.clock(), maxCachedBytes/10
	for t, e := range v.cache {
		if drop > 0 || now.After(e.principal.Expiry) {
			delete(v.cache, t)
			v.cached -= len(t)
			drop -= len(t)
		}
	}
}
