package e2e_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// repeated is a text that comes again and again until so many bytes were read.
type repeated struct {
	text string
	left int64
	at   int
}

func (r *repeated) Read(p []byte) (n int, err error) {
	for n < len(p) && r.left > 0 {
		k := copy(p[n:], r.text[r.at:])
		k = int(min(int64(k), r.left))
		n, r.left, r.at = n+k, r.left-int64(k), (r.at+k)%len(r.text)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// packed compresses so many bytes of a text that comes again and again.
func packed(t *testing.T, encoding, text string, size int64) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&out)
	if encoding == "zstd" {
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	}
	if _, err := io.Copy(w, &repeated{text: text, left: size}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// hostile is a request that asks for more memory than it is worth.
type hostile struct {
	name, media, encoding string
	body                  []byte
	status                int
	code                  string
}

// maxResident is what the service may take under these loads, in kB. At rest it takes 43 MB, and eight of the
// bodies at once took 417 MB before they waited for each other.
const maxResident = 96 << 10

// Eight of the largest bodies at once, honest or made to unfold, nest or repeat themselves into gigabytes, do
// not take the service beyond its bound of memory; what is too much is refused.
func TestLargeBodies_MemoryStaysFlat(t *testing.T) {
	t.Parallel()

	const event = `{"id":"a","meter":"voice","quantity":"1","timestamp":"2026-01-01T00:00:00Z"}`
	long := strings.Replace(event, `"voice"`, `"fax","dimensions":{"project":"`+strings.Repeat("x", 700)+`"}`, 1)
	deep := strings.Repeat(`{"a":`, 100_000)
	attacks := []hostile{
		{"an honest body", "application/x-ndjson", "", []byte(strings.Repeat(long+"\n", 9_999)), 200, `"rejected":9999`},
		{"an honest body, packed", "application/x-ndjson", "gzip", packed(t, "gzip", long+"\n", int64(len(long)+1)*9_999), 200, `"rejected":9999`},
		{"a gzip bomb of events", "application/x-ndjson", "gzip", packed(t, "gzip", event+"\n", 64<<20), 413, "body_too_large"},
		{"a zstd bomb", "application/json", "zstd", packed(t, "zstd", "[", 64<<20), 413, "body_too_large"},
		{"an event 10⁵ deep", "application/json", "", []byte(`{"events":[{"id":"a","dimensions":` + deep), 400, "malformed_json"},
		{"4 million lines", "application/x-ndjson", "", bytes.Repeat([]byte("{\n"), 4<<20-1), 413, "too_many_events"},
		{"one string of 8 MiB", "application/json", "", []byte(`{"id":"` + strings.Repeat("x", 8<<20-16) + `"}`), 200, "event_too_large"},
		{"more events than are taken", "application/json", "", []byte(`{"events":[` + strings.Repeat("{},", 2<<20) + `{}]}`), 413, "too_many_events"},
	}
	if !full() {
		attacks = attacks[:1] // what is honest takes nearly all that the worst of them takes
	}
	_, dsn := postgrestest.NewWithDSN(t)
	pool := postgrestest.Connect(t, dsn)
	d := newDeployment(t, binary(t, "faults"), "--database-url="+dsn, "--log-level=info")
	d.env = []string{"GOGC="} // as it is for whoever starts it: the default of memory-limit holds
	service, err := d.start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.kill)
	token := d.unlimited(t, service, pool, "hostile")

	t.Logf("at rest: %d kB", service.resident(t))
	for _, a := range attacks {
		service.attack(t, token, a)
		t.Logf("after %s: %d kB", a.name, service.resident(t))
	}
	if peak := service.resident(t); peak > maxResident {
		t.Errorf("the service took %d kB, want at most %d kB", peak, maxResident)
	}
	answer, err := service.ask(t.Context(), http.MethodPost, "/v1/usage/events", token, []byte(`{"events":[`+recent(event)+`]}`))
	if err != nil || !strings.Contains(string(answer), `"accepted":1`) {
		t.Errorf("afterwards: %s, %v", answer, err)
	}
}

// recent is the event at a time that is taken.
func recent(event string) string {
	return strings.Replace(event, "2026-01-01T00:00:00Z", time.Now().UTC().Format(time.RFC3339), 1)
}

// attack sends the same request eight times at once and holds the answers to what is due.
func (p *process) attack(t *testing.T, token string, a hostile) {
	t.Helper()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			status, body, err := p.send(t.Context(), token, a)
			for again := 0; status == http.StatusServiceUnavailable && again < 5; again++ { // the line was long: it waited its ten seconds
				status, body, err = p.send(t.Context(), token, a)
			}
			if err != nil || status != a.status || !strings.Contains(body, a.code) {
				t.Errorf("%s: %d %.300s, %v; want %d %s", a.name, status, body, err, a.status, a.code)
			}
		})
	}
	wg.Wait()
}

func (p *process) send(ctx context.Context, token string, a hostile) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.api+"/v1/usage/events", bytes.NewReader(a.body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", a.media)
	if a.encoding != "" {
		req.Header.Set("Content-Encoding", a.encoding)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(got), err
}

// resident is the process's peak of memory in kB; 0 on a system that does not tell.
func (p *process) resident(t *testing.T) int {
	t.Helper()
	peak := p.peak()
	if peak == "unknown" {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSuffix(peak, " kB"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
