package v1_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	v1 "github.com/accrue-billing/accrue/api/v1"
	"github.com/accrue-billing/accrue/internal/changes"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// packed compresses size bytes of a text that comes again and again.
func packed(t *testing.T, encoding, text string, size int) string {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&out)
	if encoding == "zstd" {
		z, err := zstd.NewWriter(&out, zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		w = z
	}
	part := []byte(strings.Repeat(text, 1<<20/len(text)))
	for ; size > 0; size -= len(part) {
		if _, err := w.Write(part[:min(size, len(part))]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// What is bad as a whole is refused as a whole, and nothing of it is kept. docs/metering.md has the same table.
func TestBadUsage_RefusesTheRequest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	r := w.replica(t, v1.Streams{}, changes.Options{})
	good, bomb := event("kept", "1", ""), 9<<20
	zipped := packed(t, "gzip", batch(good), len(batch(good)))
	const (
		plain  = "application/json"
		ndjson = "application/x-ndjson"
	)

	for name, c := range map[string]struct {
		media, encoding, body string
		status                int
		code, pointer         string
	}{
		"a gzip bomb":                           {plain, "gzip", packed(t, "gzip", "\x00", bomb), 413, "body_too_large", ""},
		"a gzip bomb of events":                 {ndjson, "gzip", packed(t, "gzip", good+"\n", bomb), 413, "body_too_large", ""},
		"a zstd bomb":                           {plain, "zstd", packed(t, "zstd", "[", bomb), 413, "body_too_large", ""},
		"more than 8 MiB":                       {plain, "", batch(good) + strings.Repeat(" ", 8<<20), 413, "body_too_large", ""},
		"more than 8 MiB once it is unpacked":   {plain, "gzip", packed(t, "gzip", " ", 8<<20+1), 413, "body_too_large", ""},
		"gzip that ends early":                  {plain, "gzip", zipped[:len(zipped)-6], 400, "corrupt_encoding", ""},
		"no gzip, though it is said to be":      {plain, "gzip", batch(good), 400, "corrupt_encoding", ""},
		"an encoding that is not spoken":        {plain, "br", batch(good), 415, "unsupported_encoding", ""},
		"another content type":                  {"text/csv", "", batch(good), 415, "unsupported_media_type", ""},
		"another charset":                       {plain + "; charset=utf-16", "", batch(good), 415, "unsupported_media_type", ""},
		"10,001 events":                         {plain, "", `{"events":[` + strings.Repeat("{},", 10_000) + good + `]}`, 413, "too_many_events", ""},
		"10,001 lines":                          {ndjson, "", strings.Repeat("{}\n", 10_000) + good, 413, "too_many_events", ""},
		"JSON 10⁵ deep":                         {plain, "", batch(good, strings.Repeat(`{"dimensions":`, 100_000)), 400, "malformed_json", ""},
		"a list 10⁵ deep that is closed":        {plain, "", batch(good, strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)), 400, "malformed_json", ""},
		"a member twice in an event of a batch": {plain, "", batch(good, `{"id":"a","quantity":"1","quantity":"2"}`), 422, "invalid_request", "#/events/1/quantity"},
		"a member twice with another spelling":  {plain, "", batch(good, `{"id":"a","quantity":"1","\u0071uantity":"2"}`), 422, "invalid_request", "#/events/1/quantity"},
		"a batch that ends early":               {plain, "", `{"events":[` + good + `,`, 400, "malformed_json", ""},
		"NaN, which is no JSON":                 {plain, "", batch(good, `{"id":"a","quantity":NaN}`), 400, "malformed_json", ""},
		"bytes that are no UTF-8":               {plain, "", batch(good, "{\"id\":\"\xff\"}"), 422, "invalid_request", "#/events/1/id"},
		"a card's number in one event of many":  {plain, "", batch(good, event("x", "1", `,"dimensions":{"project":"4242424242424242"}`)), 422, "card_data_not_accepted", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := r.report(t, ada, c.media, c.encoding, c.body)
			got.problem(t, c.status, c.code)
			if c.pointer != "" && got.str(t, "errors", 0, "pointer") != c.pointer {
				t.Errorf("%s, want %s", got.Body, c.pointer)
			}
		})
	}
	if got := ada.get(t, "/v1/usage/events?id=kept&source=media-eu-1"); !strings.Contains(string(got.Body), `"data":[]`) {
		t.Errorf("something of a refused request was kept: %s", got.Body)
	}
}

// What is bad in one event is that event's alone: it is rejected with a pointer to the offending value, and
// the good ones around it are stored. docs/metering.md has the same table.
func TestBadUsage_RejectsTheEvent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	stranger := w.open(t)
	r := w.replica(t, v1.Streams{}, changes.Options{})
	at := func(when string) string {
		return strings.Replace(event("bad", "1", ""), "2026-03-10T08:15:00Z", when, 1)
	}
	quantity := func(q string) string {
		return strings.Replace(event("bad", "1", ""), `"quantity":"1"`, `"quantity":`+q, 1)
	}

	for name, c := range map[string]struct{ event, code, pointer string }{
		"1e400":                      {quantity(`1e400`), "invalid_quantity", "/quantity"},
		"1e400 in a string":          {quantity(`"1e400"`), "invalid_quantity", "/quantity"},
		"NaN in a string":            {quantity(`"NaN"`), "invalid_quantity", "/quantity"},
		"a negative quantity":        {quantity(`"-1"`), "negative_quantity", "/quantity"},
		"40 decimals":                {quantity(`"0.` + strings.Repeat("1", 40) + `"`), "invalid_quantity", "/quantity"},
		"a quantity of another type": {quantity(`true`), "wrong_type", "/quantity"},
		"NUL":                        {strings.Replace(event("bad", "1", ""), `"bad"`, `"bad\u0000"`, 1), "invalid_text", "/id"},
		"NUL in a dimension":         {event("bad", "1", `,"dimensions":{"project":"a\u0000"}`), "invalid_text", "/dimensions/project"},
		"the year 9999":              {at("9999-12-31T23:59:59Z"), "in_future", "/timestamp"},
		"no time":                    {at("yesterday"), "invalid_timestamp", "/timestamp"},
		"a comma in a time":          {at("2026-03-10T08:15:00,5Z"), "invalid_timestamp", "/timestamp"},
		"an offset of a day":         {at("2026-03-11T08:15:00+24:00"), "invalid_timestamp", "/timestamp"},
		"another account's subject":  {event("bad", "1", `,"subject":"`+stranger.ID.String()+`"`), "unknown_account", "/subject"},
		"an unknown member":          {event("bad", "1", `,"price":"0"`), "unknown_member", "/price"},
		"a text of more than 64 KiB, which is not said again": {strings.Replace(event("bad", "1", ""), `"bad"`, `"`+strings.Repeat("b", 64<<10)+`"`, 1), "event_too_large", ""},
		"an event of more than 64 KiB":                        {event("bad", "1", `,"dimensions":{"project":"`+strings.Repeat("x", 64<<10)+`"}`), "event_too_large", ""},
		"no event":                                            {`7`, "wrong_type", ""},
		"a dimension 5,000 deep":                              {event("bad", "1", `,"dimensions":{"project":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`}`), "wrong_type", "/dimensions/project"},
	} {
		t.Run(name, func(t *testing.T) {
			got := r.report(t, ada, "application/json", "", batch(event(name+"-1", "1", ""), c.event, event(name+"-2", "1", "")))
			got.wantRejected(t, c.code, c.pointer)
		})
	}
	t.Run("one bad line of NDJSON", func(t *testing.T) {
		for i, line := range []string{`{"id":`, `{"id":"a","id":"b"}`, event("bad", "1", "") + "{}", strings.Repeat("[", 100_000)} {
			good := string(rune('a' + i))
			r.report(t, ada, "application/x-ndjson", "", event(good+"1", "1", "")+"\n"+line+"\n"+event(good+"2", "1", "")).wantRejected(t, "malformed_json", "")
		}
	})
}

// report sends usage to this replica.
func (r *replica) report(t *testing.T, c caller, media, encoding, body string) response {
	t.Helper()
	resp, err := r.request(t.Context(), c, http.MethodPost, "/v1/usage/events", body, "Content-Type", media, "Content-Encoding", encoding)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{Status: resp.StatusCode, Header: resp.Header, Body: answer}
}

// wantRejected fails the test unless the second of three events was rejected, and only it.
func (r response) wantRejected(t *testing.T, code, pointer string) {
	t.Helper()
	var got v1.UsageResults
	if err := json.Unmarshal(r.want(t, http.StatusOK).Body, &got); err != nil {
		t.Fatal(err)
	}
	if pointer != "" {
		pointer = "#/events/1" + pointer
	}
	if got.Accepted != 2 || got.Rejected != 1 || len(got.Results) != 3 || got.Results[1].Code != code || got.Results[1].Pointer != pointer {
		t.Errorf("%.2000s, want the second rejected: %s %s", r.Body, code, pointer)
	}
}

// A time that no answer could show, since it has a year of five digits in UTC or in the account's zone, is refused before
// it is kept or reckoned with.
func TestTimesThatNoAnswerCouldShowAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	for _, path := range []string{
		"/v1/usage?from=2026-01-01T00:00:00Z&to=9999-12-31T23:59:59-12:00",
		"/v1/usage?from=0001-01-01T00:00:00%2B14:00&to=2026-01-01T00:00:00Z",
		"/v1/usage/series?meter=voice&interval=hour&from=9999-12-31T20:00:00Z&to=9999-12-31T23:59:59-12:00",
		"/v1/usage/series?meter=voice&interval=month&from=9999-12-01T00:00:00Z&to=9999-12-31T00:00:00Z",
		"/v1/usage/events?from=9999-12-31T23:59:59-12:00",
		"/v1/usage/export?from=9999-12-31T23:59:59-12:00",
		"/v1/balance?at=0001-01-01T00:00:00%2B14:00",
		"/v1/usage/series?meter=voice&interval=day&from=0001-12-31T00:00:00Z&to=0002-01-02T00:00:00Z",
	} {
		ada.get(t, path).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	}
	ada.get(t, "/v1/usage/series?meter=voice&interval=month&from=9998-12-01T00:00:00Z&to=9998-12-31T23:59:59Z").want(t, http.StatusOK)
	ada.get(t, "/v1/usage/series?meter=voice&interval=day&from=0002-01-01T00:00:00Z&to=0002-01-02T00:00:00Z").want(t, http.StatusOK)

	ada.post(t, "/v1/api-keys", `{"name":"far","scopes":["usage:read"],"expires_at":"9999-12-31T23:59:59-12:00"}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	ada.get(t, "/v1/api-keys").want(t, http.StatusOK)
	ada.post(t, "/v1/usage/reconciliations", `{"meter":"voice","hours":[{"hour":"9999-12-31T12:00:00-12:00","events":0}]}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
}
