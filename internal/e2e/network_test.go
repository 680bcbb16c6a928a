package e2e_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// link is one of the service's connections, with a proxy in it that does to it what networks do.
type link struct {
	t     *testing.T
	proxy *toxiproxy.Proxy
}

func newLink(t *testing.T, upstream string) *link {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := &link{t, toxiproxy.NewProxy(server, t.Name(), "127.0.0.1:0", upstream)}
	if err := l.proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.proxy.Stop)
	return l
}

func (l *link) suffer(toxic string) {
	l.t.Helper()
	if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(toxic)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *link) recover(ctx context.Context) { l.proxy.Toxics.ResetToxics(ctx) }

// toxics are what a network does. The first half of them loses the answer only: the other side has acted.
var toxics = []struct{ name, toxic string }{
	{"Latency", `{"type":"latency","stream":"downstream","attributes":{"latency":150,"jitter":150}}`},
	{"AnswerNeverComes", `{"type":"timeout","stream":"downstream","attributes":{"timeout":0}}`},
	{"AnswerIsCut", `{"type":"limit_data","stream":"downstream","attributes":{"bytes":150}}`},
	{"ResetBeforeTheAnswer", `{"type":"reset_peer","stream":"downstream","attributes":{"timeout":10}}`},
	{"SlowClose", `{"type":"slow_close","stream":"downstream","attributes":{"delay":300}}`},
	{"RequestNeverArrives", `{"type":"timeout","stream":"upstream","attributes":{"timeout":0}}`},
	{"RequestIsCut", `{"type":"limit_data","stream":"upstream","attributes":{"bytes":150}}`},
}

// Whatever happens between the service and the provider, nobody is answered with a fault, nothing is lost
// and no card is charged twice.
func TestNetwork_BetweenServiceAndProvider(t *testing.T) {
	t.Parallel()
	addr := freeAddress(t)
	l := newLink(t, addr)
	h := newHarness(t, binary(t, "faults"), "--sandbox-addr="+addr, "--sandbox-url=http://"+l.proxy.Listen, "--provider-timeout=700ms")
	h.storms(l)
}

// The same for the connections to the database, which break in the middle of transactions then.
func TestNetwork_BetweenServiceAndPostgreSQL(t *testing.T) {
	t.Parallel()
	direct, err := url.Parse(postgrestest.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	l := newLink(t, overTCP(t, direct.Query().Get("host")+"/.s.PGSQL.5432"))
	through := *direct
	through.Host, through.RawQuery = l.proxy.Listen, "sslmode=disable"
	h := newHarnessOn(t, binary(t, "faults"), direct.String(), "--database-url="+through.String())
	h.storms(l)
}

// overTCP makes a server's unix socket reachable by TCP, which is all that the proxy speaks.
func overTCP(t *testing.T, socket string) string {
	t.Helper()
	in, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close() })
	go func() {
		for {
			a, err := in.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("unix", socket)
			if err != nil {
				_ = a.Close()
				continue
			}
			go func() { _, _ = io.Copy(a, b); _ = a.Close() }()
			go func() { _, _ = io.Copy(b, a); _ = b.Close() }()
		}
	}()
	return in.Addr().String()
}

// storms has customers at work while the link suffers from one thing after the other.
func (h *harness) storms(l *link) {
	h.t.Helper()
	rounds := 1
	if full() {
		rounds = 10
	}
	for round := range rounds {
		for i, x := range toxics {
			rng := rand.New(rand.NewPCG(seed, uint64(round*len(toxics)+i)))
			h.storm(x.name, rng, func(ctx context.Context) {
				l.suffer(x.toxic)
				time.Sleep(700 * time.Millisecond)
				l.recover(ctx)
			})
		}
	}
	h.checkBooks()
	h.report()
}

// storm has several customers do things while something goes wrong and right again, and then looks into
// everything.
func (h *harness) storm(what string, rng *rand.Rand, wrong func(ctx context.Context)) {
	h.t.Helper()
	ctx := h.t.Context()
	intents := h.intents(6, func() *intent {
		in := h.newIntent(mixture[rng.IntN(len(mixture))], rng)
		in.delay = time.Duration(rng.IntN(400)) * time.Millisecond
		in.may = []int{http.StatusAccepted} // the provider did not answer in time
		return in
	})
	before := len(h.faults)
	var wg sync.WaitGroup
	wg.Go(func() { wrong(ctx) })
	h.each(intents, func(in *intent) {
		time.Sleep(in.delay)
		h.meanwhile(ctx, in)
	})
	wg.Wait()
	h.settle(ctx, intents)
	if len(h.faults) > before {
		h.t.Log(h.proc.log)
	}
	for i := before; i < len(h.faults); i++ {
		h.faults[i] = what + ": " + h.faults[i]
	}
}

// meanwhile asks while something is wrong. The service may answer, or say that it cannot now; it never
// answers with a fault of its own.
func (h *harness) meanwhile(ctx context.Context, in *intent) {
	got, err := h.ask(ctx, in)
	switch {
	case err != nil:
		h.fault("%s of %s had no answer: %v", in.op, in.account.ID, err)
	case got.status == http.StatusServiceUnavailable, got.status == http.StatusConflict && got.code() == "idempotency_in_progress":
		h.mu.Lock()
		defer h.mu.Unlock()
		h.caught++
	default:
		h.compare(in, got)
	}
}

// settle lets time pass and one sweep go over it, has every caller come back, and holds everything to what
// was meant.
func (h *harness) settle(ctx context.Context, intents []*intent) {
	h.t.Helper()
	h.ready(ctx)
	h.passTime(ctx, intents)
	_, err := billing.Sweeper{Core: h.core}.Sweep(ctx)
	h.must(err)
	h.inspect(ctx, intents)
}

// ready waits until the service says that it can work: it recovers by itself.
func (h *harness) ready(ctx context.Context) {
	h.t.Helper()
	var last string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.proc.api+"/readyz", http.NoBody)
		h.must(err)
		res, err := h.web.Do(r)
		if err != nil {
			last = err.Error()
			continue
		}
		_ = res.Body.Close()
		if last = res.Status; res.StatusCode == http.StatusOK {
			return
		}
	}
	h.fault("the service is not ready again: %s", last)
}
