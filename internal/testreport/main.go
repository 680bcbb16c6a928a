// Command testreport reads `go test -json` and writes what a person wants to see: a line for each
// package, the output of the tests that failed, and at the end how many tests of each kind there were.
//
// A test's kind follows from where it is and what it is called; see kinds.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

func main() {
	failed, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		os.Exit(2)
	}
	if failed {
		os.Exit(1)
	}
}

// kinds are tried in order; the first that fits names the kind. A package is a path below the module,
// a name a part of the test's name; an empty one fits all.
var kinds = []struct{ kind, pkg, name string }{
	{"fuzz seed", "", "Fuzz"},
	{"example", "", "Example"},
	{"property", "", "Property"},
	{"property", "", "Properties"},
	{"crash", "", "Crash"},
	{"crash", "", "Killed"},
	{"chaos", "", "Chaos"},
	{"contract", "", "Contract"},
	{"stress", "", "Stress"},
	{"simulation", "", "Simulation"},
	{"architecture", "internal", "Import"},
	{"schema", "internal/postgres", "Schema"},
	{"migration", "internal/postgres", "Migrat"},
	{"end to end", "internal/e2e", ""},
	{"HTTP edge", "api", ""},
	{"gateway", "internal/payment", ""},
	{"launcher", "internal/postgres/embedded", ""},
	{"store", "internal/postgres", ""},
	{"operation", "internal/billing", ""},
	{"background", "internal/worker", ""},
	{"assembly", "internal/app", ""},
	{"unit", "", ""},
}

const module = "github.com/accrue-billing/accrue/"

func kindOf(pkg, test string) string {
	pkg = strings.TrimPrefix(pkg, module)
	for _, k := range kinds {
		inPkg := k.pkg == "" || pkg == k.pkg || strings.HasPrefix(pkg, k.pkg+"/")
		if inPkg && strings.Contains(test, k.name) {
			return k.kind
		}
	}
	return "unit"
}

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build's output
	Test       string
	Output     string
	Elapsed    float64
}

type key struct{ pkg, test string }

type tally struct{ passed, failed, skipped int }

type reporter struct {
	out      io.Writer
	output   map[key]*strings.Builder // of tests that have not passed yet
	parents  map[key]bool             // tests that have subtests: they are not counted themselves
	results  map[key]string
	elapsed  map[key]float64
	packages tally
}

// report returns whether anything failed.
func report(in io.Reader, out io.Writer) (failed bool, err error) {
	r := &reporter{
		out: out, output: map[key]*strings.Builder{}, parents: map[key]bool{},
		results: map[key]string{}, elapsed: map[key]float64{},
	}
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Action != "" {
				r.take(e)
			} else {
				_, _ = out.Write(line) // of the go command itself
				failed = failed || strings.HasPrefix(string(line), "FAIL")
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return true, err
		}
	}
	total := r.summary()
	return failed || total.failed > 0 || r.packages.failed > 0, nil
}

func (r *reporter) take(e event) {
	k := key{e.Package, e.Test}
	switch e.Action {
	case "build-output":
		_, _ = io.WriteString(r.out, e.Output)
	case "build-fail":
		r.packages.failed++
	case "run":
		for parent := e.Test; strings.Contains(parent, "/"); {
			parent = parent[:strings.LastIndex(parent, "/")]
			r.parents[key{e.Package, parent}] = true
		}
	case "output":
		r.keep(k, e.Output)
	case "pass", "fail", "skip":
		r.results[k], r.elapsed[k] = e.Action, e.Elapsed
		if e.Test == "" {
			r.packageDone(k, e.Action)
		} else if e.Action == "pass" {
			delete(r.output, k)
		}
	}
}

func (r *reporter) keep(k key, text string) {
	if k.test == "" {
		// The package's own lines: its verdict is shown at once, "PASS" says nothing more.
		if strings.HasPrefix(text, "ok ") || strings.HasPrefix(text, "FAIL\t") || strings.HasPrefix(text, "---") {
			_, _ = io.WriteString(r.out, text)
			return
		}
		if text == "PASS\n" || text == "FAIL\n" || strings.HasPrefix(text, "?") || strings.HasPrefix(text, "testing: warning: no tests") {
			return
		}
	}
	b := r.output[k]
	if b == nil {
		b = &strings.Builder{}
		r.output[k] = b
	}
	b.WriteString(text)
}

// packageDone shows what the package's failed and unfinished tests have said.
func (r *reporter) packageDone(k key, action string) {
	var names []string
	for o := range r.output {
		if o.pkg == k.pkg && o.test != "" {
			names = append(names, o.test)
		}
	}
	slices.Sort(names)
	for _, name := range append(names, "") {
		o := key{k.pkg, name}
		if b := r.output[o]; b != nil && (action == "fail" && r.results[o] != "skip" || name == "") {
			_, _ = io.WriteString(r.out, b.String())
		}
		delete(r.output, o)
	}
	switch action {
	case "fail":
		r.packages.failed++
	case "pass":
		r.packages.passed++
	}
}

// summary writes the count of tests by kind, and the line that a machine may read last.
func (r *reporter) summary() (total tally) {
	byKind := map[string]*tally{}
	type slow struct {
		key
		seconds float64
	}
	var slowest []slow
	for k, result := range r.results {
		if k.test == "" || r.parents[k] && result != "fail" {
			continue
		}
		if r.parents[k] && r.childFailed(k) {
			continue // its subtests are counted
		}
		kind := kindOf(k.pkg, k.test)
		if byKind[kind] == nil {
			byKind[kind] = &tally{}
		}
		for _, t := range []*tally{byKind[kind], &total} {
			switch result {
			case "pass":
				t.passed++
			case "fail":
				t.failed++
			case "skip":
				t.skipped++
			}
		}
		slowest = append(slowest, slow{k, r.elapsed[k]})
	}
	_, _ = fmt.Fprintf(r.out, "\n%-14s %7s %7s %7s\n", "kind of test", "passed", "failed", "skipped")
	var names []string
	for kind := range byKind {
		names = append(names, kind)
	}
	slices.Sort(names)
	for _, kind := range names {
		t := byKind[kind]
		_, _ = fmt.Fprintf(r.out, "%-14s %7d %7d %7d\n", kind, t.passed, t.failed, t.skipped)
	}
	slices.SortFunc(slowest, func(a, b slow) int { return int((b.seconds - a.seconds) * 1000) })
	if len(slowest) > 0 && slowest[0].seconds >= 5 {
		_, _ = fmt.Fprintln(r.out, "\nslowest")
		for _, s := range slowest[:min(5, len(slowest))] {
			d := time.Duration(s.seconds * float64(time.Second)).Round(100 * time.Millisecond)
			_, _ = fmt.Fprintf(r.out, "%8s  %s %s\n", d, strings.TrimPrefix(s.pkg, module), s.test)
		}
	}
	if r.packages.failed > 0 {
		_, _ = fmt.Fprintf(r.out, "\n%d packages failed\n", r.packages.failed)
	}
	_, _ = fmt.Fprintf(r.out, "\n%d passed, %d failed\n", total.passed, total.failed)
	return total
}

func (r *reporter) childFailed(k key) bool {
	for other, result := range r.results {
		if other.pkg == k.pkg && result == "fail" && strings.HasPrefix(other.test, k.test+"/") {
			return true
		}
	}
	return false
}
