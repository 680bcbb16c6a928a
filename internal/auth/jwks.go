package auth

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
)

// How the keys of an issuer are kept.
const (
	backgroundRefresh = 15 * time.Minute // how often keys are fetched without being asked for
	refreshInterval   = 5 * time.Minute  // at most one fetch in this time, whatever tokens come in
	firstFetchRetry   = 10 * time.Second // the same while there are no keys that may be used
	staleIfError      = 24 * time.Hour   // how long keys serve after the last successful fetch
	maxJWKSBytes      = 256 << 10
	minRSABits        = 2048
)

// errKeysUnavailable says that no keys of an issuer are known, or none that are fresh enough. It is
// not the caller's fault, so it is not a 401.
var errKeysUnavailable = errs.New(errs.Unavailable, "identity_provider_unavailable",
	"The keys of the identity provider cannot be fetched; try again.").After(firstFetchRetry)

// signingKey is a public key with the one algorithm that it may verify. The pairing is ours and is
// made when the key is read: a token's header can choose neither.
type signingKey struct {
	key crypto.PublicKey
	alg string
}

// keySet is the keys of one issuer by key id. It is immutable.
type keySet struct{ byID map[string]signingKey }

// add takes a key into a set that is being read.
func (s *keySet) add(kid string, k signingKey) error {
	if _, twice := s.byID[kid]; twice {
		return fmt.Errorf("key id %q appears twice", kid)
	}
	s.byID[kid] = k
	return nil
}

// find returns the key with the given id. Where there is one key only, a token or a key without an id means that one.
func (s *keySet) find(kid string) (signingKey, bool) {
	if len(s.byID) == 1 {
		for id, k := range s.byID {
			return k, id == kid || id == "" || kid == ""
		}
	}
	k, ok := s.byID[kid]
	return k, ok
}

// algorithmOf pairs a public key with its algorithm, or refuses it: symmetric keys, short RSA keys
// and curves other than P-256 and Ed25519 never verify anything here.
func algorithmOf(key any) (string, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < minRSABits {
			return "", fmt.Errorf("RSA key of %d bits, want at least %d", k.N.BitLen(), minRSABits)
		}
		return jwt.SigningMethodRS256.Alg(), nil
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return "", fmt.Errorf("curve %s, want P-256", k.Curve.Params().Name)
		}
		return jwt.SigningMethodES256.Alg(), nil
	case ed25519.PublicKey:
		return jwt.SigningMethodEdDSA.Alg(), nil
	default:
		return "", fmt.Errorf("key type %T is not spoken here", key)
	}
}

// parseKeys reads a JWK Set, or one or more PEM public keys. Keys of a set that cannot verify
// signatures of ours (encryption keys, other curves) are passed over; a set without any is an error.
func parseKeys(data []byte) (*keySet, error) {
	set := &keySet{byID: map[string]signingKey{}}
	if block, rest := pem.Decode(data); block != nil {
		for ; block != nil; block, rest = pem.Decode(rest) {
			key, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("read PEM public key: %w", err)
			}
			alg, err := algorithmOf(key)
			if err != nil {
				return nil, err
			}
			if err := set.add(block.Headers["kid"], signingKey{key, alg}); err != nil {
				return nil, err
			}
		}
		if _, unnamed := set.byID[""]; unnamed && len(set.byID) > 1 {
			return nil, errors.New("several PEM keys need a kid header each")
		}
		return set, nil
	}
	var doc jwkset.JWKSMarshal
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("read JWK set: %w", err)
	}
	for _, m := range doc.Keys {
		if m.USE != "" && m.USE != jwkset.UseSig {
			continue
		}
		m.X5U, m.X5C, m.X5T, m.X5TS256 = "", nil, "", "" // no address in a key is ever followed
		jwk, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil {
			continue
		}
		alg, err := algorithmOf(jwk.Key())
		if err != nil || (m.ALG != "" && m.ALG.String() != alg) {
			continue
		}
		if err := set.add(m.KID, signingKey{jwk.Key(), alg}); err != nil {
			return nil, err
		}
	}
	if len(set.byID) == 0 {
		return nil, errors.New("no key for RS256, ES256 or EdDSA")
	}
	return set, nil
}

// keySource is where the keys of one issuer come from. It is safe for concurrent use.
type keySource struct {
	static *keySet // set where the keys were configured; nothing below is used then

	url    string
	client *http.Client
	clock  clock.Clock

	current atomic.Pointer[fetched]
	mu      sync.Mutex // held for a fetch, so that there is one at a time
	tried   time.Time  // the last attempt, successful or not; guarded by mu
	failed  error      // why it was not successful; guarded by mu
}

type fetched struct {
	set *keySet
	at  time.Time
}

// newKeyClient returns a client for fetching keys: short, without redirects, so that the configured
// address is the one that is trusted.
func newKeyClient(rt http.RoundTripper) *http.Client {
	return &http.Client{
		Transport:     rt,
		Timeout:       5 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// set returns the keys that may be used now.
func (s *keySource) set(ctx context.Context) (*keySet, error) {
	if s.static != nil {
		return s.static, nil
	}
	if s.stale() {
		err := s.refresh(ctx, firstFetchRetry)
		if s.stale() {
			return nil, errKeysUnavailable.Because(err)
		}
	}
	return s.current.Load().set, nil
}

// stale reports whether there are no keys that are fresh enough.
func (s *keySource) stale() bool {
	f := s.current.Load()
	return f == nil || s.clock().Sub(f.at) > staleIfError
}

// find returns the key with the given id. An unknown id may be one that the issuer has just begun to
// use, so it leads to a fetch, but to no more than one in refreshInterval.
func (s *keySource) find(ctx context.Context, kid string) (signingKey, *keySet, error) {
	set, err := s.set(ctx)
	if err != nil {
		return signingKey{}, nil, err
	}
	if k, ok := set.find(kid); ok {
		return k, set, nil
	}
	if s.static == nil {
		_ = s.refresh(ctx, refreshInterval) // the keys that there are go on to serve
		if set, err = s.set(ctx); err != nil {
			return signingKey{}, nil, err
		}
		if k, ok := set.find(kid); ok {
			return k, set, nil
		}
	}
	return signingKey{}, nil, errors.New("unknown key id")
}

// refresh fetches the keys unless that was tried less than interval ago. Concurrent callers wait for
// the one fetch. A failure keeps the keys that there are; it returns that of the last fetch.
func (s *keySource) refresh(ctx context.Context, interval time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.clock()
	if !s.tried.IsZero() && now.Sub(s.tried) < interval {
		return s.failed
	}
	s.tried = now
	// The first caller's patience must not decide for those who wait behind it.
	set, err := s.fetch(context.WithoutCancel(ctx))
	if s.failed = err; err != nil {
		return err
	}
	if old := s.current.Load(); old != nil && old.set.equal(set) {
		set = old.set // the same keys stay the same set, so that tokens verified by it stay cached
	}
	s.current.Store(&fetched{set, now})
	return nil
}

func (s *keySource) fetch(ctx context.Context) (set *keySet, err error) {
	defer errs.Wrap(&err, "fetch keys from %s", s.url)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("status %d", resp.StatusCode)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKSBytes+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxJWKSBytes {
		return nil, fmt.Errorf("more than %d bytes", maxJWKSBytes)
	}
	return parseKeys(data)
}

func (s *keySet) equal(t *keySet) bool {
	if len(s.byID) != len(t.byID) {
		return false
	}
	for kid, k := range s.byID {
		other, ok := t.byID[kid]
		if !ok || k.alg != other.alg {
			return false
		}
		if e, ok := k.key.(interface{ Equal(crypto.PublicKey) bool }); !ok || !e.Equal(other.key) {
			return false
		}
	}
	return true
}
