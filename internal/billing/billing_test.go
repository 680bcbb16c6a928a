package billing_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/metering"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/page"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
	"github.com/accrue-billing/accrue/internal/upgrade"
)

func newKey() string { return uuid.NewString() }

func TestDeveloperStopsAtItsLimitAndUpgradeLiftsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)

	w.use(t, a.ID, "voice", "59999")
	if r := w.tryUse(t, a.ID, "voice", "2"); r.Status != metering.Rejected || r.Problem.Code != "limit_reached" {
		t.Fatalf("an event past the limit: %+v, want limit_reached", r)
	}
	w.use(t, a.ID, "voice", "1")

	w.upgrade(t, a.ID, sandbox.TokenVisa)
	w.use(t, a.ID, "voice", "60") // one minute beyond the allowance
	// 2.7 cents before rounding: 0.027 a minute.
	if b := w.balance(t, a.ID); b.Accrued != usd(3) {
		t.Errorf("accrued %s, want 0.03 USD", b.Accrued)
	}
	o, err := billing.Reader{Core: w.Core}.Overview(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if o.Facts.Plan.Code != plan.Pro || o.Facts.DefaultMethod() == nil || o.Facts.DefaultMethod().Card.Last4 != "4242" {
		t.Errorf("overview shows plan %s and card %+v", o.Facts.Plan.Code, o.Facts.DefaultMethod())
	}
}

func TestUpgrade(t *testing.T) {
	t.Parallel()

	t.Run("DeclinedCardStaysDeveloper", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		got, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a.ID, "k"), billing.UpgradeInput{
			Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenDeclined}, Profile: &profile,
		}, asJSON[upgrade.Upgrade](402))
		if err != nil || got.Record.Status != payment.Failed || got.Record.Failure == nil {
			t.Fatalf("%+v, %v; want a failed upgrade that says why", got.Record, err)
		}
		if sub, _ := w.DB.Subscriptions().Active(t.Context(), a.ID); sub.Plan != plan.Developer {
			t.Errorf("plan %s after a decline", sub.Plan)
		}
		again, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a.ID, "k"), billing.UpgradeInput{
			Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenDeclined}, Profile: &profile,
		}, asJSON[upgrade.Upgrade](402))
		if err != nil || again.Replayed == nil || again.Replayed.Status != 402 {
			t.Errorf("a repetition: %+v, %v; want the stored 402", again, err)
		}
		w.upgrade(t, a.ID, sandbox.TokenVisa) // another key, another card
	})

	t.Run("ThreeDSecureIsResumedAndOnlyThenChangesThePlan", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		up := billing.Upgrader{Core: w.Core}
		got, err := up.Upgrade(t.Context(), asked(a.ID, newKey()), billing.UpgradeInput{
			Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.Token3DSSetup}, Profile: &profile,
		}, nil)
		if err != nil || got.Record.Status != payment.RequiresAction || got.Record.NextAction == nil {
			t.Fatalf("%+v, %v; want requires_action with a next action", got.Record, err)
		}
		if _, err := up.Upgrade(t.Context(), asked(a.ID, newKey()), billing.UpgradeInput{
			Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenVisa}, Profile: &profile,
		}, nil); !errors.Is(err, upgrade.ErrPending) {
			t.Fatalf("second upgrade: %v, want ErrPending", err)
		}
		m, err := w.DB.Payments().Method(t.Context(), a.ID, got.Record.Method)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.control.Act(t.Context(), m.SetupRef, true); err != nil {
			t.Fatal(err)
		}
		done, err := up.Confirm(t.Context(), a.ID, got.Record.ID)
		if err != nil || done.Status != payment.Succeeded {
			t.Fatalf("confirmed: %+v, %v", done, err)
		}
	})

	t.Run("TimeoutIsProcessingAndTheSweepFindsOut", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "attach", Kind: sandbox.FaultReset}); err != nil {
			t.Fatal(err)
		}
		got, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a.ID, newKey()), billing.UpgradeInput{
			Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.TokenVisa}, Profile: &profile,
		}, nil)
		if err != nil || got.Record.Status != payment.Processing {
			t.Fatalf("%+v, %v; want processing", got.Record, err)
		}
		w.advance(2 * time.Minute)
		w.sweep(t)
		if u, err := w.DB.Upgrades().Get(t.Context(), a.ID, got.Record.ID); err != nil || u.Status != payment.Succeeded {
			t.Errorf("after the sweep: %+v, %v", u, err)
		}
	})

	t.Run("EnterpriseIsAgreedWithAPerson", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		_, err := billing.Upgrader{Core: w.Core}.Upgrade(t.Context(), asked(a.ID, newKey()), billing.UpgradeInput{Plan: plan.Enterprise}, nil)
		if !errors.Is(err, billing.ErrContactSales) {
			t.Errorf("%v, want ErrContactSales", err)
		}
	})
}

func TestTopUp(t *testing.T) {
	t.Parallel()

	t.Run("NeedsPro", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		_, err := billing.Funder{Core: w.Core}.TopUp(t.Context(), asked(a.ID, newKey()), billing.TopUpInput{Amount: usd(5000)}, nil)
		if !errors.Is(err, billing.ErrUpgradeRequired) {
			t.Errorf("%v, want ErrUpgradeRequired", err)
		}
	})

	t.Run("IsReplayedByteForByte", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		w.upgrade(t, a.ID, sandbox.TokenVisa)
		f := billing.Funder{Core: w.Core}
		first, err := f.TopUp(t.Context(), asked(a.ID, "k"), billing.TopUpInput{Amount: usd(5000)}, asJSON[billing.TopUp](201))
		if err != nil || first.Record.Status != payment.Succeeded {
			t.Fatalf("%+v, %v", first.Record, err)
		}
		again, err := f.TopUp(t.Context(), asked(a.ID, "k"), billing.TopUpInput{Amount: usd(5000)}, asJSON[billing.TopUp](201))
		if err != nil || again.Replayed == nil {
			t.Fatalf("%+v, %v; want a replay", again, err)
		}
		if b := w.balance(t, a.ID); b.Funds != usd(5000) {
			t.Errorf("funds %s, want 50.00 USD once", b.Funds)
		}
	})

	t.Run("TimeoutThenDeclineTakesNothing", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		w.upgrade(t, a.ID, sandbox.TokenVisa)
		m, err := w.DB.Payments().DefaultMethod(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.control.Behave(t.Context(), m.ProviderRef, sandbox.TokenTimeoutThenDecline); err != nil {
			t.Fatal(err)
		}
		top := w.topUp(t, a.ID, 5000)
		if top.Status != payment.Processing {
			t.Fatalf("status %s, want processing: a time-out is no failure", top.Status)
		}
		w.advance(2 * time.Minute)
		w.sweep(t)
		got, err := billing.Funder{Core: w.Core}.Get(t.Context(), a.ID, top.ID)
		if err != nil || got.Status != payment.Failed {
			t.Errorf("after the sweep: %s, %v; want failed", got.Status, err)
		}
		if b := w.balance(t, a.ID); b.Funds != usd(0) {
			t.Errorf("funds %s", b.Funds)
		}
	})

	t.Run("WrongAmountIsParkedAndNotBooked", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		a := w.open(t)
		w.upgrade(t, a.ID, sandbox.TokenVisa)
		if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultWrongAmount}); err != nil {
			t.Fatal(err)
		}
		top := w.topUp(t, a.ID, 5000)
		if top.Charge.Status != payment.Parked {
			t.Errorf("status %s, want parked", top.Charge.Status)
		}
		if b := w.balance(t, a.ID); b.Funds != usd(0) {
			t.Errorf("funds %s", b.Funds)
		}
	})
}

// A deployment that comes back with another public URL repeats the provider's call with other
// parameters. The provider refuses, but it has charged: that must be found out, not called a decline.
func TestTopUp_ResumedWithOtherParametersIsLookedUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset}); err != nil {
		t.Fatal(err)
	}
	fund, in := billing.Funder{Core: w.Core}, billing.TopUpInput{Amount: usd(5000)}
	if _, err := fund.TopUp(t.Context(), asked(a, "the key"), in, nil); err != nil {
		t.Fatal(err)
	}
	w.Policy.ReturnURL = "https://another.example.com"
	if _, err := w.db.Pool().Exec(t.Context(), "UPDATE idempotency_keys SET locked_until = '2020-01-01' WHERE account_id = $1", a); err != nil {
		t.Fatal(err) // the lease of the request that died has run out
	}
	top, err := fund.TopUp(t.Context(), asked(a, "the key"), in, nil)
	if err != nil || top.Record.Status != payment.Processing {
		t.Fatalf("resumed: %+v, %v; want processing", top.Record, err)
	}
	w.advance(2 * time.Minute)
	w.sweep(t)
	got, err := fund.Get(t.Context(), a, top.Record.ID)
	if err != nil || got.Status != payment.Succeeded {
		t.Errorf("%+v, %v; want what the provider says: succeeded", got, err)
	}
	if n := len(w.charges(t)[a]); n != 1 {
		t.Errorf("%d charges, want 1", n)
	}
}

// The worked examples of the published price list, as invoices.
func TestCycleInvoices(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		voice, text string // seconds, words
		total       int64
	}{
		"WithinTheAllowance":  {"60000", "10000", 0},
		"OneMinuteBeyond":     {"60060", "10000", 3}, // 0.027 before rounding
		"WholeFirstTier":      {"1800000", "", 78300},
		"IntoTheSecondTier":   {"2700000", "", 103800},
		"TextIntoItsLastTier": {"", "4000000", 77800},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.open(t)
			w.upgrade(t, a.ID, sandbox.TokenVisa)
			if c.voice != "" {
				w.use(t, a.ID, "voice", c.voice)
			}
			if c.text != "" {
				w.use(t, a.ID, "text", c.text)
			}
			w.advance(35 * 24 * time.Hour)
			w.sweep(t) // closes, finalises and collects
			list, err := w.DB.Invoices().List(t.Context(), a.ID, "", page.Request{Limit: 10})
			if err != nil || len(list.Data) != 1 {
				t.Fatalf("%d invoices, %v; want 1", len(list.Data), err)
			}
			inv := list.Data[0]
			if inv.Total != usd(c.total) {
				t.Errorf("total %s, want %s", inv.Total, usd(c.total))
			}
			wantStatus := invoice.Paid
			if c.total == 3 {
				wantStatus = invoice.Open // below what any card is charged: it stays due
			}
			if inv.Status != wantStatus {
				t.Errorf("status %s, want %s", inv.Status, wantStatus)
			}
			content, err := w.DB.Invoices().Content(t.Context(), a.ID, inv.ID)
			if err != nil {
				t.Fatal(err)
			}
			if h, err := content.Fingerprint(); err != nil || h != content.Hash {
				t.Errorf("the stored hash does not hold: %v", err)
			}
		})
	}
}

func TestFundsPayBeforeTheCard(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.upgrade(t, a.ID, sandbox.TokenVisa)
	w.topUp(t, a.ID, 50000)
	w.use(t, a.ID, "voice", "1800000") // 783.00
	w.advance(35 * 24 * time.Hour)
	w.sweep(t)
	ps, err := w.DB.Payments().Payments(t.Context(), a.ID, page.Request{Limit: 10})
	if err != nil || len(ps.Data) != 2 {
		t.Fatalf("%d payments, %v; want the top-up and the rest of the invoice", len(ps.Data), err)
	}
	if p := ps.Data[0]; p.Purpose != payment.ForInvoice || p.Amount != usd(28300) || p.Status != payment.Succeeded {
		t.Errorf("%+v, want 283.00 USD for the invoice", p)
	}
	if b := w.balance(t, a.ID); b.Funds != usd(0) || b.Due != usd(0) || b.Available != usd(0) {
		t.Errorf("%+v, want nothing left and nothing due", b)
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
	if _, err := (billing.Adjuster{Core: w.Core}).WriteOff(t.Context(), asked(a, newKey()), open[0].ID, "given up", nil); err != nil {
		t.Fatal(err)
	}
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
	if _, err := (billing.Collector{Core: w.Core}).Pay(t.Context(), asked(a, newKey()), open[0].ID, payment.MethodID{}, asJSON[payment.Payment](200)); err != nil {
		t.Fatal(err)
	}
	want(account.Active, "once the debt is paid after all")
	// They say nothing, which the invariants would hold against them.
	if _, err := w.db.Pool().Exec(t.Context(), "UPDATE invoices SET status = 'draft', finalized_at = NULL, finalize_at = 'infinity' WHERE kind = 'threshold'"); err != nil {
		t.Fatal(err)
	}
}

func TestActiveCardIsNotRemovedWhileMoneyIsOwed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.upgrade(t, a.ID, sandbox.TokenVisa)
	w.use(t, a.ID, "voice", "1800000")
	m, err := w.DB.Payments().DefaultMethod(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	cards := billing.Cards{Core: w.Core}
	if err := cards.Remove(t.Context(), asked(a.ID, ""), m.ID, m.Version); !errors.Is(err, billing.ErrActiveCard) {
		t.Fatalf("%v, want ErrActiveCard with blockers", err)
	}
	req, err := cards.RequestRemoval(t.Context(), asked(a.ID, newKey()), m.ID, payment.WhenPaid, "", nil)
	if err != nil || req.Record.Status != payment.RemovalOpen {
		t.Fatalf("%+v, %v; want an open request", req.Record, err)
	}
	if err := cards.RemoveByOperator(t.Context(), billing.Asked{Account: a.ID, Actor: "operator:x"}, m.ID, "asked by phone"); err != nil {
		t.Fatal(err)
	}
	b := w.balance(t, a.ID)
	if b.Accrued != usd(78300) {
		t.Errorf("accrued %s after removal, want it still owed", b.Accrued)
	}
	if r := w.tryUse(t, a.ID, "voice", "1"); r.Status != metering.Rejected {
		t.Errorf("paid use without a card: %+v", r)
	}
}

func TestRefundNeverPassesWhatWasTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.upgrade(t, a.ID, sandbox.TokenVisa)
	top := w.topUp(t, a.ID, 10000)
	refunder := billing.Refunder{Core: w.Core}
	got, err := refunder.Refund(t.Context(), asked(a.ID, newKey()), billing.RefundInput{Payment: top.Charge.ID, Amount: usd(6000), Origin: payment.ByOperator}, nil)
	if err != nil || got.Record.Status != payment.Succeeded {
		t.Fatalf("%+v, %v", got.Record, err)
	}
	if _, err := refunder.Refund(t.Context(), asked(a.ID, newKey()), billing.RefundInput{Payment: top.Charge.ID, Amount: usd(6000), Origin: payment.ByOperator}, nil); !errors.Is(err, payment.ErrRefundTooLarge) {
		t.Errorf("%v, want ErrRefundTooLarge", err)
	}
	if b := w.balance(t, a.ID); b.Funds != usd(4000) {
		t.Errorf("funds %s, want 40.00 USD", b.Funds)
	}
}

func TestDowngradeAtPeriodEndAndClose(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.upgrade(t, a.ID, sandbox.TokenVisa)
	w.topUp(t, a.ID, 10000)
	if _, err := (billing.Downgrader{Core: w.Core}).Plan(t.Context(), asked(a.ID, newKey()), plan.Developer, nil); err != nil {
		t.Fatal(err)
	}
	w.advance(32 * 24 * time.Hour)
	w.sweep(t)
	if sub, err := w.DB.Subscriptions().Active(t.Context(), a.ID); err != nil || sub.Plan != plan.Developer {
		t.Fatalf("plan %s, %v", sub.Plan, err)
	}
	got, err := billing.Ender{Core: w.Core}.End(t.Context(), asked(a.ID, newKey()), "moving on", nil)
	if err != nil || got.Record.Status != account.Closed {
		t.Fatalf("%+v, %v", got.Record, err)
	}
	if b := w.balance(t, a.ID); b.Funds != usd(0) {
		t.Errorf("funds %s after closing, want them refunded", b.Funds)
	}
	if r := w.tryUse(t, a.ID, "text", "1"); r.Status != metering.Rejected {
		t.Errorf("usage of a closed account: %+v", r)
	}
}

func TestExpiringCardIsToldOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.upgrade(t, a.ID, sandbox.TokenExpiringThisMonth)
	w.sweep(t)
	w.sweep(t)
	events, err := w.DB.Outbox().After(t.Context(), a.ID, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, e := range events {
		if e.Type == outbox.PaymentMethodExpires {
			told++
		}
	}
	if told != 1 {
		t.Errorf("told %d times, want once", told)
	}
}

func TestUnpaidDebtIsWrittenOffAndMayStillBePaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.open(t)
	w.upgrade(t, a.ID, sandbox.TokenInsufficientFunds)
	w.use(t, a.ID, "voice", "1800000")
	for range 135 { // days
		w.advance(24 * time.Hour)
		w.sweep(t)
	}
	list, err := w.DB.Invoices().List(t.Context(), a.ID, invoice.Uncollectible, page.Request{Limit: 10})
	if err != nil || len(list.Data) != 1 {
		t.Fatalf("%d invoices written off, %v; want 1", len(list.Data), err)
	}
	if b := w.balance(t, a.ID); b.Due != usd(0) {
		t.Errorf("due %s after the write-off", b.Due)
	}
	add, err := billing.Cards{Core: w.Core}.Add(t.Context(), asked(a.ID, newKey()), billing.NewCard{
		CardSource: billing.CardSource{Token: sandbox.TokenVisa}, Profile: profile,
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	paid, err := billing.Collector{Core: w.Core}.Pay(t.Context(), asked(a.ID, newKey()), list.Data[0].ID, add.Record.ID, nil)
	if err != nil || paid.Record.Status != payment.Succeeded {
		t.Fatalf("%+v, %v", paid.Record, err)
	}
	if inv, err := w.DB.Invoices().Get(t.Context(), a.ID, list.Data[0].ID); err != nil || inv.Status != invoice.Paid {
		t.Errorf("status %s, %v; want paid after all", inv.Status, err)
	}
}
