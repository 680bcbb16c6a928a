package sandbox

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/payment"
)

// ErrLiveMode refuses the sandbox where money is real.
var ErrLiveMode = errs.New(errs.Invalid, "sandbox_in_live_mode", "The sandbox provider exists in test mode only.")

// ErrInUse says that another process plays the provider from the same folder.
var ErrInUse = errors.New("another process plays the sandbox provider from this folder; give sandbox-url the address where it does, or this one a data folder of its own")

const (
	maxBody        = 64 << 10
	defaultHangFor = 30 * time.Second
)

// Config says how the provider runs.
type Config struct {
	Mode          payment.Mode   // must be ModeTest
	Dir           string         // folder of the journal; empty: in memory, for tests
	PublicURL     string         // origin of the pages, without a slash at the end; empty: as each request names it
	SecretKey     payment.Secret // what the gateway, and whoever controls the sandbox, must present
	WebhookURL    string         // where events are sent; empty: nowhere
	WebhookSecret payment.Secret // signs them
	HangFor       time.Duration  // how long an unanswered call is held at most; 0: 30 seconds
	Clock         clock.Clock
	Logger        *slog.Logger // nil: silent
}

// Server is the provider: an http.Handler for a listener of its own. It is safe for concurrent use.
// Webhooks are sent while Run runs.
type Server struct {
	cfg   Config
	store *store
	mux   *http.ServeMux
	http  *http.Client  // for webhooks
	wake  chan struct{} // there is a webhook to send
	quit  chan struct{} // closed by Close: nothing hangs any more
	once  sync.Once

	mu    sync.Mutex
	inUse map[string]bool // keys of calls under way
}

var _ http.Handler = (*Server)(nil)

// New opens the provider's journal and returns the provider. It returns ErrLiveMode outside of test
// mode. The caller closes it.
func New(cfg Config) (*Server, error) {
	if cfg.Mode != payment.ModeTest {
		return nil, ErrLiveMode
	}
	if cfg.SecretKey == "" || cfg.Clock == nil {
		return nil, errors.New("the sandbox needs a secret key and a clock")
	}
	if cfg.WebhookURL != "" && cfg.WebhookSecret == "" {
		return nil, errors.New("the sandbox needs a secret to sign its webhooks")
	}
	if cfg.HangFor <= 0 {
		cfg.HangFor = defaultHangFor
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.PublicURL = strings.TrimSuffix(cfg.PublicURL, "/")
	st, err := openStore(cfg.Dir, cfg.Clock())
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, store: st, mux: http.NewServeMux(), http: payment.NewHTTPClient(10 * time.Second),
		wake: make(chan struct{}, 1), quit: make(chan struct{}), inUse: map[string]bool{},
	}
	s.routes()
	return s, nil
}

// Close lets go whoever hangs and closes the journal.
func (s *Server) Close() error {
	s.once.Do(func() { close(s.quit) })
	s.http.CloseIdleConnections()
	return s.store.close()
}

func (s *Server) routes() {
	m := s.mux
	m.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })

	m.HandleFunc("POST /v1/setups", s.write("setup", s.createSetup))
	m.HandleFunc("GET /v1/setups/{id}", s.read(s.getSetup))
	m.HandleFunc("POST /v1/attachments", s.write("attach", s.attach))
	m.HandleFunc("GET /v1/attachments/{id}", s.read(s.getAttachment))
	m.HandleFunc("GET /v1/methods/{id}", s.read(s.getMethod))
	m.HandleFunc("POST /v1/methods/{id}", s.write("update", s.updateMethod))
	m.HandleFunc("POST /v1/methods/{id}/detach", s.write("detach", s.detachMethod))
	m.HandleFunc("POST /v1/charges", s.write("charge", s.createCharge))
	m.HandleFunc("GET /v1/charges", s.read(s.listCharges))
	m.HandleFunc("GET /v1/charges/{id}", s.read(s.getCharge))
	m.HandleFunc("POST /v1/charges/{id}/cancel", s.write("cancel", s.cancelCharge))
	m.HandleFunc("POST /v1/refunds", s.write("refund", s.createRefund))
	m.HandleFunc("GET /v1/refunds", s.read(s.listRefunds))
	m.HandleFunc("GET /v1/refunds/{id}", s.read(s.getRefund))
	m.HandleFunc("GET /v1/disputes/{id}", s.read(s.getDispute))

	s.controlRoutes()
	s.pageRoutes()
}

// ServeHTTP serves the API, the control API and the pages.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	s.mux.ServeHTTP(w, r)
}

// call is one request as its handler sees it.
type call struct {
	id     string // of the path
	query  func(string) string
	body   []byte
	now    time.Time
	origin string // of our pages
	fault  Fault
	silent bool   // set by the handler: the caller gets no answer
	owner  string // the account whose call it is, once known: see account
}

func (c *call) decode(into any) error {
	d := json.NewDecoder(bytes.NewReader(c.body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return badRequest("the body is not what was expected: %s", err)
	}
	return nil
}

func (s *Server) newCall(r *http.Request) (*call, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	if err != nil || len(body) > maxBody {
		return nil, &apiError{413, codeBadRequest, "the body cannot be read or is too large"}
	}
	origin := s.cfg.PublicURL
	if origin == "" {
		origin = "http://" + r.Host
	}
	return &call{id: r.PathValue("id"), query: r.URL.Query().Get, body: body, now: s.cfg.Clock(), origin: origin}, nil
}

func (s *Server) authorized(r *http.Request) bool {
	given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(s.cfg.SecretKey.Reveal()))
	return hmac.Equal(a[:], b[:]) && ok
}

type (
	writer func(st *state, c *change, r *call) (any, error)
	reader func(st *state, r *call) (any, error)
)

// called wraps what may be asked with the secret key only.
func (s *Server) called(answer func(w http.ResponseWriter, r *http.Request, in *call)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !s.authorized(r) {
			fail(w, &apiError{401, codeUnauthorized, "the secret key is wrong"})
			return
		}
		in, err := s.newCall(r)
		if err != nil {
			fail(w, err)
			return
		}
		answer(w, r, in)
	}
}

// write wraps an operation that changes something: one change of the journal for the effect, its
// events and the answer under its key.
func (s *Server) write(op string, fn writer) http.HandlerFunc {
	return s.called(func(w http.ResponseWriter, r *http.Request, in *call) {
		key := r.Header.Get("Idempotency-Key")
		if key == "" || len(key) > 255 {
			fail(w, badRequest("an Idempotency-Key of 1 to 255 characters is needed"))
			return
		}
		if !s.claim(key) {
			fail(w, &apiError{409, codeKeyInUse, "a call with this key is under way"})
			return
		}
		defer s.release(key)

		sum := sha256.Sum256([]byte(r.Method + " " + r.URL.Path + "\n" + string(in.body)))
		fingerprint := hex.EncodeToString(sum[:])
		status := http.StatusOK // of a call that is not carried out, where half an answer is all that the fault leaves
		var answer []byte
		var events []event
		err := s.store.update(func(st *state, c *change) error {
			in.fault = takeFault(st, c, op, in.account)
			if !in.fault.carriedOut() {
				return nil
			}
			if k, ok := st.keys[key]; ok && in.now.Sub(k.CreatedAt) <= keyRetention {
				if k.Fingerprint != fingerprint {
					status, answer = errorAnswer(&apiError{422, codeKeyReused, "the key was used for another request"})
					return nil
				}
				status, answer = k.Status, k.Body
				return nil
			}
			plan := c.Faults
			result, err := fn(st, c, in)
			if err != nil {
				*c = change{Faults: plan} // whatever was prepared is not done
				in.silent = false
				status, answer = errorAnswer(err)
				return nil
			}
			status = http.StatusOK
			if answer, err = json.Marshal(result); err != nil {
				return err
			}
			c.Keys = append(c.Keys, keyRecord{Key: key, Fingerprint: fingerprint, Status: status, Body: answer, CreatedAt: in.now})
			events = c.Events
			return nil
		})
		if err != nil {
			s.cfg.Logger.ErrorContext(r.Context(), "sandbox: journal", "error", err)
			fail(w, err)
			return
		}
		if in.fault.is(FaultWebhookFirst) {
			for _, e := range events {
				s.deliver(r.Context(), e)
			}
		}
		s.nudge()
		s.answer(w, r, in, status, answer)
	})
}

// read wraps an operation that changes nothing, but for the fault plan.
func (s *Server) read(fn reader) http.HandlerFunc {
	return s.called(func(w http.ResponseWriter, r *http.Request, in *call) {
		var status int
		var answer []byte
		err := s.store.update(func(st *state, c *change) error {
			in.fault = takeFault(st, c, "lookup", in.account)
			result, err := fn(st, in)
			if err != nil {
				status, answer = errorAnswer(err)
				return nil
			}
			status = http.StatusOK
			answer, err = json.Marshal(result)
			return err
		})
		if err != nil {
			fail(w, err)
			return
		}
		s.answer(w, r, in, status, answer)
	})
}

// account returns whose call it is, for the fault plan.
func (c *call) account(st *state) string {
	if c.owner == "" {
		c.owner = c.findAccount(st)
	}
	return c.owner
}

func (c *call) findAccount(st *state) string {
	var body struct{ Account, Charge string }
	_ = json.Unmarshal(c.body, &body) // what is not there is empty; the handler complains of the rest
	switch {
	case body.Account != "":
		return body.Account
	case body.Charge != "":
		return st.charges[body.Charge].Account
	case c.id == "":
		return ""
	}
	if ch, ok := st.charges[c.id]; ok {
		return ch.Account
	}
	if su, ok := st.setups[c.id]; ok {
		return su.Account
	}
	return st.customers[st.methods[c.id].Customer].Account
}

// answer sends the answer, or does to it what the fault says.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, in *call, status int, body []byte) {
	f := in.fault
	switch {
	case f.is(FaultHang) || in.silent:
		s.hang(r.Context(), s.cfg.HangFor)
		panic(http.ErrAbortHandler)
	case f.is(FaultReset):
		panic(http.ErrAbortHandler)
	case f.is(FaultStatus):
		code := f.Status
		if code == 0 {
			code = http.StatusInternalServerError
		}
		fail(w, &apiError{code, codeInternal, "as planned"})
		return
	case f.is(FaultRateLimit):
		w.Header().Set("Retry-After", "1")
		fail(w, &apiError{429, codeRateLimited, "as planned"})
		return
	case f.is(FaultKeyInUse):
		fail(w, &apiError{409, codeKeyInUse, "as planned"})
		return
	case f.is(FaultGarbage):
		body = body[:len(body)/2]
	case f.is(FaultSlow):
		s.hang(r.Context(), f.delay())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the caller is gone: it will ask again
}

// hang waits for d, or until the caller gives up or the server is closed.
func (s *Server) hang(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	case <-s.quit:
	}
}

func (s *Server) claim(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inUse[key] {
		return false
	}
	s.inUse[key] = true
	return true
}

func (s *Server) release(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.inUse, key)
}

func errorAnswer(err error) (status int, body []byte) {
	e, ok := errors.AsType[*apiError](err)
	if !ok {
		e = &apiError{500, codeInternal, "the sandbox failed"}
	}
	body, _ = json.Marshal(map[string]*apiError{"error": e}) // strings: it cannot fail
	return e.Status, body
}

func fail(w http.ResponseWriter, err error) {
	status, body := errorAnswer(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // JSON, and says so
}
