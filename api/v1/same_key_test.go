package v1_test

import (
	"context"
	"net/http"
	"sync"
	"testing"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// slowProvider keeps the saving of a card until it is let go.
type slowProvider struct {
	payment.Gateway
	asked, answer chan struct{}
}

func (g slowProvider) Attach(ctx context.Context, r payment.AttachRequest) (payment.AttachResult, error) {
	g.asked <- struct{}{}
	<-g.answer
	return g.Gateway.Attach(ctx, r)
}

// "Upgrade Now" twice with one key: while the first runs, the others are told to come again, and then they get its answer.
// With keys of their own they are told which one is pending.
func TestUpgrade_TwiceWhileTheFirstRuns(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	provider := slowProvider{w.Gateway, make(chan struct{}, 1), make(chan struct{})}
	w.Gateway = provider
	ada := w.user(t, w.open(t).ID)
	var first response
	var running sync.WaitGroup
	running.Go(func() { first = ada.key("k").post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)) })
	<-provider.asked
	for range 3 {
		res := ada.key("k").post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).problem(t, http.StatusConflict, "idempotency_in_progress")
		if res.Header.Get("Retry-After") == "" {
			t.Error("nobody says when to come again")
		}
		ada.post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).problem(t, http.StatusConflict, "upgrade_pending")
	}
	close(provider.answer)
	running.Wait()
	first.want(t, http.StatusCreated)
	again := ada.key("k").post(t, "/v1/upgrades", upgradeBody(sandbox.TokenVisa)).want(t, http.StatusCreated)
	if string(again.Body) != string(first.Body) || again.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("a repetition answered %s, the first %s", again.Body, first.Body)
	}
	w.check(t)
}
