package billing_test

import (
	"testing"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
)

// An answer that lists the meters must not outlive the process's learning of a new one, and must not be
// kept as if it knew one that the process has not read yet.
func TestLiveMeters_ARevisionIsOfTheMetersThatTheProcessKnows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	acct, err := billing.Opener{Core: w.Core}.Open(t.Context(), billing.NewAccount{})
	if err != nil {
		t.Fatal(err)
	}
	live, err := billing.NewLiveMeters(t.Context(), w.Core)
	if err != nil {
		t.Fatal(err)
	}
	revisions := live.Revisions(postgres.Revisions(w.db.ByKey(), w.clock))
	before, err := revisions.Revision(t.Context(), acct.ID)
	if err != nil {
		t.Fatal(err)
	}
	more := plan.Shipped()
	fax := more.Meters[0]
	fax.Code, fax.Name = "fax", "Fax"
	more.Meters = append(more.Meters, fax)
	if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), more); err != nil {
		t.Fatal(err)
	}
	if published, err := revisions.Revision(t.Context(), acct.ID); err != nil || published != before {
		t.Errorf("published and not read yet: %+v, %v, want %+v", published, err, before)
	}
	if err := live.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if read, err := revisions.Revision(t.Context(), acct.ID); err != nil || read == before || live.Meter("fax") == nil {
		t.Errorf("read: %+v, %v, want another than before", read, err)
	}
}
