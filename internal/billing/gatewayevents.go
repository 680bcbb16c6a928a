package billing

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/books"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
)

// Listener takes in what providers tell.
type Listener struct{ *Core }

// Receive verifies and stores an inbound webhook. Nothing is read from it before its sender is known,
// and nothing is believed of it: it is a nudge to ask for the object's present state. One that tells what is
// settled already is stored as done with. It reports whether the event is new.
func (l Listener) Receive(ctx context.Context, header map[string][]string, body []byte) (e payment.ProviderEvent, fresh bool, err error) {
	defer errs.Wrap(&err, "receive gateway event")
	now := l.Clock()
	ev, err := l.Gateway.VerifyEvent(header, body, now)
	if err != nil {
		return e, false, err
	}
	e = payment.ProviderEvent{
		Provider: l.Gateway.Name(), EventID: ev.ID, Type: ev.Type, Object: ev.Object, ObjectRef: ev.Ref,
		Payload: body, ReceivedAt: now, NextTryAt: now,
	}
	err = l.DB.InTxOf(ctx, Start{}, func(tx Tx) error {
		stored := e
		if ev.Succeeded {
			known, err := l.hasSucceeded(ctx, tx, ev.Ref)
			if err != nil {
				return err
			}
			if known {
				stored = l.processed(e, settled)
			}
		}
		fresh, err = tx.Payments().SaveEvent(ctx, stored)
		if err == nil {
			e = stored
		}
		return err
	})
	return e, fresh, err
}

// hasSucceeded reports whether the payment of a charge is known to have succeeded, which is final.
func (l Listener) hasSucceeded(ctx context.Context, tx Tx, charge string) (bool, error) {
	at, err := tx.Payments().Locate(ctx, l.Gateway.Name(), charge)
	if errors.Is(err, payment.ErrNotFound) || (err == nil && at.Kind != payment.RecordPayment) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	p, err := tx.Payments().Payment(ctx, at.Account, at.Payment)
	return p.Status == payment.Succeeded, err
}

// Process acts on a stored event: it fetches what the event is about and settles it as a request or
// the sweep would. An object that we do not know (yet) is tried again, with growing pauses.
func (l Listener) Process(ctx context.Context, provider, eventID string) (err error) {
	defer errs.Wrap(&err, "process gateway event %s", eventID)
	var e payment.ProviderEvent
	if err := l.DB.InTx(ctx, func(tx Tx) error {
		var err error
		e, err = tx.Payments().LockEvent(ctx, provider, eventID)
		return err
	}); err != nil || !e.ProcessedAt.IsZero() {
		return err
	}
	return l.process(ctx, e)
}

// ProcessFresh is Process for an event that Receive has just stored.
func (l Listener) ProcessFresh(ctx context.Context, e payment.ProviderEvent) (err error) {
	defer errs.Wrap(&err, "process gateway event %s", e.EventID)
	if !e.ProcessedAt.IsZero() {
		return nil
	}
	return l.process(ctx, e)
}

func (l Listener) process(ctx context.Context, e payment.ProviderEvent) (err error) {
	outcome, kept, err := l.act(ctx, e)
	if err == nil && kept {
		return nil
	}
	e = l.processed(e, outcome)
	switch {
	case err == nil:
	case e.Attempts >= maxEventTries && errs.KindOf(err) == errs.NotFound:
		l.Log.ErrorContext(ctx, "gateway event given up", "event", e.EventID, "type", e.Type, "error", err)
		e.Outcome = "given_up"
	default:
		e.ProcessedAt, e.NextTryAt, e.Outcome = time.Time{}, l.Clock().Add(pause(e.Attempts)), "to_be_tried_again"
	}
	if werr := l.DB.Payments().UpdateEvent(ctx, e); werr != nil {
		return werr
	}
	if err != nil && !errors.Is(err, payment.ErrNotFound) && !errors.Is(err, errTooEarly) && !unknowable(err) {
		return err
	}
	return nil
}

// processed is the event after it has been acted on.
func (l Listener) processed(e payment.ProviderEvent, outcome string) payment.ProviderEvent {
	e.Attempts++
	e.ProcessedAt, e.NextTryAt, e.Outcome = l.Clock(), time.Time{}, outcome
	return e
}

// maxEventTries is how often the object of an event is looked for. Only what is not there is given up: a provider
// that is away, or refuses our key, for a day must not cost us a dispute, which nobody else asks for.
const maxEventTries = 12

// notOurs is the outcome of an event about something that we did not ask for.
const notOurs = "not_ours"

const (
	settled = "settled"
	ignored = "ignored"
)

// act does what an event is the occasion for. It reports whether the outcome was written with that, as the event's.
func (l Listener) act(ctx context.Context, e payment.ProviderEvent) (outcome string, kept bool, err error) {
	if e.Object == payment.ObjectOther || e.ObjectRef == "" {
		return ignored, false, nil
	}
	cctx, cancel := detached(ctx)
	defer cancel()
	o, err := l.Gateway.Fetch(cctx, e.Object, e.ObjectRef)
	if err != nil {
		return "", false, err
	}
	switch outcome = ignored; {
	case o.Charge != nil:
		outcome, err = l.charge(ctx, *o.Charge, func(tx Tx) error { return tx.Payments().UpdateEvent(ctx, l.processed(e, settled)) })
		kept = outcome == settled
	case o.Refund != nil:
		outcome, err = l.refund(ctx, *o.Refund)
	case o.Dispute != nil:
		outcome, err = l.dispute(ctx, e.Provider, *o.Dispute)
	case o.Method != nil:
		outcome, err = l.method(ctx, e.Provider, *o.Method)
	case o.Setup != nil:
		outcome, err = l.setup(ctx, *o.Setup)
	}
	return outcome, kept, err
}

// nothing is what goes with a settlement of which nobody keeps more.
func nothing(Tx) error { return nil }

// charge settles the payment that a charge belongs to with what has been given back of it, and runs with in the same
// transaction. The charge names its payment by the reference that we gave, so an event that overtakes our own call finds
// it too. The refunds are those that the event is about: where the charge has any, all of them are asked for.
func (l Listener) charge(ctx context.Context, res payment.ChargeResult, with func(tx Tx) error, refunds ...payment.RefundResult) (string, error) {
	a, err := id.Parse[account.Account](res.AccountRef)
	if err != nil {
		return notOurs, nil // the provider's account may serve others as well
	}
	pid, err := id.Parse[payment.Payment](res.PaymentRef)
	if err != nil {
		return notOurs, nil // as above
	}
	if !res.Refunded.IsZero() {
		cctx, cancel := detached(ctx)
		defer cancel()
		if refunds, err = l.Gateway.Refunds(cctx, res.Ref); err != nil {
			return "", err
		}
	}
	waits := false
	then := func(tx Tx, p payment.Payment) (err error) {
		if waits, err = l.refunded(ctx, tx, p, refunds); err != nil || waits {
			return err
		}
		return with(tx)
	}
	known := payment.Payment{Account: a, ID: pid}
	if res.Outcome == payment.OutcomeDeclined {
		// The customer who did not pass the bank's question may be able to go on at the provider. Confirming ends that.
		if known, err = l.DB.Payments().Payment(ctx, a, pid); err != nil {
			return "", err
		}
		if known.Status == payment.RequiresAction {
			_, err = l.resolvePayment(ctx, known, then)
			return settled, err
		}
	}
	if _, err = l.settleCharge(ctx, known, res, nil, then); err == nil && waits {
		err = errTooEarly
	}
	return settled, err
}

// errTooEarly says that something else must be known first: what becomes of a refund of ours that is on its way and has set
// aside what is gone at the provider, or of a payment that is parked.
var errTooEarly = errors.New("what becomes of the payment, or of a refund of it, must be known first")

// refunded writes down how the refunds of a payment stand at the provider: ours, and those that somebody made there,
// each of which is told apart by its reference. It reports whether one of them has to wait.
func (l Listener) refunded(ctx context.Context, tx Tx, p payment.Payment, refunds []payment.RefundResult) (waits bool, err error) {
	if len(refunds) == 0 || p.Status != payment.Succeeded {
		return false, nil
	}
	acct, err := tx.Accounts().Get(ctx, p.Account)
	if err != nil {
		return false, err
	}
	known, err := tx.Payments().RefundsOf(ctx, p.Account, p.ID)
	if err != nil {
		return false, err
	}
	var others []payment.RefundResult
	for _, res := range refunds {
		at := slices.IndexFunc(known, func(r payment.Refund) bool {
			// One that we gave up, and that was made after all, is written down as one more.
			givenUp := r.Status == payment.Failed && res.Outcome != payment.OutcomeDeclined
			return r.ProviderRef == res.Ref || (r.ID.String() == res.RefundID && !givenUp)
		})
		if at < 0 {
			others = append(others, res)
		} else if err := l.writeRefund(ctx, tx, acct, &p, &known[at], res); err != nil {
			return false, err
		}
	}
	for _, res := range others { // after ours: one that has failed leaves more
		failed := res.Outcome == payment.OutcomeDeclined
		if !failed && res.Amount.Minor > p.Refundable().Minor {
			waits = true
		} else if err := l.outsideRefund(ctx, tx, acct, &p, res, failed); err != nil {
			return false, err
		}
	}
	return waits, nil
}

// outsideRefund writes down a refund that somebody made at the provider itself. One that has failed before we knew of it
// takes nothing, and is kept: an older word of it may yet come.
func (l Listener) outsideRefund(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, res payment.RefundResult, failed bool) error {
	now := acct.Now(l.Clock())
	ref := payment.Refund{
		ID: id.New[payment.Refund](), Account: p.Account, Payment: p.ID, Amount: res.Amount, Status: payment.Processing, Origin: payment.ByProvider,
		Reason: "refunded at the provider", Actor: "provider", CheckAt: l.Clock().Add(pause(1)), CreatedAt: l.Clock(), UpdatedAt: now,
	}
	if failed {
		ref.Status, ref.ProviderRef, ref.CheckAt = payment.Failed, res.Ref, time.Time{}
		if err := tx.Payments().CreateRefund(ctx, ref); err != nil {
			return err
		}
		return tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentRefundFailed, aboutRefund(ref), now)
	}
	p.Refunded.Minor += ref.Amount.Minor
	if err := tx.Payments().SavePayment(ctx, p); err != nil {
		return err
	}
	if err := tx.Payments().CreateRefund(ctx, ref); err != nil {
		return err
	}
	if err := l.takenBack(ctx, tx, acct, p, ref.Amount, books.Refund, l.fact(acct, ref.ID.String(), "Refund", now)); err != nil {
		return err
	}
	if err := l.keepGivenBack(ctx, tx, acct, ref, p.Method, now); err != nil {
		return err
	}
	return l.writeRefund(ctx, tx, acct, p, &ref, res)
}

// refund settles the charge that a refund belongs to, with all that was given back of it.
func (l Listener) refund(ctx context.Context, res payment.RefundResult) (string, error) {
	if res.ChargeRef == "" {
		return notOurs, nil // every charge of ours has a name
	}
	cctx, cancel := detached(ctx)
	defer cancel()
	charge, err := l.Gateway.LookupCharge(cctx, payment.ChargeLookup{Ref: res.ChargeRef})
	if err != nil {
		return "", err
	}
	return l.charge(ctx, charge, nothing, res)
}

// dispute books a payment that the customer's bank took back, and its return if the dispute is won. A
// lost one needs no entry: the money stays gone and what it had paid for stays owed.
func (l Listener) dispute(ctx context.Context, provider string, res payment.DisputeResult) (string, error) {
	if res.ChargeRef == "" {
		return notOurs, nil // every charge of ours has a name
	}
	// The charge first: the event may have overtaken those of the charge and of its refunds, and what a
	// dispute takes is what they have left.
	cctx, cancel := detached(ctx)
	defer cancel()
	ch, err := l.Gateway.LookupCharge(cctx, payment.ChargeLookup{Ref: res.ChargeRef})
	if err != nil {
		return "", err
	}
	if said, err := l.charge(ctx, ch, nothing); err != nil || said == notOurs {
		return said, err
	}
	at, err := l.DB.Payments().Locate(ctx, provider, res.ChargeRef)
	if err != nil {
		return "", err
	}
	err = l.DB.InTx(ctx, func(tx Tx) error {
		acct, err := tx.Accounts().Lock(ctx, at.Account)
		if err != nil {
			return err
		}
		p, err := tx.Payments().LockPayment(ctx, at.Account, at.Payment)
		if err != nil {
			return err
		}
		if p.Status == payment.Parked {
			return errTooEarly
		}
		return l.writeDispute(ctx, tx, acct, &p, res)
	})
	return settled, err
}

// writeDispute writes down how a dispute stands, with what it takes and gives.
func (l Listener) writeDispute(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, res payment.DisputeResult) error {
	d, err := tx.Payments().DisputeByRef(ctx, acct.ID, res.Ref)
	if errors.Is(err, payment.ErrNotFound) {
		if res.Status == payment.DisputeOpen && !res.Withdrawn {
			return nil // the bank only asks; if it takes the money, it is told again
		}
		if d, err = l.openDispute(ctx, tx, acct, p, res); err == nil && d.Amount.IsZero() {
			return nil // nothing was left to take
		}
	}
	if err != nil {
		return err
	}
	now := acct.Now(l.Clock())
	// Banks reverse themselves: one that was lost may be won after all.
	if d.Status != payment.DisputeWon && res.Status == payment.DisputeWon {
		p.Disputed.Minor -= d.Amount.Minor
		if err := tx.Payments().SavePayment(ctx, p); err != nil {
			return err
		}
		if err := l.cameBack(ctx, tx, acct, p, d.Amount, books.DisputeWon, l.fact(acct, d.ID.String(), "Dispute won", now)); err != nil {
			return err
		}
		if err := tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentDisputeWon, map[string]any{"payment": p.ID, "dispute": d.ID, "amount": d.Amount}, now); err != nil {
			return err
		}
	}
	if d.Status == payment.DisputeOpen || res.Status == payment.DisputeWon {
		d.Status = res.Status
	}
	d.UpdatedAt = now
	return tx.Payments().SaveDispute(ctx, d)
}

// openDispute books what the bank takes: the amount, or what refunds have left of it.
func (l Listener) openDispute(ctx context.Context, tx Tx, acct account.Account, p *payment.Payment, res payment.DisputeResult) (payment.Dispute, error) {
	now := acct.Now(l.Clock())
	d := payment.Dispute{
		ID: id.New[payment.Dispute](), Account: acct.ID, Payment: p.ID, ProviderRef: res.Ref, Amount: res.Amount,
		Status: payment.DisputeOpen, Reason: res.Reason, CreatedAt: now,
	}
	if p.Refundable().Minor < d.Amount.Minor { // a part was refunded before
		refunds, err := tx.Payments().RefundsOf(ctx, acct.ID, p.ID)
		if err != nil {
			return d, err
		}
		if slices.ContainsFunc(refunds, func(r payment.Refund) bool { return r.Status == payment.Processing }) {
			return d, errTooEarly
		}
		d.Amount = p.Refundable()
	}
	if d.Amount.IsZero() {
		return d, nil
	}
	p.Disputed.Minor += d.Amount.Minor
	if err := tx.Payments().SavePayment(ctx, p); err != nil {
		return d, err
	}
	if err := l.takenBack(ctx, tx, acct, p, d.Amount, books.DisputeOpened, l.fact(acct, d.ID.String(), "Payment disputed", now)); err != nil {
		return d, err
	}
	// Nor is the gap that it leaves filled by itself.
	if err := trip(ctx, tx, acct, p.Method, "disputed", map[string]any{"dispute": d.ID}, now); err != nil {
		return d, err
	}
	return d, tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentDisputed, map[string]any{"payment": p.ID, "dispute": d.ID, "amount": d.Amount}, now)
}

// method takes over what the provider knows better of a card: a new expiry, or that it is gone.
func (l Listener) method(ctx context.Context, provider string, res payment.MethodResult) (string, error) {
	at, err := l.DB.Payments().Locate(ctx, provider, res.Ref)
	if errors.Is(err, payment.ErrNotFound) {
		return notOurs, nil
	}
	if err != nil {
		return "", err
	}
	err = l.DB.InTx(ctx, func(tx Tx) error {
		acct, err := tx.Accounts().Lock(ctx, at.Account)
		if err != nil {
			return err
		}
		m, err := tx.Payments().Method(ctx, acct.ID, at.Method)
		if err != nil || m.Status != payment.MethodActive {
			return err
		}
		if res.CustomerRef == "" {
			return l.markRemoved(ctx, tx, acct, &m, byProvider)
		}
		if m.Card == res.Card && m.Billing == res.Billing {
			return nil
		}
		now := acct.Now(l.Clock())
		m.Renew(res.Card)
		m.Billing, m.UpdatedAt = res.Billing, now
		if err := tx.Payments().SaveMethod(ctx, &m); err != nil {
			return err
		}
		return tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentMethodChanged, cardAbout(m), now)
	})
	return settled, err
}

// setup settles the card that waits for a setup, if one does.
func (l Listener) setup(ctx context.Context, res payment.Setup) (string, error) {
	a, err := id.Parse[account.Account](res.AccountRef)
	if err != nil {
		return notOurs, nil //nolint:nilerr // the provider's account may serve others as well
	}
	m, err := l.cardOf(ctx, a, res.Ref)
	switch {
	case errors.Is(err, payment.ErrMethodNotFound):
		return ignored, nil // nobody has said "use this card" yet
	case err != nil:
		return "", err
	case !m.Pending():
		return settled, nil
	}
	_, err = l.resolveMethod(ctx, m)
	return settled, err
}

// cardOf returns the card that a setup is for: the one that has used it, or that the provider made it for when we
// brought a token.
func (l Listener) cardOf(ctx context.Context, a account.ID, setupRef string) (payment.Method, error) {
	s, err := l.DB.Payments().Setup(ctx, a, setupRef)
	switch {
	case err == nil && s.UsedBy.IsZero():
		return payment.Method{}, payment.ErrMethodNotFound
	case err == nil:
		return l.DB.Payments().Method(ctx, a, s.UsedBy)
	case !errors.Is(err, payment.ErrSetupNotFound):
		return payment.Method{}, err
	}
	held, err := l.DB.Payments().Methods(ctx, a)
	if err != nil {
		return payment.Method{}, err
	}
	at := slices.IndexFunc(held, func(m payment.Method) bool { return m.SetupRef == setupRef })
	if at < 0 {
		return payment.Method{}, payment.ErrMethodNotFound
	}
	return held[at], nil
}
