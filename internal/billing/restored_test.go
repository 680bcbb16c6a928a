package billing_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
)

// forgottenCharge has the provider charge an account's card for a payment that the database does not know of.
func (w *world) forgottenCharge(t *testing.T, a account.ID, minor int64) payment.ChargeResult {
	t.Helper()
	card, lost := w.defaultCard(t, a), id.New[payment.Payment]().String()
	customer, err := w.DB.Payments().Customer(t.Context(), a, w.Gateway.Name())
	if err != nil {
		t.Fatal(err)
	}
	c, err := w.Gateway.Charge(t.Context(), payment.ChargeRequest{
		Key: lost, Amount: usd(minor), CustomerRef: customer, MethodRef: card.ProviderRef, AccountRef: a.String(), PaymentRef: lost,
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A database that was restored to before an invoice was charged has the invoice open. Nothing is charged by itself until what the
// provider took was given back there, whether the service started on it or goes on over it.
func TestRestored_NoInvoiceIsChargedTwice(t *testing.T) {
	t.Parallel()
	for name, restore := range map[string]func(t *testing.T, w *world){
		"AtAStart": func(_ *testing.T, w *world) { w.WithholdCharges() },
		"WhileItRuns": func(t *testing.T, w *world) {
			t.Helper()
			if _, err := w.db.Pool().Exec(t.Context(), "UPDATE sweeps SET began_at = began_at - interval '1 hour'"); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onPro(t)
			w.use(t, a, "voice", "120000") // 27.00
			w.sweep(t)
			w.advance(35 * 24 * time.Hour)
			lost := w.forgottenCharge(t, a, 2700)
			restore(t, w)
			for range 2 { // and it is not forgotten by having been told of
				_, err := billing.Sweeper{Core: w.Core}.Sweep(t.Context())
				if err == nil || !strings.Contains(err.Error(), lost.Ref) {
					t.Fatalf("%v, want the charge that was forgotten", err)
				}
			}
			open, err := w.DB.Invoices().Unpaid(t.Context(), a)
			if err != nil || len(open) != 1 || open[0].AmountDue().Minor != 2700 || len(w.charges(t)[a]) != 1 {
				t.Fatalf("open %+v, %v, charges %v; want the invoice to be due, and not charged", open, err, w.charges(t)[a])
			}
			if err := w.control.Refund(t.Context(), lost.Ref, 2700); err != nil {
				t.Fatal(err)
			}
			w.sweep(t)
			w.wantInvoice(t, a, open[0].ID, invoice.Paid, 0)
			if n := len(w.charges(t)[a]); n != 2 {
				t.Errorf("%d charges, want the one that was given back and one more", n)
			}
		})
	}
}

// An automatic top-up waits as well, and is looked at again without anything that would nudge it.
func TestRestored_AutomaticTopUpsWait(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.keepFunds(t, sandbox.TokenVisa, 100_000)
	w.WithholdCharges()
	if got := w.checkedFunds(t, a); got != 0 {
		t.Errorf("funds of %d, charged while charges are withheld", got)
	}
	w.sweep(t)
	w.advance(2 * time.Minute)
	w.sweep(t)
	if got := w.balance(t, a).Funds.Minor; got != 5000 {
		t.Errorf("funds of %d once they are not, want the target", got)
	}
}

// mute is a provider that does not say what it has charged.
type mute struct{ payment.Gateway }

func (mute) ListCharges(context.Context, time.Time, time.Time) iter.Seq2[payment.ChargeResult, error] {
	return func(yield func(payment.ChargeResult, error) bool) { yield(payment.ChargeResult{}, errors.New("away")) }
}

// A start charges what is due with its first sweep, however many charges there were that the database knows, that came to nothing
// or that are somebody else's; it waits where the provider cannot be asked.
func TestRestored_AStartIsNoRestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, other := w.onPro(t), w.onPro(t)
	w.topUp(t, other, 5000)
	w.use(t, a, "voice", "120000") // 27.00
	w.sweep(t)
	w.behave(t, other, sandbox.TokenDeclined)
	w.forgottenCharge(t, other, 700) // is declined
	elsewhere := id.New[account.Account]().String()
	var foreign string
	for _, ref := range []string{elsewhere, "shop-1"} {
		r, err := w.Gateway.Attach(t.Context(), payment.AttachRequest{Key: ref, AccountRef: ref, Token: sandbox.TokenVisa})
		if err != nil {
			t.Fatal(err)
		}
		c := payment.ChargeRequest{Key: "pay-" + ref, Amount: usd(900), CustomerRef: r.CustomerRef, MethodRef: r.Method.Ref, AccountRef: ref, PaymentRef: "order-1"}
		if ref == elsewhere {
			c.PaymentRef = id.New[payment.Payment]().String()
		}
		made, err := w.Gateway.Charge(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if ref == elsewhere {
			foreign = made.Ref
		}
	}
	w.advance(35 * 24 * time.Hour)
	w.WithholdCharges()

	there := w.Gateway
	w.Gateway = mute{there}
	if _, err := (billing.Sweeper{Core: w.Core}).Sweep(t.Context()); err == nil {
		t.Error("no error where the provider cannot be asked")
	}
	open := w.unpaid(t, a)
	w.Gateway = there
	w.sweep(t)
	w.wantInvoice(t, a, open.ID, invoice.Paid, 0)
	if err := w.control.Refund(t.Context(), foreign, 900); err != nil { // the checks at the end would call it lost
		t.Fatal(err)
	}
}
