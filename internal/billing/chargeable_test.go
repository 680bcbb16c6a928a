package billing_test

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/pkg/money"
)

// "Remove when paid" is granted by whatever pays, funds too.
func TestRemoveWhenPaid_ByFunds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.use(t, a, "voice", "120000") // 27.00
	m := w.defaultCard(t, asked(a, ""))
	r, err := billing.Cards{Core: w.Core}.RequestRemoval(t.Context(), asked(a, newKey()), m.ID, payment.WhenPaid, "", nil)
	if err != nil || r.Record.Status != payment.RemovalOpen {
		t.Fatalf("%+v, %v", r.Record, err)
	}
	w.topUp(t, a, 3000)
	w.until(t, w.clock().Add(35*24*time.Hour))
	if got := w.card(t, a, m.ID); got.Status != payment.MethodRemoved {
		t.Errorf("the card is %s", got.Status)
	}
}

// A change of a card that the provider has refused, or not answered, can be made in another way.
func TestChangeCard_OtherwiseAfterNoAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := asked(w.open(t).ID, "")
	w.upgrade(t, a.Account, sandbox.TokenVisa)
	m := w.defaultCard(t, a)
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "update", Kind: sandbox.FaultReset}); err != nil {
		t.Fatal(err)
	}
	change := func(city string) (payment.Method, error) {
		moved := m.Billing
		moved.Address.City = city
		return billing.Cards{Core: w.Core}.Change(t.Context(), a, m.ID, billing.CardChange{Version: m.Version, Billing: &moved})
	}
	if got, err := change("Ockham"); err == nil {
		t.Fatalf("%+v without an answer", got)
	}
	if got, err := change("Oakham"); err != nil || got.Billing.Address.City != "Oakham" {
		t.Errorf("%+v, %v", got.Billing, err)
	}
}

// A charge that nobody has asked for yet, of a card that is gone, is not waited for.
func TestTopUp_OfACardThatWasRemovedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	never := false
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset, Effect: &never}); err != nil {
		t.Fatal(err)
	}
	top := w.topUp(t, a, 1000)
	m := w.defaultCard(t, asked(a, ""))
	if err := (billing.Cards{Core: w.Core}).RemoveByOperator(t.Context(), asked(a, ""), m.ID, "test"); err != nil {
		t.Fatal(err)
	}
	w.advance(2 * time.Minute)
	w.sweep(t)
	if got, err := (billing.Funder{Core: w.Core}).Get(t.Context(), a, top.ID); err != nil || got.Status != payment.Failed {
		t.Errorf("the top-up is %s, %v", got.Status, err)
	}
}

// limited is a provider with limits of its own.
type limited struct {
	payment.Gateway
	change func(*payment.Limits, money.Currency)
}

func (g limited) Limits(c money.Currency) (payment.Limits, error) {
	l, err := g.Gateway.Limits(c)
	g.change(&l, c)
	return l, err
}

// Charge refuses what is beyond them, as the providers do.
func (g limited) Charge(ctx context.Context, r payment.ChargeRequest) (payment.ChargeResult, error) {
	l, err := g.Limits(r.Amount.Currency)
	if err == nil {
		err = l.Check(r.Amount)
	}
	if err != nil {
		return payment.ChargeResult{}, err
	}
	return g.Gateway.Charge(ctx, r)
}

// inSteps takes whole dollars only, as some providers take no thousandths.
func inSteps(l *payment.Limits, c money.Currency) { l.Minimum, l.Step = money.New(100, c), 100 }

// tenAtMost takes ten dollars at most.
func tenAtMost(l *payment.Limits, c money.Currency) { l.Maximum = money.New(1000, c) }

// An invoice that is no whole number of the provider's steps is charged to the next one; the rest goes to the funds.
func TestCollect_InTheProvidersSteps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Gateway = limited{w.Gateway, inSteps}
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.use(t, a, "voice", "120600") // 27.27
	w.until(t, w.clock().Add(35*24*time.Hour))
	all, err := w.DB.Invoices().List(t.Context(), a, "", page.Request{Limit: 10})
	if err != nil || len(all.Data) != 1 || all.Data[0].Total != usd(2727) || all.Data[0].Status != invoice.Paid {
		t.Errorf("%+v, %v", all.Data, err)
	}
	w.wantBalance(t, a, 73, 0)
}

// An invoice of more than the provider takes at once is collected in parts, none of them too small for it.
func TestCollect_MoreThanTheProviderTakesAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Gateway = limited{w.Gateway, tenAtMost}
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.use(t, a, "voice", "104933") // 20.22
	end := day(time.April, 10)
	w.until(t, end.Add(time.Hour))
	w.until(t, end.Add(w.Policy.Grace+time.Hour))
	for range 3 {
		w.sweep(t)
	}
	all, err := w.DB.Invoices().List(t.Context(), a, "", page.Request{Limit: 10})
	if err != nil || len(all.Data) != 1 || all.Data[0].Status != invoice.Paid {
		t.Fatalf("%+v, %v", all.Data, err)
	}
	paid, err := w.DB.Payments().PaymentsOf(t.Context(), a, all.Data[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	amounts := map[int64]int{}
	for _, p := range paid {
		amounts[p.Amount.Minor]++
	}
	if want := map[int64]int{1000: 1, 972: 1, 50: 1}; !maps.Equal(amounts, want) {
		t.Errorf("charged %v of %s, want %v", amounts, all.Data[0].Total, want)
	}
	w.wantBalance(t, a, 0, 0)
}
