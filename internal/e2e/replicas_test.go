package e2e_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/failpoint"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
)

// replica is one of several instances of the service.
type replica struct {
	*deployment
	mu   sync.Mutex
	proc *process
}

func (r *replica) api() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.proc.api
}

// begin starts the instance, again after it has ended.
func (r *replica) begin(ctx context.Context) error {
	p, err := r.start(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.proc = p
	return nil
}

// beside starts a second instance on the harness's database, whose provider the first plays.
func (h *harness) beside(sandbox string) *replica {
	h.t.Helper()
	second := *h.deployment
	second.points += "-2"
	second.args = append(append([]string{}, h.args...), "--sandbox-addr=127.0.0.1:0", "--sandbox-url=http://"+sandbox)
	r := &replica{deployment: &second}
	h.must(r.begin(h.t.Context()))
	h.t.Cleanup(func() { r.proc.kill() })
	return r
}

// Two instances do the same things at the same time, and one of them dies and comes back meanwhile, by SIGKILL first
// and then as it is told to. Whatever was asked for happened once, and what one has done the other tells.
func TestReplicas_ShareTheWork(t *testing.T) {
	t.Parallel()
	addr := freeAddress(t)
	h := newHarness(t, binary(t, "faults"), "--sandbox-addr="+addr)
	second := h.beside(addr)
	first := func() string { return h.proc.api }
	ctx := t.Context()

	rng := rand.New(rand.NewPCG(seed, 0))
	intents := h.intents(8, func() *intent {
		return h.newIntent([]failpoint.Op{failpoint.TopUp, failpoint.Upgrade, failpoint.AddCard, failpoint.Refund}[rng.IntN(4)], rng)
	})
	billed := h.intents(6, func() *intent {
		in := &intent{patron: h.withUsage(), op: failpoint.Collect}
		in.charges = []int64{usedCost}
		in.verify = func(ctx context.Context, h *harness) []string {
			return h.count(ctx, in, 1, "SELECT count(*) FROM invoices WHERE account_id = $1 AND status = 'paid' AND kind = 'cycle'")
		}
		h.turnClock(ctx, in.account.ID)
		return in
	})
	reporter := h.newPatron(h.pro(time.Time{}), plan.Pro, 1)
	heard := h.listen(first(), reporter.token)

	stop, reports := make(chan struct{}), sync.WaitGroup{}
	var batches [4]int // the even ones are those of the first instance, and each is followed by the same of the second
	var again atomic.Int64
	for i := range batches {
		api := []func() string{first, second.api}[i%2]
		reports.Go(func() { batches[i] = h.reportUntil(stop, api, reporter, i/2, &again) })
	}
	var asked sync.WaitGroup
	for _, in := range intents {
		for _, api := range []func() string{first, second.api} {
			asked.Go(func() {
				if got, err := send(ctx, h.web, api(), in); err == nil {
					h.answered(in, got)
				}
			})
		}
	}
	for _, api := range []func() string{first, second.api, first} {
		asked.Go(func() { // what is due is done by all of them at once
			_, _ = send(ctx, h.web, api(), &intent{patron: reporter, by: h.operator, path: "/v1/admin/sweeps", key: uuid.NewString()})
		})
	}
	time.Sleep(time.Duration(20+rng.IntN(60)) * time.Millisecond)
	second.proc.kill()
	h.must(second.begin(ctx))
	asked.Wait()
	h.settle(ctx, intents)
	for _, in := range billed {
		h.nothingWaits(ctx, in)
		for _, f := range in.verify(ctx, h) {
			h.fault("%s: %s", in.account.ID, f)
		}
	}
	h.checkCharges(ctx, billed)
	for _, in := range intents { // the other instance says the same
		got, err := send(ctx, h.web, second.api(), in)
		if err != nil {
			t.Fatal(err)
		}
		h.compare(in, got)
	}

	// Told to end, an instance answers what it has taken.
	second.proc.end()
	if second.proc.err != nil {
		t.Errorf("told to end: %v\n%s", second.proc.err, second.proc.log)
	}
	h.must(second.begin(ctx))
	top := h.newPatron(reporter.account, plan.Pro, 1)
	got, err := send(ctx, h.web, second.api(), &intent{patron: top, path: "/v1/top-ups", key: uuid.NewString(), body: encoded(object{"amount": object{"amount": 700, "currency": "USD"}})})
	if err != nil || got.status != http.StatusCreated {
		t.Fatalf("a top-up: %+v, %v", got, err)
	}
	heard("payment.succeeded")
	close(stop)
	reports.Wait()
	heard("usage.updated")
	if again.Load() == 0 {
		t.Error("nobody had to report again: the moments are badly chosen")
	}
	var events, total int64
	if err := h.owner.QueryRow(ctx, `SELECT (SELECT count(*) FROM usage_events WHERE account_id = $1 AND meter = 'text'),
		(SELECT quantity::bigint FROM usage_totals WHERE account_id = $1 AND meter = 'text')`, reporter.account.ID).Scan(&events, &total); err != nil {
		t.Fatal(err)
	}
	if want := int64(batchSize * (max(batches[0], batches[1]) + max(batches[2], batches[3]))); events != want || total != want {
		t.Errorf("%d events were reported; %d are stored, and count as %d", want, events, total)
	}
	h.checkBooks()
	h.report()
}

// Whatever changes what an account may use, through one instance: another, which answers from memory, says so within a second.
func TestReplicas_AnswerEntitlementsAtMostASecondOld(t *testing.T) {
	t.Parallel()
	addr := freeAddress(t)
	h := newHarness(t, binary(t, "faults"), "--sandbox-addr="+addr)
	second := h.beside(addr)
	p := h.newPatron(h.open(time.Time{}), plan.Developer, 0)
	here, there := newCustomer(t, h.proc.api, p.token), newCustomer(t, second.api(), p.token)
	use := func(quantity int) {
		t.Helper()
		here.post("/v1/usage/events", object{"events": []object{
			{"id": uuid.NewString(), "meter": "voice", "quantity": quantity, "timestamp": time.Now().UTC().Format(time.RFC3339Nano)},
		}}).want(http.StatusOK).says("accepted", "results", 0, "status")
	}
	there.get("/v1/entitlements/voice").want(http.StatusOK).says("60000", "limit").says("0", "used")
	deaf := 0
	for _, c := range []struct {
		name   string
		change func()
		says   string
		at     string
	}{
		{"usage", func() { use(100) }, "100", "used"},
		{"a reservation", func() {
			here.post("/v1/usage/reservations", object{"meter": "voice", "quantity": "500"}).want(http.StatusCreated)
		}, "500", "reserved"},
		{"a correction", func() {
			here.post("/v1/usage/events", object{"events": []object{
				{"id": "wrong", "source": "test", "meter": "voice", "quantity": 7, "timestamp": time.Now().UTC().Format(time.RFC3339Nano)},
			}}).want(http.StatusOK)
			here.post("/v1/usage/corrections", object{"action": "amend", "source": "test", "id": "wrong", "quantity": "3", "reason": "it was otherwise"}).want(http.StatusCreated)
		}, "103", "used"},
		{"a plan", func() {
			here.post("/v1/upgrades", object{"plan": "pro", "payment_method": object{"token": sandbox.TokenVisa}, "billing_profile": profileBody()}).want(http.StatusCreated)
		}, "<nil>", "limit"},
		{"a limit", func() {
			use(90_000)
			tag := here.get("/v1/spend-limit").want(http.StatusOK).header.Get("ETag")
			here.with("If-Match", tag).do(http.MethodPut, "/v1/spend-limit", object{"amount": object{"amount": 100, "currency": "USD"}}).want(http.StatusOK)
		}, "spend_limit_reached", "reason"},
	} {
		// It is remembered, and nobody hears of the change: what tells of changes is cut.
		there.get("/v1/entitlements/voice").want(http.StatusOK)
		var cut int
		h.must(h.owner.QueryRow(t.Context(), `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE 'LISTEN %'`).Scan(&cut))
		deaf += cut
		c.change()
		changed := time.Now()
		for {
			asked := time.Now()
			got := fmt.Sprint(there.get("/v1/entitlements/voice").want(http.StatusOK).at(c.at))
			if got == c.says {
				break
			}
			if age := asked.Sub(changed); age > time.Second {
				t.Errorf("%s after %s the other instance says %s of %q, want %s", age, c.name, got, c.at, c.says)
				break
			}
		}
	}
	if deaf == 0 {
		t.Error("nobody listened to what tells of changes: the test shows less than it says")
	}
	h.checkBooks()
	h.report()
}

// answered holds an answer to what is due, and to that of the other instance.
func (h *harness) answered(in *intent, got answer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case got.status == http.StatusServiceUnavailable, got.status == http.StatusConflict && got.code() == "idempotency_in_progress":
	case got.status != in.want:
		h.faults = append(h.faults, fmt.Sprintf("%s of %s answered %d, want %d: %s", in.op, in.account.ID, got.status, in.want, got.body))
	case in.got != nil && in.got.body != got.body:
		h.faults = append(h.faults, fmt.Sprintf("%s of %s was answered differently:\n%s\n%s", in.op, in.account.ID, in.got.body, got.body))
	default:
		in.got = &got
	}
}

const batchSize = 5 // events

// reportUntil reports one batch of a series after the other, each until it is acknowledged, and returns how many.
func (h *harness) reportUntil(stop <-chan struct{}, api func() string, p *patron, series int, again *atomic.Int64) (n int) {
	ctx := h.t.Context()
	for ; ; n++ {
		select {
		case <-stop:
			return n
		default:
		}
		events := make([]object, batchSize)
		for i := range events {
			events[i] = object{"id": fmt.Sprintf("%d-%d-%d", series, n, i), "meter": "text", "quantity": 1, "timestamp": p.account.CreatedAt.Format(time.RFC3339Nano)}
		}
		in := &intent{patron: p, path: "/v1/usage/events", body: encoded(object{"events": events})}
		for {
			got, err := send(ctx, h.web, api(), in)
			if err == nil && got.status == http.StatusOK {
				if strings.Contains(got.body, "conflict\"") || !strings.Contains(got.body, `"rejected":0`) {
					h.fault("usage was answered %s", got.body)
				}
				break
			}
			if err == nil && got.status != http.StatusServiceUnavailable || ctx.Err() != nil {
				h.fault("usage was answered %+v, %v", got, err)
				return n
			}
			again.Add(1)
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// listen opens an account's stream of events. What it returns waits for one of a name.
func (h *harness) listen(api, token string) func(event string) {
	h.t.Helper()
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, api+"/v1/events/stream", http.NoBody)
	h.must(err)
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := (&http.Client{}).Do(r)
	h.must(err)
	if res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(res.Body)
		h.t.Fatalf("the stream is answered %d %s", res.StatusCode, body)
	}
	names := make(chan string, 10_000)
	go func() {
		defer close(names)
		defer func() { _ = res.Body.Close() }()
		for lines := bufio.NewScanner(res.Body); lines.Scan(); {
			if name, ok := bytes.CutPrefix(lines.Bytes(), []byte("event: ")); ok {
				names <- string(name)
			}
		}
	}()
	return func(event string) {
		h.t.Helper()
		limit := time.After(10 * time.Second)
		for {
			select {
			case name, ok := <-names:
				if !ok {
					h.must(errors.New("the stream ended"))
				}
				if name == event {
					return
				}
			case <-limit:
				h.t.Fatalf("the stream does not tell of %s", event)
			}
		}
	}
}
