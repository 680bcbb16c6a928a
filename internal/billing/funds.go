package billing

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/job"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Watcher looks at an account after its usage or its balance has changed: alerts and automatic top-up.
type Watcher struct{ *Core }

// Check fires the account's alerts that have been reached and not told in this period, then tops up
// by itself if the account's rule asks for it. It may run as often as one likes: a firing is a row
// whose insert wins the right to tell, and one top-up may be pending.
func (w Watcher) Check(ctx context.Context, a account.ID) (err error) {
	defer errs.Wrap(&err, "check funds of %s", a)
	if err := w.alerts(ctx, a); err != nil {
		return err
	}
	_, err = Funder(w).AutoTopUp(ctx, a)
	return err
}

func (w Watcher) alerts(ctx context.Context, a account.ID) error {
	acct, err := w.DB.Accounts().Get(ctx, a)
	if err != nil || acct.Status == account.Closed {
		return err
	}
	all, err := w.DB.Alerts().List(ctx, a)
	if err != nil {
		return err
	}
	e, err := w.DB.Entitlements().Get(ctx, a)
	if err != nil {
		return err
	}
	soft := e.SoftLimits()
	if len(all) == 0 && e.SpendLimit == nil && len(soft) == 0 {
		return nil
	}
	b, err := balance(ctx, w.DB, acct)
	if err != nil {
		return err
	}
	totals, err := w.DB.Usage().Totals(ctx, a, e.PeriodStart(), false)
	if err != nil {
		return err
	}
	used := quantities(totals)
	for _, al := range all {
		value := money.DecimalFromInt(b.Available.Minor)
		switch al.Kind {
		case alert.Usage:
			value = used[al.Meter]
		case alert.Spend:
			value = money.DecimalFromInt(b.Accrued.Minor)
		case alert.LowBalance:
		}
		if !al.Reached(value) {
			continue
		}
		if err := w.fire(ctx, acct, al, e.PeriodStart(), value); err != nil {
			return err
		}
	}
	for _, meter := range soft {
		if limit := e.Limits[meter].Quantity; used[meter].Cmp(limit) >= 0 {
			if err := w.softLimit(ctx, acct, e, meter, used[meter]); err != nil {
				return err
			}
		}
	}
	if e.SpendLimit != nil && acct.Status == account.Active {
		return w.spendLimit(ctx, acct, e, b.Accrued)
	}
	return nil
}

// watch has the account looked at soon after the transaction, if there is anything to look at. Usage brings that about by
// itself; what else lowers a balance, begins a period or says what is to be told of needs this.
func (c *Core) watch(ctx context.Context, tx Tx, a account.ID) error {
	watched, err := tx.Alerts().Watched(ctx, []account.ID{a})
	if err != nil || len(watched) == 0 {
		return err
	}
	return tx.Jobs().Enqueue(ctx, a, job.CheckFunds, map[string]any{}, c.Clock())
}

// softLimit tells once per period and limit that a limit is reached which lets use pass.
func (w Watcher) softLimit(ctx context.Context, acct account.Account, e entitlement.Entitlement, meter string, used money.Decimal) error {
	limit := e.Limits[meter].Quantity
	return w.DB.InTx(ctx, func(tx Tx) error {
		if _, err := tx.Accounts().Lock(ctx, acct.ID); err != nil {
			return err
		}
		first, err := tx.Entitlements().TellLimit(ctx, acct.ID, meter, limit, e.PeriodStart())
		if err != nil || !first {
			return err
		}
		return tx.Outbox().Publish(ctx, acct.ID, outbox.UsageLimitReached, map[string]any{
			"meter": meter, "limit": limit, "mode": entitlement.Soft, "used": used, "period_start": e.PeriodStart(),
		}, acct.Now(w.Clock()))
	})
}

// spendLimit tells once per period and limit that the limit is reached: what has accrued has come to it, or
// usage was refused because it would have passed it.
func (w Watcher) spendLimit(ctx context.Context, acct account.Account, e entitlement.Entitlement, accrued money.Amount) error {
	reached := accrued.Minor >= *e.SpendLimit
	if !reached {
		refused, err := w.DB.Usage().Refused(ctx, acct.ID, string(entitlement.SpendLimitReached), e.PeriodStart(), e.UpdatedAt)
		if err != nil || !refused {
			return err
		}
	}
	return w.DB.InTx(ctx, func(tx Tx) error {
		if _, err := tx.Accounts().Lock(ctx, acct.ID); err != nil {
			return err
		}
		held, err := tx.Entitlements().Get(ctx, acct.ID)
		if err != nil || held.SpendLimit == nil || *held.SpendLimit != *e.SpendLimit {
			return err // whoever has changed it has asked for another look
		}
		first, err := tx.Entitlements().TellSpendLimit(ctx, acct.ID, e.PeriodStart())
		if err != nil || !first {
			return err
		}
		return tx.Outbox().Publish(ctx, acct.ID, outbox.SpendLimitReached, map[string]any{
			"spend_limit": money.New(*e.SpendLimit, acct.Currency), "mode": e.SpendMode, "accrued": accrued, "period_start": e.PeriodStart(),
		}, acct.Now(w.Clock()))
	})
}

// fire tells once per alert, period and threshold.
func (w Watcher) fire(ctx context.Context, acct account.Account, al alert.Alert, periodStart time.Time, value money.Decimal) error {
	return w.DB.InTx(ctx, func(tx Tx) error {
		now := acct.Now(w.Clock())
		first, err := tx.Alerts().Fire(ctx, acct.ID, alert.Firing{
			Alert: al.ID, PeriodStart: periodStart, Threshold: al.Threshold, Value: value, FiredAt: now,
		})
		if err != nil || !first {
			return err
		}
		return tx.Outbox().Publish(ctx, acct.ID, outbox.AlertFired, map[string]any{
			"alert": al.ID, "kind": al.Kind, "meter": al.Meter, "threshold": told(al, al.Threshold, acct.Currency), "value": told(al, value, acct.Currency),
			"period_start": periodStart,
		}, now)
	})
}

// told is a value of an alert as its event has it: a quantity of the meter, or money as it is told everywhere.
func told(al alert.Alert, value money.Decimal, currency money.Currency) any {
	if al.Kind == alert.Usage {
		return value
	}
	return alert.Money(value, currency)
}

// SpendLimit is an account's cap on what a period may come to, tax included.
type SpendLimit struct {
	Amount  *money.Amount // nil: none
	Mode    entitlement.Mode
	Version int64
}

// Limiter sets an account's spend limit.
type Limiter struct{ *Core }

// Get returns the account's spend limit.
func (l Limiter) Get(ctx context.Context, a account.ID) (SpendLimit, error) {
	e, err := l.DB.Entitlements().Get(ctx, a)
	if err != nil {
		return SpendLimit{}, err
	}
	return spendLimit(e), nil
}

func spendLimit(e entitlement.Entitlement) SpendLimit {
	s := SpendLimit{Mode: e.SpendMode, Version: e.Version}
	if e.SpendLimit != nil {
		amount := money.New(*e.SpendLimit, e.Currency)
		s.Amount = &amount
	}
	return s
}

// Set changes the spend limit for the running period and those after it. What the period has come to
// already stays used; beyond the limit it is absorbed and not billed.
func (l Limiter) Set(ctx context.Context, asked Asked, want SpendLimit) (out SpendLimit, err error) {
	defer errs.Wrap(&err, "set spend limit of %s", asked.Account)
	err = l.DB.InTx(ctx, func(tx Tx) error {
		acct, err := l.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return err
		}
		e, err := tx.Entitlements().Lock(ctx, acct.ID)
		if err != nil {
			return err
		}
		if e.Version != want.Version {
			return account.ErrStale
		}
		e.SpendLimit, e.SpendMode, e.UpdatedAt = nil, entitlement.Hard, l.Clock()
		if want.Amount != nil {
			if want.Amount.Currency != acct.Currency {
				return ErrCurrency
			}
			e.SpendLimit = &want.Amount.Minor
			if want.Mode != "" {
				e.SpendMode = want.Mode
			}
		}
		if err := tx.Entitlements().Put(ctx, e); err != nil {
			return err
		}
		if e, err = tx.Entitlements().Get(ctx, acct.ID); err != nil {
			return err
		}
		out = spendLimit(e)
		return l.watch(ctx, tx, acct.ID)
	})
	return out, err
}

// Granter gives and takes promotional credit.
type Granter struct{ *Core }

// GrantInput is an operator's gift.
type GrantInput struct {
	Amount    money.Amount
	Priority  int
	ExpiresAt time.Time // zero: never
	Reason    string
}

// Grant gives promotional credit, which pays what is open at once.
func (g Granter) Grant(ctx context.Context, asked Asked, in GrantInput, render Renderer[wallet.Grant]) (Result[wallet.Grant], error) {
	return onceOf(ctx, g.Core, asked, render, func(tx Tx) (wallet.Grant, error) {
		acct, err := g.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return wallet.Grant{}, err
		}
		if in.Amount.Currency != acct.Currency {
			return wallet.Grant{}, ErrCurrency
		}
		now := acct.Now(g.Clock())
		gr := wallet.Grant{
			ID: id.New[wallet.Grant](), Account: acct.ID, Amount: in.Amount, Remaining: in.Amount, Priority: in.Priority,
			Reason: in.Reason, Actor: asked.Actor, GrantedAt: now, ExpiresAt: in.ExpiresAt,
		}
		if !in.ExpiresAt.IsZero() && !in.ExpiresAt.After(now) {
			return gr, errs.InvalidField("#/expires_at", "in_the_past", "The credit would expire before it could be spent.")
		}
		if err := tx.Wallet().CreateGrant(ctx, gr); err != nil {
			return gr, err
		}
		if err := tx.Ledger().Append(ctx, books.PromoGranted(g.fact(acct, gr.ID.String(), "Promotional credit", now), gr.Amount)); err != nil {
			return gr, err
		}
		if err := tx.Accounts().Audit(ctx, acct.ID, account.Entry{
			Actor: asked.Actor, Action: "credit.grant", Reason: in.Reason, Detail: detail("credit", gr.ID), At: now,
		}); err != nil {
			return gr, err
		}
		if err := tx.Outbox().Publish(ctx, acct.ID, outbox.CreditGranted, map[string]any{"grant": gr.ID, "amount": gr.Amount}, now); err != nil {
			return gr, err
		}
		if err := g.payFromFunds(ctx, tx, acct, now); err != nil {
			return gr, err
		}
		return tx.Wallet().Grant(ctx, acct.ID, gr.ID)
	})
}

// Expire takes back what remains of a grant whose time is over.
func (g Granter) Expire(ctx context.Context, a account.ID) (err error) {
	_, err = g.expire(ctx, a)
	return err
}

// expire is Expire, and counts the grants.
func (g Granter) expire(ctx context.Context, a account.ID) (expired int, err error) {
	defer errs.Wrap(&err, "expire credit of %s", a)
	err = g.DB.InTx(ctx, func(tx Tx) error {
		expired = 0
		acct, err := tx.Accounts().Lock(ctx, a)
		if err != nil {
			return err
		}
		now := acct.Now(g.Clock())
		grants, err := tx.Wallet().LockGrants(ctx, a)
		if err != nil {
			return err
		}
		for _, gr := range grants {
			if gr.ExpiresAt.IsZero() || now.Before(gr.ExpiresAt) {
				continue
			}
			if err := g.end(ctx, tx, acct, &gr, "Promotional credit expired", now); err != nil {
				return err
			}
			expired++
		}
		return nil
	})
	return expired, err
}

// end takes back what remains of a grant.
func (g Granter) end(ctx context.Context, tx Tx, acct account.Account, gr *wallet.Grant, words string, now time.Time) error {
	left := gr.Remaining
	gr.Remaining, gr.ExpiredAt = zeroOf(acct), now
	if err := tx.Wallet().SaveGrant(ctx, *gr); err != nil {
		return err
	}
	if err := tx.Ledger().Append(ctx, books.PromoExpired(g.fact(acct, gr.ID.String(), words, now), left)); err != nil {
		return err
	}
	if err := g.watch(ctx, tx, acct.ID); err != nil {
		return err
	}
	return tx.Outbox().Publish(ctx, acct.ID, outbox.CreditExpired, map[string]any{"grant": gr.ID, "amount": left}, now)
}

// Void takes back what is left of a grant before its time. One of which nothing is left is returned as it is.
func (g Granter) Void(ctx context.Context, asked Asked, gid wallet.GrantID, reason string, render Renderer[wallet.Grant]) (_ Result[wallet.Grant], err error) {
	defer errs.Wrap(&err, "void credit %s", gid)
	return once(ctx, g.Core, asked, render, func(tx Tx) (wallet.Grant, error) {
		acct, err := tx.Accounts().Lock(ctx, asked.Account)
		if err != nil {
			return wallet.Grant{}, err
		}
		gr, err := tx.Wallet().Grant(ctx, acct.ID, gid) // the account's lock holds its grants too
		if err != nil {
			return gr, err
		}
		now := acct.Now(g.Clock())
		if !gr.Remaining.IsZero() {
			if err := g.end(ctx, tx, acct, &gr, "Promotional credit taken back", now); err != nil {
				return gr, err
			}
		}
		return gr, tx.Accounts().Audit(ctx, acct.ID, account.Entry{
			Actor: asked.Actor, Action: "credit.void", Reason: reason, Detail: detail("credit", gr.ID), At: now,
		})
	})
}

// Alerter keeps an account's alerts.
type Alerter struct{ *Core }

// Add creates an alert.
func (r Alerter) Add(ctx context.Context, asked Asked, in alert.Alert, render Renderer[alert.Alert]) (Result[alert.Alert], error) {
	return once(ctx, r.Core, asked, render, func(tx Tx) (alert.Alert, error) {
		acct, err := r.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return in, err
		}
		in.ID, in.Account, in.CreatedAt = id.New[alert.Alert](), acct.ID, acct.Now(r.Clock())
		if err := tx.Alerts().Create(ctx, in); err != nil {
			return in, err
		}
		return in, r.watch(ctx, tx, acct.ID)
	})
}
