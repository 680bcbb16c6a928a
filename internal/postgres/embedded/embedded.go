// Package embedded starts, owns and stops a private PostgreSQL in a data folder.
//
// It owns: finding the server's programs, making the cluster once, one postmaster process and its
// unix socket. It does not own: databases' contents, migrations or connection pools.
//
// Always true: a data folder has one owner at a time; nothing in a finished data folder is ever
// deleted or upgraded; the server listens on no network address; when the owner dies, however it
// dies, the server shuts down cleanly by itself (Linux) or is shut down by the next owner.
//
// Access is by the kernel's word: the socket lies in a folder of mode 0700 and the server asks the
// kernel for the peer's user ("peer" authentication), so there is no password to keep or to leak.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
)

// Superuser is the role that owns the cluster and every database in it.
const Superuser = "accrue"

// MinMajor is the oldest PostgreSQL that is accepted.
const MinMajor = 15

// Config says where and with what a server runs.
type Config struct {
	DataDir  string            // the cluster's folder; made at the first start; required
	BinDir   string            // the folder of postgres and initdb; empty searches the usual places
	Logger   *slog.Logger      // takes the server's own log; nil discards it
	Settings map[string]string // further settings of postgresql.conf; they outrank the defaults
}

// Errors of the launcher that a caller may want to tell apart.
var (
	ErrInUse    = errors.New("embedded postgres: data folder in use")
	ErrVersion  = errors.New("embedded postgres: data folder of another version")
	ErrNotFound = errors.New("embedded postgres: PostgreSQL not found")
	ErrForeign  = errors.New("embedded postgres: not a data folder")
)

// Server is a running PostgreSQL. It is safe for concurrent use.
type Server struct {
	socketDir string
	proc      *process
	lock      *flock.Flock
	stop      sync.Once
	stopErr   error
}

// Start starts the server on cfg.DataDir and returns when it takes connections. The first start
// makes the cluster. After an unclean end the server first recovers, which ctx alone limits.
//
// It returns ErrInUse if another process owns the folder, ErrVersion if the folder belongs to
// another major version than the programs found, ErrNotFound if there are no programs, and
// ErrForeign if the folder holds something else.
func Start(ctx context.Context, cfg Config) (_ *Server, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.DataDir == "" {
		return nil, errors.New("embedded postgres: no data folder given")
	}
	if err := checkSettings(cfg.Settings); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("embedded postgres: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // the parent may be shared; the cluster itself is 0700
		return nil, fmt.Errorf("embedded postgres: %w", err)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = lock.Close()
		}
	}()

	major, err := clusterMajor(dir)
	if err != nil {
		return nil, err
	}
	bin, err := findBinaries(cfg.BinDir, major, searchPlaces())
	if err != nil {
		return nil, err
	}
	who, err := runAs(dir)
	if err != nil {
		return nil, err
	}
	if major == 0 {
		if err := initCluster(ctx, bin, dir, who); err != nil {
			return nil, err
		}
	}
	if err := waitGone(ctx, dir); err != nil {
		return nil, err
	}
	if err := writeAccess(dir, who); err != nil {
		return nil, err
	}
	socketDir, err := makeSocketDir(dir, who)
	if err != nil {
		return nil, err
	}
	p, err := spawn(ctx, bin, dir, who, settings(socketDir, cfg.Settings), cfg.Logger)
	if err != nil {
		return nil, err
	}
	return &Server{socketDir: socketDir, proc: p, lock: lock}, nil
}

// DSN returns the connection URL of a database of this server, for its superuser.
func (s *Server) DSN(database string) string { return dsn(s.socketDir, database) }

// Attach returns the connection URL of a database in a data folder that another process owns and
// whose server is ready: what a command needs while the service runs.
func Attach(dataDir, database string) (string, error) {
	dir, err := filepath.Abs(dataDir)
	if err != nil {
		return "", fmt.Errorf("embedded postgres: %w", err)
	}
	pid, ready, err := pidFile(dir)
	if err != nil {
		return "", fmt.Errorf("embedded postgres: attach: %w", err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid")) //nolint:gosec // our own data folder
	lines := strings.Split(string(b), "\n")
	if err != nil || !ready || !alive(pid) || len(lines) < 5 || lines[4] == "" {
		return "", fmt.Errorf("embedded postgres: attach: the server on %s is not ready", dir)
	}
	return dsn(lines[4], database), nil
}

func dsn(socketDir, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User(Superuser), Path: "/" + database}
	u.RawQuery = url.Values{"host": {socketDir}}.Encode()
	return u.String()
}

// EnsureDatabase creates the database unless it exists.
func (s *Server) EnsureDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var exists bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&exists); err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	if exists {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("embedded postgres: create database %s: %w", name, err)
	}
	return nil
}

// Done is closed when the server's process has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.proc.done }

// Stop disconnects all sessions, writes a checkpoint and ends the server ("fast shutdown"). If ctx
// ends first the server is told to drop everything; it then recovers at the next start and loses
// nothing that was committed. Stop may be called more than once.
func (s *Server) Stop(ctx context.Context) error {
	s.stop.Do(func() {
		s.stopErr = s.proc.stop(ctx)
		_ = os.Remove(filepath.Join(s.socketDir, socketName))
		_ = os.Remove(s.socketDir)
		_ = s.lock.Close() // last: the next owner may start now
	})
	return s.stopErr
}

// fixed are the settings that the launcher depends on.
var fixed = []string{"data_directory", "hba_file", "ident_file", "external_pid_file", "listen_addresses", "port", "unix_socket_directories", "unix_socket_permissions", "logging_collector"}

func checkSettings(m map[string]string) error {
	for _, k := range fixed {
		if _, ok := m[k]; ok {
			return fmt.Errorf("embedded postgres: setting %s is the launcher's own", k)
		}
	}
	return nil
}

// settings returns the whole command line of settings.
func settings(socketDir string, more map[string]string) map[string]string {
	m := map[string]string{
		"listen_addresses":        "",
		"port":                    "5432", // only names the socket
		"unix_socket_directories": socketDir,
		"unix_socket_permissions": "0700",
		"logging_collector":       "off",
		"timezone":                "UTC",
		"log_timezone":            "UTC",
		"log_line_prefix":         "",
		// Errors of statements are reported by whoever sent the statement; the server's log must not
		// repeat their values.
		"log_min_messages":        "log",
		"log_min_error_statement": "panic",
		"max_connections":         "100",
	}
	maps.Copy(m, more)
	return m
}

// pidFile reads the parts of postmaster.pid that matter: whose it is and whether it is ready.
func pidFile(dir string) (pid int, ready bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid")) //nolint:gosec // our own data folder
	if err != nil {
		return 0, false, err
	}
	lines := strings.Split(string(b), "\n")
	if _, err := fmt.Sscanf(lines[0], "%d", &pid); err != nil {
		return 0, false, fmt.Errorf("postmaster.pid: %w", err)
	}
	return pid, len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready", nil
}

// goneAfter is how long an old server may take to write its last checkpoint.
const goneAfter = 60 * time.Second

// waitGone waits for the server that a killed owner left behind. The folder's lock is held, so such
// a server has no owner; on Linux it is shutting down already, elsewhere it is told to.
func waitGone(ctx context.Context, dir string) error {
	pid, _, err := pidFile(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("embedded postgres: %w", err)
	}
	if !alive(pid) {
		return nil // stale, as the new server sees for itself
	}
	if !isPostmaster(pid, dir) {
		// Stale too, but the number belongs to another process by now, which would keep the new server
		// from starting: usual in containers, where numbers are small and repeat.
		if err := os.Remove(filepath.Join(dir, "postmaster.pid")); err != nil {
			return fmt.Errorf("embedded postgres: %w", err)
		}
		return nil
	}
	if err := adoptOrphan(pid); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, goneAfter)
	defer cancel()
	for alive(pid) && isPostmaster(pid, dir) { // the second check tells a zombie that nobody reaps
		if err := pause(ctx, 5*time.Millisecond); err != nil {
			return fmt.Errorf("%w: a PostgreSQL server that accrue does not own (process %d) runs on %s; stop it first", ErrInUse, pid, dir)
		}
	}
	return nil
}

// alive reports whether a process exists, zombies included.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// pause waits for d, or returns ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
