package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/accrue-billing/accrue/api"
	"github.com/accrue-billing/accrue/internal/clock"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/telemetry"
)

// App is the service, assembled. New builds it from the ground up and Run stops it from the top down:
// first no request is taken any more, then the background's work ends, then the database is let go.
type App struct {
	cfg     Config
	secrets deploymentSecrets
	log     *slog.Logger
	clock   clock.Clock // the database's, unless it is a virtual one
	metrics *telemetry.Metrics

	database *database
	db       *postgres.DB

	svc service

	servers    []*server
	background []part
	prepare    []func(ctx context.Context) error // run in order once the servers listen, before the background
	afterStart func(ctx context.Context) error   // if set, runs once everything runs; the service ends with it
	closers    []func() error                    // in the order in which they were opened
	running    atomic.Bool
	draining   atomic.Bool
	closing    chan struct{} // closed when the addresses are
}

// part is work in the background: run returns when its context ends and its last piece is done.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// server is one listener. Its address is known once New has returned, so that port 0 can be asked for.
type server struct {
	name     string
	listener net.Listener
	http     *http.Server
}

// New starts the database, migrates it, and builds everything on top. The caller runs what it returns
// with Run, or gives it up with Close.
func New(ctx context.Context, cfg Config, log *slog.Logger) (*App, error) {
	return newAt(ctx, cfg, log, nil)
}

// newAt is New on a virtual clock, or on the database's if clk is nil: what is due is due for all replicas at once, however their
// machines' clocks differ.
func newAt(ctx context.Context, cfg Config, log *slog.Logger, clk clock.Clock) (_ *App, err error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	log.InfoContext(ctx, "starting", "version", Version(), "mode", cfg.Mode, "provider", cfg.Provider)
	a := &App{cfg: cfg, log: log, clock: clk, metrics: telemetry.NewMetrics(Version()), closing: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.Close(ctx))
		}
	}()
	if a.secrets, err = cfg.secrets(); err != nil {
		return nil, err
	}
	if err := a.openDatabase(ctx); err != nil {
		return nil, err
	}
	if a.clock == nil {
		shared, err := clock.Follow(ctx, a.db.Time)
		if err != nil {
			return nil, err
		}
		a.clock = shared.Now
		a.background = append(a.background, part{"clock", shared.Run})
	}
	if err := a.assemble(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *App) openDatabase(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.DatabaseDeadline)
	defer cancel()
	if a.database, err = openDatabase(ctx, a.cfg, a.log, alone); err != nil {
		return err
	}
	for {
		err = a.connect(ctx)
		if errs.KindOf(err) != errs.Unavailable || ctx.Err() != nil {
			return err
		}
		a.log.WarnContext(ctx, "the database is not there yet; trying again", "error", err)
		select {
		case <-ctx.Done():
			return err
		case <-time.After(databasePause):
		}
	}
}

// databasePause is how long a start waits before it tries again whether the database is there.
const databasePause = 500 * time.Millisecond

// connect sees to the schema, and opens the pools.
func (a *App) connect(ctx context.Context) (err error) {
	if a.cfg.MigrateOnStart {
		err = a.database.migrate(ctx, a.log)
	} else {
		err = a.database.complete(ctx, a.log)
	}
	if err != nil {
		return err
	}
	a.db, err = postgres.Open(ctx, postgres.Config{
		URL:      a.database.url.Reveal(),
		MaxConns: int32(a.cfg.DatabaseConns), ByKey: int32(a.cfg.connsByKey()), //nolint:gosec // Check bounds them
		OneAccount: oneAccount,
	})
	return err
}

// oneAccount is for a database that shards by account: no transaction spans two.
const oneAccount = false

// listen takes an address. What is served there is said later, by serve.
func (a *App) listen(ctx context.Context, name, addr string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	l = netutil.LimitListener(l, a.cfg.Connections)
	a.servers = append(a.servers, &server{name: name, listener: l, http: api.NewServer(http.NotFoundHandler(), a.log)})
	return nil
}

// serve says what the named listener serves.
func (a *App) serve(name string, h http.Handler) {
	for _, s := range a.servers {
		if s.name == name {
			s.http.Handler = h
		}
	}
}

// Addr returns the address that the named server listens on, or "".
func (a *App) Addr(name string) string {
	for _, s := range a.servers {
		if s.name == name {
			return s.listener.Addr().String()
		}
	}
	return ""
}

// Run serves until ctx ends, says for the shutdown's delay that it is not ready any more, and then finishes what was begun
// within the time for draining. It returns nil after a clean end, and an error if a part of the service failed.
func (a *App) Run(ctx context.Context) (err error) {
	defer func() {
		if err = errors.Join(err, a.Close(ctx)); err == nil { // of another end the program tells when it exits
			a.log.InfoContext(ctx, "stopped")
		}
	}()

	serving, servingFailed := errgroup.WithContext(ctx)
	for _, s := range a.servers {
		a.log.InfoContext(ctx, "listening", "server", s.name, "address", s.listener.Addr().String())
		serving.Go(func() error {
			if err := s.http.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			return nil
		})
	}
	for _, p := range a.prepare {
		if err := p(ctx); err != nil {
			return ignoreCanceled(err)
		}
	}
	// The background outlives the requests, which wait for it.
	backgroundCtx, stopBackground := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackground()
	background, backgroundFailed := errgroup.WithContext(backgroundCtx)
	for _, p := range a.background {
		background.Go(func() error {
			if err := p.run(backgroundCtx); err != nil && backgroundCtx.Err() == nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			return nil
		})
	}
	a.running.Store(true)
	after := make(chan error, 1)
	if a.afterStart != nil {
		go func() { after <- a.afterStart(ctx) }()
	}

	var cause error
	select {
	case <-ctx.Done():
		a.log.InfoContext(ctx, "stopping", "delay", a.cfg.ShutdownDelay, "drain", a.cfg.DrainTimeout)
		a.draining.Store(true)
		select { // who is sent here meanwhile is served
		case <-time.After(a.cfg.ShutdownDelay):
		case <-backgroundFailed.Done():
			cause = context.Cause(backgroundFailed)
		case <-a.database.ended():
			cause = errors.New("the private database ended by itself")
		}
	case cause = <-after:
	case <-servingFailed.Done():
		cause = ignoreCanceled(context.Cause(servingFailed)) // it ends with ctx too
	case <-backgroundFailed.Done():
		cause = context.Cause(backgroundFailed)
	case <-a.database.ended():
		cause = errors.New("the private database ended by itself")
	}

	a.draining.Store(true)
	a.svc.hub.Drain() // the servers wait for their streams
	close(a.closing)
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.DrainTimeout)
	defer cancel()
	for _, s := range a.servers {
		if err := s.http.Shutdown(drain); err != nil {
			a.log.WarnContext(drain, "requests were cut off", "server", s.name, "error", err)
			_ = s.http.Close()
		}
	}
	stopBackground()
	return errors.Join(cause, ignoreCanceled(serving.Wait()), ignoreCanceled(background.Wait()))
}

// besideRequests has what runs in the background end while the last requests are answered, in the same time. It is for what
// none of them waits for.
func (a *App) besideRequests(run func(ctx context.Context) error) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		go func() {
			select {
			case <-a.closing:
				stop()
			case <-ctx.Done():
			}
		}()
		return run(ctx)
	}
}

func ignoreCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Close lets go of everything that New took, whether or not ctx has ended. Run calls it; it may be
// called again.
func (a *App) Close(ctx context.Context) (err error) {
	for _, s := range a.servers {
		_ = s.http.Close()
		_ = s.listener.Close()
	}
	for _, c := range slices.Backward(a.closers) {
		err = errors.Join(err, c())
	}
	a.closers = nil
	if a.db != nil {
		a.db.Close()
		a.db = nil
	}
	if a.database != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.DrainTimeout)
		defer cancel()
		err = errors.Join(err, a.database.close(ctx))
		a.database = nil
	}
	return err
}

// ready says whether requests can be served now.
func (a *App) ready(ctx context.Context) error {
	if a.draining.Load() || !a.running.Load() {
		return errors.New("starting or stopping")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return a.db.Ping(ctx)
}
