package main

import (
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/accrue-billing/accrue/internal/app"
)

func TestExitCode(t *testing.T) {
	t.Parallel()
	for want, err := range map[int]error{
		0: nil,
		1: errors.New("failed"),
		2: fmt.Errorf("start: %w", &app.UsageError{Problems: []string{"mode: is wrong"}}),
	} {
		if got := exitCode(err); got != want {
			t.Errorf("%v exits %d, want %d", err, got, want)
		}
	}
}

func TestRealMain_UnknownCommand(t *testing.T) {
	t.Parallel()
	if got := exitCode(realMain(t.Context(), []string{"sevre"}, io.Discard)); got != 2 {
		t.Errorf("exits %d", got)
	}
}
