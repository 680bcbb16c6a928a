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

// What may be repeated but asks for no key: with one a repetition gets the first answer and makes nothing, without one each
// request is a wish of its own.
func TestWrites_AKeyIsHonouredWhereNoneIsAskedFor(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	card := ada.get(t, "/v1/payment-methods").str(t, "data", 0, "id")
	for name, tc := range map[string]struct {
		path, list, body, other string
		again                   int // the status of a second wish
	}{
		"SalesInquiry": {
			"/v1/sales-inquiries", "/v1/sales-inquiries", `{"name":"Ada","email":"ada@example.com"}`, `{"name":"Eve","email":"ada@example.com"}`,
			http.StatusCreated,
		},
		"UsageAlert": {
			"/v1/usage-alerts", "/v1/usage-alerts", `{"kind":"usage","meter":"voice","quantity":"5"}`, `{"kind":"usage","meter":"voice","quantity":"6"}`,
			http.StatusConflict,
		},
		"RemovalRequest": {
			"/v1/payment-methods/" + card + "/removal-requests", "/v1/removal-requests", `{"kind":"support"}`, `{"kind":"when_paid"}`,
			http.StatusConflict,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first := ada.key("k").post(t, tc.path, tc.body).want(t, http.StatusCreated)
			again := ada.key("k").post(t, tc.path, tc.body).want(t, http.StatusCreated)
			if string(again.Body) != string(first.Body) || again.Header.Get("Idempotent-Replayed") != "true" ||
				again.Header.Get("Location") != first.Header.Get("Location") {
				t.Errorf("a repetition answered %v %s, the first %v %s", again.Header, again.Body, first.Header, first.Body)
			}
			ada.key("k").post(t, tc.path, tc.other).problem(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
			if n := len(ada.get(t, tc.list).at(t, "data").([]any)); n != 1 {
				t.Errorf("%d were made under one key", n)
			}
			ada.key(`"open`).post(t, tc.path, tc.body).problem(t, http.StatusBadRequest, "invalid_idempotency_key")
			ada.key("-").post(t, tc.path, tc.body).want(t, tc.again)
		})
	}
}
