package v1_test

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/auth"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

func event(id, quantity, more string) string {
	return fmt.Sprintf(`{"id":%q,"source":"media-eu-1","meter":"voice","quantity":%q,"timestamp":"2026-03-10T08:15:00Z"%s}`, id, quantity, more)
}

func batch(events ...string) string { return `{"events":[` + strings.Join(events, ",") + `]}` }

func TestReportUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	_ = a

	t.Run("AnswersEachEvent", func(t *testing.T) {
		first := ada.post(t, "/v1/usage/events", batch(event("call-1", "63.5", ""))).want(t, http.StatusOK)
		first.golden(t, "usage_events_accepted")
		mixed := ada.post(t, "/v1/usage/events", batch(
			event("call-1", "63.5", ""), event("call-1", "64", ""), event("call-2", "1e400", ""), event("call-3", "1", `,"price":"0"`),
			strings.Replace(event("call-4", "1", ""), "2026-03-10", "2026-03-11", 1), event("call-5", "1", ""),
		)).want(t, http.StatusOK)
		mixed.golden(t, "usage_events_mixed")
	})

	t.Run("TakesOneEventAlone", func(t *testing.T) {
		ada.post(t, "/v1/usage/events", event("single", "1", "")).want(t, http.StatusOK)
	})

	t.Run("TakesCloudEventsAndNDJSONAndGzip", func(t *testing.T) {
		cloud := `{"specversion":"1.0","id":"ce-1","source":"media","type":"voice","time":"2026-03-10T08:15:00Z","data":{"quantity":"2"}}`
		for media, body := range map[string]string{
			"application/cloudevents+json":       cloud,
			"application/cloudevents-batch+json": "[" + strings.Replace(cloud, "ce-1", "ce-2", 1) + "]",
			"application/x-ndjson":               event("nd-1", "1", "") + "\n" + event("nd-2", "1", "") + "\n",
		} {
			got := ada.with("Content-Type", media).post(t, "/v1/usage/events", body).want(t, http.StatusOK)
			if !strings.Contains(string(got.Body), `"rejected":0`) {
				t.Errorf("%s: %s", media, got.Body)
			}
		}
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		_, _ = z.Write([]byte(batch(event("gz-1", "1", ""))))
		_ = z.Close()
		ada.with("Content-Encoding", "gzip").post(t, "/v1/usage/events", zipped.String()).want(t, http.StatusOK)
	})

	t.Run("NamesWhatIsWrongAsACloudEventDoes", func(t *testing.T) {
		const cloud = `{"specversion":"1.0","id":"ce-9","source":"media","type":"voice","time":"2026-03-10T08:15:00Z","data":{"quantity":"2"}}`
		for pointer, body := range map[string]string{
			"#/type":                    strings.Replace(cloud, "voice", "fax", 1),
			"#/time":                    strings.Replace(cloud, `"time":"2026-03-10T08:15:00Z",`, "", 1),
			"#/data/quantity":           strings.Replace(cloud, `"2"`, `"-2"`, 1),
			"#/data/dimensions/Project": strings.Replace(cloud, `"2"`, `"2","dimensions":{"Project":"x"}`, 1),
		} {
			got := ada.with("Content-Type", "application/cloudevents+json").post(t, "/v1/usage/events", body).want(t, http.StatusOK)
			if !strings.Contains(string(got.Body), `"pointer":"`+pointer+`"`) {
				t.Errorf("%s is not named: %s", pointer, got.Body)
			}
		}
		// The most likely mistake is to write the event as it is without CloudEvents.
		got := ada.with("Content-Type", "application/cloudevents+json").
			post(t, "/v1/usage/events", strings.Replace(cloud, `"data":{`, `"data":{"meter":"voice",`, 1)).want(t, http.StatusOK)
		if !strings.Contains(string(got.Body), "the meter is its type") {
			t.Errorf("where a CloudEvent has its meter is not said: %s", got.Body)
		}
	})

	t.Run("RefusesWhatCannotBeRead", func(t *testing.T) {
		for name, c := range map[string]struct {
			body   string
			status int
			code   string
		}{
			"no JSON":          {"hello", http.StatusBadRequest, "malformed_json"},
			"duplicate member": {`{"id":"a","id":"b"}`, http.StatusUnprocessableEntity, "invalid_request"},
			"deep":             {`{"events":` + strings.Repeat("[", 100_000), http.StatusBadRequest, "malformed_json"},
			"card number":      {batch(event("x", "1", `,"dimensions":{"project":"4242 4242 4242 4242"}`)), http.StatusUnprocessableEntity, "card_data_not_accepted"},
		} {
			t.Run(name, func(t *testing.T) {
				ada.post(t, "/v1/usage/events", c.body).problem(t, c.status, c.code)
			})
		}
		var bomb bytes.Buffer
		z := gzip.NewWriter(&bomb)
		zeros := make([]byte, 1<<20)
		for range 64 {
			_, _ = z.Write(zeros)
		}
		_ = z.Close()
		ada.with("Content-Encoding", "gzip").post(t, "/v1/usage/events", bomb.String()).problem(t, http.StatusRequestEntityTooLarge, "body_too_large")
	})

	t.Run("AnotherAccountsSubjectIsUnknown", func(t *testing.T) {
		other := w.open(t)
		got := ada.post(t, "/v1/usage/events", batch(event("s-1", "1", `,"subject":"`+other.ID.String()+`"`), event("s-2", "1", ""))).want(t, http.StatusOK)
		if !strings.Contains(string(got.Body), `"code":"unknown_account"`) || !strings.Contains(string(got.Body), `"accepted":1`) {
			t.Errorf("%s", got.Body)
		}
	})

	t.Run("NeedsTheScope", func(t *testing.T) {
		reader := w.user(t, a.ID, auth.UsageRead)
		reader.post(t, "/v1/usage/events", event("x", "1", "")).problem(t, http.StatusForbidden, "insufficient_scope")
	})
}

func TestPlatformReportsForEveryAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	one, other := w.open(t), w.open(t)
	w.serve()
	platform := w.platform(t, auth.UsageWrite)
	got := platform.post(t, "/v1/usage/events", batch(
		event("1", "5", `,"subject":"`+one.ID.String()+`"`), event("1", "7", `,"subject":"`+other.ExternalID+`"`),
		event("2", "1", ""), event("3", "1", `,"subject":"nobody"`),
	)).want(t, http.StatusOK)
	for _, want := range []string{`"accepted":2`, `"subject_required"`, `"unknown_account"`} {
		if !strings.Contains(string(got.Body), want) {
			t.Errorf("no %s in %s", want, got.Body)
		}
	}
	for a, want := range map[account.ID]string{one.ID: "5", other.ID: "7"} {
		usage := w.user(t, a).get(t, "/v1/usage?meter=voice").want(t, http.StatusOK)
		if !strings.Contains(string(usage.Body), `"quantity":"`+want+`"`) {
			t.Errorf("usage %s", usage.Body)
		}
	}
}

func TestReadUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	ada.post(t, "/v1/usage/events", batch(
		event("1", "60", `,"dimensions":{"project":"helpdesk"}`), event("2", "30", `,"dimensions":{"project":"sales"}`), event("3", "10", ""),
	)).want(t, http.StatusOK)

	ada.get(t, "/v1/usage?meter=voice").want(t, http.StatusOK).golden(t, "usage")
	ada.get(t, "/v1/usage?meter=voice,voice").want(t, http.StatusOK).golden(t, "usage")
	ada.get(t, "/v1/usage?meter=voice&group_by=project").want(t, http.StatusOK).golden(t, "usage_by_project")
	if unused := ada.get(t, "/v1/usage?meter=text&group_by=project").want(t, http.StatusOK); !strings.Contains(string(unused.Body), `"groups":[]`) {
		t.Errorf("an unused meter has no list of groups: %s", unused.Body)
	}
	ada.get(t, "/v1/usage/series?meter=voice&interval=hour&from=2026-03-10T07:00:00Z&to=2026-03-10T09:00:00Z").want(t, http.StatusOK).golden(t, "usage_series")
	for _, read := range []string{"/v1/usage?", "/v1/usage/events?", "/v1/usage/export?", "/v1/usage/series?from=2026-03-10T07:00:00Z&to=2026-03-10T09:00:00Z&"} {
		ada.get(t, read+"meter=fax").problem(t, http.StatusNotFound, "unknown_meter")
	}
	ada.get(t, "/v1/usage?group_by=colour").problem(t, http.StatusUnprocessableEntity, "invalid_request")
	ada.get(t, "/v1/usage?from=2026-03-10T07:00:00Z").problem(t, http.StatusUnprocessableEntity, "invalid_request")
	for query, want := range map[string]string{"": "#/from #/to", "&from=2026-03-10T07:00:00Z": "#/to", "&to=2026-03-10T09:00:00Z": "#/from"} {
		p := ada.get(t, "/v1/usage/series?meter=voice"+query)
		p.problem(t, http.StatusUnprocessableEntity, "invalid_request")
		var missing []string
		for _, e := range p.at(t, "errors").([]any) {
			missing = append(missing, fmt.Sprint(e.(map[string]any)["pointer"]))
		}
		if got := strings.Join(missing, " "); got != want {
			t.Errorf("with %q: %s is said to be missing, want %s", query, got, want)
		}
	}
	ada.get(t, "/v1/usage/series?meter=voice&interval=week&from=2026-03-10T07:00:00Z&to=2026-03-10T09:00:00Z").problem(t, http.StatusUnprocessableEntity, "invalid_request")

	page := ada.get(t, "/v1/usage/events?limit=2").want(t, http.StatusOK)
	if !strings.Contains(string(page.Body), `"has_more":true`) {
		t.Errorf("%s", page.Body)
	}
	one := ada.get(t, "/v1/usage/events?id=2&source=media-eu-1").want(t, http.StatusOK)
	one.golden(t, "usage_event")
	ada.post(t, "/v1/usage/events", event("café", "1", "")).want(t, http.StatusOK) // kept in normal form, and found in any
	if found := ada.get(t, "/v1/usage/events?id=cafe%CC%81&source=media-eu-1").want(t, http.StatusOK); !strings.Contains(string(found.Body), `"quantity":"1"`) {
		t.Errorf("by another spelling of its id: %s", found.Body)
	}

	csv := ada.with("Accept", "text/csv").get(t, "/v1/usage/export").want(t, http.StatusOK)
	lines := strings.Split(strings.TrimSpace(string(csv.Body)), "\n")
	if len(lines) != 5 || !strings.HasPrefix(lines[0], "timestamp,meter,quantity,counted,value,source,id,") {
		t.Errorf("%s", csv.Body)
	}
	for accept, form := range map[string]string{
		"text/csv, */*": "text/csv; charset=utf-8", "text/*": "text/csv; charset=utf-8", "application/x-ndjson;q=0.5,text/csv": "text/csv; charset=utf-8",
		"*/*": "application/x-ndjson", "text/csv;q=0.5, application/x-ndjson": "application/x-ndjson",
	} {
		if got := ada.with("Accept", accept).get(t, "/v1/usage/export").want(t, http.StatusOK).Header.Get("Content-Type"); got != form {
			t.Errorf("Accept: %s is answered with %s", accept, got)
		}
	}
	ndjson := ada.get(t, "/v1/usage/export?format=ndjson&meter=voice").want(t, http.StatusOK)
	if n := strings.Count(string(ndjson.Body), "\n"); n != 4 {
		t.Errorf("%d lines: %s", n, ndjson.Body)
	}
}

// A chart has a point of every group for every interval: what a thousand of each would take is more than the service has.
func TestChartsOfManyGroupsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	var events []string
	for i := range 60 {
		events = append(events, event(strconv.Itoa(i), "1", `,"dimensions":{"project":"p`+strconv.Itoa(i)+`"}`))
	}
	ada.post(t, "/v1/usage/events", batch(events...)).want(t, http.StatusOK)
	const hours = "/v1/usage/series?meter=voice&interval=hour&from=2026-02-01T00:00:00Z&to=2026-03-11T00:00:00Z"
	ada.get(t, hours).want(t, http.StatusOK)
	ada.get(t, hours+"&group_by=project").problem(t, http.StatusUnprocessableEntity, "invalid_request")
	ada.get(t, strings.Replace(hours, "hour", "day", 1)+"&group_by=project").want(t, http.StatusOK)
}

func TestCorrectUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, sandbox.TokenVisa)
	ada.post(t, "/v1/usage/events", batch(event("1", "60", ""), event("2", "30", ""))).want(t, http.StatusOK)

	const amend = `{"action":"amend","id":"1","source":"media-eu-1","quantity":"45","reason":"The call was dropped by us."}`
	first := ada.key("k").post(t, "/v1/usage/corrections", amend).want(t, http.StatusCreated)
	again := ada.key("k").post(t, "/v1/usage/corrections", amend).want(t, http.StatusCreated)
	if !bytes.Equal(first.Body, again.Body) || again.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("first %s, again %s", first.Body, again.Body)
	}
	ada.post(t, "/v1/usage/corrections", `{"action":"void","id":"2","source":"media-eu-1","reason":"A test call."}`).want(t, http.StatusCreated)
	usage := ada.get(t, "/v1/usage?meter=voice").want(t, http.StatusOK)
	if !strings.Contains(string(usage.Body), `"quantity":"45","events":1`) {
		t.Errorf("%s", usage.Body)
	}
	log := w.operator(t, a.ID).get(t, "/v1/admin/audit-log?action=usage.amend").want(t, http.StatusOK)
	about := fmt.Sprint(log.at(t, "data").([]any)[0].(map[string]any)["detail"])
	if want := "map[after:45 before:60 correction:" + first.str(t, "id") + " event:1 meter:voice source:media-eu-1]"; about != want {
		t.Errorf("the audit log says %s, want %s", about, want)
	}
	t.Run("AreListedWithTheirEventsAlsoOnceThoseAreGone", func(t *testing.T) {
		if _, err := postgrestest.Connect(t, w.dsn).Exec(t.Context(), "DELETE FROM usage_events WHERE event_id = '1'"); err != nil {
			t.Fatal(err)
		}
		ids := func(c caller, query string) (found string) {
			t.Helper()
			got := c.get(t, "/v1/usage/corrections"+query).want(t, http.StatusOK)
			for _, x := range got.at(t, "data").([]any) {
				found += x.(map[string]any)["event_id"].(string)
			}
			return found + strings.Repeat("+", strings.Count(string(got.Body), `"has_more":true`))
		}
		for query, want := range map[string]string{
			"": "21", "?limit=1": "2+", "?id=1&source=media-eu-1": "1", "?id=1": "", "?source=media-eu-1": "21", "?meter=text": "", "?meter=voice": "21",
			"?from=2026-03-10T09:00:00Z": "21", "?to=2026-03-10T09:00:00Z": "",
		} {
			if got := ids(ada, query); got != want {
				t.Errorf("%s: %s, want %s", query, got, want)
			}
		}
		first := ada.get(t, "/v1/usage/corrections?limit=1").want(t, http.StatusOK)
		if got := ids(ada, "?limit=1&cursor="+first.str(t, "next_cursor")); got != "1" {
			t.Errorf("the next page holds %s", got)
		}
		if got := ids(w.operator(t, a.ID), ""); got != "21" {
			t.Errorf("to an operator: %s", got)
		}
		_, eve := w.upgraded(t, sandbox.TokenVisa)
		if got := ids(eve, ""); got != "" {
			t.Errorf("to another account: %s", got)
		}
		ada.get(t, "/v1/usage/corrections?meter=fax").problem(t, http.StatusNotFound, "unknown_meter")
		ada.get(t, "/v1/usage/corrections?id=1&source=media-eu-1").want(t, http.StatusOK).golden(t, "usage_corrections")
	})
	ada.post(t, "/v1/usage/corrections", `{"action":"void","id":"2","source":"media-eu-1","reason":"Again."}`).problem(t, http.StatusConflict, "usage_event_voided")
	ada.post(t, "/v1/usage/corrections", `{"action":"void","id":"9","reason":"Nothing."}`).problem(t, http.StatusNotFound, "usage_event_not_found")
	ada.post(t, "/v1/usage/corrections", `{"action":"amend","id":"1","reason":""}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
}

func TestReconcileUsage(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	ada.post(t, "/v1/usage/events", batch(event("1", "60", ""), event("2", "30", ""))).want(t, http.StatusOK)

	sum := sha256.Sum256([]byte("1\n2\n"))
	same := ada.post(t, "/v1/usage/reconciliations", fmt.Sprintf(
		`{"meter":"voice","source":"media-eu-1","hours":[{"hour":"2026-03-10T08:00:00Z","events":2,"hash":%q}]}`, hex.EncodeToString(sum[:]))).want(t, http.StatusOK)
	if !strings.Contains(string(same.Body), `"matches":true`) {
		t.Errorf("%s", same.Body)
	}
	other := ada.post(t, "/v1/usage/reconciliations",
		`{"meter":"voice","source":"media-eu-1","hours":[{"hour":"2026-03-10T07:00:00Z","events":0},{"hour":"2026-03-10T08:00:00Z","events":3}],"ids":["1","2","3","3"]}`).want(t, http.StatusOK)
	other.golden(t, "reconciliation")
	wrong := ada.post(t, "/v1/usage/reconciliations", `{"meter":"text","source":"media-eu-1","ids":["1","3"]}`).want(t, http.StatusOK)
	if got := fmt.Sprint(wrong.at(t, "ids"), wrong.at(t, "stored"), wrong.at(t, "matches")); got != "[map[code:<nil> id:1 status:other_meter] map[code:<nil> id:3 status:missing]] 0 false" {
		t.Errorf("ids of another meter: %s", got)
	}
	alone := ada.post(t, "/v1/usage/reconciliations", fmt.Sprintf(
		`{"meter":"voice","source":"media-eu-1","hours":[{"hour":"2026-03-10T08:00:00Z","hash":%q}]}`, hex.EncodeToString(sum[:]))).want(t, http.StatusOK)
	if !strings.Contains(string(alone.Body), `"matches":true,"events":2,"expected":null,"missing":0,"extra":0`) {
		t.Errorf("of a hash alone: %s", alone.Body)
	}
	ada.post(t, "/v1/usage/reconciliations", `{"meter":"voice","hours":[{"hour":"2026-03-10T08:00:00Z"}]}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	ada.post(t, "/v1/usage/reconciliations", `{"meter":"voice","hours":[{"hour":"2026-03-10T08:00:00Z","events":-1}]}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	for _, hash := range []string{"zz", "abcd", base64.StdEncoding.EncodeToString(sum[:])} {
		ada.post(t, "/v1/usage/reconciliations", fmt.Sprintf(`{"meter":"voice","hours":[{"hour":"2026-03-10T08:00:00Z","hash":%q}]}`, hash)).
			problem(t, http.StatusUnprocessableEntity, "invalid_request")
	}
	ada.post(t, "/v1/usage/reconciliations", `{"source":"media-eu-1","ids":["1"]}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")
	ada.post(t, "/v1/usage/reconciliations", `{"meter":"voice","hours":[{"hour":"2026-03-10T07:30:00Z","events":0}]}`).problem(t, http.StatusUnprocessableEntity, "invalid_request")

	t.Run("CallsNothingMissingThatRetentionHasDropped", func(t *testing.T) {
		late := strings.Replace(event("late", "1", ""), "08:15", "07:15", 1)
		ada.post(t, "/v1/usage/events", batch(late, strings.Replace(late, `"late"`, `"kept"`, 1))).want(t, http.StatusOK)
		if _, err := postgrestest.Connect(t, w.dsn).Exec(t.Context(), "DELETE FROM usage_events WHERE event_id IN ('1', 'late')"); err != nil {
			t.Fatal(err)
		}
		got := ada.post(t, "/v1/usage/reconciliations",
			`{"meter":"voice","source":"media-eu-1","hours":[{"hour":"2026-03-10T06:00:00Z","events":0},{"hour":"2026-03-10T07:00:00Z","events":2},{"hour":"2026-03-10T08:00:00Z","events":9}],"ids":["1","late"]}`).want(t, http.StatusOK)
		for i, want := range []string{"matches true 0 0", "not_retained false 0 1", "not_retained false 0 1"} {
			hour := got.at(t, "hours", i).(map[string]any)
			if s := fmt.Sprintf("%v %v %v %v", hour["status"], hour["matches"], hour["missing"], hour["dropped"]); s != want {
				t.Errorf("hour %d: %s, want %s", i, s, want)
			}
		}
		if n := fmt.Sprint(got.at(t, "stored")); n != "2" || len(got.at(t, "ids").([]any)) != 0 {
			t.Errorf("ids of events that are gone: %s", got.Body)
		}
	})
}

func TestReserveUnits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t) // Developer: 60,000 s of voice
	ada := w.user(t, a.ID)

	const ask = `{"meter":"voice","quantity":"59000","ttl_seconds":600,"reference":"call-1"}`
	first := ada.key("k").post(t, "/v1/usage/reservations", ask).want(t, http.StatusCreated)
	again := ada.key("k").post(t, "/v1/usage/reservations", ask).want(t, http.StatusCreated)
	if !bytes.Equal(first.Body, again.Body) || again.Header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("first %s, again %s", first.Body, again.Body)
	}
	ada.key("k").post(t, "/v1/usage/reservations", `{"meter":"voice","quantity":"1"}`).problem(t, http.StatusUnprocessableEntity, "idempotency_key_reused")
	path := "/v1/usage/reservations/" + first.str(t, "id")

	entitled := ada.get(t, "/v1/entitlements/voice?strict=true").want(t, http.StatusOK)
	if !strings.Contains(string(entitled.Body), `"reserved":"59000"`) {
		t.Errorf("%s", entitled.Body)
	}
	if longer := ada.post(t, path+"/extend", `{"ttl_seconds":1200}`).want(t, http.StatusOK); bytes.Contains(longer.Body, []byte(`"token"`)) {
		t.Errorf("a reservation that is no lease has a token: %s", longer.Body)
	}
	for _, left := range []string{`{}`, `{"quantity":null}`, `{"dimensions":{"project":"helpdesk"}}`} {
		ada.post(t, path+"/commit", left).problem(t, http.StatusUnprocessableEntity, "invalid_request") // no use is not no word of it
	}
	done := ada.post(t, path+"/commit", `{"quantity":"421.5","dimensions":{"project":"helpdesk"}}`).want(t, http.StatusOK)
	if !strings.Contains(string(done.Body), `"status":"committed","quantity":"59000","used":"421.5"`) {
		t.Errorf("%s", done.Body)
	}
	ada.post(t, path+"/release", "").problem(t, http.StatusConflict, "reservation_settled")
	ada.get(t, path).want(t, http.StatusOK)
	ada.get(t, "/v1/usage/reservations?status=committed").want(t, http.StatusOK)
	usage := ada.get(t, "/v1/usage?meter=voice").want(t, http.StatusOK)
	if !strings.Contains(string(usage.Body), `"quantity":"421.5","events":1`) {
		t.Errorf("%s", usage.Body)
	}
	rid := first.str(t, "id")
	at := ada.get(t, "/v1/usage/events?source=reservation&id="+rid).want(t, http.StatusOK).str(t, "data", 0, "timestamp")
	ofCommit := func(id, quantity string) string {
		return fmt.Sprintf(`{"id":%q,"source":"reservation","meter":"voice","quantity":%q,"timestamp":%q,"dimensions":{"project":"helpdesk"}}`, id, quantity, at)
	}
	sent := ada.post(t, "/v1/usage/events", batch(ofCommit(rid, "421.5"), ofCommit(rid, "0"), ofCommit("rsv_other", "0"))).want(t, http.StatusOK)
	for i, want := range []string{"duplicate", "conflict", "rejected"} { // an export is read back; nobody counts in a commit's place
		if got := sent.str(t, "results", i, "status"); got != want {
			t.Errorf("event %d of the commits' source is %s, want %s: %s", i, got, want, sent.Body)
		}
	}
	for name, c := range map[string]struct {
		path, body string
		status     int
		code       string
	}{
		"nothing":       {"", `{"meter":"voice","quantity":"0"}`, http.StatusUnprocessableEntity, "invalid_request"},
		"unknown meter": {"", `{"meter":"fax","quantity":"1"}`, http.StatusNotFound, "unknown_meter"},
		"too long":      {"", `{"meter":"voice","quantity":"1","ttl_seconds":90000}`, http.StatusUnprocessableEntity, "invalid_request"},
		"not there":     {"/rsv_00000000000000000000000001/release", "", http.StatusNotFound, "reservation_not_found"},
		"not an id":     {"/nonsense/release", "", http.StatusNotFound, "reservation_not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			ada.post(t, "/v1/usage/reservations"+c.path, c.body).problem(t, c.status, c.code)
		})
	}
}

// What is open now is not counted from zero again with the next period.
func TestReserveUnits_OpenAtOnceHaveNoTimeOfReset(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.user(t, w.open(t).ID) // Developer: 5 at once
	refused := ada.post(t, "/v1/usage/reservations", `{"meter":"concurrent_connections","quantity":"6"}`).problem(t, http.StatusConflict, "limit_reached")
	if bytes.Contains(refused.Body, []byte("resets_at")) {
		t.Errorf("%s", refused.Body)
	}
	refused = ada.post(t, "/v1/usage/reservations", `{"meter":"voice","quantity":"60001"}`).problem(t, http.StatusConflict, "limit_reached")
	if !bytes.Contains(refused.Body, []byte(`"resets_at":"2026-04-`)) {
		t.Errorf("%s", refused.Body)
	}
}

func TestLease(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.user(t, w.open(t).ID)
	first := ada.key("k").post(t, "/v1/usage/leases", `{"meter":"voice","quantity":"600"}`).want(t, http.StatusCreated)
	again := ada.key("k").post(t, "/v1/usage/leases", `{"meter":"voice","quantity":"600"}`).want(t, http.StatusCreated)
	if !bytes.Equal(first.Body, again.Body) {
		t.Errorf("first %s, again %s", first.Body, again.Body)
	}
	keys := caller{w: w}.get(t, "/v1/usage/leases/keys").want(t, http.StatusOK)
	public, err := base64.RawURLEncoding.DecodeString(keys.str(t, "keys", 0, "x"))
	if err != nil {
		t.Fatal(err)
	}
	claims, err := entitlement.VerifyLease(ed25519.PublicKey(public), first.str(t, "token"), w.clock())
	if err != nil || claims.Reservation.String() != first.str(t, "id") || claims.Quantity.String() != "600" {
		t.Errorf("%+v, %v", claims, err)
	}

	// Of one that is extended a gateway without a connection knows by a new token.
	path := "/v1/usage/reservations/" + first.str(t, "id") + "/extend"
	longer := ada.key("e").post(t, path, `{"quantity":"60","ttl_seconds":3600}`).want(t, http.StatusOK)
	again = ada.key("e").post(t, path, `{"quantity":"60","ttl_seconds":3600}`).want(t, http.StatusOK)
	if !bytes.Equal(longer.Body, again.Body) {
		t.Errorf("first %s, again %s", longer.Body, again.Body)
	}
	extended, err := entitlement.VerifyLease(ed25519.PublicKey(public), longer.str(t, "token"), w.clock())
	if err != nil || extended.Quantity.String() != "660" || extended.Expires-claims.Expires < 2000 || extended.Reservation != claims.Reservation {
		t.Errorf("%+v, %v", extended, err)
	}
}

func TestEntitlements(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ada := w.user(t, w.open(t).ID)
	ada.get(t, "/v1/entitlements/text").want(t, http.StatusOK).golden(t, "entitlement")
	ada.get(t, "/v1/entitlements").want(t, http.StatusOK)
	ada.get(t, "/v1/entitlements/fax").problem(t, http.StatusNotFound, "unknown_meter")
	ada.get(t, "/v1/entitlements/text?strict=perhaps").problem(t, http.StatusUnprocessableEntity, "invalid_request")
}

// What is accepted can be billed: neither one event nor the sum of many, nor a reservation or a correction, takes a bill out of the
// range of amounts.
func TestReportUsage_QuantitiesThatCannotBeBilled(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	score := func(id, quantity string) string {
		return strings.Replace(event(id, quantity, ""), `"voice"`, `"call_score"`, 1)
	}
	const most = "1000000000000" // of 0.10 USD each
	send := func(want string, events ...string) response {
		t.Helper()
		got := ada.post(t, "/v1/usage/events", batch(events...)).want(t, http.StatusOK)
		var fates []string
		for i := range events {
			fates = append(fates, got.str(t, "results", i, "status"))
		}
		if s := strings.Join(fates, " "); s != want {
			t.Fatalf("got %s, want %s: %s", s, want, got.Body)
		}
		return got
	}
	got := send("accepted rejected accepted", event("1", "60", ""), score("2", "100000000000000"), event("3", "60", ""))
	if code, detail := got.str(t, "results", 1, "code"), got.str(t, "results", 1, "detail"); code != "quantity_too_large" || !strings.Contains(detail, most) {
		t.Errorf("the refusal is %s, %q, and names the greatest quantity", code, detail)
	}
	ada.post(t, "/v1/usage/reservations", `{"meter":"call_score","quantity":"100000000000000"}`).problem(t, http.StatusConflict, "total_out_of_range")
	held := ada.post(t, "/v1/usage/reservations", `{"meter":"call_score","quantity":"400000000000"}`).want(t, http.StatusCreated)
	got = send("accepted rejected accepted accepted", score("4", "500000000000"), score("5", "500000000000"), score("6", "1"), event("7", "60", ""))
	if code := got.str(t, "results", 1, "code"); code != "not_storable" {
		t.Errorf("the refusal of a total is %s: %s", code, got.Body)
	}
	ada.post(t, "/v1/usage/reservations/"+held.str(t, "id")+"/commit", `{"quantity":"900000000000"}`).problem(t, http.StatusConflict, "total_out_of_range")
	ada.post(t, "/v1/usage/reservations/"+held.str(t, "id")+"/commit", `{"quantity":"400000000000"}`).want(t, http.StatusOK)
	ada.post(t, "/v1/usage/corrections", `{"action":"amend","id":"6","source":"media-eu-1","quantity":"200000000000","reason":"mistyped"}`).problem(t, http.StatusConflict, "total_out_of_range")

	for _, page := range []string{"/v1/overview", "/v1/balance", "/v1/usage", "/v1/invoices/upcoming"} {
		ada.get(t, page).want(t, http.StatusOK)
	}
	for range 3 {
		w.advance(30 * 24 * time.Hour)
		w.sweep(t)
	}
	invoices := ada.get(t, "/v1/invoices?status=open").want(t, http.StatusOK)
	if total := invoices.at(t, "data", 0, "total", "amount"); fmt.Sprint(total) == "0" {
		t.Errorf("the period is not billed: %s", invoices.Body)
	}
}
