package auth

import (
	"fmt"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/clock"
)

// What is remembered is counted right and stays within its bound: where it is full, the dead go, and of the living no more
// than a tenth of the bound.
func TestTokensThatAreRememberedAreBounded(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	v := &Verifier{cache: map[string]verified{}, clock: clock.Fixed(now)}
	const length = 8 << 10
	for i := range 3 * maxCachedBytes / length {
		hit := verified{principal: Principal{Expiry: now.Add(time.Hour)}}
		if i%16 == 0 && i < maxCachedBytes/length {
			hit.principal.Expiry = now.Add(-1)
		}
		before := v.cached
		for range 2 { // by two requests at once
			v.remember(fmt.Sprintf("%0*d", length, i), hit)
		}
		switch {
		case v.cached != len(v.cache)*length || v.cached > maxCachedBytes:
			t.Fatalf("%d tokens of %d bytes are counted as %d, at most %d", len(v.cache), length, v.cached, maxCachedBytes)
		case before+length <= maxCachedBytes:
			if v.cached != before+length {
				t.Fatalf("with room left, %d bytes become %d", before, v.cached)
			}
			continue
		case v.cached < before*8/10:
			t.Fatalf("of %d bytes %d remain", before, v.cached)
		}
		for _, e := range v.cache {
			if e.principal.Expiry.Before(now) {
				t.Fatal("a dead token is kept while living ones go")
			}
		}
	}
}
