package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"math/big"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/secret"
	"github.com/accrue-billing/accrue/pkg/money"
)

// KeyPattern is the published form of an API key, for secret scanners:
// acr_(test|live)_[0-9A-Za-z]{36}, the last six being the CRC-32 of what stands before them in base 62.
const KeyPattern = `^acr_(test|live)_[0-9A-Za-z]{36}$`

const (
	keyPrefix     = "acr_"
	keyRandom     = 30 // base 62 digits: 178 bits
	keyCheck      = 6  // base 62 digits of the CRC-32
	keyCacheFor   = time.Second
	maxCachedKeys = 10_000
	touchInterval = time.Minute
	base62        = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
)

// KeyID names an API key; it is not the key.
type KeyID = id.ID[APIKey]

// Ceilings bound the money that a key may move. A nil ceiling is none.
type Ceilings struct {
	PerPayment *money.Amount
	PerDay     *money.Amount
}

// APIKey is what is known of a key. The key itself is shown once and is not kept.
type APIKey struct {
	ID         KeyID
	Account    account.ID // zero for a platform key, which the operator owns
	Name       string
	Mode       Mode
	LastFour   string // to tell keys apart in a list
	Scopes     []Scope
	Ceilings   Ceilings
	CreatedAt  time.Time
	ExpiresAt  time.Time // zero means never
	RevokedAt  time.Time // zero unless revoked
	LastUsedAt time.Time // to about a minute; zero if never
}

// IDPrefix makes identifiers of keys read "key_…".
func (APIKey) IDPrefix() string { return "key" }

// KeyHash is what a key is looked up by: its HMAC-SHA-256 under the deployment's pepper.
type KeyHash [sha256.Size]byte

// KeyStore keeps API keys.
type KeyStore interface {
	// Create stores a key under the hash of its text.
	Create(ctx context.Context, k APIKey, hash KeyHash) error
	// ByHash returns the key with the given hash, revoked and expired ones too, or ErrKeyNotFound.
	ByHash(ctx context.Context, hash KeyHash) (APIKey, error)
	// Get returns a key of the account (of the platform if zero), or ErrKeyNotFound.
	Get(ctx context.Context, owner account.ID, k KeyID) (APIKey, error)
	// List returns keys of the account (of the platform if zero), the newest first.
	List(ctx context.Context, owner account.ID, r page.Request) (page.Page[APIKey], error)
	// Good counts the keys of the account that are neither revoked nor expired at the given time.
	Good(ctx context.Context, owner account.ID, at time.Time) (int, error)
	// Revoke ends a key of the account at the given time. Revoking twice keeps the first time. It
	// returns ErrKeyNotFound.
	Revoke(ctx context.Context, owner account.ID, k KeyID, at time.Time) error
	// Rotate stores the successor and gives the old key an earlier end, both or neither. It returns
	// ErrKeyNotFound if the old key is not there or no longer good at the given time.
	Rotate(ctx context.Context, old KeyID, now, oldExpires time.Time, successor APIKey, hash KeyHash) error
	// Touch notes that a key was used.
	Touch(ctx context.Context, owner account.ID, k KeyID, at time.Time) error
}

// Errors of API keys.
var (
	ErrKeyNotFound  = errs.New(errs.NotFound, "api_key_not_found", "There is no such API key.")
	ErrWiderKey     = ErrInsufficientScope.Details("A key cannot be given more than its maker holds.")
	errKeyExpiry    = errs.InvalidField("#/expires_at", "in_the_past", "must lie in the future")
	errKeyNoScope   = errs.InvalidField("#/scopes", "required", "name at least one scope")
	errKeyScope     = errs.InvalidField("#/scopes", "unknown_scope", "may hold scopes of an API key only, and operator is not one")
	errKeyMalformed = errors.New("not an API key: form or checksum")
)

// Keys makes, checks, rotates and revokes API keys. It is safe for concurrent use.
type Keys struct {
	store  KeyStore
	pepper []byte
	mode   Mode
	clock  clock.Clock

	mu    sync.Mutex
	cache map[KeyHash]cachedKey
}

type cachedKey struct {
	key     APIKey
	fetched time.Time
	touched time.Time
}

// NewKeys returns the keys of a deployment. pepper is a secret of at least 32 bytes that the database
// does not hold; with another pepper no key is found any more.
func NewKeys(store KeyStore, pepper secret.Text, mode Mode, clk clock.Clock) (*Keys, error) {
	if len(pepper) < 32 {
		return nil, errors.New("the pepper of API keys needs at least 32 bytes")
	}
	return &Keys{store: store, pepper: []byte(pepper.Reveal()), mode: mode, clock: clk, cache: map[KeyHash]cachedKey{}}, nil
}

// LooksLikeKey reports whether a bearer credential is meant as an API key.
func LooksLikeKey(credential string) bool { return strings.HasPrefix(credential, keyPrefix) }

// Authenticate returns the principal that a key stands for. A key with a typing error is refused
// without a query. A revocation takes effect within a second. It returns ErrInvalidToken or
// ErrWrongMode.
func (s *Keys) Authenticate(ctx context.Context, credential string) (Principal, error) {
	mode, ok := parseKey(credential)
	if !ok {
		return Principal{}, ErrInvalidToken.Because(errKeyMalformed)
	}
	if mode != s.mode {
		return Principal{}, ErrWrongMode
	}
	k, err := s.lookup(ctx, s.hash(credential))
	if errors.Is(err, ErrKeyNotFound) {
		return Principal{}, ErrInvalidToken.Because(err)
	}
	if err != nil {
		return Principal{}, err
	}
	now := s.clock()
	if !k.RevokedAt.IsZero() {
		return Principal{}, ErrInvalidToken.Details("The API key was revoked. Use another one, or make one.").Because(errors.New("revoked"))
	}
	if !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt) {
		return Principal{}, ErrInvalidToken.Details("The API key has expired. Use another one, or make one.").Because(errors.New("expired"))
	}
	p := Principal{
		Kind: Key, Subject: k.ID.String(), Account: k.Account, Scopes: k.Scopes,
		KeyID: k.ID, Ceilings: k.Ceilings, Expiry: k.ExpiresAt,
	}
	if k.Account.IsZero() {
		p.Kind = Platform
	}
	return p, nil
}

// lookup reads a key at most once a second. Only found keys are kept: an attacker's guesses must not
// push out what is used.
func (s *Keys) lookup(ctx context.Context, h KeyHash) (APIKey, error) {
	now := s.clock()
	s.mu.Lock()
	hit, ok := s.cache[h]
	s.mu.Unlock()
	if age := now.Sub(hit.fetched); ok && age >= 0 && age < keyCacheFor {
		return hit.key, nil
	}
	k, err := s.store.ByHash(ctx, h)
	if err != nil {
		return APIKey{}, err
	}
	touch := now.Sub(k.LastUsedAt) >= touchInterval && now.Sub(hit.touched) >= touchInterval
	if touch {
		hit.touched = now
	}
	s.mu.Lock()
	if len(s.cache) >= maxCachedKeys {
		clear(s.cache)
	}
	s.cache[h] = cachedKey{key: k, fetched: now, touched: hit.touched}
	s.mu.Unlock()
	if touch && k.RevokedAt.IsZero() {
		// When a key was last used is a hint for its owner; failing to note it must not refuse the request.
		_ = s.store.Touch(ctx, k.Account, k.ID, now)
	}
	return k, nil
}

// NewKey is what a caller asks for.
type NewKey struct {
	Account   account.ID // zero for a platform key
	Name      string
	Scopes    []Scope
	Ceilings  Ceilings
	ExpiresAt time.Time // zero means never
}

// Create makes a key and returns its text, this once. by must hold every scope that the key is to
// have, and a key's ceilings and end bind the keys that it makes; else ErrWiderKey.
func (s *Keys) Create(ctx context.Context, by Principal, n NewKey) (APIKey, secret.Text, error) {
	now := s.clock()
	switch {
	case len(n.Scopes) == 0:
		return APIKey{}, "", errKeyNoScope
	case !n.ExpiresAt.IsZero() && !n.ExpiresAt.After(now):
		return APIKey{}, "", errKeyExpiry
	}
	for _, sc := range n.Scopes {
		if sc == Operator || !slices.Contains(All(), sc) {
			return APIKey{}, "", errKeyScope
		}
	}
	if err := within(by, n); err != nil {
		return APIKey{}, "", err
	}
	k, text := s.mint(n, now)
	if err := s.store.Create(ctx, k, s.hash(text)); err != nil {
		return APIKey{}, "", err
	}
	return k, secret.Text(text), nil
}

// Rotate gives a key a successor with the same rights and lets the old one go on for overlap. It
// returns the successor's text, this once. by must hold every scope of the key, else ErrWiderKey.
func (s *Keys) Rotate(ctx context.Context, by Principal, owner account.ID, old KeyID, overlap time.Duration) (APIKey, secret.Text, error) {
	was, err := s.store.Get(ctx, owner, old)
	if err != nil {
		return APIKey{}, "", err
	}
	n := NewKey{Account: was.Account, Name: was.Name, Scopes: was.Scopes, Ceilings: was.Ceilings, ExpiresAt: was.ExpiresAt}
	if err := within(by, n); err != nil {
		return APIKey{}, "", err
	}
	now := s.clock()
	k, text := s.mint(n, now)
	ends := now.Add(overlap)
	if !was.ExpiresAt.IsZero() && was.ExpiresAt.Before(ends) {
		ends = was.ExpiresAt
	}
	if err := s.store.Rotate(ctx, old, now, ends, k, s.hash(text)); err != nil {
		return APIKey{}, "", err
	}
	return k, secret.Text(text), nil
}

// Revoke ends a key. It works everywhere within a second.
func (s *Keys) Revoke(ctx context.Context, owner account.ID, k KeyID) error {
	return s.store.Revoke(ctx, owner, k, s.clock())
}

// List returns keys of an account, or of the platform for the zero ID, the newest first.
func (s *Keys) List(ctx context.Context, owner account.ID, r page.Request) (page.Page[APIKey], error) {
	return s.store.List(ctx, owner, r)
}

// Good counts the keys of an account, or of the platform for the zero ID, that can be used now.
func (s *Keys) Good(ctx context.Context, owner account.ID) (int, error) {
	return s.store.Good(ctx, owner, s.clock())
}

// within checks the subset rule.
func within(by Principal, n NewKey) error {
	for _, sc := range n.Scopes {
		if !by.Can(sc) {
			return ErrWiderKey.With("required_scope", string(sc))
		}
	}
	if by.Kind != Key && by.Kind != Platform { // a person's token ends soon; what they make need not
		return nil
	}
	if !by.Expiry.IsZero() && (n.ExpiresAt.IsZero() || n.ExpiresAt.After(by.Expiry)) {
		return ErrWiderKey.Details("A key cannot outlive the key that makes it.")
	}
	if wider(n.Ceilings.PerPayment, by.Ceilings.PerPayment) || wider(n.Ceilings.PerDay, by.Ceilings.PerDay) {
		return ErrWiderKey.Details("A key cannot have higher ceilings than the key that makes it.")
	}
	if by.Ceilings.PerDay != nil && slices.Contains(n.Scopes, PaymentsWrite) {
		return ErrWiderKey.Details("A key with a ceiling per day makes no key that moves money: the two together would move more in a day than it may.")
	}
	return nil
}

func wider(asked, held *money.Amount) bool {
	if held == nil {
		return false
	}
	return asked == nil || asked.Currency != held.Currency || asked.Minor > held.Minor
}

func (s *Keys) mint(n NewKey, now time.Time) (APIKey, string) {
	text := keyPrefix + string(s.mode) + "_" + randomBase62(keyRandom)
	text += checksum(text)
	return APIKey{
		ID: id.New[APIKey](), Account: n.Account, Name: n.Name, Mode: s.mode, LastFour: text[len(text)-4:],
		Scopes: slices.Clone(n.Scopes), Ceilings: n.Ceilings, CreatedAt: now, ExpiresAt: n.ExpiresAt,
	}, text
}

func (s *Keys) hash(text string) (h KeyHash) {
	mac := hmac.New(sha256.New, s.pepper)
	mac.Write([]byte(text))
	mac.Sum(h[:0])
	return h
}

// parseKey checks the form and the checksum, and says which mode the key is for.
func parseKey(s string) (Mode, bool) {
	rest, ok := strings.CutPrefix(s, keyPrefix)
	if !ok {
		return "", false
	}
	word, digits, ok := strings.Cut(rest, "_")
	mode := Mode(word)
	if !ok || (mode != Test && mode != Live) || len(digits) != keyRandom+keyCheck {
		return "", false
	}
	for i := range len(digits) {
		if strings.IndexByte(base62, digits[i]) < 0 {
			return "", false
		}
	}
	body, check := s[:len(s)-keyCheck], s[len(s)-keyCheck:]
	return mode, hmac.Equal([]byte(checksum(body)), []byte(check))
}

// checksum is the CRC-32 (IEEE) as six digits of base 62.
func checksum(s string) string {
	sum := crc32.ChecksumIEEE([]byte(s))
	var out [keyCheck]byte
	for i := len(out) - 1; i >= 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
	return string(out[:])
}

func randomBase62(n int) string {
	out := make([]byte, n)
	for i := range out {
		d, err := rand.Int(rand.Reader, big.NewInt(int64(len(base62))))
		if err != nil {
			panic(err) // the system has no randomness: nothing may go on
		}
		out[i] = base62[d.Int64()]
	}
	return string(out)
}
