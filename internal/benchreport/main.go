// Command benchreport reads the output of `go test -bench` and writes what a person wants to see: each
// benchmark's median over its rounds, beside the limit that it has to keep.
//
// A benchmark states a limit as a metric of its own: "must-allocs/op" is the limit of "allocs/op". What is
// measured as a share of a physical limit ("of-echo") must be at least that much, anything else at most.
// What a benchmark prints beside its results is passed on as it comes. The exit status is 1 if a limit is
// missed or a benchmark failed.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

func main() {
	kept, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchreport:", err)
		os.Exit(2)
	}
	if !kept {
		os.Exit(1)
	}
}

// limitOf marks the metric that is a limit, and shareOf a metric that is a share of something.
const (
	limitOf = "must-"
	shareOf = "of-"
)

// bench is one benchmark with its measurements by unit, one for each round.
type bench struct {
	name   string
	units  []string // in the order of their first appearance
	values map[string][]float64
}

// report passes on what is no result, and then writes the table of results. It tells whether all limits
// are kept.
func report(in io.Reader, out io.Writer) (kept bool, err error) {
	var all []*bench
	kept = true
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		line := lines.Text()
		name, values, ok := parse(line)
		switch {
		case ok:
			all = add(all, name, values)
			_, err = fmt.Fprintf(os.Stderr, "  %s\n", line) // progress
		case strings.HasPrefix(line, "FAIL"), strings.HasPrefix(line, "--- FAIL"):
			kept = false
			fallthrough
		case !boring(line):
			_, err = fmt.Fprintln(out, line)
		}
		if err != nil {
			return false, err
		}
	}
	if err := lines.Err(); err != nil {
		return false, err
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprint(t, "\nbenchmark\trounds\tmedian\tlimit\tof the limit\t\n")
	for _, b := range all {
		kept = b.write(t) && kept
	}
	return kept, t.Flush()
}

// boring is what `go test` says about a package and nobody reads.
func boring(line string) bool {
	for _, p := range []string{"goos:", "goarch:", "pkg:", "cpu:", "PASS", "ok  ", "?   "} {
		if strings.HasPrefix(line, p) {
			return true
		}
	}
	return strings.TrimSpace(line) == "" || strings.Contains(line, "[no test files]")
}

// measurement is a value with its unit.
type measurement struct {
	value float64
	unit  string
}

// parse reads a result: a name, how often it was run, and pairs of value and unit. See
// https://go.dev/design/14313-benchmark-format.
func parse(line string) (name string, out []measurement, ok bool) {
	f := strings.Fields(line)
	if len(f) < 4 || len(f)%2 != 0 || !strings.HasPrefix(f[0], "Benchmark") {
		return "", nil, false
	}
	if _, err := strconv.Atoi(f[1]); err != nil {
		return "", nil, false
	}
	for i := 2; i < len(f); i += 2 {
		v, err := strconv.ParseFloat(f[i], 64)
		if err != nil {
			return "", nil, false
		}
		out = append(out, measurement{v, f[i+1]})
	}
	name = strings.TrimPrefix(f[0], "Benchmark")
	if at := strings.LastIndexByte(name, '-'); at > 0 { // the number of processors
		if _, err := strconv.Atoi(name[at+1:]); err == nil {
			name = name[:at]
		}
	}
	return name, out, true
}

func add(all []*bench, name string, values []measurement) []*bench {
	at := slices.IndexFunc(all, func(b *bench) bool { return b.name == name })
	if at < 0 {
		at = len(all)
		all = append(all, &bench{name: name, values: map[string][]float64{}})
	}
	b := all[at]
	for _, m := range values {
		if _, seen := b.values[m.unit]; !seen {
			b.units = append(b.units, m.unit)
		}
		b.values[m.unit] = append(b.values[m.unit], m.value)
	}
	return all
}

// write writes a line for each metric, and tells whether the limits are kept.
func (b *bench) write(w io.Writer) (kept bool) {
	kept = true
	for _, unit := range b.units {
		if strings.HasPrefix(unit, limitOf) {
			continue
		}
		m, limit, share, verdict := median(b.values[unit]), "", "", ""
		if limits, ok := b.values[limitOf+unit]; ok {
			must := limits[0]
			word, good := "at most", m <= must
			if strings.HasPrefix(unit, shareOf) {
				word, good = "at least", m >= must
			}
			limit = fmt.Sprintf("%s %s", word, number(must))
			share = fmt.Sprintf("%.2f", m/must)
			if verdict = "kept"; !good {
				verdict, kept = "MISSED", false
			}
			verdict = fmt.Sprintf("%-6s  %s", verdict, bar(m/must))
		}
		_, _ = fmt.Fprintf(w, "%s\t%d\t%s %s\t%s\t%s\t%s\n", b.name, len(b.values[unit]), number(m), unit, limit, share, verdict)
	}
	return kept
}

// bar draws a share of the limit, which stands where the mark does; what goes beyond the bar ends in a point.
func bar(share float64) string {
	const limit, end = 20, 40 // characters
	cells := min(int(share*limit+0.5), end)
	b := []rune(strings.Repeat("█", cells) + strings.Repeat(" ", end-cells))
	if b[limit] = '│'; share*limit > end {
		b[end-1] = '▶'
	}
	return strings.TrimRight(string(b), " ")
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// number writes three digits, or all that are before the point.
func number(v float64) string {
	if v >= 100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
