package postgres_test

import (
	"bytes"
	"errors"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/postgres"
	"github.com/accrue-billing/accrue/internal/postgres/postgrestest"
)

// cutter stands between the service and PostgreSQL and cuts connections at a commit.
type cutter struct {
	listener net.Listener
	network  string
	address  string // of PostgreSQL

	cut  atomic.Int32 // so many commits are still to be cut
	lose atomic.Bool  // cut them before they arrive, not on the way back
	away atomic.Bool  // after a cut, take no connections
	cuts atomic.Int32 // commits that were cut

	mu    sync.Mutex
	conns []net.Conn
	wg    sync.WaitGroup
}

// committed is PostgreSQL's answer to a commit: CommandComplete with its tag.
var committed = []byte("C\x00\x00\x00\x0bCOMMIT\x00")

// inserting is part of every pipeline that stores an event, and of no other: the values' text.
const inserting = "cut-me"

// newCutter returns a database URL through a cutter.
func newCutter(t *testing.T, dsn string) (*cutter, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{network: "tcp", address: u.Host}
	if folder := u.Query().Get("host"); folder != "" {
		c.network, c.address = "unix", filepath.Join(folder, ".s.PGSQL.5432")
	}
	if c.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	c.wg.Go(c.accept)
	t.Cleanup(func() {
		_ = c.listener.Close()
		c.mu.Lock()
		for _, conn := range c.conns {
			_ = conn.Close()
		}
		c.mu.Unlock()
		c.wg.Wait()
	})
	q := u.Query()
	q.Del("host")
	q.Set("sslmode", "disable")
	u.Host, u.RawQuery = c.listener.Addr().String(), q.Encode()
	return c, u.String()
}

func (c *cutter) accept() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		if c.away.Load() && c.cuts.Load() > 0 {
			_ = client.Close()
			continue
		}
		server, err := net.Dial(c.network, c.address)
		if err != nil {
			_ = client.Close()
			continue
		}
		c.mu.Lock()
		c.conns = append(c.conns, client, server)
		c.mu.Unlock()
		var storing atomic.Bool
		c.wg.Go(func() {
			c.pipe(server, client, func(sent []byte) bool {
				if !bytes.Contains(sent, []byte(inserting)) {
					return true
				}
				storing.Store(true)
				return !c.lose.Load() || !c.take()
			})
		})
		c.wg.Go(func() {
			c.pipe(client, server, func(answer []byte) bool {
				if !bytes.Contains(answer, committed) || !storing.Swap(false) {
					return true
				}
				return c.lose.Load() || !c.take()
			})
		})
	}
}

func (c *cutter) take() bool {
	if c.cut.Add(-1) < 0 {
		c.cut.Store(0)
		return false
	}
	c.cuts.Add(1)
	return true
}

// pipe copies what passes, and closes both ends at what does not.
func (c *cutter) pipe(to, from net.Conn, passes func([]byte) bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 1<<20)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if !passes(buf[:n]) {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// The connection breaks at the commit. Whether that arrived or not, the events count once: the ingester
// does the commit again, and its caller is told that they were accepted. Where the database stays away,
// the caller is told so, and does it again.
func TestIngest_AConnectionCutAtTheCommitCountsOnce(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		lose  bool // the commit, not its answer
		cuts  int32
		away  bool   // the database stays away after the cut
		again string // what a repetition is told
	}{
		"TheAnswerIsLost":                {cuts: 1, again: "duplicate duplicate"},
		"TheAnswerIsLostTwice":           {cuts: 2, again: "duplicate duplicate"},
		"TheCommitIsLost":                {lose: true, cuts: 1, again: "duplicate duplicate"},
		"TheCommitIsLostThrice":          {lose: true, cuts: 3, again: "duplicate duplicate"},
		"TheAnswerAndTheDatabaseAreLost": {cuts: 1, away: true, again: "duplicate duplicate"},
		"TheCommitAndTheDatabaseAreLost": {lose: true, cuts: 1, away: true, again: "accepted accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct, dsn := postgrestest.NewWithDSN(t)
			cutter, through := newCutter(t, dsn)
			db, err := postgres.Open(t.Context(), postgres.Config{URL: through, MaxConns: 4})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(db.Close)
			b := &meterBench{db: direct, account: mustAccount(t, direct)}
			mustEntitle(t, direct, b.account.ID, nil)
			b.in = mustRun(t, db, metering.Options{Committers: 1})
			wantStatuses(t, b.mustAdd(t, b.event("before", "voice", "1")), "accepted")
			if c.away { // only where it is to give up: a busy machine is slow
				b.in = mustRun(t, db, metering.Options{Committers: 1, Patience: 300 * time.Millisecond})
			}
			events := func() []metering.Event {
				return []metering.Event{b.event(inserting+"-1", "voice", "63.5"), b.event(inserting+"-2", "voice", "1")}
			}

			cutter.lose.Store(c.lose)
			cutter.away.Store(c.away)
			cutter.cut.Store(c.cuts)
			results, err := b.in.Add(t.Context(), events())
			switch {
			case c.away && !errors.Is(err, metering.ErrStore):
				t.Errorf("without a database: %v, %v", results, err)
			case !c.away && err != nil:
				t.Fatal(err)
			case !c.away:
				wantStatuses(t, results, "accepted accepted")
			}
			// An answer that is lost is lost once: a commit that is done again has nothing to store.
			if want := c.cuts; cutter.cuts.Load() != want && (c.lose || cutter.cuts.Load() != 1) {
				t.Errorf("%d commits were cut, want %d", cutter.cuts.Load(), want)
			}
			cutter.cut.Store(0)
			cutter.away.Store(false)
			b.in = mustRun(t, db, metering.Options{Committers: 1})
			wantStatuses(t, b.mustAdd(t, events()...), c.again)
			if got := b.total(t, "voice"); got != "65.5/3" {
				t.Errorf("total %s", got)
			}
			wantRecount(t, direct)
		})
	}
}
