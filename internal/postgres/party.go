package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
)

const (
	// shortWait is for a transaction of several accounts. That of one waits for a lock as long as it takes.
	shortWait = "SET LOCAL lock_timeout = '100ms'"
	// partyTime bounds a transaction with guests, in which nobody's own deadline counts.
	partyTime = 10 * time.Second
)

// host runs the guests and tells them how it ended, but for those who were not seated, since somebody else holds their
// account. Guests of one account may wait for it instead.
func (d *DB) host(guests []*guest, waits bool) {
	defer func() {
		for _, g := range guests {
			if !g.unseated {
				close(g.turn)
			}
		}
	}()
	ctx := guests[0].ctx
	if len(guests) > 1 {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, partyTime)
	defer cancel()
	var culprit *guest
	strangers := slices.ContainsFunc(guests, func(g *guest) bool { return g.account != guests[0].account })
	unknown := false
	err := onOneConn(ctx, d.company.sql, func(conn *sql.Conn, bare *pgx.Conn) (err error) {
		p := &party{transaction: newTransaction(bare), db: d, sql: conn, came: make(chan *guest, len(guests)), strangers: strangers, waits: waits}
		defer p.rollback(ctx)
		if err = p.run(ctx, guests); err == nil {
			lost := bare.IsClosed()
			err = p.finish(ctx, p.writes(guests)...)
			unknown = bare.IsClosed() && !lost
		}
		culprit = p.culprit
		return err
	})
	if err == nil {
		return
	}
	for _, g := range guests {
		if g.err == nil && unknown {
			g.err = ErrBusy.Because(err)
		} else if !unknown && g != culprit {
			g.err = errAlone
		}
	}
}

// A guest is an operation that shares its transaction. It is the session that the operation's stores write to.
type guest struct {
	ctx     context.Context //nolint:containedctx // the operation's own
	account account.ID
	start   billing.Start
	fn      func(tx billing.Tx) error

	party    *party
	unseated bool   // somebody else holds the account
	queues   bool   // for a transaction that may wait for it
	next     *guest // of the same account: begins when this one has ended
	follows  bool   // it is the next of another
	holds    held
	expected []*expected
	waiting  []stmt
	inherits int // how many of those are of the guest before it
	events   []eventRow
	asks     []stmt     // what it waits to have sent
	alone    bool       // it waits to have the connection for itself
	wrote    bool       // something of it has been sent that is not read only
	resume   chan error // ends a wait
	ended    bool
	failed   error
	err      error
	panicked any
	turn     chan struct{} // begins fn; closed when there is nothing more to do
}

// attend runs fn, on the goroutine that has asked for it, and keeps what comes of it, even if that is a panic.
func (g *guest) attend() {
	defer func() {
		g.panicked = recover()
		g.ended = true
		g.party.came <- g
	}()
	g.err = errAlone
	if g.ctx.Err() != nil {
		g.err = context.Cause(g.ctx)
		return
	}
	g.err = g.fn(g.party.db.storesOn(g.ctx, g.party.sql, g))
}

func (g *guest) send(_ context.Context, stmts ...stmt) error {
	g.wrote = g.wrote || len(g.waiting) > g.inherits || slices.ContainsFunc(stmts, func(s stmt) bool { return !s.reads() })
	g.holds.written(stmts...)
	g.asks = slices.Concat(g.waiting, stmts)
	g.waiting, g.inherits = nil, 0
	return g.wait()
}

func (g *guest) later(_ context.Context, stmts ...stmt) error {
	g.waiting = append(g.waiting, stmts...)
	g.holds.written(stmts...)
	return g.failed
}

func (g *guest) publish(_ context.Context, e eventRow) error {
	g.events = append(g.events, e)
	return g.failed
}

func (g *guest) held() *held { return &g.holds }

// key is the idempotency key that it begins with.
func (g *guest) key() keyName { return keyName{g.account, g.start.Key.Scope, g.start.Key.Key} }

// flush returns when the connection is the guest's own, until it waits again or has ended.
func (g *guest) flush(ctx context.Context, before string) error {
	if !reads(before) {
		g.wrote = true
		g.holds.expected = nil
	}
	g.alone = true
	return g.send(ctx)
}

func (g *guest) wait() error {
	if g.failed == nil {
		g.party.came <- g
		g.failed = <-g.resume
	}
	return g.failed
}

// A party is a transaction that guests share. What a guest does and what the party does never happen at the
// same time: a guest is running, or it is waiting or has ended and the party has it.
type party struct {
	*transaction
	db        *DB
	sql       *sql.Conn
	strangers bool // its guests are of several accounts
	waits     bool // for the lock of its only account
	came      chan *guest
	running   int
	culprit   *guest // whose own error has ended it all
}

// run runs the guests up to the commit. It returns an error if there is nothing to commit.
func (p *party) run(ctx context.Context, guests []*guest) error {
	first, err := p.seat(ctx, guests)
	if err != nil {
		return err
	}
	for _, g := range first {
		p.begin(g)
	}
	var waiting, alone []*guest
	for {
		for ; p.running > 0; p.running-- {
			switch g := <-p.came; {
			case g.ended:
				p.end(g)
			case g.alone && len(g.asks) == 0:
				alone = append(alone, g)
			default:
				waiting = append(waiting, g)
			}
		}
		if n := len(alone); n > 0 {
			p.goOn(alone[n-1], p.failed)
			alone = alone[:n-1]
			continue
		}
		if len(waiting) == 0 {
			break
		}
		asks := make([][]stmt, len(waiting))
		for i, g := range waiting {
			asks[i], g.asks = g.asks, nil
		}
		err := p.send(ctx, together(asks)...)
		for _, g := range waiting {
			if g.alone && err == nil {
				alone = append(alone, g)
				continue
			}
			p.goOn(g, err)
		}
		waiting = waiting[:0]
	}
	return p.failed
}

// writes is what the guests have left to be written with the commit.
func (p *party) writes(guests []*guest) []stmt {
	var left [][]stmt
	for _, g := range guests {
		if g.ended {
			left = append(left, g.waiting)
			p.events = append(p.events, g.events...)
		}
	}
	return together(left, p.holds.writes(p.events)...)
}

// seat locks the accounts of the guests and returns the first guest of each that it has got.
func (p *party) seat(ctx context.Context, guests []*guest) (first []*guest, err error) {
	last := map[account.ID]*guest{}
	var ids [][16]byte
	for _, g := range guests {
		g.party, g.err = p, errAlone
		if g.account.IsZero() {
			first = append(first, g)
			continue
		}
		if before := last[g.account]; before != nil {
			before.next, g.follows = g, true
		} else {
			first, ids = append(first, g), append(ids, g.account.UUID())
		}
		last[g.account] = g
	}
	if p.strangers {
		_ = p.later(ctx, stmt{sql: shortWait})
	}
	if len(ids) > 0 {
		if err := p.send(ctx, append([]stmt{p.lock(ids)}, p.reads(guests, first)...)...); err != nil {
			return nil, err
		}
	}
	for _, g := range guests {
		if g.start.Books {
			p.holds.open(g.account)
		}
	}
	first = slices.DeleteFunc(first, func(g *guest) bool { return !p.seats(g) })
	for _, g := range guests {
		g.unseated = !p.seats(g) && !p.waits
	}
	for _, g := range first {
		g.holds = p.holds.of(g.account, g.key())
		g.holds.expected = g.expected
	}
	return first, nil
}

// seats says that the party has what the guest needs to begin.
func (p *party) seats(g *guest) bool {
	_, locked := p.holds.account(g.account)
	return locked || g.account.IsZero()
}

// lock is the statement that locks the accounts and their counters. It passes over accounts that others hold, unless
// it is to wait for the only one.
func (p *party) lock(ids [][16]byte) stmt {
	s := stmt{sql: lockAccounts + " = ANY ($1::uuid[]) FOR NO KEY UPDATE OF a SKIP LOCKED FOR NO KEY UPDATE OF c", args: []any{ids}}
	if p.waits {
		s = stmt{sql: lockAccounts + " = $1 FOR NO KEY UPDATE", args: []any{ids[0]}}
	}
	s.take = []func(*value) error{func(v *value) error {
		var a accountRow
		if err := accounts.scan(v, &a); err != nil {
			return err
		}
		p.holds.hold(a)
		after := len(accounts.columns)
		p.holds.keep(&book{account: a.account().ID, events: v.int8(after), sequence: v.int8(after + 1), hash: v.bytes(after + 2)})
		return nil
	}}
	return s
}

var lockAccounts = "SELECT " + namesIn("a", accounts.columns) + `, c.events, c.ledger, c.ledger_hash
FROM accounts a JOIN account_counters c ON c.account_id = a.id WHERE a.id`

// reads makes the statements that read what the guests begin with, after their accounts were locked: what an operation
// has under its key, the books, and what the first of each account will ask for. Those who follow may find that changed.
func (p *party) reads(guests, first []*guest) []stmt {
	asks := make([][]stmt, len(guests))
	keyed := false
	seen := map[account.ID]bool{}
	for i, g := range guests {
		if g.account.IsZero() {
			continue
		}
		if k := g.start.Key; k.Key != "" {
			keyed = true
			p.holds.claim(g.key(), keyRow{})
			asks[i] = append(asks[i], freeKey.by(g.account, k.Scope, k.Key).each(func(r keyRow) error {
				p.holds.claim(r.name(), r)
				return nil
			}))
		}
		if g.start.Books && !seen[g.account] {
			seen[g.account] = true
			asks[i] = append(asks[i], p.holds.readBalances(g.account))
		}
	}
	for _, g := range first {
		asks = append(asks, g.expect())
	}
	if keyed {
		asks = append(asks, []stmt{clockTime(&p.holds.now)})
	}
	return together(asks)
}

// expect makes the statements that read what the guest will ask for.
func (g *guest) expect() (asks []stmt) {
	g.expected = nil
	read := func(ask stmt) {
		e := &expected{kind: ask.kind, key: ask.rows[0]}
		ask.take = []func(*value) error{func(v *value) error {
			e.rows = append(e.rows, v.clone())
			return nil
		}}
		g.expected, asks = append(g.expected, e), append(asks, ask)
	}
	// through reads what will be asked for by values that stand in the rows which are read first. Each row of the answer
	// has those values; where it has nothing but them, nothing was found.
	through := func(ask stmt, later func(*value) (ask stmt, found bool)) {
		ask.take = []func(*value) error{func(v *value) error {
			to, found := later(v)
			i := slices.IndexFunc(g.expected, func(e *expected) bool { return e.kind == to.kind && bytes.Equal(e.key, to.rows[0]) })
			if i < 0 {
				i, g.expected = len(g.expected), append(g.expected, &expected{kind: to.kind, key: to.rows[0]})
			}
			if found {
				g.expected[i].rows = append(g.expected[i].rows, v.clone())
			}
			return nil
		}}
		asks = append(asks, ask)
	}
	a, start := g.account, g.start
	if a.IsZero() {
		return nil
	}
	if start.Charges {
		read(activeSubscription.of(a).stmt)
		through(activeVersion.of(a).stmt, func(v *value) (stmt, bool) { return planVersion.by(v.text(0), int(v.integer(1))).stmt, true })
		read(pendingTopUp.of(a).stmt)
		read(defaultMethod.of(a).stmt)
		if !g.party.db.company.oneAccount { // a cluster of shards has them by card, and joins nothing to them
			through(defaultAttempts.of(a).stmt, func(v *value) (stmt, bool) { return attemptsAt.by(v.text(0)).stmt, !v.isNull(1) })
		}
	}
	if !start.Payment.IsZero() {
		read(paymentByID.of(a, start.Payment).stmt)
		read(unpaidInvoices.of(a).stmt)
	}
	if !start.TopUp.IsZero() {
		read(topUpByID.of(a, start.TopUp).stmt)
		read(openRemovals.of(a).stmt)
	}
	return asks
}

func (p *party) begin(g *guest) {
	p.running++
	g.turn <- struct{}{}
}

// goOn ends a guest's wait.
func (p *party) goOn(g *guest, err error) {
	p.running++
	g.alone = false
	g.resume <- err
}

// end keeps what a guest leaves behind, which the next one of its account goes on from. One that fails after
// it has written takes it all down.
func (p *party) end(g *guest) {
	if g.err == nil && g.panicked == nil {
		p.holds.replace(g.account, g.holds)
	} else {
		g.waiting, g.events = g.waiting[:g.inherits], nil
		if g.wrote && p.failed == nil {
			p.failed = fmt.Errorf("%w: %w", errAlone, g.err)
			if !g.follows && p.intact() {
				p.culprit = g
			}
		}
	}
	next := g.next
	if next == nil || p.failed != nil {
		return
	}
	next.waiting, next.inherits, g.waiting = g.waiting, len(g.waiting), nil
	next.holds = p.holds.of(next.account, next.key())
	p.begin(next)
}
