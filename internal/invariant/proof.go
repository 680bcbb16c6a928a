package invariant

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
)

// Proof ties a day's books to one hash. Whoever keeps the hash elsewhere can tell, for ever after,
// whether a transaction of that day or before was changed, removed or slipped in.
type Proof struct {
	Day        time.Time // midnight, UTC; the proof covers everything that was recorded before its end
	Accounts   int       // with at least one transaction
	Root       [32]byte  // see Root
	Results    []Result  // of the checks, as they were made when the day was over
	RecordedAt time.Time
}

// Errors of a proof.
var (
	ErrNoProof = errs.New(errs.NotFound, "proof_not_found", "There is no proof for this day.")
	ErrNotOver = errs.New(errs.Conflict, "day_not_over", "A day is proved when it is over.")
)

// ProofStore keeps proofs.
type ProofStore interface {
	// SaveProof keeps a day's proof, and reports whether it was the first: the first one stands.
	SaveProof(ctx context.Context, p Proof) (bool, error)
	// Proof returns a day's proof, or ErrNoProof.
	Proof(ctx context.Context, day time.Time) (Proof, error)
}

// Day returns the midnight (UTC) on which t's day begins.
func Day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// Root returns one hash over the heads of all accounts' chains at the end of a day, and how many there
// are: SHA-256 over account, sequence and hash of each, by account.
func Root(ctx context.Context, src Source, day time.Time) (root [32]byte, accounts int, err error) {
	defer errs.Wrap(&err, "root of %s", day.Format(time.DateOnly))
	err = src.Snapshot(ctx, func(r Reader) error {
		h := sha256.New()
		accounts = 0
		for head, err := range r.Heads(ctx, Day(day).Add(24*time.Hour)) {
			if err != nil {
				return err
			}
			if len(head.Hash) != sha256.Size {
				return fmt.Errorf("head of %s has %d bytes", head.Account, len(head.Hash))
			}
			a := head.Account.UUID()
			h.Write(a[:])
			var n [8]byte
			binary.BigEndian.PutUint64(n[:], uint64(head.Sequence)) //nolint:gosec // a sequence is positive
			h.Write(n[:])
			h.Write(head.Hash)
			accounts++
		}
		root = [32]byte(h.Sum(nil))
		return nil
	})
	return root, accounts, err
}

// Prove makes the checks, computes the root of a day that is over, and keeps both. A day that was
// proved before keeps its first proof, which is returned.
func Prove(ctx context.Context, src Source, store ProofStore, day time.Time, o Options) (_ Proof, err error) {
	day = Day(day)
	defer errs.Wrap(&err, "prove %s", day.Format(time.DateOnly))
	known, err := store.Proof(ctx, day)
	if err == nil || !errors.Is(err, ErrNoProof) {
		return known, err
	}
	if o.Clock == nil {
		o.Clock = clock.System
	}
	p := Proof{Day: day, RecordedAt: o.Clock()}
	if p.RecordedAt.Before(day.Add(24 * time.Hour)) {
		return p, ErrNotOver
	}
	if p.Results, err = Run(ctx, src, o); err != nil {
		return p, err
	}
	if p.Root, p.Accounts, err = Root(ctx, src, day); err != nil {
		return p, err
	}
	first, err := store.SaveProof(ctx, p)
	if err != nil || first {
		return p, err
	}
	return store.Proof(ctx, day)
}
