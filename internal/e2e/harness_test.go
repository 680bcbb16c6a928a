package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/failpoint"
	"github.com/accrue-billing/accrue/internal/invariant"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// harness kills the service in the middle of operations and finds out what became of them.
//
// It stands beside the service on the same database and the same provider: it prepares accounts through
// the operations directly, has the operation under test done over HTTP, and sweeps once where a real
// deployment's sweep would come round.
type harness struct {
	*deployment
	t       *testing.T
	proc    *process
	db      *postgres.DB
	owner   *pgxpool.Pool
	core    *billing.Core
	gateway *sandbox.Client
	web     *http.Client

	operator string    // a token of the operator's staff
	waiting  []*patron // for something to want

	kills, caught int
	mu            sync.Mutex
	faults        []string
}

// publicURL is where the service would be reached from outside.
const publicURL = "https://billing.example.com"

func newHarness(t *testing.T, program string, args ...string) *harness {
	t.Helper()
	return newHarnessOn(t, program, postgrestest.DSN(t), args...)
}

// newHarnessOn is newHarness on a migrated database of the test's choice.
func newHarnessOn(t *testing.T, program, dsn string, args ...string) *harness {
	t.Helper()
	h := &harness{t: t, owner: postgrestest.Connect(t, dsn)}
	var err error
	if h.db, err = postgres.Open(t.Context(), postgres.Config{URL: dsn, MaxConns: 8}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.db.Close)
	// Few connections: every kill takes the database's processes along, and new ones are what a kill costs most.
	conns := 5
	if full() { // where five operations meet, each with a transaction open, and the provider's events wait for them
		conns = 12
	}
	h.deployment = newDeployment(t, program, append([]string{
		"--database-url=" + dsn, fmt.Sprintf("--database-conns=%d", conns), "--no-migrate-on-start", "--log-level=info", "--invoice-grace=0s", "--public-url=" + publicURL,
		"--return-url=" + publicURL,
	}, args...)...)
	h.operator = h.deployment.token(t, "")
	h.core = &billing.Core{DB: h.db, Clock: clock.System, Policy: billing.DefaultPolicy(), Log: slog.New(slog.DiscardHandler)}
	h.core.Policy.Grace, h.core.Policy.ReturnURL = 0, publicURL // as the service has them
	h.web = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: 32}}
	t.Cleanup(h.web.CloseIdleConnections)
	h.restart()
	t.Cleanup(func() { h.proc.kill() })
	return h
}

// restart starts the service after it was killed, or for the first time, with no failpoint armed.
func (h *harness) restart() {
	h.t.Helper()
	if err := h.arm(""); err != nil {
		h.t.Fatal(err)
	}
	var err error
	if h.proc, err = h.deployment.start(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	if h.gateway != nil {
		h.gateway.Close()
	}
	if h.gateway, err = h.proc.gateway(); err != nil {
		h.t.Fatal(err)
	}
	h.core.Gateway = h.gateway
}

// fault notes that something is wrong with the service, for the test to report or to expect.
func (h *harness) fault(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = append(h.faults, fmt.Sprintf(format, args...))
}

// must ends the test: what the harness needs for itself does not work.
func (h *harness) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// answer is what a caller got.
type answer struct {
	status   int
	replayed bool
	body     string
}

func (a answer) code() string {
	var p struct{ Code string }
	_ = json.Unmarshal([]byte(a.body), &p) // no problem has no code
	return p.Code
}

// errCut says that the connection broke before the answer came: the caller knows nothing.
var errCut = errors.New("no answer")

// ask sends the intent's request, always the same.
func (h *harness) ask(ctx context.Context, in *intent) (answer, error) {
	return send(ctx, h.web, h.proc.api, in)
}

// killer ends the service some time after it was called, and returns when it is gone.
type killer func(ctx context.Context) error

// atPoint ends it when so many operations have reached the failpoint.
func (h *harness) atPoint(line string) killer {
	h.must(h.arm(line))
	return func(context.Context) error {
		select {
		case <-h.proc.gone:
			return nil
		case <-time.After(20 * time.Second):
			return fmt.Errorf("%q was never reached\n%s", line, h.proc.log)
		}
	}
}

// after ends it after a while, wherever it is then.
func (h *harness) after(d time.Duration) killer {
	return func(ctx context.Context) error {
		select {
		case <-time.After(d):
			h.proc.kill()
			return nil
		case <-h.proc.gone:
			return fmt.Errorf("the service ended by itself: %w\n%s", h.proc.err, h.proc.log)
		}
	}
}

// trial has the intents done at the same time, the service killed meanwhile, and everything looked into
// afterwards. sweepFirst says whether the callers come back before or after the sweep.
func (h *harness) trial(intents []*intent, kill killer, sweepFirst bool) {
	h.t.Helper()
	ctx := h.t.Context()
	var wg sync.WaitGroup
	for _, in := range intents {
		wg.Go(func() {
			if in.delay > 0 {
				time.Sleep(in.delay)
			}
			got, err := h.ask(ctx, in)
			if err == nil {
				in.got = &got
			}
		})
	}
	h.must(kill(ctx))
	wg.Wait()
	h.kills++
	for _, in := range intents {
		if in.got == nil {
			h.caught++
		}
	}
	h.restart()
	if !sweepFirst {
		h.each(intents, func(in *intent) { h.comeBackAtOnce(ctx, in) })
	}
	h.passTime(ctx, intents)
	_, err := billing.Sweeper{Core: h.core}.Sweep(ctx)
	h.must(err)
	h.inspect(ctx, intents)
}

// inspect holds everything to what was meant, after a sweep: nothing waits, every caller who comes back is
// answered, all is there and nothing is there twice.
func (h *harness) inspect(ctx context.Context, intents []*intent) {
	h.t.Helper()
	h.each(intents, func(in *intent) {
		h.nothingWaits(ctx, in)
		h.comeBack(ctx, in)
		for _, f := range in.check(ctx, h) {
			h.fault("%s of %s: %s", in.op, in.account.ID, f)
		}
	})
	h.checkCharges(ctx, intents)
	for _, in := range intents {
		if in.did != nil && in.got != nil {
			in.did(*in.got)
		}
		if in.op != failpoint.PayInvoice { // whose account lives on a clock of its own
			h.waiting = append(h.waiting, in.patron)
		}
	}
}

func (h *harness) each(intents []*intent, fn func(*intent)) {
	var wg sync.WaitGroup
	for _, in := range intents {
		wg.Go(func() { fn(in) })
	}
	wg.Wait()
}

// comeBackAtOnce repeats the request right after the restart. What the dead process held is held for a
// while, and then the caller is told to wait; anything else must be the answer.
func (h *harness) comeBackAtOnce(ctx context.Context, in *intent) {
	got, err := h.ask(ctx, in)
	switch {
	case err != nil:
		h.fault("%s of %s, asked again at once: %v", in.op, in.account.ID, err)
	case got.status == http.StatusConflict && got.code() == "idempotency_in_progress":
	default:
		h.compare(in, got)
	}
}

// comeBack repeats the request until it is answered, and twice more: every answer is the same.
func (h *harness) comeBack(ctx context.Context, in *intent) {
	for range 3 {
		got, err := h.ask(ctx, in)
		if err != nil {
			h.fault("%s of %s, asked again: %v", in.op, in.account.ID, err)
			return
		}
		h.compare(in, got)
	}
}

// compare holds an answer to what is due, and to what was answered before.
func (h *harness) compare(in *intent, got answer) {
	if got.status != in.want && !slices.Contains(in.may, got.status) {
		h.fault("%s of %s answered %d, want %d: %s", in.op, in.account.ID, got.status, in.want, got.body)
		return
	}
	if in.got != nil && in.key != "" && got.body != in.got.body {
		h.fault("%s of %s was answered differently:\n%s\n%s", in.op, in.account.ID, in.got.body, got.body)
	}
	if in.got != nil && in.key != "" && !got.replayed {
		h.fault("%s of %s does not say that it was answered before", in.op, in.account.ID)
	}
	in.got = &got
}

// passTime makes due what waits for a while: the leases of keys, and the looks at the provider.
func (h *harness) passTime(ctx context.Context, intents []*intent) {
	h.t.Helper()
	accounts := make([]string, len(intents))
	for i, in := range intents {
		accounts[i] = in.account.ID.UUID().String()
	}
	for _, sql := range []string{
		"UPDATE idempotency_keys SET locked_until = now() - interval '1 second' WHERE status IS NULL AND account_id = ANY($1::uuid[])",
		"UPDATE payments SET check_at = now() - interval '1 second' WHERE status = 'processing' AND account_id = ANY($1::uuid[])",
		"UPDATE payment_methods SET check_at = now() - interval '1 second' WHERE status = 'processing' AND account_id = ANY($1::uuid[])",
		"UPDATE refunds SET check_at = now() - interval '1 second' WHERE status = 'processing' AND account_id = ANY($1::uuid[])",
	} {
		_, err := h.owner.Exec(ctx, sql, accounts)
		h.must(err)
	}
}

// nothingWaits finds what one sweep has left open. The service sweeps at its start, too, so ours may have
// left to it what it had in hand: it gets the moment to finish.
func (h *harness) nothingWaits(ctx context.Context, in *intent) {
	var open []string
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		err := h.owner.QueryRow(ctx, `SELECT coalesce(array_agg(what), '{}') FROM (
			SELECT 'payment ' || id AS what FROM payments WHERE account_id = $1 AND status = 'processing'
			UNION ALL SELECT 'card ' || id FROM payment_methods WHERE account_id = $1 AND status = 'processing'
			UNION ALL SELECT 'refund ' || id FROM refunds WHERE account_id = $1 AND status = 'processing'
			UNION ALL SELECT 'top-up ' || id FROM top_ups WHERE account_id = $1 AND status = 'processing'
			UNION ALL SELECT 'upgrade ' || id FROM upgrades WHERE account_id = $1 AND status = 'processing'
			UNION ALL SELECT 'invoice ' || id FROM invoices WHERE account_id = $1 AND status = 'open' AND next_attempt_at IS NOT NULL) open`,
			in.account.ID).Scan(&open)
		if err != nil {
			h.fault("%v", err)
			return
		}
		if len(open) == 0 {
			return
		}
	}
	for _, what := range open {
		h.fault("%s of %s: %s is still open after a sweep", in.op, in.account.ID, what)
	}
}

// checkCharges holds what the provider has taken and given back to what was meant, cent by cent.
func (h *harness) checkCharges(ctx context.Context, intents []*intent) {
	taken, refunded := map[string][]int64{}, map[string]int64{}
	since := slices.MinFunc(intents, func(a, b *intent) int { return a.account.CreatedAt.Compare(b.account.CreatedAt) }).account.CreatedAt
	for c, err := range h.gateway.ListCharges(ctx, since.Add(-time.Minute), time.Now().Add(time.Hour)) {
		h.must(err)
		if c.Outcome == "succeeded" {
			taken[c.AccountRef] = append(taken[c.AccountRef], c.Amount.Minor)
			refunded[c.AccountRef] += c.Refunded.Minor
		}
	}
	for _, in := range intents {
		a := in.account.ID.String()
		got, want := taken[a], slices.Clone(in.charges)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			h.fault("%s of %s: the provider has taken %d, want %d", in.op, a, got, want)
		}
		if refunded[a] != in.refunds {
			h.fault("%s of %s: the provider has given back %d, want %d", in.op, a, refunded[a], in.refunds)
		}
	}
}

// checkBooks holds everything to the invariants, 14 of 14.
func (h *harness) checkBooks() {
	h.t.Helper()
	results, err := invariant.Run(h.t.Context(), h.db, invariant.Options{Gateway: h.gateway})
	h.must(err)
	for _, r := range results {
		for _, f := range r.Findings {
			h.fault("%s (%s): %s", r.ID, r.Title, f)
		}
	}
	if passed, made := invariant.Passed(results); made != 14 || passed != made {
		h.fault("%d of %d invariants hold, want 14 of 14", passed, made)
	}
}

// report fails the test for every fault.
func (h *harness) report() {
	h.t.Helper()
	for _, f := range h.faults {
		h.t.Error(f)
	}
	h.t.Logf("%d kills caught %d operations", h.kills, h.caught)
}

// open opens an account that lives on a test clock from now on if it is to see a period's end.
func (h *harness) open(clockAt time.Time) account.Account {
	a, err := billing.Opener{Core: h.core}.Open(context.Background(), billing.NewAccount{ClockAt: clockAt})
	h.must(err)
	return a
}
