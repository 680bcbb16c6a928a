package billing_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/entitlement"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/wallet"
	"github.com/accrue-billing/accrue/pkg/money"
)

// Whatever comes in (cards by hand and by themselves, credit) and whatever goes out or back (credit notes, refunds of ours and of the
// provider's, disputes, corrections of usage, voids, write-offs, spend limits, credit that runs out), on a plan or another, in any order:
// an account's funds are never more than the real money that its cards have paid and have not been given back, with what is due and has
// yet to be paid from them. So no credit becomes money, and closing gives back no more than came in. No more is given back than was
// taken, and the credit in the books is what is left of the gifts.
func TestMoney_PropertyFundsAreNeverMoreThanWasPaid(t *testing.T) {
	t.Parallel()
	seed := seedOf()
	for round := range often(6, 60) {
		r := rand.New(rand.NewPCG(seed, uint64(round)))
		w := newWorld(t)
		m := mover{world: w, r: r, a: w.onPro(t)}
		var done []string
		for range 20 {
			done = append(done, m.step(t))
			if wrong := m.wrong(t); wrong != "" {
				t.Fatalf("seed %d, round %d: after %v %s", seed, round, done, wrong)
			}
		}
		_, err := billing.Ender{Core: w.Core}.End(t.Context(), asked(m.a, newKey()), "test", nil)
		if _, refused := errors.AsType[*errs.Error](err); err != nil && !refused {
			t.Errorf("seed %d, round %d: after %v the account does not close: %v", seed, round, done, err)
		}
		if wrong := m.wrong(t); wrong != "" {
			t.Fatalf("seed %d, round %d: closed after %v %s", seed, round, done, wrong)
		}
	}
}

// Usage is given back once, whatever is corrected, void and written off, in any order: when none is left that counts, the
// invoices that are not void come to nothing together with what was credited of them, neither more nor less. Nobody owes
// anything then, what cards have paid is funds, and what was given is credit.
func TestMoney_PropertyUsageIsGivenBackOnce(t *testing.T) {
	t.Parallel()
	seed := seedOf()
	for round := range often(8, 80) {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			w := newWorld(t)
			m := mover{world: w, r: rand.New(rand.NewPCG(seed, uint64(round))), a: w.onPro(t), only: []string{
				"use", "use late", "take usage back", "amend usage", "a month", "void", "write off",
			}}
			if round%2 == 1 { // and there is money
				m.only = append(m.only, "top up", "pay", "refund", "the card declines", "spend limit", "refund at the provider", "a refund fails",
					"dispute", "win a dispute", "lose a dispute", "automatic top-ups", "the provider does not answer", "another card", "grant")
			}
			w.Policy.Dunning.Retries = []time.Duration{1000 * 24 * time.Hour} // nobody is suspended: all is used while all is open
			w.behave(t, m.a, sandbox.TokenChargeDeclined)
			var done []string
			for range 24 {
				done = append(done, m.step(t))
			}
			if wrong := m.nothingUsed(t); wrong != "" {
				t.Errorf("seed %d: after %v %s", seed, done, wrong)
			}
		})
	}
}

// wrong says what in the account's books cannot be.
func (m *mover) wrong(t *testing.T) string {
	t.Helper()
	b, err := m.DB.Ledger().Balances(t.Context(), m.a)
	if err != nil {
		t.Fatal(err)
	}
	grants, err := m.DB.Wallet().Unspent(t.Context(), m.a)
	if err != nil {
		t.Fatal(err)
	}
	left := int64(0)
	for _, g := range grants {
		left += g.Remaining.Minor
	}
	switch s := books.StandingOf(b, money.USD); {
	case s.Funds.Minor > b[books.Cash]+s.Due.Minor:
		return fmt.Sprintf("funds are %s and %s is due, of %d that was paid", s.Funds, s.Due, b[books.Cash])
	case b[books.Cash] < 0:
		return fmt.Sprintf("%d more was given back than taken", -b[books.Cash])
	case s.Due.Minor < 0 || s.Promo.Minor != left:
		return fmt.Sprintf("%s is due, and credit is %s, of which %d are left", s.Due, s.Promo, left)
	}
	return ""
}

// nothingUsed voids all of the account's usage, and says what is wrong with what its invoices then come to.
func (m *mover) nothingUsed(t *testing.T) string {
	t.Helper()
	for _, event := range m.events {
		if err := m.takeBack(t, event, ""); err != nil {
			if _, refused := errors.AsType[*errs.Error](err); !refused {
				t.Fatalf("take back %s: %v", event, err)
			}
		}
	}
	m.until(t, m.clock().Add(33*24*time.Hour))
	m.until(t, m.clock().Add(33*24*time.Hour))
	if wrong := m.wrong(t); wrong != "" {
		return "all usage is void, and " + wrong
	}
	if b, err := m.DB.Ledger().Balances(t.Context(), m.a); err != nil || b[books.Promo] != -m.given || b[books.BadDebt] != 0 || b[books.Funds] != -b[books.Cash] {
		return fmt.Sprintf("all usage is void, and the books have %v (%v)", b, err)
	}
	all, err := m.DB.Invoices().List(t.Context(), m.a, "", page.Request{Limit: page.MaxLimit})
	if err != nil {
		t.Fatal(err)
	}
	sum, said := int64(0), ""
	for _, inv := range all.Data {
		if inv.Status == invoice.Void || inv.Status == invoice.Draft {
			continue
		}
		content, err := m.DB.Invoices().Content(t.Context(), m.a, inv.ID)
		if err != nil {
			t.Fatal(err)
		}
		notes, err := m.DB.Invoices().CreditNotesOf(t.Context(), m.a, inv.ID)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range notes { // of what was written off
			sum -= n.Amount.Minor
			said += fmt.Sprintf("; credited of it: %d", n.Amount.Minor)
		}
		for _, l := range content.Lines {
			if l.Kind != "credit_to_balance" {
				sum += l.Amount.Minor
				said += fmt.Sprintf("; %s of %s: %s %d", inv.Status, l.Period.Start.Format(time.DateOnly), l.Kind, l.Amount.Minor)
			}
		}
	}
	if sum != 0 {
		return fmt.Sprintf("all usage is void, and invoices come to %d%s", sum, said)
	}
	return ""
}

// takeBack makes a quantity of what an event counted, or voids it.
func (m *mover) takeBack(t *testing.T, event, quantity string) error {
	t.Helper()
	x := metering.Correction{Source: "test", EventID: event, Kind: metering.Void, Reason: "it was otherwise"}
	if quantity != "" {
		x.Kind, x.Quantity = metering.Amend, money.MustDecimal(quantity)
	}
	fix := billing.Corrections{Core: m.Core, Catalogue: billing.Meters(plan.Shipped().Meters)}
	_, err := fix.Correct(t.Context(), asked(m.a, newKey()), x, nil)
	return err
}

// mover does to one account what moves money.
type mover struct {
	*world
	r      *rand.Rand
	a      account.ID
	events []string
	open   []string     // disputes
	given  int64        // as credit
	taken  []payment.ID // that were disputed
	only   []string     // of the steps; nil: all
}

func (m *mover) amount(most int64) money.Amount { return usd(1 + m.r.Int64N(most)) }

func (m *mover) step(t *testing.T) string {
	t.Helper()
	ctx := t.Context()
	type step struct {
		name string
		do   func() error
	}
	steps := []step{
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
			return m.takeBack(t, m.events[m.r.IntN(len(m.events))], "")
		}},
		{"amend usage", func() error {
			if len(m.events) == 0 {
				return nil
			}
			return m.takeBack(t, m.events[m.r.IntN(len(m.events))], money.DecimalFromInt(m.r.Int64N(200000)).String())
		}},
		{"top up", func() error {
			_, err := billing.Funder{Core: m.Core}.TopUp(ctx, asked(m.a, newKey()), billing.TopUpInput{Amount: usd(500 + m.r.Int64N(3000))}, nil)
			return err
		}},
		{"grant", func() error {
			in := billing.GrantInput{Amount: m.amount(3000), Reason: "test"}
			m.given += in.Amount.Minor
			if m.only == nil && m.r.IntN(2) == 0 {
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
		{"void", func() error {
			open, err := m.DB.Invoices().Unpaid(ctx, m.a)
			if err != nil || len(open) == 0 {
				return err
			}
			_, err = billing.Adjuster{Core: m.Core}.Void(ctx, asked(m.a, newKey()), open[m.r.IntN(len(open))].ID, "test", nil)
			return err
		}},
		{"pay", func() error {
			all, err := m.DB.Invoices().List(ctx, m.a, "", page.Request{Limit: 20})
			if err != nil || len(all.Data) == 0 {
				return err
			}
			_, err = billing.Collector{Core: m.Core}.Pay(ctx, asked(m.a, newKey()), all.Data[m.r.IntN(len(all.Data))].ID, payment.MethodID{}, nil)
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
		{"refund at the provider", func() error {
			p, err := m.anyPayment(t)
			if err != nil || p.ID.IsZero() || slices.Contains(m.taken, p.ID) {
				return err
			}
			m.refundOutside(t, p.ProviderRef, m.amount(p.Refundable().Minor).Minor)
			return nil
		}},
		{"a refund fails", func() error {
			p, err := m.anyPayment(t)
			if err != nil || p.ID.IsZero() || slices.Contains(m.taken, p.ID) {
				return err
			}
			refunds, err := m.DB.Payments().RefundsOf(ctx, m.a, p.ID)
			if err != nil || len(refunds) == 0 {
				return err
			}
			ref := refunds[m.r.IntN(len(refunds))]
			if ref.Status != payment.Succeeded {
				return nil
			}
			if err := m.control.SettleRefund(ctx, ref.ProviderRef, "expired_or_canceled_card"); err != nil {
				return err
			}
			m.tell(t, ref.ProviderRef)
			return nil
		}},
		{"dispute", func() error {
			p, err := m.anyPayment(t)
			if err != nil || p.ID.IsZero() || slices.Contains(m.taken, p.ID) {
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
		{"lose a dispute", func() error {
			if len(m.open) == 0 {
				return nil
			}
			lost := m.open[0]
			m.open = m.open[1:]
			if err := m.control.CloseDispute(ctx, lost, false); err != nil {
				return err
			}
			m.tell(t, lost)
			return nil
		}},
		{"automatic top-ups", func() error {
			rule, err := m.DB.Wallet().AutoTopUp(ctx, m.a)
			if err != nil && !errors.Is(err, wallet.ErrNoAutoTopUp) {
				return err
			}
			rule.Enabled, rule.Threshold, rule.Target = true, usd(1000), usd(3000)
			if _, err = (billing.Funder{Core: m.Core}).SetAutoTopUp(ctx, asked(m.a, ""), rule); err == nil {
				m.check(t, m.a)
			}
			return err
		}},
		{"spend limit", func() error { m.limitSpend(t, m.a, m.r.Int64N(4000), entitlement.Soft); return nil }},
		{"downgrade", func() error {
			_, err := billing.Downgrader{Core: m.Core}.Plan(ctx, asked(m.a, newKey()), plan.Developer, nil)
			return err
		}},
		{"upgrade", func() error {
			_, err := billing.Upgrader{Core: m.Core}.Upgrade(ctx, asked(m.a, newKey()), billing.UpgradeInput{Plan: plan.Pro}, nil)
			return err
		}},
		{"another card", func() error { m.addCard(t, m.a, sandbox.TokenMastercard); return nil }},
		{"the provider does not answer", func() error {
			return m.control.Plan(ctx, sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset}, sandbox.Fault{Op: "refund", Kind: sandbox.FaultReset})
		}},
		{"the provider gives back another amount", func() error {
			return m.control.Plan(ctx, sandbox.Fault{Op: "refund", Kind: sandbox.FaultWrongAmount})
		}},
		{"the card declines", func() error {
			m.behave(t, m.a, []string{sandbox.TokenVisa, sandbox.TokenChargeDeclined}[m.r.IntN(2)])
			return nil
		}},
	}
	if m.only != nil {
		steps = slices.DeleteFunc(steps, func(s step) bool { return !slices.Contains(m.only, s.name) })
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
