package app

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/accrue-billing/accrue/internal/secret"
)

// deploymentSecrets are the secrets that a deployment keeps for as long as it lives.
type deploymentSecrets struct {
	Pepper    secret.Text // API keys are hashed with it
	CursorKey secret.Text // page cursors are signed with it
}

// secrets returns the configured secrets. In test mode the pepper may be left out: then it is made
// once and kept in the data folder, readable by its owner only.
func (c Config) secrets() (s deploymentSecrets, err error) {
	s.Pepper, s.CursorKey = c.APIKeyPepper, c.CursorKey
	if s.Pepper == "" {
		if c.Live() {
			return s, &UsageError{[]string{"api-key-pepper: is required in live mode"}}
		}
		if s.Pepper, err = keptSecret(filepath.Join(c.DataDir, "api-key-pepper")); err != nil {
			return s, err
		}
	}
	if s.CursorKey == "" {
		mac := hmac.New(sha256.New, []byte(s.Pepper.Reveal()))
		mac.Write([]byte("page cursors"))
		s.CursorKey = secret.Text(hex.EncodeToString(mac.Sum(nil)))
	}
	return s, nil
}

// keptSecret reads the secret in the file, which it makes at the first time.
func keptSecret(path string) (secret.Text, error) {
	b, err := os.ReadFile(path) //nolint:gosec // in our own data folder
	if errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // the server's user must walk through it; what is secret in it is 0600
			return "", err
		}
		raw := make([]byte, minSecret)
		_, _ = rand.Read(raw) // never fails
		text := hex.EncodeToString(raw)
		if err := writeOnce(path, text+"\n"); errors.Is(err, os.ErrExist) {
			return keptSecret(path) // of two processes at the first start, one makes it and the other reads it
		} else if err != nil {
			return "", err
		}
		return secret.Text(text), nil
	}
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(b))
	if len(text) < minSecret {
		return "", fmt.Errorf("%s does not hold a secret of %d bytes or more; restore it, or remove it to make a new one (API keys will have to be made anew)", path, minSecret)
	}
	return secret.Text(text), nil
}

// writeOnce makes a file that is complete as soon as it is there, and never replaces one.
func writeOnce(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), path)
}
