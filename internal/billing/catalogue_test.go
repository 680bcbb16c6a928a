package billing_test

import (
	"context"
	"maps"
	"testing"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/pkg/money"
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

// A meter that is in use may get another dimension: what was counted stays where it was, and what comes is kept apart
// by the new one as well. It may lose none, and one without any gets none.
func TestMeter_GetsAnotherDimension(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	meters, err := billing.NewLiveMeters(t.Context(), w.Core)
	if err != nil {
		t.Fatal(err)
	}
	in := metering.NewIngester(postgres.Journal(w.db.ByKey()), meters, w.clock, w.Log, metering.Options{})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = in.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	a := w.open(t).ID
	add := func(quantity string, dimensions map[string]string) metering.Result {
		t.Helper()
		res, err := in.Add(t.Context(), []metering.Event{{
			Account: a, Source: "test", ID: newKey(), Meter: "voice", Quantity: money.MustDecimal(quantity), OccurredAt: w.clock(),
			Dimensions: metering.DimensionsOf(dimensions),
		}})
		if err != nil {
			t.Fatal(err)
		}
		return res[0]
	}
	publish := func(meter int, dimensions ...string) error {
		c := plan.Shipped()
		c.Meters[meter].Dimensions = dimensions
		_, err := billing.Publisher{Core: w.Core}.Publish(t.Context(), c)
		if err == nil {
			err = meters.Refresh(t.Context())
		}
		return err
	}
	const voice, connections = 0, 4
	old, added := map[string]string{"project": "helpdesk"}, map[string]string{"project": "helpdesk", "region": "eu"}

	add("60", old)
	if r := add("30", added); r.Status != metering.Rejected || r.Problem.Code != "unknown_dimension" {
		t.Errorf("before there is a region: %+v", r)
	}
	if err := publish(voice, "project", "api_key", "tag", "model", "region"); err != nil {
		t.Fatal(err)
	}
	for _, r := range []metering.Result{add("30", added), add("10", old)} {
		if r.Status != metering.Accepted {
			t.Errorf("with a region: %+v", r)
		}
	}
	for by, want := range map[string]map[string]string{"region": {"": "70", "eu": "30"}, "project": {"helpdesk": "100"}} {
		reader := metering.Reader{Store: w.DB.Usage(), Entitlements: w.DB.Entitlements(), Catalogue: meters}
		report, err := reader.Usage(t.Context(), a, metering.Question{Meters: []string{"voice"}, GroupBy: by})
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, g := range report.Meters[0].Groups {
			got[g.Value] = g.Quantity.String()
		}
		if !maps.Equal(got, want) {
			t.Errorf("by %s: %v, want %v", by, got, want)
		}
	}

	for _, err := range []error{publish(voice, "project"), publish(voice), publish(connections, "project")} {
		if errs.KindOf(err) != errs.Invalid {
			t.Errorf("a meter has lost dimensions, or got its first: %v, want ErrMeterChanged", err)
		}
	}
}
