// Package postgres stores billing's records in PostgreSQL. It is the only package that knows GORM or SQL.
//
// One file a concept; rows are unexported and stand beside their mapping. Nothing is shared between
// the files but this one, errors.go, scope.go, and for the ways that go without GORM session.go and table.go.
//
// GORM and most paths that go without it share one pool of connections; the hottest have one of their
// own (DB.ByKey). Every tenant query names
// its account: the stores take a typed account.ID as their first argument and refuse the zero one.
package postgres

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	gormpg "gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/idempotency"
	"github.com/accrue-billing/accrue/internal/inquiry"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/job"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/internal/upgrade"
	"github.com/accrue-billing/accrue/internal/wallet"
)

// Config says how to connect.
type Config struct {
	URL      string // any PostgreSQL connection string
	MaxConns int32  // of the pool; 0 means 16
	ByKey    int32  // connections of the pool ByKey; 0 means 4
	// OneAccount puts each account into transactions of its own, for a database that shards by account.
	OneAccount bool
	// Owner keeps the connection's own role. Only migrations and tests that break data on purpose set it.
	Owner bool
}

// DB is the database outside any transaction. It is safe for concurrent use.
type DB struct {
	stores
	pool    *pgxpool.Pool
	byKey   *pgxpool.Pool
	sql     *sql.DB
	shared  *pgxpool.Pool // of the company's transactions
	company *company
}

// stores makes every store over a pool or over a transaction.
type stores struct {
	db *gorm.DB
	session
	definitions *definitions
}

func (s stores) Accounts() account.Store                 { return accountStore(s) }
func (s stores) Ledger() ledger.Store                    { return ledgerStore(s) }
func (s stores) Plans() plan.Store                       { return planStore(s) }
func (s stores) Subscriptions() subscription.Store       { return subscriptionStore(s) }
func (s stores) PlanMigrations() subscription.Migrations { return migrationStore(s) }
func (s stores) Outbox() outbox.Store                    { return outboxStore(s) }
func (s stores) Jobs() job.Queue                         { return jobQueue(s) }
func (s stores) Idempotency() idempotency.Store          { return idempotencyStore(s) }
func (s stores) Invoices() invoice.Store                 { return invoiceStore(s) }
func (s stores) Payments() payment.Store                 { return paymentStore(s) }
func (s stores) Wallet() wallet.Store                    { return walletStore(s) }
func (s stores) Alerts() alert.Store                     { return alertStore(s) }
func (s stores) Inquiries() inquiry.Store                { return inquiryStore(s) }
func (s stores) Upgrades() upgrade.Store                 { return upgradeStore(s) }

func (s stores) Entitlements() entitlement.Store        { return entitlementStore(s) }
func (s stores) Usage() metering.Store                  { return usageStore(s) }
func (s stores) Reservations() entitlement.Reservations { return reservationStore(s) }

var (
	_ billing.Database = (*DB)(nil)
	_ billing.Tx       = stores{}
)

// Open connects to the database and checks that it answers.
func Open(ctx context.Context, c Config) (_ *DB, err error) {
	defer errs.Wrap(&err, "open database")
	remembered, err := lru.New[string, plan.Version](maxDefinitions)
	if err != nil {
		return nil, err
	}
	pc, err := pgxpool.ParseConfig(c.URL)
	if err != nil {
		return nil, err
	}
	pc.MaxConns = 16
	if c.MaxConns > 0 {
		pc.MaxConns = c.MaxConns
	}
	pc.ConnConfig.RuntimeParams["timezone"] = "UTC"
	pc.ConnConfig.RuntimeParams["application_name"] = "accrue"
	// Every statement reaches few rows by key: compiling one costs more than running it.
	pc.ConnConfig.RuntimeParams["jit"] = "off"
	primaryOnly(pc)
	pc.ConnConfig.RuntimeParams["idle_in_transaction_session_timeout"] = standstill
	if !c.Owner {
		pc.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "SET ROLE "+AppRole)
			return err
		}
	}
	pool, err := pgxpool.NewWithConfig(ctx, pc)
	if err != nil {
		return nil, err
	}
	if err = pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, translate(err)
	}
	usage := pc.Copy()
	usage.ConnConfig.RuntimeParams["lock_timeout"] = lockPatience
	byKey, err := openByKey(ctx, usage, cmp.Or(c.ByKey, 4))
	if err != nil {
		pool.Close()
		return nil, err
	}
	shared, err := openByKey(ctx, pc, sharedConns)
	if err != nil {
		byKey.Close()
		pool.Close()
		return nil, err
	}
	sqlDB := stdlib.OpenDBFromPool(pool)
	g, err := gorm.Open(gormpg.New(gormpg.Config{Conn: sqlDB}), &gorm.Config{
		SkipDefaultTransaction: true,
		TranslateError:         true,
		DisableAutomaticPing:   true,
		// Columns are named: to SELECT * belongs a column that a newer version has added while this one serves, and
		// a statement that was prepared before is refused then.
		QueryFields: true,
		// The values of a statement may be personal data, so statements are never logged.
		Logger: logger.Discard,
		// Times come from the caller. A row that lets GORM fill one in shows by the year 1.
		NowFunc: func() time.Time { return time.Time{} },
	})
	if err != nil {
		shared.Close()
		byKey.Close()
		pool.Close()
		return nil, err
	}
	d := &DB{stores: stores{g, pooled{pool}, remembered}, pool: pool, byKey: byKey, sql: sqlDB, shared: shared}
	d.company = newCompany(d.host, stdlib.OpenDBFromPool(shared), c.OneAccount)
	return d, nil
}

const (
	// standstill, in milliseconds, ends a session that asks for nothing within a transaction: a machine that died holds
	// its locks for no longer. No transaction waits for anything but the database.
	standstill = "10000"
	// lockPatience, in milliseconds, is after what time an account counts as held for those who store usage of many.
	lockPatience = "1000"
)

// primaryOnly refuses connections to a standby, which an address with several hosts may lead to and which a primary
// becomes when another takes its place: it knows what was, and decisions are made on what is.
func primaryOnly(pc *pgxpool.Config) {
	pc.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
}

// openByKey opens a pool whose statements reach few rows by key, whatever their parameters:
// each is planned once a connection, and never as a scan or a join of whole tables. PostgreSQL would
// choose those where tables are small, and keep to the plan when they have grown; by itself it rather
// plans statements with short arrays anew each time, which costs more than running them.
func openByKey(ctx context.Context, pc *pgxpool.Config, conns int32) (*pgxpool.Pool, error) {
	pc = pc.Copy()
	pc.MaxConns = conns
	pc.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_generic_plan"
	for _, whole := range []string{"enable_seqscan", "enable_bitmapscan", "enable_hashjoin", "enable_mergejoin"} {
		pc.ConnConfig.RuntimeParams[whole] = "off"
	}
	connected := pc.AfterConnect
	pc.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
		// glibc hands free memory at the end of a session's heap back to the system, and the next transaction faults
		// it in anew. What it keeps is twice the largest block that was ever freed: mallopt(3), M_MMAP_THRESHOLD.
		if _, err := conn.Exec(ctx, "SELECT length(repeat('x', 4000000))"); err != nil || connected == nil {
			return err
		}
		return connected(ctx, conn)
	}
	return pgxpool.NewWithConfig(ctx, pc)
}

// Close returns when every connection is closed.
func (d *DB) Close() {
	_ = d.sql.Close()
	_ = d.company.sql.Close()
	d.pool.Close()
	d.byKey.Close()
	d.shared.Close()
}

// Pool is the pool that GORM uses too, for the paths that go without it.
func (d *DB) Pool() *pgxpool.Pool { return d.pool }

// ByKey is the pool of what is done thousands of times a second: storing usage, and the reads that
// answers from memory stand on. However busy the other pool is, these do not wait for it.
func (d *DB) ByKey() *pgxpool.Pool { return d.byKey }

// Pools returns the pools by what they are for, for whoever watches them.
func (d *DB) Pools() map[string]*pgxpool.Pool {
	return map[string]*pgxpool.Pool{"general": d.pool, "usage": d.byKey, "operations": d.shared}
}

// Ping reports whether the database answers.
func (d *DB) Ping(ctx context.Context) error { return d.pool.Ping(ctx) }

// Time asks the database what time it is.
func (d *DB) Time(ctx context.Context) (now time.Time, err error) {
	defer errs.Wrap(&err, "ask the database for the time")
	err = translate(d.pool.QueryRow(ctx, "SELECT clock_timestamp()").Scan(&now))
	return now, err
}

// Transactions are tried again when PostgreSQL asks for it, and for nothing else.
const (
	maxTries  = 6
	firstWait = 5 * time.Millisecond
	patience  = 20 * time.Millisecond // of company
	// sharedConns bounds how many shared transactions run beside each other.
	sharedConns = 8
)

// InTx implements billing.Transactor. A serialization failure or a deadlock is tried again, after a
// pause with jitter that ends early with ctx; what is left after that is errs.Unavailable.
func (d *DB) InTx(ctx context.Context, fn func(tx billing.Tx) error) (err error) {
	wait := firstWait
	for range maxTries {
		err = d.once(ctx, fn)
		if !retryable(err) {
			return translate(err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("transaction: %w", context.Cause(ctx))
		case <-time.After(wait/2 + rand.N(wait)): //nolint:gosec // jitter
		}
		wait *= 2
	}
	return ErrBusy.Because(err)
}

// once runs fn in one transaction, on a connection that GORM and pgx share.
func (d *DB) once(ctx context.Context, fn func(tx billing.Tx) error) error {
	return onOneConn(ctx, d.sql, func(conn *sql.Conn, bare *pgx.Conn) error {
		t := newTransaction(bare)
		defer t.rollback(ctx)
		if err := fn(d.storesOn(ctx, conn, t)); err != nil {
			if t.failed != nil && !errors.Is(err, t.failed) {
				return t.failed // what came after is a consequence
			}
			return err
		}
		return t.commit(ctx)
	})
}

// storesOn makes the stores of a transaction, or of a part of one, on the connection that it runs on.
func (d *DB) storesOn(ctx context.Context, conn *sql.Conn, t interface {
	session
	flusher
},
) stores {
	db := d.db.Session(&gorm.Session{NewDB: true, Context: ctx})
	db.Statement.ConnPool = ormConn{conn, t}
	return stores{db, t, d.definitions}
}
