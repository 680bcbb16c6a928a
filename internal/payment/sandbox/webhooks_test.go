package sandbox_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// receiver takes webhooks as the service does, and answers as it is told.
type receiver struct {
	url string

	mu     sync.Mutex
	got    []payment.Event
	status []int // of the next answers; then 200
	verify func(map[string][]string, []byte, time.Time) (payment.Event, error)
	came   chan struct{}
}

func receive(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{came: make(chan struct{}, 1000)}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		body, err := io.ReadAll(q.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		e, err := r.verify(q.Header, body, now)
		if err != nil {
			t.Errorf("webhook %s: %v", body, err)
		}
		status := http.StatusOK
		if len(r.status) > 0 {
			status, r.status = r.status[0], r.status[1:]
		}
		if status == http.StatusOK {
			r.got = append(r.got, e)
		}
		w.WriteHeader(status)
		r.came <- struct{}{}
	}))
	t.Cleanup(s.Close)
	r.url = s.URL
	return r
}

// await returns when n requests have come.
func (r *receiver) await(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-r.came:
		case <-time.After(20 * time.Second):
			t.Fatal("no webhook comes")
		}
	}
}

func (r *receiver) events() []payment.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// startWithWebhooks starts a provider whose webhooks a receiver takes; the clock can be moved.
func startWithWebhooks(t *testing.T, run bool) (provider, *receiver, func(time.Duration)) {
	t.Helper()
	r := receive(t)
	var mu sync.Mutex
	at := now
	p := start(t, func(c *sandbox.Config) {
		c.WebhookURL = r.url
		c.Clock = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return at
		}
	})
	r.verify = func(h map[string][]string, body []byte, _ time.Time) (payment.Event, error) {
		// The clock may have been moved since the webhook was signed; its freshness is the suite's matter.
		var seconds int64
		if _, err := fmt.Sscanf(http.Header(h).Get("Sandbox-Signature"), "t=%d,", &seconds); err != nil {
			return payment.Event{}, err
		}
		return p.gateway.VerifyEvent(h, body, time.Unix(seconds, 0))
	}
	if run {
		runWebhooks(t, p.server)
	}
	return p, r, func(d time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		at = at.Add(d)
	}
}

func TestWebhooksTellOfEveryChange(t *testing.T) {
	t.Parallel()

	p, r, _ := startWithWebhooks(t, true)
	request := card(t, p.gateway, sandbox.TokenDispute, "acct_1") // setup.succeeded, method.attached
	c, err := p.gateway.Charge(t.Context(), request(1))           // charge.succeeded, dispute.opened
	must(t, err)
	r.await(t, 4)
	var types []string
	for _, e := range r.events() {
		types = append(types, e.Type)
		o, err := p.gateway.Fetch(t.Context(), e.Object, e.Ref)
		must(t, err)
		if o.Dispute != nil && o.Dispute.ChargeRef != c.Ref {
			t.Errorf("dispute %+v", o.Dispute)
		}
	}
	slices.Sort(types)
	if want := []string{"charge.succeeded", "dispute.opened", "method.attached", "setup.succeeded"}; !slices.Equal(types, want) {
		t.Errorf("events %v, want %v", types, want)
	}
}

func TestWebhookIsRepeatedUntilItIsTaken(t *testing.T) {
	t.Parallel()

	p, r, advance := startWithWebhooks(t, true)
	r.status = []int{500, 302, 404}
	must(t, p.control.Plan(t.Context(), sandbox.Fault{Op: "webhook", Kind: sandbox.FaultWebhookLost})) // the first of two
	_, err := p.gateway.Attach(t.Context(), payment.AttachRequest{Key: "k", AccountRef: "acct_1", Token: sandbox.TokenDeclined})
	must(t, err)
	_, err = p.gateway.Attach(t.Context(), payment.AttachRequest{Key: "l", AccountRef: "acct_1", Token: sandbox.TokenDeclined})
	must(t, err)
	r.await(t, 1)
	for range 3 {
		// That the last attempt failed is written down a moment after the answer: move the clock until
		// the next attempt is due.
		for came := false; !came; {
			advance(time.Hour)
			select {
			case <-r.came:
				came = true
			case <-time.After(100 * time.Millisecond):
			}
		}
	}
	if got := r.events(); len(got) != 1 {
		t.Fatalf("taken: %v", got)
	}
	events, err := p.control.Events(t.Context())
	must(t, err)
	if events[0].Delivered != 0 || len(events) != 2 { // the lost one
		t.Errorf("events %+v", events)
	}
}

func TestWebhooksCanBeHeldOrderedAndRepeated(t *testing.T) {
	t.Parallel()

	p, r, _ := startWithWebhooks(t, true)
	must(t, p.control.HoldWebhooks(t.Context(), true))
	request := card(t, p.gateway, sandbox.TokenVisa, "acct_1")
	_, err := p.gateway.Charge(t.Context(), request(1))
	must(t, err)
	events, err := p.control.Events(t.Context())
	must(t, err)
	var want []string
	for _, e := range slices.Backward(events) {
		for range 2 {
			status, err := p.control.Deliver(t.Context(), e.ID)
			if err != nil || status != http.StatusOK {
				t.Fatalf("deliver %s: %d, %v", e.ID, status, err)
			}
			want = append(want, e.ID)
		}
	}
	var got []string
	for _, e := range r.events() {
		got = append(got, e.ID)
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	after, err := p.control.Events(t.Context())
	must(t, err)
	for _, e := range after {
		if e.Delivered != 2 {
			t.Errorf("%+v", e)
		}
	}
}

func TestWebhookComesTwiceLateOrBeforeTheAnswer(t *testing.T) {
	t.Parallel()

	p, r, advance := startWithWebhooks(t, false)
	ctx := t.Context()
	request := card(t, p.gateway, sandbox.TokenVisa, "acct_1")

	must(t, p.control.Plan(ctx, sandbox.Fault{Op: "charge", Kind: sandbox.FaultWebhookFirst}))
	c, err := p.gateway.Charge(ctx, request(1))
	must(t, err)
	if got := r.events(); len(got) != 1 || got[0].Ref != c.Ref { // nobody runs the sender: it came with the call
		t.Fatalf("before the answer: %v", got)
	}
	must(t, p.control.Plan(ctx,
		sandbox.Fault{Op: "webhook", Kind: sandbox.FaultWebhookTwice}, sandbox.Fault{Op: "webhook", Kind: sandbox.FaultWebhookLate, DelayMS: 60_000}))
	twice, err := p.gateway.Charge(ctx, request(2))
	must(t, err)
	late, err := p.gateway.Charge(ctx, request(3))
	must(t, err)
	count := func(ref string) (n int) {
		for _, e := range r.events() {
			if e.Ref == ref {
				n++
			}
		}
		return n
	}
	runWebhooks(t, p.server)
	r.await(t, 1+2+2) // the first one, setup and method, and one twice
	if count(twice.Ref) != 2 || count(late.Ref) != 0 {
		t.Fatalf("twice %d, late %d", count(twice.Ref), count(late.Ref))
	}
	advance(time.Minute)
	r.await(t, 1)
	if count(late.Ref) != 1 {
		t.Fatalf("late: %d", count(late.Ref))
	}
}

func TestWebhooksOutliveARestart(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	p := start(t, func(c *sandbox.Config) { c.Dir = dir })
	_, err := p.gateway.Attach(t.Context(), payment.AttachRequest{Key: "k", AccountRef: "acct_1", Token: sandbox.TokenDeclined})
	must(t, err)
	must(t, p.server.Close())

	r := receive(t)
	p = start(t, func(c *sandbox.Config) { c.Dir, c.WebhookURL = dir, r.url })
	r.verify = p.gateway.VerifyEvent
	runWebhooks(t, p.server)
	r.await(t, 1)
	if got := r.events(); len(got) != 1 || got[0].Type != "setup.failed" {
		t.Errorf("got %v", got)
	}
}
