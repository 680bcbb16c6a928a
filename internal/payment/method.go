// Package payment moves money through a gateway, at most once per intent.
//
// It owns: cards on file, the intent to charge one and what came of it, refunds and disputes, top-ups,
// the decision what may happen next to each; and the port to providers (Gateway).
// It does not own: when money is to be moved (billing), what it is for (invoice), how it is booked (books).
//
// Always true: an intent is committed before the provider hears of it, and its identifier is the
// provider's idempotency key; an outcome that is not known is a status, not a failure; an invoice has
// one active payment; Σ refunds and disputes of a payment never pass what it took.
package payment

import (
	"encoding/json"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/errs"
	"github.com/accrue-billing/accrue/internal/id"
)

// MethodID names a payment method.
type MethodID = id.ID[Method]

// MethodStatus is where a card on file is in its life. Before it is a card it is the intent to attach one.
type MethodStatus string

// The statuses of a payment method.
const (
	MethodProcessing     MethodStatus = "processing"      // the provider has been or will be asked
	MethodRequiresAction MethodStatus = "requires_action" // the customer must act (3-D Secure)
	MethodActive         MethodStatus = "active"          // can be charged
	MethodFailed         MethodStatus = "failed"          // the provider refused it
	MethodRemoved        MethodStatus = "removed"
)

// Method is a card on file.
type Method struct {
	ID          MethodID // the provider's idempotency key of its attachment
	Account     account.ID
	Status      MethodStatus
	Default     bool // the one that is charged; an account has at most one
	Provider    string
	ProviderRef string
	Source      string // the setup or the token that it was made from
	// CustomerRef is the provider's customer that the card is asked to be attached to, and then belongs
	// to. It is part of the intent, so that a repetition asks for the same.
	CustomerRef string
	ReturnURL   string // where the customer comes back to; part of the intent, as CustomerRef is
	SetupRef    string // the provider's setup that a customer's action belongs to
	Card        Card
	Billing     Billing
	NextAction  *NextAction // without its client secret
	Failure     *Failure
	CheckAt     time.Time // when the sweep asks the provider what became of it
	NoticedAt   time.Time // when its expiry was told
	CreatedAt   time.Time
	UpdatedAt   time.Time
	Version     int64
}

// IDPrefix makes payment method identifiers read "pm_…".
func (Method) IDPrefix() string { return "pm" }

// Pending reports whether the provider's word is still awaited.
func (m Method) Pending() bool {
	return m.Status == MethodProcessing || m.Status == MethodRequiresAction
}

// Renew takes over what the provider now has of the card. Another expiry is told of anew when its time comes.
func (m *Method) Renew(c Card) {
	if c.ExpYear != m.Card.ExpYear || c.ExpMonth != m.Card.ExpMonth {
		m.NoticedAt = time.Time{}
	}
	m.Card = c
}

// Failure is why a provider refused, kept with what was refused.
type Failure struct {
	Code    string       `json:"code"`
	Class   DeclineClass `json:"class,omitempty"`
	Advice  RetryAdvice  `json:"advice,omitempty"`
	Message string       `json:"message"` // for the customer
}

// FailureOf keeps what a decline says.
func FailureOf(d *Decline) *Failure {
	if d == nil {
		return nil
	}
	return &Failure{Code: d.Code, Class: d.Class, Advice: d.Advice, Message: d.Message}
}

// Told is what the customer is told of a failure: whoever holds a stolen card must not learn that it is known.
func (f *Failure) Told() *Failure {
	if f == nil || (f.Class != DeclineFraud && !f.Class.ForEver()) {
		return f
	}
	told := *f
	told.Class = DeclineHard
	if f.Class != DeclineBarred {
		told.Code = "generic_decline"
	}
	return &told
}

// SetupID names a setup.
type SetupID = id.ID[SavedSetup]

// SavedSetup is our record of a provider's setup. Its client secret is sent once and kept nowhere.
type SavedSetup struct {
	ID        SetupID
	Account   account.ID
	Provider  string
	Ref       string
	UsedBy    MethodID
	CreatedAt time.Time
	ExpiresAt time.Time
}

// IDPrefix makes setup identifiers read "seti_…".
func (SavedSetup) IDPrefix() string { return "seti" }

// RemovalID names a request to remove a card.
type RemovalID = id.ID[Removal]

// RemovalKind says who removes the card.
type RemovalKind string

// The kinds of removal request.
const (
	BySupport RemovalKind = "support"   // a person decides
	WhenPaid  RemovalKind = "when_paid" // by itself, once nothing is owed
)

// RemovalStatus is where a removal request stands.
type RemovalStatus string

// The statuses of a removal request.
const (
	RemovalOpen      RemovalStatus = "open"
	RemovalDone      RemovalStatus = "done"
	RemovalDeclined  RemovalStatus = "declined"
	RemovalWithdrawn RemovalStatus = "withdrawn"
)

// Removal is a customer's request to remove a card that it may not remove itself.
type Removal struct {
	ID         RemovalID
	Account    account.ID
	Method     MethodID
	Kind       RemovalKind
	Status     RemovalStatus
	Note       string
	CreatedAt  time.Time
	ResolvedAt time.Time
	ResolvedBy string
	Answer     string // of whoever resolved it, for the customer
}

// IDPrefix makes removal requests read "rmr_…".
func (Removal) IDPrefix() string { return "rmr" }

// ProviderEvent is an inbound webhook: stored before it is believed.
type ProviderEvent struct {
	Provider    string
	EventID     string
	Type        string
	Object      ObjectKind
	ObjectRef   string
	Payload     json.RawMessage
	ReceivedAt  time.Time
	ProcessedAt time.Time
	Attempts    int
	NextTryAt   time.Time
	Outcome     string
}

// Errors of the concept.
var (
	ErrMethodNotFound  = errs.New(errs.NotFound, "payment_method_not_found", "There is no such payment method.")
	ErrNoMethod        = errs.New(errs.Conflict, "no_payment_method", "The account has no active card. Add one first.")
	ErrSetupNotFound   = errs.New(errs.NotFound, "setup_not_found", "There is no such setup. Begin with POST /v1/payment-methods/setup.")
	ErrSetupUsed       = errs.New(errs.Conflict, "setup_used", "This setup has made a card already.")
	ErrRemovalNotFound = errs.New(errs.NotFound, "removal_request_not_found", "There is no such removal request.")
	ErrRemovalResolved = errs.New(errs.Conflict, "removal_request_resolved", "The removal request has been resolved otherwise.")
	ErrRemovalOpen     = errs.New(errs.Conflict, "removal_request_open", "A request to remove this card is open already.")
	ErrDeclined        = errs.New(errs.PaymentDeclined, "card_declined", "The card was declined.")
)
