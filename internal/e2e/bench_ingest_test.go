package e2e_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/postgres/embedded"
)

// BenchmarkIngest measures the whole service, as a process of its own on a private PostgreSQL with
// fsync, against what the machine can do at all. Everything shares the machine, the load included.
// Absolute figures drift from run to run; the ratios are what counts:
//
//	A  single-row inserts of pgbench, 16 clients
//	B  a bare HTTP handler, 64 connections
//	C  the same events inserted raw from arrays, 1,000 a commit, 2 connections, nothing else kept
func BenchmarkIngest(b *testing.B) {
	const span = 5 * time.Second
	s := newBenchService(b)

	a := s.pgbench(b, span)
	bare := s.bare(b, span)
	c := s.raw(b, span)
	fmt.Printf("\n%-58s %12.0f /s\n%-58s %12.0f /s\n%-58s %12.0f /s\n\n", "A  pgbench, single-row inserts, 16 clients", a,
		"B  bare HTTP handler, 64 connections", bare, "C  raw insert of the events, 1,000 a commit", c)

	line := func(name string, r rate, unit string, base float64, must, aim float64, guard string) {
		ratio := r.perSecond / base
		verdict := "ok"
		if ratio < must {
			verdict = "BELOW"
		}
		fmt.Printf("%-44s %9.0f %s/s = %.2f (must %.2f, aim %.2f) %-5s p50 %s p99 %s %s\n", name, r.perSecond, unit, ratio, must, aim, verdict,
			r.p50.Round(10*time.Microsecond), r.p99.Round(100*time.Microsecond), guard)
		b.ReportMetric(ratio, strings.ReplaceAll(name, " ", "_")+":ratio")
	}
	b.ResetTimer()
	line("batches of 100, 16 connections, over C", s.ingest(16, 100, span), "events", c, 0.28, 0.45, "(p99 <= 60ms)")
	line("single events, 64 connections, over A", s.ingest(64, 1, span), "events", a, 0.8, 1.0, "(p99 <= 15ms)")
	alone := s.ingest(1, 1, span/2)
	fmt.Printf("%-44s p50 %s (must 0.8ms)\n", "single events, alone", alone.p50.Round(10*time.Microsecond))
	line("usage to date, 64 connections, over B", s.reads(64, "/v1/usage?meter=voice", span), "reads", bare, 0.42, 0.55, "(p99 <= 12ms)")
	line("entitlement from memory, 64 connections, over B", s.reads(64, "/v1/entitlements/voice", span), "checks", bare, 0.7, 0.85, "(p99 <= 12ms)")
	line("entitlement strict, 64 connections, over B", s.reads(64, "/v1/entitlements/voice?strict=true", span), "checks", bare, 0.4, 0.55, "")
	spread := s.reservations(64, len(s.tokens), span)
	line("reserve and commit, 64 connections, over A", spread, "pairs", a, 0.4, 0.6, "")
	line("the same on one account, over spread", s.reservations(64, 1, span), "pairs", spread.perSecond, 0.7, 1, "")
	fmt.Printf("%-44s %s\n", "resident memory of the service at its peak", s.memory())
}

// benchService is the service under load, with accounts that have no limits.
type benchService struct {
	dir     string
	address string
	pid     int
	tokens  []string
	pool    *pgxpool.Pool
	sent    atomic.Int64
}

func newBenchService(b *testing.B) *benchService {
	b.Helper()
	d := newDeployment(b, binary(b, ""), "--log-level=error", "--rate-limit=1000000")
	// The log says where the service listens; nothing else of it is wanted.
	d.args = []string{"--log-level=info", "--rate-limit=1000000"}
	p, err := d.start(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = p.stop() })
	s := &benchService{dir: d.dir, address: strings.TrimPrefix(p.api, "http://"), pid: p.cmd.Process.Pid}
	for i := range 64 {
		token := d.token(b, fmt.Sprintf("bench-%d", i))
		s.tokens = append(s.tokens, token)
		req, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, p.api+"/v1/usage", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatalf("open an account: %v, %v\n%s", resp, err, p.log)
		}
		_ = resp.Body.Close()
	}
	dsn, err := embedded.Attach(filepath.Join(d.dir, "postgres"), "accrue")
	if err != nil {
		b.Fatal(err)
	}
	if s.pool, err = pgxpool.New(b.Context(), dsn); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.pool.Close)
	if _, err := s.pool.Exec(b.Context(), "UPDATE entitlements SET limits = '{}', version = version + 1"); err != nil {
		b.Fatal(err)
	}
	if _, err := s.pool.Exec(b.Context(), `
CREATE TABLE bench_rows (id bigserial PRIMARY KEY, account_id bigint, quantity numeric, at timestamptz);
CREATE TABLE bench_raw (account_id uuid, event_id uuid, meter text, source text, quantity numeric(24,9), occurred_at timestamptz,
  dimensions jsonb, PRIMARY KEY (account_id, event_id))`); err != nil {
		b.Fatal(err)
	}
	return s
}

var tps = regexp.MustCompile(`tps = ([0-9.]+)`)

// pgbench is calibrator A.
func (s *benchService) pgbench(b *testing.B, span time.Duration) float64 {
	b.Helper()
	program := "pgbench"
	if _, err := exec.LookPath(program); err != nil {
		found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
		if len(found) == 0 {
			b.Fatal("pgbench is not installed: it comes with PostgreSQL's client programs")
		}
		program = found[len(found)-1]
	}
	script := filepath.Join(b.TempDir(), "insert.sql")
	if err := os.WriteFile(script, []byte("INSERT INTO bench_rows (account_id, quantity, at) VALUES (:client_id, 63.5, now());\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	out, err := exec.CommandContext(b.Context(), program, "-n", "-M", "prepared", "-c", "16", "-j", "2", "-T", strconv.Itoa(int(span.Seconds())),
		"-f", script, s.pool.Config().ConnString()).CombinedOutput()
	m := tps.FindSubmatch(out)
	if err != nil || m == nil {
		b.Fatalf("pgbench: %v\n%s", err, out)
	}
	f, _ := strconv.ParseFloat(string(m[1]), 64)
	return f
}

// bare is calibrator B.
func (s *benchService) bare(b *testing.B, span time.Duration) float64 {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })} //nolint:gosec // lives for a benchmark
	go func() { _ = server.Serve(l) }()
	defer func() { _ = server.Close() }()
	request := []byte("GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
	return load(l.Addr().String(), 64, span, func(int, int) ([]byte, int) { return request, 1 }).perSecond
}

// raw is calibrator C.
func (s *benchService) raw(b *testing.B, span time.Duration) float64 {
	b.Helper()
	const rows = 1000
	var n atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(span)
	accounts := make([]uuid.UUID, 64)
	for i := range accounts {
		accounts[i] = uuid.New()
	}
	begin := time.Now()
	for range 2 {
		wg.Go(func() {
			owners, ids, meters, sources := make([]uuid.UUID, rows), make([]uuid.UUID, rows), make([]string, rows), make([]string, rows)
			quantities, times, dims := make([]string, rows), make([]time.Time, rows), make([]string, rows)
			for time.Now().Before(end) {
				now := time.Now()
				for i := range rows {
					owners[i], ids[i], meters[i], sources[i] = accounts[i%64], uuid.New(), "voice", "media-eu-1"
					quantities[i], times[i], dims[i] = "63.5", now, `{"project":"helpdesk"}`
				}
				_, err := s.pool.Exec(b.Context(), `INSERT INTO bench_raw
SELECT u.a, u.i, u.m, u.s, u.q::numeric, u.t, u.d::jsonb
FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::text[]) AS u (a, i, m, s, q, t, d)
ON CONFLICT DO NOTHING`, owners, ids, meters, sources, quantities, times, dims)
				if err != nil {
					b.Error(err)
					return
				}
				n.Add(rows)
			}
		})
	}
	wg.Wait()
	return float64(n.Load()) / time.Since(begin).Seconds()
}

// rate is what a load came to.
type rate struct {
	perSecond float64
	p50, p99  time.Duration
}

// ingest sends batches, each connection for an account of its own.
func (s *benchService) ingest(connections, batch int, span time.Duration) rate {
	run := s.sent.Add(1)
	now := time.Now().UTC().Format(time.RFC3339)
	return load(s.address, connections, span, func(conn, round int) ([]byte, int) {
		body := make([]byte, 0, 32+batch*190)
		body = append(body, `{"events":[`...)
		for i := range batch {
			if i > 0 {
				body = append(body, ',')
			}
			body = fmt.Appendf(body, `{"id":"call-%d-%d-%d-%d","source":"media-eu-1","meter":"voice","quantity":"63.5","timestamp":%q,"dimensions":{"project":"p%d"}}`,
				run, conn, round, i, now, i%5)
		}
		body = append(body, "]}"...)
		head := fmt.Sprintf("POST /v1/usage/events HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
			s.tokens[conn%len(s.tokens)], len(body))
		return append([]byte(head), body...), batch
	})
}

func (s *benchService) reads(connections int, path string, span time.Duration) rate {
	return load(s.address, connections, span, func(conn, _ int) ([]byte, int) {
		return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n\r\n", path, s.tokens[conn%len(s.tokens)]), 1
	})
}

// reservations makes a reservation and commits it, in turns; a pair is one of both.
func (s *benchService) reservations(connections, accounts int, span time.Duration) rate {
	ids := make([]string, connections)
	r := loadWith(s.address, connections, span, func(conn, round int) ([]byte, int) {
		path, body, counts := "/v1/usage/reservations", `{"meter":"voice","quantity":"10"}`, 0
		if round%2 == 1 {
			path, body, counts = path+"/"+ids[conn]+"/commit", `{"quantity":"7"}`, 1
		}
		return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nIdempotency-Key: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
			path, s.tokens[conn%accounts], uuid.NewString(), len(body), body), counts
	}, func(conn int, answer []byte) {
		if _, after, ok := strings.Cut(string(answer), `"id":"`); ok {
			ids[conn], _, _ = strings.Cut(after, `"`)
		}
	})
	return r
}

func (s *benchService) memory() string {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		return err.Error()
	}
	for l := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(l, "VmHWM:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func load(address string, connections int, span time.Duration, request func(conn, round int) ([]byte, int)) rate {
	return loadWith(address, connections, span, request, nil)
}

// loadWith sends requests over connections of its own, with as little work as it can, since it takes
// its time from the same machine. request returns the bytes and what they count.
func loadWith(address string, connections int, span time.Duration, request func(conn, round int) ([]byte, int), answered func(int, []byte)) rate {
	ctx, cancel := context.WithTimeout(context.Background(), span)
	defer cancel()
	var total atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	begin := time.Now()
	for conn := range connections {
		wg.Go(func() {
			c, err := net.Dial("tcp", address)
			if err != nil {
				panic(err)
			}
			defer func() { _ = c.Close() }()
			in := bufio.NewReaderSize(c, 64<<10)
			var own []time.Duration
			for round := 0; ctx.Err() == nil; round++ {
				bytes, counts := request(conn, round)
				sent := time.Now()
				if _, err := c.Write(bytes); err != nil {
					panic(err)
				}
				answer := readAnswer(in)
				own = append(own, time.Since(sent))
				total.Add(int64(counts))
				if answered != nil {
					answered(conn, answer)
				}
			}
			mu.Lock()
			took = append(took, own...)
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.Sort(took)
	return rate{float64(total.Load()) / time.Since(begin).Seconds(), took[len(took)/2], took[len(took)*99/100]}
}

// readAnswer reads one answer of HTTP/1.1 and returns its body. Anything but success ends the benchmark.
func readAnswer(in *bufio.Reader) []byte {
	length, head := -1, ""
	for i := 0; ; i++ {
		l, err := in.ReadSlice('\n')
		if err != nil {
			panic(err)
		}
		switch {
		case i == 0:
			head = string(l)
		case len(l) <= 2:
			if length < 0 {
				body := readChunks(in)
				check(head, body)
				return body
			}
			body := make([]byte, length)
			if _, err := io.ReadFull(in, body); err != nil {
				panic(err)
			}
			check(head, body)
			return body
		case len(l) > 16 && strings.EqualFold(string(l[:15]), "content-length:"):
			length, _ = strconv.Atoi(strings.TrimSpace(string(l[15:])))
		}
	}
}

func check(head string, body []byte) {
	if !strings.HasPrefix(head, "HTTP/1.1 2") || strings.Contains(string(body), `"status":"rejected"`) {
		panic(head + string(body))
	}
}

func readChunks(in *bufio.Reader) (body []byte) {
	for {
		l, err := in.ReadString('\n')
		if err != nil {
			panic(err)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(l), 16, 64)
		if err != nil {
			panic(err)
		}
		part := make([]byte, n+2)
		if _, err := io.ReadFull(in, part); err != nil {
			panic(err)
		}
		if n == 0 {
			return body
		}
		body = append(body, part[:n]...)
	}
}
