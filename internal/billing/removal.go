package billing

import (
	"context"
	"errors"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/failpoint"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
)

// WayOut is something that a customer who may not remove a card can do instead.
type WayOut struct {
	Name   string `json:"name"`
	Method string `json:"method"`
	Href   string `json:"href"`
}

// Remove removes a card on its customer's wish. The active card is not removed: the error is a
// conflict with blockers (the outstanding amount among them) and the ways out.
func (c Cards) Remove(ctx context.Context, asked Asked, mid payment.MethodID, version int64) (err error) {
	defer errs.Wrap(&err, "remove card %s", mid)
	return c.remove(ctx, asked, mid, func(tx Tx, acct account.Account, m payment.Method) error {
		if m.Version != version {
			return account.ErrStale
		}
		f, err := c.facts(ctx, tx, acct)
		if err != nil {
			return err
		}
		blockers := f.removal(m)
		if len(blockers) == 0 {
			return nil
		}
		e := ErrActiveCard.With("blockers", blockers).With("ways_out", waysOut(f, m))
		return e.With("outstanding", f.Owed)
	})
}

func waysOut(f Facts, m payment.Method) []WayOut {
	out := []WayOut{{"replace_card", "POST", "/v1/payment-methods"}}
	switch {
	case len(f.Blockers(ActPayInvoice)) == 0:
		out = append(out, WayOut{"pay_now", "POST", payHref(f.toPay())})
	case f.Owed.Sign() > 0 && len(f.Blockers(ActTopUp)) == 0:
		out = append(out, WayOut{"add_funds", "POST", "/v1/top-ups"})
	}
	ask := "/v1/payment-methods/" + m.ID.String() + "/removal-requests"
	return append(out, WayOut{"ask_support", "POST", ask}, WayOut{"remove_when_paid", "POST", ask})
}

// RemoveByOperator removes any card. What is owed stays owed and so does the plan; paid use stops
// until there is a card again.
func (c Cards) RemoveByOperator(ctx context.Context, asked Asked, mid payment.MethodID, reason string) (err error) {
	defer errs.Wrap(&err, "remove card %s", mid)
	return c.remove(ctx, asked, mid, func(tx Tx, acct account.Account, m payment.Method) error {
		return c.auditRemoval(ctx, tx, acct, asked, mid, reason)
	})
}

func (c Cards) auditRemoval(ctx context.Context, tx Tx, acct account.Account, asked Asked, mid payment.MethodID, reason string) error {
	return tx.Accounts().Audit(ctx, acct.ID, account.Entry{
		Actor: asked.Actor, Action: "payment_method.remove", Reason: reason, Detail: detail("payment_method", mid), At: acct.Now(c.Clock()),
	})
}

// remove makes a card unusable here, and then at the provider. The removal is the committed intent: a
// call that is lost is made again by the sweep, and until then nobody charges the card.
func (c Cards) remove(ctx context.Context, asked Asked, mid payment.MethodID, allow func(tx Tx, acct account.Account, m payment.Method) error) error {
	failpoint.Hit(failpoint.RemoveCard, failpoint.Received)
	var m payment.Method
	err := c.DB.InTx(ctx, func(tx Tx) error {
		acct, err := tx.Accounts().Lock(ctx, asked.Account)
		if err != nil {
			return err
		}
		if m, err = tx.Payments().Method(ctx, acct.ID, mid); err != nil {
			return err
		}
		if m.Status != payment.MethodActive {
			return payment.ErrMethodNotFound
		}
		if err := allow(tx, acct, m); err != nil {
			return err
		}
		return c.markRemoved(ctx, tx, acct, &m, asked.Actor)
	})
	if err != nil {
		return err
	}
	failpoint.Hit(failpoint.RemoveCard, failpoint.AfterTx1)
	c.detachSoon(ctx, m)
	return nil
}

func (c *Core) markRemoved(ctx context.Context, tx Tx, acct account.Account, m *payment.Method, actor string) error {
	wasDefault := m.Default
	if err := c.dropCard(ctx, tx, acct, m, actor); err != nil {
		return err
	}
	if wasDefault {
		// Paid use needs a card: without one the limits fall back to the allowance.
		return c.reentitle(ctx, tx, acct)
	}
	return nil
}

// byProvider says that it was the provider who told us that a card is gone.
const byProvider = "provider"

// dropCard makes a card unusable and answers the requests to remove it. Unless the provider itself says
// that it is gone, it is to be detached there: now by the caller, or else by the sweep.
func (c *Core) dropCard(ctx context.Context, tx Tx, acct account.Account, m *payment.Method, actor string) error {
	now := acct.Now(c.Clock())
	m.Status, m.Default, m.UpdatedAt, m.CheckAt = payment.MethodRemoved, false, now, c.Clock()
	if actor == byProvider {
		m.CheckAt = time.Time{}
	}
	if err := tx.Payments().SaveMethod(ctx, m); err != nil {
		return err
	}
	requests, err := tx.Payments().OpenRemovals(ctx, acct.ID)
	if err != nil {
		return err
	}
	for _, r := range requests {
		if r.Method != m.ID {
			continue
		}
		r.Status, r.ResolvedAt, r.ResolvedBy = payment.RemovalDone, now, actor
		if err := tx.Payments().SaveRemoval(ctx, r); err != nil {
			return err
		}
	}
	return tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentMethodRemoved, cardAbout(*m), now)
}

// detachSoon is detach for a caller who need not wait for it: what fails here, the sweep carries on.
func (c *Core) detachSoon(ctx context.Context, m payment.Method) {
	if err := c.detach(ctx, m); err != nil {
		c.Log.WarnContext(ctx, "a removed card is not detached at the provider yet; the sweep will", "payment_method", m.ID, "error", err)
	}
}

// detach tells the provider that a card was removed, which is no error if it knows already, and notes that it was told.
func (c *Core) detach(ctx context.Context, m payment.Method) error {
	cctx, cancel := detached(ctx)
	defer cancel()
	callErr := c.Gateway.Detach(cctx, payment.DetachRequest{Key: m.ID.String() + "/detach", CustomerRef: m.CustomerRef, MethodRef: m.ProviderRef})
	failpoint.Hit(failpoint.RemoveCard, failpoint.AfterGateway)
	return errors.Join(callErr, c.DB.InTx(cctx, func(tx Tx) error {
		if _, err := tx.Accounts().Lock(cctx, m.Account); err != nil {
			return err
		}
		held, err := tx.Payments().Method(cctx, m.Account, m.ID)
		if err != nil || held.Status != payment.MethodRemoved {
			return err
		}
		held.CheckAt = time.Time{}
		if callErr != nil {
			held.CheckAt = c.Clock().Add(pause(4))
		}
		return tx.Payments().SaveMethod(cctx, &held)
	}))
}

// RequestRemoval asks for a card to be removed: by support, or by itself once nothing is owed.
func (c Cards) RequestRemoval(ctx context.Context, asked Asked, mid payment.MethodID, kind payment.RemovalKind, note string, render Renderer[payment.Removal]) (_ Result[payment.Removal], err error) {
	defer errs.Wrap(&err, "ask for the removal of card %s", mid)
	var due *payment.Method
	out, err := once(ctx, c.Core, asked, render, func(tx Tx) (payment.Removal, error) {
		due = nil
		acct, err := tx.Accounts().Lock(ctx, asked.Account)
		if err != nil {
			return payment.Removal{}, err
		}
		m, err := tx.Payments().Method(ctx, acct.ID, mid)
		if err != nil {
			return payment.Removal{}, err
		}
		if m.Status != payment.MethodActive {
			return payment.Removal{}, payment.ErrMethodNotFound
		}
		now := acct.Now(c.Clock())
		r := payment.Removal{
			ID: id.New[payment.Removal](), Account: acct.ID, Method: mid, Kind: kind, Status: payment.RemovalOpen, Note: note, CreatedAt: now,
		}
		if err := tx.Payments().CreateRemoval(ctx, r); err != nil {
			return r, err
		}
		if err := tx.Outbox().Publish(ctx, acct.ID, outbox.RemovalRequested, map[string]any{"payment_method": mid, "removal_request": r.ID, "kind": kind}, now); err != nil {
			return r, err
		}
		if kind == payment.WhenPaid && c.Policy.RemoveWhenPaid {
			f, err := c.facts(ctx, tx, acct)
			if err != nil || !f.settled() {
				return r, err
			}
			if err := c.markRemoved(ctx, tx, acct, &m, system); err != nil {
				return r, err
			}
			due = &m
			return tx.Payments().Removal(ctx, acct.ID, r.ID)
		}
		return r, nil
	})
	if err == nil && due != nil {
		c.detachSoon(ctx, *due)
	}
	return out, err
}

// removeWhenPaid grants "remove when paid" requests once nothing is owed, where the policy says so.
// It runs inside the transaction that records the payment, in which no provider may be called: the sweep
// detaches the card there.
func (c *Core) removeWhenPaid(ctx context.Context, tx Tx, acct account.Account) error {
	if !c.Policy.RemoveWhenPaid {
		return nil
	}
	open, err := tx.Payments().OpenRemovals(ctx, acct.ID)
	if err != nil || len(open) == 0 {
		return err
	}
	f, err := c.facts(ctx, tx, acct)
	if err != nil || !f.settled() {
		return err
	}
	for _, r := range open {
		if r.Kind != payment.WhenPaid {
			continue
		}
		m, err := tx.Payments().Method(ctx, acct.ID, r.Method)
		if err != nil {
			return err
		}
		if m.Status == payment.MethodActive {
			if err := c.markRemoved(ctx, tx, acct, &m, system); err != nil {
				return err
			}
		}
	}
	return nil
}

// ResolveRemoval is support's answer to a request: granted removes the card, otherwise it is declined. An answer that is
// given again changes nothing.
func (c Cards) ResolveRemoval(ctx context.Context, asked Asked, rid payment.RemovalID, grant bool, reason string) (r payment.Removal, err error) {
	defer errs.Wrap(&err, "resolve removal request %s", rid)
	want := payment.RemovalDeclined
	if grant {
		want = payment.RemovalDone
	}
	r, err = openRemoval(ctx, c.DB, asked.Account, rid)
	switch {
	case err != nil:
	case !grant:
		err = c.declineRemoval(ctx, asked, rid, reason)
	default:
		err = c.remove(ctx, asked, r.Method, func(tx Tx, acct account.Account, _ payment.Method) error {
			open, err := openRemoval(ctx, tx, acct.ID, rid)
			if err != nil {
				return err
			}
			open.Answer = reason
			if err := tx.Payments().SaveRemoval(ctx, open); err != nil { // done it is with the card
				return err
			}
			return c.auditRemoval(ctx, tx, acct, asked, open.Method, reason)
		})
	}
	now, readErr := c.DB.Payments().Removal(ctx, asked.Account, rid)
	if err == nil || (readErr == nil && now.Status == want) { // somebody else may have been quicker
		return now, readErr
	}
	return r, err
}

func (c Cards) declineRemoval(ctx context.Context, asked Asked, rid payment.RemovalID, reason string) error {
	return c.DB.InTx(ctx, func(tx Tx) error {
		acct, err := tx.Accounts().Lock(ctx, asked.Account)
		if err != nil {
			return err
		}
		r, err := openRemoval(ctx, tx, acct.ID, rid)
		if err != nil {
			return err
		}
		r.Status, r.ResolvedAt, r.ResolvedBy, r.Answer = payment.RemovalDeclined, acct.Now(c.Clock()), asked.Actor, reason
		if err := tx.Payments().SaveRemoval(ctx, r); err != nil {
			return err
		}
		return tx.Accounts().Audit(ctx, acct.ID, account.Entry{
			Actor: asked.Actor, Action: "removal_request.decline", Reason: reason, Detail: detail("removal_request", rid), At: r.ResolvedAt,
		})
	})
}

// openRemoval returns a request that nobody has answered yet. The account is locked.
func openRemoval(ctx context.Context, tx Tx, a account.ID, rid payment.RemovalID) (payment.Removal, error) {
	r, err := tx.Payments().Removal(ctx, a, rid)
	if err == nil && r.Status != payment.RemovalOpen {
		err = payment.ErrRemovalResolved.With("removal_request_status", r.Status)
	}
	return r, err
}
