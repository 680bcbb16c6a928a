package postgres

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"time"

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
	case <-ctx.Done(): // it may leave as long as it has not begun
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
	host func(guests []*guest, waits bool) // runs a transaction and returns when it has ended; see DB.host
	sql  *sql.DB                           // over connections of its own
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

func newCompany(host func([]*guest, bool), shared *sql.DB, oneAccount bool) *company {
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
	if g.queues {
		g.queues = false
		c.enter([]*guest{g}, -1)
		c.begin()
		return true
	}
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
	c.host(guests, false)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.crowd.End(len(guests), !slow.Stop())
	again := map[account.ID][]*guest{}
	seated := guests[:0]
	for _, g := range guests {
		switch {
		case !g.unseated:
			seated = append(seated, g)
		case g.ctx.Err() != nil: // its caller could not leave before
			g.err = context.Cause(g.ctx)
			close(g.turn)
			seated = append(seated, g)
		default:
			g.unseated, g.queues = false, true
			again[g.account] = append(again[g.account], g)
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
	c.mu.Lock()
	guests = slices.DeleteFunc(guests, func(g *guest) bool { return !g.queues })
	for _, g := range guests {
		g.queues = false
	}
	c.mu.Unlock()
	if len(guests) > 0 {
		c.host(guests, true)
	}
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
