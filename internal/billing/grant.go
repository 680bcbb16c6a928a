package billing

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

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
func (g Granter) Grant(ctx context.Context, asked Asked, in GrantInput, render Renderer[wallet.Grant]) (_ Result[wallet.Grant], err error) {
	defer errs.Wrap(&err, "grant credit to %s", asked.Account)
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
		b, err := tx.Ledger().Balances(ctx, acct.ID)
		if err != nil || (acct.Status == account.Active && books.StandingOf(b, acct.Currency).Due.IsZero()) { // it has the balances; the invoices would have to be asked for
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
		grants, err := tx.Wallet().Unspent(ctx, a)
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
