package billing

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/internal/upgrade"
	"github.com/accrue-billing/accrue/pkg/money"
)

// ActionName names something that a customer can do on the Billing page.
type ActionName string

// The actions.
const (
	ActUpgrade      ActionName = "upgrade"
	ActDowngrade    ActionName = "downgrade"
	ActKeepPlan     ActionName = "cancel_downgrade"
	ActContactSales ActionName = "contact_sales"
	ActAddCard      ActionName = "add_payment_method"
	ActRemoveCard   ActionName = "remove_payment_method"
	ActTopUp        ActionName = "top_up"
	ActPayInvoice   ActionName = "pay_invoice"
	ActCloseAccount ActionName = "close_account"
)

// Blocker is one reason why an action is not possible now, and what it is about.
type Blocker struct {
	Code   string         `json:"code"`
	Detail string         `json:"detail"`
	Params map[string]any `json:"params"` // never nil
}

// Action is something that a customer can do, or why not.
type Action struct {
	Name     ActionName `json:"name"`
	Allowed  bool       `json:"allowed"`
	Blockers []Blocker  `json:"blockers"`
	Method   string     `json:"method"` // of the request that does it
	Href     string     `json:"href"`
}

// Facts is all that decides what an account may do. It is gathered once, and Actions is a pure function
// of it: the page and the guard of each write ask the same question.
type Facts struct {
	Account        account.Account
	Subscription   subscription.Subscription // the zero one after the account was closed
	Plan           plan.Plan
	Priced         bool // something on the account's terms can cost money
	Better         []plan.Plan
	Methods        []payment.Method
	PendingUpgrade *upgrade.Upgrade
	PendingTopUp   *payment.TopUp
	Unpaid         []invoice.Invoice
	Payable        []invoice.Invoice // those, and what was written off and keeps the account suspended
	Balance        Balance
	running        rated        // what the running period comes to; the zero one where none is
	Owed           money.Amount // due and accrued, less what credit and funds cover: what removal would leave uncovered
	OwedAtClose    money.Amount // the same if the account were closed now, and its fee due up to now
	PaymentPending bool
	Parked         bool        // a payment waits for a person to decide what became of it
	TooSmall       *errs.Error // why no card can be charged for the first payable invoice
}

// DefaultMethod returns the active card, or nil.
func (f Facts) DefaultMethod() *payment.Method {
	for i := range f.Methods {
		if f.Methods[i].Default {
			return &f.Methods[i]
		}
	}
	return nil
}

// Actions lists what the account can do now. Hrefs are relative to the API's root.
func (f Facts) Actions() []Action {
	out := []Action{
		f.action(ActUpgrade, "POST", "/v1/upgrades"),
		f.action(ActDowngrade, "POST", "/v1/downgrades"),
		f.action(ActKeepPlan, "DELETE", "/v1/downgrades"),
		f.action(ActContactSales, "POST", "/v1/sales-inquiries"),
		f.action(ActAddCard, "POST", "/v1/payment-methods"),
		f.action(ActTopUp, "POST", "/v1/top-ups"),
	}
	card, href := f.DefaultMethod(), "/v1/payment-methods"
	if card != nil {
		href += "/" + card.ID.String()
	}
	out = append(out, f.action(ActRemoveCard, "DELETE", href))
	href = "/v1/invoices"
	if len(f.Payable) > 0 {
		href += "/" + f.Payable[0].ID.String() + "/pay"
	}
	return append(out, f.action(ActPayInvoice, "POST", href), f.action(ActCloseAccount, "POST", "/v1/account/close"))
}

func (f Facts) action(n ActionName, method, href string) Action {
	b := f.Blockers(n)
	if b == nil {
		b = []Blocker{}
	}
	return Action{Name: n, Allowed: len(b) == 0, Blockers: b, Method: method, Href: href}
}

// Guard returns ErrBlocked with the blockers of an action, or nil if it is allowed.
func (f Facts) Guard(n ActionName) error {
	b := f.Blockers(n)
	if len(b) == 0 {
		return nil
	}
	e := ErrBlocked.With("action", n).With("blockers", b)
	e.Code, e.Detail = b[0].Code, b[0].Detail
	return e
}

func blocker(err *errs.Error, params map[string]any) Blocker {
	if params == nil {
		params = map[string]any{}
	}
	return Blocker{Code: err.Code, Detail: err.Detail, Params: params}
}

// Blockers says why an action is not possible now; nothing stands in the way of an empty list.
func (f Facts) Blockers(n ActionName) []Blocker {
	if f.Account.Status == account.Closed {
		return []Blocker{blocker(account.ErrClosed, nil)}
	}
	var out []Blocker
	switch n {
	case ActUpgrade:
		if f.PendingUpgrade != nil {
			out = append(out, blocker(upgrade.ErrPending, map[string]any{"upgrade": f.PendingUpgrade.ID, "status": f.PendingUpgrade.Status}))
		}
		if !f.selfServiceBetter() {
			out = append(out, blocker(ErrNotAnUpgrade, map[string]any{"plan": f.Subscription.Plan}))
		} else if !f.Subscription.Contract.IsZero() {
			out = append(out, blocker(ErrUnderContract, map[string]any{"contract": f.Subscription.Contract.String()}))
		}
	case ActDowngrade:
		switch {
		case !f.Subscription.Contract.IsZero():
			out = append(out, blocker(ErrUnderContract, map[string]any{"contract": f.Subscription.Contract.String()}))
		case f.Plan.Position == 0:
			out = append(out, blocker(ErrNotADowngrade, nil))
		case f.Subscription.NextPlan != "":
			out = append(out, blocker(ErrDowngradePlanned, map[string]any{"plan": f.Subscription.NextPlan, "at": f.Subscription.Period.End}))
		}
	case ActKeepPlan:
		if f.Subscription.NextPlan == "" {
			out = append(out, blocker(ErrNoDowngrade, nil))
		}
	case ActTopUp:
		takes := f.Priced || f.Owed.Sign() > 0
		if !takes {
			out = append(out, blocker(ErrUpgradeRequired, nil))
		}
		if f.PendingTopUp != nil {
			out = append(out, blocker(payment.ErrTopUpPending, map[string]any{"top_up": f.PendingTopUp.ID, "status": f.PendingTopUp.Status}))
		}
		if takes && f.DefaultMethod() == nil {
			out = append(out, blocker(payment.ErrNoMethod, nil))
		}
	case ActPayInvoice:
		if len(f.Payable) == 0 {
			out = append(out, blocker(ErrNothingDue, nil))
		}
		if f.DefaultMethod() == nil {
			out = append(out, blocker(payment.ErrNoMethod, nil))
		}
		if f.PaymentPending {
			out = append(out, blocker(payment.ErrPaymentPending, nil))
		}
		if f.TooSmall != nil {
			out = append(out, blocker(f.TooSmall, f.TooSmall.Params))
		}
	case ActRemoveCard:
		if f.DefaultMethod() == nil {
			out = append(out, blocker(payment.ErrNoMethod, nil))
			break
		}
		out = append(out, f.removal(*f.DefaultMethod())...)
	case ActCloseAccount:
		if !f.Subscription.Contract.IsZero() {
			out = append(out, blocker(ErrUnderContract, map[string]any{"contract": f.Subscription.Contract.String()}))
		}
		if f.OwedAtClose.Sign() > 0 {
			out = append(out, blocker(ErrOwing, map[string]any{"outstanding": f.OwedAtClose}))
		}
		if f.PendingUpgrade != nil || f.PendingTopUp != nil || f.PaymentPending || f.Parked {
			out = append(out, blocker(payment.ErrPaymentPending, nil))
		}
	case ActContactSales, ActAddCard:
	}
	return out
}

func (f Facts) selfServiceBetter() bool {
	for _, p := range f.Better {
		if !p.ContactSales {
			return true
		}
	}
	return false
}

// removal says why a customer cannot remove a card by itself: the active card never, so that what is
// owed can be paid; the ways out stand in the problem (see Cards.Remove).
func (f Facts) removal(m payment.Method) []Blocker {
	var out []Blocker
	if m.Default {
		out = append(out, blocker(ErrActiveCard, nil))
	}
	if m.Default && f.Owed.Sign() > 0 {
		out = append(out, blocker(ErrOwing, map[string]any{"outstanding": f.Owed}))
	}
	return out
}

// settled reports whether nothing is owed, nor can be by what is under way.
func (f Facts) settled() bool {
	return f.Owed.Sign() <= 0 && len(f.Unpaid) == 0 && f.PendingTopUp == nil && !f.PaymentPending && !f.Parked
}

// facts gathers what decides an account's actions.
func (c *Core) facts(ctx context.Context, tx Tx, acct account.Account) (f Facts, err error) {
	f.Account, f.Owed, f.OwedAtClose = acct, zeroOf(acct), zeroOf(acct)
	if f.Subscription, err = tx.Subscriptions().Active(ctx, acct.ID); err != nil && !errors.Is(err, subscription.ErrNotFound) {
		return f, err
	}
	if err == nil {
		if err := c.planFacts(ctx, tx, acct, &f); err != nil {
			return f, err
		}
	}
	if f.Methods, err = tx.Payments().Methods(ctx, acct.ID); err != nil {
		return f, err
	}
	if u, err := tx.Upgrades().Pending(ctx, acct.ID); err == nil {
		f.PendingUpgrade = &u
	} else if !errors.Is(err, upgrade.ErrNotFound) {
		return f, err
	}
	if t, err := tx.Payments().PendingTopUp(ctx, acct.ID); err == nil {
		f.PendingTopUp = &t
	} else if !errors.Is(err, payment.ErrTopUpNotFound) {
		return f, err
	}
	parked, err := tx.Payments().Parked(ctx, acct.ID, page.Request{Limit: 1})
	if err != nil {
		return f, err
	}
	f.Parked = len(parked.Data) > 0
	if f.Unpaid, err = tx.Invoices().Unpaid(ctx, acct.ID); err != nil {
		return f, err
	}
	f.Payable = slices.Clone(f.Unpaid)
	if acct.Status == account.Suspended {
		suspending, err := tx.Invoices().Suspending(ctx, acct.ID)
		if err != nil {
			return f, err
		}
		for _, inv := range suspending {
			if inv.Status == invoice.Uncollectible {
				f.Payable = append(f.Payable, inv)
			}
		}
	}
	if len(f.Payable) > 0 {
		limits, err := c.Gateway.Limits(acct.Currency)
		if err != nil {
			return f, err
		}
		if err := limits.Check(chargeable(f.Payable[0], limits)); err != nil && !errors.As(err, &f.TooSmall) {
			return f, err
		}
	}
	for i := range f.Payable {
		active, err := c.activePayment(ctx, tx, &f.Payable[i])
		if err != nil {
			return f, err
		}
		f.PaymentPending = f.PaymentPending || active
	}
	if f.Balance, f.running, err = balanceAndBill(ctx, tx, acct); err != nil {
		return f, err
	}
	f.Owed = f.Balance.owed()
	f.OwedAtClose, err = owedAtClose(f.Owed, f.Subscription, f.running, acct.Now(c.Clock()))
	return f, err
}

// owedAtClose is what would be owed if the account were closed: what is owed, less what the running period's bill would
// then come to less. An account under a contract cannot be closed.
func owedAtClose(owed money.Amount, sub subscription.Subscription, running rated, now time.Time) (money.Amount, error) {
	if owed.IsZero() || sub.ID.IsZero() || running.input.Contract != nil {
		return owed, nil
	}
	last, in := sub.Opened(), running.input
	last.ClosedAt = now
	in.Held = last.Present()
	closed, err := pricing.Accrued(in)
	if err != nil {
		return owed, err
	}
	owed.Minor = max(0, owed.Minor-(running.bill.Total.Minor-closed.Minor))
	return owed, nil
}

func (c *Core) planFacts(ctx context.Context, tx Tx, acct account.Account, f *Facts) error {
	v, contract, err := terms(ctx, tx, acct.ID, f.Subscription.Terms, f.Subscription.Period.Start)
	if err != nil {
		return err
	}
	f.Priced = v.Priced() || contract != nil
	plans, err := tx.Plans().Plans(ctx)
	if err != nil {
		return err
	}
	for _, p := range plans {
		if p.Code == f.Subscription.Plan {
			f.Plan = p
		}
	}
	for _, p := range plans {
		if !p.Archived && p.Position > f.Plan.Position {
			f.Better = append(f.Better, p)
		}
	}
	return nil
}

// Errors that an action's blockers name.
var (
	ErrActiveCard       = errs.New(errs.Conflict, "active_payment_method", "The active card cannot be removed while it is the one that is charged. Use another card in its place, or ask support.")
	ErrOwing            = errs.New(errs.Conflict, "outstanding_balance", "There is an outstanding amount. Pay it first.")
	ErrNothingDue       = errs.New(errs.Conflict, "nothing_due", "Nothing is due.")
	ErrNotADowngrade    = errs.New(errs.Conflict, "not_a_downgrade", "The account is on the lowest plan already.")
	ErrNoDowngrade      = errs.New(errs.Conflict, "no_downgrade_planned", "No change of plan is planned.")
	ErrDowngradePlanned = errs.New(errs.Conflict, "downgrade_planned", "A change of plan is planned for the end of the period already.")
)
