// Package openapi makes the API's OpenAPI 3.1 document and serves it.
//
// The document has two sources, both code: swag reads what the handlers' annotations and the wire types
// say, and the table of routes says what the middleware does (scopes, keys, tags, limits, refusals).
// Finish joins them and mends what swag gets wrong; ADR 0012 lists what that is. An operation that is
// in one source only is an error, so routes and paths are the same by construction.
package openapi

//go:generate go run ./internal/generate -root ../..

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/accrue-billing/accrue/api/route"
)

type object = map[string]any

// Finish returns the finished document. raw is what swag made; words are the descriptions of schemas
// by name.
func Finish(raw []byte, routes []route.Route, words map[string]string, examples Examples) ([]byte, error) {
	var doc object
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("read what swag made: %w", err)
	}
	delete(doc, "externalDocs")
	doc["servers"] = []any{object{"url": "/", "description": "This deployment"}}
	doc["tags"] = tags()

	components := child(doc, "components")
	schemas := child(components, "schemas")
	for name, s := range schemas {
		schema, _ := s.(object)
		if _, has := schema["description"]; !has && words[name] != "" {
			schema["description"] = words[name]
		}
		if strings.HasPrefix(name, "Page-") {
			schema["description"] = "One page of a list. Read on with next_cursor, or with the link of relation next."
		}
	}
	if problem, ok := schemas["Problem"].(object); ok {
		members, err := furtherMembers(schemas)
		if err != nil {
			return nil, err
		}
		maps.Copy(child(problem, "properties"), members) // mended with the rest
	}
	doc = mend(doc).(object)
	components = child(doc, "components")
	components["responses"] = responses(examples)
	components["headers"] = headers()
	components["securitySchemes"] = securitySchemes()

	if err := finishOperations(child(doc, "paths"), routes, examples); err != nil {
		return nil, err
	}
	closeRequestSchemas(doc)
	prune(doc)
	return write(doc)
}

// mend walks over the whole document and puts right what swag writes in OpenAPI 2 or by mistake.
func mend(node any) any {
	switch node := node.(type) {
	case []any:
		for i := range node {
			node[i] = mend(node[i])
		}
	case object:
		for k, v := range node {
			node[k] = mend(v)
		}
		if node["uniqueItems"] == false {
			delete(node, "uniqueItems")
		}
		delete(node, "x-enum-varnames")
		delete(node, "x-enum-comments")
		delete(node, "x-enum-descriptions")
		if node["type"] == "file" {
			node["type"], node["format"] = "string", "binary"
		}
		properties, _ := node["properties"].(object)
		for _, v := range properties {
			openIfFree(v)
		}
		if _, nullable := node["x-nullable"]; nullable {
			delete(node, "x-nullable")
			return orNull(node)
		}
	}
	return node
}

// openIfFree says of an object without members of its own that it has some: generators make a type that can have none
// of it otherwise.
func openIfFree(v any) {
	p, ok := v.(object)
	if !ok || p["type"] != "object" || p["properties"] != nil || p["additionalProperties"] != nil {
		return
	}
	p["additionalProperties"] = true
}

// orNull lets a schema be null, as 3.1 writes it.
func orNull(s object) object {
	if ref, ok := s["$ref"]; ok {
		delete(s, "$ref")
		s["anyOf"] = []any{object{"$ref": ref}, object{"type": "null"}}
		return s
	}
	if t, ok := s["type"].(string); ok {
		s["type"] = []any{t, "null"}
	}
	if e, ok := s["enum"].([]any); ok {
		s["enum"] = append(e, nil)
	}
	return s
}

// finishOperations adds to every operation what its route says.
func finishOperations(paths object, routes []route.Route, examples Examples) error {
	var problems []error
	seen := map[string]bool{}
	for _, r := range routes {
		r = r.WithDefaults()
		seen[r.Path+" "+strings.ToLower(r.Method)] = true
		op, ok := child(paths, r.Path)[strings.ToLower(r.Method)].(object)
		if !ok {
			problems = append(problems, fmt.Errorf("%s has no annotations", r.Name()))
			continue
		}
		err := finishOperation(op, r)
		if err == nil {
			err = examples.add(op)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", r.Name(), err))
		}
	}
	for path, item := range paths {
		for method := range item.(object) {
			if !seen[path+" "+method] {
				problems = append(problems, fmt.Errorf("%s %s is annotated and is no route", strings.ToUpper(method), path))
			}
		}
	}
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(problems...)
}

func finishOperation(op object, r route.Route) error {
	for _, required := range []string{"operationId", "summary", "tags"} {
		if op[required] == nil {
			return fmt.Errorf("has no %s", required)
		}
	}
	if r.Public {
		op["security"] = []any{}
	} else {
		op["security"] = []any{object{"bearer": []any{string(r.Scope)}}}
		op["description"] = strings.TrimSpace(fmt.Sprint(orEmpty(op["description"]), "\n\nScope: `", r.Scope, "`."))
	}
	if !r.Deprecated.IsZero() {
		op["deprecated"] = true
		if !r.Sunset.IsZero() {
			op["x-sunset"] = r.Sunset.UTC().Format(http.TimeFormat)
		}
	}
	if r.HasBody() && r.NoBody != (op["requestBody"] == nil) {
		return errors.New("is annotated with a body and takes none, or the other way round")
	}
	if err := checkQuery(op, r); err != nil {
		return err
	}
	addParameters(op, r)
	finishBody(op)
	if content := bodyOf(r); content != nil {
		child(op, "requestBody")["content"] = content
	}
	return finishResponses(op, r)
}

func orEmpty(v any) any {
	if v == nil {
		return ""
	}
	return v
}

// checkQuery holds the query's parameters that are annotated to those that the route lets in.
func checkQuery(op object, r route.Route) error {
	var annotated []string
	params, _ := op["parameters"].([]any)
	for _, v := range params {
		if p, _ := v.(object); p["in"] == "query" {
			annotated = append(annotated, fmt.Sprint(p["name"]))
		}
	}
	slices.Sort(annotated)
	if taken := slices.Sorted(slices.Values(r.Query)); !slices.Equal(annotated, taken) {
		return fmt.Errorf("is annotated with the query's parameters %v and takes %v", annotated, taken)
	}
	return nil
}

func addParameters(op object, r route.Route) {
	params, _ := op["parameters"].([]any)
	header := func(name, description string, required bool, schema object) {
		params = append(params, object{"name": name, "in": "header", "required": required, "description": description, "schema": schema})
	}
	if r.TakesKey() {
		header("Idempotency-Key", "A fresh value for each thing to be done, the same one to repeat. Kept for 30 days.", r.Idempotent,
			object{"type": "string", "minLength": 1, "maxLength": 257, "example": `"8e03978e-40d5-43dd-bc93-6894a57f9324"`})
	}
	if r.IfMatch {
		header("If-Match", "The ETag of the representation that the change is based on, or *.", true, object{"type": "string", "example": `"v3"`})
	}
	if r.Tagged {
		header("If-None-Match", "The ETag of a copy that the caller has; the answer is 304 if it is still good.", false, object{"type": "string", "example": `"v3"`})
	}
	if !r.Public && r.Account != route.AccountNone {
		header("Accrue-Account", "For operators and platform services: the account that is acted for, by its id or external id.", false,
			object{"type": "string", "minLength": 1, "maxLength": 255})
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
}

// finishBody undoes swag's habit of offering "any object" beside the type that was named.
func finishBody(op object) {
	body, ok := op["requestBody"].(object)
	if !ok {
		return
	}
	content, _ := body["content"].(object)
	for _, media := range content {
		m, _ := media.(object)
		s, _ := m["schema"].(object)
		if ref, ok := s["$ref"]; ok { // swag repeats the body's description here
			m["schema"] = object{"$ref": ref}
			continue
		}
		choices, ok := s["oneOf"].([]any)
		if !ok {
			continue
		}
		kept := slices.DeleteFunc(choices, func(c any) bool {
			choice, _ := c.(object)
			return choice["type"] == "object" && choice["properties"] == nil && choice["$ref"] == nil
		})
		if len(kept) == 1 {
			choice, _ := kept[0].(object)
			if d, ok := choice["description"].(string); ok && d != "" && body["description"] == nil {
				body["description"] = d
			}
			if ref, ok := choice["$ref"]; ok {
				choice = object{"$ref": ref}
			}
			m["schema"] = choice
		}
	}
	if d, ok := body["description"].(string); ok && strings.TrimSpace(d) == "" {
		delete(body, "description")
	}
}

// finishResponses gives every success its headers, every problem its media type, and every operation
// the refusals of the middleware in front of it.
func finishResponses(op object, r route.Route) error {
	all := child(op, "responses")
	successes := 0
	for code, v := range all {
		resp, _ := v.(object)
		status, err := strconv.Atoi(code)
		if err != nil {
			return fmt.Errorf("response %q is no status code", code)
		}
		if d, _ := resp["description"].(string); strings.TrimSpace(d) == "" || d == http.StatusText(http.StatusBadRequest) {
			resp["description"] = http.StatusText(status)
		}
		if status < 400 {
			successes++
			finishSuccess(resp, r, status)
			continue
		}
		resp["content"] = problemContent()
		resp["headers"] = problemHeaders(status)
	}
	if successes == 0 {
		return errors.New("has no successful response")
	}
	if r.Tagged {
		resp := object{"description": "The caller's copy is still good."}
		finishSuccess(resp, r, http.StatusNotModified)
		all["304"] = resp
	}
	for _, status := range refusals(r) {
		code := strconv.Itoa(status)
		if _, said := all[code]; !said {
			all[code] = object{"$ref": "#/components/responses/" + responseName(status)}
		}
	}
	return nil
}

func finishSuccess(resp object, r route.Route, status int) {
	content, _ := resp["content"].(object)
	if status == http.StatusNoContent || (len(content) > 0 && emptySchema(content)) {
		delete(resp, "content")
	}
	h, ok := resp["headers"].(object)
	if !ok {
		h = object{}
	}
	for _, name := range answerHeaders {
		h[name] = headerRef(name)
	}
	if r.Creates != "" && status == http.StatusCreated {
		h["Location"] = headerRef("Location")
	}
	if r.Tagged || r.IfMatch {
		h["ETag"] = headerRef("ETag")
	}
	if r.TakesKey() {
		h["Idempotent-Replayed"] = headerRef("Idempotent-Replayed")
	}
	if paged(content) {
		h["Link"] = headerRef("Link")
	}
	resp["headers"] = h
}

// paged reports whether an answer is a page of a list.
func paged(content object) bool {
	m, _ := content["application/json"].(object)
	s, _ := m["schema"].(object)
	ref, _ := s["$ref"].(string)
	return strings.HasPrefix(ref, "#/components/schemas/Page-")
}

// emptySchema reports whether swag made up a body for an answer that was declared without one.
func emptySchema(content object) bool {
	for _, media := range content {
		m, _ := media.(object)
		s, _ := m["schema"].(object)
		if len(s) != 1 || s["type"] != "object" {
			return false
		}
	}
	return true
}

// refusals are the statuses that the middleware in front of a route can answer with.
func refusals(r route.Route) []int {
	out := []int{400, 406, 422, 429, 500, 503}
	if !r.Public {
		out = append(out, 401, 403)
	}
	if strings.Contains(r.Path, "{") || (!r.Public && r.Account != route.AccountNone) {
		out = append(out, 404)
	}
	if r.HasBody() {
		out = append(out, 413, 415)
	}
	if r.IfMatch {
		out = append(out, 412, 428)
	}
	if r.TakesKey() {
		out = append(out, 409)
	}
	return out
}

// closeRequestSchemas forbids further members in what is only ever sent to us: they would be refused.
// What we answer with stays open, since version 1 may grow.
func closeRequestSchemas(doc object) {
	schemas := child(child(doc, "components"), "schemas")
	asked, answered := map[string]bool{}, map[string]bool{}
	for _, item := range child(doc, "paths") {
		for _, v := range item.(object) {
			op, _ := v.(object)
			reach(op["requestBody"], schemas, asked)
			reach(op["responses"], schemas, answered)
		}
	}
	reach(child(doc, "components")["responses"], schemas, answered)
	for name := range maps.Keys(asked) {
		schema, _ := schemas[name].(object)
		if _, said := schema["additionalProperties"]; !answered[name] && schema["type"] == "object" && !said {
			schema["additionalProperties"] = false
		}
	}
}

// reach marks the schemas that a node refers to, directly or through others.
func reach(node any, schemas object, marked map[string]bool) {
	switch node := node.(type) {
	case []any:
		for _, v := range node {
			reach(v, schemas, marked)
		}
	case object:
		for k, v := range node {
			ref, ok := v.(string)
			if k != "$ref" || !ok {
				reach(v, schemas, marked)
				continue
			}
			if name, ok := strings.CutPrefix(ref, "#/components/schemas/"); ok && !marked[name] {
				marked[name] = true
				reach(schemas[name], schemas, marked)
			}
		}
	}
}

// prune takes out the components that nothing refers to, until all that are left are referred to.
func prune(doc object) {
	components := child(doc, "components")
	for {
		used := map[string]bool{}
		references(doc, used)
		pruned := false
		for kind, v := range components {
			if kind == "securitySchemes" { // referred to by name
				continue
			}
			for name := range v.(object) {
				if !used["#/components/"+kind+"/"+name] {
					delete(v.(object), name)
					pruned = true
				}
			}
		}
		if !pruned {
			return
		}
	}
}

func references(node any, used map[string]bool) {
	switch node := node.(type) {
	case []any:
		for _, v := range node {
			references(v, used)
		}
	case object:
		for k, v := range node {
			if ref, ok := v.(string); ok && k == "$ref" {
				used[ref] = true
			}
			references(v, used)
		}
	}
}

// child returns the object under a name, and makes one if there is none.
func child(o object, name string) object {
	c, ok := o[name].(object)
	if !ok {
		c = object{}
		o[name] = c
	}
	return c
}

// write orders the top as a reader wants it and everything below by name, so that the same source
// always gives the same bytes.
func write(doc object) ([]byte, error) {
	var out bytes.Buffer
	out.WriteString("{\n")
	order := []string{"openapi", "info", "servers", "tags", "security", "paths", "components"}
	for name := range doc {
		if !slices.Contains(order, name) {
			return nil, fmt.Errorf("unexpected member %q at the top", name)
		}
	}
	first := true
	for _, name := range order {
		v, ok := doc[name]
		if !ok {
			continue
		}
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		enc.SetIndent("  ", "  ")
		if err := enc.Encode(v); err != nil {
			return nil, err
		}
		if !first {
			out.WriteString(",\n")
		}
		first = false
		fmt.Fprintf(&out, "  %q: %s", name, bytes.TrimRight(buf.Bytes(), "\n"))
	}
	out.WriteString("\n}\n")
	return out.Bytes(), nil
}
