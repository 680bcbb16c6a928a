package billing_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// Every caller means another top-up. One may be pending, so they queue, in two processes, and each is charged once.
func TestHotAccount_TopUpsQueueAndNeverDeadlock(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	replicas := []*billing.Core{w.Core, w.another(w.Gateway)}
	n := often(callers, 200)
	together(n, func(i int) {
		fund := billing.Funder{Core: replicas[i%len(replicas)]}
		got, err := fund.TopUp(t.Context(), asked(a, newKey()), billing.TopUpInput{Amount: usd(1000 + int64(i))}, asJSON[billing.TopUp](201))
		if err != nil || got.Record.Status != payment.Succeeded {
			t.Errorf("top-up %d: %+v, %v", i, got.Record, err)
		}
	})
	taken := map[int64]int{}
	for _, c := range w.charges(t)[a] {
		taken[c.Amount.Minor]++
	}
	var sum int64
	for i := range n {
		sum += 1000 + int64(i)
		if taken[1000+int64(i)] != 1 {
			t.Errorf("%d charges of top-up %d, want 1", taken[1000+int64(i)], i)
		}
	}
	if b := w.balance(t, a); b.Funds != usd(sum) {
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
