package entitlement_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/pkg/money"
)

var errNoKey = errors.New("no such key")

// check is what a gateway does: it takes the key that the lease's header names.
func check(keys []entitlement.JWK, token string, now time.Time) error {
	header, err := base64.RawURLEncoding.DecodeString(token[:strings.IndexByte(token, '.')])
	if err != nil {
		return err
	}
	for _, k := range keys {
		if strings.Contains(string(header), `"kid":"`+k.KeyID+`"`) {
			x, err := base64.RawURLEncoding.DecodeString(k.X)
			if err != nil {
				return err
			}
			_, err = entitlement.VerifyLease(x, token, now)
			return err
		}
	}
	return errNoKey
}

func TestLeases(t *testing.T) {
	t.Parallel()

	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	public, _ := key.Public().(ed25519.PublicKey)
	signer := entitlement.NewLeaseSigner("https://billing.example.com", key)
	now := day(time.November, 1)
	r := entitlement.Reservation{
		ID: id.New[entitlement.Reservation](), Account: id.New[account.Account](), Meter: "voice", Quantity: money.MustDecimal("600"),
		CreatedAt: now, ExpiresAt: now.Add(15 * time.Minute),
	}
	token, err := signer.Sign(r)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := signer.Sign(r); again != token {
		t.Error("signing again gives another token")
	}

	t.Run("AGatewayReadsThemOffline", func(t *testing.T) {
		t.Parallel()
		x, err := base64.RawURLEncoding.DecodeString(signer.Keys()[0].X)
		if err != nil {
			t.Fatal(err)
		}
		c, err := entitlement.VerifyLease(x, token, now.Add(14*time.Minute))
		if err != nil || c.Reservation != r.ID || c.Account != r.Account || c.Quantity != r.Quantity || c.Meter != "voice" {
			t.Errorf("%+v, %v", c, err)
		}
	})

	// The next key is shown before it signs, and the last one for as long as its leases run.
	t.Run("KeysChangeWithoutAGap", func(t *testing.T) {
		t.Parallel()
		next := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
		before := entitlement.NewLeaseSigner("https://billing.example.com", key, next)
		after := entitlement.NewLeaseSigner("https://billing.example.com", next, key)
		for _, s := range []*entitlement.LeaseSigner{before, after} {
			signed, err := s.Sign(r)
			if err != nil {
				t.Fatal(err)
			}
			for _, shown := range [][]entitlement.JWK{before.Keys(), after.Keys()} {
				if err := check(shown, signed, now); err != nil {
					t.Errorf("signed by %s: %v", s.Keys()[0].KeyID, err)
				}
			}
		}
		alone := entitlement.NewLeaseSigner("https://billing.example.com", next)
		if err := check(alone.Keys(), token, now); !errors.Is(err, errNoKey) {
			t.Errorf("with a key that is gone: %v", err)
		}
	})

	// A gateway goes by its own clock and by exp alone: what lies ahead of it, iat included, is no reason to refuse a call.
	t.Run("AGatewayWhoseClockIsWrongLetsGoThatMuchEarlierOrLater", func(t *testing.T) {
		t.Parallel()
		for _, ahead := range []time.Duration{-2 * time.Minute, 2 * time.Minute} {
			for real, good := range map[time.Duration]bool{
				0: true, 15*time.Minute - ahead - time.Second: true, 15*time.Minute - ahead: false,
			} {
				if err := check(signer.Keys(), token, now.Add(real+ahead)); (err == nil) != good {
					t.Errorf("%s ahead, %s after it was made: %v, want good %t", ahead, real, err, good)
				}
			}
		}
	})

	parts := strings.Split(token, ".")
	signed := func(header, claims string) string { // whatever it says, the key has signed it
		s := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + claims
		return s + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(s)))
	}
	const header = `{"alg":"EdDSA","typ":"lease+jwt"}`
	if _, err := entitlement.VerifyLease(public, signed(header, parts[1]), now); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"another algorithm": signed(`{"alg":"none","typ":"lease+jwt"}`, parts[1]),
		"another type":      signed(`{"alg":"EdDSA","typ":"at+jwt"}`, parts[1]),
		"too long":          signed(header+strings.Repeat(" ", 4096), parts[1]),
		"a fourth part":     token + ".AA",
		"altered claims":    parts[0] + "." + parts[1][:len(parts[1])-2] + "AA." + parts[2],
		"no signature":      parts[0] + "." + parts[1] + ".",
		"a line end":        token + "\n",
		"something else":    "hello",
	} {
		t.Run("Refused/"+name, func(t *testing.T) {
			t.Parallel()
			if _, err := entitlement.VerifyLease(public, bad, now); !errors.Is(err, entitlement.ErrLease) {
				t.Errorf("err = %v", err)
			}
		})
	}
	t.Run("Refused/once expired", func(t *testing.T) {
		t.Parallel()
		if _, err := entitlement.VerifyLease(public, token, now.Add(15*time.Minute)); !errors.Is(err, entitlement.ErrLease) {
			t.Errorf("err = %v", err)
		}
	})
}
