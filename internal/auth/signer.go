package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/secret"
)

// Development tokens.
const (
	DevelopmentIssuer = "accrue-development"
	// DevelopmentLifetime is how long a development token is good for.
	DevelopmentLifetime = 24 * time.Hour
	developmentKeyFile  = "development-key.pem"
)

// ErrLiveMode says that development tokens exist in test mode only.
var ErrLiveMode = errors.New("development tokens exist in test mode only")

// Signer makes tokens of this deployment's own. It is safe for concurrent use.
type Signer struct {
	key      ed25519.PrivateKey
	kid      string
	issuer   string
	audience string
	clock    clock.Clock
}

// Grant is what a token says about its bearer.
type Grant struct {
	Subject string
	Account string // an account id or an external id; empty for an operator
	Scopes  []Scope
}

// NewDevelopmentSigner returns the signer of development tokens. Its key is made at the first start
// and kept in folder, readable by its owner only. In live mode it returns ErrLiveMode.
func NewDevelopmentSigner(folder, audience string, mode Mode, clk clock.Clock) (*Signer, error) {
	if mode != Test {
		return nil, ErrLiveMode
	}
	path := filepath.Join(folder, developmentKeyFile)
	key, err := readKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("development key: %w", err)
	}
	return newSigner(key, DevelopmentIssuer, audience, clk), nil
}

func newSigner(key ed25519.PrivateKey, issuer, audience string, clk clock.Clock) *Signer {
	sum := sha256.Sum256(key.Public().(ed25519.PublicKey))
	return &Signer{
		key: key, kid: base64.RawURLEncoding.EncodeToString(sum[:12]),
		issuer: issuer, audience: audience, clock: clk,
	}
}

// Issuer returns what a Verifier needs to believe the signer's tokens.
func (s *Signer) Issuer() Issuer {
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		panic(err) // an Ed25519 key always has an encoding
	}
	block := &pem.Block{Type: "PUBLIC KEY", Headers: map[string]string{"kid": s.kid}, Bytes: der}
	return Issuer{Name: s.issuer, Audience: s.audience, TokenType: "at+jwt", Keys: pem.EncodeToMemory(block)}
}

// Sign returns a token for the grant, good for lifetime but for no more than DevelopmentLifetime.
func (s *Signer) Sign(g Grant, lifetime time.Duration) (secret.Text, error) {
	now := s.clock()
	scopes := make([]string, len(g.Scopes))
	for i, sc := range g.Scopes {
		scopes[i] = string(sc)
	}
	claims := jwt.MapClaims{
		"iss": s.issuer, "aud": s.audience, "sub": g.Subject, "client_id": s.issuer, "jti": uuid.NewString(),
		"scope": strings.Join(scopes, " "),
		"iat":   now.Unix(), "exp": now.Add(min(lifetime, DevelopmentLifetime)).Unix(),
	}
	if g.Account != "" {
		claims["account_id"] = g.Account
	}
	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	t.Header["typ"], t.Header["kid"] = "at+jwt", s.kid
	signed, err := t.SignedString(s.key)
	return secret.Text(signed), err
}

func readKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others than its owner; make it 0600", path)
	}
	data, err := os.ReadFile(path) //nolint:gosec // in the data folder
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s is not a PEM file", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds another kind of key", path)
	}
	return ed, nil
}

// makeKey writes a fresh key. Of two processes that start at once, one creates the file and the other
// reads it: a link to a complete file either appears or was there already.
func makeKey(path string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), developmentKeyFile+".*") // created 0600
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	if err := errors.Join(pem.Encode(tmp, &pem.Block{Type: "PRIVATE KEY", Bytes: der}), tmp.Sync(), tmp.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return readKey(path)
}
