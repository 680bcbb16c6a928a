package v1_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// A siege sends hostile requests at every operation there is, as somebody who may use it: with a valid
// credential, and a body that begins as a good one.
type siege struct {
	handler  http.Handler
	user     func() string // credentials
	staff    func() string
	accounts []string
}

func newSiege(tb testing.TB) *siege {
	tb.Helper()
	w := newWorld(tb)
	w.Log = slog.New(slog.DiscardHandler) // what is refused is no news
	w.deps.Log = w.Log
	e, err := api.New(w.deps)
	if err != nil {
		tb.Fatal(err)
	}
	a, ada := w.upgraded(tb, sandbox.TokenVisa)
	return &siege{
		handler: e, user: ada.token, staff: w.operator(tb, a.ID).token,
		accounts: []string{a.ID.String(), a.ID.String(), a.ID.String(), "", "acct_x", "nobody", "ü\u202e", "\xff\xfe", strings.Repeat("a", 300)},
	}
}

// What no field wants.
var hostile = []any{
	nil, true, "", " ", "x", 0, -1, json.Number("1e400"), json.Number("-0"), json.Number("9223372036854775808"), json.Number("0.1"),
	json.Number("123456789012345678901234567890"), "\x00", "a\u202eb", "\ufffe", "4242424242424242", "'; DROP TABLE accounts; --", "%00", "../../etc/passwd",
	"2026-13-45T99:99:99Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-12:00", "-5", "1e9", "NaN", "Infinity", strings.Repeat("e\u0301", 200), strings.Repeat("\u0301", 60),
	strings.Repeat("x", 70_000),
	[]any{},
	map[string]any{},
	[]any{[]any{[]any{}}},
	map[string]any{"amount": "1", "currency": 5},
	map[string]any{"amount": -1, "currency": "XXX"},
	"acct_00000000000000000000000000", "inv_7zzzzzzzzzzzzzzzzzzzzzzzzz", "pay_01jqxyzabcdefghjkmnpqrstvw", "pm_" + strings.Repeat("z", 26),
}

var hostileTexts = []string{
	"", "x", "-1", "0", "101", "1e9", "%00", "\x00", "a\u202eb", "\xff\xfe", "' OR 1=1 --", "..", "../..", strings.Repeat("a", 3000), "2026-02-30",
	"acct_00000000000000000000000000", "inv_01jqxyzabcdefghjkmnpqrstvw", "pm_01jqxyzabcdefghjkmnpqrstvw", "18446744073709551616", "null", "[]", "٣",
	"2026-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00", "9999-12-31T23:59:59-12:00", "0000-01-01T00:00:00Z", "voice", "pro", "day", "project",
}

var hostileBodies = []string{
	"", " ", "null", "[]", "{}", "true", "5", `"x"`, "{", `{"a"`, `{"a":1,"a":2}`, `{}{}`, "\x00", "\xff\xfe{}", "\ufeff{}", `{"a":"\ud800"}`, "<xml/>", "a=b&c=d",
	strings.Repeat("[", 5000), strings.Repeat(`{"a":`, 40) + "1" + strings.Repeat("}", 40), `{"amount":` + strings.Repeat("9", 5000) + `}`,
	"\x1f\x8b\x08\x00\x00\x00\x00\x00", `{"events":[null]}`, `{"events":[[]]}`, `{"events":{}}`, `{"events":[{"id":1}]}`,
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

// request makes one hostile request. raw, if it is given, is the body.
func (s *siege) request(tb testing.TB, rng *rand.Rand, op operation, raw []byte) *http.Request {
	tb.Helper()
	path := op.address(url.PathEscape(pick(rng, hostileTexts)))
	if rng.IntN(3) == 0 {
		path = op.Path
		for strings.Contains(path, "{") {
			before, rest, _ := strings.Cut(path, "{")
			_, after, _ := strings.Cut(rest, "}")
			path = before + url.PathEscape(pick(rng, hostileTexts)) + after
		}
	}
	query := url.Values{}
	for _, name := range append([]string{"limit", "cursor", "unknown"}, op.queries...) {
		if rng.IntN(4) == 0 {
			query.Add(name, pick(rng, hostileTexts))
		}
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	} else if rng.IntN(10) == 0 {
		path += "?" + pick(rng, []string{"%zz", "&&=&", "limit=1&limit=2", ";", "a=%00"})
	}
	body := raw
	if body == nil {
		body = s.body(tb, rng, op)
	}
	req := httptest.NewRequestWithContext(tb.Context(), op.Method, "/", bytes.NewReader(body))
	if u, err := url.ParseRequestURI(path); err == nil { // what a server's parser refuses never comes this far
		req.URL, req.RequestURI = u, path
	}
	s.head(rng, op, req)
	return req
}

// head sets headers that a server lets through: it refuses control characters itself.
func (s *siege) head(rng *rand.Rand, op operation, req *http.Request) {
	h := req.Header
	odd := func(name, good string, bad ...string) {
		if rng.IntN(12) == 0 {
			good = pick(rng, bad)
		}
		if good != "" {
			h.Set(name, good)
		}
	}
	token := s.user
	if op.byStaff() {
		token = s.staff
		h.Set("Accrue-Account", pick(rng, s.accounts))
	}
	odd("Authorization", "Bearer "+token(), "Bearer x", "Basic dTpw", "Bearer")
	odd("Content-Type", "application/json", "", "text/plain", "application/json; charset=utf-16", "application/x-ndjson", "application/cloudevents+json",
		"application/cloudevents-batch+json", "multipart/form-data; boundary=x", "/", strings.Repeat("a", 500))
	odd("Content-Encoding", "", "gzip", "zstd", "br", "gzip, gzip")
	odd("Accept", "", "application/xml", "*/*;q=0", ";;;")
	odd("Idempotency-Key", uuid.NewString(), "", `"`, "a b", strings.Repeat("k", 300), "\xff")
	odd("If-Match", "*", "", "v1", `"v1"`, `W/"v1"`, `"v-1"`, `"v99999999999999999999"`, `"a", "b"`)
	odd("If-None-Match", "", "*", `"`, strings.Repeat(`"v1",`, 500))
	odd("Ce-Id", "", "x", "%00", "\xff")
	odd("Ce-Specversion", "", "1.0", "9")
}

// body spoils a good body, or takes one that never was any.
func (s *siege) body(tb testing.TB, rng *rand.Rand, op operation) []byte {
	tb.Helper()
	if op.body == nil || rng.IntN(5) == 0 {
		return []byte(pick(rng, hostileBodies))
	}
	doc := op.body.sample(rng.IntN(2) == 0)
	for range 1 + rng.IntN(3) {
		doc = spoil(rng, doc)
	}
	data, err := json.Marshal(doc)
	if err != nil {
		tb.Fatal(err)
	}
	switch rng.IntN(12) {
	case 0: // cut off
		data = data[:rng.IntN(len(data)+1)]
	case 1: // one byte is another
		if len(data) > 0 {
			data[rng.IntN(len(data))] = byte(rng.Uint32())
		}
	case 2: // something follows
		data = append(data, "x"...)
	}
	return data
}

// spoil puts something else in place of one value, deep within or the whole.
func spoil(rng *rand.Rand, v any) any {
	switch v := v.(type) {
	case map[string]any:
		if len(v) > 0 && rng.IntN(6) > 0 {
			name := pick(rng, slices.Sorted(maps.Keys(v))) // in order: a seed must give the same request again
			if rng.IntN(8) == 0 {
				delete(v, name)
			} else {
				v[name] = spoil(rng, v[name])
			}
			return v
		}
	case []any:
		if len(v) > 0 && rng.IntN(4) > 0 {
			i := rng.IntN(len(v))
			v[i] = spoil(rng, v[i])
			return v
		}
	}
	return clone(pick(rng, hostile))
}

// send sends a request, and fails the test if the answer is a fault of ours or no problem document.
func (s *siege) send(tb testing.TB, op operation, req *http.Request, seed string) {
	tb.Helper()
	sent, _ := io.ReadAll(req.Body)
	req.Body = io.NopCloser(bytes.NewReader(sent))
	shown := fmt.Sprintf("%s %.300s %v\nbody: %.500q\nseed %s", req.Method, req.URL, req.Header, sent, seed)
	ctx := req.Context()
	if op.Timeout < 0 { // a stream goes on for as long as somebody listens
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, 100*time.Millisecond)
		defer stop()
	}
	rec := httptest.NewRecorder()
	s.handler.ServeHTTP(rec, req.WithContext(ctx))
	switch {
	case ctx.Err() != nil: // nobody listens any more
	case rec.Code >= 500:
		tb.Errorf("%d %s\nto %s", rec.Code, rec.Body, shown)
	case rec.Code >= 400 && rec.Header().Get("Content-Type") != "application/problem+json":
		tb.Errorf("%d as %q\nto %s", rec.Code, rec.Header().Get("Content-Type"), shown)
	}
}

// TestNeverAServerError is failure case 85 for every operation: whatever is sent, the answer is never a
// fault of ours. The same seed sends the same requests; ACCRUE_TEST_FULL sends many more.
func TestNeverAServerError(t *testing.T) {
	t.Parallel()
	rounds := 12
	if os.Getenv("ACCRUE_TEST_FULL") != "" {
		rounds = 300
	}
	s := newSiege(t)
	for i, op := range operations() {
		for round := range rounds {
			rng := rand.New(rand.NewPCG(uint64(i), uint64(round)))
			s.send(t, op, s.request(t, rng, op, nil), fmt.Sprintf("%d/%d of %s", i, round, op.Name()))
			if t.Failed() {
				return // the first is enough to work on
			}
		}
	}
}

// What the document bounds is what is refused: a client that is made from it checks by its bounds before it sends, and must
// neither be refused what they allow nor find out later what was kept of more. Lengths are counted in characters.
func TestBodies_AreBoundedAsTheDocumentSays(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.owning(t)
	tried := 0
	for _, op := range operations() {
		if op.body == nil {
			continue
		}
		c, address := ada.asks(t, op)
		op.body.each(nil, func(way []any, object *schema) {
			for name, member := range object.Properties {
				send := func(v any) response {
					body := op.body.sample(false)
					at := reach(body, way)
					if at == nil {
						body = op.body.sample(true)
						at = reach(body, way)
					}
					at[name] = v
					tried++
					return c.do(t, op.Method, address, toJSON(t, body))
				}
				pointer := "#"
				for _, step := range append(slices.Clone(way), name) {
					pointer += fmt.Sprint("/", step)
				}
				beyond := map[string]any{}
				if member.Minimum != nil {
					beyond["least"] = *member.Minimum - 1
				}
				if member.Maximum != nil {
					beyond["most"] = *member.Maximum + 1
				}
				if member.MaxLength > 0 {
					beyond["length"] = strings.Repeat("é", member.MaxLength+1)
				}
				if member.MaxLength > 0 && !slices.Contains([]string{"close", "remove", "resolve"}, path.Base(op.Path)) { // which end what the others need
					if got := send(strings.Repeat("é", member.MaxLength)); strings.Contains(string(got.Body), `"pointer":"`+pointer+`"`) && strings.Contains(string(got.Body), "too_long") {
						t.Errorf("%s with %s as long as it may be: %d %s", op.Name(), pointer, got.Status, got.Body)
					}
				}
				for bound, v := range beyond {
					if got := send(v); got.Status < 300 && !strings.Contains(string(got.Body), `"rejected":1`) {
						t.Errorf("%s with %s beyond its %s was taken: %d %s", op.Name(), pointer, bound, got.Status, got.Body)
					}
				}
			}
		})
	}
	if tried < 100 {
		t.Errorf("only %d values were tried", tried)
	}
}

// FuzzRequest lets the fuzzer choose the operation, the seed of the address and the headers, and the body.
func FuzzRequest(f *testing.F) {
	s := newSiege(f)
	all := operations()
	for i, body := range hostileBodies {
		f.Add(uint16(i*7), uint64(i), []byte(body))
	}
	f.Fuzz(func(t *testing.T, number uint16, seed uint64, body []byte) {
		op, rng := all[int(number)%len(all)], rand.New(rand.NewPCG(uint64(number), seed))
		s.send(t, op, s.request(t, rng, op, append([]byte{}, body...)), fmt.Sprintf("%d/%d", number, seed))
	})
}
