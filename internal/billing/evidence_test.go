package billing_test

import (
	"context"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/period"
)

// slowToRead is a database in which something happens each time that the events behind a line have been read.
type slowToRead struct {
	billing.Database
	meanwhile func()
}

func (d slowToRead) Usage() metering.Store { return slowUsage{d.Database.Usage(), d.meanwhile} }

type slowUsage struct {
	metering.Store
	meanwhile func()
}

func (u slowUsage) Digest(ctx context.Context, a account.ID, meter string, b period.Bounds, by time.Time) (metering.Digest, error) {
	d, err := u.Store.Digest(ctx, a, meter, b, by)
	u.meanwhile()
	return d, err
}

// To read the events of a large account takes long. Its usage does not wait for that, and what comes in or is corrected
// meanwhile is billed, and stands behind the line.
func TestFinalize_UsageGoesOnWhileItsEventsAreRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		meanwhile func(t *testing.T, w *world, a account.ID, n int)
		reads     int   // with the account free
		total     int64 // cents
		events    int64 // behind the line
	}{
		"NothingComes": {func(*testing.T, *world, account.ID, int) {}, 1, 2700, 3},
		"UsageOfTheNextPeriod": {func(t *testing.T, w *world, a account.ID, _ int) {
			t.Helper()
			w.use(t, a, "voice", "600")
		}, 1, 2700, 3},
		"LateUsageComesOnce": {func(t *testing.T, w *world, a account.ID, n int) {
			t.Helper()
			if n == 1 {
				w.useAt(t, a, "voice", "6000", start.Add(time.Hour))
			}
		}, 2, 2970, 4},
		"AnEventIsAmended": {func(t *testing.T, w *world, a account.ID, n int) {
			t.Helper()
			if n == 1 {
				w.correct(t, a, "call", "6000")
			}
		}, 2, 2700 - 2430, 3},
		"LateUsageKeepsComing": {func(t *testing.T, w *world, a account.ID, _ int) {
			t.Helper()
			w.useAt(t, a, "voice", "600", start.Add(time.Hour))
		}, 3, 2700 + 3*27, 6},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.ReadFew(2)
			a := w.onPro(t)
			w.useAs(t, a, "call", "voice", "60000", w.clock())
			w.use(t, a, "voice", "30000")
			w.use(t, a, "voice", "30000")
			w.until(t, start.AddDate(0, 1, 0).Add(time.Hour))
			w.advance(w.Policy.Grace)
			reads := 0
			w.DB = slowToRead{w.DB, func() {
				reads++
				w.advance(time.Second)
				c.meanwhile(t, w, a, reads)
			}}
			w.sweep(t)
			if reads != c.reads {
				t.Errorf("the events were read %d times with the account free, want %d", reads, c.reads)
			}
			inv, err := w.DB.Invoices().Get(t.Context(), a, w.invoiceOf(t, a, start.Truncate(24*time.Hour)))
			if err != nil || inv.Total != usd(c.total) || inv.Status != invoice.Open {
				t.Errorf("the invoice is %s, of %s, %v; want it open, of %d cents", inv.Status, inv.Total, err, c.total)
			}
			w.DB = w.db
			w.advance(time.Second)
			v, err := billing.Reader{Core: w.Core}.Verify(t.Context(), a, inv.ID, 1)
			if err != nil || !v.Verified || v.Derivation.Evidence.Events != c.events {
				t.Errorf("%d events are behind the line, want %d; verified %v: %+v, %v", v.Derivation.Evidence.Events, c.events, v.Verified, v.Findings, err)
			}
		})
	}
}

// An account that is closed is in use up to the last moment.
func TestEnd_ReadsEventsAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ReadFew(2)
	a := w.onPro(t)
	w.topUp(t, a, 10_000)
	for range 3 {
		w.use(t, a, "voice", "40000")
	}
	reads := 0
	w.DB = slowToRead{w.DB, func() {
		if reads++; reads == 1 {
			w.use(t, a, "voice", "6000")
		}
	}}
	if _, err := (billing.Ender{Core: w.Core}).End(t.Context(), asked(a, newKey()), "asked for", nil); err != nil {
		t.Fatal(err)
	}
	inv, err := w.DB.Invoices().Get(t.Context(), a, w.invoiceOf(t, a, start.Truncate(24*time.Hour)))
	if err != nil || reads != 2 || inv.Total != usd(2970) {
		t.Errorf("read %d times, billed %s, %v; want 2 and 29.70", reads, inv.Total, err)
	}
	refunds, err := w.DB.Payments().Refunds(t.Context(), a, page.Request{Limit: 10})
	if err != nil || len(refunds.Data) != 1 || refunds.Data[0].Amount != usd(10_000-2970) || refunds.Data[0].Status != payment.Succeeded {
		t.Errorf("given back %+v, %v; want what is left once", refunds.Data, err)
	}
}
