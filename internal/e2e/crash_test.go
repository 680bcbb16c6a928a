package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/failpoint"
)

// askedFor lists the operations that customers and operators ask for, with their points.
var askedFor = []struct {
	op     failpoint.Op
	points []failpoint.Point
}{
	{failpoint.Upgrade, allPoints},
	{failpoint.AddCard, allPoints},
	{failpoint.TopUp, allPoints},
	{failpoint.PayInvoice, allPoints},
	{failpoint.Refund, allPoints},
	{failpoint.CancelUpgrade, []failpoint.Point{failpoint.Received, failpoint.Tx2BeforeCommit, failpoint.AfterTx2}},
}

var allPoints = []failpoint.Point{
	failpoint.Received, failpoint.AfterTx1, failpoint.AfterGateway, failpoint.Tx2BeforeCommit, failpoint.AfterTx2,
}

// swept lists the operations that nobody asks for: the sweep does them when they are due.
var swept = []struct {
	op     failpoint.Op
	points []failpoint.Point
}{
	{failpoint.Close, []failpoint.Point{failpoint.Received, failpoint.Tx2BeforeCommit, failpoint.AfterTx2}},
	{failpoint.Finalize, []failpoint.Point{failpoint.Received, failpoint.Tx2BeforeCommit, failpoint.AfterTx2}},
	{failpoint.Collect, allPoints},
}

// seed makes the runs the same every time; the full run goes on to others.
const seed = 20260310

// lanes is how many deployments are killed at the same time: one waits while the other works.
const lanes = 2

// Every operation, killed at every point, is carried on to the one effect that was asked for, and every
// caller that comes back gets the same answer.
func TestCrash_AtEveryPoint(t *testing.T) {
	t.Parallel()
	program := binary(t, "faults")
	if !full() {
		h := newHarness(t, program)
		h.killEverywhere(0, 2) // each kill catches several accounts at the same point
		h.report()
		return
	}
	// In the full run 5 × 8 accounts for every point.
	for lane := range lanes {
		t.Run(fmt.Sprint("Lane", lane), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, program)
			for round := lane; round < 8; round += lanes {
				h.killEverywhere(uint64(round), 5)
			}
			h.report()
		})
	}
}

func (h *harness) killEverywhere(round uint64, accounts int) {
	h.t.Helper()
	rng := rand.New(rand.NewPCG(seed, round))
	for _, o := range askedFor {
		for _, point := range o.points {
			h.killAt(o.op, point, accounts, rng)
		}
	}
	for _, o := range swept {
		for _, point := range o.points {
			h.killSweepAt(o.op, point, rng)
		}
	}
	h.checkBooks()
}

// killAt has several customers do the operation and kills the service when all have come to the point.
func (h *harness) killAt(op failpoint.Op, point failpoint.Point, accounts int, rng *rand.Rand) {
	h.t.Helper()
	intents := h.intents(accounts, func() *intent { return h.newIntent(op, rng) })
	h.trial(intents, h.atPoint(fmt.Sprintf("%s.%s meet %d", op, point, accounts)), rng.IntN(2) == 0)
}

func (h *harness) intents(n int, make func() *intent) []*intent {
	out := []*intent{}
	for range n {
		out = append(out, make())
	}
	return out
}

// killSweepAt lets periods end while the service is down, and kills the next one in its first sweep.
func (h *harness) killSweepAt(op failpoint.Op, point failpoint.Point, rng *rand.Rand) {
	h.t.Helper()
	ctx := h.t.Context()
	intents := h.intents(3, func() *intent {
		in := &intent{patron: h.withUsage(), op: op}
		in.charges = []int64{usedCost}
		in.verify = func(ctx context.Context, h *harness) []string {
			return h.count(ctx, in, 1, "SELECT count(*) FROM invoices WHERE account_id = $1 AND status = 'paid' AND kind = 'cycle'")
		}
		return in
	})
	h.proc.kill()
	for _, in := range intents {
		h.turnClock(ctx, in.account.ID)
	}
	h.must(h.arm(fmt.Sprintf("%s.%s kill %d", op, point, 1+rng.IntN(len(intents)))))
	var err error
	h.proc, err = h.deployment.begin() // the sweep may be there before anybody has seen that it listens
	h.must(err)
	select {
	case <-h.proc.gone:
		if h.proc.address("api") == "" {
			h.t.Fatalf("the service ended at its start: %v\n%s", h.proc.err, h.proc.log)
		}
	case <-time.After(20 * time.Second):
		h.t.Fatalf("%s.%s was never reached\n%s", op, point, h.proc.log)
	}
	h.kills++
	h.caught += len(intents)
	h.restart()
	h.passTime(ctx, intents)
	_, err = billing.Sweeper{Core: h.core}.Sweep(ctx)
	h.must(err)
	for _, in := range intents {
		h.nothingWaits(ctx, in)
		for _, f := range in.check(ctx, h) {
			h.fault("%s.%s of %s: %s", op, point, in.account.ID, f)
		}
	}
	h.checkCharges(ctx, intents)
}

// At any moment, in any mixture of operations, the same holds.
func TestCrash_AtRandomMoments(t *testing.T) {
	t.Parallel()
	program := binary(t, "faults")
	kills := 150
	if full() {
		kills = 600
	}
	for lane := range lanes {
		t.Run(fmt.Sprint("Lane", lane), func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, program)
			for n := lane; n < kills; n += lanes {
				h.killAtRandom(uint64(n), 2)
			}
			h.checkBooks()
			if h.caught < h.kills {
				t.Errorf("%d kills caught only %d operations: the moments are badly chosen", h.kills, h.caught)
			}
			h.report()
		})
	}
}

// mixture is what customers and operators do at the same time.
var mixture = []failpoint.Op{failpoint.Upgrade, failpoint.AddCard, failpoint.TopUp, failpoint.TopUp, failpoint.Refund, failpoint.CancelUpgrade}

// killAtRandom makes the n-th of the random kills: the same operations and the same moment every time.
func (h *harness) killAtRandom(n uint64, accounts int) {
	h.t.Helper()
	rng := rand.New(rand.NewPCG(seed, n))
	intents := h.intents(accounts, func() *intent {
		in := h.newIntent(mixture[rng.IntN(len(mixture))], rng)
		in.delay = time.Duration(rng.IntN(20)) * time.Millisecond
		return in
	})
	h.trial(intents, h.after(time.Duration(rng.IntN(40_000))*time.Microsecond), rng.IntN(2) == 0)
	if h.kills%50 == 0 {
		h.checkBooks()
	}
}

// The harness is worth what it finds. In a build that asks the provider before the intent is committed it
// must find cards that were charged twice, or charges that nobody knows of.
func TestCrash_WithoutTheIntentIsFound(t *testing.T) {
	t.Parallel()
	h := newHarness(t, binary(t, "faults,nointent"))
	rng := rand.New(rand.NewPCG(seed, 0))
	h.killAt(failpoint.TopUp, failpoint.AfterGateway, 2, rng)
	if full() {
		for n := range uint64(40) {
			h.killAtRandom(n, 4)
		}
	}
	twice := 0
	for _, f := range h.faults {
		t.Log(f)
		if strings.Contains(f, "the provider has taken") {
			twice++
		}
	}
	if twice == 0 {
		t.Errorf("%d kills of a service without intents, and every card was charged once: the harness sees nothing", h.kills)
	}
}
