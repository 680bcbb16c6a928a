package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/invariant"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/postgres"
)

type checkCommand struct{}

// Run makes every check of the books, beside a running service or without one.
func (checkCommand) Run(in *invocation) error {
	return in.withDatabase(func(d *database) error {
		db, err := postgres.Open(in.ctx, postgres.Config{URL: d.url.Reveal(), MaxConns: 4})
		if err != nil {
			return err
		}
		defer db.Close()
		shared, err := clock.Follow(in.ctx, db.Time)
		if err != nil {
			return err
		}
		a := &App{cfg: in.cfg, log: in.log, clock: shared.Now}
		if a.secrets, err = in.cfg.secrets(); err != nil {
			return err
		}
		gateway, done, err := a.gatewayBeside(in.ctx)
		if err != nil {
			return err
		}
		defer done()
		return printChecks(in.ctx, in.stdout, db, invariant.Options{Gateway: gateway, Clock: a.clock})
	})
}

// gatewayBeside reaches the provider that the service uses. If no service runs, nobody plays the
// sandbox provider, so it is played here, from its journal, for as long as the command lasts.
func (a *App) gatewayBeside(ctx context.Context) (payment.Gateway, func(), error) {
	if a.cfg.Provider != sandbox.Name {
		g, err := a.stripe()
		return g, func() {}, err
	}
	base, done := a.cfg.SandboxURL, func() {}
	if base == "" {
		base = "http://" + reachable(a.cfg.SandboxAddr)
	}
	if _, err := get(ctx, base, time.Second); err != nil { // nobody speaks HTTP there
		provider, err := sandbox.New(sandbox.Config{
			Mode: a.cfg.mode(), Dir: filepath.Join(a.cfg.DataDir, "sandbox"), SecretKey: a.sandboxKey(), Clock: a.clock, Logger: a.log,
		})
		if err != nil {
			return nil, done, err
		}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, done, errors.Join(err, provider.Close())
		}
		s := &http.Server{Handler: provider, ReadHeaderTimeout: 5 * time.Second}
		go func() { _ = s.Serve(l) }()
		base = "http://" + l.Addr().String()
		done = func() { _ = s.Close(); _ = provider.Close() }
	}
	client, err := sandbox.NewClient(sandbox.ClientConfig{
		Mode: a.cfg.mode(), BaseURL: base, SecretKey: a.sandboxKey(),
		WebhookSecrets: []payment.Secret{a.sandboxSigning()}, Timeout: a.cfg.ProviderTimeout,
	})
	if err != nil {
		done()
		return nil, func() {}, err
	}
	return client, func() { client.Close(); done() }, nil
}

// errChecks says that a check found something. The findings are printed.
var errChecks = errors.New("the books do not hold")

// printChecks makes every check, one line each and what it found below it.
func printChecks(ctx context.Context, w io.Writer, src invariant.Source, o invariant.Options) error {
	results, err := invariant.Run(ctx, src, o)
	good := 0
	for _, r := range results {
		mark := "ok"
		switch {
		case r.Skipped != "":
			mark = "skipped"
		case !r.OK:
			mark = "BROKEN"
		default:
			good++
		}
		_, _ = fmt.Fprintf(w, "%-4s %-72s %-8s %s\n", r.ID, r.Title, mark, r.Took.Round(time.Millisecond))
		if r.Skipped != "" {
			_, _ = fmt.Fprintf(w, "       %s\n", r.Skipped)
		}
		for _, f := range r.Findings {
			_, _ = fmt.Fprintf(w, "       %s\n", f)
		}
	}
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(w, "\n%d of %d\n", good, len(results))
	if good < len(results) {
		return errChecks
	}
	return nil
}
