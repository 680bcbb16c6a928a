package billing

import (
	"context"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Less usage takes back what invoices have billed of it. Of which of them follows from the order in which they were issued, and
// is kept nowhere: what was billed last comes first, as if it had not been billed.

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

// taking is what one issued invoice takes back of another.
type taking struct {
	by, of invoice.ID
	amount int64
	owed   int64 // of the amount, off what was owed of one that was written off: by a credit note
}

// history is what each issued invoice of an account takes back of which, in their order.
type history struct {
	takings []taking
	netted  map[invoice.ID]int64 // nettedMoney, as far as it was asked for
}

func takings(ctx context.Context, tx Tx, a account.ID) (out history, err error) {
	out.netted = map[invoice.ID]int64{}
	periods, err := tx.Subscriptions().Periods(ctx, a, maxTerm)
	if err != nil {
		return out, err
	}
	starts := make([]time.Time, len(periods))
	for i, p := range periods {
		starts[i] = p.Bounds.Start
	}
	parts, err := tx.Invoices().Parts(ctx, a, starts)
	if err != nil {
		return out, err
	}
	new(takingBack).replay(parts, func(by invoice.Part, of invoice.ID, part money.Amount) {
		out.takings = append(out.takings, taking{by: by.Invoice, of: of, amount: part.Minor})
	})
	notes, err := tx.Invoices().CreditNotesBroughtBy(ctx, a)
	for i := range out.takings {
		t := &out.takings[i]
		for j := range notes {
			if n := &notes[j]; n.By == t.by && n.Invoice == t.of {
				off := min(n.ToDue.Minor, t.amount-t.owed)
				t.owed += off
				n.ToDue.Minor -= off
			}
		}
	}
	return out, err
}

// givenBack is what corrections of usage have given back of an invoice.
func givenBack(of invoice.ID, all history) (sum int64) {
	for _, t := range all.takings {
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
func takenBy(by invoice.ID, all history) (out []taken) {
	for _, t := range all.takings {
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
