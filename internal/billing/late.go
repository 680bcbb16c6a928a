package billing

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/pricing"
	"github.com/accrue-billing/accrue/internal/subscription"
	"github.com/accrue-billing/accrue/pkg/money"
)

// adjustment is what came late for a period whose invoice is final.
type adjustment struct {
	period   subscription.Period
	totals   []metering.Total
	lines    []pricing.Line
	absorbed money.Amount // of it, by the spend limit; less than nothing: what is taken back of what was absorbed before
	takenOff []takenOff
}

// takenOff is what is taken back of an invoice and was never paid.
type takenOff struct {
	invoice  invoice.ID
	absorbed money.Amount // of what it absorbed
	owed     money.Amount // of what is owed of it, though it was written off
}

// adjustments prices what came late for periods whose cycle invoice is final, at those periods' own
// prices: the difference between the usage as it stands and as it was billed. What the spend limit has to say of it is
// one more line for each period.
func adjustments(ctx context.Context, tx Tx, acct account.Account, before subscription.Period, limit *money.Amount) ([]adjustment, error) {
	periods, err := latePeriods(ctx, tx, acct.ID, before)
	if err != nil {
		return nil, err
	}
	var out []adjustment
	var changes []change
	for _, p := range periods {
		totals, err := tx.Usage().Totals(ctx, acct.ID, p.Bounds.Start, true)
		if err != nil {
			return nil, err
		}
		c, err := changeOf(ctx, tx, acct, p, totals)
		if err != nil {
			return nil, err
		}
		out = append(out, adjustment{period: p, totals: totals, lines: c.lines, absorbed: zeroOf(acct)})
		changes = append(changes, c)
	}
	return out, absorb(ctx, tx, acct, out, changes, limit)
}

// latePeriods returns the periods before one whose invoices are final and whose bill may not be what it was, the latest
// first: those whose usage changed since, and where that was under a contract, those after it that the contract bills too.
func latePeriods(ctx context.Context, tx Tx, a account.ID, before subscription.Period) (out []subscription.Period, err error) {
	starts, err := tx.Usage().LatePeriods(ctx, a, before.Bounds.Start)
	if err != nil || len(starts) == 0 {
		return nil, err
	}
	periods, err := tx.Subscriptions().Periods(ctx, a, maxTerm)
	if err != nil {
		return nil, err
	}
	late := map[int64]bool{}
	for _, s := range starts {
		late[s.UnixMicro()] = true
	}
	held := map[subscription.ContractID]bool{} // with late usage in a period before
	for _, p := range slices.Backward(periods) {
		switch {
		case late[p.Bounds.Start.UnixMicro()]:
			held[p.Contract] = !p.Contract.IsZero()
		case !held[p.Contract] || !p.Bounds.Start.Before(before.Bounds.Start):
			continue
		}
		out = append(out, p)
	}
	slices.Reverse(out)
	return out, nil
}

// change is what late usage changes in what a period comes to.
type change struct {
	full  pricing.Input
	lines []pricing.Line
	sum   money.Amount // of the lines
}

func changeOf(ctx context.Context, tx Tx, acct account.Account, p subscription.Period, totals []metering.Total) (c change, err error) {
	if c.full, err = input(ctx, tx, acct, p, nil); err != nil {
		return c, err
	}
	was := c.full
	if was.Term, err = termOf(ctx, tx, acct, p, c.full, billed); err != nil {
		return c, err
	}
	if was.Usage, err = usageOf(c.full, totals, p.Waived, billed); err != nil {
		return c, err
	}
	if c.full.Usage, err = usageOf(c.full, totals, p.Waived, used); err != nil {
		return c, err
	}
	if c.lines, err = pricing.Adjust(c.full, was); err != nil {
		return c, fmt.Errorf("adjust %s: %w", p.Bounds.Start.Format(time.DateOnly), err)
	}
	c.sum = zeroOf(acct)
	for _, l := range c.lines {
		if c.sum, err = c.sum.Add(l.Amount); err != nil {
			return c, err
		}
	}
	return c, nil
}

// absorb holds what came late to the spend limit:
//
//   - More usage is billed so far as the period, with all that was used in it, stays within the limit as it is now. Of a
//     limit that was raised since, what was absorbed before stays absorbed, and what comes then is billed.
//   - Less usage takes back first what invoices billed that are void, as that was taken back with them; then what was billed
//     last, and of each invoice what it absorbed, and what is owed of it though it was written off, before the rest: those
//     were never paid.
func absorb(ctx context.Context, tx Tx, acct account.Account, out []adjustment, changes []change, limit *money.Amount) error {
	var back takingBack
	for i := range changes {
		c, adj := &changes[i], &out[i]
		switch {
		case c.sum.Sign() > 0 && limit != nil:
			now, err := pricing.Accrued(c.full)
			if err != nil {
				return err
			}
			bills := money.New(max(0, min(c.sum.Minor, limit.Minor-(now.Minor-c.sum.Minor))), c.sum.Currency)
			off, err := adj.bill(c.full, "Beyond the spending limit, not billed", c.sum, bills)
			if err != nil {
				return err
			}
			adj.absorbed = off.Neg()
		case c.sum.Sign() < 0:
			if back.parts == nil {
				if err := back.read(ctx, tx, acct, out); err != nil {
					return err
				}
			}
			off, void := back.take(adj.period.Bounds.Start, c.sum.Neg())
			bills := money.New(c.sum.Minor+void.Minor, c.sum.Currency)
			if _, err := adj.bill(c.full, "Taken back with its invoice, which is void", c.sum, bills); err != nil {
				return err
			}
			came := bills
			for _, part := range off {
				bills.Minor += part.absorbed.Minor
			}
			unpaid, err := adj.bill(c.full, "Was beyond the spending limit, and not billed", came, bills)
			if err != nil {
				return err
			}
			came = bills
			for _, part := range off {
				bills.Minor += part.owed.Minor
			}
			if _, err := adj.bill(c.full, "Taken off its invoice, which was written off", came, bills); err != nil {
				return err
			}
			adj.takenOff, adj.absorbed = off, unpaid.Neg()
		}
	}
	return nil
}

// bill adds the line that makes of what came what is billed, where that is another sum, and returns what the line comes to.
func (adj *adjustment) bill(in pricing.Input, why string, came, bills money.Amount) (money.Amount, error) {
	if bills == came {
		return money.Zero(came.Currency), nil
	}
	l, err := pricing.Absorbed(in, why, came, bills)
	adj.lines = append(adj.lines, l)
	return l.Amount, err
}

// keepAbsorbed records what a final invoice has absorbed, and what it takes back of what earlier ones had.
func keepAbsorbed(ctx context.Context, tx Tx, inv invoice.Invoice, r rated) error {
	kept := r.bill.Absorbed
	for _, adj := range r.adjusted {
		if adj.absorbed.Sign() > 0 {
			kept.Minor += adj.absorbed.Minor
		}
		for _, off := range adj.takenOff {
			if off.absorbed.IsZero() {
				continue
			}
			if err := tx.Invoices().Absorb(ctx, inv.Account, off.invoice, off.absorbed.Neg()); err != nil {
				return err
			}
		}
	}
	if kept.IsZero() {
		return nil
	}
	return tx.Invoices().Absorb(ctx, inv.Account, inv.ID, kept)
}
