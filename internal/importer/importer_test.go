package importer_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/accrue-billing/accrue/internal/cardguard"
	"github.com/accrue-billing/accrue/internal/importer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service plays the API: it takes each id once, refuses ids that begin with "bad", and breaks down
// after a number of events.
type service struct {
	mu       sync.Mutex
	stored   map[string]string // event by id
	breakAt  int               // events after which it takes no more; 0: never
	requests int
}

var errBroken = errors.New("broken")

func (s *service) Send(_ context.Context, events []json.RawMessage) ([]importer.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	if s.stored == nil {
		s.stored = map[string]string{}
	}
	if s.breakAt > 0 && len(s.stored) >= s.breakAt {
		return nil, errBroken
	}
	out := make([]importer.Outcome, len(events))
	for i, e := range events {
		var doc struct{ ID string }
		if err := json.Unmarshal(e, &doc); err != nil {
			return nil, err
		}
		old, known := s.stored[doc.ID]
		switch {
		case strings.HasPrefix(doc.ID, "bad"):
			out[i] = importer.Outcome{Status: "rejected", Code: "unknown_meter", Detail: "There is no such meter."}
		case known && old == string(e):
			out[i].Status = "duplicate"
		case known:
			out[i].Status = "conflict"
		default:
			s.stored[doc.ID] = string(e)
			out[i].Status = "accepted"
		}
	}
	return out, nil
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if !strings.HasSuffix(name, ".gz") {
		_, err = f.WriteString(text)
	} else {
		z := gzip.NewWriter(f)
		_, _ = z.Write([]byte(text))
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRowsBecomeEvents(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		file, text string
		mapping    importer.Mapping
		want       string
	}{
		"CSV by its own names": {
			"a.csv", "id,meter,quantity,timestamp,dimensions.project,ignored\n1,voice,63.5,2026-11-23T10:15:00Z,helpdesk,x\n",
			importer.Mapping{},
			`{"dimensions":{"project":"helpdesk"},"id":"1","meter":"voice","quantity":"63.5","timestamp":"2026-11-23T10:15:00Z"}`,
		},
		"CSV by a mapping": {
			"a.csv.gz", "\ufeffcall,seconds,at,team\n1,63.5,1795428900,sales\n",
			importer.Mapping{
				Columns: map[string]string{"call": "id", "seconds": "quantity", "at": "timestamp", "team": "dimensions.team"},
				Set:     map[string]string{"meter": "voice", "dimensions.site": "berlin"},
			},
			`{"dimensions":{"site":"berlin","team":"sales"},"id":"1","meter":"voice","quantity":"63.5","timestamp":"2026-11-23T10:15:00Z"}`,
		},
		"NDJSON keeps its digits": {
			"a.ndjson", `{"id":"1","quantity":900719925474099.123456789,"dimensions":{"project":"x"}}` + "\n\n",
			importer.Mapping{},
			`{"dimensions":{"project":"x"},"id":"1","quantity":900719925474099.123456789}`,
		},
		"NDJSON behind a byte order mark": {"a.jsonl", "\ufeff" + `{"id":"1"}` + "\r\n", importer.Mapping{}, `{"id":"1"}`},
		"a layout of times": {
			"a.csv", "id,timestamp\n1,23.11.2026 10:15\n",
			importer.Mapping{Layout: "02.01.2006 15:04"},
			`{"id":"1","timestamp":"2026-11-23T10:15:00Z"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := &service{}
			counts, err := importer.Run(t.Context(), write(t, c.file, c.text), s, importer.Options{Mapping: c.mapping})
			if err != nil || counts != (importer.Counts{Rows: 1, Accepted: 1}) {
				t.Fatalf("%+v, %v", counts, err)
			}
			if got := s.stored["1"]; got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestWhatCannotBeMeantIsSaidAtOnce(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		file, text, want string
		mapping          importer.Mapping
	}{
		"no such column":      {"a.csv", "id\n1\n", `there is no column "call"`, importer.Mapping{Columns: map[string]string{"call": "id"}}},
		"no such member":      {"a.csv", "id\n1\n", `"price" is not a member`, importer.Mapping{Columns: map[string]string{"id": "price"}}},
		"two columns for one": {"a.csv", "id,call\n1,2\n", `are both id`, importer.Mapping{Columns: map[string]string{"call": "id"}}},
		"no id":               {"a.csv", "meter\nvoice\n", `no column is the id`, importer.Mapping{}},
		"an empty file":       {"a.csv", "", `the file is empty`, importer.Mapping{}},
		"another kind":        {"a.xlsx", "PK", `must end in .csv`, importer.Mapping{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, err := importer.Run(t.Context(), write(t, c.file, c.text), &service{}, importer.Options{Mapping: c.mapping})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want %q", err, c.want)
			}
		})
	}
}

// An import that breaks down in the middle goes on where it stopped: at the end every row is counted
// once, and every rejected row is written down once, in the order of the file.
func TestAnInterruptedImportIsResumed(t *testing.T) {
	t.Parallel()

	const rows = 5000
	var text strings.Builder
	text.WriteString("id,meter,quantity,timestamp\n")
	for i := range rows {
		switch i % 100 {
		case 50:
			fmt.Fprintf(&text, "bad-%d,fax,1,2026-11-23T10:15:00Z\n", i)
		case 70:
			fmt.Fprintf(&text, "%d,voice,1,yesterday\n", i)
		default:
			fmt.Fprintf(&text, "%d,voice,1,2026-11-23T10:15:00Z\n", i)
		}
	}
	path := write(t, "calls.csv", text.String())
	opt := importer.Options{Batch: 64, Workers: 4, Checkpoint: path + ".checkpoint", Rejects: path + ".rejects.csv"}
	s := &service{breakAt: 1500}
	first, err := importer.Run(t.Context(), path, s, opt)
	if !errors.Is(err, errBroken) || first.Rows == 0 || first.Rows >= rows {
		t.Fatalf("%+v, %v", first, err)
	}
	s.breakAt = 0
	changed := strings.Replace(text.String(), "2026-11-23", "2026-11-24", 1) // as long as it was
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := importer.Run(t.Context(), path, s, opt); !errors.Is(err, importer.ErrOtherFile) {
		t.Errorf("rows that were settled have changed: %v", err)
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	counts, err := importer.Run(t.Context(), path, s, opt)
	if err != nil {
		t.Fatal(err)
	}
	// Rows that were stored but not settled before the breakdown are duplicates now.
	if counts.Rows != rows || counts.Rejected != rows/50 || counts.Accepted+counts.Duplicates != rows-rows/50 {
		t.Errorf("%+v", counts)
	}
	if len(s.stored) != rows-rows/50 {
		t.Errorf("%d events stored", len(s.stored))
	}
	rejects, err := os.ReadFile(opt.Rejects)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(rejects)), "\n")
	if len(lines) != 1+rows/50 {
		t.Fatalf("%d lines of rejects", len(lines))
	}
	if !strings.HasPrefix(lines[1], "51,rejected,unknown_meter,") || !strings.HasPrefix(lines[2], "71,rejected,unreadable_row,") {
		t.Errorf("%s\n%s", lines[1], lines[2])
	}
	again, err := importer.Run(t.Context(), path, s, opt)
	if err != nil || again != counts {
		t.Errorf("a complete import was done again: %+v, %v", again, err)
	}
	if err := os.WriteFile(path, []byte("id\n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := importer.Run(t.Context(), path, s, opt); !errors.Is(err, importer.ErrOtherFile) {
		t.Errorf("another file under the same name: %v", err)
	}
}

// What came only in part goes on where it stopped once it is whole.
func TestAnImportOfPartOfAFileGoesOnWithTheWhole(t *testing.T) {
	t.Parallel()

	const rows = 20_000
	var text strings.Builder
	for i := range rows {
		fmt.Fprintf(&text, `{"id":"%d"}`+"\n", i)
	}
	path := write(t, "calls.ndjson.gz", text.String())
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	opt := importer.Options{Batch: 64, Checkpoint: path + ".checkpoint", Rejects: path + ".rejects.csv"}
	s := &service{}
	first, err := importer.Run(t.Context(), path, s, opt)
	if !errors.Is(err, io.ErrUnexpectedEOF) || first.Rows == 0 || first.Rejected != 0 {
		t.Fatalf("%+v, %v", first, err)
	}
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	counts, err := importer.Run(t.Context(), path, s, opt)
	if err != nil || counts.Rows != rows || counts.Accepted+counts.Duplicates != rows || counts.Accepted < first.Accepted {
		t.Errorf("%+v, %v", counts, err)
	}
}

// stuck answers all but the first row until it is let go.
type stuck struct {
	service
	free chan struct{}
}

func (s *stuck) Send(ctx context.Context, events []json.RawMessage) ([]importer.Outcome, error) {
	if strings.Contains(string(events[0]), `"id":"0"`) {
		<-s.free
	}
	return s.service.Send(ctx, events)
}

// Rows are settled in the order of the file, so the others wait in memory for one that is tried again and again.
func TestImport_ReadsNoMoreThanItCanSettle(t *testing.T) {
	t.Parallel()
	const rows = 1000
	var text strings.Builder
	for i := range rows {
		fmt.Fprintf(&text, "{\"id\":\"%d\"}\n", i)
	}
	path := write(t, "a.ndjson", text.String())

	synctest.Test(t, func(t *testing.T) {
		s := &stuck{free: make(chan struct{})}
		var counts importer.Counts
		var err error
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			counts, err = importer.Run(t.Context(), path, s, importer.Options{Batch: 1, Workers: 2})
		}()
		synctest.Wait()
		if s.mu.Lock(); s.requests < 2 || s.requests > 50 {
			t.Errorf("%d batches were answered behind the first, which is not; want a few", s.requests)
		}
		s.mu.Unlock()
		close(s.free)
		<-ended
		if err != nil || counts.Accepted != rows {
			t.Errorf("then %+v, %v; want all of %d", counts, err, rows)
		}
	})
}

// A row that cannot be read is written down as it stands in the file, and keeps no other from being taken.
func TestRowsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	long := `{"id":"` + strings.Repeat("x", 3<<20) + `"}`
	for name, c := range map[string]struct{ file, text, shown, why string }{
		"AQuote":            {"a.csv", "id,meter\n1,voice\n\"2\"x,\"fa\nx\"\n3,voice\n", "\"\"\"2\"\"x,\"\"fa", "parse error"},
		"MissingColumns":    {"a.csv", "id,meter\r\n1,voice\r\n2\r\n3,voice\r\n", "2", "wrong number of fields"},
		"MoreColumns":       {"a.csv", "id,meter\n1,voice\n2,'x,\" y\"\n3,voice", "'x", "wrong number of fields"},
		"AFormula":          {"a.csv", "id,meter\n1,voice\n=1+1\n3,voice\n", ",'=1+1\n", "wrong number of fields"}, // is none where the rejects are opened
		"ALongLine":         {"a.ndjson", `{"id":"1"}` + "\n" + long + "\n" + `{"id":"3"}`, `{""id"":""xxx`, "longer than"},
		"ALongLineAtItsEnd": {"a.ndjson", `{"id":"1"}` + "\n" + `{"id":"3"}` + "\n" + long, `{""id"":""xxx`, "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &service{}
			opt := importer.Options{Rejects: filepath.Join(t.TempDir(), "rejects.csv")}
			counts, err := importer.Run(t.Context(), write(t, c.file, c.text), s, opt)
			if err != nil || s.stored["1"] == "" || s.stored["3"] == "" || counts.Rejected == 0 {
				t.Errorf("%+v, %v", counts, err)
			}
			out, err := os.ReadFile(opt.Rejects)
			if err != nil || !strings.Contains(string(out), c.shown) || !strings.Contains(string(out), c.why) || len(out) > 4<<10 {
				t.Errorf("%.300s, %v", out, err)
			}
		})
	}
}

// Which of two members is meant nobody can say: taking either would make another event of the row with each import, and count
// it again.
func TestRowsOfTwoMeaningsAreNotTaken(t *testing.T) {
	t.Parallel()

	named := func(column, member string) importer.Mapping {
		return importer.Mapping{Columns: map[string]string{column: member}}
	}
	for name, c := range map[string]struct {
		line    string
		mapping importer.Mapping
		want    string
	}{
		"two are the id":           {`{"id":"1","call":"2"}`, named("call", "id"), "more than one member is the id"},
		"two are a dimension":      {`{"id":"1","team":"a","dimensions":{"project":"b"}}`, named("team", "dimensions.project"), "more than one member is the dimensions.project"},
		"a dimension stands twice": {`{"id":"1","dimensions.project":"a","dimensions":{"project":"b"}}`, importer.Mapping{}, "more than one member is the dimensions.project"},
		"dimensions are a text":    {`{"id":"1","dimensions":"helpdesk"}`, importer.Mapping{}, "dimensions are no object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			path := write(t, "a.ndjson", strings.Repeat(c.line+"\n", 20))
			s := &service{}
			opt := importer.Options{Mapping: c.mapping, Rejects: path + ".rejects.csv"}
			counts, err := importer.Run(t.Context(), path, s, opt)
			if err != nil || counts != (importer.Counts{Rows: 20, Rejected: 20}) || len(s.stored) > 0 {
				t.Errorf("%+v, %v; stored %v", counts, err, s.stored)
			}
			rejects, err := os.ReadFile(opt.Rejects)
			if err != nil || strings.Count(string(rejects), c.want) != 20 {
				t.Errorf("%s, %v", rejects, err)
			}
		})
	}
}

func TestHTTPSender(t *testing.T) {
	t.Parallel()

	busy := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.Header.Get("Authorization") != "Bearer key" || req.Header.Get("Accrue-Account") != "acme":
			w.WriteHeader(http.StatusUnauthorized)
		case busy:
			busy = false
			w.Header().Set("Retry-After", "-9223372036") // of no seconds at all: it is tried again in a moment
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			_, _ = w.Write([]byte(`{"results":[{"id":"1","status":"accepted"},{"id":"2","status":"rejected","code":"too_old"}]}`))
		}
	}))
	t.Cleanup(server.Close)
	s := &importer.HTTPSender{BaseURL: server.URL, Token: "key", Account: "acme", Client: server.Client(), Log: slog.New(slog.DiscardHandler)}
	got, err := s.Send(t.Context(), []json.RawMessage{[]byte(`{"id":"1"}`), []byte(`{"id":"2"}`)})
	if err != nil || len(got) != 2 || got[0].Status != "accepted" || got[1].Code != "too_old" {
		t.Errorf("%+v, %v", got, err)
	}
	s.Token = "other"
	if _, err := s.Send(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("err = %v", err)
	}
}

// guarded is a service that refuses a whole request for the sake of the events that seem to hold card data, as the API
// does, and names them where it is told to.
type guarded struct {
	names    bool
	requests atomic.Int64
}

func (g *guarded) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	g.requests.Add(1)
	doc, err := io.ReadAll(req.Body)
	var sent struct{ Events []struct{ ID string } }
	if err == nil {
		err = json.Unmarshal(doc, &sent)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var refusal struct {
		Code   string              `json:"code"`
		Detail string              `json:"detail"`
		Errors []map[string]string `json:"errors"`
	}
	refusal.Code, refusal.Detail = "card_data_not_accepted", "No cards."
	found := cardguard.JSON(doc)
	for _, f := range found {
		pointer := "#" + f.Pointer
		if !g.names {
			pointer = "#/"
		}
		refusal.Errors = append(refusal.Errors, map[string]string{"pointer": pointer, "detail": "It looks like card data."})
	}
	if len(found) > 0 {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(refusal)
		return
	}
	var out struct {
		Results []importer.Outcome `json:"results"`
	}
	for _, e := range sent.Events {
		out.Results = append(out.Results, importer.Outcome{Status: "accepted", Detail: e.ID})
	}
	_ = json.NewEncoder(w).Encode(out)
}

func (g *guarded) sender(t *testing.T) *importer.HTTPSender {
	t.Helper()
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	return &importer.HTTPSender{BaseURL: server.URL, Token: "key", Client: server.Client(), Log: slog.New(slog.DiscardHandler)}
}

// A mistyped address is told at once; one that has answered may be away for a while, which is told once.
func TestHTTPSender_TellsOfAServiceThatIsNotThere(t *testing.T) {
	t.Parallel()
	var tries atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		switch tries.Add(1) {
		case 2, 3:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 4:
			panic(http.ErrAbortHandler) // the connection breaks
		default:
			_, _ = w.Write([]byte(`{"results":[]}`))
		}
	}))
	var log bytes.Buffer
	s := &importer.HTTPSender{BaseURL: server.URL, Token: "key", Client: server.Client(), Log: slog.New(slog.NewTextHandler(&log, nil))}
	for range 2 { // the first is taken at once, the second after three tries
		if _, err := s.Send(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "level=WARN") || !strings.Contains(got, "taken again") {
		t.Errorf("the log says %q, want one line of the outage and one of its end", got)
	}
	server.Close()
	s = &importer.HTTPSender{BaseURL: server.URL, Token: "key", Log: s.Log}
	if _, err := s.Send(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "nothing answers there") {
		t.Errorf("err = %v, want that nothing answers", err)
	}
}

// Rows for whose sake the service refuses the whole request are found and written down, and the others are taken, whether
// the answer names them or not.
func TestHTTPSender_FindsTheRowsThatSpoilARequest(t *testing.T) {
	t.Parallel()
	for name, g := range map[string]*guarded{"Named": {names: true}, "Unnamed": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := g.sender(t)
			var events []json.RawMessage
			for i := range 100 {
				note := "a call"
				if i == 17 || i == 64 {
					note = "4242424242424242"
				}
				events = append(events, json.RawMessage(fmt.Sprintf(`{"id":"%d","source":%q}`, i, note)))
			}
			got, err := s.Send(t.Context(), events)
			if err != nil || len(got) != len(events) {
				t.Fatalf("%d answers, %v", len(got), err)
			}
			for i, o := range got {
				switch {
				case i == 17 || i == 64:
					if o.Status != "rejected" || o.Code != "card_data_not_accepted" || !strings.Contains(o.Detail, "looks like card data") {
						t.Errorf("row %d: %+v", i, o)
					}
				case o.Status != "accepted" || o.Detail != strconv.Itoa(i):
					t.Errorf("row %d: %+v", i, o)
				}
			}
		})
	}
}

// Readers of JSON take so many levels: a row just within them is not within them in a request. It spoils that row only.
func TestImport_OfARowThatIsNestedTooDeeply(t *testing.T) {
	t.Parallel()
	const levels = 9_998 // in an object: one less than is read
	deep := strings.Repeat("[", levels) + strings.Repeat("]", levels)
	rows := `{"id":"1"}` + "\n" + `{"id":"2","value":` + deep + "}\n" + `{"id":"3"}` + "\n"
	opt := importer.Options{Rejects: filepath.Join(t.TempDir(), "rejects.csv")}
	counts, err := importer.Run(t.Context(), write(t, "a.ndjson", rows), (&guarded{}).sender(t), opt)
	if want := (importer.Counts{Rows: 3, Accepted: 2, Rejected: 1}); err != nil || counts != want {
		t.Errorf("%+v, %v; want %+v", counts, err, want)
	}
	if out, err := os.ReadFile(opt.Rejects); err != nil || !strings.Contains(string(out), "nested more than") {
		t.Errorf("%.300s, %v", out, err)
	}
}

// A file with very many of them is imported with few requests more than its batches: two of each batch of 1,000 name 100
// rows each, and the third takes the others.
func TestImport_OfAFileFullOfRowsThatSpoilRequests(t *testing.T) {
	t.Parallel()
	var rows strings.Builder
	rows.WriteString("id,source\n")
	for i := range 10_000 {
		note := "a call"
		if i%5 == 0 {
			note = "4242424242424242"
		}
		fmt.Fprintf(&rows, "%d,%s\n", i, note)
	}
	g := &guarded{names: true}
	counts, err := importer.Run(t.Context(), write(t, "a.csv", rows.String()), g.sender(t), importer.Options{})
	if want := (importer.Counts{Rows: 10_000, Accepted: 8_000, Rejected: 2_000}); err != nil || counts != want {
		t.Errorf("%+v, %v; want %+v", counts, err, want)
	}
	if n := g.requests.Load(); n != 30 {
		t.Errorf("%d requests, want 30", n)
	}
}

// FuzzImport reads whatever a file may hold: every row is told of once, what is sent is JSON, and a file that was read to its
// end is not sent a second time.
func FuzzImport(f *testing.F) {
	for i, s := range []string{
		"id,meter,quantity,timestamp,dimensions.project\n1,voice,63.5,2026-11-23T10:15:00Z,helpdesk\n", "\ufeffid\r\n\"a\nb\"\r\n\r\n", "id,id\n1,2\n", "id\n\"",
		"{\"id\":\"1\"}\n\n{\"id\":\"2\",\"quantity\":1e9}", "\ufeff{\"id\":\"1\",\"id\":\"2\"}\r\n[]\r\nnull", "id\n'=1\nbad\n",
	} {
		f.Add(uint8(i), []byte(s))
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		name := []string{"a.csv", "a.ndjson", "a.csv.gz", "a.jsonl.gz"}[kind%4]
		path := write(t, name, string(data))
		s := &service{}
		opt := importer.Options{Batch: 3, Workers: 1, Checkpoint: path + ".checkpoint", Rejects: path + ".rejects"}
		counts, err := importer.Run(t.Context(), path, s, opt)
		if counts.Rows != counts.Accepted+counts.Duplicates+counts.Conflicts+counts.Rejected {
			t.Errorf("%+v", counts)
		}
		if err != nil {
			return
		}
		if n := s.requests; counts.Accepted != int64(len(s.stored)) {
			t.Errorf("%+v, and the service has %d in %d requests", counts, len(s.stored), n)
		}
		sent := s.requests
		if again, err := importer.Run(t.Context(), path, s, opt); err != nil || again != counts || s.requests != sent {
			t.Errorf("again: %+v in %d requests more, %v; want %+v", again, s.requests-sent, err, counts)
		}
	})
}
