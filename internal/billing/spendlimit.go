package billing

import (
	"context"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/pkg/money"
)

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
