package billing_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/upgrade"
)

// forgetful is a provider that says for a while that it knows of no charge.
type forgetful struct {
	payment.Gateway
	forgets bool
}

func (g *forgetful) LookupCharge(ctx context.Context, l payment.ChargeLookup) (payment.ChargeResult, error) {
	if g.forgets {
		return payment.ChargeResult{}, payment.ErrMissing
	}
	return g.Gateway.LookupCharge(ctx, l)
}

// A payment that was given up because the provider knew nothing of it, and of which the provider says later that it has
// succeeded after all, is booked: the money was taken.
func TestPayment_SucceedsAfterItWasGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	provider := &forgetful{Gateway: w.Gateway, forgets: true}
	w.Gateway = provider
	w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset})
	top := w.topUp(t, a, 5000)
	w.advance(payment.KeyRetention + time.Hour)
	w.sweep(t)
	given, err := billing.Funder{Core: w.Core}.Get(t.Context(), a, top.ID)
	if err != nil || given.Status != payment.Failed || given.Charge.Status != payment.Failed {
		t.Fatalf("%+v, %v; want it given up", given, err)
	}
	provider.forgets = false
	for range 2 {
		w.tell(t, w.charges(t)[a][0].Ref)
	}
	after, err := billing.Funder{Core: w.Core}.Get(t.Context(), a, top.ID)
	if err != nil || after.Status != payment.Succeeded || after.Failure != nil || after.Charge.Status != payment.Succeeded {
		t.Errorf("%+v, %v; want it succeeded", after, err)
	}
	w.wantBalance(t, a, 5000, 0)
}

// One that somebody has given back at the provider meanwhile stays given up: nothing is there to be booked.
func TestPayment_IsGivenBackAfterItWasGivenUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	provider := &forgetful{Gateway: w.Gateway, forgets: true}
	w.Gateway = provider
	w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset})
	top := w.topUp(t, a, 5000)
	w.advance(payment.KeyRetention + time.Hour)
	w.sweep(t)
	provider.forgets = false
	charge := w.charges(t)[a][0].Ref
	w.refundOutside(t, charge, 5000)
	w.tell(t, charge)
	after, err := billing.Funder{Core: w.Core}.Get(t.Context(), a, top.ID)
	if err != nil || after.Status != payment.Failed || after.Charge.Status != payment.Failed || w.told(t, a, outbox.TopUpSucceeded) != 0 {
		t.Errorf("%+v, %v; want it given up", after, err)
	}
	w.wantBalance(t, a, 0, 0)
}

// asking counts the charges that the provider is told to confirm.
type asking struct {
	payment.Gateway
	confirmed int
}

func (g *asking) ConfirmCharge(ctx context.Context, r payment.ConfirmRequest) (payment.ChargeResult, error) {
	g.confirmed++
	return g.Gateway.ConfirmCharge(ctx, r)
}

// A customer who did not pass the bank's question could go on at the provider with another card. Whoever hears of it, a
// webhook too, has the provider end that: see payment.Gateway's ConfirmCharge.
func TestPayment_ARefusedAuthenticationIsMadeFinal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultRequiresAction})
	top := w.topUp(t, a, 5000)
	if err := w.control.Act(t.Context(), top.Charge.ProviderRef, false); err != nil {
		t.Fatal(err)
	}
	provider := &asking{Gateway: w.Gateway}
	w.Gateway = provider
	w.tell(t, top.Charge.ProviderRef)
	if got, err := (billing.Funder{Core: w.Core}).Get(t.Context(), a, top.ID); err != nil || got.Status != payment.Failed {
		t.Errorf("the top-up is %s, %v", got.Status, err)
	}
	if provider.confirmed != 1 {
		t.Errorf("confirmed %d times, want once", provider.confirmed)
	}
}

// givingUp is a provider whose customer acts right before a charge is given up, and whose answer to that may be lost.
type givingUp struct {
	payment.Gateway
	act  func()
	lost *bool
}

func (g givingUp) CancelCharge(ctx context.Context, r payment.CancelRequest) (payment.ChargeResult, error) {
	g.act()
	res, err := g.Gateway.CancelCharge(ctx, r)
	if *g.lost {
		*g.lost = false
		return payment.ChargeResult{}, payment.ErrUnknown
	}
	return res, err
}

// A customer may come back to 3-D Secure a day later, when the service gives the payment up. Whoever is first at the provider
// has said what it comes to, once, and another top-up may follow.
func TestPayment_ApprovedBy3DSecureWhenItsTimeIsOver(t *testing.T) {
	t.Parallel()
	const before, during, after = "before it is given up", "while it is given up", "after it was given up"
	for _, c := range []struct {
		approved string
		lost     bool // the answer to giving it up
		want     payment.Status
	}{
		{before, false, payment.Succeeded},
		{during, false, payment.Succeeded},
		{during, true, payment.Succeeded},
		{after, false, payment.Canceled},
		{after, true, payment.Canceled},
	} {
		t.Run(fmt.Sprintf("%s, answer lost %t", c.approved, c.lost), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onPro(t)
			w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultRequiresAction})
			top := w.topUp(t, a, 5000)
			if top.Status != payment.RequiresAction {
				t.Fatalf("%+v", top)
			}
			approve := func() error { return w.control.Act(t.Context(), top.Charge.ProviderRef, true) }
			provider := givingUp{Gateway: w.Gateway, act: func() {}, lost: &c.lost}
			if c.approved == during {
				provider.act = func() { _ = approve() } // the second time it waits for nobody
			}
			w.Gateway = provider
			w.advance(upgrade.Lifetime + time.Hour)
			if c.approved == before {
				if err := approve(); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 {
				w.sweep(t)
				w.advance(time.Hour)
			}
			if c.approved == after {
				if err := approve(); err == nil {
					t.Error("the provider takes a charge on that was given up")
				}
			}
			w.tell(t, top.Charge.ProviderRef)
			w.sweep(t)
			if got, err := (billing.Funder{Core: w.Core}).Get(t.Context(), a, top.ID); err != nil || got.Status != c.want || got.Charge.Status != c.want {
				t.Errorf("the top-up is %s, its payment %s, %v; want %s", got.Status, got.Charge.Status, err, c.want)
			}
			funds := int64(0)
			if c.want == payment.Succeeded {
				funds = 5000
			}
			w.wantBalance(t, a, funds, 0)
			w.topUp(t, a, 1000)
			w.wantBalance(t, a, funds+1000, 0)
		})
	}
}

func TestDunningSuspendsAndPaymentReinstates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.upgrade(t, a.ID, sandbox.TokenInsufficientFunds)
	w.use(t, a.ID, "voice", "1800000")
	w.advance(35 * 24 * time.Hour)
	for range 40 { // days
		w.sweep(t)
		w.advance(24 * time.Hour)
	}
	acct, err := w.DB.Accounts().Get(t.Context(), a.ID)
	if err != nil || acct.Status != account.Suspended {
		t.Fatalf("status %s, %v; want suspended after the last retry", acct.Status, err)
	}
	open, err := w.DB.Invoices().Unpaid(t.Context(), a.ID)
	if err != nil || len(open) != 1 {
		t.Fatalf("%d unpaid invoices, %v", len(open), err)
	}
	ps, _ := w.DB.Payments().PaymentsOf(t.Context(), a.ID, open[0].ID)
	if len(ps) != 5 {
		t.Errorf("%d attempts, want the first and four retries", len(ps))
	}
	if r := w.tryUse(t, a.ID, "voice", "60001"); r.Status != metering.Rejected {
		t.Errorf("paid use while suspended: %+v", r)
	}
	// Another card pays, and paid use is back.
	add, err := billing.Cards{Core: w.Core}.Add(t.Context(), asked(a.ID, newKey()), billing.NewCard{
		CardSource: billing.CardSource{Token: sandbox.TokenMastercard}, Profile: profile,
	}, nil)
	if err != nil || add.Record.Status != payment.MethodActive {
		t.Fatalf("%+v, %v", add.Record, err)
	}
	w.sweep(t)
	if acct, _ := w.DB.Accounts().Get(t.Context(), a.ID); acct.Status != account.Active {
		t.Errorf("status %s after payment, want active", acct.Status)
	}
	w.use(t, a.ID, "voice", "60001")
}

// settledAs has the provider decline the account's only charge, which was processing, and tells us.
func (w *world) settledAs(t *testing.T, a account.ID, decline string) {
	t.Helper()
	for c, err := range w.Gateway.ListCharges(t.Context(), start.Add(-time.Hour), w.clock().Add(time.Hour)) {
		if err != nil {
			t.Fatal(err)
		}
		if c.AccountRef != a.String() || c.Outcome != payment.OutcomeProcessing {
			continue
		}
		if err := w.control.Settle(t.Context(), c.Ref, decline); err != nil {
			t.Fatal(err)
		}
		w.tell(t, c.Ref)
		return
	}
	t.Fatal("nothing is processing")
}

// A card that was replaced while it was being asked suspends nobody, whatever its bank says: its successor is asked at once.
func TestDunning_OfACardThatWasReplacedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenProcessing)
	w.use(t, a, "voice", "120000")
	w.until(t, w.clock().Add(35*24*time.Hour))
	w.addCard(t, a, sandbox.TokenMastercard)
	w.settledAs(t, a, "lost_card")
	w.sweep(t)
	w.paidInvoice(t, a, 2700)
	if n := w.told(t, a, outbox.AccountSuspended); n != 0 {
		t.Errorf("suspended %d times", n)
	}
}

// What becomes of another card, with which its customer tries to pay, says nothing of the one that is charged by schedule.
func TestDunning_GoesOnAfterAnotherCardWasTried(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	lost := func() payment.MethodID { w.upgrade(t, a, sandbox.TokenLost); return w.defaultCard(t, a).ID }()
	w.addCard(t, a, sandbox.TokenInsufficientFunds)
	w.use(t, a, "voice", "120000")
	w.until(t, w.clock().Add(35*24*time.Hour))
	open := w.unpaid(t, a)
	paid, err := billing.Collector{Core: w.Core}.Pay(t.Context(), asked(a, newKey()), open.ID, lost, nil)
	if err != nil || paid.Record.Status != payment.Failed || w.told(t, a, outbox.AccountSuspended) != 0 {
		t.Fatalf("%+v, %v; suspended %d times", paid.Record, err, w.told(t, a, outbox.AccountSuspended))
	}
	w.behave(t, a, sandbox.TokenVisa)
	w.until(t, w.clock().Add(4*24*time.Hour))
	w.paidInvoice(t, a, 2700)
}

// A debt that was written off stays owed: it is not another invoice's payment that takes its suspension back, but its own.
func TestSuspensionOutlivesWriteOffUntilTheDebtIsPaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenInsufficientFunds)
	w.use(t, a, "voice", "1800000")
	w.advance(35 * 24 * time.Hour)
	w.use(t, a, "voice", "120000")
	for range 60 { // days
		w.sweep(t)
		w.advance(24 * time.Hour)
	}
	open, err := w.DB.Invoices().Unpaid(t.Context(), a)
	if err != nil || len(open) != 2 {
		t.Fatalf("%d unpaid invoices, %v", len(open), err)
	}
	w.writeOff(t, a, open[0].ID)
	// As many that were written off since, and led to nothing, do not hide it.
	if _, err := w.db.Pool().Exec(t.Context(), `
		INSERT INTO invoices (account_id, id, kind, status, subscription_id, period_start, period_end, currency, finalize_at, finalized_at, created_at, updated_at)
		SELECT account_id, ('ffffffff-ffff-7fff-8fff-' || lpad(to_hex(n), 12, '0'))::uuid, 'threshold', 'uncollectible', subscription_id, period_start, period_end,
			currency, finalize_at, finalized_at, created_at, updated_at
		FROM invoices, generate_series(1, 100) n WHERE id = $1`, open[0].ID.UUID()); err != nil {
		t.Fatal(err)
	}
	want := func(s account.Status, when string) {
		t.Helper()
		if acct, err := w.DB.Accounts().Get(t.Context(), a); err != nil || acct.Status != s {
			t.Errorf("%s, %v %s, want %s", acct.Status, err, when, s)
		}
	}
	add, err := billing.Cards{Core: w.Core}.Add(t.Context(), asked(a, newKey()), billing.NewCard{
		CardSource: billing.CardSource{Token: sandbox.TokenMastercard}, Profile: profile,
	}, nil)
	if err != nil || add.Record.Status != payment.MethodActive {
		t.Fatalf("%+v, %v", add.Record, err)
	}
	w.sweep(t)
	if open, err := w.DB.Invoices().Unpaid(t.Context(), a); err != nil || len(open) != 0 {
		t.Fatalf("%+v, %v; want the other invoice paid", open, err)
	}
	want(account.Suspended, "once another invoice is paid")
	if act := w.action(t, a, billing.ActPayInvoice); !act.Allowed || act.Href != "/v1/invoices/"+open[0].ID.String()+"/pay" {
		t.Errorf("the page says %+v, and only this payment takes the suspension back", act)
	}
	if _, err := (billing.Collector{Core: w.Core}).Pay(t.Context(), asked(a, newKey()), open[0].ID, payment.MethodID{}, asJSON[payment.Payment](200)); err != nil {
		t.Fatal(err)
	}
	want(account.Active, "once the debt is paid after all")
	// They say nothing, which the invariants would hold against them.
	if _, err := w.db.Pool().Exec(t.Context(), "UPDATE invoices SET status = 'draft', finalized_at = NULL, finalize_at = 'infinity' WHERE kind = 'threshold'"); err != nil {
		t.Fatal(err)
	}
}

// Funds pay what was written off and keeps the account suspended, as they pay what is open. A preview says so.
func TestPayFromFunds_PaysWhatKeepsTheAccountSuspended(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenChargeDeclined)
	w.use(t, a, "voice", "120000") // 27.00
	w.closed(t, day(time.April, 10))
	for range 20 { // days
		w.until(t, w.clock().Add(24*time.Hour))
	}
	open, err := w.DB.Invoices().Unpaid(t.Context(), a)
	if err != nil || len(open) != 1 || open[0].Dunning != invoice.Suspended {
		t.Fatalf("%+v, %v", open, err)
	}
	w.writeOff(t, a, open[0].ID)
	w.behave(t, a, sandbox.TokenVisa)
	if left := w.left(t, a, w.grant(t, a, 200, 0, 0)); left != 0 {
		t.Errorf("%d of the credit are left, and the account is suspended", left)
	}
	preview, err := billing.Funder{Core: w.Core}.Preview(t.Context(), asked(a, ""), billing.TopUpInput{Amount: usd(3000)})
	if err != nil || preview.After.Funds != usd(500) || preview.After.Available != usd(500) {
		t.Errorf("funds of %s and %s available are shown, %v; want what is left", preview.After.Funds, preview.After.Available, err)
	}
	w.topUp(t, a, 3000)
	w.wantInvoice(t, a, open[0].ID, invoice.Paid, 0)
	w.wantBalance(t, a, 500, 0)
	if acct, err := w.DB.Accounts().Get(t.Context(), a); err != nil || acct.Status != account.Active {
		t.Errorf("the account is %s, %v", acct.Status, err)
	}
	b, err := w.DB.Ledger().Balances(t.Context(), a)
	if err != nil || b[books.BadDebt] != 0 || b[books.Receivable] != 0 {
		t.Errorf("%d written off and %d due in the books, %v", b[books.BadDebt], b[books.Receivable], err)
	}
}

// Nor is one whose holder has stopped its payments, month after month: the networks fine those who go on. That is no secret.
func TestCardBudget_OfACardThatItsHolderHasForbidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenProcessing)
	pending := w.topUp(t, a, 5000)
	w.settledAs(t, a, "stop_payment_order")
	top, err := w.DB.Payments().TopUp(t.Context(), a, pending.ID)
	if err != nil || top.Failure == nil || top.Failure.Told().Code != "stop_payment_order" || top.Failure.Told().Class != payment.DeclineHard {
		t.Fatalf("%+v of %v, %v", top, top.Failure, err)
	}
	w.until(t, w.clock().Add(40*24*hour))
	w.retain(t, time.Now().Add(40*24*hour))
	if _, err := (billing.Funder{Core: w.Core}).TopUp(t.Context(), asked(a, newKey()), billing.TopUpInput{Amount: usd(5000)}, nil); !errors.Is(err, billing.ErrCardBudget) {
		t.Errorf("after more than a month %v, want ErrCardBudget", err)
	}
}

// A card that was declined as stolen is never asked again, and no time is told at which it may be.
func TestCardBudget_OfACardThatIsNeverAskedAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.behave(t, a, sandbox.TokenLost)
	if top := w.topUp(t, a, 5000); top.Status != payment.Failed {
		t.Fatalf("the top-up is %s", top.Status)
	}
	_, err := billing.Funder{Core: w.Core}.TopUp(t.Context(), asked(a, newKey()), billing.TopUpInput{Amount: usd(5000)}, nil)
	e, ok := errors.AsType[*errs.Error](err)
	if !ok || !errors.Is(e, billing.ErrCardBudget) || e.Params["retry_after"] != nil {
		t.Errorf("%v with %v, want ErrCardBudget and no time", err, e.Params)
	}
	w.until(t, w.clock().Add(500*24*hour))
	w.retain(t, time.Now().Add(500*24*hour)) // nor is it forgotten
	if _, err := (billing.Funder{Core: w.Core}).TopUp(t.Context(), asked(a, newKey()), billing.TopUpInput{Amount: usd(5000)}, nil); !errors.Is(err, billing.ErrCardBudget) {
		t.Errorf("after a year and more %v, want ErrCardBudget", err)
	}
	// Until the networks give it another number.
	if err := w.control.Replace(t.Context(), w.defaultCard(t, a).ProviderRef, "1881", 4, 2031); err != nil {
		t.Fatal(err)
	}
	w.behave(t, a, sandbox.TokenVisa)
	w.tell(t, w.defaultCard(t, a).ProviderRef)
	if top := w.topUp(t, a, 5000); top.Status != payment.Succeeded {
		t.Errorf("the top-up by the card's new number is %s", top.Status)
	}
}

// A suspension stops paid use and does not end the plan: its fee is due until the account is moved or closed, as its customer may
// pay at any moment and go on.
func TestSuspension_ThePlansFeeGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onProAmongFees(t)
	w.moveTo(t, a, "growth")
	w.behave(t, a, sandbox.TokenChargeDeclined)
	w.closed(t, day(time.April, 10))
	for range 20 {
		w.until(t, w.clock().Add(24*time.Hour))
	}
	if acct, err := w.DB.Accounts().Get(t.Context(), a); err != nil || acct.Status != account.Suspended {
		t.Fatalf("the account is %s, %v", acct.Status, err)
	}
	w.closed(t, day(time.May, 10))
	w.closed(t, day(time.June, 10))
	if got, want := w.lines(t, a, day(time.May, 10)), "fee 2200"; got != want {
		t.Errorf("billed %q, want %q", got, want)
	}
}
