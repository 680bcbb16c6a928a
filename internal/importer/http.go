package importer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// HTTPSender sends events to the API. What may succeed later (no connection, 429, 5xx) it tries again,
// as the service says and with growing pauses, for as long as Patience. It is safe for concurrent use.
type HTTPSender struct {
	BaseURL  string // without a slash at the end
	Token    string // an API key or a token, with the scope usage:write
	Account  string // for a platform key or an operator: the account; empty: the row's subject says it
	Client   *http.Client
	Patience time.Duration // zero: 10 minutes
	Log      *slog.Logger
}

var _ Sender = (*HTTPSender)(nil)

// Send implements Sender.
func (s *HTTPSender) Send(ctx context.Context, events []json.RawMessage) ([]Outcome, error) {
	body, err := json.Marshal(map[string]any{"events": events})
	if err != nil {
		return nil, err
	}
	patience := s.Patience
	if patience <= 0 {
		patience = 10 * time.Minute
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("the service does not take events; resume the import later"))
	defer cancel()
	pause := 200 * time.Millisecond
	for {
		outcomes, wait, err := s.try(ctx, body)
		if err == nil || wait < 0 {
			return outcomes, err
		}
		wait = max(wait, pause)
		s.Log.DebugContext(ctx, "events not taken, trying again", "error", err, "after", wait)
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		case <-time.After(wait):
		}
		pause = min(2*pause, 10*time.Second)
	}
}

// try sends once. A negative wait says that trying again is of no use.
func (s *HTTPSender) try(ctx context.Context, body []byte) (_ []Outcome, wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.BaseURL+"/v1/usage/events", bytes.NewReader(body))
	if err != nil {
		return nil, -1, err
	}
	req.Header.Set("Authorization", "Bearer "+s.Token)
	req.Header.Set("Content-Type", "application/json")
	if s.Account != "" {
		req.Header.Set("Accrue-Account", s.Account)
	}
	client := s.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, 0, err
	}
	if resp.StatusCode == http.StatusOK {
		var out struct{ Results []Outcome }
		if err := json.Unmarshal(answer, &out); err != nil {
			return nil, -1, fmt.Errorf("answer: %w", err)
		}
		return out.Results, 0, nil
	}
	err = fmt.Errorf("the service answered %d: %.500s", resp.StatusCode, bytes.TrimSpace(answer))
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
		return nil, -1, err
	}
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return nil, time.Duration(seconds) * time.Second, err
}
