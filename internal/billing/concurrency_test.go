package billing_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/upgrade"
	"github.com/accrue-billing/accrue/pkg/money"
)

// often is how many times a test of chance is repeated: few in every run, full with ACCRUE_TEST_FULL.
func often(few, full int) int {
	if os.Getenv("ACCRUE_TEST_FULL") != "" {
		return full
	}
	return few
}

// together calls fn n times at the same moment and returns when all have returned.
func together(n int, fn func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			fn(i)
		})
	}
	close(start)
	wg.Wait()
}

// charges returns what the provider has taken, by our name of the payment.
func (w *world) charges(t *testing.T) map[account.ID][]payment.ChargeResult {
	t.Helper()
	out := map[account.ID][]payment.ChargeResult{}
	for c, err := range w.Gateway.ListCharges(t.Context(), start.Add(-time.Hour), w.clock().Add(time.Hour)) {
		if err != nil {
			t.Fatal(err)
		}
		if c.Outcome == payment.OutcomeSucceeded {
			a := mustID(t, c.AccountRef)
			out[a] = append(out[a], c)
		}
	}
	return out
}

const callers = 50

// A customer's impatience, a proxy's retry and a second tab all look like this.
func TestSameKey_FiftyCallersHaveOneEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fund := billing.Funder{Core: w.Core}
	want := map[account.ID]bool{}
	for round := range often(8, 200) {
		a := w.open(t)
		w.upgrade(t, a.ID, sandbox.TokenVisa)
		want[a.ID] = true
		var bodies sync.Map
		together(callers, func(int) {
			for {
				got, err := fund.TopUp(t.Context(), asked(a.ID, "the key"), billing.TopUpInput{Amount: usd(1234)}, asJSON[billing.TopUp](201))
				if errors.Is(err, idempotency.ErrInProgress) {
					time.Sleep(2 * time.Millisecond) // what Retry-After asks for, in small
					continue
				}
				if err != nil {
					t.Errorf("round %d: %v", round, err)
					return
				}
				if got.Replayed != nil {
					bodies.Store(string(got.Replayed.Body), true)
				}
				return
			}
		})
		different := 0
		bodies.Range(func(any, any) bool { different++; return true })
		if different != 1 {
			t.Errorf("round %d: %d different answers were replayed", round, different)
		}
	}
	charged := w.charges(t)
	for a := range want {
		if len(charged[a]) != 1 {
			t.Errorf("%d charges of %s, want 1", len(charged[a]), a)
		}
		if b := w.balance(t, a); b.Funds != usd(1234) {
			t.Errorf("funds %s, want 12.34 USD", b.Funds)
		}
	}
}

func TestDistinctKeys_FiftyUpgradesHaveOneEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	up := billing.Upgrader{Core: w.Core}
	for round := range often(8, 200) {
		a := w.open(t)
		var mu sync.Mutex
		done := 0
		together(callers, func(int) {
			got, err := up.Upgrade(t.Context(), asked(a.ID, newKey()), billing.UpgradeInput{
				Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenVisa}, Profile: &profile,
			}, asJSON[upgrade.Upgrade](201))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && got.Record.Status == payment.Succeeded:
				done++
			case !errors.Is(err, upgrade.ErrPending) && !errors.Is(err, billing.ErrNotAnUpgrade):
				t.Errorf("round %d: %+v, %v", round, got.Record, err)
			}
		})
		cards, err := w.DB.Payments().Methods(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		if done != 1 || len(cards) != 1 {
			t.Errorf("round %d: %d callers were told of success, %d cards; want 1 and 1", round, done, len(cards))
		}
	}
}

// Every caller means another top-up. One may be pending, so they queue, in two processes, and each is charged once.
func TestHotAccount_TopUpsQueueAndNeverDeadlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.upgrade(t, a.ID, sandbox.TokenVisa)
	replicas := []*billing.Core{w.Core, w.another(w.Gateway)}
	n := often(callers, 200)
	together(n, func(i int) {
		fund := billing.Funder{Core: replicas[i%len(replicas)]}
		got, err := fund.TopUp(t.Context(), asked(a.ID, newKey()), billing.TopUpInput{Amount: usd(1000 + int64(i))}, asJSON[billing.TopUp](201))
		if err != nil || got.Record.Status != payment.Succeeded {
			t.Errorf("top-up %d: %+v, %v", i, got.Record, err)
		}
	})
	taken := map[int64]int{}
	for _, c := range w.charges(t)[a.ID] {
		taken[c.Amount.Minor]++
	}
	var sum int64
	for i := range n {
		sum += 1000 + int64(i)
		if taken[1000+int64(i)] != 1 {
			t.Errorf("%d charges of top-up %d, want 1", taken[1000+int64(i)], i)
		}
	}
	if b := w.balance(t, a.ID); b.Funds != usd(sum) {
		t.Errorf("funds %s, want %s", b.Funds, usd(sum))
	}
}

// slowGateway keeps a charge until it is let go.
type slowGateway struct {
	payment.Gateway
	asked, answer chan struct{}
}

func (g slowGateway) Charge(ctx context.Context, r payment.ChargeRequest) (payment.ChargeResult, error) {
	g.asked <- struct{}{}
	<-g.answer
	return g.Gateway.Charge(ctx, r)
}

// While the provider thinks, those who wait their turn keep nothing that others need.
func TestHotAccount_WaitingTopUpsHoldNeitherLockNorConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, other := w.open(t), w.open(t)
	w.upgrade(t, a.ID, sandbox.TokenVisa)
	w.upgrade(t, other.ID, sandbox.TokenVisa)
	provider := slowGateway{w.Gateway, make(chan struct{}, callers), make(chan struct{})}
	slow := billing.Funder{Core: w.another(provider)}
	topUp := func(ctx context.Context, fund billing.Funder) error {
		got, err := fund.TopUp(ctx, asked(a.ID, newKey()), billing.TopUpInput{Amount: usd(1000)}, nil)
		if err == nil && got.Record.Status != payment.Succeeded {
			err = fmt.Errorf("%+v", got.Record)
		}
		return err
	}
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			if err := topUp(t.Context(), slow); err != nil {
				t.Error(err)
			}
		})
	}
	<-provider.asked

	// Whose time is short is refused, here and by a process that does not know who waits.
	processes := []billing.Funder{slow, {Core: w.Core}}
	together(len(processes), func(i int) {
		short, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		err := topUp(short, processes[i])
		if e, ok := errors.AsType[*errs.Error](err); !ok || !errors.Is(e, payment.ErrTopUpPending) || e.RetryAfter == 0 {
			t.Errorf("%v, want top_up_pending and when to come again", err)
		}
	})
	for range 2 * callers {
		w.topUp(t, other.ID, 1000)
		w.balance(t, a.ID)
	}
	if n := len(w.charges(t)[a.ID]); n != 0 {
		t.Errorf("%d charges before the provider has answered", n)
	}
	close(provider.answer)
	all.Wait()
	if b := w.balance(t, a.ID); b.Funds != usd(callers*1000) {
		t.Errorf("funds %s, want %s", b.Funds, usd(callers*1000))
	}
}

// A process that is paused between its intent and the provider's call, for longer than anybody waits, comes back to work
// that others have finished: it asks under the same key, finds the payment settled, and changes nothing.
func TestTopUp_ByAProcessThatWasPaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.upgrade(t, a.ID, sandbox.TokenVisa)
	provider := slowGateway{w.Gateway, make(chan struct{}, 1), make(chan struct{})}
	paused := billing.Funder{Core: w.another(provider)}
	key := asked(a.ID, newKey())
	var late billing.Result[billing.TopUp]
	var running sync.WaitGroup
	running.Go(func() {
		var err error
		if late, err = paused.TopUp(t.Context(), key, billing.TopUpInput{Amount: usd(1000)}, asJSON[billing.TopUp](201)); err != nil {
			t.Error(err)
		}
	})
	<-provider.asked
	w.advance(10 * time.Minute)
	w.sweep(t) // by the others
	if b := w.balance(t, a.ID); b.Funds != usd(1000) {
		t.Errorf("funds %s while one process is paused, want 10.00 USD", b.Funds)
	}
	close(provider.answer)
	running.Wait()
	if late.Record.Status != payment.Succeeded {
		t.Errorf("the paused process answers %+v", late.Record)
	}
	again, err := billing.Funder{Core: w.Core}.TopUp(t.Context(), key, billing.TopUpInput{Amount: usd(1000)}, asJSON[billing.TopUp](201))
	if err != nil || again.Replayed == nil {
		t.Errorf("the same key again: %+v, %v; want the answer that was given", again, err)
	}
	if n := len(w.charges(t)[a.ID]); n != 1 {
		t.Errorf("%d charges, want 1", n)
	}
	if b := w.balance(t, a.ID); b.Funds != usd(1000) {
		t.Errorf("funds %s in the end, want 10.00 USD", b.Funds)
	}
}

func TestPartialRefunds_TogetherNeverPassWhatWasTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		minor int64
		want  int
	}{{6000, 1}, {1000, 10}, {3333, 3}} {
		a := w.open(t)
		w.upgrade(t, a.ID, sandbox.TokenVisa)
		p := w.topUp(t, a.ID, 10000).Charge
		var mu sync.Mutex
		done := 0
		together(20, func(int) {
			got, err := billing.Refunder{Core: w.Core}.Refund(t.Context(), asked(a.ID, newKey()),
				billing.RefundInput{Payment: p.ID, Amount: usd(c.minor), Reason: "test", Origin: payment.ByOperator}, asJSON[payment.Refund](201))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil && got.Record.Status == payment.Succeeded:
				done++
			case !errors.Is(err, payment.ErrRefundTooLarge) && !errors.Is(err, billing.ErrFundsSpent):
				t.Errorf("refund of %d: %+v, %v", c.minor, got.Record, err)
			}
		})
		left := 10000 - int64(c.want)*c.minor
		if b := w.balance(t, a.ID); done != c.want || b.Funds != usd(left) {
			t.Errorf("%d refunds of %d and funds of %s, want %d and %s", done, c.minor, b.Funds, c.want, usd(left))
		}
		if ch := w.charges(t)[a.ID]; len(ch) != 1 || ch[0].Refunded != usd(10000-left) {
			t.Errorf("the provider has %+v", ch)
		}
	}
}

// Whichever comes first, the period is closed once and the account ends on Pro with one period open.
func TestUpgrade_RacesTheCloseOfThePeriod(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	accounts := make([]account.ID, often(15, 200))
	for i := range accounts {
		accounts[i] = w.open(t).ID
		w.use(t, accounts[i], "voice", "100")
	}
	w.advance(32 * 24 * time.Hour)
	for _, a := range accounts {
		together(4, func(i int) {
			if i%2 == 0 {
				if _, err := (billing.Closer{Core: w.Core}).Close(t.Context(), a); err != nil {
					t.Errorf("close: %v", err)
				}
				return
			}
			_, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a, fmt.Sprint("key ", i)), billing.UpgradeInput{
				Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenVisa}, Profile: &profile,
			}, asJSON[upgrade.Upgrade](201))
			if err != nil && !errors.Is(err, upgrade.ErrPending) && !errors.Is(err, billing.ErrNotAnUpgrade) {
				t.Errorf("upgrade: %v", err)
			}
		})
		sub, err := w.DB.Subscriptions().Active(t.Context(), a)
		if err != nil || sub.Plan != plan.Pro || !sub.Period.Start.After(start) {
			t.Errorf("%s is on %s since %s, %v; want Pro in the second period", a, sub.Plan, sub.Period.Start, err)
		}
	}
	w.sweep(t) // finalises what was closed as Pro
}

// Two replicas sweep at the same time: every period gets one invoice, every invoice one charge.
func TestSweep_OnSeveralReplicasAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	accounts := make([]account.ID, often(10, 100))
	for i := range accounts {
		accounts[i] = w.open(t).ID
		w.upgrade(t, accounts[i], sandbox.TokenVisa)
		w.use(t, accounts[i], "voice", "600000")
	}
	w.advance(33 * 24 * time.Hour)
	together(3, func(int) {
		if _, err := (billing.Sweeper{Core: w.Core}).Sweep(t.Context()); err != nil {
			t.Errorf("sweep: %v", err)
		}
	})
	w.sweep(t)
	charged := w.charges(t)
	for _, a := range accounts {
		invoices, err := w.DB.Invoices().List(t.Context(), a, "", page.Request{Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		if len(invoices.Data) != 1 || len(charged[a]) != 1 {
			t.Errorf("%s has %d invoices and %d charges, want 1 and 1", a, len(invoices.Data), len(charged[a]))
		}
	}
}

// Write skew: two sessions each read several rows, decide that there is room, and write different ones, so that
// neither overwrites the other and a rule over all the rows breaks. Each of these pairs is allowed alone; at the same
// moment, on two replicas, one of the two must be refused.
func TestWriteSkew_OneOfTwoIsRefused(t *testing.T) {
	t.Parallel()
	rounds := often(40, 200)

	// The rule is over usage of two meters, which are two rows.
	t.Run("SpendLimitOverTwoMeters", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		replicas := [2]*metering.Ingester{w.ingest, w.ingester(t, w.replica(t))}
		for range rounds {
			a := w.open(t).ID
			w.upgrade(t, a, sandbox.TokenVisa)
			w.limitSpend(t, a, 1000, entitlement.Hard)
			w.use(t, a, "voice", "60000") // the allowances
			w.use(t, a, "text", "10000")
			six := [2]metering.Event{
				{Account: a, ID: "voice", Meter: "voice", Quantity: money.MustDecimal("13320"), OccurredAt: w.clock()}, // 222 minutes of 0.027
				{Account: a, ID: "text", Meter: "text", Quantity: money.MustDecimal("30000"), OccurredAt: w.clock()},   // words of 0.0002
			}
			oneOf(t, func(i int) (bool, error) {
				res, err := replicas[i].Add(t.Context(), six[i:i+1])
				if err != nil {
					return false, err
				}
				return res[0].Status == metering.Accepted, nil
			})
		}
	})

	// The rule is that one of the versions stays on sale.
	t.Run("LastVersionOfTheStartPlan", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		replicas := [2]*billing.Core{w.Core, w.replica(t)}
		latest := 1
		for round := range rounds {
			c := plan.Shipped()
			for i := range c.Offers {
				if v := &c.Offers[i].Version; v.Plan == plan.Developer {
					v.Limits[0].Quantity = money.DecimalFromInt(int64(1000 + round))
				}
			}
			if _, err := (billing.Publisher{Core: w.Core}).Publish(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			latest++
			onSale := [2]int{latest - 1, latest}
			if round > 0 { // of the two of the last round one is left
				versions, err := w.DB.Plans().Versions(t.Context(), plan.Developer)
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for _, v := range versions {
					if v.ArchivedAt.IsZero() {
						onSale[n], n = v.Number, n+1
					}
				}
			}
			oneOf(t, func(i int) (bool, error) {
				_, err := billing.Publisher{Core: replicas[i]}.Archive(t.Context(), asked(account.ID{}, newKey()), plan.Developer, onSale[i], "old", nil)
				if errors.Is(err, billing.ErrStartPlan) {
					return false, nil
				}
				return true, err
			})
		}
	})

	// The rule is over the credit notes of an invoice.
	t.Run("CreditBeyondAnInvoice", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		replicas := [2]*billing.Core{w.Core, w.replica(t)}
		for range often(3, 20) {
			a := w.open(t).ID
			w.upgrade(t, a, sandbox.TokenVisa)
			w.use(t, a, "voice", "120000") // 27.00
			w.until(t, w.clock().Add(35*24*time.Hour))
			all, err := w.DB.Invoices().List(t.Context(), a, invoice.Paid, page.Request{Limit: 10})
			if err != nil || len(all.Data) != 1 {
				t.Fatalf("%+v, %v; want one invoice", all.Data, err)
			}
			oneOf(t, func(i int) (bool, error) {
				_, err := billing.Adjuster{Core: replicas[i]}.Credit(t.Context(), asked(a, newKey()),
					billing.CreditInput{Invoice: all.Data[0].ID, Amount: usd(1600), Reason: "an outage"}, nil)
				if errors.Is(err, billing.ErrCreditTooLarge) {
					return false, nil
				}
				return true, err
			})
		}
	})
}

// oneOf does both at the same moment and fails the test unless exactly one has its way.
func oneOf(t *testing.T, do func(i int) (bool, error)) {
	t.Helper()
	var done atomic.Int64
	together(2, func(i int) {
		ok, err := do(i)
		if err != nil {
			t.Error(err)
		}
		if ok {
			done.Add(1)
		}
	})
	if n := done.Load(); n != 1 {
		t.Errorf("%d of two had their way, want 1", n)
	}
}

// replica is the core of another process on a pool of its own.
func (w *world) replica(t *testing.T) *billing.Core {
	t.Helper()
	db, err := postgres.Open(t.Context(), postgres.Config{URL: w.dsn, MaxConns: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	core := w.another(w.Gateway)
	core.DB = db
	return core
}

// ingester takes usage in on a replica.
func (w *world) ingester(t *testing.T, replica *billing.Core) *metering.Ingester {
	t.Helper()
	in := metering.NewIngester(postgres.Journal(replica.DB.(*postgres.DB).ByKey()), billing.Meters(plan.Shipped().Meters), w.clock, w.Log,
		metering.Options{Pricer: billing.Pricer{Core: replica}})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); _ = in.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return in
}
