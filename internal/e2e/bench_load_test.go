package e2e_test

import (
	"bufio"
	"bytes"
	"cmp"
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

// benchService is the service under load, with accounts that have no limits.
type benchService struct {
	dir     string
	address string
	pid     int
	tokens  []string
	staff   []string // operators' tokens: one alone may send no more in a minute than a fast machine takes in
	pool    *pgxpool.Pool
	sent    atomic.Int64
	spread  atomic.Value // float64: pairs a second over many accounts
}

// profiles names a folder for a profile of each service under load; see make profile.
const profiles = "PROFILES"

func newBenchService(b *testing.B) *benchService {
	b.Helper()
	d := newDeployment(b, binary(b, ""))
	// It logs warnings only, so that the test need not take its access log in.
	api := freeAddress(b)
	options := []string{"--addr=" + api, "--sandbox-addr=" + freeAddress(b), "--log-level=warn"}
	if dir := os.Getenv(profiles); dir != "" {
		options = append(options, "--cpu-profile="+filepath.Join(dir, b.Name()))
	}
	p, err := d.launch(nil, options...)
	if err != nil {
		b.Fatal(err)
	}
	p.api = "http://" + api
	b.Cleanup(p.end)
	p.awaitReady(b)
	s := &benchService{dir: d.dir, address: api, pid: p.cmd.Process.Pid}
	for i := range 64 {
		s.staff = append(s.staff, d.operator(b, fmt.Sprintf("operator-%d", i)))
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

// A work is what the service is asked to do, and what that is compared with.
type work struct {
	name      string
	unit      string
	base      string // of bases
	must, aim float64
	guard     time.Duration // the p99 that is allowed; zero: any
	run       func(time.Duration) rate
}

// measure takes five rounds of a work, each beside its base so that both meet the same machine, and
// reports the round with the median ratio. Rounds are short: within seconds the machine is another.
func (s *benchService) measure(b *testing.B, w work) {
	b.Helper()
	b.Run(strings.ReplaceAll(w.name, " ", "_"), func(b *testing.B) {
		const rounds, span = 5, 2 * time.Second
		type round struct {
			rate
			base           float64
			used, baseUsed processors // for one operation, of the work and of its base
		}
		var all []round
		for range rounds {
			start := s.processors(b)
			base := s.base(b, w.base, span)
			before := s.processors(b)
			r := w.run(span)
			all = append(all, round{
				r, base,
				s.processors(b).since(before, r.perSecond*span.Seconds()),
				before.since(start, base*span.Seconds()),
			})
		}
		slices.SortFunc(all, func(x, y round) int { return cmp.Compare(x.perSecond/x.base, y.perSecond/y.base) })
		m := all[rounds/2]
		ratio, verdict := m.perSecond/m.base, "ok"
		switch {
		case ratio < w.must:
			verdict = "BELOW"
		case w.guard > 0 && m.p99 > w.guard:
			verdict = "SLOW"
		case ratio >= w.aim:
			verdict = "aim"
		}
		fmt.Printf("%-46s %8.0f %s/s = %.2f %s (%s %.0f/s", w.name, m.perSecond, w.unit, ratio, w.base, w.base, m.base)
		if w.must > 0 {
			fmt.Printf("; must %.2f, aim %.2f) %s", w.must, w.aim, verdict)
			b.ReportMetric(w.must, "must-of-"+w.base)
		} else {
			fmt.Print(")")
		}
		fmt.Printf("; p50 %s p99 %s", m.p50.Round(10*time.Microsecond), m.p99.Round(100*time.Microsecond))
		if w.guard > 0 {
			fmt.Printf(" (<= %s)", w.guard)
		}
		fmt.Printf("; processor time: load %s, service %s, database %s", m.used.load, m.used.service, m.used.database)
		if w.base != "spread" {
			fmt.Printf("; %s takes %s, by which the ratio is %.2f", w.base, m.baseUsed.sum(), float64(m.baseUsed.sum())/float64(m.used.sum()))
		}
		fmt.Println()
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(ratio, "of-"+w.base)
	})
}

// processors is processor time by who used it.
type processors struct{ load, service, database time.Duration }

// since returns what one of n operations used since an earlier reading.
func (p processors) since(before processors, n float64) processors {
	each := func(now, then time.Duration) time.Duration {
		return time.Duration(float64(now-then) / max(n, 1)).Round(100 * time.Nanosecond)
	}
	return processors{each(p.load, before.load), each(p.service, before.service), each(p.database, before.database)}
}

func (p processors) sum() time.Duration { return p.load + p.service + p.database }

// processors reads /proc. Where there is none, all times are zero.
func (s *benchService) processors(b *testing.B) (p processors) {
	b.Helper()
	postmaster, _ := os.ReadFile(filepath.Join(s.dir, "postgres", "postmaster.pid"))
	server, _, _ := strings.Cut(string(postmaster), "\n")
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		_, after, _ := strings.Cut(string(text), ") ")
		f := strings.Fields(after) // from the third field on: state, parent, …
		user, _ := strconv.ParseInt(f[11], 10, 64)
		system, _ := strconv.ParseInt(f[12], 10, 64)
		used := time.Duration(user+system) * tick
		switch pid := filepath.Base(filepath.Dir(path)); {
		case pid == strconv.Itoa(os.Getpid()): // with pgbench's or the bare handler's, which have ended
			p.load = used + ended(f)
		case pid == strconv.Itoa(s.pid):
			p.service = used
		case pid == server:
			p.database += used + ended(f)
		case f[1] == server:
			p.database += used
		}
	}
	return p
}

const tick = 10 * time.Millisecond // of /proc

// ended returns what the children of a process that have ended had used.
func ended(stat []string) time.Duration {
	user, _ := strconv.ParseInt(stat[13], 10, 64)
	system, _ := strconv.ParseInt(stat[14], 10, 64)
	return time.Duration(user+system) * tick
}

// base measures what a work is compared with.
func (s *benchService) base(b *testing.B, name string, span time.Duration) float64 {
	b.Helper()
	switch name {
	case "A":
		return s.pgbench(b, span)
	case "B":
		return s.bare(b, span).perSecond
	case "C":
		return s.raw(b, span)
	default:
		return s.spread.Load().(float64) //nolint:forcetypeassert // what the work before has stored
	}
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
func (s *benchService) bare(b *testing.B, span time.Duration) rate {
	b.Helper()
	address, end := startFloor(b, hello)
	defer end()
	request := []byte("GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
	return load(address, 64, span, func(int, int) ([]byte, int) { return request, 1 })
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

// A template is a request in which a number changes from one time to the next: writing the whole anew would
// take more of the machine than sending it does.
type template struct {
	text []byte
	at   []int // where the number stands
}

// number stands in a template for sixteen hexadecimal digits.
const number = "################"

func newTemplate(text string) template {
	t := template{text: []byte(text)}
	for at := 0; ; at += len(number) {
		next := strings.Index(text[at:], number)
		if next < 0 {
			return t
		}
		at += next
		t.at = append(t.at, at)
	}
}

// with returns the request with a number, good until the next.
func (t template) with(n uint64) []byte {
	for _, at := range t.at {
		for i := range number {
			t.text[at+i] = "0123456789abcdef"[n>>(60-4*i)&15]
		}
	}
	return t.text
}

// post returns a request with a JSON body. headers are lines of its own.
func (s *benchService) post(path, token, headers, body string) template {
	return newTemplate(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		path, token, headers, len(body), body))
}

func load(address string, connections int, span time.Duration, request func(conn, round int) ([]byte, int)) rate {
	return loadWith(address, connections, span, request, nil)
}

// loadWith sends requests over connections of its own, with as little work as it can, since it takes
// its time from the same machine. request returns the bytes and what they count; answered is given the
// body, which is its own until it returns.
func loadWith(address string, connections int, span time.Duration, request func(conn, round int) ([]byte, int), answered func(int, []byte)) rate {
	var total int
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
			var counted int
			for round, now := 0, begin; now.Sub(begin) < span; round++ {
				bytes, counts := request(conn, round)
				sent := time.Now()
				if _, err := c.Write(bytes); err != nil {
					panic(err)
				}
				answer := readAnswer(in)
				now = time.Now()
				own = append(own, now.Sub(sent))
				counted += counts
				if answered != nil {
					answered(conn, answer)
				}
			}
			mu.Lock()
			took = append(took, own...)
			total += counted
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.Sort(took)
	return rate{float64(total) / time.Since(begin).Seconds(), took[len(took)/2], took[len(took)*99/100]}
}

// readAnswer reads one answer of HTTP/1.1 and returns its body, which is good until the next is read.
// Anything but success ends the benchmark.
func readAnswer(in *bufio.Reader) []byte {
	var head []byte
	for size := 1; ; size = in.Buffered() + 1 {
		if _, err := in.Peek(size); err != nil {
			panic(err)
		}
		buffered, _ := in.Peek(in.Buffered())
		if end := bytes.Index(buffered, []byte("\r\n\r\n")); end >= 0 {
			head = buffered[:end+4]
			break
		}
	}
	succeeded := bytes.HasPrefix(head, []byte("HTTP/1.1 2"))
	_, rest, known := bytes.Cut(head, []byte("\r\nContent-Length: "))
	length := 0
	for i := 0; known && rest[i] != '\r'; i++ {
		length = 10*length + int(rest[i]-'0')
	}
	_, _ = in.Discard(len(head))
	var body []byte
	if !known {
		body = readChunks(in)
	} else {
		var err error
		if body, err = in.Peek(length); err != nil {
			panic(err)
		}
		_, _ = in.Discard(length)
	}
	if !succeeded || bytes.Contains(body, []byte(`"status":"rejected"`)) {
		panic(string(body))
	}
	return body
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
