package v1_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/api"
	v1 "github.com/accrue-billing/accrue/api/v1"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/changes"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// patience bounds every wait of these tests; what is promised is far below it.
const patience = 20 * time.Second

// replica is one instance of the service on the world's database, behind a real socket.
type replica struct {
	w      *world
	url    string
	hub    *changes.Hub
	server *http.Server
}

// replica starts an instance with an ingester and a hub of its own.
func (w *world) replica(t *testing.T, l v1.Streams, opt changes.Options, tune ...func(*http.Server)) *replica {
	t.Helper()
	wire := postgres.Changes(w.db.Pool())
	r := &replica{w: w, hub: changes.NewHub(wire, wire, w.Log, opt)}
	ingester := metering.NewIngester(postgres.Journal(w.db.ByKey()), w.deps.V1.Metering.Catalogue, w.clock, w.Log,
		metering.Options{Pricer: billing.Pricer{Core: w.Core}, Changed: r.hub.UsageChanged})
	l.Hub = r.hub
	deps := w.deps
	deps.V1.Streams, deps.V1.Metering.Ingester = l, ingester
	handler, err := api.New(deps)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.url, r.server = "http://"+listener.Addr().String(), api.NewServer(handler, w.Log)
	r.server.RegisterOnShutdown(r.hub.Drain)
	for _, f := range tune {
		f(r.server)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{}, 3)
	go func() { _ = r.server.Serve(listener); done <- struct{}{} }()
	go func() { _ = r.hub.Run(ctx); done <- struct{}{} }()
	go func() { _ = ingester.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() {
		r.hub.Drain()
		_ = r.server.Close()
		stop()
		for range 3 {
			<-done
		}
	})
	return r
}

// request sends a request to this replica and returns the answer.
func (r *replica) request(ctx context.Context, c caller, method, path, body string, headers ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.url+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token())
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", uuid.NewString())
	}
	maps.Copy(req.Header, c.header)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return http.DefaultClient.Do(req)
}

// post is request for what must succeed.
func (r *replica) post(t *testing.T, c caller, path, body string) {
	t.Helper()
	r.send(t, c, http.MethodPost, path, body, nil)
}

// send is request for what must succeed, with the answer read into a value unless that is nil.
func (r *replica) send(t *testing.T, c caller, method, path, body string, into any) {
	t.Helper()
	resp, err := r.request(t.Context(), c, method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode/100 != 2 {
		t.Fatalf("%s: %d %s, %v", path, resp.StatusCode, got, err)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(got, into); err != nil {
		t.Fatal(err)
	}
}

// message is one message of a stream.
type message struct{ id, event, data string }

// stream is an open stream. Its messages come through a channel that is closed at its end.
type stream struct {
	messages chan message
	comments chan struct{}
	cancel   context.CancelFunc
}

func (r *replica) stream(t *testing.T, c caller, headers ...string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	resp, err := r.request(ctx, c, http.MethodGet, "/v1/events/stream", "", headers...)
	if err != nil {
		t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || ct != "text/event-stream" {
		body, _ := io.ReadAll(resp.Body)
		t.Fatalf("%d %s %s", resp.StatusCode, ct, body)
	}
	s := &stream{messages: make(chan message, 1000), comments: make(chan struct{}, 1000), cancel: cancel}
	go func() {
		defer func() { _ = resp.Body.Close() }()
		s.read(resp.Body)
	}()
	return s
}

// read parses messages as a browser does: what the end cuts short is no message.
func (s *stream) read(body io.Reader) {
	defer close(s.messages)
	in := bufio.NewReader(body)
	var m message
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			m.id = value
		case "event":
			m.event = value
		case "data":
			m.data += value
		case "":
			if value != "" || strings.HasPrefix(line, ":") {
				s.comments <- struct{}{}
			} else if m.data != "" {
				s.messages <- m
				m = message{}
			}
		}
	}
}

// next returns the next message, and false at the end of the stream.
func (s *stream) next(t *testing.T) (message, bool) {
	t.Helper()
	select {
	case m, ok := <-s.messages:
		return m, ok
	case <-time.After(patience):
		t.Fatal("nothing comes")
		return message{}, false
	}
}

// until returns the next message that is wanted, past others.
func (s *stream) until(t *testing.T, wanted func(message) bool) message {
	t.Helper()
	for {
		m, ok := s.next(t)
		if !ok {
			t.Fatal("the stream ended")
		}
		if wanted(m) {
			return m
		}
	}
}

// event is until by the name of an event.
func (s *stream) event(t *testing.T, name string) message {
	t.Helper()
	return s.until(t, func(m message) bool { return m.event == name })
}

func (m message) has(t *testing.T, path ...any) any {
	t.Helper()
	return response{Body: []byte(m.data)}.at(t, path...)
}

// used returns a test for a snapshot of usage in which the meter stands at a quantity.
func used(t *testing.T, meter, quantity string) func(message) bool {
	t.Helper()
	return func(m message) bool {
		if m.event != "usage.updated" {
			return false
		}
		for _, got := range m.has(t, "meters").([]any) {
			if got := got.(map[string]any); got["meter"] == meter && got["quantity"] == quantity {
				return true
			}
		}
		return false
	}
}

func TestStream_TellsWithinASecondWhicheverReplicaDidIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	here, there := w.replica(t, v1.Streams{}, changes.Options{}), w.replica(t, v1.Streams{}, changes.Options{})
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	_, bob := w.upgraded(t, sandbox.TokenVisa)
	s, foreign := here.stream(t, ada), here.stream(t, bob)

	opened := s.event(t, "stream.opened")
	newest, err := w.db.Outbox().Newest(t.Context(), a.ID)
	if err != nil || opened.id != strconv.FormatInt(newest, 10) || opened.has(t, "sequence") != float64(newest) {
		t.Errorf("opened at %s %s, the newest event is %d (%v)", opened.id, opened.data, newest, err)
	}
	s.until(t, used(t, "voice", "0"))
	if b := s.event(t, "balance.updated"); b.id != "" || b.has(t, "accrued", "amount") != 0.0 {
		t.Errorf("the first balance is %+v", b)
	}
	foreign.event(t, "balance.updated")

	// What another replica commits: usage, which is in no sequence, and a top-up, which is.
	var waits []time.Duration
	for round := 1; round <= 5; round++ {
		there.post(t, ada, "/v1/usage/events", batch(event(fmt.Sprintf("live-%d", round), "60000", "")))
		acknowledged := time.Now()
		s.until(t, used(t, "voice", strconv.Itoa(60_000*round)))
		waits = append(waits, time.Since(acknowledged))
	}
	slices.Sort(waits)
	if typical := waits[len(waits)/2]; typical > time.Second {
		t.Errorf("usage was told after %v, want within a second", waits)
	}
	if b := s.event(t, "balance.updated"); b.has(t, "accrued", "amount").(float64) <= 0 {
		t.Errorf("the balance after usage is %s", b.data)
	}
	there.post(t, ada, "/v1/top-ups", `{"amount":{"amount":5000,"currency":"USD"}}`)
	acknowledged := time.Now()
	paid := s.event(t, "payment.succeeded")
	if wait := time.Since(acknowledged); wait > time.Second {
		t.Errorf("a payment was told after %v", wait)
	}
	if paid.id == "" || paid.has(t, "type") != "payment.succeeded" || strconv.FormatFloat(paid.has(t, "sequence").(float64), 'f', 0, 64) != paid.id {
		t.Errorf("the payment's message is %+v", paid)
	}
	s.until(t, func(m message) bool {
		return m.event == "balance.updated" && m.has(t, "funds", "amount") == 5000.0
	})
	select {
	case m := <-foreign.messages:
		t.Errorf("another account was told %+v", m)
	default:
	}
}

// What it used and what it has can still be read.
func TestStream_OfAClosedAccountShowsWhatIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.deps.V1.Metering.Cost = func(ctx context.Context, a account.ID) (map[string]v1.UsageCost, error) {
		costs, err := billing.Reader{Core: w.Core}.Costs(ctx, a)
		out := map[string]v1.UsageCost{}
		for m, c := range costs {
			out[m] = v1.UsageCost(c)
		}
		return out, err
	}
	r := w.replica(t, v1.Streams{}, changes.Options{})
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	r.post(t, ada, "/v1/usage/events", batch(event("the-last", "60", "")))
	r.post(t, ada, "/v1/top-ups", `{"amount":{"amount":5000,"currency":"USD"}}`)
	r.post(t, ada, "/v1/account/close", `{}`)
	s := r.stream(t, ada)
	if m := s.until(t, used(t, "voice", "60")); m.has(t, "meters", 3, "cost") != nil {
		t.Errorf("no period runs, and its usage costs: %s", m.data)
	}
	if m := s.event(t, "balance.updated"); m.has(t, "funds", "amount") != 0.0 {
		t.Errorf("after the closing the balance is %s", m.data)
	}
	ada.get(t, "/v1/usage").want(t, http.StatusOK)
}

func TestStream_ResumesWithoutAGap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(t, v1.Streams{}, changes.Options{})
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	s := r.stream(t, ada, "Last-Event-ID", "0")
	known := 0
	for known < 3 { // a few of those that the upgrade has made
		if m, _ := s.next(t); m.id != "" && m.event != "stream.opened" {
			if known++; m.id != strconv.Itoa(known) {
				t.Fatalf("message %+v, want sequence %d", m, known)
			}
		}
	}
	s.cancel()
	const missed = 250 // more than are read at a time
	for i := range missed {
		err := w.db.InTx(t.Context(), func(tx billing.Tx) error {
			return tx.Outbox().Publish(t.Context(), a.ID, outbox.AlertFired, map[string]int{"n": i}, w.clock())
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	newest, err := w.db.Outbox().Newest(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	again := r.stream(t, ada, "Last-Event-ID", strconv.Itoa(known))
	if m, _ := again.next(t); m.event != "stream.opened" || m.id != strconv.Itoa(known) || m.has(t, "newest") != float64(newest) {
		t.Errorf("opened with %+v", m)
	}
	for want := known + 1; want <= int(newest); {
		m, ok := again.next(t)
		switch {
		case !ok:
			t.Fatalf("the stream ended before %d", want)
		case m.id == strconv.Itoa(want):
			want++
		case m.id != "":
			t.Fatalf("sequence %s, want %d", m.id, want)
		}
	}
}

func TestStream_OutlivesALostConnectionToTheDatabase(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	here, there := w.replica(t, v1.Streams{}, changes.Options{}), w.replica(t, v1.Streams{}, changes.Options{})
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	s := here.stream(t, ada)
	s.event(t, "balance.updated")
	owner := postgrestest.Connect(t, w.dsn)
	listens, cancel := context.WithTimeout(t.Context(), time.Minute) // a stream may be open before anybody does
	defer cancel()
	for round := 1; round <= 3; round++ {
		for ended := 0; ended == 0; {
			err := owner.QueryRow(listens, `SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
WHERE application_name = 'accrue listener' AND datname = current_database()`).Scan(&ended)
			if err != nil {
				t.Fatal(err)
			}
			if round > 1 { // that it is away is as good
				break
			}
		}
		there.post(t, ada, "/v1/usage/events", batch(event(fmt.Sprintf("lost-%d", round), "60", "")))
		s.until(t, used(t, "voice", strconv.Itoa(60*round)))
	}
}

func TestStream_SaysWhyItEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(t, v1.Streams{Pace: 10 * time.Millisecond}, changes.Options{})
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	ends := func(t *testing.T, s *stream, reason string) {
		t.Helper()
		if m := s.event(t, "stream.closed"); m.has(t, "reason") != reason || m.id != "" {
			t.Errorf("ended with %+v, want %s", m, reason)
		}
		if m, more := s.next(t); more {
			t.Errorf("after the end came %+v", m)
		}
	}

	t.Run("WithTheToken", func(t *testing.T) {
		token, err := w.signer.Sign(auth.Grant{Subject: "ada", Account: a.ID.String(), Scopes: []auth.Scope{auth.BillingRead}}, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		ends(t, r.stream(t, caller{w: w, token: token.Reveal}), "token_expired")
	})
	t.Run("WithTheKey", func(t *testing.T) {
		created, key, err := w.keys.Create(t.Context(), auth.Principal{Kind: auth.User, Account: a.ID, Scopes: auth.All()},
			auth.NewKey{Account: a.ID, Name: "page", Scopes: []auth.Scope{auth.BillingRead}})
		if err != nil {
			t.Fatal(err)
		}
		s := r.stream(t, caller{w: w, token: key.Reveal})
		s.event(t, "balance.updated")
		if err := w.keys.Revoke(t.Context(), a.ID, created.ID); err != nil {
			t.Fatal(err)
		}
		w.advance(2 * time.Second) // keys are believed for a second
		r.post(t, ada, "/v1/usage/events", batch(event("after-the-key", "1", "")))
		for {
			m, ok := s.next(t)
			if !ok || m.event == "usage.updated" {
				t.Fatalf("a revoked key was told %+v", m)
			}
			if m.event == "stream.closed" {
				if m.has(t, "reason") != "credential_revoked" {
					t.Errorf("ended with %s", m.data)
				}
				break
			}
		}
	})
	t.Run("WithTheInstance", func(t *testing.T) {
		s := r.stream(t, ada)
		s.event(t, "balance.updated")
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := r.server.Shutdown(ctx); err != nil {
			t.Errorf("the server waits for its streams: %v", err)
		}
		ends(t, s, "shutting_down")
	})
}

// Whose issuer withdraws the key of a token takes the token back, from a stream that it has opened too.
func TestStream_EndsWithTheIssuersKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	later, err := auth.NewDevelopmentSigner(t.TempDir(), "accrue", auth.Test, w.clock)
	if err != nil {
		t.Fatal(err)
	}
	var published atomic.Pointer[auth.Signer]
	published.Store(w.signer)
	provider := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = rw.Write(published.Load().Issuer().Keys)
	}))
	t.Cleanup(provider.Close)
	issuer := w.signer.Issuer()
	issuer.Keys, issuer.JWKSURL = nil, provider.URL
	if w.deps.Auth.Tokens, err = auth.NewVerifier([]auth.Issuer{issuer}, auth.Test, w.clock, nil); err != nil {
		t.Fatal(err)
	}
	r := w.replica(t, v1.Streams{Pace: 10 * time.Millisecond}, changes.Options{})
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	s := r.stream(t, ada)
	s.event(t, "balance.updated")

	published.Store(later)
	w.advance(10 * time.Minute) // a token by a key that is not known has the keys fetched, and no sooner
	token, err := later.Sign(auth.Grant{Subject: "bob", Account: a.ID.String(), Scopes: []auth.Scope{auth.UsageWrite}}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	r.post(t, caller{w: w, token: token.Reveal}, "/v1/usage/events", batch(event("by-the-later-key", "1", "")))
	m := s.until(t, func(m message) bool { return m.event == "stream.closed" || used(t, "voice", "1")(m) })
	if m.event != "stream.closed" || m.has(t, "reason") != "credential_revoked" {
		t.Errorf("a withdrawn token was told %+v", m)
	}
}

// Neither the server's own limits of time nor silence end a stream.
func TestStream_StaysOpenInSilence(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const limit = 100 * time.Millisecond
	r := w.replica(t, v1.Streams{Heartbeat: limit / 2}, changes.Options{}, func(s *http.Server) { s.ReadTimeout, s.WriteTimeout = limit, limit })
	patient := w.replica(t, v1.Streams{}, changes.Options{})
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	s := r.stream(t, ada)
	for range 10 {
		select {
		case <-s.comments:
		case <-time.After(patience):
			t.Fatal("no sign of life")
		}
	}
	patient.post(t, ada, "/v1/usage/events", batch(event("after-silence", "7", "")))
	s.until(t, used(t, "voice", "7"))
}

// A reader that takes nothing is cut off and keeps nothing of the service; it resumes after the last
// message that it got whole.
func TestStream_ASlowReaderIsCutOffAndResumes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(t, v1.Streams{Patience: 200 * time.Millisecond}, changes.Options{}, func(s *http.Server) {
		s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
			_ = c.(*net.TCPConn).SetWriteBuffer(4 << 10)
			return ctx
		}
	})
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	before, err := w.db.Outbox().Newest(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	filler := map[string]string{"filler": strings.Repeat("x", 60<<10)}
	const many = 100
	for range many {
		err := w.db.InTx(t.Context(), func(tx billing.Tx) error {
			return tx.Outbox().Publish(t.Context(), a.ID, outbox.AlertFired, filler, w.clock())
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	_, err = fmt.Fprintf(conn, "GET /v1/events/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nLast-Event-ID: %d\r\n\r\n", ada.token(), before)
	if err != nil {
		t.Fatal(err)
	}
	if err := waitFor(func() bool { return r.hub.Open() == 1 }); err != nil {
		t.Fatal("the stream did not open")
	}
	if err := waitFor(func() bool { return r.hub.Open() == 0 }); err != nil {
		t.Fatal("a reader that takes nothing was not cut off")
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{messages: make(chan message, 1000), comments: make(chan struct{}, 1000)}
	s.read(resp.Body)
	last := before
	for m := range s.messages {
		if n, err := strconv.ParseInt(m.id, 10, 64); err == nil && m.event != "stream.opened" {
			if n != last+1 {
				t.Fatalf("sequence %d after %d", n, last)
			}
			last = n
		}
	}
	if last >= before+many {
		t.Fatal("the reader was not slow: everything came")
	}
	again := r.stream(t, ada, "Last-Event-ID", strconv.FormatInt(last, 10))
	for last < before+many {
		if m, ok := again.next(t); !ok {
			t.Fatalf("the second stream ended after %d", last)
		} else if m.id != "" && m.event != "stream.opened" {
			if last++; m.id != strconv.FormatInt(last, 10) {
				t.Fatalf("sequence %s, want %d", m.id, last)
			}
		}
	}
}

// waitFor waits for what happens in its own time.
func waitFor(done func() bool) error {
	deadline := time.After(patience)
	for !done() {
		select {
		case <-time.After(time.Millisecond):
		case <-deadline:
			return errors.New("it does not happen")
		}
	}
	return nil
}

func TestStream_Refusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(t, v1.Streams{}, changes.Options{PerAccount: 2})
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	refused := func(t *testing.T, c caller, path string, status int, code string, headers ...string) *http.Response {
		t.Helper()
		resp, err := r.request(t.Context(), c, http.MethodGet, path, "", headers...)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		var p struct{ Code string }
		_ = json.NewDecoder(resp.Body).Decode(&p)
		if resp.StatusCode != status || p.Code != code {
			t.Errorf("%v: %d %s, want %d %s", headers, resp.StatusCode, p.Code, status, code)
		}
		return resp
	}
	const path = "/v1/events/stream"
	for _, id := range []string{"-1", "x", "1.5", "99999999", "9223372036854775808", "1e3"} {
		refused(t, ada, path, http.StatusUnprocessableEntity, "invalid_request", "Last-Event-ID", id)
	}
	refused(t, ada, path+"?after=1", http.StatusUnprocessableEntity, "invalid_request")
	refused(t, w.user(t, a.ID, auth.UsageRead), path, http.StatusForbidden, "insufficient_scope")
	refused(t, ada, path, http.StatusNotAcceptable, "not_acceptable", "Accept", "application/json")
	if n := r.hub.Open(); n != 0 {
		t.Errorf("refused streams left %d open", n)
	}

	first := r.stream(t, ada)
	r.stream(t, ada)
	if resp := refused(t, ada, path, http.StatusTooManyRequests, "too_many_streams"); resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	r.stream(t, w.user(t, w.open(t).ID)).event(t, "balance.updated") // another account's is another limit
	first.cancel()
	if err := waitFor(func() bool { return r.hub.Open() == 2 }); err != nil {
		t.Fatal("a reader that has gone still counts")
	}
	r.stream(t, ada).event(t, "balance.updated")
	r.hub.Drain()
	refused(t, ada, path, http.StatusServiceUnavailable, "stream_stopping")
}

// A stream that asks for an account by its header gets that account's, and a customer cannot.
func TestStream_OfTheOperatorIsTheNamedAccounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := w.replica(t, v1.Streams{}, changes.Options{})
	a, _ := w.upgraded(t, sandbox.TokenVisa)
	s := r.stream(t, w.operator(t, a.ID), "Last-Event-ID", "0")
	if m := s.event(t, "account.created"); m.id != "1" {
		t.Errorf("the first event is %+v", m)
	}
	_, bob := w.upgraded(t, sandbox.TokenVisa)
	resp, err := r.request(t.Context(), bob, http.MethodGet, "/v1/events/stream", "", "Accrue-Account", a.ID.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a customer that names another account got %d", resp.StatusCode)
	}
}
