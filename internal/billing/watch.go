package billing

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/alert"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/job"
	"github.com/accrue-billing/accrue/internal/outbox"
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
	return w.look(ctx, w.DB, w.DB.InTx, acct)
}

// look tells of what has been reached in the running period, in transactions of in.
func (w Watcher) look(ctx context.Context, db Tx, in inTx, acct account.Account) error {
	all, err := db.Alerts().List(ctx, acct.ID)
	if err != nil {
		return err
	}
	e, err := db.Entitlements().Get(ctx, acct.ID)
	if err != nil {
		return err
	}
	soft := e.SoftLimits()
	if len(all) == 0 && e.SpendLimit == nil && len(soft) == 0 {
		return nil
	}
	b, running, err := balanceAndBill(ctx, db, acct)
	if err != nil {
		return err
	}
	spent, err := running.total() // not what the period before comes to, which may be in its grace
	if err != nil {
		return err
	}
	totals, err := db.Usage().Totals(ctx, acct.ID, e.PeriodStart(), false)
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
			value = money.DecimalFromInt(spent.Minor)
		case alert.LowBalance:
		}
		if !al.Reached(value) {
			continue
		}
		if err := w.fire(ctx, in, acct, al, e.PeriodStart(), value); err != nil {
			return err
		}
	}
	for _, meter := range soft {
		if limit := e.Limits[meter].Quantity; used[meter].Cmp(limit) >= 0 {
			if err := w.softLimit(ctx, in, acct, e, meter, used[meter]); err != nil {
				return err
			}
		}
	}
	if e.SpendLimit != nil && acct.Status == account.Active {
		return w.spendLimit(ctx, db, in, acct, e, spent)
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
func (w Watcher) softLimit(ctx context.Context, in inTx, acct account.Account, e entitlement.Entitlement, meter string, used money.Decimal) error {
	limit := e.Limits[meter].Quantity
	return in(ctx, func(tx Tx) error {
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
func (w Watcher) spendLimit(ctx context.Context, db Tx, in inTx, acct account.Account, e entitlement.Entitlement, accrued money.Amount) error {
	reached := accrued.Minor >= *e.SpendLimit
	if !reached {
		refused, err := db.Usage().Refused(ctx, acct.ID, string(entitlement.SpendLimitReached), e.PeriodStart(), e.UpdatedAt)
		if err != nil || !refused {
			return err
		}
	}
	return in(ctx, func(tx Tx) error {
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
func (w Watcher) fire(ctx context.Context, in inTx, acct account.Account, al alert.Alert, periodStart time.Time, value money.Decimal) error {
	return in(ctx, func(tx Tx) error {
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

// Alerter keeps an account's alerts.
type Alerter struct{ *Core }

// Add creates an alert.
func (r Alerter) Add(ctx context.Context, asked Asked, in alert.Alert, render Renderer[alert.Alert]) (_ Result[alert.Alert], err error) {
	defer errs.Wrap(&err, "add alert to %s", asked.Account)
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
