package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

// What is given back of an invoice goes to where it came from, so that no promotional credit becomes money. It is as if the
// invoice had been right from the start: credit pays first, so it comes back last.

// paidWithMoney is what cards and funds have paid of an invoice, less what credit notes have given back of it, and what money
// had paid of others that it takes back, of which it gives the balance the less. It is less than nothing where a card's
// payment was taken back after that.
func paidWithMoney(ctx context.Context, tx Tx, inv invoice.Invoice, all history) (int64, error) {
	draws, err := tx.Invoices().Draws(ctx, inv.Account, inv.ID)
	if err != nil {
		return 0, err
	}
	notes, err := tx.Invoices().CreditNotesOf(ctx, inv.Account, inv.ID)
	if err != nil {
		return 0, err
	}
	paid := inv.AmountPaid.Minor
	for _, d := range draws {
		paid -= d.Amount.Minor
	}
	for _, n := range notes {
		paid -= n.ToFunds.Minor
	}
	netted, err := nettedMoney(ctx, tx, inv, all)
	return paid + netted, err
}

// nettedMoney is what money had paid of what an invoice takes back of others, less what it gives to the balance: that money
// has paid the invoice's own lines.
func nettedMoney(ctx context.Context, tx Tx, inv invoice.Invoice, all history) (sum int64, err error) {
	if known, asked := all.netted[inv.ID]; asked { // each is asked once: what it takes back of may take back itself
		return known, nil
	}
	back := map[invoice.ID]int64{}
	for _, t := range all.takings {
		if t.by == inv.ID {
			paid, err := paidOrDue(ctx, tx, inv.Account, t.of, all)
			if err != nil {
				return 0, err
			}
			sum += min(t.amount-t.owed, max(0, paid-back[t.of]))
		}
		back[t.of] += t.amount - t.owed
	}
	if sum > 0 {
		content, err := tx.Invoices().Content(ctx, inv.Account, inv.ID)
		if err != nil {
			return 0, err
		}
		sum = max(0, sum-credited(content).Minor)
	}
	all.netted[inv.ID] = sum
	return sum, nil
}

// paidOrDue is what money has paid of an invoice, and of an open one what is due: what is given back of it pays that.
func paidOrDue(ctx context.Context, tx Tx, a account.ID, iid invoice.ID, all history) (int64, error) {
	inv, err := tx.Invoices().Get(ctx, a, iid)
	if err != nil {
		return 0, err
	}
	paid, err := paidWithMoney(ctx, tx, inv, all)
	if inv.Status == invoice.Open {
		paid += inv.AmountDue().Minor
	}
	return paid, err
}

// standsPaid is what of paidWithMoney no correction of usage has given back either. What a correction takes back, money has
// paid first.
func standsPaid(ctx context.Context, tx Tx, inv invoice.Invoice) (int64, error) {
	all, err := takings(ctx, tx, inv.Account)
	if err != nil {
		return 0, err
	}
	paid, err := paidWithMoney(ctx, tx, inv, all)
	if err != nil || paid <= 0 {
		return paid, err
	}
	return max(0, paid-givenBack(inv.ID, all)), nil
}

// creditAgain makes what promotional credit had paid of an invoice credit again; f has booked it. It has the time that it
// had: what has run out meanwhile runs out at once. What no credit had paid, as the invoice was given back before,
// is new credit.
func (c *Core) creditAgain(ctx context.Context, tx Tx, acct account.Account, iid invoice.ID, amount money.Amount, f books.Fact) error {
	if amount.IsZero() {
		return nil
	}
	draws, err := tx.Invoices().Draws(ctx, acct.ID, iid)
	if err != nil {
		return err
	}
	for _, d := range draws {
		part := money.New(min(amount.Minor, d.Amount.Minor-d.Returned.Minor), amount.Currency)
		if part.IsZero() {
			continue
		}
		amount.Minor -= part.Minor
		if err := tx.Invoices().Return(ctx, acct.ID, iid, wallet.Draw{Grant: d.Grant, Amount: part}); err != nil {
			return err
		}
		if err := c.returnTo(ctx, tx, acct, d.Grant, part, f); err != nil {
			return err
		}
	}
	if amount.IsZero() {
		return nil
	}
	gr := wallet.Grant{
		ID: id.New[wallet.Grant](), Account: acct.ID, Amount: amount, Remaining: amount, Reason: f.Description, Actor: system, GrantedAt: f.At,
	}
	if err := tx.Wallet().CreateGrant(ctx, gr); err != nil {
		return err
	}
	return tx.Outbox().Publish(ctx, acct.ID, outbox.CreditGranted, map[string]any{"grant": gr.ID, "amount": gr.Amount}, f.At)
}

func (c *Core) returnTo(ctx context.Context, tx Tx, acct account.Account, gid wallet.GrantID, part money.Amount, f books.Fact) error {
	gr, err := tx.Wallet().Grant(ctx, acct.ID, gid)
	if err != nil {
		return err
	}
	if gr.ExpiredAt.IsZero() && acct.Status != account.Closed {
		gr.Remaining.Minor += part.Minor
		if gr.ExpiresAt.IsZero() || f.At.Before(gr.ExpiresAt) {
			return tx.Wallet().SaveGrant(ctx, gr)
		}
		return Granter{c}.end(ctx, tx, acct, &gr, "Promotional credit expired", f.At)
	}
	f.Reference += "/" + gr.ID.String() // it has been taken back before, by its own name
	f.Description = "Promotional credit expired"
	return tx.Ledger().Append(ctx, books.PromoExpired(f, part))
}

// giveBack books what an invoice gives to the balance, where corrections take more back of earlier invoices than it bills
// itself: as money so far as money has paid those, or is to, and the rest as credit.
func (c *Core) giveBack(ctx context.Context, tx Tx, acct account.Account, by invoice.ID, sum money.Amount, f books.Fact) error {
	all, err := takings(ctx, tx, acct.ID)
	if err != nil {
		return err
	}
	from := takenBy(by, all)
	left, known := sum.Minor, int64(0) // and of which invoice it comes
	for i := range from {
		t := &from[i]
		paid, err := paidOrDue(ctx, tx, acct.ID, t.of, all)
		if err != nil {
			return err
		}
		part := min(left, t.now, max(0, paid-t.before))
		t.now -= part
		left -= part
		known += t.now
	}
	b, err := tx.Ledger().Balances(ctx, acct.ID)
	if err != nil {
		return err
	}
	toFunds := min(sum.Minor-left+max(0, left-known), max(0, notInFunds(b, acct)))
	left = sum.Minor - toFunds
	bad, err := badDebtOf(ctx, tx, acct, from, b, left)
	if err != nil {
		return err
	}
	left -= bad
	if left < sum.Minor {
		if err := tx.Ledger().Append(ctx, books.CreditNote(f, zeroOf(acct), money.New(sum.Minor-left, sum.Currency), zeroOf(acct))); err != nil {
			return err
		}
		if err := c.payBadDebt(ctx, tx, acct, bad, f.At); err != nil {
			return err
		}
		// Before there is credit, which would pay in its place what it was given for.
		if err := c.payFromFunds(ctx, tx, acct, f.At); err != nil {
			return err
		}
	}
	if left == 0 {
		return nil
	}
	f.Reference += "/credit"
	if err := tx.Ledger().Append(ctx, books.CreditNote(f, zeroOf(acct), zeroOf(acct), money.New(left, sum.Currency))); err != nil {
		return err
	}
	for _, t := range append(from, taken{of: by, now: left}) {
		part := money.New(min(left, t.now), sum.Currency)
		left -= part.Minor
		if err := c.creditAgain(ctx, tx, acct, t.of, part, f); err != nil {
			return err
		}
	}
	return nil
}

// badDebtOf is what of an amount that is given back of invoices nobody has paid, neither with money nor with credit: what had
// been given back of another invoice has, which was written off since. So that debt has lent it.
func badDebtOf(ctx context.Context, tx Tx, acct account.Account, from []taken, b ledger.Balances, amount int64) (int64, error) {
	if amount == 0 || b[books.BadDebt] <= 0 {
		return 0, nil
	}
	for i := range from {
		draws, err := tx.Invoices().Draws(ctx, acct.ID, from[i].of)
		if err != nil {
			return 0, err
		}
		credit := int64(0)
		for _, d := range draws {
			credit += d.Amount.Minor - d.Returned.Minor
		}
		from[i].now = min(from[i].now, credit)
		amount -= from[i].now
	}
	return max(0, min(amount, b[books.BadDebt])), nil
}

// payBadDebt pays invoices that were written off from the funds, the latest first.
func (c *Core) payBadDebt(ctx context.Context, tx Tx, acct account.Account, amount int64, now time.Time) error {
	for next := firstPage; amount > 0; {
		owed, err := tx.Invoices().List(ctx, acct.ID, invoice.Uncollectible, next)
		if err != nil {
			return err
		}
		for i := range owed.Data {
			inv := &owed.Data[i]
			part := money.New(min(amount, inv.AmountDue().Minor), acct.Currency)
			if part.IsZero() {
				continue
			}
			amount -= part.Minor
			f := c.fact(acct, fmt.Sprintf("%s/v%d", inv.ID, inv.Version), "Written-off invoice paid from the balance", now)
			if err := payFrom(ctx, tx, inv, zeroOf(acct), part, f); err != nil {
				return err
			}
			if err := c.afterPayment(ctx, tx, acct, inv, now); err != nil {
				return err
			}
		}
		if next.After = owed.Next; next.After == "" {
			break
		}
	}
	return nil
}

// notInFunds is what cards have paid, or are to pay of what is due, and is not among the funds: so much of what an account has
// paid can become funds. Invoices may be paid with more than that, by what was given back of others that were then written off.
func notInFunds(b ledger.Balances, acct account.Account) int64 {
	stands := books.StandingOf(b, acct.Currency)
	return b[books.Cash] + stands.Due.Minor - stands.Funds.Minor
}
