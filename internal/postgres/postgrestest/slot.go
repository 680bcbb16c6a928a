package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/embedded"
)

// The databases of a server that are ours to drop.
const (
	testPrefix     = "test_"
	templatePrefix = "schema_"
)

// maxSlots bounds the servers of test processes that run at once.
const maxSlots = 64

// fast are settings for data that nobody will miss.
var fast = map[string]string{
	"fsync":                     "off",
	"synchronous_commit":        "off",
	"full_page_writes":          "off",
	"autovacuum":                "off",
	"max_connections":           "300",
	"shared_buffers":            "128MB",
	"max_wal_size":              "256MB",
	"min_wal_size":              "32MB",
	"wal_level":                 "minimal",
	"max_wal_senders":           "0",
	"jit":                       "off",
	"log_checkpoints":           "off",
	"max_parallel_workers":      "0",
	"bgwriter_lru_maxpages":     "0",
	"checkpoint_timeout":        "30min",
	"deadlock_timeout":          "200ms",
	"track_activities":          "on",
	"max_locks_per_transaction": "256",
}

// startPrivate starts a server in the first slot that no other process uses.
func startPrivate(ctx context.Context) (*server, error) {
	root, err := slotsFolder()
	if err != nil {
		return nil, err
	}
	for n := range maxSlots {
		s, err := startSlot(ctx, filepath.Join(root, strconv.Itoa(n)))
		if errors.Is(err, embedded.ErrInUse) {
			continue
		}
		return s, err
	}
	return nil, fmt.Errorf("all %d slots in %s are in use", maxSlots, root)
}

// inMemory is where Linux keeps files in memory. A database is some 700 files, and making and dropping
// them there takes a third of the time (BenchmarkDSN).
const inMemory = "/dev/shm"

// room is how much must be free there: a container's share is often 64 MB.
const room = 4 << 30

// slotsRoot returns the folder for files that nobody will miss after a crash of the machine.
func slotsRoot() string {
	var fs syscall.Statfs_t // whose fields have other types on other systems
	if os.Getenv("TMPDIR") == "" && syscall.Statfs(inMemory, &fs) == nil && fs.Bavail*uint64(fs.Bsize) >= room {
		return inMemory
	}
	return os.TempDir()
}

// slotsFolder returns the folder of the slots. Its name can be foreseen, so it is checked to be ours.
func slotsFolder() (string, error) {
	root := filepath.Join(slotsRoot(), "accrue-test-"+strconv.Itoa(os.Getuid()))
	if err := os.Mkdir(root, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	fi, err := os.Lstat(root)
	if err != nil {
		return "", err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || !fi.IsDir() || int(st.Uid) != os.Getuid() || fi.Mode().Perm() != 0o700 {
		return "", fmt.Errorf("%s is not a private folder of this user; remove it", root)
	}
	return root, nil
}

func startSlot(ctx context.Context, slot string) (*server, error) {
	cfg := embedded.Config{DataDir: slot, BinDir: os.Getenv("ACCRUE_PG_BIN"), Settings: fast}
	pg, err := embedded.Start(ctx, cfg)
	if err != nil && !errors.Is(err, embedded.ErrInUse) && !errors.Is(err, embedded.ErrNotFound) {
		// Ruined by a crash, or of another version: nothing in it is missed.
		if err := discard(slot); err != nil {
			return nil, err
		}
		pg, err = embedded.Start(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	admin, err := pgxpool.New(ctx, pg.DSN("postgres"))
	if err != nil {
		return nil, err
	}
	s := &server{dsn: pg.DSN, admin: admin}
	if s.template, err = s.prepareTemplate(ctx); err != nil {
		return nil, fmt.Errorf("prepare the template database: %w", err)
	}
	return s, nil
}

// discard moves a ruined slot out of the way and deletes it, so that of two processes that find it
// ruined only one deletes it.
func discard(slot string) error {
	grave := slot + ".ruined-" + randomName()
	if err := os.Rename(slot, grave); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(grave)
}

// prepareTemplate drops what an earlier process left and returns the migrated template database,
// which it makes unless there is one of this very schema. The slot is ours alone.
func (s *server) prepareTemplate(ctx context.Context) (string, error) {
	hash, err := postgres.SchemaHash()
	if err != nil {
		return "", err
	}
	name := templatePrefix + hash
	rows, err := s.admin.Query(ctx, "SELECT datname::text FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' OR datname LIKE 'schema\\_%'")
	if err != nil {
		return "", err
	}
	databases, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return "", err
	}
	found := false
	for _, db := range databases {
		if db == name {
			found = true
			continue
		}
		if err := s.drop(ctx, db); err != nil {
			return "", err
		}
	}
	if found {
		return name, nil
	}
	// It gets its name when it is complete.
	draft := testPrefix + "draft_" + randomName()
	if err := s.createDatabase(ctx, draft, "template0"); err != nil {
		return "", err
	}
	if err := migrate(ctx, s.dsn(draft)); err != nil {
		return "", err
	}
	if err := s.rename(ctx, draft, name); err != nil {
		return "", err
	}
	return name, nil
}

func (s *server) drop(ctx context.Context, name string) error {
	_, err := s.admin.Exec(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
	return err
}

// rename waits for the migrator's sessions to be gone: the server ends them a moment after the client.
func (s *server) rename(ctx context.Context, from, to string) error {
	for {
		_, err := s.admin.Exec(ctx, "ALTER DATABASE "+from+" RENAME TO "+to)
		var pg *pgconn.PgError
		if err == nil || !errors.As(err, &pg) || pg.Code != "55006" { // object_in_use
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(5 * time.Millisecond):
		}
	}
}
