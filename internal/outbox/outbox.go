// Package outbox keeps what happened to an account, in the account's own order.
//
// It owns: the events of an account and their gap-free sequence.
// It does not own: who is told of them. Webhooks, the event stream and GET /v1/events read them here.
//
// Always true: a change of state and its event commit together; the sequence of an account has no gap.
package outbox

import (
	"context"
	"encoding/json"
	"time"

	"github.com/accrue-billing/accrue/internal/account"
	"github.com/accrue-billing/accrue/internal/id"
)

// ID names an event; receivers use it to recognise a repetition.
type ID = id.ID[Event]

// Event is one thing that happened.
type Event struct {
	ID         ID
	Account    account.ID
	Sequence   int64 // set by the store: 1, 2, 3, … without a gap
	Type       Type
	Payload    json.RawMessage // an object; never a secret, never a card number
	OccurredAt time.Time
}

// IDPrefix makes event identifiers read "evt_…".
func (Event) IDPrefix() string { return "evt" }

// Type says what happened, as "record.verb".
type Type string

// The types of event.
const (
	AccountCreated        Type = "account.created"
	AccountSuspended      Type = "account.suspended"
	AccountReinstated     Type = "account.reinstated"
	AccountClosed         Type = "account.closed"
	SubscriptionChanged   Type = "subscription.changed"
	SubscriptionUnchanged Type = "subscription.change_dropped"
	PeriodClosed          Type = "period.closed"
	PaymentMethodAdded    Type = "payment_method.added"
	PaymentMethodChanged  Type = "payment_method.changed"
	PaymentMethodRemoved  Type = "payment_method.removed"
	PaymentMethodExpires  Type = "payment_method.expiring"
	UpgradeSucceeded      Type = "upgrade.succeeded"
	UpgradeFailed         Type = "upgrade.failed"
	UpgradeNeedsAction    Type = "upgrade.requires_action"
	UpgradeCanceled       Type = "upgrade.canceled"
	TopUpSucceeded        Type = "top_up.succeeded"
	TopUpFailed           Type = "top_up.failed"
	TopUpNeedsAction      Type = "top_up.requires_action"
	AutoTopUpTripped      Type = "auto_top_up.tripped"
	PaymentSucceeded      Type = "payment.succeeded"
	PaymentFailed         Type = "payment.failed"
	PaymentNeedsAction    Type = "payment.requires_action"
	PaymentRefunded       Type = "payment.refunded"
	PaymentRefundFailed   Type = "payment.refund_failed"
	PaymentDisputed       Type = "payment.disputed"
	PaymentDisputeWon     Type = "payment.dispute_won"
	PaymentParked         Type = "payment.parked"
	InvoiceFinalized      Type = "invoice.finalized"
	InvoicePaid           Type = "invoice.paid"
	InvoiceUncollectible  Type = "invoice.uncollectible"
	InvoiceCredited       Type = "invoice.credited"
	InvoiceVoided         Type = "invoice.voided"
	CreditGranted         Type = "credit.granted"
	CreditExpired         Type = "credit.expired"
	AlertFired            Type = "alert.fired"
	SpendLimitReached     Type = "spend_limit.reached"
	UsageLimitReached     Type = "usage_limit.reached"
	InquiryReceived       Type = "sales_inquiry.received"
	InquiryChanged        Type = "sales_inquiry.changed"
	RemovalRequested      Type = "payment_method.removal_requested"
)

// Store keeps events.
type Store interface {
	// Publish writes the event with the account's next sequence. It locks the account's counters.
	Publish(ctx context.Context, a account.ID, t Type, payload any, at time.Time) error
	// After returns up to limit events with a sequence above after, ascending.
	After(ctx context.Context, a account.ID, after int64, limit int) ([]Event, error)
	// Newest returns the sequence of the newest event, 0 before the first. It returns account.ErrNotFound.
	Newest(ctx context.Context, a account.ID) (int64, error)
}
