package v1_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/api/route"
	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// example is a request as the documentation prints it: a shell command, and what follows it.
type example struct {
	file    string
	command string
	answer  string // what is printed after it, or after an arrow
	macros  map[string]string
}

var (
	fences = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```")
	macro  = regexp.MustCompile(`(?m)^(\w+)\(\) +\{ (.*); \}`)
)

// examples reads the requests of a document: those of curl, and of the functions that it defines with curl.
func examples(t *testing.T, file string) (out []example) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	macros := map[string]string{}
	for _, m := range macro.FindAllStringSubmatch(string(text), -1) {
		macros[m[1]] = m[2]
	}
	begins := func(s string) bool {
		word, _, _ := strings.Cut(s, " ")
		return word == "curl" || macros[word] != ""
	}
	for _, fence := range fences.FindAllStringSubmatch(string(text), -1) {
		if fence[1] != "" && fence[1] != "sh" {
			continue
		}
		open := false
		for rest := macro.ReplaceAllString(fence[2], ""); rest != ""; {
			rest = strings.TrimPrefix(rest, "$ ")
			if begins(rest) {
				_, n := words(rest, nil)
				out, open = append(out, example{file: filepath.Base(file), command: rest[:n], macros: macros}), true
				rest = strings.TrimLeft(rest[n:], "; ")
				continue
			}
			line, after, _ := strings.Cut(rest, "\n")
			if open {
				if _, arrow, ok := strings.Cut(line, "→"); ok {
					line = arrow
				} else if strings.HasPrefix(line, "#") {
					line = ""
				}
				out[len(out)-1].answer += strings.TrimSpace(line)
			}
			rest = after
		}
	}
	return out
}

// words reads one command as a shell does: up to the end of the line, a semicolon, a comment or an arrow
// outside of quotes. value gives what stands for $name; without it, the name stands. It returns how much
// of s the command is.
func words(s string, value func(name string) string) (out []string, n int) {
	var word strings.Builder
	begun, quote := false, byte(0)
	end := func() {
		if begun {
			out = append(out, word.String())
		}
		word.Reset()
		begun = false
	}
	for n < len(s) {
		c := s[n]
		switch {
		case quote == '\'' && c != '\'', quote == '"' && c != '"' && c != '$' && c != '\\':
			word.WriteByte(c)
		case c == '\'' || c == '"':
			begun = true
			switch quote {
			case 0:
				quote = c
			case c:
				quote = 0
			default:
				word.WriteByte(c)
			}
		case c == '\\' && n+1 < len(s):
			n++
			if s[n] != '\n' {
				word.WriteByte(s[n])
			}
		case c == '$':
			name := variable.FindString(s[n:])
			if begun = true; value == nil || strings.Contains(name, "@") {
				word.WriteString(name)
			} else {
				word.WriteString(value(strings.TrimPrefix(name, "$")))
			}
			n += len(name)
			continue
		case c == '\n' || c == ';' || (!begun && (c == '#' || strings.HasPrefix(s[n:], "→"))):
			end()
			return out, n
		case c == ' ':
			end()
		default:
			begun = true
			word.WriteByte(c)
		}
		n++
	}
	end()
	return out, n
}

var variable = regexp.MustCompile(`^\$(?:\{@:2\}|[A-Z_]+|[0-9@])`)

// curl returns the arguments of the curl that a command comes to.
func (e example) curl(args []string, value func(string) string) []string {
	body, ok := e.macros[args[0]]
	switch {
	case !ok:
		return args[1:]
	case args[0] == "of": // op and ask for an account
		return e.curl(append(slices.Clone(args[2:]), "-H", "Accrue-Account: "+args[1]), value)
	}
	inner, _ := words(body, func(name string) string {
		if i, err := strconv.Atoi(name); err == nil {
			return args[i]
		}
		return value(name)
	})
	var all []string
	for _, w := range inner {
		switch w {
		case "$@":
			all = append(all, args[1:]...)
		case "${@:2}":
			all = append(all, args[2:]...)
		default:
			all = append(all, w)
		}
	}
	return e.curl(all, value)
}

// request is the request that curl sends.
func (e example) request(t *testing.T, value func(string) string, files map[string]string) *http.Request {
	t.Helper()
	method, url, body, header := "", "", "", http.Header{}
	args, _ := words(e.command, value)
	args = e.curl(args, value)
	for i := 0; i < len(args); i++ {
		switch a := args[i]; a {
		case "-s", "-i", "-sN":
			continue
		case "-X", "-H", "-d", "--data-binary":
			i++
			switch v := args[i]; a {
			case "-X":
				method = v
			case "-H":
				name, of, _ := strings.Cut(v, ": ")
				header.Set(name, of)
			default:
				body = v
				if name, ok := strings.CutPrefix(v, "@"); ok {
					body = files[name]
				}
				if method == "" {
					method = http.MethodPost
				}
			}
		default:
			if !strings.HasPrefix(a, "/") || url != "" {
				t.Fatalf("%s: what is %q in %s?", e.file, a, e.command)
			}
			url = a
		}
	}
	if method == "" {
		method = http.MethodGet
	}
	req := httptest.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	maps.Copy(req.Header, header)
	return req
}

// Every request that the documentation prints is one that the API has, and of each that it has one is printed.
func TestDocumentedRequestsAreRoutes(t *testing.T) {
	t.Parallel()

	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	routes := api.Routes(api.Deps{})
	printed := map[string]bool{"POST /v1/gateway-events/{provider}": true} // the provider's, who signs it
	for _, file := range append(files, "../../README.md") {
		for _, e := range examples(t, file) {
			name := func(n string) string {
				if n == "API" {
					return ""
				}
				return "x"
			}
			if !strings.Contains(e.command, "$API") {
				continue // of the sandbox provider
			}
			req := e.request(t, name, nil)
			meant := slices.DeleteFunc(slices.Clone(routes), func(r route.Route) bool { return r.Method != req.Method || !matches(r.Path, req.URL.Path) })
			if len(meant) == 0 {
				t.Errorf("%s: there is no %s %s", file, req.Method, req.URL.Path)
				continue
			}
			most := slices.MinFunc(meant, func(a, b route.Route) int { return strings.Count(a.Path, "{") - strings.Count(b.Path, "{") })
			printed[most.Method+" "+most.Path] = true
		}
	}
	for _, r := range routes {
		if !printed[r.Method+" "+r.Path] {
			t.Errorf("no document prints a request of %s %s", r.Method, r.Path)
		}
	}
}

// matches reports whether a path may be one of a route's.
func matches(route, path string) bool {
	of, is := strings.Split(route, "/"), strings.Split(path, "/")
	return len(of) == len(is) && !slices.ContainsFunc(of, func(s string) bool {
		i := slices.Index(of, s)
		return !strings.HasPrefix(s, "{") && s != is[i]
	})
}

// reader goes through a document as its reader would, on one account.
type reader struct {
	w      *world
	values map[string]func() string // what the variables stand for
	files  map[string]string        // that requests send
	ids    map[string]string        // the latest identifier by prefix
	before map[string]func()        // what happens before the command that holds the key
	times  *strings.Replacer        // makes the times of commands those of the world
}

var (
	elided   = regexp.MustCompile(`\b([a-z]+)_…`)
	idOf     = regexp.MustCompile(`"id":"([a-z]+)_[^"]+"`)
	keys     = regexp.MustCompile(`"\w+":`)
	statuses = regexp.MustCompile(`"(?:status|code)": ?"[^"…]+"`)
	variants = map[string]string{
		"CARD": "pm", "UPGRADE": "upg", "INVOICE": "inv", "PAYMENT": "pay", "TOP_UP": "top",
		"INQUIRY": "inq", "ALERT": "alr", "REFUND": "ref", "API_KEY": "key", "RESERVATION": "rsv",
	}
)

func (r *reader) value(name string) string {
	if name == "API" {
		return ""
	}
	if f := r.values[name]; f != nil {
		return f()
	}
	return r.ids[variants[name]]
}

// run sends every request of a document in its order, and holds each answer to what is printed: its
// status (2xx where none is), its members and its states.
func (r *reader) run(t *testing.T, file string) {
	t.Helper()
	done := 0
	for _, e := range examples(t, file) {
		if strings.Contains(e.command, "/events/stream") {
			continue // it has no end
		}
		for part, hook := range r.before {
			if strings.Contains(e.command, part) {
				hook()
			}
		}
		e.command = strings.ReplaceAll(e.command, `"billing_profile": {…}`, `"billing_profile": `+strings.ReplaceAll(profileJSON, "'", `'"'"'`))
		e.command = elided.ReplaceAllStringFunc(e.command, func(s string) string { return r.ids[strings.TrimSuffix(s, "_…")] })
		e.command = r.times.Replace(e.command)
		req := e.request(t, r.value, r.files)
		rec := httptest.NewRecorder()
		r.w.serve().ServeHTTP(rec, req)
		body := rec.Body.String()
		want, printed := 0, e.answer
		if n, rest, _ := strings.Cut(printed, " "); n != "" {
			if status, err := strconv.Atoi(n); err == nil {
				want, printed = status, rest
			}
		}
		if ok := rec.Code == want || (want == 0 && rec.Code < 300); !ok {
			t.Errorf("%s: %s\nis answered %d %s", e.file, e.command, rec.Code, body)
			continue
		}
		for _, member := range append(keys.FindAllString(printed, -1), statuses.FindAllString(printed, -1)...) {
			if member = strings.Replace(member, `": "`, `":"`, 1); !strings.Contains(body, member) {
				t.Errorf("%s: %s\nis said to answer with %s, and does with %s", e.file, e.command, member, body)
			}
		}
		seen := map[string]bool{}
		for _, m := range idOf.FindAllStringSubmatch(body, -1) {
			if prefix := m[1]; !seen[prefix] {
				seen[prefix], r.ids[prefix] = true, strings.TrimSuffix(strings.TrimPrefix(m[0], `"id":"`), `"`)
			}
		}
		done++
	}
	if done < 10 {
		t.Errorf("%s has %d examples that work", file, done)
	}
	t.Logf("%s: %d requests", filepath.Base(file), done)
}

func newReader(w *world) *reader {
	return &reader{w: w, values: map[string]func() string{}, files: map[string]string{}, ids: map[string]string{}, before: map[string]func(){}, times: strings.NewReplacer()}
}

// block returns the YAML of a document that begins with the line.
func block(t *testing.T, file, begins string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(text), "```yaml\n"+begins)
	if !ok {
		t.Fatalf("%s has no %s", file, begins)
	}
	body, _, _ := strings.Cut(after, "```")
	return begins + body
}

func TestDocumentedPricing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, ada := w.upgraded(t, "pm_sandbox_visa")
	w.use(t, a.ID, "voice", "600000")
	r := newReader(w)
	op := w.operator(t, account.ID{})
	r.values["OPERATOR"], r.values["TOKEN"], r.values["ACCOUNT"] = op.token, ada.token, a.ID.String
	shipped, err := os.ReadFile("../../internal/plan/catalogue.yaml")
	if err != nil {
		t.Fatal(err)
	}
	r.files["prices.yaml"] = strings.Replace(string(shipped), `"0.027"`, `"0.03"`, 1)
	r.files["contract.yaml"] = block(t, "../../docs/pricing.md", "plan: enterprise\n")
	r.before["migrations/pmg_…"] = func() { w.sweep(t) }
	r.run(t, "../../docs/pricing.md")
	w.check(t)
}

func TestDocumentedPayments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	ada, op := w.user(t, a.ID), w.operator(t, account.ID{})
	r := newReader(w)
	r.values["TOKEN"], r.values["OPERATOR"], r.values["ACCOUNT"] = ada.token, op.token, a.ID.String
	r.before["once card-1"] = func() { w.giveCard(t, a.ID, r.ids["seti"], sandbox.TokenVisa) }
	r.before["$UPGRADE/confirm"] = func() {
		u := ada.get(t, "/v1/upgrades/"+r.ids["upg"])
		w.act(t, a.ID, u.str(t, "payment_method"), true)
	}
	r.before["once pay-1"] = func() { // nobody has collected it yet
		w.use(t, a.ID, "voice", "240000") // 81.00, and 50.00 of funds
		w.advance(start.AddDate(0, 1, 1).Sub(start))
		inv := w.unpaid(t, a.ID)
		r.ids["inv"] = inv.String()
	}
	r.run(t, "../../docs/payments.md")
	w.check(t)
}

func TestDocumentedMetering(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	r := newReader(w)
	r.values["TOKEN"], r.values["KEY"] = ada.token, ada.token
	r.times = strings.NewReplacer("2026-11-24T12:07", "2026-03-10T08:15", "2026-11-24T12:00", "2026-03-10T08:00", "2026-11-01", "2026-03-01", "2026-12-01", "2026-04-01")
	r.run(t, "../../docs/metering.md")
	w.check(t)
}

// The events that are printed are taken, but for their time.
func TestDocumentedEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, ada := w.upgraded(t, sandbox.TokenVisa)
	sent := 0
	for _, file := range []string{"../../docs/metering.md", "../../README.md"} {
		for _, e := range examples(t, file) {
			if !strings.Contains(e.command, "$API/v1/usage/events -") {
				continue
			}
			e.command = strings.ReplaceAll(e.command, "2026-11-24T12:07:00Z", "2026-03-10T08:15:00Z")
			req := e.request(t, func(name string) string {
				return map[string]func() string{"API": func() string { return "" }, "KEY": ada.token}[name]()
			}, nil)
			rec := httptest.NewRecorder()
			w.serve().ServeHTTP(rec, req)
			if body := rec.Body.String(); rec.Code != http.StatusOK || !strings.Contains(body, `"rejected":0`) {
				t.Errorf("%s: %s\nis answered %d %s", e.file, e.command, rec.Code, body)
			}
			sent++
		}
	}
	if sent < 3 {
		t.Errorf("only %d found", sent)
	}
}

// unpaid ends the account's period and makes its invoice final, and leaves it at that.
func (w *world) unpaid(t *testing.T, a account.ID) invoice.ID {
	t.Helper()
	c := billing.Closer{Core: w.Core}
	if closed, err := c.Close(t.Context(), a); err != nil || !closed {
		t.Fatalf("closed %v, %v", closed, err)
	}
	drafts, err := w.DB.Invoices().List(t.Context(), a, invoice.Draft, page.Request{Limit: 1})
	if err != nil || len(drafts.Data) != 1 {
		t.Fatalf("%d drafts, %v", len(drafts.Data), err)
	}
	if err := c.Finalize(t.Context(), a, drafts.Data[0].ID); err != nil {
		t.Fatal(err)
	}
	return drafts.Data[0].ID
}
