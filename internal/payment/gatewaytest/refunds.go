package gatewaytest

import (
	"testing"

	"github.com/accrue-billing/accrue/internal/payment"
)

func refunds(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	_, c := a.charge(t, 1000)
	r := payment.RefundRequest{Key: unique("key"), ChargeRef: c.Ref, Amount: usd(600), RefundID: unique("rfnd")}
	first, err := h.Gateway.Refund(t.Context(), r)
	must(t, "refund", err)
	want(t, "outcome", first.Outcome, payment.OutcomeSucceeded)
	want(t, "amount", first.Amount, usd(600))
	again, err := h.Gateway.Refund(t.Context(), r)
	must(t, "repeat", err)
	want(t, "refund", again.Ref, first.Ref)
	for _, l := range []payment.RefundLookup{{Ref: first.Ref}, {ChargeRef: c.Ref, RefundID: r.RefundID}} {
		found, err := h.Gateway.LookupRefund(t.Context(), l)
		must(t, "look up", err)
		want(t, "refund looked up", found.Ref, first.Ref)
		want(t, "our name for it", found.RefundID, r.RefundID)
		want(t, "charge", found.ChargeRef, c.Ref)
	}
	_, err = h.Gateway.LookupRefund(t.Context(), payment.RefundLookup{ChargeRef: c.Ref, RefundID: "rfnd_other"})
	wantErr(t, "refund never made", err, payment.ErrMissing)

	more := payment.RefundRequest{Key: unique("key"), ChargeRef: c.Ref, Amount: usd(600), RefundID: unique("rfnd")}
	_, err = h.Gateway.Refund(t.Context(), more)
	wantErr(t, "refund beyond the charge", err, payment.ErrRefundTooLarge)
	more.Key, more.Amount = unique("key"), usd(400)
	_, err = h.Gateway.Refund(t.Context(), more)
	must(t, "refund the rest", err)
	seen, err := h.Gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: c.Ref})
	must(t, "look up charge", err)
	want(t, "refunded", seen.Refunded, usd(1000))
	want(t, "outcome", seen.Outcome, payment.OutcomeSucceeded)
}

func refundOutside(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	_, c := a.charge(t, 1000)
	h.RefundOutside(t, c.Ref, 250)
	seen, err := h.Gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: c.Ref})
	must(t, "look up charge", err)
	want(t, "refunded", seen.Refunded, usd(250))
	ours, err := h.Gateway.Refund(t.Context(), payment.RefundRequest{Key: unique("key"), ChargeRef: c.Ref, Amount: usd(100), RefundID: unique("rfnd")})
	must(t, "refund", err)
	all, err := h.Gateway.Refunds(t.Context(), c.Ref)
	must(t, "list refunds", err)
	want(t, "refunds", len(all), 2)
	want(t, "theirs, by our name", all[0].RefundID, "")
	want(t, "theirs", all[0].Amount, usd(250))
	want(t, "charge of theirs", all[0].ChargeRef, c.Ref)
	want(t, "ours, by our name", all[1].RefundID, ours.RefundID)
	want(t, "ours", all[1].Ref, ours.Ref)
}

func disputes(t *testing.T, h Harness) {
	a := attach(t, h, h.Tokens.Good)
	_, c := a.charge(t, 1000)
	ref := h.Dispute(t, c.Ref)
	o, err := h.Gateway.Fetch(t.Context(), payment.ObjectDispute, ref)
	must(t, "fetch", err)
	want(t, "charge", o.Dispute.ChargeRef, c.Ref)
	want(t, "status", o.Dispute.Status, payment.DisputeOpen)
	want(t, "withdrawn", o.Dispute.Withdrawn, true)
	want(t, "amount", o.Dispute.Amount, usd(1000))
	seen, err := h.Gateway.LookupCharge(t.Context(), payment.ChargeLookup{Ref: c.Ref})
	must(t, "look up", err)
	want(t, "disputed", seen.Disputed, true)
	_, err = h.Gateway.Refund(t.Context(), payment.RefundRequest{Key: unique("key"), ChargeRef: c.Ref, Amount: usd(100), RefundID: unique("rfnd")})
	wantErr(t, "refund of a disputed charge", err, payment.ErrRefundTooLarge)
}
