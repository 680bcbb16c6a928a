package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/failpoint"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/job"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/period"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

var firstPage = page.Request{Limit: page.MaxLimit}

// Closer closes billing periods and makes their invoices final.
type Closer struct{ *Core }

// Close ends the account's period if it has ended on the account's clock: the next period opens under
// the plan that was planned for it, and where there may be something to bill, a draft invoice begins its grace.
// It reports whether it closed one; an account that was away for months has several, closed in order
// by as many calls.
func (c Closer) Close(ctx context.Context, a account.ID) (closed bool, err error) {
	defer errs.Wrap(&err, "close period of %s", a)
	failpoint.Hit(failpoint.Close, failpoint.Received)
	err = c.DB.InTx(ctx, func(tx Tx) error {
		closed = false
		acct, err := tx.Accounts().Lock(ctx, a)
		if err != nil {
			return err
		}
		sub, err := tx.Subscriptions().Lock(ctx, a)
		if errors.Is(err, subscription.ErrNotFound) {
			return nil // the account was closed
		}
		if err != nil {
			return err
		}
		real := c.Clock()
		now := acct.Now(real)
		if now.Before(sub.Period.End) {
			return nil // a rerun finds the period closed already
		}
		closed = true
		defer failpoint.Hit(failpoint.Close, failpoint.Tx2BeforeCommit)
		return c.advance(ctx, tx, acct, sub, now)
	})
	failpoint.Hit(failpoint.Close, failpoint.AfterTx2)
	return closed && err == nil, err
}

func (c Closer) advance(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription, now time.Time) error {
	if err := c.lastLook(ctx, tx, acct); err != nil {
		return err
	}
	ended := sub.Opened()
	ended.ClosedAt = now
	zone, err := period.LoadZone(acct.TimeZone)
	if err != nil {
		return fmt.Errorf("zone of the account: %w", err)
	}
	next, err := c.nextTerms(ctx, tx, acct, sub)
	if err != nil {
		return err
	}
	if err := dropped(ctx, tx, acct, sub, next, now); err != nil {
		return err
	}
	if err := contractTurn(ctx, tx, acct, ended, next, now); err != nil {
		return err
	}
	every := sub.Schedule.Interval
	if next != sub.Terms {
		v, err := tx.Plans().Version(ctx, next.Plan, next.Version)
		if err != nil {
			return err
		}
		every = v.Every()
	}
	sub.Advance(zone, next, every, now)
	if err := tx.Subscriptions().ClosePeriod(ctx, ended, sub.Opened()); err != nil {
		return err
	}
	if err := tx.Subscriptions().Save(ctx, &sub); err != nil {
		return err
	}
	if err := c.prepay(ctx, tx, acct, ended, sub.Opened(), now); err != nil {
		return err
	}
	billed, err := isBilled(ctx, tx, acct.ID, ended)
	if err != nil {
		return err
	}
	if billed {
		inv := invoice.NewCycle(ended, acct.Currency, ended.Bounds.End.Add(c.Policy.Grace), now)
		if err := tx.Invoices().Create(ctx, inv); err != nil {
			return err
		}
		if err := tx.Jobs().Enqueue(ctx, acct.ID, job.FinalizeInvoice, map[string]any{"invoice": inv.ID}, inv.FinalizeAt); err != nil {
			return err
		}
	}
	if err := c.entitle(ctx, tx, acct, sub); err != nil {
		return err
	}
	if err := c.watch(ctx, tx, acct.ID); err != nil {
		return err
	}
	if next != ended.Terms {
		if err := publishChange(ctx, tx, acct, sub, now); err != nil {
			return err
		}
	}
	return tx.Outbox().Publish(ctx, acct.ID, outbox.PeriodClosed, map[string]any{
		"period": ended.Bounds, "plan": ended.Plan, "next_period": sub.Period,
	}, now)
}

// lastLook tells what was reached in the period that is being closed, and has not been told yet: from here on the next
// one is looked at.
func (c Closer) lastLook(ctx context.Context, tx Tx, acct account.Account) error {
	watched, err := tx.Alerts().Watched(ctx, []account.ID{acct.ID})
	if err != nil || len(watched) == 0 {
		return err
	}
	if _, err := tx.Entitlements().Lock(ctx, acct.ID); err != nil { // no usage enters the period meanwhile
		return err
	}
	within := func(_ context.Context, fn func(tx Tx) error) error { return fn(tx) }
	return Watcher(c).look(ctx, tx, within, acct)
}

// isBilled reports whether a period gets an invoice: something in it can cost money, or has come late for one before it.
func isBilled(ctx context.Context, tx Tx, a account.ID, p subscription.Period) (bool, error) {
	v, contract, err := terms(ctx, tx, a, p.Terms, p.Bounds.Start)
	if err != nil || v.Priced() || contract != nil {
		return err == nil, err
	}
	before, err := heldBefore(ctx, tx, a, p)
	if err != nil || len(before) > 0 {
		return err == nil, err
	}
	late, err := latePeriods(ctx, tx, a, p)
	return len(late) > 0, err
}

// publishChange tells that the account's terms are others now.
func publishChange(ctx context.Context, tx Tx, acct account.Account, sub subscription.Subscription, now time.Time) error {
	return tx.Outbox().Publish(ctx, acct.ID, outbox.SubscriptionChanged, map[string]any{
		"subscription": sub.ID, "plan": sub.Plan, "plan_version": sub.Terms.Version, "period": sub.Period,
	}, now)
}

// Finalize makes a draft final if its grace is over on the account's clock: its lines are rated once
// more, it gets its number, credit and funds pay what they can, and what is left is due. A final
// invoice, or one that is still in its grace, is left alone.
func (c Closer) Finalize(ctx context.Context, a account.ID, id invoice.ID) (err error) {
	defer errs.Wrap(&err, "finalize %s", id)
	failpoint.Hit(failpoint.Finalize, failpoint.Received)
	defer failpoint.Hit(failpoint.Finalize, failpoint.AfterTx2)
	return c.readingAhead(ctx, a, func(seen readings) error {
		return c.DB.InTx(ctx, func(tx Tx) error { return c.finalizeDue(ctx, tx, a, id, seen) })
	})
}

func (c Closer) finalizeDue(ctx context.Context, tx Tx, a account.ID, id invoice.ID, seen readings) error {
	acct, err := tx.Accounts().Lock(ctx, a)
	if err != nil {
		return err
	}
	// Holding the entitlement keeps usage of this account out until the lines are written.
	if _, err := tx.Entitlements().Lock(ctx, a); err != nil {
		return err
	}
	inv, err := tx.Invoices().Lock(ctx, a, id)
	if err != nil {
		return err
	}
	real := c.Clock()
	now := acct.Now(real)
	if inv.Status != invoice.Draft || now.Before(inv.FinalizeAt) {
		return nil
	}
	defer failpoint.Hit(failpoint.Finalize, failpoint.Tx2BeforeCommit)
	if err := c.finalize(ctx, tx, acct, inv, seen, now); err != nil {
		return err
	}
	return c.removeWhenPaid(ctx, tx, acct) // funds may have paid it
}

func (c Closer) finalize(ctx context.Context, tx Tx, acct account.Account, inv invoice.Invoice, seen readings, now time.Time) error {
	p, err := tx.Subscriptions().Period(ctx, acct.ID, inv.Period.Start)
	if err != nil {
		return err
	}
	r, err := rate(ctx, tx, acct, p)
	if err != nil {
		return err
	}
	if r.evidence, err = c.evidenceFor(ctx, tx, acct.ID, p, r, seen); err != nil {
		return err
	}
	for _, adj := range r.adjusted { // before what is given back on the invoice itself, which is told by what these leave
		for _, off := range adj.takenOff {
			if off.owed.IsZero() {
				continue
			}
			if err := Adjuster(c).takeOff(ctx, tx, acct, inv.ID, off.invoice, off.owed, now); err != nil {
				return err
			}
		}
	}
	if err := c.issue(ctx, tx, acct, inv, p, r, now); err != nil {
		return err
	}
	if err := keepAbsorbed(ctx, tx, inv, r); err != nil {
		return err
	}
	if err := markBilled(ctx, tx, acct.ID, p, r.totals); err != nil {
		return err
	}
	for _, adj := range r.adjusted {
		if err := markBilled(ctx, tx, acct.ID, adj.period, adj.totals); err != nil {
			return err
		}
	}
	return nil
}

// prepay bills at once what the account pays ahead, if that begins with the period that has been opened.
func (c Closer) prepay(ctx context.Context, tx Tx, acct account.Account, before, opened subscription.Period, now time.Time) error {
	v, contract, err := terms(ctx, tx, acct.ID, opened.Terms, opened.Bounds.Start)
	if err != nil || contract == nil || contract.Commitment == nil {
		return err
	}
	var held time.Time
	if before.Contract == opened.Contract {
		held = before.Bounds.Start
	}
	if !contract.Commitment.Begins(opened.Bounds.Start, held) {
		return nil
	}
	line, err := pricing.Prepayment(pricing.Input{Version: v, Contract: contract, Currency: acct.Currency, Period: opened.Bounds})
	if err != nil {
		return err
	}
	inv := invoice.NewPrepayment(opened, acct.Currency, now)
	if err := tx.Invoices().Create(ctx, inv); err != nil {
		return err
	}
	bill := pricing.Bill{Lines: []pricing.Line{line}, Total: line.Amount, Absorbed: zeroOf(acct)}
	return c.issue(ctx, tx, acct, inv, opened, rated{bill: bill}, now)
}

// issue gives the invoice its number and its content, lets credit and funds pay what they can, and makes the
// rest due.
func (c Closer) issue(ctx context.Context, tx Tx, acct account.Account, inv invoice.Invoice, p subscription.Period, r rated, now time.Time) error {
	content, err := c.content(ctx, tx, acct, inv, p, r, now)
	if err != nil {
		return err
	}
	if err := tx.Invoices().Issue(ctx, content); err != nil {
		return err
	}
	inv.Total, inv.FinalizedAt, inv.DueAt = content.Total, now, now.Add(c.Policy.PaymentTerms)
	if err := c.book(ctx, tx, acct, &inv, content, now); err != nil {
		return err
	}
	if inv.AmountDue().IsZero() {
		err = inv.Become(invoice.Paid, now)
	} else if err = inv.Become(invoice.Open, now); err == nil {
		inv.NextAttempt = now
		err = tx.Jobs().Enqueue(ctx, acct.ID, job.CollectInvoice, map[string]any{"invoice": inv.ID}, now)
	}
	if err != nil {
		return err
	}
	if err := tx.Invoices().Save(ctx, &inv); err != nil {
		return err
	}
	about := map[string]any{"invoice": inv.ID, "number": content.Number, "total": content.Total, "amount_due": inv.AmountDue()}
	if err := tx.Outbox().Publish(ctx, acct.ID, outbox.InvoiceFinalized, about, now); err != nil {
		return err
	}
	if inv.Status != invoice.Paid {
		return nil
	}
	if err := tx.Outbox().Publish(ctx, acct.ID, outbox.InvoicePaid, about, now); err != nil || credited(content).IsZero() {
		return err
	}
	return c.payFromFunds(ctx, tx, acct, now) // what it has given to the balance pays other open invoices
}

// markBilled records that a period's usage, as it was rated, stands on final invoices.
func markBilled(ctx context.Context, tx Tx, a account.ID, p subscription.Period, totals []metering.Total) error {
	billed := make([]metering.Billed, 0, len(totals))
	for _, t := range totals {
		billed = append(billed, metering.Billed{Meter: t.Meter, Quantity: t.Quantity, Events: t.Events})
	}
	return tx.Usage().MarkBilled(ctx, a, p.Bounds.Start, billed)
}

// content writes down what the invoice says.
func (c Closer) content(ctx context.Context, tx Tx, acct account.Account, inv invoice.Invoice, p subscription.Period, r rated, now time.Time) (invoice.Content, error) {
	number, err := tx.Invoices().NextNumber(ctx, acct.ID)
	if err != nil {
		return invoice.Content{}, err
	}
	profile, err := tx.Accounts().Profile(ctx, acct.ID)
	if err != nil && !errors.Is(err, account.ErrNoProfile) {
		return invoice.Content{}, err
	}
	out := invoice.Content{
		Invoice: inv.ID, Account: acct.ID, Number: number, BillTo: profile, Absorbed: r.absorbed(), IssuedAt: now,
	}
	if err := addLines(&out, p, r.evidence, r.bill.Lines...); err != nil {
		return out, err
	}
	for _, adj := range r.adjusted {
		if err := addLines(&out, adj.period, r.evidence, adj.lines...); err != nil {
			return out, err
		}
	}
	if err := out.Sum(zeroOf(acct)); err != nil {
		return out, err
	}
	if out.Total.Sign() < 0 {
		// Corrections of earlier periods came to more than this period's usage. An invoice is never
		// negative: one line says that the rest goes to the balance (see book).
		if err := addLines(&out, p, nil, toBalance(out.Total.Neg())); err != nil {
			return out, err
		}
		if err := out.Sum(zeroOf(acct)); err != nil {
			return out, err
		}
	}
	out.Hash, err = out.Fingerprint()
	return out, err
}

// kindToBalance is the line that turns a negative sum into credit on the balance.
const kindToBalance pricing.Kind = "credit_to_balance"

func toBalance(sum money.Amount) pricing.Line {
	return pricing.Line{
		Kind: kindToBalance, Description: "Credited to your balance", Amount: sum,
		Derivation: pricing.Derivation{
			Kind: kindToBalance, Currency: sum.Currency, Base: &sum, Numerator: 1, Denominator: 1,
			Exact: money.FractionOf(sum), Amount: sum,
		},
	}
}

// credited is what the invoice gives to the balance.
func credited(c invoice.Content) money.Amount {
	for _, l := range c.Lines {
		if l.Kind == string(kindToBalance) {
			return l.Amount
		}
	}
	return money.Zero(c.Total.Currency)
}

// addLines adds lines of one period, with what there is to say of the events behind them.
func addLines(out *invoice.Content, p subscription.Period, behindThem map[behind]pricing.Evidence, lines ...pricing.Line) error {
	for _, l := range lines {
		if l.Meter != "" {
			l.Derivation.Evidence = behindThem[behind{string(l.Meter), p.Bounds.Start.UnixMicro()}]
		}
		d, err := json.Marshal(l.Derivation)
		if err != nil {
			return err
		}
		out.Lines = append(out.Lines, invoice.Line{
			Number: len(out.Lines) + 1, Kind: string(l.Kind), Meter: string(l.Meter), Description: l.Description,
			Period: p.Bounds, Quantity: l.Quantity, Amount: l.Amount, Derivation: d,
		})
	}
	return nil
}

// book posts the invoice, then lets promotional credit and funds pay for it, in that order.
func (c Closer) book(ctx context.Context, tx Tx, acct account.Account, inv *invoice.Invoice, content invoice.Content, now time.Time) error {
	f := books.Fact{
		Account: acct.ID, Reference: inv.ID.String(), At: now, RecordedAt: c.Clock(),
		Description: "Invoice " + content.Number,
	}
	if sum := credited(content); !sum.IsZero() {
		if err := c.giveBack(ctx, tx, acct, inv.ID, sum, f); err != nil {
			return err
		}
	}
	if content.Total.IsZero() && content.Absorbed.IsZero() {
		return nil
	}
	if err := tx.Ledger().Append(ctx, books.Invoice(f, content.Subtotal, content.Tax, content.Absorbed)); err != nil {
		return err
	}
	return applyCredit(ctx, tx, acct, inv, f, now)
}

// applyCredit pays what it can of an invoice from promotional credit and then from funds. The caller saves the invoice.
func applyCredit(ctx context.Context, tx Tx, acct account.Account, inv *invoice.Invoice, f books.Fact, now time.Time) error {
	grants, err := tx.Wallet().Unspent(ctx, acct.ID)
	if err != nil {
		return err
	}
	// An invoice may draw on them again, when more comes in or something is due again: each time in another version.
	f.Reference = fmt.Sprintf("%s/v%d", inv.ID, inv.Version)
	promo := zeroOf(acct)
	byID := make(map[wallet.GrantID]*wallet.Grant, len(grants))
	for i := range grants {
		byID[grants[i].ID] = &grants[i]
	}
	draws := wallet.Spend(grants, inv.AmountDue(), now)
	for _, d := range draws {
		promo.Minor += d.Amount.Minor
		if err := tx.Wallet().SaveGrant(ctx, *byID[d.Grant]); err != nil {
			return err
		}
	}
	if err := tx.Invoices().Draw(ctx, acct.ID, inv.ID, draws); err != nil {
		return err
	}
	b, err := tx.Ledger().Balances(ctx, acct.ID)
	if err != nil {
		return err
	}
	funds := zeroOf(acct)
	funds.Minor = max(0, min(books.StandingOf(b, acct.Currency).Funds.Minor, inv.AmountDue().Minor-promo.Minor))
	return payFrom(ctx, tx, inv, promo, funds, f)
}

// payFrom books what promotional credit and funds pay of an invoice. The caller saves the invoice.
func payFrom(ctx context.Context, tx Tx, inv *invoice.Invoice, promo, funds money.Amount, f books.Fact) error {
	pays := money.New(promo.Minor+funds.Minor, inv.Currency)
	if pays.IsZero() {
		return nil
	}
	if inv.Status == invoice.Uncollectible {
		undone := f
		undone.Description = "Paid after all"
		if err := tx.Ledger().Append(ctx, books.WriteOffUndone(undone, pays)); err != nil {
			return err
		}
	}
	if !promo.IsZero() {
		if err := tx.Ledger().Append(ctx, books.PromoApplied(f, promo)); err != nil {
			return err
		}
	}
	if !funds.IsZero() {
		if err := tx.Ledger().Append(ctx, books.FundsApplied(f, funds)); err != nil {
			return err
		}
	}
	inv.AmountPaid.Minor += pays.Minor
	return nil
}
