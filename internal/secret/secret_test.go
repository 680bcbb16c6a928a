package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/secret"
)

func TestNothingWritesASecret(t *testing.T) {
	t.Parallel()
	const canary = "tell-no-one"
	type holder struct {
		Name   string
		Secret secret.Text
		Ptr    *secret.Text
	}
	s := secret.Text(canary)
	h := holder{"h", s, &s}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
		fmt.Fprintf(&out, verb, s)
		fmt.Fprintf(&out, verb, h)
		fmt.Fprintf(&out, verb, []secret.Text{s})
		fmt.Fprintf(&out, verb, map[string]secret.Text{"k": s})
	}
	if err := json.NewEncoder(&out).Encode(h); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewJSONHandler(&out, nil))
	log.Info("message", "secret", s, "holder", h, "pointer", &s)
	slog.New(slog.NewTextHandler(&out, nil)).Info("message", "secret", s, "holder", h)
	fmt.Fprintln(&out, fmt.Errorf("failed with %s: %v", s, s))

	for _, form := range []string{canary, fmt.Sprintf("%x", canary), fmt.Sprintf("%X", canary)} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the secret leaked as %q:\n%s", form, out.String())
		}
	}
	if s.Reveal() != canary {
		t.Error("Reveal does not give the secret")
	}
}
