package openapi_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/accrue-billing/accrue/api/openapi"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/auth"
)

// raw is what swag writes, with the faults that are known of it.
const raw = `{
  "openapi": "3.1.0", "info": {"title": "T", "version": "1"}, "externalDocs": {"description": "", "url": ""},
  "components": {"schemas": {
    "Ask": {"type": "object", "properties": {"money": {"$ref": "#/components/schemas/Money"}, "note": {"type": "string", "x-nullable": true}}},
    "Money": {"type": "object", "properties": {"amount": {"type": "integer"}}},
    "Thing": {"type": "object", "properties": {
      "money": {"$ref": "#/components/schemas/Money", "description": "what it costs", "x-nullable": true},
      "kind": {"type": "string", "enum": ["a", "b"], "x-nullable": true, "x-enum-varnames": ["A", "B"]},
      "free": {"type": "object", "description": "by kind"},
      "list": {"type": "array", "items": {"type": "string"}, "uniqueItems": false}}},
    "Page-Thing": {"type": "object", "properties": {"data": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}}}},
    "Action": {"properties": {"name": {"type": "string"}}},
    "Failure": {"properties": {"code": {"type": "string"}, "class": {"type": "string", "enum": ["soft"], "x-nullable": true}, "retry": {"type": "string"}}},
    "Upgrade": {"properties": {"status": {"type": "string", "enum": ["failed"], "example": "failed"}}}, "TopUp": {"properties": {"status": {"type": "string"}}},
    "Payment": {"properties": {"status": {"type": "string"}}}, "RemovalRequest": {"properties": {"status": {"type": "string"}}},
    "Problem": {"type": "object", "properties": {"code": {"type": "string"}}}
  }},
  "paths": {
    "/v1/things/{id}": {"get": {"operationId": "getThing", "summary": "Get", "tags": ["t"], "responses": {
      "200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
      "404": {"description": "thing_not_found", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}}}},
    "/v1/things": {"get": {"operationId": "listThings", "summary": "List", "tags": ["t"], "responses": {
      "200": {"description": "OK", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Page-Thing"}}}}}},
    "post": {"operationId": "addThing", "summary": "Add", "tags": ["t"],
      "requestBody": {"description": "What", "required": true, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Ask", "summary": "body", "description": "What"}}}},
      "responses": {"201": {"description": "", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
        "202": {"description": "Accepted", "content": {"application/json": {"schema": {"type": "object"}}}},
        "402": {"description": "Bad Request", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}}}}
  }}`

func routes() []route.Route {
	h := func(echo.Context) error { return nil }
	return []route.Route{
		{Method: http.MethodGet, Path: "/v1/things/{id}", Public: true, Tagged: true, Handler: h, Deprecated: time.Unix(1, 0)},
		{Method: http.MethodGet, Path: "/v1/things", Public: true, Handler: h},
		{Method: http.MethodPost, Path: "/v1/things", Scope: auth.BillingWrite, Idempotent: true, IfMatch: true, Class: route.Money, Handler: h},
	}
}

var examples = openapi.Examples{
	"Thing": {"first": 1, "second": 2}, "addThing 201": {"made": 3}, "addThing 402": {"declined": 4}, "Ask": {"asked": 5}, "PreconditionRequired": {"which": 6},
}

// at walks into a document.
func at(t *testing.T, doc any, path ...string) any {
	t.Helper()
	for _, p := range path {
		m, ok := doc.(map[string]any)
		if !ok {
			t.Fatalf("no %v", path)
		}
		doc = m[p]
	}
	return doc
}

func TestFinish(t *testing.T) {
	t.Parallel()
	data, err := openapi.Finish([]byte(raw), routes(), map[string]string{"Thing": "A thing."}, examples)
	if err != nil {
		t.Fatal(err)
	}
	again, err := openapi.Finish([]byte(raw), routes(), map[string]string{"Thing": "A thing."}, examples)
	if err != nil || string(again) != string(data) {
		t.Error("the same source gives another document")
	}
	if !strings.HasPrefix(string(data), "{\n  \"openapi\": \"3.1.0\",\n  \"info\"") {
		t.Errorf("begins with %.60q", data)
	}
	var doc any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	post, get := []string{"paths", "/v1/things", "post"}, []string{"paths", "/v1/things/{id}", "get"}
	list := []string{"paths", "/v1/things", "get"}
	schema := []string{"components", "schemas"}
	for name, tc := range map[string]struct {
		path []string
		want string // JSON
	}{
		"NullableReference":   {append(schema, "Thing", "properties", "money"), `{"anyOf":[{"$ref":"#/components/schemas/Money"},{"type":"null"}],"description":"what it costs"}`},
		"NullableEnum":        {append(schema, "Thing", "properties", "kind"), `{"enum":["a","b",null],"type":["string","null"]}`},
		"NullableText":        {append(schema, "Ask", "properties", "note"), `{"type":["string","null"]}`},
		"FreeObject":          {append(schema, "Thing", "properties", "free"), `{"additionalProperties":true,"description":"by kind","type":"object"}`},
		"List":                {append(schema, "Thing", "properties", "list"), `{"items":{"type":"string"},"type":"array"}`},
		"Description":         {append(schema, "Thing", "description"), `"A thing."`},
		"RequestSchemaClosed": {append(schema, "Ask", "additionalProperties"), `false`},
		"SharedSchemaOpen":    {append(schema, "Money", "additionalProperties"), `null`},
		"AnswerSchemaOpen":    {append(schema, "Thing", "additionalProperties"), `null`},
		"Public":              {append(get, "security"), `[]`},
		"Scope":               {append(post, "security"), `[{"bearer":["billing:write"]}]`},
		"Deprecated":          {append(get, "deprecated"), `true`},
		"Body":                {append(post, "requestBody", "content", "application/json", "schema"), `{"$ref":"#/components/schemas/Ask"}`},
		"ProblemMedia": {append(get, "responses", "404"), `{"content":{"application/problem+json":{"schema":{"$ref":"#/components/schemas/Problem"}}},"description":"thing_not_found",` +
			`"headers":{"RateLimit":{"$ref":"#/components/headers/RateLimit"},"RateLimit-Policy":{"$ref":"#/components/headers/RateLimit-Policy"},"X-Request-Id":{"$ref":"#/components/headers/X-Request-Id"}}}`},
		"RefusalsHeaders": {append(post, "responses", "402", "headers"), `{"Idempotent-Replayed":{"$ref":"#/components/headers/Idempotent-Replayed"},` +
			`"RateLimit":{"$ref":"#/components/headers/RateLimit"},"RateLimit-Policy":{"$ref":"#/components/headers/RateLimit-Policy"},"X-Request-Id":{"$ref":"#/components/headers/X-Request-Id"}}`},
		"PagesLinks":            {append(list, "responses", "200", "headers", "Link"), `{"$ref":"#/components/headers/Link"}`},
		"FurtherMembers":        {append(schema, "Problem", "properties", "limit_bytes", "type"), `"integer"`},
		"MembersOfAnswers":      {append(schema, "Problem", "properties", "upgrade_status"), `{"description":"of the pending upgrade","enum":["failed"],"type":"string"}`},
		"MembersThatMayBeNull":  {append(schema, "Problem", "properties", "decline_class", "enum"), `["soft",null]`},
		"TextOfStatus":          {append(post, "responses", "402", "description"), `"Payment Required"`},
		"EmptyDescription":      {append(post, "responses", "201", "description"), `"Created"`},
		"NoMadeUpBody":          {append(post, "responses", "202", "content"), `null`},
		"Example":               {append(post, "responses", "201", "content", "application/json", "example"), `3`},
		"ExampleOfProblem":      {append(post, "responses", "402", "content", "application/problem+json", "example"), `4`},
		"ExampleOfBody":         {append(post, "requestBody", "content", "application/json", "example"), `5`},
		"ExampleOfRefusal":      {[]string{"components", "responses", "PreconditionRequired", "content", "application/problem+json", "example"}, `6`},
		"Examples":              {append(get, "responses", "200", "content", "application/json", "examples"), `{"first":{"value":1},"second":{"value":2}}`},
		"ExampleOfPage":         {append(list, "responses", "200", "content", "application/json", "example", "has_more"), `false`},
		"NotModified":           {append(get, "responses", "304", "description"), `"The caller's copy is still good."`},
		"RefusalOfMiddleware":   {append(post, "responses", "428"), `{"$ref":"#/components/responses/PreconditionRequired"}`},
		"NoRefusalWithoutCause": {append(get, "responses", "428"), `null`},
		"NoExternalDocs":        {[]string{"externalDocs"}, `null`},
	} {
		got, err := json.Marshal(at(t, doc, tc.path...))
		if err != nil || string(got) != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
	var names []string
	for _, p := range at(t, doc, append(post, "parameters")...).([]any) {
		names = append(names, at(t, p, "name").(string))
	}
	if got := strings.Join(names, " "); got != "Idempotency-Key If-Match Accrue-Account" {
		t.Errorf("header parameters %s", got)
	}
}

func TestFinishRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		routes []route.Route
		raw    string
		want   string
	}{
		"RouteWithoutAnnotations": {append(routes(), route.Route{Method: http.MethodGet, Path: "/v1/more", Public: true}), raw, "GET /v1/more has no annotations"},
		"AnnotationsWithoutRoute": {routes()[:1], raw, "POST /v1/things is annotated and is no route"},
		"NoOperationID":           {routes(), strings.Replace(raw, `"operationId": "getThing", `, ``, 1), "GET /v1/things/{id}: has no operationId"},
		"NoSuccess":               {routes(), strings.NewReplacer(`"201"`, `"409"`, `"202"`, `"410"`).Replace(raw), "POST /v1/things: has no successful response"},
		"Unexpected":              {routes(), strings.Replace(raw, `"externalDocs"`, `"surprise"`, 1), `"surprise"`},
		"ParameterNotTaken":       {routes(), strings.Replace(raw, `"operationId": "getThing"`, `"parameters": [{"in": "query", "name": "at"}], "operationId": "getThing"`, 1), "GET /v1/things/{id}: is annotated with the query's parameters [at] and takes []"},
		"NoExample":               {routes(), strings.Replace(raw, `"$ref": "#/components/schemas/Page-Thing"`, `"type": "integer"`, 1), "answer 200 has no example"},
		"NothingToBeLike":         {routes(), strings.Replace(raw, `"Upgrade"`, `"Upgrades"`, 1), "no Upgrade.status for problems to be like"},
		"NotJSON":                 {routes(), "x", "read what swag made"},
	} {
		if _, err := openapi.Finish([]byte(tc.raw), tc.routes, nil, examples); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
