package billing

import (
	"context"
	"errors"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/subscription"
)

// Keeper keeps what an account says about itself.
type Keeper struct{ *Core }

// AccountView is an account with the agreement that it holds.
type AccountView struct {
	account.Account
	Subscription subscription.Subscription // the zero one after the account was closed
}

// closedVersions is added to the version of an account that has no agreement any more, so that it is
// higher than any before.
const closedVersions = 1 << 40

// Version grows with every change of the account or of its agreement.
func (v AccountView) Version() int64 {
	if v.Subscription.ID.IsZero() {
		return v.Account.Version + closedVersions
	}
	return v.Account.Version + v.Subscription.Revision
}

// View returns the account with its agreement.
func (k Keeper) View(ctx context.Context, a account.ID) (AccountView, error) {
	acct, err := k.DB.Accounts().Get(ctx, a)
	if err != nil {
		return AccountView{}, err
	}
	return view(ctx, k.DB, acct)
}

func view(ctx context.Context, tx Tx, acct account.Account) (AccountView, error) {
	sub, err := tx.Subscriptions().Active(ctx, acct.ID)
	if err != nil && !errors.Is(err, subscription.ErrNotFound) {
		return AccountView{}, err
	}
	return AccountView{acct, sub}, nil
}

// AccountStanding is an account with its agreement and where it stands in the books.
type AccountStanding struct {
	AccountView
	books.Standing
}

// List pages through the accounts that f chooses, newest first.
func (k Keeper) List(ctx context.Context, f account.Filter, r page.Request) (out page.Page[AccountStanding], err error) {
	defer errs.Wrap(&err, "list accounts")
	p, err := k.DB.Accounts().List(ctx, f, r)
	if err != nil || len(p.Data) == 0 {
		return out, err
	}
	ids := make([]account.ID, len(p.Data))
	for i, a := range p.Data {
		ids[i] = a.ID
	}
	subs, err := k.DB.Subscriptions().ActiveOf(ctx, ids)
	if err != nil {
		return out, err
	}
	booked, err := k.DB.Ledger().BalancesOf(ctx, ids)
	if err != nil {
		return out, err
	}
	out.Next = p.Next
	for _, a := range p.Data {
		out.Data = append(out.Data, AccountStanding{AccountView{a, subs[a.ID]}, books.StandingOf(booked[a.ID], a.Currency)})
	}
	return out, nil
}

// AccountChange changes an account. Nil fields stay as they are.
type AccountChange struct {
	Version  int64 // the view's that was read
	Name     *string
	TimeZone *string // takes effect with the next period
}

// Change edits the account. It returns account.ErrStale if the version is another.
func (k Keeper) Change(ctx context.Context, asked Asked, in AccountChange) (out AccountView, err error) {
	defer errs.Wrap(&err, "change account %s", asked.Account)
	if in.TimeZone != nil {
		if _, err := zoneOf(*in.TimeZone); err != nil {
			return out, err
		}
	}
	err = k.DB.InTx(ctx, func(tx Tx) error {
		acct, err := k.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return err
		}
		if out, err = view(ctx, tx, acct); err != nil {
			return err
		}
		if out.Version() != in.Version {
			return account.ErrStale
		}
		if in.Name != nil {
			acct.Name = *in.Name
		}
		if in.TimeZone != nil {
			acct.TimeZone = *in.TimeZone
		}
		acct.UpdatedAt = acct.Now(k.Clock())
		if err := tx.Accounts().Save(ctx, &acct); err != nil {
			return err
		}
		out.Account = acct
		return tx.Accounts().Audit(ctx, acct.ID, account.Entry{Actor: asked.Actor, Action: "account.change", At: acct.UpdatedAt})
	})
	return out, err
}

// zoneOf returns the time zone that a caller names.
func zoneOf(name string) (*time.Location, error) {
	zone, err := period.LoadZone(name)
	if err != nil {
		return nil, errs.InvalidField("#/time_zone", "unknown_time_zone", "%q is no IANA time zone.", name)
	}
	return zone, nil
}

// SetProfile replaces the billing profile: whom invoices are made out to from now on. p.Version is the
// one that was read, 0 where there was none. It returns account.ErrStale if the version is another.
func (k Keeper) SetProfile(ctx context.Context, asked Asked, p account.Profile) (_ account.Profile, err error) {
	defer errs.Wrap(&err, "set billing profile of %s", asked.Account)
	want := p.Version
	err = k.DB.InTx(ctx, func(tx Tx) error {
		acct, err := k.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return err
		}
		held, err := tx.Accounts().Profile(ctx, acct.ID)
		if err != nil && !errors.Is(err, account.ErrNoProfile) {
			return err
		}
		if held.Version != want {
			return account.ErrStale
		}
		p.Version, p.UpdatedAt = want, acct.Now(k.Clock())
		if err := tx.Accounts().SaveProfile(ctx, acct.ID, &p); err != nil {
			return err
		}
		return tx.Accounts().Audit(ctx, acct.ID, account.Entry{Actor: asked.Actor, Action: "billing_profile.change", At: p.UpdatedAt})
	})
	return p, err
}
