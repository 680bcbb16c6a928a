// Package secret holds texts that must not be written down by accident.
package secret

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Text is a secret. Whatever formats, logs or marshals it writes "[redacted]"; only Reveal gives the
// text itself, so that every place where a secret leaves can be found by searching for that word.
type Text string

// Reveal returns the secret.
func (t Text) Reveal() string { return string(t) }

// String returns "[redacted]", or the empty string for the empty secret.
func (t Text) String() string {
	if t == "" {
		return ""
	}
	return redacted
}

// GoString serves %#v.
func (t Text) GoString() string { return t.String() }

// Format serves every verb of fmt, so that %x and %q give nothing away either.
func (t Text) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(t.String())) }

// MarshalText redacts in JSON, YAML and the like.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText takes the secret from a configuration file or the environment.
func (t *Text) UnmarshalText(b []byte) error {
	*t = Text(b)
	return nil
}

// LogValue redacts in structured logs.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }
