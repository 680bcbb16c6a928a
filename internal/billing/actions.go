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
	Priced         bool        // something on the account's terms can cost money
	NoUpgrade      *errs.Error // why there is no plan that the account can move up to by itself
	Methods        []payment.Method
	PendingUpgrade *upgrade.Upgrade
	PendingTopUp   *payment.TopUp
	Unpaid         []invoice.Invoice
	Payable        []Payable // those, and what was written off and keeps the account suspended
	Balance        Balance
	running        rated        // what the running period comes to; the zero one where none is
	Owed           money.Amount // due and accrued, less what credit and funds cover: what removal would leave uncovered
	OwedAtClose    money.Amount // the same if the account were closed now, and its fee due up to now
	PaymentPending bool
	Parked         bool        // a payment waits for a person to decide what became of it
	NoCharge       *errs.Error // why the default card cannot be charged now, or that there is none
}

// Payable is an invoice that can be paid, and why not now by the default card.
type Payable struct {
	invoice.Invoice
	Why []*errs.Error
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
	if p := f.toPay(); p != nil {
		href = payHref(p)
	}
	return append(out, f.action(ActPayInvoice, "POST", href), f.action(ActCloseAccount, "POST", "/v1/account/close"))
}

func payHref(p *Payable) string { return "/v1/invoices/" + p.ID.String() + "/pay" }

// toPay is the invoice that is offered to be paid: the first for which the card can be asked now, or else the first of
// all. It is nil where nothing can be paid.
func (f Facts) toPay() *Payable {
	if len(f.Payable) == 0 {
		return nil
	}
	free := slices.IndexFunc(f.Payable, func(p Payable) bool { return len(p.Why) == 0 })
	return &f.Payable[max(free, 0)]
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

func blocker(err *errs.Error) Blocker {
	params := err.Params
	if params == nil {
		params = map[string]any{}
	}
	return Blocker{Code: err.Code, Detail: err.Detail, Params: params}
}

func blockers(why []*errs.Error) []Blocker {
	out := make([]Blocker, 0, len(why))
	for _, err := range why {
		out = append(out, blocker(err))
	}
	return out
}

// whyNoTopUp says what stands in the way of adding funds, the first thing first. takes says that the plan can cost
// something, or that something is owed; noCharge is why the card cannot be charged.
func whyNoTopUp(takes bool, pending, noCharge *errs.Error) (why []*errs.Error) {
	if !takes {
		why, noCharge = append(why, ErrUpgradeRequired), nil
	}
	return appendErrors(why, pending, noCharge)
}

// whyNotPay says what stands in the way of asking a card for an invoice, the first thing first. noCharge is why the card
// cannot be charged for anything.
func whyNotPay(inv invoice.Invoice, paying bool, noCharge *errs.Error, limits payment.Limits) []*errs.Error {
	if inv.Status != invoice.Open && inv.Status != invoice.Uncollectible {
		return []*errs.Error{invoice.ErrNotOpen}
	}
	var pending *errs.Error
	if paying {
		pending = payment.ErrPaymentPending
	}
	tooSmall, _ := errors.AsType[*errs.Error](limits.Check(chargeable(inv, limits)))
	return appendErrors(nil, noCharge, pending, tooSmall)
}

// refused takes a refusal, which says what stands in the way, apart from what went wrong.
func refused(err error) (*errs.Error, error) {
	if e, ok := errors.AsType[*errs.Error](err); ok && (e.Kind == errs.Conflict || e.Kind == errs.NotFound || e.Kind == errs.Invalid) {
		return e, nil
	}
	return nil, err
}

// first is the first of what stands in the way, as an error; nil where nothing does.
func first(why []*errs.Error) error {
	if len(why) == 0 {
		return nil
	}
	return why[0]
}

func appendErrors(why []*errs.Error, more ...*errs.Error) []*errs.Error {
	for _, err := range more {
		if err != nil {
			why = append(why, err)
		}
	}
	return why
}

// Blockers says why an action is not possible now; nothing stands in the way of an empty list.
func (f Facts) Blockers(n ActionName) []Blocker {
	if f.Account.Status == account.Closed {
		return []Blocker{blocker(account.ErrClosed)}
	}
	var out []Blocker
	switch n {
	case ActUpgrade:
		if f.PendingUpgrade != nil {
			out = append(out, blocker(pendingUpgrade(*f.PendingUpgrade)))
		}
		if f.NoUpgrade != nil {
			out = append(out, blocker(f.NoUpgrade))
		}
	case ActDowngrade:
		switch {
		case !f.Subscription.Contract.IsZero():
			out = append(out, blocker(underContract(f.Subscription)))
		case f.Plan.Position == 0:
			out = append(out, blocker(ErrNotADowngrade))
		case f.Subscription.NextPlan != "":
			out = append(out, blocker(ErrDowngradePlanned.With("plan", f.Subscription.NextPlan).With("at", f.Subscription.Period.End)))
		}
	case ActKeepPlan:
		if f.Subscription.NextPlan == "" {
			out = append(out, blocker(ErrNoDowngrade))
		}
	case ActTopUp:
		var pending *errs.Error
		if f.PendingTopUp != nil {
			pending = pendingTopUp(*f.PendingTopUp)
		}
		out = append(out, blockers(whyNoTopUp(f.Priced || f.Owed.Sign() > 0, pending, f.NoCharge))...)
	case ActPayInvoice:
		if p := f.toPay(); p != nil {
			out = append(out, blockers(p.Why)...)
		} else {
			out = append(out, blockers(appendErrors(nil, ErrNothingDue, f.NoCharge))...)
		}
	case ActRemoveCard:
		if f.DefaultMethod() == nil {
			out = append(out, blocker(payment.ErrNoMethod))
			break
		}
		out = append(out, f.removal(*f.DefaultMethod())...)
	case ActCloseAccount:
		if !f.Subscription.Contract.IsZero() {
			out = append(out, blocker(underContract(f.Subscription)))
		}
		if f.OwedAtClose.Sign() > 0 {
			out = append(out, blocker(ErrOwing.With("outstanding", f.OwedAtClose)))
		}
		if f.PendingUpgrade != nil || f.PendingTopUp != nil || f.PaymentPending || f.Parked {
			out = append(out, blocker(payment.ErrPaymentPending.Details("A payment or an upgrade is still under way. Wait until it is done, or cancel the upgrade.")))
		}
	case ActContactSales, ActAddCard:
	}
	return out
}

// removal says why a customer cannot remove a card by itself: the active card never, so that what is
// owed can be paid; the ways out stand in the problem (see Cards.Remove).
func (f Facts) removal(m payment.Method) []Blocker {
	var out []Blocker
	if m.Default {
		out = append(out, blocker(ErrActiveCard))
	}
	if m.Default && f.Owed.Sign() > 0 {
		out = append(out, blocker(ErrOwing.With("outstanding", f.Owed)))
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
	if err := c.payableFacts(ctx, tx, acct, &f); err != nil {
		return f, err
	}
	if f.Balance, f.running, err = balanceAndBill(ctx, tx, acct); err != nil {
		return f, err
	}
	f.Owed = f.Balance.owed()
	f.OwedAtClose, err = owedAtClose(f.Owed, f.Subscription, f.running, acct.Now(c.Clock()))
	return f, err
}

// payableFacts gathers what can be paid by card, and what stands in the way.
func (c *Core) payableFacts(ctx context.Context, tx Tx, acct account.Account, f *Facts) error {
	_, err := c.cardToCharge(ctx, tx, acct, payment.MethodID{})
	if f.NoCharge, err = refused(err); err != nil {
		return err
	}
	paying, err := tx.Payments().Paying(ctx, acct.ID)
	if err != nil {
		return err
	}
	f.PaymentPending = len(paying) > 0
	all, err := payable(ctx, tx, acct)
	if err != nil || len(all) == 0 {
		return err
	}
	limits, err := c.Gateway.Limits(acct.Currency)
	if err != nil {
		return err
	}
	for _, inv := range all {
		if inv.Status == invoice.Open {
			f.Unpaid = append(f.Unpaid, inv)
		}
		f.Payable = append(f.Payable, Payable{inv, whyNotPay(inv, slices.Contains(paying, inv.ID), f.NoCharge, limits)})
	}
	return nil
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
	f.NoUpgrade = ErrNotAnUpgrade.With("plan", f.Plan.Code)
	first := true
	for _, p := range plans {
		if p.Archived || p.ContactSales || p.Position <= f.Plan.Position {
			continue
		}
		_, err := upgradeTo(ctx, tx, acct, f.Subscription, f.Plan, p)
		why, err := refused(err)
		if err != nil {
			return err
		}
		if why == nil || first {
			f.NoUpgrade, first = why, false
		}
		if why == nil {
			break
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
