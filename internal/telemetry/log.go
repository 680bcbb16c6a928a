// Package telemetry sets up what is seen from outside: structured logs and metrics.
//
// It owns: how a log line is written and what must never stand in one, and the registry of metrics. It
// does not own what is worth logging or counting; each room decides that for itself. Secrets are kept
// out of logs by their type (package secret); what is done here is the net below that.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/accrue-billing/accrue/internal/cardguard"
	"github.com/accrue-billing/accrue/internal/trace"
)

// A Format says how log lines are written.
type Format string

// The formats of log lines.
const (
	JSON Format = "json" // for machines
	Text Format = "text" // key=value, for a terminal
)

const redacted = "[redacted]"

// sensitive are parts of attribute names whose values are never written, whatever their type.
var sensitive = []string{"password", "secret", "token", "authorization", "cookie", "api_key", "apikey", "signature", "pepper"}

// NewLogger returns a logger of the given level and format. Its lines carry the request's id where the
// context has one, and neither card numbers nor attributes that are named like secrets. In JSON a duration
// is a number of seconds, and its name says so.
func NewLogger(w io.Writer, level slog.Leveler, format Format) *slog.Logger {
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: redact}
	var h slog.Handler = slog.NewTextHandler(w, options)
	if format == JSON {
		options.ReplaceAttr = func(groups []string, a slog.Attr) slog.Attr { return inSeconds(redact(groups, a)) }
		h = slog.NewJSONHandler(w, options)
	}
	return slog.New(requestHandler{h})
}

// inSeconds gives a duration a unit: slog writes a bare number of nanoseconds. Texts have one already.
func inSeconds(a slog.Attr) slog.Attr {
	if a.Value.Kind() != slog.KindDuration {
		return a
	}
	return slog.Float64(a.Key+"_seconds", a.Value.Duration().Seconds())
}

func redact(_ []string, a slog.Attr) slog.Attr {
	name := strings.ToLower(a.Key)
	for _, s := range sensitive {
		if strings.Contains(name, s) {
			return slog.String(a.Key, redacted)
		}
	}
	var text string
	switch a.Value.Kind() {
	case slog.KindString:
		text = a.Value.String()
	case slog.KindAny:
		text = fmt.Sprint(a.Value.Any()) // errors, mostly
	default:
		return a
	}
	if cardguard.HasNumber(text) {
		return slog.String(a.Key, "[redacted: card number]")
	}
	return a
}

// requestHandler adds the request's id to every line.
type requestHandler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h requestHandler) Handle(ctx context.Context, r slog.Record) error {
	if t := trace.From(ctx); !t.IsZero() {
		named := false
		r.Attrs(func(a slog.Attr) bool { named = named || a.Key == "request_id"; return !named })
		if !named {
			r.AddAttrs(slog.String("request_id", t.RequestID()))
		}
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h requestHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return requestHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h requestHandler) WithGroup(name string) slog.Handler {
	return requestHandler{h.Handler.WithGroup(name)}
}
