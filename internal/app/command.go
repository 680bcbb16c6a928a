package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"runtime/pprof"
	"time"

	"github.com/alecthomas/kong"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/telemetry"
)

// commands is the command tree. The options stand at its root: they may be given before or after the
// command's name.
type commands struct {
	Options Config `embed:""`
	File    string `name:"config" help:"YAML file of options." placeholder:"FILE"`

	Serve   serveCommand   `cmd:"" help:"Serve the API."`
	Ready   readyCommand   `cmd:"" help:"Ask the service at addr whether it can take requests; for health checks of containers."`
	Migrate migrateCommand `cmd:"" help:"Change the database's schema."`
	Plans   plansCommand   `cmd:"" help:"Check a catalogue, show what it would change, or put it on sale."`
	Import  importCommand  `cmd:"" help:"Bring usage from a CSV or NDJSON file into a running service."`
	Check   checkCommand   `cmd:"" help:"Check the books: fourteen invariants over the whole database and the provider."`
	Demo    demoCommand    `cmd:"" help:"Tell a customer's whole life over the API, step by step, on a virtual clock."`
	Config  configCommand  `cmd:"" help:"Print every option with its value in force; secrets are redacted."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// invocation is what a command is run with.
type invocation struct {
	ctx    context.Context //nolint:containedctx // lives as long as the command
	cfg    Config
	log    *slog.Logger
	stdout io.Writer
	stderr io.Writer
	kong   *kong.Kong
}

// Execute runs the program with the given arguments, without its name. A *UsageError means that the
// arguments or the configuration cannot be meant. Logs go to stderr.
func Execute(ctx context.Context, args []string, env Environment, stdout, stderr io.Writer) error {
	var tree commands
	parsed, err := parse(&tree, args, env, stdout, stderr)
	if err != nil || parsed == nil {
		return err
	}
	tree.Options = tree.Options.withDefaults(env)
	in := &invocation{ctx: ctx, cfg: tree.Options, stdout: stdout, stderr: stderr, kong: parsed.Kong}
	var level slog.Level
	if err := level.UnmarshalText([]byte(in.cfg.LogLevel)); err != nil {
		return &UsageError{[]string{"log-level: " + err.Error()}}
	}
	in.log = telemetry.NewLogger(stderr, level, telemetry.Format(in.cfg.LogFormat))
	return parsed.Run(in)
}

type serveCommand struct {
	Demo       bool   `help:"Fill an empty deployment with three customers and several weeks of usage, and print how to look at them; test mode only."`
	CPUProfile string `name:"cpu-profile" help:"Write where the processor's time goes to this file, until the service stops. See make profile." placeholder:"FILE"`
}

// Run serves until the program is told to stop.
func (c serveCommand) Run(in *invocation) (err error) {
	if c.Demo && (in.cfg.Live() || in.cfg.Provider != sandbox.Name) {
		return &UsageError{[]string{"demo: needs mode=test and provider=sandbox"}}
	}
	limitMemory(in.cfg.MemoryLimit)
	if c.CPUProfile != "" {
		stop, failed := profile(c.CPUProfile)
		if failed != nil {
			return &UsageError{[]string{"cpu-profile: " + failed.Error()}}
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	a, err := New(in.ctx, in.cfg, in.log)
	if err != nil && in.ctx.Err() != nil {
		in.log.InfoContext(in.ctx, "stopped before it had started", "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	if c.Demo {
		a.withDemo(in.stdout, in.stderr)
	}
	return a.Run(in.ctx)
}

type readyCommand struct{}

// readyWithin is how long the service has to say that it is ready.
const readyWithin = 3 * time.Second

// Run succeeds where /readyz does.
func (readyCommand) Run(in *invocation) (err error) {
	defer errs.Wrap(&err, "not ready")
	url := "http://" + reachable(in.cfg.Addr) + "/readyz"
	status, err := get(in.ctx, url, readyWithin)
	if err != nil {
		return err
	}
	if status != http.StatusOK {
		return fmt.Errorf("%s answers %d %s", url, status, http.StatusText(status))
	}
	_, err = fmt.Fprintln(in.stdout, "ready")
	return err
}

// get asks an address and returns the status of its answer.
func get(ctx context.Context, url string, within time.Duration) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

// profile writes where the processor's time goes, until stop is called.
func profile(path string) (stop func() error, err error) {
	f, err := os.Create(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

type migrateCommand struct {
	Up     migrateUp     `cmd:"" help:"Apply what is missing."`
	Down   migrateDown   `cmd:"" help:"Take back the newest migration, and what it holds."`
	Status migrateStatus `cmd:"" help:"List the migrations."`
}

type (
	migrateUp   struct{}
	migrateDown struct {
		Yes bool `help:"Do it without asking; in live mode it is refused without."`
	}
	migrateStatus struct{}
)

func (migrateUp) Run(in *invocation) error {
	return in.migrator(func(m *postgres.Migrator) error {
		done, err := m.Up(in.ctx)
		in.list(done, "applied")
		if err == nil && len(done) == 0 {
			_, err = fmt.Fprintln(in.stdout, "nothing to do")
		}
		return err
	})
}

func (c migrateDown) Run(in *invocation) error {
	if in.cfg.Live() && !c.Yes {
		return &UsageError{[]string{"yes: migrate down destroys data; in live mode it must be confirmed with --yes"}}
	}
	return in.migrator(func(m *postgres.Migrator) error {
		done, err := m.Down(in.ctx)
		in.list(done, "taken back")
		if err == nil && len(done) == 0 {
			_, err = fmt.Fprintln(in.stdout, "nothing to do")
		}
		return err
	})
}

func (migrateStatus) Run(in *invocation) error {
	return in.migrator(func(m *postgres.Migrator) error {
		all, err := m.Status(in.ctx)
		for _, s := range all {
			state := "missing"
			if s.Applied {
				state = "applied"
			}
			_, _ = fmt.Fprintf(in.stdout, "%-8s %s\n", state, s)
		}
		return err
	})
}

func (in *invocation) list(all []postgres.Migration, what string) {
	for _, m := range all {
		_, _ = fmt.Fprintf(in.stdout, "%s %s\n", what, m)
	}
}

// withDatabase runs fn on the database, beside a running service if there is one.
func (in *invocation) withDatabase(fn func(d *database) error) (err error) {
	if err := in.cfg.Check(); err != nil {
		return err
	}
	d, err := openDatabase(in.ctx, in.cfg, in.log, shared)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close(context.WithoutCancel(in.ctx))) }()
	return fn(d)
}

func (in *invocation) migrator(fn func(m *postgres.Migrator) error) error {
	return in.withDatabase(func(d *database) error {
		m, err := postgres.NewMigrator(in.ctx, d.url.Reveal())
		if err != nil {
			return err
		}
		defer m.Close()
		return fn(m)
	})
}

type configCommand struct{}

// Run prints the options, and then what is wrong with them.
func (configCommand) Run(in *invocation) error {
	if err := settingsTable(in.stdout, in.kong); err != nil {
		return err
	}
	return in.cfg.Check()
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(in *invocation) error {
	_, err := fmt.Fprintln(in.stdout, "accrue", Version())
	return err
}
