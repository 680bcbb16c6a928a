// Package trace gives every request an identity that outlives the request: the W3C trace context.
//
// It owns the trace and span ids and their way through a context.Context. It does not own spans,
// exporters or sampling (telemetry). The request id that a caller sees is the trace id written as a
// UUID, so one number finds a request in a problem document, in a log line and in a trace.
package trace

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"

	"github.com/google/uuid"
)

// Context identifies one request and its place in a trace. The zero Context identifies nothing.
type Context struct {
	TraceID [16]byte
	SpanID  [8]byte
	// Remote says that the trace was begun by the caller. Its sampling flag is never believed: a
	// stranger must not be able to decide what we pay for.
	Remote bool
}

// New begins a trace. The trace id is a UUID of version 7, so ids sort by time.
func New() Context {
	return Context{TraceID: uuid.Must(uuid.NewV7()), SpanID: newSpan()}
}

// Parse reads a traceparent header strictly and continues its trace with a span of our own. It
// returns false for anything but version 00 (or a later version that begins like it), lower-case hex,
// and non-zero ids; the caller then begins a new trace and ignores tracestate.
func Parse(header string) (Context, bool) {
	const size = 55 // 00-<32 hex>-<16 hex>-<2 hex>
	if len(header) < size || header[2] != '-' || header[35] != '-' || header[52] != '-' {
		return Context{}, false
	}
	version, ok := unhex(header[:2])
	if !ok || version[0] == 0xff {
		return Context{}, false
	}
	if len(header) > size && (version[0] == 0 || header[size] != '-') {
		return Context{}, false
	}
	traceID, ok := unhex(header[3:35])
	if !ok {
		return Context{}, false
	}
	parent, ok := unhex(header[36:52])
	if !ok {
		return Context{}, false
	}
	if _, ok := unhex(header[53:55]); !ok {
		return Context{}, false
	}
	c := Context{TraceID: [16]byte(traceID), Remote: true}
	if c.TraceID == [16]byte{} || [8]byte(parent) == [8]byte{} {
		return Context{}, false
	}
	c.SpanID = newSpan()
	return c, true
}

// Header writes the context as a traceparent for a request of our own, not sampled.
func (c Context) Header() string {
	return "00-" + hex.EncodeToString(c.TraceID[:]) + "-" + hex.EncodeToString(c.SpanID[:]) + "-00"
}

// RequestID returns the trace id in the form of a UUID.
func (c Context) RequestID() string { return uuid.UUID(c.TraceID).String() }

// IsZero reports whether the context identifies nothing.
func (c Context) IsZero() bool { return c.TraceID == [16]byte{} }

type key struct{}

// Carrier is a context.Context that carries an identity.
type Carrier struct {
	context.Context //nolint:containedctx // it is one
	Trace           Context
}

// Value implements context.Context.
func (c *Carrier) Value(k any) any {
	if k == (key{}) {
		return &c.Trace
	}
	return c.Context.Value(k)
}

// With returns a context that carries c.
func With(ctx context.Context, c Context) context.Context { return &Carrier{ctx, c} }

// From returns the identity that ctx carries, or the zero Context.
func From(ctx context.Context) Context {
	if c, ok := ctx.Value(key{}).(*Context); ok {
		return *c
	}
	return Context{}
}

func newSpan() (id [8]byte) {
	binary.BigEndian.PutUint64(id[:], rand.Uint64()|1) //nolint:gosec // a name, no secret; it is never zero
	return id
}

func unhex(s string) ([]byte, bool) {
	for i := range len(s) {
		if (s[i] < '0' || s[i] > '9') && (s[i] < 'a' || s[i] > 'f') { // upper case is not allowed
			return nil, false
		}
	}
	b, err := hex.DecodeString(s)
	return b, err == nil
}
