package entitlement

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/pkg/money"
)

// leaseType is the typ of a lease's header: it must not be taken for any other token.
const leaseType = "lease+jwt"

// ErrLease says that a token is no lease that is good now.
var ErrLease = errors.New("not a valid lease")

// LeaseSigner makes leases: reservations as signed tokens that a gateway checks offline. A token says
// what its reservation says and nothing else, so signing a reservation again gives the same bytes.
type LeaseSigner struct {
	key    ed25519.PrivateKey
	issuer string
	keys   []JWK
}

// NewLeaseSigner returns a signer in the name of issuer. It shows the keys of others beside its own: those that have signed
// leases that still run, and those that soon will.
func NewLeaseSigner(issuer string, key ed25519.PrivateKey, others ...ed25519.PrivateKey) *LeaseSigner {
	s := &LeaseSigner{key: key, issuer: issuer, keys: []JWK{jwkOf(key)}}
	for _, k := range others {
		s.keys = append(s.keys, jwkOf(k))
	}
	return s
}

// LeaseClaims is what a lease says.
type LeaseClaims struct {
	Issuer      string        `json:"iss"`
	Account     account.ID    `json:"sub"`
	Reservation ReservationID `json:"jti"`
	Meter       string        `json:"meter"`
	Quantity    money.Decimal `json:"quantity"`
	IssuedAt    int64         `json:"iat"` // seconds since 1970
	Expires     int64         `json:"exp"` // rounded down: a gateway lets go before we do
}

type leaseHeader struct {
	Algorithm string `json:"alg"`
	Type      string `json:"typ"`
	KeyID     string `json:"kid"`
}

// Sign returns the reservation as a JWS in compact form, signed with Ed25519.
func (s *LeaseSigner) Sign(r Reservation) (string, error) {
	header, err := json.Marshal(leaseHeader{"EdDSA", leaseType, s.keys[0].KeyID})
	if err != nil {
		return "", err
	}
	claims, err := json.Marshal(LeaseClaims{
		Issuer: s.issuer, Account: r.Account, Reservation: r.ID, Meter: r.Meter, Quantity: r.Quantity,
		IssuedAt: r.CreatedAt.Unix(), Expires: r.ExpiresAt.Unix(),
	})
	if err != nil {
		return "", err
	}
	signed := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
	return signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.key, []byte(signed))), nil
}

// JWK is the public half of a key, as gateways fetch it (RFC 8037).
type JWK struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	KeyID     string `json:"kid"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
}

// jwkOf names a key by what it is, so that a key has the same name on every replica and after every change of its place.
func jwkOf(key ed25519.PrivateKey) JWK {
	public, _ := key.Public().(ed25519.PublicKey)
	sum := sha256.Sum256(public)
	return JWK{"OKP", "Ed25519", base64.RawURLEncoding.EncodeToString(public), base64.RawURLEncoding.EncodeToString(sum[:12]), "EdDSA", "sig"}
}

// Keys returns what leases are checked with. The first signs.
func (s *LeaseSigner) Keys() []JWK { return s.keys }

// VerifyLease is what a gateway does: it returns what the token says if the key signed it and it has
// not expired. Every fault is ErrLease.
func VerifyLease(key ed25519.PublicKey, token string, now time.Time) (LeaseClaims, error) {
	var claims LeaseClaims
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > 4096 || strings.ContainsAny(token, "\r\n") { // line ends mean nothing to base64
		return claims, ErrLease
	}
	var raw [3][]byte
	for i, p := range parts {
		var err error
		if raw[i], err = base64.RawURLEncoding.Strict().DecodeString(p); err != nil {
			return claims, ErrLease
		}
	}
	var h leaseHeader
	if json.Unmarshal(raw[0], &h) != nil || h.Algorithm != "EdDSA" || h.Type != leaseType {
		return claims, ErrLease
	}
	if !ed25519.Verify(key, []byte(parts[0]+"."+parts[1]), raw[2]) || json.Unmarshal(raw[1], &claims) != nil {
		return LeaseClaims{}, ErrLease
	}
	if now.Unix() >= claims.Expires {
		return LeaseClaims{}, ErrLease
	}
	return claims, nil
}
