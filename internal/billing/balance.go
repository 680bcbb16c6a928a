package billing

import (
	"context"
	"errors"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Balance is where an account stands: available = funds + promo − due − accrued − reserved. It may be negative.
type Balance struct {
	Currency  money.Currency
	Funds     money.Amount // paid in ahead and not yet spent
	Promo     money.Amount // promotional credit not yet spent
	Due       money.Amount // on final invoices and not yet paid
	Accrued   money.Amount // used and not yet on a final invoice
	Reserved  money.Amount // held for calls that are going on
	Available money.Amount
}

// owed is what is due and accrued, less what credit and funds cover of it. Funds that a dispute has taken below nothing are
// owed too, and credit pays none of that.
func (b Balance) owed() money.Amount {
	bills := b.Due.Minor + b.Accrued.Minor
	bills -= min(max(0, bills), b.Promo.Minor)
	return money.New(max(0, bills-b.Funds.Minor), b.Currency)
}

// Reader reads what spans several concepts.
type Reader struct{ *Core }

// Balance returns where the account stands now. It is true of every event that was acknowledged.
func (r Reader) Balance(ctx context.Context, a account.ID) (_ Balance, err error) {
	defer errs.Wrap(&err, "balance of %s", a)
	acct, err := r.DB.Accounts().Get(ctx, a)
	if err != nil {
		return Balance{}, err
	}
	return balance(ctx, r.DB, acct)
}

func balance(ctx context.Context, tx Tx, acct account.Account) (Balance, error) {
	b, _, err := balanceAndBill(ctx, tx, acct)
	return b, err
}

// balanceAndBill is balance with what the running period comes to, the zero value where none is running.
func balanceAndBill(ctx context.Context, tx Tx, acct account.Account) (b Balance, running rated, err error) {
	ledgerBalances, err := tx.Ledger().Balances(ctx, acct.ID)
	if err != nil {
		return b, running, err
	}
	st := books.StandingOf(ledgerBalances, acct.Currency)
	u, err := unbilledNow(ctx, tx, acct)
	if err != nil {
		return b, running, err
	}
	b = Balance{Currency: acct.Currency, Funds: st.Funds, Promo: st.Promo, Due: st.Due, Accrued: u.accrued, Reserved: u.reserved}
	b.Available = money.New(b.Funds.Minor+b.Promo.Minor-b.Due.Minor-b.Accrued.Minor-b.Reserved.Minor, acct.Currency)
	return b, u.running, nil
}

// unbilled is what is on no final invoice.
type unbilled struct {
	accrued  money.Amount // used in the current period and those that are in their grace, and late for earlier ones
	reserved money.Amount // what open reservations would add to it
	running  rated        // the current period of it; the zero value where none is running
}

func unbilledNow(ctx context.Context, tx Tx, acct account.Account) (u unbilled, err error) {
	u.accrued, u.reserved = zeroOf(acct), zeroOf(acct)
	sub, err := tx.Subscriptions().Active(ctx, acct.ID)
	if errors.Is(err, subscription.ErrNotFound) {
		return u, nil
	}
	if err != nil {
		return u, err
	}
	if u.running, err = rate(ctx, tx, acct, sub.Opened()); err != nil {
		return u, err
	}
	if u.reserved, err = u.running.reserved(); err != nil {
		return u, err
	}
	if u.accrued, err = u.running.total(); err != nil {
		return u, err
	}
	drafts, err := tx.Invoices().List(ctx, acct.ID, invoice.Draft, firstPage)
	if err != nil {
		return u, err
	}
	for _, d := range drafts.Data {
		p, err := tx.Subscriptions().Period(ctx, acct.ID, d.Period.Start)
		if err != nil {
			return u, err
		}
		// The late usage of older periods is counted with the current one; here the period alone.
		own, err := rate(ctx, tx, acct, p)
		if err != nil {
			return u, err
		}
		if u.accrued, err = u.accrued.Add(own.bill.Total); err != nil {
			return u, err
		}
	}
	return u, nil
}
