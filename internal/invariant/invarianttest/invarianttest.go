// Package invarianttest makes the invariant checker the last word of a test: whatever a test does through
// the service, every invariant must hold when it ends.
package invarianttest

import (
	"context"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/invariant"
)

// Require fails the test for every check that finds something.
func Require(tb testing.TB, src invariant.Source, o invariant.Options) {
	tb.Helper()
	// The test's own context is over while it cleans up.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	results, err := invariant.Run(ctx, src, o)
	if err != nil {
		tb.Errorf("invariants: %v", err)
	}
	for _, r := range results {
		for _, f := range r.Findings {
			tb.Errorf("%s (%s): %s", r.ID, r.Title, f)
		}
	}
}

// AtEnd makes Require the last thing that the test does.
func AtEnd(tb testing.TB, src invariant.Source, o invariant.Options) {
	tb.Helper()
	tb.Cleanup(func() {
		if !tb.Failed() {
			Require(tb, src, o)
		}
	})
}
