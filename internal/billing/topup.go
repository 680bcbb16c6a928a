package billing

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/failpoint"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Funder adds funds by card.
type Funder struct{ *Core }

// TopUpInput is what "Add funds" sends.
type TopUpInput struct {
	Amount money.Amount     // of an automatic one: what is due
	Method payment.MethodID // zero: the default card
	Origin payment.Origin
}

// TopUp is a top-up with the payment that it stands for.
type TopUp struct {
	payment.TopUp
	Charge payment.Payment
}

// TopUp charges the card and adds the amount to the funds in the transaction that records the
// provider's yes. One top-up of an account may be pending: others wait for their turn while its card is being
// asked, and are refused if that takes too long or the customer must act. The status is succeeded,
// requires_action, processing or failed.
func (f Funder) TopUp(ctx context.Context, asked Asked, in TopUpInput, render Renderer[TopUp]) (out Result[TopUp], err error) {
	defer errs.Wrap(&err, "top up %s", asked.Account)
	wait, enough := patient(ctx)
	defer enough()
	defer f.topUps.join(wait, asked.Account)()
	for {
		if out, err = f.topUp(ctx, asked, in, render); !answersSoon(err) || !pauses(wait, pollPending) {
			return out, err
		}
	}
}

// pollPending is how often a top-up looks whether the one that another process is about has ended.
const pollPending = 50 * time.Millisecond

// pauses reports whether d passed before ctx ended.
func pauses(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// answersSoon reports a refusal for a top-up whose card is being asked right now.
func answersSoon(err error) bool {
	e, ok := errors.AsType[*errs.Error](err)
	return ok && errors.Is(e, payment.ErrTopUpPending) && e.RetryAfter > 0
}

func (f Funder) topUp(ctx context.Context, asked Asked, in TopUpInput, render Renderer[TopUp]) (out Result[TopUp], err error) {
	failpoint.Hit(failpoint.TopUp, failpoint.Received)
	tid := id.New[payment.TopUp]()
	var top TopUp
	var m payment.Method
	settled := false
	called, err := f.commitIntentOf(ctx, Start{Account: asked.Account, Key: asked.Key, Charges: true}, func(tx Tx) error {
		settled = false
		acct, err := f.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return err
		}
		return claimed(ctx, tx, asked, tid.UUID(), &out, func() error {
			top, m, err = f.begin(ctx, tx, acct, asked, tid, in)
			return err
		}, func(record uuid.UUID) error {
			if top, err = loadTopUp(ctx, tx, acct.ID, id.FromUUID[payment.TopUp](record)); err != nil {
				return err
			}
			if top.Status.Pending() {
				m, err = tx.Payments().Method(ctx, acct.ID, top.Charge.Method)
				return err
			}
			settled = true
			return complete(ctx, tx, asked, top, render)
		})
	})
	defer called()
	if err != nil || out.Replayed != nil {
		return out, err
	}
	if !settled {
		p, err := f.charge(ctx, top.Charge, m, called, func(tx Tx, p payment.Payment) error {
			t, err := tx.Payments().TopUp(ctx, p.Account, p.TopUp)
			if err != nil {
				return err
			}
			top = TopUp{t, p}
			return complete(ctx, tx, asked, top, render)
		})
		if err != nil {
			return out, err
		}
		top.Charge = p // with the client secret of its next action, for this answer only
	}
	out.Record = top
	return out, nil
}

func loadTopUp(ctx context.Context, tx Tx, a account.ID, tid payment.TopUpID) (TopUp, error) {
	t, err := tx.Payments().TopUp(ctx, a, tid)
	if err != nil {
		return TopUp{}, err
	}
	p, err := tx.Payments().Payment(ctx, a, t.Payment)
	return TopUp{t, p}, err
}

// Get returns a top-up of the account.
func (f Funder) Get(ctx context.Context, a account.ID, tid payment.TopUpID) (TopUp, error) {
	return loadTopUp(ctx, f.DB, a, tid)
}

// check returns the card that a top-up would charge, or why there can be none now: the guard of TopUp and of its preview.
func (f Funder) check(ctx context.Context, tx Tx, acct account.Account, in TopUpInput) (payment.Method, error) {
	var m payment.Method
	if in.Amount.Currency != acct.Currency {
		return m, &errs.Error{
			Kind: errs.Invalid, Code: ErrCurrency.Code, Detail: ErrCurrency.Detail,
			Fields: []errs.Field{{Pointer: "#/amount/currency", Detail: "The account's currency is " + string(acct.Currency) + ".", Code: "currency_mismatch"}},
		}
	}
	limits, err := f.Gateway.Limits(acct.Currency)
	if err != nil {
		return m, err
	}
	limits.Maximum.Minor = min(limits.Maximum.Minor, f.Policy.TopUpMaximum)
	if err := limits.Check(in.Amount); err != nil {
		var e *errs.Error
		errors.As(err, &e)
		field := errs.Field{Pointer: "#/amount/amount", Code: "out_of_range", Detail: "Between " + limits.Minimum.String() + " and " + limits.Maximum.String() + "."}
		if in.Amount.Minor%limits.Step != 0 {
			field.Code, field.Detail = "not_a_multiple", "A multiple of "+money.New(limits.Step, acct.Currency).String()+"."
		}
		return m, &errs.Error{
			Kind: errs.Invalid, Code: ErrTopUpAmount.Code, Detail: ErrTopUpAmount.Detail, Params: e.Params, Fields: []errs.Field{field},
		}
	}
	sub, err := tx.Subscriptions().Active(ctx, acct.ID)
	if err != nil {
		return m, err
	}
	takes, err := takesFunds(ctx, tx, acct, sub)
	if err != nil {
		return m, err
	}
	if !takes && in.Origin != payment.Auto { // what is owed may be paid on any plan
		b, err := balance(ctx, tx, acct)
		if err != nil {
			return m, err
		}
		takes = b.owed().Sign() > 0
	}
	pending, err := refused(nonePending(ctx, tx, acct.ID))
	if err != nil {
		return m, err
	}
	m, err = f.cardToCharge(ctx, tx, acct, in.Method)
	noCharge, err := refused(err)
	if err != nil {
		return m, err
	}
	return m, first(whyNoTopUp(takes, pending, noCharge))
}

// nonePending reports ErrTopUpPending. It says when to come again only if the provider has not answered yet: what it has
// left open may stay so for long.
func nonePending(ctx context.Context, tx Tx, a account.ID) error {
	pending, err := tx.Payments().PendingTopUp(ctx, a)
	if errors.Is(err, payment.ErrTopUpNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	p, err := tx.Payments().Payment(ctx, a, pending.Payment)
	if err != nil {
		return err
	}
	refusal := pendingTopUp(pending)
	if pending.Status == payment.Processing && p.Checks == 0 {
		refusal = refusal.After(time.Second)
	}
	return refusal
}

// pendingTopUp is ErrTopUpPending that names the top-up, so that a page can carry it on.
func pendingTopUp(t payment.TopUp) *errs.Error {
	return payment.ErrTopUpPending.With("top_up", t.ID).With("top_up_status", t.Status)
}

// takesFunds reports whether something on the account's terms can cost something.
func takesFunds(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription) (bool, error) {
	v, contract, err := terms(ctx, tx, acct.ID, sub.Terms, sub.Period.Start)
	return v.Priced() || contract != nil, err
}

// begin commits the intent to charge, and returns it with the card.
func (f Funder) begin(ctx context.Context, tx Tx, acct account.Account, asked Asked, tid payment.TopUpID, in TopUpInput) (TopUp, payment.Method, error) {
	if in.Origin == payment.Auto {
		// What others have charged since nobody held the account counts.
		var err error
		if in.Amount, _, err = f.due(ctx, tx, acct); err != nil || in.Amount.IsZero() {
			return TopUp{}, payment.Method{}, cmp.Or(err, errNotDue)
		}
	}
	m, err := f.check(ctx, tx, acct, in)
	if err != nil {
		return TopUp{}, m, err
	}
	if err := f.withinCeiling(ctx, tx, asked, in.Amount); err != nil {
		return TopUp{}, m, err
	}
	now := acct.Now(f.Clock())
	if in.Origin == "" {
		in.Origin = payment.Manual
	}
	p := payment.Payment{
		ID: id.New[payment.Payment](), Account: acct.ID, Purpose: payment.ForTopUp, TopUp: tid, Method: m.ID, Amount: in.Amount,
		Status: payment.Processing, OffSession: in.Origin == payment.Auto, Actor: asked.Actor, Provider: m.Provider,
		Refunded: zeroOf(acct), Disputed: zeroOf(acct), CheckAt: f.Clock().Add(pause(1)), CreatedAt: f.Clock(), UpdatedAt: now, Version: 1,
	}
	t := payment.TopUp{
		ID: tid, Account: acct.ID, Origin: in.Origin, Amount: in.Amount, Status: payment.Processing, Payment: p.ID,
		CreatedAt: now, UpdatedAt: now, Version: 1,
	}
	if err := tx.Payments().CreateTopUp(ctx, t); err != nil {
		return TopUp{}, m, err
	}
	return TopUp{t, p}, m, tx.Payments().CreatePayment(ctx, p)
}

// Confirm carries a top-up on after the customer has acted. A settled one is returned as it is.
func (f Funder) Confirm(ctx context.Context, a account.ID, tid payment.TopUpID) (TopUp, error) {
	t, err := loadTopUp(ctx, f.DB, a, tid)
	if err != nil || !t.Status.Pending() {
		return t, err
	}
	p, err := f.resolvePayment(ctx, t.Charge, nil)
	if err != nil {
		return t, err
	}
	t, err = loadTopUp(ctx, f.DB, a, tid)
	if t.Charge.NextAction != nil && p.NextAction != nil {
		t.Charge.NextAction = p.NextAction // with its client secret: another device can carry on
	}
	return t, err
}

// TopUpPreview is what a top-up would take and leave.
type TopUpPreview struct {
	Method        payment.Method // the card that it would charge
	Before, After Balance
}

// Preview says what a top-up would take and leave, without taking it. What it brings pays what is due first.
func (f Funder) Preview(ctx context.Context, asked Asked, in TopUpInput) (out TopUpPreview, err error) {
	defer errs.Wrap(&err, "preview top-up of %s", asked.Account)
	acct, err := f.DB.Accounts().Get(ctx, asked.Account)
	if err != nil {
		return out, err
	}
	if acct.Status == account.Closed {
		return out, account.ErrClosed
	}
	if out.Method, err = f.check(ctx, f.DB, acct, in); err != nil {
		return out, err
	}
	if err = f.withinCeiling(ctx, f.DB, asked, in.Amount); err != nil {
		return out, err
	}
	out.Before, err = balance(ctx, f.DB, acct)
	out.After = out.Before
	out.After.Available.Minor += in.Amount.Minor
	out.After.Funds.Minor += in.Amount.Minor
	paid := max(0, min(out.After.Funds.Minor, out.After.Due.Minor))
	out.After.Funds.Minor -= paid
	out.After.Due.Minor -= paid
	if err != nil {
		return out, err
	}
	debts, err := payable(ctx, f.DB, acct)
	for _, inv := range debts {
		if inv.Status == invoice.Uncollectible { // not due, and paid all the same
			paid := max(0, min(out.After.Funds.Minor, inv.AmountDue().Minor))
			out.After.Funds.Minor -= paid
			out.After.Available.Minor -= paid
		}
	}
	return out, err
}
