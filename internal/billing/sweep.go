package billing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/internal/upgrade"
	"github.com/accrue-billing/accrue/internal/wallet"
)

// Sweeper finds in the database what is due and was not done: the queue's nudges only make it happen
// sooner. Every step may run twice and on several replicas at once.
type Sweeper struct{ *Core }

// batch is how many records of a kind are looked up at a time.
const batch = 200

// Swept counts what a sweep took up.
type Swept struct {
	Closed, Finalized, Collected, Resolved, Events, Expired, Upgrades, Migrated int
}

// Any reports whether there was anything to do.
func (s Swept) Any() bool { return s != Swept{} }

// Sweep does everything that is due now, once. One record that fails is left for the next sweep; the others are done.
// The error joins what went wrong.
func (s Sweeper) Sweep(ctx context.Context) (done Swept, err error) {
	return s.steps(ctx, s.remember, s.events, s.resolve, s.upgrades, s.close, s.finalize, s.collect, s.credit, s.topUps, s.expiring, s.migrations)
}

// SweepNow is Sweep for somebody who does not wait: the provider is asked also for what it would be asked for after a
// pause only, at the end of an outage say.
func (s Sweeper) SweepNow(ctx context.Context) (done Swept, err error) {
	everything := func(ctx context.Context, now time.Time, done *Swept) error {
		return s.resolve(ctx, now.Add(longestPause), done)
	}
	return s.steps(ctx, s.remember, s.events, everything, s.upgrades, s.close, s.finalize, s.collect, s.credit, s.topUps, s.expiring, s.migrations)
}

// Bill does what is due of the way from usage to money: periods are closed, drafts made final, open
// invoices collected.
func (s Sweeper) Bill(ctx context.Context) (done Swept, err error) {
	return s.steps(ctx, s.remember, s.close, s.finalize, s.collect)
}

func (s Sweeper) steps(ctx context.Context, all ...func(context.Context, time.Time, *Swept) error) (done Swept, err error) {
	now := s.Clock()
	for _, step := range all {
		if ctx.Err() != nil {
			return done, errors.Join(err, ctx.Err())
		}
		err = errors.Join(err, errs.Contain(func() error { return step(ctx, now, &done) }))
	}
	return done, err
}

// Account does everything that is due on one account's clock, once.
func (s Sweeper) Account(ctx context.Context, a account.ID) (done Swept, err error) {
	defer errs.Wrap(&err, "sweep %s", a)
	err = s.account(ctx, a, &done)
	return done, err
}

// ByHand runs do because a person asked for it. That is written down first: what a run does commits
// record by record, and must not be there without it.
func (s Sweeper) ByHand(ctx context.Context, asked Asked, action string, do func(context.Context) (Swept, error)) (Swept, error) {
	err := s.DB.InTx(ctx, func(tx Tx) error {
		return tx.Accounts().Audit(ctx, asked.Account, account.Entry{Actor: asked.Actor, Action: action, At: s.Clock()})
	})
	if err != nil {
		return Swept{}, err
	}
	return do(ctx)
}

// share is how long one kind of work may go on within a sweep: nothing waits for long behind a provider that hangs.
const share = time.Minute

// toldAtMost is how many failures of one kind of work a sweep tells in full.
const toldAtMost = 20

// places are where sweeps left off, by kind of work.
type places struct {
	events   place[payment.ProviderEvent]
	resolve  place[payment.Pending]
	upgrades place[upgrade.Upgrade]
	close    place[subscription.Due]
	finalize place[invoice.Ref]
	collect  place[invoice.Ref]
	credit   place[wallet.Grant]
	topUps   place[wallet.AutoTopUp]
	expiring place[payment.Method]
}

// A place is where a sweep whose share was over left off. The next one goes on from there, and the one after it begins anew:
// what takes long and fails, sweep after sweep, holds up nothing for ever.
type place[T any] struct {
	mu    sync.Mutex
	after T
}

// swap returns the place, and leaves another.
func (p *place[T]) swap(after T) T {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.after
	p.after = after
	return was
}

// through runs do for everything that is due, page by page, and for each once. What cannot be done is left for the next
// sweep, and however much there is of it, it holds up nothing that is due behind it: not even what panics.
func through[T any](ctx context.Context, s Sweeper, left *place[T], due func(after T, limit int) ([]T, error), do func(T) error) (err error) {
	var none T
	last := left.swap(none)
	failed, over, n := 0, s.Clock().Add(share), cmp.Or(s.page, batch)
	defer func() {
		if failed > toldAtMost {
			err = errors.Join(err, fmt.Errorf("and %d more could not be done", failed-toldAtMost))
		}
	}()
	for {
		items, derr := due(last, n)
		if derr != nil {
			return errors.Join(err, derr)
		}
		for _, item := range items {
			if ctx.Err() != nil {
				return errors.Join(err, ctx.Err())
			}
			if s.Clock().After(over) {
				left.swap(last)
				return err
			}
			last = item
			if derr := errs.Contain(func() error { return do(last) }); derr != nil {
				if failed++; failed <= toldAtMost {
					err = errors.Join(err, derr)
				}
			}
		}
		if len(items) < n {
			return err
		}
	}
}

// counted adds one to a count for what was done.
func counted(count *int, err error) error {
	if err == nil {
		*count++
	}
	return err
}

func (s Sweeper) events(ctx context.Context, now time.Time, done *Swept) error {
	return through(ctx, s, &s.left.events, func(after payment.ProviderEvent, limit int) ([]payment.ProviderEvent, error) {
		return s.DB.Payments().PendingEvents(ctx, now, after, limit)
	}, func(e payment.ProviderEvent) error {
		return counted(&done.Events, Listener(s).Process(ctx, e.Provider, e.EventID))
	})
}

func (s Sweeper) resolve(ctx context.Context, now time.Time, done *Swept) error {
	asked := map[payment.Located]bool{} // what has no answer yet is due again later, which SweepNow looks ahead to
	return through(ctx, s, &s.left.resolve, func(after payment.Pending, limit int) ([]payment.Pending, error) {
		return s.DB.Payments().ToCheck(ctx, now, after, limit)
	}, func(p payment.Pending) error {
		if asked[p.Located] {
			return nil
		}
		asked[p.Located] = true
		return counted(&done.Resolved, Resolver(s).Resolve(ctx, p))
	})
}

func (s Sweeper) upgrades(ctx context.Context, now time.Time, done *Swept) error {
	return through(ctx, s, &s.left.upgrades, func(after upgrade.Upgrade, limit int) ([]upgrade.Upgrade, error) {
		return s.DB.Upgrades().Expired(ctx, now, after, limit)
	}, func(u upgrade.Upgrade) error {
		// Ask first: the customer may have finished the step without ever coming back.
		got, err := Upgrader(s).Confirm(ctx, u.Account, u.ID)
		if err == nil && got.Status.Pending() {
			_, err = Upgrader(s).Cancel(ctx, u.Account, u.ID)
		}
		return counted(&done.Upgrades, err)
	})
}

// close closes every period that has ended: of an account that was away for months, all of them.
func (s Sweeper) close(ctx context.Context, now time.Time, done *Swept) error {
	return through(ctx, s, &s.left.close, func(after subscription.Due, limit int) ([]subscription.Due, error) {
		return s.DB.Subscriptions().Due(ctx, now, after, limit)
	}, func(d subscription.Due) error { return s.closeAll(ctx, d.Account, done) })
}

func (s Sweeper) closeAll(ctx context.Context, a account.ID, done *Swept) error {
	for {
		closed, err := Closer(s).Close(ctx, a)
		if err != nil || !closed {
			return err
		}
		done.Closed++
	}
}

func (s Sweeper) finalize(ctx context.Context, now time.Time, done *Swept) error {
	return through(ctx, s, &s.left.finalize, func(after invoice.Ref, limit int) ([]invoice.Ref, error) {
		return s.DB.Invoices().ToFinalize(ctx, now, after, limit)
	}, func(r invoice.Ref) error {
		return counted(&done.Finalized, Closer(s).Finalize(ctx, r.Account, r.Invoice))
	})
}

func (s Sweeper) collect(ctx context.Context, now time.Time, done *Swept) error {
	return through(ctx, s, &s.left.collect, func(after invoice.Ref, limit int) ([]invoice.Ref, error) {
		return s.DB.Invoices().ToCollect(ctx, now, after, limit)
	}, func(r invoice.Ref) error {
		asked, err := Collector(s).Collect(ctx, r.Account, r.Invoice)
		if asked {
			done.Collected++
		}
		return err
	})
}

func (s Sweeper) credit(ctx context.Context, now time.Time, done *Swept) error {
	return through(ctx, s, &s.left.credit, func(after wallet.Grant, limit int) ([]wallet.Grant, error) {
		return s.DB.Wallet().Expiring(ctx, now, after, limit)
	}, func(g wallet.Grant) error {
		return counted(&done.Expired, Granter(s).Expire(ctx, g.Account))
	})
}

// topUps looks at automatic top-ups again that were held back.
func (s Sweeper) topUps(ctx context.Context, now time.Time, _ *Swept) error {
	return through(ctx, s, &s.left.topUps, func(after wallet.AutoTopUp, limit int) ([]wallet.AutoTopUp, error) {
		return s.DB.Wallet().Held(ctx, now, after, limit)
	}, func(r wallet.AutoTopUp) error {
		_, err := Funder(s).AutoTopUp(ctx, r.Account)
		return err
	})
}

// expiryNotice is how long before a card's last day its holder is told.
const expiryNotice = 30 * 24 * time.Hour

// expiring tells, once, that the card which is charged will soon be out of date.
func (s Sweeper) expiring(ctx context.Context, now time.Time, _ *Swept) error {
	return through(ctx, s, &s.left.expiring, func(after payment.Method, limit int) ([]payment.Method, error) {
		return s.DB.Payments().Expiring(ctx, now.Add(expiryNotice), after, limit)
	}, func(m payment.Method) error { return s.tellExpiry(ctx, m, now) })
}

func (s Sweeper) tellExpiry(ctx context.Context, m payment.Method, now time.Time) error {
	return s.DB.InTx(ctx, func(tx Tx) error {
		acct, err := tx.Accounts().Lock(ctx, m.Account)
		if err != nil {
			return err
		}
		card, err := tx.Payments().Method(ctx, acct.ID, m.ID)
		if err != nil || card.Status != payment.MethodActive || !card.NoticedAt.IsZero() {
			return err
		}
		card.NoticedAt = acct.Now(now)
		if err := tx.Payments().SaveMethod(ctx, &card); err != nil {
			return err
		}
		about := cardAbout(card)
		about["exp_month"], about["exp_year"] = card.Card.ExpMonth, card.Card.ExpYear
		return tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentMethodExpires, about, card.NoticedAt)
	})
}

// migrationShare is how many accounts one sweep migrates at most: what is due must not wait for long.
const migrationShare = 1000

// migrations carries on the migrations of plans that are not completed.
func (s Sweeper) migrations(ctx context.Context, _ time.Time, done *Swept) error {
	running, err := s.DB.PlanMigrations().Running(ctx)
	if err != nil {
		return fmt.Errorf("migrations of plans: %w", err)
	}
	for _, m := range running {
		n, merr := Migrator(s).Run(ctx, m.ID, migrationShare)
		done.Migrated += n
		err = errors.Join(err, merr)
	}
	return err
}

// account does everything that is due on one account's clock, once.
func (s Sweeper) account(ctx context.Context, a account.ID, done *Swept) error {
	if err := s.closeAll(ctx, a, done); err != nil {
		return err
	}
	acct, err := s.DB.Accounts().Get(ctx, a)
	if err != nil {
		return err
	}
	now := acct.Now(s.Clock())
	drafts, err := s.DB.Invoices().List(ctx, a, invoice.Draft, firstPage)
	if err != nil {
		return err
	}
	for _, inv := range slices.Backward(drafts.Data) { // the oldest first: its number comes first
		if now.Before(inv.FinalizeAt) {
			continue
		}
		if err := Closer(s).Finalize(ctx, a, inv.ID); err != nil {
			return err
		}
		done.Finalized++
	}
	open, err := s.DB.Invoices().Unpaid(ctx, a)
	if err != nil {
		return err
	}
	for _, inv := range open {
		asked, err := Collector(s).Collect(ctx, a, inv.ID)
		if err != nil {
			return err
		}
		if asked {
			done.Collected++
		}
	}
	expired, err := Granter(s).expire(ctx, a)
	done.Expired += expired
	return err
}
