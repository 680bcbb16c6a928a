package invariant

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
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

// EachHead calls fn with the head of every account's chain at the end of a day, by account: what Root is
// computed from, for whoever wants to compute it again. It ends at fn's first error, which it returns.
func EachHead(ctx context.Context, src Source, day time.Time, fn func(Head) error) error {
	return src.Snapshot(ctx, func(r Reader) error {
		for head, err := range r.Heads(ctx, Day(day).Add(24*time.Hour)) {
			if err == nil {
				err = fn(head)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Root returns one hash over the heads of all accounts' chains at the end of a day, and how many there
// are: SHA-256 over account, sequence and hash of each, by account.
func Root(ctx context.Context, src Source, day time.Time) (root [32]byte, accounts int, err error) {
	defer errs.Wrap(&err, "root of %s", day.Format(time.DateOnly))
	h := sha256.New()
	err = EachHead(ctx, src, day, func(head Head) error {
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
		return nil
	})
	if err == nil {
		root = [32]byte(h.Sum(nil))
	}
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

// Prover proves every day when it is over.
type Prover struct {
	Source  Source
	Store   ProofStore
	Options Options // its Clock is required
	Log     *slog.Logger

	broken atomic.Int64
}

// Broken returns how many of the checks did not hold when yesterday was proved, by whichever replica; 0 until it is known.
func (p *Prover) Broken() int { return int(p.broken.Load()) }

// proveEvery is how often the Prover looks whether yesterday is proved. The checks read everything, so
// they do not begin at once with the process, which has better things to do then.
const proveEvery = 10 * time.Minute

// Run proves until ctx ends. What fails is logged and tried again. Several replicas may run it: the
// first proof of a day stands.
func (p *Prover) Run(ctx context.Context) error {
	tick := time.NewTicker(proveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := p.Yesterday(ctx); err != nil && ctx.Err() == nil {
			p.Log.ErrorContext(ctx, "the day could not be proved", "error", err)
		}
	}
}

// Yesterday proves the day before today unless it is proved, and tells the log of every invariant that
// did not hold.
func (p *Prover) Yesterday(ctx context.Context) error {
	day := Day(p.Options.Clock()).Add(-24 * time.Hour)
	proof, err := p.Store.Proof(ctx, day)
	known := err == nil
	if errors.Is(err, ErrNoProof) {
		proof, err = Prove(ctx, p.Source, p.Store, day, p.Options)
	}
	if err != nil {
		return err
	}
	passed, made := Passed(proof.Results)
	p.broken.Store(int64(made - passed))
	if known {
		return nil // and told of, by whoever proved it
	}
	for _, r := range proof.Results {
		if !r.OK && r.Skipped == "" {
			p.Log.ErrorContext(ctx, "an invariant does not hold", "check", string(r.ID), "title", r.Title, "findings", r.Findings)
		}
	}
	p.Log.InfoContext(ctx, "day proved", "day", day.Format(time.DateOnly), "root", hex.EncodeToString(proof.Root[:]), "passed", passed, "checks", made)
	return nil
}
