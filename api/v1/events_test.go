package v1_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

func TestAccountEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.billed(t, sandbox.TokenVisa)

	all := ada.get(t, "/v1/events?limit=100").want(t, http.StatusOK).golden(t, "events")
	total := len(all.at(t, "data").([]any))
	for i := range total {
		if got := all.at(t, "data", i, "sequence"); got != float64(i+1) {
			t.Fatalf("sequence %v at place %d", got, i)
		}
	}
	after, seen := 0, 0
	for {
		p := ada.get(t, fmt.Sprintf("/v1/events?after=%d&limit=2", after)).want(t, http.StatusOK)
		seen += len(p.at(t, "data").([]any))
		after = int(p.at(t, "next_after").(float64))
		if p.at(t, "has_more") != true {
			break
		}
	}
	if seen != total || after != total {
		t.Errorf("read on to %d events up to %d, want %d", seen, after, total)
	}
	for _, bad := range []string{"after=-1", "after=x", "limit=0", "limit=101", "before=1"} {
		ada.get(t, "/v1/events?"+bad).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	}
	if bob := w.user(t, w.open(t).ID).get(t, "/v1/events"); len(bob.at(t, "data").([]any)) != 1 {
		t.Errorf("another account sees %s", bob.Body)
	}
}
