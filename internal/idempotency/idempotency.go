// Package idempotency answers a repeated request with its first answer.
package idempotency

// Request identifies one attempt of a caller to have something done once. The HTTP edge parses it;
// the transaction that does the work claims it.
type Request struct {
	// Key is the caller's, 1 to 255 visible ASCII characters.
	Key string
	// Scope keeps the keys of different callers and operations apart: principal, method and route.
	Scope string
	// Fingerprint is a keyed digest of what was asked (path, query and raw body), so that the same key
	// with another request can be told from a repetition without keeping the request.
	Fingerprint [32]byte
}
