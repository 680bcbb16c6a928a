package idempotency

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
)

// Errors of a claim.
var (
	ErrInProgress = (&errs.Error{
		Kind: errs.Conflict, Code: "idempotency_in_progress",
		Detail: "A request with this Idempotency-Key is still running. Repeat it after a moment to get its answer.",
	}).After(time.Second)
	ErrReused = errs.New(errs.Invalid, "idempotency_key_reused",
		"This Idempotency-Key was used with another request body. Use a new key for a new request.")
)

// Lease is how long a request holds its key before a repetition may resume its work. It must be longer
// than the provider's time-out.
const Lease = 45 * time.Second

// Kept is how long an answer is kept.
const Kept = 30 * 24 * time.Hour

// Answer is a response as it was given: replayed byte for byte.
type Answer struct {
	Status int
	Body   []byte
}

// Outcome says what a request that claims a key is to do.
type Outcome uint8

// The outcomes of a claim.
const (
	Fresh  Outcome = iota // nobody used the key: do the work
	Replay                // the work is done: give the stored answer
	Resume                // an earlier request died: carry its operation on
)

// Claimed is the result of a claim.
type Claimed struct {
	Outcome   Outcome
	Answer    Answer    // with Replay
	Operation uuid.UUID // with Resume: the record that the dead request created
}

// Store keeps claims and answers, per account. The zero account stands for the operator itself, whose
// requests about the catalogue or a new account belong to none.
type Store interface {
	// Claim takes the key for the request, in this transaction, on behalf of the record operation.
	// It returns ErrInProgress while another request holds it, and ErrReused if the fingerprint differs.
	Claim(ctx context.Context, a account.ID, r Request, operation uuid.UUID) (Claimed, error)
	// Complete stores the answer of a claimed key. Without a claim it does nothing.
	Complete(ctx context.Context, a account.ID, r Request, ans Answer) error
	// Release drops a claim that leaves no trace, so that the key can be used again.
	Release(ctx context.Context, a account.ID, r Request) error
	// Expire drops up to limit answers whose time is over and returns their number.
	Expire(ctx context.Context, now time.Time, limit int) (int, error)
}
