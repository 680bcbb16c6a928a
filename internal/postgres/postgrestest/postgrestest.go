// Package postgrestest gives every test a PostgreSQL database of its own.
//
// It owns: one private server for each test process, started at the first request; a migrated
// template database in it; and the databases that are cloned from the template and dropped when
// their tests end. It does not own what tests put into them.
//
// Servers keep their data folders between runs ("slots" in memory where there is room, or else below
// the temporary folder), so only the first run of a new schema migrates anything. They run without fsync: a crash of the machine may
// ruin a slot, which is then made anew. With ACCRUE_TEST_DATABASE_URL the databases are made on that
// server instead, each migrated by itself, as a cluster that cannot clone (Citus) needs it.
//
// A test never skips for want of a database: without one it fails, and says what to install.
package postgrestest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/accrue-billing/accrue/internal/postgres"
)

// DSN returns the URL of a migrated database, for its owner. It is dropped when the test ends.
func DSN(tb testing.TB) string {
	tb.Helper()
	s := mustServer(tb)
	if s.template != "" {
		return s.create(tb, s.template)
	}
	dsn := s.create(tb, "")
	if err := migrate(tb.Context(), dsn); err != nil {
		tb.Fatalf("postgrestest: %v", err)
	}
	return dsn
}

// Clone returns the URL of a copy of a database that a test of this process was given. Nobody may be
// connected to the original. The copy is dropped when the test ends.
func Clone(tb testing.TB, dsn string) string {
	tb.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		tb.Fatalf("postgrestest: %v", err)
	}
	return mustServer(tb).create(tb, cfg.ConnConfig.Database)
}

// NewEmpty returns the URL of a database without any schema, for its owner. It is dropped when the
// test ends.
func NewEmpty(tb testing.TB) string {
	tb.Helper()
	return mustServer(tb).create(tb, "")
}

// Pool returns a pool on a migrated database, as its owner: what a test uses to look behind the
// service's back. The pool is closed and the database dropped when the test ends.
func Pool(tb testing.TB) *pgxpool.Pool {
	tb.Helper()
	return Connect(tb, DSN(tb))
}

// Connect returns a pool on the database, which is closed when the test ends.
func Connect(tb testing.TB, dsn string) *pgxpool.Pool {
	tb.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		tb.Fatalf("postgrestest: %v", err)
	}
	cfg.MaxConns = 8
	pool, err := pgxpool.NewWithConfig(tb.Context(), cfg)
	if err != nil {
		tb.Fatalf("postgrestest: %v", err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

// server is where this process makes its databases.
type server struct {
	dsn      func(database string) string
	admin    *pgxpool.Pool
	template string // the migrated database to clone; empty where cloning is not possible
}

// theServer is the one server of this process. It ends with the process: the kernel tells it to.
var theServer = sync.OnceValues(func() (*server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if external := os.Getenv("ACCRUE_TEST_DATABASE_URL"); external != "" {
		return connectExternal(ctx, external)
	}
	return startPrivate(ctx)
})

func mustServer(tb testing.TB) *server {
	tb.Helper()
	s, err := theServer()
	if err != nil {
		tb.Fatalf("postgrestest: %v", err)
	}
	return s
}

func connectExternal(ctx context.Context, external string) (*server, error) {
	u, err := url.Parse(external)
	if err != nil {
		return nil, fmt.Errorf("ACCRUE_TEST_DATABASE_URL is not a URL: %w", err)
	}
	admin, err := pgxpool.New(ctx, external)
	if err != nil {
		return nil, err
	}
	dsn := func(database string) string {
		c := *u
		c.Path = "/" + database
		return c.String()
	}
	return &server{dsn: dsn, admin: admin}, admin.Ping(ctx)
}

// create makes a database of the test's own, from a template or empty.
func (s *server) create(tb testing.TB, template string) string {
	tb.Helper()
	name := testPrefix + randomName()
	if template == "" {
		template = "template0"
	}
	if err := s.createDatabase(tb.Context(), name, template); err != nil {
		tb.Fatalf("postgrestest: %v", err)
	}
	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := s.admin.Exec(ctx, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)"); err != nil {
			tb.Errorf("postgrestest: %v", err)
		}
	})
	return s.dsn(name)
}

func (s *server) createDatabase(ctx context.Context, name, template string) error {
	// Copying files takes about half the time of copying through the log, which a server without fsync
	// gains nothing from.
	_, err := s.admin.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE "+template+" STRATEGY file_copy")
	if err != nil {
		return fmt.Errorf("create database from %s: %w", template, err)
	}
	return nil
}

func randomName() string {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func migrate(ctx context.Context, dsn string) error {
	m, err := postgres.NewMigrator(ctx, dsn)
	if err != nil {
		return err
	}
	defer m.Close()
	_, err = m.Up(ctx)
	return err
}

// New returns a migrated database of the test's own as the service sees it. It is closed and dropped
// when the test ends.
func New(tb testing.TB) *postgres.DB {
	tb.Helper()
	db, _ := NewWithDSN(tb)
	return db
}

// NewWithDSN is New with the URL of the same database for its owner, for tests that look behind the
// service's back or start a process of their own.
func NewWithDSN(tb testing.TB) (*postgres.DB, string) {
	tb.Helper()
	dsn := DSN(tb)
	db, err := postgres.Open(tb.Context(), postgres.Config{URL: dsn, MaxConns: 8})
	if err != nil {
		tb.Fatalf("postgrestest: %v", err)
	}
	tb.Cleanup(db.Close)
	return db, dsn
}
