package billing_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

const (
	hour         = time.Hour
	webhooksKept = 90 * 24 * time.Hour
)

// retained counts what is there of everything that is kept for a time only.
func (w *world) retained(t *testing.T) (answers, webhooks, attempts int) {
	t.Helper()
	err := w.db.Pool().QueryRow(t.Context(), `SELECT (SELECT count(*) FROM idempotency_keys), (SELECT count(*) FROM provider_events),
		(SELECT count(*) FROM card_attempts)`).Scan(&answers, &webhooks, &attempts)
	if err != nil {
		t.Fatal(err)
	}
	return answers, webhooks, attempts
}

// retain removes what is over at a time, on two replicas at once.
func (w *world) retain(t *testing.T, at time.Time) {
	t.Helper()
	var wg sync.WaitGroup
	for _, replica := range []*billing.Core{w.another(w.Gateway), w.replica(t)} {
		replica.Clock = clock.Fixed(at)
		wg.Go(func() {
			if err := (billing.Retention{Core: replica, Events: webhooksKept}).Sweep(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A setup of which no card came goes a while after it has expired; that of a card on file stays.
func TestRetention_OfSetups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	cards := billing.Cards{Core: w.Core}
	var setups []payment.SavedSetup
	for range 2 {
		saved, _, err := cards.Setup(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		setups = append(setups, saved)
	}
	if err := w.control.GiveCard(t.Context(), setups[0].Ref, sandbox.TokenMastercard); err != nil {
		t.Fatal(err)
	}
	in := billing.NewCard{CardSource: billing.CardSource{Setup: setups[0].ID.String()}, Profile: profile}
	if got, err := cards.Add(t.Context(), asked(a, newKey()), in, nil); err != nil || got.Record.Status != payment.MethodActive {
		t.Fatalf("%+v, %v", got.Record, err)
	}
	for _, step := range []struct {
		at     time.Time
		unused error
	}{
		{setups[1].ExpiresAt.Add(30*24*hour - 1), nil},
		{setups[1].ExpiresAt.Add(30*24*hour + hour), payment.ErrSetupNotFound},
	} {
		w.retain(t, step.at)
		_, used := w.DB.Payments().Setup(t.Context(), a, setups[0].Ref)
		if _, err := w.DB.Payments().Setup(t.Context(), a, setups[1].Ref); used != nil || !errors.Is(err, step.unused) {
			t.Errorf("at %s the setup of a card is there: %v; the other: %v, want %v", step.at, used, err, step.unused)
		}
	}
}

// Keys and attempts are as old as the database and their identifiers say, which is real time; webhooks are as old as this
// world's clock says.
func TestRetention_RemovesEachKindWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.topUp(t, a, 1000)
	w.behave(t, a, "pm_sandbox_declined")
	w.topUp(t, a, 1000)
	told, err := w.control.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range told { // those that are still on their way are known then
		w.deliver(t, e)
	}
	pending := w.stored(t, payment.ObjectOther, "")
	answers, webhooks, attempts := w.retained(t)
	if answers == 0 || webhooks <= 1 || attempts != 1 {
		t.Fatalf("%d answers, %d webhooks, %d attempts", answers, webhooks, attempts)
	}
	real := time.Now()
	for _, step := range []struct {
		at                          time.Time
		answers, webhooks, attempts int
	}{
		{start.Add(webhooksKept - hour), answers, webhooks, attempts},
		{start.Add(webhooksKept + hour), answers, 1, attempts}, // the one on which nobody has acted stays
		{real.Add(idempotency.Kept - hour), answers, 1, attempts},
		{real.Add(idempotency.Kept + hour), 0, 1, attempts},
		{real.Add(400*24*hour - hour), 0, 1, attempts},
		{real.Add(400*24*hour + hour), 0, 1, 0},
	} {
		w.retain(t, step.at)
		if answers, webhooks, attempts := w.retained(t); answers != step.answers || webhooks != step.webhooks || attempts != step.attempts {
			t.Errorf("at %s there are %d answers, %d webhooks, %d attempts; want %d, %d, %d", step.at, answers, webhooks, attempts,
				step.answers, step.webhooks, step.attempts)
		}
	}
	if err := (billing.Listener{Core: w.Core}).Process(t.Context(), pending.Provider, pending.EventID); err != nil {
		t.Errorf("the webhook that was left: %v", err)
	}
}

// A sweep removes more than one batch, and what it removes is told of again in vain: the provider is asked what there is now.
func TestRetention_AWebhookThatComesOnceMoreChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	charge := w.topUp(t, a, 1000).Charge.ProviderRef
	_, err := w.db.Pool().Exec(t.Context(), `INSERT INTO provider_events (provider, event_id, type, payload, received_at, processed_at)
		SELECT 'sandbox', 'evt_' || n, 'x', '', $1, $1 FROM generate_series(1, 1001) n`, start)
	if err != nil {
		t.Fatal(err)
	}
	w.retain(t, start.Add(webhooksKept+hour))
	if _, webhooks, _ := w.retained(t); webhooks != 0 {
		t.Fatalf("%d webhooks are left", webhooks)
	}
	told := w.eventsOf(t, charge)
	if len(told) == 0 {
		t.Fatal("the provider has told nothing of the charge")
	}
	for _, e := range told {
		w.deliver(t, e)
	}
	w.sweep(t)
	w.wantBalance(t, a, 1000, 0)
	if n := w.told(t, a, "top_up.succeeded"); n != 1 {
		t.Errorf("told %d times of the top-up", n)
	}
}

// A key whose answer is gone is a new one, as is published of it.
func TestRetention_AKeyIsFreeAgainAfterItsTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	key := asked(a, newKey())
	add := func() (payment.TopUpID, bool) {
		t.Helper()
		got, err := billing.Funder{Core: w.Core}.TopUp(t.Context(), key, billing.TopUpInput{Amount: usd(1000)}, asJSON[billing.TopUp](201))
		if err != nil {
			t.Fatal(err)
		}
		return got.Record.ID, got.Replayed != nil
	}
	first, _ := add()
	if _, replayed := add(); !replayed {
		t.Error("a repetition within the time was not answered as the first")
	}
	w.retain(t, time.Now().Add(idempotency.Kept+hour))
	if again, replayed := add(); replayed || again == first {
		t.Errorf("after the time: %s again, replayed %t", again, replayed)
	}
	w.wantBalance(t, a, 2000, 0)
}
