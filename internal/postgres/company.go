package postgres

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/coalesce"
)

// Operations that wait at the same time go together in one transaction: the commit, and the statements that
// differ in their arguments alone, are then one for all. The operations go in step. Each runs by itself until it needs
// an answer of the database; when all of them do, what they ask is sent in one round trip. Those of one
// account go one after the other, each seeing what the one before has done; those that come while some
// are inside wait for these. Nobody waits for the lock of another's account: where it is not free, the operations of that
// account share a transaction of their own.
//
// Nobody is the worse for company. An operation that fails and has written nothing leaves it; when one that has
// written fails, or the database refuses a statement, or a lock is not free, nothing is
// committed, and each is run again by itself.

const (
	mostGuests = 64
	mostApart  = sharedConns - 2 // transactions that wait for an account at once
	// shortWait is for a transaction of several accounts. That of one waits for a lock as long as it takes.
	shortWait = "SET LOCAL lock_timeout = '100ms'"
	// partyTime bounds a transaction with guests, in which nobody's own deadline counts.
	partyTime = 10 * time.Second
)

// errAlone says that an operation is to be run in a transaction of its own.
var errAlone = errors.New("nothing was committed in company")

// InTxOf implements billing.Transactor.
func (d *DB) InTxOf(ctx context.Context, start billing.Start, fn func(tx billing.Tx) error) error {
	g := &guest{ctx: ctx, account: start.Account, start: start, fn: fn, resume: make(chan error), turn: make(chan struct{}, 1)}
	d.company.invite(g)
	select {
	case _, begins := <-g.turn:
		if begins {
			g.attend()
		}
	case <-ctx.Done():
		if d.company.dismiss(g) {
			return context.Cause(ctx)
		}
	}
	for range g.turn { // what is shared ends with nobody's context
		g.attend()
	}
	if g.panicked != nil {
		panic(g.panicked)
	}
	if errors.Is(g.err, errAlone) {
		return d.InTx(ctx, fn)
	}
	return g.err
}

// company is who waits for a transaction to share.
type company struct {
	host func([]*guest) // runs a transaction and returns when it has ended
	sql  *sql.DB        // over connections of its own
	// patience is how long a transaction under way keeps others from beginning.
	patience time.Duration
	// oneAccount gives each account transactions of its own.
	oneAccount bool

	mu      sync.Mutex
	crowd   *coalesce.Crowd // says when those who wait begin
	waiting []*guest
	free    int                // of those, nobody of whose account is inside
	present map[account.ID]int // how many of an account are inside
	apart   chan struct{}      // holds one for each transaction that may wait for an account
}

func newCompany(host func([]*guest), shared *sql.DB, oneAccount bool) *company {
	c := &company{host: host, sql: shared, patience: patience, oneAccount: oneAccount, present: map[account.ID]int{}, apart: make(chan struct{}, mostApart)}
	c.crowd = coalesce.NewCrowd(&c.mu, c.begin)
	return c
}

func (c *company) invite(g *guest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = append(c.waiting, g)
	if c.present[g.account] == 0 {
		c.free++
	}
	c.begin()
}

// dismiss lets one go who waits no longer, and returns whether it still waited.
func (c *company) dismiss(g *guest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.waiting, g)
	if i < 0 {
		return false
	}
	c.waiting = slices.Delete(c.waiting, i, i+1)
	c.countFree()
	c.crowd.Waits(c.free)
	return true
}

// begin begins transactions of those who can, if it is time.
func (c *company) begin() {
	for {
		c.crowd.Waits(c.free)
		if !c.crowd.Due() {
			return
		}
		guests := c.next()
		c.crowd.Begin(len(guests))
		go c.run(guests)
	}
}

// next takes out those who go together.
func (c *company) next() []*guest {
	var guests, rest []*guest
	for _, g := range c.waiting {
		if len(guests) < mostGuests && c.present[g.account] == 0 &&
			(len(guests) == 0 || !c.oneAccount || g.account == guests[0].account && !g.account.IsZero()) {
			guests = append(guests, g)
		} else {
			rest = append(rest, g)
		}
	}
	c.waiting = rest
	c.enter(guests, 1)
	return guests
}

// run runs a transaction. What takes long keeps no stranger from beginning; others of its accounts, it does: they would but
// wait for its locks, each on a connection that strangers need.
func (c *company) run(guests []*guest) {
	slow := time.AfterFunc(c.patience, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.crowd.Overdue()
		c.begin()
	})
	c.host(guests)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crowd.End(len(guests), !slow.Stop())
	again := map[account.ID][]*guest{}
	seated := guests[:0]
	for _, g := range guests {
		if g.unseated {
			g.unseated, g.waits = false, true
			again[g.account] = append(again[g.account], g)
		} else {
			seated = append(seated, g)
		}
	}
	for _, of := range again {
		go c.runApart(of)
	}
	c.enter(seated, -1)
	c.begin()
}

// runApart runs the guests of an account that somebody else holds. However many are held, some connections are left.
func (c *company) runApart(guests []*guest) {
	c.apart <- struct{}{}
	c.host(guests)
	<-c.apart
	c.mu.Lock()
	defer c.mu.Unlock()
	c.enter(guests, -1)
	c.begin()
}

// enter says that guests are inside, or for -1 that they are no longer.
func (c *company) enter(guests []*guest, by int) {
	for _, g := range guests {
		if g.account.IsZero() {
			continue
		}
		if c.present[g.account] += by; c.present[g.account] == 0 {
			delete(c.present, g.account)
		}
	}
	c.countFree()
}

func (c *company) countFree() {
	c.free = 0
	for _, g := range c.waiting {
		if c.present[g.account] == 0 {
			c.free++
		}
	}
}

// host runs the guests and tells them how it ended, but for those who were not seated.
func (d *DB) host(guests []*guest) {
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
		p := &party{transaction: newTransaction(bare), db: d, sql: conn, came: make(chan *guest, len(guests)), strangers: strangers, waits: guests[0].waits}
		defer p.rollback(ctx)
		if err = p.run(ctx, guests); err == nil {
			err = p.finish(ctx, p.writes(guests)...)
			unknown = bare.IsClosed()
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
	waits    bool   // for the account, which somebody else held
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
			if !g.follows {
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
