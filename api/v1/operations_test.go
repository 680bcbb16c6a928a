package v1_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/docs"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// The tests of this file's operations are made from the table of routes and the OpenAPI document, so
// that a new route is tested by being there.

// An operation is a route and what the document says of it.
type operation struct {
	route.Route
	queries []string // names
	body    *schema  // of JSON; nil: it takes none
}

// A schema is what of a JSON schema the tests look at, with its references followed.
type schema struct {
	Types      []string
	Properties map[string]*schema
	Required   []string
	Items      *schema
	Enum       []any
	Format     string
	Example    any
	Minimum    *float64
	Maximum    *float64
	MaxLength  int  // in characters; 0: none
	Closed     bool // has no further members
}

var operations = sync.OnceValue(func() []operation {
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Name, In string }
			Body       struct {
				Content map[string]struct{ Schema map[string]any }
			} `json:"requestBody"`
		}
		Components struct{ Schemas map[string]map[string]any }
	}
	if err := json.Unmarshal(docs.OpenAPI, &doc); err != nil {
		panic(err)
	}
	var out []operation
	for _, r := range api.Routes(api.Deps{}) {
		op := operation{Route: r.WithDefaults()}
		said := doc.Paths[r.Path][strings.ToLower(r.Method)]
		for _, p := range said.Parameters {
			if p.In == "query" {
				op.queries = append(op.queries, p.Name)
			}
		}
		if media, ok := said.Body.Content["application/json"]; ok && !r.Signed { // a signed body is the provider's
			op.body = follow(media.Schema, doc.Components.Schemas)
		}
		out = append(out, op)
	}
	return out
})

// follow reads a schema. Of alternatives it takes the first that is not null.
func follow(raw map[string]any, all map[string]map[string]any) *schema {
	if ref, ok := raw["$ref"].(string); ok {
		return follow(all[strings.TrimPrefix(ref, "#/components/schemas/")], all)
	}
	for _, word := range []string{"anyOf", "oneOf", "allOf"} {
		choices, _ := raw[word].([]any)
		for _, c := range choices {
			if choice, _ := c.(map[string]any); choice["type"] != "null" {
				return follow(choice, all)
			}
		}
	}
	s := &schema{Format: textAt(raw, "format"), Example: raw["example"], Closed: raw["additionalProperties"] == false}
	switch t := raw["type"].(type) {
	case string:
		s.Types = []string{t}
	case []any:
		for _, one := range t {
			s.Types = append(s.Types, fmt.Sprint(one))
		}
	}
	s.Enum, _ = raw["enum"].([]any)
	if least, ok := raw["minimum"].(float64); ok {
		s.Minimum = &least
	}
	if most, ok := raw["maximum"].(float64); ok {
		s.Maximum = &most
	}
	if most, ok := raw["maxLength"].(float64); ok {
		s.MaxLength = int(most)
	}
	for _, name := range listAt(raw, "required") {
		s.Required = append(s.Required, fmt.Sprint(name))
	}
	if items, ok := raw["items"].(map[string]any); ok {
		s.Items = follow(items, all)
	}
	if members, ok := raw["properties"].(map[string]any); ok {
		s.Properties = map[string]*schema{}
		for name, m := range members {
			s.Properties[name] = follow(m.(map[string]any), all)
		}
		s.Closed = true // in a request every object that has members has no others
	}
	return s
}

func textAt(m map[string]any, name string) string { s, _ := m[name].(string); return s }

func listAt(m map[string]any, name string) []any { l, _ := m[name].([]any); return l }

// sample makes a value that the schema allows: of its members those that are required, or all.
func (s *schema) sample(all bool) any {
	switch {
	case s == nil:
		return nil
	case len(s.Enum) > 0:
		return s.Enum[0]
	case s.Properties != nil:
		out := map[string]any{}
		for name, m := range s.Properties {
			if all || slices.Contains(s.Required, name) {
				out[name] = m.sample(all)
			}
		}
		return out
	case s.Example != nil:
		return clone(s.Example) // whoever takes a sample may spoil it
	case s.Items != nil:
		return []any{s.Items.sample(all)}
	case slices.Contains(s.Types, "integer"), slices.Contains(s.Types, "number"):
		if s.Minimum != nil {
			return *s.Minimum
		}
		return 1
	case slices.Contains(s.Types, "boolean"):
		return true
	case slices.Contains(s.Types, "object"):
		return map[string]any{}
	}
	switch s.Format {
	case "date-time":
		return start.AddDate(0, 2, 0).Format("2006-01-02T15:04:05Z")
	case "email":
		return "ada@example.com"
	case "decimal":
		return "5"
	}
	return "x"
}

func clone(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = clone(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for name := range v {
			out[name] = clone(v[name])
		}
		return out
	}
	return v
}

// each calls fn for every object of the schema that is closed, with the way to it in a sample.
func (s *schema) each(way []any, fn func(way []any, object *schema)) {
	if s == nil {
		return
	}
	if s.Properties != nil {
		fn(way, s)
		for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
			s.Properties[name].each(append(slices.Clone(way), name), fn)
		}
	}
	if s.Items != nil {
		s.Items.each(append(slices.Clone(way), 0), fn)
	}
}

// reach returns the object at a way in a sample, or nil.
func reach(v any, way []any) map[string]any {
	for _, step := range way {
		switch step := step.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[step]
		case int:
			l, _ := v.([]any)
			if step >= len(l) {
				return nil
			}
			v = l[step]
		}
	}
	m, _ := v.(map[string]any)
	return m
}

func toJSON(tb testing.TB, v any) string {
	tb.Helper()
	if v == nil {
		return ""
	}
	data, err := json.Marshal(v)
	if err != nil {
		tb.Fatal(err)
	}
	return string(data)
}

// address fills the parameters of a path: {id} with id, the others with something that may be.
func (o operation) address(id string) string {
	return parameters.Replace(strings.ReplaceAll(o.Path, "{id}", id))
}

var parameters = strings.NewReplacer("{line}", "1", "{meter}", "voice", "{code}", "pro", "{date}", "2026-03-10", "{provider}", "sandbox",
	"{version}", "1", "{number}", "1", "{name}", "x")

func (o operation) byStaff() bool { return strings.HasPrefix(o.Path, "/v1/admin/") }

// ofNoAccount reports whether the operation is nobody's: public, or the staff's over all accounts.
func (o operation) ofNoAccount() bool { return o.Public || o.Account == route.AccountNone }

// While a deployment is rolled out, its new replicas add columns under the ones that still serve: whoever does not know
// a column must not see it.
func TestReads_OutliveColumnsOfANewerVersion(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.owning(t)
	owner := postgrestest.Connect(t, w.dsn)
	reads := func() map[string]int {
		status := map[string]int{}
		for _, op := range operations() {
			if op.Method != http.MethodGet || strings.Contains(op.Path, "stream") || strings.Contains(op.Path, "{id}") && op.ofNoAccount() {
				continue
			}
			c, address := o.asks(t, op)
			status[op.Name()] = c.do(t, op.Method, address, "").Status
		}
		return status
	}
	before := reads()
	for _, sql := range []string{
		`DO $$ DECLARE t text; BEGIN
			FOR t IN SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition LOOP
				EXECUTE format('ALTER TABLE %I ADD COLUMN of_a_newer_version integer', t);
			END LOOP; END $$`,
		"UPDATE accounts SET version = version + 1", // so that nothing is answered from memory
	} {
		if _, err := owner.Exec(t.Context(), sql); err != nil {
			t.Fatal(err)
		}
	}
	for name, status := range reads() {
		if status != before[name] {
			t.Errorf("%s: %d, and %d before there were more columns", name, status, before[name])
		}
	}
}

// A list that grows while it is read, page by page, neither skips nor repeats what was there at the start. A cursor that is
// not this list's, to the letter, is refused.
func TestLists_HoldWhileTheyGrow(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	o := w.owning(t)
	grow := func() {
		t.Helper()
		o.user.post(t, "/v1/top-ups", funds(5000)).want(t, http.StatusCreated)
		o.user.post(t, "/v1/sales-inquiries", `{"name":"Ada","email":"ada@example.com"}`).want(t, http.StatusCreated)
		o.user.post(t, "/v1/usage/reservations", `{"meter":"voice","quantity":"5","ttl_seconds":86400}`).want(t, http.StatusCreated)
		o.user.post(t, "/v1/usage/events", toJSON(t, map[string]any{"events": []any{map[string]any{
			"id": uuid.NewString(), "meter": "text", "quantity": "1", "timestamp": w.clock().Format(time.RFC3339),
		}}})).want(t, http.StatusOK)
		o.support.post(t, "/v1/admin/credits", `{"amount":{"amount":5,"currency":"USD"},"reason":"more"}`).want(t, http.StatusCreated)
		o.support.post(t, "/v1/admin/refunds", refundOf(o.user.get(t, "/v1/top-ups").str(t, "data", 0, "payment"), 100)).want(t, http.StatusCreated)
		w.open(t)
	}
	o.user.post(t, "/v1/top-ups", funds(90_000)).want(t, http.StatusCreated) // pays the open invoice
	for range 2 {
		grow()
	}
	name := func(item any) string { // what tells an item from the others, and does not change
		m, _ := item.(map[string]any)
		if id, ok := m["id"]; ok {
			return fmt.Sprint(m["source"], id, m["part"], m["change"])
		}
		return toJSON(t, item)
	}
	walked, foreign := 0, ""
	for _, op := range operations() {
		if op.Method != http.MethodGet || !slices.Contains(op.queries, "cursor") {
			continue
		}
		c, _ := o.asks(t, op)
		page := func(limit int, cursor string) (names []string, next string) {
			t.Helper()
			got := c.get(t, fmt.Sprintf("%s?limit=%d&cursor=%s", op.Path, limit, cursor)).want(t, http.StatusOK)
			data, _ := got.at(t, "data").([]any)
			for _, item := range data {
				names = append(names, name(item))
			}
			next, _ = got.at(t, "next_cursor").(string)
			return names, next
		}
		whole, _ := page(100, "")
		seen, cursor := map[string]int{}, ""
		for range len(whole) + 20 {
			var names []string
			names, cursor = page(1, cursor)
			for _, n := range names {
				seen[n]++
			}
			if cursor == "" {
				break
			}
			if len(seen) < 4 {
				grow()
			}
			if len(seen) == 2 {
				for what, broken := range map[string]string{"altered": cursor[:len(cursor)-2] + "AA", "of another list": foreign, "cut": cursor[:len(cursor)/2]} {
					if broken == "" {
						continue
					}
					if got := c.get(t, op.Path+"?limit=1&cursor="+broken); got.Status != http.StatusUnprocessableEntity || !strings.Contains(string(got.Body), "invalid_cursor") {
						t.Errorf("%s with a cursor that is %s: %d %s", op.Name(), what, got.Status, got.Body)
					}
				}
				foreign = cursor
			}
		}
		for _, n := range whole {
			if seen[n] != 1 {
				t.Errorf("%s: %s was there at the start, and was shown %d times", op.Name(), n, seen[n])
			}
		}
		if len(whole) > 2 {
			walked++
		}
	}
	if walked < 10 {
		t.Errorf("only %d lists have three items or more", walked)
	}
}
