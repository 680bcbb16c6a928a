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

// takingBack knows what invoices bill for periods, and what of each of them was never paid.
type takingBack struct {
	parts map[int64][]invoice.Part // by the start of the period, the latest invoice last
	never map[invoice.ID]takenOff
}

func (b *takingBack) read(ctx context.Context, tx Tx, acct account.Account, of []adjustment) error {
	starts := make([]time.Time, len(of))
	for i := range of {
		starts[i] = of[i].period.Bounds.Start
	}
	parts, err := tx.Invoices().Parts(ctx, acct.ID, starts)
	b.never = map[invoice.ID]takenOff{}
	for _, p := range parts {
		b.never[p.Invoice] = takenOff{p.Invoice, p.Absorbed, p.Owed}
	}
	b.replay(parts, func(invoice.Part, invoice.ID, money.Amount) {})
	return err
}

// replay lets invoices bill and take back in their order, and tells what each took back of which that was not void then.
func (b *takingBack) replay(parts []invoice.Part, each func(by invoice.Part, of invoice.ID, part money.Amount)) {
	b.parts = map[int64][]invoice.Part{}
	for _, p := range parts {
		at := p.Period.UnixMicro()
		if p.Amount.Sign() > 0 {
			b.parts[at] = append(b.parts[at], p)
		} else {
			b.less(at, p.Amount.Neg(), p.FinalizedAt, func(of invoice.ID, part money.Amount) { each(p, of, part) })
		}
	}
}

// taking is what one issued invoice takes back of another.
type taking struct {
	by, of invoice.ID
	amount int64
	at     time.Time
	owed   int64 // of the amount, off what was owed of one that was written off: by a credit note
}

// takings returns what each issued invoice of an account takes back of which, in their order.
func takings(ctx context.Context, tx Tx, a account.ID) (out []taking, err error) {
	periods, err := tx.Subscriptions().Periods(ctx, a, maxTerm)
	if err != nil {
		return nil, err
	}
	starts := make([]time.Time, len(periods))
	for i, p := range periods {
		starts[i] = p.Bounds.Start
	}
	parts, err := tx.Invoices().Parts(ctx, a, starts)
	if err != nil {
		return nil, err
	}
	new(takingBack).replay(parts, func(by invoice.Part, of invoice.ID, part money.Amount) {
		out = append(out, taking{by: by.Invoice, of: of, amount: part.Minor, at: by.FinalizedAt})
	})
	notes := map[invoice.ID][]invoice.CreditNote{}
	for i := range out {
		t := &out[i]
		of, known := notes[t.of]
		if !known {
			if of, err = tx.Invoices().CreditNotesOf(ctx, a, t.of); err != nil {
				return nil, err
			}
			notes[t.of] = of
		}
		for j := range of {
			if n := &of[j]; n.Actor == system && n.IssuedAt.Equal(t.at) { // see Adjuster.takeOff
				off := min(n.ToDue.Minor, t.amount-t.owed)
				t.owed += off
				n.ToDue.Minor -= off
			}
		}
	}
	return out, nil
}

// givenBack is what corrections of usage have given back of an invoice.
func givenBack(of invoice.ID, all []taking) (sum int64) {
	for _, t := range all {
		if t.of == of {
			sum += t.amount - t.owed
		}
	}
	return sum
}

// taken is what has been given back of an invoice by one later invoice, and by others before that.
type taken struct {
	of          invoice.ID
	now, before int64
}

// takenBy returns of which invoices an issued one gives something back.
func takenBy(by invoice.ID, all []taking) (out []taken) {
	for _, t := range all {
		at := slices.IndexFunc(out, func(known taken) bool { return known.of == t.of })
		if at < 0 {
			at, out = len(out), append(out, taken{of: t.of})
		}
		if t.by == by {
			out[at].now += t.amount - t.owed
		} else {
			out[at].before += t.amount - t.owed
		}
	}
	return slices.DeleteFunc(out, func(t taken) bool { return t.now == 0 })
}

// take takes an amount back of what was billed for a period, and returns what of it was never paid, and what was taken back
// with invoices that are void.
func (b *takingBack) take(start time.Time, amount money.Amount) (out []takenOff, void money.Amount) {
	void = b.less(start.UnixMicro(), amount, time.Time{}, func(i invoice.ID, part money.Amount) {
		never := b.never[i]
		off := takenOff{invoice: i, absorbed: money.New(min(part.Minor, never.absorbed.Minor), part.Currency)}
		off.owed = money.New(min(part.Minor-off.absorbed.Minor, never.owed.Minor), part.Currency)
		never.absorbed.Minor -= off.absorbed.Minor
		never.owed.Minor -= off.owed.Minor
		b.never[i] = never
		out = append(out, off)
	})
	return out, void
}

// less takes an amount off what was billed, part by part: off what was void at a time (zero: now), which it returns, and then
// off what was billed last, of which each is told.
func (b *takingBack) less(period int64, amount money.Amount, at time.Time, each func(invoice.ID, money.Amount)) (void money.Amount) {
	parts := b.parts[period]
	void = money.Zero(amount.Currency)
	for amount.Sign() > 0 && len(parts) > 0 {
		i := slices.IndexFunc(parts, func(p invoice.Part) bool { return p.WasVoid(at) })
		isVoid := i >= 0
		if !isVoid {
			i = len(parts) - 1
		}
		of := &parts[i]
		part := money.New(min(amount.Minor, of.Amount.Minor), amount.Currency)
		if isVoid {
			void.Minor += part.Minor
		} else {
			each(of.Invoice, part)
		}
		amount.Minor -= part.Minor
		if of.Amount.Minor -= part.Minor; of.Amount.IsZero() {
			parts = slices.Delete(parts, i, i+1)
		}
	}
	b.parts[period] = parts
	return void
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
