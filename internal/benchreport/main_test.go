package main

import (
	"strings"
	"testing"
)

const output = `goos: linux
pkg: example.com/a
what the benchmark says by itself
BenchmarkRate-2   	  100	 7000 ns/op	 10000 must-ns/op	 5 allocs/op	 20 must-allocs/op
BenchmarkRate-2   	  100	 9000 ns/op	 10000 must-ns/op	 5 allocs/op	 20 must-allocs/op
BenchmarkRate-2   	  100	 8000 ns/op	 10000 must-ns/op	 5 allocs/op	 20 must-allocs/op
BenchmarkPlain/of_two-2   	  3	 12.5 ns/op
PASS
ok  	example.com/a	3.2s
`

func TestReport(t *testing.T) {
	t.Parallel()
	share := func(v string) string {
		return output + "BenchmarkEstimates-2  1  " + v + " of-echo  0.7 must-of-echo\n"
	}
	for name, tt := range map[string]struct {
		in   string
		kept bool
		says []string
	}{
		"MedianBesideTheLimit": {output, true, []string{"what the benchmark says by itself", "Rate 3 8000 ns/op at most 10000 0.80 kept ████████████████ │", "Rate 3 5 allocs/op at most 20 0.25 kept", "Plain/of_two 1 12.5 ns/op"}},
		"ShareIsAtLeast":       {share("0.8"), true, []string{"Estimates 1 0.8 of-echo at least 0.7 1.14 kept ████████████████████│██"}},
		"ShareIsMissed":        {share("0.6"), false, []string{"Estimates 1 0.6 of-echo at least 0.7 0.86 MISSED █████████████████ │"}},
		"LimitIsPassed":        {strings.ReplaceAll(output, "000 ns/op	 10000", "0000 ns/op	 10000"), false, []string{"Rate 3 80000 ns/op at most 10000 8.00 MISSED ████████████████████│██████████████████▶"}},
		"BenchmarkFails":       {output + "--- FAIL: BenchmarkX\n", false, []string{"--- FAIL: BenchmarkX"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			kept, err := report(strings.NewReader(tt.in), &out)
			if err != nil || kept != tt.kept {
				t.Errorf("kept is %v, want %v (%v)", kept, tt.kept, err)
			}
			flat := strings.Join(strings.Fields(out.String()), " ")
			for _, s := range tt.says {
				if !strings.Contains(flat, s) {
					t.Errorf("%q is not in\n%s", s, out.String())
				}
			}
			if strings.Contains(out.String(), "goos") || strings.Contains(out.String(), "must-") {
				t.Errorf("says what nobody reads:\n%s", out.String())
			}
		})
	}
}
