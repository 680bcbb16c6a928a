package invariant_test

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/invariant"
)

// proved is a store in which another replica has proved yesterday.
type proved struct {
	invariant.ProofStore
	proof invariant.Proof
}

func (p proved) Proof(context.Context, time.Time) (invariant.Proof, error) { return p.proof, nil }

// Every replica shows what was found broken, and only the one that found it tells the log.
func TestProver_ShowsWhatAnotherReplicaFound(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	results := []invariant.Result{{ID: "I1"}, {ID: "I2", OK: true}, {ID: "I3", Skipped: "the provider is away"}}
	p := &invariant.Prover{
		Store: proved{proof: invariant.Proof{Results: results}}, Options: invariant.Options{Clock: clock.Fixed(time.Unix(0, 0))},
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}
	if p.Broken() != 0 {
		t.Errorf("%d are broken before anybody has looked", p.Broken())
	}
	if err := p.Yesterday(t.Context()); err != nil || p.Broken() != 1 || log.Len() > 0 {
		t.Errorf("%d are broken, %v, told %q; want 1 and silence", p.Broken(), err, log.String())
	}
}
