package v1

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/munnerz/goautoneg"
	"golang.org/x/sync/semaphore"

	"github.com/accrue-billing/accrue/api/body"
	"github.com/accrue-billing/accrue/api/middleware"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/api/strictjson"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/spreadsheet"
	"github.com/accrue-billing/accrue/pkg/money"
)

// maxUsageBody bounds a request with events, after decompression.
const maxUsageBody = 8 << 20

// usageAdder stores events: metering.Ingester.
type usageAdder interface {
	Add(ctx context.Context, events []metering.Event) ([]metering.Result, error)
}

func usageEventRoutes(d Deps) []route.Route {
	d.Streams = d.Streams.withDefaults()
	h := usageEvents{d, semaphore.NewWeighted(maxExports)}
	return []route.Route{
		{
			Method: http.MethodPost, Path: "/v1/usage/events", Scope: auth.UsageWrite, Account: route.AccountOptional,
			Class: route.Ingest, MaxBody: maxUsageBody, Timeout: 25 * time.Second,
			Consumes: []string{echo.MIMEApplicationJSON, mediaNDJSON, mediaCloudEvent, mediaCloudBatch}, Handler: h.create,
		},
		{Method: http.MethodGet, Path: "/v1/usage/events", Scope: auth.UsageRead, Query: paged("id", "source", "meter", "from", "to"), Handler: h.list},
		{
			Method: http.MethodGet, Path: "/v1/usage/export", Scope: auth.UsageRead, Timeout: -1,
			Query:    []string{"format", "meter", "source", "from", "to"},
			Produces: []string{mediaNDJSON, mediaCSV}, Handler: h.export,
		},
	}
}

// UsageEvent is one report of usage. With its account, source and id identify it for ever.
type UsageEvent struct {
	ID         string            `json:"id" validate:"required" maxLength:"255" example:"call-8f2c"`
	Source     string            `json:"source,omitempty" maxLength:"255" default:"default" example:"media-eu-1"` // who reports
	Meter      string            `json:"meter" validate:"required" example:"voice"`
	Quantity   string            `json:"quantity,omitempty" format:"decimal" example:"63.5"` // in the meter's unit; may be left out where events or values are counted
	Value      string            `json:"value,omitempty" maxLength:"255"`                    // what a meter of distinct values counts once
	Timestamp  time.Time         `json:"timestamp" validate:"required" format:"date-time" example:"2026-11-23T10:15:00Z"`
	Dimensions map[string]string `json:"dimensions,omitempty"`                                        // at most 5, declared by the meter
	Subject    string            `json:"subject,omitempty" example:"acct_01k4w3c9t2e8rv5m0a7b6d1x9q"` // the account; for platform services only
} //@name UsageEvent

// UsageEvents is a batch.
type UsageEvents struct {
	Events []UsageEvent `json:"events" validate:"required" maxItems:"10000"`
} //@name UsageEvents

// UsageResults says what became of each event, in the order in which they were sent.
type UsageResults struct {
	Accepted   int           `json:"accepted" validate:"required"`
	Duplicates int           `json:"duplicates" validate:"required"`
	Conflicts  int           `json:"conflicts" validate:"required"`
	Rejected   int           `json:"rejected" validate:"required"`
	Results    []UsageResult `json:"results" validate:"required"`
} //@name UsageResults

// UsageResult says what became of one event. Only rejected events may be sent again with other content.
type UsageResult struct {
	ID       string       `json:"id" validate:"required" example:"call-8f2c"`
	Status   string       `json:"status" validate:"required" enums:"accepted,duplicate,conflict,rejected"`
	Code     string       `json:"code,omitempty" example:"limit_reached"`          // why it was rejected
	Detail   string       `json:"detail,omitempty"`                                // the same for a person
	Pointer  string       `json:"pointer,omitempty" example:"#/events/0/quantity"` // the offending value, if one is to blame
	ResetsAt *time.Time   `json:"resets_at,omitempty" format:"date-time"`          // when the limit in the way counts from zero again
	Stored   *UsageRecord `json:"stored,omitempty"`                                // on a conflict: what is stored, while it is kept
} //@name UsageResult

// UsageRecord is an event as it is stored.
type UsageRecord struct {
	ID         string            `json:"id" validate:"required" example:"call-8f2c"`
	Source     string            `json:"source" validate:"required" example:"media-eu-1"`
	Meter      string            `json:"meter" validate:"required" example:"voice"`
	Quantity   string            `json:"quantity" validate:"required" format:"decimal" example:"63.5"` // as reported
	Counted    string            `json:"counted,omitempty" format:"decimal" example:"66"`              // after the meter's rounding and corrections
	Value      string            `json:"value,omitempty"`
	Timestamp  time.Time         `json:"timestamp" validate:"required" format:"date-time"`
	ReceivedAt *time.Time        `json:"received_at,omitempty" format:"date-time"`
	Dimensions map[string]string `json:"dimensions" validate:"required"`
	Voided     bool              `json:"voided" validate:"required"`
} //@name UsageRecord

// maxExports is how many exports an instance makes at one time: each holds a connection of the database for as long
// as its reader takes.
const maxExports = 3

// ErrExportsBusy says that as many exports are being made as the service has connections for.
var ErrExportsBusy = errs.New(errs.Unavailable, "exports_busy", "As many exports are being made as can be at one time. Try again in a moment.").After(5 * time.Second)

type usageEvents struct {
	Deps
	exports *semaphore.Weighted
}

// create takes in usage.
//
//	@ID				createUsageEvents
//	@Summary		Report usage
//	@Description	One event, a batch of up to 10,000, CloudEvents (structured, batched, binary) or NDJSON; gzip and zstd are understood.
//	@Description	Answers once every accepted event is durable, counted and visible. A bad event does not keep the good ones back: look at the results. Repeating a request is always safe.
//	@Tags			usage
//	@Security		Token[usage:write]
//	@Accept			json
//	@Param			body	body		UsageEvents	true	"The events"
//	@Success		200		{object}	UsageResults
//	@Failure		400		{object}	problem.Problem	"malformed_json, corrupt_encoding, truncated_body, body_too_slow"
//	@Failure		413		{object}	problem.Problem	"body_too_large, window_too_large, too_many_events"
//	@Failure		415		{object}	problem.Problem	"unsupported_encoding, unsupported_media_type"
//	@Failure		422		{object}	problem.Problem	"invalid_request, card_data_not_accepted"
//	@Failure		503		{object}	problem.Problem	"ingest_busy, ingest_stopping, ingest_unavailable, large_bodies_busy"
//	@Router			/v1/usage/events [post]
func (h usageEvents) create(c echo.Context) error {
	data := body.Bytes(c)
	in, listed, err := decodeUsage(c.Request().Header, data)
	if err != nil {
		return err
	}
	if err := h.settleSubjects(c, in); err != nil {
		return err
	}
	events := make([]metering.Event, 0, len(in))
	for i := range in {
		if m := h.Metering.Catalogue.Meter(in[i].Meter); !in[i].hasQuantity && in[i].problem == nil && m != nil {
			if m.Aggregation != metering.Count && m.Aggregation != metering.Unique {
				in[i].fail("/quantity", "missing_quantity", "The meter goes by quantity.")
			}
			in[i].Quantity = money.DecimalFromInt(1)
		}
		if in[i].problem == nil {
			events = append(events, in[i].Event)
		}
	}
	var results []metering.Result
	if len(events) > 0 {
		if results, err = h.Metering.Ingester.Add(c.Request().Context(), events); err != nil {
			return err
		}
	}
	results = mergeResults(in, results)
	counts := metering.Summarize(results)
	if h.Metering.Answered != nil {
		h.Metering.Answered(counts)
	}
	return c.JSONBlob(http.StatusOK, appendUsageResults(nil, in, results, counts, listed))
}

// decodeUsage reads events in whatever form they come, and whether they came as a list.
func decodeUsage(h http.Header, data []byte) (in []incoming, listed bool, err error) {
	media, _, _ := body.MediaType(h.Get(echo.HeaderContentType))
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // a byte order mark, which some editors write, says nothing
	switch {
	case media == mediaNDJSON:
		in, err = decodeNDJSON(data)
		return in, true, err
	case media == mediaCloudBatch:
		in, err = decodeCloudBatch(data)
		return in, true, err
	case media == mediaCloudEvent:
		in, err = decodeCloudEvent(data)
	case h.Get("Ce-Specversion") != "" || h.Get("Ce-Id") != "":
		in, err = decodeBinary(h, data)
	default:
		return decodeJSON(data)
	}
	return in, false, err
}

// settleSubjects gives each event its account: the request's, or for a platform service the one that
// the event names. Another account than one's own looks like one that does not exist.
func (h usageEvents) settleSubjects(c echo.Context, in []incoming) error {
	own := middleware.AccountIfAny(c)
	anyAccount := middleware.Principal(c).ActsForAny() && own.IsZero()
	var named []string
	seen := map[string]bool{"": true}
	for i := range in {
		if ref := in[i].subject; !seen[ref] {
			seen[ref], named = true, append(named, ref)
		}
	}
	known, err := h.Metering.Accounts.LookupAll(c.Request().Context(), named)
	if err != nil {
		return err
	}
	for i := range in {
		e := &in[i]
		e.Account = own
		if e.subject == "" {
			if own.IsZero() {
				e.fail("/subject", "subject_required", "Name the account, here or in the header Accrue-Account.")
			}
			continue
		}
		a := known[e.subject]
		if a.IsZero() || (!anyAccount && a != own) {
			e.fail("/subject", "unknown_account", "There is no such account.")
			continue
		}
		e.Account = a
	}
	return nil
}

func usageResult(in *incoming, r metering.Result, prefix string) UsageResult {
	out := UsageResult{ID: in.ID, Status: r.Status.String()}
	if p := r.Problem; p != nil {
		out.Code, out.Detail, out.ResetsAt = p.Code, p.Detail, timeIf(p.ResetsAt)
		if p.Pointer != "" {
			out.Pointer = prefix + in.form.place(p.Pointer)
		}
	}
	if r.Stored != nil {
		rec := toUsageRecord(*r.Stored)
		out.Stored = &rec
	}
	return out
}

func toUsageRecord(r metering.Record) UsageRecord {
	out := UsageRecord{
		ID: r.ID, Source: r.Source, Meter: r.Meter, Quantity: r.Quantity.String(), Value: r.Value, Timestamp: r.OccurredAt,
		Dimensions: r.Dimensions.Map(), ReceivedAt: timeIf(r.ReceivedAt), Voided: r.Voided,
	}
	if out.Dimensions == nil {
		out.Dimensions = map[string]string{}
	}
	if !r.ReceivedAt.IsZero() {
		out.Counted = r.Counted.String()
	}
	return out
}

// list looks events up.
//
//	@ID			listUsageEvents
//	@Summary	List or look up usage events
//	@Tags		usage
//	@Security	Token[usage:read]
//	@Param		id		query		string	false	"Look one event up by its id (and source, unless it is the default one)"
//	@Param		source	query		string	false	"Events of one source"
//	@Param		meter	query		string	false	"Events of one meter"
//	@Param		from	query		string	false	"Events at or after this time"	format(date-time)
//	@Param		to		query		string	false	"Events before this time"		format(date-time)
//	@Param		limit	query		int		false	"Items on a page"				minimum(1)	maximum(100)	default(20)
//	@Param		cursor	query		string	false	"Where to read on"
//	@Success	200		{object}	Page[UsageRecord]
//	@Failure	404		{object}	problem.Problem	"unknown_meter"
//	@Router		/v1/usage/events [get]
func (h usageEvents) list(c echo.Context) error {
	return listSelected(c, h.Deps, toUsageRecord, h.Metering.Store.Events)
}

// listSelected answers with a page of what is about the events that the query selects.
func listSelected[D, T any](c echo.Context, d Deps, convert func(D) T, read func(context.Context, account.ID, metering.Filter, page.Request) (page.Page[D], error)) error {
	r, q, err := d.Lists.request(c)
	if err != nil {
		return err
	}
	f, err := d.Metering.filter(q)
	if err != nil {
		return err
	}
	found, err := read(c.Request().Context(), middleware.Account(c), f, r)
	if err != nil {
		return err
	}
	return list(c, d.Lists, found, convert)
}

// filter reads what selects events. A meter that there is not is refused: an answer without anything would pass for no usage.
func (m Metering) filter(q url.Values) (f metering.Filter, err error) {
	f = metering.Filter{Meter: q.Get("meter"), Source: q.Get("source"), ID: q.Get("id")}
	if f.Meter != "" && m.Catalogue.Meter(f.Meter) == nil {
		return f, metering.ErrUnknownMeter.With("meter", f.Meter)
	}
	f.Bounds, err = bounds(q.Get("from"), q.Get("to"))
	return f, err
}

// bounds reads a half-open range of times; either end may be open.
func bounds(from, to string) (b period.Bounds, err error) {
	if b.Start, err = timeParam("from", from); err != nil {
		return b, err
	}
	if b.End, err = timeParam("to", to); err != nil {
		return b, err
	}
	if !b.Start.IsZero() && !b.End.IsZero() && !b.Start.Before(b.End) {
		return b, metering.ErrRange
	}
	return b, nil
}

func timeParam(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := strictjson.ParseTime(s)
	if err != nil {
		return t, errs.InvalidField("#/"+name, "invalid_time", "%s", err.Error())
	}
	return t, nil
}

// export streams events.
//
//	@ID				exportUsage
//	@Summary		Export usage events
//	@Description	Streams stored events by time, as NDJSON or (format=csv or Accept: text/csv) as CSV. In CSV a text that a spreadsheet would take for a formula has an apostrophe in front, which `accrue import` takes off; NDJSON has it as it is. A reader that takes nothing for ten seconds is cut off.
//	@Tags			usage
//	@Security		Token[usage:read]
//	@Produce		application/x-ndjson,text/csv
//	@Param			format	query	string	false	"ndjson or csv"	Enums(ndjson, csv)
//	@Param			meter	query	string	false	"Events of one meter"
//	@Param			source	query	string	false	"Events of one source"
//	@Param			from	query	string	false	"Events at or after this time"	format(date-time)
//	@Param			to		query	string	false	"Events before this time"		format(date-time)
//	@Success		200		{file}	file
//	@Failure		404		{object}	problem.Problem	"unknown_meter"
//	@Failure		503		{object}	problem.Problem	"exports_busy"
//	@Router			/v1/usage/export [get]
func (h usageEvents) export(c echo.Context) error {
	q := middleware.Query(c)
	f, err := h.Metering.filter(q)
	if err != nil {
		return err
	}
	format := q.Get("format")
	wanted := strings.Join(c.Request().Header.Values(echo.HeaderAccept), ",")
	if format == "" && goautoneg.Negotiate(wanted, []string{mediaNDJSON, mediaCSV}) == mediaCSV {
		format = "csv"
	}
	w := c.Response()
	switch format {
	case "csv":
		w.Header().Set(echo.HeaderContentType, mediaCSV+"; charset=utf-8")
		w.Header().Set(echo.HeaderContentDisposition, `attachment; filename="usage.csv"`)
		return h.exportCSV(c, f)
	case "", "ndjson":
		w.Header().Set(echo.HeaderContentType, mediaNDJSON)
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return h.stream(c, f, func(r *metering.Record) error { return enc.Encode(toUsageRecord(*r)) })
	default:
		return errs.InvalidField("#/format", "unknown_value", "must be ndjson or csv")
	}
}

// exportCSV writes one column for each dimension that any meter declares. The columns are named as `accrue import` reads them.
func (h usageEvents) exportCSV(c echo.Context, f metering.Filter) error {
	var dims []string
	for _, m := range h.Metering.Catalogue.Meters() {
		for _, d := range m.Dimensions {
			if !slices.Contains(dims, d) {
				dims = append(dims, d)
			}
		}
	}
	slices.Sort(dims)
	w := csv.NewWriter(c.Response())
	row := []string{"timestamp", "meter", "quantity", "counted", "value", "source", "id", "received_at", "voided"}
	for _, d := range dims {
		row = append(row, "dimensions."+d)
	}
	if err := w.Write(row); err != nil {
		return err
	}
	err := h.stream(c, f, func(r *metering.Record) error {
		voided := "false"
		if r.Voided {
			voided = "true"
		}
		row = append(row[:0], r.OccurredAt.Format(time.RFC3339Nano), r.Meter, r.Quantity.String(), r.Counted.String(), spreadsheet.Cell(r.Value),
			spreadsheet.Cell(r.Source), spreadsheet.Cell(r.ID), r.ReceivedAt.Format(time.RFC3339Nano), voided)
		for _, d := range dims {
			row = append(row, spreadsheet.Cell(r.Dimensions.Get(d)))
		}
		return w.Write(row)
	})
	if err != nil {
		return err // what was begun is not sent: it would be taken for all there is
	}
	w.Flush()
	return w.Error()
}

// exportStride is how many events a reader must take within the patience of Streams: an export holds a connection of
// the database, which whoever takes nothing must not keep from the others.
const exportStride = 100

// stream exports events and sends what is written on its way now and then. After the first event an
// error can only end the connection, so that a cut answer is not taken for a whole one.
func (h usageEvents) stream(c echo.Context, f metering.Filter, each func(*metering.Record) error) error {
	if !h.exports.TryAcquire(1) {
		return ErrExportsBusy
	}
	defer h.exports.Release(1)
	control, n := http.NewResponseController(c.Response().Writer), 0
	err := h.Metering.Store.Export(c.Request().Context(), middleware.Account(c), f, func(r *metering.Record) error {
		if n%exportStride == 0 {
			if err := control.SetWriteDeadline(clock.System().Add(h.Streams.Patience)); err != nil && !errors.Is(err, http.ErrNotSupported) {
				return err
			}
		}
		if n++; n%1000 == 0 {
			c.Response().Flush()
		}
		return each(r)
	})
	if err != nil && c.Response().Committed {
		panic(http.ErrAbortHandler)
	}
	if err == nil && !c.Response().Committed {
		c.Response().WriteHeader(http.StatusOK)
	}
	return err
}
