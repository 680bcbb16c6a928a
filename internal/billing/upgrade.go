package billing

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/failpoint"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/internal/upgrade"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Upgrader moves accounts to a better plan.
type Upgrader struct{ *Core }

// UpgradeInput is what "Upgrade Now" sends.
type UpgradeInput struct {
	Plan    plan.Code
	Method  payment.MethodID // a card on file; zero: the default one, unless Source is given
	Source  CardSource       // a new card
	Profile *account.Profile // name, e-mail and address; needed with a new card
}

// Upgrade moves the account to a plan. With a card that is on file it is done at once; a new card is
// validated with the provider first, and the plan changes in the transaction that records that it is
// good. The result's status is succeeded, requires_action, processing or failed.
func (u Upgrader) Upgrade(ctx context.Context, asked Asked, in UpgradeInput, render Renderer[upgrade.Upgrade]) (out Result[upgrade.Upgrade], err error) {
	defer errs.Wrap(&err, "upgrade %s to %s", asked.Account, in.Plan)
	failpoint.Hit(failpoint.Upgrade, failpoint.Received)
	uid := id.New[upgrade.Upgrade]()
	var up upgrade.Upgrade
	var m payment.Method
	called, err := u.commitIntent(ctx, func(tx Tx) error {
		acct, err := u.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return err
		}
		return claimed(ctx, tx, asked, uid.UUID(), &out, func() error {
			if up, m, err = u.begin(ctx, tx, acct, uid, in); err != nil || up.Status.Pending() {
				return err
			}
			return complete(ctx, tx, asked, up, render)
		}, func(record uuid.UUID) error {
			if up, err = tx.Upgrades().Get(ctx, acct.ID, id.FromUUID[upgrade.Upgrade](record)); err != nil {
				return err
			}
			if up.Status.Pending() && !up.Method.IsZero() {
				m, err = tx.Payments().Method(ctx, acct.ID, up.Method)
				return err
			}
			return complete(ctx, tx, asked, up, render)
		})
	})
	defer called()
	if err != nil || out.Replayed != nil {
		return out, err
	}
	if up.Status.Pending() {
		failpoint.Hit(failpoint.Upgrade, failpoint.AfterTx1)
		res, callErr := u.attach(ctx, m)
		failpoint.Hit(failpoint.Upgrade, failpoint.AfterGateway)
		called()
		if up, err = u.finish(ctx, asked, up, m, res, callErr, render); err != nil {
			return out, err
		}
	}
	out.Record = up
	return out, nil
}

// begin is the first transaction: it checks, and commits the intent. Without a new card to validate
// it is the last one too.
func (u Upgrader) begin(ctx context.Context, tx Tx, acct account.Account, uid upgrade.ID, in UpgradeInput) (upgrade.Upgrade, payment.Method, error) {
	var m payment.Method
	if err := upgradeAllowed(ctx, tx, acct); err != nil {
		return upgrade.Upgrade{}, m, err
	}
	v, err := u.target(ctx, tx, acct, in.Plan)
	if err != nil {
		return upgrade.Upgrade{}, m, err
	}
	now := acct.Now(u.Clock())
	up := upgrade.Upgrade{
		ID: uid, Account: acct.ID, Plan: v.Plan, Version: v.Number, Status: payment.Processing, Profile: in.Profile,
		CreatedAt: now, UpdatedAt: now, ExpiresAt: u.Clock().Add(upgrade.Lifetime), Revision: 1,
	}
	if in.Source == (CardSource{}) {
		if m, err = u.cardOnFile(ctx, tx, acct, in.Method, v.Plan); err != nil {
			return up, m, err
		}
		up.Method = m.ID
		if err := tx.Upgrades().Create(ctx, up); err != nil {
			return up, m, err
		}
		return up, m, u.completeUpgrade(ctx, tx, acct, &up, now)
	}
	var profile account.Profile
	if in.Profile != nil {
		profile = *in.Profile
	}
	m = u.intend(acct.ID, in.Source, profile)
	if err := u.createMethod(ctx, tx, &m, in.Source); err != nil {
		return up, m, err
	}
	up.Method = m.ID
	return up, m, tx.Upgrades().Create(ctx, up)
}

// target returns the version that an upgrade to the plan would lead to, or why there is none.
func (c *Core) target(ctx context.Context, tx Tx, acct account.Account, code plan.Code) (plan.Version, error) {
	p, err := tx.Plans().Plan(ctx, code)
	if err != nil {
		return plan.Version{}, err
	}
	sub, err := tx.Subscriptions().Lock(ctx, acct.ID)
	if err != nil {
		return plan.Version{}, err
	}
	held, err := tx.Plans().Plan(ctx, sub.Plan)
	if err != nil {
		return plan.Version{}, err
	}
	return upgradeTo(ctx, tx, acct, sub, held, p)
}

// upgradeTo returns the version that an upgrade from the plan that is held to p would lead to, or why there is none: what the
// Billing page says, and the guard of Upgrade.
func upgradeTo(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription, held, p plan.Plan) (plan.Version, error) {
	if p.ContactSales {
		return plan.Version{}, ErrContactSales
	}
	if sub.Plan == p.Code || p.Position <= held.Position {
		return plan.Version{}, ErrNotAnUpgrade
	}
	v, err := sold(ctx, tx, acct, p)
	if err != nil {
		return v, err
	}
	if !sub.Contract.IsZero() {
		return v, underContract(sub)
	}
	return v, sameInterval(sub, v)
}

// sold returns the terms on which a plan is sold in the account's currency. It returns ErrNotSold, with the plans that are,
// and ErrCurrency.
func sold(ctx context.Context, tx Tx, acct account.Account, p plan.Plan) (plan.Version, error) {
	v, err := tx.Plans().Current(ctx, p.Code)
	if errors.Is(err, plan.ErrVersionNotFound) {
		return v, notSold(ctx, tx, p)
	}
	if err == nil && !sells(v, acct.Currency) {
		err = ErrCurrency.Details("The plan %s has no prices in %s.", p.Code, acct.Currency)
	}
	return v, err
}

func notSold(ctx context.Context, tx Tx, p plan.Plan) error {
	all, err := tx.Plans().Plans(ctx)
	if err != nil {
		return err
	}
	names := []plan.Code{}
	for _, other := range all {
		if !other.Archived && !other.ContactSales {
			names = append(names, other.Code)
		}
	}
	return ErrNotSold.Details("The plan %s is no longer sold; plans names those that are.", p.Code).With("plans", names)
}

// underContract is ErrUnderContract that names the contract.
func underContract(sub subscription.Subscription) *errs.Error {
	return ErrUnderContract.With("contract", sub.Contract.String())
}

// sameInterval refuses terms of another interval for the running period: its sums are for a whole one of theirs.
func sameInterval(sub subscription.Subscription, v plan.Version) error {
	if v.Every() != sub.Schedule.Interval {
		return ErrInterval.Details("The plan is billed by the %s, and the running period, which goes on, is a %s. It can be agreed with sales from the next period on.",
			v.Every(), sub.Schedule.Interval)
	}
	return nil
}

func sells(v plan.Version, c money.Currency) bool {
	return slices.Contains(v.Currencies, c) || !v.Priced()
}

// cardOnFile returns the card that an upgrade is to use.
func (c *Core) cardOnFile(ctx context.Context, tx Tx, acct account.Account, mid payment.MethodID, code plan.Code) (payment.Method, error) {
	if mid.IsZero() {
		m, err := tx.Payments().DefaultMethod(ctx, acct.ID)
		if noMethod(err) {
			p, perr := tx.Plans().Plan(ctx, code)
			if perr == nil && !p.RequiresCard {
				return payment.Method{}, nil
			}
			return m, &errs.Error{
				Kind: errs.Invalid, Code: ErrCardRequired.Code, Detail: ErrCardRequired.Detail,
				Fields: []errs.Field{{Pointer: "#/payment_method", Detail: "A card is needed.", Code: "required"}},
			}
		}
		return m, err
	}
	return c.use(ctx, tx, acct, mid)
}

// finish is the second transaction of an upgrade with a new card.
func (u Upgrader) finish(ctx context.Context, asked Asked, begun upgrade.Upgrade, card payment.Method, res payment.AttachResult, callErr error, render Renderer[upgrade.Upgrade]) (up upgrade.Upgrade, err error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	err = u.DB.InTx(ctx, func(tx Tx) error {
		acct, err := tx.Accounts().Lock(ctx, begun.Account)
		if err != nil {
			return err
		}
		m, err := tx.Payments().Method(ctx, begun.Account, card.ID)
		if err != nil {
			return err
		}
		if callErr, err = usedToken(ctx, tx, m, res, callErr); err != nil {
			return err
		}
		if err := u.settleMethod(ctx, tx, acct, &m, res, callErr); err != nil {
			return err
		}
		if up, err = tx.Upgrades().Get(ctx, begun.Account, begun.ID); err != nil {
			return err
		}
		if refusedToken(callErr) {
			return nil
		}
		defer failpoint.Hit(failpoint.Upgrade, failpoint.Tx2BeforeCommit)
		return complete(ctx, tx, asked, up, render)
	})
	failpoint.Hit(failpoint.Upgrade, failpoint.AfterTx2)
	if err != nil {
		return up, err
	}
	if refusedToken(callErr) {
		u.release(ctx, asked)
		return up, callErr
	}
	if up.NextAction != nil && res.NextAction != nil {
		up.NextAction = res.NextAction // with its client secret, for this answer only
	}
	return up, nil
}

// completeUpgrade changes the plan: the only place that makes an upgrade succeeded.
func (c *Core) completeUpgrade(ctx context.Context, tx Tx, acct account.Account, up *upgrade.Upgrade, now time.Time) error {
	sub, err := tx.Subscriptions().Lock(ctx, acct.ID)
	if err != nil {
		return err
	}
	if !sub.Contract.IsZero() { // agreed on while the card was awaited
		return failUpgrade(ctx, tx, acct, up, payment.Canceled, &payment.Failure{Code: ErrUnderContract.Code, Message: ErrUnderContract.Detail}, now)
	}
	if err := waive(ctx, tx, acct, &sub); err != nil {
		return err
	}
	err = sub.ChangePlan(subscription.Terms{Plan: up.Plan, Version: up.Version}, now)
	if errors.Is(err, subscription.ErrSamePlan) {
		return failUpgrade(ctx, tx, acct, up, payment.Canceled, &payment.Failure{Code: "already_on_plan", Message: "The account is on this plan already."}, now)
	}
	if err != nil {
		return err
	}
	if err := tx.Subscriptions().Save(ctx, &sub); err != nil {
		return err
	}
	if err := c.entitle(ctx, tx, acct, sub); err != nil {
		return err
	}
	if up.Profile != nil {
		b := billingOf(*up.Profile)
		if err := saveProfile(ctx, tx, acct.ID, b, now); err != nil {
			return err
		}
	}
	if err := up.Become(payment.Succeeded, now); err != nil {
		return err
	}
	if err := tx.Upgrades().Save(ctx, up); err != nil {
		return err
	}
	if err := publishChange(ctx, tx, acct, sub, now); err != nil {
		return err
	}
	if err := c.watch(ctx, tx, acct.ID); err != nil { // a rule may have outlived the plan that it was made on
		return err
	}
	return tx.Outbox().Publish(ctx, acct.ID, outbox.UpgradeSucceeded, map[string]any{"upgrade": up.ID, "plan": up.Plan}, now)
}

// quantities are the totals by meter.
func quantities(totals []metering.Total) map[string]money.Decimal {
	out := make(map[string]money.Decimal, len(totals))
	for _, t := range totals {
		out[t.Meter] = t.Quantity
	}
	return out
}

func failUpgrade(ctx context.Context, tx Tx, acct account.Account, up *upgrade.Upgrade, s payment.Status, why *payment.Failure, now time.Time) error {
	if err := up.Become(s, now); err != nil {
		return err
	}
	up.Failure = why
	if err := tx.Upgrades().Save(ctx, up); err != nil {
		return err
	}
	t := outbox.UpgradeFailed
	if s == payment.Canceled {
		t = outbox.UpgradeCanceled
	}
	return tx.Outbox().Publish(ctx, acct.ID, t, map[string]any{"upgrade": up.ID, "plan": up.Plan, "failure": why.Told()}, now)
}

// Confirm carries a pending upgrade on after the customer has acted. A settled one is returned as it is.
func (u Upgrader) Confirm(ctx context.Context, a account.ID, uid upgrade.ID) (up upgrade.Upgrade, err error) {
	defer errs.Wrap(&err, "confirm %s", uid)
	if up, err = u.DB.Upgrades().Get(ctx, a, uid); err != nil || !up.Status.Pending() {
		return up, err
	}
	m, err := u.DB.Payments().Method(ctx, a, up.Method)
	if err != nil {
		return up, err
	}
	if m, err = u.resolveMethod(ctx, m); err != nil {
		return up, err
	}
	up, err = u.DB.Upgrades().Get(ctx, a, uid)
	if up.NextAction != nil && m.NextAction != nil {
		up.NextAction = m.NextAction // with its client secret: another device can carry on
	}
	return up, err
}

// Cancel gives up a pending upgrade. Its card, if it becomes good after all, stays on file, and is not the one that is
// charged until somebody says so.
func (u Upgrader) Cancel(ctx context.Context, a account.ID, uid upgrade.ID) (up upgrade.Upgrade, err error) {
	defer errs.Wrap(&err, "cancel %s", uid)
	failpoint.Hit(failpoint.CancelUpgrade, failpoint.Received)
	err = u.DB.InTx(ctx, func(tx Tx) error {
		acct, err := tx.Accounts().Lock(ctx, a)
		if err != nil {
			return err
		}
		if up, err = tx.Upgrades().Get(ctx, a, uid); err != nil {
			return err
		}
		if up.Status == payment.Canceled {
			return nil
		}
		if !up.Status.Pending() {
			return upgrade.ErrSettled
		}
		defer failpoint.Hit(failpoint.CancelUpgrade, failpoint.Tx2BeforeCommit)
		return failUpgrade(ctx, tx, acct, &up, payment.Canceled, nil, acct.Now(u.Clock()))
	})
	failpoint.Hit(failpoint.CancelUpgrade, failpoint.AfterTx2)
	return up, err
}

// pendingUpgrade is ErrPending that names the upgrade, so that a page can resume it.
func pendingUpgrade(u upgrade.Upgrade) *errs.Error {
	return upgrade.ErrPending.With("upgrade", u.ID).With("upgrade_status", u.Status)
}

// upgradeAllowed is the guard of an upgrade, by the same function that fills actions[].
func upgradeAllowed(ctx context.Context, tx Tx, acct account.Account) error {
	u, err := tx.Upgrades().Pending(ctx, acct.ID)
	switch {
	case err == nil:
		return pendingUpgrade(u)
	case errors.Is(err, upgrade.ErrNotFound):
		return nil
	}
	return err
}
