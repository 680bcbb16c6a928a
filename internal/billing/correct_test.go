package billing_test

import (
	"errors"
	"testing"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// A closed account gets no further invoice, so what it has used is not changed any more: a credit note corrects its bills.
func TestCorrect_OfAClosedAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.useAs(t, a, "call", "voice", "60", w.clock())
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "test", nil); err != nil {
		t.Fatal(err)
	}
	fix := billing.Corrections{Core: w.Core, Catalogue: billing.Meters(plan.Shipped().Meters)}
	_, err := fix.Correct(t.Context(), asked(a, newKey()), metering.Correction{
		Source: "test", EventID: "call", Kind: metering.Void, Reason: "never happened",
	}, nil)
	if !errors.Is(err, account.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}

// What has become of an event is known for longer than the event is kept.
func TestCorrect_OfEventsThatAreNotKept(t *testing.T) {
	t.Parallel()
	w := buildWorld(t) // in which a recount does not find what is gone
	a := w.open(t).ID
	w.useAs(t, a, "counts", "voice", "60", w.clock())
	w.useAs(t, a, "void", "voice", "60", w.clock())
	void := func(event string) error {
		fix := billing.Corrections{Core: w.Core, Catalogue: billing.Meters(plan.Shipped().Meters)}
		_, err := fix.Correct(t.Context(), asked(a, newKey()), metering.Correction{
			Source: "test", EventID: event, Kind: metering.Void, Reason: "never happened",
		}, nil)
		return err
	}
	if err := void("void"); err != nil {
		t.Fatal(err)
	}
	owner := postgrestest.Connect(t, w.dsn)
	if _, err := owner.Exec(t.Context(), "DELETE FROM usage_events"); err != nil {
		t.Fatal(err)
	}
	for event, want := range map[string]error{
		"counts": metering.ErrEventGone, "void": metering.ErrVoided, "never": metering.ErrEventNotFound,
	} {
		if err := void(event); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", event, err, want)
		}
	}
}
