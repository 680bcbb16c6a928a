package trace_test

import (
	"testing"

	"github.com/accrue-billing/accrue/internal/trace"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	for name, tc := range map[string]struct {
		header string
		ok     bool
	}{
		"Good":               {good, true},
		"LaterVersion":       {"cc" + good[2:] + "-what-the-future-holds", true},
		"Empty":              {"", false},
		"VersionFF":          {"ff" + good[2:], false},
		"Version00Longer":    {good + "-x", false},
		"LaterVersionGlued":  {"cc" + good[2:] + "x", false},
		"UpperCase":          {"00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false},
		"ZeroTrace":          {"00-00000000000000000000000000000000-00f067aa0ba902b7-01", false},
		"ZeroParent":         {"00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false},
		"FlagsNotHex":        {good[:53] + "zz", false},
		"TraceNotHex":        {"00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01", false},
		"WrongSeparators":    {"00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01", false},
		"ShortByOne":         {good[:54], false},
		"InjectedLineBreaks": {good[:54] + "\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, ok := trace.Parse(tc.header)
			if ok != tc.ok {
				t.Fatalf("Parse(%q) = %v, want %v", tc.header, ok, tc.ok)
			}
			if ok && c.RequestID() != "4bf92f35-77b3-4da6-a3ce-929d0e0e4736" {
				t.Errorf("request id %s is not the trace id", c.RequestID())
			}
			if ok && c.Header()[36:52] == good[36:52] {
				t.Error("the span of the caller was kept for our own")
			}
		})
	}
}
