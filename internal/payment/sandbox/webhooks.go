package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/accrue-billing/accrue/internal/payment"
)

// signatureHeader carries the signature of a webhook: see payment.Sign.
const signatureHeader = "Sandbox-Signature"

const (
	senders   = 16                     // webhooks under way at once
	batchSize = 64                     // webhooks whose outcomes share a line of the journal
	pollEvery = 500 * time.Millisecond // how soon a webhook that is due by the clock is seen
	trail     = 100 * time.Millisecond // webhooks follow the answers to the calls that they tell of, as elsewhere
)

// retryAfter is the schedule of a webhook that was not taken; its last step is repeated for ever.
var retryAfter = []time.Duration{
	time.Second, 5 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour,
}

const chargeSucceeded = "charge.succeeded"

// emit puts an event into the change, as the fault plan wants it.
func emit(st *state, c *change, r *call, typ string, object payment.ObjectKind, ref string) {
	account := r.account
	switch object {
	case payment.ObjectCharge, payment.ObjectRefund, payment.ObjectDispute:
	default: // belongs to no account that a fault plan could name
		account = func(*state) string { return "" }
	}
	copies, due := 1, r.now
	switch f := takeFault(st, c, "webhook", account); f.Kind {
	case FaultWebhookTwice:
		copies = 2
	case FaultWebhookLate:
		due = due.Add(f.delay())
	case FaultWebhookLost:
		due = time.Time{}
	}
	e := event{
		ID: newID("evt_sbx_"), Seq: st.seq + int64(len(c.Events)) + 1, Type: typ, Object: string(object), Ref: ref,
		CreatedAt: r.now, Due: due, Copies: copies,
	}
	c.Events = append(c.Events, e)
}

// Run sends webhooks, each until it is taken, and returns when ctx ends and none is under way.
func (s *Server) Run(ctx context.Context) error {
	if s.cfg.WebhookURL == "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		for batch := range slices.Chunk(s.dueEvents(), batchSize) {
			if s.deliverBatch(ctx, batch); ctx.Err() != nil {
				break
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
			s.hang(ctx, trail)
		case <-tick.C:
		}
	}
}

// nudge wakes Run.
func (s *Server) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Server) dueEvents() []event {
	var out []event
	now := s.cfg.Clock()
	err := s.store.view(func(st *state) {
		if st.hold {
			return
		}
		for id := range st.due {
			if e := st.events[id]; !e.Due.After(now) {
				out = append(out, e)
			}
		}
	})
	if err != nil {
		return nil // the journal is broken, which whoever calls is told
	}
	slices.SortFunc(out, func(a, b event) int { return int(a.Seq - b.Seq) })
	return out
}

func (s *Server) deliverBatch(ctx context.Context, batch []event) {
	taken := make([]bool, len(batch))
	var wg sync.WaitGroup
	slots := make(chan struct{}, senders)
	for i, e := range batch {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			for range max(1, e.Copies) {
				taken[i] = s.post(ctx, e) == http.StatusOK
			}
		})
	}
	wg.Wait()
	s.record(batch, taken)
}

// deliver sends one event now, whatever its turn, and returns the receiver's status, or 0.
func (s *Server) deliver(ctx context.Context, e event) int {
	status := s.post(ctx, e)
	s.record([]event{e}, []bool{status == http.StatusOK})
	return status
}

// record writes down what came of sending events.
func (s *Server) record(batch []event, taken []bool) {
	now := s.cfg.Clock()
	err := s.store.update(func(st *state, c *change) error {
		for i, e := range batch {
			e = st.events[e.ID]
			e.Attempts++
			switch {
			case taken[i]:
				e.Delivered++
				e.Due = time.Time{}
			case !e.Due.IsZero():
				e.Due = now.Add(retryAfter[min(e.Attempts, len(retryAfter))-1])
			}
			c.Events = append(c.Events, e)
		}
		return nil
	})
	if err != nil {
		s.cfg.Logger.Error("sandbox: journal", "error", err)
	}
}

// eventBody is what a webhook says: that something happened to an object, not what it is now.
type eventBody struct {
	ID      string       `json:"id"`
	Type    string       `json:"type"`
	Mode    payment.Mode `json:"mode"`
	Created time.Time    `json:"created"`
	Object  struct {
		Kind string `json:"kind"`
		ID   string `json:"id"`
	} `json:"object"`
}

// post sends an event once. Any 2xx counts as 200.
func (s *Server) post(ctx context.Context, e event) int {
	if s.cfg.WebhookURL == "" {
		return 0
	}
	out := eventBody{ID: e.ID, Type: e.Type, Mode: payment.ModeTest, Created: e.CreatedAt}
	out.Object.Kind, out.Object.ID = e.Object, e.Ref
	body, err := json.Marshal(out)
	if err != nil {
		return 0
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.WebhookURL, bytes.NewReader(body))
	if err != nil {
		return 0
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(signatureHeader, payment.Sign(s.cfg.WebhookSecret, body, s.cfg.Clock()))
	res, err := s.http.Do(r)
	if err != nil {
		s.cfg.Logger.DebugContext(ctx, "sandbox: webhook not delivered", "event", e.ID, "error", err)
		return 0
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, res.Body) // read to its end, the connection is kept
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return http.StatusOK
	}
	return res.StatusCode
}
