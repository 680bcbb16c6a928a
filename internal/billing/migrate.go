package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Migrator moves accounts from older versions of a plan to another one. A migration is a row; the work
// is done account by account, each in a transaction of its own that also records that it is done. So it
// may be interrupted anywhere and taken up by anyone, and no account is moved twice.
type Migrator struct{ *Core }

// MigrationInput is what a migration is asked for with.
type MigrationInput struct {
	Plan   plan.Code
	To     int
	When   subscription.When
	Reason string
}

// Begin records a migration. The sweep does it, or Run. It returns plan.ErrVersionNotFound,
// ErrVersionArchived or subscription.ErrMigrationRunning.
func (m Migrator) Begin(ctx context.Context, asked Asked, in MigrationInput, render Renderer[subscription.Migration]) (_ Result[subscription.Migration], err error) {
	defer errs.Wrap(&err, "begin a migration")
	return once(ctx, m.Core, asked, render, func(tx Tx) (subscription.Migration, error) {
		if _, err := migrationTarget(ctx, tx, in.Plan, in.To); err != nil {
			return subscription.Migration{}, err
		}
		mig := subscription.Migration{
			ID: id.New[subscription.Migration](), Plan: in.Plan, To: in.To, When: in.When, Status: subscription.MigrationRunning,
			Actor: asked.Actor, Reason: in.Reason, CreatedAt: m.Clock(), Outcomes: map[subscription.Outcome]int{},
		}
		if err := tx.PlanMigrations().Create(ctx, mig); err != nil {
			return mig, err
		}
		return mig, tx.Accounts().Audit(ctx, account.ID{}, account.Entry{
			Actor: asked.Actor, Action: "plan.migrate", Reason: in.Reason, At: mig.CreatedAt,
			Detail: detail("migration", mig.ID, "plan", mig.Plan, "to", mig.To, "when", mig.When),
		})
	})
}

// ErrVersionArchived says that nobody can be moved to a version that is off sale.
var ErrVersionArchived = errs.New(errs.Conflict, "plan_version_archived", "The version is archived; accounts are moved to a version that is on sale.")

func migrationTarget(ctx context.Context, tx Tx, code plan.Code, number int) (plan.Version, error) {
	if _, err := tx.Plans().Plan(ctx, code); err != nil {
		return plan.Version{}, err
	}
	v, err := tx.Plans().Version(ctx, code, number)
	if err == nil && !v.ArchivedAt.IsZero() {
		err = ErrVersionArchived
	}
	return v, err
}

// Cancel ends a migration that runs. Accounts that it has dealt with stay as they are, those whose new version
// begins with their next period included; the others are left alone. Canceling twice changes nothing. It
// returns subscription.ErrMigrationNotFound, or ErrMigrationOver where it is completed.
func (m Migrator) Cancel(ctx context.Context, asked Asked, code plan.Code, mid subscription.MigrationID, reason string, render Renderer[subscription.Migration]) (_ Result[subscription.Migration], err error) {
	defer errs.Wrap(&err, "cancel migration %s", mid)
	return once(ctx, m.Core, asked, render, func(tx Tx) (subscription.Migration, error) {
		mig, err := tx.PlanMigrations().Get(ctx, mid)
		if err == nil && mig.Plan != code {
			err = subscription.ErrMigrationNotFound
		}
		if err != nil || mig.Status == subscription.MigrationCanceled {
			return mig, err
		}
		at := m.Clock()
		if err := tx.PlanMigrations().Cancel(ctx, mid, at); err != nil {
			return mig, err
		}
		if err := tx.Accounts().Audit(ctx, account.ID{}, account.Entry{
			Actor: asked.Actor, Action: "plan.migrate.cancel", Reason: reason, At: at,
			Detail: detail("migration", mid, "plan", mig.Plan, "to", mig.To),
		}); err != nil {
			return mig, err
		}
		return tx.PlanMigrations().Get(ctx, mid)
	})
}

// Run carries a migration on until it is completed or canceled, or until it has dealt with about most accounts (0:
// all). One account that fails does not hold up the others: it is tried again by the next run.
func (m Migrator) Run(ctx context.Context, mid subscription.MigrationID, most int) (n int, err error) {
	defer errs.Wrap(&err, "migration %s", mid)
	mig, err := m.DB.PlanMigrations().Get(ctx, mid)
	if err != nil || mig.Status != subscription.MigrationRunning {
		return 0, err
	}
	var failed error
	var after account.ID
	for most == 0 || n < most {
		left, err := m.DB.PlanMigrations().Left(ctx, mig, after, batch)
		if err != nil {
			return n, errors.Join(failed, err)
		}
		for _, a := range left {
			if ctx.Err() != nil {
				return n, errors.Join(failed, ctx.Err())
			}
			err := m.move(ctx, mig, a)
			if errors.Is(err, subscription.ErrMigrationOver) {
				return n, failed // canceled, or another one was quicker
			}
			if err != nil {
				failed = errors.Join(failed, fmt.Errorf("%s: %w", a, err))
				continue
			}
			n++
		}
		if len(left) < batch {
			if failed == nil {
				err = m.DB.PlanMigrations().Complete(ctx, mid, m.Clock())
			}
			return n, errors.Join(failed, err)
		}
		after = left[len(left)-1]
	}
	return n, failed
}

// move deals with one account.
func (m Migrator) move(ctx context.Context, mig subscription.Migration, a account.ID) error {
	return m.DB.InTx(ctx, func(tx Tx) error {
		acct, err := tx.Accounts().Lock(ctx, a)
		if err != nil {
			return err
		}
		sub, err := tx.Subscriptions().Lock(ctx, a)
		if errors.Is(err, subscription.ErrNotFound) {
			return nil // closed since: nobody lists it any more
		}
		if err != nil {
			return err
		}
		if err := tx.PlanMigrations().Hold(ctx, mig.ID); err != nil {
			return err
		}
		now := acct.Now(m.Clock())
		done := subscription.Moved{Account: a, Migration: mig.ID, From: sub.Terms.Version, At: now}
		if done.Outcome, err = m.decide(ctx, tx, acct, sub, mig); err != nil {
			return err
		}
		if done.Outcome == subscription.Migrated {
			if err := m.apply(ctx, tx, acct, &sub, mig, now); err != nil {
				return err
			}
		}
		return tx.PlanMigrations().Record(ctx, done)
	})
}

// decide says what a migration does about an account.
func (m Migrator) decide(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription, mig subscription.Migration) (subscription.Outcome, error) {
	switch {
	case sub.Plan != mig.Plan || sub.Terms.Version == mig.To:
		return subscription.KeptLeaving, nil
	case !sub.Contract.IsZero():
		return subscription.KeptContract, nil
	}
	v, err := tx.Plans().Version(ctx, mig.Plan, mig.To)
	if err == nil && !sells(v, acct.Currency) {
		return subscription.KeptCurrency, nil
	}
	return subscription.Migrated, err
}

// atOnce reports whether a migration changes the running period: not where its version is billed by another interval.
func atOnce(ctx context.Context, tx Tx, sub *subscription.Subscription, mig subscription.Migration) (bool, error) {
	if mig.When != subscription.AtOnce {
		return false, nil
	}
	v, err := tx.Plans().Version(ctx, mig.Plan, mig.To)
	return v.Every() == sub.Schedule.Interval, err
}

func (m Migrator) apply(ctx context.Context, tx Tx, acct account.Account, sub *subscription.Subscription, mig subscription.Migration, now time.Time) error {
	asked := Asked{Account: acct.ID, Actor: mig.Actor}
	soon, err := atOnce(ctx, tx, sub, mig)
	if err != nil {
		return err
	}
	if soon {
		terms := subscription.Terms{Plan: mig.Plan, Version: mig.To}
		planned := sub.NextPlan // a downgrade that the customer planned stays planned
		if err := m.switchTo(ctx, tx, acct, sub, terms, asked, "plan.migrate", mig.Reason, now); err != nil || planned == "" {
			return err
		}
		sub.NextPlan = planned
		return tx.Subscriptions().Save(ctx, sub)
	}
	sub.NextVersion, sub.UpdatedAt = mig.To, now
	if err := tx.Subscriptions().Save(ctx, sub); err != nil {
		return err
	}
	if err := publishChange(ctx, tx, acct, *sub, now); err != nil {
		return err
	}
	return tx.Accounts().Audit(ctx, acct.ID, account.Entry{Actor: mig.Actor, Action: "plan.migrate", Reason: mig.Reason, At: now})
}

// Repriced is one account's last months under the version that it has and under another one.
type Repriced struct {
	Account       account.Account
	From          int // its version
	Months        int // how many are compared
	Before, After money.Amount
	Difference    money.Amount         // After less Before
	Blocked       []pricing.Blocked    // usage that a limit of the other version would have refused
	Stays         subscription.Outcome // why a migration would leave it where it is; empty: it would move
}

// Repricing is what moving a plan's accounts to a version would have changed in their last months.
type Repricing struct {
	Accounts         int // on other versions of the plan
	Compared         int // of these, at most maxRepriced
	Move             int // that a migration would move
	More, Less, Same int // of those that would move: who would have paid more, less or the same
	Totals           []RepricingTotal
	Rows             []Repriced // whose bill rises most comes first
}

// RepricingTotal is the sum over the accounts that would move, in one currency.
type RepricingTotal struct{ Before, After money.Amount }

// maxRepriced bounds the accounts that one comparison prices.
const maxRepriced = 10_000

// Preview prices the last months of every account on another version of the plan under the version to
// which it would be moved. It returns at most limit rows: first those whose bill rises most, in units of
// their own currency.
func (m Migrator) Preview(ctx context.Context, code plan.Code, to, limit int) (out Repricing, err error) {
	defer errs.Wrap(&err, "preview migration of %s to %d", code, to)
	v, err := migrationTarget(ctx, m.DB, code, to)
	if err != nil {
		return out, err
	}
	return m.reprice(ctx, code, v, limit, maxRepriced)
}

// reprice compares at most most accounts of a plan with a version, which need not be published.
func (c *Core) reprice(ctx context.Context, code plan.Code, to plan.Version, limit, most int) (out Repricing, err error) {
	on, err := c.DB.Subscriptions().OnPlan(ctx, code)
	if err != nil {
		return out, err
	}
	for number, n := range on {
		if number != to.Number {
			out.Accounts += n
		}
	}
	var after account.ID
	for out.Compared < most {
		list, err := c.DB.Subscriptions().OnOtherVersions(ctx, code, to.Number, after, min(batch, most-out.Compared))
		if err != nil {
			return out, err
		}
		for _, a := range list {
			r, err := c.repriceOne(ctx, a, to)
			if errs.KindOf(err) == errs.NotFound {
				continue // closed since
			}
			if err != nil {
				return out, err
			}
			out.add(r)
		}
		if len(list) < batch {
			break
		}
		after = list[len(list)-1]
	}
	slices.SortStableFunc(out.Rows, func(a, b Repriced) int { return b.Difference.Decimal().Cmp(a.Difference.Decimal()) })
	if len(out.Rows) > limit {
		out.Rows = out.Rows[:limit]
	}
	return out, nil
}

func (r *Repricing) add(one Repriced) {
	r.Compared++
	r.Rows = append(r.Rows, one)
	if one.Stays != "" {
		return
	}
	r.Move++
	switch one.Difference.Sign() {
	case 1:
		r.More++
	case -1:
		r.Less++
	default:
		r.Same++
	}
	for i := range r.Totals {
		if t := &r.Totals[i]; t.Before.Currency == one.Before.Currency {
			t.Before.Minor += one.Before.Minor
			t.After.Minor += one.After.Minor
			return
		}
	}
	r.Totals = append(r.Totals, RepricingTotal{one.Before, one.After})
}

func (c *Core) repriceOne(ctx context.Context, a account.ID, to plan.Version) (Repriced, error) {
	acct, err := c.DB.Accounts().Get(ctx, a)
	if err != nil {
		return Repriced{}, err
	}
	sub, err := c.DB.Subscriptions().Active(ctx, a)
	if err != nil {
		return Repriced{}, err
	}
	out := Repriced{Account: acct, From: sub.Terms.Version, Before: zeroOf(acct), After: zeroOf(acct), Difference: zeroOf(acct)}
	switch {
	case !sub.Contract.IsZero():
		out.Stays = subscription.KeptContract
		return out, nil
	case !sells(to, acct.Currency):
		out.Stays = subscription.KeptCurrency
		return out, nil
	}
	held, err := c.DB.Plans().Version(ctx, sub.Plan, sub.Terms.Version)
	if err != nil {
		return out, err
	}
	months, err := lastMonths(ctx, c.DB, a, []plan.Version{held, to})
	if err != nil {
		return out, err
	}
	before, err := pricing.Under(months, &held, acct.Currency)
	if err != nil {
		return out, err
	}
	then, err := pricing.Under(months, &to, acct.Currency)
	if err != nil {
		return out, err
	}
	out.Months, out.Before, out.After, out.Blocked = len(months), before.Total, then.Total, then.Blocked
	out.Difference, err = out.After.Sub(out.Before)
	return out, err
}
