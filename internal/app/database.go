package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/embedded"
	"github.com/accrue-billing/accrue/internal/secret"
)

// databaseName is the database's name in the private server.
const databaseName = "accrue"

// database is where the records are: a server that somebody else runs, or a private one of our own.
type database struct {
	url    secret.Text      // for the schema's owner
	server *embedded.Server // nil unless this process started it
}

// A tenancy says what to do if another process of ours has the private server.
type tenancy bool

const (
	alone  tenancy = false // refuse: the service owns its database
	shared tenancy = true  // use that process's server: a command beside the running service
)

// connsByKey is how many connections usage has to itself: one for each committer, and two for the reads
// that many share.
func (c Config) connsByKey() int { return c.IngestCommitters + 2 }

// openDatabase finds or starts the database.
func openDatabase(ctx context.Context, cfg Config, log *slog.Logger, t tenancy) (*database, error) {
	if cfg.DatabaseURL != "" {
		return &database{url: cfg.DatabaseURL}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.DatabaseDeadline)
	defer cancel()
	dir := filepath.Join(cfg.DataDir, "postgres")
	if err := os.MkdirAll(cfg.DataDir, 0o755); err != nil { //nolint:gosec // the server's user must walk through it; the cluster in it is 0700
		return nil, fmt.Errorf("data folder: %w", err)
	}
	server, err := embedded.Start(ctx, embedded.Config{
		DataDir: dir, BinDir: cfg.PgBin, Logger: log,
		Settings: map[string]string{"max_connections": strconv.Itoa(cfg.DatabaseConns + cfg.connsByKey() + 24)}, // commands and a person with psql
	})
	if t == shared && errors.Is(err, embedded.ErrInUse) {
		dsn, err := embedded.Attach(dir, databaseName)
		return &database{url: secret.Text(dsn)}, err
	}
	if err != nil {
		return nil, err
	}
	d := &database{url: secret.Text(server.DSN(databaseName)), server: server}
	if err := server.EnsureDatabase(ctx, databaseName); err != nil {
		return nil, errors.Join(err, d.close(ctx))
	}
	log.InfoContext(ctx, "private database started", "folder", dir)
	return d, nil
}

// databasePlace says where the database is, for people: no user, no password.
func (c Config) databasePlace() string {
	if c.DatabaseURL == "" {
		return "private, in " + filepath.Join(c.DataDir, "postgres")
	}
	u, err := url.Parse(c.DatabaseURL.Reveal())
	if err != nil { // validated before
		return "at database-url"
	}
	return u.Host + u.Path
}

// migrate applies what is missing.
func (d *database) migrate(ctx context.Context, log *slog.Logger) error {
	m, err := postgres.NewMigrator(ctx, d.url.Reveal())
	if err != nil {
		return err
	}
	defer m.Close()
	applied, err := m.Up(ctx)
	for _, a := range applied {
		log.InfoContext(ctx, "migration applied", "migration", a.String())
	}
	return err
}

// complete returns an error if migrations are missing: a service that went on without them would say that it is ready, and
// fail where it comes to them. A newer schema is no fault: the service before an upgrade works on the one after it.
func (d *database) complete(ctx context.Context, log *slog.Logger) error {
	m, err := postgres.NewMigrator(ctx, d.url.Reveal())
	if err != nil {
		return err
	}
	defer m.Close()
	all, err := m.Status(ctx)
	if errs.KindOf(err) == errs.Unavailable {
		return err
	}
	if err != nil { // a role that may not look
		log.WarnContext(ctx, "whether migrations are missing is not known", "error", err)
		return nil
	}
	var missing []string
	for _, one := range all {
		if !one.Applied {
			missing = append(missing, one.String())
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("migrations are missing (%s): run accrue migrate up, or start with migrate-on-start", strings.Join(missing, ", "))
	}
	return nil
}

// ended is closed when the private server has ended; it is nil, and never ready, for another's server.
func (d *database) ended() <-chan struct{} {
	if d.server == nil {
		return nil
	}
	return d.server.Done()
}

// close stops the private server, if this process started it.
func (d *database) close(ctx context.Context) error {
	if d.server == nil {
		return nil
	}
	return d.server.Stop(ctx)
}
