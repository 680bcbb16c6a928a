package billing

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/failpoint"
	"github.com/accrue-billing/accrue/internal/id"
	"github.com/accrue-billing/accrue/internal/invoice"
	"github.com/accrue-billing/accrue/internal/outbox"
	"github.com/accrue-billing/accrue/internal/payment"
	"github.com/accrue-billing/accrue/internal/upgrade"
)

// Cards keeps the cards of an account.
type Cards struct{ *Core }

// CardSource is what the provider's card form made: exactly one of the two.
type CardSource struct {
	Setup string // of ours ("seti_…") or the provider's
	Token string
}

// Setup begins to add a card: what it returns goes to the provider's own card form. The client secret
// in it is sent once and kept nowhere.
func (c Cards) Setup(ctx context.Context, a account.ID) (saved payment.SavedSetup, setup payment.Setup, err error) {
	defer errs.Wrap(&err, "set up a card for %s", a)
	acct, err := c.DB.Accounts().Get(ctx, a)
	if err != nil {
		return saved, setup, err
	}
	if acct.Status == account.Closed {
		return saved, setup, account.ErrClosed
	}
	customer, err := c.DB.Payments().Customer(ctx, a, c.Gateway.Name())
	if err != nil {
		return saved, setup, err
	}
	// Nothing hangs on a setup until a card comes of it, so it needs no intent: its own id is its key.
	saved = payment.SavedSetup{ID: id.New[payment.SavedSetup](), Account: a, Provider: c.Gateway.Name(), CreatedAt: c.Clock()}
	setup, err = c.Gateway.CreateSetup(ctx, payment.SetupRequest{
		Key: saved.ID.String(), AccountRef: a.String(), CustomerRef: customer, ReturnURL: c.Policy.ReturnURL,
	})
	if err != nil {
		return saved, setup, err
	}
	saved.Ref, saved.ExpiresAt = setup.Ref, setup.ExpiresAt
	err = c.DB.InTx(ctx, func(tx Tx) error {
		if err := tx.Payments().SaveCustomer(ctx, a, saved.Provider, setup.CustomerRef); err != nil {
			return err
		}
		return tx.Payments().CreateSetup(ctx, saved)
	})
	return saved, setup, err
}

// NewCard is a card to be added: "Use this card".
type NewCard struct {
	CardSource
	Profile account.Profile // name, e-mail and address; becomes the billing profile when the card is good
}

// Add attaches a card: it becomes the default once, and only if, the provider has validated it. The
// result's status is active, requires_action (3-D Secure), processing or failed.
func (c Cards) Add(ctx context.Context, asked Asked, in NewCard, render Renderer[payment.Method]) (out Result[payment.Method], err error) {
	defer errs.Wrap(&err, "add card to %s", asked.Account)
	failpoint.Hit(failpoint.AddCard, failpoint.Received)
	var resumed bool
	m := c.intend(asked.Account, in.CardSource, in.Profile)
	called, err := c.commitIntent(ctx, func(tx Tx) error {
		resumed = false
		if _, err := c.lockUsable(ctx, tx, asked.Account); err != nil {
			return err
		}
		return claimed(ctx, tx, asked, m.ID.UUID(), &out, func() error {
			return c.createMethod(ctx, tx, &m, in.CardSource)
		}, func(record uuid.UUID) (err error) {
			resumed = true
			m, err = tx.Payments().Method(ctx, asked.Account, id.FromUUID[payment.Method](record))
			return err
		})
	})
	defer called()
	if err != nil || out.Replayed != nil {
		return out, err
	}
	if !resumed || m.Pending() {
		failpoint.Hit(failpoint.AddCard, failpoint.AfterTx1)
		res, callErr := c.attach(ctx, m)
		failpoint.Hit(failpoint.AddCard, failpoint.AfterGateway)
		called()
		if out.Record, err = c.settleCard(ctx, asked, m, res, callErr, render); err != nil {
			return out, err
		}
		return out, nil
	}
	err = c.DB.InTx(ctx, func(tx Tx) error { return complete(ctx, tx, asked, m, render) })
	out.Record = m
	return out, err
}

// lockUsable locks an account that is not closed.
func (c *Core) lockUsable(ctx context.Context, tx Tx, a account.ID) (account.Account, error) {
	acct, err := tx.Accounts().Lock(ctx, a)
	if err == nil && acct.Status == account.Closed {
		err = account.ErrClosed
	}
	return acct, err
}

// intend makes the record of a card that is to be attached.
func (c *Core) intend(a account.ID, src CardSource, profile account.Profile) payment.Method {
	now := c.Clock()
	m := payment.Method{
		ID: id.New[payment.Method](), Account: a, Status: payment.MethodProcessing, Provider: c.Gateway.Name(),
		Source: src.Token, Billing: billingOf(profile), ReturnURL: c.Policy.ReturnURL, CheckAt: now.Add(pause(1)), CreatedAt: now, UpdatedAt: now, Version: 1,
	}
	if src.Setup != "" {
		m.Source = src.Setup
	}
	return m
}

func billingOf(p account.Profile) payment.Billing {
	return payment.Billing{Name: p.Name, Email: p.Email, Address: payment.Address(p.Address)}
}

// createMethod commits the intent to attach a card, after the setup that it comes from was claimed for it.
func (c *Core) createMethod(ctx context.Context, tx Tx, m *payment.Method, src CardSource) error {
	if src.Setup != "" {
		s, err := tx.Payments().Setup(ctx, m.Account, src.Setup)
		if err != nil {
			return err
		}
		if err := tx.Payments().UseSetup(ctx, m.Account, s.ID, m.ID); err != nil {
			return err
		}
		m.Source, m.SetupRef = s.Ref, s.Ref
	}
	var err error
	if m.CustomerRef, err = tx.Payments().Customer(ctx, m.Account, m.Provider); err != nil {
		return err
	}
	return tx.Payments().CreateMethod(ctx, *m)
}

// attach asks the provider to attach and validate a card. It is repeated with the same key until the
// outcome is known.
func (c *Core) attach(ctx context.Context, m payment.Method) (payment.AttachResult, error) {
	req := payment.AttachRequest{
		Key: m.ID.String(), AccountRef: m.Account.String(), CustomerRef: m.CustomerRef, Billing: m.Billing, ReturnURL: m.ReturnURL,
	}
	if m.SetupRef != "" {
		req.Setup = m.SetupRef
	} else {
		req.Token = m.Source
	}
	ctx, cancel := detached(ctx)
	defer cancel()
	return c.Gateway.Attach(ctx, req)
}

// refusedToken reports whether the provider said that what the customer brought is no card for it.
func refusedToken(err error) bool {
	return errors.Is(err, payment.ErrForeignToken) || errors.Is(err, payment.ErrSetupIncomplete) ||
		errors.Is(err, payment.ErrSetupExpired) || errors.Is(err, payment.ErrMissing)
}

// usedToken returns what the provider has answered, or that the token was used where the card that it stands for is
// a card of the account already: the provider takes its own payment methods for tokens, as often as they come.
func usedToken(ctx context.Context, tx Tx, m payment.Method, res payment.AttachResult, callErr error) (answered, err error) {
	if callErr != nil || !m.Pending() || res.Outcome != payment.OutcomeSucceeded {
		return callErr, nil
	}
	at, err := tx.Payments().Locate(ctx, m.Provider, res.Method.Ref)
	switch {
	case errors.Is(err, payment.ErrNotFound):
		return nil, nil
	case err == nil && at.Method != m.ID:
		return payment.ErrForeignToken, nil
	}
	return nil, err
}

// settleCard runs the second transaction of an attachment and stores the request's answer with it.
func (c *Core) settleCard(ctx context.Context, asked Asked, intended payment.Method, res payment.AttachResult, callErr error, render Renderer[payment.Method]) (m payment.Method, err error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	err = c.DB.InTx(ctx, func(tx Tx) error {
		acct, err := tx.Accounts().Lock(ctx, intended.Account)
		if err != nil {
			return err
		}
		if m, err = tx.Payments().Method(ctx, intended.Account, intended.ID); err != nil {
			return err
		}
		if callErr, err = usedToken(ctx, tx, m, res, callErr); err != nil {
			return err
		}
		if err := c.settleMethod(ctx, tx, acct, &m, res, callErr); err != nil {
			return err
		}
		if refusedToken(callErr) {
			return nil // the caller gets the provider's error, which is not kept
		}
		defer failpoint.Hit(failpoint.AddCard, failpoint.Tx2BeforeCommit)
		return complete(ctx, tx, asked, m, render)
	})
	failpoint.Hit(failpoint.AddCard, failpoint.AfterTx2)
	if err != nil {
		return m, err
	}
	if refusedToken(callErr) {
		c.release(ctx, asked)
		return m, callErr
	}
	if m.NextAction != nil && res.NextAction != nil {
		m.NextAction = res.NextAction // with its client secret, for this answer only
	}
	return m, nil
}

// settleMethod writes down what the provider says of a card, and finishes the upgrade that waits for it.
// The account is locked; m is read under that lock.
func (c *Core) settleMethod(ctx context.Context, tx Tx, acct account.Account, m *payment.Method, res payment.AttachResult, callErr error) error {
	if !m.Pending() {
		return nil // somebody was quicker
	}
	now := acct.Now(c.Clock())
	m.UpdatedAt = now
	if res.SetupRef != "" {
		m.SetupRef = res.SetupRef
	}
	switch {
	case refusedToken(callErr):
		return c.cardFailed(ctx, tx, acct, m, &payment.Failure{Code: codeOf(callErr), Message: messageOf(callErr)}, now)
	case errors.Is(callErr, payment.ErrRejected):
		c.Log.ErrorContext(ctx, "provider rejected the attachment of a card", "payment_method", m.ID, "error", callErr)
		return c.cardFailed(ctx, tx, acct, m, &payment.Failure{Code: "processing_error", Message: "The card could not be checked. You have not been charged. Try again or contact support."}, now)
	case callErr != nil && !unknowable(callErr):
		return callErr
	case callErr != nil, res.Outcome == payment.OutcomeProcessing:
		m.CheckAt = c.Clock().Add(pause(1))
		return tx.Payments().SaveMethod(ctx, m)
	case res.Outcome == payment.OutcomeRequiresAction:
		return c.cardNeedsAction(ctx, tx, acct, m, res.NextAction, now)
	case res.Outcome == payment.OutcomeSucceeded:
		return c.cardActive(ctx, tx, acct, m, res, now)
	default:
		return c.cardFailed(ctx, tx, acct, m, payment.FailureOf(res.Decline), now)
	}
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*errs.Error](err); ok {
		return e.Code
	}
	return "failed"
}

func messageOf(err error) string {
	if e, ok := errors.AsType[*errs.Error](err); ok {
		return e.Detail
	}
	return "The card could not be used."
}

func (c *Core) cardActive(ctx context.Context, tx Tx, acct account.Account, m *payment.Method, res payment.AttachResult, now time.Time) error {
	m.Status, m.Card, m.ProviderRef, m.NextAction, m.Failure, m.CheckAt = payment.MethodActive, res.Method.Card, res.Method.Ref, nil, nil, time.Time{}
	if res.CustomerRef != "" {
		m.CustomerRef = res.CustomerRef
	}
	if acct.Status == account.Closed { // nothing will be charged any more: the sweep detaches it
		m.Status, m.CheckAt = payment.MethodRemoved, c.Clock()
		return tx.Payments().SaveMethod(ctx, m)
	}
	if err := tx.Payments().SaveCustomer(ctx, acct.ID, m.Provider, m.CustomerRef); err != nil {
		return err
	}
	if err := tx.Payments().SaveMethod(ctx, m); err != nil {
		return err
	}
	if err := tx.Payments().Remember(ctx, m.Provider, m.ProviderRef, payment.Located{Account: acct.ID, Kind: payment.RecordMethod, Method: m.ID}); err != nil {
		return err
	}
	givenUp, err := tx.Upgrades().GivenUp(ctx, acct.ID, m.ID)
	if err != nil {
		return err
	}
	if givenUp { // its holder has confirmed it, and wants nothing that it would be charged for: it is kept, no more
		return tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentMethodAdded, cardAbout(*m), now)
	}
	if err := tx.Payments().MakeDefault(ctx, acct.ID, m.ID, now); err != nil {
		return err
	}
	fresh, err := tx.Payments().Method(ctx, acct.ID, m.ID)
	if err != nil {
		return err
	}
	*m = fresh
	if m.Billing.Name != "" {
		if err := saveProfile(ctx, tx, acct.ID, m.Billing, now); err != nil {
			return err
		}
	}
	if err := tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentMethodAdded, cardAbout(*m), now); err != nil {
		return err
	}
	if err := c.newCardCollects(ctx, tx, acct, m.Card.Fingerprint, now); err != nil {
		return err
	}
	if err := c.reentitle(ctx, tx, acct); err != nil { // a card brings paid use back
		return err
	}
	u, err := tx.Upgrades().OfMethod(ctx, acct.ID, m.ID)
	if errors.Is(err, upgrade.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.completeUpgrade(ctx, tx, acct, &u, now)
}

func cardAbout(m payment.Method) map[string]any {
	return map[string]any{"payment_method": m.ID, "brand": m.Card.Brand, "last_four": m.Card.Last4}
}

// saveProfile makes what was given with a card the account's billing profile.
func saveProfile(ctx context.Context, tx Tx, a account.ID, b payment.Billing, now time.Time) error {
	p, err := tx.Accounts().Profile(ctx, a)
	if err != nil && !errors.Is(err, account.ErrNoProfile) {
		return err
	}
	p.Name, p.Email, p.Address, p.UpdatedAt = b.Name, b.Email, account.Address(b.Address), now
	return tx.Accounts().SaveProfile(ctx, a, &p)
}

// newCardCollects takes up what an old card could not pay, but not what was given or fetched back. The breaker of
// automatic top-ups closes for another card only, not for the one that has opened it, brought again.
func (c *Core) newCardCollects(ctx context.Context, tx Tx, acct account.Account, fingerprint string, now time.Time) error {
	open, err := tx.Invoices().Unpaid(ctx, acct.ID)
	if err != nil {
		return err
	}
	paying, err := tx.Payments().Paying(ctx, acct.ID)
	if err != nil {
		return err
	}
	for i := range open {
		if open[i].Dunning == invoice.Stopped || slices.Contains(paying, open[i].ID) {
			continue
		}
		if err := collectAnew(ctx, tx, acct, &open[i], now); err != nil {
			return err
		}
	}
	rule, err := tx.Wallet().AutoTopUp(ctx, acct.ID)
	if err != nil {
		return ignoreMissingRule(err)
	}
	if !rule.Tripped {
		return c.watch(ctx, tx, acct.ID) // there may have been no card to charge, or one that may not be asked
	}
	if fingerprint != "" {
		since, err := tx.Payments().Attempts(ctx, fingerprint, rule.TrippedAt)
		if err != nil || len(since) > 0 {
			return err
		}
	}
	rule.Tripped, rule.TrippedReason, rule.TrippedAt, rule.UpdatedAt = false, "", time.Time{}, now
	if err := tx.Wallet().SaveAutoTopUp(ctx, &rule); err != nil {
		return err
	}
	return c.watch(ctx, tx, acct.ID)
}

func (c *Core) cardNeedsAction(ctx context.Context, tx Tx, acct account.Account, m *payment.Method, action *payment.NextAction, now time.Time) error {
	m.Status, m.NextAction, m.CheckAt = payment.MethodRequiresAction, action, c.Clock().Add(10*time.Minute)
	if err := tx.Payments().SaveMethod(ctx, m); err != nil {
		return err
	}
	u, err := tx.Upgrades().OfMethod(ctx, acct.ID, m.ID)
	if errors.Is(err, upgrade.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if u.Status == payment.Processing {
		if err := u.Become(payment.RequiresAction, now); err != nil {
			return err
		}
		if err := tx.Outbox().Publish(ctx, acct.ID, outbox.UpgradeNeedsAction, map[string]any{"upgrade": u.ID}, now); err != nil {
			return err
		}
	}
	u.NextAction = action
	return tx.Upgrades().Save(ctx, &u)
}

func (c *Core) cardFailed(ctx context.Context, tx Tx, acct account.Account, m *payment.Method, why *payment.Failure, now time.Time) error {
	if why == nil {
		why = &payment.Failure{Code: "declined", Message: "The card was declined."}
	}
	m.Status, m.Failure, m.NextAction, m.CheckAt = payment.MethodFailed, why, nil, time.Time{}
	if err := tx.Payments().SaveMethod(ctx, m); err != nil {
		return err
	}
	if err := countCard(ctx, tx, m.Card.Fingerprint, now, why); err != nil {
		return err
	}
	u, err := tx.Upgrades().OfMethod(ctx, acct.ID, m.ID)
	if errors.Is(err, upgrade.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return failUpgrade(ctx, tx, acct, &u, payment.Failed, why, now)
}

// Confirm asks the provider how a card stands after the customer has acted, and settles it.
func (c Cards) Confirm(ctx context.Context, a account.ID, mid payment.MethodID) (payment.Method, error) {
	m, err := c.DB.Payments().Method(ctx, a, mid)
	if err != nil || !m.Pending() {
		return m, err
	}
	return c.resolveMethod(ctx, m)
}

// resolveMethod asks the provider what became of an attachment and settles it. It is what a
// confirmation, a webhook and the sweep do.
func (c *Core) resolveMethod(ctx context.Context, m payment.Method) (payment.Method, error) {
	var res payment.AttachResult
	var err error
	switch {
	case m.SetupRef != "" && m.Status == payment.MethodRequiresAction:
		cctx, cancel := detached(ctx)
		res, err = c.Gateway.ConfirmSetup(cctx, payment.ConfirmSetupRequest{Key: m.ID.String() + "/confirm", Ref: m.SetupRef, Billing: m.Billing})
		cancel()
	case c.Clock().Sub(m.CreatedAt) > payment.KeyRetention:
		// Too old to repeat with its key: whatever the provider holds was never told to be a success.
		res = payment.AttachResult{Outcome: payment.OutcomeDeclined, Decline: &payment.Decline{Code: "expired", Message: "The card was not confirmed in time. Add it again."}}
	default:
		res, err = c.attach(ctx, m)
	}
	if m.Status == payment.MethodRequiresAction && res.Outcome == payment.OutcomeRequiresAction && c.Clock().Sub(m.CreatedAt) > upgrade.Lifetime {
		res = payment.AttachResult{Outcome: payment.OutcomeDeclined, Decline: &payment.Decline{Code: "expired", Message: "The card was not confirmed in time. Add it again."}}
	}
	got, serr := c.settleCard(ctx, Asked{Account: m.Account}, m, res, err, nil)
	if serr != nil && !refusedToken(serr) {
		return got, serr
	}
	return got, nil
}

// Use makes an active card the one that is charged.
func (c Cards) Use(ctx context.Context, asked Asked, mid payment.MethodID, render Renderer[payment.Method]) (_ Result[payment.Method], err error) {
	defer errs.Wrap(&err, "use card %s", mid)
	return once(ctx, c.Core, asked, render, func(tx Tx) (payment.Method, error) {
		acct, err := c.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return payment.Method{}, err
		}
		return c.use(ctx, tx, acct, mid)
	})
}

// use makes an active card of the account the one that is charged. One that is so already stays as it is.
func (c *Core) use(ctx context.Context, tx Tx, acct account.Account, mid payment.MethodID) (payment.Method, error) {
	m, err := tx.Payments().Method(ctx, acct.ID, mid)
	switch {
	case err != nil:
		return m, err
	case m.Status != payment.MethodActive:
		return m, payment.ErrMethodNotFound
	case m.Default:
		return m, nil
	}
	_, before := tx.Payments().DefaultMethod(ctx, acct.ID)
	if before != nil && !noMethod(before) {
		return m, before
	}
	now := acct.Now(c.Clock())
	if err := tx.Payments().MakeDefault(ctx, acct.ID, mid, now); err != nil {
		return m, err
	}
	if err := tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentMethodChanged, cardAbout(m), now); err != nil {
		return m, err
	}
	if err := c.newCardCollects(ctx, tx, acct, m.Card.Fingerprint, now); err != nil {
		return m, err
	}
	if before != nil { // there was none that is charged: this one brings paid use back
		if err := c.reentitle(ctx, tx, acct); err != nil {
			return m, err
		}
	}
	return tx.Payments().Method(ctx, acct.ID, mid)
}

// changeKey names what is changed as well: where one change was refused or not answered, another may follow.
func changeKey(m payment.Method, billing payment.Billing, in CardChange) string {
	what := sha256.Sum256(fmt.Appendf(nil, "%q %d %d", billing, in.ExpMonth, in.ExpYear))
	return fmt.Sprintf("%s-v%d-%x", m.ID, m.Version, what[:8])
}

// CardChange changes a card's address or expiry. Zero fields stay as they are.
type CardChange struct {
	Version  int64 // from If-Match
	Billing  *payment.Billing
	ExpMonth int
	ExpYear  int
}

// Change edits a card's address or expiry, at the provider and here. Repeating it is harmless.
func (c Cards) Change(ctx context.Context, asked Asked, mid payment.MethodID, in CardChange) (m payment.Method, err error) {
	defer errs.Wrap(&err, "change card %s", mid)
	if m, err = c.DB.Payments().Method(ctx, asked.Account, mid); err != nil {
		return m, err
	}
	if m.Status != payment.MethodActive {
		return m, payment.ErrMethodNotFound
	}
	if m.Version != in.Version {
		return m, account.ErrStale
	}
	if in.ExpYear != 0 && (payment.Card{ExpMonth: in.ExpMonth, ExpYear: in.ExpYear}).Expired(c.Clock()) {
		return m, errs.InvalidField("#/exp_year", "in_the_past", "The card would have run out.")
	}
	billing := m.Billing
	if in.Billing != nil {
		billing = *in.Billing
	}
	cctx, cancel := detached(ctx)
	defer cancel()
	res, err := c.Gateway.UpdateBilling(cctx, payment.UpdateRequest{
		Key: changeKey(m, billing, in), CustomerRef: m.CustomerRef, MethodRef: m.ProviderRef,
		Billing: billing, ExpMonth: in.ExpMonth, ExpYear: in.ExpYear,
	})
	if err != nil {
		return m, err
	}
	overtaken := false
	err = c.DB.InTx(ctx, func(tx Tx) error {
		acct, err := c.lockUsable(ctx, tx, asked.Account)
		if err != nil {
			return err
		}
		if m, err = tx.Payments().Method(ctx, acct.ID, mid); err != nil {
			return err
		}
		if overtaken = m.Version != in.Version; overtaken {
			return nil
		}
		now := acct.Now(c.Clock())
		m.Renew(res.Card)
		m.Billing, m.UpdatedAt = billing, now
		if err := tx.Payments().SaveMethod(ctx, &m); err != nil {
			return err
		}
		return tx.Outbox().Publish(ctx, acct.ID, outbox.PaymentMethodChanged, cardAbout(m), now)
	})
	if err != nil || !overtaken {
		return m, err
	}
	// Something else has changed the card since, or the provider's event about this very change was quicker. The provider
	// has done this one too, so it cannot be refused as stale any more: what the provider has is taken over.
	if err := c.takeOver(cctx, m); err != nil {
		return m, err
	}
	if m, err = c.DB.Payments().Method(ctx, asked.Account, mid); err == nil && m.Status != payment.MethodActive {
		err = payment.ErrMethodNotFound
	}
	return m, err
}

// takeOver takes over what the provider has of a card now.
func (c *Core) takeOver(ctx context.Context, m payment.Method) error {
	o, err := c.Gateway.Fetch(ctx, payment.ObjectMethod, m.ProviderRef)
	if err == nil {
		_, err = Listener{c}.method(ctx, m.Provider, *o.Method)
	}
	return err
}
