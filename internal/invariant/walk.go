package invariant

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/cardguard"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/ledger"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/pricing"
)

// chain walks every account's transactions from the first to the one that its counters name.
func chain(ctx context.Context, src Source, _ Options) ([]string, error) {
	var out found
	err := src.Snapshot(ctx, func(r Reader) error {
		out = nil
		heads := map[account.ID]Head{}
		broken := map[account.ID]bool{} // one finding an account: all that follows a break is broken too
		for t, err := range r.Journal(ctx) {
			if err != nil {
				return err
			}
			prev := heads[t.Account]
			heads[t.Account] = Head{t.Account, t.Sequence, t.Hash}
			if broken[t.Account] {
				continue
			}
			fault := breaks(prev, t)
			broken[t.Account] = fault != ""
			if fault != "" && !out.add("%s: transaction %s %s", t.Account, t.ID, fault) {
				return nil
			}
		}
		for end, err := range r.ChainEnds(ctx) {
			if err != nil {
				return err
			}
			last := heads[end.Account]
			if last.Sequence != end.Sequence || !bytes.Equal(last.Hash, end.Hash) {
				if !out.add("%s: the chain ends with number %d, its counter says %d", end.Account, last.Sequence, end.Sequence) {
					return nil
				}
			}
		}
		return nil
	})
	return out, err
}

// breaks says how a transaction does not follow the head of its account's chain.
func breaks(prev Head, t ledger.Transaction) string {
	switch {
	case t.Sequence != prev.Sequence+1:
		return fmt.Sprintf("is number %d after number %d", t.Sequence, prev.Sequence)
	case !bytes.Equal(t.PrevHash, prev.Hash):
		return "is not chained to the one before it"
	case !t.Chained(prev.Hash):
		return "was changed: its hash does not hold"
	}
	return ""
}

// documents computes every final invoice's hash again, and every line's amount from its derivation.
func documents(ctx context.Context, src Source, _ Options) ([]string, error) {
	var out found
	err := src.Snapshot(ctx, func(r Reader) error {
		out = nil
		for c, err := range r.Contents(ctx) {
			if err != nil {
				return err
			}
			hash, err := c.Fingerprint()
			if (err != nil || hash != c.Hash) && !out.add("%s: invoice %s (%s) does not have its hash any more", c.Account, c.Invoice, c.Number) {
				return nil
			}
			for _, l := range c.Lines {
				var d pricing.Derivation
				if err := json.Unmarshal(l.Derivation, &d); err != nil || d.Kind == "" {
					continue // a line that nobody priced: its hash is all there is
				}
				amount, err := pricing.Verify(d)
				if (err != nil || amount != l.Amount) && !out.add("%s: line %d of invoice %s says %s, its derivation %s", c.Account, l.Number, c.Invoice, l.Amount, amount) {
					return nil
				}
			}
		}
		return nil
	})
	return out, err
}

// charges compares our payments with the provider's charges. The provider is asked first, so that what
// it knows is known to the state that is read afterwards; what came between the two is pending with us
// and is settled by whoever waits for it.
func charges(ctx context.Context, src Source, o Options) ([]string, error) {
	var out found
	now := o.Clock()
	from := o.Since
	if from.IsZero() {
		from = time.Unix(0, 0).UTC()
	}
	theirs := map[payment.ID]payment.ChargeResult{}
	for c, err := range o.Gateway.ListCharges(ctx, from, now.Add(24*time.Hour)) {
		if err != nil {
			return nil, fmt.Errorf("list the provider's charges: %w", err)
		}
		ours, err := id.Parse[payment.Payment](c.PaymentRef)
		if err != nil {
			continue // not made by this service
		}
		if twin, ok := theirs[ours]; ok && twin.Outcome == payment.OutcomeSucceeded && c.Outcome == payment.OutcomeSucceeded {
			out.add("payment %s was charged twice: %s and %s", ours, twin.Ref, c.Ref)
		}
		if twin, ok := theirs[ours]; !ok || twin.Outcome != payment.OutcomeSucceeded {
			theirs[ours] = c
		}
	}
	err := src.Snapshot(ctx, func(r Reader) error {
		for p, err := range r.Payments(ctx, o.Gateway.Name(), from) {
			if err != nil {
				return err
			}
			c, known := theirs[p.ID]
			delete(theirs, p.ID)
			finding, err := compare(ctx, o.Gateway, p, c, known, now)
			if err != nil {
				return err
			}
			if finding != "" && !out.add("%s: payment %s %s", p.Account, p.ID, finding) {
				return nil
			}
		}
		for ours, c := range theirs {
			// What a restored backup does not know may have been given back since.
			if c.Kept() && !out.add("the provider took %s as %s for payment %s, which is not ours", c.Amount, c.Ref, ours) {
				return nil
			}
		}
		return nil
	})
	return out, err
}

// onTheWay is how long the provider's word of a refund that somebody made there may take to be in the books.
const onTheWay = time.Hour

// compare says in which way a payment and the provider's charge for it differ.
func compare(ctx context.Context, g payment.Gateway, p payment.Payment, c payment.ChargeResult, known bool, now time.Time) (string, error) {
	took := known && c.Outcome == payment.OutcomeSucceeded
	switch p.Status {
	case payment.Succeeded:
		if !took { // the list may be older than the charge: ask for this one
			var err error
			c, err = g.LookupCharge(ctx, payment.ChargeLookup{Ref: p.ProviderRef, PaymentRef: p.ID.String(), Since: p.CreatedAt})
			if errors.Is(err, payment.ErrMissing) {
				return "has succeeded, and the provider has no charge for it", nil
			}
			if err != nil {
				return "", fmt.Errorf("look up %s: %w", p.ID, err)
			}
			if c.Outcome != payment.OutcomeSucceeded {
				return fmt.Sprintf("has succeeded, and the provider's charge is %s", c.Outcome), nil
			}
		}
		if c.Amount != p.Amount {
			return fmt.Sprintf("is over %s, the provider took %s", p.Amount, c.Amount), nil
		}
		if p.ProviderRef != "" && p.ProviderRef != c.Ref {
			return fmt.Sprintf("is charge %s with us and %s at the provider", p.ProviderRef, c.Ref), nil
		}
		if c.Refunded.Minor > p.Refunded.Minor {
			told, err := refundedBefore(ctx, g, c, now.Add(-onTheWay))
			if err != nil || told <= p.Refunded.Minor {
				return "", err
			}
			return fmt.Sprintf("had %s given back at the provider, and %s in the books", c.Refunded, p.Refunded), nil
		}
	case payment.Failed, payment.Canceled:
		if c.Kept() { // what was parked may have been given back as a whole
			return fmt.Sprintf("is %s, and the provider took %s", p.Status, c.Amount), nil
		}
	case payment.Processing, payment.RequiresAction, payment.Parked: // its outcome is being looked into
	}
	return "", nil
}

// refundedBefore is how much of a charge was given back by refunds that were made until a time.
func refundedBefore(ctx context.Context, g payment.Gateway, c payment.ChargeResult, until time.Time) (minor int64, err error) {
	refunds, err := g.Refunds(ctx, c.Ref)
	if err != nil {
		return 0, fmt.Errorf("list the refunds of %s: %w", c.Ref, err)
	}
	for _, r := range refunds {
		if r.Outcome == payment.OutcomeSucceeded && !r.CreatedAt.After(until) {
			minor += r.Amount.Minor
		}
	}
	return minor, nil
}

// cards looks for card numbers in everything that is stored. A finding names the place and not the number.
func cards(ctx context.Context, src Source, _ Options) ([]string, error) {
	var out found
	err := src.Snapshot(ctx, func(r Reader) error {
		out = nil
		for t, err := range r.Texts(ctx) {
			if err != nil {
				return err
			}
			if holdsCard(t) && !out.add("%s holds a card number", t.Where) {
				return nil
			}
		}
		return nil
	})
	return out, err
}

func holdsCard(t Text) bool {
	if !t.JSON {
		return cardguard.HasNumber(t.Value)
	}
	dec := json.NewDecoder(strings.NewReader(t.Value))
	dec.UseNumber()
	var doc any
	if err := dec.Decode(&doc); err != nil {
		return cardguard.HasNumber(t.Value)
	}
	return jsonHoldsCard("", doc)
}

func jsonHoldsCard(name string, v any) bool {
	switch v := v.(type) {
	case string:
		return !Identifier(name) && cardguard.HasNumber(v)
	case json.Number:
		return !Identifier(name) && cardguard.HasNumber(v.String())
	case []any:
		for _, e := range v {
			if jsonHoldsCard(name, e) {
				return true
			}
		}
	case map[string]any:
		for n, e := range v {
			if cardguard.HasNumber(n) || jsonHoldsCard(n, e) {
				return true
			}
		}
	}
	return false
}

// Identifier reports whether a column or a member of this name holds an identifier. One random number
// of 16 digits in forty looks like a card's, so identifiers are not searched.
func Identifier(name string) bool { return name == "id" || strings.HasSuffix(name, "_id") }
