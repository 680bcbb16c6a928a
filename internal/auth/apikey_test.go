package auth_test

import (
	"cmp"
	"context"
	"errors"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/auth/authtest"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/secret"
	"github.com/accrue-billing/accrue/pkg/money"
)

const pepper = secret.Text("0123456789abcdef0123456789abcdef")

var operator = auth.Principal{Kind: auth.OperatorUser, Scopes: []auth.Scope{auth.Operator}}

type keyBundle struct {
	store *authtest.KeyStore
	keys  *auth.Keys
	owner account.ID
	later *atomic.Int64
}

func keySetup(t *testing.T) keyBundle {
	t.Helper()
	b := keyBundle{store: authtest.NewKeyStore(), owner: id.New[account.Account](), later: new(atomic.Int64)}
	var err error
	b.keys, err = auth.NewKeys(b.store, pepper, auth.Test, func() time.Time { return now.Add(time.Duration(b.later.Load())) })
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b keyBundle) create(t *testing.T, n auth.NewKey) (auth.APIKey, string) {
	t.Helper()
	n.Account = b.owner
	k, text, err := b.keys.Create(t.Context(), operator, n)
	if err != nil {
		t.Fatal(err)
	}
	return k, text.Reveal()
}

func TestKeyForm(t *testing.T) {
	t.Parallel()
	b := keySetup(t)
	pattern := regexp.MustCompile(auth.KeyPattern)
	seen := map[string]bool{}
	for range 200 {
		k, text := b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
		if !pattern.MatchString(text) || !strings.HasPrefix(text, "acr_test_") || !strings.HasSuffix(text, k.LastFour) || seen[text] {
			t.Fatalf("key %q with last four %q", text, k.LastFour)
		}
		seen[text] = true
	}
}

func TestATypingErrorNeedsNoQuery(t *testing.T) {
	t.Parallel()
	b := keySetup(t)
	_, text := b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
	rapid.Check(t, func(rt *rapid.T) {
		typo := []byte(text)
		i := rapid.IntRange(0, len(typo)-1).Draw(rt, "at")
		switch rapid.IntRange(0, 2).Draw(rt, "kind") {
		case 0:
			typo[i] = rapid.SampledFrom([]byte("abcXYZ019_-~ ")).Draw(rt, "char")
		case 1:
			typo = append(typo[:i], typo[i+1:]...)
		case 2:
			if i > 0 {
				typo[i-1], typo[i] = typo[i], typo[i-1]
			}
		}
		if string(typo) == text {
			return
		}
		if _, err := b.keys.Authenticate(t.Context(), string(typo)); errs.KindOf(err) != errs.Unauthenticated {
			rt.Fatalf("%q: %v", typo, err)
		}
	})
	if n := b.store.Lookups(); n != 0 {
		t.Errorf("%d look-ups for keys with typing errors", n)
	}
}

// The form is published for secret scanners. The checksums are zlib's.
func TestOnlyWhatHasTheFormOfAKeyIsLookedUp(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text    string
		want    error
		lookups int
	}{
		"AKey":           {"acr_test_0123456789ABCDEFGHIJabcdefghij27zGXf", auth.ErrInvalidToken, 1},
		"OtherMode":      {"acr_live_0123456789ABCDEFGHIJabcdefghij2scY56", auth.ErrWrongMode, 0},
		"NoMode":         {"acr_prod_0123456789ABCDEFGHIJabcdefghij1YeoFu", auth.ErrInvalidToken, 0},
		"TooShort":       {"acr_test_0123456789ABCDEFGHIJabcdefghi2N3fGp", auth.ErrInvalidToken, 0},
		"TooLong":        {"acr_test_0123456789ABCDEFGHIJabcdefghij03Gywa5", auth.ErrInvalidToken, 0},
		"AnotherLetter":  {"acr_test_0123456789ABCDEFGHIJabcdefgh-j46WKpa", auth.ErrInvalidToken, 0},
		"OnePart":        {"acr_0123456789ABCDEFGHIJabcdefghijABCDE3Z8rVF", auth.ErrInvalidToken, 0},
		"AnotherPrefix":  {"acr-test_0123456789ABCDEFGHIJabcdefghij1Rfn2B", auth.ErrInvalidToken, 0},
		"WrongChecksum":  {"acr_test_0123456789ABCDEFGHIJabcdefghij27zGXg", auth.ErrInvalidToken, 0},
		"NothingButThis": {"acr_", auth.ErrInvalidToken, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := keySetup(t)
			if _, err := b.keys.Authenticate(t.Context(), tc.text); !errors.Is(err, tc.want) || b.store.Lookups() != tc.lookups {
				t.Errorf("%v after %d look-ups, want %v after %d", err, b.store.Lookups(), tc.want, tc.lookups)
			}
		})
	}
}

// faultyStore is a store that can be down.
type faultyStore struct {
	*authtest.KeyStore
	down    bool
	touches int
}

var errDown = errs.New(errs.Unavailable, "database_unavailable", "The database is down.")

func (s *faultyStore) fails() error {
	if s.down {
		return errDown
	}
	return nil
}

func (s *faultyStore) ByHash(ctx context.Context, h auth.KeyHash) (auth.APIKey, error) {
	k, err := s.KeyStore.ByHash(ctx, h)
	return k, cmp.Or(s.fails(), err)
}

func (s *faultyStore) Create(ctx context.Context, k auth.APIKey, h auth.KeyHash) error {
	return cmp.Or(s.fails(), s.KeyStore.Create(ctx, k, h))
}

func (s *faultyStore) Rotate(ctx context.Context, old auth.KeyID, now, ends time.Time, k auth.APIKey, h auth.KeyHash) error {
	return cmp.Or(s.fails(), s.KeyStore.Rotate(ctx, old, now, ends, k, h))
}

func (s *faultyStore) Touch(context.Context, account.ID, auth.KeyID, time.Time) error {
	s.touches++
	return errDown
}

func TestWhileKeysCannotBeReadNobodyIsLetInAndNoneIsMade(t *testing.T) {
	t.Parallel()
	b := keySetup(t)
	k, text := b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
	keys, err := auth.NewKeys(&faultyStore{KeyStore: b.store, down: true}, pepper, auth.Test, clock.Fixed(now))
	if err != nil {
		t.Fatal(err)
	}
	if p, err := keys.Authenticate(t.Context(), text); errs.KindOf(err) != errs.Unavailable || !reflect.ValueOf(p).IsZero() {
		t.Errorf("%+v, %v is let in", p, err)
	}
	if _, made, err := keys.Create(t.Context(), operator, auth.NewKey{Account: b.owner, Scopes: k.Scopes}); errs.KindOf(err) != errs.Unavailable || made != "" {
		t.Errorf("a key is made: %q, %v", made, err)
	}
	if _, made, err := keys.Rotate(t.Context(), operator, b.owner, k.ID, 0); errs.KindOf(err) != errs.Unavailable || made != "" {
		t.Errorf("a key is rotated: %q, %v", made, err)
	}
}

// When a key was last used is a hint: to about a minute, whichever process has seen it, and at no cost to the request.
func TestTheUseOfAKeyIsNotedOnceAMinute(t *testing.T) {
	t.Parallel()
	b := keySetup(t)
	k, text := b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
	other, err := auth.NewKeys(b.store, pepper, auth.Test, func() time.Time { return now.Add(time.Duration(b.later.Load())) })
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []struct{ used, noted time.Duration }{
		{0, 0}, {58 * time.Second, 0}, {time.Minute, time.Minute}, {118 * time.Second, time.Minute}, {2 * time.Minute, 2 * time.Minute},
	} {
		b.later.Store(int64(at.used))
		for _, keys := range []*auth.Keys{b.keys, other} {
			if _, err := keys.Authenticate(t.Context(), text); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := b.store.Get(t.Context(), b.owner, k.ID); err != nil || !got.LastUsedAt.Equal(now.Add(at.noted)) {
			t.Errorf("used at %s: noted as of %s, %v", at.used, got.LastUsedAt.Sub(now), err)
		}
	}
	if err := b.keys.Revoke(t.Context(), b.owner, k.ID); err != nil {
		t.Fatal(err)
	}
	b.later.Store(int64(time.Hour))
	if _, err := b.keys.Authenticate(t.Context(), text); err == nil {
		t.Fatal("a revoked key is taken")
	}
	if got, err := b.store.Get(t.Context(), b.owner, k.ID); err != nil || !got.LastUsedAt.Equal(now.Add(2*time.Minute)) {
		t.Errorf("that a revoked key was tried is noted as its use at %s, %v", got.LastUsedAt.Sub(now), err)
	}

	_, text = b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
	store := &faultyStore{KeyStore: b.store}
	keys, err := auth.NewKeys(store, pepper, auth.Test, func() time.Time { return now.Add(time.Duration(b.later.Load())) })
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.later.Add(int64(2 * time.Second))
		if _, err := keys.Authenticate(t.Context(), text); err != nil {
			t.Errorf("its use cannot be noted: %v", err)
		}
	}
	if store.touches != 1 {
		t.Errorf("what cannot be noted is tried %d times within a minute", store.touches)
	}
}

// Memory is bounded whatever is sent: of more keys than are remembered, those before are read anew.
func TestKeysThatAreRememberedAreBounded(t *testing.T) {
	t.Parallel()
	b := keySetup(t)
	keys, err := auth.NewKeys(&faultyStore{KeyStore: b.store}, pepper, auth.Test, clock.Fixed(now))
	if err != nil {
		t.Fatal(err)
	}
	const most = 10_000
	texts := make([]string, most+1)
	for i := range texts {
		_, texts[i] = b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
	}
	use := func(texts ...string) int {
		before := b.store.Lookups()
		for _, text := range texts {
			if _, err := keys.Authenticate(t.Context(), text); err != nil {
				t.Fatal(err)
			}
		}
		return b.store.Lookups() - before
	}
	use(texts[:most]...)
	if n := use(texts[:most]...); n != 0 {
		t.Errorf("of %d keys %d are not remembered", most, n)
	}
	if n := use(texts[most], texts[most], texts[0]); n != 2 {
		t.Errorf("beyond %d keys: %d look-ups for the last and the first, want 2", most, n)
	}
}

// TestKeyLife is failure case 79.
func TestKeyLife(t *testing.T) {
	t.Parallel()

	t.Run("Good", func(t *testing.T) {
		t.Parallel()
		b := keySetup(t)
		n := auth.NewKey{
			Name: "server", Scopes: []auth.Scope{auth.UsageWrite}, ExpiresAt: now.Add(24 * time.Hour),
			Ceilings: auth.Ceilings{PerPayment: &money.Amount{Minor: 100, Currency: "USD"}},
		}
		k, text := b.create(t, n)
		made := auth.APIKey{
			ID: k.ID, Account: b.owner, Name: n.Name, Mode: auth.Test, LastFour: text[len(text)-4:],
			Scopes: n.Scopes, Ceilings: n.Ceilings, CreatedAt: now, ExpiresAt: n.ExpiresAt,
		}
		if !reflect.DeepEqual(k, made) {
			t.Errorf("made %+v, want %+v", k, made)
		}
		want := auth.Principal{
			Kind: auth.Key, Subject: k.ID.String(), Account: b.owner, Scopes: n.Scopes, KeyID: k.ID, Ceilings: n.Ceilings, Expiry: n.ExpiresAt,
		}
		for range 10 {
			if p, err := b.keys.Authenticate(t.Context(), text); err != nil || !reflect.DeepEqual(p, want) || p.Can(auth.UsageRead) {
				t.Fatalf("%+v, %v; want %+v", p, err, want)
			}
		}
		if n := b.store.Lookups(); n != 1 {
			t.Errorf("%d look-ups within a second", n)
		}
		b.later.Add(int64(time.Second))
		if _, err := b.keys.Authenticate(t.Context(), text); err != nil || b.store.Lookups() != 2 {
			t.Errorf("after a second: %v, %d look-ups", err, b.store.Lookups())
		}
		list, err := b.keys.List(t.Context(), b.owner, page.Request{Limit: 2})
		if err != nil || len(list.Data) != 1 || !list.Data[0].LastUsedAt.Equal(now) {
			t.Errorf("last used: %+v, %v", list, err)
		}
	})
	t.Run("Unknown", func(t *testing.T) {
		t.Parallel()
		_, text := keySetup(t).create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
		if _, err := keySetup(t).keys.Authenticate(t.Context(), text); !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("Expired", func(t *testing.T) {
		t.Parallel()
		b := keySetup(t)
		_, text := b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}, ExpiresAt: now.Add(time.Hour)})
		b.later.Add(int64(time.Hour) - 1)
		if _, err := b.keys.Authenticate(t.Context(), text); err != nil {
			t.Errorf("before its end: %v", err)
		}
		b.later.Add(1) // the cached key must know its end too
		if _, err := b.keys.Authenticate(t.Context(), text); !errors.Is(err, auth.ErrInvalidToken) || !strings.Contains(err.Error(), "has expired.") {
			t.Errorf("at its end: %v", err)
		}
	})
	t.Run("Revoked", func(t *testing.T) {
		t.Parallel()
		b := keySetup(t)
		k, text := b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
		if _, err := b.keys.Authenticate(t.Context(), text); err != nil {
			t.Fatal(err)
		}
		if err := b.keys.Revoke(t.Context(), id.New[account.Account](), k.ID); !errors.Is(err, auth.ErrKeyNotFound) {
			t.Errorf("another account revokes it: %v", err)
		}
		if err := b.keys.Revoke(t.Context(), b.owner, k.ID); err != nil {
			t.Fatal(err)
		}
		b.later.Add(int64(time.Second))
		if _, err := b.keys.Authenticate(t.Context(), text); !errors.Is(err, auth.ErrInvalidToken) || !strings.Contains(err.Error(), "was revoked.") {
			t.Errorf("a second after: %v", err)
		}
	})
	t.Run("RevokedWhileTheClockIsSetBack", func(t *testing.T) {
		t.Parallel()
		b := keySetup(t)
		k, text := b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
		b.later.Store(int64(time.Hour))
		if _, err := b.keys.Authenticate(t.Context(), text); err != nil {
			t.Fatal(err)
		}
		b.later.Store(0)
		if err := b.keys.Revoke(t.Context(), b.owner, k.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := b.keys.Authenticate(t.Context(), text); !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("what was read an hour ahead is believed for an hour: %v", err)
		}
	})
	t.Run("OtherMode", func(t *testing.T) {
		t.Parallel()
		b := keySetup(t)
		live, err := auth.NewKeys(b.store, pepper, auth.Live, clock.Fixed(now))
		if err != nil {
			t.Fatal(err)
		}
		_, text := b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
		if _, err := live.Authenticate(t.Context(), text); !errors.Is(err, auth.ErrWrongMode) {
			t.Errorf("a test key on live: %v", err)
		}
	})
	t.Run("OtherPepper", func(t *testing.T) {
		t.Parallel()
		b := keySetup(t)
		other, err := auth.NewKeys(b.store, "fedcba9876543210fedcba9876543210", auth.Test, clock.Fixed(now))
		if err != nil {
			t.Fatal(err)
		}
		_, text := b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
		if _, err := other.Authenticate(t.Context(), text); !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("Rotated", func(t *testing.T) {
		t.Parallel()
		b := keySetup(t)
		old, was := b.create(t, auth.NewKey{
			Name: "server", Scopes: []auth.Scope{auth.UsageWrite}, ExpiresAt: now.Add(24 * time.Hour),
			Ceilings: auth.Ceilings{PerDay: &money.Amount{Minor: 100, Currency: "USD"}},
		})
		next, text, err := b.keys.Rotate(t.Context(), operator, b.owner, old.ID, time.Hour)
		if err != nil || next.ID == old.ID {
			t.Fatalf("%+v, %v", next, err)
		}
		same := next
		if same.ID, same.LastFour = old.ID, old.LastFour; !reflect.DeepEqual(same, old) {
			t.Errorf("the successor is %+v, want the rights and the end of %+v", next, old)
		}
		for _, s := range []string{was, text.Reveal()} {
			if _, err := b.keys.Authenticate(t.Context(), s); err != nil {
				t.Errorf("during the overlap: %v", err)
			}
		}
		b.later.Add(int64(time.Hour))
		if _, err := b.keys.Authenticate(t.Context(), was); !errors.Is(err, auth.ErrInvalidToken) {
			t.Errorf("the old key after the overlap: %v", err)
		}
		if _, err := b.keys.Authenticate(t.Context(), text.Reveal()); err != nil {
			t.Errorf("the new key after the overlap: %v", err)
		}
		if _, _, err := b.keys.Rotate(t.Context(), operator, b.owner, old.ID, 0); !errors.Is(err, auth.ErrKeyNotFound) {
			t.Errorf("a dead key is rotated: %v", err)
		}
		if _, made, err := b.keys.Rotate(t.Context(), operator, id.New[account.Account](), next.ID, 0); !errors.Is(err, auth.ErrKeyNotFound) || made != "" {
			t.Errorf("another account rotates it: %q, %v", made, err)
		}
	})
	t.Run("RotatedShortlyBeforeItsEnd", func(t *testing.T) {
		t.Parallel()
		b := keySetup(t)
		old, was := b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}, ExpiresAt: now.Add(time.Hour)})
		_, text, err := b.keys.Rotate(t.Context(), operator, b.owner, old.ID, 2*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		b.later.Add(int64(time.Hour))
		for name, s := range map[string]string{"the old key": was, "its successor": text.Reveal()} {
			if _, err := b.keys.Authenticate(t.Context(), s); !errors.Is(err, auth.ErrInvalidToken) {
				t.Errorf("%s outlives the end that the key was given: %v", name, err)
			}
		}
	})
	t.Run("Platform", func(t *testing.T) {
		t.Parallel()
		b := keySetup(t)
		_, text, err := b.keys.Create(t.Context(), operator, auth.NewKey{Scopes: []auth.Scope{auth.UsageWrite}})
		if err != nil {
			t.Fatal(err)
		}
		p, err := b.keys.Authenticate(t.Context(), text.Reveal())
		if err != nil || p.Kind != auth.Platform || !p.ActsForAny() || p.Can(auth.BillingRead) {
			t.Errorf("%+v, %v", p, err)
		}
	})
}

// TestNoKeyMintsAWiderKey is failure case 80.
func TestNoKeyMintsAWiderKey(t *testing.T) {
	t.Parallel()
	usd := func(n int64) *money.Amount { return &money.Amount{Minor: n, Currency: "USD"} }
	maker := auth.Principal{
		Kind: auth.Key, Scopes: []auth.Scope{auth.KeysManage, auth.UsageRead},
		Ceilings: auth.Ceilings{PerPayment: usd(100)}, Expiry: now.Add(time.Hour),
	}
	payer := auth.Principal{Kind: auth.Key, Scopes: []auth.Scope{auth.KeysManage, auth.PaymentsWrite, auth.UsageRead}, Ceilings: auth.Ceilings{PerDay: usd(100)}}
	platform, person, free := maker, maker, payer
	platform.Kind, person.Kind, free.Ceilings = auth.Platform, auth.User, auth.Ceilings{}
	ok := auth.NewKey{Scopes: []auth.Scope{auth.UsageRead}, Ceilings: auth.Ceilings{PerPayment: usd(100)}, ExpiresAt: now.Add(time.Hour)}
	for name, tc := range map[string]struct {
		by     auth.Principal
		change func(*auth.NewKey)
		kind   errs.Kind
	}{
		"Narrower":      {maker, func(n *auth.NewKey) { n.Ceilings.PerPayment = usd(1) }, 0},
		"SameScopes":    {maker, func(n *auth.NewKey) { n.Scopes = maker.Scopes }, 0},
		"AnotherScope":  {maker, func(n *auth.NewKey) { n.Scopes = []auth.Scope{auth.UsageRead, auth.PaymentsWrite} }, errs.Forbidden},
		"OperatorScope": {operator, func(n *auth.NewKey) { n.Scopes = []auth.Scope{auth.Operator} }, errs.Invalid},
		"UnknownScope":  {operator, func(n *auth.NewKey) { n.Scopes = []auth.Scope{"billing:*"} }, errs.Invalid},
		"NoScope":       {operator, func(n *auth.NewKey) { n.Scopes = nil }, errs.Invalid},
		"LivesLonger":   {maker, func(n *auth.NewKey) { n.ExpiresAt = now.Add(2 * time.Hour) }, errs.Forbidden},
		"LivesForEver":  {maker, func(n *auth.NewKey) { n.ExpiresAt = time.Time{} }, errs.Forbidden},
		"EndsInThePast": {maker, func(n *auth.NewKey) { n.ExpiresAt = now }, errs.Invalid},
		"HigherCeiling": {maker, func(n *auth.NewKey) { n.Ceilings.PerPayment = usd(101) }, errs.Forbidden},
		"NoCeiling":     {maker, func(n *auth.NewKey) { n.Ceilings.PerPayment = nil }, errs.Forbidden},
		"OtherCurrency": {maker, func(n *auth.NewKey) { n.Ceilings.PerPayment = &money.Amount{Minor: 1, Currency: "JPY"} }, errs.Forbidden},
		"ADayOfItsOwn":  {payer, func(n *auth.NewKey) { n.Scopes, n.Ceilings = []auth.Scope{auth.PaymentsWrite}, payer.Ceilings }, errs.Forbidden},
		"MoreInADay": {payer, func(n *auth.NewKey) {
			n.Ceilings = auth.Ceilings{PerDay: &money.Amount{Minor: 101, Currency: "USD"}}
		}, errs.Forbidden},
		"AsMuchAsItWants": {free, func(n *auth.NewKey) { n.Scopes, n.Ceilings = []auth.Scope{auth.PaymentsWrite}, auth.Ceilings{} }, 0},
		"OfThePlatform":   {platform, func(n *auth.NewKey) { n.ExpiresAt = now.Add(2 * time.Hour) }, errs.Forbidden},
		"OfAPerson":       {person, func(n *auth.NewKey) { n.ExpiresAt = time.Time{} }, 0}, // whose token ends soon
		"MovesNothing":    {payer, func(n *auth.NewKey) { n.Ceilings = payer.Ceilings }, 0},
		"OperatorDecides": {operator, func(n *auth.NewKey) { n.Scopes, n.Ceilings = []auth.Scope{auth.PaymentsWrite}, auth.Ceilings{} }, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := keySetup(t)
			n := ok
			n.Account = b.owner
			tc.change(&n)
			_, text, err := b.keys.Create(t.Context(), tc.by, n)
			if (tc.kind == 0) != (err == nil) || (err != nil && errs.KindOf(err) != tc.kind) || (err != nil && text != "") {
				t.Errorf("Create = %q, %v; want kind %v", text, err, tc.kind)
			}
		})
	}
	t.Run("RotationIsBoundToo", func(t *testing.T) {
		t.Parallel()
		b := keySetup(t)
		strong, _ := b.create(t, auth.NewKey{Scopes: []auth.Scope{auth.PaymentsWrite}})
		if _, _, err := b.keys.Rotate(t.Context(), maker, b.owner, strong.ID, 0); !errors.Is(err, auth.ErrWiderKey) {
			t.Errorf("a weaker key rotates a stronger one: %v", err)
		}
	})
}

func TestNewKeysWantsAPepper(t *testing.T) {
	t.Parallel()
	if _, err := auth.NewKeys(authtest.NewKeyStore(), pepper[1:], auth.Test, clock.Fixed(now)); err == nil {
		t.Errorf("a pepper of %d bytes is taken", len(pepper)-1)
	}
}
