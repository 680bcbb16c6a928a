package sandbox

import (
	"bytes"
	"errors"
	"io"
	"net/http"
)

// inProcess is the transport to a provider that this process plays: requests and answers are those of the wire,
// only no socket carries them. The provider still shares nothing with its caller, and answers, hangs and breaks
// off as over the network. It runs on the caller's goroutine, so it ends when the caller's time does; an
// answer that is ready only after that is lost, as it would be on the way.
type inProcess struct{ provider http.Handler }

// errBrokenOff is a connection's end in the middle of a call, without the connection.
var errBrokenOff = errors.New("the provider has broken off")

// RoundTrip implements http.RoundTripper.
func (t inProcess) RoundTrip(r *http.Request) (_ *http.Response, err error) {
	ctx := r.Context()
	in := r.WithContext(ctx) // a copy: a RoundTripper must not change the request
	in.Host = r.URL.Host
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer func() { _ = in.Body.Close() }()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	defer func() {
		switch broken := recover(); broken {
		case nil:
		case http.ErrAbortHandler:
			err = errors.Join(errBrokenOff, ctx.Err())
		default:
			panic(broken)
		}
	}()
	out := answer{header: http.Header{}, status: http.StatusOK}
	t.provider.ServeHTTP(&out, in)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: out.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: out.header,
		Body: io.NopCloser(&out.body), ContentLength: int64(out.body.Len()), Request: r,
	}, nil
}

// answer keeps what a handler writes.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(p []byte) (int, error) { return a.body.Write(p) }
