package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// frugal starts a service that collects its garbage at once, so that its peak of memory tells what it holds, and
// returns it with a token of an account without limits.
func frugal(t *testing.T) (service *process, pool *pgxpool.Pool, token string) {
	t.Helper()
	_, dsn := postgrestest.NewWithDSN(t)
	pool = postgrestest.Connect(t, dsn)
	d := newDeployment(t, binary(t, "faults"), "--database-url="+dsn, "--log-level=info")
	d.env = []string{"GOGC=20"}
	service, err := d.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.kill)
	return service, pool, d.unlimited(t, service, pool, "frugal")
}

// An export is sent while it is read: what the service holds of it does not grow with the number of events.
func TestExport_MemoryStaysFlat(t *testing.T) {
	t.Parallel()
	events := 100_000
	if full() {
		events = 1_000_000
	}
	service, pool, token := frugal(t)
	const store = `
INSERT INTO usage_events (account_id, received_at, key, source, event_id, meter, quantity, occurred_at, period_start, series, dimensions)
SELECT (SELECT id FROM accounts), now(), gen_random_uuid(), 'media-eu-1', 'call-' || i, 'voice', i, date_trunc('day', now()) + i * interval '1 ms',
       date_trunc('day', now()), '00000000-0000-0000-0000-000000000000', '{"project": "helpdesk"}'
FROM generate_series(1, $1) AS i`
	if _, err := pool.Exec(t.Context(), store, events); err != nil {
		t.Fatal(err)
	}
	export := func(format, to string) (lines int, size int64) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, service.api+"/v1/usage/export?format="+format+to, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		buf := make([]byte, 64<<10)
		for {
			n, err := resp.Body.Read(buf)
			lines, size = lines+bytes.Count(buf[:n], []byte("\n")), size+int64(n)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return lines, size
	}
	few := "&to=" + time.Now().UTC().Truncate(24*time.Hour).Add(time.Duration(events/20)*time.Millisecond).Format(time.RFC3339Nano)
	for _, f := range []struct {
		format string
		header int
	}{{"ndjson", 0}, {"csv", 1}} {
		if n, _ := export(f.format, few); n == 0 || n >= events {
			t.Fatalf("a twentieth of %d events are %d lines of %s", events, n, f.format)
		}
		before := service.resident(t)
		n, size := export(f.format, "")
		if n != events+f.header {
			t.Errorf("%d lines of %s, want %d", n, f.format, events+f.header)
		}
		grown := service.resident(t) - before
		t.Logf("%s: %d kB were sent; the peak of memory was %d kB before and grew by %d kB", f.format, size>>10, before, grown)
		if most := 4 << 10; grown > most {
			t.Errorf("%s: the peak of memory grew by %d kB over an export of %d kB, want at most %d kB", f.format, grown, size>>10, most)
		}
	}
}

// While the database is stalled, what comes in is refused, with Retry-After, before memory grows. What was refused and
// is sent again, and what waited, is counted once.
func TestBackPressure_AStalledDatabaseRefusesBeforeMemoryGrows(t *testing.T) {
	t.Parallel()
	service, pool, token := frugal(t)
	stall, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stall.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := stall.Exec(t.Context(), "SELECT 1 FROM entitlements FOR UPDATE"); err != nil {
		t.Fatal(err)
	}

	var refused, accepted atomic.Int64
	pressed := make(chan struct{})
	const enough = 30 // refusals
	send := func(body []byte) (done bool, wait time.Duration) {
		status, header, answer, err := service.report(t.Context(), token, body)
		switch {
		case err != nil:
			t.Errorf("%v", err)
			return true, 0
		case status == http.StatusOK:
			var a struct{ Accepted, Duplicates int64 }
			if err := json.Unmarshal(answer, &a); err != nil {
				t.Error(err)
			}
			accepted.Add(a.Accepted + a.Duplicates)
			return true, 0
		case status != http.StatusServiceUnavailable && status != http.StatusTooManyRequests:
			t.Errorf("%d %s", status, answer)
			return true, 0
		}
		if refused.Add(1) == enough {
			close(pressed)
		}
		wait, err = time.ParseDuration(header.Get("Retry-After") + "s")
		if err != nil || wait <= 0 {
			t.Errorf("%d without a Retry-After: %s", status, answer)
		}
		return false, wait
	}
	var all sync.WaitGroup
	want := int64(0)
	for sender, size := range senders() {
		want += int64(size)
		var body strings.Builder
		for i := range size {
			_, _ = fmt.Fprintf(&body, `{"id":"%d-%d","meter":"voice","quantity":"1","timestamp":%q}`+"\n", sender, i, time.Now().UTC().Format(time.RFC3339))
		}
		all.Go(func() {
			for {
				done, wait := send([]byte(body.String()))
				if done {
					return
				}
				time.Sleep(wait) // as it was told
			}
		})
	}
	<-pressed
	t.Logf("while the database is stalled: %d refused, %d accepted, peak of memory %d kB", refused.Load(), accepted.Load(), service.resident(t))
	if n := accepted.Load(); n > 0 {
		t.Errorf("%d events were acknowledged that cannot have been stored", n)
	}
	if peak := service.resident(t); peak > maxResident {
		t.Errorf("the service took %d kB, want at most %d kB", peak, maxResident)
	}
	if err := stall.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	var counted int64
	if err := pool.QueryRow(t.Context(), "SELECT coalesce(sum(quantity), 0)::bigint FROM usage_totals").Scan(&counted); err != nil {
		t.Fatal(err)
	}
	if counted != want || accepted.Load() != want {
		t.Errorf("%d events acknowledged and %d counted of %d", accepted.Load(), counted, want)
	}
}

// senders returns how many events each of many senders has: some send large batches, most single events.
func senders() (sizes []int) {
	for range 60 {
		sizes = append(sizes, 1000)
	}
	for range 500 {
		sizes = append(sizes, 1)
	}
	return sizes
}

func (p *process) report(ctx context.Context, token string, body []byte) (status int, header http.Header, answer []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.api+"/v1/usage/events", bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/x-ndjson")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, answer, err
}
