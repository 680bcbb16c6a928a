package telemetry_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/accrue-billing/accrue/internal/telemetry"
)

func TestOutage_IsToldAtItsBeginningAndItsEnd(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	o := telemetry.Outage{Log: slog.New(slog.NewTextHandler(&out, nil)), Began: "gone", Ended: "back"}
	gone := errors.New("connection refused")
	for _, err := range []error{nil, gone, gone, gone, nil, nil, gone, nil} {
		o.Tried(t.Context(), err)
	}
	var told []string
	for line := range strings.Lines(out.String()) {
		_, msg, _ := strings.Cut(line, "msg=")
		level := "WARN"
		if strings.Contains(line, "level=INFO") {
			level = "INFO"
		}
		told = append(told, level+" "+strings.TrimSpace(msg))
	}
	want := `WARN gone error="connection refused"|INFO back|WARN gone error="connection refused"|INFO back`
	if got := strings.Join(told, "|"); got != want {
		t.Errorf("told %s", got)
	}
}
