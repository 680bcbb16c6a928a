package v1

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/changes"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/coalesce"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
)

const mediaEventStream = "text/event-stream"

// Streams is what the stream of an account's events stands on. The zero value of a duration means its
// default.
type Streams struct {
	Hub       subscriber
	Pace      time.Duration // at least between two looks at one account's figures; default 500 ms
	Heartbeat time.Duration // between signs of life on a silent stream; default 15 s
	Patience  time.Duration // how long a write waits for its reader, of an export too; default 10 s
}

// subscriber says when an account has changed: changes.Hub.
type subscriber interface {
	Subscribe(a account.ID) (*changes.Subscription, error)
}

func (s Streams) withDefaults() Streams {
	if s.Pace <= 0 {
		s.Pace = 500 * time.Millisecond
	}
	if s.Heartbeat <= 0 {
		s.Heartbeat = 15 * time.Second
	}
	if s.Patience <= 0 {
		s.Patience = 10 * time.Second
	}
	return s
}

func eventStreamRoutes(d Deps) []route.Route {
	d.Streams = d.Streams.withDefaults()
	h := eventStreams{Deps: d}
	// However many streams look at however many accounts, so many reads are under way.
	h.figures = coalesce.New(4, 16, 5*time.Second, h.read)
	return []route.Route{
		{
			Method: http.MethodGet, Path: "/v1/events/stream", Scope: auth.BillingRead, Timeout: -1,
			Produces: []string{mediaEventStream}, Handler: h.get,
		},
	}
}

// StreamOpened is the first message of a stream.
type StreamOpened struct {
	Sequence int64 `json:"sequence" validate:"required" example:"41"` // events after this one follow
	Newest   int64 `json:"newest" validate:"required" example:"42"`   // the newest event that there is
} //@name StreamOpened

// StreamClosed is the last message of a stream that the service ends.
type StreamClosed struct {
	Reason   string `json:"reason" validate:"required" enums:"token_expired,credential_revoked,shutting_down"`
	Sequence int64  `json:"sequence" validate:"required" example:"42"` // the last event that was sent
} //@name StreamClosed

// figures are the messages with an account's figures, ready to be sent.
type figures struct{ usage, balance []byte }

type eventStreams struct {
	Deps
	figures *coalesce.Reads[account.ID, figures]
}

// get tells what happens to the account as it happens.
//
//	@ID				streamEvents
//	@Summary		Stream what happens to the account
//	@Description	Server-Sent Events. The events of `GET /v1/events` come with their sequence as `id`, their type as `event` and an AccountEvent as `data`, within a second of the commit and whichever instance made it. After a break send the last id as `Last-Event-ID`: everything since follows first, without a gap.
//	@Description	`stream.opened` comes first, with the `sequence` after which events follow and the `newest` that there is. `usage.updated` (a Usage, the current period to date) and `balance.updated` (a Balance) come at the start and then when they have changed, at most twice a second: they are what is now, not steps, so they have no id and the latest is enough. A comment comes every 15 seconds.
//	@Description	`stream.closed` says by its `reason` why the service ends a stream: `token_expired`, `credential_revoked` or `shutting_down`. A reader that takes nothing for ten seconds is cut off. Connect again with the last id.
//	@Tags			events
//	@Security		Token[billing:read]
//	@Produce		text/event-stream
//	@Param			Last-Event-ID	header		int		false	"The last sequence that is known; left out: from now on"	minimum(0)
//	@Success		200				{string}	string	"Messages as described, for as long as the caller stays"
//	@Failure		422				{object}	problem.Problem	"invalid_request"
//	@Failure		429				{object}	problem.Problem	"too_many_streams"
//	@Failure		503				{object}	problem.Problem	"stream_stopping, streams_exhausted"
//	@Router			/v1/events/stream [get]
func (h eventStreams) get(c echo.Context) error {
	ctx, a := c.Request().Context(), middleware.Account(c)
	sub, err := h.Streams.Hub.Subscribe(a) // before the first look: what is committed after it is heard
	if err != nil {
		return err
	}
	defer sub.Close()
	newest, err := h.Billing.DB.Outbox().Newest(ctx, a)
	if err != nil {
		return err
	}
	sequence, err := lastEventID(c.Request().Header, newest)
	if err != nil {
		return err
	}
	s := &eventStream{
		eventStreams: h, sub: sub, account: a, sequence: sequence, out: newEventWriter(c, h.Streams.Patience),
		principal: middleware.Principal(c), credential: c.Request().Header.Get(echo.HeaderAuthorization),
	}
	s.message(strconv.FormatInt(sequence, 10), "stream.opened", marshal(StreamOpened{sequence, newest}))
	// The answer has begun: what happens from here on ends the stream, and is no answer of its own.
	if err := s.run(ctx); err != nil && ctx.Err() == nil {
		h.Billing.Log.DebugContext(ctx, "event stream cut off", "account", a, "error", err)
	}
	return nil
}

// lastEventID returns the sequence that the caller knows; without one, the newest.
func lastEventID(header http.Header, newest int64) (int64, error) {
	text := header.Get("Last-Event-ID")
	if text == "" {
		return newest, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > newest {
		return 0, errs.InvalidField("#/Last-Event-ID", "out_of_range", "must be the sequence of an event of this account, or 0")
	}
	return n, nil
}

// read makes the messages with figures of accounts. One whose figures cannot be read is left out, to be asked for again:
// it keeps none that is read with it from being told.
func (h eventStreams) read(ctx context.Context, accounts []account.ID) (map[account.ID]figures, error) {
	out := make(map[account.ID]figures, len(accounts))
	for _, a := range accounts {
		f, err := h.figuresOf(ctx, a)
		if err != nil {
			h.Billing.Log.DebugContext(ctx, "figures not read for a stream", "account", a, "error", err)
			continue
		}
		out[a] = f
	}
	return out, nil
}

func (h eventStreams) figuresOf(ctx context.Context, a account.ID) (figures, error) {
	u, err := usage{h.Deps}.answer(ctx, a, metering.Question{})
	if err != nil {
		return figures{}, err
	}
	b, err := billing.Reader{Core: h.Billing}.Balance(ctx, a)
	if err != nil {
		return figures{}, err
	}
	return figures{usage: marshal(u), balance: marshal(toBalance(b))}, nil
}

// eventStream is one stream. It is pulled: a nudge says that there is something, and what there is
// comes from the store when the reader has taken what was before, so nothing waits in memory.
type eventStream struct {
	eventStreams
	sub        *changes.Subscription
	account    account.ID
	principal  auth.Principal
	credential string
	out        *eventWriter

	sequence int64   // of the last event that was sent
	sent     figures // the last ones that were sent
}

// run sends until the reader has gone (nil or the error of the write) or the stream was ended.
func (s *eventStream) run(ctx context.Context) error {
	var expired <-chan time.Time
	if !s.principal.Expiry.IsZero() {
		t := time.NewTimer(s.principal.Expiry.Sub(s.Billing.Clock()))
		defer t.Stop()
		expired = t.C
	}
	heartbeat := time.NewTicker(s.Streams.Heartbeat)
	defer heartbeat.Stop()
	pace := time.NewTimer(0) // runs while figures must not be looked at again
	defer pace.Stop()
	<-pace.C
	paced := false
	what := changes.Events | changes.Usage
	for {
		if what != 0 {
			if s.revoked(ctx) {
				return s.close("credential_revoked")
			}
			left := s.look(ctx, what, paced)
			if what&changes.Usage != 0 && !paced {
				paced = true
				pace.Reset(s.Streams.Pace)
			}
			what = left
		}
		if err := s.out.flush(); err != nil {
			return err
		}
		select {
		case <-s.sub.Ready():
			changed := s.sub.Take()
			if changed&changes.Events != 0 { // most of what happens moves the balance
				changed |= changes.Usage
			}
			what |= changed & (changes.Events | changes.Usage)
		case <-pace.C:
			paced = false
		case <-heartbeat.C:
			// A nudge may have been lost: with a connection, or with the process that owed it.
			what |= changes.Events | changes.Usage
			s.out.comment()
		case <-expired:
			return s.close("token_expired")
		case <-s.sub.Ended():
			s.look(ctx, changes.Events, false)
			return s.close("shutting_down")
		case <-ctx.Done():
			return nil
		}
	}
}

// look sends what is new of what has changed, and returns what it must look at again.
func (s *eventStream) look(ctx context.Context, what changes.What, paced bool) (left changes.What) {
	if what&changes.Events != 0 && !s.events(ctx) {
		left |= changes.Events | changes.Usage
	}
	if what&changes.Usage == 0 {
		return left
	}
	if paced {
		return left | changes.Usage
	}
	got, found, err := s.figures.Get(s.account)
	if err != nil || !found {
		return left | changes.Usage // after the pace
	}
	if !bytes.Equal(got.usage, s.sent.usage) {
		s.message("", "usage.updated", got.usage)
	}
	if !bytes.Equal(got.balance, s.sent.balance) {
		s.message("", "balance.updated", got.balance)
	}
	s.sent = got
	return left
}

// events sends the events that are new, and reports whether that were all.
func (s *eventStream) events(ctx context.Context) bool {
	for {
		list, err := s.Billing.DB.Outbox().After(ctx, s.account, s.sequence, page.MaxLimit)
		if err != nil {
			return false
		}
		for _, e := range list {
			s.message(strconv.FormatInt(e.Sequence, 10), string(e.Type), marshal(toAccountEvent(e)))
			s.sequence = e.Sequence
			// One after the other, so that what waits for a slow reader is one event.
			if s.out.flush() != nil {
				return true // the next flush says so again
			}
		}
		if len(list) < page.MaxLimit {
			return true
		}
	}
}

// revoked reports whether the credential that opened the stream is no longer good: an API key that was revoked, or a
// token whose issuer has withdrawn the key that signed it.
func (s *eventStream) revoked(ctx context.Context) bool {
	_, credential, _ := strings.Cut(s.credential, " ")
	_, err := s.Auth.Authenticate(ctx, strings.TrimSpace(credential))
	return errs.KindOf(err) == errs.Unauthenticated
}

func (s *eventStream) close(reason string) error {
	s.message("", "stream.closed", marshal(StreamClosed{reason, s.sequence}))
	return s.out.flush()
}

func (s *eventStream) message(id, event string, data []byte) { s.out.message(id, event, data) }

// marshal encodes a wire type or what has been one.
func marshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // wire types have nothing that cannot be encoded
	}
	return b
}

// eventWriter writes messages in the form of Server-Sent Events.
type eventWriter struct {
	response *echo.Response
	control  *http.ResponseController
	patience time.Duration
	buf      bytes.Buffer
	err      error // of the first write that failed
}

// newEventWriter begins the answer.
func newEventWriter(c echo.Context, patience time.Duration) *eventWriter {
	w := &eventWriter{response: c.Response(), control: http.NewResponseController(c.Response().Writer), patience: patience}
	w.response.Header().Set(echo.HeaderContentType, mediaEventStream)
	w.response.Header().Set("X-Accel-Buffering", "no") // a proxy that collects would make it late
	w.response.WriteHeader(http.StatusOK)
	w.buf.WriteString("retry: 1000\n\n") // how long a browser waits before it connects again
	return w
}

// message adds a message. Its data is JSON, which has no line feeds.
func (w *eventWriter) message(id, event string, data []byte) {
	if id != "" {
		w.buf.WriteString("id: " + id + "\n")
	}
	w.buf.WriteString("event: " + event + "\ndata: ")
	w.buf.Write(data)
	w.buf.WriteString("\n\n")
}

func (w *eventWriter) comment() { w.buf.WriteString(": still here\n\n") }

// flush sends what was added, and returns an error once the reader has not taken it in time.
func (w *eventWriter) flush() error {
	if w.buf.Len() == 0 || w.err != nil {
		return w.err
	}
	// The socket's deadline goes by the machine's clock, whatever clock the accounts have.
	w.err = w.control.SetWriteDeadline(clock.System().Add(w.patience))
	if w.err == nil {
		_, w.err = w.response.Write(w.buf.Bytes())
	}
	if w.err == nil {
		w.err = w.control.Flush()
	}
	w.buf.Reset()
	return w.err
}
