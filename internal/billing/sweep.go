package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/upgrade"
	"github.com/accrue-billing/accrue/internal/wallet"
)

// Sweeper finds in the database what is due and was not done: the queue's nudges only make it happen
// sooner. Every step may run twice and on several replicas at once.
type Sweeper struct{ *Core }

// batch bounds what one look takes up at a time.
const batch = 200

// Swept counts what a sweep took up.
type Swept struct {
	Closed, Finalized, Collected, Resolved, Events, Expired, Upgrades, Migrated int
}

// Any reports whether there was anything to do.
func (s Swept) Any() bool { return s != Swept{} }

// Sweep does everything that is due now, once. One record that fails is logged and left for the next
// sweep; the others are done. The error joins what went wrong.
func (s Sweeper) Sweep(ctx context.Context) (done Swept, err error) {
	now := s.Clock()
	for _, step := range []func(context.Context, time.Time, *Swept) error{
		s.events, s.resolve, s.upgrades, s.close, s.finalize, s.collect, s.credit, s.expiring, s.migrations,
	} {
		if ctx.Err() != nil {
			return done, errors.Join(err, ctx.Err())
		}
		err = errors.Join(err, step(ctx, now, &done))
	}
	return done, err
}

// Bill does what is due of the way from usage to money: periods are closed, drafts made final, open
// invoices collected.
func (s Sweeper) Bill(ctx context.Context) (done Swept, err error) {
	now := s.Clock()
	for _, step := range []func(context.Context, time.Time, *Swept) error{s.close, s.finalize, s.collect} {
		if ctx.Err() != nil {
			return done, errors.Join(err, ctx.Err())
		}
		err = errors.Join(err, step(ctx, now, &done))
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

// each runs do for every item and joins the errors.
func each[T any](ctx context.Context, items []T, count *int, do func(T) error) error {
	var all error
	for _, it := range items {
		if ctx.Err() != nil {
			return errors.Join(all, ctx.Err())
		}
		if err := do(it); err != nil {
			all = errors.Join(all, err)
			continue
		}
		*count++
	}
	return all
}

func (s Sweeper) events(ctx context.Context, now time.Time, done *Swept) error {
	pending, err := s.DB.Payments().PendingEvents(ctx, now, batch)
	if err != nil {
		return fmt.Errorf("pending gateway events: %w", err)
	}
	return each(ctx, pending, &done.Events, func(e payment.ProviderEvent) error {
		return Listener(s).Process(ctx, e.Provider, e.EventID)
	})
}

func (s Sweeper) resolve(ctx context.Context, now time.Time, done *Swept) error {
	pending, err := s.DB.Payments().ToCheck(ctx, now, batch)
	if err != nil {
		return fmt.Errorf("pending payments: %w", err)
	}
	return each(ctx, pending, &done.Resolved, func(p payment.Pending) error { return Resolver(s).Resolve(ctx, p) })
}

func (s Sweeper) upgrades(ctx context.Context, now time.Time, done *Swept) error {
	old, err := s.DB.Upgrades().Expired(ctx, now, batch)
	if err != nil {
		return fmt.Errorf("expired upgrades: %w", err)
	}
	return each(ctx, old, &done.Upgrades, func(u upgrade.Upgrade) error {
		// Ask first: the customer may have finished the step without ever coming back.
		got, err := Upgrader(s).Confirm(ctx, u.Account, u.ID)
		if err == nil && got.Status.Pending() {
			_, err = Upgrader(s).Cancel(ctx, u.Account, u.ID)
		}
		return err
	})
}

// account does everything that is due on one account's clock, once.
func (s Sweeper) account(ctx context.Context, a account.ID, done *Swept) error {
	for {
		closed, err := Closer(s).Close(ctx, a)
		if err != nil {
			return err
		}
		if !closed {
			break
		}
		done.Closed++
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

// close closes every period that has ended; an account that was away for months takes several rounds.
// Accounts that fail do not hold up the others, and end the rounds when they alone are left: they stay the longest
// overdue, so that a round looks past as many as the last one left.
func (s Sweeper) close(ctx context.Context, now time.Time, done *Swept) error {
	limit := batch
	for {
		due, err := s.DB.Subscriptions().Due(ctx, now, limit)
		if err != nil {
			return fmt.Errorf("periods that have ended: %w", err)
		}
		closed := 0
		err = nil
		for _, d := range due {
			ok, cerr := Closer(s).Close(ctx, d.Account)
			err = errors.Join(err, cerr)
			if ok {
				closed++
			}
		}
		done.Closed += closed
		if ctx.Err() != nil || closed == 0 && len(due) < limit {
			return err
		}
		limit = batch + len(due) - closed
	}
}

func (s Sweeper) finalize(ctx context.Context, now time.Time, done *Swept) error {
	for {
		due, err := s.DB.Invoices().ToFinalize(ctx, now, batch)
		if err != nil {
			return fmt.Errorf("drafts to finalise: %w", err)
		}
		finalized := 0
		for _, r := range due {
			ferr := Closer(s).Finalize(ctx, r.Account, r.Invoice)
			err = errors.Join(err, ferr)
			if ferr == nil {
				finalized++
			}
		}
		done.Finalized += finalized
		if finalized == 0 || ctx.Err() != nil {
			return err
		}
	}
}

func (s Sweeper) collect(ctx context.Context, now time.Time, done *Swept) error {
	due, err := s.DB.Invoices().ToCollect(ctx, now, batch)
	if err != nil {
		return fmt.Errorf("invoices to collect: %w", err)
	}
	var all error
	for _, r := range due {
		asked, err := Collector(s).Collect(ctx, r.Account, r.Invoice)
		if asked {
			done.Collected++
		}
		all = errors.Join(all, err)
	}
	return all
}

func (s Sweeper) credit(ctx context.Context, now time.Time, done *Swept) error {
	old, err := s.DB.Wallet().Expiring(ctx, now, batch)
	if err != nil {
		return fmt.Errorf("expired credit: %w", err)
	}
	return each(ctx, old, &done.Expired, func(g wallet.Grant) error { return Granter(s).Expire(ctx, g.Account) })
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

// expiryNotice is how long before a card's last day its holder is told.
const expiryNotice = 30 * 24 * time.Hour

// expiring tells, once, that the card which is charged will soon be out of date.
func (s Sweeper) expiring(ctx context.Context, now time.Time, _ *Swept) error {
	soon, err := s.DB.Payments().Expiring(ctx, now.Add(expiryNotice), batch)
	if err != nil {
		return fmt.Errorf("expiring cards: %w", err)
	}
	var all error
	for _, m := range soon {
		all = errors.Join(all, s.DB.InTx(ctx, func(tx Tx) error {
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
		}))
	}
	return all
}
