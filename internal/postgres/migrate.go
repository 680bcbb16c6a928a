package postgres

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/migrations"
)

// AppRole is the role that the service runs as. It owns nothing: what it may do is granted by the
// migrations, and the journal's rows are beyond its UPDATE and DELETE.
const AppRole = "accrue_app"

const (
	// minServerVersion is PostgreSQL 15 as server_version_num says it.
	minServerVersion = 150000
	// migrationLock is the key of the advisory lock that one runner at a time holds, in each database.
	migrationLock = 0x6163637275 // "accru"
	// migrationLockPoll is how often the others ask for it.
	migrationLockPoll = 50 * time.Millisecond
	// migrationLockTimeout bounds how long a migration's statement queues for a table, since everything
	// that comes after it queues behind it: instances that serve meanwhile stand still for so long. Then it lets them
	// through, and is tried again.
	migrationLockTimeout = "2s"
	migrationTries       = 20
	migrationPause       = time.Second
)

// Migration is one numbered change of the schema.
type Migration struct {
	Set       string // "accrue", or "river" for the job queue's own tables
	Version   int64
	Name      string
	Applied   bool
	AppliedAt time.Time // UTC; zero where it is not applied or not known
}

// String reads like the file's name.
func (m Migration) String() string { return fmt.Sprintf("%s %05d %s", m.Set, m.Version, m.Name) }

// Migrator moves a database's schema up and down. Any number of processes may run one at once: they
// take turns, and those that come later find nothing left to do.
type Migrator struct {
	pool  *pgxpool.Pool
	db    *sql.DB
	goose *goose.Provider
	river *rivermigrate.Migrator[pgx.Tx]
}

// NewMigrator connects to the database as the URL's own user, who must be able to create tables and,
// at the first time, the role AppRole.
func NewMigrator(ctx context.Context, url string) (_ *Migrator, err error) {
	return newMigrator(ctx, url, migrations.FS)
}

func newMigrator(ctx context.Context, url string, files fs.FS) (_ *Migrator, err error) {
	defer errs.Wrap(&err, "open for migration")
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	primaryOnly(cfg)
	cfg.MaxConns = 3 // the lock's, goose's and one in reserve
	cfg.ConnConfig.RuntimeParams["lock_timeout"] = migrationLockTimeout
	cfg.ConnConfig.RuntimeParams["client_min_messages"] = "warning"
	// A schema that changes under prepared statements would make the cache lie.
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	m := &Migrator{pool: pool, db: stdlib.OpenDBFromPool(pool)}
	defer func() {
		if err != nil {
			m.Close()
		}
	}()
	var version int
	if err := pool.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		if strings.HasPrefix(sqlState(err), notLetIn) {
			return nil, err // a start that waits does not help
		}
		return nil, translate(err)
	}
	if version < minServerVersion {
		return nil, fmt.Errorf("the server is PostgreSQL %d; at least %d is needed", version/10000, minServerVersion/10000)
	}
	if m.goose, err = goose.NewProvider(goose.DialectPostgres, m.db, files, goose.WithDisableGlobalRegistry(true)); err != nil {
		return nil, err
	}
	m.river, err = rivermigrate.New(riverpgxv5.New(pool), &rivermigrate.Config{Logger: slog.New(slog.DiscardHandler)})
	return m, err
}

// Close lets go of the database.
func (m *Migrator) Close() {
	_ = m.db.Close()
	m.pool.Close()
}

// Up applies what is missing, the job queue's tables after ours, and returns it. A migration that does not get a table is
// tried again: one that failed has left nothing, and those before it stay.
func (m *Migrator) Up(ctx context.Context) (applied []Migration, err error) {
	defer errs.Wrap(&err, "migrate up")
	for range migrationTries {
		var some []Migration
		some, err = m.up(ctx)
		applied = append(applied, some...)
		if sqlState(err) != lockNotAvailable {
			break
		}
		select {
		case <-ctx.Done():
			return applied, translate(err)
		case <-time.After(migrationPause):
		}
	}
	if sqlState(err) == insufficientPrivilege {
		return applied, fmt.Errorf("%w; migrations run as a user that owns the schema, and may create the role %s or has it granted (docs/deployment.md)", err, AppRole)
	}
	return applied, translate(err)
}

func (m *Migrator) up(ctx context.Context) (applied []Migration, err error) {
	err = m.alone(ctx, func(ctx context.Context) error {
		results, err := m.goose.Up(ctx)
		applied = append(applied, fromGoose(done(results, err))...)
		if err != nil {
			return gooseError(err)
		}
		// The service refuses to start while migrations are missing, also as a user that does not own the schema.
		if _, err := m.pool.Exec(ctx, "GRANT SELECT ON goose_db_version TO "+AppRole); err != nil {
			return err
		}
		res, err := m.river.Migrate(ctx, rivermigrate.DirectionUp, nil)
		if err != nil {
			return err
		}
		applied = append(applied, fromRiver(res.Versions, true)...)
		if len(res.Versions) == 0 {
			return nil
		}
		return m.grantRiver(ctx)
	})
	return applied, err
}

// Down takes back the newest of our migrations and returns it; with it the last one, the job queue's
// tables go too. It returns nothing if nothing is left.
func (m *Migrator) Down(ctx context.Context) (undone []Migration, err error) {
	defer errs.Wrap(&err, "migrate down")
	err = m.alone(ctx, func(ctx context.Context) error {
		version, err := m.goose.GetDBVersion(ctx)
		if err != nil || version == 0 {
			return err
		}
		undone, err = m.downTo(ctx, previous(m.goose.ListSources(), version))
		return err
	})
	return undone, err
}

// Reset takes back everything: all of the data is gone.
func (m *Migrator) Reset(ctx context.Context) (undone []Migration, err error) {
	defer errs.Wrap(&err, "migrate reset")
	err = m.alone(ctx, func(ctx context.Context) error {
		undone, err = m.downTo(ctx, 0)
		return err
	})
	return undone, err
}

func (m *Migrator) downTo(ctx context.Context, version int64) (undone []Migration, err error) {
	if version == 0 {
		res, err := m.river.Migrate(ctx, rivermigrate.DirectionDown, &rivermigrate.MigrateOpts{TargetVersion: -1})
		if err != nil {
			return nil, err
		}
		undone = fromRiver(res.Versions, false)
	}
	results, err := m.goose.DownTo(ctx, version)
	return append(undone, fromGoose(done(results, err))...), gooseError(err)
}

// previous returns the version before the given one, and 0 before the first.
func previous(sources []*goose.Source, version int64) (before int64) {
	for _, s := range sources {
		if s.Version < version {
			before = max(before, s.Version)
		}
	}
	return before
}

// Status lists every migration, in the order in which they are applied. It changes nothing: whoever may connect may look.
func (m *Migrator) Status(ctx context.Context) (all []Migration, err error) {
	defer errs.Wrap(&err, "migration status")
	for _, s := range m.goose.ListSources() {
		all = append(all, Migration{Set: "accrue", Version: s.Version, Name: path.Base(s.Path)})
	}
	var begun bool // goose makes its table where there is none
	if err := m.pool.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", goose.DefaultTablename).Scan(&begun); err != nil {
		return nil, translate(err)
	}
	if begun {
		ours, err := m.goose.Status(ctx)
		if err != nil {
			return nil, translate(err)
		}
		for i, s := range ours {
			if s.State == goose.StateApplied {
				all[i].Applied, all[i].AppliedAt = true, s.AppliedAt.UTC()
			}
		}
	}
	done, err := m.river.ExistingVersions(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range m.river.AllVersions() {
		applied := slices.ContainsFunc(done, func(d rivermigrate.Migration) bool { return d.Version == v.Version })
		all = append(all, Migration{Set: "river", Version: int64(v.Version), Name: v.Name, Applied: applied})
	}
	return all, nil
}

// grantRiver lets the service use the job queue's tables, whichever those are in River's version.
func (m *Migrator) grantRiver(ctx context.Context) error {
	rows, err := m.pool.Query(ctx, `
		SELECT c.oid::regclass::text, c.relkind = 'S'
		FROM pg_class c
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relname LIKE 'river\_%' AND c.relkind IN ('r', 'S')`)
	if err != nil {
		return err
	}
	type object struct {
		name     string
		sequence bool
	}
	objects, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o object, err error) {
		return o, row.Scan(&o.name, &o.sequence)
	})
	if err != nil {
		return err
	}
	for _, o := range objects {
		grant := "GRANT SELECT, INSERT, UPDATE, DELETE ON " + o.name + " TO " + AppRole
		if o.sequence {
			grant = "GRANT USAGE, SELECT ON SEQUENCE " + o.name + " TO " + AppRole
		}
		if _, err := m.pool.Exec(ctx, grant); err != nil {
			return err
		}
	}
	return nil
}

// alone runs fn while no other runner is at work on this database. It asks for the lock again and
// again rather than waiting in the server, because a waiting statement holds a snapshot, and CREATE
// INDEX CONCURRENTLY waits for all snapshots: the two would wait for each other.
func (m *Migrator) alone(ctx context.Context, fn func(ctx context.Context) error) (err error) {
	conn, err := m.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	for {
		var got bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1::bigint)", int64(migrationLock)).Scan(&got); err != nil {
			return fmt.Errorf("ask for the migration lock: %w", err)
		}
		if got {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("another runner holds the migration lock: %w", ctx.Err())
		case <-time.After(migrationLockPoll):
		}
	}
	defer func() {
		_, unlockErr := conn.Exec(context.WithoutCancel(ctx), "SELECT pg_advisory_unlock($1::bigint)", int64(migrationLock))
		err = errors.Join(err, unlockErr)
	}()
	return fn(ctx)
}

func fromGoose(results []*goose.MigrationResult) (all []Migration) {
	for _, r := range results {
		all = append(all, Migration{Set: "accrue", Version: r.Source.Version, Name: path.Base(r.Source.Path), Applied: r.Direction == "up"})
	}
	return all
}

func fromRiver(versions []rivermigrate.MigrateVersion, applied bool) (all []Migration) {
	for _, v := range versions {
		all = append(all, Migration{Set: "river", Version: int64(v.Version), Name: v.Name, Applied: applied})
	}
	return all
}

// done is what goose has done, also before one that failed: of that it tells in the error only.
func done(results []*goose.MigrationResult, err error) []*goose.MigrationResult {
	if partial, ok := errors.AsType[*goose.PartialError](err); ok {
		return partial.Applied
	}
	return results
}

// gooseError names the file that failed.
func gooseError(err error) error {
	var partial *goose.PartialError
	if errors.As(err, &partial) && partial.Failed != nil {
		return fmt.Errorf("%s: %w", path.Base(partial.Failed.Source.Path), partial.Err)
	}
	return err
}

// SchemaHash names the schema that Up leads to: any change of any migration changes it.
func SchemaHash() (string, error) {
	h := sha256.New()
	err := fs.WalkDir(migrations.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(migrations.FS, name)
		_, _ = fmt.Fprintf(h, "%s %d\n%s", name, len(b), b)
		return err
	})
	if err != nil {
		return "", err
	}
	river, err := rivermigrate.New(riverpgxv5.New(nil), nil)
	if err != nil {
		return "", err
	}
	for _, v := range river.AllVersions() {
		h.Write([]byte(strconv.Itoa(v.Version) + v.SQLUp))
	}
	return hex.EncodeToString(h.Sum(nil)[:6]), nil
}
