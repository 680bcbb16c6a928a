package billing_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/billing"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/payment/sandbox"
	"github.com/accrue-billing/accrue/internal/plan"
)

func mustID(t *testing.T, s string) account.ID {
	t.Helper()
	a, err := id.Parse[account.Account](s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// eventsOf returns the provider's webhooks about the given objects, in the order in which things happened.
func (w *world) eventsOf(t *testing.T, refs ...string) []sandbox.Event {
	t.Helper()
	all, err := w.control.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(e sandbox.Event) bool { return !slices.Contains(refs, e.Ref) })
}

func (w *world) deliver(t *testing.T, e sandbox.Event) {
	t.Helper()
	if status, err := w.control.Deliver(t.Context(), e.ID); err != nil || status != http.StatusOK {
		t.Errorf("%s: %d, %v", e.Type, status, err)
		w.webhookErrors.Range(func(k, _ any) bool { t.Log(k); return true })
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
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
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
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
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
		a := w.open(t).ID
		w.upgrade(t, a, sandbox.TokenVisa)
		if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "charge", Kind: sandbox.FaultWebhookFirst, Account: a.String()}); err != nil {
			t.Fatal(err)
		}
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
	a := w.open(t).ID
	w.upgrade(t, a, sandbox.TokenVisa)
	w.topUp(t, a, 10000)
	if err := w.control.Plan(t.Context(), sandbox.Fault{Op: "lookup", Kind: sandbox.FaultReset, Account: a.String(), Times: 100}); err != nil {
		t.Fatal(err)
	}
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
