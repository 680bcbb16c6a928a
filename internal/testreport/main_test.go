package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	t.Parallel()
	const pkg = `"Package":"github.com/accrue-billing/accrue/`
	cases := []struct {
		name   string
		events []string
		failed bool
		want   []string
		not    []string
	}{
		{
			name: "PassingTestsAreQuietAndCountedByKind",
			events: []string{
				`{"Action":"run",` + pkg + `internal/e2e","Test":"TestUpgrade"}`,
				`{"Action":"output",` + pkg + `internal/e2e","Test":"TestUpgrade","Output":"chatter\n"}`,
				`{"Action":"pass",` + pkg + `internal/e2e","Test":"TestUpgrade"}`,
				`{"Action":"run",` + pkg + `pkg/money","Test":"FuzzAllocate"}`,
				`{"Action":"run",` + pkg + `pkg/money","Test":"FuzzAllocate/seed#0"}`,
				`{"Action":"pass",` + pkg + `pkg/money","Test":"FuzzAllocate/seed#0"}`,
				`{"Action":"pass",` + pkg + `pkg/money","Test":"FuzzAllocate"}`,
				`{"Action":"output",` + pkg + `pkg/money","Output":"ok  \tpkg/money\t0.1s\n"}`,
				`{"Action":"pass",` + pkg + `pkg/money"}`,
			},
			want: []string{"ok  \tpkg/money", "end to end           1", "fuzz seed            1", "\n2 passed, 0 failed\n"},
			not:  []string{"chatter"},
		},
		{
			name: "AFailureShowsItsOutput",
			events: []string{
				`{"Action":"run",` + pkg + `internal/id","Test":"TestParse"}`,
				`{"Action":"output",` + pkg + `internal/id","Test":"TestParse","Output":"    id_test.go:9: wrong\n"}`,
				`{"Action":"fail",` + pkg + `internal/id","Test":"TestParse"}`,
				`{"Action":"fail",` + pkg + `internal/id"}`,
			},
			failed: true,
			want:   []string{"id_test.go:9: wrong", "0 passed, 1 failed\n"},
		},
		{
			name: "APanicShowsTheTestThatNeverEnded",
			events: []string{
				`{"Action":"run",` + pkg + `internal/id","Test":"TestParse"}`,
				`{"Action":"output",` + pkg + `internal/id","Test":"TestParse","Output":"panic: boom\n"}`,
				`{"Action":"fail",` + pkg + `internal/id"}`,
			},
			failed: true,
			want:   []string{"panic: boom", "1 packages failed"},
		},
		{
			name: "ABuildFailureFails",
			events: []string{
				`{"ImportPath":"x","Action":"build-output","Output":"x.go:1:1: syntax error\n"}`,
				`{"ImportPath":"x","Action":"build-fail"}`,
			},
			failed: true,
			want:   []string{"syntax error"},
		},
		{
			name:   "TheGoCommandsOwnWordsAreKept",
			events: []string{"FAIL ./nowhere [setup failed]"},
			failed: true,
			want:   []string{"./nowhere"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			failed, err := report(strings.NewReader(strings.Join(c.events, "\n")+"\n"), &out)
			if err != nil || failed != c.failed {
				t.Errorf("failed = %v, %v", failed, err)
			}
			for _, want := range c.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in:\n%s", want, out.String())
				}
			}
			for _, not := range c.not {
				if strings.Contains(out.String(), not) {
					t.Errorf("%q in:\n%s", not, out.String())
				}
			}
		})
	}
}
