package v1

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/pkg/money"
)

func show(in []incoming) string {
	var out []string
	for _, e := range in {
		if e.problem != nil {
			out = append(out, "!"+e.problem.Code+e.form.place(e.problem.Pointer))
			continue
		}
		s := fmt.Sprintf("%s/%s %s=%s", e.Source, e.ID, e.Meter, e.Quantity)
		if !e.OccurredAt.IsZero() {
			s += " @" + e.OccurredAt.Format(time.RFC3339Nano)
		}
		for _, d := range e.Dimensions {
			s += " " + d.Name + ":" + d.Value
		}
		if e.Value != "" {
			s += " value:" + e.Value
		}
		if e.subject != "" {
			s += " for:" + e.subject
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

func TestDecodeUsage(t *testing.T) {
	t.Parallel()

	const whole = `{"id":"a","source":"s","meter":"voice","quantity":"63.5","timestamp":"2026-11-23T10:15:00.1234567Z","dimensions":{"tag":"y","project":"x"}}`
	const cloud = `{"specversion":"1.0","id":"a","source":"s","type":"voice","subject":"acct","time":"2026-11-23T11:15:00+01:00","traceparent":"x","data":{"quantity":5}}`
	for name, c := range map[string]struct{ media, body, want string }{
		"one event":                 {"json", whole, "s/a voice=63.5 @2026-11-23T10:15:00.123456Z project:x tag:y"},
		"a batch":                   {"json", `{"events":[` + whole + `,{"id":"b"}]}`, "s/a voice=63.5 @2026-11-23T10:15:00.123456Z project:x tag:y; /b =0"},
		"an empty batch":            {"json", `{"events":[]}`, ""},
		"a number for a quantity":   {"json", `{"id":"a","quantity":1.50}`, "/a =1.5"},
		"an exponent":               {"json", `{"id":"a","quantity":1e400}`, "!invalid_quantity/quantity"},
		"40 decimals":               {"json", `{"id":"a","quantity":"0.` + strings.Repeat("1", 40) + `"}`, "!invalid_quantity/quantity"},
		"minus zero":                {"json", `{"id":"a","quantity":-0}`, "!invalid_quantity/quantity"},
		"not a number":              {"json", `{"id":"a","quantity":"NaN"}`, "!invalid_quantity/quantity"},
		"beyond what floats hold":   {"json", `{"id":"a","quantity":900719925474099.123456789}`, "/a =900719925474099.123456789"},
		"16 integer digits":         {"json", `{"id":"a","quantity":9007199254740993}`, "!invalid_quantity/quantity"},
		"an unknown member":         {"json", `{"events":[{"id":"a","price":1},{"id":"b"}]}`, "!unknown_member/price; /b =0"},
		"the wrong type":            {"json", `{"events":[{"id":7},3,{"id":"b"}]}`, "!wrong_type/id; !wrong_type; /b =0"},
		"NUL":                       {"json", `{"events":[{"id":"a\u0000"},{"id":"b"}]}`, "!invalid_text/id; /b =0"},
		"normal form":               {"json", `{"id":"e\u0301"}`, "/é =0"},
		"a strange time":            {"json", `{"id":"a","timestamp":"yesterday"}`, "!invalid_timestamp/timestamp"},
		"the year 9999":             {"json", `{"id":"a","timestamp":"9999-12-31T23:59:59Z"}`, "/a =0 @9999-12-31T23:59:59Z"},
		"dimensions of other types": {"json", `{"id":"a","dimensions":{"x":1}}`, "!wrong_type/dimensions/x"},
		"a nested dimension":        {"json", `{"events":[{"id":"a","dimensions":{"x":` + strings.Repeat("[", 500) + strings.Repeat("]", 500) + `}},{"id":"b"}]}`, "!wrong_type/dimensions/x; /b =0"},
		"a duplicate member":        {"json", `{"id":"a","id":"b"}`, "error invalid_request"},
		"a broken batch":            {"json", `{"events":[{"id":"a"},`, "error malformed_json"},
		"10⁵ deep":                  {"json", `{"events":` + strings.Repeat("[", 100_000) + `}`, "error malformed_json"},
		"something behind":          {"json", `{"id":"a"} {}`, "error malformed_json"},
		"another member beside":     {"json", `{"events":[],"x":1}`, "error invalid_request"},
		"a list":                    {"json", `[]`, "error invalid_request"},
		"nothing":                   {"json", ``, "error body_required"},
		"no JSON":                   {"json", `hello`, "error malformed_json"},
		"NDJSON":                    {"ndjson", "{\"id\":\"a\"}\n\n{\"id\":\r\n{\"id\":\"c\"}{}\n{\"id\":\"d\"}", "/a =0; !malformed_json; !malformed_json; /d =0"},
		"a CloudEvent":              {"cloud", cloud, "s/a voice=5 @2026-11-23T10:15:00Z for:acct"},
		"another specversion":       {"cloud", `{"specversion":"0.3","id":"a","source":"s","type":"voice"}`, "!unsupported_specversion/specversion"},
		"a CloudEvent in base64":    {"cloud", `{"specversion":"1.0","id":"a","source":"s","type":"voice","data_base64":"eyJxdWFudGl0eSI6IjIifQ=="}`, "s/a voice=2"},
		"data that is not JSON":     {"cloud", `{"specversion":"1.0","id":"a","source":"s","type":"voice","datacontenttype":"text/xml","data":{}}`, "!unsupported_data/datacontenttype"},
		"a batch of CloudEvents":    {"batch", "[" + cloud + "," + strings.Replace(cloud, `"source":"s",`, "", 1) + "]", "s/a voice=5 @2026-11-23T10:15:00Z for:acct; !invalid_source/source"},
		"an empty batch of them":    {"batch", "[]", ""},
		"a byte order mark":         {"ndjson", "\ufeff{\"id\":\"a\"}\n{\"id\":\"b\"}", "/a =0; /b =0"},
		"attributes that are null":  {"cloud", strings.Replace(cloud, `"subject":"acct"`, `"subject":null,"datacontenttype":null,"dataschema":null,"data_base64":null`, 1), "s/a voice=5 @2026-11-23T10:15:00Z"},
		"a null that is required":   {"cloud", strings.Replace(cloud, `"source":"s"`, `"source":null`, 1), "!invalid_source/source"},
		"data that is no object":    {"cloud", strings.Replace(cloud, `{"quantity":5}`, `[5]`, 1), "!wrong_type/data"},
		"data twice":                {"cloud", strings.Replace(cloud, `"data":`, `"data_base64":"e30=","data":`, 1), "!invalid_data/data"},
		"a place within data":       {"cloud", strings.Replace(cloud, `"quantity":5`, `"quantity":-0`, 1), "!invalid_quantity/data/quantity"},
		"a stranger within data":    {"cloud", strings.Replace(cloud, `"quantity":5`, `"type":5`, 1), "!unknown_member/data/type"},
		"a place within base64":     {"cloud", `{"specversion":"1.0","id":"a","source":"s","type":"voice","data_base64":"eyJxdWFudGl0eSI6Ii0wIn0="}`, "!invalid_quantity/data_base64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			media := map[string]string{"json": "application/json", "ndjson": mediaNDJSON, "cloud": mediaCloudEvent, "batch": mediaCloudBatch}[c.media]
			in, _, err := decodeUsage(http.Header{"Content-Type": {media}}, []byte(c.body))
			got := show(in)
			if err != nil {
				got = "error " + strings.SplitN(err.Error(), ":", 2)[0]
			}
			if got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestDecodeUsageBinaryMode(t *testing.T) {
	t.Parallel()

	h := http.Header{
		"Content-Type": {"application/json"}, "Ce-Specversion": {"1.0"}, "Ce-Id": {"a%20b"}, "Ce-Source": {"s"}, "Ce-Type": {"voice"},
		"Ce-Time": {"2026-11-23T10:15:00Z"}, "Ce-Subject": {"acct"},
	}
	in, _, err := decodeUsage(h, []byte(`{"quantity":"2","dimensions":{"project":"x"}}`))
	if got := show(in); err != nil || got != "s/a b voice=2 @2026-11-23T10:15:00Z project:x for:acct" {
		t.Errorf("%s, %v", got, err)
	}
	h["Ce-Id"] = []string{"%ff"}
	in, _, err = decodeUsage(h, nil)
	if got := show(in); err != nil || got != "!invalid_attribute/id" {
		t.Errorf("invalid UTF-8: %s, %v", got, err)
	}
	for sent, want := range map[string]string{
		`"a%20b"`: `a b`, `"a b"`: `a b`, `"a\"b\\c"`: `a"b\c`, `"a`: `"a`, `"`: `"`, `%22a%22`: `"a"`, `"a\"`: `a\`,
	} {
		h["Ce-Id"] = []string{sent}
		if in, _, err = decodeUsage(h, nil); err != nil || in[0].ID != want {
			t.Errorf("%s: %s, %v; want %s", sent, show(in), err, want)
		}
	}
}

func TestTooManyEvents(t *testing.T) {
	t.Parallel()

	body := `{"events":[` + strings.Repeat(`{"id":"a"},`, maxEvents) + `{"id":"a"}]}`
	if _, _, err := decodeJSON([]byte(body)); err == nil {
		t.Error("10,001 events were taken")
	}
	if _, err := decodeNDJSON([]byte(strings.Repeat("{}\n", maxEvents+1))); err == nil {
		t.Error("10,001 lines were taken")
	}
	long := `{"events":[{"id":"` + strings.Repeat("a", maxItemBytes) + `"},{"id":"b"}]}`
	in, _, err := decodeJSON([]byte(long))
	if got := show(in); err != nil || got != "!event_too_large; /b =0" {
		t.Errorf("a long event: %.80s, %v", got, err)
	}
}

// The answers that are written by hand are those that encoding/json would write.
func TestUsageResultsAreJSON(t *testing.T) {
	t.Parallel()

	in := []incoming{
		{Event: metering.Event{ID: "a"}},
		{Event: metering.Event{ID: `quo"te`}},
		{Event: metering.Event{ID: "<é>"}},
		{Event: metering.Event{ID: "b"}, problem: &metering.Problem{Code: "wrong_type", Pointer: "/id"}},
		{Event: metering.Event{ID: "c"}},
	}
	results := []metering.Result{
		{Status: metering.Accepted},
		{Status: metering.Duplicate},
		{Status: metering.Accepted},
		{Status: metering.Conflict, Stored: &metering.Record{Event: metering.Event{ID: "c", Meter: "voice", Quantity: money.MustDecimal("1")}}},
	}
	results = mergeResults(in, results)
	got := appendUsageResults(nil, in, results, metering.Summarize(results), true)
	var doc UsageResults
	if err := json.Unmarshal(got, &doc); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	again, err := json.Marshal(doc)
	if err != nil || string(again) != string(got) {
		t.Errorf("\n got %s\nwant %s", got, again)
	}
	if doc.Accepted != 2 || doc.Duplicates != 1 || doc.Conflicts != 1 || doc.Rejected != 1 || doc.Results[3].Pointer != "#/events/3/id" {
		t.Errorf("%+v", doc)
	}
}

func FuzzDecodeUsage(f *testing.F) {
	for _, s := range []string{
		`{"events":[{"id":"a","meter":"voice","quantity":"1","timestamp":"2026-11-23T10:15:00Z","dimensions":{"a":"b"}}]}`,
		`{"id":"a","quantity":1e9}`, `[{"specversion":"1.0"}]`, "{}\n{}", `{"data_base64":"e30="}`, `{"":1}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, media := range []string{"application/json", mediaNDJSON, mediaCloudEvent, mediaCloudBatch} {
			in, _, err := decodeUsage(http.Header{"Content-Type": {media}}, data)
			if err == nil {
				for i := range in {
					wantReadBack(t, in[i])
				}
				good := slices.DeleteFunc(slices.Clone(in), func(e incoming) bool { return e.problem != nil })
				results := mergeResults(in, make([]metering.Result, len(good)))
				if !json.Valid(appendUsageResults(nil, in, results, metering.Summarize(results), true)) {
					t.Errorf("the answer to %q is no JSON", data)
				}
			}
		}
	})
}

// wantReadBack fails where an event, shown as it is stored, is another to whoever sends it.
func wantReadBack(t *testing.T, e incoming) {
	t.Helper()
	if e.problem != nil || e.OccurredAt.IsZero() {
		return
	}
	r := toUsageRecord(metering.Record{Event: e.Event})
	shown, err := json.Marshal(UsageEvent{
		ID: r.ID, Source: r.Source, Meter: r.Meter, Quantity: r.Quantity, Value: r.Value, Timestamp: r.Timestamp, Dimensions: r.Dimensions,
	})
	if err != nil {
		t.Fatal(err)
	}
	again, _, err := decodeUsage(http.Header{"Content-Type": {"application/json"}}, shown)
	switch {
	case err != nil:
		t.Errorf("%s is not read back: %v", shown, err)
	case again[0].problem != nil:
		t.Errorf("%s is not taken back: %+v", shown, again[0].problem)
	case again[0].Key() != e.Key() || again[0].Content() != e.Content():
		t.Errorf("%s\nis read back as %+v\nand was          %+v", shown, again[0].Event, e.Event)
	}
}

// FuzzDecodeBinary: an event whose attributes are headers is the one that it is in structured mode.
func FuzzDecodeBinary(f *testing.F) {
	f.Add("call-1", "/media/eu é", "voice", "2026-11-23T10:15:00Z", "acct", []byte(`{"quantity":"1","dimensions":{"a":"b"}}`))
	f.Add(`"quoted"`, "%41", "", "2026", "\x00", []byte(`{}`))
	f.Fuzz(func(t *testing.T, eventID, source, kind, at, subject string, data []byte) {
		attributes := map[string]string{"specversion": "1.0", "id": eventID, "source": source, "type": kind, "time": at, "subject": subject}
		h, doc := http.Header{"Content-Type": {"application/json"}}, map[string]any{"data": json.RawMessage(data)}
		for name, v := range attributes {
			h.Set("Ce-"+name, url.PathEscape(v))
			doc[name] = v
		}
		in, _, err := decodeUsage(h, data)
		structured, jsonErr := json.Marshal(doc)
		if err != nil || jsonErr != nil || !utf8.ValidString(eventID+source+kind+at+subject) || in[0].problem != nil {
			return
		}
		same, _, err := decodeUsage(http.Header{"Content-Type": {mediaCloudEvent}}, structured)
		if err != nil || same[0].problem != nil || !reflect.DeepEqual(same[0].Event, in[0].Event) || same[0].subject != in[0].subject {
			t.Errorf("%s is\n%+v in structured mode (%v), and\n%+v in binary mode", structured, same, err, in)
		}
	})
}
