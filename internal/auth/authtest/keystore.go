// Package authtest holds stand-ins for the ports of auth, for the tests of other packages.
package authtest

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/page"
)

// KeyStore is an auth.KeyStore in memory. It counts the look-ups by hash.
type KeyStore struct {
	mu      sync.Mutex
	byHash  map[auth.KeyHash]auth.APIKey
	lookups int
}

var _ auth.KeyStore = (*KeyStore)(nil)

// NewKeyStore returns an empty store.
func NewKeyStore() *KeyStore { return &KeyStore{byHash: map[auth.KeyHash]auth.APIKey{}} }

// Lookups returns how often a key was looked up by its hash.
func (s *KeyStore) Lookups() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lookups
}

// Create implements auth.KeyStore.
func (s *KeyStore) Create(_ context.Context, k auth.APIKey, hash auth.KeyHash) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byHash[hash] = k
	return nil
}

// ByHash implements auth.KeyStore.
func (s *KeyStore) ByHash(_ context.Context, hash auth.KeyHash) (auth.APIKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups++
	k, ok := s.byHash[hash]
	if !ok {
		return auth.APIKey{}, auth.ErrKeyNotFound
	}
	return k, nil
}

// Get implements auth.KeyStore.
func (s *KeyStore) Get(_ context.Context, owner account.ID, id auth.KeyID) (k auth.APIKey, err error) {
	err = s.change(owner, id, func(found *auth.APIKey) { k = *found })
	return k, err
}

// List implements auth.KeyStore.
func (s *KeyStore) List(_ context.Context, owner account.ID, r page.Request) (page.Page[auth.APIKey], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	position := func(k auth.APIKey) string { return k.ID.String() }
	var keys []auth.APIKey
	for _, k := range s.byHash {
		if k.Account == owner && (r.After == "" || position(k) < r.After) {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b auth.APIKey) int { return strings.Compare(position(b), position(a)) })
	return page.Cut(keys, r.Limit, position), nil
}

// Good implements auth.KeyStore.
func (s *KeyStore) Good(_ context.Context, owner account.ID, at time.Time) (n int, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range s.byHash {
		if k.Account == owner && k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || at.Before(k.ExpiresAt)) {
			n++
		}
	}
	return n, nil
}

// Revoke implements auth.KeyStore.
func (s *KeyStore) Revoke(_ context.Context, owner account.ID, id auth.KeyID, at time.Time) error {
	return s.change(owner, id, func(k *auth.APIKey) {
		if k.RevokedAt.IsZero() {
			k.RevokedAt = at
		}
	})
}

// Rotate implements auth.KeyStore.
func (s *KeyStore) Rotate(ctx context.Context, old auth.KeyID, now, oldExpires time.Time, successor auth.APIKey, hash auth.KeyHash) error {
	good := false
	err := s.change(successor.Account, old, func(k *auth.APIKey) {
		if good = k.RevokedAt.IsZero() && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(now)); good {
			k.ExpiresAt = oldExpires
		}
	})
	if err != nil {
		return err
	}
	if !good {
		return auth.ErrKeyNotFound
	}
	return s.Create(ctx, successor, hash)
}

// Touch implements auth.KeyStore.
func (s *KeyStore) Touch(_ context.Context, owner account.ID, id auth.KeyID, at time.Time) error {
	return s.change(owner, id, func(k *auth.APIKey) { k.LastUsedAt = at })
}

func (s *KeyStore) change(owner account.ID, id auth.KeyID, fn func(*auth.APIKey)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h, k := range s.byHash {
		if k.ID == id && k.Account == owner {
			fn(&k)
			s.byHash[h] = k
			return nil
		}
	}
	return auth.ErrKeyNotFound
}
