package entitlement_test

import (
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

func TestLeases(t *testing.T) {
	t.Parallel()

	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	public, _ := key.Public().(ed25519.PublicKey)
	signer := entitlement.NewLeaseSigner(key, "https://billing.example.com")
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
		x, err := base64.RawURLEncoding.DecodeString(signer.JWK().X)
		if err != nil {
			t.Fatal(err)
		}
		c, err := entitlement.VerifyLease(x, token, now.Add(14*time.Minute))
		if err != nil || c.Reservation != r.ID || c.Account != r.Account || c.Quantity != r.Quantity || c.Meter != "voice" {
			t.Errorf("%+v, %v", c, err)
		}
	})

	parts := strings.Split(token, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"lease+jwt"}`))
	other := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"EdDSA","typ":"at+jwt"}`))
	for name, bad := range map[string]string{
		"another algorithm": none + "." + parts[1] + ".",
		"another type":      other + "." + parts[1] + "." + parts[2],
		"altered claims":    parts[0] + "." + parts[1][:len(parts[1])-2] + "AA." + parts[2],
		"no signature":      parts[0] + "." + parts[1] + ".",
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
