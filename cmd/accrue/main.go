// Command accrue is the billing service. `accrue --help` lists its commands, `accrue config` its options.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/accrue-billing/accrue/internal/app"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	err := realMain(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "accrue:", err)
	}
	os.Exit(exitCode(err))
}

// realMain is the program without the process around it.
func realMain(ctx context.Context, args []string, stdout io.Writer) error {
	for _, name := range app.WithoutEffect(os.Environ()) {
		fmt.Fprintf(os.Stderr, "accrue: %s is no option and has no effect; accrue config lists them\n", name)
	}
	return app.Execute(ctx, args, os.LookupEnv, stdout, os.Stderr)
}

// exitCode is 2 for what cannot be meant, 1 for what failed and 0 for what went well.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if _, ok := errors.AsType[*app.UsageError](err); ok {
		return 2
	}
	return 1
}
