package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/demo"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invariant"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/telemetry"
)

type demoCommand struct{}

// storyBegins is when the story begins: a Monday morning.
var storyBegins = time.Date(2026, time.March, 2, 9, 0, 0, 0, time.UTC)

// Run tells the story on a service of its own: a private database in a folder that goes away again, or
// the one that is configured, under a new account.
func (demoCommand) Run(in *invocation) (err error) {
	if in.cfg.Live() || in.cfg.Provider != sandbox.Name {
		return &UsageError{[]string{"demo: needs mode=test and provider=sandbox"}}
	}
	dir, err := os.MkdirTemp("", "accrue-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // the server's user must walk through it
		return err
	}
	cfg := in.cfg
	cfg.DataDir, cfg.Addr, cfg.SandboxAddr, cfg.AdminAddr = dir, "127.0.0.1:0", "127.0.0.1:0", ""
	clk := demo.NewClock(storyBegins)
	log := in.log
	if cfg.LogLevel == "info" { // by default nothing stands between the lines of the story; debug shows all
		log = telemetry.NewLogger(in.stderr, slog.LevelWarn, telemetry.Format(cfg.LogFormat))
	}
	defer func() {
		if err != nil && in.ctx.Err() != nil {
			_, err = fmt.Fprintln(in.stderr, "accrue: stopped before the story was told")
		}
	}()
	a, err := newAt(in.ctx, cfg, log, clk.Now)
	if err != nil {
		return err
	}
	told := errors.New("the story is told")
	a.afterStart = func(ctx context.Context) error {
		if err := a.tell(ctx, clk, in.stdout); err != nil {
			return err
		}
		return told
	}
	err = a.Run(in.ctx)
	if errors.Is(err, told) {
		return nil
	}
	return cmp.Or(err, in.ctx.Err())
}

func (a *App) tell(ctx context.Context, clk *demo.Clock, out io.Writer) error {
	control := sandbox.Control{BaseURL: "http://" + reachable(a.Addr("sandbox")), SecretKey: a.sandboxKey()}
	name := "new-customer-" + id.New[demoEvent]().String()[24:]
	return demo.Tell(ctx, demo.World{
		API: "http://" + reachable(a.Addr("api")), Clock: clk, Out: out, Account: name, Token: a.token,
		Sweep: func(ctx context.Context) error {
			_, err := billing.Sweeper{Core: a.svc.core}.Sweep(ctx)
			return err
		},
		Act: func(ctx context.Context, ref, method string) error {
			ref, err := a.setupOf(ctx, ref, method)
			if err != nil {
				return err
			}
			return control.Act(ctx, ref, true)
		},
		Check: func(ctx context.Context, w io.Writer) error {
			return printChecks(ctx, w, a.db, invariant.Options{Gateway: a.svc.core.Gateway, Clock: a.clock})
		},
	})
}

// setupOf finds the provider's page that waits for a customer.
func (a *App) setupOf(ctx context.Context, ref, method string) (_ string, err error) {
	defer errs.Wrap(&err, "setup of %s", method)
	owner, err := a.svc.directory.Lookup(ctx, ref)
	if err != nil {
		return "", err
	}
	mid, err := id.Parse[payment.Method](method)
	if err != nil {
		return "", err
	}
	m, err := a.db.Payments().Method(ctx, owner, mid)
	if err == nil && m.SetupRef == "" {
		err = errors.New("nothing waits for the customer")
	}
	return m.SetupRef, err
}
