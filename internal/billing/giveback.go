package billing

import (
	"context"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

// What is given back of an invoice goes to where it came from, so that no promotional credit becomes money. It is as if the
// invoice had been right from the start: credit pays first, so it comes back last.

// paidWithMoney is what cards and funds have paid of an invoice, less what credit notes have given back of it. It is less
// than nothing where a card's payment was taken back after that.
func paidWithMoney(ctx context.Context, tx Tx, inv invoice.Invoice) (int64, error) {
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
	return paid, nil
}

// standsPaid is what of paidWithMoney no correction of usage has given back either. What a correction takes back, money has
// paid first.
func standsPaid(ctx context.Context, tx Tx, inv invoice.Invoice) (int64, error) {
	paid, err := paidWithMoney(ctx, tx, inv)
	if err != nil || paid <= 0 {
		return paid, err
	}
	back, err := givenBack(ctx, tx, inv)
	return max(0, paid-back), err
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
	from, err := takenBy(ctx, tx, acct, by)
	if err != nil {
		return err
	}
	left, known := sum.Minor, int64(0) // and of which invoice it comes
	for i := range from {
		t := &from[i]
		inv, err := tx.Invoices().Get(ctx, acct.ID, t.of)
		if err != nil {
			return err
		}
		paid, err := paidWithMoney(ctx, tx, inv)
		if err != nil {
			return err
		}
		if inv.Status == invoice.Open { // what is given back pays it
			paid += inv.AmountDue().Minor
		}
		part := min(left, t.now, max(0, paid-t.before))
		t.now -= part
		left -= part
		known += t.now
	}
	if left > known {
		b, err := tx.Ledger().Balances(ctx, acct.ID)
		if err != nil {
			return err
		}
		stands := books.StandingOf(b, acct.Currency)
		left -= min(left-known, max(0, b[books.Cash]+stands.Due.Minor-stands.Funds.Minor-(sum.Minor-left))) // no more than money was paid
	}
	if left < sum.Minor {
		if err := tx.Ledger().Append(ctx, books.CreditNote(f, zeroOf(acct), money.New(sum.Minor-left, sum.Currency), zeroOf(acct))); err != nil {
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
