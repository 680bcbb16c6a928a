package apitest_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/api/apitest"
)

// judge is a testing.TB that notes failures instead of failing.
type judge struct {
	testing.TB
	faults []string
}

func (j *judge) Helper() {}

func (j *judge) Errorf(format string, _ ...any) { j.faults = append(j.faults, format) }

const plan = `{"code":"pro","name":"Pro","description":"","requires_card":true,"contact_sales":false,"terms":null,"features":[]}`

const notFound = `{"type":"x","title":"Plan not found","status":404,"instance":"urn:uuid:01000000-0000-0000-0000-000000000000","code":"plan_not_found","payment":"pay_1"}`

// TestCheckNoticesWhatTheDocumentDoesNotSay shows that the net has no holes: each answer is right but
// for one thing.
func TestCheckNoticesWhatTheDocumentDoesNotSay(t *testing.T) {
	t.Parallel()
	const problemType = "application/problem+json"
	for name, tc := range map[string]struct {
		status int
		media  string
		body   string
		ok     bool
	}{
		"Right":               {200, "application/json", plan, true},
		"NotModified":         {304, "", "", true},
		"RightProblem":        {404, problemType, notFound, true},
		"SurplusMember":       {200, "application/json", strings.Replace(plan, `{`, `{"secret":1,`, 1), false},
		"MissingMember":       {200, "application/json", strings.Replace(plan, `"name":"Pro",`, ``, 1), false},
		"WrongType":           {200, "application/json", strings.Replace(plan, `true`, `"true"`, 1), false},
		"NullWhereNone":       {200, "application/json", strings.Replace(plan, `"Pro"`, `null`, 1), false},
		"BrokenJSON":          {200, "application/json", plan[:20], false},
		"OtherMedia":          {200, "text/plain", plan, false},
		"UndocumentedSuccess": {206, "application/json", plan, false},
		"UndocumentedFailure": {418, problemType, strings.Replace(notFound, "404", "418", 1), false},
		"ProblemAsJSON":       {404, "application/json", notFound, false},
		"ProblemOtherStatus":  {404, problemType, strings.Replace(notFound, "404", "400", 1), false},
		"ProblemWithoutCode":  {404, problemType, strings.Replace(notFound, `,"code":"plan_not_found"`, ``, 1), false},
		"ProblemSurplus":      {404, problemType, strings.Replace(notFound, `{`, `{"secret":1,`, 1), false},
		"PlainText":           {500, "text/plain", "Internal Server Error", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			j := &judge{TB: t}
			req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/plans/pro", nil)
			resp := &http.Response{StatusCode: tc.status, Header: http.Header{}, Request: req, Body: io.NopCloser(strings.NewReader(tc.body))}
			if tc.media != "" {
				resp.Header.Set("Content-Type", tc.media)
			}
			apitest.Check(j, req, nil, resp, []byte(tc.body))
			if (len(j.faults) == 0) != tc.ok {
				t.Errorf("faults %q, want ok %v", j.faults, tc.ok)
			}
		})
	}
}

func TestTransportPassesTheExchangeOn(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/plain")
		_, _ = w.Write(append([]byte(r.Header.Get("Authorization")+" "), got...))
	}))
	t.Cleanup(s.Close)
	c := apitest.NewClient(t, s.URL, "token")
	if got := string(c.Do(http.MethodPost, "/elsewhere", "hello").Want(http.StatusOK).Body); got != "Bearer token hello" {
		t.Errorf("got %q", got)
	}
	if got := string(c.As("").Do(http.MethodPost, "/elsewhere", "hello").Body); got != " hello" {
		t.Errorf("without a token: %q", got)
	}
}
