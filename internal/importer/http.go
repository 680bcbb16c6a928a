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
	"strings"
	"sync/atomic"
	"time"
)

// maxAnswer bounds what is read of an answer.
const maxAnswer = 16 << 20

// answerWithin bounds one try: of a connection that is half open no answer ever comes.
const answerWithin = time.Minute

// HTTPSender sends events to the API. What may succeed later (no connection, 429, 5xx) it tries again,
// as the service says and with growing pauses, for as long as Patience. An address at which nothing has answered
// yet is taken for a mistake, and is not tried again. It is safe for concurrent use.
type HTTPSender struct {
	BaseURL  string // without a slash at the end
	Token    string // an API key or a token, with the scope usage:write
	Account  string // for a platform key or an operator: the account; empty: the row's subject says it
	Client   *http.Client
	Patience time.Duration // zero: 10 minutes
	Log      *slog.Logger

	reached atomic.Bool // something has answered there
	away    atomic.Bool // it was told that events are not taken
}

var _ Sender = (*HTTPSender)(nil)

// unprocessableError says that the request was refused for what one of its events holds.
type unprocessableError struct {
	Code, Detail string
	Errors       []struct{ Pointer, Detail string }
}

func (e *unprocessableError) Error() string {
	if len(e.Errors) > 0 {
		return e.Detail + " " + e.Errors[0].Detail
	}
	return e.Detail
}

// refused returns the outcomes of the events that the answer names, by their place among n.
func (e *unprocessableError) refused(n int) map[int]Outcome {
	out := map[int]Outcome{}
	for _, f := range e.Errors {
		place, _, _ := strings.Cut(strings.TrimPrefix(f.Pointer, "#/events/"), "/")
		if i, err := strconv.Atoi(place); err == nil && i >= 0 && i < n {
			out[i] = Outcome{Status: "rejected", Code: e.Code, Detail: e.Detail + " " + f.Detail}
		}
	}
	if n == 1 && len(out) == 0 {
		out[0] = Outcome{Status: "rejected", Code: e.Code, Detail: e.Error()}
	}
	return out
}

// Send implements Sender. Where the service refuses all for the sake of some (texts that look like card numbers), it
// leaves out those that the answer names, and sends the others again. Where the answer names none, it looks for them by
// halves.
func (s *HTTPSender) Send(ctx context.Context, events []json.RawMessage) ([]Outcome, error) {
	outcomes, err := s.send(ctx, events)
	e, ok := errors.AsType[*unprocessableError](err)
	if !ok {
		return outcomes, err
	}
	refused := e.refused(len(events))
	if len(refused) == 0 {
		half := len(events) / 2
		first, err := s.Send(ctx, events[:half])
		if err != nil {
			return nil, err
		}
		rest, err := s.Send(ctx, events[half:])
		return append(first, rest...), err
	}
	var others []json.RawMessage
	for i := range events {
		if _, no := refused[i]; !no {
			others = append(others, events[i])
		}
	}
	var taken []Outcome
	if len(others) > 0 {
		if taken, err = s.Send(ctx, others); err != nil {
			return nil, err
		}
	}
	if len(taken) != len(others) {
		return nil, fmt.Errorf("%d answers to %d events", len(taken), len(others))
	}
	outcomes = make([]Outcome, len(events))
	for i := range outcomes {
		if o, no := refused[i]; no {
			outcomes[i] = o
		} else {
			outcomes[i], taken = taken[0], taken[1:]
		}
	}
	return outcomes, nil
}

func (s *HTTPSender) send(ctx context.Context, events []json.RawMessage) ([]Outcome, error) {
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
		if err == nil && s.away.CompareAndSwap(true, false) {
			s.Log.InfoContext(ctx, "events are taken again")
		}
		if err == nil || wait < 0 {
			return outcomes, err
		}
		wait = max(wait, pause)
		if s.away.CompareAndSwap(false, true) {
			s.Log.WarnContext(ctx, "events not taken; tried again until they are", "error", err, "for", patience)
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		case <-time.After(wait):
		}
		pause = min(2*pause, 10*time.Second)
	}
}

// maxRetryAfter bounds how long an answer can make us wait, in seconds.
const maxRetryAfter = 300

// try sends once. A negative wait says that trying again is of no use.
func (s *HTTPSender) try(ctx context.Context, body []byte) (_ []Outcome, wait time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
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
	if err != nil && !s.reached.Load() {
		return nil, -1, fmt.Errorf("nothing answers there: %w", err)
	}
	if err != nil {
		return nil, 0, err
	}
	s.reached.Store(true)
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
	if refused := (&unprocessableError{}); resp.StatusCode == http.StatusUnprocessableEntity && json.Unmarshal(answer, refused) == nil {
		return nil, -1, refused
	}
	err = fmt.Errorf("the service answered %d: %.500s", resp.StatusCode, bytes.TrimSpace(answer))
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
		return nil, -1, err
	}
	seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
	return nil, time.Duration(max(0, min(seconds, maxRetryAfter))) * time.Second, err
}
