package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/embedded"
)

// cluster is a PostgreSQL of the test's own, with the settings that data deserves, so that it may be killed.
type cluster struct {
	t   *testing.T
	dir string
	pg  *embedded.Server
}

func newCluster(t *testing.T) (c *cluster, dsn string) {
	t.Helper()
	c = &cluster{t: t, dir: filepath.Join(t.TempDir(), "pg")}
	c.start(t.Context())
	t.Cleanup(func() { _ = c.pg.Stop(context.Background()) })
	if err := c.pg.EnsureDatabase(t.Context(), "accrue"); err != nil {
		t.Fatal(err)
	}
	dsn = c.pg.DSN("accrue")
	m, err := postgres.NewMigrator(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c, dsn
}

func (c *cluster) start(ctx context.Context) {
	var err error
	c.pg, err = embedded.Start(ctx, embedded.Config{DataDir: c.dir, BinDir: os.Getenv("ACCRUE_PG_BIN")})
	if err != nil {
		c.t.Error(err)
	}
}

// crash ends the server in the middle of whatever it does, as "pg_ctl stop -m immediate": it recovers from
// its log at the next start.
func (c *cluster) crash() {
	text, err := os.ReadFile(filepath.Join(c.dir, "postmaster.pid"))
	if err == nil {
		var pid int
		first, _, _ := strings.Cut(string(text), "\n")
		if pid, err = strconv.Atoi(first); err == nil {
			err = syscall.Kill(pid, syscall.SIGQUIT)
		}
	}
	if err != nil {
		c.t.Error(err)
		return
	}
	<-c.pg.Done()
	_ = c.pg.Stop(context.Background()) // it has ended; this lets go of the folder
}

// What was answered before the database ended is there when it is back, and what was not answered is
// carried on: without a restart of the service, and without a second charge.
func TestCrash_OfTheDatabaseUnderMoney(t *testing.T) {
	t.Parallel()
	c, dsn := newCluster(t)
	h := newHarnessOn(t, binary(t, "faults"), dsn)
	rounds := 4
	if full() {
		rounds = 30
	}
	for round := range rounds {
		rng := rand.New(rand.NewPCG(seed, uint64(round)))
		moment, pause := time.Duration(rng.IntN(400))*time.Millisecond, time.Duration(rng.IntN(200))*time.Millisecond
		h.storm(fmt.Sprintf("crash %d", round), rng, func(ctx context.Context) {
			time.Sleep(moment)
			c.crash()
			h.kills++
			time.Sleep(pause)
			c.start(ctx)
			h.db.Pool().Reset()
			h.owner.Reset()
		})
	}
	h.checkBooks()
	if h.caught == 0 {
		t.Errorf("%d crashes caught nothing: the moments are badly chosen", h.kills)
	}
	h.report()
}

// set changes a setting of the running server.
func (c *cluster) set(ctx context.Context, setting string) {
	admin, err := pgx.Connect(ctx, c.pg.DSN("postgres"))
	if err == nil {
		defer func() { _ = admin.Close(ctx) }()
		for _, sql := range []string{"SET default_transaction_read_only = off", "ALTER SYSTEM SET " + setting, "SELECT pg_reload_conf()"} {
			_, sqlErr := admin.Exec(ctx, sql)
			err = errors.Join(err, sqlErr)
		}
	}
	if err != nil {
		c.t.Error(err)
	}
}

// A database that is kept from writing, as hosts do when its disk is nearly full, is away for a while: nobody is answered
// with a fault, and everything goes on when it takes writes again.
func TestDatabase_ThatTakesNoWrites(t *testing.T) {
	t.Parallel()
	c, dsn := newCluster(t)
	h := newHarnessOn(t, binary(t, "faults"), dsn)
	h.storm("no writes", rand.New(rand.NewPCG(seed, 0)), func(ctx context.Context) {
		c.set(ctx, "default_transaction_read_only = on")
		time.Sleep(700 * time.Millisecond)
		c.set(ctx, "default_transaction_read_only = off")
	})
	if h.caught == 0 {
		t.Error("nobody has met the database while it took no writes")
	}
	h.checkBooks()
	h.report()
}
