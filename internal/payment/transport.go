package payment

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// MaxAnswer bounds what is read of one answer of a provider, in bytes.
const MaxAnswer = 4 << 20

// errAnswerTooLarge is what reading beyond MaxAnswer gives.
var errAnswerTooLarge = errors.New("the answer is larger than a provider's may be")

// NewHTTPClient returns the client through which a gateway speaks to its provider: it follows no
// redirect, gives up after timeout, reads at most MaxAnswer, keeps connections for a crowd of callers,
// and never repeats a request by itself. A proxy of the environment is used, but not for loopback.
func NewHTTPClient(timeout time.Duration) *http.Client {
	return NewClientOver(&http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		MaxIdleConns:          64,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       30 * time.Second,
		ExpectContinueTimeout: time.Second,
		ForceAttemptHTTP2:     true,
	}, timeout)
}

// NewClientOver is NewHTTPClient over a transport of the caller's.
func NewClientOver(t http.RoundTripper, timeout time.Duration) *http.Client {
	return &http.Client{
		Transport:     boundedTransport{t, timeout},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// boundedTransport bounds answers and takes net/http the means to repeat a request. The time it bounds itself:
// beside a transport of ours net/http would use two goroutines more for that in every call.
//
// net/http sends a request again by itself when a kept connection breaks and the request has an
// Idempotency-Key. That would be safe, but then an outcome that was unknown for a moment would never
// be seen as such, neither by the caller nor by a test.
type boundedTransport struct {
	next    http.RoundTripper
	timeout time.Duration // until the answer's end
}

func (b boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithTimeout(r.Context(), b.timeout)
	r = r.WithContext(ctx) // a copy: a RoundTripper must not change the request
	r.GetBody = nil
	res, err := b.next.RoundTrip(r)
	if err != nil {
		cancel()
		return nil, err
	}
	res.Body = &boundedBody{ReadCloser: res.Body, left: MaxAnswer, cancel: cancel}
	return res, nil
}

// CloseIdleConnections is for http.Client's.
func (b boundedTransport) CloseIdleConnections() {
	if t, ok := b.next.(interface{ CloseIdleConnections() }); ok {
		t.CloseIdleConnections()
	}
}

type boundedBody struct {
	io.ReadCloser
	left   int64
	cancel context.CancelFunc
}

func (b *boundedBody) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errAnswerTooLarge
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return 0, errAnswerTooLarge
	}
	return n, err
}

// TransportError says what a failure below HTTP means: ErrRetry if no connection was made, so that
// nothing can have happened, and else ErrUnknown.
func TransportError(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return ErrRetry.Because(err)
	}
	return ErrUnknown.Because(err)
}

// maxRetryAfter bounds how long a provider can make us wait, in seconds.
const maxRetryAfter = 300

// StatusError says what an HTTP status means when the provider gives no better reason. It returns nil
// for success. ErrRetry carries the provider's Retry-After in seconds.
func StatusError(status int, h http.Header, cause error) error {
	cause = fmt.Errorf("status %d: %w", status, cause)
	switch {
	case status >= 200 && status < 300:
		return nil
	case status == http.StatusNotFound:
		return ErrMissing.Because(cause)
	case status == http.StatusConflict, status == http.StatusTooManyRequests:
		seconds, err := strconv.Atoi(h.Get("Retry-After"))
		if err != nil || seconds < 0 {
			seconds = 1
		}
		return ErrRetry.After(time.Duration(min(seconds, maxRetryAfter)) * time.Second).Because(cause)
	case status >= 500, status == http.StatusRequestTimeout:
		return ErrUnknown.Because(cause)
	default: // 3xx included: a provider does not redirect
		return ErrRejected.Because(cause)
	}
}
