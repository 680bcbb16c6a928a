package billing_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Whatever comes in (cards, credit) and whatever goes out or back (credit notes, refunds, disputes, corrections of usage, write-offs),
// in any order: an account's funds are never more than the real money that its cards have paid and have not been given back, with
// what is due and has yet to be paid from them. So no credit becomes money, and closing gives back no more than came in.
func TestMoney_PropertyFundsAreNeverMoreThanWasPaid(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	for round := range often(4, 60) {
		r := rand.New(rand.NewPCG(seed, uint64(round)))
		w := newWorld(t)
		m := mover{world: w, r: r, a: w.onPro(t)}
		var done []string
		for range 14 {
			name := m.step(t)
			done = append(done, name)
			b, err := w.DB.Ledger().Balances(t.Context(), m.a)
			if err != nil {
				t.Fatal(err)
			}
			s := books.StandingOf(b, money.USD)
			if s.Funds.Minor > b[books.Cash]+s.Due.Minor {
				t.Fatalf("seed %d, round %d: after %v funds are %s and %s is due, of %d that was paid", seed, round, done, s.Funds, s.Due, b[books.Cash])
			}
		}
		_, err := billing.Ender{Core: w.Core}.End(t.Context(), asked(m.a, newKey()), "test", nil)
		if _, refused := errors.AsType[*errs.Error](err); err != nil && !refused {
			t.Errorf("seed %d, round %d: after %v the account does not close: %v", seed, round, done, err)
		}
	}
}

// mover does to one account what moves money.
type mover struct {
	*world
	r      *rand.Rand
	a      account.ID
	events []string
	open   []string     // disputes
	taken  []payment.ID // that were disputed
}

func (m *mover) amount(most int64) money.Amount { return usd(1 + m.r.Int64N(most)) }

func (m *mover) step(t *testing.T) string {
	t.Helper()
	ctx := t.Context()
	steps := []struct {
		name string
		do   func() error
	}{
		{"use", func() error {
			event := newKey()
			m.events = append(m.events, event)
			m.useAs(t, m.a, event, "voice", money.DecimalFromInt(60000+m.r.Int64N(120000)).String(), m.clock())
			return nil
		}},
		{"use late", func() error {
			event := newKey()
			m.events = append(m.events, event)
			m.useAs(t, m.a, event, "voice", money.DecimalFromInt(60000+m.r.Int64N(120000)).String(), m.clock().Add(-20*24*time.Hour))
			return nil
		}},
		{"take usage back", func() error {
			if len(m.events) == 0 {
				return nil
			}
			x := metering.Correction{Source: "test", EventID: m.events[m.r.IntN(len(m.events))], Kind: metering.Void, Reason: "it was otherwise"}
			fix := billing.Corrections{Core: m.Core, Catalogue: billing.Meters(plan.Shipped().Meters)}
			_, err := fix.Correct(ctx, asked(m.a, newKey()), x, nil)
			return err
		}},
		{"top up", func() error {
			_, err := billing.Funder{Core: m.Core}.TopUp(ctx, asked(m.a, newKey()), billing.TopUpInput{Amount: usd(500 + m.r.Int64N(3000))}, nil)
			return err
		}},
		{"grant", func() error {
			in := billing.GrantInput{Amount: m.amount(3000), Reason: "test"}
			if m.r.IntN(2) == 0 {
				in.ExpiresAt = m.clock().Add(40 * 24 * time.Hour)
			}
			_, err := billing.Granter{Core: m.Core}.Grant(ctx, asked(m.a, newKey()), in, nil)
			return err
		}},
		{"a month", func() error { m.until(t, m.clock().Add(33*24*time.Hour)); return nil }},
		{"another month", func() error { m.until(t, m.clock().Add(33*24*time.Hour)); return nil }},
		{"credit note", func() error {
			all, err := m.DB.Invoices().List(ctx, m.a, "", page.Request{Limit: 20})
			if err != nil || len(all.Data) == 0 {
				return err
			}
			inv := all.Data[m.r.IntN(len(all.Data))]
			_, err = billing.Adjuster{Core: m.Core}.Credit(ctx, asked(m.a, newKey()), billing.CreditInput{Invoice: inv.ID, Amount: m.amount(max(1, inv.Total.Minor)), Reason: "test"}, nil)
			return err
		}},
		{"write off", func() error {
			open, err := m.DB.Invoices().Unpaid(ctx, m.a)
			if err != nil || len(open) == 0 {
				return err
			}
			_, err = billing.Adjuster{Core: m.Core}.WriteOff(ctx, asked(m.a, newKey()), open[0].ID, "test", nil)
			return err
		}},
		{"refund", func() error {
			p, err := m.anyPayment(t)
			if err != nil || p.ID.IsZero() {
				return err
			}
			_, err = billing.Refunder{Core: m.Core}.Refund(ctx, asked(m.a, newKey()), billing.RefundInput{Payment: p.ID, Amount: m.amount(p.Refundable().Minor), Reason: "test", Origin: payment.ByOperator}, nil)
			return err
		}},
		{"dispute", func() error {
			p, err := m.anyPayment(t)
			if err != nil || p.ID.IsZero() || p.Refunded.Minor > 0 || slices.Contains(m.taken, p.ID) {
				return err // the sandbox's bank takes a charge back once
			}
			m.taken = append(m.taken, p.ID)
			m.open = append(m.open, m.disputed(t, p))
			return nil
		}},
		{"win a dispute", func() error {
			if len(m.open) > 0 {
				m.won(t, m.open[0])
				m.open = m.open[1:]
			}
			return nil
		}},
		{"the card declines", func() error {
			m.behave(t, m.a, []string{sandbox.TokenVisa, sandbox.TokenChargeDeclined}[m.r.IntN(2)])
			return nil
		}},
	}
	s := steps[m.r.IntN(len(steps))]
	if err := s.do(); err != nil {
		if _, refused := errors.AsType[*errs.Error](err); !refused {
			t.Fatalf("%s: %v", s.name, err)
		}
		return s.name + " (refused)"
	}
	return s.name
}

func (m *mover) anyPayment(t *testing.T) (p payment.Payment, err error) {
	t.Helper()
	paid, err := m.DB.Payments().RefundablePayments(t.Context(), m.a)
	if err != nil || len(paid) == 0 {
		return p, err
	}
	return paid[m.r.IntN(len(paid))], nil
}
