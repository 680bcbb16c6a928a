package billing

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/dunning"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Core is what every operation needs. Operations embed it by pointer and are safe for concurrent use.
type Core struct {
	DB      Database
	Gateway payment.Gateway
	Clock   clock.Clock
	Policy  Policy
	Log     *slog.Logger

	topUps   queue
	left     places
	charging charging
	page     int // records that a sweep looks up at a time; 0: batch
	few      int // events that are read with their account held; 0: fewEvents
}

// Policy is what an operator decides once for all accounts.
type Policy struct {
	Grace        time.Duration // between the end of a period and its invoice being final: late events enter
	PaymentTerms time.Duration // between the invoice being final and being due
	Dunning      dunning.Policy
	TopUpMaximum int64  // minor units of one top-up
	StartPlan    string // the plan of a new account
	ReturnURL    string // where a customer's browser comes back to from the provider
	// RemoveWhenPaid grants "remove when paid" requests by itself once nothing is owed.
	RemoveWhenPaid bool
	// AlarmAfter is how long a provider's word may be missing before the operator is told.
	AlarmAfter time.Duration
}

// DefaultPolicy is what the documentation describes.
func DefaultPolicy() Policy {
	return Policy{
		Grace: 24 * time.Hour, PaymentTerms: 0, Dunning: dunning.Default(),
		TopUpMaximum: 1_000_000, StartPlan: string(plan.Developer), RemoveWhenPaid: true, AlarmAfter: 15 * time.Minute,
	}
}

// Asked is how an operation was asked for.
type Asked struct {
	Account account.ID
	Actor   string              // for the audit log: "user:…", "key:…", "operator:…"
	Ceiling auth.Ceilings       // of an API key: what it may move
	Key     idempotency.Request // the zero Request: asked from within, no answer is kept
}

// system is the actor of what nobody asked for at that moment.
const system = "system"

// A Renderer makes the answer of a record as the API gives it. It is called inside the transaction
// that commits the record, so that the answer is stored with it.
type Renderer[R any] func(R) (idempotency.Answer, error)

// Result is what came of an operation.
type Result[R any] struct {
	Record R
	// Replayed holds the stored answer of an earlier request with the same key. Record is then empty.
	Replayed *idempotency.Answer
}

// claim takes the request's key on behalf of the record with the given UUID. Without a key it is fresh.
func claim(ctx context.Context, tx Tx, in Asked, record uuid.UUID) (idempotency.Claimed, error) {
	if in.Key.Key == "" {
		return idempotency.Claimed{Outcome: idempotency.Fresh}, nil
	}
	return tx.Idempotency().Claim(ctx, in.Account, in.Key, record)
}

// claimed runs what a request under its key has to do in its first transaction: fresh makes the record that is named, and
// resume goes on with the one that an earlier request under the key has left without an answer. If there is an answer, it
// becomes out's, and nothing is done. out is emptied before.
func claimed[R any](ctx context.Context, tx Tx, in Asked, record uuid.UUID, out *Result[R], fresh func() error, resume func(record uuid.UUID) error) error {
	*out = Result[R]{}
	got, err := claim(ctx, tx, in, record)
	if err != nil {
		return err
	}
	switch got.Outcome {
	case idempotency.Replay:
		out.Replayed = &got.Answer
		return nil
	case idempotency.Resume:
		return resume(got.Operation)
	case idempotency.Fresh:
	}
	return fresh()
}

// complete stores the answer of a record under the request's key.
func complete[R any](ctx context.Context, tx Tx, in Asked, record R, render Renderer[R]) error {
	if in.Key.Key == "" || render == nil {
		return nil
	}
	ans, err := render(record)
	if err != nil {
		return err
	}
	return tx.Idempotency().Complete(ctx, in.Account, in.Key, ans)
}

// release gives the key back where a request left no trace, so that it may be repeated as it is.
func (c *Core) release(ctx context.Context, in Asked) {
	if in.Key.Key == "" {
		return
	}
	err := c.DB.InTx(ctx, func(tx Tx) error { return tx.Idempotency().Release(ctx, in.Account, in.Key) })
	if err != nil {
		c.Log.WarnContext(ctx, "idempotency key not released; its lease runs out by itself", "error", err)
	}
}

// once runs an operation that is one transaction: fn creates the record, and its answer is stored
// with it. A repetition gets the stored answer.
func once[R any](ctx context.Context, c *Core, in Asked, render Renderer[R], fn func(tx Tx) (R, error)) (Result[R], error) {
	return onceIn(ctx, c.DB.InTx, in, render, fn)
}

// onceOf is once for what locks the request's account first, stays within it and writes to its ledger.
func onceOf[R any](ctx context.Context, c *Core, in Asked, render Renderer[R], fn func(tx Tx) (R, error)) (Result[R], error) {
	return onceIn(ctx, func(ctx context.Context, do func(tx Tx) error) error {
		return c.DB.InTxOf(ctx, Start{Account: in.Account, Key: in.Key, Books: true}, do)
	}, in, render, fn)
}

func onceIn[R any](ctx context.Context, run inTx, in Asked, render Renderer[R], fn func(tx Tx) (R, error)) (Result[R], error) {
	var out Result[R]
	err := run(ctx, func(tx Tx) error {
		out = Result[R]{}
		got, err := claim(ctx, tx, in, uuid.Nil)
		if err != nil {
			return err
		}
		if got.Outcome == idempotency.Replay {
			out.Replayed = &got.Answer
			return nil
		}
		if out.Record, err = fn(tx); err != nil {
			return err
		}
		return complete(ctx, tx, in, out.Record, render)
	})
	return out, err
}

// Keyed runs fn, which writes outside of billing's transactions, once per key: the claim is committed
// before it and the answer after it. What dies between the two is done again by a repetition after the
// key's lease, so fn must leave nothing that would then be there twice to anyone's harm.
func Keyed[R any](ctx context.Context, c *Core, in Asked, render Renderer[R], fn func(ctx context.Context) (R, error)) (Result[R], error) {
	var out Result[R]
	err := c.DB.InTx(ctx, func(tx Tx) error {
		out = Result[R]{}
		got, err := claim(ctx, tx, in, uuid.Nil)
		if err == nil && got.Outcome == idempotency.Replay {
			out.Replayed = &got.Answer
		}
		return err
	})
	if err != nil || out.Replayed != nil {
		return out, err
	}
	if out.Record, err = fn(ctx); err != nil {
		c.release(context.WithoutCancel(ctx), in)
		return out, err
	}
	return out, c.DB.InTx(ctx, func(tx Tx) error { return complete(ctx, tx, in, out.Record, render) })
}

// detail says what an entry of the audit log is about: names and what they stand for, in turn.
func detail(pairs ...any) json.RawMessage {
	about := make(map[string]any, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		about[pairs[i].(string)] = pairs[i+1]
	}
	b, err := json.Marshal(about)
	if err != nil { // cannot be: identifiers, codes and numbers
		panic(err)
	}
	return b
}

// pause is how long the sweep waits before it asks a provider again, by the number of times it has.
func pause(checks int) time.Duration {
	const least = 30 * time.Second
	return min(least<<min(checks, 8), longestPause)
}

// longestPause is how long the provider is not asked again at most.
const longestPause = time.Hour

// CallTimeout bounds one call to a provider. It is shorter than the lease of an idempotency key, so a
// repetition never overtakes the call that it repeats.
const CallTimeout = 20 * time.Second

// detached keeps a call going when the request that began it is gone: the intent is committed, and its
// outcome is worth having.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), CallTimeout)
}

// zeroOf is nothing in the account's currency.
func zeroOf(a account.Account) money.Amount { return money.Zero(a.Currency) }

// unknowable reports whether a provider's error leaves the outcome open: it is then looked up, never inferred.
func unknowable(err error) bool {
	return errors.Is(err, payment.ErrUnknown) || errors.Is(err, payment.ErrRetry) ||
		errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}
