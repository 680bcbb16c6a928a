package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/postgres/embedded"
)

// ingestCrash is a service on a PostgreSQL of its own that syncs; both are killed while partners report
// usage and repeat what was not answered.
type ingestCrash struct {
	*deployment
	postgres string // data folder
	server   *embedded.Server
	dsn      string

	mu   sync.Mutex
	proc *process
}

func newIngestCrash(t *testing.T) *ingestCrash {
	t.Helper()
	c := &ingestCrash{postgres: filepath.Join(t.TempDir(), "postgres")}
	c.startDatabase(t)
	t.Cleanup(func() { _ = c.server.Stop(context.Background()) })
	if err := c.server.EnsureDatabase(t.Context(), "accrue"); err != nil {
		t.Fatal(err)
	}
	c.dsn = c.server.DSN("accrue")
	c.deployment = newDeployment(t, binary(t, "faults"), "--database-url="+c.dsn, "--log-level=info")
	c.startService(t)
	t.Cleanup(func() { c.service().kill() })
	return c
}

func (c *ingestCrash) startDatabase(t *testing.T) {
	t.Helper()
	var err error
	if c.server, err = embedded.Start(t.Context(), embedded.Config{DataDir: c.postgres}); err != nil {
		t.Fatal(err)
	}
}

// stopDatabase stops PostgreSQL as a power cut does: nothing is written that is not written yet.
func (c *ingestCrash) stopDatabase(t *testing.T) {
	t.Helper()
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.server.Stop(now); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	<-c.server.Done()
}

func (c *ingestCrash) startService(t *testing.T) {
	t.Helper()
	p, err := c.deployment.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.proc = p
}

func (c *ingestCrash) service() *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proc
}

// partner reports usage of one account, one batch after the other, and remembers what it reported.
type partner struct {
	name   string
	token  string
	rng    *rand.Rand
	client *http.Client

	sent    []reported // acknowledged, in the order in which they were reported
	repeats int        // batches that were sent again since no answer came
}

type reported struct {
	id      string
	tenths  int64
	project int
	at      string // within the account's first period, which began with the day on which it was opened
}

func (r reported) String() string {
	return fmt.Sprintf(`{"id":%q,"source":"media","meter":"voice","quantity":"%d.%d","timestamp":%q,"dimensions":{"project":"p%d"}}`,
		r.id, r.tenths/10, r.tenths%10, r.at, r.project)
}

// report sends batches until stop is closed, and its last one until it is answered.
func (p *partner) report(ctx context.Context, c *ingestCrash, stop <-chan struct{}) error {
	now := time.Now().UTC().Format(time.RFC3339)
	for n := 0; ; n++ {
		select {
		case <-stop:
			return nil
		default:
		}
		fresh := make([]reported, 1+p.rng.IntN(50))
		for i := range fresh {
			fresh[i] = reported{fmt.Sprintf("%s-%d-%d", p.name, n, i), p.rng.Int64N(6000), p.rng.IntN(4), now}
		}
		batch := append([]reported{}, fresh...)
		for range p.rng.IntN(5) { // and some that are there already
			if len(p.sent) > 0 {
				batch = append(batch, p.sent[p.rng.IntN(len(p.sent))])
			}
		}
		p.rng.Shuffle(len(batch), func(i, j int) { batch[i], batch[j] = batch[j], batch[i] })
		if err := p.deliver(ctx, c, batch); err != nil {
			return err
		}
		p.sent = append(p.sent, fresh...)
	}
}

// deliver sends a batch again and again until every event of it is acknowledged.
func (p *partner) deliver(ctx context.Context, c *ingestCrash, batch []reported) error {
	texts := make([]string, len(batch))
	for i, e := range batch {
		texts[i] = e.String()
	}
	body := []byte(`{"events":[` + strings.Join(texts, ",") + `]}`)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := p.try(ctx, c.service().api, body, len(batch))
		if !errors.Is(err, errAgain) {
			return err
		}
		p.repeats++
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: never acknowledged: %w\n%s", p.name, err, c.service().log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// errAgain says that nothing is known of a batch, or that it is to be sent again.
var errAgain = errors.New("again")

func (p *partner) try(ctx context.Context, api string, body []byte, n int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/v1/usage/events", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+p.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", errAgain, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %w", errAgain, err)
	case resp.StatusCode >= 500:
		return fmt.Errorf("%w: %d %s", errAgain, resp.StatusCode, answer)
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("%s: %d %s", p.name, resp.StatusCode, answer)
	}
	var got struct{ Accepted, Duplicates int }
	if err := json.Unmarshal(answer, &got); err != nil || got.Accepted+got.Duplicates != n {
		return fmt.Errorf("%s: %d events were answered by %s (%w)", p.name, n, answer, err)
	}
	return nil
}

// Whatever is killed whenever, what was acknowledged is there once, and what the roll-ups say is what
// the partners reported.
func TestCrash_AcknowledgedUsageIsThereOnce(t *testing.T) {
	t.Parallel()

	rounds, pause := 3, 400*time.Millisecond
	if full() {
		rounds, pause = 40, time.Second
	}
	c := newIngestCrash(t)
	var partners []*partner
	for i := range 8 {
		p := &partner{
			name: fmt.Sprintf("partner-%d", i), rng: rand.New(rand.NewPCG(seed, uint64(i))),
			client: &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{}},
		}
		t.Cleanup(p.client.CloseIdleConnections)
		p.token = c.token(t, fmt.Sprintf("account-%d", i/2)) // two partners share an account
		partners = append(partners, p)
		if _, err := c.service().get(t.Context(), "/v1/usage", p.token); err != nil {
			t.Fatal(err)
		}
	}
	unlimit(t, c.dsn)

	stop := make(chan struct{})
	failed := make(chan error, len(partners))
	for _, p := range partners {
		go func() { failed <- p.report(t.Context(), c, stop) }()
	}
	rng := rand.New(rand.NewPCG(seed, 99))
	wait := func() { time.Sleep(pause/2 + time.Duration(rng.Int64N(int64(pause)))) }
	for range rounds {
		wait()
		c.service().kill()
		c.startService(t)
		wait()
		c.stopDatabase(t)
		c.startDatabase(t) // the service finds it again by itself
	}
	wait()
	close(stop)
	for range partners {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	c.checkUsage(t, partners)
	c.checkBooks(t)
}

// read asks as often as a 503 tells it to: the service may still have connections to the database that has gone, each of
// which is found out by the request that meets it.
func (c *ingestCrash) read(t *testing.T, path, token string) []byte {
	t.Helper()
	const connections = 16
	for n := 0; ; n++ {
		answer, err := c.service().get(t.Context(), path, token)
		if err == nil {
			return answer
		}
		if n == connections || !strings.Contains(err.Error(), " 503 ") {
			t.Fatal(err)
		}
	}
}

func unlimit(t *testing.T, dsn string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	if _, err := conn.Exec(t.Context(), "UPDATE entitlements SET limits = '{}', version = version + 1"); err != nil {
		t.Fatal(err)
	}
}

// checkUsage recounts naively what the partners had acknowledged, and compares it with the raw events,
// the identities, every kind of roll-up and the API's answer.
func (c *ingestCrash) checkUsage(t *testing.T, partners []*partner) {
	t.Helper()
	want, tenths, repeats := map[string]int64{}, map[int]int64{}, 0
	var sum int64
	for i, p := range partners {
		for _, e := range p.sent {
			want[e.id] = e.tenths
			tenths[i/2] += e.tenths
			sum += e.tenths
		}
		repeats += p.repeats
	}
	if repeats == 0 || len(want) < 100 {
		t.Errorf("%d events, %d batches repeated: the kills caught nothing", len(want), repeats)
	}
	t.Logf("%d events acknowledged, %d batches repeated", len(want), repeats)

	pool, err := pgxpool.New(t.Context(), c.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	rows, err := pool.Query(t.Context(), "SELECT event_id, (quantity * 10)::bigint FROM usage_events")
	if err != nil {
		t.Fatal(err)
	}
	stored := map[string]int64{}
	var id string
	var q int64
	_, err = pgx.ForEachRow(rows, []any{&id, &q}, func() error {
		if _, twice := stored[id]; twice {
			t.Errorf("%s is stored twice", id)
		}
		stored[id] = q
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for id, q := range want {
		if got, ok := stored[id]; !ok || got != q {
			t.Errorf("%s was acknowledged with %d tenths; stored: %v, %d", id, q, ok, got)
		}
	}
	if len(stored) != len(want) {
		t.Errorf("%d events are stored, %d were acknowledged", len(stored), len(want))
	}
	for name, query := range map[string]string{
		"identities": "SELECT count(*), 0 FROM usage_event_keys",
		"totals":     "SELECT sum(events), sum(quantity) * 10 FROM usage_totals",
		"series":     "SELECT sum(events), sum(quantity) * 10 FROM usage_series_totals",
		"buckets":    "SELECT sum(events), sum(quantity) * 10 FROM usage_buckets",
	} {
		var events, quantity int64
		if err := pool.QueryRow(t.Context(), "SELECT x.a::bigint, x.b::bigint FROM ("+query+") x (a, b)").Scan(&events, &quantity); err != nil {
			t.Fatal(err)
		}
		if events != int64(len(want)) || (name != "identities" && quantity != sum) {
			t.Errorf("%s say %d events and %d tenths, want %d and %d", name, events, quantity, len(want), sum)
		}
	}
	for i, want := range tenths {
		answer := c.read(t, "/v1/usage?meter=voice", partners[2*i].token)
		digits := strings.TrimSuffix(fmt.Sprintf("%d.%d", want/10, want%10), ".0")
		if !strings.Contains(string(answer), `"quantity":"`+digits+`"`) {
			t.Errorf("account %d has used %s, the API says %s", i, digits, answer)
		}
	}
}

// checkBooks has the program check itself, as an operator would.
func (c *ingestCrash) checkBooks(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c.program, "check", "--database-url="+c.dsn, "--data-dir="+c.dir,
		"--sandbox-addr="+strings.TrimPrefix(c.service().sandbox, "http://"))
	cmd.Env = append(os.Environ(), "ACCRUE_API_KEY_PEPPER="+pepper)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "14 of 14") {
		t.Errorf("accrue check: %v\n%s", err, out)
	}
}
