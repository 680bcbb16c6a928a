package billing_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
)

// telling is a provider that, asked what it told of, answers with this.
type telling struct {
	payment.Gateway
	object payment.Object
	err    error
}

func (g telling) Fetch(context.Context, payment.ObjectKind, string) (payment.Object, error) {
	return g.object, g.err
}

// stored keeps a webhook about an object, on which nobody has acted yet.
func (w *world) stored(t *testing.T, kind payment.ObjectKind, ref string) payment.ProviderEvent {
	t.Helper()
	e := payment.ProviderEvent{
		Provider: w.Gateway.Name(), EventID: newKey(), Type: string(kind), Object: kind, ObjectRef: ref, Payload: []byte("{}"),
		ReceivedAt: w.clock(), NextTryAt: w.clock(),
	}
	if _, err := w.DB.Payments().SaveEvent(t.Context(), e); err != nil {
		t.Fatal(err)
	}
	return e
}

func (w *world) disputedOf(t *testing.T, a account.ID, p payment.ID) int64 {
	t.Helper()
	got, err := w.DB.Payments().Payment(t.Context(), a, p)
	if err != nil {
		t.Fatal(err)
	}
	return got.Disputed.Minor
}

// A dispute is told of once, and nobody asks for it unasked: it is booked however long the provider was away.
func TestWebhooks_ADisputeOutlastsAnyOutage(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]error{"silent": payment.ErrUnknown, "refuses our key": payment.ErrRejected} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onPro(t)
			p := w.topUp(t, a, 10000).Charge
			d, err := w.control.Dispute(t.Context(), p.ProviderRef)
			if err != nil {
				t.Fatal(err)
			}
			w.stored(t, payment.ObjectDispute, d)
			away := billing.Sweeper{Core: w.another(telling{Gateway: w.Gateway, err: fault})}
			for range 48 { // hours
				_, _ = away.Sweep(t.Context())
				w.advance(time.Hour)
			}
			w.sweep(t)
			if got := w.disputedOf(t, a, p.ID); got != 10000 {
				t.Errorf("disputed are %d cents, want 10000", got)
			}
		})
	}
}

// The provider's account may serve others as well, with charges that are no charges of ours.
func TestWebhooks_WhatBelongsToNoChargeIsNotOurs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for kind, object := range map[payment.ObjectKind]payment.Object{
		payment.ObjectDispute: {Dispute: &payment.DisputeResult{Ref: "dp_other", Status: payment.DisputeOpen, Withdrawn: true, Amount: usd(500)}},
		payment.ObjectRefund:  {Refund: &payment.RefundResult{Ref: "re_other", Outcome: payment.OutcomeSucceeded, Amount: usd(500)}},
	} {
		e := w.stored(t, kind, "other")
		listen := billing.Listener{Core: w.another(telling{Gateway: w.Gateway, object: object})}
		if err := listen.Process(t.Context(), e.Provider, e.EventID); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		var outcome string
		err := w.db.Pool().QueryRow(t.Context(), "SELECT outcome FROM provider_events WHERE event_id = $1 AND processed_at IS NOT NULL", e.EventID).Scan(&outcome)
		if err != nil || outcome != "not_ours" {
			t.Errorf("the %s is %q, %v; want not_ours", kind, outcome, err)
		}
	}
}

// A bank may reverse itself: what it gives back of a dispute that was lost is the account's again.
func TestWebhooks_ADisputeThatWasLostIsWonAfterAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	p := w.topUp(t, a, 10000).Charge
	for _, status := range []payment.DisputeStatus{payment.DisputeLost, payment.DisputeWon, payment.DisputeLost} {
		object := payment.Object{Dispute: &payment.DisputeResult{
			Ref: "dp_1", ChargeRef: p.ProviderRef, Status: status, Withdrawn: status == payment.DisputeLost, Amount: usd(10000),
		}}
		e := w.stored(t, payment.ObjectDispute, "dp_1")
		if err := (billing.Listener{Core: w.another(telling{Gateway: w.Gateway, object: object})}).Process(t.Context(), e.Provider, e.EventID); err != nil {
			t.Fatal(err)
		}
	}
	if got, b := w.disputedOf(t, a, p.ID), w.balance(t, a); got != 0 || b.Funds != usd(10000) {
		t.Errorf("disputed are %d cents, funds are %s; want 0 and 100.00 USD", got, b.Funds)
	}
}

// refundOutside has somebody give money back at the provider itself, and tells us of it.
func (w *world) refundOutside(t *testing.T, charge string, minor int64) (refund string) {
	t.Helper()
	before := w.refundsOf(t, charge)
	if err := w.control.Refund(t.Context(), charge, minor); err != nil {
		t.Fatal(err)
	}
	refund = w.refundsOf(t, charge)[len(before)]
	w.tell(t, refund)
	return refund
}

// wantRefunds compares a payment's refunds, oldest first.
func (w *world) wantRefunds(t *testing.T, p payment.Payment, want string) {
	t.Helper()
	all, err := w.DB.Payments().RefundsOf(t.Context(), p.Account, p.ID)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]string, 0, len(all))
	for _, r := range all {
		got = append(got, fmt.Sprintf("%s %d %s", r.Origin, r.Amount.Minor, r.Status))
	}
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("refunds are %s; want %s", s, want)
	}
}

// What somebody gives back at the provider while a refund of ours is on its way is booked, whatever becomes of ours.
func TestWebhooks_ARefundAtTheProviderWhileOneOfOursIsOnItsWay(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		theirs int64
		funds  int64
		want   string
	}{
		"OursSucceeds":      {2000, 0, "operator 3000 succeeded, provider 2000 succeeded"},
		"OursIsTooMuchThen": {4000, 1000, "operator 3000 failed, provider 4000 succeeded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onPro(t)
			p := w.topUp(t, a, 5000).Charge
			lost := false
			w.fault(t, sandbox.Fault{Op: "refund", Kind: sandbox.FaultReset, Effect: &lost})
			if ours := w.refund(t, a, p.ID, 3000); ours.Status != payment.Processing {
				t.Fatalf("%+v", ours)
			}
			theirs := w.refundOutside(t, p.ProviderRef, c.theirs)
			w.advance(time.Hour)
			w.sweep(t)
			w.advance(time.Hour)
			w.sweep(t)
			w.tell(t, theirs)
			w.wantRefunds(t, p, c.want)
			w.wantBalance(t, a, c.funds, 0)
		})
	}
}

// A refund that somebody made at the provider, and that did not arrive, is taken back in the books.
func TestWebhooks_ARefundAtTheProviderThatFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	p := w.topUp(t, a, 5000).Charge
	first := w.refundOutside(t, p.ProviderRef, 2000)
	w.refundOutside(t, p.ProviderRef, 500)
	w.wantBalance(t, a, 2500, 0)
	if err := w.control.SettleRefund(t.Context(), first, "expired_or_canceled_card"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.tell(t, first)
	}
	w.wantRefunds(t, p, "provider 2000 failed, provider 500 succeeded")
	w.wantBalance(t, a, 4500, 0)
}

// One that has failed by the time that we are told of it takes nothing, also not when an older word of it comes later.
func TestWebhooks_ARefundAtTheProviderThatHasFailedBefore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	p := w.topUp(t, a, 5000).Charge
	if err := w.control.Refund(t.Context(), p.ProviderRef, 2000); err != nil {
		t.Fatal(err)
	}
	refund := w.refundsOf(t, p.ProviderRef)[0]
	charge, err := w.Gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: p.ProviderRef})
	if err != nil {
		t.Fatal(err)
	}
	refunds, err := w.Gateway.Refunds(t.Context(), p.ProviderRef)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.control.SettleRefund(t.Context(), refund, "expired_or_canceled_card"); err != nil {
		t.Fatal(err)
	}
	w.tell(t, refund)
	e := w.stored(t, payment.ObjectRefund, refund)
	if err := (billing.Listener{Core: w.another(remembering{w.Gateway, charge, refunds})}).Process(t.Context(), e.Provider, e.EventID); err != nil {
		t.Fatal(err)
	}
	w.wantRefunds(t, p, "provider 2000 failed")
	w.wantBalance(t, a, 5000, 0)
}

// remembering is a provider whose answers about a charge and its refunds were long on their way.
type remembering struct {
	payment.Gateway
	charge  payment.ChargeResult
	refunds []payment.RefundResult
}

func (g remembering) LookupCharge(context.Context, payment.ChargeLookup) (payment.ChargeResult, error) {
	return g.charge, nil
}

func (g remembering) Refunds(context.Context, string) ([]payment.RefundResult, error) {
	return g.refunds, nil
}

// A dispute takes what a refund of ours has set aside, if the refund is not made any more.
func TestWebhooks_ADisputeWhileARefundOfOursIsOnItsWay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	p := w.topUp(t, a, 5000).Charge
	lost := false
	w.fault(t, sandbox.Fault{Op: "refund", Kind: sandbox.FaultReset, Effect: &lost})
	w.refund(t, a, p.ID, 3000)
	w.disputed(t, p)
	for range 2 {
		w.advance(time.Hour)
		w.sweep(t)
	}
	w.wantRefunds(t, p, "operator 3000 failed")
	w.wantBalance(t, a, 0, 0)
	if got := w.disputedOf(t, a, p.ID); got != 5000 {
		t.Errorf("disputed are %d cents, want 5000", got)
	}
}

// misreporting is a provider that takes what it is asked for, and says that it took a cent more.
type misreporting struct{ payment.Gateway }

func (g misreporting) Charge(ctx context.Context, r payment.ChargeRequest) (payment.ChargeResult, error) {
	res, err := g.Gateway.Charge(ctx, r)
	res.Amount.Minor++
	return res, err
}

// A dispute of a payment that waits for a person is booked when the person has decided that it was made.
func TestWebhooks_ADisputeOfAParkedPayment(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	top, err := billing.Funder{Core: w.another(misreporting{w.Gateway})}.TopUp(t.Context(), asked(a, newKey()), billing.TopUpInput{Amount: usd(5000)}, nil)
	if err != nil || top.Record.Charge.Status != payment.Parked {
		t.Fatalf("%+v, %v", top.Record, err)
	}
	p := top.Record.Charge
	w.disputed(t, p)
	w.wantBalance(t, a, 0, 0)
	if _, err := (billing.Resolver{Core: w.Core}).Unpark(t.Context(), asked(a, newKey()), p.ID, billing.AskAgain, "test", nil); err != nil {
		t.Fatal(err)
	}
	w.advance(time.Hour)
	w.sweep(t)
	w.wantBalance(t, a, 0, 0)
	if got := w.disputedOf(t, a, p.ID); got != 5000 {
		t.Errorf("disputed are %d cents, want 5000", got)
	}
}

// inquiring is a provider whose disputes are mere questions of the bank: no money has moved.
type inquiring struct{ payment.Gateway }

func (g inquiring) Fetch(ctx context.Context, k payment.ObjectKind, ref string) (payment.Object, error) {
	o, err := g.Gateway.Fetch(ctx, k, ref)
	if o.Dispute != nil {
		o.Dispute.Withdrawn = false
	}
	return o, err
}

func TestDispute_AnInquiryTakesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t)
	provider := w.Gateway
	w.Gateway = inquiring{provider}
	dispute := w.disputed(t, p)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.Gateway = provider // the bank has made up its mind
	if err := w.control.CloseDispute(t.Context(), dispute, false); err != nil {
		t.Fatal(err)
	}
	w.tell(t, dispute)
	w.wantInvoice(t, a, inv, invoice.Open, 2700)
	w.wantBalance(t, a, 0, 2700)
}

// A dispute that is won gives the money back. Where funds have paid for the invoice meanwhile, it becomes funds.
func TestDispute_WonAfterTheInvoiceWasPaidOtherwise(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t)
	dispute := w.disputed(t, p)
	w.wantInvoice(t, a, inv, invoice.Open, 2700)
	w.topUp(t, a, 3000)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.won(t, dispute)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.wantBalance(t, a, 3000, 0)
}

// A dispute that is won while the customer pays the invoice once more pays it; the second payment becomes funds.
func TestDispute_WonWhileTheInvoiceIsPaidOnceMore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, inv, p := w.charged(t)
	dispute := w.disputed(t, p)
	w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultRequiresAction})
	again, err := billing.Collector{Core: w.Core}.Pay(t.Context(), asked(a, newKey()), inv, payment.MethodID{}, nil)
	if err != nil || again.Record.Status != payment.RequiresAction {
		t.Fatalf("%+v, %v", again.Record, err)
	}
	w.won(t, dispute)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	if err := w.control.Act(t.Context(), again.Record.ProviderRef, true); err != nil {
		t.Fatal(err)
	}
	w.tell(t, again.Record.ProviderRef)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.wantBalance(t, a, 2700, 0)
	// One of the two was not needed: what is given back of them comes from the funds first.
	w.refund(t, a, again.Record.ID, 2700)
	w.wantInvoice(t, a, inv, invoice.Paid, 0)
	w.wantBalance(t, a, 0, 0)
}

// A dispute of a top-up that is won brings funds, which pay what is open as those of any top-up do.
func TestDispute_WonOfATopUpPaysWhatIsOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	p := w.topUp(t, a, 5000).Charge
	dispute := w.disputed(t, p)
	w.addCard(t, a, sandbox.TokenLost)
	w.use(t, a, "voice", "120000") // 27.00
	w.until(t, w.clock().Add(35*24*time.Hour))
	open := w.unpaid(t, a)
	w.won(t, dispute)
	w.wantInvoice(t, a, open.ID, invoice.Paid, 0)
	w.wantBalance(t, a, 2300, 0)
	if acct, err := w.DB.Accounts().Get(t.Context(), a); err != nil || acct.Status != account.Active {
		t.Errorf("the account is %s, %v", acct.Status, err)
	}
}

// What a card network takes back of an invoice is due again, and is not charged again by itself, however long it takes;
// if the dispute is won, it is paid.
func TestDispute_StopsDunning(t *testing.T) {
	t.Parallel()
	for name, won := range map[string]bool{"Lost": false, "Won": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			a := w.onPro(t)
			w.use(t, a, "voice", "120000") // 27.00
			w.until(t, w.clock().Add(35*24*time.Hour))
			taken := w.charges(t)[a]
			if len(taken) != 1 {
				t.Fatalf("%d charges, want that of the invoice", len(taken))
			}
			dispute, err := w.control.Dispute(t.Context(), taken[0].Ref)
			if err != nil {
				t.Fatal(err)
			}
			told := func() {
				for _, e := range w.eventsOf(t, dispute) {
					w.deliver(t, e)
				}
			}
			told()
			due, err := w.DB.Invoices().Unpaid(t.Context(), a)
			if err != nil || len(due) != 1 || due[0].AmountDue() != usd(2700) {
				t.Fatalf("due is %+v, %v; want the invoice again", due, err)
			}
			for range 70 { // days
				w.advance(24 * time.Hour)
				w.sweep(t)
			}
			if acct, err := w.DB.Accounts().Get(t.Context(), a); err != nil || acct.Status != account.Active {
				t.Errorf("the account is %s, %v: a dispute suspends nobody", acct.Status, err)
			}
			if err := w.control.CloseDispute(t.Context(), dispute, won); err != nil {
				t.Fatal(err)
			}
			told()
			if n := len(w.charges(t)[a]); n != 1 {
				t.Errorf("%d charges: what is disputed was charged again", n)
			}
			want := invoice.Open
			if won {
				want = invoice.Paid
			}
			if inv, err := w.DB.Invoices().Get(t.Context(), a, due[0].ID); err != nil || inv.Status != want {
				t.Errorf("the invoice is %s, %v; want %s", inv.Status, err, want)
			}
		})
	}
}

// permutations yields every order of n things.
func permutations(n int) [][]int {
	if n == 0 {
		return [][]int{nil}
	}
	var out [][]int
	for _, p := range permutations(n - 1) {
		for at := range n {
			out = append(out, slices.Insert(slices.Clone(p), at, n-1))
		}
	}
	return out
}

// history is what happened at the provider behind our back to a charge whose answer we never got.
type history struct {
	refunds []int64 // at the provider, in cents
	fail    bool    // they do not arrive
	dispute bool
	won     bool
}

// outcome is what our records say in the end.
type outcome struct {
	Status                             payment.Status
	Refunded, Disputed, Funds, Dispute int64
	DisputeStatus                      payment.DisputeStatus
	Refunds                            string
	Booked                             string
}

// happen makes a top-up whose answer is lost, and then everything else at the provider. It returns the
// five webhooks about it, none of which we have got.
func (w *world) happen(t *testing.T, h history) (account.ID, payment.ID, []sandbox.Event) {
	t.Helper()
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	a := w.onPro(t)
	must(w.control.Plan(ctx, sandbox.Fault{Op: "charge", Kind: sandbox.FaultReset, Account: a.String()}))
	p := w.topUp(t, a, 10000).Charge
	if p.Status != payment.Processing {
		t.Fatalf("%+v, want processing", p)
	}
	charge := w.charges(t)[a][0].Ref
	about := []string{charge}
	for _, minor := range h.refunds {
		must(w.control.Refund(ctx, charge, minor))
	}
	if h.fail {
		for _, ref := range w.refundsOf(t, charge) {
			must(w.control.SettleRefund(ctx, ref, "expired_or_canceled_card"))
		}
	}
	if h.dispute {
		d, err := w.control.Dispute(ctx, charge)
		must(err)
		must(w.control.CloseDispute(ctx, d, h.won))
		about = append(about, d)
	}
	return a, p.ID, w.eventsOf(t, append(about, w.refundsOf(t, charge)...)...)
}

// refundsOf returns the provider's refunds of a charge.
func (w *world) refundsOf(t *testing.T, charge string) (refs []string) {
	t.Helper()
	all, err := w.control.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		if e.Type != "refund.created" {
			continue
		}
		o, err := w.Gateway.Fetch(t.Context(), payment.ObjectRefund, e.Ref)
		if err != nil {
			t.Fatal(err)
		}
		if o.Refund.ChargeRef == charge {
			refs = append(refs, e.Ref)
		}
	}
	return refs
}

func (w *world) outcome(t *testing.T, a account.ID, pid payment.ID, events []sandbox.Event) outcome {
	t.Helper()
	ctx := t.Context()
	p, err := w.DB.Payments().Payment(ctx, a, pid)
	if err != nil {
		t.Fatal(err)
	}
	refunds, err := w.DB.Payments().RefundsOf(ctx, a, pid)
	if err != nil {
		t.Fatal(err)
	}
	out := outcome{Status: p.Status, Refunded: p.Refunded.Minor, Disputed: p.Disputed.Minor, Funds: w.balance(t, a).Funds.Minor}
	var sum int64
	for _, r := range refunds {
		if r.Status != payment.Failed {
			sum += r.Amount.Minor
		}
	}
	out.Refunds = fmt.Sprint(sum)
	for _, e := range events {
		if d, err := w.DB.Payments().DisputeByRef(ctx, a, e.Ref); err == nil {
			out.Dispute, out.DisputeStatus = d.Amount.Minor, d.Status
		} else if !errors.Is(err, payment.ErrNotFound) {
			t.Fatal(err)
		}
	}
	// Refunds that were told of together are booked together: the sums must agree, not the entries.
	entries, err := w.DB.Ledger().Transactions(ctx, a, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]int64{}
	for _, x := range entries {
		for _, post := range x.Postings {
			sums[x.Kind] += post.Amount.Minor
		}
	}
	out.Booked = fmt.Sprint(sums)
	return out
}

// However the network mixes them, five webhooks end in one state, and it is the provider's.
func TestWebhooks_EveryOrderEndsInOneState(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		history
		want outcome
	}{
		"PartialRefundsThenDisputeWon": {
			history{refunds: []int64{3000, 2000}, dispute: true, won: true},
			outcome{
				Status: payment.Succeeded, Refunded: 5000, Funds: 5000, Refunds: "5000", Dispute: 5000, DisputeStatus: payment.DisputeWon,
				Booked: "map[dispute_opened:5000 dispute_won:5000 refund:5000 top_up:10000]",
			},
		},
		"PartialAndFullRefundThenDisputeWon": {
			history{refunds: []int64{3000, 7000}, dispute: true, won: true},
			outcome{Status: payment.Succeeded, Refunded: 10000, Refunds: "10000", Booked: "map[refund:10000 top_up:10000]"},
		},
		"RefundsThatFail": {
			history{refunds: []int64{3000, 2000}, fail: true},
			outcome{Status: payment.Succeeded, Funds: 10000, Refunds: "0", Booked: "map[top_up:10000]"},
		},
		"DisputeLost": {
			history{refunds: []int64{1000, 1500}, dispute: true},
			outcome{
				Status: payment.Succeeded, Refunded: 2500, Disputed: 7500, Refunds: "2500", Dispute: 7500, DisputeStatus: payment.DisputeLost,
				Booked: "map[dispute_opened:7500 refund:2500 top_up:10000]",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			orders := permutations(5)
			for i, order := range orders {
				if i%often(8, 1) != 0 { // a sample in every run, all of them in the full one
					continue
				}
				a, p, events := w.happen(t, c.history)
				if len(events) != 5 {
					t.Fatalf("%d webhooks, want 5: %+v", len(events), events)
				}
				for _, at := range order {
					w.deliver(t, events[at])
				}
				if got := w.outcome(t, a, p, events); got != c.want {
					t.Errorf("in the order %v:\n got %+v\nwant %+v", order, got, c.want)
				}
			}
		})
	}
}

// Each event is delivered while the next thing has not happened yet, as on a good day.
func TestWebhooks_OneByOneAsThingsHappen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	a := w.onPro(t)
	p := w.topUp(t, a, 10000).Charge
	seen := map[string]bool{}
	deliver := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		events, err := w.control.Events(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if !seen[e.ID] {
				seen[e.ID] = true
				w.deliver(t, e)
			}
		}
	}
	funds := func(want int64) {
		t.Helper()
		if b := w.balance(t, a); b.Funds != usd(want) {
			t.Errorf("funds %s, want %s", b.Funds, usd(want))
		}
	}
	deliver(nil)
	funds(10000)
	deliver(w.control.Refund(ctx, p.ProviderRef, 3000))
	funds(7000)
	d, err := w.control.Dispute(ctx, p.ProviderRef)
	deliver(err)
	funds(0)
	deliver(w.control.CloseDispute(ctx, d, true))
	funds(7000)
}

// The provider's own event may be quicker than its answer to us.
func TestWebhooks_BeforeTheAnswerToOurCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range often(5, 50) {
		a := w.onPro(t)
		w.fault(t, sandbox.Fault{Op: "charge", Kind: sandbox.FaultWebhookFirst, Account: a.String()})
		if top := w.topUp(t, a, 5000); top.Status != payment.Succeeded || top.Charge.Status != payment.Succeeded {
			t.Errorf("%+v", top)
		}
		events := w.eventsOf(t, w.charges(t)[a][0].Ref)
		if len(events) != 1 || events[0].Delivered != 1 {
			t.Errorf("%+v, want one event that was delivered", events)
		}
		if b := w.balance(t, a); b.Funds != usd(5000) {
			t.Errorf("funds %s, want 50.00 USD", b.Funds)
		}
	}
}

// Who closes the page after 3-D Secure has upgraded all the same, and who refused is told of it: a card that a token brought
// has no setup of ours, and what the provider tells is about the one that the provider made for it.
func TestWebhooks_OfACardThatItsHolderWasAskedAbout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx := t.Context()
	for approve, want := range map[bool]payment.Status{true: payment.Succeeded, false: payment.Failed} {
		a := w.open(t).ID
		got, err := billing.Upgrader{Core: w.Core}.Upgrade(ctx, asked(a, newKey()), billing.UpgradeInput{
			Plan: plan.Pro, Source: billing.CardSource{Token: sandbox.Token3DSSetup}, Profile: &profile,
		}, nil)
		if err != nil || got.Record.Status != payment.RequiresAction {
			t.Fatalf("%+v, %v", got.Record, err)
		}
		m, err := w.DB.Payments().Method(ctx, a, got.Record.Method)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.control.Act(ctx, m.SetupRef, approve); err != nil {
			t.Fatal(err)
		}
		w.tell(t, m.SetupRef)
		if u, err := w.DB.Upgrades().Get(ctx, a, got.Record.ID); err != nil || u.Status != want {
			t.Errorf("approved %t: the upgrade is %s, %v, want %s", approve, u.Status, err, want)
		}
	}
}

func TestWebhooks_DuplicatesTogetherHaveOneEffect(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range often(3, 30) {
		a, p, events := w.happen(t, history{refunds: []int64{3000, 2000}, dispute: true, won: true})
		for _, e := range events {
			together(10, func(int) { w.deliver(t, e) })
		}
		got := w.outcome(t, a, p, events)
		if got.Funds != 5000 || got.Refunds != "5000" || got.Booked != "map[dispute_opened:5000 dispute_won:5000 refund:5000 top_up:10000]" {
			t.Errorf("%+v", got)
		}
	}
}

// A charge that is known to have succeeded is not asked for again because the provider tells of it too.
func TestWebhooks_WhatIsKnownIsDoneWith(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.onPro(t)
	w.topUp(t, a, 10000)
	w.fault(t, sandbox.Fault{Op: "lookup", Kind: sandbox.FaultReset, Account: a.String(), Times: 100})
	charges := w.charges(t)[a]
	for _, e := range w.eventsOf(t, charges[len(charges)-1].Ref) {
		w.deliver(t, e)
	}
	var done int
	if err := w.db.Pool().QueryRow(t.Context(), "SELECT count(*) FROM provider_events WHERE outcome = 'settled' AND processed_at IS NOT NULL").Scan(&done); err != nil || done != 1 {
		t.Errorf("%d events are settled, %v, want 1", done, err)
	}
}

// Whatever is not signed by the provider, now, over these very bytes, is refused and leaves no trace.
func TestWebhooks_ForgedOnesAreRefusedUnread(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := []byte(`{"id":"evt_forged","type":"charge.succeeded","mode":"test","created":"2026-03-10T09:00:00Z","object":{"kind":"charge","id":"ch_1"}}`)
	good := payment.Sign(webhookSecret, body, start)
	flipped := func(b []byte, at int) []byte {
		out := bytes.Clone(b)
		out[at] ^= 1
		return out
	}
	try := func(name, signature string, body []byte) {
		t.Helper()
		header := http.Header{}
		if signature != "" {
			header.Set("Sandbox-Signature", signature)
		}
		if _, _, err := (billing.Listener{Core: w.Core}).Receive(t.Context(), header, body); !errors.Is(err, payment.ErrSignature) {
			t.Errorf("%s: %v, want ErrSignature", name, err)
		}
	}
	try("no signature", "", body)
	try("another secret", payment.Sign("whsec2", body, start), body)
	try("the empty secret", payment.Sign("", body, start), body)
	try("too old", payment.Sign(webhookSecret, body, start.Add(-payment.SignatureTolerance-time.Second)), body)
	try("from the future", payment.Sign(webhookSecret, body, start.Add(payment.SignatureTolerance+time.Second)), body)
	try("re-encoded", good, bytes.ReplaceAll(body, []byte(`":"`), []byte(`": "`)))
	try("longer", good, append(bytes.Clone(body), '\n'))
	for at := range body {
		try(fmt.Sprintf("bit of byte %d", at), good, flipped(body, at))
	}
	for at := range good {
		try(fmt.Sprintf("header's byte %d", at), string(flipped([]byte(good), at)), body)
	}
	var n int
	if err := w.db.Pool().QueryRow(t.Context(), "SELECT count(*) FROM provider_events").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d events are stored, %v", n, err)
	}
}
