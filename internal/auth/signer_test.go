package auth_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/clock"
)

func TestDevelopmentTokens(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	s, err := auth.NewDevelopmentSigner(dir, "accrue", auth.Test, clock.Fixed(now))
	if err != nil {
		t.Fatal(err)
	}
	token, err := s.Sign(auth.Grant{Subject: "demo", Account: "customer-1", Scopes: []auth.Scope{auth.BillingRead}}, 48*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	verify := func(s *auth.Signer, at time.Time) error {
		v, err := auth.NewVerifier([]auth.Issuer{s.Issuer()}, auth.Test, clock.Fixed(at), nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := v.Verify(t.Context(), token.Reveal())
		if err == nil && (p.ExternalAccount != "customer-1" || !p.Can(auth.BillingRead) || p.Can(auth.BillingWrite)) {
			t.Errorf("principal %+v", p)
		}
		return err
	}
	if err := verify(s, now); err != nil {
		t.Errorf("fresh: %v", err)
	}
	if err := verify(s, now.Add(24*time.Hour+time.Minute)); !errors.Is(err, auth.ErrInvalidToken) {
		t.Errorf("after a day: %v", err)
	}
	again, err := auth.NewDevelopmentSigner(dir, "accrue", auth.Test, clock.Fixed(now))
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(again, now); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	other, err := auth.NewDevelopmentSigner(t.TempDir(), "accrue", auth.Test, clock.Fixed(now))
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(other, now); !errors.Is(err, auth.ErrInvalidToken) {
		t.Errorf("under another deployment's key: %v", err)
	}
}

func TestDevelopmentKeyIsItsOwnersOnly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := auth.NewDevelopmentSigner(dir, "accrue", auth.Live, clock.Fixed(now)); !errors.Is(err, auth.ErrLiveMode) {
		t.Errorf("live mode: %v", err)
	}
	var wg sync.WaitGroup
	issuers := make([]auth.Issuer, 8)
	for i := range issuers {
		wg.Go(func() {
			s, err := auth.NewDevelopmentSigner(dir, "accrue", auth.Test, clock.Fixed(now))
			if err != nil {
				t.Error(err)
				return
			}
			issuers[i] = s.Issuer()
		})
	}
	wg.Wait()
	for _, i := range issuers {
		if string(i.Keys) != string(issuers[0].Keys) {
			t.Fatal("processes that start at once have different keys")
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files %v, %v", files, err)
	}
	info, err := os.Stat(files[0])
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(files[0], 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := auth.NewDevelopmentSigner(dir, "accrue", auth.Test, clock.Fixed(now)); err == nil {
		t.Error("a key that others can read is used")
	}
}
