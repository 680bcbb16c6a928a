package billing

import (
	"context"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Opener opens accounts.
type Opener struct{ *Core }

// NewAccount is what an account begins with. Empty fields take the defaults: no name, USD, UTC.
type NewAccount struct {
	ExternalID string
	Name       string
	Currency   money.Currency
	TimeZone   string
	Profile    *account.Profile // whom its invoices are made out to, if that is known
	ClockAt    time.Time        // a test clock; only in a deployment in test mode
}

// Open creates an account on the start plan, with its first period and its limits. It returns
// account.ErrExternalIDTaken if the operator's name for it is taken.
func (o Opener) Open(ctx context.Context, in NewAccount) (acct account.Account, err error) {
	defer errs.Wrap(&err, "open account %q", in.ExternalID)
	err = o.DB.InTx(ctx, func(tx Tx) error {
		acct, err = o.open(ctx, tx, in)
		return err
	})
	return acct, err
}

// OpenOnce is Open for an operator's request, answered once per key.
func (o Opener) OpenOnce(ctx context.Context, asked Asked, in NewAccount, render Renderer[AccountView]) (_ Result[AccountView], err error) {
	defer errs.Wrap(&err, "open account %q", in.ExternalID)
	if in.ExternalID != "" && !opensBy(in.ExternalID) {
		return Result[AccountView]{}, errs.InvalidField("#/external_id", "invalid_identifier", "has the form of this service's own identifiers")
	}
	return once(ctx, o.Core, asked, render, func(tx Tx) (AccountView, error) {
		acct, err := o.open(ctx, tx, in)
		if err != nil {
			return AccountView{}, err
		}
		if err := tx.Accounts().Audit(ctx, acct.ID, account.Entry{Actor: asked.Actor, Action: "account.create", At: acct.CreatedAt}); err != nil {
			return AccountView{}, err
		}
		return view(ctx, tx, acct)
	})
}

func (o Opener) open(ctx context.Context, tx Tx, in NewAccount) (account.Account, error) {
	if in.Currency == "" {
		in.Currency = money.USD
	}
	if in.TimeZone == "" {
		in.TimeZone = "UTC"
	}
	zone, err := zoneOf(in.TimeZone)
	if err != nil {
		return account.Account{}, err
	}
	acct := account.Account{
		ID: id.New[account.Account](), ExternalID: in.ExternalID, Name: in.Name, Status: account.Active,
		Currency: in.Currency, TimeZone: in.TimeZone, ClockAt: in.ClockAt, Version: 1,
	}
	if acct.ExternalID == "" {
		acct.ExternalID = acct.ID.String()
	}
	acct.CreatedAt = acct.Now(o.Clock())
	acct.UpdatedAt = acct.CreatedAt
	v, err := tx.Plans().Current(ctx, plan.Code(o.Policy.StartPlan))
	if err != nil {
		return account.Account{}, err
	}
	if err := tx.Accounts().Create(ctx, acct); err != nil {
		return account.Account{}, err
	}
	if in.Profile != nil {
		p := *in.Profile
		p.Version, p.UpdatedAt = 0, acct.CreatedAt
		if err := tx.Accounts().SaveProfile(ctx, acct.ID, &p); err != nil {
			return account.Account{}, err
		}
	}
	sub := subscription.New(acct.ID, subscription.TermsOf(v), period.Anchored(acct.CreatedAt, zone, v.Every()), acct.CreatedAt)
	if err := tx.Subscriptions().Create(ctx, sub); err != nil {
		return account.Account{}, err
	}
	if err := o.entitle(ctx, tx, acct, sub); err != nil {
		return account.Account{}, err
	}
	err = tx.Outbox().Publish(ctx, acct.ID, outbox.AccountCreated, map[string]any{
		"account": acct.ID, "external_id": acct.ExternalID, "plan": sub.Plan,
	}, acct.CreatedAt)
	return acct, err
}
